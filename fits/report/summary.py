"""The page's first lines: what was found, in plain words."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from fits.record import Fit
from fits.report.checks import at, groups, told, worst_first
from fits.report.documents import target_of
from fits.report.laws import of_optima
from fits.report.words import (
    AXIS_WORDS,
    count,
    general,
    group,
    interval,
    level,
    loss,
    percent,
    sentence,
)

if TYPE_CHECKING:
    import pandas as pd


def summary(
    table: "pd.DataFrame",
    checks: Sequence[Mapping[str, Any]],
    fits: Sequence[Fit],
    prediction: Mapping[str, Any] | None = None,
    unchecked: Sequence[Mapping[str, str]] = (),
    flags: Sequence[Mapping[str, Any]] = (),
    unfitted: bool = False,
) -> list[dict[str, str]]:
    """The page's first lines: each a verdict ("fail", "not shown", "pass" or "") with a sentence,
    every failure first, then what is not shown; `unchecked` as `fits.optimum.sweeps` says it,
    `flags` those of the audit; `unfitted`: laws were tried and none could be fitted.
    """
    out = [{"verdict": "", "text": _runs(table)}]
    out += [
        {"verdict": group["verdict"], "text": _transfer(group["shown"], told(group))}
        for group in groups(checks)
    ]
    out += [{"verdict": "", "text": _law(fit)} for fit in fits]
    out += [{"verdict": "", "text": _unfitted(table)}] if unfitted and not fits else []
    out += [{"verdict": "", "text": _flags(flags)}] if flags else []
    out += _prediction(prediction) if prediction else []
    out += [{"verdict": "", "text": _unchecked(one)} for one in unchecked]
    return worst_first(out)


def _runs(table: "pd.DataFrame") -> str:
    bad = (
        {s: int((table["status"] == s).sum()) for s in ("diverged", "failed", "missing")}
        if "status" in table
        else {}
    )
    told = "".join(f", {n} {s}" for s, n in bad.items() if n)
    sizes = f" of {table['params'].nunique()} model sizes" if "params" in table else ""
    return f"{len(table)} runs{sizes}: {len(table) - sum(bad.values())} done{told}."


def _unfitted(table: "pd.DataFrame") -> str:
    return f"No law could be fitted to these {len(table)} runs; what they measured is shown."


def _unchecked(one: Mapping[str, str]) -> str:
    axis, whose = AXIS_WORDS.get(one["axis"], one["axis"]), one["group"]
    return f"Not checked: transfer over {axis}{f' of {whose}' if whose else ''}; {one['reason']}."


def _flags(flags: Sequence[Mapping[str, Any]]) -> str:
    named = ", ".join(flag["name"].replace("_", " ") for flag in flags)
    return f"The audit raises {len(flags)} flag{'s' if len(flags) > 1 else ''}: {named}."


def _transfer(check: Mapping[str, Any], more: str = "") -> str:
    name = check.get("hyperparameter", "lr").replace("_", " ").replace("lr", "learning rate")
    sizes = [row["size"] for row in check["rows"]]
    axis = AXIS_WORDS.get(check["axis"], check["axis"])
    over = f" from {axis} {count(min(sizes))} to {count(max(sizes))}" if sizes else ""
    reason = (
        sentence(check["reason"])
        .replace("over the range", "")
        .replace("  ", " ")
        .replace(" ,", ",")
        .replace(" ;", ";")
        .strip()
    )
    reason = reason[0].lower() + reason[1:]
    lead = {"pass": "transfers", "fail": "does not transfer"}.get(
        check["verdict"], "is not shown to transfer"
    )
    where = f" ({more}; here {at(check)})" if more else ""
    return f"{group(check)}: the best {name} {lead}{over}; {reason}{where}."


def _law(fit: Fit) -> str:
    one, many = ("optimum", "optima") if of_optima(fit) else ("run", "runs")
    a = "an" if one == "optimum" else "a"
    spread = f", off by {100 * fit.residual_sd:.2f} % {a} {one}" if fit.residual_sd else ""
    unknown = [name for name, known in fit.identified.items() if not known]
    doubt = f" The data do not determine {', '.join(unknown)}." if unknown else ""
    scale = f" Its loss is in {fit.unit}." if fit.unit else ""
    compute = f" up to {general(fit.range['flops'][1])} FLOP" if fit.range.get("flops") else ""
    name = f"A weighted set of laws ({fit.law})" if fit.mixture else f"The law {fit.law}"
    return f"{name} describes {fit.n} {many}{compute}{spread}.{scale}{doubt}"


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
