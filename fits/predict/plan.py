"""The run in whole numbers: what a trainer is told."""

from dataclasses import dataclass

from fits.predict.shape import Whole
from ground import InputError

# tokens of a sequence where nothing says: the default of MaxText (max_target_length) and torchtitan
SEQUENCE = 2048
MICRO = 8  # sequences that a device takes at once, at most, where nothing says
NEAR = 0.02  # of a batch: what rounding may cost (a best batch is flat to a factor 2)


@dataclass(frozen=True)
class Plan:
    """Sizes in entries, `sequence` and `tokens` in tokens, `sequences` a step = devices x
    micro_batch x accumulation; None where no law gives a batch.
    """

    width: int
    depth: int
    heads: int
    head_dim: int
    ff: int
    vocab: int
    params: int
    sequence: int
    devices: int
    micro_batch: int | None = None
    accumulation: int | None = None
    sequences: int | None = None
    batch_tokens: int | None = None
    steps: int | None = None
    tokens: int | None = None
    warmup_steps: int | None = None


def plan(
    shape: Whole,
    tokens: float,
    batch_tokens: float | None,
    warmup_tokens: float,
    sequence: int = SEQUENCE,
    devices: int = 1,
    micro_batch: int | None = None,
) -> Plan:
    """The plan of `tokens` in steps of about `batch_tokens`. Errors: InputError for a batch that is
    less than one sequence a device.
    """
    sizes = dict(
        width=shape.width, depth=shape.depth, heads=shape.heads, head_dim=shape.head_dim,
        ff=shape.ff, vocab=shape.vocab, params=shape.params, sequence=sequence, devices=devices,
    )  # fmt: skip
    if batch_tokens is None:
        return Plan(**sizes)
    micro, times = divided(batch_tokens / sequence, devices, micro_batch)
    batch = devices * micro * times * sequence
    steps = max(1, round(tokens / batch))
    warmup = min(steps, max(1, round(warmup_tokens / batch)))
    return Plan(
        **sizes, micro_batch=micro, accumulation=times, sequences=devices * micro * times,
        batch_tokens=batch, steps=steps, tokens=batch * steps, warmup_steps=warmup,
    )  # fmt: skip


def divided(sequences: float, devices: int, micro_batch: int | None = None) -> tuple[int, int]:
    """(sequences at once on a device, how often) whose product over `devices` is near `sequences`:
    as many at once as NEAR allows, in powers of two, or `micro_batch`.
    """
    if sequences < devices * (1 - NEAR):
        raise InputError(
            f"batch_tokens: {sequences:.3g} sequences a step are less than one for each of "
            f"{devices} devices; give a smaller --sequence, fewer --gpus or --batch-tokens"
        )
    sizes = [micro_batch] if micro_batch else [MICRO >> k for k in range(MICRO.bit_length() - 1)]
    for size in sizes:
        times = max(1, round(sequences / (devices * size)))
        if micro_batch or abs(devices * size * times / sequences - 1) <= NEAR:
            return size, times
    each = max(1, round(sequences / devices))
    if devices == 1 and _prime(each):  # which no second device could share
        each += 1 if sequences > each else -1
    size = next(size for size in (*sizes, 1) if each % size == 0)
    return size, each // size


def _prime(n: int) -> bool:
    return n > 2 and all(n % k for k in range(2, int(n**0.5) + 1))
