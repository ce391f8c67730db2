"""Hostile input for every command: files that were cut, mixed, blown up or replaced, and arguments
out of every range. Whatever comes in, a command ends in time and in memory, and what it refuses it
refuses in one or two lines and with exit code 2.

    python -m scripts.fuzz --inputs 600 --seed 0 --json

Each input is a process of its own in a folder of its own, with 10 s of a core and 4 GB, and with
WAITS times that by the clock, since other work may share the machine; what it leaves outside of
that folder is a finding too. One seed gives the same inputs again.
"""

import argparse
import dataclasses
import json
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from math import ceil
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
SECONDS, BYTES = 10.0, 4 << 30
WAITS = 3.0  # the clock's limit over the core's
LINES = 2  # of a refusal
CODES = (0, 1, 2)  # 1: a verdict that is not the expected one
EVIL = (
    "", " ", "nan", "inf", "-inf", "1e999", "-1", "0", "1e-320", "9" * 400, "true", "null",
    "=1+1", "../../up", "a\nb", "\x1b[2J", "\u202e", "\x00", "'; DROP TABLE", "{{7*7}}",
    "__import__('os').system('touch PWNED')", "x" * 5000, "\ud7ff", "1_000", "0x10", "١",
)  # fmt: skip


# 1. what is good -----------------------------------------------------------------------------


def csv_text() -> str:
    rows = ["run_id,study,parametrization,optimizer,params,tokens,width,depth,lr,loss,status"]
    i = 0
    for width in (32, 64, 128):
        for k in range(6):
            for tokens in (1e9, 4e9, 2e10):
                n, lr = 12e3 * width**2, 2.0 ** (k - 6)
                loss = 1.8 + 400 / n**0.34 + 2000 / tokens**0.36 + 0.02 * (k - 3) ** 2
                rows.append(f"r{i},s,u-mup,adamw,{n:g},{tokens:g},{width},2,{lr},{loss:.6f},done")
                i += 1
    return "\n".join(rows) + "\n"


STUDY = """question: Where is the best LR?
expectation: It stays.
space: {product: {width: [16, 32], lr: {powers: [-4, -1]}}}
common: {sequence: 32, batch: 2, depth: 1, head_dim: 8, ff_ratio: 4, steps: 2}
refine: lr
rounds: 1
"""


def seeds(folder: Path) -> None:
    """Good files of every kind that a command reads, made by the commands themselves."""
    import pandas as pd

    from lab.parametrization import TABLES, to_data
    from sweeps import space
    from sweeps.record import make_record
    from sweeps.store import create
    from tests.sweeps import toy

    (folder / "runs.csv").write_text(csv_text())
    pd.read_csv(folder / "runs.csv").to_parquet(folder / "runs.parquet")
    (folder / "study.yaml").write_text(STUDY)
    (folder / "table.json").write_text(json.dumps({**to_data(TABLES["mup"]), "name": "mine"}))
    (folder / "text.txt").write_text("\n".join(f"{i} squared is {i * i}." for i in range(9000)))
    (folder / "at.csv").write_text("params,tokens\n1e8,2e9\n3e8,6e9\n")
    store = create(folder / "store")
    trials = space.subsample(toy.trials(12), 12)  # type: ignore[arg-type, type-var]
    store.declare("toy", "q", "e", trials)  # type: ignore[arg-type]
    for trial in trials[:8]:
        store.publish(make_record("toy", trial, toy.descend(trial)))  # type: ignore[arg-type]
    made = (
        ["fit", "runs.csv", "--out", "fit.json", "--bootstrap", "20"],
        ["fit", "runs.csv", "--law", "auto", "--out", "auto.json"],
        ["predict", "--params", "1e9", "--tokens", "2e10", "--out", "recipe.json"],
        ["sweep", "export", "store", "--out", "store.parquet"],
        ["data", "prepare", "text.txt", "--out", "corpus"],
    )
    printed = (
        (["check", "transfer", "runs.csv", "--json"], "transfer.json"),
        (["audit", "runs.csv", "--json"], "audit.json"),
    )
    for args in made:
        if (done := run(args, folder, 120)).returncode:
            raise SystemExit(f"a good input is refused: {args}: {done.stderr[-2000:]}")
    for args, name in printed:
        (folder / name).write_text(run(args, folder, 120).stdout)
    loss = {"value": 2.5, "low": 2.4, "high": 2.6, "level": 0.9, "source": "law"}
    prediction = {"predicted": {"loss": loss}, "target": {"params": 1e9, "tokens": 2e10},
                  "measured": {"loss": 2.55}}  # fmt: skip
    (folder / "prediction.json").write_text(json.dumps(prediction))


