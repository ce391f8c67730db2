"""The search on known surfaces, where what each way finds can be worked out, and on trials that
train in milliseconds.
"""

import json
import math

import numpy as np
import pytest

from scripts import search
from sweeps import space
from tests.lab.toy import CORPUS

AXES = {
    "u-mup": {
        "lr": space.powers(-4, 4),
        "alpha_attn": space.powers(-4, 4),
        "alpha_res": space.powers(-4, 4),
    }
}


def independent(lr, attn, res):
    """Best at 2^2, 2^-1 and 2^1, whatever the other two are."""
    return (lr - 2) ** 2 + (attn + 1) ** 2 + (res - 1) ** 2


def entangled(lr, attn, res):
    """A step of either of the last two to 2^1 gains, both together lose."""
    return (lr - 1) ** 2 + (attn - 1) ** 2 + (res - 1) ** 2 + 4 * attn * res


def searched(monkeypatch, surface):
    def losses(points, corpus, seeds, **fields):
        assert fields == {"parametrization": "u-mup"}
        return [
            [
                1 + 0.01 * surface(*(math.log2(p[name]) for name in AXES["u-mup"])) + 1e-4 * (s % 2)
                for s in seeds
            ]
            for p in points
        ]

    monkeypatch.setattr(search, "AXES", AXES)
    monkeypatch.setattr(search, "losses", losses)
    return search.search("u-mup", None)


def test_one_axis_at_a_time_finds_the_optimum_where_hyperparameters_are_independent(monkeypatch):
    found = searched(monkeypatch, independent)
    assert found["chosen"]["LR sweep"]["point"] == {"lr": 4.0, "alpha_attn": 1.0, "alpha_res": 1.0}
    assert found["chosen"]["joined"]["point"] == {"lr": 4.0, "alpha_attn": 0.5, "alpha_res": 2.0}
    mean = {how: chosen["mean"] for how, chosen in found["chosen"].items()}
    # the grid holds the optimum, 48 draws only come near
    assert mean["joined"] < mean["random"] < mean["LR sweep"] + 0.01
    # the sweep's 9 runs; 1 + 2 x 9 around its best, of which the best itself is in both axes
    assert found["runs"] == {"LR sweep": 9, "joined": 9 + 1 + 2 * 8 - 1, "random": 48}
    assert {how: len(tried) for how, tried in found["tried"].items()} == {
        "LR sweep": 9,
        "one at a time": 17,
        "random": 48,
    }
    assert 0 < found["seed_sd"] < 1e-4  # seeds differ by 1e-4 where one is odd
    best = min(one["loss"] for one in found["tried"]["LR sweep"])
    assert found["share_of_random_better_than_sweep"] == np.mean(
        [one["loss"] < best for one in found["tried"]["random"]]
    )


def test_joining_hurts_where_hyperparameters_depend_on_each_other(monkeypatch):
    """The control: a search that judged the joined point by anything but its own runs would call it
    an improvement here too.
    """
    chosen = searched(monkeypatch, entangled)["chosen"]
    assert chosen["joined"]["point"] == {"lr": 2.0, "alpha_attn": 2.0, "alpha_res": 2.0}
    assert chosen["joined"]["mean"] == pytest.approx(chosen["LR sweep"]["mean"] + 0.02)


@pytest.fixture
def tiny(monkeypatch):
    sizes = {
        "width": 16,
        "depth": 1,
        "head_dim": 8,
        "ff": 32,
        "vocab": 32,
        "sequence": 16,
        "batch": 4,
        "steps": 60,
        "warmup_steps": 3,
    }
    monkeypatch.setattr(search, "COMMON", sizes)


def test_losses_come_back_by_point_and_seed_and_a_diverged_one_is_infinite(tiny):
    points = [{"lr": 0.5}, {"lr": 1e-6}, {"lr": 1e38}]
    found = search.losses(points, CORPUS, (2000, 2001), parametrization="u-mup")
    tuned, idle, broken = found
    assert max(tuned) < min(idle) - 0.2 and idle == pytest.approx([math.log(32)] * 2, abs=1.0)
    assert tuned[0] != tuned[1] and broken == [math.inf] * 2
    assert search.losses(points[::-1], CORPUS, (2001, 2000), parametrization="u-mup") == [
        each[::-1] for each in found[::-1]
    ]


def test_the_file_says_how_it_was_made(tiny, monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(search, "AXES", {"u-mup": {"lr": [0.25, 0.5], "alpha_attn": [1.0, 2.0]}})
    monkeypatch.setattr(search, "RANDOM", 2)
    monkeypatch.setattr(search, "open_corpus", lambda *args: CORPUS)
    monkeypatch.setattr("sys.argv", ["search", "--out", str(tmp_path / "new")])
    search.main()
    written = json.loads((tmp_path / "new" / "search.json").read_text())
    assert (
        set(written) == {"made_by", "common", "u-mup"}
        and written["made_by"]["corpus"] == CORPUS.sha256
    )
    assert written["u-mup"]["chosen"]["LR sweep"]["point"]["alpha_attn"] == 1.0
    assert (
        len(written["u-mup"]["chosen"]["random"]["losses"]) == 3
        and "3 runs" in capsys.readouterr().out
    )
