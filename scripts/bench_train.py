"""Times our training step, and in the same run a plain PyTorch trainer of the same model, at the
shapes of a scaling ladder.

    python -m scripts.bench_train                                     every shape; cohorts of 1, 4,
    16, 64 where they fit; with PyTorch python -m scripts.bench_train --only 50304,768,12 --trials 1
    --profile           where the time goes python -m scripts.bench_train --no-torch --only 8192,128
    --trials 64 --layouts trial=1 trial=2 trial=4 trial=8     several GPUs

Each row goes to results/bench/train.json as it ends, in place of an older one that agrees in KEY.
Speeds are medians of `--repeats` runs. Model FLOPs are `lab.counts.flops_per_token`; the ceiling is
a bf16 8192^3 matmul, timed in this run.

PyTorch's processes (one a shape and compile mode) and ours (one for all) compile at the same time,
wait for each other, and then time one after the other, alone on the device. `--together` says how
many shapes share the device's memory meanwhile. On a CPU the shapes are tiny.
"""

import argparse
import datetime
import json
import os
import queue
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ground.files import replace
from scripts.bench_step import Shape, add_arguments, shape

OUT = Path(__file__).resolve().parents[1] / "results" / "bench" / "train.json"
# what tells rows apart
KEY = ("shape", "trials", "precision", "parametrization", "devices", "layout", "device")

LADDER = (
    shape("8192,128,4,512,32x256:1,4,16,64"),
    shape("8192,256,6,1024,32x512:1,4,16"),
    shape("8192,512,8,1536,64x512:1,4"),
    shape("50304,768,12,2048,32x1024"),
    shape("32768,1536,16,4096,16x1024"),
    shape("32768,2048,16,5632,8x1024"),  # about 1e9 parameters; where FP8 should pay
)
# of the time left, the most that is waited for PyTorch's compilers; what is ready is timed in the
# rest
COMPILING = 0.6
TINY = (shape("256,64,2,128,4x64:1,4"), shape("256,128,2,256,4x64"))


# Children under one deadline, rows stored as they come -------------------------------------------


class Child:
    """A process that prints JSON lines, says {"ready": true} when it has compiled, and goes on when
    told to.
    """

    def __init__(self, command: list[str], environment: dict[str, str]):
        self.name = " ".join(command[1:5])
        env = {**os.environ, **environment}
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=env
        )
        self.got: queue.Queue[str | None] = queue.Queue()
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.got.put(line)
        self.got.put(None)

    def ready(self, by: float) -> bool:
        """Whether it has compiled by then (of the monotonic clock); where not, it is ended."""
        for row in self.rows(by):
            if row.get("ready"):
                return True
        return False

    def rows(self, end: float) -> Iterator[dict[str, Any]]:
        """JSON lines as they come, other lines passed on, until the process ends; it is ended at
        `end` (of the monotonic clock).
        """
        try:
            while (line := self.got.get(timeout=max(0.0, end - time.monotonic()))) is not None:
                if line.startswith("{"):
                    yield json.loads(line)
                else:
                    print(line, end="", flush=True)
        except queue.Empty:
            print(f"{self.name} ... stopped: the time is up", file=sys.stderr)
            self.process.kill()
            self.process.wait()
            return
        if self.process.wait():  # below 0: a signal, as of XLA's aborts
            print(
                f"{self.name} ... ended with exit code {self.process.returncode}", file=sys.stderr
            )

    def go(self) -> None:
        assert self.process.stdin is not None
        if self.process.poll() is None:
            self.process.stdin.write("go\n")
            self.process.stdin.flush()


def start_torch(s: Shape, mode: str, options: argparse.Namespace) -> Child:
    command = [
        sys.executable,
        "-m",
        "scripts.torch_yardstick",
        "--shape",
        str(s),
        "--repeats",
        str(options.repeats),
        "--wait",
    ]
    return Child([*command, "--seconds", str(options.repeat_seconds), "--mode", mode], {})


