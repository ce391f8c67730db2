"""What a terminal is given: text without escape sequences, whoever wrote it, and colours that are
ours alone.
"""

import contextlib
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, TextIO

from ground.text import plain

if TYPE_CHECKING:
    from rich.console import Console


class Plain:
    """A text stream that writes what is `plain`; the rest is the stream's own."""

    def __init__(self, stream: TextIO):
        self.stream = stream

    def write(self, text: str) -> int:
        self.stream.write(plain(text))
        return len(text)

    def writelines(self, lines: Any) -> None:
        for text in lines:
            self.write(text)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)


@contextlib.contextmanager
def plain_streams() -> Iterator[None]:
    """Standard output and error, `plain` for the time of a command."""
    out, error = sys.stdout, sys.stderr
    sys.stdout, sys.stderr = Plain(out), Plain(error)  # type: ignore[assignment]
    try:
        yield
    finally:
        sys.stdout, sys.stderr = out, error


def console(stderr: bool = False, wide: int | None = None) -> "Console":
    """A console that takes no markup from text. `wide`: columns where it is no terminal."""
    from rich.console import Console
    from rich.segment import Segment

    class Screen(Console):
        def render(self, renderable: Any, options: Any = None) -> Any:
            for segment in super().render(renderable, options):
                yield segment if segment.control else Segment(plain(segment.text), segment.style)

    given = sys.stderr if stderr else sys.stdout
    stream = given.stream if isinstance(given, Plain) else given
    return Screen(
        file=stream,
        width=None if stream.isatty() else wide,
        markup=False,
        emoji=False,
        highlight=False,
    )
