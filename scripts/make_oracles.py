"""Golden numbers of muP and u-muP, made by the authors' own packages: `mup` 1.0.0 and
`unit-scaling` 0.3.5 on CPU torch.

    python3 -m venv oracle && oracle/bin/pip install torch==2.13.0 numpy einops oracle/bin/pip
    install --no-deps mup==1.0.0 && oracle/bin/pip install unit-scaling==0.3.5 pyyaml pandas seaborn
    tqdm oracle/bin/python -m scripts.make_oracles tests/lab/golden

Each golden model is the one of `lab/model.py` (RMSNorm without gains, RoPE, SwiGLU, untied head),
written on the package's own modules, in float64, with weights and tokens that `draw` and `stream`
give to both sides. torch is imported inside the functions only, so that the tests share the inputs.
"""

import json
import math
import platform
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any
from zlib import crc32

import numpy as np
from numpy.typing import NDArray

from ground.files import replace

SIZE = {
    "vocab": 37,
    "width": 32,
    "depth": 2,
    "head_dim": 8,
    "ff": 80,
    "sequence": 16,
    "batch": 4,
    "steps": 6,
}
MUP_BASE_WIDTH = 8
LR, DECAY, BETAS, ADAM_EPS = 2.0**-7, 0.02, (0.9, 0.95), 1e-30
UNIT_LR = 0.5
MUP_STD = 0.3  # of the hidden matrices at the base width


def draw(name: str, shape: tuple[int, ...]) -> NDArray[np.float64]:
    """Unit-normal entries that depend on the tensor's path alone; in -> out layout. RandomState's
    stream is frozen by NumPy's policy.
    """
    return np.random.RandomState(crc32(name.encode())).standard_normal(shape)


def stream() -> NDArray[np.int64]:
    """Tokens of exactly one batch of windows, so that every step sees the same batch."""
    return (
        np.random.RandomState(1000)
        .randint(0, SIZE["vocab"], SIZE["batch"] * SIZE["sequence"] + 1)
        .astype(np.int64)
    )


def summary(name: str, array: NDArray[np.float64]) -> list[float]:
    """Norm, and the product with a fixed direction: equal summaries mean equal tensors, for all
    that rounding can tell.
    """
    return [
        float(np.linalg.norm(array)),
        float((array * draw("direction of " + name, array.shape)).sum()),
    ]


def _rope(x: Any) -> Any:
    """(batch, heads, sequence, head_dim), pairs (i, i + head_dim / 2), base 10,000."""
    import torch

    T, K = x.shape[-2:]
    angle = torch.arange(T, dtype=x.dtype)[:, None] * 10_000.0 ** (
        -torch.arange(0, K, 2, dtype=x.dtype) / K
    )
    a, b = x.chunk(2, -1)
    return torch.cat([a * angle.cos() - b * angle.sin(), b * angle.cos() + a * angle.sin()], -1)


def _heads(x: Any) -> Any:
    return x.view(*x.shape[:2], -1, SIZE["head_dim"]).transpose(1, 2)


def _run(model: Any, optimizer: Any, loss_fn: Any, leaves: dict[str, Any]) -> dict[str, Any]:
    """Losses of every step, and of the first one the gradients of each leaf."""
    import torch

    out: dict[str, Any] = {"losses": [], "gradients": {}}
    batch = torch.tensor(stream()).unfold(0, SIZE["sequence"] + 1, SIZE["sequence"])
    for step in range(SIZE["steps"]):
        logits = model(batch[:, :-1])
        loss = loss_fn(logits.flatten(0, 1), batch[:, 1:].flatten())
        optimizer.zero_grad()
        loss.backward()
        if step == 0:
            out["gradients"] = {
                name: summary(name, (p.grad.T if turned else p.grad).numpy())
                for name, (p, turned) in leaves.items()
            }
        optimizer.step()
        out["losses"].append(float(loss.detach()))
    return out


# 1. unit-scaling ---------------------------------------------------------------------------------


