"""What the three studies of sparsity say: fits, tables and plots under results/sparsity, and what
their laws say of the held-out cells, written before those are trained.

    R="python -m scripts.sparsity_report"
    $R predict weights TRIALS.parquet --out results/sparsity/weights
    $R report weights TRIALS.parquet TARGET.parquet --out results/sparsity/weights

`weights`, `experts` and `neurons` alike. `predict` refuses a table in which a held-out run is.
`report` fits all runs, for `scalelab predict`, and holds every written prediction (of another part
of the study: `--held PART`) against what was measured; it can run without one, and then says so.
"""

import argparse
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import pandas as pd

from fits.record import Fit
from fits.table.points import BODY
from ground import InputError
from ground.files import replace
from lab.records import Trial
from scripts import (
    rival_laws,
    sparsity_bought,
    sparsity_experts,
    sparsity_neurons,
    sparsity_weights,
)
from scripts import sparsity_plots as plots
from scripts.batch_report import save
from scripts.rehearsal import as_studied, twins
from scripts.tables import markdown

if TYPE_CHECKING:
    from matplotlib.figure import Figure

KINDS: dict[str, ModuleType] = {
    "weights": sparsity_weights,
    "experts": sparsity_experts,
    "neurons": sparsity_neurons,
}
WRITTEN = "prediction{}.json"
BOUGHT = "What a FLOP, a byte and a token buy, over dense"


@dataclass(frozen=True)
class Data:
    """Files of trials, whether of twins."""

    files: tuple[Path, ...]
    rehearsal: bool = False

    def counted(self, frame: pd.DataFrame) -> pd.DataFrame:
        return as_studied(frame) if self.rehearsal else frame

    def runs(self) -> pd.DataFrame:
        return self.counted(rival_laws.trained(self.files))

    def measured(self) -> pd.DataFrame:
        return self.counted(sparsity_neurons.measured(self.files))

    def held_out(self, kind: ModuleType, name: str) -> tuple[Trial, ...]:
        found = rival_laws.part(rival_laws.trained(self.files), kind.STUDY, name or kind.HELD)
        return twins(found) if self.rehearsal else found


def law_rows(kind: ModuleType, runs: pd.DataFrame, below: float) -> pd.DataFrame:
    """The runs that laws of the loss are fitted to."""
    rows = kind.fitted_rows(kind.prepared(runs))
    return rows[rows["loss"] < below]


def predict(kind: ModuleType, data: Data, below: float, held: str = "") -> Any:
    """What is written beforehand of the study's part `held`, as JSON."""
    runs = data.runs()
    trials = data.held_out(kind, held)
    cells = data.counted(rival_laws.untrained(trials, runs))
    if kind is sparsity_neurons:
        return sparsity_neurons.prediction(data.measured(), trials)
    fits = rival_laws.all_fitted(kind.RIVALS, law_rows(kind, runs, below))
    if not fits:
        raise InputError(f"trials: none of the laws can be fitted to {len(runs)} runs")
    about = {"study": kind.STUDY, "runs": len(runs), "below": None if below > 1e3 else below}
    return rival_laws.prediction(kind.RIVALS, fits, kind.prepared(cells), **about)


def report(kind: ModuleType, data: Data, out: Path, below: float) -> str:
    """Saves fits and plots; returns the tables."""
    found = _neurons(data, out) if kind is sparsity_neurons else _laws(kind, data, out, below)
    tables, figures = found
    for name, figure in figures.items():
        save(figure, out / f"{name}.png")
    return "\n".join(f"\n### {title}\n\n{text}" for title, text in tables.items()) + "\n"


def _laws(
    kind: ModuleType, data: Data, out: Path, below: float
) -> tuple[dict[str, str], dict[str, "Figure"]]:
    runs = data.runs()
    rows = law_rows(kind, runs, below)
    fits = rival_laws.all_fitted(kind.RIVALS, rows)
    if kind is sparsity_experts:
        fits |= rival_laws.all_fitted([kind.GRANULARITY], rows)
    for name, fit in fits.items():
        fit.save(out / "fits" / f"{name}.json")
    tables, figures = _held(kind, runs, out)
    sparsity_bought.write(out, bought := kind.bought(rows, fits))
    tables |= {"Laws of all runs": _numbers(fits)} | kind.tables(kind.prepared(runs), fits)
    tables[BOUGHT] = markdown(bought)
    if kind is sparsity_weights:
        figures["worth"] = plots.worth_figure(sparsity_weights.multipliers(fits))
    else:
        plain = kind.whole(rows)
        body = plain.assign(params_active=plain[BODY])
        if body.groupby(["width", "depth"])["experts"].nunique().max() > 1:
            figures["experts"] = plots.experts_figure(body, fits.get(kind.JOINT_BODY))
    return tables, figures


