"""The coordinate check on the real transformer: it passes for what is right, fails for what is
wrong, and its arithmetic is right.
"""

import dataclasses
import json
import math
from functools import partial

import jax
import numpy as np
import pytest

from lab import measure, model
from lab.kernels.choose import choose
from lab.parametrization import TABLES, numbers, to_data
from lab.program import program_of, shape_of

TEXT = (
    "A parametrization says how the size of each weight at the start, and of each ste"
    "p it then takes, follow the width of the model.\n"
    "If it is right, what was tuned on a narrow model holds for a wide one; if it is "
    "wrong, the wide one learns too fast, or not at all."
)
TOKENS = np.frombuffer(TEXT.encode(), np.uint8) % 64
WIDTHS, DEPTHS = (64, 256), (1, 4)


def check(name, axis="width", sizes=WIDTHS, steps=2, seeds=1, **changes):
    """Rows of a small check: two sizes, one seed, updates enough to be judged."""
    small = {"width": 64 if axis == "width" else 32, "vocab": 64, "head_dim": 16, "depth": 1}
    small |= {"ff": 2 * small["width"], **({} if name == "u-mup" else {"lr": 2.0**-7})}
    table = changes.pop("table", None)
    trial = measure.standard("mup" if table else name, axis=axis, **{**small, **changes})
    if table:
        trial = dataclasses.replace(trial, parametrization=name, table=json.dumps(table))
    return measure.coordinates(trial, axis, sizes, TOKENS, steps, seeds)


def slopes(rows, statistic, step=2):
    return {row.module: row.slope for row in rows if (row.statistic, row.step) == (statistic, step)}


def altered(role, column, formula):
    """muP's table with one cell wrong."""
    data = to_data(TABLES["mup"]) | {"name": "altered"}
    (data["rows"][role]["adam"] if column == "lr" else data["rows"][role])[column] = formula
    return data


@pytest.fixture(scope="module")
def right():
    return check("mup")


def test_mup_keeps_every_part_at_its_size(right):
    """Two sizes and one seed: half the tolerance over four times the width is noise, so twice it is
    allowed here.
    """
    for row in right:
        if row.judged:
            assert abs(row.slope) < 2 * measure.TOLERANCE, row
    # 1/sqrt(n) at init, by design
    assert slopes(right, "size", 0)["logits"] == pytest.approx(-0.5, abs=0.1)


def test_sp_grows():
    """At least 0.4 from the first update on, so that the check has power."""
    rows = check("sp")
    for step in (1, 2):
        grown = slopes(rows, "change", step)
        assert grown["residual last"] > 0.4 and grown["logits"] > 0.4
        assert abs(grown["embedding"]) < 0.2


@pytest.mark.parametrize(
    ("role", "column", "formula"), [("hidden", "lr", "1"), ("output", "multiplier", "alpha_out")]
)
def test_mup_without_one_of_its_factors_fails(role, column, formula):
    """Negative controls: the hidden LR, or the readout, without 1/m."""
    rows = check("altered", table=altered(role, column, formula))
    assert max(row.slope for row in rows if row.judged) > 0.4
    assert not all(row.passed for row in rows)


def last(rows):
    """The largest |slope| after the last update, by which `measure.verdict` goes."""
    end = max(row.step for row in rows)
    return max(abs(row.slope - row.expected) for row in rows if row.step == end)


@pytest.mark.parametrize("experts", [1, 8])
@pytest.mark.parametrize("name", ["mup", "u-mup"])
def test_experts_and_router_keep_their_size_over_width(name, experts):
    assert last(check(name, steps=3, seeds=2, experts=experts)) < 2 * measure.TOLERANCE


def test_experts_of_sp_grow_with_width():
    grown = slopes(check("sp", experts=8), "change")
    assert grown["mlp last"] > 0.4 and grown["residual last"] > 0.4


def test_gates_of_sum_1_keep_size_over_experts_and_shares_of_all_do_not():
    """A softmax over all experts gives each 1/E at the start; made to sum to 1 the gates do not
    know how many there are.
    """
    over = partial(check, "u-mup", "experts", (4, 32), steps=3, experts=4, experts_per_token=2)
    assert last(over(renormalise=True)) < 2 * measure.TOLERANCE
    assert slopes(over(), "size", 0)["mlp last"] < -0.7


