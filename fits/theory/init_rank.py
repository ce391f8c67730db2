"""The rank of the weights at the start and the regime of training (2310.08513): at one norm a low
rank makes the tangent kernel turn more (rich), unless it is aligned with the task (lazy).

Two linear layers, f = w2 W1 x with W1 [N, I], trained to convergence by gradient descent on a
linear task of one output; inputs are white.
"""

import numpy as np

from fits.forms.law import Array
from ground.claims import Claim, Model, Outcome, Panel

INPUTS, WIDTH, TASKS = 16, 64, 40
RANKS = np.array([1, 2, 4, 8, 16])
NORM = 2.0  # of W1
STEPS, LR = 600, 0.02


def start(rank: int, rng: np.random.Generator, along: Array | None = None) -> Array:
    """W1 of a rank and of norm NORM; its rows span `along` where given."""
    rows = rng.standard_normal((rank, INPUTS)) if along is None else along[None]
    w_NI = rng.standard_normal((WIDTH, len(rows))) @ np.linalg.qr(rows.T)[0].T
    return NORM * w_NI / np.linalg.norm(w_NI)


def kernel(w_NI: Array, v_N: Array) -> Array:
    """The tangent kernel as a form on inputs, [I, I]."""
    return v_N @ v_N * np.eye(INPUTS) + w_NI.T @ w_NI


def turned(w_NI: Array, task_I: Array) -> float:
    """1 - cosine between the kernels before and after training to the task."""
    v_N = np.zeros(WIDTH)
    first = kernel(w_NI, v_N)
    for _ in range(STEPS):
        off_I = v_N @ w_NI - task_I
        w_NI, v_N = w_NI - LR * np.outer(v_N, off_I), v_N - LR * w_NI @ off_I
    last = kernel(w_NI, v_N)
    return float(1 - np.sum(first * last) / np.linalg.norm(first) / np.linalg.norm(last))


def exponents() -> dict[str, float]:
    """What the paper says, as numbers: the turn falls with the rank at every step of it, and an
    aligned rank of 1 turns less than one that is not.
    """
    return {"falls": 1.0, "aligned": 1.0}


def simulate(rng: np.random.Generator) -> tuple[Array, Array]:
    """The turn by task and rank [TASKS, RANKS], and with rank 1 along the task [TASKS]."""
    by_rank, aligned = [], []
    for _ in range(TASKS):
        task = rng.standard_normal(INPUTS)
        task /= np.linalg.norm(task)
        by_rank.append([turned(start(int(r), rng), task) for r in RANKS])
        aligned.append(turned(start(1, rng, task), task))
    return np.array(by_rank), np.array(aligned)


def run() -> Outcome:
    by_rank, aligned = simulate(np.random.default_rng(0))
    mean, known = by_rank.mean(axis=0), exponents()
    claims = [
        Claim("share of steps in rank that turn less", known["falls"],
              float(np.mean(np.diff(mean) < 0)), 0.0),
        Claim("share of tasks in which rank 1 turns more than full rank", 1.0,
              float(np.mean(by_rank[:, 0] > by_rank[:, -1])), 0.1),
        Claim("share of tasks in which an aligned rank 1 turns less", known["aligned"],
              float(np.mean(aligned < by_rank[:, 0])), 0.1),
    ]  # fmt: skip
    curves = {
        "at random": (RANKS, mean),
        "aligned with the task": (RANKS[:1], np.array([aligned.mean()])),
    }
    panel = Panel("rank of the start", "rank", "turn of the kernel", curves, (True, False))
    return Outcome(claims, [panel])


MODEL = Model(
    "init-rank",
    "rank of the weights at the start: low is rich, high or aligned is lazy",
    "2310.08513",
    run,
    "The paper's own tasks and networks are recurrent; this is its two-layer linear case.",
)
