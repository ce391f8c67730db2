"""Arguments to a frozen dataclass through tyro; a bad one is a single line and exit code 2."""

import contextlib
import io
import json
import re
import sys
from dataclasses import fields
from typing import Annotated, Any, TypeVar

from tyro.constructors import PrimitiveConstructorSpec

from ground import InputError

T = TypeVar("T")


def amount(text: str) -> float:
    """A count as people write it: 7B, 1.4T, 1e21, 50,000,000."""
    from fits.table.cells import number

    found = number(text, "params")
    if found is None or found != found:
        raise ValueError(f"{text!r}: must be a number, such as 7B, 1.4T or 1e21")
    return found


Amount = Annotated[
    float,
    PrimitiveConstructorSpec(
        nargs=1,
        metavar="FLOAT",
        instance_from_str=lambda args: amount(args[0]),
        is_instance=lambda value: isinstance(value, float | int),
        str_from_instance=lambda value: [f"{value:g}"],
    ),
]


def parse(kind: type[T], prog: str, args: list[str]) -> T:
    """tyro's parse of `args`, every field that is a tuple repeatable; its boxed error becomes one
    `InputError` line. --help prints and exits as usual.
    """
    import tyro

    repeatable = [f for f in fields(kind) if str(f.type).startswith("tuple")]  # type: ignore[arg-type]
    args = gathered(args, *("--" + f.name.replace("_", "-") for f in repeatable))

    captured = io.StringIO()
    try:
        with contextlib.redirect_stderr(captured):
            return tyro.cli(
                kind,
                prog=prog,
                args=args,
                config=(tyro.conf.DisallowNone, tyro.conf.FlagCreatePairsOff),
            )
    except SystemExit as stop:
        if stop.code in (0, None):
            raise
        text = re.sub(r"\x1b\[[0-9;]*m", "", captured.getvalue())
        words = re.sub(r"[╭╮╰╯│─\s]+", " ", text).strip()
        words = words.replace("Invalid choice invalid choice", "invalid choice")
        words = re.sub(r"no type matching FLOAT .*?None\)\]: ", "", words)  # of an `Amount`
        words = re.sub(
            r"\.? (For full helptext|Perhaps you meant)", lambda m: f"; {m[1].lower()}", words
        )
        raise InputError(
            re.sub(r"^(Parsing error|Unrecognized options|Value error) ", "", words)
            or "bad arguments"
        ) from None


def gathered(args: list[str], *repeatable: str) -> list[str]:
    """`--fit A --fit B` and `--fit A B` alike: every value of a repeatable flag behind one, at the
    end.

    What follows NAME=VALUE without an equals sign is no value of that flag: `--where depth=4
    runs.csv` ends in the data.
    """
    values: dict[str, list[str]] = {flag: [] for flag in repeatable}
    rest: list[str] = []
    into = ""
    for word in args:
        name, sep, value = word.partition("=")
        if name in values:
            into = "" if sep else name
            values[name] += [value] if sep else []
        elif (
            into
            and not word.startswith("--")
            and (not values[into] or bool(sep) == ("=" in values[into][0]))
        ):
            values[into].append(word)
        else:
            into = ""
            rest.append(word)
    return rest + [word for flag, given in values.items() if given for word in (flag, *given)]


def print_json(document: dict[str, Any]) -> None:
    """One document on stdout; whatever else a command says goes to stderr."""
    json.dump(document, sys.stdout, indent=1, allow_nan=False)
    sys.stdout.write("\n")
