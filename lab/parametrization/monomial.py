"""A constant times named quantities to fixed powers: the one kind of formula that a
parametrization's table holds.
"""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction

from ground import InputError

# What a cell may name. Ratios are to the base shape, and 1 along an axis that does not grow with
# width.
VARIABLES = {
    "fan_in": "entries along the tensor's in axis; 1 for a norm gain",
    "fan_out": "entries along the tensor's out axis",
    "in_ratio": "fan_in over the base model's, 1 for a vocabulary or a head",
    "out_ratio": "fan_out over the base model's, 1 for a vocabulary or a head",
    "head_dim": "entries of one attention head",
    "head_ratio": "head_dim over base_head_dim; 1 when base_head_dim is 0, that is when heads do "
    "not grow",
    "depth": "transformer layers",
    "depth_ratio": "depth over base_depth",
    "depth_ratio_alpha": "depth_ratio to the power depth_alpha",
    "batch_ratio": "batch over base_batch",
    "token_ratio": "batch x steps over base_batch x base_steps",
    "embed_lr": "fan_out to the power embed_lr_exponent",
    "density": "share of the hidden matrices' weights that is left at the end, 1 in a dense model",
    "init_std": "the trial's init_std",
    "alpha_embed": "the trial's alpha_embed",
    "alpha_attn": "the trial's alpha_attn",
    "alpha_out": "the trial's alpha_out",
    "alpha_ffn_act": "the trial's alpha_ffn_act",
    "alpha_loss": "the trial's alpha_loss",
}

# digits have an end: 1e999999999 as a fraction would fill the memory
_NUMBER = r"[-+]?(?:\d{1,30}(?:\.\d{0,30})?|\.\d{1,30})(?:[eE][-+]?\d{1,2})?"
MOST_POWER = 100
_FACTOR = re.compile(
    rf"(?:(?P<name>[a-z_]+)(?:\^(?P<power>[-+]?\d{{1,9}}/0*[1-9]\d{{0,8}}|{_NUMBER}))?|(?P<number>{_NUMBER}))$"
)


@dataclass(frozen=True)
class Monomial:
    """`constant` x product of variable^power; powers sorted by name, none zero, so equal formulas
    compare equal.
    """

    constant: float = 1.0
    powers: tuple[tuple[str, Fraction], ...] = ()

    def __mul__(self, other: "Monomial") -> "Monomial":
        powers = dict(self.powers)
        for name, power in other.powers:
            powers[name] = powers.get(name, Fraction(0)) + power
        return Monomial(self.constant * other.constant, _sorted(powers))

    def __pow__(self, power: int) -> "Monomial":
        return Monomial(self.constant**power, _sorted({name: p * power for name, p in self.powers}))

    def __str__(self) -> str:
        factors = [name if power == 1 else f"{name}^{power}" for name, power in self.powers]
        if self.constant != 1 or not factors:
            factors.insert(0, repr(self.constant).removesuffix(".0"))
        return " ".join(factors)

    def without(self, name: str) -> "Monomial":
        return Monomial(self.constant, tuple(p for p in self.powers if p[0] != name))

    @property
    def variables(self) -> frozenset[str]:
        return frozenset(name for name, _ in self.powers)

    def value(self, values: Mapping[str, float]) -> float:
        """The number; exact where every ratio is 1, since 1.0 to any power is 1.0."""
        out = self.constant
        try:
            for name, power in self.powers:
                out *= values[name] ** float(power)
        except (OverflowError, ZeroDivisionError):
            out = math.inf
        if not math.isfinite(out):
            raise InputError(f"table: {str(self)!r} is no finite number for this trial")
        return out


def _sorted(powers: Mapping[str, Fraction]) -> tuple[tuple[str, Fraction], ...]:
    return tuple(sorted((name, power) for name, power in powers.items() if power))


def parse(text: str, where: str) -> Monomial:
    """`"0.02 init_std fan_in^-1/2"` to a Monomial; factors are separated by spaces. `where` names
    the cell in an error.
    """
    out = Monomial()
    if len(text) > 1000:
        raise InputError(f"{where}: {len(text)} characters; must be at most 1000")
    for word in text.split():
        match = _FACTOR.match(word)
        if match is None:
            raise InputError(
                f"{where}={text!r}: {word!r} must be a number, a name or name^power, "
                "the power as 2, -0.5 or -1/2"
            )
        if match["number"]:
            out = out * Monomial(float(match["number"]))
        elif match["name"] not in VARIABLES:
            raise InputError(
                f"{where}={text!r}: unknown name {match['name']!r}; known: {', '.join(VARIABLES)}"
            )
        else:
            out = out * Monomial(1.0, ((match["name"], Fraction(match["power"] or 1)),))
    if any(abs(power) > MOST_POWER for _, power in out.powers) or not math.isfinite(out.constant):
        raise InputError(f"{where}={text!r}: powers must be within {MOST_POWER}, numbers finite")
    if not text.strip():
        raise InputError(f"{where}='': must be a product of numbers and powers, 1 for none")
    return out
