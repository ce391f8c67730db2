"""`scalelab laws [NAME]`: the functional forms and the published coefficient sets, with ranges and
citations.
"""

from dataclasses import asdict, dataclass
from typing import Annotated, Any

import tyro

from fits.forms import catalogue
from fits.forms.law import Law, unit
from fits.predict import published
from ground import InputError
from scalelab import screen
from scalelab.cli.args import parse, print_json


@dataclass(frozen=True)
class Laws:
    """Lists forms (what `--law` takes) and published sets (what `--fit` takes); NAME shows one in
    full.
    """

    name: Annotated[str | None, tyro.conf.Positional, tyro.conf.arg(metavar="[NAME]")] = None
    """a form, a published set, or a bundle of sets such as steplaw"""
    json: bool = False
    """one JSON document on stdout"""


def main(args: list[str]) -> int:
    options = parse(Laws, "scalelab laws", args)
    if options.name is None:
        document = {
            "forms": [form_record(form) for form in catalogue.all_laws().values()],
            "published": [set_record(one) for one in published.all_sets().values()],
            "bundles": published.bundles(),
            "evidence": published.evidence(),
        }
        show = show_all
    else:
        document, show = find(options.name), show_one
    if options.json:
        print_json(document)
    else:
        show(document)
    return 0


def find(name: str) -> dict[str, Any]:
    """The forms and published sets that answer to `name`; a name may be both (chinchilla). Errors:
    InputError.
    """
    forms = [form_record(form) for form in catalogue.all_laws().values() if form.name == name]
    try:
        sets = [set_record(one) for one in published.get(name)]
    except InputError:
        if not forms:
            raise
        sets = []
    return {"name": name, "forms": forms, "published": sets}


def form_record(form: type[Law]) -> dict[str, Any]:
    """What a form states about itself, with the published sets that use it."""
    return {
        "name": form.name,
        "formula": form.formula,
        "target": form.target,
        "inputs": {column: unit(form, column) for column in form.inputs},
        "unit": unit(form, form.target),
        "params_kind": form.params_kind,
        "parameters": {
            q.name: [None if abs(end) == float("inf") else end for end in (q.low, q.high)]
            for q in form.parameters
        },  # None: unbounded
        "citation": form.citation,
        "published": [one.name for one in published.all_sets().values() if one.law == form.name],
    }


def set_record(one: published.Published) -> dict[str, Any]:
    return {**asdict(one), "evidence_means": published.evidence()[one.evidence]}


def show_all(document: dict[str, Any]) -> None:
    from rich.table import Table

    console = screen.console(wide=200)
    forms = Table(
        "form",
        "predicts",
        "formula",
        "citation",
        title="forms: scalelab fit DATA --law FORM",
        title_justify="left",
    )
    for form in document["forms"]:
        forms.add_row(form["name"], form["target"], form["formula"], form["citation"])
    sets = Table(
        "set",
        "predicts",
        "printed",
        "N",
        "fitted range",
        "citation",
        "evidence",
        title="published sets: scalelab predict --fit SET",
    )
    sets.title_justify = "left"
    for one in document["published"]:
        name = one["name"] + (" *" if one["missing"] else "")
        sets.add_row(
            name,
            one["target"],
            one["printed"],
            one["params_kind"],
            range_text(one["range"]),
            one["citation"],
            one["evidence"],
        )
    console.print(forms)
    console.print(sets)
    console.print(
        "* a coefficient was not verified: listed, gives no value.  bundles (one name "
        "for several sets):"
    )
    for bundle, names in document["bundles"].items():
        console.print(f"  {bundle}: {', '.join(names)}")
    console.print(
        "evidence: " + "; ".join(f"{tag} = {text}" for tag, text in document["evidence"].items())
    )


def show_one(document: dict[str, Any]) -> None:
    for form in document["forms"]:
        print(f"form {form['name']}: {form['formula']}")
        _lines(
            form, ("target", "unit", "inputs", "params_kind", "parameters", "citation", "published")
        )
    for one in document["published"]:
        print(f"published {one['name']}: {one['printed']}")
        _lines(
            one, ("law", "target", "unit", "inputs", "params_kind", "params", "interval", "missing")
        )
        print(f"  range: {range_text(one['range'])}")
        _lines(one, ("citation", "evidence", "evidence_means", "note"))


def _lines(record: dict[str, Any], keys: tuple[str, ...]) -> None:
    for key in keys:
        value = record[key]
        if isinstance(value, dict):
            value = "; ".join(f"{k} = {_text(v)}" for k, v in value.items())
        elif isinstance(value, list):
            value = ", ".join(value)
        if value:
            print(f"  {key}: {value}")


def _text(value: Any) -> str:
    if isinstance(value, dict):
        return "(" + ", ".join(f"{k} {_text(v)}" for k, v in value.items()) + ")"
    if isinstance(value, list):
        return f"[{', '.join('open' if v is None else _text(v) for v in value)}]"
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def range_text(fitted: dict[str, list[float]]) -> str:
    """`params 6e+07 to 1e+09, tokens ...`; 'not known' when empty."""
    return (
        ", ".join(f"{key} {low:.3g} to {high:.3g}" for key, (low, high) in fitted.items())
        or "not known"
    )
