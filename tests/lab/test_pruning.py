"""Masks: when they change and what they take, exactly; that what is pruned stays away; that nothing
depends on company or on a resume.
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ground import InputError
from lab import checkpoint, cohort, model, optim, population, pruning, sparsity, train
from lab.actions import ACTIONS
from lab.dispatch import begin, stack
from lab.events import due, events_of
from lab.prefix import prefix_of
from lab.program import program_of, signature
from lab.records import trial_json
from tests.lab.toy import CORPUS, trial
from tests.results import numbers

SPARSE = {
    "sparsity": 0.7,
    "prune_steps": 4,
    "diagnostics": "sparsity",
    "measure_steps": 3,
    "schedule": "constant",
    "ema_decay": 0.9,
}
GRADUAL = trial(pruning="gradual", **SPARSE)
NM = trial(pruning="nm", prune_pattern="2:4", **SPARSE | {"sparsity": 0.0})
SET = trial(pruning="set", **SPARSE)
STATIC = trial(pruning="static", sparsity=0.7)
HIDDEN = {"q": 256, "k": 256, "v": 256, "o": 256, "gate": 512, "up": 512, "down": 512}


def run(trials, axis="turn", **options):
    return list(population.train(trials, CORPUS, axis, **options))


@functools.cache
def states(t):
    """The state at the start, and after each step and the events that follow it."""
    program, inputs = program_of(t), stack([train.inputs_of(t, len(CORPUS.train))], False)
    tokens_N = jnp.asarray(CORPUS.train)
    step = jax.jit(lambda state: train.step(program, inputs, tokens_N, state)[0])
    prune = jax.jit(lambda state: ACTIONS["prune"](program, inputs, (), state)[0])
    seen = [begin(program, False, inputs)]
    for n in range(1, t.steps + 1):
        state = step(seen[-1])
        seen.append(prune(state) if "prune" in due(t, n) else state)
    return seen


# op by op the draws, ranks and ties of every shape would each be compiled
first = jax.jit(pruning.first, static_argnums=(0, 2))


def masks_of(state):
    return {path.split(".")[-1]: np.asarray(m) for path, m in model.by_path(state.masks).items()}


# 1. when -----------------------------------------------------------------------------------------


def test_the_ramp_is_the_papers():
    """2309.08520: of 20,000 steps from 5,000 to 15,000; its count of a step is one less."""
    t = trial(steps=20_000, pruning="gradual", sparsity=0.75)
    ramp = pruning.ramp_of(t)
    for step, level in ((4999, 0.0), (7500, 0.43372), (10_000, 0.65631), (14_999, 0.75)):
        assert sparsity.level_at(t, step + 1) == pytest.approx(level, abs=1e-5)
        assert float(pruning.level_at(ramp, step + 1)) == pytest.approx(level, abs=1e-5)
    assert list(sparsity.refreshes(t)) == list(range(5100, 15_001, 100))
    mean = sparsity.mean_zeros(t) / sum(HIDDEN.values())
    assert mean == pytest.approx(0.625 * 0.75, rel=0.01)  # 1 - 0.625 S of all is left
    often = dataclasses.replace(t, prune_steps=1)
    assert sparsity.mean_zeros(often) / sum(HIDDEN.values()) == pytest.approx(0.46875, rel=1e-3)


def test_masks_change_at_events_and_a_ramp_ends_in_one():
    assert list(sparsity.refreshes(trial(**{**SPARSE, "pruning": "gradual"}))) == [10, 14, 18, 22]
    assert list(sparsity.refreshes(SET)) == [4, 8, 12, 16, 20]
    at_the_end = dataclasses.replace(GRADUAL, prune_end=1.0)
    assert list(sparsity.refreshes(at_the_end))[-1] == 26  # and the last as the run ends
    assert "prune" not in events_of(STATIC) and "prune" not in events_of(trial())
    assert due(trial(**{**SPARSE, "pruning": "gradual", "measure_steps": 2}), 10) == [
        "prune",
        "measure",
    ]


def test_a_dense_trial_is_what_it_was():
    names = {"pruning", "sparsity", "prune_start", "prune_end", "prune_steps", "prune_scope"}
    assert not names & set(trial_json(trial()))
    inputs = train.inputs_of(trial(), 1000)
    assert inputs.ramp is None and train.start(program_of(trial()), inputs).masks is None


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"pruning": "magnitude"}, 'must be one of "", gradual, nm, static, set'),
        ({"sparsity": 0.5}, "sparsity=0.5: has no effect with pruning=''"),
        ({"pruning": "gradual", "sparsity": 1.0}, r"must be in \[0, 1\)"),
        ({"pruning": "gradual", "prune_start": 0.8}, "must be 0 <= start <= end <= 1"),
        ({"pruning": "gradual", "prune_steps": 0}, "prune_steps=0: must be at least 1"),
        ({"pruning": "static", "prune_steps": 5}, "prune_steps=5: has no effect"),
        ({"pruning": "set", "prune_start": 0.1}, "prune_start=0.1: has no effect"),
        ({"pruning": "set", "prune_scope": "global"}, "it goes with gradual"),
        ({"pruning": "nm"}, "prune_pattern='': must be one of 2:4, 4:8"),
        ({"pruning": "nm", "prune_pattern": "2:4", "sparsity": 0.5}, "sparsity=0.5: has no effect"),
        ({"pruning": "nm", "prune_pattern": "4:8", "ff": 36}, "ff=36: must be divisible by 8"),
        (
            {"pruning": "nm", "prune_pattern": "2:4", "experts": 2, "expert_ff": 6},
            "expert_ff=6: must be divisible by 4",
        ),
        ({"diagnostics": "sparsity"}, "sparsity needs pruning"),
    ],
)
def test_what_means_nothing_is_refused(fields, message):
    with pytest.raises(InputError, match=message):
        trial(**fields)


# 2. how many -------------------------------------------------------------------------------------


@pytest.mark.parametrize("t", [GRADUAL, NM, SET], ids=lambda t: t.pruning)
def test_each_matrix_is_within_one_weight_of_its_target_at_every_step(t):
    level, before = sparsity.level(t), None
    for step, state in enumerate(states(t)):
        masks = masks_of(state)
        assert {name: m.size for name, m in masks.items()} == HIDDEN
        for name, mask in masks.items():
            changed = [0, *(s for s in sparsity.refreshes(t) if s <= step)][-1]
            target = level if t is SET else sparsity.level_at(t, changed) if changed else 0.0
            assert abs((~mask).sum() - target * mask.size) <= 1, (name, step)
            weights = np.asarray(state.params["layers"]["000"][name])
            assert not weights[~mask].any()
            if t is not SET:  # a rising level takes and gives nothing back
                assert before is None or not (mask & ~before[name]).any()
                assert (weights[mask] != 0).all()
        before = masks
    zeros = sum((~m).sum() for m in masks.values())
    assert abs(zeros - sparsity.zeros(t, level)) <= len(masks)


def test_what_goes_is_the_smallest_and_all_else_stays_dense():
    dense, pruned = states(GRADUAL)[9:11]
    program, inputs = program_of(GRADUAL), train.inputs_of(GRADUAL, len(CORPUS.train))
    after, _ = jax.jit(lambda s: train.step(program, inputs, jnp.asarray(CORPUS.train), s))(dense)
    for name, mask in masks_of(pruned).items():
        weights = np.abs(np.asarray(after.params["layers"]["000"][name]))
        assert weights[~mask].max() <= weights[mask].min()
    assert np.asarray(pruned.params["embed"]).all() and np.asarray(pruned.params["unembed"]).all()


EXPERTS = dict(experts=3, experts_per_token=2, shared_experts=1, expert_ff=16)


def test_each_expert_loses_its_own_and_the_router_nothing():
    t = dataclasses.replace(GRADUAL, **EXPERTS)
    for step, state in enumerate(states(t)):
        changed = [0, *(s for s in sparsity.refreshes(t) if s <= step)][-1]
        target = sparsity.level_at(t, changed) if changed else 0.0
        masks = masks_of(state)
        assert masks.keys() == set(HIDDEN) | {"expert_gate", "expert_up", "expert_down"}
        for name, mask in masks.items():
            weights = np.asarray(state.params["layers"]["000"][name])
            assert not weights[~mask].any()
            for one in mask if mask.ndim == 3 else [mask]:
                assert abs((~one).sum() - target * one.size) <= 1, (name, step)
    assert (np.asarray(state.params["layers"]["000"]["router"]) != 0).all()
    assert sum((~m).sum() for m in masks.values()) == sparsity.zeros(t, sparsity.level(t))


def test_experts_of_equal_weights_have_masks_of_their_own():
    """Ten times as large weights save no expert but under global, and a pattern is each one's."""
    one_DF = jax.random.normal(jax.random.key(0), (8, 6))
    w = jnp.stack([one_DF, 10 * one_DF[::-1]])
    params, once = {"layers": {"000": {"expert_up": w}}}, pruning.Ramp(0.5, 0, 0)

    def up(*method):
        masks = first(sparsity.Method(*method), params, 0, once)
        return np.asarray(masks["layers"]["000"]["expert_up"])

    each = up("gradual")
    assert (each[0] == each[1][::-1]).all() and each[0].sum() == 24
    small, large = up("gradual", "global").sum((1, 2))
    assert small < 16 and small + large == 48
    assert (up("nm", "uniform", (2, 4)).reshape(2, 2, 4, 6).sum(2) == 2).all()
    random = up("static")
    assert (random.sum((1, 2)) == 24).all() and (random[0] != random[1]).any()


