import numpy as np
import pandas as pd
import pytest

from fits.engine.bootstrap import resample
from fits.forms import catalogue
from fits.table.points import select
from fits.table.rows import Table, names_of, of_one_batch, read, table_of
from fits.table.units import RANGES
from ground import InputError
from ground.columns import COLUMNS

CHINCHILLA = catalogue.law("chinchilla")


def frame(n: int = 12) -> pd.DataFrame:
    rng = np.random.default_rng(0)
    params = rng.choice([1e8, 3e8, 1e9], n)
    return pd.DataFrame(
        {
            "run_id": [f"r{i}" for i in range(n)],
            "params": params,
            "params_no_embed": params * 0.8,
            "tokens": params * rng.uniform(5, 50, n),
            "lr": rng.choice([1e-3, 2e-3], n),
            "loss": rng.uniform(2.5, 3.5, n),
        }
    )


def test_csv_parquet_folder_and_frame_read_alike(tmp_path) -> None:
    runs = frame()
    runs.to_csv(tmp_path / "runs.csv", index=False)
    (tmp_path / "store").mkdir()
    runs.to_parquet(tmp_path / "runs.parquet")
    runs.to_parquet(tmp_path / "store" / "trials.parquet")
    for source in (tmp_path / "runs.csv", str(tmp_path / "runs.parquet"), tmp_path / "store", runs):
        kept = read(source)
        pd.testing.assert_frame_equal(kept.frame, runs)
        assert kept.left_out == {}
    assert read(tmp_path / "runs.csv").source.startswith("runs.csv sha256:")


def test_map_where_and_best_over(tmp_path) -> None:
    runs = frame().rename(columns={"loss": "val_loss"}).assign(corpus="c4", keep=[True, False] * 6)
    kept = read(runs, map={"loss": "val_loss"}, where=["corpus=c4", "keep=true", "lr=1e-3"])
    assert set(kept.frame["lr"]) == {1e-3} and kept.frame["keep"].all()
    assert sum(kept.left_out.values()) + len(kept.frame) == len(runs) and set(kept.left_out) == {
        "not keep=true",
        "not lr=1e-3",
    }
    doubled = pd.concat(
        [
            frame(),
            frame().assign(
                lr=4e-3, loss=lambda d: d["loss"] + 0.1, run_id=lambda d: d["run_id"] + "b"
            ),
        ]
    )
    best = read(doubled, best_over=["lr"])
    pd.testing.assert_frame_equal(best.frame, frame())
    assert best.left_out == {"not the best over lr": 12}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"map": {"loss": "vloss"}}, "map loss='vloss': no such column; the file has run_id"),
        ({"where": ["depth=3"]}, "where='depth=3': must be COLUMN=VALUE with one of the columns"),
        ({"where": ["lr"]}, "where='lr': must be COLUMN=VALUE"),
        ({"where": ["lr=high"]}, "where='lr=high': lr is a number"),
        ({"best_over": ["depth"]}, "best-over='depth': must be a hyperparameter's column"),
        (
            {"best_over": ["params"]},
            "best-over='params': must be a hyperparameter's column of the "
            "table, not one of params, tokens",
        ),
    ],
)
def test_bad_arguments_are_one_line(arguments, message: str) -> None:
    with pytest.raises(InputError) as error:
        read(frame(), **arguments)
    assert str(error.value).startswith(message) and "\n" not in str(error.value)


def test_unreadable_files_are_one_line(tmp_path) -> None:
    cases = {
        "none.csv": None,
        "empty.csv": b"",
        "header.csv": b"params,tokens,loss\n",
        "binary.csv": b"\xff\xfe\x00\x01",
        "bad.parquet": b"PAR0",
    }
    for name, content in cases.items():
        if content is not None:
            (tmp_path / name).write_bytes(content)
        with pytest.raises(InputError) as error:
            read(tmp_path / name)
        assert str(error.value).startswith("data=") and "\n" not in str(error.value)


