"""The batch along a run: pieces of plain steps, each of one batch, with one state through them. No
JAX.

Sequences are seen in the order that a run of any batch sees them in: a piece goes on behind the
last one of the piece before it.
"""

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from itertools import accumulate
from typing import TYPE_CHECKING

from ground import InputError, text

if TYPE_CHECKING:
    from lab.records import Trial

MOST_SEQUENCES = 1 << 31  # of a run whose batch changes: they are counted in int32


@dataclass(frozen=True)
class Piece:
    """Steps of one batch."""

    batch: int  # sequences in a step
    begin: int  # steps before its first
    end: int  # steps until after its last
    seen: int  # sequences before its first step

    def seen_after(self, steps: int) -> int:
        """Sequences that the first `steps` of the run see, one of them in this piece."""
        return self.seen + (steps - self.begin) * self.batch


def pieces(trial: "Trial") -> tuple[Piece, ...]:
    """The trial's pieces, in their order; a trial without a schedule is one."""
    return _pieces(trial.batch_schedule, trial.batch, trial.steps)


@lru_cache(maxsize=1024)
def _pieces(schedule: str, batch: int, steps: int) -> tuple[Piece, ...]:
    if not schedule:
        return (Piece(batch, 0, steps, 0),)
    parts = list(_parts(schedule))
    ends = [share for _, share in parts[1:]] + [1.0]
    # steps until the end of each, of a run of one sequence
    each = [(end - share) / b for (b, share), end in zip(parts, ends, strict=True)]
    until = list(accumulate(each))
    found, begin, seen = list[Piece](), 0, 0
    for i, (b, _) in enumerate(parts):
        end = round(steps * until[i] / until[-1])
        found.append(Piece(b, begin, end, seen))
        begin, seen = end, seen + (end - begin) * b
    return tuple(found)


def _parts(schedule: str) -> Iterator[tuple[int, float]]:
    """(sequences, share) of each piece as written."""
    for part in schedule.split(","):
        batch, _, share = part.partition("@")
        try:
            yield int(batch), float(share)
        except ValueError:
            raise InputError(
                f"batch_schedule={text.short(schedule)}: {text.short(part)} must be BATCH@SHARE, "
                "sequences in a step from this share of the run's tokens on, such as "
                "64@0,128@0.25,256@0.5"
            ) from None


def check(trial: "Trial") -> None:
    """Refuse a schedule that cannot be followed."""
    if not (schedule := trial.batch_schedule):
        return

    def refuse(accepted: str) -> None:
        raise InputError(f"batch_schedule={text.short(schedule)}: {accepted}")

    parts = list(_parts(schedule))
    shares = [share for _, share in parts]
    if shares[0] != 0 or not all(a < b < 1 for a, b in zip([-1.0, *shares], shares, strict=False)):
        refuse("shares must begin with 0 and rise, all below 1")
    if not all(1 <= batch <= 1 << 24 for batch, _ in parts):
        refuse(f"batches must be from 1 to {1 << 24}")
    if schedule != (written := ",".join(f"{b}@{f'{s!r}'.removesuffix('.0')}" for b, s in parts)):
        refuse(f"must be written {written!r}")
    if parts[-1][0] != trial.batch:
        refuse(f"its last batch must be batch={trial.batch}")
    for field in ("base_batch", "base_steps"):
        if getattr(trial, field):
            refuse(f"{trial.parametrization} has a rule for one batch alone ({field})")
    if trial.pruning not in ("", "static"):
        refuse(f"pruning={trial.pruning!r} counts in steps of one batch")
    found = pieces(trial)
    if short := [piece for piece in found if piece.end == piece.begin]:
        refuse(f"of steps={trial.steps} none is left for {short[0].batch} sequences")
    if found[-1].seen_after(trial.steps) >= MOST_SEQUENCES:
        refuse(f"steps={trial.steps} see more than {MOST_SEQUENCES - 1} sequences")


def piece_at(trial: "Trial", step: int) -> Piece:
    """That the step after `step` others is in; at the end the last."""
    found = pieces(trial)
    return next((piece for piece in found if step < piece.end), found[-1])


def plain_at(trial: "Trial", step: int) -> "Trial":
    """The plain trial that trains as this one does in the piece after `step` steps; the trial
    itself where it has no schedule.
    """
    if not trial.batch_schedule:
        return trial
    return dataclasses.replace(trial, batch=piece_at(trial, step).batch, batch_schedule="")


def plain(trial: "Trial") -> dict[int, "Trial"]:
    """The plain trials of its pieces by their batch, in the order of the run."""
    return {p.batch: plain_at(trial, p.begin) for p in pieces(trial)}


def largest(trial: "Trial") -> int:
    """Sequences of its largest step."""
    return max(piece.batch for piece in pieces(trial))


def sequences(trial: "Trial", steps: int | None = None) -> int:
    """That the first `steps` see, or the run."""
    steps = trial.steps if steps is None else steps
    return piece_at(trial, steps).seen_after(steps)


def steps_within(trial: "Trial", share: float) -> int:
    """Whole steps within this share of the run's tokens."""
    if not trial.batch_schedule:
        return int(share * trial.steps)
    most = share * sequences(trial)
    last = [piece for piece in pieces(trial) if piece.seen <= most][-1]
    return last.begin + int((most - last.seen) / last.batch)
