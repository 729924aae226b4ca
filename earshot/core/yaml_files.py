"""YAML files: params.yaml, recipes, published tables."""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError
from ruamel.yaml.resolver import VersionedResolver

from earshot.core.errors import EarshotError

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
        values = yaml_parser().load(file.read_text(encoding="utf-8-sig"))
    except FileNotFoundError:
        raise EarshotError(
            f"{file}: no such file; run in the folder of params.yaml, or give its path with --params"
        ) from None
    except (OSError, UnicodeDecodeError, ValueError, YAMLError) as error:
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