def test_rows_that_cannot_be_used_are_counted_by_reason() -> None:
    runs = frame(20)
    runs.loc[0, "loss"] = np.nan
    runs.loc[1, "loss"] = np.inf
    runs.loc[2, "tokens"] = 0
    runs.loc[3, "params"] = -5
    points = select(Table(runs, names_of(runs), {"failed": ["x", "y"]}, ""), CHINCHILLA)
    assert len(points.y) == 16
    assert points.left_out == {
        "failed": 2,
        "loss missing or not finite": 2,
        "tokens not positive": 1,
        "params not positive": 1,
    }


def test_diverged_duplicate_and_earlier_rows_are_counted() -> None:
    runs = frame().assign(status="done")
    runs.loc[11, "status"] = "diverged"
    early = runs.iloc[[0]].assign(tokens=runs["tokens"].iloc[0] / 2, loss=4.0)
    kept = read(pd.concat([early, runs, runs.iloc[[5]]]))
    assert kept.left_out == {"diverged": 1, "duplicate row": 1, "earlier row of the same run_id": 1}
    assert len(kept.frame) == 11 and 4.0 not in set(kept.frame["loss"])
    assert len(read(pd.concat([early, runs]), checkpoints="all").frame) == 12


def test_where_takes_one_of_several_and_what_is_missing(tmp_path) -> None:
    (tmp_path / "runs.csv").write_text(
        'pruning,width,params,loss\n,1,1e6,3\nset,2,2e6,2.9\ngradual,3,3e6,2.8\n"a,b",4,4e6,2.7\n'
    )

    def widths(condition: str) -> list[int]:
        found = read(tmp_path / "runs.csv", where=[condition], keys=())
        return found.frame["width"].tolist()

    assert widths("pruning=") == [1] and widths("pruning=set") == [2]
    assert widths("pruning=,set") == [1, 2] and widths("pruning=set,gradual") == [2, 3]
    assert widths("pruning=a,b") == [4] and widths("width=1,3") == [1, 3]
    with pytest.raises(InputError, match="where='width=1,x': width is a number"):
        widths("width=1,x")


def test_where_takes_a_number_as_it_is_printed_and_a_missing_one() -> None:
    runs = frame().assign(lr=[2**0.5, 2**-0.5, np.nan] * 4)
    assert len(read(runs, where=["lr=1.414214"]).frame) == 4
    assert len(read(runs, where=["lr="]).frame) == 4
    assert len(read(runs, where=["lr=0.7071068,"]).frame) == 8
    assert not len(read(runs, where=["lr=1.41"]).frame)


def test_the_last_step_of_a_run_counts_wherever_its_row_stands() -> None:
    runs = frame().drop(columns="tokens")
    kept = read(pd.concat([runs.assign(step=900), runs.assign(step=300, loss=4.0)]))
    assert kept.left_out == {"earlier row of the same run_id": len(runs)} and set(
        kept.frame["step"]
    ) == {900}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda d: d.drop(columns="tokens"),
            "columns: tokens missing; the table has run_id, params",
        ),
        (
            lambda d: d.assign(params=d["params"] / 1e9),
            r"params=0.1 to 1: must be a count of "
            r"parameters \(not millions or billions\)",
        ),
        (lambda d: d.assign(tokens=d["tokens"] / 1e9), "tokens=.*: must be a count of tokens"),
        (
            lambda d: d.assign(loss=np.exp(d["loss"]) * 10),
            r"loss=.*: must be nats per token \(not "
            r"perplexity\)",
        ),
        (
            lambda d: d.head(5),
            "rows=5: chinchilla has 5 parameters and needs at least 6 usable rows",
        ),
        (
            lambda d: d.assign(params=1e9),
            r"params=1e\+09 in every row: chinchilla needs it to vary",
        ),
        (lambda d: d.assign(loss=3.0), "loss=3 in every row"),
        (lambda d: d.assign(loss="low"), r"loss='low' in row 1: must be a number \(12 such rows\)"),
    ],
)
def test_what_no_law_can_be_fitted_to_is_refused(change, message: str) -> None:
    with pytest.raises(InputError, match=message) as error:
        select(change(frame()), CHINCHILLA)
    assert "\n" not in str(error.value)


