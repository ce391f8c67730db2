"""Spaces: what each combinator makes, and that a seed decides what is random."""

import json
import math
import os
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from ground import InputError
from lab.parametrization import TABLES, to_data
from sweeps import space, studies
from tests.sweeps import toy

COMMON = {
    "corpus": "0" * 64,
    "vocab": 16,
    "sequence": 8,
    "batch": 2,
    "steps": 4,
    "depth": 1,
    "head_dim": 4,
}


def test_grids() -> None:
    assert space.log_grid(1e-3, 1e1, 5) == pytest.approx([1e-3, 1e-2, 1e-1, 1, 10])
    assert (space.log_grid(1e-3, 0.7, 4)[0], space.log_grid(1e-3, 0.7, 4)[-1]) == (1e-3, 0.7), (
        "both ends are exact"
    )
    assert space.powers(-3, 1) == [0.125, 0.25, 0.5, 1, 2] and space.powers(
        0, 1, 0.5
    ) == pytest.approx([1, math.sqrt(2), 2])
    for bad in (
        lambda: space.log_grid(0, 1, 3),
        lambda: space.log_grid(2, 1, 3),
        lambda: space.powers(1, 0),
    ):
        with pytest.raises(InputError, match="needs"):
            bad()


def test_product_zip_cross_chain() -> None:
    a = space.product(width=[8, 16], lr=[0.1, 0.2])
    assert a == [
        {"width": 8, "lr": 0.1},
        {"width": 8, "lr": 0.2},
        {"width": 16, "lr": 0.1},
        {"width": 16, "lr": 0.2},
    ]
    assert space.zipped(width=[8, 16], ff=[32, 64]) == [
        {"width": 8, "ff": 32},
        {"width": 16, "ff": 64},
    ]
    assert space.cross(space.zipped(width=[8, 16], ff=[32, 64]), space.product(lr=[1])) == [
        {"width": 8, "ff": 32, "lr": 1}, {"width": 16, "ff": 64, "lr": 1},
    ]  # fmt: skip
    assert space.chain(a, a[:2], [{"lr": 3}]) == [*a, {"lr": 3}]
    with pytest.raises(InputError, match="equal length, got a: 2, b: 1"):
        space.zipped(a=[1, 2], b=[1])
    with pytest.raises(InputError, match="lr, width is in two spaces"):
        space.cross(a, a)


def test_subsample_is_by_seed_without_replacement_in_order() -> None:
    points = space.product(lr=list(range(100)))
    one = space.subsample(points, 30, seed=1)
    assert one == space.subsample(points, 30, seed=1) != space.subsample(points, 30, seed=2)
    assert [p["lr"] for p in one] == sorted({p["lr"] for p in one}) and len(one) == 30
    with pytest.raises(InputError, match="must be 0 to 100"):
        space.subsample(points, 101)


@pytest.mark.parametrize("draw", [space.random, space.sobol])
def test_random_designs_keep_their_ranges_and_their_seed(draw: object) -> None:
    ranges = {
        "lr": (1e-4, 1e-1, "log"),
        "beta2": (0.9, 0.99),
        "depth": (1, 4, "int"),
        "width": (8, 128, "log_int"),
    }
    points = draw(256, 3, **ranges)  # type: ignore[operator]
    assert points == draw(256, 3, **ranges) != draw(256, 4, **ranges)  # type: ignore[operator]
    assert all(
        1e-4 <= p["lr"] < 1e-1 and 0.9 <= p["beta2"] < 0.99 and 8 <= p["width"] <= 128
        for p in points
    )
    assert {p["depth"] for p in points} == {1, 2, 3, 4} and all(
        isinstance(p["depth"], int) for p in points
    )
    assert abs(np.mean([math.log10(p["lr"]) for p in points]) + 2.5) < 0.15, (
        "uniform in the logarithm"
    )
    with pytest.raises(InputError, match="must be \\(low, high\\)"):
        draw(4, 0, lr=(0, 1, "log"))  # type: ignore[operator]


def test_sobol_is_more_even_than_chance() -> None:
    """Each of 16 cells of one axis holds exactly 4 of 64 points; independent draws do not."""
    counts = [
        Counter(int(16 * p["x"]) for p in draw(64, 0, x=(0.0, 1.0)))
        for draw in (space.sobol, space.random)
    ]
    assert set(counts[0].values()) == {4} and set(counts[1].values()) != {4}


