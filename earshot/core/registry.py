"""Extensions that are one module each (benchmarks, exhibits, label models, ...), found by the module's name."""

import difflib
import importlib
import pkgutil
from typing import Any

from earshot.core.errors import EarshotError


def names(package: str) -> tuple[str, ...]:
    """The sorted names of the modules of `package` that do not begin with an underscore."""
    paths = importlib.import_module(package).__path__
    return tuple(sorted(module.name for module in pkgutil.iter_modules(paths) if not module.name.startswith("_")))


def find(package: str, name: str, attribute: str, *, what: str) -> Any:
    """The `attribute` of the module `name` of `package`; imports only that module.

    Raises EarshotError if no module has this name; the error names `what`, such as the parameter.
    """
    known = names(package)
    if name not in known:
        nearest = difflib.get_close_matches(name, known, n=1)
        hint = f"; the nearest is {nearest[0]}" if nearest else ""
        raise EarshotError(f"{what} is {name!r}, expected one of {', '.join(known)}{hint}")
    return getattr(importlib.import_module(f"{package}.{name}"), attribute)


def find_all(package: str, attribute: str) -> dict[str, Any]:
    """The `attribute` of every module of `package`, by name."""
    return {name: getattr(importlib.import_module(f"{package}.{name}"), attribute) for name in names(package)}
