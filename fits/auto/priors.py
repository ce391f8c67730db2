"""What is expected of a law and its discrepancy before the runs are seen, and the grid they are
tried on.
"""

import numpy as np

from fits.forms.law import Law, Parameter

# Normal priors of the logarithm of each parameter: mean, standard deviation, source. E, and A and B
# at the centre of the runs, are relative to the lowest loss of the runs. On public sweeps other
# widths (0.3 to 0.7 for the exponents) moved the error by about a tenth of itself. E's matters
# most: 0.5 instead of 0.2, without WIDE, raised it by 10 to 35 % when predicting 32 times the
# compute. An outer exponent about 1 instead of 0.5 takes the runs' curvature for a floor: 10 %.
PRIORS: dict[str, tuple[float, float, str]] = {
    "alpha": (
        float(np.log(0.6)),
        0.45,
        "0.3 times an outer exponent of 0.5; 0.18 to 0.72 in fits and refits of public sweeps "
        "without one: Chinchilla, Muennighoff, Gadre, MiniCPM, OLMo, Llama 3, Marin",
    ),
    "beta": (float(np.log(0.6)), 0.45, "the same, 0.12 to 0.71"),
    "gamma": (
        float(np.log(0.5)),
        0.4,
        "1 in 2203.15556, 0.1 in Kaplan's joint form (2001.08361), between them in 2608.07222",
    ),
    "E": (
        float(np.log(0.7)),
        0.2,
        "E over the lowest loss of the runs: 0.65 to 0.93 in published fits, less in cheaper runs",
    ),
    "A": (float(np.log(0.3)), 10.0, "flat: inside an outer exponent it has no unit of its own"),
    "B": (float(np.log(0.3)), 10.0, "the same"),
}
# of the discrepancy, in e-folds of N or D: half, once and twice the usual span of a sweep (2 to 3
# decades)
LENGTHS = (3.0, 6.0, 12.0)
LENGTH_PRIOR = (float(np.log(6.0)), 0.7)  # of log length
# standard deviation of the discrepancy over that of the noise; 0 is the law alone
RATIOS = (0.0, 1.0, 3.0, 10.0, 30.0)
# half-normal prior of the discrepancy's standard deviation: the best error of extrapolated public
# families (2410.11840)
SIZE = 0.04
# the discrepancy falls as C^-DECAY, as the reducible loss: alpha beta/(alpha + beta) = 0.155
# (2203.15556), 0.178 (2404.10102)
DECAY = 0.17
# reruns of one cell spread by 0.0005 to 0.004 (2507.02119, 2502.18969): counts as this many runs
NOISE = (0.003, 2.0)
# a second width of E's prior and its probability (1 in 20): the losses of tiny models lie far above
# E
WIDE = (0.6, 0.05)
# What is not known of the form, apart from what the runs say: a standard deviation of log loss that
# grows with the e-folds (of compute, N, D or D/N, whichever is most) between the runs and a new
# one, DOUBT[0] each, and LEAST_REACH e-folds near them. The runs' own word is shrunk towards it:
# share DOUBT[1] of the logarithm of the variance. Both by the least interval score over nine
# families of public sweeps at K = 2 to 64 (`scripts/extrapolation_widths.py`); without any one
# family 0.0019 to 0.0035 and 0.21 to 0.41.
DOUBT = (0.0028, 0.26)
LEAST_REACH = 0.3
# What lies between the runs and a new one is SCALE times that: at 1 the dear runs of a family that
# had no part in setting DOUBT were held to 83 % at K = 32, at 1.15 to 93 %. SCALE itself was chosen
# with all nine families in sight.
SCALE = 1.15


def searched_in_logs(q: Parameter) -> bool:
    """A parameter that cannot be negative."""
    return q.low >= 0


def prior_of(law: type[Law]) -> dict[str, tuple[float, float]]:
    """Mean and standard deviation by parameter, of its logarithm where it is `searched_in_logs`:
    PRIORS, whose alpha and beta are times the outer exponent where the law has none; of others the
    middle of its bounds and a quarter of their width, as in 2604.22753's own code.
    """
    outer = 0.0 if "gamma" in law.names() else PRIORS["gamma"][0]
    found = {}
    for q in law.parameters:
        if q.name in PRIORS:
            mean, sd, _ = PRIORS[q.name]
            found[q.name] = mean + (outer if q.name in ("alpha", "beta") else 0.0), sd
            continue
        low, high = (np.log(v) if searched_in_logs(q) else v for v in (q.low, q.high))
        found[q.name] = float((low + high) / 2), float((high - low) / 4)
    return found
