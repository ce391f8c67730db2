"""The page says what the numbers say, fetches nothing, escapes what it is given, and its sliders
evaluate the fitted law.
"""

import dataclasses
import json
import re

import numpy as np
import pandas as pd
import pytest

from fits.evaluate import evaluate
from fits.fit import fit
from fits.optimum import sweeps
from fits.predict import published
from fits.predict.against import against
from fits.predict.recipe import recipe
from fits.predict.sources import from_fit
from fits.record import Fit, load
from fits.report import documents, laws, measured, rows, sparse, table, whatif, words
from fits.report import runs as ran
from fits.report.page import render
from fits.report.plots import published as published_plots
from fits.report.plots import style
from fits.report.plots.law import law_figure
from fits.report.plots.sweeps import drawable, shared_range, transfer_figure
from fits.report.runs import facts
from fits.report.summary import summary
from fits.survey import Survey
from fits.table.rows import read
from ground import InputError
from tests.fits import study
from tests.fits.runs import EPOCH, surface

EVIL = "<script>document.title='owned'</script><img src=http://example.invalid/x>$lr$"


def text_of(page: str) -> str:
    """What a reader sees, without tags, scripts and styles."""
    bare = re.sub(r"<(script|style)\b.*?</\1>", " ", page, flags=re.S)
    return (
        re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", bare))
        .replace("&#39;", "'")
        .replace("&gt;", ">")
        .replace("&lt;", "<")
    )


def test_summary_says_verdicts_and_numbers(page, checks, prediction) -> None:
    text = text_of(page)
    assert "90 runs of 4 model sizes" in text and "diverged." in text
    for check in checks:
        total = check["drift"]["total"]["value"]
        lead = "transfers" if check["verdict"] == "pass" else "does not transfer"
        assert (
            f"{check['verdict']} {check['parametrization']}, adamw: the best learning rate {lead} "
            "from width 16 to 128" in text
        )
        assert f"{total:+.2f}".replace("-", "−") in text
    assert [c["verdict"] for c in checks] == ["fail", "pass"]
    said, measured = prediction["predicted"]["loss"], prediction["measured"]["loss"]
    assert (
        f"{said['value']:.3f} [{said['low']:.3f}, {said['high']:.3f}]; measured afterwards: "
        f"{measured:.3f}" in text
    )
    assert "inside the 90 % interval" in text and prediction["prediction_sha256"] in text


def test_every_section_has_its_numbers(page, runs, law) -> None:
    text = text_of(page)
    assert f"{int((runs['status'] == 'diverged').sum())} diverged" in text
    assert "this page summed the objective over them again and got the fit's own value" in text
    assert (
        f"{law.objective['value']:.7g}" in text
        and f"{law.starts['agree']} of {law.starts['tried']} starts agree" in text
    )
    assert page.count(f'<span class="flag">{words.NOT_MEASURED}</span>') == 2
    assert "steplaw (2503.04715)" in text and "tokens / batch_tokens (steplaw (2503.04715))" in text
    assert "tokens_per_param_span 1.25 4 N &amp; D in lockstep" in text and "Text: made up." in text
    assert page.count("<figure") == page.count("<svg ") == 4


def test_the_page_refers_to_nothing_outside_it(page) -> None:
    page = re.sub(r"<script>.*?</script>", "", page, flags=re.S)  # what they ask for: in a browser
    references = re.findall(r"""(?:src|href|xlink:href|url\()\s*=?\s*["']?([^"')\s>]+)""", page)
    assert references and all(r.startswith(("#", "data:")) for r in references)
    ids = re.findall(r'\bid="([^"]+)"', page)
    assert len(ids) == len(set(ids))
    assert {r[1:] for r in references if r.startswith("#")} <= set(ids)


def test_what_it_is_given_is_escaped(runs, law) -> None:
    evil = runs.assign(
        study=runs["study"].replace("lr_width", EVIL), parametrization=EVIL, device=EVIL
    )
    evil = evil[(runs["study"] == "lr_width") & (runs["parametrization"] == "u-mup")]
    recipe = {EVIL: study.number(1.0, source=EVIL)}
    page = render(
        EVIL, evil, study.checks(evil, EVIL), law, recipe=recipe, notes=[EVIL], missing=[EVIL]
    )
    assert "<script>document" not in page and "<img" not in page
    assert page.count("&lt;script&gt;document") >= 6


