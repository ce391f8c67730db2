"""Checks of the parametrizations against published numbers that take minutes, not seconds: what
they give is in results/transfer_checks.

python -m scripts.checks_transfer mlp | depth [--width 256] --out results/transfer_checks

mlp     Four token slots, two ReLU layers, labels of a fixed tanh teacher: where the best LR lies at
each width, under muP and SP
        (`lab.parametrization`'s rules on another model than the lab's own).
depth   The final residual stream over the depth for branch exponents 0, 1/2 and 1: at init, and of
the real model after ten updates.
"""

import argparse
import dataclasses
import functools
import json
import sys
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ground.files import replace
from lab import measure, optim
from lab.parametrization import TABLES, rules, to_data
from lab.records import Trial

# 1. an MLP with a known answer -------------------------------------------------------------------

SLOTS, VOCAB, BATCH, STEPS, WARMUP = 4, 64, 128, 200, 20
BASE_WIDTH, WIDTHS = 64, (64, 256, 1024)
EMBED_STD = 0.5
TEACHER = 6.0  # scale of its logits: the published loss at width 64 (3.38) to 1 %
LOG2_LRS = tuple(range(-12, -2))
# log2, of the published run of this task
BEST = {"sp": {64: -6, 256: -7, 1024: -9}, "mup": {64: -6, 256: -6, 1024: -6}}
SCORED = 40  # last steps, whose mean loss is the score


def teacher(tokens_BS: jax.Array) -> jax.Array:
    """Logits (B, V): a tanh layer on summed embeddings, the same for every run."""
    embed, out = (
        jax.random.normal(jax.random.key(seed), shape)
        for seed, shape in ((100, (SLOTS, VOCAB, 64)), (101, (64, VOCAB)))
    )
    x_BD = embed[jnp.arange(SLOTS), tokens_BS].sum(1) / SLOTS**0.5
    return TEACHER * jnp.tanh(x_BD) @ out / 64**0.5


@functools.partial(jax.jit, static_argnums=(0, 1))
def mlp_run(width: int, zero_readout: bool, factors: Any, lr: float, seed: int) -> jax.Array:
    """The score of one run; `factors` holds the rules of embedding, hidden matrices and readout."""
    keys = jax.random.split(jax.random.key(seed), 5)
    shapes = {
        "embed": (SLOTS, VOCAB, width),
        "q": (width, width),
        "k": (width, width),
        "unembed": (width, VOCAB),
    }
    stds = {"embed": EMBED_STD, "q": factors["q"]["init_std"], "k": factors["k"]["init_std"]}
    stds["unembed"] = 0.0 if zero_readout else factors["unembed"]["init_std"]
    params = {
        name: stds[name] * jax.random.normal(key, shape)
        for (name, shape), key in zip(shapes.items(), keys, strict=False)
    }

    def loss(params: Any, tokens_BS: jax.Array, labels_B: jax.Array) -> jax.Array:
        x_BD = params["embed"][jnp.arange(SLOTS), tokens_BS].sum(1)
        for name in ("q", "k"):
            x_BD = jax.nn.relu(x_BD @ params[name])
        logits_BV = x_BD @ params["unembed"] * factors["unembed"]["multiplier"]
        return -jnp.take_along_axis(jax.nn.log_softmax(logits_BV), labels_B[:, None], -1).mean()

    def fill(value: float) -> Any:
        return dict.fromkeys(params, value)

    n = optim.Numbers(
        lr,
        {name: factors[name]["lr"] for name in params},
        fill(0.0),
        fill(1e-12),
        fill(0.0),
        0.9,
        0.95,
        STEPS,
        WARMUP,
    )
    tx = optim.make("adamw", "linear", n)

    def body(carry: Any, i: jax.Array) -> tuple[Any, jax.Array]:
        params, state = carry
        a, b = jax.random.split(jax.random.fold_in(keys[4], i))
        tokens_BS = jax.random.randint(a, (BATCH, SLOTS), 0, VOCAB)
        labels_B = jax.random.categorical(b, teacher(tokens_BS))
        value, grads = jax.value_and_grad(loss)(params, tokens_BS, labels_B)
        updates, state = tx.update(grads, state, params)
        return (jax.tree.map(jnp.add, params, updates), state), value

    return jax.lax.scan(body, (params, tx.init(params)), jnp.arange(STEPS))[1][-SCORED:].mean()


def mlp() -> dict[str, Any]:
    out: dict[str, Any] = {}
    for name in ("sp", "mup"):
        for width in WIDTHS:
            size: dict[str, Any] = {
                "width": width,
                "ff": width,
                "head_dim": 64,
                "depth": 1,
                "vocab": VOCAB,
                "sequence": SLOTS,
                "batch": BATCH,
                "steps": STEPS,
            }
            base: dict[str, Any] = {"base_width": BASE_WIDTH} if name == "mup" else {}
            factors = {
                tensor: dataclasses.asdict(rule)
                for tensor, rule in rules(
                    Trial(corpus="0", parametrization=name, lr=1.0, **size, **base)
                ).items()
            }
            seeds = (0, 1) if width < 1024 else (0,)
            losses = {
                e: float(
                    np.mean([mlp_run(width, name == "mup", factors, 2.0**e, s) for s in seeds])
                )
                for e in LOG2_LRS
            }
            finite = {e: value for e, value in losses.items() if np.isfinite(value)}
            best = min(finite, key=finite.__getitem__)
            out[f"{name} {width}"] = {
                "best_log2_lr": best,
                "published": BEST[name][width],
                "loss": finite[best],
                "losses": losses,
            }
            print(
                f"{name:<4} width {width:>4}: best LR 2^{best} (published "
                f"2^{BEST[name][width]}), loss {finite[best]:.3f}",
                flush=True,
            )
    at = {key: found["losses"][out["sp 64"]["best_log2_lr"]] for key, found in out.items()}
    print(
        "loss at width 64's best LR under SP:",
        ", ".join(f"{key} {value:.3f}" for key, value in at.items()),
    )
    return {"cells": out, "loss_at_sp_64s_best": at}


