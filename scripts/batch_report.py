"""Tables, plots and fits of results/batch from the trials of the study `batch`.

python -m scripts.batch_report results/batch/trials.parquet --out results/batch
"""

import argparse
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from fits.batch import best as best_batch
from fits.batch import critical as critical_batch
from fits.batch import trunks
from fits.batch.critical import Critical
from fits.engine.bootstrap import bootstrap
from fits.fit import fit as fit_law
from fits.forms.critical_batch import CriticalBatch, CriticalBatchLoss
from fits.forms.loss import ThreeTerm
from fits.forms.trajectory import LAWS as TRAJECTORIES
from fits.predict.against import against
from fits.record import Fit
from fits.report.plots import batch as plots
from fits.table.points import select
from fits.table.rows import Table, read, table_of
from ground import InputError
from ground.files import replace, replacing
from scripts.tables import table_text
from scripts.timescale_report import interval

if TYPE_CHECKING:
    from matplotlib.figure import Figure

KIND, REFITS = "no_embed", 200


def tried(what: str, made: Callable[[], Any]) -> Any:
    """What the runs support; what they do not is said, and is None."""
    try:
        return made()
    except InputError as error:
        print(f"{what}: not from these runs: {error}")
        return None


def all_fits(runs: Table, found: best_batch.Sweeps, below: float) -> dict[str, Fit | None]:
    """Every law by the name of its file; those of the loss from losses under `below`."""
    floors = table_of(found.floors())

    def critical(law: Any) -> Fit:
        return fit_law(critical_batch.points(floors, law), law)

    def resampled(points: Any, law: Any) -> Fit:
        return bootstrap(points, fit_law(points, law, objective="log-mse"), REFITS)

    def loss() -> Fit:
        best = runs.frame[runs.frame["loss"] < below].sort_values("loss", kind="stable")
        cells = best.drop_duplicates(["params", "tokens", "batch_tokens"])
        return resampled(select(table_of(cells), ThreeTerm, KIND), ThreeTerm)

    def trajectory(law: Any) -> Fit:
        rows = table_of(trunks.along(runs.frame, below=below))
        return resampled(select(rows, law, KIND), law)

    return {
        "batch": tried("best batch", lambda: best_batch.fit_batch(found)),
        "batch-tokens": tried("best batch", lambda: best_batch.fit_batch(found, "batch-tokens")),
        "lr": tried("best LR", lambda: best_batch.fit_lr(found)),
        "critical": tried("critical batch over tokens", lambda: critical(CriticalBatch)),
        "critical-loss": tried("critical batch over loss", lambda: critical(CriticalBatchLoss)),
        "loss": tried("three-term law", loss),
        **{law.name: tried(law.name, partial(trajectory, law)) for law in TRAJECTORIES},
    }


def by_size(found: best_batch.Sweeps) -> dict[float, list[Critical]]:
    """The hyperbolas of each size that has them."""
    out = {}
    for params, part in found.floors().groupby("params"):
        batch, tokens, loss = (part[c].to_numpy(float) for c in ("batch_tokens", "tokens", "loss"))
        size = float(str(params))
        if ones := tried(
            f"N {size:g}: hyperbolas", partial(critical_batch.iso_loss, batch, tokens, loss)
        ):
            out[size] = ones
    return out


def noise_table(runs: Table, critical: Fit | None) -> pd.DataFrame | None:
    """The noise scale by octaves, with the critical batch there and their ratio where its law was
    measured.
    """
    noise = tried("noise scale", lambda: trunks.noise_scales(runs.frame))
    if noise is None or critical is None:
        return noise
    # a trunk's tokens at that batch, in the fewest that would have come as far
    tokens, batch = (noise[c].to_numpy(float) for c in ("tokens", "batch_tokens"))
    least = critical_batch.useful_tokens(tokens, batch, critical.params)
    low, high = critical.range["tokens"]
    measured = (least >= low) & (least <= high)
    there = np.where(measured, CriticalBatch.predict(critical.params, {"tokens": least}), np.nan)
    return noise.assign(critical_batch=there, ratio=noise["noise_scale"] / there)


def both_batches(best: Fit, critical: Fit) -> pd.DataFrame:
    """The law of the best batch, and the critical batch of a run at it, at each size and length."""
    at = pd.DataFrame([{k: c[k] for k in ("params", "tokens")} for c in best.cells])
    batch = best.form.predict(best.params, {k: at[k].to_numpy(float) for k in map(str, at)})
    least = critical_batch.useful_tokens(at["tokens"].to_numpy(float), batch, critical.params)
    there = CriticalBatch.predict(critical.params, {"tokens": least})
    return at.assign(best_batch=batch, critical_batch=there, ratio=there / batch)


def away(found: best_batch.Sweeps) -> pd.DataFrame:
    """What batches beside the grid's best lose, in percent of its loss, by their distance in
    doublings; with each at the best of its LRs.
    """
    rows = []
    for (params, tokens), part in found.floors().groupby(["params", "tokens"]):
        best = part.iloc[part["loss"].argmin()]
        off = np.log2(part["batch_tokens"] / best["batch_tokens"]).round().astype(int)
        lost = dict(zip(off, 100 * (part["loss"] / best["loss"] - 1), strict=True))
        beside = {f"{k:+d}": lost.get(k, np.nan) for k in (-2, -1, 1, 2)}
        rows.append({"params": params, "tokens": tokens, **beside})
    return pd.DataFrame(rows)


