"""Text to tokens, and what a corpus is made of. No JAX: `lab.windows` says which of them a step
sees.
"""

import ast
import hashlib
import importlib.util
import json
import platform
import sys
import sysconfig
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypedDict

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from ground import InputError, reading
from ground.files import regular, replace
from ground.text import label

SHARD_TOKENS = 1 << 25
TEXT_SUFFIXES = (".txt", ".md", ".rst", ".py", ".c", ".h", ".tex", ".html", ".json", ".csv")
VAL_SHARE = 0.03  # of documents, by the hash of their text


# 1. documents ------------------------------------------------------------------------------------


def python_documents() -> Iterator[tuple[str, str]]:
    """(name, text) of the running Python's own documentation: every topic of `pydoc`, every
    module's docstrings.

    About 2 MB of English prose in CPython 3.11 to 3.13; nothing is downloaded.
    """
    spec = importlib.util.find_spec("pydoc_data.topics")
    if spec is None:
        raise InputError(
            "corpus='python': this Python carries no pydoc_data.topics; give a text "
            "file or folder instead"
        )
    from pydoc_data.topics import topics

    for name in sorted(topics):
        yield f"topic/{name}", topics[name]
    root = Path(sysconfig.get_path("stdlib"))
    for path in sorted(root.rglob("*.py")):
        parts = path.relative_to(root).parts
        if {
            "site-packages",
            "dist-packages",
            "test",
            "tests",
            "idle_test",
            "pydoc_data",
            "__pycache__",
        } & set(parts):
            continue
        text = "\n\n".join(_docstrings(path))
        if len(text) >= 200:  # shorter ones are a name and a shrug
            yield "/".join(("stdlib", *parts)), text


def _docstrings(path: Path) -> list[str]:
    """Docstrings of one module in source order, each once."""
    try:
        tree = ast.parse(path.read_bytes())
    except (SyntaxError, ValueError):  # templates and deliberately broken files
        return []
    kinds = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    found = (ast.get_docstring(node) for node in ast.walk(tree) if isinstance(node, kinds))
    return list(dict.fromkeys(text for text in found if text))


def file_documents(path: Path) -> Iterator[tuple[str, str]]:
    """(name, text) of a folder's text files, or of one file: its NUL-separated documents, else
    slices of 8 kB cut at line ends.
    """
    if path.is_dir():
        for child in sorted(
            p for p in path.rglob("*") if p.is_file() and p.suffix.lower() in TEXT_SUFFIXES
        ):
            yield str(child.relative_to(path)), child.read_text(encoding="utf-8", errors="replace")
        return
    text = path.read_text(encoding="utf-8", errors="replace")
    if "\0" in text:
        yield from (
            (f"{path.name}#{i}", part) for i, part in enumerate(text.split("\0")) if part.strip()
        )
        return
    lines, size, part = [], 0, 0
    for line in text.splitlines(keepends=True):
        lines.append(line)
        size += len(line)
        if size >= 8192:
            yield f"{path.name}#{part}", "".join(lines)
            lines, size, part = [], 0, part + 1
    if lines:
        yield f"{path.name}#{part}", "".join(lines)


def documents(source: str) -> Iterator[tuple[str, str]]:
    """Documents of `source`: "python", a text file, or a folder of text files."""
    if source == "python":
        return python_documents()
    path = Path(source)
    if not (path.is_file() or path.is_dir()):
        raise InputError(
            f"corpus={source!r}: no such file or folder; accepted: 'python', a text "
            "file, a folder of text, a prepared corpus"
        )
    return file_documents(path)


def split(
    docs: Iterable[tuple[str, str]], val_share: float = VAL_SHARE
) -> tuple[list[str], list[str], int]:
    """(train texts, validation texts, duplicates dropped): by the hash of a document's text, so
    that no split sees the other's.

    Documents that differ only in white space are one document.
    """
    train: list[str] = []
    val: list[str] = []
    seen: set[str] = set()
    dropped = 0
    for _, text in docs:
        digest = hashlib.sha256(" ".join(text.split()).encode()).hexdigest()
        if digest in seen:
            dropped += 1
            continue
        seen.add(digest)
        (val if int(digest[:8], 16) < val_share * 2**32 else train).append(text)
    return train, val, dropped


# 2. tokens ---------------------------------------------------------------------------------------


