"""Laws along training: the trajectory solver, schedule laws on each other's curves, collapse."""

import numpy as np
import pytest
from scipy.optimize import brentq

from fits.engine.schedules import Curve, fit_schedule
from fits.fit import fit
from fits.forms import collapse, trajectory
from fits.forms.collapse import Collapse
from fits.forms.law import Law
from fits.forms.schedules import Annealing, MultiPower
from fits.forms.trajectory import Trajectory, TrajectoryNoise
from fits.predict import in_flight, published
from fits.table.points import Points
from ground import InputError
from tests.fits.runs import published as published_runs

KAPLAN = {
    "N_c": 8.8e13,
    "alpha_N": 0.076,
    "S_c": 2.1e3,
    "alpha_S": 0.76,
    "B_star": 2e8,
    "alpha_B": 0.21,
}


def grid(**axes):
    names = list(axes)
    return dict(
        zip(
            names,
            np.array(np.meshgrid(*axes.values(), indexing="ij")).reshape(len(names), -1),
            strict=True,
        )
    )


def test_trajectory_solver_reference_values():
    x = {
        "params": np.array([1e8, 1e8, 1e8, 1e6]),
        "steps": np.array([1e4, 1e5, 1e4, 1e4]),
        "batch_tokens": np.array([5e5, 5e5, 1e8, 5e5]),
    }
    assert Trajectory.predict(KAPLAN, x) == pytest.approx(
        [3.3862, 2.9608, 3.1374, 4.3986], abs=1e-4
    )
    assert Trajectory.derived(KAPLAN)["alpha_C"] == pytest.approx(0.05199, abs=1e-5)


def test_trajectory_solves_its_equation_over_sixteen_decades():
    x = grid(
        params=np.array([1e4, 1e8, 1e12]),
        steps=np.array([1.0, 1e3, 1e6, 1e9]),
        batch_tokens=np.array([1e2, 1e6, 1e12]),
    )
    for n, s, b, loss in zip(*x.values(), Trajectory.predict(KAPLAN, x), strict=True):

        def excess(u, n=n, s=s, b=b):
            critical = KAPLAN["B_star"] * np.exp(-u / KAPLAN["alpha_B"])
            floor = (KAPLAN["N_c"] / n) ** KAPLAN["alpha_N"]
            return (
                np.log(
                    floor
                    + (KAPLAN["S_c"] / trajectory.steps_min(s, b, critical)) ** KAPLAN["alpha_S"]
                )
                - u
            )

        assert np.log(loss) == pytest.approx(brentq(excess, -5, 50, xtol=1e-13), abs=1e-10)


def test_trajectory_limits():
    """A huge batch leaves S_min = S; unlimited steps leave the size's own floor; tokens and steps
    agree on the hyperbola.
    """
    x = {"params": np.array([1e8]), "steps": np.array([1e5]), "batch_tokens": np.array([1e15])}
    floor = (KAPLAN["N_c"] / 1e8) ** KAPLAN["alpha_N"]
    assert Trajectory.predict(KAPLAN, x) == pytest.approx(
        floor + (KAPLAN["S_c"] / 1e5) ** KAPLAN["alpha_S"], rel=1e-8
    )
    assert Trajectory.predict(KAPLAN, {**x, "steps": np.array([1e20])}) == pytest.approx(
        floor, rel=1e-6
    )
    s, b, critical = 1e4, 3e5, 1e6
    assert trajectory.tokens_min(s * b, b, critical) == pytest.approx(
        critical * trajectory.steps_min(s, b, critical)
    )


def test_trajectory_derivatives_equal_the_complex_step():
    p = {name: np.array([[value]]) for name, value in KAPLAN.items()}
    x = grid(
        params=np.array([1e6, 1e9]), steps=np.array([1e3, 1e6]), batch_tokens=np.array([1e4, 1e7])
    )
    assert Trajectory.jet(p, x)[1] == pytest.approx(
        Law.jet.__func__(Trajectory, p, x)[1], rel=1e-12
    )


