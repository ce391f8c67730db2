"""Studies: a question, what is expected, and the trials that answer it. One short file a question.

A study file has a function `study(corpus, vocab, **options) -> Study`; `corpus` is the manifest's
sha256. A user's study is a path to a .py file of that form, or to a .yaml file of plain data, as
`sweeps/studies/template.yaml` shows it.
"""

import importlib.util
import inspect
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from ground import InputError, reading, text
from lab.parametrization import content, from_json
from lab.records import Trial
from sweeps import space


@dataclass(frozen=True, kw_only=True)
class Study:
    """A question and its trials. `refine` names the field whose grid grows at an edge, in at most
    `rounds` rounds.
    """

    name: str
    question: str
    expectation: str
    trials: tuple[Trial, ...]
    refine: str = ""
    rounds: int = 0

    def __post_init__(self) -> None:
        text.name("study", self.name)
        if not self.trials:
            raise InputError(f"study={self.name!r}: has no trials")
        if self.refine and self.refine not in Trial.__dataclass_fields__:
            raise InputError(f"refine={self.refine!r}: must be a field of a trial")


TEMPLATE = Path(__file__).parent / "template.yaml"


def names() -> list[str]:
    """The built-in studies: the files here that have a function `study`."""
    return sorted(
        p.stem
        for p in Path(__file__).parent.glob("*.py")
        if p.stem != "__init__" and "\ndef study(" in p.read_text()
    )


def load(name: str, corpus: str, vocab: int, **options: Any) -> Study:
    """A built-in study by name, or a user's by path (.py or .yaml); `options` go to its
    function.
    """
    return opened(name, **options)(corpus, vocab)


def opened(name: str, **options: Any) -> Callable[[str, int], Study]:
    """The same as a function of corpus and vocabulary, which need not be there yet: a file that is
    no study, or does not take the options, is refused before they are made.
    """
    path = Path(name)
    if path.suffix in (".yaml", ".yml"):
        if options:
            raise InputError(
                f"options={sorted(options)}: a study of plain data takes none; change {name}"
            )
        return partial(_from_yaml, path, *_mapping(path))
    if path.suffix != ".py" and name not in names():
        raise InputError(
            f"study={name!r}: must be one of {', '.join(names()) or '(none)'}, or a "
            "path to a .py or .yaml file"
        )
    if path.suffix == ".py" and not path.is_file():
        raise InputError(f"study={name!r}: no such file")
    path = path if path.suffix == ".py" else Path(__file__).parent / f"{name}.py"
    return partial(_from_python, path, _function(path, options), options)


