"""The report's figures. Panels of one page share their y range; the page shows each as its own SVG,
side by side or one below the other.
"""

from fits.report.plots.law import law_figure, law_panels
from fits.report.plots.sweeps import transfer_figure, transfer_panels

__all__ = ["law_figure", "law_panels", "transfer_figure", "transfer_panels"]
