"""Who imports whom, what imports no JAX, that the packages are ours, and that the command starts in
time.
"""

import ast
import csv
import os
import re
import resource
import statistics
import subprocess
import sys
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("ground", "lab", "sweeps", "fits", "scalelab")
MAY = {
    "ground": {"ground"},
    "lab": {"lab", "ground"},
    "fits": {"fits", "ground"},
    "sweeps": {"sweeps", "lab", "fits", "ground"},
    "scalelab": set(PACKAGES),
}
# inside a function only: a fit may open a store, whose reader is sweeps'
LAZY = {("fits", "sweeps")}
NO_JAX = [
    ".".join(p.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
    for p in sorted((ROOT / "fits").rglob("*.py"))
] + [
    "lab.records",
    "lab.parametrization",
    "lab.activations",
    "lab.shape",
    "lab.program",
    "lab.diagnostics",
    "lab.data",
    "lab.events",
    "lab.counts",
    "sweeps.space",
    "sweeps.cohorts",
    "sweeps.pace",
    "sweeps.store",
]


def statements(node, top_level_only=True):
    """Every node that importing a file runs: not those of functions, where that is all that is
    asked for, and never those for the type checker alone.
    """
    for child in ast.iter_child_nodes(node):
        if top_level_only and isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef)):
            continue
        if isinstance(child, ast.If) and "TYPE_CHECKING" in ast.dump(child.test):
            continue
        yield child
        yield from statements(child, top_level_only)


def imported(path, top_level_only):
    """Names of the packages that a file imports."""
    for node in statements(ast.parse(path.read_text()), top_level_only):
        if isinstance(node, ast.Import):
            yield from (alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            yield str(node.module).split(".")[0]


@pytest.mark.parametrize("package", PACKAGES)
def test_the_import_graph_is_the_designs(package):
    for path in (ROOT / package).rglob("*.py"):
        wrong = {
            name for name in imported(path, True) if name in (*PACKAGES, "scripts", "tests")
        } - MAY[package]
        assert not wrong, f"{path.relative_to(ROOT)} imports {wrong}"
        lazy = {
            name for name in imported(path, False) if name in (*PACKAGES, "scripts", "tests")
        } - MAY[package]
        assert {(package, name) for name in lazy} <= LAZY, (
            f"{path.relative_to(ROOT)} imports {lazy} inside a function"
        )


def test_the_check_sees_a_wrong_import(tmp_path):
    (tmp_path / "x.py").write_text("from sweeps.store import Store\ndef f():\n    import lab\n")
    assert set(imported(tmp_path / "x.py", True)) == {"sweeps"}
    assert set(imported(tmp_path / "x.py", False)) == {"sweeps", "lab"}


def imports(root, packages):
    """Module name to the modules of `packages` that its top level imports.

    `from package import name` imports the module `package.name` where there is one, else `package`.
    """
    files = {}
    for path in (p for package in packages for p in (root / package).rglob("*.py")):
        parts = path.relative_to(root).with_suffix("").parts
        files[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return {name: set(modules(path, files)) - {name} for name, path in files.items()}


def modules(path, known):
    """Of `known`, what the top level of a file imports."""
    for node in statements(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name in known)
        elif isinstance(node, ast.ImportFrom):
            for alias in node.names:
                full = f"{node.module}.{alias.name}"
                yield from {full if full in known else node.module} & known.keys()


def circle(graph):
    """Modules that import each other in a circle, in order; empty when there is none."""
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        return error.args[1]
    return []


def test_no_modules_import_each_other_in_a_circle():
    graph = imports(ROOT, PACKAGES)
    assert len(graph) > 100 and "lab.records" in graph["sweeps.run"]
    assert circle(graph) == []


def test_a_circle_is_seen(tmp_path):
    """Through a package, a class and an `if`; not through a function or for the type checker."""
    package = tmp_path / "p"
    package.mkdir()
    (package / "__init__.py").write_text("ONE = 1\n")
    (package / "a.py").write_text("import json\nclass A:\n    from p import b\n")
    (package / "b.py").write_text("if True:\n    import p.c\n")
    (package / "c.py").write_text("from p import ONE\nfrom p.a import A\n")
    assert sorted(set(circle(imports(tmp_path, ["p"])))) == ["p.a", "p.b", "p.c"]
    late = "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from p.a import A\n"
    (package / "c.py").write_text(late + "def f():\n    from p.a import A\n")
    assert circle(imports(tmp_path, ["p"])) == []


def cells(text):
    """Rows of a Markdown table, cell by cell, without its head."""
    lines = [line for line in text.splitlines() if line.startswith("|")]
    return [[cell.strip(" `") for cell in line.strip("|").split("|")] for line in lines[2:]]


def test_the_architecture_is_the_codes():
    text = (ROOT / "docs" / "architecture.md").read_text()
    named = set(re.findall(r"`((?:[a-z_]+/)+(?:[\w.]+)?)`", text))
    assert len(named) > 40 and [name for name in sorted(named) if not (ROOT / name).exists()] == []
    records, rooms, imports, *_ = (cells(part) for part in text.split("\n## "))
    folders = {str(p.parent.relative_to(ROOT)) for d in PACKAGES for p in (ROOT / d).rglob("*.py")}
    assert {row[0].strip("/") for row in rooms} == folders | {"scripts", "tests"}
    may = {package: set(re.findall(r"\w+", names)) for package, names in imports}
    expected = {name: allowed - {name} for name, allowed in MAY.items()}
    assert may == expected | {"ground": {"nothing"}, "scalelab": {"all"}}
    for record, _, home in records:
        files = (ROOT / home).rglob("*.py") if home.endswith("/") else [ROOT / home]
        assert any(f"class {record}" in path.read_text() for path in files), (record, home)


def test_what_should_not_import_jax_does_not():
    code = (
        f"import sys\nfor m in {NO_JAX!r}: __import__(m)\nprint(sorted(m for m in ('jax', 'flax', "
        "'optax') if m in sys.modules))"
    )
    out = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert out.stdout.strip() == "[]"


def test_the_packages_that_python_imports_are_ours(tmp_path):
    from scalelab.__main__ import check_packages

    check_packages()
    (tmp_path / "fits").mkdir()
    (tmp_path / "fits" / "__init__.py").write_text("")
    code = (
        f"import sys; sys.path.insert(0, {str(tmp_path)!r}); import fits; from scalelab.__main__ "
        "import check_packages; check_packages()"
    )
    out = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert out.returncode == 1 and "the package 'fits' that Python imports is" in out.stderr


def cpu_seconds(*args):
    """Median CPU time of 5 processes, start included: what the wall clock shows on a machine with
    nothing else to do.
    """
    took = []
    for _ in range(5):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run(
            [sys.executable, "-m", "scalelab", *args],
            cwd=ROOT,
            check=True,
            capture_output=True,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        took.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    return statistics.median(took)


def test_predict_and_fit_start_in_time(tmp_path):
    assert (
        cpu_seconds("predict", "--params", "7e9", "--tokens", "1.4e11", "--fit", "epoch", "--json")
        < 1.2
    )
    with (tmp_path / "runs.csv").open("w") as file:
        rows = csv.writer(file)
        rows.writerow(["params", "tokens", "loss"])
        for n in (1e7, 3e7, 1e8, 3e8):
            for d in (1e9, 3e9, 1e10, 3e10):
                rows.writerow([n, d, 1.8 + 480 / n**0.347 + 2085 / d**0.366])
    assert cpu_seconds("fit", str(tmp_path / "runs.csv"), "--law", "chinchilla", "--json") < 1.5
