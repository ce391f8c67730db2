"""Tables of what was trained beside the study `batch`: betas with a memory in tokens, prose and
code, and the held-out size.

python -m scripts.batch_beside results/batch

Reads trials, betas, ratio_prose, ratio_code and target (each .parquet) and prediction.json of the
folder; writes its beside.md.
"""

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from ground.files import replace
from scripts.tables import groups, table_text

SAME = ("params_no_embed", "tokens", "init_seed")
KINDS = ("prose", "code")


def best(frame: pd.DataFrame) -> pd.DataFrame:
    """Of each batch the run of least loss."""
    least = frame.groupby("batch_tokens")["loss"].idxmin()
    return frame.loc[least, ["batch_tokens", "lr", "loss"]]


def betas(frame: pd.DataFrame, study: pd.DataFrame) -> pd.DataFrame:
    """By length and batch, the best LR and loss with betas of one memory in tokens and with those
    of one memory in steps, at the same size, length and seed, and what the former gain, in percent.
    """
    rows = []
    for tokens, here in frame.groupby("tokens"):
        same = np.all([study[c] == here[c].iloc[0] for c in SAME], axis=0)
        both = best(here).merge(
            best(study[same]), on="batch_tokens", how="left", suffixes=("_tokens", "_steps")
        )
        both.insert(0, "tokens", tokens)
        rows.append(both.assign(gain=100 * (both["loss_steps"] / both["loss_tokens"] - 1)))
    return pd.concat(rows, ignore_index=True)


def lr_exponents(frame: pd.DataFrame) -> str:
    """Of each length the exponent of the best LR in the batch, over batches whose best LR lies
    inside its grid; at least three.
    """
    said = []
    for tokens, here in groups(frame, "tokens"):
        inside: dict[float, float] = {}
        for batch, sweep in groups(here, "batch_tokens"):
            lr = vertex(sweep)[0]
            if sweep["lr"].min() < lr < sweep["lr"].max():
                inside[float(batch)] = lr
        if len(inside) >= 3:
            slope = np.polyfit(np.log(list(inside)), np.log(list(inside.values())), 1)[0]
            ends = f"{min(inside):.0f} to {max(inside):.0f}"
            said.append(f"{tokens / 1e6:.0f}M tokens, batches {ends}: B^{slope:.2f}")
    return "Best LR, betas of one memory in tokens: " + "; ".join(said) + "."


def ratio(parts: dict[str, pd.DataFrame]) -> pd.DataFrame:
    """By batch and kind of validation text, the LR of least loss by a parabola through the three
    about the grid's best, and that loss.
    """
    rows = []
    for batch in sorted(parts["prose"]["batch_tokens"].unique()):
        row: dict[str, Any] = {"batch_tokens": batch}
        for name, frame in parts.items():
            row[f"lr_{name}"], row[f"loss_{name}"] = vertex(frame[frame["batch_tokens"] == batch])
        rows.append(row)
    return pd.DataFrame(rows)


def vertex(sweep: pd.DataFrame) -> tuple[float, float]:
    """LR and loss at the lowest point of a parabola in log LR; of the grid's best at an edge."""
    sweep = sweep.sort_values("lr")
    x, y = np.log2(sweep["lr"].to_numpy(float)), sweep["loss"].to_numpy(float)
    i = int(np.argmin(y))
    if i in (0, len(x) - 1):
        return float(2 ** x[i]), float(y[i])
    a, b, c = np.polyfit(x[i - 1 : i + 2], y[i - 1 : i + 2], 2)
    return float(2 ** (-b / (2 * a))), float(c - b * b / (4 * a))


def target(frame: pd.DataFrame, said: dict[str, float]) -> tuple[pd.DataFrame, str]:
    """Every run of the held-out size, by how much it is above the best of them, in percent; and
    what was predicted of that one.
    """
    seen = frame.sort_values(["batch_tokens", "lr"])[["batch_tokens", "lr", "loss"]]
    least = seen["loss"].min()
    inside = "inside" if said["low"] <= least <= said["high"] else "outside"
    words = (
        f"Predicted {said['value']:.4f} [{said['low']:.4f}, {said['high']:.4f}]; the least of "
        f"{len(seen)} runs is {least:.4f}: {100 * (said['value'] / least - 1):+.2f} %, {inside}."
    )
    return seen.assign(above=100 * (seen["loss"] / least - 1)), words


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("folder", type=Path)
    folder = parser.parse_args().folder

    def runs(name: str) -> pd.DataFrame:
        return pd.read_parquet(folder / f"{name}.parquet")

    told = json.loads((folder / "prediction.json").read_text())["numbers"]
    held, words = target(runs("target"), told["loss"])
    tables = {
        "betas of one memory in tokens, and in steps": betas(runs("betas"), runs("trials")),
        "best LR by kind of validation text": ratio({k: runs(f"ratio_{k}") for k in KINDS}),
        "the held-out size": held,
    }
    text = "\n".join(f"### {name}\n\n{table_text(frame)}\n" for name, frame in tables.items())
    text += f"\n{words}\n\n{lr_exponents(runs('betas'))}\n"
    print(text)
    replace(folder / "beside.md", text)


if __name__ == "__main__":
    main()
