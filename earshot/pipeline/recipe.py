"""Apply a recipe to params.yaml: `git diff` then shows what it changes, and `dvc repro` goes on from there.

    python -m earshot.pipeline.recipe recipes/sample-large.yaml
    python -m earshot.pipeline.recipe recipes/sample-large.yaml --set seed=1 --output elsewhere/params.yaml

A recipe is a small YAML file: `about`, `cost` and `reach` in words, and under `params` only what differs.
"""

import argparse
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from earshot.pipeline.errors import EarshotError
from earshot.pipeline.params import check_params, read_yaml, set_value, split_override
from earshot.pipeline.shards import write_atomically

HEADINGS = ("about", "cost", "reach", "params")


def read_recipe(file: Path) -> dict[str, Any]:
    """The recipe in `file`.

    Raises EarshotError for headings other than about, cost, reach and params, and for one that is missing.
    """
    recipe = read_yaml(file)
    if set(recipe) != set(HEADINGS) or not isinstance(recipe["params"], dict):
        raise EarshotError(f"{file}: has {', '.join(map(str, recipe))}; wanted {', '.join(HEADINGS)}, params a mapping")
    return recipe


def apply_recipe(recipe: Path, params: Path, output: Path, overrides: Sequence[str] = ()) -> None:
    """Write `params` with the recipe's values and then the overrides laid over it, comments kept, to `output`.

    Raises EarshotError for an unknown parameter or a wrong value; nothing is written then.
    """
    read_yaml(params)  # a missing or broken file is refused in our own words
    changes = dict(flatten(read_recipe(recipe)["params"])) | dict(map(split_override, overrides))
    yaml = YAML()
    yaml.preserve_quotes, yaml.width = True, 1000
    values = yaml.load(params.read_text(encoding="utf-8"))
    for key, value in changes.items():
        set_value(values, key, value)
    check_params(values, recipe)
    with write_atomically(output) as temporary, temporary.open("w", encoding="utf-8") as file:
        yaml.dump(values, file)


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
        prog="python -m earshot.pipeline.recipe",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("recipe", type=Path)
    parser.add_argument("--params", type=Path, default=Path("params.yaml"), metavar="FILE", help="what it changes")
    parser.add_argument("--output", type=Path, metavar="FILE", help="default: the same file")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="change more; repeatable")
    options = parser.parse_args(arguments)
    output = options.output or options.params
    try:
        apply_recipe(options.recipe, options.params, output, options.set)
        recipe = read_recipe(options.recipe)
    except EarshotError as error:
        sys.exit(f"recipe: {error}")
    print(f"{output}: {options.recipe.stem}. {' '.join(recipe['cost'].split())} {' '.join(recipe['reach'].split())}")


if __name__ == "__main__":
    main()