def test_mup_over_experts_needs_gates_of_sum_1_too_and_sp_has_no_rule_to_fail_by():
    """No table has a rule in the number of experts: at the base width SP is muP, over it the rules
    differ in width alone (`test_experts_of_sp_grow_with_width`). What fails over experts are gates
    of shares of all. An expert's own few tokens lend its changes 0.1 to 0.2 here.
    """
    one = {"experts": 4, "experts_per_token": 2, "init_std": 1.0, "batch": 8, "lr": 2.0**-8}
    over = partial(check, axis="experts", sizes=(4, 32), steps=3, seeds=2, width=64, ff=128, **one)
    even = over("mup", renormalise=True)
    assert last(even) < 2 * measure.TOLERANCE
    assert over("sp", renormalise=True) == even
    fallen = slopes(over("mup"), "size")
    assert fallen["mlp last"] < -0.3


def test_ntk_stops_moving():
    """The kernel limit: what is learned inside falls as n^-1/2."""
    changes = slopes(check("ntk"), "change")
    assert changes["residual last"] <= -0.4 and changes["mlp last"] <= -0.4


def test_u_mup_embedding_falls_as_its_lr():
    """The one exempt slope of u-muP: -1/2, from its embedding LR; with the exponent 0 it is 0."""
    assert slopes(check("u-mup"), "change")["embedding"] == pytest.approx(-0.5, abs=0.1)
    row = next(
        r
        for r in check("u-mup", embed_lr_exponent=0.0)
        if (r.module, r.statistic, r.step) == ("embedding", "change", 2)
    )
    assert row.expected == 0 and abs(row.slope) < 0.1


def test_attention_logits_need_the_base_head_size():
    """Heads fixed, their size growing: 1/sqrt(d_h) lets the logits' change grow, sqrt(base)/d_h
    does not.
    """

    def slope_of(base_head_dim):
        values = []
        for head_dim in (8, 64):
            t = measure.standard(
                "mup", vocab=64, depth=1, width=32, head_dim=8, ff=64, base_head_dim=base_head_dim
            )
            t = dataclasses.replace(t, width=4 * head_dim, head_dim=head_dim, ff=8 * head_dim)
            values.append(measure.trajectory(t, TOKENS, 2)["attention logits last", "change", 2])
        return math.log(values[1] / values[0]) / math.log(8)

    right, wrong = slope_of(8), slope_of(0)
    # below 0: at these sizes part of the change is still that of the random init
    assert right < measure.TOLERANCE
    assert wrong > 2.5 * measure.TOLERANCE and wrong - right == pytest.approx(0.5, abs=0.05)


def test_completep_holds_over_depth_and_mup_does_not():
    held, grown = (slopes(check(name, "depth", DEPTHS), "change") for name in ("completep", "mup"))
    assert abs(held["residual last"]) < 2 * measure.TOLERANCE
    assert grown["residual last"] > 0.4


def test_spectral_size_of_updates():
    """|update| sqrt(n_in / n_out) of a hidden matrix is flat in width under muP, and grows under SP
    (2310.17813).
    """

    def slope_of(name):
        found = []
        for width in WIDTHS:
            t = measure.resized(
                measure.standard(name, vocab=64, width=64, head_dim=16, ff=128, depth=1),
                "width",
                width,
            )
            stream = measure.one_batch(t, TOKENS)
            program, inputs = program_of(t), measure.train.inputs_of(t, len(stream))
            start = measure._start(program, inputs)
            after, _ = measure._step(program, inputs, stream, start)
            ups = (np.asarray(s.params["layers"]["000"]["up"]) for s in (start, after))
            # n_in / n_out = 1/2 at both widths
            found.append(np.linalg.norm(np.subtract(*ups), 2) * 0.5**0.5)
        return math.log(found[1] / found[0]) / math.log(WIDTHS[1] / WIDTHS[0])

    assert abs(slope_of("mup")) < 0.1
    assert slope_of("sp") > 0.5