def test_same_input_same_page(runs, checks, law) -> None:
    assert render("x", runs, checks, law) == render("x", runs, checks, law)


@pytest.mark.parametrize(
    "columns, said",
    [
        (
            ["loss"],
            (
                "No transfer check",
                "No law",
                "No prediction",
                "No recipe",
                "No audit",
                "Needs a loss law",
            ),
        ),
        (["lr", "width", "loss"], ("No transfer check", "No law")),
        (["params", "tokens"], ("No transfer check",)),
    ],
)
def test_sections_without_data_say_what_is_missing(runs, columns, said) -> None:
    table = runs[runs["study"] == "ladder"][columns]
    found, missing = sweeps.checks(table)
    text = text_of(render("x", table, found, missing=missing))
    assert all(sentence in text for sentence in said)
    assert "Not recorded in this table" in text


def test_a_check_that_cannot_be_made_says_why(runs) -> None:
    few = runs[
        (runs["study"] == "lr_width")
        & (runs["parametrization"] == "u-mup")
        & runs["lr"].between(0.5, 4.0)
    ]
    found, missing = sweeps.checks(few)
    assert not found and len(missing) == 1 and "seed noise cannot be estimated" in missing[0]
    assert "seed noise cannot be estimated" in text_of(render("x", few, found, missing=missing))


def test_a_check_keeps_its_runs_and_is_made_of_the_whole_table_too(runs, checks) -> None:
    for check in checks:
        mine = runs[
            (runs["study"] == "lr_width") & (runs["parametrization"] == check["parametrization"])
        ]
        assert len(mine) == sum(row["runs"] for row in check["rows"]) == 32
        for row in check["rows"]:
            of_size = mine[mine["width"] == row["size"]].sort_values("lr")
            loss = of_size["loss"].where(of_size["status"] == "done").to_numpy()
            kept = np.array(row["basin"]["loss"], float)
            np.testing.assert_allclose(row["basin"]["log2"], np.log2(of_size["lr"]), rtol=1e-6)
            np.testing.assert_allclose(kept[np.isfinite(kept)], loss[np.isfinite(kept)], rtol=1e-6)
            assert np.isfinite(kept).sum() == row["points"]
    found, missing = sweeps.checks(runs)
    assert [(c["parametrization"], c["axis"], c["verdict"]) for c in found][:2] == [
        ("sp", "width", "fail"),
        ("u-mup", "width", "pass"),
    ]
    assert not missing


def test_law_points_are_those_that_were_fitted_or_the_page_says_so(runs, law) -> None:
    found = rows.of_law(runs, law)
    assert found.exact and len(found.points.y) == law.n == 9
    moved = runs.assign(loss=runs["loss"] * 1.01)
    found = rows.of_law(moved, law)
    assert not found.exact
    assert "they are not the 9 that were fitted" in text_of(render("x", moved, [], law))


def test_points_are_selected_as_the_fit_says(runs) -> None:
    table = runs.assign(kept=(runs["steps"] != 280).astype(int))
    chosen = read(table, where=["kept=1"], best_over=["lr"], keys=("params", "tokens"))
    found = fit(chosen, "chinchilla-tied")
    assert rows.of_law(table, found).exact


def test_points_are_found_by_the_names_the_fit_keeps(runs, tmp_path) -> None:
    """Not by their values: a table of the same losses under other names holds none of them; a fit
    of an older version, without names, stands on all rows or says that it does not.
    """
    ladder = runs[runs["study"] == "ladder"]
    found = fit(ladder, "chinchilla-tied")
    assert set(found.rows) == set(ladder["run_id"]) and rows.of_law(runs, found).exact
    assert not rows.of_law(runs.assign(run_id=runs["run_id"] + "x"), found).exact
    older = {k: v for k, v in found.document().items() if k not in ("rows", "left_out_rows")}
    (tmp_path / "older.json").write_text(json.dumps(older))
    older = load(tmp_path / "older.json")
    assert rows.of_law(ladder, older).exact and not rows.of_law(runs, older).exact
    numbered = runs.drop(columns="run_id").reset_index(drop=True)
    kept = read(numbered, where=["study=ladder"])
    again = fit(kept, "chinchilla-tied")
    assert all(isinstance(row, int) for row in again.rows) and rows.of_law(numbered, again).exact


