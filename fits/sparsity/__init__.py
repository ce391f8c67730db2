"""Laws of sparsity: zero weights, idle neurons, idle experts."""

from fits.laws import Law
from fits.sparsity import activations, routed, weights

LAWS: tuple[type[Law], ...] = (*weights.LAWS, *activations.LAWS, *routed.LAWS)
