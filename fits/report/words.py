"""Numbers as the page spells them, and its summary in plain words. `whatif.js` spells its numbers
the same way.
"""

import math
import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ground import InputError

if TYPE_CHECKING:
    import pandas as pd

    from fits.record import Fit

NOT_MEASURED = "published, not measured here"
# beginnings of names
COUNTS = (
    "params",
    "tokens",
    "steps",
    "batch",
    "width",
    "depth",
    "heads",
    "ff",
    "vocab",
    "sequence",
    "experts",
)
AXIS_WORDS = {"width": "width", "depth": "depth", "batch": "batch", "steps": "training length"}


def count(value: float | None) -> str:
    """A count: 950, 1,024, 12.3 k, 4.56 M, 7.00 B, 1.40 T; e-notation from 1e15."""
    if value is None or not math.isfinite(value):
        return "–"
    if abs(value) < 9999.5:
        return f"{value:.4g}" if abs(value) < 1000 else f"{value:,.0f}"
    for power, letter in ((3, "k"), (6, "M"), (9, "B"), (12, "T")):
        if abs(value) < 0.9995 * 10 ** (power + 3):
            scaled = value / 10**power
            return f"{scaled:.{2 if scaled < 9.995 else 1 if scaled < 99.95 else 0}f} {letter}"
    return general(value)


def loss(value: float | None) -> str:
    return "–" if value is None or not math.isfinite(value) else f"{value:.3f}"


def general(value: float | None, digits: int = 4) -> str:
    """Four significant digits; e-notation for what is very large or small."""
    if value is None or not math.isfinite(value):
        return "–"
    if value == 0 or 1e-3 <= abs(value) < 9999.5:
        return _minus(f"{value:#.{digits}g}".rstrip("."))
    mantissa, exponent = f"{value:.2e}".split("e")
    return _minus(f"{mantissa}e{int(exponent)}")


def rate(value: float | None) -> str:
    """A learning rate or the like: three digits."""
    return general(value, 3)


def cut(text: str, most: int) -> str:
    return text if len(text) <= most else f"{text[: most - 1]}…"


def _minus(text: str) -> str:
    """With a minus sign in front, and none before a zero."""
    if not text.startswith("-"):
        return text
    return "−" + text[1:] if any(c in "123456789" for c in text) else text[1:]


def signed(value: float | None, digits: int = 2) -> str:
    return (
        "–"
        if value is None or not math.isfinite(value)
        else _minus(f"{round(value, digits) + 0.0:+.{digits}f}")
    )


def exponent(value: float | None) -> str:
    """A log2, in hundredths."""
    return "–" if value is None or not math.isfinite(value) else _minus(f"{value:.2f}")


def percent(value: float | None, digits: int = 2) -> str:
    return "–" if value is None or not math.isfinite(value) else f"{signed(100 * value, digits)} %"


def interval(
    number: Mapping[str, Any], spell: Any = general, below: str = "open", above: str = "open"
) -> str:
    """[low, high] of a number with uncertainty; an end that is not known is `below` or `above`;
    empty when neither is.
    """
    low, high = number.get("low"), number.get("high")
    if low is None and high is None and below == above == "open":
        return ""
    return f"[{below if low is None else spell(low)}, {above if high is None else spell(high)}]"


def spell_of(name: str) -> Any:
    """How a recipe's number of that name is spelled."""
    if name.startswith("loss") and not name.endswith("relative"):
        return loss
    return count if name.startswith(COUNTS) and not name.endswith("per_param") else rate


def group(check: Mapping[str, Any]) -> str:
    """What a check is about: parametrization and, where known, optimizer."""
    return (
        ", ".join(str(check[k]) for k in ("parametrization", "optimizer") if check.get(k))
        or "all runs"
    )


def summary(
    table: "pd.DataFrame",
    checks: Sequence[Mapping[str, Any]],
    fits: "Sequence[Fit]",
    prediction: Mapping[str, Any] | None = None,
) -> list[dict[str, str]]:
    """The page's first lines: each a verdict ("pass", "fail" or "") with a sentence."""
    out = [{"verdict": "", "text": _runs(table)}]
    out += [{"verdict": check["verdict"], "text": _transfer(check)} for check in checks]
    out += [{"verdict": "", "text": _law(fit)} for fit in fits]
    return out + (_prediction(prediction) if prediction else [])


