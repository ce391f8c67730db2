"""The run that is asked for, by what is known of it: any two of its parameters, its tokens and its
compute (FLOPs, or hours on devices), or one of them and how far it is trained beyond the
compute-optimal run.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from fits.forms.law import SHARES
from fits.predict.answers import fill
from fits.predict.budget import compute_optimal
from fits.predict.published import TooFar
from fits.predict.shape import LAYER, TABLES, VOCAB
from fits.predict.sources import Source
from ground import InputError
from ground.flops import tokens_of, training
from ground.text import one_of

# peak of dense bfloat16 products, FLOP/s: the makers' data sheets
DEVICES = {
    "a100": 312e12, "h100": 989e12, "h200": 989e12, "b200": 2250e12, "mi300x": 1307e12,
    "v4": 275e12, "v5e": 197e12, "v5p": 459e12, "v6e": 918e12,
}  # fmt: skip
MFU = 0.4  # share of the peak that 6 N D is: 0.38 to 0.43 of Llama 3 on H100s (2407.21783, table 4)
AGREE = 0.02  # three numbers may say two things, to this
# what no run has: beyond these a unit was left out
LIKELY = {
    "params": (1e3, 1e15),
    "tokens": (1e3, 1e18),
    "flops": (1e7, 1e33),
    "batch_tokens": (1, 1e12),
    "unique_tokens": (1e3, 1e18),
}
Best = tuple[float, float, str]  # params, tokens, whose law


@dataclass(frozen=True)
class Asked:
    """What is known of the run; None: not given. `params` are of a kind that `resolve` is told."""

    params: float | None = None
    tokens: float | None = None
    flops: float | None = None
    hours: float | None = None
    gpus: int | None = None
    device: str = ""
    mfu: float = MFU
    overtrain: float | None = None


def rate(gpus: int | None, device: str, mfu: float) -> float:
    """FLOP/s of `gpus` devices at that share of their peak."""
    if device not in DEVICES:
        raise InputError(one_of("device", device, DEVICES))
    if gpus is None or gpus < 1:
        raise InputError(f"gpus={gpus}: must be at least 1 for --hours")
    if not 0 < mfu <= 1:
        raise InputError(f"mfu={mfu:g}: must be above 0 and at most 1")
    return gpus * DEVICES[device] * mfu


def likely(name: str, value: float) -> None:
    """Refuses a count that lacks its unit: 7 parameters, and what is no share."""
    if name in SHARES:
        if not 0 <= value < 1:
            raise InputError(f"{name}={value:g}: must be at least 0 and below 1")
        return
    if not (math.isfinite(value) and value > 0):
        raise InputError(f"{name}={value:g}: must be above 0")
    if name == "experts" and value != round(value):
        raise InputError(f"experts={value:g}: must be a whole number, 1 of a dense model")
    low, high = LIKELY.get(name, (0.0, math.inf))
    if value < low:
        billions = name in ("params", "tokens") and value < low
        meant = f"; {value:g} billion is written {value:g}B" if billions else ""
        raise InputError(f"{name}={value:g}: must be at least {low:g}{meant}")
    if value > high:
        raise InputError(f"{name}={value:g}: must be at most {high:g}; no run has so many")


def resolve(
    asked: Asked,
    found: Sequence[Source],
    kind: str = "total",
    at: Mapping[str, float] = {},
    extrapolate: bool = False,
) -> tuple[dict[str, float], list[str]]:
    """`params` (of `kind`) and `tokens`, and remarks. `at`: the target's vocab, width and depth.

    Errors: InputError where less is given than decides the run, or more than agrees.
    """
    shape = {name: at[name] for name in ("vocab", "width", "depth") if name in at}
    budget, remarks = _budget(asked)
    params = asked.params
    if params is None and {"width", "depth"} <= shape.keys():
        params = _params_of(shape, kind)
        remarks.append(f"params: {params:.4g} by width {at['width']:g} and depth {at['depth']:g}")
    for name, value in (("params", params), ("tokens", asked.tokens), ("flops", budget)):
        if value is not None:
            likely(name, value)
    known = (params, asked.tokens, budget)
    given = sum(v is not None for v in known)
    if asked.overtrain is not None and not asked.overtrain > 0:
        raise InputError(f"overtrain={asked.overtrain:g}: must be above 0")
    if asked.overtrain is not None and given > 1:
        raise InputError(
            f"overtrain={asked.overtrain:g}: the size and the tokens are decided without it"
        )
    if given == 0:
        raise InputError(
            "params, tokens: give two of --params, --tokens and --flops (or --hours with --gpus and"
            " --device), such as --params 7B --tokens 1.4T; or one, for the compute-optimal run"
        )
    if given == 1:
        best, said = _optimal(found, *known, kind, shape, asked, extrapolate)
        return best, [*remarks, *said]
    if params is None:
        assert asked.tokens is not None and budget is not None
        params = _of_kind(budget / training(1.0, asked.tokens), kind, shape)
    tokens = asked.tokens
    if tokens is None:
        assert budget is not None
        tokens = tokens_of(budget, _total(params, kind, shape))
    if given == 3:
        assert budget is not None
        own = training(_total(params, kind, shape), tokens)
        if abs(own / budget - 1) > AGREE:
            raise InputError(
                f"flops={budget:.3g}: 6 x params={params:.4g} x tokens={tokens:.4g} are {own:.3g}; "
                "give two of the three"
            )
    return {"params": params, "tokens": float(tokens)}, remarks


def _budget(asked: Asked) -> tuple[float | None, list[str]]:
    """FLOPs by either way of saying them."""
    if asked.hours is None:
        return asked.flops, []
    if not asked.hours > 0:
        raise InputError(f"hours={asked.hours:g}: must be above 0")
    bought = asked.hours * 3600 * rate(asked.gpus, asked.device, asked.mfu)
    if asked.flops is not None and abs(bought / asked.flops - 1) > AGREE:
        raise InputError(
            f"flops={asked.flops:.3g}: {asked.hours:g} hours of {asked.gpus} {asked.device} at mfu "
            f"{asked.mfu:g} are {bought:.3g}; give one of them"
        )
    said = f"{asked.hours:g} hours of {asked.gpus} {asked.device} at mfu {asked.mfu:g}"
    return bought, [f"flops: {said} are {bought:.3g} FLOP"]


def _params_of(shape: Mapping[str, float], kind: str) -> float:
    if kind not in TABLES:
        raise InputError(f"params-kind={kind!r}: must be one of {', '.join(TABLES)}")
    tables = TABLES[kind] * shape.get("vocab", VOCAB) * shape["width"]
    return LAYER * shape["depth"] * shape["width"] ** 2 + tables


def _total(params: float, kind: str, shape: Mapping[str, float]) -> float:
    columns, _ = fill({"params": params, "tokens": 1.0, **shape}, kind)
    return float(columns["params_total"][0])


def _of_kind(total: float, kind: str, shape: Mapping[str, float]) -> float:
    _, made = fill({"params": total, "tokens": 1.0, **shape}, "total")
    return float(made.counts[kind][0])


def _optimal(
    found: Sequence[Source],
    params: float | None,
    tokens: float | None,
    budget: float | None,
    kind: str,
    shape: Mapping[str, float],
    asked: Asked,
    extrapolate: bool,
) -> tuple[dict[str, float], list[str]]:
    """One of the three, and `overtrain` times the tokens a parameter of the compute-optimal run: of
    the same FLOPs where they are given, else of the same size.
    """
    more, vocab = asked.overtrain or 1.0, shape.get("vocab")

    def best(flops: float, laws: Sequence[Source] = found, far: bool = extrapolate) -> Best:
        return compute_optimal(laws, flops, kind, vocab, far)

    if budget is not None:
        n, d, law = best(budget)
        if more != 1.0:
            n = n / more**0.5
            d = tokens_of(budget, _total(n, kind, {} if vocab is None else {"vocab": vocab}))
    elif params is not None:
        _, d, law = _where(found, best, lambda n, d: n / params, training(params, params))
        n, d = params, d * more
    else:
        assert tokens is not None
        n, _, law = _where(found, best, lambda n, d: d * more / tokens, training(tokens, tokens))
        d = tokens
    given = "FLOPs" if budget is not None else "size" if params is not None else "tokens"
    said = f"the best for its {given}" if more == 1.0 else f"{more:g}x the best for its {given}"
    return {"params": n, "tokens": d}, [
        f"params, tokens: {d / n:.3g} tokens a parameter, {said} by {law}"
    ]


def _where(
    found: Sequence[Source],
    best: Callable[..., Best],
    over: Callable[[float, float], float],
    about: float,
) -> Best:
    """The compute-optimal run at which `over`, which rises with the FLOPs, is 1: by the first law
    that reaches it.
    """
    far: TooFar | None = None
    for source in [s for s in found if s.target == "loss"] or found:
        low, high = np.log(about) - 14.0, np.log(about) + 14.0
        while high - low > 1e-4:
            middle = (low + high) / 2
            n, d, _ = best(float(np.exp(middle)), [source], True)
            low, high = (middle, high) if over(n, d) < 1 else (low, middle)
        try:
            return best(float(np.exp((low + high) / 2)), [source])
        except TooFar as error:
            far = far or error
    assert far is not None
    raise far