# Commands by the file that is spoiled; {} stands for it.
COMMANDS: dict[str, tuple[str, ...]] = {
    "runs.csv": (
        "fit {}", "fit {} --law auto", "fit {} --law lr-batch", "audit {}", "report {}",
        "check transfer {}", "fit {} --best-over lr --bootstrap 5",
        "check transfer {} --axis depth", "fit {} --map loss=lr --where width=64",
        "design {} --budget 9% --replay --target params=1e9 tokens=2e10",
    ),
    "runs.parquet": ("fit {}", "report {}", "check transfer {}", "audit {}"),
    "study.yaml": (
        "sweep run {} --store s --trainer tests.sweeps.toy:train --corpus text.txt",
        "design {} --budget 99% --target params=1e9 tokens=2e10",
    ),
    "table.json": ("train --table {} --parametrization mine --explain --corpus text.txt",),
    "at.csv": (
        "predict --at {} --out o.csv", "predict --at {} --out o.csv --extrapolate",
        "design {} --budget 9% --runs runs.csv --target params=1e9 tokens=2e10",
    ),
    "fit.json": (
        "predict --params 1e9 --tokens 2e10 --fit {}", "report runs.csv --fit {}",
        "predict --params 1e9 --tokens 2e10 --fit {} --export nanogpt",
        "predict --at at.csv --out o.csv --fit {} --extrapolate",
    ),
    "auto.json": ("predict --params 1e9 --tokens 2e10 --fit {}", "report runs.csv --fit {}"),
    "transfer.json": (
        "predict --params 1e9 --tokens 2e10 --width 512 --fit {}",
        "predict --params 1e9 --tokens 2e10 --width 512 --fit {} --export torchtitan",
    ),
    "recipe.json": ("report runs.csv --recipe {}",),
    "prediction.json": (
        "report runs.csv --prediction {}", "report runs.csv --fit fit.json --prediction {}",
    ),
    "audit.json": ("report runs.csv --audit {}",),
    "store.parquet": (
        "sweep run study.yaml --store s --parquet {} --trainer tests.sweeps.toy:train "
        "--corpus text.txt", "report {}", "fit {}", "check noise {}",
    ),
    "store": ("sweep status {}", "sweep status {} --json", "sweep export {} --out o.csv",
              "sweep export {} --out o.parquet", "report {}", "fit {}", "check noise {}"),
    "corpus": ("train --explain --corpus {}",),
    "": (
        "fit runs.csv", "audit runs.csv", "report runs.csv", "check transfer runs.csv",
        "predict --params 1e9 --tokens 2e10", "laws", "train --explain --corpus text.txt",
        "sweep status store", "sweep export store --out o.csv", "data prepare text.txt --out c",
    ),
}  # fmt: skip
# Options whose value is drawn from EVIL, by command; none of a name that would run code.
OPTIONS = {
    "fit": ("--law", "--objective", "--delta", "--where", "--best-over", "--map", "--prior",
            "--params-kind", "--bootstrap", "--level", "--seed", "--out"),
    "audit": ("--law", "--where", "--best-over", "--map", "--params-kind"),
    "report": ("--out", "--where", "--map", "--tolerance", "--title", "--fit", "--recipe"),
    "check": ("--axis", "--hyperparameter", "--tolerance", "--where", "--map", "--noise",
              "--expect", "--out"),
    "predict": ("--params", "--tokens", "--fit", "--vocab", "--width", "--depth", "--sequence",
                "--batch-tokens", "--unique-tokens", "--experts", "--experts-per-token",
                "--sparsity", "--level", "--export", "--parametrization", "--out",
                "--params-kind"),
    "design": ("--budget", "--target", "--map", "--inputs", "--cost", "--best-over", "--device",
               "--step-time", "--runs", "--criterion", "--rounds", "--level", "--out"),
    "laws": ("--json", ""),
    "train": ("--width", "--depth", "--steps", "--batch", "--sequence", "--lr", "--head-dim",
              "--ff", "--parametrization", "--optimizer", "--beta2", "--init-seed", "--vocab",
              "--diagnostics", "--corpus", "--batch-schedule"),
    "sweep": ("--out", "--json", "--store"),
    "data": ("--out", "--vocab", "--val-share"),
}  # fmt: skip


# 2. what is bad ------------------------------------------------------------------------------


def evil(rng: random.Random) -> str:
    return rng.choice(EVIL)


def spoil_bytes(data: bytes, rng: random.Random) -> bytes:
    """Cut, flipped, doubled, blown up, or something else altogether."""
    at = rng.randrange(len(data) + 1)
    return rng.choice(
        (
            lambda: data[:at],
            lambda: data[at:],
            lambda: data[:at] + bytes([rng.randrange(256)]) + data[at + 1 :],
            lambda: data[:at] + evil(rng).encode("utf-8", "replace") + data[at:],
            lambda: b"",
            lambda: bytes(rng.randrange(256) for _ in range(200)),
            lambda: data * 2,
            lambda: b"[" * 100_000,
            lambda: b"\xff\xfe" + data,
        )
    )()