def _runs(table: "pd.DataFrame") -> str:
    bad = (
        {s: int((table["status"] == s).sum()) for s in ("diverged", "failed", "missing")}
        if "status" in table
        else {}
    )
    told = "".join(f", {n} {s}" for s, n in bad.items() if n)
    sizes = f" of {table['params'].nunique()} model sizes" if "params" in table else ""
    return f"{len(table)} runs{sizes}: {len(table) - sum(bad.values())} done{told}."


def _transfer(check: Mapping[str, Any]) -> str:
    name = check.get("hyperparameter", "lr").replace("_", " ").replace("lr", "learning rate")
    sizes = [row["size"] for row in check["rows"]]
    axis = AXIS_WORDS.get(check["axis"], check["axis"])
    over = f" from {axis} {count(min(sizes))} to {count(max(sizes))}" if sizes else ""
    reason = (
        sentence(check["reason"])
        .replace("over the range", "")
        .replace("  ", " ")
        .replace(" ,", ",")
        .strip()
    )
    reason = reason[0].lower() + reason[1:]
    lead = {"pass": "transfers", "fail": "does not transfer"}.get(
        check["verdict"], "is not shown to transfer"
    )
    return f"{group(check)}: the best {name} {lead}{over}; {reason}."


def sentence(text: str) -> str:
    """Text of a check as the page prints it: a capital, and minus signs before digits."""
    return re.sub(r"-(?=\d)", "−", text[:1].upper() + text[1:])


def _law(fit: "Fit") -> str:
    spread = f", off by {100 * fit.residual_sd:.2f} % a run" if fit.residual_sd else ""
    unknown = [name for name, known in fit.identified.items() if not known]
    doubt = f" The data do not determine {', '.join(unknown)}." if unknown else ""
    scale = f" Its loss is in {fit.unit}." if fit.unit else ""
    compute = f" up to {general(fit.range['flops'][1])} FLOP" if fit.range.get("flops") else ""
    name = f"A weighted set of laws ({fit.law})" if fit.mixture else f"The law {fit.law}"
    return f"{name} describes {fit.n} runs{compute}{spread}.{scale}{doubt}"


def _prediction(prediction: Mapping[str, Any]) -> list[dict[str, str]]:
    number = prediction["predicted"].get("loss")
    if not number:
        return []
    target = target_of(prediction)
    at = (
        f" of the target ({count(target['params'])} parameters, {count(target['tokens'])} tokens)"
        if target
        else ""
    )
    said = f"The predicted loss{at} is {loss(number['value'])} {interval(number, loss)}".rstrip()
    measured = (prediction.get("measured") or {}).get("loss")
    if measured is None:
        return [{"verdict": "", "text": f"{said}; not measured yet."}]
    if number["low"] is None or number["high"] is None:
        return [
            {
                "verdict": "",
                "text": f"{said}; measured afterwards: {loss(measured)}, "
                f"{percent(measured / number['value'] - 1)} off.",
            }
        ]
    inside = number["low"] <= measured <= number["high"]
    off = measured / number["value"] - 1
    where = (
        f"{abs(100 * off):.2f} % {'above' if off > 0 else 'below'}, "
        f"{'inside' if inside else 'outside'} the {level(number)} interval"
    )
    out = [
        {
            "verdict": "pass" if inside else "fail",
            "text": f"{said}; measured afterwards: {loss(measured)}, {where}.",
        }
    ]
    if (standard := prediction.get("standard_loss")) is not None:
        worse = f"{abs(standard - measured):.3f} {'worse' if standard > measured else 'better'}"
        text = (
            "Standard parametrization with the learning rate of its small models gets "
            f"{loss(standard)} there, {worse}."
        )
        out.append({"verdict": "", "text": text})
    return out


def level(number: Mapping[str, Any]) -> str:
    return f"{100 * number.get('level', 0.9):g} %"