def test_panels_share_their_range_and_show_every_optimum(runs, checks) -> None:
    figure = transfer_figure(checks)
    assert len(figure.axes) == 2 and figure.axes[0].get_ylim() == figure.axes[1].get_ylim()
    low, high = shared_range(drawable(checks))
    assert all(low < row["loss"]["value"] < high for check in checks for row in check["rows"])
    labels = [text.get_text() for text in figure.legends[0].get_texts()]
    assert labels == ["width 16", "width 32", "width 64", "width 128", "optimum, 90 %"]


def test_a_legend_of_many_long_labels_stays_inside_its_figure() -> None:
    def draw(axes) -> None:
        for i in range(13):
            axes.plot([0, 1], [0, i], label=f"training length {i + 10}.0 k")

    figure = style.make([draw])
    box = figure.legends[0].get_window_extent()
    assert 0 <= box.x0 and box.x1 <= figure.bbox.x1


@pytest.mark.parametrize("suffix", ["png", "svg"])
def test_figures_are_written_as_pictures(runs, checks, law, prediction, tmp_path, suffix) -> None:
    for name, figure in {
        "transfer": transfer_figure(checks),
        "law": law_figure(runs, law, prediction),
    }.items():
        path = tmp_path / f"{name}.{suffix}"
        figure.savefig(path)
        assert path.stat().st_size > 10_000


def slider(data: dict, params: float, tokens: float) -> float:
    """What whatif.js computes from the data of a sum of powers."""
    offset, gain, *terms = data["rows"][0]
    parts = [
        np.exp(terms[i] - terms[i + 1] * np.log(params) - terms[i + 2] * np.log(tokens))
        for i in range(0, len(terms), 3)
    ]
    return offset + sum(parts) ** gain


@pytest.mark.parametrize("name, p", [
    ("chinchilla", EPOCH), ("chinchilla-tied", {k: v for k, v in EPOCH.items() if k != "beta"}),
    ("chinchilla-outer", {**EPOCH, "gamma": 0.9}),
    ("kaplan-nd", {"N_c": 6.4e13, "alpha_N": 0.076, "D_c": 1.8e13, "alpha_D": 0.103}),
    ("power-c", {"E": 1.7, "A": 1e3, "gamma": 0.15}),
    ("gadre", {"E": 1.7, "a": 140.0, "b": 190.0, "eta": 0.12}),
])  # fmt: skip
def test_the_sliders_data_is_the_law(name, p) -> None:
    span = {"params": [1e8, 1e9], "tokens": [1e9, 1e10], "flops": [6e17, 6e19]}
    data = whatif.data(
        Fit(name, p, {"name": "log-huber", "delta": 1e-3, "value": 1.0}, 10, range=span)
    )
    for params, tokens in ((1e8, 1e9), (7e9, 1.4e11)):
        x = {
            "params": np.array([params]),
            "tokens": np.array([tokens]),
            "flops": np.array([6 * params * tokens]),
        }
        assert slider(data, params, tokens) == pytest.approx(
            float(Fit(name, p, {}, 1).form.predict(p, x)[0]), rel=1e-9
        )


def test_laws_of_more_than_n_and_d_have_no_sliders() -> None:
    p = {"E": 1.7, "A": 400.0, "B": 400.0, "C": 10.0, "alpha": 0.3, "beta": 0.3, "gamma": 0.3}
    assert whatif.data(Fit("three-term", p, {}, 10, range={"params": [1e8, 1e9]})) is None


def test_auto_gets_its_curves_and_a_grid() -> None:
    points = surface("chinchilla", EPOCH, n=40)
    found = fit(points, "auto")
    data = whatif.data(found)
    at = {
        "params": [2.0 ** data["span"]["params"][0]],
        "tokens": [2.0 ** data["span"]["tokens"][1]],
    }
    assert np.exp(data["grid"]["value"][0][-1]) == pytest.approx(
        evaluate(found, at).value[0], rel=1e-5
    )
    page = render("x", pd.DataFrame({**points.x, "loss": points.y}), [], found)
    assert "a weighted set of forms" in page and "count and ranges are the fit" in page


