"""Attention's kernels for Hopper, interpreted, against the plain code: alone and mapped over
trials.
"""

import dataclasses
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import pytest

from lab.attention import causal_attention, rotate
from lab.kernels import hopper, hopper_attention
from lab.kernels.choose import choose
from lab.program import shape_of
from lab.records import Trial
from tests.lab.kernels.test_chains import draw, wide, with_gradients, worst


def plain(qkv, scale):
    return causal_attention(rotate(qkv[:, :, 0], scale), rotate(qkv[:, :, 1], 1.0), qkv[:, :, 2])


@pytest.mark.parametrize(
    ("lead", "tokens", "heads"),
    [((2,), 384, 1), ((), 640, 2)],
    ids=["trials one after the other", "queries in two parts"],
)
def test_attention(lead, tokens, heads, monkeypatch):
    """Odd numbers of blocks and steps, from one head to the next in one program."""
    monkeypatch.setattr(hopper, "processors", lambda: 1)
    rows = (*lead, 1, tokens)
    qkv, into = draw((*rows, 3, heads, 64), (*rows, heads, 64), dtype="bfloat16")
    scale = jnp.linspace(0.1, 0.4, 2) if lead else 0.15
    mapped = jax.vmap if lead else lambda f: f
    got, (of_qkv, of_scale) = with_gradients(mapped(hopper_attention.attention), [qkv, scale], into)
    assert not jnp.any(of_scale)
    compiled = jax.jit(lambda *args: with_gradients(mapped(plain), args, wide(into)))
    expected, (plain_of_qkv, _) = compiled(wide(qkv), scale)
    # queries', keys' and values' gradients each to its own scale
    assert (
        worst((got, jnp.unstack(of_qkv, axis=-3)), (expected, jnp.unstack(plain_of_qkv, axis=-3)))
        < 1e-2
    )
    assert worst(got, compiled(wide(qkv), scale * 1.2)[0]) > 0.03  # the check has power


def test_queries_and_keys_that_are_turned_before():
    q, k, v, into = draw(*[(1, 256, 1, 64)] * 4, dtype="bfloat16")
    compiled = jax.jit(lambda *args: with_gradients(causal_attention, args, wide(into)))
    got = with_gradients(hopper_attention.attend, [q * 0.15, k, v], into)
    expected, other = (compiled(*wide([q * scale, k, v])) for scale in (0.15, 0.2))
    assert worst(got, expected) < 1e-2 and worst(got, other) > 0.05  # the check has power


def test_where_the_model_attends_so():
    """In bfloat16, with kernels; queries' norms are no hindrance."""
    trial = Trial(
        corpus="0" * 64, vocab=64, width=64, depth=1, ff=64, batch=1, sequence=256, head_dim=64,
        steps=1, lr=0.01, precision="bfloat16", parametrization="sp",
    )  # fmt: skip
    for fields, use, expected in (
        ({}, True, True),
        ({}, False, False),
        ({"precision": "float32"}, True, False),
        ({"qk_norm": True}, True, True),
    ):
        shape = shape_of(dataclasses.replace(trial, **fields))
        attention = choose(shape, 1, 256, use).names[0]
        assert (attention == "hopper_attention") is expected, fields


def test_for_hopper_and_whole_blocks(monkeypatch):
    assert hopper_attention.fits(64, 256)
    for head_dim, tokens in ((32, 256), (128, 256), (64, 128), (64, 320), (64, 2048)):
        assert not hopper_attention.fits(head_dim, tokens), (head_dim, tokens)
    cards = [("9.0", (0, 11, 0), True), ("9.0", (0, 10, 2), False), ("10.0", (0, 11, 0), False)]
    for at, version, expected in cards:
        monkeypatch.setattr(
            jax, "devices", lambda at=at: [SimpleNamespace(platform="gpu", compute_capability=at)]
        )
        monkeypatch.setattr(jax, "__version_info__", version)
        assert hopper_attention.fits(64, 256) is expected, (at, version)
