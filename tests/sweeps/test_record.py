"""A stored trial's bytes: lossless, checked, of any schema up to ours."""

import contextlib
import dataclasses
import hashlib
import json
import math
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ground import InputError
from lab.counts import row
from lab.records import Curve, Result
from sweeps.record import SCHEMA, Damaged, Newer, Record, decode, dump, encode, head, make_record
from tests.sweeps import toy

TRIAL = toy.trials(1)[0]
RECORD = make_record("toy", TRIAL, toy.descend(TRIAL))


def same(a: Result, b: Result) -> bool:
    """Equal, a NaN being equal to a NaN."""
    return repr(a) == repr(b)


@settings(max_examples=30, deadline=None)
@given(st.lists(st.floats(width=64), max_size=8), st.floats(0, 1e6), st.text(max_size=20))
def test_lossless_whatever_the_curve_and_the_text_hold(
    losses: list[float], seconds: float, reason: str
) -> None:
    steps = tuple(range(1, len(losses) + 1))
    curves = {"loss": Curve(steps, tuple(losses)), "weight_rms/a.b": Curve(steps, tuple(losses))}
    result = Result(
        run_id=TRIAL.run_id,
        status="diverged",
        diverged_step=3,
        seconds=seconds,
        reason=reason,
        curves=curves,
    )
    record = make_record("toy", TRIAL, result)
    back = decode(encode(record))
    assert (back.study, back.trial, back.row) == (record.study, record.trial, record.row) and same(
        back.result, result
    )


def test_is_one_json_document_with_the_table_row_in_it() -> None:
    document = json.loads(encode(RECORD))
    assert document["schema"] == SCHEMA and document["trial"]["width"] == TRIAL.width
    assert document["curves"]["loss"]["values"] == list(RECORD.result.curves["loss"].values)
    assert document["row"] == row(TRIAL, RECORD.result, "toy")
    assert "curves" not in head(encode(RECORD)) and head(encode(RECORD))["row"] == document["row"]


def test_a_truncated_file_and_a_flipped_bit_are_noticed() -> None:
    data = encode(RECORD)
    for length in range(0, len(data) - 1, 3):  # without its final newline too
        with pytest.raises(Damaged):
            decode(data[:length])
    for i in range(0, len(data), 17):
        broken = data[:i] + bytes([data[i] ^ 1]) + data[i + 1 :]
        with pytest.raises((Damaged, InputError)):
            decode(broken)


def test_a_result_of_another_trial_is_damage() -> None:
    other = dataclasses.replace(RECORD.result, run_id=toy.trials(2)[1].run_id)
    with pytest.raises(Damaged, match="its result is of"):
        decode(encode(dataclasses.replace(RECORD, result=other)))


def as_schema(version: int, record: Record = RECORD) -> bytes:
    """What the versions before wrote: one curve, and in the first no row."""
    document = json.loads(encode(record))
    names = ("study", "trial", "result", *(("row",) if version > 1 else ()))
    loss = document["curves"].get("loss", {"steps": [], "values": []})
    curve = {"steps": loss["steps"], "losses": loss["values"]}
    body = f'{dump({k: document[k] for k in names})[1:-1]},\n"curve":{dump(curve)}}}\n'
    digest = hashlib.sha256(body.encode()).hexdigest()
    return f'{{"schema":{version},"sha256":"{digest}",\n{body}'.encode()


@pytest.mark.parametrize("version", [1, 2])
def test_earlier_schemas_are_migrated_to_equal_records(version: int) -> None:
    failed = Result(run_id=TRIAL.run_id, status="failed", reason="no curve at all")
    for record in (RECORD, make_record("toy", TRIAL, failed)):
        stored = as_schema(version, record)
        assert decode(stored) == record
        assert encode(decode(stored)) == encode(record)
        assert head(stored)["row"] == record.row and "curve" not in head(stored)


def test_a_newer_schema_is_refused_by_number() -> None:
    newer = encode(RECORD).replace(f'"schema":{SCHEMA}'.encode(), b'"schema":99', 1)
    with pytest.raises(Newer, match=f"schema 99, this scalelab reads up to {SCHEMA}"):
        decode(newer)


def resealed(change: Callable[[dict[str, Any]], Any]) -> bytes:
    """RECORD's file after `change`, under a checksum that holds."""
    whole = json.loads(encode(RECORD))
    curves = whole.pop("curves")
    whole.pop("schema"), whole.pop("sha256")
    change(whole)
    body = f'{dump(whole)[1:-1]},\n"curves":{dump(curves)}}}\n'
    digest = hashlib.sha256(body.encode()).hexdigest()
    return f'{{"schema":{SCHEMA},"sha256":"{digest}",\n{body}'.encode()


@pytest.mark.parametrize(
    "change",
    [
        lambda d: d.pop("row"),
        lambda d: d.pop("study"),
        lambda d: d.update(study="../up"),
        lambda d: d.update(row=[]),
        lambda d: d["row"].pop("run_id"),
        lambda d: d["row"].update(loss=None),
        lambda d: d["row"].update(seconds=None),
        lambda d: d["row"].update(width="wide"),
        lambda d: d["row"].update(tokens=10**400),
        lambda d: d.update(trial=None),
        lambda d: d["result"].update(status="never"),
        lambda d: d["result"].update(seconds="1"),
        lambda d: d["result"].update(device="a\nb"),
        lambda d: d["trial"].update(parametrization="x\nimport os"),
    ],
)
def test_a_record_of_another_form_is_damaged_though_its_checksum_holds(change: Any) -> None:
    assert decode(resealed(lambda d: None)) == RECORD, "nothing changed, nothing damaged"
    with pytest.raises(Damaged):
        decode(resealed(change))
    with contextlib.suppress(Damaged):  # a head is read without its trial and result
        assert head(resealed(change))["row"]["status"] == RECORD.row["status"]


def test_floats_keep_their_bits() -> None:
    trial = dataclasses.replace(TRIAL, lr=0.1 + 0.2, weight_decay=1e-300 / 3)
    back = decode(
        encode(
            make_record(
                "toy",
                trial,
                dataclasses.replace(RECORD.result, run_id=trial.run_id, seconds=math.pi),
            )
        )
    )
    assert (
        back.trial == trial and back.trial.run_id == trial.run_id and back.result.seconds == math.pi
    )
