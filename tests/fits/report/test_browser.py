"""The page in a real browser: it asks for nothing, says no error, and what it does is right: the
sliders, the table, the download, the points that name their run, the fit that it redoes, dark and
printed, on a phone, for a screen reader.
"""

import csv
import io
import re
import time

import numpy as np
import pandas as pd
import pytest

from fits.engine.bootstrap import bootstrap
from fits.evaluate import evaluate, pooled
from fits.fit import fit
from fits.forms import catalogue
from fits.predict.target import DEVICES
from fits.report import words
from fits.report.page import render
from fits.table.points import select
from ground.text import cell
from tests.fits.runs import EPOCH, surface

EVIL = "<script>document.title='owned'</script><img src=http://example.invalid/x>$lr$"
FORMULA = '=HYPERLINK("http://example.invalid")'
SAME = 1e-6  # relative: of a parameter that the page fitted and Python's


@pytest.mark.parametrize("width", [1100, 390])
def test_it_fetches_nothing_and_fits_the_screen(visit, page, width) -> None:
    opened, requests, errors = visit(page, width)
    assert len(requests) == 1 and requests[0].startswith("file:") and errors == []
    assert opened.evaluate("document.documentElement.scrollWidth") == width
    sizes = opened.eval_on_selector_all(
        "figure svg text", "all => all.map((t) => t.getBoundingClientRect().height)"
    )
    assert len(sizes) > 40 and min(sizes) >= 8  # px: readable on a phone too


def test_where_published_sets_come_from_takes_few_lines_on_a_phone(visit) -> None:
    points = surface("chinchilla", EPOCH, n=40)
    table = pd.DataFrame({**points.x, "loss": points.y})
    opened, *_ = visit(render("x", table, [], fit(points, "chinchilla")), 390)
    heights = opened.eval_on_selector_all(
        "td.said", "all => all.map((t) => t.getBoundingClientRect().height)"
    )
    assert len(heights) > 3 and max(heights) < 120  # px; five lines


def slide(page, name: str, log2: float) -> None:
    page.eval_on_selector(
        f"#{name}", "(s, v) => { s.value = v; s.dispatchEvent(new Event('input')); }", log2
    )


def test_sliders_evaluate_the_law_and_keep_the_reach_rule(visit, page, law, prediction) -> None:
    opened, _, errors = visit(page)
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


def test_sliders_over_a_grid_agree_with_the_law(visit) -> None:
    points = surface("chinchilla", EPOCH, n=40)
    found = fit(points, "auto")
    opened, _, errors = visit(
        render("x", pd.DataFrame({**points.x, "loss": points.y}), [], found),
    )
    for log_n, log_d in ((27.3, 33.1), (33.77, 38.4)):
        slide(opened, "n", log_n)
        slide(opened, "d", log_d)
        exact = evaluate(found, {"params": [2.0**log_n], "tokens": [2.0**log_d]})
        assert float(opened.inner_text("#loss")) == pytest.approx(exact.value[0], abs=1.5e-3)
    assert errors == []


def test_sliders_say_what_the_prediction_says(visit, runs) -> None:
    """Of several forms the pooled loss, by all their refits, to six digits and more."""
    ladder = runs[runs["study"] == "ladder"]
    forms = [
        bootstrap(select(ladder, catalogue.law(name)), fit(ladder, name), 40)
        for name in ("chinchilla-tied", "power-c")
    ]
    opened, _, errors = visit(render("x", runs, [], forms))
    for n, d in ((3e4, 1e6), (1e5, 3e5)):
        at = {
            name: np.array([v]) for name, v in (("params", n), ("tokens", d), ("flops", 6 * n * d))
        }
        shown = opened.evaluate(f"page.whatif(Math.log({n}), Math.log({d}))")
        said = [float(v[0]) for v in pooled(forms, at)]
        assert shown == pytest.approx(said, rel=1e-8)
        alone = evaluate(forms[0], at).value[0]
        assert shown[0] != pytest.approx(alone, rel=1e-4)  # no one form's
    slide(opened, "c", np.log2(6e15))
    assert opened.inner_text("#c-value") == "6.00e15"
    hours = 6e15 / (8 * DEVICES["h200"] * 0.4) / 3600
    assert float(opened.inner_text("#hours")) == pytest.approx(hours, rel=1e-2)
    opened.fill("#gpus", "16")
    assert float(opened.inner_text("#hours")) == pytest.approx(hours / 2, rel=1e-2)
    slide(opened, "b", 12.0)
    steps = np.ceil(2.0 ** float(opened.input_value("#d")) / 4096)
    assert opened.inner_text("#steps") == words.count(steps)
    assert opened.get_attribute("#b", "aria-valuetext") == "4,096 tokens a step" and errors == []


