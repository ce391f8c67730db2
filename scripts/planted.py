"""What the proofs over planted laws share: so many draws, printed, and written where asked."""

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ground.files import replace


def prove(about: str, coverage: Callable[[int], dict[str, Any]]) -> None:
    """`coverage` of --draws, as JSON on standard output and in --out."""
    parser = argparse.ArgumentParser(description=about.split("\n")[0])
    parser.add_argument("--draws", type=int, default=200)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    found = json.dumps(coverage(options.draws), indent=1)
    print(found)
    if options.out:
        replace(options.out, found + "\n")