def _unit_model() -> tuple[Any, dict[str, Any]]:
    import torch
    import unit_scaling as uu
    import unit_scaling.functional as U
    from torch import nn

    W, F, L = SIZE["width"], SIZE["ff"], SIZE["depth"]
    rule = uu.core.functional.transformer_residual_scaling_rule()

    class Layer(nn.Module):
        def __init__(self, i: int) -> None:
            super().__init__()
            self.taus = rule(2 * i, 2 * L), rule(2 * i + 1, 2 * L)
            self.norm = uu.RMSNorm(W)
            for name in "qkvo":
                setattr(self, name, uu.Linear(W, W))
            self.gate, self.up = (uu.Linear(W, F, constraint=None) for _ in range(2))
            self.down = uu.Linear(F, W, constraint=None)

        def forward(self, x: Any) -> Any:
            x, skip = U.residual_split(x, self.taus[0])
            x = self.norm(x)
            q, k, v = (_heads(f(x)) for f in (self.q, self.k, self.v))
            x = U.scaled_dot_product_attention(_rope(q), _rope(k), v, is_causal=True)
            x = U.residual_add(self.o(x.transpose(1, 2).flatten(2)), skip, self.taus[0])
            x, skip = U.residual_split(x, self.taus[1])
            x = self.norm(x)
            return U.residual_add(
                self.down(U.silu_glu(self.up(x), self.gate(x))), skip, self.taus[1]
            )

    layers = [Layer(i) for i in range(L)]
    embed, unembed = uu.Embedding(SIZE["vocab"], W), uu.LinearReadout(W, SIZE["vocab"])
    model = nn.Sequential(embed, uu.DepthSequential(*layers), uu.RMSNorm(W), unembed).double()
    leaves = {"embed": (embed.weight, False), "unembed": (unembed.weight, True)}
    for i, layer in enumerate(layers):
        leaves |= {
            f"layers.{i:03d}.{n}": (getattr(layer, n).weight, True)
            for n in ("q", "k", "v", "o", "gate", "up", "down")
        }
    with torch.no_grad():
        for name, (p, turned) in leaves.items():
            shape = tuple(p.shape[::-1] if turned else p.shape)
            w = torch.tensor(draw(name, shape))
            p.copy_(w.T if turned else w)
    return model, leaves


def _unit_ops() -> dict[str, list[float]]:
    """Standard deviations of outputs and input gradients, for unit-normal inputs and upstream
    gradients.
    """
    import torch
    import unit_scaling.functional as U

    def measure(name: str, f: Any, *shapes: tuple[int, ...]) -> list[float]:
        xs = [
            torch.tensor(draw(f"{name} {i}", shape)).requires_grad_()
            for i, shape in enumerate(shapes)
        ]
        y = f(*xs)
        y.backward(torch.tensor(draw(name, tuple(y.shape))))
        return [float(t.detach().std(correction=0)) for t in (y, *(x.grad for x in xs))]

    out = {}
    out["linear"] = measure("linear", lambda x, w: U.linear(x, w.T, None), (2048, 512), (512, 1408))
    out["linear_free"] = measure(
        "linear_free",
        lambda x, w: U.linear(x, w.T, None, constraint=None),
        (2048, 512),
        (512, 1408),
    )
    out["readout"] = measure(
        "readout", lambda x, w: U.linear_readout(x, w.T, None), (1024, 512), (512, 4096)
    )
    for alpha in (0.25, 1.0, 4.0):
        out[f"glu {alpha:g}"] = measure(
            f"glu {alpha:g}", lambda x, g, a=alpha: U.silu_glu(x, g, mult=a), *[(1024, 512)] * 2
        )
        out[f"gelu {alpha:g}"] = measure(
            f"gelu {alpha:g}", lambda x, a=alpha: U.gelu(x, mult=a), (1024, 512)
        )
        for s in (128, 512):
            name, shape = f"attention {s} {alpha:g}", (2, 4, s, 64)
            out[name] = measure(
                name,
                lambda q, k, v, a=alpha: U.scaled_dot_product_attention(
                    q, k, v, is_causal=True, mult=a
                ),
                *[shape] * 3,
            )
    out["gain"] = measure("gain", lambda x, g: U.rms_norm(x, (512,), g), (1024, 512), (512,))
    index = torch.tensor(np.random.RandomState(7).randint(0, 4096, (8, 256)))
    out["embed"] = measure("embed", lambda w: U.embedding(index, w), (4096, 64))
    return out


def unit_scaling_golden() -> dict[str, Any]:
    import unit_scaling as uu
    import unit_scaling.functional as U

    rule = uu.core.functional.transformer_residual_scaling_rule
    taus = {
        f"{a} {r}": [rule(a, r)(i, 8) for i in range(8)]
        for a, r in ((1.0, 1.0), (1.0, 2.0), (0.5, 1.0), (0.7, 0.1))
    }
    model, leaves = _unit_model()
    optimizer = uu.optim.AdamW(
        model.parameters(), lr=UNIT_LR, weight_decay=DECAY, betas=BETAS, eps=ADAM_EPS
    )
    rates = {
        name: [g["lr"], g["weight_decay"]]
        for name, (p, _) in leaves.items()
        for g in optimizer.param_groups
        if g["params"][0] is p
    }
    return {
        "tau": taus,
        "ops": _unit_ops(),
        "lr_and_decay": rates,
        **_run(model, optimizer, U.cross_entropy, leaves),
    }


