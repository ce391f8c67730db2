"""docs/laws.md of the site: every form and every published set, from the catalogue and
published.json.
"""

import re
from html import escape
from types import ModuleType
from typing import Any

from fits.forms import catalogue
from fits.predict import published
from scalelab.cli.laws import form_record, range_text, set_record

SENTENCE = re.compile(r"[:.] (?![^(]*\))")  # its end, outside of parentheses
HEAD = """# Every law

`scalelab fit DATA --law NAME` fits a form, `scalelab predict --fit SET` takes a published set,
`scalelab laws NAME` prints what stands here. {forms} forms, {sets} published sets; the page is made
from the code that fits and predicts. N is a count of parameters, of the kind that each law states;
D training tokens; C FLOPs. A set marked * has a coefficient that no source was read for: it is
listed and gives no value. Beyond {silent:g}x its range a law says so, beyond {refused:g}x it is
skipped. `--law auto` is no form of its own but a weighted set of them, with the columns of
`chinchilla`.

How a set's numbers are known:

{evidence}
"""


def row(*cells: Any) -> str:
    """A row of a Markdown table."""
    return f"| {' | '.join(str(c).replace('|', '&#124;') for c in cells)} |"


def laws_page() -> str:
    """The page, in Markdown."""
    forms, sets = catalogue.all_laws(), published.all_sets()
    evidence = [f"* **{tag}**: {escape(said)}" for tag, said in published.evidence().items()]
    head = HEAD.format(
        forms=len(forms), sets=len(sets), silent=published.SILENT, refused=published.REFUSED,
        evidence="\n".join(evidence),
    )  # fmt: skip
    return "\n".join([head, *map(family, catalogue.FAMILIES), bundles()])


def family(module: ModuleType) -> str:
    """The laws of one file, under the first sentence of its docstring."""
    about = " ".join((module.__doc__ or "").split("\n\n")[0].split())
    title, rest, *_ = [*SENTENCE.split(about.rstrip("."), maxsplit=1), ""]
    more = [f"{escape(rest[:1].upper() + rest[1:])}.\n"] if rest else []
    return "\n".join([f"## {escape(title)}\n", *more, *(form(form_record(f)) for f in module.LAWS)])


def form(said: dict[str, Any]) -> str:
    """One form: formula, units, parameters, citation, and its published sets."""
    inputs = "; ".join(f"`{name}` ({escape(unit)})" for name, unit in said["inputs"].items())
    lines = [
        f"### {said['name']}\n",
        f"```text\n{said['formula']}\n```\n",
        f"* predicts `{said['target']}` ({escape(said['unit'])}) from {inputs}",
        f"* N: {said['params_kind']}",
        f"* parameters: {', '.join(_bounded(*q) for q in said['parameters'].items())}",
        f"* source: {escape(said['citation'])}\n",
    ]
    sets = [set_record(one) for one in published.all_sets().values() if one.law == said["name"]]
    return "\n".join([*lines, *map(_set, sets), ""])


def _bounded(name: str, ends: list[float | None]) -> str:
    low, high = ends
    if low is None and high is None:
        return f"`{name}`"
    spelled = ("-inf" if low is None else f"{low:g}", "inf" if high is None else f"{high:g}")
    return f"`{name}` in [{', '.join(spelled)}]"


def _set(one: dict[str, Any]) -> str:
    """A published set as a paragraph: its numbers, then what they hold for and who found them."""
    numbers = [f"{k} {v:.6g}" for k, v in one["params"].items()]
    missing = [f"{k} not known ({why})" for k, why in one["missing"].items()]
    said = [
        f"printed {one['printed']}",
        f"N {one['params_kind']}",
        f"range {range_text(one['range'])}",
        one["citation"],
        one["note"],
        f"evidence {one['evidence']}",
    ]
    star = " *" if missing else ""
    return (
        (
            f"**{one['name']}**{star}: {escape(', '.join(numbers + missing))}<br>\n"
            f"<small>{escape('; '.join(part for part in said if part))}</small>\n"
        )
        .replace("*", "&#42;")
        .replace("&#42;&#42;", "**")
    )


def bundles() -> str:
    """Names that stand for several sets."""
    rows = [row(f"`{name}`", ", ".join(sets)) for name, sets in published.bundles().items()]
    return "\n".join(["## Bundles\n", row("name", "sets"), "|---|---|", *rows, ""])
