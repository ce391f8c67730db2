"""The rooms of `fits` build on each other in one order, and no module imports, however lazily, what
imports it.
"""

import ast
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
# each imports those before it
ROOMS = ("forms", "record", "table", "engine", "auto", "fit", "evaluate", "design", "optimum")
ROOMS += ("batch", "predict", "audit", "survey", "report", "theory")


def name_of(path):
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


MODULES = {name_of(path): path for path in sorted((ROOT / "fits").rglob("*.py"))}


def imported(text):
    """Modules of `fits` that a text imports, in functions too; what only types need left out."""
    tree = ast.parse(text)
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test):
            node.body = []
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "fits":
            for alias in node.names:
                whole = f"{node.module}.{alias.name}"
                yield whole if whole in MODULES else node.module


def in_order(graph):
    return list(TopologicalSorter(graph).static_order())


def test_no_module_imports_what_imports_it():
    graph = {name: set(imported(path.read_text())) for name, path in MODULES.items()}
    assert set(in_order(graph)) == set(MODULES)
    with pytest.raises(CycleError):
        in_order({**graph, "fits.forms.law": {"fits.record"}})


def test_rooms_build_on_each_other_in_one_order():
    for name, path in MODULES.items():
        if name == "fits":
            continue
        room = ROOMS.index(name.split(".")[1])
        for other in imported(path.read_text()):
            assert ROOMS.index(other.split(".")[1]) <= room, f"{name} imports {other}"
