"""`--law auto`: recovers a known surface, carries what a form misses, says how unsure it is, and
survives saving.
"""

import json
from dataclasses import asdict

import numpy as np
import pytest

from fits import record
from fits.auto import choice, kriging, mixture, priors
from fits.evaluate import evaluate
from fits.fit import fit
from fits.forms import catalogue
from fits.table.points import Points
from ground import InputError
from tests.fits.runs import EPOCH, TEX, surface


def split(points: Points, ratio: float) -> tuple[Points, Points]:
    """Runs at most `ratio` below the dearest tenth, and that tenth."""
    flops = 6 * points.x["params"] * points.x["tokens"]
    top = flops >= np.quantile(flops, 0.9)
    return tuple(
        Points({c: v[rows] for c, v in points.x.items()}, points.y[rows], {}, [])
        for rows in (flops <= flops[top].min() / ratio, top)
    )


@pytest.mark.parametrize("ratio, most", [(4, 0.008), (32, 0.02)])
def test_predicts_dear_runs_of_known_surfaces(ratio, most):
    errors, inside = [], []
    for seed in range(4):
        cheap, dear = split(surface("chinchilla", (EPOCH, TEX)[seed % 2], n=60, seed=seed), ratio)
        p = evaluate(fit(cheap, "auto"), dear.x)
        errors.append(np.mean(np.abs(p.value / dear.y - 1)))
        inside += list((p.low <= dear.y) & (dear.y <= p.high))
    assert np.mean(errors) < most
    assert np.mean(inside) > 0.7  # 24 runs of 4 draws, each draw's errors go together


def warped(points: Points) -> Points:
    """Runs whose cheap ones lie up to 50 % above the surface, as if badly tuned: no form of the set
    can follow.
    """
    log_c = np.log(points.x["params"] * points.x["tokens"])
    depth = (log_c.max() - log_c) / np.ptp(log_c)
    return Points(points.x, points.y * np.exp(0.5 * depth**6), {}, [])


def test_discrepancy_carries_what_the_form_misses():
    with_it, without = [], []
    for seed in range(3):
        cheap, dear = split(warped(surface("chinchilla", EPOCH, n=60, seed=seed)), 4)
        found = fit(cheap, "auto")
        assert found.mixture.weights["without discrepancy"] < 0.05
        with_it.append(np.mean(np.abs(evaluate(found, dear.x).value / dear.y - 1)))
        p = fit(cheap, "chinchilla").params
        without.append(np.mean(np.abs(catalogue.law("chinchilla").predict(p, dear.x) / dear.y - 1)))
    assert np.mean(with_it) < 0.01 < 0.5 * np.mean(without)


def test_a_surface_without_misfit_needs_little_discrepancy():
    found = fit(surface("chinchilla", EPOCH, n=80, seed=3), "auto")
    size = sum(m["weight"] * m["ratio"] * m["sigma"] for m in found.mixture.members)
    assert size < 0.01


def test_intervals_widen_with_reach_and_level():
    found = fit(surface("chinchilla", EPOCH, n=60), "auto")
    params, tokens = (found.range[c][1] * np.array([1.0, 5.0, 25.0]) for c in ("params", "tokens"))
    p = evaluate(found, {"params": params, "tokens": tokens})
    assert np.all(np.diff(p.high / p.low) > 0)
    wide, narrow = (
        evaluate(found, {"params": params, "tokens": tokens}, level) for level in (0.95, 0.5)
    )
    assert np.all(wide.high > p.high) and np.all(p.high > narrow.high)
    with pytest.raises(InputError, match="level"):
        evaluate(found, {"params": params, "tokens": tokens}, 1.0)


def test_fewer_runs_widen_the_interval() -> None:
    assert mixture.quantile(6, 0.9) > mixture.quantile(12, 0.9) > mixture.quantile(400, 0.9) > 1.64


