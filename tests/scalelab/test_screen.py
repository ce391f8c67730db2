"""No text of a user's reaches a terminal as an escape sequence or as markup."""

import contextlib
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from scalelab import screen
from scalelab.__main__ import main

ESCAPE = "\x1b]0;owned\x07\x1b[2Jx"


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def shown(act: Callable[[], Any], monkeypatch: pytest.MonkeyPatch) -> str:
    """What `act` writes to a terminal."""
    terminal = Terminal()
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.delenv("NO_COLOR", raising=False)
    with contextlib.redirect_stdout(terminal), contextlib.redirect_stderr(terminal):
        act()
    return terminal.getvalue()


def test_a_console_keeps_its_own_colours_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    def act() -> None:
        with screen.plain_streams():
            screen.console().print(f"[red]{ESCAPE}", style="bold")
            print(ESCAPE)

    said = shown(act, monkeypatch)
    assert "[red]" in said and "\x1b[1m" in said
    assert not any(evil in said for evil in ("\x1b]0;", "\x1b[2J", "\x07"))
    assert ESCAPE in shown(lambda: print(ESCAPE), monkeypatch), "a terminal would obey this"


def test_a_fit_of_hostile_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [f"{n:g},{d:g},{2 + 400 / n**0.34 + 2000 / d**0.36}" for n in (1e7, 1e8, 1e9)
            for d in (1e9, 1e10, 1e11)]  # fmt: skip
    data = tmp_path / "[red]\x1b[2Jruns.csv"
    data.write_text("params,tokens,loss\n" + "\n".join(rows) + "\n")
    codes = []

    def act() -> None:
        codes.append(main(["fit", str(data), "--out", str(tmp_path / "fit.json")]))
        codes.append(main(["fit", str(tmp_path / ESCAPE)]))

    said = shown(act, monkeypatch)
    assert codes == [0, 2] and json.loads((tmp_path / "fit.json").read_text())["n"] == 9
    assert "[red]" in said and "\x1b[2J" not in said and "\x07" not in said