def test_small_models_predict_the_trajectory_of_a_large_one():
    """1M to 60M parameters, three batches, 0.5 % noise: the constants return and 1e9 parameters at
    a new batch are within 1 %.
    """
    rng = np.random.default_rng(0)
    x = grid(
        params=np.array([1e6, 4e6, 1.6e7, 6e7]),
        steps=np.geomspace(500, 5e4, 8),
        batch_tokens=np.array([3e4, 3e5, 3e6]),
    )
    y = Trajectory.predict(KAPLAN, x) * np.exp(0.005 * rng.standard_normal(96))
    found = fit(Points(x, y, {}, []), Trajectory, objective="log-mse")
    exponents = ("alpha_N", "alpha_S", "alpha_B")
    assert [found.params[name] for name in exponents] == pytest.approx(
        [KAPLAN[name] for name in exponents], rel=0.03
    )
    assert found.starts["agree"] >= 5
    large = {"params": np.array([1e9]), "steps": np.array([2e5]), "batch_tokens": np.array([1e6])}
    assert Trajectory.predict(found.params, large) == pytest.approx(
        Trajectory.predict(KAPLAN, large), rel=0.01
    )


def test_noise_of_a_constant_lr_is_a_term_of_its_own():
    """Six batches, 0.5 % noise: a larger model at a batch that is not among them is within 1 %, by
    the law without the term it is not.
    """
    rng = np.random.default_rng(0)
    x = grid(
        params=np.array([1e6, 4e6, 1.6e7]),
        steps=np.geomspace(500, 5e4, 8),
        batch_tokens=np.geomspace(4e3, 3e6, 6),
    )
    noise = {"B_noise": 1000.0, "alpha_noise": 0.5}
    y = TrajectoryNoise.predict(KAPLAN | noise, x) * np.exp(0.005 * rng.standard_normal(144))
    large = {
        "params": np.full(2, 2e7),
        "steps": np.full(2, 5e4),
        "batch_tokens": np.array([3e3, 2e4]),
    }
    truth = TrajectoryNoise.predict(KAPLAN | noise, large)
    found, plain = (
        fit(Points(x, y, {}, []), law, objective="log-mse", quick=True)
        for law in (TrajectoryNoise, Trajectory)
    )
    assert found.params["alpha_noise"] == pytest.approx(0.5, abs=0.1)
    assert found.form.predict(found.params, large) == pytest.approx(truth, rel=0.01)
    assert np.abs(plain.form.predict(plain.params, large) / truth - 1).max() > 0.015


PEAK, WARMUP, STEPS = 3e-4, 2160, 24_000  # 2503.12811


def schedule(
    kind: str, total: int = STEPS, peak: float = PEAK, warmup: int = WARMUP, floor: float = 0.1
) -> np.ndarray:
    s = np.arange(1, total + 1)
    rest = np.clip((s - warmup) / (total - warmup), 0, 1)
    late = np.clip((rest - 0.8) / 0.2, 0, 1)
    factor = {
        "constant": np.ones(total),
        "cosine": floor + (1 - floor) * (1 + np.cos(np.pi * rest)) / 2,
        "two-stage": np.where(s > total / 3, 0.3, 1.0),
        "wsd": floor**late,
    }[kind]
    return peak * np.where(s <= warmup, s / warmup, factor)


def mpl(kind: str, steps: np.ndarray, size: str = "400m", **changed) -> np.ndarray:
    return published.get(f"mpl-{size}")[0].predict(
        {"schedule": schedule(kind, **changed), "steps": steps}
    )


