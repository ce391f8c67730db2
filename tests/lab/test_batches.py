"""Runs whose batch changes: pieces of plain steps with one state through them. What each step sees
and at which LR; bit for bit the plain run where nothing changes, and the whole one after a stop.
"""

import dataclasses
from functools import partial

import jax
import numpy as np
import pytest

from ground import InputError
from lab import batches, counts, optim, population, train
from lab.events import stretch_end
from lab.executables import Executables
from lab.parametrization import numbers as numbers_of
from lab.prefix import prefix_of
from lab.program import program_of, signature
from lab.records import Result, trial_from_json, trial_json
from lab.windows import Clock, clock_of
from tests import results
from tests.lab.toy import CORPUS, trial

RAMP = "2@0,4@0.25,8@0.5"
RISES = trial(batch=8, steps=33, batch_schedule=RAMP, validate_steps=6)
# what is trained here: two programs, of which one comes back
RUNS = trial(batch=2, steps=33, batch_schedule="2@0,8@0.3,2@0.8", validate_steps=5)
PROGRAMS = Executables()


def run(trials, axis, **options):
    return list(population.train(trials, CORPUS, axis, programs=PROGRAMS, **options))


def numbers(result):
    """What is measured, but for where the batch changed."""
    found = results.numbers(result, "run_id")
    return found | {"curves": {k: v for k, v in found["curves"].items() if k != "batch_tokens"}}


# 1. pieces ---------------------------------------------------------------------------------------


def test_each_batch_has_its_share_of_the_tokens():
    pieces = batches.pieces(RISES)
    assert [(p.batch, p.begin, p.end, p.seen) for p in pieces] == [
        (2, 0, 16, 0), (4, 16, 25, 32), (8, 25, 33, 68),
    ]  # fmt: skip
    assert RISES.tokens == 16 * (16 * 2 + 9 * 4 + 8 * 8)
    for steps in (7, 100, 1001):
        t = trial(batch=8, steps=steps, batch_schedule=RAMP)
        total = batches.sequences(t)
        assert batches.pieces(t)[-1].end == steps and total * t.sequence == t.tokens
        for piece, share in zip(batches.pieces(t), (0, 0.25, 0.5), strict=True):
            assert abs(piece.seen - share * total) <= 8  # within the largest step
            assert batches.steps_within(t, piece.seen / total + 1e-9) == piece.begin
    assert [stretch_end(RISES, s) for s in (0, 12, 15, 16, 18, 24, 25, 32)] == [
        6, 16, 16, 18, 24, 25, 30, 33,
    ]  # fmt: skip


def test_a_trial_without_a_schedule_is_what_it_was():
    plain = trial()
    assert "batch_schedule" not in trial_json(plain)
    assert train.inputs_of(plain, 100).clock is None
    (piece,) = batches.pieces(plain)
    assert (piece.batch, piece.begin, piece.end) == (4, 0, 30)
    assert batches.plain_at(plain, 7) is plain and batches.steps_within(plain, 0.8) == 24
    assert trial_from_json(trial_json(RISES)) == RISES


@pytest.mark.parametrize(
    ("schedule", "fields", "said"),
    [
        ("64", {}, "'64' must be BATCH@SHARE"),
        ("x@0,4@0.5", {}, "'x@0' must be BATCH@SHARE"),
        ("2@0.1,4@0.5", {}, "must begin with 0 and rise"),
        ("2@0,3@0.5,4@0.5", {}, "must begin with 0 and rise"),
        ("2@0,4@nan", {}, "must begin with 0 and rise"),
        ("0@0,4@0.5", {}, "from 1 to"),
        ("2@0.0,4@0.50", {}, "must be written '2@0,4@0.5'"),
        ("2@0,8@0.5", {}, "its last batch must be batch=4"),
        ("2@0,4@0.5", {"steps": 1, "warmup_steps": 0}, "of steps=1 none is left for"),
        ("2@0,4@0.5", {"parametrization": "cerebras", "base_batch": 4}, "base_batch"),
        ("2@0,4@0.5", {"pruning": "gradual", "sparsity": 0.5}, "pruning='gradual' counts"),
        ("3@0,4@0.5", {"diagnostics": "gradient_noise"}, "batch=3: must be even"),
        ("2@0,4@0.5", {"steps": 2**30}, "sequences"),
    ],
)
def test_what_cannot_be_followed_is_refused(schedule, fields, said):
    with pytest.raises(InputError, match="batch_schedule|even") as error:
        trial(batch_schedule=schedule, **fields)
    assert said in str(error.value)


