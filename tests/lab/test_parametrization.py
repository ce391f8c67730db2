"""Tables against the papers' numbers, their arithmetic, their symmetry, and what they refuse."""

import dataclasses
import json
import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from ground import InputError
from lab.counts import half_life_tokens
from lab.parametrization import (
    TABLES,
    explain,
    from_json,
    numbers,
    rules,
    scales,
    table_of,
    to_data,
)
from lab.parametrization.monomial import Monomial, parse
from lab.parametrization.rules import tau
from lab.parametrization.symmetry import shift, thetas
from lab.records import OPTIMIZERS, Trial
from lab.shape import TENSORS
from scripts import make_oracles as oracle
from tests.lab.tiny import BASES, trial

GOLDEN = Path(__file__).parent / "golden"
BASED = [name for name, table in TABLES.items() if table.cells & BASES["base_width"]]
MUP_FAMILY = ("mup", "mup-table3", "mup-table9", "mean-field")


def base_fields(t):
    return {name: getattr(t, name) for name in BASES}


def factors(name, optimizer="adamw", m=1, depth_ratio=1, **changes):
    """Rules at width and depth m and depth_ratio times the base's, over the base's: what the
    papers' tables print.
    """
    small = trial(name, optimizer=optimizer, **changes)
    big = dataclasses.replace(
        small, width=m * small.width, ff=m * small.ff, depth=depth_ratio * small.depth
    )
    a, b = rules(small), rules(big)
    columns = ("init_std", "multiplier", "lr", "weight_decay", "eps")
    return {
        t: {c: getattr(b[t], c) / getattr(a[t], c) for c in columns if getattr(a[t], c)} for t in a
    }


# 1. the papers' tables ---------------------------------------------------------------------------

M, R = 8, math.sqrt(8)
# std, multiplier, Adam LR, SGD LR at 8 times the base width, by row
PRINTED = {
    "sp": {"embed": (1, 1, 1, 1), "q": (1 / R, 1, 1, 1), "down": (1 / R, 1, 1, 1), "unembed":
    (1 / R, 1, 1, 1)}, "sp-constant": {"embed": (1, 1, 1, 1), "q": (1, 1, 1, 1), "down":
    (1, 1, 1, 1), "unembed": (1, 1, 1, 1)}, "mup-table3": {"embed": (1, 1, 1, M), "q":
    (1 / R, 1, 1 / M, 1), "down": (1 / R, 1, 1 / M, 1), "unembed": (1 / M, 1, 1 / M, 1 / M)}, "mup":
    {"embed": (1, 1, 1, M), "q": (1 / R, 1, 1 / M, 1), "down": (1 / R, 1, 1 / M, 1), "unembed":
    (1, 1 / M, 1, M)}, "mup-table9": {"embed": (1 / R, R, 1 / R, 1), "q": (1 / R, 1, 1 / M, 1),
    "down": (1 / R, 1, 1 / M, 1), "unembed": (1 / R, 1 / R, 1 / R, 1)}, "ntk": {"embed":
    (1, 1, 1 / R, 1), "q": (1, 1 / R, 1 / M, 1), "down": (1, 1 / R, 1 / M, 1), "unembed":
    (1, 1 / R, 1 / R, 1)}, "mean-field": {"embed": (1, 1, 1, M), "q": (1, 1 / R, 1 / R, M), "down":
    (1, 1 / R, 1 / R, M), "unembed": (1, 1 / M, 1, M)}, "u-mup": {"embed": (1, 1, 1 / R, 1 / R),
    "q": (1, 1 / R, 1 / R, 1 / R), "down": (1, 1 / R, 1 / R, 1 / R), "unembed": (1, 1 / M, 1, 1)},
}  # fmt: skip


@pytest.mark.parametrize("name", PRINTED)
def test_width_columns_are_the_papers(name):
    adam, sgd = factors(name, m=M), factors(name, "sgd", m=M)
    for tensor, (std, multiplier, adam_lr, sgd_lr) in PRINTED[name].items():
        got = [
            adam[tensor]["init_std"],
            adam[tensor]["multiplier"],
            adam[tensor]["lr"],
            sgd[tensor]["lr"],
        ]
        assert got == pytest.approx([std, multiplier, adam_lr, sgd_lr]), tensor


