"""Turn tables of runs into laws, and laws into decisions.

`InputError` is what all of it raises where a table or a request cannot be used.
"""

from ground import InputError

__all__ = ["InputError"]
