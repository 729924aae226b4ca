"""Transformers, and any network of timm: their position tokens as a map, and their pooled features."""

import difflib
import math
from abc import abstractmethod
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from earshot.core.errors import EarshotError
from earshot.networks.backbones.alexnet import POOL, POOL_STRIDE, AlexNet
from earshot.networks.layer_taps import build_body
from earshot.networks.network import Network

TRANSFORMERS = ("vit_", "swin_", "maxvit_")  # beginnings of torchvision's names
TIMM = "timm-"  # beginning of the names of timm's networks


class TokenNetwork(Network):
    """A classifier whose body gives a feature at each position, and one for the whole image.

    AlexNet's names mean: `max5` the maximum and `fc6` the mean over the positions, `pool5` the map after AlexNet's
    pooling if it has more than two positions a side, `fc7` the pooled feature that the output layer reads: the class
    token of a ViT. The network has no `conv5` for heatmaps and units, because it takes images of one size alone.
    `dropout` has no effect.
    """

    probe_layers = AlexNet.probe_layers
    has_width = False
    body: nn.Module

    @abstractmethod
    def tokens(self, normalized: Tensor) -> tuple[Tensor, Tensor]:
        """The features of the positions, (images, channels, height, width), and the pooled ones, (images, units)."""

    def penultimate(self, normalized: Tensor) -> Tensor:
        return self.tokens(normalized)[1]

    def activations(self, normalized: Tensor) -> Iterator[tuple[str, Tensor]]:
        maps, pooled = self.tokens(normalized)
        yield "max5", maps.amax((2, 3))
        yield "pool5", functional.max_pool2d(maps, POOL, POOL_STRIDE) if min(maps.shape[2:]) > 2 else maps
        yield "fc6", maps.mean((2, 3))
        yield "fc7", pooled


class TorchvisionTransformer(TokenNetwork):
    """One of torchvision's ViT, Swin or MaxViT; `body` keeps torchvision's weight names.

    Raises:
        EarshotError: the network does not take images of this size.
    """

    def __init__(
        self, name: str, *, classes: int, width: float = 1.0, image_size: int = 224, dropout: float = 0.5
    ) -> None:
        super().__init__(name=name, classes=classes, width=width, image_size=image_size, dropout=dropout)
        sizes: dict[str, dict[str, Any]] = {
            "vit": {"image_size": image_size},
            "maxvit": {"input_size": (image_size, image_size)},
        }
        try:
            self.body = build_body(name, **sizes.get(name.partition("_")[0], {}))
        except (AssertionError, ValueError) as error:
            raise _wrong_size(name, image_size, error) from None
        head = {"vit": "heads.head", "swin": "head", "maxvit": "classifier.5"}[name.partition("_")[0]]
        self.fully_connected_names = (f"body.{head}",)
        self.renew_output(classes)

    def tokens(self, normalized: Tensor) -> tuple[Tensor, Tensor]:
        body: Any = self.body
        kind = self.architecture["name"].partition("_")[0]
        if kind == "swin":
            maps = body.norm(body.features(normalized)).permute(0, 3, 1, 2)
            return maps, maps.mean((2, 3))
        if kind == "maxvit":
            maps = body.stem(normalized)
            for block in body.blocks:
                maps = block(maps)
            return maps, body.classifier[:-1](maps)
        patches = body._process_input(normalized)  # (images, positions, channels)
        tokens = body.encoder(torch.cat([body.class_token.expand(len(patches), -1, -1), patches], dim=1))
        return as_map(tokens[:, 1:]), tokens[:, 0]


class TimmNetwork(TokenNetwork):
    """A classifier of timm, `timm-` before its name; `body` keeps timm's weight names.

    Images are normalized as the network's configuration says. Registers and class tokens are no positions.

    Raises:
        EarshotError: timm is not installed or lacks the network, the network does not take images of this size, or its
            output is not one linear layer.
    """

    def __init__(
        self, name: str, *, classes: int, width: float = 1.0, image_size: int = 224, dropout: float = 0.5
    ) -> None:
        super().__init__(name=name, classes=classes, width=width, image_size=image_size, dropout=dropout)
        self.body = _build_timm(name, image_size)
        config: Any = self.body.pretrained_cfg
        self.channel_mean.copy_(255 * torch.tensor(config["mean"]).view(3, 1, 1))
        self.channel_deviation.copy_(255 * torch.tensor(config["std"]).view(3, 1, 1))
        head = config["classifier"]
        if not isinstance(head, str) or not isinstance(self.body.get_submodule(head), nn.Linear):
            raise EarshotError(
                f"pretrain.backbone is {name}, whose output is not one linear layer; use another network"
            )
        self.fully_connected_names = (f"body.{head}",)
        self.renew_output(classes)

    def tokens(self, normalized: Tensor) -> tuple[Tensor, Tensor]:
        body: Any = self.body
        features = body.forward_features(normalized)
        pooled = body.forward_head(features, pre_logits=True)
        if features.dim() == 3:
            return as_map(features[:, getattr(body, "num_prefix_tokens", 0) :]), pooled
        channels_last = features.shape[1] != body.num_features == features.shape[3]  # Swin
        return (features.permute(0, 3, 1, 2) if channels_last else features), pooled


def as_map(tokens: Tensor) -> Tensor:
    """Tokens of the positions of a square, (images, side * side, channels), as (images, channels, side, side)."""
    side = math.isqrt(tokens.shape[1])
    return tokens.transpose(1, 2).unflatten(2, (side, side))


def _build_timm(name: str, image_size: int) -> nn.Module:
    timm, own = _timm(name), name.removeprefix(TIMM)
    if not timm.is_model(own):
        nearest = difflib.get_close_matches(own, timm.list_models(), n=1, cutoff=0.4)
        advice = f"the nearest is {TIMM}{nearest[0]}" if nearest else "see timm.list_models()"
        raise EarshotError(f"pretrain.backbone is {name!r:.60}, which timm does not have; {advice}")
    try:
        return timm.create_model(own, pretrained=False, num_classes=1, img_size=image_size)
    except TypeError:  # convolutional networks take images of any size
        return timm.create_model(own, pretrained=False, num_classes=1)
    except (AssertionError, ValueError) as error:
        raise _wrong_size(name, image_size, error) from None


def _timm(name: str) -> Any:
    try:
        import timm
    except ModuleNotFoundError:
        raise EarshotError(f"pretrain.backbone is {name}, which requires timm: pip install 'earshot[timm]'") from None
    return timm


def _wrong_size(name: str, image_size: int, error: Exception) -> EarshotError:
    reason = str(error).partition("\n")[0].rstrip(".!")
    return EarshotError(f"pretrain.image_size is {image_size}, which {name} does not take ({reason}); use 224 or 256")
