"""Recipes: small YAML files in recipes/ with the changes to params.yaml for a row of a paper.

A recipe describes itself in `about`, `cost` and `reach`. `params` holds the method and `size` the scale: only what
differs from params.yaml, or from the recipe in the same folder that `onto` names. A recipe with `onto` may leave out
`cost` and `reach` where they are those of that recipe.
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
VALUES = ("size", "params")  # in the order in which they apply


def read_recipe(file: Path) -> dict[str, Any]:
    """The recipe in `file`.

    Raises EarshotError for a missing or unknown heading, and for an unknown parameter.
    """
    recipe = read_yaml(file)
    values, known = [name for name in VALUES if name in recipe], {*parameter_names()}
    required = {"about"} if "onto" in recipe else {*WORDS}
    if not values or not required <= {*recipe} <= {*WORDS, *VALUES, "onto"}:
        expected = f"{', '.join(WORDS)}, {' and '.join(VALUES)} (or one of them), and perhaps onto"
        raise EarshotError(f"{file}: has {', '.join(map(str, recipe)):.200}; expected {expected}")
    for name in values:
        if not isinstance(recipe[name], dict):
            raise EarshotError(f"{file}: {name} is {recipe[name]!r:.200}, expected a mapping of parameters")
        for key, _ in flatten(recipe[name]):
            if key not in known:
                raise EarshotError(f"{file}: {unknown_key(key, known)}")
    return recipe


def with_foundation(file: Path) -> list[dict[str, Any]]:
    """The recipe in `file`, after the one that it builds onto, if any.

    Raises EarshotError if `onto` names no recipe in the same folder, or one that itself has `onto`.
    """
    recipe = read_recipe(file)
    if "onto" not in recipe:
        return [recipe]
    beside = sorted(path.stem for path in file.parent.glob("*.yaml") if path != file)
    if recipe["onto"] not in beside:
        raise EarshotError(
            f"{file}: onto is {recipe['onto']!r}, expected a recipe in the same folder: {', '.join(beside)}"
        )
    foundation = read_recipe(file.with_name(f"{recipe['onto']}.yaml"))
    if "onto" in foundation:
        chain = f"{recipe['onto']}, which itself builds onto {foundation['onto']}"
        raise EarshotError(f"{file}: builds onto {chain}; expected a recipe without onto")
    return [foundation, recipe]


def recipe_words(file: Path) -> dict[str, str]:
    """What the recipe says in `about`, `cost` and `reach`; what it leaves out is what its foundation says.

    Raises EarshotError as `with_foundation` does.
    """
    recipe = {name: text for each in with_foundation(file) for name, text in each.items()}
    return {name: " ".join(str(recipe[name]).split()) for name in WORDS}


def recipe_values(files: Sequence[Path]) -> dict[str, Any]:
    """The values that the recipes set, by dotted name: all sizes, then all params; later recipes override earlier ones.

    Raises EarshotError as `read_recipe` and `with_foundation` do.
    """
    recipes = [recipe for file in files for recipe in with_foundation(file)]
    return {key: value for name in VALUES for recipe in recipes for key, value in flatten(recipe.get(name, {}))}


@cache
def recipe_params(name: str) -> dict[str, Any]:
    """All parameters of a paper's row, by dotted name."""
    defaults = dict(flatten(read_yaml(REPOSITORY / "params.yaml")))
    return defaults | recipe_values([REPOSITORY / "recipes" / f"{name}.yaml"])
