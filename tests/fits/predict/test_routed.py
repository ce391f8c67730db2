"""How many experts a budget should have, and what they are worth."""

import dataclasses

import numpy as np
import pytest

from fits.forms.routed import RoutedJoint
from fits.predict import published, routed
from fits.predict.answers import fill
from fits.predict.ask import columns_for
from fits.predict.sources import sources
from ground import InputError
from ground.number import Number

AT = {"params": 1e9, "tokens": 2e10, "batch_tokens": 3e5}


def joint():
    return sources(("joint-moe",))[0]


def chosen(found=None, **changes):
    return routed.choose(found or joint(), {**AT, **changes}, "active", 0.9)


def test_the_choice_is_the_best_of_all_at_equal_cost():
    """By trying each: as much compute as the dense model, whatever the experts."""
    found = chosen(width=2048, depth=16)
    p = published.get("joint-moe")[0].params
    experts = found.at["experts"]
    layers = 1e9 - 2 * 50304 * 2048
    moved = 28 * (4e14 / 3e12) / 6 / 3e5

    def loss(e):
        total_over_active = 1 + (e - 1) * 2 / 3 * layers / 1e9
        tokens = 2e10 * (1 + moved) / (1 + moved * total_over_active)
        at = {"params_active": 1e9, "tokens": tokens, "experts": e}
        return tokens, float(RoutedJoint.predict(p, {k: np.array(float(v)) for k, v in at.items()}))

    assert loss(experts)[1] == min(loss(e)[1] for e in routed.EXPERTS) < loss(1)[1]
    assert found.at["tokens"] == pytest.approx(loss(experts)[0])
    assert found.at["params"] == 1e9 and "bytes a parameter" in found.said[0]
    assert found.numbers["experts"].low is None  # a published law has no refits


def test_larger_batches_pay_for_more_experts():
    """What a step moves is shared by its tokens."""
    few, more, most = (chosen(batch_tokens=b).at["experts"] for b in (1e4, 1e5, 1e6))
    assert 1 < few < more < most
    none = chosen(batch_tokens=100)
    assert none.at["experts"] == 1 and none.said[1:] == ["experts: do not pay here"]
    assert len(chosen(batch_tokens=1e4).said) == 1


def test_experts_are_worth_a_dense_model_of_equal_loss():
    p = published.get("joint-moe")[0].params
    worth = [routed.dense_multiple(p, 1e9, 2e10, e) for e in (1, 8, 64)]
    assert worth[0] == pytest.approx(1.0) and worth[0] < worth[1] < worth[2]
    at = {"params_active": np.array([1e9, worth[2] * 1e9]), "experts": np.array([64.0, 1.0])}
    both = RoutedJoint.predict(p, at | {"tokens": np.full(2, 2e10)})
    assert both[0] == pytest.approx(both[1])


def test_refits_give_an_interval():
    source = joint()[0]
    assert source.fit is not None
    rng = np.random.default_rng(0)
    spread = {k: (v * np.exp(0.05 * rng.normal(size=50))) for k, v in source.fit.params.items()}
    fit = dataclasses.replace(source.fit, replicates={k: v.tolist() for k, v in spread.items()})
    found = chosen([dataclasses.replace(source, fit=fit)])
    for number in found.numbers.values():
        assert number.low <= number.value <= number.high and number.low < number.high
    experts = found.numbers["experts"]
    assert {experts.low, experts.high} <= set(routed.EXPERTS), "none is between two that were tried"


@pytest.mark.parametrize(
    ("low", "high", "whole"),
    [(20.0, 60.04, (16, 64)), (16.0 - 1e-12, 16.0 + 1e-12, (16, 16)), (0.9, 2000.0, (1, 1024))],
)
def test_bounds_between_two_numbers_of_experts_go_outwards(low, high, whole):
    found = routed._tried(Number(16.0, low, high, 0.9))
    assert (found.low, found.high) == whole and found.value == 16


def test_what_it_needs_is_said():
    with pytest.raises(InputError, match="needs --batch-tokens"):
        routed.choose(joint(), {"params": 1e9, "tokens": 2e10}, "active", 0.9)
    with pytest.raises(InputError, match="routed-joint"):
        routed.choose(sources(("epoch",))[0], AT, "active", 0.9)


def test_a_law_that_the_target_is_too_far_from_chooses_nothing():
    source = joint()[0]
    near, far = (
        [
            dataclasses.replace(
                source, fit=dataclasses.replace(source.fit, range={"params_active": ends})
            )
        ]
        for ends in ([1e5, 1.1e7], [1e5, 9e6])
    )
    assert chosen(near).at["experts"] > 1
    with pytest.raises(InputError, match="params_active=1e.09 is 111x beyond the fitted maximum"):
        chosen(far)
    assert routed.choose(far, AT, "active", 0.9, True).at == chosen(near).at


def test_a_law_of_active_parameters_without_embeddings_is_given_those():
    """Its choice and its loss at a body of 1e9 are those of the law of all that is active at an
    active size of 1e9; given that size, embedding and readout are taken off first.
    """
    source = joint()[0]
    assert source.fit is not None and source.fit.counted == "active"
    fit = dataclasses.replace(source.fit, params_kind="active_no_embed")
    assert fit.counted == "active_no_embed"
    body = dataclasses.replace(source, fit=fit)
    shape = {"vocab": 50304.0, "width": 2048.0}
    at = fill({"params": 1e9, "tokens": 2e10, "experts": 8.0, **shape}, "no_embed")[0]
    assert columns_for(body, at, "no_embed")[0]["params_active"] == pytest.approx(1e9)
    tables = 2 * 50304 * 2048
    assert columns_for(source, at, "no_embed")[0]["params_active"] == pytest.approx(1e9 + tables)
    large = {**AT, **shape, "params": 1e9 + tables}
    said = [routed.choose([s], large, "active", 0.9).said[0] for s in (body, source)]
    assert "model of 1e+09 parameters" in said[0] and "of 1.206e+09 parameters" in said[1]