def test_a_hostile_name_runs_nothing(visit, runs, law) -> None:
    evil = runs[runs["study"] == "ladder"].assign(
        study=EVIL, run_id=[EVIL + str(i) for i in range(9)]
    )
    opened, requests, errors = visit(render("harmless", evil, [], law, notes=[EVIL]))
    opened.focus("figure:has(svg[data-points])")
    opened.keyboard.press("ArrowRight")
    assert EVIL in opened.inner_text(".tip:not(:empty)")
    assert EVIL in opened.inner_text("#runs") and EVIL in opened.inner_text("#table-body")
    assert opened.title() == "harmless" and len(requests) == 1 and errors == []


def column(opened, name: str) -> list[str]:
    heads = [text.strip(" ▲▼") for text in opened.locator("#table-head th").all_inner_texts()]
    at = heads.index(name) + 1
    return opened.locator(f"#table-body tr > :nth-child({at})").all_inner_texts()


def test_the_table_sorts_filters_and_downloads(visit, runs, law) -> None:
    table = runs.assign(study=runs["study"].replace("target", FORMULA))
    opened, requests, errors = visit(render("x", table, [], law))
    assert opened.inner_text("#table-told") == "90 of 90 runs"
    opened.fill("#table-filter", "parametrization=u-mup width>=64 status=done")
    kept = table[
        (table["parametrization"] == "u-mup") & (table["width"] >= 64) & (table["status"] == "done")
    ]
    assert opened.inner_text("#table-told") == f"{len(kept)} of 90 runs"
    opened.click("#table-head button:text-is('loss')")
    ordered = kept.sort_values("loss")
    assert column(opened, "run_id") == list(ordered["run_id"])
    opened.click("#table-head button:text-is('loss')")
    assert column(opened, "run_id") == list(ordered["run_id"])[::-1]
    assert opened.get_attribute("#table-head th[aria-sort=descending]", "class") == "n"
    with opened.expect_download() as got:
        opened.click("#table-download")
    rows = list(csv.DictReader(io.StringIO(got.value.path().read_text())))
    assert [row["run_id"] for row in rows] == list(ordered["run_id"])[::-1]
    assert [float(row["loss"]) for row in rows] == list(ordered["loss"])[::-1]
    assert set(table.columns) < set(rows[0]) and "residual_chinchilla-tied" in rows[0]
    studies = {row["study"] for row in rows}
    assert cell(FORMULA) in studies and FORMULA not in studies and cell(FORMULA) != FORMULA
    opened.fill("#table-filter", "no_such_column=1")
    assert "no column no_such_column" in opened.inner_text("#table-told")
    assert errors == [] and all(url.startswith(("file:", "blob:")) for url in requests)


def test_points_name_their_run_under_the_pointer_and_by_keyboard(visit, runs, law) -> None:
    ladder = runs[runs["study"] == "ladder"].reset_index(drop=True)
    opened, _, errors = visit(render("x", ladder, [], law))
    figure = opened.locator("figure:has(svg[data-points])").first
    svg, tip = figure.locator("svg"), figure.locator(".tip")
    row, x, y = svg.get_attribute("data-points").split(";")[0].split(":")
    box, view = svg.bounding_box(), svg.get_attribute("viewBox").split()
    scale = box["width"] / float(view[2])
    opened.mouse.move(box["x"] + float(x) * scale, box["y"] + float(y) * scale)
    run = ladder.iloc[int(row)]
    assert tip.inner_text().startswith(f"{run['run_id']}: ") and "nats" in tip.inner_text()
    mark = opened.evaluate("([x, y]) => document.elementFromPoint(x, y).closest('svg') !== null",
                           [box["x"] + float(x) * scale, box["y"] + float(y) * scale])  # fmt: skip
    assert mark
    opened.mouse.move(5, 5)
    assert tip.inner_text() == ""
    figure.focus()
    seen = []
    for _ in range(len(ladder) + 1):
        opened.keyboard.press("ArrowRight")
        seen.append(tip.inner_text().split(":")[0])
    assert set(seen) == set(ladder["run_id"]) and seen[-1] == seen[-2]
    opened.keyboard.press("Enter")
    assert column(opened, "run_id") == [seen[-1]]
    assert errors == []


def test_a_point_is_where_its_run_is(visit, runs, law) -> None:
    """Against the marks that Matplotlib drew, not against our own sums."""
    ladder = runs[runs["study"] == "ladder"].reset_index(drop=True)
    opened, _, _ = visit(render("x", ladder, [], law))
    off = opened.evaluate("""() => {
      const svg = document.querySelector("svg[data-points]");
      const marks = [...svg.querySelectorAll('[id*="PathCollection"] use')];
      const at = svg.dataset.points.split(";").map((p) => p.split(":").slice(1).map(Number));
      return at.map(([x, y]) => Math.min(...marks.map((m) =>
        Math.hypot(m.getAttribute("x") - x, m.getAttribute("y") - y))));
    }""")
    assert len(off) == len(ladder) and max(off) < 0.5  # of a point, 1/72 inch