@pytest.mark.parametrize("level", [0.0, 0.3, 0.5, 0.999])
@pytest.mark.parametrize("scope", sparsity.SCOPES)
def test_ties_change_no_count(level, scope):
    params = {"layers": {"000": {"q": jnp.ones((7, 9)), "o": jnp.zeros((9, 7))}}}
    once = pruning.Ramp(level, 0, 0)  # before the first step
    masks = first(sparsity.Method("gradual", scope), params, 0, once)
    zeros = {name: int((~np.asarray(m)).sum()) for name, m in masks["layers"]["000"].items()}
    if scope == "uniform":
        assert zeros == dict.fromkeys(("q", "o"), round(level * 63))
    else:  # the zeros go first
        assert sum(zeros.values()) == round(level * 126) and zeros["o"] == min(
            63, round(level * 126)
        )


@pytest.mark.parametrize(("n", "m"), [(2, 4), (4, 8)])
def test_n_of_m_is_exact_along_the_input(n, m):
    w = jax.random.normal(jax.random.key(0), (16, 24))
    w = w.at[:8, 0].set(0.0)  # with ties
    method = sparsity.Method("nm", "uniform", (n, m))
    params = {"layers": {"000": {"up": w}}}
    masks = first(method, params, 0, pruning.Ramp(1 - n / m, 0, 0))
    kept = np.asarray(masks["layers"]["000"]["up"]).reshape(-1, m, 24)
    assert (kept.sum(1) == n).all()
    size = np.abs(np.asarray(w)).reshape(-1, m, 24)
    assert (np.where(kept, size, np.inf).min(1) >= np.where(kept, 0, size).max(1)).all()
    # power: by magnitude alone it is no pattern
    plain = first(sparsity.Method("gradual"), params, 0, pruning.Ramp(1 - n / m, 0, 0))
    assert (np.asarray(plain["layers"]["000"]["up"]).reshape(-1, m, 24).sum(1) != n).any()


