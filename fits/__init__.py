"""Turn tables of runs into laws, and laws into decisions."""


class InputError(ValueError):
    """What a user gave cannot be used; the message names the field, the value and what is
    accepted.
    """
