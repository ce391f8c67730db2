"""What one worker did, and where its time went."""

import contextlib
import time
from collections.abc import Iterator
from dataclasses import dataclass, field


@dataclass
class Spans:
    """Where a worker's time went, in seconds."""

    claim: float = 0.0
    compile: float = 0.0  # waiting for programs, of cohorts that are mapped
    train: float = 0.0
    publish: float = 0.0
    wait: float = 0.0

    @contextlib.contextmanager
    def of(self, name: str) -> Iterator[None]:
        begun = time.perf_counter()
        try:
            yield
        finally:
            setattr(self, name, getattr(self, name) + time.perf_counter() - begun)


@dataclass
class Summary:
    """What one worker did. `late` counts results that another worker had published first, `split`
    cohorts that were halved.
    """

    done: int = 0
    diverged: int = 0
    failed: int = 0
    late: int = 0
    split: int = 0
    set_aside: int = 0
    stopped: bool = False
    seconds: float = 0.0
    first: float = 0.0  # seconds until the first dispatch or result was back
    spans: Spans = field(default_factory=Spans)