# 2. depth ----------------------------------------------------------------------------------------

DEPTHS, TRAINED_DEPTHS, ALPHAS = (4, 16, 64), (2, 4, 8, 16, 32, 64), (0.0, 0.5, 1.0)
RESIDUAL = {0.0: (2.24, 4.12, 8.37), 0.5: (1.42, 1.43, 1.42), 1.0: (1.12, 1.04, 1.01)}
CHANGE = {0.0: (2.0, 4.0, 8.3), 0.5: (1.0, 1.02, 1.02), 1.0: (0.50, 0.26, 0.13)}


def stack(
    depth: int, alpha: float, width: int = 256, rows: int = 64, seed: int = 0
) -> tuple[float, float]:
    """rms of the residual stream behind `depth` RMSNorm -> ReLU branches of unit variance over
    depth^alpha, and of what they added.
    """
    rng = np.random.default_rng(seed)
    x = start = rng.standard_normal((rows, width))
    for _ in range(depth):
        h = x / np.sqrt((x**2).mean(-1, keepdims=True))
        hidden = np.maximum(h @ rng.standard_normal((width, width)) * (2 / width) ** 0.5, 0)
        x = x + depth**-alpha * (hidden @ rng.standard_normal((width, width)) / width**0.5)
    return float(np.sqrt((x**2).mean())), float(np.sqrt(((x - start) ** 2).mean()))


def trained(alpha: float, depth: int, width: int, seeds: int, updates: int = 10) -> list[float]:
    """For each seed mean |x| of the final residual stream after `updates` of AdamW at LR 1e-3; init
    stds of 0.02, as published.
    """
    data = to_data(TABLES["completep"]) | {"name": "std 0.02"}
    for role in ("input", "hidden", "output"):
        data["rows"][role]["std"] = "0.02"
    size: dict[str, Any] = {
        "width": width,
        "head_dim": 64,
        "ff": 3 * width,
        "vocab": 256,
        "sequence": 64,
        "batch": 4,
        "steps": 100,
        "schedule": "constant",
    }
    base: dict[str, Any] = {"base_width": width, "base_depth": 2, "depth_alpha": max(alpha, 0.5)}
    t = Trial(
        corpus="0",
        parametrization="std 0.02",
        table=json.dumps(data),
        lr=1e-3,
        depth=depth,
        weight_decay=1e-4,
        **size,
        **base,
    )
    if alpha == 0:  # muP, which has no rule for depth
        t = dataclasses.replace(
            t,
            table=json.dumps({**data, "rows": {**data["rows"], **_mup_rows()}, "branch": "1"}),
            base_depth=0,
            depth_alpha=1.0,
        )
    from scalelab.cli.check import text_tokens

    tokens = text_tokens(t.batch * t.sequence + 1)
    runs = [
        measure.trajectory(dataclasses.replace(t, init_seed=seed), tokens, updates)
        for seed in range(seeds)
    ]
    return [run["residual last", "size", updates] for run in runs]


def _mup_rows() -> dict[str, Any]:
    rows = to_data(TABLES["mup"])["rows"]
    return {
        role: {**rows[role], **({"std": "0.02"} if role in ("input", "hidden", "output") else {})}
        for role in rows
    }


def depth(width: int, seeds: int) -> dict[str, Any]:
    out: dict[str, Any] = {"width": width, "init": {}, "trained": {}}
    for alpha in ALPHAS:
        for n, residual, change in zip(DEPTHS, RESIDUAL[alpha], CHANGE[alpha], strict=True):
            found = stack(n, alpha)
            out["init"][f"{alpha:g} {n}"] = {
                "residual": found[0],
                "change": found[1],
                "published": [residual, change],
            }
            print(
                f"init, exponent {alpha:g}, depth {n:>2}: residual {found[0]:.2f} ({residual}), "
                f"change {found[1]:.2f} ({change})",
                flush=True,
            )
    for alpha in ALPHAS:
        sizes = {n: trained(alpha, n, width, seeds) for n in TRAINED_DEPTHS}
        means = {n: float(np.mean(each)) for n, each in sizes.items()}
        spread = max(means.values()) / min(means.values())
        out["trained"][f"{alpha:g}"] = {"mean_abs": sizes, "mean": means, "spread": spread}
        listed = ", ".join(f"{n}: {v:.3f}" for n, v in means.items())
        print(
            f"ten updates, exponent {alpha:g}: mean |x| {listed}; largest / smallest {spread:.2f}",
            flush=True,
        )
    return out


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("which", choices=("mlp", "depth"))
    parser.add_argument("--width", type=int, default=128, help="of the model that depth trains")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    name = (
        options.which
        if options.which == "mlp" or options.width == 128
        else f"depth_{options.width}"
    )
    begun = time.perf_counter()
    found = mlp() if options.which == "mlp" else depth(options.width, options.seeds)
    made_by = {
        "command": f"python -m scripts.checks_transfer {' '.join(sys.argv[1:])}",
        "device": jax.devices()[0].device_kind,
    }
    made_by |= {
        "versions": {name: version(name) for name in ("jax", "optax", "numpy")},
        "seconds": round(time.perf_counter() - begun, 1),
    }
    options.out.mkdir(parents=True, exist_ok=True)
    replace(
        options.out / f"{name}.json", json.dumps({"made_by": made_by, **found}, indent=1) + "\n"
    )


if __name__ == "__main__":
    main()