def test_trials_derive_override_and_refuse() -> None:
    def derive(p: dict[str, object]) -> dict[str, object]:
        return {"ff": 4 * p["width"], "steps": 99}  # type: ignore[operator]

    made = space.trials(
        [{"width": 8, "lr": 0.1}, {"width": 8, "lr": 0.1}, {"width": 16, "lr": 0.1, "steps": 7}],
        derive,
        **COMMON,
    )
    assert [(t.width, t.ff, t.steps) for t in made] == [(8, 32, 99), (16, 64, 7)], (
        "equal trials are one; the point wins"
    )
    with pytest.raises(InputError, match="learning_rate=1: a trial has no such field"):
        space.trials([{"learning_rate": 1}], **COMMON)
    with pytest.raises(InputError, match="a trial needs width, ff, lr"):
        space.trials([{}], **COMMON)


def test_tau_is_another_way_to_state_decay() -> None:
    """From batch and tokens alone, whatever the table multiplies decay by, and LR too where decay
    passes through it.
    """
    from lab.counts import tau
    from lab.parametrization import rules

    arms: list[space.Point] = [
        {"parametrization": "u-mup"},
        {"parametrization": "mup", "base_width": 4},
        {"parametrization": "sp", "optimizer": "adamw_coupled"},
        {"parametrization": "mup", "base_width": 4, "optimizer": "adamw_coupled"},
        {
            "parametrization": "completed-p",
            "base_width": 4,
            "base_depth": 1,
            "base_steps": 10,
            "base_batch": 2,
        },
    ]
    common = COMMON | {"width": 8, "ff": 16, "lr": 0.1, "steps": 40}
    made = space.trials(space.cross(arms, space.product(tau=[0.5, 2])), **common)
    assert [tau(t) for t in made] == pytest.approx([0.5, 2] * 5)
    assert [t.weight_decay for t in made[:4]] == [1 / 20, 1 / 80] * 2, "no LR, no width"
    factors = [t.weight_decay / made[0].weight_decay for t in made[::2]]
    assert factors[2:4] == pytest.approx([10, 10]), "1 / LR; muP's own factors cancel"
    assert rules(made[8])["q"].weight_decay != 1 and factors[4] != pytest.approx(1)
    for point in ({"tau": 1.0, "weight_decay": 0.0}, {"tau": 1.0, "weight_decay": 0.1}):
        with pytest.raises(InputError, match="tau=1.0, weight_decay=0"):
            space.trials([point], **common)
    for bad in (0, -1.0, math.inf, "1", True):
        with pytest.raises(InputError, match="tau=.*must be finite and above 0"):
            space.trials([{"tau": bad}], **common)
    with pytest.raises(InputError, match="adam, which has no decay"):
        space.trials([{"tau": 1.0, "optimizer": "adam"}], **common)


def test_independent_search_in_rounds_finds_a_separable_optimum() -> None:
    """LR first, then each multiplier alone, then the best of each: 12 + 9 points instead of 12 x 5
    x 5.
    """
    axes = {"alpha_attn": [0.25, 0.5, 1.0, 2.0, 4.0], "alpha_out": [0.25, 0.5, 1.0, 2.0, 4.0]}

    def loss(p: dict[str, float]) -> float:
        return (
            (math.log2(p["lr"]) - 1) ** 2
            + (math.log2(p["alpha_attn"]) + 2) ** 2
            + (math.log2(p["alpha_out"]) - 1) ** 2
        )

    best = {"lr": 1.0, "alpha_attn": 1.0, "alpha_out": 1.0}
    first = space.search_axes(best, {"lr": space.powers(-8, 3)})
    best = space.join_best(best, [(p, loss(p)) for p in first], ["lr"])
    second = space.search_axes(best, axes)
    best = space.join_best(
        best, [(p, loss(p) if p["alpha_out"] < 4 else math.nan) for p in second], axes
    )
    assert (len(first), len(second)) == (12, 9) and best == {
        "lr": 2.0,
        "alpha_attn": 0.25,
        "alpha_out": 2.0,
    }


# Studies -----------------------------------------------------------------------------------------

YAML = """
question: Where is the best LR at each width?
expectation: It stays.
space:
  cross:
    - zip: {width: [8, 16], init_seed: [0, 1]}
    - chain:
        - product: {lr: {powers: [-2, 0]}}
        - sobol: {count: 4, seed: 1, ranges: {lr: [0.001, 0.1, log]}}
common: {sequence: 8, batch: 2, depth: 1, head_dim: 4, ff_ratio: 4, tokens_per_param: 0.5}
refine: lr
"""


