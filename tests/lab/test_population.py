import dataclasses
import logging
import signal
import subprocess
import threading
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ground import InputError
from lab import checkpoint, cohort, dispatch, events, population
from lab.executables import Executables
from lab.program import program_of
from lab.records import Result, result_from_json, result_json
from lab.train import Data, inputs_of, start
from tests.lab.toy import CORPUS, trial
from tests.results import numbers

GRID = [trial(lr=lr) for lr in (0.25, 0.5, 1.0)]


def train(trials, axis, **options) -> list[Result]:
    return list(population.train(trials, CORPUS, axis, **options))


@pytest.mark.parametrize("axis", population.AXES)
def test_the_same_program_twice_is_bit_equal(axis):
    first, second = train(GRID, axis), train(GRID, axis)
    assert [numbers(r) for r in first] == [numbers(r) for r in second]
    assert len({r.loss for r in first}) == 3  # the LRs do something


def test_a_trial_learns_and_its_result_is_whole():
    (result,) = train([trial(steps=600, lr=1.0)], "turn")
    assert result.status == "done"
    assert result.loss_init == pytest.approx(np.log(32), rel=0.02)
    assert result.loss < 0.6 * result.loss_init
    assert 0 < result.loss_se < 0.05 * result.loss
    assert result.bits_per_byte == pytest.approx(result.loss / np.log(2))
    assert (
        result.curves["loss"].steps == tuple(events.curve_steps(600))
        and len(result.curves["loss"].steps) <= events.CURVE_POINTS
    )
    assert result.curves["loss"].values[0] == result.loss_init
    assert result.unique_tokens == len(CORPUS.train) and result.seconds > 0
    assert result_from_json(result_json(result)) == result


def test_of_each_step_the_time_and_with_how_many():
    """The median by steps: that one dispatch was held up does not tell. What was not trained in
    this process was not timed.
    """
    both = [trial(), trial(lr=2.0**-8)]
    assert [r.cohort for r in train(both, "map")] == [2, 2]
    alone, _ = train(both, "turn")
    assert alone.cohort == 1 and 0 < alone.step_seconds <= alone.seconds
    median = cohort.Cohort.step_seconds.fget
    two = SimpleNamespace(step=np.zeros(2))
    assert median(SimpleNamespace(times=[(9.0, 8), (2.0, 20), (4.0, 30)], state=two)) == 2.0
    assert median(SimpleNamespace(times=[], state=two)) is None


def test_validation_is_over_every_window_and_never_trained_on():
    """A model that has learnt by heart the few windows it was given does worse on the validation
    split, not equally well.
    """
    few = trial(steps=300, unique_tokens=65, lr=1.0)
    (result,) = train([few], "turn")
    assert result.curves["loss"].values[-1] < 0.5 * result.loss
    assert result.unique_tokens == 65


@pytest.mark.parametrize("axis", population.AXES)
def test_a_diverged_neighbour_changes_no_bit(axis):
    """`lr` and `init_std` far beyond float32 make the middle trial's loss NaN; the others do not
    notice.
    """
    wild = trial(lr=1e30)
    calm = train([GRID[0], dataclasses.replace(GRID[1], lr=0.7), GRID[2]], axis)
    struck = train([GRID[0], wild, GRID[2]], axis)
    assert struck[1].status == "diverged" and struck[1].loss is None
    assert struck[1].diverged_step >= 2
    assert struck[1].curves["loss"].steps == tuple(range(1, struck[1].diverged_step))
    for i in (0, 2):
        assert numbers(struck[i]) == numbers(calm[i])


@pytest.mark.parametrize("axis", population.AXES)
def test_trials_of_different_length_share_the_program_and_end_alone(axis):
    short, long = trial(steps=12), trial(steps=30)
    alone = train([short], "turn") + train([long], "turn")
    together = train([short, long, long], axis)[:2]
    for a, b in zip(alone, together, strict=True):
        assert b.curves["loss"].values == pytest.approx(a.curves["loss"].values, rel=1e-5)
        assert b.loss == pytest.approx(a.loss, rel=1e-4)
    assert together[0].curves["loss"].steps[-1] == 12


