"""The command itself: its version, and words that are none of its commands."""

import pytest

from scalelab.__main__ import COMMANDS, main


def test_version(capsys):
    assert main(["--version"]) == 0
    out = capsys.readouterr().out
    assert out.startswith("scalelab ") and out.count("\n") == 1 and "installed" not in out


@pytest.mark.parametrize(
    ("words", "meant"),
    [
        (["predcit"], "predict"),
        (["Fit"], "fit"),
        (["sweep", "stats"], "status"),
        (["check", "transfr"], "transfer"),
        (["predict", "--params", "1B", "--tokens", "2B", "--export", "nanogp"], "nanogpt"),
        (["predict", "--params", "1B", "--hours", "2", "--gpus", "1", "--device", "h201"], "h200"),
    ],
)
def test_a_mistyped_word_is_told_what_it_may_have_meant(words, meant, capsys):
    assert main(words) == 2
    error = capsys.readouterr().err
    assert error.endswith(f"did you mean {meant}?\n") and error.count("\n") == 1


def test_a_word_that_is_like_none_is_told_all_of_them(capsys):
    assert main(["xyzzy"]) == 2
    error = capsys.readouterr().err
    assert all(name in error for name in COMMANDS) and "mean" not in error
