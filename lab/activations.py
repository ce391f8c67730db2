"""The MLP's activations: one table of what is known of each without computing it. No JAX; their
values are in `lab.activate`.

A gated one is up F(gate) and has a matrix more, so at 2/3 of an ungated one's `ff` it has as many
parameters: which `ff` to compare at is the user's choice. `start`: numbers that every layer learns
beside its matrices, with what they start at (`act` in `lab.shape.TENSORS`). `kink`: the derivative
that is used at 0 where there is none.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

# fields: weights of terms of the MLP's hidden entries in the loss (`lab.activate.penalty`)
PENALTIES = ("activation_l1", "activation_density", "activation_chunk")


@dataclass(frozen=True)
class Activation:
    """One row. `homogeneous`: F(a x) is a power of a > 0 times F(x), so that a multiplier of its
    input cancels under unit scaling.
    """

    formula: str
    source: str
    gated: bool = False
    homogeneous: bool = False
    kink: float | None = None
    start: Mapping[str, float] = field(default_factory=dict)


_POLY = {"a0": 0.0, "a1": 1 / 3, "a2": 1 / 3, "a3": 1 / 3}
_PAU_A = (0.0335583603, 0.505000375, 1.65343934, 2.01001052, 0.931901999, 0.152424124)
_PAU_B = (3.30847e-6, 3.98021568, 5.1247e-7, 0.301830109)
PAU_DEGREES = len(_PAU_A), len(_PAU_B)
_E = 2.718281828459045
HERMITE_DEGREE = 3
_HERMITE = {"c0": ((1 - 1 / 6) / _E) ** 0.5} | {
    f"c{k}": _E**-0.5 for k in range(1, HERMITE_DEGREE + 1)
}
SAU = {"a": 0.15, "s": 5e-5}  # slope below 0, width of the Gaussian

TABLE: dict[str, Activation] = {
    "swiglu": Activation("up gate sigmoid(gate)", "2002.05202", gated=True),
    "gelu": Activation("x Phi(x)", "1606.08415"),
    "squared_relu": Activation("max(x, 0)^2", "2109.08668", homogeneous=True),
    "relu": Activation("max(x, 0)", "2210.06313", homogeneous=True, kink=0.0),
    "silu": Activation("x sigmoid(x)", "1710.05941"),
    "geglu": Activation("up gate Phi(gate)", "2002.05202", gated=True),
    "reglu": Activation("up max(gate, 0)", "2002.05202", gated=True, homogeneous=True, kink=0.0),
    "drelu": Activation(
        "max(up, 0) max(gate, 0)", "2406.05955", gated=True, homogeneous=True, kink=0.0
    ),
    "topk": Activation(
        "the activation_k largest of max(x, 0), for each token", "2210.06313", homogeneous=True,
        kink=0.0,
    ),
    "mish": Activation("x tanh(softplus(x))", "1908.08681"),
    "swish": Activation("x sigmoid(beta x)", "1710.05941", start={"beta": 1.0}),
    "golu": Activation("x exp(-exp(-x))", "2502.03654"),
    "xatlu": Activation("x (g (1 + 2a) - a), g = atan(x) / pi + 1/2", "2405.20768", start={"a": 0}),
    "xgelu": Activation("x (g (1 + 2a) - a), g = Phi(x)", "2405.20768", start={"a": 0.0}),
    "xsilu": Activation("x (g (1 + 2a) - a), g = sigmoid(x)", "2405.20768", start={"a": 0.0}),
    "polyrelu": Activation("sum a_i max(x, 0)^i", "2411.03884", kink=0.0, start=_POLY),
    # the norm is over the hidden entries of a token
    "polynorm": Activation(
        "a_0 + sum a_i x^i / rms(x^i)", "2411.03884", homogeneous=True, start=_POLY
    ),
    "pau": Activation(
        "sum a_j x^j / (1 + sum |b_k| |x|^k)", "1907.06732, its start nearest to a leaky ReLU",
        start={f"a{j}": a for j, a in enumerate(_PAU_A)}
        | {f"b{k}": b for k, b in enumerate(_PAU_B, 1)},
    ),
    "sau": Activation("a leaky ReLU of slope a, convolved with N(0, s^2)", "2109.13210"),
    "crrelu": Activation(
        "max(x, 0) + e x exp(-x^2 / 2)", "ICLR 2025, CRReLU", kink=0.01, start={"e": 0.01}
    ),
    # drawn from U(0, 1) in the authors' code; at 1 it is SiLU
    "aglu": Activation(
        "x (l exp(-k x) + 1)^(-1 / l)", "2407.08567", start={"lambda": 1.0, "kappa": 1.0}
    ),
    # at its start a unit normal's second moment and its derivative's are equal
    "hermite": Activation("sum c_k He_k(x) / k!", "2502.01247", start=_HERMITE),
    "snake": Activation("x + sin(x)^2", "2006.08195"),
    "prelu": Activation(
        "max(x, 0) + a min(x, 0)", "1502.01852", homogeneous=True, kink=0.25, start={"a": 0.25}
    ),
}  # fmt: skip