@pytest.mark.parametrize(
    "value, count, general",
    [
        (950, "950", "950.0"),
        (1024, "1,024", "1024"),
        (12345.6, "12.3 k", "1.23e4"),
        (1.4e12, "1.40 T", "1.40e12"),
        (3e18, "3.00e18", "3.00e18"),
        (0.00391, "0.00391", "0.003910"),
        (9999.7, "10.0 k", "1.00e4"),
        (None, "–", "–"),
        (float("nan"), "–", "–"),
    ],
)
def test_numbers_are_spelled_one_way(value, count, general) -> None:
    assert (words.count(value), words.general(value)) == (count, general)
    assert (
        words.signed(-0.001) == "+0.00"
        and words.signed(-0.5) == "−0.50"
        and words.percent(-0.0034) == "−0.34 %"
    )


@pytest.mark.parametrize(
    "bad", [{}, {"predicted": {"loss": 2.7}}, {"predicted": {"loss": {"low": 1}}}]
)
def test_a_prediction_that_is_none_is_refused_by_name(runs, bad) -> None:
    from ground import InputError

    with pytest.raises(InputError, match="prediction"):
        render("x", runs, [], prediction=bad)


def planted(drift: float) -> pd.DataFrame:
    """Five widths, two depths, four lengths; SP's optimum drifts by `drift` in log2 over width."""
    rng, rows = np.random.default_rng(0), []
    for i, width in enumerate((64, 128, 256, 512, 1024)):
        for depth in (2, 4):
            for steps in (100, 200, 400, 800):
                for e in range(-9, -1):
                    n, d = 12.0 * depth * width**2, 4096.0 * steps
                    off = e + 4 - drift * i / 4
                    loss = (1.7 + 30 * n**-0.3 + 60 * d**-0.32) * (1 + 0.01 * off**2)
                    rows.append(
                        {"parametrization": "sp", "params": n, "width": width, "depth": depth,
                         "steps": steps, "batch_tokens": 4096, "tokens": d, "lr": 2.0**e,
                         "loss": loss * (1 + 0.002 * rng.standard_normal())}
                    )  # fmt: skip
    return pd.DataFrame(rows)


@pytest.mark.parametrize("drift, verdict", [(-4.0, "fail"), (0.0, "pass")])
def test_a_failure_among_many_sweeps_comes_first(drift, verdict) -> None:
    table = planted(drift)
    found, missing = sweeps.checks(table)
    over_width = [c for c in found if c["axis"] == "width"]
    assert len(over_width) == 8 and not missing  # two depths, four lengths
    assert {c["verdict"] for c in over_width} == {verdict}
    assert all(c["drift"]["total"]["value"] == pytest.approx(drift, abs=0.6) for c in over_width)
    assert {c["axis"] for c in found} == {"width", "depth", "steps"}
    lines = summary(table, found, [], unchecked=sweeps.unchecked(table, found))
    first = lines[0] if verdict == "fail" else lines[1]
    assert first["verdict"] == verdict and "from width 64 to 1,024" in first["text"]
    assert f"8 of 8 sweeps: {verdict}" in first["text"]
    verdicts = [line["verdict"] for line in lines]
    assert verdicts.count("pass") == (2 if verdict == "fail" else 3)  # one an axis
    assert lines[-1]["text"] == (
        "Not checked: transfer over batch; every run has batch_tokens 4096."
    )


def test_what_predict_writes_is_a_prediction(runs, law) -> None:
    """Its JSON and its saved recipe alike; what was measured is the table's own run."""
    target = runs[runs["study"] == "target"].iloc[0]
    at = {name: float(target[name]) for name in ("params", "tokens")}
    made = recipe([from_fit(law, "loss.json")], at, extrapolate=True)
    saved = json.loads(json.dumps(dataclasses.asdict(made)))
    for document in (made.document(), saved):
        page = text_of(render("x", runs, [], law, prediction=document))
        said = made.numbers["loss"]
        assert f"{said.value:.3f} [{said.low:.3f}, {said.high:.3f}]" in page
        assert f"measured afterwards: {target['loss']:.3f}" in page
        assert f"Measured: run {target['run_id']}, the only run of this table" in page
    stated, rest = documents.prediction(saved), runs[runs["study"] != "target"]
    assert measured.beside(stated, rest, [law])["found"] == ""
    again = fit(runs[runs["study"].isin(["ladder", "target"])], "chinchilla-tied")
    assert "so it tests nothing" in measured.beside(stated, runs, [again])["found"]


