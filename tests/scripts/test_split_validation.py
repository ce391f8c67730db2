"""Two corpora of one training text: validation in prose and in code."""

import numpy as np
import pytest

from ground import InputError
from lab.data import load, prepare
from scripts.split_validation import is_code, parts, reader

PROSE = "A sentence that goes on, number {n}.\nAnother one follows it; it says little\n" * 3
CODE = "int f{n}(int x) {{\n    return x + 1;\n}}\n" * 3


@pytest.mark.parametrize("vocab", [256, 512])
def test_each_document_is_in_one_of_two(tmp_path, vocab):
    texts = [kind.format(n=n) for n in range(60) for kind in (PROSE, CODE)]
    (tmp_path / "text.txt").write_text("\0".join(texts))
    whole = prepare(str(tmp_path / "text.txt"), tmp_path / "corpus", vocab, 0.3)
    found = parts(load(tmp_path / "corpus"), reader(tmp_path / "corpus", whole))
    assert all(np.array_equal(one.train, whole.train) for one in found.values())
    assert sum(len(one.val) for one in found.values()) == len(whole.val)
    read = reader(tmp_path / "corpus", whole)
    assert "return" in read(found["code"].val) and "return" not in read(found["prose"].val)
    assert "sentence" in read(found["prose"].val) and "sentence" not in read(found["code"].val)
    kept = [one.manifest["val"] for one in found.values()]
    for count in ("documents", "bytes"):
        assert sum(one[count] for one in kept) == whole.manifest["val"][count]
    assert len({one.sha256 for one in (whole, *found.values())}) == 3
    with pytest.raises(InputError, match="is code"):
        parts(found["prose"], read)


def test_prose_is_not_code():
    assert is_code(CODE.format(n=1)) and not is_code(PROSE.format(n=1)) and not is_code("")
