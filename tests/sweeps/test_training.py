"""The worker on lab's real training: memory that runs out, checkpoints that are cut off or
corrupted.
"""

import dataclasses
import functools
import os
import signal
import subprocess
import sys
import weakref
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from lab.records import Result, Trial
from sweeps.cohorts import Limits
from sweeps.measure import Programs
from sweeps.run import ATTEMPTS, work
from sweeps.store import Store, create
from tests.sweeps import tiny

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module", autouse=True)
def compiled_once(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """A compile cache for these tests and the processes that they start."""
    import jax

    folder = str(tmp_path_factory.mktemp("xla"))
    settings = {
        "jax_compilation_cache_dir": folder,
        "jax_persistent_cache_min_compile_time_secs": 0.0,
    }
    before = {name: getattr(jax.config, name) for name in settings}
    for name, value in settings.items():
        jax.config.update(name, value)
    yield {name.upper(): str(value) for name, value in settings.items()}
    for name, value in before.items():
        jax.config.update(name, value)


def timeless(store: Store) -> list[Result]:
    how: dict[str, Any] = {"seconds": 0.0, "step_seconds": None, "cohort": None}
    return [dataclasses.replace(r.result, **how) for r in store.records()]


def a_store(path: Path, trials: Sequence[Trial]) -> Store:
    store = create(path)
    store.declare("tiny", "q", "e", trials)
    return store


def test_memory_that_runs_out_splits_a_mapped_cohort_and_it_finishes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The device refuses more than two trials at a time where it really does, in a dispatch;
    `scripts/out_of_memory.py` makes one do it.
    """
    import jax

    from lab.executables import Executables, Form

    trials, sizes, held = tiny.trials(4), list[int](), list[weakref.ref[Any]]()
    of = Executables.of

    def small(advance: Any, inputs: Any, tokens_N: Any, state: Any, n: int) -> Any:
        assert not any(ref() is not None for ref in held), (
            "what the cohort that ran out had on the device is free again"
        )
        if n == 0:
            sizes.append(len(state.step))
        if len(state.step) > 2:
            held.append(weakref.ref(state.step))
            raise jax.errors.JaxRuntimeError(
                "RESOURCE_EXHAUSTED: Out of memory allocating 42 bytes"
            )
        return advance(inputs, tokens_N, state, n)

    def on_small(self: Executables, form: Form) -> Any:
        compiled = of(self, form)
        return {**compiled, "advance": functools.partial(small, compiled["advance"])}

    def mapped(trials: Sequence[Trial], **hooks: Any) -> Iterable[Result]:
        return tiny.train(trials, axis="map", **hooks)

    monkeypatch.setattr(Executables, "of", on_small)
    store = a_store(tmp_path / "store", trials)
    summary = work(store, "tiny", trials, mapped)
    assert sizes == [4, 2, 2] and (summary.split, summary.done, summary.failed) == (1, 4, 0)
    losses = {r.trial.lr: (r.result.loss, r.result.loss_init) for r in store.records()}
    assert all(
        loss is not None and init is not None and loss < init for loss, init in losses.values()
    )
    assert min(losses, key=lambda lr: losses[lr][0] or 9.0) == max(losses), (
        "each trial kept its own LR"
    )


def test_the_compiled_programs_own_account_of_memory_cuts_cohorts() -> None:
    programs, trials = Programs("map", tiny.corpus()), tiny.trials(4)
    few, more = programs.peak(trials[:2]), programs.peak(trials)
    assert few > 4 * 3 * 2 * 500, (
        "weights and both moments of two trials of about 600 parameters are in it"
    )
    assert more > 1.3 * few, "it grows with the trials"
    limits = Limits(memory=few / 0.9 * 1.001, peak=programs.peak)
    assert limits.cut(trials) == trials[:2] and limits.of(trials[0], 4) == 2
    assert programs.made.count == 2, "what was measured is what trains"
    assert programs.cost(trials[:2]).step_seconds > 0


@pytest.mark.proof
def test_killed_inside_a_checkpoint_three_times_then_finished_to_the_bit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, compiled_once: dict[str, str]
) -> None:
    trials = tiny.trials(1, steps=700)
    calm, store = a_store(tmp_path / "calm", trials), a_store(tmp_path / "store", trials)
    monkeypatch.setenv("TINY_TRACE", str(tmp_path / "trace"))
    for nth in (2, 2, 2):
        command = [sys.executable, "-m", "tests.sweeps.tiny", str(store.path), str(nth)]
        done = subprocess.run(
            command, cwd=ROOT, env={**os.environ, **compiled_once}, capture_output=True, timeout=120
        )
        assert done.returncode == -signal.SIGKILL, done.stderr[-2000:]
        assert store.ids() == set()
    work(store, "tiny", trials, tiny.train)
    begins = [int(line) for line in (tmp_path / "trace").read_text().splitlines()]
    assert begins == sorted(begins) and begins[0] < begins[1] < begins[2], (
        "each went on from the checkpoint before the one it died in"
    )
    work(calm, "tiny", trials, tiny.train)
    assert timeless(store) == timeless(calm)
    assert not any((store.path / "checkpoints").iterdir())


def test_a_corrupted_checkpoint_is_passed_over(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    trials = tiny.trials(1, steps=600)
    calm, store = a_store(tmp_path / "calm", trials), a_store(tmp_path / "store", trials)

    def cut_off(trials: Sequence[Trial], **hooks: Any) -> Iterable[Result]:
        return tiny.train(trials, **{**hooks, "stop": lambda: True})

    assert work(store, "tiny", trials, cut_off).failed == ATTEMPTS, (
        "every attempt ended early, each with a checkpoint"
    )
    saved = [
        p for p in (store.path / "checkpoints").rglob("*") if p.is_file() and p.stat().st_size > 100
    ]
    assert saved
    for path in saved:
        data = bytearray(path.read_bytes())
        data[len(data) // 2 : len(data) // 2 + 8] = b"\xff" * 8
        path.write_bytes(bytes(data))
    summary = work(store, "tiny", trials, tiny.train)
    work(calm, "tiny", trials, tiny.train)
    assert summary.done == 1 and timeless(store) == timeless(calm)
    assert "checkpoint" in caplog.text
