"""Times our training step, for `scripts.bench_train`, which starts this in a process of its own:
one JSON line a shape, cohort and layout.

Everything is compiled first; after {"ready": true} it waits for a line on its input, so that it
times alone on the device.
"""

import argparse
import itertools
import json
import os
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from scripts import kernels

HEAD_DIM = 64


class Shape(NamedTuple):
    vocab: int
    width: int
    depth: int
    ff: int
    batch: int
    sequence: int
    trials: tuple[int, ...] = (1,)  # cohorts that are worth measuring

    def __str__(self) -> str:
        return "{},{},{},{},{}x{}".format(*self[:6])

    @property
    def tokens(self) -> int:
        """Of one trial's step."""
        return self.batch * self.sequence


def shape(text: str) -> Shape:
    """From vocab,width,depth,ff,BATCHxSEQUENCE, with :TRIALS,TRIALS,... behind it for cohorts."""
    sizes, _, trials = text.partition(":")
    vocab, width, depth, ff, batch, sequence = (int(n) for n in sizes.replace("x", ",").split(","))
    return Shape(
        vocab,
        width,
        depth,
        ff,
        batch,
        sequence,
        tuple(int(n) for n in trials.split(",")) if trials else (1,),
    )


def ceilings() -> dict[str, float]:
    """TFLOP/s of a bf16 matmul and TB/s of a copy (read and written), medians of 5."""
    import jax
    import jax.numpy as jnp

    n, repeats = (8192, 20) if jax.default_backend() == "gpu" else (512, 2)
    a = jax.random.normal(jax.random.key(0), (n, n), jnp.bfloat16)
    # in bfloat16 XLA's loop reads too few bytes at once: 3.2 TB/s on an H200, whose kernels reach
    # 4.2
    big = jnp.zeros((4 * n, n), jnp.float32)

    def rate(f: Callable[[jax.Array], jax.Array], x: jax.Array, work: float) -> float:
        run = jax.jit(f)
        out = jax.block_until_ready(run(x))
        took = []
        for _ in range(5):
            begun = time.perf_counter()
            for _ in range(repeats):
                out = run(x)  # each result is freed when the next takes its name
            jax.block_until_ready(out)
            took.append((time.perf_counter() - begun) / repeats)
        return work / statistics.median(took) / 1e12

    return {
        "matmul_tflops": rate(lambda x: x @ a, a, 2 * n**3),
        "copy_tbs": rate(lambda x: x + 1, big, 2 * big.nbytes),
    }


def cohort_of(
    s: Shape, trials: int, precision: str, parametrization: str, **changes: Any
) -> list[Any]:
    """A grid of learning rates: own weights' scale of steps, one data order. `changes`: of the
    trials' other fields.
    """
    from lab.records import Trial

    return [
        Trial( corpus="0" * 64, vocab=s.vocab, width=s.width, depth=s.depth, ff=s.ff, batch=s.batch,
        sequence=s.sequence, head_dim=min(HEAD_DIM, s.width), steps=1_000_000, warmup_steps=100,
        precision=precision, parametrization=parametrization, lr=2.0 ** (4 * i / trials - 12),
        weight_decay=1e-4, eps=1e-8, **changes, ) for i in range(trials)
    ]  # fmt: skip


def layout_of(text: str) -> dict[str, int]:
    """ "data=4,tensor=2" as mesh axes."""
    return {
        name: int(size)
        for name, _, size in (part.partition("=") for part in text.split(",") if part)
    }