def test_attention_scales_when_heads_grow():
    """muP: sqrt(base) / d_h, so 1/8 at d_h = 64 = base (the package's 8 / d_h); SP 1/sqrt(d_h);
    u-muP 1/d_h.
    """
    big = {"width": 128, "head_dim": 128, "ff": 128}
    assert scales(trial("mup", **big, base_head_dim=64)).attention == pytest.approx(8 / 128)
    # no base: heads do not grow
    assert scales(trial("mup", **big)).attention == pytest.approx(128**-0.5)
    assert scales(trial("sp", **big)).attention == pytest.approx(128**-0.5)
    assert scales(trial("u-mup", **big, alpha_attn=2.0)).attention == pytest.approx(2 / 128)


def test_worked_numbers_of_u_mup():
    """d 1024, MLP 4096, heads of 64, 12 layers: from the formulas of 2407.17465, Table 2."""
    r = rules(trial("u-mup", width=1024, ff=4096, head_dim=64, depth=12, lr=1.0))
    assert r["embed"].lr == 1 / 32
    assert [r["q"].multiplier, r["down"].multiplier, r["unembed"].multiplier] == [
        1 / 32,
        1 / 64,
        1 / 1024,
    ]
    assert [r["q"].lr, r["down"].lr, r["unembed"].lr] == pytest.approx(
        [1 / (32 * math.sqrt(12)), 1 / (64 * math.sqrt(12)), 1.0]
    )
    assert rules(trial("u-mup", embed_lr_exponent=0.0))["embed"].lr == 1


def test_factors_and_stored_decay_of_u_mup():
    """Width 256, 4 layers, LR 1, independent decay 0.1: what unit-scaling 0.3.5 has in its groups
    (lambda / LR is what it stores).
    """
    rows = {
        row["tensor"]: row
        for row in explain(
            trial("u-mup", width=256, depth=4, norm_gains=True, lr=1.0, weight_decay=0.1)
        )
    }
    got = {
        name: (rows[name]["lr"], rows[name]["weight_decay_coupled"])
        for name in ("embed", "q", "unembed")
    }
    assert got == {"embed": (0.0625, 1.6), "q": (0.03125, 3.2), "unembed": (1.0, 0.1)}
    assert rows["attn_gain"]["lr"] == 0.5  # as a bias in the stack