def test_a_pattern_is_there_when_its_ramp_has_ended():
    for mask in masks_of(states(NM)[22]).values():
        assert (mask.reshape(-1, 4, mask.shape[-1]).sum(1) == 2).all()


def test_global_takes_more_where_weights_are_small():
    small = {"q": jnp.full((8, 8), 0.1), "up": jnp.ones((8, 16))}
    key = jax.random.key(1)
    small = {k: w * jax.random.uniform(key, w.shape, minval=0.5) for k, w in small.items()}
    masks = first(
        sparsity.Method("gradual", "global"), {"layers": {"000": small}}, 0, pruning.Ramp(0.5, 0, 0)
    )["layers"]["000"]
    assert int((~masks["q"]).sum()) == 64 and int((~masks["up"]).sum()) == 96 - 64
    t = dataclasses.replace(GRADUAL, prune_scope="global")
    assert sparsity.zeros(t, 0.7) == round(0.7 * sum(HIDDEN.values()))


def test_set_drops_the_smallest_and_stops():
    seen = [masks_of(s) | {"w": s.params["layers"]["000"]} for s in states(SET)]
    for step in range(1, SET.steps + 1):
        for name in HIDDEN:
            old, new = seen[step - 1][name], seen[step][name]
            if step not in sparsity.refreshes(SET):
                assert (old == new).all()
                continue
            dropped, kept = round(sparsity.DROPPED * old.sum()), old & new
            assert abs((old & ~new).sum() - dropped) <= 1
            # weights that came are 0 now
            w = np.abs(np.asarray(seen[step]["w"][name]))
            assert not w[new & ~old].any() and (w[kept] > 0).all()
    inputs = stack([train.inputs_of(SET, 1)._replace(init_seed=1)], False)
    other = masks_of(begin(program_of(SET), False, inputs))
    assert (other["up"] & seen[0]["up"]).mean() == pytest.approx(0.3**2, abs=0.05)


# 3. that it stays away ---------------------------------------------------------------------------


@pytest.mark.parametrize("optimizer", ["adamw", "muon", "schedule_free_adamw", "prodigy"])
def test_pruned_weights_stay_zero_under_every_optimizer(optimizer):
    free = optimizer == "schedule_free_adamw"
    t = dataclasses.replace(
        STATIC,
        optimizer=optimizer,
        parametrization="sp",
        lr=1.0 if optimizer == "prodigy" else 0.01,
        schedule="constant" if free else "linear",
        weight_decay=0.01,
        steps=3,
    )
    for state in states(t):
        for name, mask in masks_of(state).items():
            kept = [
                leaf
                for path, leaf in jax.tree.leaves_with_path((state.params, state.opt))
                if f"'{name}'" in jax.tree_util.keystr(path[-1:])
            ]
            assert len(kept) >= 2 and all(not np.asarray(x)[~mask].any() for x in kept)
            assert all(np.asarray(x)[mask].any() for x in kept) or state.step == 0
    evaluated = optim.evaluated(optimizer, state.opt, state.params)["layers"]["000"]
    assert all(not np.asarray(evaluated[n])[~m].any() for n, m in masks_of(state).items())