def spoil_text(data: bytes, rng: random.Random) -> bytes:
    """One cell or word of it replaced, or a line repeated, lost or lengthened."""
    lines = data.decode().split("\n")
    i = rng.randrange(len(lines))
    cells = lines[i].split(",")
    cells[rng.randrange(len(cells))] = evil(rng)
    changed = {
        "cell": lambda: [*lines[:i], ",".join(cells), *lines[i + 1 :]],
        "column": lambda: [
            ",".join(evil(rng) if j == 5 else c for j, c in enumerate(line.split(",")))
            for line in lines
        ],
        "header": lambda: [evil(rng), *lines[1:]],
        "lost": lambda: lines[:i] + lines[i + 1 :],
        "again": lambda: lines[:i] + lines[i : i + 1] * 2000 + lines[i + 1 :],
        "longer": lambda: [*lines[:i], lines[i] + "," + evil(rng), *lines[i + 1 :]],
    }
    return "\n".join(changed[rng.choice(list(changed))]()).encode("utf-8", "replace")


VALUES: tuple[Any, ...] = (None, True, -1, 0, 1e308, -1e308, 1e-320, 10**400, "", "x", [], {}, [[]],
                           "a\nb", "\x1b[2J", [1, 2, 3], {"a": 1}, "nan", 3.5)  # fmt: skip


def spoil_json(data: bytes, rng: random.Random) -> bytes:
    """One value of the document replaced, lost, or moved."""
    document = json.loads(data)
    node, path = document, []
    while isinstance(node, dict | list) and node:
        key = rng.choice(list(node)) if isinstance(node, dict) else rng.randrange(len(node))
        path.append((node, key))
        node = node[key]
    if not path:
        return b"null"
    parent, key = path[rng.randrange(len(path))]
    how = rng.random()
    if how < 0.2:
        del parent[key]
    elif how < 0.3 and isinstance(parent, dict):
        parent[evil(rng)] = parent.pop(key)
    else:
        parent[key] = rng.choice(VALUES)
    return json.dumps(document).encode()


def spoil_yaml(data: bytes, rng: random.Random) -> bytes:
    words = data.decode().replace("{", "{ ").replace("}", " }").split(" ")
    more = ("[1, 2]", "{a: 1}", "&a", "*a", "1.0e9", "10000000", "!!python/name:os.system")
    words[rng.randrange(len(words))] = rng.choice((*EVIL, *more))
    return " ".join(words).encode("utf-8", "replace")


def spoil_parquet(path: Path, rng: random.Random) -> None:
    """Columns of another type, lost, or without a value; or its bytes."""
    import pandas as pd

    if rng.random() < 0.4:
        path.write_bytes(spoil_bytes(path.read_bytes(), rng))
        return
    frame = pd.read_parquet(path)
    name = rng.choice(list(frame.columns))
    how = rng.randrange(5)
    if how == 0:
        frame = frame.drop(columns=name)
    elif how == 1:
        frame[name] = evil(rng).encode("utf-8", "replace").decode()
    elif how == 2:
        frame[name] = None
    elif how == 3:
        frame[name] = [[1, 2]] * len(frame)
    else:
        frame = frame.rename(columns={name: evil(rng)}).head(rng.choice((0, 1, 5)))
    frame.to_parquet(path)


def replaced(path: Path, rng: random.Random) -> None:
    """Another kind of thing in a file's place."""
    path.unlink()
    how = rng.randrange(4)
    if how == 0:
        path.mkdir()
    elif how == 1:
        os.mkfifo(path)
    elif how == 2:
        path.symlink_to(path.name)
    else:
        path.symlink_to("/dev/zero")


def spoil(path: Path, rng: random.Random) -> None:
    if path.is_dir():
        path = rng.choice(sorted(p for p in path.rglob("*") if p.is_file()))
    if rng.random() < 0.06:
        replaced(path, rng)
        return
    if path.suffix == ".parquet":
        spoil_parquet(path, rng)
        return
    ways: dict[str, Callable[[bytes, random.Random], bytes]] = {
        ".csv": spoil_text,
        ".yaml": spoil_yaml,
        ".json": spoil_json,
    }
    way = ways.get(path.suffix, spoil_bytes) if rng.random() < 0.75 else spoil_bytes
    data = path.read_bytes()
    try:
        path.write_bytes(way(data, rng))
    except ValueError:  # a record of a store is JSON after its first line
        path.write_bytes(spoil_bytes(data, rng))


