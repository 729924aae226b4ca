"""Fast R-CNN (Girshick 2015; rbgirshick/fast-rcnn): classifies the regions of an image from one pass of convolutions.

RoI pooling turns the part of conv5 inside a region into the input of the network's hidden layers; two new output layers
predict the region's class and the offsets of its box. Boxes are edges in px: left, top, right, bottom.
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate
from torch.nn.modules.batchnorm import _BatchNorm

from earshot.core.rng import generator
from earshot.evaluation.images.voc_annotations import Objects
from earshot.evaluation.metrics import SAME_OBJECT, Detections, overlap
from earshot.networks.network import ConvolutionalNetwork

OBJECT_SHARE = 0.25  # of the regions of a step (Girshick 2015, section 2.3)
BACKGROUND_FROM = 0.1  # least overlap of a background region with an object
SCORE_DEVIATION, OFFSET_DEVIATION = 0.01, 0.001  # of the new layers' first weights (section 2.3)
OFFSET_SCALE = (0.1, 0.1, 0.2, 0.2)  # about the deviations of the offsets of proposals that show an object
LARGEST_GROWTH = float(np.log(1000 / 16))  # largest log growth of a box, so that the exponential stays finite
# How regions become detections (rbgirshick/fast-rcnn, lib/fast_rcnn/test.py; TEST.NMS in config.py).
MOST_CANDIDATES = 100  # of a class in an image, before suppression
MEAN_CANDIDATES = 40  # of a class, on average over the images
SUPPRESSED_FROM = 0.3  # overlap with a better detection of the class
ROUNDING = 1e-3  # in positions of conv5: float32 may round an edge between two positions to the wrong side


class FastRcnn(nn.Module):
    """An encoder with two new output layers, for regions of images of any size.

    Args:
        network: gives the convolutions and hidden layers, which are trained in place.
        classes: number of classes without the background.
        seed: of the new layers' weights.
    """

    def __init__(self, network: ConvolutionalNetwork, classes: int, seed: int) -> None:
        super().__init__()
        self.network = network
        for norm in self.batch_norms():
            norm.requires_grad_(False)
        network.fully_connected[-1].requires_grad_(False)  # the output layer of pretraining is unused
        chances = torch.Generator().manual_seed(int(generator("detection layers", seed).integers(2**63)))
        units = _hidden_units(network)
        self.scores = _gaussian(nn.Linear(units, classes + 1), SCORE_DEVIATION, chances)  # the background comes first
        self.offsets = _gaussian(nn.Linear(units, 4 * classes), OFFSET_DEVIATION, chances)

    def batch_norms(self) -> list[nn.Module]:
        """The encoder's batch norms."""
        return [module for module in self.network.modules() if isinstance(module, _BatchNorm)]

    def forward(self, images: Sequence[Tensor], rois: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """Scores (all regions, classes + 1) and scaled offsets (all regions, classes, 4).

        Args:
            images: uint8 (3, height, width) each.
            rois: boxes in each of them, (regions, 4), in shares of its width and height.
        """
        pooled = torch.cat([self._pool(*both) for both in zip(images, rois, strict=True)])
        hidden = self.network.hidden(pooled)  # (all regions, units)
        return self.scores(hidden), self.offsets(hidden).unflatten(1, (-1, 4))

    def _pool(self, image: Tensor, rois: Tensor) -> Tensor:
        """RoI max pooling of each region: (regions, channels, pooled_side, pooled_side).

        Positions of conv5 divide the image evenly, whatever the network's padding; a region includes all positions
        that it touches.
        """
        from torchvision.ops import roi_pool  # takes as long to import as torch, as do the other two

        conv5 = self.network.convolve(self.network.normalize(image[None]))  # (1, channels, height, width)
        height, width = conv5.shape[2:]
        edges = rois * rois.new_tensor([width, height, width, height])
        corners = torch.cat([(edges[:, :2] + ROUNDING).floor(), (edges[:, 2:] - ROUNDING).ceil() - 1], dim=1)
        return roi_pool(conv5.float(), [corners], self.network.pooled_side)


@torch.inference_mode()
def detect(detector: FastRcnn, image: Tensor, proposals: Tensor, objects: Objects) -> dict[str, np.ndarray]:
    """The candidates of every class in an image, best first: boxes (classes, n, 4) and scores (classes, n).

    `select` chooses the detections among those of all images. Boxes are in px of the annotated image.

    Args:
        detector: in eval mode.
        image: uint8 (3, height, width), of any scale.
        proposals: (proposals, 4) in px of the annotated image.
        objects: give the size of the annotated image.
    """
    from torchvision.ops import clip_boxes_to_image

    device = next(detector.parameters()).device
    scores, offsets = detector([image.to(device)], [(proposals / size_of(objects)).to(device)])
    shares = scores.softmax(1)[:, 1:].T.cpu()  # (classes, proposals)
    boxes = clip_boxes_to_image(moved(proposals[:, None], offsets.cpu()), (objects.height, objects.width))
    shares, rows = shares.sort(dim=1, descending=True, stable=True)
    shares, rows = shares[:, :MOST_CANDIDATES], rows[:, :MOST_CANDIDATES]
    best = boxes.transpose(0, 1).take_along_dim(rows[..., None], dim=1)  # (classes, n, 4)
    return {"boxes": best.contiguous().numpy(), "scores": shares.contiguous().numpy()}


def select(candidates: Sequence[Detections]) -> list[Detections]:
    """The detections of one class among its candidates, best first; both have an entry per image.

    If there are more candidates than MEAN_CANDIDATES an image, only those above the last of the best so many remain.
    Then a box goes that overlaps a better one of its image.
    """
    from torchvision.ops import nms

    scores, most = np.concatenate([each.scores for each in candidates]), MEAN_CANDIDATES * len(candidates)
    least = np.sort(scores)[-most] if len(scores) > most else -np.inf
    above = [Detections(each.boxes[each.scores > least], each.scores[each.scores > least]) for each in candidates]
    kept = [nms(torch.from_numpy(e.boxes), torch.from_numpy(e.scores), SUPPRESSED_FROM).numpy() for e in above]
    return [Detections(e.boxes[rows], e.scores[rows]) for e, rows in zip(above, kept, strict=True)]


def draw_rois(
    candidates: np.ndarray, objects: Objects, count: int, chances: np.random.Generator
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Draw rows of `candidates` (n, 4), their classes (0 for background, else from 1), and their nearest objects.

    At most a quarter overlap an object by half or more; the others overlap one by a tenth or more, but none by half.
    """
    overlaps = overlap(candidates, objects.boxes)  # (candidates, objects)
    most = overlaps.max(1)
    foreground = chances.permutation(np.flatnonzero(most >= SAME_OBJECT))[: round(count * OBJECT_SHARE)]
    background = np.flatnonzero((most >= BACKGROUND_FROM) & (most < SAME_OBJECT))
    rows = np.append(foreground, chances.permutation(background)[: count - len(foreground)])
    nearest = overlaps[rows].argmax(1)
    classes = np.where(most[rows] >= SAME_OBJECT, objects.classes[nearest] + 1, 0)
    return rows, classes, nearest


def offsets_between(rois: Tensor, targets: Tensor) -> Tensor:
    """The scaled offsets from boxes (n, 4) to targets (n, 4): of the center in widths and heights, and of the logarithm
    of the size (Girshick 2015, section 2.3; Girshick 2014, appendix C)."""
    (centers, sizes), (target_centers, target_sizes) = _centers(rois), _centers(targets)
    offsets = torch.cat([(target_centers - centers) / sizes, (target_sizes / sizes).log()], dim=-1)
    return offsets / offsets.new_tensor(OFFSET_SCALE)


def moved(rois: Tensor, offsets: Tensor) -> Tensor:
    """Boxes (..., 4) moved by the offsets of `offsets_between`."""
    offsets = offsets * offsets.new_tensor(OFFSET_SCALE)
    centers, sizes = _centers(rois)
    centers = centers + offsets[..., :2] * sizes
    halves = sizes * offsets[..., 2:].clamp(max=LARGEST_GROWTH).exp() / 2
    return torch.cat([centers - halves, centers + halves], dim=-1)


def scaled(image: Tensor, shorter_side: int, longer_side: int) -> Tensor:
    """An image, uint8 (3, height, width), scaled until its shorter or its longer side reaches its limit in px."""
    height, width = image.shape[1:]
    factor = min(shorter_side / min(height, width), longer_side / max(height, width))
    size = max(round(height * factor), 1), max(round(width * factor), 1)
    return interpolate(image[None], size, mode="bilinear", antialias=True)[0]


def size_of(objects: Objects) -> Tensor:
    """The size of an image for each edge of a box."""
    return torch.tensor([objects.width, objects.height] * 2, dtype=torch.float32)


def _centers(boxes: Tensor) -> tuple[Tensor, Tensor]:
    sizes = boxes[..., 2:] - boxes[..., :2]
    return boxes[..., :2] + sizes / 2, sizes


def _gaussian(layer: nn.Linear, deviation: float, chances: torch.Generator) -> nn.Linear:
    nn.init.normal_(layer.weight, 0, deviation, generator=chances)
    nn.init.zeros_(layer.bias)
    return layer


@torch.no_grad()
def _hidden_units(network: ConvolutionalNetwork) -> int:
    """The number of outputs of `hidden` for a region."""
    blank = torch.zeros(1, 3, network.image_size, network.image_size, dtype=torch.uint8)
    return network.eval().penultimate(network.normalize(blank)).shape[1]