def torch_part(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Tokens/s of the better compile mode, and of each."""
    if not rows:
        return {"torch_tokens_per_second": None}
    best = max(rows, key=lambda row: row["tokens_per_second"])
    each = {
        f"torch_{row['mode'].replace('-', '_')}_tokens_per_second": row["tokens_per_second"]
        for row in rows
    }
    return {
        "torch_tokens_per_second": best["tokens_per_second"], "torch_mode": best["mode"], **each,
        "torch_compile_seconds": best["compile_seconds"], "torch_peak_bytes": best["peak_bytes"],
        "torch_version": best["torch"],
    }  # fmt: skip


def start_ours(shapes: list[Shape], options: argparse.Namespace) -> Child:
    texts = [f"{s}:{','.join(map(str, s.trials))}" for s in shapes]
    command = [
        sys.executable,
        "-m",
        "scripts.bench_step",
        "--shapes",
        *texts,
        "--repeats",
        str(options.repeats),
    ]
    command += [
        "--layouts",
        *options.layouts,
        "--repeat-seconds",
        str(options.repeat_seconds),
        "--precision",
        options.precision,
    ]
    command += ["--parametrization", options.parametrization] + ["--profile"] * options.profile
    command += ["--cache", str(options.cache)] if options.cache else []
    return Child(command, {"XLA_PYTHON_CLIENT_PREALLOCATE": "false"})


def efficiency(row: dict[str, Any], rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Tokens/s a device against one device: of the same shape (strong), else of the same sequences
    a device (weak).
    """
    s = shape(row["shape"])
    weak = str(s._replace(batch=s.batch // row["devices"]))
    for scaling, wanted in (("strong", row["shape"]), ("weak", weak)):
        for one in rows:
            same = all(
                one.get(k) == row[k] for k in ("trials", "precision", "parametrization", "device")
            )
            if same and one["devices"] == 1 and one["shape"] == wanted and row["devices"] > 1:
                share = (
                    row["ours_tokens_per_second"] / row["devices"] / one["ours_tokens_per_second"]
                )
                pairs = list(zip(row["first_losses"], one["first_losses"], strict=True))
                off = (
                    {"loss_difference": max(abs(a / b - 1) for a, b in pairs)}
                    if scaling == "strong"
                    else {}
                )
                return {"scaling": scaling, "efficiency": share, **off}
    return {}


def store(path: Path, row: dict[str, Any]) -> dict[str, Any]:
    """Add the row, in place of one with equal KEY fields, with its efficiency against one device
    where the file has that.
    """
    rows = json.loads(path.read_text()) if path.exists() else []
    row |= efficiency(row, rows)
    kept = [old for old in rows if [old.get(k) for k in KEY] != [row.get(k) for k in KEY]]
    path.parent.mkdir(parents=True, exist_ok=True)
    replace(path, json.dumps([*kept, row], indent=1) + "\n")
    return row


def show(row: dict[str, Any]) -> str:
    torch = (
        f"torch {row['torch_tokens_per_second'] / 1e6:.4g} Mtok/s, ratio {row['ratio']:.2f}"
        if row.get("ratio")
        else "torch -"
    )
    spread = (
        f"; {row['devices']} devices ({row['layout']}), {row['scaling']} "
        f"{100 * row['efficiency']:.1f} %"
        if "efficiency" in row
        else ""
    )
    return (
        f"{row['shape']:28s} trials {row['trials']:3d} {row['precision']:9s} "
        f"{row['ours_tokens_per_second'] / 1e6:8.4g} Mtok/s "
        f"(spread {100 * row['spread']:.1f} %) {row['model_tflops']:6.1f} TFLOP/s, "
        f"{100 * row['ceiling_share']:5.1f} % of {row['matmul_tflops']:.0f}, "
        f"{100 * row['floor_share']:.0f} % of the floor, "
        f"{row['peak_bytes'] / 2**30:6.2f} GiB, compile {row['compile_seconds']:.1f} s; "
        f"{torch}{spread}"
    )


def bench(options: argparse.Namespace) -> int:
    end = time.monotonic() + options.seconds
    for i in range(0, len(options.shapes), options.together):
        shapes = options.shapes[i : i + options.together]
        if time.monotonic() > end:
            print(f"{'  '.join(map(str, shapes))}: not started, the time is up", file=sys.stderr)
            continue
        modes = options.torch_modes if options.torch and not options.profile else []
        references = {
            (str(s), mode): start_torch(s, mode, options) for s in shapes for mode in modes
        }
        ours = start_ours(shapes, options)
        # a compiler that takes too long costs its own rows alone
        by = time.monotonic() + COMPILING * (end - time.monotonic())
        compiled = [(name, one) for (name, _), one in references.items() if one.ready(by)]
        ours.ready(end)
        timed: dict[str, list[dict[str, Any]]] = {}
        for name, one in compiled:
            one.go()
            timed.setdefault(name, []).extend(one.rows(end))
        ours.go()
        for row in ours.rows(end):
            if not options.profile:
                report(row, timed.get(row["shape"], []), options)
    return 0


def report(row: dict[str, Any], torch: list[dict[str, Any]], options: argparse.Namespace) -> None:
    """Store and print one row, beside PyTorch's of its shape."""
    row |= {
        "precision": options.precision,
        "parametrization": options.parametrization,
        **torch_part(torch),
    }
    speed = row["torch_tokens_per_second"]
    row |= {
        "ratio": row["ours_tokens_per_second"] / speed if speed else None,
        "date": datetime.date.today().isoformat(),
    }
    print(show(store(options.out, row)), flush=True)


def has_gpu() -> bool:
    """Asked without starting JAX, whose process would hold the GPU's memory."""
    return any(Path(p).exists() for p in ("/dev/nvidia0", "/dev/nvidiactl"))


def parse(args: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--only",
        nargs="+",
        default=[],
        metavar="SHAPE",
        help="shapes, or how they start: 8192,512 or 8192,512,8,1536,64x512",
    )
    parser.add_argument(
        "--seconds",
        type=float,
        default=3600.0,
        help="after so long what runs is ended and nothing new is started",
    )
    parser.add_argument(
        "--trials",
        nargs="+",
        type=int,
        default=[],
        help="cohort sizes (default: those listed for the shape)",
    )
    add_arguments(parser)
    parser.add_argument("--no-torch", dest="torch", action="store_false")
    parser.add_argument("--torch-modes", nargs="+", default=["default", "reduce-overhead"])
    parser.add_argument(
        "--together", type=int, default=2, help="shapes that compile at the same time (default 2)"
    )
    parser.add_argument("--out", type=Path, default=OUT)
    options = parser.parse_args(args)
    known = LADDER if has_gpu() else TINY
    options.shapes = (
        [s for s in known if any(str(s).startswith(text) for text in options.only)]
        if options.only
        else list(known)
    )
    options.shapes += [
        shape(text) for text in options.only if "x" in text and text not in map(str, known)
    ]
    if options.trials:
        options.shapes = [s._replace(trials=tuple(options.trials)) for s in options.shapes]
    if not options.shapes:
        parser.error(
            f"--only {' '.join(options.only)}: no such shape; known: "
            f"{'  '.join(map(str, known))}, or a whole one"
        )
    return options


if __name__ == "__main__":
    sys.exit(bench(parse(sys.argv[1:])))