def test_doubt_about_the_form_grows_with_reach_whatever_the_runs_say():
    near, far = np.array([0.5, 5.0])
    for between in (1e-8, 1e-4):  # members that agree to 0.01 %, to 1 %
        grown = mixture.doubt(np.array([between]), np.array([near, far]))
        assert grown[1] / grown[0] == pytest.approx(10 ** (2 * priors.DOUBT[1]))
    sure, unsure = (mixture.doubt(np.array(b), np.array(far)) for b in (1e-8, 1e-4))
    assert 1e-8 < sure < unsure  # shrunk towards each other, in order


def test_reach_is_the_farthest_of_compute_size_tokens_and_ratio():
    runs = {"params": 1e8 * np.array([1, 10]), "tokens": 1e10 * np.array([1, 10])}
    at = {
        "params": 1e8 * np.array([10, 20, 5, 1, 100]),
        "tokens": 1e10 * np.array([10, 10, 50, 1, 10]),
    }
    expected = [priors.LEAST_REACH, np.log(2), np.log(10), priors.LEAST_REACH, np.log(10)]
    np.testing.assert_allclose(mixture.reach(runs, at), expected)


def test_says_how_it_chose_and_survives_json(tmp_path):
    points = surface("chinchilla", TEX, n=60, seed=1)
    found = fit(points, "auto", source="made")
    assert found.law == "auto" and found.mixture.form in mixture.FORMS["auto"]
    assert sum(m["weight"] for m in found.mixture.members) == pytest.approx(1)
    assert sum(found.mixture.weights[form] for form in mixture.FORMS["auto"]) == pytest.approx(1)
    assert len(found.mixture.holdout) == 3 and all(
        row["error"] < 0.05 for row in found.mixture.holdout
    )
    found.save(tmp_path / "fit.json")
    again = record.load(tmp_path / "fit.json")
    assert again.mixture is not None and asdict(again) == json.loads(json.dumps(asdict(found)))
    x = {"params": np.array([1e10]), "tokens": np.array([1e12])}
    np.testing.assert_allclose(
        [v[0] for v in evaluate(again, x)],
        [v[0] for v in evaluate(found, x)],
        rtol=1e-9,
    )


def test_one_bad_run_counts_less():
    points = surface("chinchilla", EPOCH, n=60, seed=2)
    y = points.y.copy()
    y[17] *= 1.4
    bad = Points(points.x, y, {}, [])
    x = {c: np.array([3 * v.max()]) for c, v in points.x.items()}
    clean, robust = (float(evaluate(fit(p, "auto"), x).value[0]) for p in (points, bad))
    assert abs(robust / clean - 1) < 0.01
    assert any("count less" in w for w in fit(bad, "auto").warnings)


def test_losses_in_another_unit_give_the_same_answer():
    points = surface("chinchilla", EPOCH, n=50)
    x = {"params": np.array([5e10]), "tokens": np.array([2e12])}
    nats, bits = (
        evaluate(fit(Points(points.x, points.y * s, {}, []), "auto"), x).value[0]
        for s in (1, 1 / np.log(2))
    )
    assert bits * np.log(2) == pytest.approx(nats, rel=1e-6)


def test_few_runs_are_predicted_with_a_warning_and_fewer_are_refused():
    points = surface("chinchilla", EPOCH, n=6)
    found = fit(points, "auto")
    assert found.mixture.scale == priors.SCALE and any("not tested" in w for w in found.warnings)
    import pandas as pd

    with pytest.raises(InputError, match="rows=5"):
        fit(pd.DataFrame({**points.x, "loss": points.y}).iloc[:5], "auto")


def test_many_runs_are_thinned_and_said_so():
    points = surface("chinchilla", EPOCH, n=choice.MOST + 50)
    warnings: list[str] = []
    runs = choice.thinned(kriging.Runs(points.x, points.y, np.ones_like(points.y)), warnings)
    assert len(runs) == choice.MOST and "thinned" in warnings[0]
    assert runs.compute.max() == (points.x["params"] * points.x["tokens"]).max()


