"""Any two of size, tokens and compute give the same run; one of them the compute-optimal one."""

import pytest

from fits.predict.answers import fill
from fits.predict.sources import sources
from fits.predict.target import DEVICES, Asked, likely, resolve
from ground import InputError
from ground.flops import training

FOUND = sources(["epoch"])[0]


def asked(kind="total", at=None, **known):
    return resolve(Asked(**known), FOUND, kind, at or {})[0]


@pytest.mark.parametrize("kind", ["total", "no_embed"])
def test_any_two_say_the_same_run(kind):
    n, d = 7e9, 1.4e11
    both = asked(kind, params=n, tokens=d)
    assert both == {"params": n, "tokens": d}
    # FLOPs count all parameters, whatever `params` does
    counted, _ = fill({"params": n, "tokens": d}, kind)
    budget = training(float(counted["params_total"][0]), d)
    for two in ({"params": n, "flops": budget}, {"tokens": d, "flops": budget}):
        found = asked(kind, **two)
        assert found["params"] == pytest.approx(n) and found["tokens"] == pytest.approx(d)
    hours = budget / (64 * DEVICES["h200"] * 0.5) / 3600
    by_time = asked(kind, params=n, hours=hours, gpus=64, device="h200", mfu=0.5)
    assert by_time["tokens"] == pytest.approx(d)
    assert asked(kind, params=n, tokens=d, flops=1.01 * budget) == both
    with pytest.raises(InputError, match="give two of the three"):
        asked(kind, params=n, tokens=d, flops=2 * budget)
    with pytest.raises(InputError, match="give one of them"):
        asked(kind, params=n, flops=budget, hours=2 * hours, gpus=64, device="h200", mfu=0.5)


def test_one_is_the_compute_optimal_run_from_every_side():
    by_budget = asked(flops=1e21)
    for name in ("params", "tokens"):
        found = asked(**{name: by_budget[name]})
        assert found["params"] == pytest.approx(by_budget["params"], rel=2e-3)
        assert found["tokens"] == pytest.approx(by_budget["tokens"], rel=2e-3)


def test_overtrained_by_a_factor():
    best, more = asked(flops=1e21), asked(flops=1e21, overtrain=4)
    ratio = best["tokens"] / best["params"]
    assert more["tokens"] / more["params"] == pytest.approx(4 * ratio)
    assert training(more["params"], more["tokens"]) == pytest.approx(1e21)
    size = best["params"]
    assert asked(params=size, overtrain=4)["tokens"] == pytest.approx(4 * best["tokens"], rel=2e-3)
    by_tokens = asked(tokens=4 * best["tokens"], overtrain=4)
    assert by_tokens["params"] == pytest.approx(size, rel=2e-3)
    with pytest.raises(InputError, match="overtrain=4: the size and the tokens are decided"):
        asked(params=1e9, tokens=2e10, overtrain=4)


def test_a_shape_is_a_size():
    found = asked(at={"width": 512.0, "depth": 8.0, "vocab": 32000.0}, tokens=1e9)
    assert found["params"] == 12 * 8 * 512**2 + 2 * 32000 * 512 and found["tokens"] == 1e9


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        ("params", 7.0, "7 billion is written 7B"),
        ("tokens", 1.4, "1.4 billion is written 1.4B"),
        ("params", 1e17, "no run has so many"),
        ("flops", 1e40, "no run has so many"),
        ("tokens", float("inf"), "must be above 0"),
        ("params", -7e9, r"params=-7e\+09: must be above 0"),
    ],
)
def test_a_slip_of_unit_is_refused(name, value, says):
    with pytest.raises(InputError, match=says):
        likely(name, value)


def test_nothing_known_is_told_what_to_give():
    with pytest.raises(InputError, match="--params 7B --tokens 1.4T"):
        asked()
    with pytest.raises(InputError, match="100x is answered"):
        asked(flops=1e26)
    assert resolve(Asked(flops=1e26), FOUND, extrapolate=True)[0]["params"] > 1e11
