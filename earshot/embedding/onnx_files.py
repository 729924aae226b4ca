"""Networks as ONNX files, checked in onnxruntime against PyTorch."""

from pathlib import Path

import onnx
import onnxruntime
import torch

from earshot.core.files import write_atomically
from earshot.embedding.exported import Exported, exported, properties
from earshot.embedding.network import NetworkModel

OPSET = 18


def write_onnx(model: NetworkModel, folder: Path) -> dict[Path, float]:
    """Write audio.onnx and images.onnx, and labels.onnx of a network of the stage pretrain.

    Returns the largest difference from PyTorch of each file, relative to the largest value.

    Raises EarshotError if a file computes other values than PyTorch.
    """
    return {(file := folder / f"{each.name}.onnx"): _write(file, model, each) for each in exported(model)}


def _write(file: Path, model: NetworkModel, each: Exported) -> float:
    with write_atomically(file) as temporary:
        program = torch.onnx.export(
            each.module,
            (each.inputs,),
            input_names=[each.input],
            output_names=[each.output],
            dynamic_shapes=each.dynamic_shapes,
            opset_version=OPSET,
            dynamo=True,
            verbose=False,
        )
        assert program
        proto = program.model_proto
        onnx.helper.set_model_props(proto, properties(model))
        onnx.save(proto, temporary)
        session = onnxruntime.InferenceSession(str(temporary), providers=["CPUExecutionProvider"])
        (actual,) = session.run(None, {each.input: each.inputs.numpy()})
        return each.difference(actual, file)
