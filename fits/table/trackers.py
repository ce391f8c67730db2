"""What other trackers export, under the table's names: shapes of tables, which column is a run's
identity, which row of a run counts, and their words for how it ended.
"""

import re
from typing import TYPE_CHECKING

import numpy as np

from fits.table.cells import DIVERGED
from ground import InputError

if TYPE_CHECKING:
    import pandas as pd

# Words of W&B, MLflow, Optuna, Ray, SLURM, Kubernetes, ClearML, Neptune and cloud schedulers beside
# the table's own three; a run with any other status is not over.
STATUSES = {
    **dict.fromkeys(
        ("done", "finished", "completed", "complete", "success", "succeeded", "terminated", "ok")
        + ("passed", "published", "inactive"),  # ClearML's, and Neptune's, which has no other word
        "done",
    ),
    **dict.fromkeys(
        ("failed", "fail", "failure", "crashed", "crash", "killed", "cancelled", "canceled"),
        "failed",
    ),
    **dict.fromkeys(
        ("error", "errored", "timeout", "preempted", "pruned", "aborted", "interrupted"), "failed"
    ),
    **dict.fromkeys(
        ("oom", "out_of_memory", "out of memory", "node_fail", "evicted", "stopped"), "failed"
    ),
    **dict.fromkeys(DIVERGED - {"inf", "+inf", "-inf"}, "diverged"),
}
UNFINISHED = frozenset(
    ("running", "pending", "queued", "waiting", "scheduled", "suspended", "paused", "starting")
    + ("active", "in_progress", "inprogress", "in progress")
)
# columns of yes and no: what yes, and what no, says of a run
YES, NO = frozenset(("true", "yes", "y", "1")), frozenset(("false", "no", "n", "0"))
FLAGS = {
    **dict.fromkeys(("diverged", "is_diverged"), ("diverged", "done")),
    **dict.fromkeys(
        ("failed", "sys_failed", "crashed", "killed", "preempted", "pruned"), ("failed", "done")
    ),
    **dict.fromkeys(("finished", "completed", "complete", "done"), ("done", "failed")),
}
IDENTITIES = (
    "run_id", "id", "run_uuid", "uuid", "trial_id", "trial_uuid", "run_hash", "job_id", "wandb_id",
    "sys_id", "experiment_key",
)  # fmt: skip
# one value each within a run
SETTINGS = (
    "params", "params_no_embed", "width", "depth", "vocab", "seed", "init_seed", "data_seed",
    "parametrization", "optimizer",
)  # fmt: skip
PROGRESS = ("tokens", "steps", "step", "_step", "iteration", "global_step")
TIMES = ("timestamp", "_timestamp", "_runtime", "Wall time", "time")
EXPORTED = {"Step": "steps", "Value": "loss", "Wall time": "seconds"}  # by TensorBoard
MANY = 8  # tokens of one size on an even grid, from which they look like checkpoints of a run
EVEN = 0.02  # of their step


def exports(frame: "pd.DataFrame") -> "pd.DataFrame":
    """TensorBoard's scalar CSV and W&B's chart CSV (one column a run) under our names."""
    import pandas as pd

    if set(frame.columns) == set(EXPORTED):
        return frame.rename(columns=EXPORTED)
    charts = [c for c in frame.columns if " - " in c and not c.endswith(("__MIN", "__MAX"))]
    if frame.columns[0] == "Step" and charts:
        runs = [
            pd.DataFrame({"run_id": c.split(" - ")[0], "steps": frame["Step"], "loss": frame[c]})
            for c in charts
        ]
        return pd.concat(runs).dropna(subset=["loss"]).reset_index(drop=True)
    return frame


def plain(name: object) -> str:
    """Run ID, run.id and runId alike."""
    spaced = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", str(name).strip())
    return re.sub(r"[^a-z0-9]+", "_", spaced.lower()).strip("_")


def identified(frame: "pd.DataFrame") -> "pd.DataFrame":
    """With `run_id` from the column that is meant as an identity. A name is one only where no two
    rows share it: people give one name to many seeds and settings.
    """
    if "run_id" not in frame:
        by_name = {plain(c): c for c in reversed(frame.columns)}
        found = next((by_name[i] for i in IDENTITIES if i in by_name), None)
        unique = next(
            (by_name[n] for n in ("name", "run_name") if n in by_name and _own(frame[by_name[n]])),
            None,
        )
        column = found if found is not None else unique
        return frame if column is None else frame.assign(run_id=frame[column])
    for name in (s for s in SETTINGS if s in frame):
        several = frame.groupby("run_id")[name].nunique()
        if (several > 1).any():
            run = several.idxmax()
            values = frame.loc[frame["run_id"] == run, name].dropna().unique()[:3]
            raise InputError(
                f"run_id={run!r}: its rows differ in {name} ({', '.join(map(str, values))}), so it "
                "is a name that repeats and no identity; give another with --map run_id=COLUMN"
            )
    return frame


