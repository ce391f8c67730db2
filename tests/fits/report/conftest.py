"""A study and its page, and a browser to look at it."""

from pathlib import Path

import pandas as pd
import pytest

from fits.record import Fit
from fits.report.page import render
from tests.fits import study

CHROMIUM = Path("/usr/bin/chromium")
FLAGS = [
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
]  # fmt: skip


@pytest.fixture(scope="package")
def runs() -> pd.DataFrame:
    return study.table()


@pytest.fixture(scope="package")
def checks(runs) -> list[dict]:
    return study.checks(runs)


@pytest.fixture(scope="package")
def law(runs) -> Fit:
    return study.law(runs)


@pytest.fixture(scope="package")
def prediction(runs, law) -> dict:
    return study.prediction(runs, law)


@pytest.fixture(scope="package")
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


@pytest.fixture(scope="package")
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


@pytest.fixture
def visit(browser, tmp_path):
    """Opens HTML: the page, what it requested, and every error it gave."""
    opened = []

    def look(html: str, width: int = 1100, **emulated):
        path = tmp_path / "report.html"
        path.write_text(html, encoding="utf-8")
        requests, errors = [], []
        page = browser.new_page(viewport={"width": width, "height": 900}, **emulated)
        opened.append(page)
        page.on("request", lambda r: requests.append(r.url))
        page.on("pageerror", lambda e: errors.append(str(e)))
        bad = ("error", "warning")
        page.on("console", lambda m: errors.append(m.text) if m.type in bad else None)
        page.goto(path.as_uri())
        return page, requests, errors

    yield look
    for page in opened:
        page.close()
