"""Rows of what runs measured along the way, and the law of activation sparsity through them."""

import json

import numpy as np
import pytest

from fits.predict import published
from fits.table.curves import curve_rows
from lab.records import Curve, Result
from scalelab.__main__ import main
from sweeps import table
from sweeps.record import make_record
from sweeps.store import create
from tests.lab.toy import trial

NAME = "activation_ratio"


def planted(steps, name="relu"):
    law, *_ = published.get(f"sparsing-{name}-0.1b")
    return law.predict({"tokens": np.asarray(steps) * trial().batch_tokens * 1.0})


@pytest.fixture
def store(tmp_path):
    """Runs whose share of active neurons follows a published law, and a short one."""
    made = create(tmp_path / "store")
    for steps, activation in ((10**9, "relu"), (10**9, "silu"), (400, "gelu")):
        t = trial(steps=steps, schedule="wsd", activation=activation)
        at = np.unique(np.geomspace(10**7, steps, 32).astype(int)) if steps > 400 else [300, 400]
        law = "silu" if activation == "silu" else "relu"
        curve = Curve(tuple(map(int, at)), tuple(map(float, planted(at, law))))
        result = Result(run_id=t.run_id, status="done", loss=1.5, curves={NAME: curve})
        made.publish(make_record("toy", t, result))
    return made


def test_a_row_is_a_run_at_a_step(store, tmp_path):
    table.compact(store, tmp_path / "t.parquet")
    for data in (store.path, tmp_path / "t.parquet"):
        frame, source = curve_rows(data, NAME)
        assert source.split()[0] in ("store", "t.parquet")
        few = frame[frame["activation"] == "gelu"]
        assert few["steps"].tolist() == [300, 400] and few["cooling"].tolist() == [False, True]
        assert few["tokens"].tolist() == [300 * 64, 400 * 64]
        assert len(frame) == 66 and "loss" not in frame
    assert curve_rows(store.path, "cett") is None


@pytest.mark.parametrize(
    ("law", "activation"), [("sparse-activations", "relu"), ("sparse-activations-silu", "silu")]
)
def test_the_law_is_fitted_to_a_stores_curves(law, activation, store, capsys):
    asked = ["fit", str(store.path), "--law", law, "--json"]
    assert main([*asked, "--where", f"activation={activation}", "--where", "cooling=false"]) == 0
    found = json.loads(capsys.readouterr().out)
    expected, *_ = published.get(f"sparsing-{activation}-0.1b")
    assert found["n"] == 30
    for name, value in expected.params.items():
        assert found["params"][name] == pytest.approx(value, rel=0.02, abs=1e-3), name
    assert main([*asked, "--where", "activation=swiglu"]) == 2


def test_the_table_has_what_a_run_measured_last(store, tmp_path):
    frame = table.store_table(store.path).set_index("activation")
    assert frame.loc["gelu", NAME] == pytest.approx(float(planted([400])[0]))
    assert frame["dead_neurons"].isna().all()
    table.export(store.path, tmp_path / "t.csv")  # one row a run: too few for a law
    assert main(["fit", str(tmp_path / "t.csv"), "--law", "sparse-activations"]) == 2
