"""Curves of trunks: Unraveling's constants return from made ones; the gradient's noise scale."""

import numpy as np
import pandas as pd
import pytest

from fits.batch import trunks
from fits.fit import fit
from fits.forms.trajectory import Trajectory
from fits.table.curves import batches
from fits.table.points import select
from fits.table.rows import table_of
from ground import InputError
from tests.fits.forms.test_curve import KAPLAN

WARM = 100  # steps
SIZES, BATCHES = np.geomspace(1e6, 6e7, 6), np.geomspace(3e4, 3e6, 8)


def run(name, params, batch, steps, rng, noise, schedule="wsd", lr=1.0, **more):
    """One run as a Parquet holds it, 200 points of its curve: on the law but for a warm-up above
    and a cooldown below it.
    """
    at = np.unique(np.rint(np.append(np.linspace(1, steps, 100), np.geomspace(1, steps, 100))))
    x = {"params": np.full(len(at), params), "steps": at, "batch_tokens": np.full(len(at), batch)}
    loss = Trajectory.predict(KAPLAN, x) * np.exp(noise * rng.standard_normal(len(at)))
    late = at > 0.8 * steps if schedule == "wsd" else np.zeros(len(at), bool)
    early = at <= WARM
    loss = np.where(late, 0.95 * loss, np.where(early, 1.3 * loss, loss))
    curves = [{"name": "val_loss", "steps": at.astype(int), "values": loss}]
    return {
        "run_id": name,
        "params": int(params),
        "params_no_embed": int(params),
        "batch_tokens": int(batch),
        "steps": int(steps),
        "warmup_tokens": int(WARM * batch),
        "schedule": schedule,
        "lr": lr,
        "loss": float(loss[-1]),
        "curves": curves,
        **more,
    }


def made(sizes=SIZES, batches=BATCHES, seed=0):
    """0.5 % of noise in every point."""
    rng = np.random.default_rng(seed)
    each = [(n, b) for n in sizes for b in batches]
    return pd.DataFrame([run(f"{n:g}-{b:g}", n, b, 5e4, rng, 0.005) for n, b in each])


def constants(frame):
    rows = trunks.along(frame)
    points = select(table_of(rows), Trajectory, "total")
    return fit(points, Trajectory, objective="log-mse")


@pytest.mark.proof
def test_the_constants_return_from_whole_curves():
    """Each within 5 %, and the trajectory of a larger size at a new batch within 1 % after its
    warm-up. N_c and B_star are the law's values at a loss of 1, far from every run: from 8 points a
    curve, four sizes and three batches their standard errors are 13 and 11 %, from these 2.5.
    """
    found = constants(made())
    for name, value in KAPLAN.items():
        assert found.params[name] == pytest.approx(value, rel=0.05), name
    steps = np.geomspace(2e3, 2e5, 40)
    large = {"params": np.full(40, 1e9), "steps": steps, "batch_tokens": np.full(40, 1e6)}
    assert Trajectory.predict(found.params, large) == pytest.approx(
        Trajectory.predict(KAPLAN, large), rel=0.01
    )
    assert found.n > 5000


def test_what_is_no_trunk_is_left_out():
    """Warm-up and cooldown are off the law: nothing of them is in the rows, and with them the
    constants would not return.
    """
    rng = np.random.default_rng(1)
    one = run("a", 1e6, 3e4, 1e4, rng, 0.0)
    rows = trunks.along(pd.DataFrame([one]))
    assert rows["steps"].min() > 100 and rows["steps"].max() <= 8000
    x = {name: rows[name].to_numpy(float) for name in Trajectory.inputs}
    assert rows["loss"].to_numpy() == pytest.approx(Trajectory.predict(KAPLAN, x))
    constant = trunks.along(pd.DataFrame([run("b", 1e6, 3e4, 1e4, rng, 0.0, "constant")]))
    assert constant["steps"].max() == 1e4
    whole = made(SIZES[::2], BATCHES[::3]).assign(schedule="constant", warmup_tokens=1)
    assert abs(constants(whole).params["N_c"] / KAPLAN["N_c"] - 1) > 0.5


def test_one_trunk_a_size_and_batch():
    """Of runs that share it the longest, of several LRs the one that ended lowest, of diverged ones
    none.
    """
    rng = np.random.default_rng(2)
    frame = pd.DataFrame(
        [
            run("short", 1e6, 3e4, 1e3, rng, 0.0),
            run("long", 1e6, 3e4, 1e4, rng, 0.0),
            run("worse", 1e6, 3e4, 1e4, rng, 0.0, lr=2.0, loss=9.0),
            run("diverged", 1e6, 3e4, 1e4, rng, 0.0, lr=4.0, loss=np.nan),
        ]
    )
    assert list(trunks.trunks(frame)["run_id"]) == ["long", "worse"]
    assert set(trunks.along(frame)["run_id"]) == {"long"}
    with pytest.raises(InputError, match="no run that trained has a stretch of constant LR"):
        trunks.trunks(frame.assign(schedule="linear"))
    with pytest.raises(InputError, match="no trunk has a curve val_loss"):
        trunks.along(frame.assign(curves=[[]] * 4))


