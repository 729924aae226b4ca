"""Apply recipes to params.yaml: `git diff` then shows what they change, and `dvc exp run` goes on from there.

    python -m earshot.commands.recipe recipes/owens-binary.yaml
    python -m earshot.commands.recipe recipes/owens-binary.yaml recipes/sample-large.yaml --set seed=1
    python -m earshot.commands.recipe recipes/owens-binary.yaml --keep --output elsewhere/params.yaml

A recipe is a small YAML file: `about`, `cost` and `reach` in words; under `params` the idea, under `size` how large it
is done, only what differs from params.yaml or from the recipe beside it that `onto` names. Of several recipes the sizes
are laid down first and then the ideas, each in the order given and a later one over an earlier: so a published row
comes down to the size of another recipe and stays that row.

It begins with params.yaml as committed, so that nothing of a recipe applied before is left in it, and says which values
it leaves out; --keep begins with the file as it stands.
"""

import argparse
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from earshot.core.errors import EarshotError
from earshot.core.files import write_atomically
from earshot.pipeline.params import check_params, parameter_names, read_yaml, set_value, split_override, unknown_key

WORDS = ("about", "cost", "reach")
VALUES = ("size", "params")  # in the order in which they are laid down


def read_recipe(file: Path) -> dict[str, Any]:
    """The recipe in `file`.

    Raises EarshotError for a heading that is missing or that no recipe has, and for an unknown parameter.
    """
    recipe = read_yaml(file)
    values = [name for name in VALUES if name in recipe]
    if not values or not {*WORDS} <= {*recipe} <= {*WORDS, *VALUES, "onto"}:
        wanted = f"{', '.join(WORDS)}, {' and '.join(VALUES)} (or one of them), and perhaps onto"
        raise EarshotError(f"{file}: has {', '.join(map(str, recipe))}; wanted {wanted}")
    for name in values:
        if not isinstance(recipe[name], dict):
            raise EarshotError(f"{file}: {name} is {recipe[name]!r}, wanted a mapping of parameters")
        for key, _ in flatten(recipe[name]):
            if key not in parameter_names():
                raise EarshotError(f"{file}: {unknown_key(key)}")
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
        raise EarshotError(f"{file}: onto is {recipe['onto']!r}, wanted a recipe beside it: {', '.join(beside)}")
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


def apply_recipes(recipes: Sequence[Path], params: str, output: Path, overrides: Sequence[str] = ()) -> None:
    """Write `params`, the text of a params.yaml, with the recipes and then the overrides laid over it, to `output`.

    Comments are kept. Raises EarshotError for an unknown parameter or a wrong value; nothing is written then.
    """
    yaml = YAML()
    yaml.preserve_quotes, yaml.width = True, 1000
    values = yaml.load(params)
    for key, value in (recipe_values(recipes) | dict(map(split_override, overrides))).items():
        set_value(values, key, value)
    check_params(values, " + ".join(map(str, recipes)))
    with write_atomically(output) as temporary, temporary.open("w", encoding="utf-8") as file:
        yaml.dump(values, file)


def committed(file: Path) -> str | None:
    """The text of `file` in the last commit; None where Git knows no such file."""
    command = ["git", "show", f"HEAD:./{file.name}"]
    try:
        done = subprocess.run(command, cwd=file.resolve().parent, capture_output=True, encoding="utf-8")
    except OSError:  # no git, or no such folder
        return None
    return done.stdout if done.returncode == 0 else None


def left_out(found: str, base: str, changed: set[str]) -> list[str]:
    """Words for each value of the text `found` that the text `base` has otherwise, and that is not in `changed`."""
    before, after = (dict(flatten(YAML(typ="safe", pure=True).load(text))) for text in (found, base))
    keys = [key for key in before | after if before.get(key) != after.get(key) and key not in changed]
    return [f"{key} {before.get(key)} ({after.get(key)} again)" for key in keys]


def flatten(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """`{"pretrain": {"epochs": 3}}` as ("pretrain.epochs", 3)."""
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield from flatten(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m earshot.commands.recipe",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("recipes", type=Path, nargs="+", metavar="recipe")
    parser.add_argument("--params", type=Path, default=Path("params.yaml"), metavar="FILE", help="what it changes")
    parser.add_argument("--output", type=Path, metavar="FILE", help="default: the same file")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="change more; repeatable")
    parser.add_argument("--keep", action="store_true", help="begin with the file as it stands, not as committed")
    options = parser.parse_args(arguments)
    try:
        print(_apply(options))
    except EarshotError as error:
        sys.exit(f"recipe: {error}")


def _apply(options: argparse.Namespace) -> str:
    """Do what the command line asks; what it says in the end."""
    read_yaml(options.params)  # a missing or broken file is refused in our own words
    found = options.params.read_text(encoding="utf-8")
    base = found if options.keep else committed(options.params) or found
    output = options.output or options.params
    apply_recipes(options.recipes, base, output, options.set)
    changed = {*recipe_values(options.recipes), *(override.partition("=")[0].strip() for override in options.set)}
    lines = [f"{output}: {' + '.join(recipe.stem for recipe in options.recipes)}"]
    left = left_out(found, base, changed)
    if left:
        lines.append(f"not committed and so left out: {', '.join(left)}; --keep keeps such values")
    last = read_recipe(options.recipes[-1])  # whose size it has
    lines += [f"{name}: {' '.join(last[name].split())}" for name in ("cost", "reach")]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
