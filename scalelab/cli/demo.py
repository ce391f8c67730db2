"""scalelab demo: sweep, fit, predict, test the prediction, report; everything it writes goes to one
folder.
"""

import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from ground import InputError
from ground.files import replace, writable
from ground.reading import document
from scalelab.cli.args import parse, print_json

PUBLISHED = (
    "demo.json", "prediction.json", "transfer.json", "recipe.json", "report.html",
    "trials.parquet", "transfer.png",
)  # fmt: skip


@dataclass(frozen=True)
class Demo:
    """The whole chain on real text, on a laptop CPU, in minutes: run again, it skips what is
    done.
    """

    out: Path = Path("runs/demo")
    """Where everything goes: corpus, store, fits, prediction.json, report.html, demo.json."""
    text: str = "python"
    """Text to train on: "python" (its own documentation), a text file, a folder, or a prepared
    corpus.
    """
    size: Literal["full", "small"] = "full"
    """small: the same chain with narrower models, in about a minute."""
    publish: Path | None = None
    """Copy a finished demo (tables, fits, prediction, report) to this folder instead of running
    it.
    """
    json: bool = False
    """Print demo.json on stdout at the end."""


def main(args: list[str]) -> int:
    options = parse(Demo, "scalelab demo", args)
    if options.publish is not None:
        return publish(options.out, options.publish)
    begun = time.perf_counter()
    writable(options.out / "demo.json")
    from lab.data import check_size, open_corpus
    from scalelab import chain
    from sweeps.store import create
    from sweeps.studies.demo import BATCH, SEQUENCE, SIZES

    print(
        f"scalelab demo: {options.size}, text {options.text}, everything goes to {options.out}/",
        file=sys.stderr,
    )
    corpus = open_corpus(options.text, chain.corpora(options.out))
    check_size(corpus, SEQUENCE, BATCH)
    m = corpus.manifest
    print(
        f"corpus: {m['train']['tokens']:,} training and {m['val']['tokens']:,} validation "
        f"bytes, {corpus.sha256[:12]}",
        file=sys.stderr,
    )
    store = create(options.out / "store")
    steps = chain.Chain(options.out, SIZES[options.size], store, options.text, corpus)
    answer = chain.run(steps)
    answer["seconds"] = time.perf_counter() - begun
    steps.save("demo.json", answer)
    if options.json:
        print_json(answer)
    else:
        tell(answer, options.out)
    return 0


def publish(run: Path, to: Path) -> int:
    """Copy a finished demo; nothing reads the copy back."""
    missing = [name for name in PUBLISHED if not (run / name).is_file()]
    if missing:
        raise InputError(
            f"out={str(run)!r}: not a finished demo, it lacks {', '.join(missing)}; "
            "run `make demo` first"
        )
    from scalelab.findings import law_files

    stated = document(run / "prediction.json", "prediction")
    names = [*PUBLISHED, *law_files(one["law"] for one in stated["laws"])]
    to.mkdir(parents=True, exist_ok=True)
    for name in names:
        replace(to / name, (run / name).read_bytes())
    print(f"{len(names)} files of {run} copied to {to}")
    return 0


def tell(answer: dict[str, Any], out: Path) -> None:
    """The answer in a few lines."""
    loss, lr, measured, reach = (
        answer["predicted"]["loss"],
        answer["predicted"]["lr"],
        answer["measured"]["loss"],
        answer["reach"],
    )
    for name, drift in answer["drift"].items():
        moves = _with_interval(drift, "+.2f") if drift else "by what these runs do not show,"
        print(
            f"{name + ':':<11}the best LR drifts {moves} in log2 from the narrowest width to the "
            "widest"
        )
    for said in answer["dropped"]:
        print(f"left out:  {said}")
    print(
        f"target:    {reach['params']:.1f}x the parameters and {reach['tokens']:.1f}x the "
        "tokens of the largest trial in the fit"
    )
    print(f"predicted: loss {_with_interval(loss, '.4f')} at LR {_with_interval(lr, '.3g')}")
    if measured is None:
        print("measured:  the target diverged")
    else:
        inside = "inside" if answer["interval_holds"] else "outside"
        print(
            f"measured:  loss {measured:.4f}, {100 * answer['error']:+.2f} % from the "
            f"prediction, {inside} its 90 % interval"
        )
    standard = answer["standard_loss"]
    got = "diverged" if standard is None else f"loss {standard:.4f}"
    print(
        f"standard:  {got} with its LR tuned at its smallest width too; following its drift "
        "over width does better (see the report)"
    )
    for name, n in answer["recipe"].items():
        print(f"recipe:    {name} {n['value']:.4g}  ({n['source']})")
    print(
        f"{answer['trials']} trials, {answer['seconds']:.0f} s; the report is {out / 'report.html'}"
    )


def _with_interval(n: dict[str, Any], spell: str) -> str:
    return f"{n['value']:{spell}} [{n['low']:{spell}}, {n['high']:{spell}}]"
