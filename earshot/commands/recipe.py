"""Apply recipes to params.yaml. `git diff` then shows the changes, and `dvc exp run` or `dvc repro` runs them.

Of several recipes the sizes are laid down first and then the ideas, each in the order given and a later one over an
earlier: so a published row comes down to the size of another recipe and stays that row.

The command starts from the committed params.yaml, so that no value of an earlier recipe remains, and prints the values
that it drops; --keep starts from the current file.
"""

import subprocess
from collections.abc import Sequence
from pathlib import Path

import click

from earshot.commands import options
from earshot.commands.output import echo
from earshot.core.errors import EarshotError
from earshot.core.files import write_atomically
from earshot.core.params import check_params, set_value, split_override
from earshot.core.yaml_files import flatten, parse_yaml, read_yaml, yaml_parser
from earshot.params.schema import Pipeline, parameter_names
from earshot.results.recipes import recipe_values, recipe_words

INPUTS = ("clips", "manifest", "ontology", "data_dir", "weights")  # names of parameters that are paths
LISTED = 10  # dropped values that are printed
DEFAULT_COST = "seven to fourteen minutes on two cores. Disk .8 GB, twice that where DVC's cache cannot link."


def apply_recipes(recipes: Sequence[Path], params: str, output: Path, overrides: Sequence[str] = ()) -> None:
    """Apply the recipes and then the overrides to `params`, the text of a params.yaml; write it to `output`.

    Keeps comments. Raises EarshotError, without writing, for an unknown parameter or a wrong value.
    """
    yaml = yaml_parser(keeps_comments=True)
    yaml.preserve_quotes, yaml.width = True, 1000
    values, known = yaml.load(params), parameter_names()
    for key, value in (recipe_values(recipes) | dict(map(split_override, overrides))).items():
        set_value(values, key, value, known=known)
    check_params(Pipeline, values, " + ".join(map(str, recipes)))
    with write_atomically(output) as temporary, temporary.open("w", encoding="utf-8") as file:
        yaml.dump(values, file)


def committed(file: Path) -> str:
    """The text of `file` in the last commit.

    Raises EarshotError, with what Git says, where it cannot be had: outside a repository, for a file that is not
    committed, and where Git refuses to read a repository of another owner.
    """
    command = ["git", "show", f"HEAD:./{file.name}"]
    reason = ""
    try:
        done = subprocess.run(command, cwd=file.resolve().parent, capture_output=True, encoding="utf-8")
    except FileNotFoundError:
        reason = "git is not installed"
    else:
        if done.returncode == 0:
            return done.stdout
        reason = (done.stderr.splitlines() or [f"git ended with {done.returncode}"])[0].removeprefix("fatal: ")
    raise EarshotError(
        f"{file}: the committed state cannot be read ({reason}); commit the folder (git add --all && git commit "
        "--message start), or begin with the file as it stands (--keep)"
    )


def missing_inputs(params: Path, root: Path) -> list[str]:
    """What `params` names outside the pipeline's own folders that is not there, as `key: path`."""
    missing = []
    for key, value in flatten(read_yaml(params)):
        is_outside = isinstance(value, str) and value.startswith(("../", "/"))
        if key.rpartition(".")[2] in INPUTS and is_outside and not (root / value).exists():
            missing.append(f"{key}: {value}")
    return missing


def dropped_values(current: str, base: str, changed: set[str]) -> list[str]:
    """A line for each value that differs between `current` and `base` and is not in `changed`."""
    before, after = (dict(flatten(parse_yaml(text))) for text in (current, base))
    lines = []
    for key in before | after:
        if key in changed or (key in before and key in after and before[key] == after[key]):
            continue
        now = f"{after[key]} again" if key in after else "removed"
        lines.append(f"  {key}: {now} ({f'was {before[key]}' if key in before else 'was missing'})")
    return lines


def _first(lines: Sequence[str]) -> list[str]:
    """The first lines, and how many more there are."""
    return [*lines[:LISTED], *([f"  and {len(lines) - LISTED} more"] if len(lines) > LISTED else [])]


