"""Exports models and runs for other programs."""

import importlib
from pathlib import Path
from typing import Any

import click

from earshot.commands import options
from earshot.commands.output import echo
from earshot.core.errors import EarshotError
from earshot.embedding.loading import load


def onnx(model: str | None, root: Path, output: Path) -> None:
    """Networks as ONNX."""
    module = importlib.import_module("earshot.embedding.onnx_files")
    for file, difference in module.write_onnx(_network(model), output).items():
        echo(f"{file}: differs from PyTorch by {difference:.1e} of the largest value")


def hub(model: str | None, root: Path, output: Path) -> None:
    """A published folder: safetensors, configuration and model card."""
    network = _network(model)
    network.save_pretrained(output, run=root if (root / "params.yaml").is_file() else None)
    echo(f"{output}: {network.name}, fingerprint {network.fingerprint}; correct the license in README.md")


def parquet(model: str | None, root: Path, output: Path) -> None:
    """The clips of a run as a plain table."""
    module = importlib.import_module("earshot.embedding.clip_export")
    echo(f"{output}: {module.write_parquet(root, output):,} clips, kept and refused")


FORMATS = {"onnx": onnx, "hub": hub, "parquet": parquet}


def _network(source: str | None) -> Any:
    if not source:
        raise EarshotError("--model is missing; name the folder of a network, such as models/correspond")
    network = load(source)
    if not network.image_dimensions:
        raise EarshotError(f"{source}: {network.name} is no network; name the folder of one, such as models/correspond")
    return network


@click.command()
@click.option("--to", type=click.Choice(list(FORMATS)), required=True, help="The format.")
@click.option("--model", default=None, help="Of onnx and hub: the folder of a network, such as models/correspond.")
@options.root
@click.option("--output", type=click.Path(path_type=Path), required=True, metavar="PATH", help="What to write.")
def command(to: str, model: str | None, root: Path, output: Path) -> None:
    """Write a network, or the clips of a run, in a format of other programs.

    \b
    onnx     audio.onnx, images.onnx (and labels.onnx of pretrain), checked against PyTorch
    hub      a folder to publish: safetensors, configuration, model card
    parquet  one row a clip: annotations, flags, refusals, image and sound

    \b
    Examples:
      earshot export --to onnx --model models/correspond --output onnx
      earshot export --to parquet --output clips.parquet
    """
    FORMATS[to](model, root, output)
