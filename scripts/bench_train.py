"""Times our training step, and in the same run a plain PyTorch trainer of the same model, at the shapes of a scaling ladder.

    python -m scripts.bench_train                                     every shape; cohorts of 1, 4, 16, 64 where they fit; with PyTorch
    python -m scripts.bench_train --only 50304,768,12 --trials 1 --profile           where the time goes

Each row goes to results/bench/train.json as it ends, in place of an older one of the same shape, trials, precision and device.
Speeds are medians of `--repeats` runs. Model FLOPs are `lab.counts.flops_per_token`; the ceiling is a bf16 8192^3 matmul, timed in
this run. PyTorch and JAX measure each shape in processes of their own, so that they do not share memory. On a CPU the shapes are tiny.
"""

import argparse
import datetime
import json
import os
import queue
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

OUT = Path(__file__).resolve().parents[1] / "results" / "bench" / "train.json"
KEY = ("shape", "trials", "precision", "parametrization", "devices", "layout", "device")  # what tells rows apart
LAST = 25.0  # seconds; a measurement is not started when less is left
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


def shape(text: str, trials: tuple[int, ...] = (1,)) -> Shape:
    return Shape(*(int(n) for n in text.replace("x", ",").split(",")), trials)  # type: ignore[arg-type]


LADDER = (
    shape("8192,128,4,512,32x256", (1, 4, 16, 64)),
    shape("8192,256,6,1024,32x512", (1, 4, 16, 64)),
    shape("8192,512,8,1536,64x512", (1, 4, 16)),
    shape("50304,768,12,2048,32x1024", (1, 4)),
    shape("32768,1536,16,4096,16x1024"),
    shape("32768,2048,16,5632,8x1024"),  # where FP8 should pay
)
TINY = (shape("256,64,2,128,4x64", (1, 4)), shape("256,128,2,256,4x64"))


# 1. ours: runs in a child, one JSON line a cohort ----------------------------------------------------------------------


def ceilings(seconds: float = 1.0) -> dict[str, float]:
    """TFLOP/s of a bf16 matmul and TB/s of a copy (read and written), medians of 5."""
    import jax
    import jax.numpy as jnp

    n = 8192 if jax.default_backend() == "gpu" else 512
    a = jax.random.normal(jax.random.key(0), (n, n), jnp.bfloat16)
    big = jnp.zeros((8 * n, n), jnp.bfloat16)

    def rate(f: Callable[[jax.Array], jax.Array], x: jax.Array, work: float) -> float:
        run = jax.jit(f)
        jax.block_until_ready(run(x))
        repeats = 20 if jax.default_backend() == "gpu" else 2
        took = []
        for _ in range(5):
            begun = time.perf_counter()
            for _ in range(repeats):
                out = run(x)  # each result is freed when the next takes its name
            jax.block_until_ready(out)
            took.append((time.perf_counter() - begun) / repeats)
        return work / statistics.median(took) / 1e12

    return {"matmul_tflops": rate(lambda x: x @ a, a, 2 * n**3), "copy_tbs": rate(lambda x: x + 1, big, 2 * big.nbytes)}


def trial_of(s: Shape, precision: str, parametrization: str) -> Any:
    from lab.records import Trial

    head_dim = min(HEAD_DIM, s.width)
    return Trial(
        corpus="0" * 64, vocab=s.vocab, width=s.width, depth=s.depth, ff=s.ff, batch=s.batch, sequence=s.sequence, head_dim=head_dim,
        steps=1_000_000, warmup_steps=100, lr=2.0**-10, weight_decay=1e-4, eps=1e-8, precision=precision, parametrization=parametrization,
    )  # fmt: skip


def cohort_of(trial: Any, trials: int) -> list[Any]:
    """A grid of learning rates: own weights' scale of steps, one data order."""
    import dataclasses

    return [dataclasses.replace(trial, lr=trial.lr * 2 ** (4 * i / trials - 2)) for i in range(trials)]


