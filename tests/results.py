"""What a result says of the trial, and not of how it ran."""

from typing import Any

from lab.records import Result, result_json

# how long it took, with how many others, and what the working tree had changed
HOW = ("seconds", "step_seconds", "cohort", "code")


def numbers(result: Result, *left_out: str) -> dict[str, Any]:
    """As JSON, what must not depend on when, where and beside whom it ran."""
    return {k: v for k, v in result_json(result).items() if k not in (*HOW, *left_out)}
