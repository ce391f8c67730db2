"""A recipe's numbers for each tensor: the trial that it is, by the parametrization's table."""

from dataclasses import asdict, fields, replace
from typing import TYPE_CHECKING, Any

from ground import InputError

if TYPE_CHECKING:
    from fits.predict.recipe import Recipe
    from lab.records import Trial

# of a published LR, which is one for all matrices: GPT-2's constant start
PUBLISHED = "sp-constant"
# of a trial: what is measured along it
LOOKED_AT = {"diagnostics", "measure_steps", "validate_steps"}
# a row's numbers; tensors that share them all are one group
NUMBERS = ("init_std", "multiplier", "lr", "weight_decay", "weight_decay_coupled", "eps")


def with_tensors(recipe: "Recipe", base: dict[str, int]) -> "Recipe":
    """The recipe with `tensors`: one row a group of tensors that share their numbers (init_std,
    forward multiplier, LR and decay per step at the schedule's peak, decay over LR, eps), and with
    the betas and eps of the trials that its LR comes from. `base`: base_width, base_depth, where
    they are given. A recipe that no table of ours is the rule of is told so, and left as it is.
    """
    if recipe.plan is None or recipe.plan.steps is None or "lr" not in recipe.numbers:
        return recipe
    from lab.parametrization import explain

    try:
        trial = trial_of(recipe, base)
        rows = explain(trial)
    except InputError as error:
        return replace(
            recipe, warnings=[*recipe.warnings, f"the LR of each tensor is not known: {error}"]
        )
    groups: dict[tuple[Any, ...], list[dict[str, Any]]] = {}
    for row in rows:
        groups.setdefault(tuple(row[n] for n in NUMBERS), []).append(row)
    tensors = [
        {"tensors": [r["tensor"] for r in rows], "role": rows[0]["role"],
         **{n: rows[0][n] for n in NUMBERS}, "formula": rows[0]["formula"]}
        for rows in groups.values()
    ]  # fmt: skip
    own = {name: {"value": getattr(trial, name), "source": one["source"]}
           for name, one in recipe.settings.items() if name in ("beta1", "beta2", "eps")
           and "semantics" in recipe.common}  # fmt: skip
    return replace(
        recipe,
        tensors=tensors,
        settings={**recipe.settings, **own},
        common={**recipe.common, **base},
    )


def trial_of(recipe: "Recipe", base: dict[str, int]) -> "Trial":
    """The trial that the recipe is, as far as its numbers by tensor go. Raises InputError where
    there is none.
    """
    from lab.parametrization import TABLES
    from lab.records import Trial

    plan = recipe.plan
    assert plan is not None and plan.steps is not None and plan.sequences is not None
    name = recipe.parametrization or PUBLISHED
    known = {f.name for f in fields(Trial)} - LOOKED_AT
    own = {k: v for k, v in recipe.common.items() if k in known}
    if name not in TABLES and "table" not in own:
        raise InputError(f"parametrization={name!r}: no table of that name")
    decay = recipe.numbers.get("weight_decay")
    sizes = {k: v for k, v in asdict(plan).items() if k in known}
    chosen = {
        **({} if own else {k: recipe.settings[k]["value"] for k in ("beta1", "beta2", "eps")}),
        **own, **sizes, **base,
        "corpus": "", "parametrization": name, "batch": plan.sequences,
        "schedule": "linear", "unique_tokens": 0, "semantics": 1,
        "lr": recipe.numbers["lr"].value, "weight_decay": decay.value if decay else 0.0,
    }  # fmt: skip
    chosen = {k: v for k, v in chosen.items() if k in known}
    return Trial(**chosen)