def test_params_kind_chooses_the_count() -> None:
    np.testing.assert_array_equal(
        select(frame(), CHINCHILLA, "no_embed").x["params"], frame()["params_no_embed"]
    )
    with pytest.raises(InputError, match="params_active missing"):
        select(frame(), CHINCHILLA, "active")
    with pytest.raises(
        InputError, match="params-kind='embed': must be one of total, no_embed, active"
    ):
        select(frame(), CHINCHILLA, "embed")


def test_flops_are_derived_when_absent_and_said() -> None:
    points = select(frame(), catalogue.law("power-c"))
    np.testing.assert_allclose(points.x["flops"], 6 * frame()["params"] * frame()["tokens"])
    assert points.warnings == ["flops: not in the table, taken as 6 params tokens"]


def test_exports_of_trackers_are_understood(tmp_path) -> None:
    runs = frame()
    wandb = runs.rename(columns={"run_id": "ID", "loss": "val/loss"}).assign(
        Name="sweep", State=["finished"] * 11 + ["crashed"]
    )
    kept = read(wandb, map={"loss": "val/loss"})
    assert kept.left_out == {"failed": 1} and list(kept.frame["run_id"]) == list(
        runs["run_id"][:11]
    )
    chart = pd.DataFrame(
        {
            "Step": [1, 2, 3],
            "a - loss": [3.0, 2.5, np.nan],
            "a - loss__MIN": 0.0,
            "b - loss": [3.1, 2.6, 2.2],
        }
    )
    kept = read(chart)
    assert kept.frame.to_dict("list") == {"run_id": ["a", "b"], "steps": [2, 3], "loss": [2.5, 2.2]}
    assert len(read(chart, checkpoints="all").frame) == 5
    board = pd.DataFrame({"Wall time": [1e9, 2e9], "Step": [10, 20], "Value": [3.0, 2.0]})
    assert list(read(board).frame.columns) == ["seconds", "steps", "loss"]


def test_an_export_can_be_mapped_by_its_own_names() -> None:
    board = pd.DataFrame({"Wall time": [1e9, 2e9], "Step": [10, 20], "Value": [3.0, 2.0]})
    assert read(board, {"x": "Step", "loss": "Value"}).frame.x.tolist() == [10, 20]
    with pytest.raises(InputError, match="map x='Steps': no such column"):
        read(board, {"x": "Steps"})


def test_a_refusal_for_want_of_rows_says_what_was_left_out() -> None:
    with pytest.raises(InputError, match="rows=0.*left out: 12 loss missing or not finite"):
        select(frame().assign(loss=np.inf), CHINCHILLA)


def test_losses_worse_than_knowing_nothing_are_a_warning() -> None:
    assert not select(frame(), CHINCHILLA).warnings
    (warning,) = select(frame().assign(loss=lambda t: np.exp(t.loss - 0.8)), CHINCHILLA).warnings
    assert warning.endswith("perplexity, or diverged runs?")


def test_groups_label_runs_and_sizes() -> None:
    points = select(
        pd.concat([frame(), frame().assign(tokens=lambda d: d["tokens"] * 2)]), CHINCHILLA
    )
    assert len(np.unique(points.groups["run"])) == 12 and len(np.unique(points.groups["size"])) == 3


def test_runs_without_an_id_are_runs_of_their_own() -> None:
    runs = frame()
    runs.loc[2:, "run_id"] = np.nan
    kept = read(runs)
    assert len(kept.frame) == 12 and kept.left_out == {}
    points = select(kept.frame, CHINCHILLA)
    assert sorted(points.groups["run"]) == list(range(12))
    assert resample(points, 50, 0).sum(axis=1).tolist() == [12] * 50


