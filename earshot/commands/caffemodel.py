"""Convert a .caffemodel to safetensors, for pretrain.backbone=caffenet_plain or alexnet_plain.

No code of the file runs. Tensors have the names of Caffe's layers, as the two backbones have. First filters are turned
from blue-green-red to red-green-blue. --leave-out drops layers that the backbone lacks; --mean stores another mean
than ImageNet's.

\b
Examples:
  earshot caffemodel bvlc_reference_caffenet.caffemodel --output caffenet.safetensors --leave-out fc8
  earshot caffemodel alexnet.caffemodel --output alexnet.safetensors --mean 127.5 127.5 127.5
"""

from collections.abc import Sequence
from pathlib import Path

import click
import torch
from safetensors.torch import save

from earshot.commands import options
from earshot.core.errors import EarshotError
from earshot.core.files import write_atomically
from earshot.networks.caffemodel import read_caffemodel


@click.command("caffemodel", help=__doc__)
@click.argument("file", type=options.FILE, metavar="FILE")
@click.option("--output", type=options.FILE, required=True, metavar="FILE", help="The safetensors file to write.")
@click.option("--leave-out", multiple=True, metavar="LAYER", help="A layer to leave out, such as fc8; repeatable.")
@click.option(
    "--mean",
    type=float,
    nargs=3,
    default=None,
    metavar="B G R",
    help="The mean of the pixels, blue first (default: ImageNet's).",
)
def command(file: Path, output: Path, leave_out: Sequence[str], mean: tuple[float, float, float] | None) -> None:
    tensors = read_caffemodel(file)
    layers = {name.rpartition(".")[0] for name in tensors}
    if unknown := set(leave_out) - layers:
        actual = f"--leave-out {min(unknown)}: {file} has no such layer"
        raise EarshotError(f"{actual}; it has {', '.join(sorted(layers))}")
    tensors = {name: tensor for name, tensor in tensors.items() if name.rpartition(".")[0] not in leave_out}
    if mean:
        tensors["channel_mean"] = torch.tensor(mean[::-1]).view(3, 1, 1)
    with write_atomically(output) as path:
        path.write_bytes(save(tensors))
    for name, tensor in tensors.items():
        click.echo(f"{name} {tuple(tensor.shape)}")
