"""Things that are one file each: found by the name of their module, in the folder of their kind."""

import difflib
import importlib
import pkgutil
from typing import Any

from earshot.core.errors import EarshotError


def names(package: str) -> tuple[str, ...]:
    """The names of all things of a kind, sorted: the modules of `package` that do not begin with an underscore."""
    paths = importlib.import_module(package).__path__
    return tuple(sorted(module.name for module in pkgutil.iter_modules(paths) if not module.name.startswith("_")))


def find(package: str, name: str, attribute: str, *, what: str) -> Any:
    """What the module `name` of `package` defines as `attribute`; only that module is imported.

    Raises EarshotError for a name that no module has; `what` says in the error what was requested, such as a parameter.
    """
    known = names(package)
    if name not in known:
        near = difflib.get_close_matches(name, known, n=1)
        hint = f"; the nearest is {near[0]}" if near else ""
        raise EarshotError(f"{what} is {name!r}, expected one of {', '.join(known)}{hint}")
    return getattr(importlib.import_module(f"{package}.{name}"), attribute)


def find_all(package: str, attribute: str) -> dict[str, Any]:
    """What every module of `package` defines as `attribute`, by name."""
    return {name: getattr(importlib.import_module(f"{package}.{name}"), attribute) for name in names(package)}