def test_slope_and_its_error():
    """Against the textbook formulas; a value that is zero or NaN gives no slope, and such a row
    fails.
    """
    sizes, rng = (64, 128, 256, 512), np.random.default_rng(0)
    noise = rng.normal(0, 0.1, (4, 3))
    values = np.exp(0.3 * np.log(sizes)[:, None] + noise)
    found, error = measure.slope(sizes, values)
    coefficients, covariance = np.polyfit(
        np.repeat(np.log(sizes), 3), np.log(values).ravel(), 1, cov=True
    )
    assert found == pytest.approx(coefficients[0]) and error == pytest.approx(
        math.sqrt(covariance[0, 0])
    )
    for bad in (0.0, math.nan, math.inf):
        values[1, 1] = bad
        assert math.isnan(measure.slope(sizes, values)[0])
    assert not measure.Row("logits", "size", 2, math.nan, math.nan, {}).passed
    assert measure.Row("logits", "size", 0, 0.5, 0.0, {}, judged=False).passed


def test_every_step_sees_one_batch():
    t = measure.standard("u-mup", vocab=64)
    assert len(measure.one_batch(t, TOKENS)) == t.batch * t.sequence + 1


def test_the_check_measures_the_kernels_that_train(monkeypatch):
    """With kernels chosen, as a GPU does, the probe's program is theirs and its values are those of
    the plain code; in low precision the check's sizes are sizes that kernels take.
    """
    trial = measure.standard("completep", base_depth=1, lr=0.01, init_std=0.5)
    shape, n = shape_of(trial), numbers(trial)
    params = model.init(shape, jax.random.key(0), n)
    tokens_BT = TOKENS[: trial.batch * trial.sequence].reshape(trial.batch, trial.sequence)

    def probed():
        measure.probe.clear_cache()
        text = str(jax.make_jaxpr(partial(measure.probe, shape))(params, tokens_BT, n))
        return text.count("pallas_call["), measure.probe(shape, params, tokens_BT, n)

    none, expected = probed()
    monkeypatch.setattr(measure, "choose", partial(choose, use=True))
    some, found = probed()
    assert none == 0 and some > 0 and set(measure.kernels(trial).values()) == {"chains"}
    for name, x in expected.items():
        assert np.linalg.norm(found[name] - x) < 1e-5 * np.linalg.norm(x), name
    low = measure.standard("u-mup", precision="bfloat16")
    expected = {"attention": "hopper_attention", "mlp": "hopper_mlp", "norm": "chains"}
    assert measure.kernels(low) == {**expected, "loss": "hopper_loss"}
    assert set(measure.kernels(dataclasses.replace(low, sequence=32)).values()) != {"plain"}


def rows_of(slopes, error=0.02):
    return [
        measure.Row("logits", "size", t, s, error, {}, 0.0, t >= measure.FIRST_JUDGED)
        for t, s in enumerate(slopes)
    ]


@pytest.mark.parametrize(
    ("slopes", "error", "seeds", "verdict"),
    [
        ((-0.5, -0.4, -0.2, -0.15, -0.02), 0.02, 3, "pass"),  # a transient that has gone
        ((0.0, 0.2, 0.3, 0.4, 0.5), 0.05, 3, "fail"),
        ((0.0, 0.2, 0.3, 0.4, 0.5), 0.05, 1, "not shown"),  # one seed is not enough to fail
        ((0.0, 0.05, 0.1, 0.12, 0.15), 0.05, 3, "not shown"),  # its error reaches the tolerance
        ((0.0, 0.0, 0.0, 0.0, float("nan")), 0.0, 3, "fail"),
    ],
)
def test_a_verdict_is_by_the_last_slopes_and_their_errors(slopes, error, seeds, verdict):
    assert measure.verdict(rows_of(slopes, error), seeds) == verdict


def density_slopes(name):
    """Log value against log density of random static masks, after two updates."""
    small = {"width": 128, "vocab": 64, "head_dim": 16, "depth": 1, "ff": 256, "lr": 2.0**-7}
    base = dataclasses.replace(measure.standard(name, **small), pruning="static")
    dense, sparse = (
        measure.trajectory(dataclasses.replace(base, sparsity=s), TOKENS, 2) for s in (0.0, 0.75)
    )
    keys = [(m, s, 2) for m in measure.MODULES for s in measure.STATISTICS if m != "embedding"]
    return {key: math.log(sparse[key] / dense[key]) / math.log(0.25) for key in keys}


def test_supar_keeps_every_part_at_its_size_over_density_and_mup_does_not():
    """2405.15743, figure 5."""
    supar, mup = density_slopes("supar"), density_slopes("mup")
    for key, slope in supar.items():
        assert abs(slope) < 2 * measure.TOLERANCE, key
    for part in ("attention last", "attention logits last", "mlp last"):
        assert mup[part, "size", 2] > 0.8