def train_tokenizer(texts: list[str], vocab: int, max_bytes: int = 40_000_000) -> Any:
    """A byte-level BPE of `vocab` entries (HF tokenizers, extra `text`), trained on up to
    `max_bytes` spread over the documents.
    """
    try:
        from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    except ImportError:
        raise InputError(
            f"vocab={vocab}: byte-pair encoding needs the extra 'text' (pip install "
            "'scalelab[text]'); 256 is bytes"
        ) from None
    stride = max(1, sum(map(len, texts)) // max_bytes)
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)  # type: ignore[assignment]
    tokenizer.decoder = decoders.ByteLevel()  # type: ignore[assignment]
    trainer = trainers.BpeTrainer(
        vocab_size=vocab,
        special_tokens=["<|end|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts[::stride], trainer)
    return tokenizer


def encode(texts: list[str], tokenizer: Any | None) -> NDArray[np.uint16]:
    """One stream of tokens, each document followed by the end token 0 (as bytes: NUL, which text
    does not hold).
    """
    if tokenizer is None:
        return np.frombuffer(
            b"".join(t.encode().replace(b"\0", b"") + b"\0" for t in texts), np.uint8
        ).astype(np.uint16)
    parts: list[NDArray[np.uint16]] = []
    for i in range(0, len(texts), 256):
        for coded in tokenizer.encode_batch(texts[i : i + 256]):
            parts.append(np.asarray([*coded.ids, 0], np.uint16))
    return np.concatenate(parts) if parts else np.zeros(0, np.uint16)


@dataclass(frozen=True)
class Corpus:
    """Token streams and where they come from. `sha256` is the hash of the manifest, which holds
    those of the tokens.
    """

    train: NDArray[np.uint16]
    val: NDArray[np.uint16]
    manifest: dict[str, Any]

    @property
    def sha256(self) -> str:
        return hashlib.sha256(json.dumps(self.manifest, sort_keys=True).encode()).hexdigest()

    @property
    def vocab(self) -> int:
        return int(self.manifest["vocab"])

    @property
    def bytes_per_token(self) -> float:
        """Of the validation split: turns nats per token into bits per byte."""
        return self.manifest["val"]["bytes"] / self.manifest["val"]["tokens"]


def prepare(source: str, out: Path, vocab: int = 256, val_share: float = VAL_SHARE) -> Corpus:
    """Documents of `source` to token shards in `out`, with a manifest; `vocab` 256 is bytes, more
    is byte-level BPE.
    """
    if not 0 < val_share < 1:
        raise InputError(f"val_share={val_share}: must be between 0 and 1")
    if not (vocab == 256 or 512 <= vocab <= 65536):
        raise InputError(f"vocab={vocab}: must be 256 (bytes) or 512 to 65536 (byte-level BPE)")
    train_texts, val_texts, dropped = split(documents(source), val_share)
    if not train_texts or not val_texts:
        raise InputError(
            f"corpus={source!r}: {len(train_texts)} training and {len(val_texts)} validation "
            "documents; needs at least 1 of each"
        )
    tokenizer = train_tokenizer(train_texts, vocab) if vocab > 256 else None
    streams = {
        "train": (train_texts, encode(train_texts, tokenizer)),
        "val": (val_texts, encode(val_texts, tokenizer)),
    }
    manifest: dict[str, Any] = {
        "format": 1,
        "source": source if source == "python" else Path(source).name,
        "python": platform.python_version() if source == "python" else "",
        "tokenizer": "bytes" if tokenizer is None else "bpe",
        "tokenizer_sha256": ""
        if tokenizer is None
        else hashlib.sha256(tokenizer.to_str().encode()).hexdigest(),
        "vocab": vocab,
        "duplicates_dropped": dropped,
    }
    for name, (texts, tokens) in streams.items():
        manifest[name] = {
            "documents": len(texts),
            "bytes": sum(len(t.encode()) for t in texts) + len(texts),
            "tokens": len(tokens),
            "sha256": hashlib.sha256(tokens.tobytes()).hexdigest(),
        }
    corpus = Corpus(streams["train"][1], streams["val"][1], manifest)
    save(corpus, out)
    if tokenizer is not None:
        replace(out / "tokenizer.json", tokenizer.to_str(pretty=True))
    return corpus


def save(corpus: Corpus, out: Path, level: int = 9) -> None:
    """Shards `train-00000.u16.zst` ... (little-endian uint16 under zstd), then manifest.json, so a
    manifest means a whole corpus.

    Each file appears whole: another process may prepare the same corpus, or read it. What an
    earlier corpus left in `out` goes.
    """
    out.mkdir(parents=True, exist_ok=True)
    shards = set()
    for name in ("train", "val"):
        tokens = getattr(corpus, name)
        for i in range(0, max(len(tokens), 1), SHARD_TOKENS):
            raw = tokens[i : i + SHARD_TOKENS].astype("<u2").tobytes()
            shards.add(out / f"{name}-{i // SHARD_TOKENS:05d}.u16.zst")
            replace(
                out / f"{name}-{i // SHARD_TOKENS:05d}.u16.zst",
                pa.Codec("zstd", level).compress(raw, asbytes=True),
            )
    for stale in {
        *out.glob("train-*.u16.zst"),
        *out.glob("val-*.u16.zst"),
        out / "tokenizer.json",
    } - shards:
        stale.unlink(missing_ok=True)
    replace(out / "manifest.json", json.dumps(corpus.manifest, indent=1, sort_keys=True) + "\n")


class _Split(TypedDict):
    documents: int
    bytes: int
    tokens: int
    sha256: str


class _Manifest(TypedDict):
    source: str
    python: str
    vocab: int
    train: _Split
    val: _Split


def load(folder: Path) -> Corpus:
    """A prepared corpus; a stream that does not have the manifest's hash is refused."""
    where = f"corpus={str(folder)!r}"
    try:
        manifest = reading.document(folder / "manifest.json", "corpus")
        reading.read(_Manifest, manifest, "manifest")
        for key in ("source", "python"):
            label(key, manifest[key])
        if not 2 <= manifest["vocab"] <= 1 << 16:
            reading.refuse("vocab", manifest["vocab"], "2 to 65536")
        if min(manifest[split]["tokens"] for split in ("train", "val")) < 1:
            reading.refuse("tokens", 0, "above 0 in both splits")
    except InputError as error:
        raise InputError(f"{where}: no readable manifest.json ({error})") from None
    streams = {}
    for name in ("train", "val"):
        parts = []
        for path in sorted(folder.glob(f"{name}-*.u16.zst")):
            # no more than a shard holds: a damaged one may say that it holds anything
            try:
                with regular(path) as file, pa.CompressedInputStream(file, "zstd") as stream:
                    parts.append(stream.read(2 * SHARD_TOKENS + 2))
            except (OSError, ValueError) as error:
                raise InputError(f"{where}: {path.name} cannot be read ({error})") from None
        whole = b"".join(parts)
        tokens = np.frombuffer(whole, "<u2", len(whole) // 2)
        streams[name] = tokens.astype(np.uint16, copy=False)
        if hashlib.sha256(streams[name].data).hexdigest() != manifest[name]["sha256"]:
            raise InputError(
                f"{where}: the {name} tokens are not those of the manifest; prepare it again"
            )
        if streams[name].max() >= manifest["vocab"]:
            raise InputError(
                f"{where}: a token of {name} is {streams[name].max()}, vocab={manifest['vocab']}"
            )
    return Corpus(streams["train"], streams["val"], manifest)


def open_corpus(source: str, cache: Path, vocab: int = 256) -> Corpus:
    """The prepared corpus at `source`, or `source` ("python", file, folder) prepared once under
    `cache`.

    A cache made by another Python, or of text that has changed since, is made again.
    """
    if (Path(source) / "manifest.json").is_file():
        return load(Path(source))
    if source != "python":
        documents(source)  # refuses a missing path before anything is written
    stamp = sys.version.split()[0] if source == "python" else _fingerprint(Path(source))
    folder = cache / hashlib.sha256(f"{source}|{vocab}|{stamp}".encode()).hexdigest()[:16]
    return load(folder) if (folder / "manifest.json").is_file() else prepare(source, folder, vocab)


def _fingerprint(path: Path) -> str:
    files = sorted(p for p in path.rglob("*") if p.is_file()) if path.is_dir() else [path]
    return "|".join(f"{p}:{p.stat().st_size}:{p.stat().st_mtime_ns}" for p in files)


# 3. size ----------------------------------------------------------------------------------------


def check_size(corpus: Corpus, sequence: int, batch: int, unique_tokens: int = 0) -> None:
    """Refuse a corpus that cannot fill one batch of distinct windows or one validation window."""
    need = sequence * batch + 1
    have = unique_tokens or len(corpus.train)
    if have > len(corpus.train):
        raise InputError(
            f"unique_tokens={unique_tokens}: the corpus has {len(corpus.train)} training tokens"
        )
    if have < need:
        raise InputError(
            f"corpus: {have} training tokens; a batch of {batch} x {sequence} needs at least {need}"
        )
    if len(corpus.val) < sequence + 1:
        raise InputError(
            f"corpus: {len(corpus.val)} validation tokens; sequence={sequence} needs "
            f"at least {sequence + 1}"
        )
