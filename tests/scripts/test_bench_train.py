"""The benchmark on the CPU: rows with all their fields, a yardstick's figures beside ours, layouts
over virtual devices.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from scripts import bench_train
from scripts.bench_step import cohort_of, layout_of, shape
from scripts.kernels import instructions, summary

ROOT = Path(__file__).resolve().parents[2]
SMALL = "64,32,1,64,4x16"
FIELDS = {
    "shape", "trials", "devices", "layout", "precision", "parametrization",
    "ours_tokens_per_second", "torch_tokens_per_second", "ratio", "model_tflops", "matmul_tflops",
    "ceiling_share", "floor_share", "peak_bytes", "compile_seconds", "spread", "device", "code",
    "versions", "date",
}  # fmt: skip


@pytest.fixture(scope="module")
def rows(tmp_path_factory):
    """One run over two virtual devices: a cohort on one of them and on both."""
    out = tmp_path_factory.mktemp("bench") / "train.json"
    flags = os.environ.get("XLA_FLAGS", "")
    flags += " --xla_force_host_platform_device_count=2 --xla_backend_optimization_level=0"
    command = [
        sys.executable,
        "-m",
        "scripts.bench_train",
        "--no-torch",
        "--only",
        SMALL,
        "--trials",
        "2",
        "--repeat-seconds",
        "0.02",
    ]
    command += ["--layouts", "", "trial=2", "--out", str(out), "--cache", str(out.parent / "cache")]
    done = subprocess.run(
        command,
        cwd=ROOT,
        env=os.environ | {"XLA_FLAGS": flags},
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(out.read_text()), done.stdout


def test_each_row_has_the_fields_of_the_table(rows):
    stored, printed = rows
    assert [(row["trials"], row["layout"]) for row in stored] == [(2, ""), (2, "trial=2")]
    for row in stored:
        assert set(row) >= FIELDS
        assert (
            row["finite"]
            and row["ours_tokens_per_second"] > 0
            and row["peak_bytes"] > 0
            and 0 < row["ceiling_share"] < 1
        )
        assert row["torch_tokens_per_second"] is None and row["ratio"] is None
        assert f"{row['ours_tokens_per_second'] / 1e6:8.4g} Mtok/s" in printed


def test_a_cohort_over_two_devices_has_an_efficiency_and_the_same_losses(rows):
    one, two = rows[0]
    assert two["devices"] == 2 and two["scaling"] == "strong"
    assert two["efficiency"] == pytest.approx(
        two["ours_tokens_per_second"] / 2 / one["ours_tokens_per_second"]
    )
    assert two["loss_difference"] < 1e-2  # bfloat16: a few units of its last place
    assert "efficiency" not in one


def row(**changes):
    base = {
        "shape": SMALL,
        "trials": 1,
        "precision": "bfloat16",
        "parametrization": "sp",
        "devices": 1,
        "layout": "",
        "device": "cpu",
    }
    return base | {"ours_tokens_per_second": 100.0, "first_losses": [4.0, 3.0]} | changes


def test_a_row_replaces_the_one_it_repeats_and_no_other(tmp_path):
    path = tmp_path / "train.json"
    for new in (row(), row(trials=4), row(ours_tokens_per_second=200.0), row(device="another")):
        bench_train.store(path, new)
    got = [
        (r["trials"], r["device"], r["ours_tokens_per_second"])
        for r in json.loads(path.read_text())
    ]
    assert got == [(4, "cpu", 100.0), (1, "cpu", 200.0), (1, "another", 100.0)]


def test_weak_scaling_compares_equal_work_a_device():
    wide = row(shape="64,32,1,64,16x16", devices=4, layout="data=4", ours_tokens_per_second=360.0)
    assert bench_train.efficiency(wide, [row()]) == {
        "scaling": "weak",
        "efficiency": pytest.approx(0.9),
    }
    assert bench_train.efficiency(wide, [row(precision="float32")]) == {}


def test_the_better_torch_mode_counts_and_both_are_kept():
    each = [
        {"mode": "default", "tokens_per_second": 5.0},
        {"mode": "reduce-overhead", "tokens_per_second": 7.0},
    ]
    found = bench_train.torch_part(
        [e | {"compile_seconds": 1.0, "peak_bytes": 2, "torch": "x"} for e in each]
    )
    assert found["torch_tokens_per_second"] == 7.0 and found["torch_mode"] == "reduce-overhead"
    assert (
        found["torch_default_tokens_per_second"] == 5.0
        and found["torch_reduce_overhead_tokens_per_second"] == 7.0
    )
    assert bench_train.torch_part([]) == {"torch_tokens_per_second": None}


FAKE = """
import json, sys
print("a warning, passed on")
print(json.dumps({"ready": True}), flush=True)
sys.stdin.readline()
print(json.dumps({"n": 1}), flush=True)
"""


def test_a_child_waits_to_be_told_and_is_ended_at_the_deadline(capsys):
    import time

    child = bench_train.Child([sys.executable, "-c", FAKE], {})
    assert child.ready(time.monotonic() + 30)
    child.go()
    assert (
        list(child.rows(time.monotonic() + 30)) == [{"n": 1}]
        and "a warning" in capsys.readouterr().out
    )
    stuck = bench_train.Child([sys.executable, "-c", FAKE], {})
    begun = time.monotonic()
    assert list(stuck.rows(begun + 2)) == [{"ready": True}]
    assert time.monotonic() - begun < 10 and stuck.process.poll() is not None
    assert "the time is up" in capsys.readouterr().err
    slow = bench_train.Child([sys.executable, "-c", "import time; time.sleep(60)"], {})
    assert not slow.ready(time.monotonic() + 0.5) and slow.process.poll() is not None
    assert not bench_train.Child([sys.executable, "-c", "1 / 0"], {}).ready(time.monotonic() + 30)
    assert not bench_train.Child([sys.executable, "-c", "import os; os.abort()"], {}).ready(
        time.monotonic() + 30
    )
    assert "ended with exit code -6" in capsys.readouterr().err


def test_shapes_are_picked_by_how_they_start():
    options = bench_train.parse(["--only", "256,64", "32,16,1,32,2x8", "--trials", "3"])
    assert [str(s) for s in options.shapes] == ["256,64,2,128,4x64", "32,16,1,32,2x8"]
    assert all(s.trials == (3,) for s in options.shapes)
    with pytest.raises(SystemExit):
        bench_train.parse(["--only", "7,7"])


def test_texts():
    assert (
        shape("8,4,2,16,3x5:1,4").trials == (1, 4) and str(shape("8,4,2,16,3x5")) == "8,4,2,16,3x5"
    )
    assert layout_of("fsdp=4,tensor=2") == {"fsdp": 4, "tensor": 2} and layout_of("") == {}
    grid = cohort_of(shape("64,32,1,64,4x16"), 4, "bfloat16", "sp")
    assert len({t.lr for t in grid}) == 4 and len({t.data_seed for t in grid}) == 1


HLO = """
ENTRY %main (a: bf16[8,4]) -> f32[8] {
  %a = bf16[8,4]{1,0} parameter(0)
  %custom-call.1 = (bf16[8,8]{1,0}, s8[1000]{0}) custom-call(%a, %a), \
custom_call_target="__cublas$lt$matmul", metadata={op_name="x/dot"}
  ROOT %fusion.2 = f32[8]{0} fusion(%a), kind=kInput, calls=%f, metadata={op_name="x/reduce"}
}
"""


def test_kernels_know_their_bytes_and_kind():
    found = instructions(HLO)
    assert (
        found["custom-call.1"]["kind"] == "matmul"
        and found["custom-call.1"]["bytes"] == 2 * 64 + 2 * 2 * 32
    )  # cuBLAS's scratch left out
    assert (
        found["fusion.2"]["kind"] == "elementwise" and found["fusion.2"]["bytes"] == 4 * 8 + 2 * 32
    )
    assert "all 0.000" in summary([])