def test_gradients_of_the_posterior():
    """The slopes of log law against finite differences, both forms."""
    points = surface("chinchilla", EPOCH, n=12)
    points.x["unique_tokens"] = points.x["tokens"] / np.linspace(1, 9, 12)
    points.x["params_active"], points.x["experts"] = points.x["params"], np.geomspace(1, 256, 12)
    for name in [form for forms in mixture.FORMS.values() for form in forms]:
        inputs = {column: points.x[column] for column in catalogue.law(name).inputs}
        runs = kriging.Runs(inputs, points.y, np.ones(12))
        problem = kriging._problem(catalogue.law(name), runs)
        u = kriging._prior(problem, runs, False)[0][None] + 0.1
        _, slopes = kriging._log_law(problem, u, problem.x)
        for i in range(u.shape[1]):
            step = np.eye(u.shape[1])[i] * 1e-6
            up, down = (kriging._log_law(problem, u + s * step, problem.x)[0] for s in (1, -1))
            np.testing.assert_allclose(slopes[0, i], (up - down)[0] / 2e-6, atol=1e-7)


def routed(form, p, seed=0):
    """Runs of 6 sizes and 9 numbers of experts, two of each, and a size that is dearer."""
    n, e = np.meshgrid(np.geomspace(2e7, 3e8, 6), 2.0 ** np.arange(0, 9))
    x = {"params_active": np.repeat(n.ravel(), 2), "experts": np.repeat(e.ravel(), 2)}
    noise = np.exp(0.005 * np.random.default_rng(seed).standard_normal(x["experts"].size))
    dear = {"params_active": np.full(4, 1.2e9), "experts": np.array([1.0, 8, 64, 256])}
    law = catalogue.law(form)
    return Points(x, law.predict(p, x) * noise, {}, []), dear, law.predict(p, dear)


CLARK = {"a": -0.085, "b": -0.12, "c": 0.01, "d": 1.12, "E_start": 2.2, "E_max": 300.0}
FLOOR = {"E": 1.5, "A": 40.0, "alpha": 0.19, "delta": 0.5, "E_start": 3.0, "E_max": 400.0}


@pytest.mark.parametrize(("form", "p"), [("routed", CLARK), ("routed-floor", FLOOR)])
def test_routed_experts_whichever_form_is_planted(form, p, tmp_path):
    """The other form counts as much: the interval knows, and holds the planted loss."""
    points, dear, truth = routed(form, p)
    found = fit(points, "auto-routed")
    band = evaluate(found, dear)
    assert found.mixture.weights["routed"] == pytest.approx(0.5)
    assert np.all((band.low < truth) & (truth < band.high))
    assert np.abs(band.value / truth - 1).max() < 0.02
    found.save(tmp_path / "fit.json")
    again = evaluate(record.load(tmp_path / "fit.json"), dear)
    np.testing.assert_allclose(again.value, band.value, rtol=1e-9)


def test_the_joint_covariance_has_the_variance_of_each_point():
    points, dear, _ = routed("routed-floor", FLOOR)
    chosen = mixture.members(fit(points, "auto-routed"))
    mean, covariance = kriging.joint(chosen, dear)
    alone, variance, _ = mixture.parts(chosen, dear)
    np.testing.assert_allclose(mean, alone, rtol=1e-12)
    np.testing.assert_allclose(np.diag(covariance), variance, rtol=1e-9)
    assert np.linalg.eigvalsh(covariance).min() > -1e-12


def test_repeated_tokens_from_cheap_runs():
    p = {"E": 1.8, "A": 480.0, "B": 2100.0, "alpha": 0.35, "beta": 0.37, "R_D": 15.0, "R_N": 5.0}
    points = surface("data-constrained", p, n=90, noise=0.004)
    flops = points.x["params"] * points.x["tokens"]
    cheap = np.argsort(flops)[:70]
    x = {name: values[cheap] for name, values in points.x.items()}
    found = fit(Points(x, points.y[cheap], {}, []), "auto-repeated")
    dear = np.argsort(flops)[70:]
    at = {name: values[dear] for name, values in points.x.items()}
    band = evaluate(found, at)
    truth = catalogue.law("data-constrained").predict(p, at)
    assert np.median(np.abs(band.value / truth - 1)) < 0.01
    assert np.mean((band.low < truth) & (truth < band.high)) > 0.8
