"""scalelab fit DATA --law NAME: a law from a store, a Parquet or a CSV of anyone's runs."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from ground import InputError
from ground.files import writable
from ground.number import Number
from scalelab import screen
from scalelab.cli.args import parse, print_json
from scalelab.cli.runs import Runs, columns, names, pair, table

if TYPE_CHECKING:
    from fits.forms.law import Law
    from fits.record import Fit
    from fits.table.points import Points
    from fits.table.rows import Table


@dataclass(frozen=True)
class Options(Runs):
    """Fit a law to runs: many starts, the stated objective summed over runs, bootstrap over runs,
    and what is not identified said so.
    """

    law: str = "chinchilla"
    """The form; `scalelab laws` lists all. auto: a weighted set, by how well dearer runs
    are predicted.
    """
    objective: Literal["log-huber", "log-mse", "lad", "huber", "mse"] | None = None
    """log-...: residuals of log loss; huber, mse: of the loss itself. Default: log-huber of a loss,
    log-mse (least squares in logs) of a hyperparameter.
    """
    delta: float | None = None
    """Huber's threshold, in log loss (huber: in the loss's unit). Default: 1e-3 of a loss, 1.345
    standard deviations of a hyperparameter's residuals.
    """
    best_over: str = ""
    """Comma-separated hyperparameters: of the rows that share the law's inputs keep the best over
    these. Where the law predicts one of them, its optimum in each such cell, from a fitted basin.
    """
    checkpoints: Literal["last", "all"] = "last"
    """Of a run's rows (one run_id) the last with a loss, or all; the bootstrap then draws runs."""
    params_kind: Literal["total", "no_embed", "active", "active_no_embed"] = "total"
    """Which count of parameters the law is given."""
    prior: tuple[str, ...] = ()
    """PARAMETER=MEAN:SD:SOURCE, of the parameter's logarithm where it is a coefficient
    (repeatable).
    """
    bootstrap: int = 0
    """Refits on resampled runs; 0: none."""
    scheme: Literal["run", "hierarchical"] = "run"
    """What the bootstrap draws: runs, or sizes and then runs within each."""
    noise: float | None = None
    """Sd of log loss between seeds, where a law is of optima and the rows have one seed a cell."""
    level: float = 0.9
    """Level of the intervals."""
    seed: int = 0
    """Of the bootstrap."""
    out: Path | None = None
    """Save the fit, replicates included, as JSON."""
    json: bool = False
    """One JSON document on stdout."""


def main(args: list[str]) -> int:
    started = time.perf_counter()
    options = parse(Options, "scalelab fit", args)
    if not 0 < options.level < 1:
        raise InputError(f"level={options.level!r}: must be between 0 and 1")
    writable(options.out)
    fit = run(options)
    if options.out is not None:
        fit.save(options.out)
    if options.json:
        print_json(document(fit))
    else:
        show(fit, time.perf_counter() - started)
    return 0


def run(options: Options) -> Fit:
    from fits.fit import fit
    from fits.forms import catalogue
    from fits.forms.schedules import ScheduleLaw

    form, a_set = catalogue.reading(options.law), options.law in catalogue.SETS
    if a_set and options.bootstrap:
        raise InputError(
            f"bootstrap={options.bootstrap!r}: does not apply to {options.law}, whose forms are "
            "weighted by evidence, with intervals"
        )
    of_optima = form.target == "tau" or form.name == "batch-size-tokens"
    if options.noise is not None and not of_optima:
        raise InputError(f"noise={options.noise!r}: does not apply to {options.law}")
    if of_optima:
        runs = table(options, every_status=True)
        if "loss" in runs.frame:
            return through_optima(options, runs, form)
    if issubclass(form, ScheduleLaw):
        from fits.engine.schedules import fit_curves

        only(options, ("seed", "level"), "from the histories of runs: it is fitted to whole curves")
        return fit_curves(form, table(options, checkpoints="all"))
    points = chosen_points(options, form)
    found = fit(
        points,
        options.law,
        objective=options.objective,
        delta=options.delta,
        level=options.level,
        priors=priors(options.prior),
    )
    if not options.bootstrap:
        return found
    from fits.engine.bootstrap import bootstrap

    return bootstrap(points, found, options.bootstrap, options.seed, options.level, options.scheme)