def _function(path: Path, options: dict[str, Any]) -> Callable[..., Any]:
    """The file's `study`, which takes the options."""
    spec = importlib.util.spec_from_file_location(f"scalelab_study_{path.stem}", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except Exception as error:  # whatever a user's file does
        raise InputError(f"study={str(path)!r}: cannot be imported ({_said(error)})") from None
    function = getattr(module, "study", None)
    if function is None:
        raise InputError(f"study={str(path)!r}: has no function study(corpus, vocab, **options)")
    known = inspect.signature(function).parameters
    if unknown := sorted(options.keys() - known.keys()):
        accepted = [p for p in known if p not in ("corpus", "vocab")]
        raise InputError(
            f"{unknown[0]}={options[unknown[0]]!r}: study {path.stem} takes "
            f"{', '.join(accepted) or 'no options'}"
        )
    return function


def _from_python(
    path: Path, function: Callable[..., Any], options: dict[str, Any], corpus: str, vocab: int
) -> Study:
    try:
        study = function(corpus, vocab, **options)
    except InputError:
        raise
    except Exception as error:
        raise InputError(f"study={str(path)!r}: study() raised {_said(error)}") from None
    if not isinstance(study, Study):
        raise InputError(
            f"study={str(path)!r}: study() returned a {type(study).__name__}, not a "
            "sweeps.studies.Study"
        )
    return study


def _said(error: Exception) -> str:
    """An error of a user's file, with the line that raised it."""
    last = traceback.extract_tb(error.__traceback__)[-1]
    where = (
        ""
        if isinstance(error, SyntaxError)
        else f" ({Path(last.filename).name}, line {last.lineno})"
    )
    return f"{type(error).__name__}: {error}{where}"


# A study of plain data ---------------------------------------------------------------------------

LARGEST, NODES = 4 << 20, 1_000_000  # bytes of a YAML file, values that it may come to
_KEYS = ("question", "expectation", "space", "common", "refine", "rounds")


def _mapping(path: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    data, said = _plain_data(path)
    if not isinstance(data, dict) or "space" not in data:
        raise InputError(f"study={str(path)!r}: must be a mapping with at least 'space'")
    if unknown := sorted(str(key) for key in data.keys() - set(_KEYS)):
        raise InputError(f"{unknown[0]}: unknown key of a study; known: {', '.join(_KEYS)}")
    return data, said


def _from_yaml(
    path: Path, data: dict[str, Any], said: dict[str, Any], corpus: str, vocab: int
) -> Study:
    try:
        common = {
            "corpus": corpus,
            "vocab": vocab,
            **_read({k: _number(v) for k, v in data.get("common", {}).items()}, path.parent),
        }
        derived = {k: common.pop(k) for k in ("ff_ratio", "tokens_per_param") if k in common}
        return Study(
            name=path.stem,
            question=str(said.get("question", "")),
            expectation=str(said.get("expectation", "")),
            trials=tuple(
                space.trials(
                    [_read(p, path.parent) for p in points(data["space"])],
                    lambda p: _derived(p, **derived),
                    **common,
                )
            ),
            refine=data.get("refine", ""),
            rounds=int(data.get("rounds", 1 if data.get("refine") else 0)),
        )
    except InputError:
        raise
    except KeyError as error:
        raise InputError(f"study={str(path)!r}: {error} is missing") from None
    except (AttributeError, TypeError, ValueError, ArithmeticError) as error:
        raise InputError(
            f"study={str(path)!r}: not of the form that `scalelab sweep init` shows ({error})"
        ) from None


def _plain_data(path: Path) -> tuple[Any, Any]:
    """What a YAML file holds, which may name a part of itself again and again, but not without
    end; and its top level with every word as it was written: no is "no".
    """
    import yaml

    content = reading.content_of(path, "study", LARGEST)
    try:
        data = yaml.safe_load(content)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        said = text.line(str(error))
        raise InputError(f"study={str(path)!r}: cannot be read ({said})") from None
    nodes, left = [data], NODES
    while nodes:
        node, left = nodes.pop(), left - 1
        if isinstance(node, dict):
            nodes += node.values()
        elif isinstance(node, list):
            nodes += node
        if left < len(nodes):
            raise InputError(f"study={str(path)!r}: holds more than {NODES:,} values")
    if not isinstance(data, dict):
        return data, {}
    top = yaml.compose(content)
    assert isinstance(top, yaml.MappingNode)
    return data, {key.value: node.value for key, node in top.value}


def as_yaml(trials: Sequence[Trial], question: str, expectation: str) -> str:
    """A study of plain data with these trials: fields that all share are `common`, the others each
    point's own; corpus and vocabulary are those that it is run on.
    """
    import yaml

    given = [n for n in Trial.__dataclass_fields__ if n not in ("corpus", "vocab")]
    common = {n: getattr(trials[0], n) for n in given if len({getattr(t, n) for t in trials}) == 1}
    space = [{n: getattr(t, n) for n in given if n not in common} for t in trials]
    document = {"question": question, "expectation": expectation, "space": space, "common": common}
    return yaml.safe_dump(document, sort_keys=False)


def _number(value: Any) -> Any:
    """YAML takes 1e-3, without a point, for text."""
    try:
        return float(value) if isinstance(value, str) else value
    except ValueError:
        return value


def _read(point: dict[str, Any], folder: Path) -> dict[str, Any]:
    """The point with the file of its table read, which lies beside the study; it names the
    parametrization.
    """
    file = point.get("table")
    if not file or "{" in str(file):
        return point
    written = content(folder / str(file))
    return {"parametrization": from_json(written).name, **point, "table": written}


def _derived(
    point: dict[str, Any], ff_ratio: float = 0, tokens_per_param: float = 0
) -> dict[str, Any]:
    out: dict[str, Any] = {}
    if ff_ratio and "width" in point:
        out["ff"] = round(ff_ratio * point["width"])
    if tokens_per_param:
        from lab.counts import params

        out["steps"] = 1 << 20  # enough for every piece of a batch schedule
        shape = Trial(**{**point, **out})
        tokens = tokens_per_param * params(shape)
        out["steps"] = max(1, round(tokens / (shape.tokens / shape.steps)))
    return out


def _values(value: Any) -> Any:
    """A list of values, or {log_grid: [low, high, count]} or {powers: [low, high, step]}."""
    makers: dict[str, Callable[..., list[float]]] = {
        "log_grid": space.log_grid,
        "powers": space.powers,
    }
    if isinstance(value, dict):
        (name, arguments), *rest = value.items()
        if name not in makers or rest:
            raise InputError(
                f"space: {value!r}: values are a list, log_grid: [low, high, count] "
                "or powers: [low, high, step]"
            )
        return makers[name](*map(_number, arguments))
    return [_number(v) for v in (value if isinstance(value, list) else [value])]


def points(node: Any) -> list[space.Point]:
    """The points of a space given as plain data: a list of points, or one combinator and its
    arguments.
    """
    if isinstance(node, list):
        return [{field: _number(value) for field, value in point.items()} for point in node]
    if not isinstance(node, dict) or len(node) != 1:
        raise InputError(
            f"space: {node!r}: must be a list of points or one of product, zip, "
            "cross, chain, subsample, random, sobol"
        )
    ((name, body),) = node.items()
    if name in ("product", "zip"):
        axes = {field: _values(values) for field, values in body.items()}
        return space.product(**axes) if name == "product" else space.zipped(**axes)
    if name in ("cross", "chain"):
        spaces = [points(part) for part in body]
        return space.cross(*spaces) if name == "cross" else space.chain(*spaces)
    if name == "subsample":
        return space.subsample(points(body["space"]), body["count"], body.get("seed", 0))
    if name in ("random", "sobol"):
        draw = space.random if name == "random" else space.sobol
        return draw(
            body["count"],
            body.get("seed", 0),
            **{field: [_number(v) for v in range_] for field, range_ in body["ranges"].items()},
        )
    raise InputError(
        f"space: {name!r}: must be one of product, zip, cross, chain, subsample, random, sobol"
    )