class Compiled:
    """One shape, cohort and layout, compiled but holding no memory of the device yet."""

    def __init__(
        self, s: Shape, trials: int, layout: str, options: argparse.Namespace, **changes: Any
    ):
        import jax
        import numpy as np

        from lab import dispatch, mesh
        from lab.program import program_of
        from lab.train import inputs_of

        self.shape, self.trials, self.layout = s, trials, layout
        self.cohort = cohort_of(s, trials, options.precision, options.parametrization, **changes)
        self.mapped, self.program = trials > 1, program_of(self.cohort[0])
        axes = layout_of(layout)
        self.devices = int(np.prod(list(axes.values()) or [1]))
        self.over = mesh.make(**axes, devices=jax.devices()[: self.devices]) if axes else None
        self.tokens = mesh.replicate(
            self.over, np.random.default_rng(0).integers(0, s.vocab, 1 << 22, dtype=np.uint16)
        )
        inputs = dispatch.stack([inputs_of(t, len(self.tokens)) for t in self.cohort], self.mapped)
        self.inputs = (
            jax.device_put(inputs)
            if self.over is None
            else mesh.put(self.over, inputs, self.mapped)
        )
        begun = time.perf_counter()
        with mesh.scope(self.over):
            self.begin = dispatch.begin.lower(self.program, self.mapped, self.inputs).compile()
            out = self.begin.output_shardings
            start = jax.eval_shape(
                lambda i: dispatch.begin(self.program, self.mapped, i), self.inputs
            )
            start = jax.tree.map(
                lambda x, at: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=at), start, out
            )
            self.run = dispatch.advance.lower(
                self.program, self.mapped, self.inputs, self.tokens, start, 1
            ).compile()
        self.compile_seconds = time.perf_counter() - begun

    def measure(self, options: argparse.Namespace, ceiling: dict[str, float]) -> dict[str, Any]:
        """One row, but for PyTorch's part: random tokens, on the device, all trials with one data
        order.
        """
        import jax
        import numpy as np

        from lab import counts, dispatch, mesh

        state, few = self.begin(self.inputs), dispatch.LOOP
        first: list[float] = []

        def timed(n: int) -> float:
            nonlocal state
            begun = time.perf_counter()
            state, measured = self.run(self.inputs, self.tokens, state, n)
            jax.block_until_ready(measured)
            took = time.perf_counter() - begun
            if not first:
                first.extend(mesh.to_host(measured["loss"])[:few].reshape(few, -1)[:, 0].tolist())
            return took

        timed(few)
        n = few * max(1, min(dispatch.CHUNK, int(few * options.repeat_seconds / timed(few))) // few)
        speeds = [n * self.trials * self.shape.tokens / timed(n) for _ in range(options.repeats)]
        speed = statistics.median(speeds)
        memory: Any = self.run.memory_analysis()
        peak = (
            memory.temp_size_in_bytes
            + memory.argument_size_in_bytes
            + memory.output_size_in_bytes
            - memory.alias_size_in_bytes
        )
        tflops = speed * counts.flops_per_token(self.cohort[0]) / 1e12
        floor = counts.step_floor(
            self.cohort[0], 1e12 * ceiling["matmul_tflops"], 1e12 * ceiling["copy_tbs"]
        )
        if options.profile:
            print(
                f"{self.shape} trials {self.trials}: "
                f"{1e3 * self.trials * self.shape.tokens / speed:.3f} ms a step, launched one "
                "by one"
            )
            print(
                kernels.summary(kernels.profile(lambda: timed(few), few, str(self.run.as_text()))),
                flush=True,
            )
        return {
            "shape": str(self.shape), "trials": self.trials, "devices": self.devices, "layout":
            self.layout, "ours_tokens_per_second": speed, "spread": (max(speeds) - min(speeds)) /
            speed, "model_tflops": tflops, "ceiling_share": tflops / ceiling["matmul_tflops"] /
            self.devices, "floor_share": floor * speed / self.shape.tokens / self.devices,
            "peak_bytes": peak, "compile_seconds": self.compile_seconds, "finite":
            bool(np.isfinite(first).all()), "first_losses": first, **ceiling,
        }  # fmt: skip


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What parent and child have in common."""
    parser.add_argument(
        "--layouts",
        nargs="+",
        default=[""],
        help="meshes to run over, such as trial=8 or fsdp=4,tensor=2 (default: one device)",
    )
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--repeat-seconds", type=float, default=0.5)
    parser.add_argument(
        "--precision", default="bfloat16", choices=["float32", "bfloat16", "float8"]
    )
    parser.add_argument("--parametrization", default="sp")
    parser.add_argument(
        "--profile",
        action="store_true",
        help="print where a step's time goes, by kernel; stores nothing",
    )
    parser.add_argument(
        "--cache", type=Path, help="folder of the compile cache (default: that of scalelab)"
    )


def start(options: argparse.Namespace) -> None:
    """The runtime of a benchmark; for a profile without CUDA graphs, which hide the kernels that
    they launch.
    """
    from lab import runtime

    if options.profile:
        given = os.environ.get("XLA_FLAGS", "")
        os.environ["XLA_FLAGS"] = f"{given} --xla_gpu_enable_command_buffer="
    runtime.start(options.cache)


def main(args: list[str]) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--shapes",
        nargs="+",
        type=shape,
        required=True,
        help="vocab,width,depth,ff,BATCHxSEQUENCE:TRIALS,TRIALS,...",
    )
    add_arguments(parser)
    options = parser.parse_args(args)
    start(options)
    import jax

    from lab import runtime

    compiled = []
    for s, layout in itertools.product(options.shapes, options.layouts):
        for trials in s.trials:
            if trials % layout_of(layout).get("trial", 1):
                continue
            try:
                compiled.append(Compiled(s, trials, layout, options))
            except jax.errors.JaxRuntimeError as error:
                print(
                    f"{s} trials {trials} {layout}: {str(error).splitlines()[0]}",
                    file=sys.stderr,
                    flush=True,
                )
    print(json.dumps({"ready": True}), flush=True)
    sys.stdin.readline()
    ceiling = ceilings()
    for one in compiled:
        try:
            print(json.dumps(one.measure(options, ceiling) | runtime.environment()), flush=True)
        except jax.errors.JaxRuntimeError as error:
            print(
                f"{one.shape} trials {one.trials} {one.layout}: {str(error).splitlines()[0]}",
                file=sys.stderr,
                flush=True,
            )
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
