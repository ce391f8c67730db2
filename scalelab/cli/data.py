"""scalelab data prepare: text to token shards with a manifest and a validation split by
document.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from tyro.conf import Positional, arg

from ground import InputError
from ground.files import writable
from scalelab.cli.args import parse, print_json


@dataclass(frozen=True)
class Prepare:
    """Text to token shards, with a manifest (bytes, tokens, tokenizer, hashes) and a validation
    split by document.
    """

    source: Annotated[Positional[str], arg(metavar="TEXT")]
    """A text file (documents separated by NUL, else cut every 8 kB), a folder of text files, or
    "python": its own documentation.
    """
    out: Path
    """The folder to write."""
    vocab: int = 256
    """256: bytes. 512 to 65536: byte-level BPE, trained on the training split (extra `text`)."""
    val_share: float = 0.03
    """Share of the documents that training never sees, chosen by the hash of their text."""
    json: bool = False
    """Print the manifest as one JSON document."""


def main(args: list[str]) -> int:
    if not args or args[0] not in ("prepare", "-h", "--help"):
        raise InputError(
            f"command={args[0] if args else ''!r}: must be prepare (scalelab data "
            "prepare SOURCE --out DIR)"
        )
    options = parse(Prepare, "scalelab data prepare", args[1:] if args[0] == "prepare" else args)
    writable(options.out / "manifest.json")
    from lab import data

    corpus = data.prepare(options.source, options.out, options.vocab, options.val_share)
    if options.json:
        print_json({**corpus.manifest, "sha256": corpus.sha256})
        return 0
    for name in ("train", "val"):
        m = corpus.manifest[name]
        print(
            f"{name:<5} {m['documents']:>8,} documents {m['bytes']:>13,} bytes "
            f"{m['tokens']:>12,} tokens"
        )
    print(f"corpus {corpus.sha256[:16]} in {options.out}")
    return 0