def test_lr_decay_and_std_equal_the_mup_package():
    want = json.loads((GOLDEN / "mup.json").read_text())
    size = {
        **oracle.SIZE,
        "base_width": oracle.MUP_BASE_WIDTH,
        "lr": oracle.LR,
        "weight_decay": oracle.DECAY,
    }
    adam, sgd = (
        rules(trial("mup", optimizer="adamw_coupled", **size)),
        rules(trial("mup", optimizer="sgd", **size)),
    )
    for key, (lr, decay) in want["lr_and_decay"].items():
        kind, path = key.split()
        rule = (adam if kind == "adam" else sgd)[path.split(".")[-1]]
        assert oracle.LR * rule.lr == pytest.approx(lr), key
        if kind == "adam":
            assert oracle.DECAY * rule.weight_decay == pytest.approx(decay), key
    by_width = factors("mup", m=oracle.SIZE["width"] // oracle.MUP_BASE_WIDTH)
    for path, std in want["init_std"].items():
        assert std / oracle.MUP_STD == pytest.approx(
            by_width[path.split(".")[-1]]["init_std"], rel=0.06
        ), path


def test_lr_decay_and_tau_equal_the_unit_scaling_package():
    want = json.loads((GOLDEN / "unit_scaling.json").read_text())
    r = rules(trial("u-mup", **{**oracle.SIZE, "lr": oracle.UNIT_LR, "weight_decay": oracle.DECAY}))
    for path, (lr, coupled) in want["lr_and_decay"].items():
        rule = r[path.split(".")[-1]]
        assert oracle.UNIT_LR * rule.lr == pytest.approx(lr), path
        # independent: the package stores lambda / lr
        assert oracle.DECAY * rule.weight_decay == pytest.approx(lr * coupled), path
    for key, taus in want["tau"].items():
        res, ratio = map(float, key.split())
        assert tau(
            trial("u-mup", depth=4, alpha_res=res, alpha_res_attn_ratio=ratio)
        ) == pytest.approx(taus, abs=1e-12)


@pytest.mark.parametrize(
    ("res", "ratio", "shares"),
    [(1.0, 1.0, (1 / 3, 1 / 3, 1 / 3)), (0.5, 2.0, (0.6667, 0.2667, 0.0667))],
)
@pytest.mark.parametrize("depth", [1, 5, 12])
def test_residual_shares_do_not_depend_on_depth(depth, res, ratio, shares):
    """Variance of the final residual stream from the embedding, all attention and all MLP branches;
    the sum is 1.
    """
    s = scales(trial("u-mup", depth=depth, alpha_res=res, alpha_res_attn_ratio=ratio))
    parts = [1.0, 0.0, 0.0]
    for i, (branch, skip) in enumerate(zip(s.branch, s.skip, strict=True)):
        parts = [p * skip**2 for p in parts]
        parts[1 + i % 2] += branch**2
    assert parts == pytest.approx(shares, abs=1e-4) and sum(parts) == pytest.approx(1)


# 2. depth, batch and horizon ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "alpha"),
    [("completep", 1.0), ("completep", 0.5), ("completep", 0.7), ("depth-mup", 0.5)],
)
def test_depth_columns(name, alpha):
    """2505.01618, Table 1: branch m_L^-alpha, in-stack LR m_L^(alpha-1), eps m_L^-alpha, nothing
    outside; branch x LR is 1/m_L for all.
    """
    changes = {"norm_gains": True, **({"depth_alpha": alpha} if name == "completep" else {})}
    got = factors(name, depth_ratio=16, **changes)
    for tensor in ("q", "down", "attn_gain"):
        assert got[tensor]["lr"] == pytest.approx(16 ** (alpha - 1))
        assert got[tensor]["eps"] == pytest.approx(16**-alpha)
    for tensor in ("embed", "unembed", "final_gain"):
        assert got[tensor]["lr"] == got[tensor]["eps"] == 1
    small = trial(name, **changes)
    deep = dataclasses.replace(small, depth=16 * small.depth)
    assert scales(deep).branch[0] == pytest.approx(16**-alpha) and scales(deep).branch[0] * got[
        "q"
    ]["lr"] == pytest.approx(1 / 16)
    assert factors(name, "sgd", depth_ratio=16, **changes)["q"]["lr"] == pytest.approx(
        16 ** (2 * alpha - 1)
    )


def test_depth_rules_reduce_to_mup_at_the_base_depth():
    wide = {"width": 64, "ff": 160, "base_width": 32, "optimizer": "adamw"}
    for name in ("completep", "depth-mup"):
        assert rules(trial(name, **wide)) == rules(trial("mup", **wide))
        assert scales(trial(name, **wide)) == scales(trial("mup", **wide))


def test_horizon_columns_of_completed_p():
    """2512.22382, Table 1, through S = D / B alone: LR, coupled decay S^-1/2, eps S^1/2, 1 - beta
    S^-1; independent decay S^-1.
    """
    small = trial("completed-p", norm_gains=True)
    longer = dataclasses.replace(small, steps=2 * small.steps)
    coupled = [dataclasses.replace(t, optimizer="adamw_coupled") for t in (small, longer)]
    for tensor, rule in rules(small).items():
        other = rules(longer)[tensor]
        assert [other.lr / rule.lr, other.eps / rule.eps] == pytest.approx([2**-0.5, 2**0.5])
        if not tensor.endswith("gain"):
            assert other.weight_decay / rule.weight_decay == pytest.approx(0.5)
            a, b = (rules(t)[tensor].weight_decay for t in coupled)
            assert b / a == pytest.approx(2**-0.5)
    assert [1 - scales(longer).beta1, 1 - scales(longer).beta2] == pytest.approx([0.05, 0.025])
    both = dataclasses.replace(small, batch=2 * small.batch)  # B and D doubled, S the same
    for tensor, rule in rules(small).items():
        assert dataclasses.astuple(rules(both)[tensor]) == pytest.approx(dataclasses.astuple(rule))
    with pytest.raises(InputError, match="beta1=0.9: completed-p makes it"):
        scales(dataclasses.replace(small, steps=1, base_steps=100))