def measure(s: Shape, trials: int, options: argparse.Namespace, ceiling: dict[str, float]) -> dict[str, Any]:
    """One row, but for PyTorch's part: a cohort of `trials` that share their data order, random tokens on the device."""
    import jax
    import numpy as np

    from lab import counts, population
    from lab.train import inputs_of, program_of

    trial = trial_of(s, options.precision, options.parametrization)
    tokens_N = jax.device_put(np.random.default_rng(0).integers(0, s.vocab, 1 << 22, dtype=np.uint16))
    mapped = trials > 1
    inputs = jax.device_put(population.stack([inputs_of(t, len(tokens_N)) for t in cohort_of(trial, trials)], mapped))
    program = program_of(trial)
    state = population.begin(program, mapped, inputs)
    begun = time.perf_counter()
    run = population.advance.lower(program, mapped, inputs, tokens_N, state, 1).compile()
    compile_seconds = time.perf_counter() - begun

    def timed(n: int) -> float:
        nonlocal state
        begun = time.perf_counter()
        state, losses = run(inputs, tokens_N, state, n)
        jax.block_until_ready(losses)
        return time.perf_counter() - begun

    few = population.LOOP
    timed(few)
    n = few * max(1, min(population.CHUNK, int(few * options.repeat_seconds / timed(few))) // few)
    speeds = [n * trials * s.batch * s.sequence / timed(n) for _ in range(options.repeats)]
    speed = statistics.median(speeds)
    memory = run.memory_analysis()
    peak = memory.temp_size_in_bytes + memory.argument_size_in_bytes + memory.output_size_in_bytes - memory.alias_size_in_bytes
    tflops = speed * counts.flops_per_token(trial) / 1e12
    if options.profile:
        from scripts import kernels

        print(f"{s} trials {trials}: {1e3 * trials * s.batch * s.sequence / speed:.3f} ms a step, launched one by one")
        print(kernels.summary(kernels.profile(lambda: timed(few), few, run.as_text())), flush=True)
    return {
        "trials": trials,
        "ours_tokens_per_second": speed,
        "spread": (max(speeds) - min(speeds)) / speed,
        "model_tflops": tflops,
        "ceiling_share": tflops / ceiling["matmul_tflops"],
        "peak_bytes": peak,
        "compile_seconds": compile_seconds,
        **ceiling,
    }


def ours(options: argparse.Namespace) -> int:
    from lab import runtime

    runtime.start(options.cache)
    import jax

    ceiling = ceilings()
    end = time.monotonic() + options.seconds
    for text in options.only:
        for trials in options.trials:
            if time.monotonic() > end - LAST:
                print(f"{text} trials {trials}: not started, the time is up", file=sys.stderr, flush=True)
                continue
            try:
                row = measure(shape(text), trials, options, ceiling)
            except jax.errors.JaxRuntimeError as error:
                if "RESOURCE_EXHAUSTED" not in str(error):
                    raise
                print(f"{text} trials {trials}: out of memory", file=sys.stderr, flush=True)
                break
            print(json.dumps({"shape": text, **row, **runtime.environment()}), flush=True)
    return 0


# 2. the parent: children under one deadline, rows stored as they come --------------------------------------------------


def lines(command: list[str], end: float, environment: dict[str, str] | None = None) -> Iterator[dict[str, Any]]:
    """JSON lines of a child, which is ended at `end` (of the monotonic clock); its other lines are passed on."""
    child = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env={**os.environ, **(environment or {})})
    assert child.stdout is not None
    stream, got = child.stdout, queue.Queue[str | None]()

    def read() -> None:
        for line in stream:
            got.put(line)
        got.put(None)

    threading.Thread(target=read, daemon=True).start()
    try:
        while (line := got.get(timeout=max(0.0, end - time.monotonic()))) is not None:
            if line.startswith("{"):
                yield json.loads(line)
            else:
                print(line, end="", flush=True)
        if child.wait():
            print(f"{' '.join(command[:4])} ... ended with exit code {child.returncode}", file=sys.stderr)
    except queue.Empty:
        print(f"{' '.join(command[:4])} ... stopped: the time is up", file=sys.stderr)
    finally:
        child.kill()
        child.wait()


def torch_speed(s: Shape, options: argparse.Namespace, end: float) -> dict[str, Any]:
    """Tokens/s of the better compile mode, and of each."""
    modes = options.torch_modes
    command = [sys.executable, "-m", "scripts.torch_yardstick", "--shape", str(s), "--repeats", str(options.repeats), "--modes", *modes]
    found = {row["mode"]: row for row in lines([*command, "--seconds", str(options.repeat_seconds)], end)}
    if not found:
        return {"torch_tokens_per_second": None}
    best = max(found.values(), key=lambda row: row["tokens_per_second"])
    each = {f"torch_{mode.replace('-', '_')}_tokens_per_second": row["tokens_per_second"] for mode, row in found.items()}
    return {
        "torch_tokens_per_second": best["tokens_per_second"], "torch_mode": best["mode"], **each,
        "torch_compile_seconds": best["compile_seconds"], "torch_peak_bytes": best["peak_bytes"], "torch_version": best["torch"],
    }  # fmt: skip