def through_optima(options: Options, runs: Table, form: type[Law]) -> Fit:
    """A law of the best tau or batch, from runs over decay, or over LR and batch, rather than from
    rows that are optima already.
    """
    from fits.optimum.timescale import DECAYS, fit_timescale

    over = {"tau", *DECAYS} if form.target == "tau" else {"lr", "batch_tokens"}
    own = ["params_kind", "noise", "level", "seed"]
    if {*columns(options.best_over)} <= over:  # what it does anyway
        own.append("best_over")
    only(options, own, "from runs: it takes the best of each cell, with intervals")
    how: dict[str, Any] = {"noise": options.noise, "level": options.level, "seed": options.seed}
    if form.target == "tau":
        return fit_timescale(runs, options.law, options.params_kind, **how)
    from fits.batch.best import fit_batch, sweeps

    return fit_batch(sweeps(runs, options.params_kind, **how), options.law, options.seed)


def only(options: Options, own: Sequence[str], why: str) -> None:
    """Refuses options that a law does not take, beside those of every fit."""
    every = {"data", "law", "where", "map", "out", "json", *own}
    for field in dataclasses.fields(options):
        if field.name not in every and getattr(options, field.name) != field.default:
            raise InputError(
                f"{field.name.replace('_', '-')}={getattr(options, field.name)!r}: does not apply "
                f"to {options.law} {why}"
            )


def chosen_points(options: Options, form: type[Law]) -> Points:
    """What the law is fitted to: rows, or the optima that they have."""
    over = columns(options.best_over) or form.over
    if form.target in over:
        from fits.optimum.vertices import vertices

        rows = table(options, every_status=True)
        return vertices(rows, form, over, options.params_kind, options.level)
    from fits.table.points import select

    if form.along and (measured := measured_rows(options, form.target)):
        return select(measured, form, options.params_kind)
    rows = table(
        options, best_over=over, keys=form.inputs, checkpoints=options.checkpoints,
        target=form.target,
    )  # fmt: skip
    if form.target == "critical_batch" and "critical_batch" not in rows.frame:
        from fits.batch.critical import points

        return points(rows, form)
    return select(rows, form, options.params_kind)


def measured_rows(options: Options, name: str) -> Table | None:
    """The curve of that name of every run, where DATA holds curves."""
    from fits.table.curves import curve_rows
    from fits.table.rows import read

    found = curve_rows(options.data, name)
    if found is None:
        return None
    rows = read(found[0], names(options.map), options.where, checkpoints="all", target=name)
    return rows._replace(source=found[1])


def priors(entries: tuple[str, ...]) -> dict[str, dict[str, Any]]:
    out: dict[str, dict[str, Any]] = {}
    for entry in entries:
        name, text = pair("prior", entry)
        mean, _, rest = text.partition(":")
        sd, _, source = rest.partition(":")
        try:
            out[name] = {"mean": float(mean), "sd": float(sd), "source": source}
        except ValueError:
            raise InputError(f"prior={entry!r}: must be PARAMETER=MEAN:SD:SOURCE") from None
        if not source:
            raise InputError(f"prior={entry!r}: must name its source, PARAMETER=MEAN:SD:SOURCE")
    return out


def document(fit: Fit) -> dict[str, Any]:
    """The answer of `--json`; with a bootstrap, a parameter is a number with its interval; auto
    adds how it chose.
    """
    out: dict[str, Any] = {
        "law": fit.law,
        "params": {name: number(fit, name, value) for name, value in fit.params.items()},
        "objective": fit.objective,
        "n": fit.n,
        "left_out": fit.left_out,
        "starts": fit.starts,
        "range": fit.range,
        "derived": {name: number(fit, name, value) for name, value in fit.derived.items()},
        "condition": fit.condition,
        "identified": fit.identified,
        "warnings": fit.warnings,
        "unit": fit.target_unit,
    }
    if (mixed := fit.mixture) is not None:
        out |= {n: getattr(mixed, n) for n in ("form", "weights", "holdout", "scale")}
    if fit.cells:
        from fits.predict.against import against

        out |= {"cells": fit.cells, "published": against(fit)}
    if fit.bootstrap:
        from fits.engine.bootstrap import standard_deviations

        out["bootstrap"] = {**fit.bootstrap, "sd": standard_deviations(fit)}
    return out


def number(fit: Fit, name: str, value: float) -> Any:
    """Plain without an interval."""
    if name not in fit.interval:
        return value
    source = "least squares in logs, Student's t"
    if fit.cells:
        source = fit.objective["name"]
    elif fit.bootstrap:
        refits = fit.bootstrap["tried"] - fit.bootstrap["failed"]
        source = f"bootstrap over runs, {refits} refits"
    return Number(value, **fit.interval[name], source=source).json()