def test_wide_columns_of_completed_p():
    got = factors("completed-p", "adamw_coupled", m=8)
    assert got["unembed"] == pytest.approx(
        {"init_std": 1 / 8, "multiplier": 1, "lr": 1 / 8, "weight_decay": 8, "eps": 1}
    )
    assert got["q"] == pytest.approx(
        {"init_std": 8**-0.5, "multiplier": 1, "lr": 1 / 8, "weight_decay": 8, "eps": 1 / 8}
    )
    assert got["embed"] == pytest.approx(
        {"init_std": 1, "multiplier": 1, "lr": 1, "weight_decay": 1, "eps": 1 / 8}
    )


def test_density_columns_of_supar():
    """2405.15743, Table 1 and D.3: what is pruned as muP at density x fan_in, all else as muP."""
    static = {"pruning": "static", "sparsity": 0.75}
    for optimizer, lr in (("adamw", 4), ("sgd", 4)):
        dense = rules(trial("supar", optimizer=optimizer))
        sparse, mup = (rules(trial(n, optimizer=optimizer, **static)) for n in ("supar", "mup"))
        assert dense == mup == rules(trial("mup", optimizer=optimizer))
        for tensor in ("q", "o", "gate", "down"):
            assert sparse[tensor].init_std == pytest.approx(2 * mup[tensor].init_std)
            assert sparse[tensor].lr == pytest.approx(lr * mup[tensor].lr)
            assert sparse[tensor].eps == mup[tensor].eps
        assert sparse["embed"] == mup["embed"] and sparse["unembed"] == mup["unembed"]
    pattern = trial("supar", pruning="nm", prune_pattern="2:4")
    assert rules(pattern)["q"].lr == pytest.approx(2 * rules(trial("supar"))["q"].lr)


# 3. the base shape, decay ------------------------------------------------------------------------


@pytest.mark.parametrize("name", BASED)
def test_at_the_base_shape_every_table_is_sp_number_for_number(name):
    t = trial(name, width=48, head_dim=12, ff=130)
    sp = dataclasses.replace(t, parametrization="sp", **dict.fromkeys(BASES, 0))
    assert rules(t) == rules(sp) and scales(t) == scales(sp)  # equal, not close
    # the whole input of the one compiled program: so are all losses
    np.testing.assert_equal(numbers(t), numbers(sp))


def test_decay_per_step_is_the_same_at_every_width():
    """Independent decay as it stands; coupled decay through lambda x m on what has LR / m."""
    for name in MUP_FAMILY:
        small = trial(name, optimizer="adamw_coupled", weight_decay=0.1)
        big = dataclasses.replace(small, width=8 * small.width, ff=8 * small.ff)
        for t in (small, big):
            for tensor, rule in rules(t).items():
                assert rule.lr * rule.weight_decay == pytest.approx(1), tensor
        assert all(
            rule.weight_decay == 1
            for rule in rules(dataclasses.replace(big, optimizer="adamw")).values()
        )


def test_coupled_decay_without_the_width_factor_falls_as_one_over_width():
    """The negative control: lambda left alone under muP gives LR x decay a log-log slope of -1 in
    width.
    """
    data = to_data(TABLES["mup"]) | {"name": "uncorrected"}
    data["rows"]["hidden"]["adam"]["coupled"] = "1"
    small = trial("mup", weight_decay=0.1, optimizer="adamw_coupled")
    bad = dataclasses.replace(small, parametrization="uncorrected", table=json.dumps(data))

    def slope(t):
        wide = dataclasses.replace(t, width=64 * t.width, ff=64 * t.ff)
        a, b = (r["q"].lr * r["q"].weight_decay for r in (rules(t), rules(wide)))
        return math.log(b / a) / math.log(64)

    assert slope(bad) == pytest.approx(-1) and slope(small) == pytest.approx(0)


# 4. symmetry -------------------------------------------------------------------------------------