@pytest.mark.parametrize(
    "name, objective", [("chinchilla-outer", "log-huber"), ("chinchilla", "log-mse")]
)
def test_the_page_fits_the_law_again(visit, name, objective) -> None:
    points = surface("chinchilla", EPOCH, n=60, noise=0.003)
    table = pd.DataFrame({**points.x, "loss": points.y})
    found = fit(table, name, objective=objective)
    opened, _, errors = visit(render("x", table, [], found))
    opened.click("#refit")
    again = opened.evaluate("page.refit()")
    assert again["params"] == pytest.approx(found.params, rel=SAME)
    assert again["objective"] == pytest.approx(found.objective["value"], rel=1e-9)
    assert "60 runs" in opened.inner_text("#refit-said")
    shown = opened.inner_text("[data-refit=alpha]")
    assert shown.startswith(f"{found.params['alpha']:.4g}"[:5]) and errors == []
    # its answer comes of the runs: of others it is another
    opened.evaluate("page.columns.find((c) => c.name === 'loss').values[0] *= 1.2")
    other = opened.evaluate("page.refit()")
    assert other["objective"] > 1.1 * found.objective["value"]


def test_dark_and_printed(visit, page) -> None:
    def colours(opened):
        return opened.evaluate(
            "() => [getComputedStyle(document.body).backgroundColor, "
            "getComputedStyle(document.body).color]"
        )

    light, _, _ = visit(page)
    dark, _, errors = visit(page, color_scheme="dark")
    assert colours(light) == ["rgb(255, 255, 255)", "rgb(26, 26, 26)"]
    assert colours(dark) == ["rgb(26, 26, 26)", "rgb(232, 232, 232)"]
    assert "invert" in dark.evaluate("getComputedStyle(document.querySelector('svg')).filter")
    dark.emulate_media(media="print")
    assert colours(dark) == ["rgb(255, 255, 255)", "rgb(0, 0, 0)"]
    assert not dark.is_visible("nav") and not dark.is_visible("#table-filter")
    assert dark.evaluate("getComputedStyle(document.querySelector('svg')).filter") == "none"
    assert errors == []


def serious(opened, part="body", options=None) -> set[str]:
    """Of what axe finds outside the figures' own marks, which are one image each."""
    from axe_playwright_python.sync_playwright import Axe

    where = {"include": [[part]], "exclude": [["svg"]]}
    found = Axe().run(opened, where, options).response["violations"]
    return {v["id"] for v in found if v["impact"] in ("serious", "critical")}


def test_axe_has_no_serious_finding(visit, page) -> None:
    contrast = {"runOnly": ["color-contrast"]}
    opened, _, _ = visit(page)
    opened.fill("#table-filter", "study=ladder")  # a few rows stand for all
    assert serious(opened) == set()
    opened.emulate_media(color_scheme="dark")
    assert serious(opened, options=contrast) == set()
    opened.evaluate("document.querySelector('#all-runs .caption').style.color = '#444'")
    opened.evaluate("document.getElementById('table-filter').labels[0].remove()")
    assert serious(opened, "#all-runs") >= {"color-contrast", "label-title-only"}  # it does look


def test_headings_tables_and_figures_are_named(page) -> None:
    bare = re.sub(r"<script.*?</script>", "", page, flags=re.S)
    assert bare.count("<main>") == 1 and 'scope="' in bare
    assert not re.findall(r"<th(?![^>]*scope=)[ >]", bare)
    assert all("aria-label=" in tag for tag in re.findall(r"<figure[^>]*>", bare))


def test_two_thousand_runs_are_a_small_page_that_opens_at_once(visit) -> None:
    points = surface("chinchilla", EPOCH, n=2000, noise=0.003)
    rng = np.random.default_rng(0)
    table = pd.DataFrame({**points.x, "loss": points.y})
    table = table.assign(run_id=[f"run-{i:05d}" for i in range(2000)], status="done")
    table = table.assign(**{f"extra{i}": rng.standard_normal(2000) for i in range(12)})
    found = fit(table, "chinchilla")
    html = render("x", table, [], found)
    assert len(html.encode()) < 5e6
    opened, _, errors = visit(html)
    assert opened.inner_text("#table-told").startswith("2000 of 2000 runs") and errors == []

    def build() -> float:
        began = time.process_time()
        render("x", table, [], found)
        return time.process_time() - began

    def load() -> float:
        opened.reload()
        took = "performance.getEntriesByType('navigation')[0].loadEventEnd / 1000"
        return opened.evaluate(took)

    # seconds: 1.5 each on a core of one's own (1.0 to build, 0.9 to load, where it was written);
    # one that others share does half as much
    for measured, most in ((build, 3.0), (load, 1.5)):
        assert measured() < most or measured() < most or measured() < most