def test_a_study_of_plain_data(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(YAML)
    study = studies.load(str(path), "0" * 64, 16)
    assert (study.name, len(study.trials), study.refine, study.rounds) == ("mine", 14, "lr", 1)
    path.write_text(
        "space: {product: {width: [8], lr: [1e-3]}}\ncommon: {sequence: 8, batch: 2, steps: 1, "
        "depth: 1, head_dim: 4, ff: 8, eps: 1e-9}"
    )
    one = studies.load(str(path), "0" * 64, 16).trials[0]
    assert (one.lr, one.eps) == (1e-3, 1e-9), "YAML takes 1e-3 for text"
    path.write_text(YAML.replace("{lr: {powers", "{tau: [0.5, 2], lr: {powers"))
    assert len(studies.load(str(path), "0" * 64, 16).trials) == 20 and study.trials[0].steps > 1
    small = study.trials[0]
    from lab.counts import params

    assert small.ff == 32 and small.tokens == pytest.approx(0.5 * params(small), rel=0.05)
    path.write_text(YAML.replace("batch: 2,", "batch: 2, batch_schedule: '1@0,2@0.5',"))
    ramp = studies.load(str(path), "0" * 64, 16).trials[0]
    assert ramp.steps == pytest.approx(1.5 * small.steps, rel=0.05)
    assert ramp.tokens == pytest.approx(small.tokens, rel=0.02)


def test_a_table_is_the_file_beside_the_study(tmp_path: Path) -> None:
    mine = {**to_data(TABLES["mup"]), "name": "mine"}
    (tmp_path / "mine.json").write_text(json.dumps(mine))
    common = YAML.replace("common: {", "common: {table: mine.json, base_width: 8, ")
    (tmp_path / "mine.yaml").write_text(common)
    study = studies.load(str(tmp_path / "mine.yaml"), "0" * 64, 16)
    assert {t.parametrization for t in study.trials} == {"mine"}
    assert {t.table for t in study.trials} == {json.dumps(mine)}
    space = YAML.replace("init_seed: [0, 1]", "table: [mine.json, '']")
    (tmp_path / "both.yaml").write_text(space)
    both = studies.load(str(tmp_path / "both.yaml"), "0" * 64, 16)
    assert {t.parametrization for t in both.trials} == {"mine", "u-mup"}
    (tmp_path / "none.yaml").write_text(common.replace("mine.json", "other.json"))
    with pytest.raises(InputError, match="other.json': No such file"):
        studies.load(str(tmp_path / "none.yaml"), "0" * 64, 16)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("space: {produkt: {lr: [1]}}", "must be one of product, zip"),
        ("space: [", "cannot be read"),
        ("spaces: {}", "at least 'space'"),
        ("space: []\nwidht: 3", "widht: unknown key"),
        ("space: !!python/object/apply:os.system ['touch PWNED']", "cannot be read"),
        ("space: {product: {lr: {eval: '1'}}}", "values are a list"),
        (
            "space: {product: {widht: [8]}}\ncommon: {ff_ratio: 4}",
            "widht=8: a trial has no such field; did you mean width?",
        ),
        ("space: {product: [1, 2]}", "not of the form"),
        ("space: {product: {lr: {powers: [1]}}}", "not of the form"),
        ("space: {sobol: {count: 4}}", "'ranges' is missing"),
        ("space: [{lr: 1}]\ncommon: [1]", "not of the form"),
        (  # YAML takes it for 124 minutes
            "space: [{pruning: nm, prune_pattern: 2:4}]\n"
            "common: {sequence: 8, batch: 2, steps: 4, width: 8, depth: 1, head_dim: 4, ff: 8, "
            "lr: 1}",
            r"prune_pattern=124: must be text \(in YAML: in quotes\)",
        ),
    ],
)
def test_bad_plain_data_is_one_clear_line_and_runs_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "s.yaml").write_text(text)
    with pytest.raises(InputError, match=message) as caught:
        studies.load("s.yaml", "0" * 64, 16)
    assert "\n" not in str(caught.value) and not (tmp_path / "PWNED").exists()


