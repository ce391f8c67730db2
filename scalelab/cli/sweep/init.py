"""scalelab sweep init: a commented study to begin with."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from tyro.conf import Positional, arg

from ground import InputError
from ground.files import writable
from scalelab.cli.args import parse


@dataclass(frozen=True, kw_only=True)
class Init:
    """Write a study of plain data that loads as it is, with every part of its format explained."""

    study: Annotated[Positional[Path], arg(metavar="STUDY")] = Path("study.yaml")
    """The file to write, .yaml; one that is there stays as it is."""


def main(args: list[str]) -> int:
    path = parse(Init, "scalelab sweep init", args).study
    from sweeps.studies import TEMPLATE

    if path.suffix not in (".yaml", ".yml"):
        raise InputError(f"study={str(path)!r}: must end in .yaml or .yml")
    writable(path)
    try:
        with path.open("x") as file:
            file.write(TEMPLATE.read_text())
    except FileExistsError:
        raise InputError(f"study={str(path)!r}: is there already; name another file") from None
    print(f"{path} written; next: scalelab sweep plan {path}")
    return 0
