"""Apply recipes to params.yaml. `git diff` then shows the changes, and `dvc exp run` or `dvc repro` runs them.

    python -m earshot.commands.recipe recipes/owens-binary.yaml
    python -m earshot.commands.recipe recipes/owens-binary.yaml recipes/sample-large.yaml --set seed=1
    python -m earshot.commands.recipe recipes/owens-binary.yaml --keep --output elsewhere/params.yaml

With several recipes, all `size` values apply first and then all `params`, in the given order; later values win. So a
second recipe scales a published row down without changing its method.

The command starts from the committed params.yaml, so that no value of an earlier recipe remains, and prints the values
that it drops; --keep starts from the current file.
"""

import argparse
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from ruamel.yaml import YAML

from earshot.core.errors import EarshotError
from earshot.core.files import write_atomically
from earshot.core.params import check_params, set_value, split_override
from earshot.core.yaml_files import flatten, read_yaml
from earshot.params.schema import Pipeline, parameter_names
from earshot.results.recipes import read_recipe, recipe_values


def apply_recipes(recipes: Sequence[Path], params: str, output: Path, overrides: Sequence[str] = ()) -> None:
    """Apply the recipes and then the overrides to `params`, the text of a params.yaml; write it to `output`.

    Keeps comments. Raises EarshotError, without writing, for an unknown parameter or a wrong value.
    """
    yaml = YAML()
    yaml.preserve_quotes, yaml.width = True, 1000
    values, known = yaml.load(params), parameter_names()
    for key, value in (recipe_values(recipes) | dict(map(split_override, overrides))).items():
        set_value(values, key, value, known=known)
    check_params(Pipeline, values, " + ".join(map(str, recipes)))
    with write_atomically(output) as temporary, temporary.open("w", encoding="utf-8") as file:
        yaml.dump(values, file)


def committed(file: Path) -> str | None:
    """The text of `file` in the last commit; None if it is not in Git."""
    command = ["git", "show", f"HEAD:./{file.name}"]
    try:
        done = subprocess.run(command, cwd=file.resolve().parent, capture_output=True, encoding="utf-8")
    except OSError:  # no git, or no such folder
        return None
    return done.stdout if done.returncode == 0 else None


def dropped_values(current: str, base: str, changed: set[str]) -> list[str]:
    """Text for each value that differs between `current` and `base` and is not in `changed`."""
    before, after = (dict(flatten(YAML(typ="safe", pure=True).load(text))) for text in (current, base))
    keys = [key for key in before | after if before.get(key) != after.get(key) and key not in changed]
    return [f"{key} {before.get(key)} ({after.get(key)} again)" for key in keys]


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m earshot.commands.recipe",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("recipes", type=Path, nargs="+", metavar="recipe")
    parser.add_argument("--params", type=Path, default=Path("params.yaml"), metavar="FILE", help="the file to change")
    parser.add_argument("--output", type=Path, metavar="FILE", help="default: the same file")
    parser.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", help="set a parameter too; repeatable"
    )
    parser.add_argument("--keep", action="store_true", help="start from the current file, not the committed one")
    options = parser.parse_args(arguments)
    try:
        print(_apply(options))
    except EarshotError as error:
        sys.exit(f"recipe: {error}")


def _apply(options: argparse.Namespace) -> str:
    """Run the command; return the text to print."""
    read_yaml(options.params)  # raises EarshotError for a missing or broken file
    current = options.params.read_text(encoding="utf-8")
    base = current if options.keep else committed(options.params) or current
    output = options.output or options.params
    apply_recipes(options.recipes, base, output, options.set)
    changed = {*recipe_values(options.recipes), *(override.partition("=")[0].strip() for override in options.set)}
    lines = [f"{output}: {' + '.join(recipe.stem for recipe in options.recipes)}"]
    dropped = dropped_values(current, base, changed)
    if dropped:
        lines.append(f"not committed, so dropped: {', '.join(dropped)}; --keep keeps such values")
    last = read_recipe(options.recipes[-1])  # its size applies
    lines += [f"{name}: {' '.join(last[name].split())}" for name in ("cost", "reach")]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