def test_multi_power_needs_the_warmup_in_its_sum():
    """Left out, predictions are 3-6 % off: the increases of LR contribute about B peak."""
    steps = np.arange(2304, STEPS + 1, 512)
    for size in ("25m", "100m", "400m"):
        (one,) = published.get(f"mpl-{size}")
        lr = schedule("cosine")
        full = one.predict({"schedule": lr, "steps": steps})
        without = full - one.params["B"] * warmup_part(one.params, lr, steps)
        assert 0.03 < np.mean(np.abs(without / full - 1)) < 0.06
        assert np.all(np.diff(full) < 0)


def warmup_part(p, lr, steps):
    total, k = np.cumsum(lr), np.arange(WARMUP)
    rises = np.diff(lr[:WARMUP], prepend=0.0)
    reach = lr[k] ** -p["gamma"] * (total[steps - 1][:, None] - (total - lr)[k])
    return (1 - (1 + p["C"] * reach) ** -p["beta"]) @ rises


def test_annealing_lowers_the_loss_and_more_at_the_end():
    steps = np.array([12_000, STEPS])
    constant, wsd, cosine = (mpl(kind, steps) for kind in ("constant", "wsd", "cosine"))
    assert wsd[0] == pytest.approx(constant[0], rel=1e-9) and wsd[1] < cosine[1] < constant[1]


def test_annealing_law_fits_the_multi_power_curves():
    """Fitted to cosine, constant and two-stage of the 400M set: alpha .42 and L0 2.52 as on the
    measured curves, WSD's end within 1 %.
    """
    steps = np.arange(2304, STEPS + 1, 256)
    curves = [
        Curve(schedule(kind) / PEAK, steps, mpl(kind, steps))
        for kind in ("cosine", "constant", "two-stage")
    ]
    found = fit_schedule(Annealing, curves)
    assert found.params["alpha"] == pytest.approx(0.420, abs=0.02) and found.params[
        "L0"
    ] == pytest.approx(2.524, abs=0.02)
    wsd = Annealing.predict(found.params, {"schedule": schedule("wsd") / PEAK, "steps": steps})
    assert (
        np.mean(np.abs(wsd / mpl("wsd", steps) - 1)) < 0.0045
        and abs(wsd[-1] / mpl("wsd", steps)[-1] - 1) < 0.0098
    )


def test_multi_power_fit_returns_its_constants():
    short = {"total": 2400, "peak": 3e-3, "warmup": 216}
    steps = np.arange(240, 2401, 108)
    curves = [
        Curve(schedule(kind, **short), steps, mpl(kind, steps, **short))
        for kind in ("cosine", "constant", "two-stage")
    ]
    found = fit_schedule(MultiPower, curves)
    assert found.params == pytest.approx(published.get("mpl-400m")[0].params, rel=1e-4)
    wsd = MultiPower.predict(found.params, {"schedule": schedule("wsd", **short), "steps": steps})
    assert wsd == pytest.approx(mpl("wsd", steps, **short), rel=1e-6)


def test_schedule_laws_refuse_steps_outside_the_schedule():
    with pytest.raises(InputError, match=r"1\.\.24000"):
        mpl("cosine", np.array([STEPS + 1]))
    with pytest.raises(InputError, match="2 points for 5 parameters"):
        fit_schedule(Annealing, [Curve(np.ones(10), np.array([1, 2]), np.array([3.0, 2.9]))])


def surrogate_columns(taus, ratios, points=40):
    t = np.linspace(0.05, 1, points)
    rows = [(t, 1 - t, 0 * t, 0 * t + tau, 0 * t + ratio) for tau in taus for ratio in ratios]
    return dict(zip(Collapse.inputs, np.concatenate(rows, axis=1), strict=True))


def test_collapse_surrogate_is_recovered_and_predicts_a_new_setting():
    true = {"b_c": 0.25, "b_e": 0.4, "q_c": 0.6, "q_e": 0.15}
    x = surrogate_columns((0.05, 0.1, 0.2, 0.4), (20, 80, 320))
    y = Collapse.predict(true, x) * (
        1 + 3e-4 * np.random.default_rng(0).standard_normal(len(x["tau"]))
    )
    found = fit(Points(x, y, {}, []), Collapse)
    assert found.starts["agree"] >= 5
    assert found.params == pytest.approx(true, abs=0.03)
    new = surrogate_columns((0.13,), (160,))
    assert Collapse.predict(found.params, new) == pytest.approx(
        Collapse.predict(true, new), abs=1e-3
    )
    assert Collapse.predict(
        true, {**new, "progress": np.ones(40), "lr_fraction": np.zeros(40)}
    ) == pytest.approx(np.ones(40))