def test_every_run_is_in_the_page_as_it_is(runs, law) -> None:
    held = re.search(r'id="runs-data">(.*?)</script>', render("x", runs, [], law), re.S)
    data = json.loads(held.group(1))
    columns = {column["name"]: column for column in data["columns"]}
    assert data["n"] == len(runs) and set(runs.columns) < set(columns)
    losses = np.array(columns["loss"]["values"], float)
    np.testing.assert_array_equal(losses, runs["loss"])
    of = columns["parametrization"]
    assert [of["words"][i] for i in of["values"]] == list(runs["parametrization"])
    assert columns["vocab"]["same"] == 256 and columns["loss"]["unit"] == "nats per token"
    off = columns["residual_chinchilla-tied"]["values"]
    assert sum(v is not None for v in off) == law.n and max(abs(v or 0) for v in off) < 2


def test_documents_and_curves_are_left_out_of_the_table_and_said(runs) -> None:
    wide = runs.assign(trial="x" * 500, curves=[[{"name": "loss"}]] * len(runs))
    assert table.data(wide)["left_out"] == ["trial", "curves"]
    assert "Not in it: trial, curves" in text_of(render("x", wide, []))


def test_published_sets_stand_beside_a_law_of_their_form() -> None:
    points = surface("chinchilla", EPOCH, n=40)
    found = fit(points, "chinchilla")
    rows = laws.shown(found, pd.DataFrame({**points.x, "loss": points.y}), None, None, 0)
    off = {row["name"]: row["off"] for row in rows["published"]}
    assert abs(off["epoch"]) < 0.01 < abs(off["misfitting-all"]) and "<svg" in rows["beside"]
    assert laws.shown(study.law(study.table(), 2), study.table(), None, None, 0)["refit"]


def test_the_middle_of_sparse_runs_is_sparse_and_the_figure_has_room_to_say_it() -> None:
    found = Fit(
        "sparse-weights", published.get("frantar-t5")[0].params, {"name": "log-mse"}, 9,
        range={"params_nonzero": [2e5, 8e6], "tokens": [1e7, 4e8], "sparsity": [0.0, 0.875]},
    )  # fmt: skip
    rows = against(found)
    assert rows[0]["at"]["sparsity"] == pytest.approx(1 - (1 / 8) ** 0.5)
    assert rows[0]["at"]["params_nonzero"] == pytest.approx((2e5 * 8e6) ** 0.5)
    drawn = published_plots.figure(found, rows)
    (axes,) = drawn.axes
    title = axes.get_title(loc="left")
    assert "params_nonzero 1.26 M, sparsity 0.6464" in title
    ends = axes._left_title.get_window_extent().x1, drawn.bbox.width
    assert ends[0] < ends[1]


def test_data_for_the_sliders_is_json_and_cannot_end_its_script(runs, law) -> None:
    from dataclasses import replace

    page = render("x", runs, [], replace(law, params_kind="</script><script>alert(1)</script>"))
    data = re.search(
        r'<script type="application/json" id="law-data">(.*?)</script>', page, re.S
    ).group(1)
    assert json.loads(data)["kind"].startswith("</script>")


def test_a_word_among_the_sizes_is_named(runs) -> None:
    table = runs.assign(width=["J.5"] + ["32"] * (len(runs) - 1))
    with pytest.raises(InputError, match=r"width='J.5' in row 1: must be a number"):
        render("t", table, [], [])


def test_neurons_are_told_where_they_were_measured():
    table = pd.DataFrame({"loss": [2.0, 2.1], "activation": ["relu", "swiglu"]})
    assert "active neurons" not in dict(ran.facts(table)[0])
    table = table.assign(active_neurons=[0.3, 1.0], dead_neurons=[0.004, 0.0])
    facts = dict(ran.facts(table.assign(activation_ratio=np.nan))[0])
    assert facts["activation"] == "relu, swiglu" and facts["active neurons"] == "30.0% to 100.0%"
    assert facts["dead neurons"] == "0.0% to 0.4%"
    assert "neurons kept at 1 % more perplexity" not in facts


