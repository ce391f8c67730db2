"""scalelab design: which study to run for a target and a budget."""

from dataclasses import dataclass
from dataclasses import replace as copied
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from tyro.conf import Positional, arg

from ground import InputError
from ground.files import writable
from scalelab.cli.args import amount, parse, print_json
from scalelab.cli.runs import columns, names, pair, say_left_out

if TYPE_CHECKING:
    import pandas as pd

    from fits.design.design import Design as Found
    from lab.records import Trial

STUDIES = (".yaml", ".yml", ".py")


@dataclass(frozen=True)
class Design:
    """Of a space or a pool of candidate runs those that, for a budget, tell the most of the target:
    prints the study, its cost, and the target's interval before and as it is expected after.
    """

    candidates: Annotated[Positional[str], arg(metavar="CANDIDATES")]
    """A study (.yaml, .py or built in), or a table with one row a candidate. A table's rows with
    split=target are targets; of the others those with a loss are runs at hand, and cost nothing.
    """
    budget: str = ""
    """What may be spent, in FLOPs (or hours, or the unit of --cost), such as 1e18; or 10%, of all
    candidates.
    """
    target: tuple[str, ...] = ()
    """The run to be predicted, its columns by name, such as params=7B tokens=140B (repeatable)."""
    runs: Path | None = None
    """Runs at hand: a store or a table with the law's columns and loss."""
    map: tuple[str, ...] = ()
    """Our column name = the table's, such as loss=val_loss (repeatable)."""
    inputs: str = ""
    """The law's columns, comma-separated, where it is not one of params and tokens (with
    unique_tokens), or params_active and experts: then one power law over a floor.
    """
    cost: str = ""
    """Columns, comma-separated, whose product a candidate costs (default: cost, flops or 6 params
    tokens).
    """
    best_over: str = ""
    """Comma-separated hyperparameters, such as lr: candidates that differ in nothing else that the
    law reads are bought together, and the best of them counts.
    """
    step_time: Path | None = None
    """A saved fit of the law step-time on your device: the cost is then hours on it."""
    device: str = ""
    """a100, h100, h200, b200, mi300x, v4, v5e, v5p or v6e: the cost is then hours of --gpus at
    --mfu, where no --step-time is given.
    """
    gpus: int = 1
    """Devices of --device."""
    mfu: float = 0.4
    """Share of the devices' peak (dense bfloat16) that 6 params tokens make up."""
    criterion: Literal["v", "d"] = "v"
    """v: the least variance of the prediction at the target; d: the most information of the law."""
    rounds: int | None = None
    """In how many rounds the budget is spent, each as much as all before it, the law fitted anew
    after each (default: 1; of --replay 5). The first is printed: train it, and give it as --runs.
    """
    replay: bool = False
    """Every candidate has its loss: hide it until it is bought, and tell how well the targets were
    predicted.
    """
    level: float = 0.9
    """Level of the intervals."""
    vocab: int = 256
    """Vocabulary of a study's corpus."""
    out: Path | None = None
    """Write what is to be run: a study as .yaml, a table's rows as .csv."""
    json: bool = False
    """One JSON document on stdout."""


def main(args: list[str]) -> int:
    options = parse(Design, "scalelab design", args)
    if not 0 < options.level < 1:
        raise InputError(f"level={options.level!r}: must be between 0 and 1")
    writable(options.out)
    trials = _trials(options)
    table = _table(options) if trials is None else _frame(trials)
    found = run(options, table)
    if options.out is not None:
        _write(options.out, found, table, trials)
    if options.json:
        print_json({**found.document(), "out": str(options.out) if options.out else None})
    else:
        from scalelab.cli.design_text import show

        show(found, table, options.level)
    return 0


def run(options: Design, table: "pd.DataFrame") -> "Found":
    """The design over the rows of the table."""
    from fits.design.design import design, replay
    from fits.design.pool import cells, forms_for, joined, telling
    from fits.design.rounds import ROUNDS

    forms = forms_for(telling(table), columns(options.inputs))
    split = table["split"].astype(str) if "split" in table else None
    if split is not None and (odd := {*split} - {"target", "candidate"}):
        raise InputError(f"split={min(odd)!r}: must be candidate or target")
    targets = table[split == "target"] if split is not None else table.iloc[:0]
    rest = table.drop(index=targets.index)
    if options.target:
        targets = _target(options, targets)
    known = rest["loss"].notna() if "loss" in rest and not options.replay else None
    own, open_ = (rest[known], rest[~known]) if known is not None else (rest.iloc[:0], rest)
    if options.runs is not None:
        own = _joined(own, _runs(options, options.runs, forms[0].inputs))
    cost, unit = _cost(options, open_)
    budget = _budget(options.budget, float(cost.sum()))
    together = None
    if over := columns(options.best_over):
        open_, cost, together = cells(open_, cost, forms, over)
    pool = joined(forms, {"candidates": open_, "at_hand": own, "targets": targets}, cost)
    rounds = options.rounds if options.rounds is not None else ROUNDS if options.replay else 1
    choose = replay if options.replay else design
    found = choose(pool, budget, unit, options.criterion, rounds, options.level)
    if together is None:
        return found
    rows = [i for row in found.rows for i in together[row]]
    return copied(found, rows=rows, candidates=sum(map(len, together.values())))


