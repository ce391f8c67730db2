"""A prepared corpus as two that differ in their validation text alone: its prose, and its code. For
the study `ratio`.

python -m scripts.split_validation CORPUS --out DIR    # DIR/prose and DIR/code
"""

import argparse
import dataclasses
import hashlib
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ground import InputError
from lab.data import Corpus, load, save

END = 0  # the token after each document
CODE_LINES = 0.2  # share of lines that end as statements and blocks do, from which on it is code
CODE_ENDS = (";", "{", "}", "*/", "):")
Tokens = NDArray[np.uint16]


def is_code(text: str) -> bool:
    lines = [line.rstrip() for line in text.splitlines() if line.strip()]
    return bool(lines) and sum(line.endswith(CODE_ENDS) for line in lines) >= CODE_LINES * len(
        lines
    )


def reader(folder: Path, corpus: Corpus) -> Callable[[Tokens], str]:
    """From a document's tokens to its text."""
    if corpus.manifest["tokenizer"] == "bytes":
        return lambda tokens: tokens.astype(np.uint8).tobytes().decode(errors="replace")
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    return lambda tokens: str(tokenizer.decode(tokens.tolist()))


def parts(corpus: Corpus, read: Callable[[Tokens], str]) -> dict[str, Corpus]:
    """The corpus by kind of validation text. Raises InputError where it has one kind alone."""
    ends = np.flatnonzero(corpus.val == END) + 1
    documents = [one for one in np.split(corpus.val, ends) if len(one)]
    kinds: dict[str, list[Tokens]] = {"prose": [], "code": []}
    for one in documents:
        kinds["code" if is_code(read(one[one != END])) else "prose"].append(one)
    for name, those in kinds.items():
        if not those:
            raise InputError(f"corpus: none of its {len(documents)} validation documents is {name}")
    return {name: _with_val(corpus, those, read) for name, those in kinds.items()}


def _with_val(corpus: Corpus, documents: list[Tokens], read: Callable[[Tokens], str]) -> Corpus:
    val = np.concatenate(documents)
    split = {
        "documents": len(documents),
        "bytes": sum(len(read(one[one != END]).encode()) + 1 for one in documents),
        "tokens": len(val),
        "sha256": hashlib.sha256(val.tobytes()).hexdigest(),
    }
    return dataclasses.replace(corpus, val=val, manifest=corpus.manifest | {"val": split})


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("corpus", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    corpus = load(options.corpus)
    for name, part in parts(corpus, reader(options.corpus, corpus)).items():
        save(part, options.out / name)
        if (options.corpus / "tokenizer.json").is_file():
            shutil.copy(options.corpus / "tokenizer.json", options.out / name)
        said = part.manifest["val"]
        print(f"{options.out / name}: {said['documents']} documents, {said['tokens']} tokens")


if __name__ == "__main__":
    main()
