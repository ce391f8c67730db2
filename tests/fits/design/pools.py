"""Pools with a planted law."""

import numpy as np
import pandas as pd

from fits.design.pool import Pool, cost_of, forms_for, joined
from fits.forms import catalogue
from tests.fits.runs import EPOCH

NOISE = 0.003
TARGET = {"params": 2e10, "tokens": 4e11}


def grid(seed: int = 0) -> pd.DataFrame:
    """Runs of a Chinchilla law: 9 sizes, 9 lengths, 5 decades of compute."""
    n, d = np.meshgrid(np.geomspace(5e7, 3e9, 9), np.geomspace(1e9, 2e11, 9))
    x = {"params": n.ravel(), "tokens": d.ravel()}
    noise = NOISE * np.random.default_rng(seed).standard_normal(n.size)
    return pd.DataFrame(
        {**x, "loss": catalogue.law("chinchilla").predict(EPOCH, x) * np.exp(noise)}
    )


def at_target() -> pd.DataFrame:
    x = {name: np.array([value]) for name, value in TARGET.items()}
    return pd.DataFrame({**x, "loss": catalogue.law("chinchilla").predict(EPOCH, x)})


def planted(seed: int = 0, at_hand: int = 0) -> Pool:
    """All of the grid but the cheapest `at_hand`, which are known, as candidates."""
    frame = grid(seed)
    order = np.argsort(cost_of(frame), kind="stable")
    own, rest = frame.iloc[order[:at_hand]], frame.iloc[order[at_hand:]]
    parts = {"candidates": rest, "at_hand": own, "targets": at_target()}
    return joined(forms_for(["params", "tokens"]), parts, cost_of(rest))
