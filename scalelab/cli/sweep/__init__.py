"""scalelab sweep init | plan | run | status | export: a study to begin with, what it will cost, its
trials trained once each, how far it is, its table.
"""

import importlib

from ground import InputError
from ground.text import one_of

COMMANDS = {
    "init": (
        "scalelab.cli.sweep.init",
        "a study to begin with, explained line by line",
    ),
    "plan": (
        "scalelab.cli.sweep.plan",
        "cohorts, tokens, FLOPs, hours and memory, before anything runs",
    ),
    "run": ("scalelab.cli.sweep.run", "train what is missing of a study"),
    "status": ("scalelab.cli.sweep.status", "how far a store is"),
    "export": (
        "scalelab.cli.sweep.export",
        "a store to a table, or its curves to TensorBoard or W&B",
    ),
}


def usage() -> str:
    rows = "\n".join(f"  {name:<8} {text}" for name, (_, text) in COMMANDS.items())
    return (
        f"usage: scalelab sweep COMMAND ...\n\n{rows}\n\nscalelab sweep COMMAND --help tells the "
        "rest; each command takes --json."
    )


def main(args: list[str]) -> int:
    if not args or args[0] in ("-h", "--help"):
        print(usage())
        return 0 if args else 2
    if args[0] not in COMMANDS:
        raise InputError(one_of("command", args[0], COMMANDS))
    return int(importlib.import_module(COMMANDS[args[0]][0]).main(args[1:]))
