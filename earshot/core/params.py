"""How parameters are declared and checked.

Each stage declares its parameters as a class in `earshot/params`; a benchmark, exhibit, label model, descriptor or
network declares its own beside its code. An unknown key, a wrong type or a value out of range raises an error before
any work; the error names the parameter and the nearest valid name.
"""

import difflib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError
from pydantic_core import PydanticCustomError
from ruamel.yaml.error import YAMLError

from earshot.core.errors import EarshotError
from earshot.core.yaml_files import flatten, parse_yaml, read_yaml

Positive = Annotated[int, Field(ge=1)]
Count = Annotated[int, Field(ge=0)]
Seed = Annotated[int, Field(ge=0, lt=2**32)]
Amount = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Decay = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Share = Annotated[float, Field(ge=0, le=1)]
CropShare = Annotated[float, Field(gt=0, le=1)]
Pixels = Annotated[int, Field(ge=32, le=4096)]
Names = Annotated[tuple[str, ...], Field(strict=False)]
SplitName = Literal["train", "val", "test"]


def _each_once(values: tuple[str, ...]) -> tuple[str, ...]:
    if repeated := [value for number, value in enumerate(values) if value in values[:number]]:
        raise PydanticCustomError("repeated", "each name once; remove the second {name}", {"name": repeated[0]})
    return values


ONCE = AfterValidator(_each_once)  # of a list of names
ABSENT = "none"  # the value of a path that names no file; DVC requires a path and finds the empty file `none`


class Group(BaseModel):
    """A group of parameters: frozen, with strict types and no unknown names."""

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid")


class Part(Group):
    """A part of a group that another stage owns; that stage checks the other parameters."""

    model_config = ConfigDict(frozen=True, strict=True, extra="ignore")


@dataclass(frozen=True)
class Role:
    """How the tables of results treat a parameter; a parameter without a role belongs to the setting of a run.

    Args:
        of: `idea`: it distinguishes the rows of a table; `indifferent`: it changes no score; `filter`: if true, an
            epoch has half as many moments.
    """

    of: Literal["idea", "indifferent", "filter"]


@dataclass(frozen=True)
class UsedIf:
    """A parameter that matters only if another one has one of these values: `UsedIf("label.model", "binary")`.

    Without values, it matters if the training has the other parameter at all.
    """

    key: str
    values: tuple[Any, ...]

    def __init__(self, key: str, *values: Any) -> None:
        object.__setattr__(self, "key", key)
        object.__setattr__(self, "values", values)


class UnusedIf(UsedIf):
    """A parameter that matters unless another one has one of these values."""


class Initial:
    """A parameter of a training that untrained networks depend on too; all others matter only if it trains."""


IDEA, INDIFFERENT, INITIAL = Role("idea"), Role("indifferent"), Initial()
Params = TypeVar("Params", bound=BaseModel)


def fields_of_each(
    groups: Mapping[str, type[BaseModel]], used: str, *marks: Any, without: type[BaseModel] = BaseModel
) -> dict[str, Any]:
    """Fields for `pydantic.create_model`: the union of several schemas, each field used by those that declare it.

    Args:
        groups: the schemas by name, such as those of all label models.
        used: the parameter that selects one of the names.
        marks: further annotations of each field.
        without: a schema whose fields are left out.

    Raises:
        TypeError: two schemas declare the same field differently.
    """
    fields: dict[str, Any] = {}
    for group in groups.values():
        for key, info in group.model_fields.items():
            owners = [name for name, other in groups.items() if key in other.model_fields]
            if any(groups[owner].model_fields[key].asdict() != info.asdict() for owner in owners):
                raise TypeError(f"{key} is declared differently by {', '.join(owners)}")
            default = ... if info.is_required() else info.default
            if key not in without.model_fields:
                fields[key] = (Annotated[info.annotation, *info.metadata, *marks, UsedIf(used, *owners)], default)
    return fields


def load_params(model: type[Params], file: Path, overrides: Sequence[str] = ()) -> Params:
    """Read the parameters of one stage from `file`, apply `key=value` overrides and check what the stage reads.

    Raises EarshotError for a missing or broken file, an unknown key, a wrong type, a value out of range, and an
    override that is not a parameter of any stage.
    """
    values = read_yaml(file)
    known = {*dotted_names(model), *all_keys(values)}
    for override in overrides:
        set_value(values, *split_override(override), known=known)
    return check_params(model, values, file)


def check_params(model: type[Params], values: Mapping[str, Any], source: Path | str) -> Params:
    """Check a nested mapping of parameters; errors name `source`."""
    try:
        return model.model_validate(values)
    except ValidationError as error:
        raise EarshotError(f"{source}: {_explain(model, error.errors())}") from None


def split_override(override: str) -> tuple[str, Any]:
    """`pretrain.epochs=3` as ("pretrain.epochs", 3); the value is read as YAML."""
    key, equals, text = override.partition("=")
    if not equals or not key.strip():
        raise EarshotError(f"--set {override}: expected key=value, such as --set clusters=15")
    try:
        return key.strip(), parse_yaml(text)
    except (ValueError, YAMLError):
        raise EarshotError(f"--set {override}: the value {text!r} cannot be read as YAML; quote it") from None