# 2. mup ------------------------------------------------------------------------------------------


def _mup_model(width: int) -> Any:
    import torch
    from mup import MuReadout
    from torch import nn

    F = width * SIZE["ff"] // SIZE["width"]

    def norm(x: Any) -> Any:
        return x / (x.pow(2).mean(-1, keepdim=True) + 1e-5).sqrt()

    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embed = nn.Embedding(SIZE["vocab"], width)
            for i in range(SIZE["depth"]):
                for name in "qkvo":
                    setattr(self, f"{name}{i}", nn.Linear(width, width, bias=False))
                setattr(self, f"gate{i}", nn.Linear(width, F, bias=False))
                setattr(self, f"up{i}", nn.Linear(width, F, bias=False))
                setattr(self, f"down{i}", nn.Linear(F, width, bias=False))
            self.unembed = MuReadout(width, SIZE["vocab"], bias=False)

        def forward(self, index: Any) -> Any:
            x = self.embed(index)
            for i in range(SIZE["depth"]):
                w = {
                    n: getattr(self, f"{n}{i}") for n in ("q", "k", "v", "o", "gate", "up", "down")
                }
                h = norm(x)
                q, k, v = (_heads(w[n](h)) for n in "qkv")
                a = torch.nn.functional.scaled_dot_product_attention(
                    _rope(q), _rope(k), v, is_causal=True, scale=SIZE["head_dim"] ** -0.5
                )
                x = x + w["o"](a.transpose(1, 2).flatten(2))
                h = norm(x)
                x = x + w["down"](w["up"](h) * torch.nn.functional.silu(w["gate"](h)))
            return self.unembed(norm(x))

    return Model()


def _leaf(name: str) -> str:
    """`q2.weight` -> `layers.002.q`, `embed.weight` -> `embed`."""
    stem = name.removesuffix(".weight")
    return f"layers.{int(stem[-1]):03d}.{stem[:-1]}" if stem[-1].isdigit() else stem


def mup_golden() -> dict[str, Any]:
    import mup
    import torch

    base, delta, model = (
        _mup_model(w) for w in (MUP_BASE_WIDTH, 2 * MUP_BASE_WIDTH, SIZE["width"])
    )
    mup.set_base_shapes(model, base, delta=delta)
    model = model.double()
    leaves = {
        _leaf(name): (p, "embed" not in name or "unembed" in name)
        for name, p in model.named_parameters()
    }
    stds = {}
    with torch.no_grad():
        for name, (p, turned) in leaves.items():
            mup.init.normal_(p, std=MUP_STD)
            stds[name] = float(p.std(correction=0))
            shape = tuple(p.shape[::-1] if turned else p.shape)
            w = torch.tensor(draw(name, shape)) * (
                MUP_STD * math.sqrt(MUP_BASE_WIDTH / SIZE["width"]) if "layers" in name else MUP_STD
            )
            p.copy_(w.T if turned else w)
    groups = {}
    for kind, optimizer in (
        ("adam", mup.MuAdamW(model.parameters(), lr=LR, weight_decay=DECAY)),
        ("sgd", mup.MuSGD(model.parameters(), lr=LR)),
    ):
        for name, (p, _) in leaves.items():
            group = next(g for g in optimizer.param_groups if any(q is p for q in g["params"]))
            groups[f"{kind} {name}"] = [group["lr"], group["weight_decay"]]
    adam = mup.MuAdamW(model.parameters(), lr=LR, weight_decay=DECAY, betas=BETAS, eps=ADAM_EPS)
    return {
        "init_std": stds,
        "lr_and_decay": groups,
        **_run(model, adam, torch.nn.functional.cross_entropy, leaves),
    }


def main(folder: str) -> None:
    import torch

    torch.manual_seed(0)
    torch.set_num_threads(1)
    versions = {
        "python": platform.python_version(),
        **{name: version(name) for name in ("torch", "numpy", "mup", "unit-scaling")},
    }
    for name, make in (("unit_scaling", unit_scaling_golden), ("mup", mup_golden)):
        made_by = {
            "command": "python -m scripts.make_oracles tests/lab/golden",
            "versions": versions,
        }
        text = json.dumps({"made_by": made_by, **make()}, indent=1) + "\n"
        replace(Path(folder, f"{name}.json"), text)


if __name__ == "__main__":
    main(sys.argv[1])