def test_alone_against_mapped():
    """First 20 steps within 1e-5 relative; the final loss within 3 x the spread that one ulp in one
    weight causes.
    """
    trials = [trial(lr=lr, steps=120) for lr in (0.25, 0.5, 1.0)]
    mapped, alone = train(trials, "map"), train(trials, "turn")
    for trial_, m, a in zip(trials, mapped, alone, strict=True):
        np.testing.assert_allclose(
            m.curves["loss"].values[:20], a.curves["loss"].values[:20], rtol=1e-5
        )
        spread = ulp_spread(trial_, a.loss)
        assert abs(m.loss - a.loss) <= 3 * spread, (
            f"{abs(m.loss - a.loss):.2e} against a spread of {spread:.2e}"
        )


def ulp_spread(trial_, loss: float, draws: int = 6) -> float:
    """Largest change of the final loss when one weight starts one ulp away, over a few weights."""
    program, inputs = (
        program_of(trial_),
        dispatch.stack([inputs_of(trial_, len(CORPUS.train))], False),
    )
    changes = []
    for k in range(draws):
        state = start(program, inputs)
        leaves, tree = jax.tree.flatten(state.params)
        leaf = np.array(leaves[k % len(leaves)])
        leaf.flat[k * 7] = np.nextafter(leaf.flat[k * 7], np.inf)
        leaves[k % len(leaves)] = jnp.array(leaf)
        state = state._replace(params=jax.tree.unflatten(tree, leaves))
        state, _ = dispatch.advance(
            program, False, inputs, jnp.array(CORPUS.train), state, trial_.steps
        )
        data = Data(jnp.array(CORPUS.train), jnp.array(CORPUS.val))
        _, measured = dispatch.act("validate", program, False, inputs, data, True, state)
        losses = measured["val_loss"]
        changes.append(abs(np.asarray(losses, np.float64).mean() - loss))
    return max(changes)


@pytest.mark.parametrize("axis", population.AXES)
@pytest.mark.parametrize("small_chunks", [False, True])
def test_resumed_equals_uninterrupted_bit_for_bit(axis, small_chunks, tmp_path, monkeypatch):
    trials = [trial(lr=0.5, steps=40), trial(lr=1.0, steps=25), trial(steps=7)]
    programs = Executables()
    whole = train(trials, axis, programs=programs)
    compiled = programs.count
    if small_chunks:  # chunks of another length change nothing
        monkeypatch.setattr(cohort, "CHUNK_SECONDS", 0.0)
    done = train(trials, axis, checkpoints=tmp_path, stop=lambda: True, programs=programs)
    assert len(done) < 3 and len(list(tmp_path.iterdir())) == 1
    steps = checkpoint.load(tmp_path, [t.run_id for t in trials])
    assert any(0 < s.step < 40 for s in steps.values())
    resumed = train(trials, axis, checkpoints=tmp_path, programs=programs)
    assert [numbers(r) for r in resumed] == [numbers(r) for r in whole]
    assert not list(tmp_path.iterdir())  # nothing is left of what has ended
    assert programs.count == compiled == 1


def test_any_subset_resumes_in_any_cohort(tmp_path):
    """Two of three mapped trials go on in a cohort with one that starts anew; curves go on where
    they were.
    """
    assert not train(GRID, "map", checkpoints=tmp_path, stop=lambda: True)
    others = [GRID[2], trial(lr=0.3), GRID[0]]
    saved = checkpoint.load(tmp_path, [t.run_id for t in others])
    assert set(saved) == {GRID[0].run_id, GRID[2].run_id} and saved[GRID[0].run_id].step > 0
    whole, resumed = train(others, "turn"), train(others, "map", checkpoints=tmp_path)
    for a, b in zip(whole, resumed, strict=True):
        assert a.run_id == b.run_id and b.curves["loss"].steps == a.curves["loss"].steps
        np.testing.assert_allclose(b.curves["loss"].values, a.curves["loss"].values, rtol=1e-4)