def _own(names: "pd.Series") -> bool:
    return bool(names.notna().all() and names.is_unique)


def ended(frame: "pd.DataFrame") -> "tuple[pd.DataFrame, dict[str, list[int]]]":
    """The runs that are over, with the `status` that all columns that tell it agree on (the worst;
    an empty one is done), and the numbers of the others' rows by their status.
    """
    told = [_words(frame, column) for column in frame.columns if _tells(frame, column)]
    if not told:
        return frame, {}
    status = told[0]
    for other in told[1:]:
        status = status.where(status.map(_rank) >= other.map(_rank), other)
    over = status.isin(("done", "failed", "diverged"))
    others = {
        f"status {word}": status.index[status == word].tolist()
        for word in status[~over].value_counts().index
    }
    return frame[over].assign(status=status[over]), others


def _tells(frame: "pd.DataFrame", column: str) -> bool:
    """Does the column say how a run ended: by its name, or because all of its words are such."""
    name = plain(column)
    if frame[column].dtype.kind in "iufb" and name not in FLAGS:
        return False
    cells = _said(frame[column].dropna().drop_duplicates())
    if cells.empty:
        return False
    if name in FLAGS and cells.isin(YES | NO).all():
        return True
    known = cells.isin(STATUSES.keys() | UNFINISHED)
    by_name = name.rpartition("_")[2] in ("status", "state")
    return name == "status" or bool(known.any() if by_name else known.all() and name != "loss")


def _words(frame: "pd.DataFrame", column: str) -> "pd.Series":
    words = _said(frame[column].fillna("done"))
    yes, no = FLAGS.get(plain(column), ("", ""))
    if yes and words.isin(YES | NO | {"done"}).all():
        return words.map(lambda word: yes if word in YES else no if word in NO else "done")
    return words.map(lambda word: STATUSES.get(word, word))


def _said(cells: "pd.Series") -> "pd.Series":
    """Cells as words in small letters; a whole number without its point."""
    return cells.astype(str).str.strip().str.lower().str.removesuffix(".0")


def _rank(status: str) -> int:
    return {"done": 0, "failed": 2, "diverged": 3}.get(status, 1)


def earlier(frame: "pd.DataFrame", target: str) -> "pd.Series":
    """Which rows are not the one that their run counts by: its last with a `target`; of rows with
    equal progress the one written later, by the clock where there is one, else by its place in the
    file, which some trackers write from the last row to the first.
    """
    import pandas as pd

    progress = next((c for c in PROGRESS if c in frame), None)
    keys = pd.DataFrame({"has": frame[target].notna() if target in frame else True}, frame.index)
    keys["progress"] = frame[progress] if progress else 0
    clock = next((c for c in TIMES if c in frame), None)
    place = np.arange(len(frame))
    if progress and frame[progress].dtype.kind in "iuf":
        moves = frame.groupby("run_id")[progress].diff().dropna()
        place = -place if (moves < 0).sum() > (moves > 0).sum() else place
    keys["clock"], keys["place"] = frame[clock] if clock else 0, place
    last = frame.loc[keys.sort_values(list(keys.columns), kind="stable").index]
    repeated = last.duplicated("run_id", keep="last").reindex(frame.index)
    return repeated & frame["run_id"].notna()


def pooled(params: "np.ndarray", tokens: "np.ndarray") -> tuple[int, int]:
    """(rows, sizes) that look like checkpoints of one run a size: many token counts of a size, all
    on an even grid. (0, 0) where they do not.
    """
    rows = sizes = 0
    order = np.lexsort((tokens, params))
    starts = np.flatnonzero(np.diff(params[order], prepend=np.nan))  # of each size
    for own in np.split(order, starts[1:]):
        if len(own) < MANY:
            continue
        seen = np.unique(tokens[own])
        steps = np.diff(seen)
        if len(seen) >= MANY and np.ptp(steps) <= EVEN * steps.mean():
            rows, sizes = rows + len(seen), sizes + 1
    return (rows, sizes) if 2 * rows > len(params) else (0, 0)
