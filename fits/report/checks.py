"""Transfer checks as the page tells them: failures first, the sweeps of one question together."""

from collections.abc import Mapping, Sequence
from typing import Any

from fits.report import words

FIRST = {"fail": 0, "not shown": 1}  # what a reader has to know first
GROUP = ("parametrization", "optimizer", "axis")
Check = Mapping[str, Any]


def worst_first(lines: Sequence[Any]) -> list[Any]:
    """What failed, then what is not shown, then the rest in its own order."""
    return sorted(lines, key=lambda line: FIRST.get(line["verdict"], 2))


def groups(checks: Sequence[Check]) -> list[dict[str, Any]]:
    """One a parametrization, optimizer, axis and hyperparameter: its `verdict` and its `shown`
    check are the worst of its sweeps, `others` the rest; worst first.
    """
    together: dict[tuple[Any, ...], list[Check]] = {}
    for check in checks:
        key = *(check.get(k) for k in GROUP), check.get("hyperparameter", "lr")
        together.setdefault(key, []).append(check)
    out = []
    for found in together.values():
        shown, *others = worst_first(found)
        out.append({"verdict": shown["verdict"], "shown": shown, "others": others})
    return worst_first(out)


def told(group: Mapping[str, Any]) -> str:
    """How many of a group's sweeps share its verdict; "" of a single one."""
    if not group["others"]:
        return ""
    every = [group["shown"], *group["others"]]
    same = sum(check["verdict"] == group["verdict"] for check in every)
    return f"{same} of {len(every)} sweeps: {group['verdict']}"


def at(check: Check) -> str:
    """The setting of one of several sweeps, in words."""
    return ", ".join(
        f"{words.AXIS_WORDS.get(name, name.replace('_', ' '))} "
        f"{value if isinstance(value, str) else words.count(value)}"
        for name, value in check.get("at", {}).items()
    )