def test_the_noise_scale_is_a_ratio_of_means():
    """|G|^2 falls and tr Sigma stays along the run: the scale grows, and is read within 10 %; draws
    too few to tell it are not resolved, not negative.
    """
    rng = np.random.default_rng(3)
    at = np.arange(1, 8001)
    signal, trace, batch = 2.0 * at**-0.5, 400.0, 4096.0
    draws = {
        name: signal + trace / size * rng.gamma(50.0, 1 / 50, len(at))
        for name, size in (("grad_sq_norm_half", batch / 2), ("grad_sq_norm", batch))
    }
    one = run("a", 1e6, batch, 1e4, rng, 0.0)
    one["curves"] = [{"name": k, "steps": at, "values": v} for k, v in draws.items()]
    found = trunks.noise_scales(pd.DataFrame([one]))
    assert (found["points"] >= trunks.LEAST_POINTS).all() and len(found) >= 6
    late = found[found["points"] > 500]
    truth = trace / (2.0 * (late["tokens"] / batch) ** -0.5)
    assert late["noise_scale"].to_numpy() == pytest.approx(truth.to_numpy(), rel=0.15)
    one["curves"][0]["values"] = draws["grad_sq_norm"] * 0.5
    assert trunks.noise_scales(pd.DataFrame([one]))["noise_scale"].isna().all()
    with pytest.raises(InputError, match="no trunk has measured gradient_noise"):
        trunks.noise_scales(made(SIZES[:1], BATCHES[:1]))
    with pytest.raises(InputError, match="no trunk has measured gradient_noise_tensors"):
        trunks.noise_scales(pd.DataFrame([one]), tensors=True)


def test_the_noise_scale_where_the_batch_changes():
    """Each batch's draws are taken apart, and such a run is no trunk of a law."""
    rng = np.random.default_rng(4)
    at, batch = np.arange(1, 601), np.repeat([1024.0, 4096.0], [400, 200])
    one = run("a", 1e6, 2048, 600, rng, 0.0, schedule="constant", batch_schedule="4@0,16@0.33")
    norms = {"grad_sq_norm_half": batch / 2, "grad_sq_norm": batch}
    one["curves"] = [
        {"name": k, "steps": at, "values": (1 + 8192 / b) * rng.gamma(50.0, 1 / 50, len(at))}
        for k, b in norms.items()
    ] + [{"name": "batch_tokens", "steps": np.array([1, 401]), "values": np.array([1024.0, 4096])}]
    one["warmup_tokens"] = 0
    frame = pd.DataFrame([one])
    tokens = batches(one, [1, 400, 401, 600])
    assert tokens[0].tolist() == [1024, 1024, 4096, 4096]
    assert tokens[1].tolist() == [1024, 409_600, 413_696, 1_228_800]
    found = trunks.noise_scales(frame)
    last = found.groupby("batch_tokens")["noise_scale"].last()
    assert last.to_numpy() == pytest.approx([8192, 8192], rel=0.25)
    with pytest.raises(InputError, match="no run that trained"):
        trunks.along(frame)
    # the control: were all steps of the mean batch, it would be another
    one["curves"] = one["curves"][:2]
    wrong = trunks.noise_scales(pd.DataFrame([one]))["noise_scale"].iloc[-1]
    assert wrong != pytest.approx(8192, rel=0.4)


def gradients(rng, steps, trace, size=64):
    """|g|^2 of both batches, of a gradient of norm 1 and so much noise, both from the halves."""
    mean = np.full(size, size**-0.5)
    halves = mean + np.sqrt(2 * trace / size) * rng.standard_normal((2, steps, size))
    squares = (halves**2).sum(-1)
    return squares.mean(0), (halves.mean(0) ** 2).sum(-1)


PLANTED = {"embed": 0.5, "layers.000.q": 3.0, "layers.001.q": 12.0}  # batches


def planted(rng):
    """A run whose tensors' noise scales are known, in batches."""
    at = np.arange(1, 513)
    one = run("a", 1e6, 4096, 1e4, rng, 0.0) | {"warmup_tokens": 0}
    each = {path: gradients(rng, len(at), trace) for path, trace in PLANTED.items()}
    one["curves"] = [
        {"name": f"{name}/{path}", "steps": at, "values": draws}
        for path, both in each.items() for name, draws in zip(trunks.NOISE, both, strict=True)
    ]  # fmt: skip
    return pd.DataFrame([one])


def test_the_noise_scale_of_each_tensor_lies_in_its_interval():
    """As often as the interval says; in one of another tensor it does not."""
    rng = np.random.default_rng(5)
    found = pd.concat([trunks.noise_scales(planted(rng), tensors=True) for _ in range(25)])
    truth = 4096 * found["tensor"].map(PLANTED)
    inside = (found["low"] <= truth) & (truth <= found["high"])
    assert len(found) == 25 * 3 * 6
    assert inside.groupby(found["tensor"]).mean().between(0.83, 0.97).all()
    wrong = 4096 * found["tensor"].map(dict(zip(PLANTED, [3.0, 12.0, 0.5], strict=True)))
    assert ((found["low"] <= wrong) & (wrong <= found["high"])).mean() < 0.3
    late = found[found["points"] > 200].groupby("tensor")["noise_scale"].median()
    for path, scale in PLANTED.items():
        assert late[path] == pytest.approx(4096 * scale, rel=0.1)