def test_constant_lr_curves_collapse_at_fixed_tokens_per_parameter_only():
    t = np.linspace(0.1, 1, 30)

    def curve(params, ratio, a=0.35):
        loss = 400 * params**-a + 400 * (t * ratio * params) ** -a
        return in_flight.normalize(loss, loss[-1])

    same = [curve(n, 20) for n in (1e8, 1e9, 1e10)]
    other = [curve(1e8, ratio) for ratio in (5, 20, 80)]
    assert np.max(in_flight.spread(same)) < 1e-12 < 0.01 < np.max(in_flight.spread(other))
    assert same[0] == pytest.approx(
        collapse.constant_lr_shape(t, overtraining=20.0, exponent=0.35), rel=1e-12
    )


def test_final_loss_of_a_run_in_flight_and_its_residuals():
    t = np.linspace(0.01, 1, 100)
    reference = collapse.constant_lr_shape(t, 4.0, 0.35)
    rng = np.random.default_rng(1)
    loss = 2.37 * reference * np.exp(1e-3 * rng.standard_normal(100))
    loss[60:] *= 1 + 0.01 * (t[60:] - 0.6) / 0.4  # a run that goes wrong at 60 %
    final, residual = in_flight.predict_final(t[:50], loss[:50], t, reference)
    assert final == pytest.approx(2.37, rel=1e-3) and np.max(np.abs(residual)) < 5e-3
    _, residual = in_flight.predict_final(t, loss, t, reference)
    assert np.mean(residual[90:]) > 0.005 and abs(np.mean(residual[30:60])) < 0.001
    with pytest.raises(InputError, match="no point"):
        in_flight.predict_final(t[:10], loss[:10], t, reference)


def test_measured_curves_collapse_on_their_reducible_loss():
    """Chess transformers, 8 widths, decay to zero (2507.02119).

    One floor, fitted to the final losses, makes the curves of all widths one to 0.3 %; the plain
    ratio to the final loss does not. The narrowest then gives the final loss of the widest from
    half of its run.
    """
    import pandas as pd

    frame = pd.read_csv(published_runs("supercollapse_chess.csv"))
    frame = frame[(frame["log"] == "chess") & (frame["step"] > 0)]
    final = frame[frame["final"] == 1].groupby("width")[["loss", "compute"]].mean()
    points = Points({"flops": final["compute"].to_numpy() * 1e15}, final["loss"].to_numpy(), {}, [])
    floor = fit(points, "power-c").params["E"]
    t = np.linspace(0.2, 1, 17)
    curves = {
        width: np.mean([on(t, run) for _, run in part.groupby("seed")], axis=0)
        for width, part in frame.groupby("width")
    }

    def relative_spread(low):
        normalized = [in_flight.normalize(curve, curve[-1], low) for curve in curves.values()]
        return np.max(in_flight.spread(normalized) / np.mean(normalized, axis=0))

    assert (
        len(curves) == 8
        and relative_spread(floor) < 0.003
        and relative_spread(0.0) > 2.5 * relative_spread(floor)
    )
    reference, widest = in_flight.normalize(curves[768], curves[768][-1], floor), curves[2048]
    early = t <= 0.5
    reducible, _ = in_flight.predict_final(t[early], widest[early] - floor, t, reference)
    assert reducible + floor == pytest.approx(widest[-1], rel=0.002)


def on(t, run):
    return np.interp(np.log(t), np.log(run["step"] / run["step"].max()), run["loss"])