@dataclasses.dataclass(frozen=True)
class Input:
    """One command line, and the file that is spoiled before it runs."""

    number: int
    file: str
    args: tuple[str, ...]


def inputs(count: int, seed: int) -> list[Input]:
    rng = random.Random(seed)
    return [one(i, rng) for i in range(count)]


def one(number: int, rng: random.Random) -> Input:
    file = rng.choice([*COMMANDS, "runs.csv", ""])
    args = [a.replace("{}", file) for a in rng.choice(COMMANDS[file]).split()]
    if not file or rng.random() < 0.1:
        for _ in range(rng.randint(1, 2)):
            args += [rng.choice(OPTIONS[args[0]]), evil(rng)]
    return Input(number, file, tuple(a.replace("\x00", "\ufffd") for a in args))


# 3. running ----------------------------------------------------------------------------------


def run(args: list[str], folder: Path, seconds: float) -> "subprocess.CompletedProcess[str]":
    """The command in `folder`, a group of its own that ends with it."""
    env = {**os.environ, "PYTHONPATH": str(ROOT), "HOME": str(folder), "OMP_NUM_THREADS": "1",
           "OPENBLAS_NUM_THREADS": "1"}  # fmt: skip

    def bounded() -> None:
        resource.setrlimit(resource.RLIMIT_DATA, (BYTES, BYTES))
        resource.setrlimit(resource.RLIMIT_CPU, (ceil(seconds), ceil(seconds)))

    process = subprocess.Popen(
        [sys.executable, "-P", "-m", "scalelab", *args], cwd=folder, env=env, text=True,
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        errors="replace", start_new_session=True, preexec_fn=bounded,
    )  # fmt: skip
    try:
        out, err = process.communicate(timeout=WAITS * seconds)
        return subprocess.CompletedProcess(args, process.returncode, out, err)
    except subprocess.TimeoutExpired as late:
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        raise late


def finding(given: Input, good: Path, around: Path, seed: int, seconds: float) -> str:
    """What is wrong with how a command took an input; "" when nothing is."""
    home = around / str(given.number)
    shutil.copytree(good, home / "in")
    rng = random.Random(f"{seed}/{given.number}")
    if given.file:
        spoil(home / "in" / given.file, rng)
    try:
        done = run(list(given.args), home / "in", seconds)
    except subprocess.TimeoutExpired:
        shutil.rmtree(home, ignore_errors=True)
        return "hangs"
    except ValueError as error:  # no process can be given such an argument
        return "" if "null byte" in str(error) else str(error)
    escaped = sorted(p.name for p in home.iterdir() if p.name != "in")
    shutil.rmtree(home, ignore_errors=True)
    said = [line for line in done.stderr.splitlines() if line.strip()]
    if done.returncode == -signal.SIGKILL:
        return "hangs"
    if escaped:
        return f"wrote outside of its folder: {escaped}"
    if "Traceback" in done.stderr or done.returncode not in CODES:
        return f"exit {done.returncode}: {' | '.join(said[-4:])[-600:]}"
    if done.returncode == 2 and not 1 <= len([s for s in said if "Warning" not in s]) <= LINES:
        return f"a refusal of {len(said)} lines: {' | '.join(said)[:600]}"
    if "\x1b" in done.stdout + done.stderr:
        return "an escape sequence reached the terminal"
    return ""


def fuzz(count: int, seed: int, jobs: int, seconds: float = SECONDS) -> dict[str, Any]:
    """Every input's finding, by the command line that repeats it."""
    with tempfile.TemporaryDirectory(prefix="scalelab-fuzz-") as scratch:
        good, around = Path(scratch) / "good", Path(scratch) / "run"
        good.mkdir()
        around.mkdir()
        seeds(good)
        given = inputs(count, seed)
        with ThreadPoolExecutor(jobs) as pool:
            found = list(pool.map(lambda g: finding(g, good, around, seed, seconds), given))
    wrong = [
        {"number": g.number, "file": g.file, "args": list(g.args), "finding": f}
        for g, f in zip(given, found, strict=True)
        if f
    ]
    return {"inputs": count, "seed": seed, "findings": wrong}


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--inputs", type=int, default=600)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--jobs", type=int, default=max(1, (os.cpu_count() or 2) // 2))
    parser.add_argument("--seconds", type=float, default=SECONDS, help="of each input")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args(argv)
    document = fuzz(options.inputs, options.seed, options.jobs, options.seconds)
    if options.json:
        print(json.dumps(document, indent=1))
    else:
        for one_ in document["findings"]:
            print(f"{one_['number']:>4} {one_['file']:<16} {one_['args']}\n     {one_['finding']}")
        print(
            f"{len(document['findings'])} findings in {options.inputs} inputs, seed {options.seed}"
        )
    return 1 if document["findings"] else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
