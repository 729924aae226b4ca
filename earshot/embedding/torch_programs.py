"""Networks as programs of torch.export, which PyTorch runs without Earshot, and compiles (AOTInductor)."""

import json
from pathlib import Path

import torch

from earshot.core.files import write_atomically
from earshot.embedding.exported import Exported, exported, properties
from earshot.embedding.network import NetworkModel

PROPERTIES = "earshot.json"  # a file within the program


def write_programs(model: NetworkModel, folder: Path) -> dict[Path, float]:
    """Write audio.pt2 and images.pt2, and labels.pt2 of a network of the stage pretrain.

    `torch.export.load` reads them. Returns the largest difference from PyTorch of each file, relative to the largest
    value.

    Raises EarshotError if a file computes other values than PyTorch.
    """
    return {(file := folder / f"{each.name}.pt2"): _write(file, model, each) for each in exported(model)}


def _write(file: Path, model: NetworkModel, each: Exported) -> float:
    with write_atomically(file) as temporary:
        program = torch.export.export(each.module, (each.inputs,), dynamic_shapes=each.dynamic_shapes)
        with open(temporary, "wb") as opened:  # of a path, torch warns unless it ends in .pt2
            torch.export.save(program, opened, extra_files={PROPERTIES: json.dumps(properties(model))})
        with open(temporary, "rb") as opened, torch.inference_mode():
            actual = torch.export.load(opened).module()(each.inputs)
        return each.difference(actual.float().numpy(), file)
