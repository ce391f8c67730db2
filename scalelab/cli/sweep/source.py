"""What `plan` and `run` share: a study and the text that it is trained on."""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from tyro.conf import Positional, arg

if TYPE_CHECKING:
    from lab.data import Corpus
    from sweeps.studies import Study


@dataclass(frozen=True, kw_only=True)
class Source:
    study: Annotated[Positional[str], arg(metavar="STUDY")]
    """A built-in study by name, or a path to a study of your own: .yaml of plain data, or .py,
    which is executed with all that its code does.
    """
    corpus: str = "python"
    """"python" (its own documentation), a text file, a folder of text, or a corpus made by
    `scalelab data prepare`.
    """
    vocab: int = 256
    """256: bytes. 512 to 65536: byte-level BPE. A prepared corpus has its own."""
    cache: Path = Path("runs/corpora")
    """Where corpora that are made on the way are kept."""
    option: dict[str, str] = field(default_factory=dict)
    """Options of the study's function: NAME VALUE ..., each value read as JSON where it is JSON."""
    json: bool = False
    """Print the answer as one JSON document."""


def _value(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text


def open_study(source: Source) -> "tuple[Study, Corpus]":
    """The study on its corpus, which is made once the file is known to be a study; a corpus too
    small for one of its trials is refused before anything runs.
    """
    from lab import batches
    from lab.data import check_size, open_corpus
    from lab.program import signature
    from sweeps.studies import opened

    of = opened(source.study, **{k: _value(v) for k, v in source.option.items()})
    corpus = open_corpus(source.corpus, source.cache, source.vocab)
    study = of(corpus.sha256, corpus.vocab)
    for trial in {(signature(t), t.unique_tokens): t for t in study.trials}.values():
        check_size(corpus, trial.sequence, batches.largest(trial), trial.unique_tokens)
    return study, corpus
