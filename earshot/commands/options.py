"""The options that several commands share: the same name means the same everywhere.

--root      the folder of the pipeline, with params.yaml, data/, models/ and metrics/
--params    a params.yaml, and --set a change of one of its values
--folder    the folder of a run that is read, with params.yaml and metrics/
--model     a folder of a trained network, or its repository id
--output    the file or folder that is written: FILE, DIR, or FILE_OR_DIR where both can be
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

Command = TypeVar("Command", bound=Callable[..., Any])
FILE = click.Path(dir_okay=False, path_type=Path)
FOLDER = click.Path(file_okay=False, path_type=Path)

root = click.option(
    "--root",
    type=FOLDER,
    default=Path("."),
    metavar="DIR",
    help="The folder with params.yaml, data/, models/ and metrics/ (default: this one).",
)
params = click.option(
    "--params", type=FILE, default=Path("params.yaml"), metavar="FILE", help="The parameters (default: params.yaml)."
)
overrides = click.option(
    "--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Change one parameter; repeatable."
)
folders = click.option(
    "--folder",
    "folders",
    type=FOLDER,
    multiple=True,
    metavar="DIR",
    help="A folder of a run, with params.yaml and metrics/; repeatable.",
)
experiments = click.option(
    "--experiment", "experiments", multiple=True, metavar="NAME", help="A DVC experiment by its name; repeatable."
)


def model(text: str, *, required: bool = False) -> Callable[[Command], Command]:
    """The option --model of a command that loads a network."""
    return click.option("--model", required=required, metavar="MODEL", help=text)


def output(default: str, what: str) -> Callable[[Command], Command]:
    """The option --output of a command that writes a folder."""
    text = f"{what} to write (default: {default})."
    return click.option("--output", type=FOLDER, default=Path(default), metavar="DIR", help=text)