def store(path: Path, row: dict[str, Any]) -> None:
    """Add the row, in place of one with equal KEY fields; its figures of PyTorch outlive a run without PyTorch on the same device."""
    rows = json.loads(path.read_text()) if path.exists() else []
    key = [row.get(k) for k in KEY]
    kept = [old for old in rows if [old.get(k) for k in KEY] != key]
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(".part")
    temporary.write_text(json.dumps([*kept, row], indent=1) + "\n")
    os.replace(temporary, path)


def show(row: dict[str, Any]) -> str:
    def torch() -> str:
        if not row.get("torch_tokens_per_second"):
            return "torch -"
        return f"torch {row['torch_tokens_per_second'] / 1e6:.4g} Mtok/s, ratio {row['ratio']:.2f}"

    return (
        f"{row['shape']:28s} trials {row['trials']:3d} {row['precision']:9s} {row['ours_tokens_per_second'] / 1e6:8.4g} Mtok/s "
        f"(spread {100 * row['spread']:.1f} %) {row['model_tflops']:6.1f} TFLOP/s, "
        f"{100 * row['ceiling_share']:5.1f} % of {row['matmul_tflops']:.0f}, "
        f"{row['peak_bytes'] / 2**30:6.2f} GiB, compile {row['compile_seconds']:.1f} s; {torch()}"
    )


def bench(options: argparse.Namespace) -> int:
    end = time.monotonic() + options.seconds
    for s in options.shapes:
        if time.monotonic() > end - LAST:
            print(f"{s}: not started, the time is up", file=sys.stderr)
            continue
        reference = torch_speed(s, options, end) if options.torch and not options.profile else {"torch_tokens_per_second": None}
        command = [sys.executable, "-m", "scripts.bench_train", "--ours", "--only", str(s), "--seconds", str(end - time.monotonic())]
        command += ["--trials", *(str(n) for n in options.trials or s.trials), "--repeats", str(options.repeats)]
        command += [
            "--repeat-seconds",
            str(options.repeat_seconds),
            "--precision",
            options.precision,
            "--parametrization",
            options.parametrization,
        ]
        command += ["--profile"] * options.profile + (["--cache", str(options.cache)] if options.cache else [])
        # CUDA graphs hide which kernel belongs to which instruction, so a profile goes without them and its timings are not stored
        flags = (
            f"{os.environ.get('XLA_FLAGS', '')} --xla_gpu_enable_command_buffer=" if options.profile else os.environ.get("XLA_FLAGS", "")
        )
        for row in lines(command, end, {"XLA_FLAGS": flags}):
            if options.profile:
                continue
            speed = reference["torch_tokens_per_second"]
            row |= {"precision": options.precision, "parametrization": options.parametrization, "devices": 1, "layout": ""}
            row |= {**reference, "ratio": row["ours_tokens_per_second"] / speed if speed else None}
            row["date"] = datetime.date.today().isoformat()
            store(options.out, row)
            print(show(row), flush=True)
    return 0


def has_gpu() -> bool:
    """Asked without starting JAX, whose process would hold the GPU's memory."""
    return any(Path(p).exists() for p in ("/dev/nvidia0", "/dev/nvidiactl"))


def parse(args: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--only", nargs="+", default=[], metavar="SHAPE", help="shapes, or how they start: 8192,512 or 8192,512,8,1536,64x512"
    )
    parser.add_argument("--trials", nargs="+", type=int, default=[], help="cohort sizes (default: those listed for the shape)")
    parser.add_argument("--seconds", type=float, default=3600.0, help="after so long, nothing new is started and what runs is ended")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--repeat-seconds", type=float, default=0.5)
    parser.add_argument("--precision", default="bfloat16", choices=["float32", "bfloat16", "float8"])
    parser.add_argument("--parametrization", default="sp")
    parser.add_argument("--no-torch", dest="torch", action="store_false")
    parser.add_argument("--torch-modes", nargs="+", default=["default", "reduce-overhead"])
    parser.add_argument("--profile", action="store_true", help="print where a step's time goes, by kernel; stores nothing")
    parser.add_argument("--cache", type=Path, help="folder of the compile cache (default: that of scalelab)")
    parser.add_argument("--out", type=Path, default=OUT)
    parser.add_argument("--ours", action="store_true", help=argparse.SUPPRESS)  # the child's mode
    options = parser.parse_args(args)
    known = LADDER if has_gpu() else TINY
    options.shapes = [s for s in known if any(str(s).startswith(text) for text in options.only)] if options.only else list(known)
    options.shapes += [shape(text) for text in options.only if "x" in text and text not in map(str, known)]
    if not options.shapes and not options.ours:
        parser.error(f"--only {' '.join(options.only)}: no such shape; known: {'  '.join(map(str, known))}, or a whole one")
    return options


def main(args: list[str]) -> int:
    options = parse(args)
    return ours(options) if options.ours else bench(options)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