def test_a_run_that_is_not_done_is_left_out_whatever_its_tracker_calls_that() -> None:
    words = [
        "finished",
        "Done",
        "COMPLETED",
        None,
        "success",
        "done",
        "done",
        "crashed",
        "killed",
        "running",
        "Diverged",
        "paused",
    ]
    kept = {"failed": 2, "diverged": 1, "status running": 1, "status paused": 1}
    assert read(frame().assign(status=words)).left_out == kept
    assert (
        read(frame().assign(Name="sweep", State=words).rename(columns={"run_id": "ID"})).left_out
        == kept
    )
    every = read(frame().assign(status=words), every_status=True)
    assert every.left_out == {"status running": 1, "status paused": 1}
    assert list(every.frame["status"]) == ["done"] * 7 + ["failed"] * 2 + ["diverged"]


def test_a_size_in_words_is_refused_where_compute_is_derived_from_it() -> None:
    with pytest.raises(InputError, match="params='small' in row 1: must be a number"):
        select(frame().assign(params="small"), catalogue.law("power-c"))
    words = frame().assign(params=[f"{n / 1e9:g}B" for n in frame()["params"]])
    np.testing.assert_array_equal(
        select(words, CHINCHILLA).x["params"], frame()["params"].to_numpy()
    )


def test_column_names_may_stand_between_spaces(tmp_path) -> None:
    (tmp_path / "runs.csv").write_bytes(b"params, tokens ,loss\r\n1e8,2e9,3.1\r\n")
    assert list(read(tmp_path / "runs.csv").frame.columns) == ["params", "tokens", "loss"]


def test_rows_of_another_unit_among_the_rest_are_a_warning() -> None:
    runs = frame()
    runs.loc[:2, "params"] /= 1e6
    (warning,) = select(runs, CHINCHILLA).warnings
    assert warning.startswith("params: 3 of 12 rows outside 20000 to 1e+14")


def test_what_was_used_and_what_was_not_is_named() -> None:
    """By id, where every row has one of its own; else by the row's number as the table was
    opened.
    """
    runs = frame().assign(status=["failed"] + ["done"] * 11)
    runs.loc[3, "loss"] = np.nan
    points = select(read(runs, where=["lr=1e-3"]), CHINCHILLA)
    used = set(points.rows) | {name for rows in points.left.values() for name in rows}
    assert used == set(runs["run_id"]) and runs["run_id"][0] in points.left["failed"]
    assert points.left["loss missing or not finite"] == [runs["run_id"][3]]
    kept = select(read(runs.drop(columns="run_id")), CHINCHILLA)
    assert kept.rows == [1, 2, *range(4, 12)] and kept.left == {
        "failed": [0],
        "loss missing or not finite": [3],
    }


def test_ranges_are_of_the_tables_columns() -> None:
    assert set(RANGES) <= set(COLUMNS)


def test_runs_whose_batch_changes_are_left_out_of_laws_of_it():
    frame = pd.DataFrame({"run_id": ["a", "b", "c"], "batch_tokens": [64, 64, 48], "loss": 3.0})
    assert of_one_batch(whole := table_of(frame)) is whole
    kept = of_one_batch(table_of(frame.assign(batch_schedule=[None, "", "2@0,4@0.5"])))
    assert kept.frame["run_id"].tolist() == ["a", "b"] and len(kept.names) == 2
    assert kept.left_out == {"its batch changes": 1}


def test_active_parameters_without_embeddings_come_from_three_counts() -> None:
    body = np.geomspace(1e8, 8e8, 12)
    counts = {"params": 9 * body + 3e7, "params_no_embed": 9 * body, "params_active": body + 3e7}
    rows = pd.DataFrame({**counts, "experts": [1, 8, 64] * 4, "loss": np.linspace(3.0, 2.6, 12)})
    rows = rows.assign(tokens=np.geomspace(1e10, 5e10, 12))
    law = catalogue.law("routed-joint")
    assert select(rows, law, "active").x["params_active"] == pytest.approx(body + 3e7)
    points = select(rows, law, "active_no_embed")
    assert points.x["params_active"] == pytest.approx(body)
    assert points.params_kind == "active_no_embed"
    with pytest.raises(InputError, match="params_no_embed missing"):
        select(rows.drop(columns="params_no_embed"), law, "active_no_embed")