@pytest.mark.parametrize("family", ["adam", "sgd"])
@pytest.mark.parametrize("target", MUP_FAMILY[1:])
def test_the_forms_of_mup_are_one_form(target, family):
    found = thetas(TABLES["mup"], TABLES[target], family)
    moved = shift(table_without_muon("mup"), found, target)
    for role in ("input", "hidden", "output"):
        assert moved.rows[role].std == TABLES[target].rows[role].std
        for column in ("lr", "eps", "coupled") if family == "adam" else ("lr",):
            assert getattr(moved.rows[role].updates[family], column) == getattr(
                TABLES[target].rows[role].updates[family], column
            ), (
                role,
                column,
            )


def table_without_muon(name):
    data = to_data(TABLES[name])
    for row in data["rows"].values():
        row.pop("muon", None)
    return from_json(json.dumps(data))


def test_hidden_matrices_of_u_mup_are_those_of_mup():
    """2407.17465, Table 2: moved by theta = 1/sqrt(fan_in), muP's hidden row is u-muP's. The
    embedding's is not any muP's: its LR falls.
    """
    moved = shift(table_without_muon("mup"), {"hidden": parse("fan_in^-1/2", "")}, "moved")
    base = {"width": 32, "ff": 80}
    small = dataclasses.replace(
        trial("mup"), parametrization="moved", table=json.dumps(to_data(moved)), **base
    )
    big = dataclasses.replace(small, width=16 * 32, ff=16 * 80)
    for tensor in ("q", "down"):
        a, b, u = (
            rules(t)[tensor] for t in (small, big, trial("u-mup", width=16 * 32, ff=16 * 80))
        )
        assert (a.init_std, b.init_std) == pytest.approx((1, 1)) and b.multiplier == pytest.approx(
            u.multiplier
        )
        assert b.lr / a.lr == pytest.approx(factors("u-mup", m=16)[tensor]["lr"])
    assert (
        factors("u-mup", m=16)["embed"]["lr"] == pytest.approx(1 / 4)
        and factors("mup", m=16)["embed"]["lr"] == 1
    )


@pytest.mark.parametrize("other", ["sp", "ntk"])
def test_other_limits_are_not_forms_of_mup(other):
    with pytest.raises(InputError, match="not equivalent"):
        thetas(TABLES["mup"], TABLES[other])


def test_a_gain_cannot_be_moved():
    with pytest.raises(InputError, match="gain"):
        shift(TABLES["mup"], {"gain": Monomial(2.0)}, "x")


# 5. a user's table -------------------------------------------------------------------------------


@pytest.mark.parametrize("name", TABLES)
def test_tables_pass_through_json(name):
    again = from_json(json.dumps(to_data(TABLES[name])))
    assert again == TABLES[name] and again.cells == TABLES[name].cells


def test_a_users_table_needs_no_code_and_enters_the_id():
    data = to_data(TABLES["mup"]) | {"name": "mine", "source": "an example"}
    data["rows"]["hidden"]["adam"] = {"lr": "0.5 in_ratio^-1/2", "eps": "in_ratio^-1"}
    t = trial("mup", width=128, ff=320, base_width=32)
    mine = dataclasses.replace(t, parametrization="mine", table=json.dumps(data))
    assert rules(mine)["q"].lr == 0.25 and rules(mine)["embed"] == rules(t)["embed"]
    data["rows"]["hidden"]["adam"]["lr"] = "0.25 in_ratio^-1/2"
    other = dataclasses.replace(mine, table=json.dumps(data))
    assert len({t.run_id, mine.run_id, other.run_id}) == 3


BAD_CELLS = {
    "fan_in^^2": "must be a number, a name or name^power",
    "widht^-1": "unknown name 'widht'",
    "": "must be a product",
    "in_ratio^-1/": "must be a number, a name",
}


@pytest.mark.parametrize("cell", BAD_CELLS)
def test_a_bad_cell_is_refused_by_its_path(cell):
    data = to_data(TABLES["mup"]) | {"name": "mine"}
    data["rows"]["hidden"]["adam"]["lr"] = cell
    with pytest.raises(InputError, match="rows.hidden.adam.lr") as error:
        from_json(json.dumps(data))
    assert BAD_CELLS[cell] in str(error.value)


