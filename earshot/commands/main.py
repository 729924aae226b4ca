"""The command `earshot`. A subcommand is imported when it is called: `earshot --help` loads neither torch nor DVC."""

import importlib
import sys
from collections.abc import Sequence

import click

from earshot.core.errors import EarshotError
from earshot.core.messages import console_line

# Each command is the `command` of its module beside this file.
COMMANDS = {
    "run": "Run one stage without DVC.",
    "recipe": "Apply recipes to params.yaml, or reset it.",
    "scores": "Print the scores of a run beside their controls.",
    "tables": "Write the tables of the papers with our runs in them.",
    "compare": "Write one report of several runs side by side.",
    "completeness": "Print how many of the requested clips exist, by class.",
    "subsets": "Write a corpus of the papers as a manifest.",
    "status": "Print how far a download is.",
    "caffemodel": "Convert weights of Caffe to safetensors.",
    "embed": "Embed the sounds and images of files.",
    "search": "Find the files nearest to a sound, an image or a video.",
    "export": "Write a network, or the clips of a run, for other programs.",
    "merge": "Join the parts of a list that several machines have downloaded.",
}
EXTRAS = {
    "torch": "train",
    "torchvision": "train",
    "torchaudio": "train",
    "faiss": "train",
    "cv2": "train",
    "safetensors": "train",
    "sklearn": "train",
    "joblib": "train",
    "threadpoolctl": "train",
    "tqdm": "train",
    "jinja2": "report",
    "matplotlib": "report",
    "dask": "cluster",
    "distributed": "cluster",
    "cloudpickle": "cluster",
    "huggingface_hub": "hub",
    "onnx": "onnx",
    "onnxruntime": "onnx",
    "onnxscript": "onnx",
}


class LazyGroup(click.Group):
    """A group whose commands are imported when they are called."""

    def list_commands(self, context: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, context: click.Context, name: str) -> click.Command | None:
        if name not in COMMANDS:
            return None
        try:
            return importlib.import_module(f"earshot.commands.{name}").command
        except ModuleNotFoundError as error:
            sys.exit(f"earshot {name}: {_missing(error)}")

    def format_commands(self, context: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))

    def invoke(self, context: click.Context) -> object:
        """Run the command; a user's mistake is one line."""
        try:
            return super().invoke(context)
        except EarshotError as error:
            sys.exit(f"earshot {context.invoked_subcommand}: {console_line(error)}")
        except ModuleNotFoundError as error:
            sys.exit(f"earshot {context.invoked_subcommand}: {_missing(error)}")
        except OSError as error:
            if error.filename is None:
                raise
            sys.exit(f"earshot {context.invoked_subcommand}: {console_line(error.filename)}: {error.strerror}")


def _missing(error: ModuleNotFoundError) -> str:
    """Which package is missing, and what installs it.

    Raises the error itself where a module of this project is missing.
    """
    package = (error.name or "").partition(".")[0]
    if package in ("", "earshot"):
        raise error
    extra = EXTRAS.get(package, "pipeline")
    return f"the package {package} is not installed; run: pip install 'earshot[{extra}]'"


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120})
@click.version_option(package_name="earshot")
def cli() -> None:
    """Learn to see from what can be heard.

    \b
    Examples:
      earshot scores                             the scores of the run in this folder
      earshot recipe recipes/owens-binary.yaml   the parameters of a row of a paper
      earshot run extract --help                 what a stage reads, writes and does

    \b
    Completion in bash (zsh and fish likewise):
    eval "$(_EARSHOT_COMPLETE=bash_source earshot)"
    """


def main(arguments: Sequence[str] | None = None) -> None:
    """The entry point of the package."""
    cli.main(arguments, prog_name="earshot")
