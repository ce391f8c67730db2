"""The page says what the numbers say, fetches nothing, escapes what it is given, and its sliders
evaluate the fitted law.
"""

import json
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from fits.evaluate import evaluate
from fits.fit import fit
from fits.optimum import sweeps
from fits.record import Fit, load
from fits.report import rows, whatif, words
from fits.report import runs as ran
from fits.report.page import render
from fits.report.plots import style
from fits.report.plots.law import law_figure
from fits.report.plots.sweeps import drawable, shared_range, transfer_figure
from fits.report.runs import facts
from fits.table.rows import read
from ground import InputError
from tests.fits import study
from tests.fits.runs import EPOCH, surface

CHROMIUM = Path("/usr/bin/chromium")
FLAGS = [
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
]  # fmt: skip
EVIL = "<script>document.title='owned'</script><img src=http://example.invalid/x>$lr$"


@pytest.fixture(scope="module")
def runs() -> pd.DataFrame:
    return study.table()


@pytest.fixture(scope="module")
def checks(runs) -> list[dict]:
    return study.checks(runs)


@pytest.fixture(scope="module")
def law(runs) -> Fit:
    return study.law(runs)


@pytest.fixture(scope="module")
def prediction(runs, law) -> dict:
    return study.prediction(runs, law)


@pytest.fixture(scope="module")
def page(runs, checks, law, prediction) -> str:
    flags = {
        "flags": [
            {
                "name": "tokens_per_param_span",
                "value": 1.25,
                "threshold": 4,
                "meaning": "N & D in lockstep",
            }
        ]
    }
    return render(
        "A study", runs, checks, law, prediction, study.RECIPE, ["Text: made up."], audit=flags
    )


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


# In a browser ------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def browser():
    sync_api = pytest.importorskip(
        "playwright.sync_api", reason="playwright is not installed (extra: test)"
    )
    if not CHROMIUM.exists():
        pytest.skip(f"no browser at {CHROMIUM} (apt-get install chromium)")
    with sync_api.sync_playwright() as p:
        opened = p.chromium.launch(executable_path=str(CHROMIUM), headless=True, args=FLAGS)
        yield opened
        opened.close()


def visit(browser, tmp_path, html: str, width: int = 1100):
    """The opened page, what it requested, and every error it gave."""
    path = tmp_path / "report.html"
    path.write_text(html, encoding="utf-8")
    requests, errors = [], []
    page = browser.new_page(viewport={"width": width, "height": 900})
    page.on("request", lambda r: requests.append(r.url))
    page.on("pageerror", lambda e: errors.append(str(e)))
    page.on("console", lambda m: errors.append(m.text) if m.type in ("error", "warning") else None)
    page.goto(path.as_uri())
    return page, requests, errors


def slide(page, name: str, log2: float) -> None:
    page.eval_on_selector(
        f"#{name}", "(s, v) => { s.value = v; s.dispatchEvent(new Event('input')); }", log2
    )


@pytest.mark.parametrize("width", [1100, 400])
def test_in_a_browser_it_fetches_nothing_and_fits_the_screen(
    browser, page, tmp_path, width
) -> None:
    opened, requests, errors = visit(browser, tmp_path, page, width)
    assert requests == [(tmp_path / "report.html").as_uri()] and errors == []
    assert opened.evaluate("document.documentElement.scrollWidth") == width
    sizes = opened.eval_on_selector_all(
        "figure svg text", "all => all.map((t) => t.getBoundingClientRect().height)"
    )
    assert len(sizes) > 40 and min(sizes) >= 8  # px: readable on a phone too


def test_sliders_evaluate_the_law_and_keep_the_reach_rule(
    browser, page, law, prediction, tmp_path
) -> None:
    opened, _, errors = visit(browser, tmp_path, page)
    start = opened.inner_text("#loss")
    assert (
        start == f"{prediction['predicted']['loss']['value']:.3f}"
        and opened.inner_text("#ratio") == "1.00×"
    )
    opened.click("button[data-slider=n][data-step='1']")
    n, d = 2 * prediction["target"]["params"], prediction["target"]["tokens"]
    twice = evaluate(law, {"params": np.array([n]), "tokens": np.array([d])}).value[0]
    assert (
        opened.inner_text("#loss") == f"{twice:.3f}" != start
        and opened.inner_text("#ratio") == "2.00×"
    )
    low, high = (float(v) for v in opened.inner_text("#interval").strip("[]").split(", "))
    band = evaluate(law, {"params": np.array([n]), "tokens": np.array([d])})
    assert low == pytest.approx(band.low[0], abs=0.02) and high == pytest.approx(
        band.high[0], abs=0.02
    )
    reach = []
    for factor in (1.0, 50.0, 200.0):  # of the fitted maximum of compute
        slide(opened, "n", np.log2(law.range["flops"][1] * factor / 6 / d))
        reach.append(
            (
                opened.get_attribute("#whatif-panel", "class"),
                opened.inner_text("#reach").split(":")[0],
            )
        )
    assert reach == [("whatif", ""), ("whatif warned", "Warning"), ("whatif refused", "Refused")]
    assert errors == []


def test_sliders_over_a_grid_agree_with_the_law(browser, tmp_path) -> None:
    points = surface("chinchilla", EPOCH, n=40)
    found = fit(points, "auto")
    opened, _, errors = visit(
        browser,
        tmp_path,
        render("x", pd.DataFrame({**points.x, "loss": points.y}), [], found),
    )
    for log_n, log_d in ((27.3, 33.1), (33.77, 38.4)):
        slide(opened, "n", log_n)
        slide(opened, "d", log_d)
        exact = evaluate(found, {"params": [2.0**log_n], "tokens": [2.0**log_d]})
        assert float(opened.inner_text("#loss")) == pytest.approx(exact.value[0], abs=1.5e-3)
    assert errors == []


def test_a_hostile_name_runs_nothing(browser, runs, law, tmp_path) -> None:
    evil = runs[runs["study"] == "ladder"].assign(study=EVIL)
    opened, requests, errors = visit(
        browser, tmp_path, render("harmless", evil, [], law, notes=[EVIL])
    )
    assert opened.title() == "harmless" and len(requests) == 1 and errors == []
    assert EVIL in opened.inner_text("#runs")


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
