"""Every form by its name. A new family adds its line to FAMILIES."""

from fits.forms import (
    collapse,
    critical_batch,
    hyper,
    loss,
    routed,
    schedules,
    sparse_activations,
    sparse_weights,
    step_time,
    trajectory,
)
from fits.forms.law import Law
from ground import InputError

FAMILIES = (
    loss,
    hyper,
    critical_batch,
    sparse_weights,
    sparse_activations,
    routed,
    trajectory,
    schedules,
    collapse,
    step_time,
)

# Not one form but a weighted set of forms (`fits.auto`), which reads the columns of this one.
SETS = {
    "auto": "chinchilla",
    "auto-repeated": "data-constrained",
    "auto-routed": "routed",
}


def all_laws() -> dict[str, type[Law]]:
    """Every form by its name, in the order of the families."""
    return {form.name: form for family in FAMILIES for form in family.LAWS}


def law(name: str) -> type[Law]:
    """The form of that name; an unknown one is refused with the list of those known."""
    known = all_laws()
    if name not in known:
        raise InputError(f"law={name!r}: must be one of {', '.join(known)}")
    return known[name]


def reading(name: str) -> type[Law]:
    """The form whose columns the law of that name reads, a set of forms included."""
    return law(SETS.get(name, name))
