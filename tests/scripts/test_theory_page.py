"""The page of the theory bench is that of the results that are committed."""

from pathlib import Path

import pandas as pd

from scripts import theory_page

ROOT = Path(__file__).parents[2]


def test_the_page_is_that_of_the_results(monkeypatch):
    monkeypatch.setattr(theory_page, "RESULTS", ROOT / "results" / "theory")
    assert (ROOT / "docs" / "theory.md").read_text() == theory_page.page(theory_page.studies())


def test_frozen_parameters_are_not_counted_as_trained():
    runs = pd.DataFrame(
        [
            {"parametrization": name, "depth": 2, "width": w, "params": 20 * w * w,
             "params_no_embed": 20 * w * w - 10 * w, "loss": 3 / w**0.1, "lr": lr}
            for name in ("mup", "frozen")
            for w in (16, 32)
            for lr in (0.1, 0.2)
        ]
    )  # fmt: skip
    said = theory_page.frozen(theory_page.best_frozen(runs))
    assert "| frozen, depth 2 | 2.2736 | 2.1213 | -0.100 | -0.050 |" in said
    assert "| mup, depth 2 | 2.2736 | 2.1213 | -0.050 | -0.050 |" in said
