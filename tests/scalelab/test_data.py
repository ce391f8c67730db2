"""scalelab data prepare: a folder of text becomes a corpus that loads, and bad input is one line
and exit code 2.
"""

import json

from lab import data
from scalelab.__main__ import main


def test_prepare_answers_with_the_manifest(tmp_path, capsys):
    for i in range(80):
        (tmp_path / f"{i}.txt").write_text(f"text {i} " * 50)
    assert (
        main(
            [
                "data",
                "prepare",
                str(tmp_path),
                "--out",
                str(tmp_path / "out"),
                "--val-share",
                "0.2",
                "--json",
            ]
        )
        == 0
    )
    answer = json.loads(capsys.readouterr().out)
    corpus = data.load(tmp_path / "out")
    assert answer["sha256"] == corpus.sha256
    assert answer["train"]["tokens"] == len(corpus.train) and answer["val"]["tokens"] == len(
        corpus.val
    )


def test_bad_input_is_one_line(tmp_path, capsys):
    assert main(["data", "prepare", str(tmp_path / "no"), "--out", str(tmp_path)]) == 2
    assert main(["data", "prepare", "python", "--out", str(tmp_path), "--val-share", "2"]) == 2
    assert main(["data", "cook"]) == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 3
    assert (
        "no such file" in lines[0] and "val_share=2.0" in lines[1] and "must be prepare" in lines[2]
    )
