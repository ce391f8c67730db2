"""What runs of different length have in common: under a schedule that stays at its peak until it
cools down, the steps of a shorter run before its cooldown are those of the longer one, to the bit.
So of trials that are alike in all but their length each can go on from where the next shorter one
began to cool down. Nothing but time depends on it. No JAX.
"""

from collections.abc import Iterable, Sequence

from ground.columns import WSD_DECAY
from lab import sparsity
from lab.records import Trial, canonical_json, trial_json

# of the steps before a cooldown: there, in float32, the schedule may be an ulp below its peak
ROUNDING = 1e-6


def prefix_of(trial: Trial) -> int:
    """How many of its first steps a longer trial that is else alike begins with. None where the
    parametrization, or a batch schedule, counts in tokens of the run.
    """
    if trial.base_steps or trial.batch_schedule:
        return 0
    if trial.schedule == "constant":  # what happens after its last step is the end of the run
        return min(trial.steps - 1, sparsity.shared(trial))
    if trial.schedule == "wsd":
        flat = (1 - WSD_DECAY) * trial.steps
        return max(0, min(int(flat - ROUNDING * trial.steps) - 1, sparsity.shared(trial)))
    return 0


def family(trial: Trial) -> str:
    """Equal for trials that may share a prefix: alike in every field but the steps."""
    if not prefix_of(trial):
        return trial.run_id
    return canonical_json({k: v for k, v in trial_json(trial).items() if k != "steps"})


def chains(trials: Iterable[Trial]) -> list[list[Trial]]:
    """The trials, each family from short to long, families in the order of their first trial. One
    that is there twice is a chain of its own.
    """
    families: dict[str, dict[int, Trial]] = {}
    twins: list[list[Trial]] = []
    for trial in trials:
        same = families.setdefault(family(trial), {})
        if trial.steps in same:
            twins.append([trial])
        else:
            same[trial.steps] = trial
    return [[same[n] for n in sorted(same)] for same in families.values()] + twins


def waves(trials: Sequence[Trial], mapped: bool) -> list[list[tuple[Trial, Trial | None]]]:
    """What to train together, one after the other, each trial with the one that goes on from its
    prefix: mapped, the shortest of every chain, then the next; in turn, each alone.
    """
    found = chains(trials)
    pairs = [list(zip(chain, [*chain[1:], None], strict=True)) for chain in found]
    if not mapped:
        return [[pair] for chain in pairs for pair in chain]
    return [
        [chain[rank] for chain in pairs if rank < len(chain)]
        for rank in range(max(map(len, pairs), default=0))
    ]


def begins(trials: Sequence[Trial], mapped: bool) -> list[list[tuple[Trial, int]]]:
    """The waves, each trial with the step that it goes on from."""
    found: list[list[tuple[Trial, int]]] = []
    begin: dict[str, int] = {}
    for wave in waves(trials, mapped):
        found.append([(trial, begin.pop(trial.run_id, 0)) for trial, _ in wave])
        begin |= {to.run_id: prefix_of(trial) for trial, to in wave if to}
    return found
