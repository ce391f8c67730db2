"""Corpora: split by document, hashed, refused when too small; batches: a permutation per epoch, a
function of (seed, step).
"""

import os

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ground import InputError
from lab import data, windows

TEXTS = [
    (f"doc{i}", f"document {i}: " + "the quick brown fox jumps over the lazy dog. " * (i % 7 + 3))
    for i in range(200)
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    root = tmp_path_factory.mktemp("texts")
    for name, text in TEXTS:
        (root / f"{name}.txt").write_text(text)
    return root


def test_split_is_by_document_and_drops_duplicates():
    train, val, dropped = data.split([*TEXTS, ("again", TEXTS[0][1] + "  \n")])
    assert dropped == 1
    assert not set(train) & set(val)
    assert len(train) + len(val) == len(TEXTS)
    assert 1 <= len(val) <= 0.12 * len(TEXTS)


def test_prepare_load_round_trip_and_hash(folder, tmp_path):
    made = data.prepare(str(folder), tmp_path / "c")
    read = data.load(tmp_path / "c")
    assert made.sha256 == read.sha256
    np.testing.assert_array_equal(made.train, read.train)
    assert (
        bytes(read.val.astype(np.uint8)).decode().count("\0") == read.manifest["val"]["documents"]
    )
    assert read.bytes_per_token == 1.0
    shard = next((tmp_path / "c").glob("train-*"))
    shard.write_bytes(data.pa.Codec("zstd").compress(b"\1\0" * 10, asbytes=True))
    with pytest.raises(InputError, match="not those of the manifest"):
        data.load(tmp_path / "c")


def test_a_smaller_corpus_replaces_a_larger_one(folder, tmp_path, monkeypatch):
    monkeypatch.setattr(data, "SHARD_TOKENS", 4096)
    data.prepare(str(folder), tmp_path / "c")
    (tmp_path / "few").mkdir()
    for name, text in TEXTS[:60]:
        (tmp_path / "few" / f"{name}.txt").write_text(text)
    made = data.prepare(str(tmp_path / "few"), tmp_path / "c")
    assert data.load(tmp_path / "c").sha256 == made.sha256


def test_bpe_round_trip(folder, tmp_path):
    tokenizers = pytest.importorskip("tokenizers", reason="the extra 'text' is not installed")
    corpus = data.prepare(str(folder), tmp_path / "c", vocab=512)
    tokenizer = tokenizers.Tokenizer.from_file(str(tmp_path / "c" / "tokenizer.json"))
    train, _, _ = data.split(data.documents(str(folder)))
    first = corpus.train[: np.flatnonzero(corpus.train == 0)[0]]
    assert tokenizer.decode(list(first)) == train[0]
    assert corpus.bytes_per_token > 2


def test_the_running_python_documents_itself():
    docs = list(data.python_documents())
    assert len({name for name, _ in docs}) == len(docs) > 400
    assert sum(len(text) for _, text in docs) > 1.5e6


def test_a_file_of_nul_separated_documents_and_one_without(tmp_path):
    (tmp_path / "many.txt").write_text("\0".join(text for _, text in TEXTS))
    assert [t for _, t in data.file_documents(tmp_path / "many.txt")] == [t for _, t in TEXTS]
    (tmp_path / "one.txt").write_text("a line of text\n" * 2000)
    parts = [t for _, t in data.file_documents(tmp_path / "one.txt")]
    assert len(parts) > 2 and "".join(parts) == "a line of text\n" * 2000


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda tmp: data.open_corpus(str(tmp / "nothing"), tmp), "no such file or folder"),
        (lambda tmp: data.prepare("python", tmp, vocab=300), "vocab=300: must be 256"),
        (lambda tmp: data.load(tmp), "no readable manifest.json"),
    ],
)
def test_bad_input_names_field_and_value(call, message, tmp_path):
    with pytest.raises(InputError, match=message):
        call(tmp_path)


def test_too_small_a_corpus_is_refused(folder, tmp_path):
    corpus = data.prepare(str(folder), tmp_path / "c")
    with pytest.raises(InputError, match="a batch of 4096 x 64 needs at least"):
        data.check_size(corpus, sequence=64, batch=4096)
    with pytest.raises(InputError, match="unique_tokens="):
        data.check_size(corpus, sequence=64, batch=1, unique_tokens=10**9)


@pytest.mark.parametrize("size", [1, 2, 3, 7, 64, 1000, 4097])
def test_permute_is_a_bijection(size):
    out = jax.jit(windows.permute, static_argnums=1)(np.arange(size), size, jnp.uint32(7))
    assert sorted(np.asarray(out).tolist()) == list(range(size))


def test_an_epoch_visits_every_window_once_in_an_order_of_its_own():
    tokens, sequence, batch = 64 * 96 + 1, 64, 8
    starts = jax.jit(lambda seed, step: windows.batch_starts(seed, step, batch, sequence, tokens))
    epochs = [np.concatenate([starts(3, e * 12 + i) for i in range(12)]) for e in range(3)]
    for order in epochs:
        assert sorted(order.tolist()) == list(range(0, 96 * 64, 64))
    assert not np.array_equal(epochs[0], epochs[1])
    other = np.concatenate([starts(4, i) for i in range(12)])
    assert np.mean(other == epochs[0]) < 0.1
    # Neighbours in the order are not neighbours in the text: the rank correlation of an honest
    # shuffle is within 3/sqrt(n).
    assert abs(np.corrcoef(epochs[0][:-1], epochs[0][1:])[0, 1]) < 3 / np.sqrt(96)


def test_batches_map_over_seeds_and_steps():

    def starts(seed, step):
        return windows.batch_starts(seed, step, 4, 16, 1601)

    seeds, steps, alone = np.array([0, 0, 5, 5]), np.array([0, 9, 0, 9]), jax.jit(starts)
    one = [np.asarray(alone(s, k)) for s, k in zip(seeds, steps, strict=True)]
    np.testing.assert_array_equal(np.stack(one), jax.jit(jax.vmap(starts))(seeds, steps))


def test_a_pipe_among_the_shards_is_refused_at_once(folder, tmp_path):
    """Reading one would wait for whoever writes into it."""
    corpus = data.prepare(str(folder), tmp_path / "own")
    (tmp_path / "own" / "val-00000.u16.zst").unlink()
    os.mkfifo(tmp_path / "own" / "val-00000.u16.zst")
    with pytest.raises(InputError, match="val-00000.u16.zst cannot be read .not a regular file"):
        data.load(tmp_path / "own")
    assert len(corpus.val)
