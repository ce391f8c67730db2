import dataclasses
import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from ground import InputError
from lab.parametrization import TABLES
from lab.parametrization.table import from_data
from lab.records import OPTIMIZERS, PRECISIONS, SCHEDULES, Result, Trial, run_id
from lab.shape import ACTIVATIONS
from scalelab.__main__ import main
from scalelab.cli.train import Train, _print, trial_of
from tests.lab.toy import CORPUS, trial
from tests.results import HOW

ROOT = Path(__file__).resolve().parents[2]
TINY = ["--width", "16", "--depth", "1", "--sequence", "16", "--batch", "4", "--steps", "20"]


@pytest.fixture(scope="module")
def text(tmp_path_factory):
    """A file of 200 documents; its tokens and the compile cache go beside it."""
    folder = tmp_path_factory.mktemp("text")
    documents = ["".join(f"{n} times {m} is {n * m}.\n" for m in range(20)) for n in range(200)]
    (folder / "sums.txt").write_text("\0".join(documents))
    return folder


@pytest.fixture
def train(text, monkeypatch):
    # the test process keeps its own flags and cache
    monkeypatch.setattr("lab.runtime.start", lambda cache=None: None)
    return lambda *args: main(
        ["train", "--corpus", str(text / "sums.txt"), "--cache", str(text / "cache"), *TINY, *args]
    )


def test_one_json_document(train, capsys, tmp_path):
    assert train("--json", "--out", str(tmp_path / "deep" / "run.json")) == 0
    printed = json.loads(capsys.readouterr().out)
    assert set(printed) == {"trial", "result", "row"}
    assert (
        printed["result"]["status"] == "done"
        and printed["result"]["loss"] < printed["result"]["loss_init"]
    )
    assert printed["row"]["tokens"] == 20 * 64 and printed["row"]["width"] == 16
    assert json.loads((tmp_path / "deep" / "run.json").read_text()) == printed


def test_what_is_measured_has_a_name(train, capsys):
    asked = ("--diagnostics", "rms,log_z", "--measure-steps", "8", "--validate-steps", "5")
    assert train("--json", *asked) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["trial"]["diagnostics"] == "rms,log_z"
    curves, loss = document["result"]["curves"], document["result"]["loss"]
    assert curves["log_z"]["steps"] == [8, 16, 20] == curves["update_rms/embed"]["steps"]
    assert curves["val_loss"]["steps"] == [5, 10, 15, 20]
    assert curves["val_loss"]["values"][-1] == loss and len(curves["loss"]["values"]) == 20
    assert train("--diagnostics", "norms") == 2
    assert (
        "'norms' is unknown; known: gradient_noise, gradient_noise_tensors, rms"
        in capsys.readouterr().err
    )


def test_the_batch_may_grow(train, capsys):
    assert train("--json", "--batch-schedule", "2@0,4@0.5") == 0
    row = json.loads(capsys.readouterr().out)["row"]
    assert row["tokens"] == 16 * (13 * 2 + 7 * 4) and row["batch_schedule"] == "2@0,4@0.5"
    assert train("--batch-schedule", "2@0,8@0.5") == 2
    assert "its last batch must be batch=4" in capsys.readouterr().err


def test_a_printed_table_is_read_back(train, capsys, tmp_path):
    assert train("--parametrization", "mup", "--print-table") == 0
    printed = json.loads(capsys.readouterr().out)
    assert from_data(printed) == TABLES["mup"]
    (tmp_path / "mine.json").write_text(json.dumps({**printed, "name": "mine"}))
    mine = ("--table", str(tmp_path / "mine.json"), "--print-table")
    assert train(*mine) == 2 and "'mine'" in capsys.readouterr().err
    assert train(*mine, "--parametrization", "mine") == 0
    assert json.loads(capsys.readouterr().out) == {**printed, "name": "mine"}
    assert train("--parametrization", "nosuch", "--print-table") == 2


def test_what_is_printed(train, capsys):
    assert train() == 0
    out = capsys.readouterr().out
    assert "nats per token" in out and "bits per byte" in out and "tokens/s" in out
    assert train("--lr", "1e30") == 0
    assert "diverged at step" in capsys.readouterr().out


