"""Train small models, correctly and fast."""


class InputError(ValueError):
    """What a user gave cannot be used; the message names the field, the value and what is
    accepted.
    """