def test_sparse_weights_are_said_where_there_are_any(runs) -> None:
    dense = facts(runs.assign(sparsity=0.0))
    assert facts(runs) == dense and not any("sparsity" in name for name, _ in dense[0])
    half = runs.assign(sparsity=[0.0, 0.5] * (len(runs) // 2), pruning="set", params_nonzero=1000)
    said = dict(facts(half)[0])
    assert said["sparsity"] == "0.0, 0.5" and said["pruning"] == "set"
    assert said["params nonzero"] == "1,000"


SPARSE = pd.DataFrame(
    {
        "loss": [2.0, 1.9, np.nan, 2.2],
        "params": [1000.0, 1000, 1000, 4000],
        "params_active": [1000.0, 1000, 1000, 1100],
        "params_nonzero": [1000.0, 1000, 250, 4000],
        "tokens": [1e5] * 4,
        "activation": ["relu", "relu", "relu", "swiglu"],
        "pruning": [None, None, "set", None],
        "sparsity": [0.0, 0.0, 0.75, 0.0],
        "experts": [1, 1, 1, 4],
        "experts_per_token": [1, 1, 1, 2],
        "active_neurons": [0.4, 0.5, 0.25, np.nan],
        "dead_neurons": [0.0, 0.0, 0.125, np.nan],
    }
)


def test_sparse_runs_are_told_by_kind() -> None:
    names = ("weights", "experts", "params", "params_nonzero", "params_active", "runs")
    found = sparse.kinds(SPARSE)
    assert [tuple(row[name] for name in names) for row in found] == [
        ("none", "one", "1,000", "1,000", "1,000", 2),
        ("none", "2 of 4", "4,000", "4,000", "1,100", 1),
        ("0.75, set", "one", "1,000", "250", "1,000", 1),
    ]
    assert [row["loss"] for row in found[:2]] == [1.9, 2.2] and np.isnan(found[2]["loss"])
    assert [row["active_neurons"] for row in found] == ["40.0% to 50.0%", "", "25.0%"]
    assert [row["dead_neurons"] for row in found] == ["0.0%", "", "12.5%"]
    ramps = SPARSE.assign(pruning="gradual", sparsity=0.75, prune_start=0.25, experts=1)
    ramps = ramps.assign(prune_end=[0.75, 0.75, 0.5, 0.75], params=1000.0, activation="relu")
    told = {row["weights"]: row["runs"] for row in sparse.kinds(ramps)}
    assert told == {"0.75, gradual from 0.25 to 0.75": 3, "0.75, gradual from 0.25 to 0.5": 1}
    nm = ramps.assign(pruning="nm", prune_pattern=["2:4", "4:8"] * 2, prune_end=0.75)
    assert {row["weights"] for row in sparse.kinds(nm)} == {
        f"0.75, nm {pattern} from 0.25 to 0.75" for pattern in ("2:4", "4:8")
    }
    said = dict(facts(nm)[0])
    assert (said["prune pattern"], said["prune start"]) == ("2:4, 4:8", "0.25")
    dense = SPARSE[["loss", "params", "tokens", "activation"]]
    routers = pd.DataFrame(
        {"experts": 4, "experts_per_token": 2, "router": ["relu", "hash"], "loss": [2.0, 2.1]}
    )
    told = [row["experts"] for row in sparse.kinds(routers)]
    assert told == ["2 of 4, relu", "2 of 4, hash"]  # kinds of their own
    assert sparse.kinds(dense) == [] and not sparse.sparse(dense.assign(sparsity=0.0, experts=1))


def test_a_law_that_is_given_is_not_fitted_beside_itself() -> None:
    """Of two of one name the page does not say which is whose."""
    points = surface("chinchilla", EPOCH, n=40)
    given, own = (fit(points, "chinchilla", quick=True) for _ in range(2))
    other = dataclasses.replace(own, parametrization="mup")
    assert Survey([], [], [], fits=[own, other]).beside([given]) == [given, other]
    assert Survey([], [], [], fits=[own]).beside([]) == [own]


def test_a_page_without_a_law_says_so_and_shows_its_sparse_runs() -> None:
    survey = Survey([], [], [], reasons={"routed": "four rows are too few"})
    html = render("t", SPARSE, [], survey=survey)
    assert "No law could be fitted to these 4 runs" in html and "Sparse runs, by kind" in html
    assert "routed: four rows are too few." in html and "No law: none was given" not in html
    assert "Sparse runs, by kind" not in render("t", SPARSE[["loss", "params"]], [])
