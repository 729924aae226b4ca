"""YAML files: params.yaml, recipes, published tables."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from earshot.core.errors import EarshotError


def read_yaml(file: Path) -> dict[str, Any]:
    """Read the mapping in a YAML 1.2 file (where `1e-3` is a number and `on` is a string).

    Raises EarshotError if the file is missing, cannot be parsed or does not hold a mapping.
    """
    try:
        values = YAML(typ="safe", pure=True).load(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise EarshotError(
            f"{file}: no such file; run in the folder of params.yaml, or give its path with --params"
        ) from None
    except (OSError, UnicodeDecodeError, YAMLError) as error:
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
