"""Recipes: small YAML files in recipes/, of what differs from params.yaml for a row of a paper.

A recipe has `about`, `cost` and `reach` in words; under `params` the idea, under `size` how large it is done, only what
differs from params.yaml or from the recipe beside it that `onto` names.
"""

from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

from earshot.core.errors import EarshotError
from earshot.core.params import unknown_key
from earshot.core.yaml_files import flatten, read_yaml
from earshot.params.schema import parameter_names

# An installed package carries params.yaml and recipes/ itself; in the repository they lie at its root.
PACKAGED = Path(__file__).resolve().parents[1] / "repository"
REPOSITORY = PACKAGED if PACKAGED.is_dir() else Path(__file__).resolve().parents[2]
WORDS = ("about", "cost", "reach")
VALUES = ("size", "params")  # in the order in which they are laid down


def read_recipe(file: Path) -> dict[str, Any]:
    """The recipe in `file`.

    Raises EarshotError for a heading that is missing or that no recipe has, and for an unknown parameter.
    """
    recipe = read_yaml(file)
    values, known = [name for name in VALUES if name in recipe], {*parameter_names()}
    if not values or not {*WORDS} <= {*recipe} <= {*WORDS, *VALUES, "onto"}:
        expected = f"{', '.join(WORDS)}, {' and '.join(VALUES)} (or one of them), and perhaps onto"
        raise EarshotError(f"{file}: has {', '.join(map(str, recipe))}; expected {expected}")
    for name in values:
        if not isinstance(recipe[name], dict):
            raise EarshotError(f"{file}: {name} is {recipe[name]!r}, expected a mapping of parameters")
        for key, _ in flatten(recipe[name]):
            if key not in known:
                raise EarshotError(f"{file}: {unknown_key(key, known)}")
    return recipe


def with_foundation(file: Path) -> list[dict[str, Any]]:
    """The recipe in `file`, and before it the one that it is laid onto, if any.

    Raises EarshotError where `onto` names no recipe beside the file, or one that is itself laid onto another.
    """
    recipe = read_recipe(file)
    if "onto" not in recipe:
        return [recipe]
    beside = sorted(path.stem for path in file.parent.glob("*.yaml") if path != file)
    if recipe["onto"] not in beside:
        raise EarshotError(f"{file}: onto is {recipe['onto']!r}, expected a recipe beside it: {', '.join(beside)}")
    foundation = read_recipe(file.with_name(f"{recipe['onto']}.yaml"))
    if "onto" in foundation:
        raise EarshotError(f"{file}: is laid onto {recipe['onto']}, which is itself laid onto {foundation['onto']}")
    return [foundation, recipe]


def recipe_values(files: Sequence[Path]) -> dict[str, Any]:
    """What the recipes set, by dotted name: all sizes first, then all ideas, a later one over an earlier.

    Raises EarshotError as `read_recipe` and `with_foundation` do.
    """
    recipes = [recipe for file in files for recipe in with_foundation(file)]
    return {key: value for name in VALUES for recipe in recipes for key, value in flatten(recipe.get(name, {}))}


@cache
def recipe_params(name: str) -> dict[str, Any]:
    """All parameters of a paper's row, by dotted name."""
    defaults = dict(flatten(read_yaml(REPOSITORY / "params.yaml")))
    return defaults | recipe_values([REPOSITORY / "recipes" / f"{name}.yaml"])