# 2. what a step sees, and at which LR ------------------------------------------------------------


@partial(jax.jit, static_argnums=0)
def starts(program, inputs, steps):
    return jax.vmap(lambda step: train.starts(program, inputs, step))(steps)


def seen(t, clock=True):
    """Where the windows begin that the run sees, in its order."""
    out = []
    for piece in batches.pieces(t):
        program = program_of(batches.plain_at(t, piece.begin))
        inputs = train.inputs_of(t, len(CORPUS.train), piece.begin)
        inputs = inputs if clock else inputs._replace(clock=None)
        out.append(np.ravel(starts(program, inputs, np.arange(piece.begin, piece.end))))
    return np.concatenate(out)


def test_every_window_comes_in_the_order_of_the_stream():
    """Over changes of batch, and over the end of an epoch, as in a run of single sequences."""
    t = dataclasses.replace(RISES, unique_tokens=16 * 100 + 1)
    one = trial(batch=1, steps=batches.sequences(t), unique_tokens=t.unique_tokens)
    np.testing.assert_array_equal(seen(t), seen(one))
    assert len(np.unique(seen(t)[:100])) == 100
    assert (seen(t, clock=False) != seen(one)).mean() > 0.5  # the control: by steps


def test_the_loss_of_each_step_is_of_its_windows():
    """At an LR of nothing a step's loss is the mean of those of its sequences, one by one."""
    t = dataclasses.replace(RUNS, lr=1e-12)
    one = trial(batch=1, steps=batches.sequences(t), lr=1e-12)
    (ramp,), (single,) = run([t], "turn"), run([one], "turn")
    losses = np.array(single.curves["loss"].values)
    for piece in batches.pieces(t):
        first = piece.seen + np.arange(piece.end - piece.begin) * piece.batch
        means = losses[first[:, None] + np.arange(piece.batch)].mean(1)
        found = ramp.curves["loss"].values[piece.begin : piece.end]
        np.testing.assert_allclose(found, means, rtol=1e-5)
    assert ramp.curves["batch_tokens"].steps == (1, 17, 23)
    assert ramp.curves["batch_tokens"].values == (32, 128, 32)


@pytest.mark.parametrize("name", ["linear", "cosine", "wsd", "one_cycle"])
@pytest.mark.parametrize("warmup", [0, 1, 16])
def test_the_lr_follows_the_share_of_tokens(name, warmup):
    """As a run of single sequences does, whatever sequences are taken together: at the end of a
    step of warm-up, else at its beginning.
    """
    t = dataclasses.replace(RISES, warmup_steps=warmup)
    total, warm = batches.sequences(t), batches.sequences(t, warmup)
    one, by_steps = optim.schedule(name, total, warm), optim.schedule(name, t.steps, warmup)
    far = 0.0
    for step in range(t.steps):
        factor = float(optim.schedule(name, t.steps, warmup, clock_of(t, step))(step))
        at = batches.sequences(t, step + 1) - 1 if step < warmup else batches.sequences(t, step)
        assert factor == pytest.approx(float(one(at)), rel=1e-5, abs=1e-6)
        far = max(far, abs(factor - float(by_steps(step))))
    assert far > 0.1  # the control: over steps it is another
    same = Clock(10, 10 * t.batch, t.batch, warmup * t.batch, t.batch)
    for step in range(10, t.steps):  # to the bit
        factor = optim.schedule(name, t.steps, warmup, same)(step)
        assert float(factor) == float(by_steps(step))