def test_bad_tables_are_refused():
    good = to_data(TABLES["mup"])
    for change, message in (
        ({"rows": {}}, "lacks input, hidden"),
        ({"residual": "pre"}, "must be plain or tau"),
        ({"unit": 1}, "table.unit=1"),
        ({"colour": "1"}, "table.colour: unknown"),
        ({"attention": True}, "table.attention=True"),
        ({"name": ""}, "lacks name"),
    ):
        with pytest.raises(InputError, match=message):
            from_json(json.dumps(good | change))
    with pytest.raises(InputError, match="cannot be read as JSON"):
        from_json("{")
    with pytest.raises(InputError, match="must be the given table's name"):
        table_of(dataclasses.replace(trial("sp"), parametrization="x", table=json.dumps(good)))


# 6. what is refused ------------------------------------------------------------------------------

REFUSED = [
    ("mup", {"base_width": 0}, "base_width=0"),
    ("u-mup", {"base_width": 32}, "base_width=32: must be 0"),
    ("mup", {"base_depth": 2}, "base_depth=2: must be 0"),
    ("completep", {"base_depth": 0}, "base_depth=0"),
    ("completed-p", {"base_steps": 0}, "base_steps=0"),
    ("u-mup", {"base_head_dim": 8}, "base_head_dim=8: must be 0"),
    ("u-mup", {"init_std": 0.5}, "init_std=0.5: has no effect"),
    ("u-mup", {"activation": "squared_relu", "alpha_ffn_act": 0.5}, "alpha_ffn_act=0.5: has no"),
    ("mup", {"alpha_res": 0.5}, "alpha_res=0.5: has no effect"),
    ("mup", {"depth_alpha": 0.5}, "depth_alpha=0.5: has no effect"),
    ("mup", {"optimizer": "prodigy"}, "no verified rule"),
    ("u-mup", {"optimizer": "muon"}, "no verified rule"),
    ("u-mup", {"optimizer": "adamw_coupled"}, "no verified rule for coupled decay"),
    ("completed-p", {"optimizer": "sgd"}, "no verified rule"),
    ("u-mup", {"tied": True}, "no rule for tied"),
    ("mup-table3", {"tied": True}, "no rule for tied"),
    ("mup", {"precision": "float8"}, "needs unit-scaled ops"),
    ("sp", {"optimizer": "adam", "weight_decay": 0.1}, "weight_decay=0.1"),
]


@pytest.mark.parametrize(("name", "changes", "message"), REFUSED)
def test_what_has_no_rule_is_refused(name, changes, message):
    with pytest.raises(InputError, match=message):
        rules(trial(name, **changes))


def test_an_unknown_name_is_refused():
    with pytest.raises(InputError, match="must be one of sp, "):
        rules(dataclasses.replace(trial("sp"), parametrization="mu"))


@pytest.mark.parametrize("name", TABLES)
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_each_pair_has_a_rule_for_every_tensor_or_is_refused(name, optimizer):
    bias = 0.0 if optimizer in ("schedule_free_adamw", "prodigy", "dadapt_adamw") else 0.1
    routed = {"experts": 2, "shared_experts": 1, "balance_bias": bias}
    t = trial(name, optimizer=optimizer, norm_gains=True, qk_norm=True, **routed)
    try:  # what a gate, experts and an activation that learns add
        got = rules(t) | rules(dataclasses.replace(t, activation="polyrelu"))
    except InputError as error:
        assert "no verified rule" in str(error)
        return
    assert set(got) == set(TENSORS) - (set() if bias else {"router_bias"})
    assert all(
        math.isfinite(x) and x >= 0 for rule in got.values() for x in dataclasses.astuple(rule)
    )


# 7. explain, numbers, imports --------------------------------------------------------------------


