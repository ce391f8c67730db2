"""A cohort's programs: made once, by whoever asks first, and the ones that train; kept for the next
process where nobody else writes.
"""

import threading
import time

import jax
import pytest
from jax.experimental.compilation_cache import compilation_cache

from lab import population, prefix, shelf
from lab.executables import Executables, Form
from tests.lab.toy import CORPUS, trial

TRIALS = [trial(lr=lr, steps=6) for lr in (0.5, 1.0)]


def forms(axis):
    return list(population.forms(TRIALS, CORPUS, axis))


@pytest.fixture(scope="module")
def kept(tmp_path_factory):
    """A shelf with the programs of both axes, and what they trained."""
    jax.clear_caches()  # what JAX's own cache of programs gave another test cannot be kept
    folder = tmp_path_factory.mktemp("shelf") / "own"
    programs = Executables(shelf.open_shelf(folder))
    results = {axis: train(axis, programs) for axis in population.AXES}
    assert programs.count == len(population.AXES), "what `forms` says is all that is compiled"
    assert programs.seconds > 0
    yield folder, results
    jax.config.update("jax_enable_compilation_cache", True)  # for the tests of other files
    compilation_cache.reset_cache()


def train(axis, programs):
    for form in forms(axis):
        programs.of(form)
    results = population.train(TRIALS, CORPUS, axis, programs=programs)
    return [(r.loss, r.curves["loss"]) for r in results]


@pytest.mark.parametrize("axis", population.AXES)
def test_one_program_for_runs_that_rest_at_any_step(axis):
    """What ends where a longer run goes on from it, and what is stopped by events, is stepped by
    the program of a plain run: where it rests is a traced number.
    """
    schedule = {"schedule": "wsd", "warmup_steps": 1}
    plain = [trial(lr=0.5, steps=40, **schedule)]
    branches = [trial(lr=0.5, steps=20, **schedule), *plain]
    seen = [trial(lr=0.5, steps=40, validate_steps=7, **schedule)]
    (form,) = population.forms(plain, CORPUS, axis)
    assert len(prefix.waves(branches, axis == "map")) == 2
    assert [*population.forms(branches, CORPUS, axis)] == [form]
    assert [*population.forms(seen, CORPUS, axis)] == [form]


def test_what_is_the_same_program_is_compiled_once():
    """A cohort begins alike at every batch; it does not step alike."""
    programs = Executables()
    small, large = (
        programs.of(*population.forms([trial(batch=batch)], CORPUS, "map")) for batch in (2, 4)
    )
    assert small["begin"] is large["begin"] and small["advance"] is not large["advance"]


def nothing_is_traced(form):
    raise AssertionError(f"{form.names} is traced")


@pytest.mark.parametrize("axis", population.AXES)
def test_the_next_process_traces_nothing_and_gets_the_same_bits(axis, kept, monkeypatch):
    folder, results = kept
    monkeypatch.setattr(Form, "lower", nothing_is_traced)
    programs = Executables(shelf.open_shelf(folder))
    assert train(axis, programs) == results[axis] and programs.seconds == 0
    assert programs.peak(forms(axis)[0]) > 4 * 1000, "it still says what memory it needs"
    monkeypatch.setattr(shelf, "surroundings", lambda: "other flags of the compiler")
    with pytest.raises(AssertionError, match="is traced"):  # another program
        Executables(shelf.open_shelf(folder)).of(forms(axis)[0])


def test_a_file_that_is_cut_off_is_made_again(kept, caplog, monkeypatch):
    folder, _ = kept
    found = shelf.open_shelf(folder)
    (form,) = forms("turn")
    path = found._file(form, "advance")
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    assert found.load(form, form.names) is None and "cannot be loaded" in caplog.text
    path.write_bytes(whole)
    assert found.load(form, form.names) is not None
    monkeypatch.setattr(shelf, "surroundings", lambda: "another version")
    assert found.load(form, form.names) is None, "of other code it is another file"


def test_a_folder_that_others_may_write_is_not_read(kept, caplog, monkeypatch):
    folder, _ = kept
    folder.chmod(0o770)
    assert shelf.open_shelf(folder) is None and "others may write" in caplog.text
    folder.chmod(0o700)
    assert shelf.open_shelf(folder) is not None
    monkeypatch.setenv("JAX_ENABLE_COMPILATION_CACHE", "0")
    assert shelf.open_shelf(folder) is None, "who wants nothing kept"


def test_one_thread_makes_what_all_wait_for(monkeypatch):
    made = []

    def slow(self, form):
        made.append(form)
        time.sleep(0.2)
        if len(made) == 1:
            raise MemoryError("no room")
        return {"advance": "compiled"}

    monkeypatch.setattr(Executables, "_make", slow)
    programs, (form,) = Executables(), forms("map")
    with pytest.raises(MemoryError):
        programs.of(form)
    found = []
    threads = [
        threading.Thread(target=lambda: found.append(programs.of(form)["advance"]))
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == ["compiled"] * 4 and len(made) == 2, "what failed is tried again, once"
