"""A user's study outside the package: as many toy trials as asked for."""

from sweeps.studies import Study
from tests.sweeps import toy


def study(corpus: str, vocab: int, count: int = 12, steps: int = 20) -> Study:
    return Study(
        name="toy",
        question="does it run?",
        expectation="it does",
        trials=tuple(toy.trials(count, steps=steps)),
    )
