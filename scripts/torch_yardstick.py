"""A yardstick, not part of scalelab: the plain PyTorch trainer that a researcher would use instead,
for `scripts.bench_train` to time.

The same model as ours (pre-norm decoder, RMSNorm without gains, RoPE, SwiGLU, causal attention,
untied head) in the usual fast form: float32 weights under bf16 autocast, fused QKV and gate/up
projections, scaled_dot_product_attention, fused AdamW, torch.compile. Prints one JSON line:
{"mode", "tokens_per_second", "compile_seconds", "peak_bytes", "losses", "torch", "device"}.

    python -m scripts.torch_yardstick --shape 8192,512,8,1536,64x512 --mode reduce-overhead
"""

import argparse
import json
import statistics
import sys
import time

import torch
import torch.nn.functional as F
from torch import nn

HEAD_DIM = 64


class Block(nn.Module):
    def __init__(self, width: int, ff: int, head_dim: int):
        super().__init__()
        self.head_dim = head_dim
        self.qkv = nn.Linear(width, 3 * width, bias=False)
        self.out = nn.Linear(width, width, bias=False)
        self.gate_up = nn.Linear(width, 2 * ff, bias=False)
        self.down = nn.Linear(ff, width, bias=False)

    def forward(self, x, cos, sin):
        B, T, D = x.shape
        qkv = self.qkv(F.rms_norm(x, (D,))).view(B, T, 3, D // self.head_dim, self.head_dim)
        q, k, v = (a.transpose(1, 2) for a in qkv.unbind(2))
        q, k = rotate(q, cos, sin), rotate(k, cos, sin)
        attended = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.out(attended.transpose(1, 2).reshape(B, T, D))
        gate, up = self.gate_up(F.rms_norm(x, (D,))).chunk(2, dim=-1)
        return x + self.down(F.silu(gate) * up)


def rotate(x, cos, sin):
    a, b = x.chunk(2, dim=-1)
    return torch.cat((a * cos - b * sin, b * cos + a * sin), dim=-1).to(x.dtype)


class Decoder(nn.Module):
    def __init__(self, vocab: int, width: int, depth: int, ff: int, sequence: int, head_dim: int):
        super().__init__()
        self.embed = nn.Embedding(vocab, width)
        self.layers = nn.ModuleList(Block(width, ff, head_dim) for _ in range(depth))
        self.unembed = nn.Linear(width, vocab, bias=False)
        angle = torch.arange(sequence)[:, None] * 10_000.0 ** (
            -torch.arange(0, head_dim, 2) / head_dim
        )
        self.register_buffer("cos", angle.cos())
        self.register_buffer("sin", angle.sin())
        for p in self.parameters():
            nn.init.normal_(p, std=0.02)

    def forward(self, tokens, targets):
        x = self.embed(tokens)
        for layer in self.layers:
            x = layer(x, self.cos, self.sin)
        logits = self.unembed(F.rms_norm(x, x.shape[-1:]))
        return F.cross_entropy(logits.flatten(0, 1), targets.flatten())


class Trainer:
    """The model, its optimizer and data, compiled in one mode by five steps."""

    def __init__(self, shape, mode: str, device: str):
        self.vocab, width, depth, ff, self.batch, self.sequence = shape
        self.mode, self.device = mode, device
        torch.manual_seed(0)
        self.model = Decoder(self.vocab, width, depth, ff, self.sequence, min(HEAD_DIM, width)).to(
            device
        )
        self.optimizer = torch.optim.AdamW(
            self.model.parameters(), lr=1e-3, betas=(0.9, 0.95), weight_decay=0.1, fused=True
        )
        self.data = torch.randint(0, self.vocab, (1 << 22,), device=device)
        self.run = (
            self.model
            if mode == "eager"
            else torch.compile(self.model, mode=None if mode == "default" else mode)
        )
        begun = time.perf_counter()
        self.losses = [self.step(0).item() for _ in range(5)]
        self.compile_seconds = time.perf_counter() - begun

    def step(self, i: int):
        tokens = self.batch * self.sequence
        start = i * tokens % (len(self.data) - tokens - 1)
        window = self.data[start : start + tokens + 1]
        with torch.autocast(self.device, dtype=torch.bfloat16):
            loss = self.run(window[:-1].view(self.batch, -1), window[1:].view(self.batch, -1))
        loss.backward()
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        return loss.detach().clone()

    def timed(self, n: int) -> float:
        begun = time.perf_counter()
        for i in range(n):
            self.step(i)
        if self.device == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter() - begun

    def measure(self, repeats: int, seconds: float) -> dict:
        """Median tokens/s over `repeats` runs of about `seconds` each."""
        self.timed(3)
        n = max(3, int(seconds / (self.timed(3) / 3)))
        speeds = [n * self.batch * self.sequence / self.timed(n) for _ in range(repeats)]
        return {
            "mode": self.mode,
            "tokens_per_second": statistics.median(speeds),
            "spread": (max(speeds) - min(speeds)) / statistics.median(speeds),
            "compile_seconds": self.compile_seconds,
            "peak_bytes": torch.cuda.max_memory_allocated() if self.device == "cuda" else None,
            "losses": self.losses,
            "torch": torch.__version__,
            "device": torch.cuda.get_device_name() if self.device == "cuda" else "cpu",
        }


def main(args: list[str]) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--shape", required=True, help="vocab,width,depth,ff,BATCHxSEQUENCE")
    parser.add_argument(
        "--mode", default="default", choices=["eager", "default", "reduce-overhead"]
    )
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=0.5, help="of one repeat")
    parser.add_argument(
        "--wait",
        action="store_true",
        help='compile, print {"ready": true}, and time once a line has been read',
    )
    parsed = parser.parse_args(args)
    torch.set_float32_matmul_precision("high")
    shape = tuple(int(n) for n in parsed.shape.replace("x", ",").split(","))
    device = "cuda" if torch.cuda.is_available() else "cpu"
    trainer = Trainer(shape, parsed.mode, device)
    if parsed.wait:
        if device == "cuda":
            torch.cuda.empty_cache()
        print(json.dumps({"ready": True}), flush=True)
        sys.stdin.readline()
    print(json.dumps(trainer.measure(parsed.repeats, parsed.seconds)), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
