import logging

import jax.numpy as jnp
import numpy as np
import pytest

from lab import checkpoint
from lab.checkpoint import Saved


def arrays(step: int) -> dict[str, np.ndarray]:
    return {"w": np.arange(6, dtype=np.float32).reshape(2, 3) * step, "n": np.array([step, -step])}


def test_the_newest_state_of_each_trial(tmp_path):
    checkpoint.save(tmp_path, ["a", "b"], [5, 3], arrays(5))
    checkpoint.save(tmp_path, ["b", "c"], [9, 2], arrays(9))
    found = checkpoint.load(tmp_path, ["a", "b", "c", "never"])
    assert {k: v.step for k, v in found.items()} == {"a": 5, "b": 9, "c": 2}
    np.testing.assert_array_equal(found["a"].arrays["w"], [0, 5, 10])
    np.testing.assert_array_equal(found["b"].arrays["w"], [0, 9, 18])
    assert found["c"].arrays["n"] == -9 and found["c"].arrays["w"].dtype == np.float32
    assert checkpoint.load(tmp_path / "none", ["a"]) == {}


def test_two_of_each_list_are_kept_and_done_ones_forgotten(tmp_path):
    for step in (1, 2, 3, 4):
        checkpoint.save(tmp_path, ["a", "b"], [step, step], arrays(step))
    checkpoint.save(tmp_path, ["b", "z"], [1, 1], arrays(1))
    assert sorted(p.name[:9] for p in tmp_path.iterdir()) == ["000000001", "000000003", "000000004"]
    checkpoint.forget(tmp_path, ["a", "b"])
    assert checkpoint.load(tmp_path, ["a", "b", "z"]).keys() == {"b", "z"}  # z is not done


def flip(path):
    """Change one byte in the middle of the largest file."""
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 0xFF
    path.write_bytes(bytes(data))


def values(path):
    return [f for f in (path / "arrays").rglob("*") if f.is_file() and f.parent.name == "d"]


DAMAGE = {
    "flipped": lambda p: [flip(f) for f in values(p)],
    "truncated": lambda p: [f.write_bytes(f.read_bytes()[:20]) for f in values(p)],
    "no arrays": lambda p: [f.unlink() for f in values(p)],
    "no description": lambda p: (p / "about" / "metadata").unlink(),
    "broken description": lambda p: (p / "about" / "metadata").write_text("{"),
    "another format": lambda p: (p / "about" / "metadata").write_text('{"format": 0}'),
}


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_one_is_reported_and_the_one_before_serves(damage, tmp_path, caplog):
    checkpoint.save(tmp_path, ["a", "b"], [5, 5], arrays(5))
    newest = checkpoint.save(tmp_path, ["a", "b"], [7, 7], arrays(7))
    DAMAGE[damage](newest)
    with caplog.at_level(logging.WARNING, "lab.checkpoint"):
        found = checkpoint.load(tmp_path, ["a"])
    assert found["a"].step == 5
    assert any(
        newest.name in r.getMessage() and "passed over" in r.getMessage() for r in caplog.records
    )


def test_arrays_that_are_not_what_was_saved_are_refused(tmp_path, caplog, monkeypatch):
    """Readable, but with other numbers than the digest's."""
    path = checkpoint.save(tmp_path, ["a"], [5], {"w": np.ones((1, 2))})
    about = (path / "about" / "metadata").read_text()
    other = checkpoint.save(tmp_path, ["a"], [6], {"w": np.zeros((1, 2))})
    (other / "about" / "metadata").write_text(about.replace('"steps": [5]', '"steps": [6]'))
    with caplog.at_level(logging.WARNING, "lab.checkpoint"):
        assert checkpoint.load(tmp_path, ["a"])["a"].step == 5
    assert "does not hold what was saved" in caplog.text


def test_an_unfinished_one_is_passed_over(tmp_path):
    checkpoint.save(tmp_path, ["a"], [5], {"w": np.ones((1, 2))})
    (tmp_path / "000000009-x.orbax-checkpoint-tmp").mkdir()
    assert checkpoint.load(tmp_path, ["a"])["a"].step == 5


@pytest.mark.parametrize("mapped", [True, False])
def test_pack_and_unpack(mapped):
    tree = {"w": jnp.arange(6.0).reshape(2, 3), "inner": (jnp.array([1, 2]),)}
    packed = checkpoint.pack(tree, mapped)
    assert set(packed) == {"['w']", "['inner'][0]"}
    assert packed["['w']"].shape == ((2, 3) if mapped else (1, 2, 3))
    one = Saved("a", 1, {name: array[0] for name, array in packed.items()})
    assert checkpoint.fits(tree, one) and not checkpoint.fits({**tree, "more": jnp.zeros(2)}, one)
    other = {"w": jnp.zeros((2, 3)), "inner": (jnp.zeros(2, int),)}
    out = checkpoint.unpack(other, mapped, {0: one})
    np.testing.assert_array_equal(out["w"][0], tree["w"][0])
    np.testing.assert_array_equal(out["w"][1], 0 if mapped else tree["w"][1])
    assert out["inner"][0].dtype == other["inner"][0].dtype
