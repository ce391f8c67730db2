"""The benchmark of sparse cohorts on a CPU: rows with what they take over the dense one's."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from scripts import bench_sparse
from scripts.bench_step import cohort_of, shape

ROOT = Path(__file__).resolve().parents[2]
BIASED = "experts 16, sigmoid and bias"


def test_rows_are_held_against_the_dense_one(tmp_path):
    out = tmp_path / "sparse.json"
    command = [sys.executable, "-m", "scripts.bench_sparse", "--shapes", "64,32,1,64,4x16"]
    command += ["--only", BIASED, "--trials", "2", "--repeats", "1", "--repeat-seconds", "0.02"]
    flags = f"{os.environ.get('XLA_FLAGS', '')} --xla_backend_optimization_level=0"
    env = os.environ | {"XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"}
    command += ["--out", str(out), "--cache", str(tmp_path / "cache")]
    subprocess.run(command, cwd=ROOT, env=env, check=True, timeout=240)
    rows = json.loads(out.read_text())
    assert [row["case"] for row in rows] == [bench_sparse.DENSE, BIASED]
    assert rows[0]["slower"] == 1 and all(row["slower"] > 0 and row["finite"] for row in rows)
    assert rows[1]["slower"] == pytest.approx(
        rows[0]["ours_tokens_per_second"] / rows[1]["ours_tokens_per_second"]
    )
    again = {**rows[0], "slower": 2.0}  # takes the place of an older one
    assert bench_sparse.stored(rows, again) == [rows[1], again]


def test_the_dense_case_is_always_among_those_timed():
    assert bench_sparse.cases(["experts 64"]) == ["dense", "experts 64"]
    assert bench_sparse.cases([]) == list(bench_sparse.CASES)


@pytest.mark.parametrize("case", bench_sparse.CASES)
def test_every_case_is_a_trial_of_the_dense_ones_active_size(case):
    from lab.counts import params_active

    s = bench_sparse.SHAPES[0]
    fields = bench_sparse.CASES[case]
    one, dense = (cohort_of(s, 1, "bfloat16", "sp", **f)[0] for f in (fields, {}))
    assert params_active(one) == pytest.approx(params_active(dense), rel=0.02)
    assert str(shape(str(s))) == str(s)
