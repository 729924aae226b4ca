"""Apply recipes to params.yaml: `git diff` then shows what they change, and `dvc exp run` goes on from there.

    python -m earshot.commands.recipe recipes/owens-binary.yaml
    python -m earshot.commands.recipe recipes/owens-binary.yaml recipes/sample-large.yaml --set seed=1
    python -m earshot.commands.recipe recipes/owens-binary.yaml --keep --output elsewhere/params.yaml

Of several recipes the sizes are laid down first and then the ideas, each in the order given and a later one over an
earlier: so a published row comes down to the size of another recipe and stays that row.

It begins with params.yaml as committed, so that nothing of a recipe applied before is left in it, and says which values
it leaves out; --keep begins with the file as it stands.
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
    """Write `params`, the text of a params.yaml, with the recipes and then the overrides laid over it, to `output`.

    Comments are kept. Raises EarshotError for an unknown parameter or a wrong value; nothing is written then.
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