def _values(number: int) -> str:
    return "1 value" if number == 1 else f"{number} values"


@click.command()
@click.argument("recipes", nargs=-1, type=options.FILE, metavar="[RECIPE]...")
@options.params
@options.overrides
@click.option("--keep", is_flag=True, help="Begin with the file as it stands, not as committed.")
@click.option("--reset", is_flag=True, help="Write the committed state back, without any recipe.")
@click.option("--output", type=options.FILE, metavar="FILE", help="The file to write (default: that of --params).")
def command(
    recipes: tuple[Path, ...], params: Path, overrides: tuple[str, ...], keep: bool, reset: bool, output: Path | None
) -> None:
    """Apply recipes to params.yaml, beginning with its committed state.

    Of several recipes the sizes come first and then the ideas; a later recipe wins. A published row followed by a size
    recipe is that row at the smaller size. Prints the whole cost, as if nothing were cached, and which files and
    folders are missing. `git diff` then shows what has changed.

    \b
    Examples:
      earshot recipe recipes/owens-binary.yaml
      earshot recipe recipes/owens-binary.yaml recipes/sample-large.yaml --set seed=1
      earshot recipe recipes/owens-binary.yaml --keep --output elsewhere/params.yaml
      earshot recipe --reset
    """
    if reset == bool(recipes) or (reset and (keep or overrides)):
        raise click.UsageError("Name one recipe or more, or --reset alone.")
    if output is not None and not output.name:
        raise click.BadParameter(f"{str(output)!r} is no file, expected one such as params.yaml", param_hint="--output")
    read_yaml(params)  # a missing or broken file is refused in our own words
    output = output or params
    echo(_reset(params, output) if reset else _apply(recipes, params, overrides, keep, output))


def _reset(params: Path, output: Path) -> str:
    """Write the committed parameters; the closing words."""
    current, base = params.read_text(encoding="utf-8"), committed(params)
    with write_atomically(output) as temporary:
        temporary.write_text(base, encoding="utf-8")
    dropped = dropped_values(current, base, set())
    heading = f"{output}: as committed" + (f"; {_values(len(dropped))} dropped:" if dropped else ", nothing to drop")
    return "\n".join([heading, *_first(dropped)])


def _apply(recipes: Sequence[Path], params: Path, overrides: Sequence[str], keep: bool, output: Path) -> str:
    """Apply the recipes; the closing words."""
    current = params.read_text(encoding="utf-8")
    base = current if keep else committed(params)
    apply_recipes(recipes, base, output, overrides)
    changed = {*recipe_values(recipes), *(override.partition("=")[0].strip() for override in overrides)}
    lines = [f"{output}: {' + '.join(recipe.stem for recipe in recipes)}"]
    dropped = dropped_values(current, base, changed)
    if dropped:
        lines += [f"{_values(len(dropped))} not committed, so dropped; --keep keeps such values:", *_first(dropped)]
    lines += _costs(recipes, keep)
    missing = missing_inputs(output, params.parent)
    if missing:
        lines += ["missing, before any stage can use them:", *(f"  {each}" for each in missing)]
        lines.append("put them there, or name others: --set KEY=PATH")
    return "\n".join(lines)


def _costs(recipes: Sequence[Path], keep: bool) -> list[str]:
    """A line for each cost, and for each number to reach.

    The last recipe that names a corpus decides the size. Recipes that name none add a benchmark or labels to it, or to
    the default run.
    """
    names_corpus = {file: any(key.startswith("corpus.") for key in recipe_values([file])) for file in recipes}
    sized = [file for file in recipes if names_corpus[file]][-1:]
    added = [file for file in recipes if not names_corpus[file]]
    descriptions = {file.stem: recipe_words(file) for file in sized + added}
    costs = [f"cost of {name}: {words['cost']}" for name, words in descriptions.items()]
    if not sized and not keep:
        costs.insert(0, f"cost of the default run: {DEFAULT_COST}")
    return costs + [f"reach of {name}: {words['reach']}" for name, words in descriptions.items()]
