"""YAML files: params.yaml, recipes, published tables."""

import itertools
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError
from ruamel.yaml.resolver import VersionedResolver

from earshot.core.errors import EarshotError
from earshot.core.untrusted import read_document

MAX_LENGTH = 1 << 20  # characters of a file with all that its aliases repeat
MAX_DEPTH = 100  # of lists and mappings; params.yaml has 4


def parse_yaml(text: str) -> Any:
    """The value of a YAML 1.2 text, as `yaml_parser` reads it.

    Raises YAMLError or ValueError for any other text, for one that is nested too deeply, and for one whose aliases make
    more of it than a file may hold.
    """
    if len(text) > MAX_LENGTH:
        raise ValueError(f"{len(text):,} characters, expected at most {MAX_LENGTH:,}")
    if _depth(text) > MAX_DEPTH:  # which the parser would follow in quadratic time
        raise ValueError("nested too deeply")
    try:
        values = yaml_parser().load(text)
        for length in itertools.accumulate(_lengths(values)):
            if length > MAX_LENGTH:
                raise ValueError(f"its aliases make more than {MAX_LENGTH:,} characters of it")
    except RecursionError:
        raise ValueError("nested too deeply") from None
    return values


def _depth(text: str) -> int:
    """How deep lists and mappings within one line may be nested, from the signs that open and close them."""
    steps = (1 if sign in "[{" else -1 for sign in re.findall(r"[\[\]{}]", text))
    indicators = re.findall(r"^(?:[ \t]*[-?:][ \t])+", text, re.MULTILINE)
    return max(*itertools.accumulate(steps, initial=0), *map(_signs, indicators), 0)


def _signs(indicators: str) -> int:
    return len(indicators.split())


def _lengths(value: Any) -> Iterator[int]:
    """The length of each scalar in a value, and 1 for each mapping and list; what aliases repeat counts each time."""
    if isinstance(value, Mapping):
        yield 1
        for key, inner in value.items():
            yield from _lengths(key)
            yield from _lengths(inner)
    elif isinstance(value, list | tuple | set):
        yield 1
        for inner in value:
            yield from _lengths(inner)
    else:
        yield len(value) if isinstance(value, str | bytes) else 8


NUMBERS = ("tag:yaml.org,2002:int", "tag:yaml.org,2002:float")
DECIMAL = re.compile(
    r"[-+]?(0|[1-9][0-9]*|([0-9]+\.[0-9]*|\.[0-9]+|[0-9]+(?=[eE]))([eE][-+]?[0-9]+)?|\.(inf|nan))", re.I
)


class _DecimalResolver(VersionedResolver):
    """Only decimal notation is a number: `8_0`, `0x10` and `010` are texts, which no number parameter accepts."""

    def resolve(self, kind: Any, value: Any, implicit: Any) -> Any:
        tag = super().resolve(kind, value, implicit)
        return self.DEFAULT_SCALAR_TAG if tag in NUMBERS and not DECIMAL.fullmatch(value) else tag


def yaml_parser(*, keeps_comments: bool = False) -> YAML:
    """A parser and writer of YAML 1.2, where `1e-3` is a number and `on` is a text; numbers are decimal.

    Args:
        keeps_comments: for a file that is written back.
    """
    yaml = YAML() if keeps_comments else YAML(typ="safe", pure=True)
    yaml.Resolver = _DecimalResolver
    return yaml


def read_yaml(file: Path) -> dict[str, Any]:
    """Read the mapping in a YAML file, as `yaml_parser` reads it.

    Raises EarshotError if the file is missing, cannot be parsed or does not hold a mapping.
    """
    try:
        values = parse_yaml(read_document(file).decode("utf-8-sig"))
    except FileNotFoundError:
        raise EarshotError(
            f"{file}: no such file; run in the folder of params.yaml, or give its path with --params"
        ) from None
    except (OSError, ValueError, YAMLError) as error:
        raise EarshotError(f"{file}: cannot be read as YAML; correct it: {' '.join(str(error).split())}") from None
    if not isinstance(values, dict):
        raise EarshotError(f"{file}: holds {type(values).__name__}, expected a mapping of parameters")
    return values


def flatten(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """`{"pretrain": {"epochs": 3}}` as ("pretrain.epochs", 3)."""
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield from flatten(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value