def test_explain_prints_formulas_beside_numbers():
    rows = {
        row["tensor"]: row
        for row in explain(
            trial("mup", width=256, ff=640, base_width=32, lr=0.01, weight_decay=1e-4)
        )
    }
    assert (
        rows["q"]["axes"] == "width -> heads"
        and rows["q"]["role"] == "hidden"
        and rows["q"]["shape"] == [256, 256]
    )
    assert (
        rows["q"]["lr"] == pytest.approx(0.01 / 8) and rows["q"]["formula"]["lr"] == "in_ratio^-1"
    )
    assert rows["q"]["weight_decay"] == 1e-4 and rows["q"]["weight_decay_coupled"] == pytest.approx(
        1e-4 * 8 / 0.01
    )
    assert (
        rows["unembed"]["multiplier"] == 1 / 8
        and rows["unembed"]["formula"]["multiplier"] == "alpha_out in_ratio^-1"
    )


def test_numbers_hold_no_static_thing():
    n = numbers(trial("u-mup", depth=3))
    assert n["branch"].shape == n["skip"].shape == (6,)
    assert set(n["rules"]["q"]) == {"init_std", "multiplier", "lr", "weight_decay", "eps"}
    assert "unit" not in n and isinstance(n["lr"], float)
    assert numbers(trial("sp")).keys() == numbers(trial("mup")).keys()  # one program for both


def test_formulas_print_as_they_parse():
    for text in (
        "1",
        "0.02 init_std",
        "fan_in^-1/2 in_ratio^1/2",
        "fan_in^-1 init_std",
        "2 fan_out^3",
    ):
        assert str(parse(text, "x")) == text
    assert parse("fan_in^0.5 fan_in^-1/2", "x") == Monomial()
    assert parse("2 fan_in", "x").value({"fan_in": 3.0}) == 6


def test_no_jax_is_imported():
    code = "import sys, lab.parametrization; sys.exit('jax' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_trials_of_the_records_module_know_their_tables():
    """A field that only one table uses is accepted there: the trial's schema and the tables
    agree.
    """
    assert isinstance(trial("u-mup", alpha_ffn_act=2.0, alpha_loss=0.5), Trial)
    assert scales(trial("u-mup", alpha_ffn_act=2.0, alpha_loss=0.5)).ffn_act == 2.0


@pytest.mark.parametrize(
    "cell",
    ["fan_in^1e999999999", "1" * 40, "1e999", "fan_in^1/0", "fan_in^1000", "1 " * 600, 10**400],
)
def test_a_cell_is_bounded_before_it_is_computed(cell):
    with pytest.raises(InputError):
        from_json(json.dumps(to_data(TABLES["mup"]) | {"attention": cell}))


def test_a_cell_that_overflows_is_named():
    table = to_data(TABLES["mup"]) | {"name": "mine", "attention": "head_dim^100 head_dim^-1"}
    with pytest.raises(InputError, match="no finite number"):
        from_json(json.dumps(table)).attention.value({"head_dim": 1e6})


def test_betas_of_one_half_life_in_tokens():
    """beta2's half-life is the one given at every batch, beta1's keeps its ratio to it; eps goes
    with the noise of a mean gradient, and stays where gradients are unit-scaled. Without, the betas
    are of a step: at a quarter of the batch their memory is a quarter as long.
    """
    base = {"beta1": 0.9, "beta2": 0.95, "eps": 1e-8, "sequence": 8}
    plain = [half_life_tokens(trial("u-mup", batch=batch, **base)) for batch in (4, 16)]
    assert plain[1]["beta2"] == pytest.approx(4 * plain[0]["beta2"])
    for batch in (4, 16):
        t = trial("u-mup", batch=batch, beta_half_life_tokens=plain[1]["beta2"], **base)
        assert half_life_tokens(t) == pytest.approx(plain[1])
        assert rules(t)["q"].eps / rules(trial("u-mup", batch=batch, **base))[
            "q"
        ].eps == pytest.approx(1)
    sp = {"beta_half_life_tokens": plain[1]["beta2"], **base}
    assert rules(trial("sp", batch=4, **sp))["q"].eps == pytest.approx(2e-8)
    assert rules(trial("sp", batch=16, **sp))["q"].eps == pytest.approx(1e-8)
    with pytest.raises(InputError, match="beta2=0.0: must be above 0"):
        trial("u-mup", beta2=0.0, beta_half_life_tokens=100.0)