def set_value(values: dict[str, Any], key: str, value: Any, *, known: Iterable[str]) -> None:
    """Set `value` at a dotted `key`, in place; this keeps comments of the file.

    Raises EarshotError if the key is not among the `known` names, or is a whole group.
    """
    known = set(known)
    if key not in known:
        raise EarshotError(unknown_key(key, known))
    inner = sorted(name.removeprefix(f"{key}.") for name in known if name.startswith(f"{key}."))
    if inner and not isinstance(value, dict | None):
        raise EarshotError(f"{key}={value!s:.200}: {key} is a group; set one of its parameters: {', '.join(inner)}")
    *groups, last = key.split(".")
    for name in groups:
        values = values.setdefault(name, {})
    values[last] = value


def dotted_names(model: type[BaseModel], prefix: str = "") -> Iterator[str]:
    """All dotted names of a schema: groups and single parameters."""
    for name in model.model_fields:
        yield prefix + name
        inner = group_of(model, name)
        if inner is not None:
            yield from dotted_names(inner, f"{prefix}{name}.")


def all_keys(values: Mapping[str, Any]) -> Iterator[str]:
    """All dotted names of a nested mapping: groups and single parameters."""
    for key, _ in flatten(values):
        parts = key.split(".")
        yield from (".".join(parts[:depth]) for depth in range(1, len(parts) + 1))


def declared_keys(model: type[BaseModel], prefix: str = "") -> Iterator[str]:
    """The dotted names that a stage with this schema reads: whole groups, and each parameter of a `Part`."""
    for name in model.model_fields:
        inner = group_of(model, name)
        if inner is not None and issubclass(inner, Part):
            yield from declared_keys(inner, f"{prefix}{name}.")
        else:
            yield prefix + name


def declared_marks(model: type[BaseModel], prefix: str = "", above: Sequence[Any] = ()) -> Iterator[tuple[str, list]]:
    """All single parameters with their annotations and those of their groups, such as a `Role`."""
    for name, info in model.model_fields.items():
        inner, marks = group_of(model, name), [*above, *info.metadata]
        if inner is None:
            yield prefix + name, marks
        else:
            yield from declared_marks(inner, f"{prefix}{name}.", marks)


def unknown_key(key: str, known: Iterable[str]) -> str:
    """An error message that rejects `key` and names the nearest parameter."""
    names = sorted(known)
    last = [name for name in names if name.rpartition(".")[2] == key.rpartition(".")[2]]
    nearest = difflib.get_close_matches(key, last or names, n=1, cutoff=0 if last else 0.5)
    groups = ", ".join(name for name in names if "." not in name)
    return f"unknown parameter {key}" + (f"; the nearest is {nearest[0]}" if nearest else f"; the groups are {groups}")


def group_of(model: type[BaseModel], name: str) -> type[BaseModel] | None:
    """The schema of a field that is a group; None for a single parameter."""
    annotation = model.model_fields[name].annotation
    candidates = [annotation, *getattr(annotation, "__args__", ())]
    return next((c for c in candidates if isinstance(c, type) and issubclass(c, BaseModel)), None)


def is_present(path: str) -> bool:
    """Whether a parameter names a file; `none` means no file."""
    return path != ABSENT


def _explain(model: type[BaseModel], problems: Sequence[Any]) -> str:
    """The first of the problems that pydantic found, as an error message.

    A parameter with alternatives, such as a number or a word, has a problem with each.
    """
    problem, key = problems[0], _key(model, problems[0]["loc"])
    if problem["type"] == "extra_forbidden":
        return unknown_key(key, dotted_names(model))
    if problem["type"] == "missing":
        return f"{key} is missing; add it (params.yaml in the repository lists every parameter)"
    alternatives = [each for each in problems if _key(model, each["loc"]) == key]
    texts = [each["msg"].removeprefix("Input should be ").replace("Input should ", "") for each in alternatives]
    actual = "empty" if problem["input"] in (None, "") else f"{problem['input']!r:.200}"
    message = f"{key} is {actual}, expected {' or '.join(dict.fromkeys(texts))}"
    options = ", ".join(each.get("ctx", {}).get("expected", "") for each in alternatives)
    choices = [each.strip("'") for each in options.replace(" or ", ", ").split(", ") if each and actual != "empty"]
    nearest = difflib.get_close_matches(str(problem["input"]), choices, 1)
    return f"{message}; the nearest is {nearest[0]}" if nearest else message


def _key(model: type[BaseModel], loc: Sequence[str | int]) -> str:
    """The dotted name of the parameter, or of the entry of a list, at which pydantic found a problem."""
    parts: list[str] = []
    group: type[BaseModel] | None = model
    for part in loc:
        if group is not None or isinstance(part, int):  # a word behind a parameter names one of its alternatives
            parts.append(str(part))
        group = group_of(group, part) if group is not None and part in group.model_fields else None
    return ".".join(parts)
