"""What `lab`, `sweeps`, `fits` and the command stand on: the error that people read, the table's
columns, a number with its interval, FLOPs by convention, files that are whole or absent. No JAX.
"""


class InputError(ValueError):
    """What a user gave cannot be used; the message names the field, the value and what is
    accepted.
    """
