"""What a FLOP, a byte and a token buy in pruned, routed and silent models, over the dense one: one
table of the three studies of sparsity.

    python -m scripts.sparsity_bought results/sparsity

reads FOLDER/<study>/bought.json, which the studies' reports leave, and writes FOLDER/bought.md.

A sparse model of n weights (left, active, or all) has a loss after D tokens. m n dense weights have
it after D tokens, and n dense weights after k D: a token buys k (1000 also where no number of
tokens would do). A FLOP and a byte buy m over what the sparse model takes of them beside n dense
weights.
"""

import argparse
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from fits.optimum.sparsity import factor
from fits.record import Fit
from ground import InputError
from ground.files import replace
from scripts.rival_laws import spread
from scripts.tables import markdown

STUDIES = ("weights", "experts", "neurons")
NAME = "bought.json"
MOST = 1e3
Loss = Callable[[Mapping[str, float], float, float], Any]  # of parameters, weights and tokens


def bought(
    fit: Fit,
    dense: Loss,
    goal: Loss,
    size: float,
    tokens: float,
    *,
    train: float = 1.0,
    infer: float = 1.0,
    stored: float = 1.0,
) -> dict[str, Any]:
    """What each buys, with the interval of the fit's refits. `train`, `infer`, `stored`: FLOP of a
    step, FLOP of a forward pass and bytes of the model, over those of `size` dense weights.
    """

    def by(p: Mapping[str, float], scaled: Callable[[float], tuple[float, float]]) -> float:
        return min(factor(lambda k: dense(p, *scaled(k)), goal(p, size, tokens)), MOST)

    size_times = spread(fit, lambda p: by(p, lambda k: (size * k, tokens)))
    token_times = spread(fit, lambda p: by(p, lambda k: (size, tokens * k)))
    token_times = min(token_times[0], MOST), token_times[1], min(token_times[2], MOST)
    over = {"a FLOP of training": train, "a FLOP of inference": infer, "a byte": stored}
    return {
        "weights": size,
        "tokens": tokens,
        "dense sizes": size_times,
        **{name: tuple(v / cost for v in size_times) for name, cost in over.items()},
        "a token": token_times,
    }


def write(folder: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    replace(folder / NAME, json.dumps(list(rows), indent=1) + "\n")


def table(folders: Iterable[Path]) -> str:
    """Of those that have any. Raises InputError where none has."""
    rows = [
        {k: tuple(v) if isinstance(v, list) else v for k, v in row.items()}
        for folder in folders
        if (folder / NAME).exists()
        for row in json.loads((folder / NAME).read_text())
    ]
    if not rows:
        raise InputError(
            f"folder: no study has a {NAME}; `scripts.sparsity_report report` makes it"
        )
    return markdown(rows)


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("folder", type=Path)
    folder = parser.parse_args(argv).folder
    text = table(folder / study for study in STUDIES)
    print(text)
    replace(folder / "bought.md", text + "\n")


if __name__ == "__main__":
    main()