def test_betas_keep_their_half_life_in_tokens():
    t = dataclasses.replace(RISES, beta_half_life_tokens=2000.0)
    for step, batch in ((0, 2), (16, 4), (25, 8)):
        beta2 = train.inputs_of(t, 1000, step).numbers["beta2"]
        plain = trial(batch=batch, beta_half_life_tokens=2000.0)
        assert beta2 == numbers_of(plain)["beta2"] == pytest.approx(0.5 ** (16 * batch / 2000))
    fixed = {train.inputs_of(RISES, 1000, step).numbers["beta2"] for step in (0, 16, 25)}
    assert fixed == {0.95}


# 3. runs -----------------------------------------------------------------------------------------


def test_a_schedule_that_is_constant_is_the_plain_run_bit_for_bit():
    plain = dataclasses.replace(RUNS, batch_schedule="")
    constant = dataclasses.replace(RUNS, batch_schedule="2@0,2@0.4,2@0.7")
    (a,), (b,) = run([plain], "turn"), run([constant], "turn")
    assert numbers(a) == numbers(b) and a.run_id != b.run_id
    assert b.curves["batch_tokens"].steps == (1, 14, 24)
    assert run([RUNS], "turn")[0].loss != a.loss


@pytest.mark.parametrize("axis", population.AXES)
def test_stopped_in_every_piece_it_ends_as_the_whole_does(axis, tmp_path, monkeypatch):
    """Three trials of one cohort, whose pieces end at other steps, where one waits at an event for
    the others: stopped after every few steps, and each as alone.
    """
    trials = [RUNS, dataclasses.replace(RUNS, lr=0.2), dataclasses.replace(RUNS, steps=20)]
    assert len({signature(t) for t in trials}) == 1
    whole = run(trials, axis)
    monkeypatch.setattr("lab.cohort.CHUNK_SECONDS", 0.0)
    resumed, stops = [], 0
    while len(resumed) < 3:
        polls = iter([False] * 5)
        found = run(trials[len(resumed) :] if axis == "turn" else trials, axis,
                    checkpoints=tmp_path, stop=lambda p=polls: next(p, True))  # fmt: skip
        resumed, stops = resumed + found, stops + 1
    assert stops > 4
    assert [numbers(r) for r in resumed] == [numbers(r) for r in whole]
    if axis == "map":
        for one, together in zip(run(trials, "turn"), whole, strict=True):
            for name, curve in one.curves.items():
                assert curve.steps == together.curves[name].steps
                np.testing.assert_allclose(curve.values, together.curves[name].values, rtol=1e-4)


# 4. the table ------------------------------------------------------------------------------------


def test_the_row_counts_tokens_and_says_how_the_batch_changed():
    t = dataclasses.replace(RISES, weight_decay=0.01)
    result = Result(run_id=t.run_id, status="done", loss=3.0)
    row = counts.row(t, result, "toy")
    assert row["tokens"] == t.tokens == 2112 and row["steps"] == 33
    assert row["batch_tokens"] == 64 and row["batch_schedule"] == RAMP
    assert row["warmup_tokens"] == 16 * 2 * 3
    assert row["flops"] == 6 * row["params_active"] * t.tokens
    assert row["tau"] == pytest.approx(1 / (0.01 * 33))
    assert counts.with_tau(RISES, row["tau"]).weight_decay == pytest.approx(0.01)
    assert counts.row(trial(), result, "toy")["batch_schedule"] is None
    assert prefix_of(dataclasses.replace(t, schedule="constant")) == 0
    assert signature(t) != signature(dataclasses.replace(t, batch_schedule="4@0,8@0.5"))
