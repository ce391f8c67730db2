"""Bytes of training by their conventions; numbers or arrays."""

from typing import Any

# 2205.05198, section 4.1: of each entry of the stream, 11 for attention, 19 for an MLP of four
# widths, 4 for two norms, with dropout's masks; of each entry of attention's scores, in each head
PER_ENTRY, PER_SCORE = 34, 5


def activations(
    sequences: Any, sequence: Any, width: Any, heads: Any, selective: bool = False
) -> Any:
    """Bytes that one layer keeps for the way back, at two bytes an entry (2205.05198, equation 1):
    s b h (34 + 5 a s / h). `selective`: what attention makes between its products is made again
    (or never kept, as by flash attention), and 34 s b h are left.
    """
    kept = PER_ENTRY * sequence * sequences * width
    return kept if selective else kept + PER_SCORE * heads * sequence**2 * sequences