def show(fit: Fit, seconds: float) -> None:
    from rich.table import Table as Grid
    from rich.text import Text

    from fits.table.rows import told

    form = fit.form
    console = screen.console()
    head = Text.assemble((fit.law, "bold"), f"  {form.formula}   ", (f"({form.citation})", "dim"))
    console.print(head)
    left = told(fit.left_out)
    console.print(
        f"{fit.n} {'cells' if fit.cells else 'runs'} of {fit.source.split(' sha256')[0]}"
        + (f"; left out: {left}" if left else "")
    )
    delta = f", delta {fit.objective['delta']:g}" if fit.objective["delta"] else ""
    starts = f"; {fit.starts['agree']} of {fit.starts['tried']} starts agree" if fit.starts else ""
    console.print(f"{fit.objective['name']}{delta}, sum {fit.objective['value']:.8g}{starts}")
    if (mixed := fit.mixture) is not None:
        console.print(
            "weights: "
            + ", ".join(f"{name} {weight:.2f}" for name, weight in mixed.weights.items())
            + "; parameters: the heaviest form's"
        )
        unit = "FLOP" if "tokens" in fit.range else "FLOP a token"
        for row in mixed.holdout:
            console.print(
                f"left out above {row['flops']:.2g} {unit}: {row['tested']:g} runs, error "
                f"{row['error']:.2%}, bias {row['bias']:+.2%}"
            )
    grid = Grid(box=None, pad_edge=False, header_style="dim")
    level = f"{next(iter(fit.interval.values()))['level']:.0%} interval" if fit.interval else ""
    for name in ("", "value", level, "identified"):
        grid.add_column(name, justify="left" if not name else "right")
    for name, value in {**fit.params, **fit.derived}.items():
        bounds = fit.interval.get(name)
        closed = fit.identified.get(name)
        known = "" if closed is None else "yes" if closed else Text("no", "red")
        grid.add_row(
            name,
            f"{value:.6g}",
            f"{bounds['low']:.5g} to {bounds['high']:.5g}" if bounds else "",
            known,
        )
    console.print(grid)
    for name, (low, high) in fit.range.items():
        console.print(f"{name} {low:.3g} to {high:.3g}", style="dim")
    for warning in fit.warnings:
        console.print(Text.assemble(("warning", "yellow"), f" {warning}"), soft_wrap=True)
    if fit.cells:
        show_cells(fit)
    if fit.bootstrap:
        console.print(
            f"{fit.bootstrap['tried']} refits, {fit.bootstrap['failed']} failed", style="dim"
        )
    console.print(f"{seconds:.2f} s", style="dim")


def show_cells(fit: Fit) -> None:
    """The optima that the law is of, and what was published of it."""
    from rich.table import Table as Grid

    from fits.predict.against import against

    grid = Grid(box=None, pad_edge=False, header_style="dim")
    best = fit.form.target
    names = ("params", "tokens", "D/N", "batch", "lr", "runs", f"best {best}", "interval", "loss")
    for name in names:
        grid.add_column(name, justify="right", no_wrap=True)
    for cell in fit.cells:
        ends = (cell["log2"][end] for end in ("low", "high"))
        low, high = ("" if end is None else f"{2**end:.3g}" for end in ends)
        grid.add_row(
            *(f"{cell[name]:.4g}" for name in ("params", "tokens")),
            f"{cell['tokens'] / cell['params']:.4g}",
            *(f"{cell[c]:.4g}" if c in cell and c != best else "" for c in ("batch_tokens", "lr")),
            str(cell["runs"]),
            f"{cell[best]:.3g}" + (f" or {cell['censored']}er" if cell["censored"] else ""),
            f"{low} to {high}",
            f"{cell['loss']['value']:.4f}",
        )
    console = screen.console(wide=200)
    console.print(grid)
    for one in against(fit):
        ours, stated = one["fit"], ", ".join(f"{k} {v:g}" for k, v in one["params"].items())
        outside = [name for name, inside in one["inside"].items() if not inside]
        reach = ", ".join(f"{k} {low:.3g} to {high:.3g}" for k, (low, high) in one["range"].items())
        console.print(
            f"{one['name']} ({one['citation']}; N {one['params_kind']}; {reach}): {stated}; "
            f"outside our interval: {', '.join(outside) or 'none'}; at the middle of our cells "
            f"{one['published']:.3g}, ours {ours['value']:.3g} [{ours['low']:.3g}, "
            f"{ours['high']:.3g}]",
            soft_wrap=True,
        )
