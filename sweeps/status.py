"""How far a store is: counts, speed, time left, the best trial of each group, and why trials failed."""

from dataclasses import dataclass, field
from typing import Any

from lab.counts import flops
from lab.records import Trial, trial_from_json
from sweeps.claims import held
from sweeps.store import Store

# Trials that agree in these are of one group: what a sweep over the other fields compares.
GROUP = ("study", "parametrization", "width", "depth", "steps")


@dataclass
class Board:
    """What is known of a store; `look` reads only what is new since the last look, as a published trial never changes."""

    store: Store
    heads: dict[str, dict[str, Any]] = field(default_factory=dict)
    damaged: dict[str, str] = field(default_factory=dict)
    trials: dict[str, Trial] = field(default_factory=dict)  # declared or published
    running: dict[str, dict[str, Any]] = field(default_factory=dict)  # run_id to its owner's last beat
    failures: dict[str, int] = field(default_factory=dict)

    def look(self) -> "Board":
        self.damaged = {}
        for head in self.store.heads(self.damaged, skip=self.heads.keys()):
            run_id = head["result"]["run_id"]
            self.heads[run_id] = head
            self.trials[run_id] = trial_from_json(head["trial"])
        for declared in self.store.declared().values():
            self.trials.update(declared)
        self.running = held(self.store, set(self.heads))
        self.failures = {k: n for k, n in self.store.failures().items() if k not in self.heads}
        return self

    def counts(self) -> dict[str, int]:
        """trials, done, running, waiting, diverged, failed: the last five sum to the first."""
        left = self.trials.keys() - self.heads.keys()
        running = left & self.running.keys()
        failed = (left & self.failures.keys()) - running
        diverged = sum(h["result"]["status"] == "diverged" for h in self.heads.values())
        return {
            "trials": len(self.trials),
            "done": len(self.heads) - diverged,
            "running": len(running),
            "waiting": len(left) - len(running) - len(failed),
            "diverged": diverged,
            "failed": len(failed),
        }

    def speed(self) -> tuple[float, float]:
        """(tokens, FLOPs) a second of one worker, over the trials that are done."""
        measured = [h["row"] for h in self.heads.values() if h["result"]["status"] == "done"]
        seconds = sum(row["seconds"] for row in measured)
        if not seconds:
            return 0.0, 0.0
        return sum(row["tokens"] for row in measured) / seconds, sum(row["flops"] for row in measured) / seconds

    def workers(self) -> dict[str, float | None]:
        """Tokens a second of each worker that holds a claim, None until it has said."""
        return {owner["worker"]: owner.get("tokens_per_second") for owner in self.running.values()}

    def tokens_per_second(self) -> float:
        """Of all workers: what they said last, else what trials took that are done. Of one worker when none is at it."""
        tokens, _ = self.speed()
        return sum(tokens if said is None else said for said in (self.workers() or {"": None}).values())

    def seconds_left(self) -> float | None:
        """From the FLOPs that are left (from the tokens before anything is done) and the workers at hand; None when nothing is known."""
        left = [self.trials[k] for k in self.trials.keys() - self.heads.keys()]
        if not left:
            return 0.0
        _, flops_per_second = self.speed()
        if flops_per_second:
            return sum(map(flops, left)) / flops_per_second / max(1, len(self.workers()))
        return sum(t.tokens for t in left) / self.tokens_per_second() if self.tokens_per_second() else None

    def best(self) -> list[dict[str, Any]]:
        """The trial of least loss of each group, with the number of trials that are done in it."""
        groups: dict[tuple[Any, ...], list[dict[str, Any]]] = {}
        for head in self.heads.values():
            if head["result"]["status"] == "done":
                trial = self.trials[head["result"]["run_id"]]
                key = (head["study"], *(getattr(trial, name) for name in GROUP[1:]))
                groups.setdefault(key, []).append(head)
        out = []
        for key, heads in sorted(groups.items()):
            best = min(heads, key=lambda h: h["result"]["loss"])
            run_id = best["result"]["run_id"]
            numbers = {"done": len(heads), "loss": best["result"]["loss"], "lr": self.trials[run_id].lr, "run_id": run_id}
            out.append({**dict(zip(GROUP, key, strict=True)), **numbers})
        return out

    def document(self) -> dict[str, Any]:
        """The JSON answer of `sweep status`."""
        return {**self.counts(), "tokens_per_second": self.tokens_per_second(), "seconds_left": self.seconds_left()}
