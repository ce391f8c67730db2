"""Batch size: the best one, the critical one, and what a batch buys in time. All batches in tokens
a step.
"""

from fits.batch.best import BestBatch, best_batch, fit_best_batch
from fits.batch.critical import (
    Critical,
    CriticalBatch,
    CriticalBatchLoss,
    fit_critical_batch,
    gradient_noise,
    hyperbola,
    iso_loss,
)
from fits.batch.plans import Plan, pareto
from fits.laws import Law

LAWS: tuple[type[Law], ...] = (CriticalBatch, CriticalBatchLoss)

__all__ = [
    "LAWS",
    "BestBatch",
    "Critical",
    "CriticalBatch",
    "CriticalBatchLoss",
    "Plan",
    "best_batch",
    "fit_best_batch",
    "fit_critical_batch",
    "gradient_noise",
    "hyperbola",
    "iso_loss",
    "pareto",
]