def _trials(options: Design) -> "list[Trial] | None":
    """Of a study; None where the candidates are a table."""
    from sweeps.studies import load
    from sweeps.studies import names as built_in

    path = Path(options.candidates)
    if path.suffix not in STUDIES and options.candidates not in built_in():
        return None
    return list(load(options.candidates, "design", options.vocab).trials)


def _table(options: Design) -> "pd.DataFrame":
    from fits.table.rows import renamed

    return renamed(Path(options.candidates), names(options.map), "candidates")[0]


def _frame(trials: "list[Trial]") -> "pd.DataFrame":
    """A trial's row of the table, as far as it is known before it has run; every token of a corpus
    that does not say otherwise is new.
    """
    import pandas as pd

    from lab.counts import row
    from lab.records import Result

    rows = [row(t, Result(run_id=t.run_id, status="failed"), "") for t in trials]
    frame = pd.DataFrame(rows).drop(columns=["status", "loss", "unique_tokens"])
    return frame.dropna(axis=1, how="all")


def _runs(options: Design, path: Path, keys: tuple[str, ...]) -> "pd.DataFrame":
    from fits.table.rows import read

    found = read(path, names(options.map), best_over=columns(options.best_over), keys=keys)
    say_left_out(found)
    return found.frame


def _joined(a: "pd.DataFrame", b: "pd.DataFrame") -> "pd.DataFrame":
    import pandas as pd

    return pd.concat([a, b], ignore_index=True) if len(a) else b


def _target(options: Design, given: "pd.DataFrame") -> "pd.DataFrame":
    import pandas as pd

    if len(given):
        raise InputError("target: the table's rows with split=target are the targets already")
    point = {}
    for entry in options.target:
        name, text = pair("target", entry)
        try:
            point[name] = amount(text)
        except ValueError:
            raise InputError(f"target {name}={text!r}: must be a number, such as 7B") from None
    return pd.DataFrame([point])


def _cost(options: Design, open_: "pd.DataFrame") -> tuple[Any, str]:
    """Of each candidate, and its unit."""
    from fits.design.pool import cost_of, hours_of

    if options.step_time is not None:
        from fits.record import load

        if options.cost or options.device:
            raise InputError("step-time: give one of --step-time, --device and --cost")
        fit = load(options.step_time)
        return hours_of(open_, fit), "hours"
    found = cost_of(open_, columns(options.cost))
    if not options.device:
        return found, "cost" if options.cost or "cost" in open_ else "FLOP"
    if options.cost:
        raise InputError("device: give one of --device and --cost")
    from fits.predict.target import rate

    return found / rate(options.gpus, options.device, options.mfu) / 3600, "hours"


def _budget(text: str, total: float) -> float:
    if not text:
        raise InputError("budget: give --budget, such as 1e18 or 10% of all candidates")
    share = text.endswith("%")
    try:
        value = amount(text[:-1] if share else text)
    except ValueError:
        raise InputError(f"budget={text!r}: must be a number, such as 1e18, or 10%") from None
    if not 0 < value < float("inf") or (share and value > 100):
        raise InputError(f"budget={text!r}: must be above 0, of a share at most 100%")
    return value / 100 * total if share else value


def _write(out: Path, found: "Found", table: "pd.DataFrame", trials: "list[Trial] | None") -> None:
    from ground.files import replace, replacing
    from ground.text import cell

    if trials is None:
        chosen = table.loc[found.rows]
        words = [str(name) for name in chosen if chosen[name].dtype.kind not in "iufb"]
        chosen = chosen.assign(**{n: chosen[n].fillna("").map(str).map(cell) for n in words})
        with replacing(out) as part:
            chosen.to_csv(part, index=False)
        return
    from sweeps.studies import as_yaml

    said = f"{len(found.rows)} of {found.candidates} candidates by scalelab design"
    replace(out, as_yaml([trials[i] for i in found.rows], said, _expectation(found)))


def _expectation(found: "Found") -> str:
    widths = [t.width_after for t in found.targets if t.width_after is not None]
    if not widths:
        return "The target's loss becomes known within a factor of 2."
    return f"The target's loss becomes known to {max(widths):.2%}."
