"""Where a step's time goes: the GPU kernels of one traced dispatch, joined with the bytes that the
compiled program says they move.
"""

import collections
import glob
import gzip
import json
import math
import re
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

BYTES = {
    "pred": 1,
    "s8": 1,
    "u8": 1,
    "bf16": 2,
    "f16": 2,
    "u16": 2,
    "f32": 4,
    "s32": 4,
    "u32": 4,
    "s64": 8,
    "f64": 8,
    "f8e4m3fn": 1,
    "f8e5m2": 1,
}
_INSTRUCTION = re.compile(r"^\s*(?:ROOT )?%([\w.\-]+) = (\(.*?\)|\S+) ([\w\-]+)\((.*)$")


class Kernel(NamedTuple):
    """One HLO instruction that ran: milliseconds a step, launches a step, bytes of operands and
    results, what it is.
    """

    name: str
    milliseconds: float
    launches: float
    bytes: int
    kind: str  # matmul | attention | elementwise
    result: str
    source: str


def size(types: str) -> int:
    """Bytes of every array named in an HLO type; cuBLAS's scratch, which it need not touch, left
    out.
    """
    total = 0
    for dtype, dims in re.findall(r"(\w+)\[([\d,]*)\]", types):
        if dtype in BYTES and dtype != "s8":
            total += BYTES[dtype] * math.prod(int(n) for n in dims.split(",") if n)
    return total


def instructions(hlo: str) -> dict[str, dict[str, Any]]:
    """Instruction name -> its bytes, kind, result type and source op, of every instruction in the
    optimised program.
    """
    found, types = {}, {}
    for line in hlo.splitlines():
        match = _INSTRUCTION.match(line)
        if not match:
            continue
        name, result, op, rest = match.groups()
        types[name] = result
        operands = re.findall(r"%([\w.\-]+)", rest.split("), ")[0])
        target = re.search(r'custom_call_target="([^"]*)"', rest)
        source = re.search(r'op_name="([^"]*)"', rest)
        kind = "elementwise"
        if target and "cudnn" in target[1]:
            kind = "attention"
        elif (
            (target and ("cublas" in target[1] or "gemm" in target[1]))
            or "__triton_gemm" in rest
            or "__cublas" in rest
        ):
            kind = "matmul"
        found[name] = {
            "bytes": size(result) + sum(size(types.get(o, "")) for o in operands),
            "kind": kind,
            "result": re.sub(r"\{[^}]*\}", "", result),
            "source": source[1][-60:] if source else op,
        }
    return found


def _events(folder: str) -> Iterator[tuple[str, float]]:
    """(HLO instruction or kernel name, microseconds) of every kernel in the trace under
    `folder`.
    """
    for path in glob.glob(f"{folder}/**/*.trace.json.gz", recursive=True):
        trace = json.loads(gzip.decompress(Path(path).read_bytes()))["traceEvents"]
        process = {e["pid"]: e["args"]["name"] for e in trace if e.get("name") == "process_name"}
        threads = {
            (e["pid"], e["tid"]): e["args"]["name"] for e in trace if e.get("name") == "thread_name"
        }
        # a GPU's other rows (modules, ops) repeat what its streams show
        streams = {
            key
            for key, name in threads.items()
            if "GPU" in process.get(key[0], "") and "Stream" in name
        }
        for event in trace:
            about = event.get("args", {})
            if "dur" in event and (
                (event["pid"], event["tid"]) in streams if streams else "hlo_op" in about
            ):
                name = about.get("hlo_op", event["name"])
                if not name.startswith(("while", "call")):  # they hold others
                    yield name, event["dur"]


def profile(run: Callable[[], object], steps: int, hlo: str) -> list[Kernel]:
    """Kernels of `run()`, which makes `steps` steps of the program `hlo`, the slowest first; empty
    where nothing could be traced.
    """
    import jax

    with tempfile.TemporaryDirectory() as folder:
        with jax.profiler.trace(folder):
            run()
        time: dict[str, float] = collections.defaultdict(float)
        count = collections.Counter[str]()
        for name, microseconds in _events(folder):
            time[name] += microseconds
            count[name] += 1
    known = {
        key: found
        for name, found in instructions(hlo).items()
        for key in (name, name.replace(".", "_").replace("-", "_"))
    }

    def about(name: str) -> dict[str, Any]:
        return known.get(name, {"bytes": 0, "kind": "unnamed", "result": name, "source": ""})

    kernels = [
        Kernel(name, ms / 1e3 / steps, count[name] / steps, **about(name))
        for name, ms in time.items()
    ]
    return sorted(kernels, key=lambda k: -k.milliseconds)


def summary(kernels: list[Kernel], top: int = 30) -> str:
    """Milliseconds a step by kind, then the slowest groups of equal kernels with the bandwidth each
    reached.
    """
    kinds: dict[str, float] = collections.defaultdict(float)
    groups: dict[tuple[str, str, int], list[float]] = {}
    for k in kernels:
        kinds[k.kind] += k.milliseconds
        entry = groups.setdefault((k.kind, k.result[:100], k.bytes), [0.0, 0.0])
        entry[0] += k.milliseconds
        entry[1] += k.launches
    sources = {(k.kind, k.result[:100], k.bytes): k.source for k in kernels}
    by_kind = sorted(kinds.items(), key=lambda item: -item[1])
    told = ", ".join(f"{kind} {ms:.3f}" for kind, ms in by_kind)
    lines = [f"ms a step: {told}; all {sum(kinds.values()):.3f}"]
    for key, (ms, launches) in sorted(groups.items(), key=lambda item: -item[1][0])[:top]:
        kind, result, moved = key
        speed = moved * launches / (ms / 1e3) / 1e12 if ms else 0.0
        lines.append(
            f"{ms:8.3f} ms x{launches:5.1f} {speed:5.2f} TB/s {kind:11s} {result} | {sources[key]}"
        )
    return "\n".join(lines)
