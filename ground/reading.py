"""Documents that come from elsewhere, read field by field against a stated type: the one way from
JSON to a record.

A type is a dataclass (other fields are refused) or a TypedDict (other fields pass), of numbers,
text, lists, tuples, dicts, unions, Literals and each other. An integer serves as a float; a float
is finite. What does not fit is refused by its path, its value and what is accepted.
"""

import dataclasses
import functools
import json
import math
import os
import types
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, Union

from ground import InputError, files, text

LARGEST = 1 << 28  # bytes of a document
FAR = 1e100  # of a positive number: its products stay finite
Positive = Annotated[float, "above 0"]
_NEAR = 1 << 62  # numbers that need no second look


def document(path: Path | str, field: str) -> Any:
    """The JSON of a file. Errors: InputError, `field` naming it."""
    where = f"{field}={str(path)!r}"
    content = content_of(path, field)
    try:
        return parse(content, where)
    except InputError:
        raise
    except UnicodeDecodeError as error:
        raise InputError(f"{where}: is not UTF-8 ({error})") from None


def content_of(path: Path | str, field: str, largest: int = LARGEST) -> bytes:
    """The bytes of a regular file: a pipe or a device may never end."""
    where = f"{field}={str(path)!r}"
    try:
        with files.regular(path) as file:
            if (size := os.fstat(file.fileno()).st_size) > largest:
                raise InputError(f"{where}: {size:,} bytes; at most {largest:,} are read")
            return file.read()
    except files.NotRegular:
        raise InputError(f"{where}: must be a regular file") from None
    except (OSError, ValueError) as error:  # a name with a NUL is a ValueError
        if isinstance(error, InputError):
            raise
        said = getattr(error, "strerror", None) or error
        raise InputError(f"{where}: {said}") from None


def parse(written: str | bytes, where: str) -> Any:
    """JSON as its standard has it: no NaN."""

    def constant(name: str) -> Any:
        raise ValueError(f"{name} is no JSON")

    try:
        return json.loads(written, parse_constant=constant)
    except (ValueError, RecursionError) as error:
        said = "too deep" if isinstance(error, RecursionError) else error
        raise InputError(f"{where}: cannot be read as JSON ({said})") from None


def read(kind: Any, data: Any, where: str) -> Any:
    """`data` as `kind`: a dataclass, a TypedDict, or made of such. Errors: InputError, whose paths
    begin with `where`.
    """
    return _as(kind, data, where)


def refuse(where: str, value: Any, accepted: str) -> typing.NoReturn:
    raise InputError(f"{where}={text.short(value)}: must be {accepted}")


class _Fields(NamedTuple):
    """Of a record: types by name, the same as `_exact`, the required names, and whether others are
    refused.
    """

    hints: dict[str, Any]
    exact: dict[str, frozenset[Any]]
    needed: frozenset[str]
    closed: bool


@functools.cache
def _fields(kind: type) -> _Fields:
    hints = typing.get_type_hints(kind, include_extras=True)
    needed: frozenset[str] = getattr(kind, "__required_keys__", frozenset())
    closed = False
    if dataclasses.is_dataclass(kind):
        own = [f for f in dataclasses.fields(kind) if f.init]
        missing = dataclasses.MISSING
        closed, hints = True, {f.name: hints[f.name] for f in own}
        needed = frozenset(
            f.name for f in own if f.default is missing and f.default_factory is missing
        )
    return _Fields(hints, {k: _exact(hint) for k, hint in hints.items()}, needed, closed)


def _exact(kind: Any) -> frozenset[Any]:
    """Types whose values are of that kind as they are: what most are, and quickly seen."""
    if typing.get_origin(kind) in (typing.Required, typing.NotRequired):
        kind = typing.get_args(kind)[0]
    of = typing.get_args(kind) if typing.get_origin(kind) is types.UnionType else (kind,)
    plain = {float, int, str, bool, type(None)}
    return frozenset(of) if plain.issuperset(of) else frozenset()