def held_trajectories(runs: Table, below: float) -> pd.DataFrame:
    """Of the largest size with several batches, each batch's trunk by the laws of the other trunks:
    root mean square and largest error of the loss, in percent.
    """
    along = trunks.along(runs.frame, below=below)
    batches = along.groupby("params_no_embed")["batch_tokens"].nunique()
    largest, rows = batches[batches > 1].index.max(), []
    for batch in sorted(along["batch_tokens"][along["params_no_embed"] == largest].unique()):
        held = (along["params_no_embed"] == largest) & (along["batch_tokens"] == batch)
        seen = along[held].assign(params=along["params_no_embed"][held])
        row = {"params_no_embed": largest, "batch_tokens": batch}
        for law in TRAJECTORIES:
            fit = fit_law(select(table_of(along[~held]), law, KIND), law, quick=True)
            x = {name: seen[name].to_numpy(float) for name in law.inputs}
            off = 100 * (law.predict(fit.params, x) / seen["loss"].to_numpy(float) - 1)
            row[f"{law.name} rms"] = np.sqrt(np.mean(off**2))
            row[f"{law.name} most"] = np.abs(off).max()
        rows.append(row)
    return pd.DataFrame(rows)


def told(name: str, fit: Fit) -> str:
    """A law's numbers, each with its interval, and what was published of it."""
    lines = [f"\n### {name}: {fit.form.formula}\n"]
    for key, value in {**fit.params, **fit.derived}.items():
        ends = fit.interval.get(key)
        said = f" {interval(ends['low'], ends['high'], '{:.4g}')}" if ends else ""
        lines.append(f"- {key} {value:.4g}{said}")
    lines += [f"- {fit.n} points; {'; '.join(fit.warnings)}"]
    for one in against(fit) if fit.replicates else []:
        lines.append(f"- {one['name']}: {one['params']}, inside ours: {one['inside']}")
    return "\n".join(lines)


def cell_table(fit: Fit) -> str:
    rows = ["| N | tokens | runs | best batch | loss |", "|---|---|---|---|---|"]
    for cell in fit.cells:
        low, high = (
            None if cell["log2"][e] is None else 2 ** cell["log2"][e] for e in ("low", "high")
        )
        edge = f", at the {cell['censored']} edge" if cell["censored"] else ""
        best = f"{cell['batch_tokens']:.3g} {interval(low, high)}{edge}"
        size = f"{cell['params'] / 1e6:.2f}M | {cell['tokens'] / 1e6:.0f}M | {cell['runs']}"
        rows.append(f"| {size} | {best} | {cell['loss']['value']:.4f} |")
    return "\n".join(rows)


def save(figure: "Figure", path: Path) -> None:
    with replacing(path) as plot:
        figure.savefig(plot, dpi=150)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("trials", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--noise", type=float, help="sd of log loss of one run, if known")
    parser.add_argument(
        "--below",
        type=float,
        default=float("inf"),
        help="loss at which an early drop is over; the laws of the loss are of what lies under it",
    )
    parser.add_argument(
        "--settled",
        type=float,
        default=float("inf"),
        help="a lower loss, from which on trunks are held out once more",
    )
    options = parser.parse_args()
    runs = read(options.trials, every_status=True)
    found = best_batch.sweeps(runs, KIND, noise=options.noise)
    fits, hyperbolas = all_fits(runs, found, options.below), by_size(found)
    noise = noise_table(runs, fits["critical"])
    (options.out / "fits").mkdir(parents=True, exist_ok=True)
    parts = []
    for name, fit in fits.items():
        if fit is not None:
            fit.save(options.out / "fits" / f"{name}.json")
            parts.append(told(name, fit))
    if (best := fits["batch"]) is not None:
        parts.insert(0, cell_table(best))
        save(plots.loss_figure(best), options.out / "loss.png")
        save(plots.batches_figure(best, fits["critical"], hyperbolas), options.out / "batches.png")
    if hyperbolas:
        save(plots.iso_loss_figure(hyperbolas), options.out / "iso_loss.png")
    if best is not None and fits["critical"] is not None:
        table = table_text(both_batches(best, fits["critical"]))
        parts.append(f"\n### best and critical batch\n\n{table}")
    parts.append(
        f"\n### loss beside the best batch, % (columns: doublings)\n\n{table_text(away(found))}"
    )
    for loss in dict.fromkeys((options.below, options.settled)):
        held = tried("held trajectories", partial(held_trajectories, runs, loss))
        if held is not None:
            title = f"trunks held out of the trajectories' law, % of the loss, below {loss:g}"
            parts.append(f"\n### {title}\n\n{table_text(held)}")
    if noise is not None:
        parts.append(f"\n### noise scale\n\n{table_text(noise)}")
        if "critical_batch" in noise:
            save(plots.noise_figure(noise), options.out / "noise.png")
    text = "\n".join(parts) + "\n"
    print(text)
    replace(options.out / "tables.md", text)


if __name__ == "__main__":
    main()