def test_moments_and_the_moving_average_lose_what_is_pruned():
    before, after = states(GRADUAL)[9:11]
    for name, mask in masks_of(after).items():
        for tree in (after.ema, after.opt[0].mu, after.opt[0].nu):
            assert not np.asarray(tree["layers"]["000"][name])[~mask].any()
        assert np.asarray(before.ema["layers"]["000"][name])[~mask].all()


# 4. company, resume, prefix ----------------------------------------------------------------------


def test_a_cohort_of_mixed_levels_gives_each_trial_its_losses_alone():
    trials = [dataclasses.replace(GRADUAL, sparsity=s) for s in (0.0, 0.5, 0.75)]
    assert len({signature(t) for t in trials}) == 1 < len({signature(t) for t in (GRADUAL, SET)})
    mapped, alone = (run(trials, axis) for axis in ("map", "turn"))
    for m, a, t in zip(mapped, alone, trials, strict=True):
        np.testing.assert_allclose(m.curves["loss"].values, a.curves["loss"].values, rtol=1e-5)
        assert m.curves["sparsity"] == a.curves["sparsity"]
        assert m.curves["sparsity"].values[-1] == pytest.approx(t.sparsity, abs=2e-3)
    assert len({r.loss for r in alone}) == 3


def test_no_pruning_is_dense_training_and_a_ramp_begins_as_it():
    dense, none, some = (
        np.array(r.curves["loss"].values)
        for r in run([trial(schedule="constant")])
        + run([dataclasses.replace(GRADUAL, sparsity=0.0), GRADUAL])
    )
    np.testing.assert_allclose(none, dense, rtol=1e-6)
    np.testing.assert_allclose(some[:10], dense[:10], rtol=1e-6)
    assert abs(some[10] / dense[10] - 1) > 1e-3


@pytest.mark.parametrize(
    ("base", "axis"), [(GRADUAL, "map"), (SET, "turn")], ids=["gradual", "set"]
)
def test_interrupted_equals_uninterrupted_bit_for_bit_masks_included(
    base, axis, tmp_path, monkeypatch
):
    monkeypatch.setattr(cohort, "CHUNK_SECONDS", 0.0)
    levels = (0.5, 0.6, 0.7) if axis == "map" else (0.5,)
    trials = [dataclasses.replace(base, sparsity=s) for s in levels]
    ids = [t.run_id for t in trials]

    def saved_after(steps, folder):
        done = []
        steps *= len(trials)  # of all together
        options = {"progress": lambda p: done.append(p.steps_done), "checkpoints": folder}
        assert not run(trials, axis, stop=lambda: done[-1] >= steps, **options)
        return checkpoint.load(folder, ids)[ids[0]]

    straight = saved_after(17, tmp_path / "once")
    first, again = saved_after(9, tmp_path / "twice"), saved_after(17, tmp_path / "twice")
    assert first.step == 9 and again.step == straight.step == 17
    for name, array in straight.arrays.items():
        if name != "seconds":
            np.testing.assert_array_equal(again.arrays[name], array, err_msg=name)
    assert any("masks" in name and not a.all() for name, a in straight.arrays.items())
    resumed = [numbers(r) for r in run(trials, axis, checkpoints=tmp_path / "twice")]
    assert resumed == [numbers(r) for r in run(trials, axis)]


@pytest.mark.parametrize("base", [GRADUAL, SET], ids=lambda t: t.pruning)
def test_runs_of_different_length_share_what_their_masks_have_in_common(base):
    trials = [dataclasses.replace(base, steps=n) for n in (24, 40)]
    alone = [numbers(r) for t in trials for r in run([t])]
    assert [numbers(r) for r in run(trials)] == alone
    assert prefix_of(trials[0]) == {"gradual": 6, "set": 19}[base.pruning]
    assert prefix_of(dataclasses.replace(STATIC, schedule="constant")) == 29


@pytest.mark.parametrize("how", ["gradual", "set"])
@pytest.mark.parametrize("every", [1, 4, 25, 60])
def test_before_a_run_leaves_its_masks_no_longer_one_has_others(how, every):
    short = trial(steps=100, pruning=how, sparsity=0.5, prune_steps=every, schedule="constant")
    for steps in (101, 104, 130, 400):
        long = dataclasses.replace(short, steps=steps)
        common = [
            [s for s in sparsity.refreshes(t) if s <= prefix_of(short)] for t in (short, long)
        ]
        assert common[0] == common[1]
