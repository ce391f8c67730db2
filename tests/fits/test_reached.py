"""What `fits` can do, a command does: nothing is defined that none of them reaches by name."""

import ast
from pathlib import Path

ROOT = Path(__file__).parents[2]
# For Python alone, with why.
LIBRARY = {
    "of_matrix": "one matrix of features, which tests hold the limit of many against",
    "solve_many": "scripts/bench_fits.py: thousand tables at once",
    "batches_figure": "scripts/batch_report.py",
    "noise_figure": "scripts/batch_report.py",
    "fit_lr": "scripts/batch_report.py: the LR's law beside the batch's",
    "useful_tokens": "scripts/batch_report.py",
    "of_fit": "profiles of a fit that is at hand",
    "normalize": "a run in flight: its curve, which no table of runs holds",
    "predict_final": "likewise",
    "constant_lr_shape": "likewise",
    "effective_params": "how sparse to train: a decision about a sweep that is not run yet",
    "embedding_level": "likewise: what the runs behind a published set had",
    "optimal_idle": "likewise",
    "pays_from": "likewise",
}


def names(node: ast.AST) -> set[str]:
    """Every name that a tree mentions."""
    found = set()
    for n in ast.walk(node):
        if isinstance(n, ast.Name):
            found.add(n.id)
        elif isinstance(n, ast.Attribute):
            found.add(n.attr)
        elif isinstance(n, ast.alias):
            found.add(n.name.rpartition(".")[2])
    return found


def unreached(fits: list[ast.Module], others: list[ast.AST], words: str = "") -> set[str]:
    """Public functions and classes of `fits` that neither `others`, nor what those reach, mention,
    nor `words` (a template).
    """
    defined: dict[str, list[ast.AST]] = {}
    todo = set().union(*map(names, others))
    for module in fits:
        for node in module.body:
            if isinstance(node, ast.FunctionDef | ast.ClassDef):
                defined.setdefault(node.name, []).append(node)
            elif not isinstance(node, ast.Import | ast.ImportFrom):
                todo |= names(node)  # tables at the top of a module, such as a family's LAWS
    seen: set[str] = set()
    while todo:
        name = todo.pop()
        seen.add(name)
        todo |= set().union(*map(names, defined.get(name, []))) - seen
    return {n for n in defined if n not in seen and not n.startswith("_") and n not in words}


def trees(*folders: str) -> list[ast.Module]:
    return [ast.parse(p.read_text()) for f in folders for p in sorted((ROOT / f).rglob("*.py"))]


def test_no_law_and_no_function_is_out_of_every_commands_reach():
    page = "".join(p.read_text() for p in sorted((ROOT / "fits/report").rglob("*.j2")))
    assert unreached(trees("fits"), trees("scalelab", "sweeps"), page) == {*LIBRARY}


def test_what_nothing_calls_is_found():
    """The control: a function that only another such one calls."""
    fits = ast.parse("def used(): pass\ndef lost(): return gone()\ndef gone(): pass\nT = (law,)")
    assert unreached([fits], [ast.parse("import fits\nfits.used()")]) == {"lost", "gone"}