def test_a_study_by_path_takes_options_and_refuses_unknown_ones() -> None:
    path = str(Path(__file__).parent / "toy_study.py")
    assert [t.run_id for t in studies.load(path, "x", 16, count=3).trials] == [
        t.run_id for t in toy.trials(3)
    ]
    with pytest.raises(InputError, match="cuont=3: study toy_study takes count, steps"):
        studies.load(path, "x", 16, cuont=3)
    with pytest.raises(InputError, match="must be one of .*lr_width"):
        studies.load("nope", "x", 16)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("def study(corpus", "cannot be imported .SyntaxError.*line 1"),
        ("def study(corpus, vocab):\n    return no", "study.. raised NameError.*mine.py, line 2"),
        ("study = lambda corpus, vocab: 3", "returned a int"),
        ("x = 1", "has no function study"),
    ],
)
def test_a_users_bad_file_is_one_clear_line(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "mine.py").write_text(text)
    with pytest.raises(InputError, match=message):
        studies.load(str(tmp_path / "mine.py"), "0" * 64, 16)


PLANNED = {
    "name": "ladder", "width": 32, "depth": 1, "head_dim": 32, "ff": 96, "batch": 2, "steps": 4,
    "warmup_steps": 1, "lr": 1.0, "tau": 0.5, "seeds": [0, 1],
}  # fmt: skip


@pytest.mark.parametrize("name", studies.names())
def test_every_built_in_study_loads(name: str, tmp_path: Path) -> None:
    """Two ask for what was predicted, and say so."""
    (tmp_path / "plan.json").write_text(json.dumps({"runs": [PLANNED]}))
    asks = {
        "batch_target": ({"batch_tokens": 65536, "lr": 1.0}, "give the saved prediction, or batch"),
        "forecast": (
            {"plan": str(tmp_path / "plan.json")},
            "give the file that scripts/forecast.py wrote",
        ),
    }
    told, match = asks.get(name, ({}, ""))
    if told:
        with pytest.raises(InputError, match=match):
            studies.load(name, "0" * 64, 256)
    study = studies.load(name, "0" * 64, 256, **told)
    assert (
        study.question
        and study.expectation
        and len({t.run_id for t in study.trials}) == len(study.trials) > 1
    )


BOMB = "a0: &a0 [1, 1, 1, 1, 1, 1, 1, 1, 1, 1]\n" + "".join(
    f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]\n" for i in range(1, 10)
)


@pytest.mark.parametrize(
    "plain, said",
    [
        ("space: {product: {lr: {powers: [-1.0e9, 1.0e9]}}}", "must be at most 100,000"),
        ("space: {product: {lr: {powers: [0, 1, 1.0e-300]}}}", "must be at most 100,000"),
        ("space: {product: {lr: {log_grid: [1, 2, 1000000000]}}}", "must be at most 100,000"),
        ("space: {random: {count: 1000000000, ranges: {lr: [0, 1]}}}", "must be at most 100,000"),
        ("space: {sobol: {count: 1000000000, ranges: {lr: [0, 1]}}}", "must be at most 100,000"),
        (f"space: {{product: {{{', '.join(f'a{i}: [1, 2, 3, 4]' for i in range(9))}}}}}", "most"),
        (f"space: [{{width: {'9' * 400}}}]", "width=an integer of"),
        ("space: [{width: 1000000000000}]", "width=1000000000000: must be at most"),
        ("space: [{lr: .inf}]", "must be a finite float"),
        (f"{BOMB}space: *a9", "holds more than 1,000,000 values"),
        ("[" * 50_000, "cannot be read"),
        (f"space: {'9' * 5000}", "cannot be read"),
    ],
)  # fmt: skip
def test_a_space_is_bounded_before_it_is_made(tmp_path: Path, plain: str, said: str) -> None:
    path = tmp_path / "huge.yaml"
    path.write_text(f"{plain}\n")
    if "common" not in plain:
        path.write_text(f"{plain}\ncommon: {{sequence: 8, batch: 2, steps: 2, width: 8, depth: 1, "
                        "head_dim: 4, ff: 8, lr: 0.1}\n")  # fmt: skip
    begun = time.monotonic()
    with pytest.raises(InputError, match=said):
        studies.load(str(path), "0" * 64, 16)
    assert time.monotonic() - begun < 5


def test_a_pipe_is_no_study(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.yaml")
    with pytest.raises(InputError, match="must be a regular file"):
        studies.load(str(tmp_path / "pipe.yaml"), "0" * 64, 16)


def test_words_of_a_study_are_kept_as_they_were_written(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text(YAML.replace("It stays.", "no"))
    assert studies.load(str(tmp_path / "mine.yaml"), "0" * 64, 16).expectation == "no"