def _as(kind: Any, data: Any, where: str) -> Any:
    origin = typing.get_origin(kind)
    if kind in _PLAIN:
        return _PLAIN[kind](data, where)
    if origin in (Annotated, typing.Required, typing.NotRequired):
        found = _as(typing.get_args(kind)[0], data, where)
        if origin is Annotated and not 0 < found <= FAR:
            refuse(where, data, f"above 0 and at most {FAR:g}")
        return found
    if origin in (Union, types.UnionType):
        return _union(typing.get_args(kind), data, where)
    if origin is Literal:
        if data not in typing.get_args(kind):
            refuse(where, data, f"one of {', '.join(map(str, typing.get_args(kind)))}")
        return data
    if origin in (list, tuple):
        return _sequence(kind, data, where)
    if origin in (dict, Mapping):
        of = typing.get_args(kind)[1]
        return {k: _as(of, v, f"{where}.{k}") for k, v in _mapping(data, where).items()}
    return _record(kind, data, where)


def _record(kind: Any, data: Any, where: str) -> Any:
    hints, exact, needed, closed = _fields(kind)
    given = _mapping(data, where)
    if lacking := needed - given.keys():
        raise InputError(f"{where}: lacks {', '.join(sorted(lacking))}")
    if closed and (unknown := given.keys() - hints.keys()):
        name = min(unknown)
        refuse(f"{where}.{name}", given[name], f"left out: known are {', '.join(hints)}")
    found = {
        k: v
        if type(v) in exact[k] and (type(v) not in (int, float) or -_NEAR < v < _NEAR)
        else _as(hints[k], v, f"{where}.{k}")
        for k, v in given.items()
        if k in hints
    }
    return kind(**found) if closed else {**given, **found}


def _mapping(data: Any, where: str) -> Mapping[str, Any]:
    if not isinstance(data, Mapping) or not all(isinstance(k, str) for k in data):
        refuse(where, data, "an object")
    return data


def _sequence(kind: Any, data: Any, where: str) -> Any:
    origin, of = typing.get_origin(kind), typing.get_args(kind)
    if not isinstance(data, list | tuple):
        refuse(where, data, "a list")
    if origin is tuple and of[-1] is not ...:
        if len(data) != len(of):
            refuse(where, data, f"a list of {len(of)}")
        return tuple(_as(k, v, f"{where}[{i}]") for i, (k, v) in enumerate(zip(of, data)))  # noqa: B905
    return origin(_as(of[0], v, f"{where}[{i}]") for i, v in enumerate(data))


def _union(kinds: tuple[Any, ...], data: Any, where: str) -> Any:
    """The first kind that takes it; of one kind or None, that kind's own words."""
    rest = [k for k in kinds if k is not type(None)]
    if data is None and len(rest) < len(kinds):
        return None
    for kind in rest[:-1]:
        try:
            return _as(kind, data, where)
        except InputError:
            continue
    return _as(rest[-1], data, where)


def _number(data: Any, where: str) -> float:
    if isinstance(data, bool) or not isinstance(data, int | float):
        refuse(where, data, "a number")
    try:
        found = float(data)
    except OverflowError:
        found = math.inf
    if not math.isfinite(found):
        refuse(where, data, "a finite number")
    return found


def _whole(data: Any, where: str) -> int:
    if isinstance(data, bool) or not isinstance(data, int) or abs(data) >= 1 << 63:
        refuse(where, data, "a whole number below 2^63")
    return data


def _text(data: Any, where: str) -> str:
    if not isinstance(data, str):
        refuse(where, data, "text")
    return data


def _flag(data: Any, where: str) -> bool:
    if not isinstance(data, bool):
        refuse(where, data, "true or false")
    return data


_PLAIN: dict[Any, Any] = {
    float: _number,
    int: _whole,
    str: _text,
    bool: _flag,
    Any: lambda data, where: data,
}
