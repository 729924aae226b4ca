"""Exports models and runs for other programs."""

import importlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from earshot.commands import options
from earshot.commands.output import echo
from earshot.core.errors import EarshotError
from earshot.embedding.loading import load


@dataclass(frozen=True)
class Export:
    """What to export.

    Args:
        model: the folder of a network, of onnx, torch and hub.
        root: of the run.
        embeddings: a table of `earshot embed`, of parquet, rerun and fiftyone.
        output: what to write.
    """

    model: str | None
    root: Path
    embeddings: Path | None
    output: Path


def onnx(export: Export) -> None:
    """Networks as ONNX."""
    module = importlib.import_module("earshot.embedding.onnx_files")
    _say_differences(module.write_onnx(_network(export.model), export.output))


def torch(export: Export) -> None:
    """Networks as programs of torch.export."""
    module = importlib.import_module("earshot.embedding.torch_programs")
    _say_differences(module.write_programs(_network(export.model), export.output))


def _say_differences(files: dict[Path, float]) -> None:
    for file, difference in files.items():
        echo(f"{file}: differs from PyTorch by {difference:.1e} of the largest value")


def hub(export: Export) -> None:
    """A published folder: safetensors, configuration and model card."""
    network, run = _network(export.model), export.root
    network.save_pretrained(export.output, run=run if (run / "params.yaml").is_file() else None)
    echo(f"{export.output}: {network.name}, fingerprint {network.fingerprint}; correct the license in README.md")


def parquet(export: Export) -> None:
    """The clips of a run as a plain table."""
    module = importlib.import_module("earshot.embedding.clip_export")
    embeddings = module.ClipEmbeddings(export.embeddings) if export.embeddings else None
    echo(f"{export.output}: {module.write_parquet(export.root, export.output, embeddings):,} clips, kept and refused")


def rerun(export: Export) -> None:
    """The clips of a run as a recording for the Rerun viewer."""
    clips, module = map(importlib.import_module, ("earshot.embedding.clip_export", "earshot.embedding.rerun_export"))
    embeddings = clips.ClipEmbeddings(export.embeddings) if export.embeddings else None
    echo(f"{export.output}: {module.write_rerun(export.root, export.output, embeddings):,} clips, kept and refused")


def fiftyone(export: Export) -> None:
    """The clips of a run as a dataset of FiftyOne."""
    clips, module = map(importlib.import_module, ("earshot.embedding.clip_export", "earshot.embedding.fiftyone_export"))
    embeddings = clips.ClipEmbeddings(export.embeddings) if export.embeddings else None
    echo(f"{export.output}: {module.write_fiftyone(export.root, export.output, embeddings):,} clips, kept and refused")


FORMATS = {"onnx": onnx, "torch": torch, "hub": hub, "parquet": parquet, "rerun": rerun, "fiftyone": fiftyone}


def _network(source: str | None) -> Any:
    if not source:
        raise EarshotError("--model is missing; name the folder of a network, such as models/correspond")
    network = load(source)
    if not network.image_dimensions:
        raise EarshotError(f"{source}: {network.name} is no network; name the folder of one, such as models/correspond")
    return network


@click.command()
@click.option("--to", type=click.Choice(list(FORMATS)), required=True, help="The format.")
@options.model("Of the formats of networks: a folder such as models/correspond, or a repository id.")
@options.root
@click.option(
    "--embeddings",
    type=options.FILE,
    metavar="FILE",
    help="Of the formats of clips: a table of earshot embed.",
)
@click.option(
    "--output",
    type=click.Path(path_type=Path),
    required=True,
    metavar="FILE_OR_DIR",
    help="The file or folder to write.",
)
def command(to: str, model: str | None, root: Path, embeddings: Path | None, output: Path) -> None:
    """Write a network, or the clips of a run, in a format of other programs.

    \b
    onnx     audio.onnx, images.onnx (and labels.onnx of pretrain), checked against PyTorch
    torch    the same as programs of torch.export (.pt2), which run without Earshot
    hub      a folder to publish: safetensors, configuration, model card
    parquet  one row a clip: annotations, flags, refusals, frames, sound, embeddings
    rerun    the same as a recording (.rrd) for the Rerun viewer; requires rerun-sdk
    fiftyone the same as a folder for FiftyOne; requires fiftyone

    \b
    Examples:
      earshot export --to onnx --model models/correspond --output onnx
      earshot export --to parquet --output clips.parquet
      earshot export --to rerun --embeddings emb.parquet --output clips.rrd
    """
    FORMATS[to](Export(model, root, embeddings, output))
