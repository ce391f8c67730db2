"""One reader: what fits a type is read as it, what does not is refused by its path."""

import dataclasses
import os
from pathlib import Path
from typing import Any, Literal, NotRequired, TypedDict

import pytest

from ground import InputError
from ground.reading import LARGEST, Positive, document, parse, read


class Inner(TypedDict):
    size: Positive
    note: NotRequired[str | None]


@dataclasses.dataclass(frozen=True)
class Outer:
    name: str
    values: list[float]
    ends: tuple[int, int] = (0, 1)
    by: dict[str, Inner] = dataclasses.field(default_factory=dict)
    kind: Literal["a", "b"] = "a"
    flag: bool = False
    either: int | str | None = None


GOOD: dict[str, Any] = {"name": "x", "values": [1, 2.5], "by": {"k": {"size": 3, "more": []}}}


def test_what_fits() -> None:
    found = read(Outer, GOOD, "it")
    assert found == Outer("x", [1.0, 2.5], by={"k": {"size": 3.0, "more": []}})  # type: ignore[typeddict-unknown-key]
    assert isinstance(found.values[0], float)


@pytest.mark.parametrize(
    "change, said",
    [
        ({"name": 3}, "it.name=3: must be text"),
        ({"name": None}, "it.name=None"),
        ({"values": [1, "2"]}, r"it.values\[1\]='2': must be a number"),
        ({"values": [True]}, r"it.values\[0\]=True"),
        ({"values": [10**400]}, "must be a finite number"),
        ({"values": "12"}, "it.values='12': must be a list"),
        ({"ends": [1]}, "it.ends=.*must be a list of 2"),
        ({"ends": [1, 2.0]}, r"it.ends\[1\]=2.0: must be a whole number"),
        ({"ends": [1, 1 << 63]}, "below 2.63"),
        ({"by": []}, r"it.by=\[\]: must be an object"),
        ({"by": {"k": {}}}, "it.by.k: lacks size"),
        ({"by": {"k": {"size": 0}}}, "it.by.k.size=0: must be above 0"),
        ({"by": {"k": {"size": 1e300}}}, "at most 1e.100"),
        ({"by": {"k": {"size": 1, "note": 2}}}, "it.by.k.note=2: must be text"),
        ({"kind": "c"}, "it.kind='c': must be one of a, b"),
        ({"kind": []}, "it.kind"),
        ({"flag": 1}, "it.flag=1: must be true or false"),
        ({"either": 1.5}, "it.either=1.5"),
        ({"extra": 1}, "it.extra=1: must be left out: known are name, values"),
    ],
)
def test_what_does_not_fit(change: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError, match=said):
        read(Outer, {**GOOD, **change}, "it")


@pytest.mark.parametrize("data", [None, [], 3, "x", {}, {"name": "x"}])
def test_what_is_no_such_record(data: Any) -> None:
    with pytest.raises(InputError, match="it: lacks|must be an object"):
        read(Outer, data, "it")


def test_a_wrong_value_is_not_quoted_at_length() -> None:
    with pytest.raises(InputError) as found:
        read(Outer, {**GOOD, "flag": "x" * 10_000}, "it")
    assert len(str(found.value)) < 200


@pytest.mark.parametrize(
    "text", ["", "{", "NaN", "[Infinity]", "[" * 100_000, "1" * 5000, b"\xff\xfe{}", '{"a": 1} 2']
)
def test_what_is_no_json(text: str | bytes) -> None:
    with pytest.raises(InputError, match="it: cannot be read as JSON"):
        parse(text, "it")


def test_files_that_are_none(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with open(tmp_path / "large", "wb") as file:
        file.truncate(LARGEST + 1)
    for name, said in (
        ("pipe", "must be a regular file"),
        (".", "must be a regular file"),
        ("absent", "No such file"),
        ("large", "at most"),
        ("a\0b", "null"),
        ("x" * 300, "File name too long"),
    ):
        with pytest.raises(InputError, match=said):
            document(tmp_path / name, "fit")