def checked(prediction: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """A prediction as the page needs it: every number of `predicted` whole. Raises InputError
    naming what is not.
    """
    if prediction is None:
        return None
    predicted = prediction.get("predicted")
    if not isinstance(predicted, Mapping):
        raise InputError(
            f"prediction: has {', '.join(map(str, prediction)) or 'nothing'}; needs "
            f"predicted: {{loss: {{value, low, high}}}}"
        )
    for name, number in predicted.items():
        if not isinstance(number, Mapping) or not isinstance(number.get("value"), (int, float)):
            raise InputError(
                f"prediction: predicted.{name}={number!r}: must be a number with value, low, high"
            )
    whole = {
        name: {"low": None, "high": None, "level": 0.9, "source": "", **number}
        for name, number in predicted.items()
    }
    measured = prediction.get("measured")
    return {
        **prediction,
        "predicted": whole,
        "measured": measured if isinstance(measured, Mapping) else {},
    }


def target_of(prediction: Mapping[str, Any] | None) -> dict[str, float]:
    """`params` and `tokens` of the predicted run, from its `target` or the document itself; empty
    where it does not say.
    """
    for place in ((prediction or {}).get("target"), prediction):
        if isinstance(place, Mapping) and place.get("params") and place.get("tokens"):
            return {
                name: float(place[name])
                for name in ("params", "tokens", "params_no_embed", "params_active")
                if place.get(name)
            }
    return {}


def runs(table: "pd.DataFrame") -> list[dict[str, Any]]:
    """Runs by study and parametrization, counted by status, with their tokens and FLOPs (diverged
    ones are in the counts).
    """
    import pandas as pd

    by = [c for c in ("study", "parametrization") if c in table]
    status = (
        table["status"].astype(str) if "status" in table else pd.Series("done", index=table.index)
    )
    out: list[dict[str, Any]] = []
    groups: Any = table.groupby(by, dropna=False) if by else [((), table)]
    for key, part in groups:
        of = status[part.index]
        row: dict[str, Any] = {name: str(value) for name, value in zip(by, key, strict=True)}
        row |= {
            "runs": len(part),
            **{s: int((of == s).sum()) for s in ("done", "diverged", "failed")},
        }
        row |= {
            name: float(part[name].astype(float).sum()) if name in part else None
            for name in ("tokens", "flops", "seconds")
        }
        out.append(row)
    return out


def facts(table: "pd.DataFrame") -> tuple[list[tuple[str, str]], list[str]]:
    """What else one asks of a set of runs (seeds, sizes, code, device), and the names of what the
    table does not say.
    """
    spoken = {
        "init_seed": "seeds of initialisation", "data_seed": "seeds of data order", "optimizer":
        "optimizer", "schedule": "schedule", "device": "device", "code": "code (git revision)",
        "semantics": "semantics of training",
    }  # fmt: skip
    out = [
        (name, _span(table, name))
        for name in (
            "params",
            "tokens",
            "width",
            "depth",
            "batch_tokens",
            "steps",
            "sequence",
            "vocab",
        )
    ]
    out = [
        (name.replace("_", " "), text)
        for name, text in out + [(text, _values(table, name)) for name, text in spoken.items()]
    ]
    return [(name, text) for name, text in out if text], [name for name, text in out if not text]


def _span(table: "pd.DataFrame", name: str) -> str:
    values: list[float] = table[name].dropna().astype(float).tolist() if name in table else []
    if not len(values):
        return ""
    low, high = min(values), max(values)
    return count(low) if low == high else f"{count(low)} to {count(high)}"


def _values(table: "pd.DataFrame", name: str, most: int = 4) -> str:
    values = sorted({str(v) for v in table[name].dropna()} - {""}) if name in table else []
    return ", ".join(values[:most]) + (
        f" and {len(values) - most} more" if len(values) > most else ""
    )


def recipe_rows(recipe: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """The numbers of a recipe (or of the document of `scalelab predict --json`), its warnings, and
    how far laws disagree.
    """
    if not recipe:
        return None
    numbers = recipe.get("numbers", recipe)
    rows = [
        {
            "name": name,
            "number": number,
            "published": NOT_MEASURED in str(number.get("source", "")),
            "source": _origin(number),
        }
        for name, number in numbers.items()
        if isinstance(number, Mapping) and isinstance(number.get("value"), (int, float))
    ]
    return {
        "rows": rows,
        "warnings": list(recipe.get("warnings") or ()),
        "disagreement": dict(recipe.get("disagreement") or {}),
    }


def _origin(number: Mapping[str, Any]) -> str:
    """The source without the mark, which the page shows as a badge."""
    return re.sub(rf"[\s:;,(]*{NOT_MEASURED}(?=\)|\s|$)", "", str(number.get("source", ""))).strip()