def test_checkpoints_on_time(tmp_path):
    results = population.train(
        [trial(steps=600)], CORPUS, "turn", checkpoints=tmp_path, every_seconds=0.0
    )
    assert next(results).status == "done"
    assert len(list(tmp_path.iterdir())) >= 1
    assert list(results) == [] and not list(tmp_path.iterdir())


@pytest.mark.parametrize("kilobytes", [16, 40])
def test_a_full_disk_at_a_checkpoint_is_no_failure(kilobytes, tmp_path, caplog):
    """The trial goes on as if none had been asked for, says so once, and leaves no half behind."""
    (disk := tmp_path / "disk").mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={kilobytes}k", "tmpfs", str(disk)]
    if subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("mounting a tmpfs needs root")
    try:
        with caplog.at_level(logging.WARNING):
            found = train([trial(steps=600)], "turn", checkpoints=disk, every_seconds=0.0)
        left = [p.name for p in disk.iterdir()]
    finally:
        subprocess.run(["umount", str(disk)], check=True)
    assert [numbers(r) for r in found] == [numbers(r) for r in train([trial(steps=600)], "turn")]
    assert caplog.text.count("training goes on") == 1 and "No space left" in caplog.text
    assert left == []


def test_sigterm_saves_and_stops(tmp_path):
    asked = threading.Event()
    before = signal.signal(signal.SIGTERM, lambda *_: asked.set())
    try:
        progress = lambda p: signal.raise_signal(signal.SIGTERM) if p.steps_done else None  # noqa: E731
        assert (
            train(
                [trial(steps=3000)],
                "turn",
                progress=progress,
                stop=asked.is_set,
                checkpoints=tmp_path,
            )
            == []
        )
    finally:
        signal.signal(signal.SIGTERM, before)
    assert (
        0
        < checkpoint.load(tmp_path, [trial(steps=3000).run_id])[trial(steps=3000).run_id].step
        < 3000
    )


def test_one_compile_for_each_signature():
    programs = Executables()
    numbers_alone = {"weight_decay": 0.01, "beta2": 0.9, "init_seed": 3, "unique_tokens": 1000}
    train([trial()], "turn", programs=programs)
    train([trial(steps=9, **numbers_alone)], "turn", programs=programs)
    assert programs.count == 1
    # plain ops instead of unit-scaled ones
    train([trial(parametrization="sp", lr=2**-6, steps=5)], "turn", programs=programs)
    assert programs.count == 2
    # the same ops: the parametrization is numbers
    mup = trial(parametrization="mup", base_width=8, lr=2**-6, steps=9)
    train([mup], "turn", programs=programs)
    assert programs.count == 2


def test_seeds_are_apart():
    """The same data seed gives the same batches to every LR and init; another init is another start
    on the same data.
    """
    a, b, c = train(
        [trial(steps=5), trial(steps=5, init_seed=1), trial(steps=5, data_seed=1)], "map"
    )
    assert a.loss_init != b.loss_init
    assert a.loss_init != c.loss_init
    states = [
        start(program_of(t), inputs_of(t, len(CORPUS.train))) for t in (trial(), trial(data_seed=1))
    ]
    for x, y in zip(*(jax.tree.leaves(s.params) for s in states), strict=True):
        np.testing.assert_array_equal(x, y)


def test_progress_counts_every_step():
    seen = []
    train([trial(steps=10), trial(steps=20)], "turn", progress=seen.append)
    assert seen[-1].steps_done == seen[-1].steps == 30
    assert seen[-1].trials == 2 and all(p.tokens_per_second > 0 for p in seen)


@pytest.mark.parametrize(
    ("trials", "axis", "message"),
    [
        ([trial(), trial(width=24)], "map", "2 signatures"),
        ([trial(corpus="0" * 64)], "turn", "the given corpus is"),
        ([trial()], "maps", "must be one of map, turn"),
        ([trial(data_seed=2**31)], "turn", "data_seed=2147483648"),
        ([trial(batch=4000)], "turn", "training tokens"),
    ],
)
def test_trials_that_do_not_fit_are_refused(trials, axis, message):
    with pytest.raises(InputError, match=message):
        train(trials, axis)
