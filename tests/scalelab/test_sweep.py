"""The command `scalelab sweep`: what it prints, what it refuses, and that it is run again without
harm.
"""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from ground.columns import COLUMNS
from lab import tpu
from scalelab.__main__ import main
from sweeps import files, studies
from sweeps.status import Board
from sweeps.store import create, open_store
from tests.sweeps import toy

ROOT = Path(__file__).parents[2]
STUDY = str(ROOT / "tests/sweeps/toy_study.py")
FIELDS = [
    "trials",
    "done",
    "running",
    "waiting",
    "diverged",
    "failed",
    "tokens_per_second",
    "seconds_left",
]


@pytest.fixture
def text(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Options that name a small corpus; the working folder holds nothing of the repository."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("TOY_TRACE", str(tmp_path / "trace"))
    folder = tmp_path / "text"
    folder.mkdir()
    for i in range(40):
        (folder / f"{i}.txt").write_text(
            f"document {i}: " + "the quick brown fox jumps over the lazy dog. " * (3 + i)
        )
    return ["--corpus", str(folder), "--cache", str(tmp_path / "cache")]


def run(text: list[str], *more: str) -> int:
    return main(
        [
            "sweep",
            "run",
            STUDY,
            "--store",
            "store",
            "--trainer",
            "tests.sweeps.toy:train",
            *text,
            *more,
        ]
    )


def answer(capsys: pytest.CaptureFixture[str], *arguments: str) -> dict[str, Any]:
    capsys.readouterr()
    assert main(["sweep", *arguments, "--json"]) == 0
    return json.loads(capsys.readouterr().out)  # type: ignore[no-any-return]


def test_a_study_to_begin_with_loads_and_is_never_written_over(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "study.yaml"
    assert main(["sweep", "init", str(path)]) == 0
    study = studies.load(str(path), "0" * 64, 256)
    assert len(study.trials) == 8 and study.refine == "lr"
    path.write_text("mine")
    assert main(["sweep", "init", str(path)]) == 2 and path.read_text() == "mine"
    assert "is there already" in capsys.readouterr().err
    assert main(["sweep", "init", str(tmp_path / "study.py")]) == 2


def test_run_status_export_and_run_again(
    text: list[str], capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert run(text, "--workers", "2", "--option", "count", "14") == 0
    printed = capsys.readouterr().out
    assert "14 trials" in printed and "toy" in printed and "0 failed" in printed
    status = answer(capsys, "status", "store")
    assert list(status) == FIELDS
    assert (
        sum(status[k] for k in FIELDS[1:6]) == status["trials"] == 14
        and status["diverged"] > 0
        and status["seconds_left"] == 0
    )
    assert answer(capsys, "export", "store", "--out", "t.csv") == {
        "trials": 14,
        "out": "t.csv",
        "left_out": {},
    }
    assert Path("t.csv").read_text().splitlines()[0].split(",") == list(COLUMNS)
    trained = Path("trace").read_text()
    assert run(text, "--option", "count", "14") == 0
    assert Path("trace").read_text() == trained, "nothing was trained again"
    assert answer(capsys, "export", "store", "--out", "t.parquet")["trials"] == 14
    assert run([*text, "--parquet", "t.parquet"], "--option", "count", "16") == 0
    assert Path("trace").read_text().count("begin") == 16, "only the two that are new"


def test_a_parquet_resumes_a_study_elsewhere(
    text: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(text) == 0 and main(["sweep", "export", "store", "--out", "t.parquet"]) == 0
    trained = Path("trace").read_text()
    assert (
        main(["sweep", "run", STUDY, "--store", "elsewhere", "--parquet", "t.parquet", *text]) == 0
    )
    assert Path("trace").read_text() == trained
    assert answer(capsys, "status", "elsewhere")["trials"] == 12


def test_a_trial_that_fails_is_told_with_its_reason(
    text: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    bad = toy.trials(12)[3]
    monkeypatch.setenv("TOY_FAIL", bad.run_id)
    assert run(text) == 1
    assert f"failed {bad.run_id} (2 times): RuntimeError: asked to fail" in capsys.readouterr().err
    status = answer(capsys, "status", "store")
    assert status["failed"] == 1 and sum(status[k] for k in FIELDS[1:6]) == 12
    assert main(["sweep", "status", "store"]) == 0 and "asked to fail" in capsys.readouterr().out
    monkeypatch.setenv("TOY_FAIL", "")
    assert run(text) == 0, "it is tried again"
    assert answer(capsys, "status", "store")["failed"] == 0


def test_status_while_it_runs_counts_what_is_claimed(
    text: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    from sweeps.claims import Worker

    store = create("store")
    trials = toy.trials(5)
    store.declare("toy", "q", "e", trials)
    with Worker(store) as worker:
        assert worker.claim(trials[0].run_id, None) and worker.claim(trials[1].run_id, None)
        worker.note = {"tokens_per_second": 1234.0}
        worker._beat()
        status = answer(capsys, "status", "store")
    assert (status["running"], status["waiting"], status["tokens_per_second"]) == (2, 3, 1234.0)
    assert status["seconds_left"] == pytest.approx(sum(t.tokens for t in trials) / 1234.0)
    assert answer(capsys, "status", "store")["running"] == 0


# a job in the background has SIGINT ignored, and its children inherit that
HEARS_SIGINT = [
    sys.executable, "-c", "import os, signal, sys; signal.signal(signal.SIGINT, signal.SIG_DFL); "
                          "os.execv(sys.argv[1], sys.argv[1:])",
]  # fmt: skip


def test_an_interrupt_saves_and_a_killed_command_takes_its_workers_along(text: list[str]) -> None:
    command = [
        sys.executable,
        "-m",
        "scalelab",
        "sweep",
        "run",
        STUDY,
        "--store",
        "store",
        "--trainer",
        "tests.sweeps.toy:train",
    ]
    command += ["--workers", "2", "--option", "count", "60", *text]
    env = {**os.environ, "TOY_PAUSE": "0.1"}
    for number, code in ((signal.SIGINT, 130), (signal.SIGKILL, -signal.SIGKILL)):
        process = subprocess.Popen(
            [*HEARS_SIGINT, *command], env=env, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL
        )
        before = len(open_store("store").ids()) if Path("store").exists() else 0
        until(
            lambda before=before: (
                Path("store/store.json").exists() and len(open_store("store").ids()) >= before + 2
            )
        )  # type: ignore[misc]
        process.send_signal(number)
        assert process.wait(timeout=60) == code
        until(lambda: not any(Path("store/workers").iterdir()))
        counts = Board(open_store("store")).look().counts()
        assert (
            counts["running"] == 0
            and counts["waiting"] > 0
            and not any(Path("store/tmp").iterdir())
        )


def under_way(trainer: str, text: list[str]) -> "subprocess.Popen[str]":
    """`sweep run` with two workers, once both train."""
    command = [sys.executable, "-m", "scalelab", "sweep", "run", STUDY, "--store", "store"]
    command += ["--workers", "2", "--option", "count", "4", "--trainer", trainer, *text]
    env = {**os.environ, "TOY_TRACE": str(Path("trace").absolute())}
    process = subprocess.Popen(
        [*HEARS_SIGINT, *command],
        env=env,
        stderr=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    until(lambda: len(workers_at_it()) == 2)
    return process


def workers_at_it() -> set[int]:
    lines = Path("trace").read_text().splitlines() if Path("trace").exists() else []
    pids = {int(line.split()[2]) for line in lines}
    return {pid for pid in pids if files.started(pid)}


def test_sigterm_waits_until_the_workers_have_saved(text: list[str]) -> None:
    process = under_way("tests.sweeps.stuck:slow_to_save", text)
    process.terminate()
    assert process.wait(timeout=60) == 143
    assert Path("store/checkpoints/saved").exists() and not workers_at_it()
    assert not any(Path("store/workers").iterdir())


def test_a_second_interrupt_ends_everything_that_was_started(text: list[str]) -> None:
    """Workers that hear nothing do not hold the command for ever."""
    process = under_way("tests.sweeps.stuck:asleep", text)
    process.send_signal(signal.SIGINT)
    with pytest.raises(subprocess.TimeoutExpired):
        process.wait(timeout=2)
    assert len(workers_at_it()) == 2, "the first one waits for them"
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=10) == 130
    until(lambda: not workers_at_it(), 5)
    assert process.stderr is not None and "Traceback" not in process.stderr.read()


def until(condition: Any, seconds: float = 60.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not come in time"
        time.sleep(0.05)


PLAIN = """
question: Does a plan tell the cost?
space: {product: {width: [16, 32], lr: [0.1, 0.2, 0.4]}}
common: {sequence: 32, batch: 4, depth: 1, head_dim: 8, ff_ratio: 4, steps: 50, parametrization: sp}
"""


def test_plan_tells_the_cost_before_anything_runs(
    text: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    Path("plain.yaml").write_text(PLAIN)
    document = answer(capsys, "plan", "plain.yaml", "--axis", "map", *text)
    assert (document["trials"], document["done"], document["cohorts"]) == (6, 0, 2)
    assert document["tokens"] == 6 * 50 * 32 * 4 == sum(r["tokens"] for r in document["rows"])
    assert [r["width"] for r in document["rows"]] == [32, 16], "dearest first"
    assert document["rows"][0]["flops"] > document["rows"][1]["flops"] > 0
    assert (
        document["hours"] == pytest.approx(sum(r["seconds"] for r in document["rows"]) / 3600)
        and document["hours"] > 0
    )
    large, small = (r["peak_bytes"] for r in document["rows"])
    assert 1e5 < small < large < 1e9
    assert not Path("store").exists()
    Path("plain.yaml").write_text(PLAIN.replace("[16, 32]", "[32]"))
    in_turn = answer(capsys, "plan", "plain.yaml", "--axis", "turn", *text)
    assert in_turn["rows"][0]["peak_bytes"] < large, (
        "one trial at a time needs less memory than three mapped"
    )


@pytest.mark.skipif(not tpu.BESIDE.is_dir(), reason="libtpu is not there: see .ci/run")
def test_a_plan_for_tpus_by_their_compiler(text: list[str]) -> None:
    """In a process of its own, which the compiler's settings are for."""
    Path("plain.yaml").write_text(PLAIN.replace("[16, 32]", "[16]"))
    command = ["scalelab", "sweep", "plan", "plain.yaml", "--device", "v5e-8", "--json", *text]
    done = subprocess.run([sys.executable, "-m", *command], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    assert (document["devices"], document["programs"], document["cohorts"]) == (8, 1, 1)
    (row,) = document["rows"]
    assert row["collectives"] == {}, "trials share nothing"
    assert 0 < row["peak_bytes"] < document["device_bytes"] == 16e9, "of a chip"
    assert row["seconds"] is document["hours"] is None, "nothing ran"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["status", "nowhere"], "no store there"),
        (["plan", STUDY, "--device", "v5e8"], "must be one of v5e-8, v5e-32; did you mean v5e-8?"),
        (["plan", STUDY, "--device", "v5e-8", "--axis", "turn"], "axis='turn': cohorts are mapped"),
        (["run", "nope", "--store", "store"], "study='nope': must be one of"),
        (
            ["run", STUDY, "--store", "store", "--corpus", "missing.txt"],
            "corpus='missing.txt': no such file",
        ),
        (
            ["run", STUDY, "--store", "store", "--trainer", "no.such:thing"],
            "trainer='no.such:thing': must be module:function",
        ),
        (["run", STUDY, "--store", "store", "--launcher", "pbs"], "launcher"),
        (
            ["run", STUDY, "--store", "store", "--option", "cuont", "3"],
            "cuont=3: study toy_study takes",
        ),
        (["run", STUDY, "--store", "file"], "is a file"),
        (["export", "store"], "give --out"),
        (["plot"], "command='plot': must be one of init, plan, run, status, export"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(
    text: list[str], capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    Path("file").write_text("")
    extra = text if arguments[0] == "run" and "--corpus" not in arguments else []
    assert main(["sweep", *arguments, *extra]) == 2
    error = capsys.readouterr().err.strip()
    assert message in error and "\n" not in error and "Traceback" not in error


def test_a_reader_that_has_read_enough_is_no_error() -> None:
    """`scalelab laws --json | head`: no traceback."""
    command = [sys.executable, "-m", "scalelab", "laws", "--json"]
    process = subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None and process.stderr is not None
    process.stdout.close()
    assert process.stderr.read() == "" and process.wait() == 141
