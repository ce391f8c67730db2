"""How far a store is: counts, speed, time left, the best trial of each group, and why trials
failed.
"""

from dataclasses import dataclass, field
from typing import Any

from ground import InputError
from lab.counts import flops
from lab.records import Trial, trial_from_json
from sweeps.claims import Beat, held
from sweeps.record import head
from sweeps.store import Store

# Trials that agree in these are of one group: what a sweep over the other fields compares.
GROUP = ("study", "parametrization", "width", "depth", "steps")


def diverged_at_last(row: dict[str, Any]) -> bool:
    """By its status, or because its loss is no better than at its start."""
    loss, start = row["loss"], row.get("loss_init")
    return row["status"] == "diverged" or (loss is not None and start is not None and loss >= start)


@dataclass
class Board:
    """What is known of a store; `look` reads only what is new since the last look, as a published
    trial never changes.
    """

    store: Store
    # of the table, by run_id: done and diverged
    rows: dict[str, dict[str, Any]] = field(default_factory=dict)
    # declared trials that are not published
    left: dict[str, Trial] = field(default_factory=dict)
    # run_id to its owner's last beat
    running: dict[str, Beat] = field(default_factory=dict)
    failures: dict[str, int] = field(default_factory=dict)
    damaged: dict[str, str] = field(default_factory=dict)

    def look(self) -> "Board":
        self.damaged = {}
        for found in self.store.scan(head, self.damaged, skip=self.rows.keys()):
            self.rows[found["row"]["run_id"]] = found["row"]
        self.left = self._left()
        self.running = held(self.store, set(self.rows))
        self.failures = {k: n for k, n in self.store.failures().items() if k in self.left}
        return self

    def _left(self) -> dict[str, Trial]:
        """A study that cannot be read counts as damaged, and the others serve."""
        left: dict[str, Trial] = {}
        for study, trials in self.store.declared(self.damaged).items():
            wanted = {k: t for k, t in trials.items() if k not in self.rows}
            try:
                left |= {k: self.left.get(k) or trial_from_json(t) for k, t in wanted.items()}
            except InputError as error:
                self.damaged[f"studies/{study}.json"] = str(error)
        return left

    def counts(self) -> dict[str, int]:
        """trials, done, running, waiting, diverged (one that ends no better than it began with
        them), failed: the last five sum to the first.
        """
        running = self.left.keys() & self.running.keys()
        failed = self.failures.keys() - running
        diverged = sum(map(diverged_at_last, self.rows.values()))
        return {
            "trials": len(self.rows) + len(self.left),
            "done": len(self.rows) - diverged,
            "running": len(running),
            "waiting": len(self.left) - len(running) - len(failed),
            "diverged": diverged,
            "failed": len(failed),
        }

    def speed(self) -> tuple[float, float]:
        """(tokens, FLOPs) a second of one worker, over the trials that are done."""
        measured = [row for row in self.rows.values() if row["status"] == "done"]
        seconds = sum(row["seconds"] for row in measured)
        if not seconds:
            return 0.0, 0.0
        return sum(row["tokens"] for row in measured) / seconds, sum(
            row["flops"] for row in measured
        ) / seconds

    def workers(self) -> dict[str, float | None]:
        """Tokens a second of each worker that holds a claim, None until it has said."""
        return {owner["worker"]: owner.get("tokens_per_second") for owner in self.running.values()}

    def tokens_per_second(self) -> float:
        """Of all workers: what they said last, else what trials took that are done. Of one worker
        when none is at it.
        """
        tokens, _ = self.speed()
        return sum(
            tokens if said is None else said for said in (self.workers() or {"": None}).values()
        )

    def seconds_left(self) -> float | None:
        """From the FLOPs that are left (from the tokens before anything is done) and the workers at
        hand; None when nothing is known.
        """
        if not self.left:
            return 0.0
        left = list(self.left.values())
        _, flops_per_second = self.speed()
        if flops_per_second:
            return sum(map(flops, left)) / flops_per_second / max(1, len(self.workers()))
        return (
            sum(t.tokens for t in left) / self.tokens_per_second()
            if self.tokens_per_second()
            else None
        )

    def best(self) -> list[dict[str, Any]]:
        """The trial of least loss of each group, with the number of trials that are done in it."""
        groups: dict[tuple[Any, ...], list[dict[str, Any]]] = {}
        for row in self.rows.values():
            if row["status"] == "done":
                groups.setdefault(tuple(row[name] for name in GROUP), []).append(row)
        out = []
        for key, rows in sorted(groups.items()):
            best = min(rows, key=lambda row: row["loss"])
            numbers = {
                "done": len(rows),
                "loss": best["loss"],
                "lr": best["lr"],
                "run_id": best["run_id"],
            }
            out.append({**dict(zip(GROUP, key, strict=True)), **numbers})
        return out

    def document(self) -> dict[str, Any]:
        """The JSON answer of `sweep status`."""
        return {
            **self.counts(),
            "tokens_per_second": self.tokens_per_second(),
            "seconds_left": self.seconds_left(),
        }
