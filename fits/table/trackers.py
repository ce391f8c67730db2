"""What other trackers export, under the table's names: TensorBoard, W&B, and their words for how a
run ended.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas as pd

# What trackers and schedulers call a run's end, beside the table's own three words; a run with any
# other status is not over.
STATUSES = {
    **dict.fromkeys(("done", "finished", "completed", "complete", "success", "succeeded"), "done"),
    **dict.fromkeys(("failed", "crashed", "killed", "cancelled", "error", "timeout"), "failed"),
    "diverged": "diverged",
}
# by TensorBoard and W&B
EXPORTED = {
    "Step": "steps",
    "Value": "loss",
    "Wall time": "seconds",
    "Name": "run_id",
    "ID": "run_id",
}


def exports(frame: "pd.DataFrame") -> "pd.DataFrame":
    """TensorBoard's scalar CSV, W&B's chart CSV (one column a run) and W&B's runs CSV under our
    names.
    """
    import pandas as pd

    if set(frame.columns) == {"Wall time", "Step", "Value"}:
        return frame.rename(columns={"Step": "steps", "Value": "loss", "Wall time": "seconds"})
    charts = [c for c in frame.columns if " - " in c and not c.endswith(("__MIN", "__MAX"))]
    if frame.columns[0] == "Step" and charts:
        runs = [
            pd.DataFrame({"run_id": c.split(" - ")[0], "steps": frame["Step"], "loss": frame[c]})
            for c in charts
        ]
        return pd.concat(runs).dropna(subset=["loss"]).reset_index(drop=True)
    if {"Name", "State"} <= set(frame.columns):
        return frame.rename(columns={"ID" if "ID" in frame else "Name": "run_id"}).assign(
            status=frame["State"]
        )
    return frame


def ended(frame: "pd.DataFrame") -> "tuple[pd.DataFrame, dict[str, list[int]]]":
    """The runs that are over, their status in the table's words (an empty one is done), and the
    numbers of the others' rows by their status.
    """
    told = frame["status"].fillna("done").astype(str).str.lower()
    over = told.isin(list(STATUSES))
    others = {
        f"status {word}": told.index[told == word].tolist()
        for word in told[~over].value_counts().index
    }
    return frame[over].assign(status=told[over].map(STATUSES)), others