def _held(
    kind: ModuleType, runs: pd.DataFrame, out: Path
) -> tuple[dict[str, str], dict[str, "Figure"]]:
    """The held-out cells, where they were predicted and have been trained."""
    tables: dict[str, str] = {}
    figures: dict[str, Figure] = {}
    for path in sorted(out.glob(WRITTEN.format("*")), key=lambda path: (len(path.name), path.name)):
        part = path.stem.removeprefix(Path(WRITTEN.format("")).stem)
        title = f"Held out{part.replace('-', ': ', 1)}"
        try:
            found = rival_laws.judged(path, runs)
        except InputError as error:
            tables[title] = str(error)
            continue
        replace(out / f"held_out{part}.json", json.dumps(found, indent=1) + "\n")
        tables[title] = rival_laws.ranking(found)
        tables[f"{title}, cells"] = rival_laws.cell_rows(found, kind.LABELS)
        figures[f"held_out{part}"] = plots.held_figure(found, kind.LABELS[1])
    nothing = f"nothing was written beforehand ({WRITTEN.format('')} is not there)"
    return tables or {"Held out": nothing}, figures


def _numbers(fits: Mapping[str, Fit]) -> str:
    """Every law's parameters with their intervals."""
    rows: list[dict[str, Any]] = []
    for name, fit in fits.items():
        for key, value in {**fit.params, **fit.derived}.items():
            ends = fit.interval[key]
            rows.append({"law": name, "": key, "value": (value, ends["low"], ends["high"])})
        left = 100 * (fit.residual_sd or float("nan"))
        rows.append({"law": name, "": f"{fit.n} runs; sd of log loss, %", "value": left})
    return markdown(rows)


def _neurons(data: Data, out: Path) -> tuple[dict[str, str], dict[str, "Figure"]]:
    kind, rows, runs = sparsity_neurons, data.measured(), data.runs()
    early = kind.early(kind.trunks(rows))
    fits = kind.of_models(early)
    for (activation, size, law), fit in fits.items():
        fit.save(out / "fits" / f"{activation}-{size:.0f}-{law}.json")
    path, tables = out / WRITTEN.format(""), {}
    if path.exists():
        found = kind.judged(json.loads(path.read_text()), rows)
        sha = hashlib.sha256(path.read_bytes()).hexdigest()
        replace(
            out / "held_out.json",
            json.dumps({"prediction_sha256": sha, "laws": found}, indent=1) + "\n",
        )
        said = f"said beforehand in {path.name}, sha256 {sha}"
        tables["The largest size"] = f"{said}\n\n{markdown(found)}"
    tables |= kind.tables(rows, runs, fits)
    sparsity_bought.write(out, bought := kind.bought(runs))
    tables[BOUGHT] = markdown(bought)
    return tables, {"neurons": plots.neurons_figure(kind.trunks(rows), fits)}


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("what", choices=("predict", "report"))
    parser.add_argument("kind", choices=KINDS)
    parser.add_argument("trials", type=Path, nargs="+")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument(
        "--below",
        type=float,
        default=float("inf"),
        help="loss at which an early drop is over; laws of the loss are of what lies under it",
    )
    parser.add_argument("--held", default="", help="another part of the study that is held out")
    parser.add_argument("--rehearsal", action="store_true", help="of tiny twins of all trials")
    options = parser.parse_args(argv)
    kind, out = KINDS[options.kind], options.out
    data = Data(tuple(options.trials), options.rehearsal)
    (out / "fits").mkdir(parents=True, exist_ok=True)
    if options.what == "predict":
        found = predict(kind, data, options.below, options.held)
        path = out / WRITTEN.format(options.held and f"-{options.held}")
        replace(path, json.dumps(found, indent=1) + "\n")
        sha = hashlib.sha256(path.read_bytes()).hexdigest()
        print(f"{path}: {len(found['cells'])} cells, sha256 {sha}")
        return
    text = report(kind, data, out, options.below)
    print(text)
    replace(out / "tables.md", text)


if __name__ == "__main__":
    main()