def test_explain(train, capsys):
    assert train("--explain") == 0
    out = capsys.readouterr().out
    for word in ("embed", "unembed", "fan_in^-1/2", "half-life"):
        assert word in out
    assert train("--explain", "--json", "--lr", "1.0") == 0
    document = json.loads(capsys.readouterr().out)
    q = next(row for row in document["tensors"] if row["tensor"] == "q")
    assert q["lr"] == pytest.approx(0.25) and q["formula"]["init_std"] == "1"


@pytest.mark.parametrize(
    ("args", "line"),
    [
        (["--width", "15"], "width=15: must be even"),
        (["--width", "32", "--head-dim", "6"], "head_dim=6: must divide width=32"),
        (["--optimizer", "adamx"], "optimizer='adamx': must be one of adamw"),
        (["--parametrization", "mup"], "base_width=0"),
        (["--parametrization", "nup"], "parametrization='nup'"),
        (["--batch", "100000"], "training tokens"),
        (["--table", "no.json"], "table='no.json': No such file"),
        (["--widht", "3"], "--widht"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(train, args, line, capsys):
    assert train(*args) == 2
    error = capsys.readouterr().err.strip()
    assert line in error and "\n" not in error


def test_a_missing_corpus(capsys, monkeypatch):
    monkeypatch.setattr("lab.runtime.start", lambda cache=None: None)
    assert main(["train", "--corpus", "nowhere"]) == 2
    assert "corpus='nowhere'" in capsys.readouterr().err


def options_in_help(capsys):
    """What `--help` says of each option, by the name of its field."""
    with pytest.raises(SystemExit) as stop:
        main(["train", "--help"])
    assert stop.value.code in (0, None)
    text = " ".join(re.sub(r"[\x1b│╭╮╰╯─]|\[\d*m", " ", capsys.readouterr().out).split())
    found = re.findall(r"--([a-z0-9-]+) ((?:(?! --[a-z]).)*?)\(default", text)
    return {name.replace("-", "_"): words for name, words in found}


def test_every_field_of_a_trial_is_an_option_and_says_what_it_is(capsys):
    told = options_in_help(capsys)
    assert {f.name for f in dataclasses.fields(Trial)} - told.keys() == {"semantics"}
    unsaid = [
        name for name, words in told.items() if not re.sub(r"^(STR|INT|FLOAT|PATH)", "", words)
    ]
    assert not unsaid
    choices = {
        "activation": ACTIVATIONS,
        "optimizer": OPTIMIZERS,
        "schedule": SCHEDULES,
        "precision": PRECISIONS,
    }
    for name, accepted in choices.items():
        assert told[name].split(maxsplit=1)[1].strip() == " | ".join(accepted)
    assert main(["train", "--semantics", "2"]) == 2, "what this code does is nobody's to choose"


def test_a_field_that_a_trial_gains_is_an_option_with_its_default():
    own = {"corpus", "vocab", "head_dim", "ff", "table", "lr", "warmup_steps"}
    for f in dataclasses.fields(Trial):
        if f.name not in own and f.default is not dataclasses.MISSING:
            assert getattr(Train(), f.name) == f.default
    given = Train(beta1=0.8, tied=True, init_seed=3, base_width=64, parametrization="mup", steps=9)
    made = trial_of(given, CORPUS)
    assert (made.beta1, made.tied, made.init_seed, made.base_width, made.steps) == (
        0.8,
        True,
        3,
        64,
        9,
    )


def test_what_is_left_open_is_filled_in():
    t = trial_of(Train(width=96, steps=200, parametrization="sp"), CORPUS)
    assert (t.head_dim, t.ff, t.warmup_steps, t.lr) == (32, 288, 20, 2**-7)
    assert trial_of(Train(schedule="one_cycle"), CORPUS).warmup_steps == 0
    with pytest.raises(InputError, match="lr=-1"):
        trial_of(Train(lr=-1.0), CORPUS)


def test_tau_instead_of_decay():
    assert trial_of(Train(tau=0.5, steps=200), CORPUS).weight_decay == 1 / 100
    with pytest.raises(InputError, match="tau=0.5, weight_decay=0.1"):
        trial_of(Train(tau=0.5, weight_decay=0.1), CORPUS)


LONGER = ["--steps", "3000", "--json"]


@pytest.fixture(scope="module")
def never_stopped(text):
    """Output of a whole run."""
    command = [sys.executable, "-m", "scalelab", "train", "--corpus", str(text / "sums.txt")]
    command += ["--cache", str(text / "cache"), *TINY, *LONGER]
    env = os.environ | {"JAX_COMPILATION_CACHE_DIR": str(text / "xla")}
    return subprocess.run(command, cwd=ROOT, env=env, check=True, capture_output=True).stdout


@pytest.mark.parametrize("signal_, code", [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_saves_and_another_run_goes_on(
    signal_, code, train, text, tmp_path, capsys, never_stopped
):
    """The whole command, stopped in the middle: an exit code that says how, then the numbers of a
    run that was never stopped.
    """
    checkpoints = ["--checkpoints", str(tmp_path / "ck")]
    ended, seen = stopped([*LONGER, *checkpoints], text, signal_)
    assert ended == code and b"to go on" in seen and any((tmp_path / "ck").iterdir())
    assert train(*LONGER, *checkpoints) == 0
    results = [
        json.loads(out)["result"] | dict.fromkeys(HOW)
        for out in (never_stopped, capsys.readouterr().out)
    ]
    assert results[0] == results[1] and results[0]["status"] == "done"
    assert not any((tmp_path / "ck").iterdir())


def test_an_interrupt_without_a_folder_says_what_to_give(text):
    ended, seen = stopped(["--steps", "40000"], text, signal.SIGINT)
    assert ended == 130 and b"nothing was saved: with --checkpoints DIR" in seen
    assert b"Traceback" not in seen


# a job in the background has SIGINT ignored, and its children inherit that
HEARS = "import os, signal, sys; signal.signal(signal.SIGINT, signal.SIG_DFL); "


def stopped(args, text, signal_):
    """Exit code and messages of a run that got the signal while it trained."""
    command = [sys.executable, "-m", "scalelab", "train", "--corpus", str(text / "sums.txt")]
    command += ["--cache", str(text / "cache"), *TINY, *args]
    # so that rich shows progress as it happens
    live = {"TTY_COMPATIBLE": "1", "TTY_INTERACTIVE": "1"}
    env = os.environ | live | {"JAX_COMPILATION_CACHE_DIR": str(text / "xla")}
    hears = [sys.executable, "-c", HEARS + "os.execv(sys.argv[1], sys.argv[1:])"]
    with subprocess.Popen(
        hears + command, cwd=ROOT, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as running:
        assert running.stderr is not None
        seen = b""
        while b"training" not in seen:
            seen += (new := os.read(running.stderr.fileno(), 4096))
            assert new, seen
        running.send_signal(signal_)
        _, seen = running.communicate(timeout=120)
    return running.returncode, seen


@pytest.mark.parametrize("flag", ["--out", "--checkpoints"])
def test_a_place_that_cannot_be_written_is_found_before_training(flag, train, capsys):
    assert train(flag, "/proc/x/y", "--steps", "100000000") == 2
    assert "'/proc/x/y" in capsys.readouterr().err


@pytest.mark.parametrize(("decay", "said"), [("0.1", True), ("1e-4", False), ("0", False)])
def test_a_decay_that_is_never_meant_is_said(train, capsys, decay, said):
    """0.1 is AdamW's coefficient; as a decay a step it halves a weight in 6.6 steps."""
    assert train("--weight-decay", decay, "--explain") == 0
    assert ("halves in 6.6 steps" in capsys.readouterr().err) == said


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        # half of 2,560 of 3,584; one expert of four, and the router of 16 x 4
        ({"pruning": "static", "sparsity": 0.5}, ", 2,304 not zero at the end)"),
        ({"experts": 4}, ", 3,648 active for a token)"),
        ({}, "without embedding and readout)"),
    ],
)
def test_a_sparse_trial_says_how_many_parameters_are_at_work(capsys, fields, told):
    t = dataclasses.replace(trial(), **fields)
    _print(t, Result(run_id=run_id(t), status="diverged", diverged_step=1, unique_tokens=100))
    assert told in capsys.readouterr().out
