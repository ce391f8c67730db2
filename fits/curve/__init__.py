"""Laws of the loss along training: any size, step and batch; any schedule; the collapse of
normalised curves.
"""

from fits.curve import collapse, schedules, trajectory
from fits.laws import Law

LAWS: tuple[type[Law], ...] = (trajectory.Trajectory, *schedules.LAWS, *collapse.LAWS)
