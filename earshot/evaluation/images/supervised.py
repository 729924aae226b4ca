"""The supervised reference of the ImageNet probe: the same network, trained on the classes from its first weights on.

Arandjelovic & Zisserman (2017, section 3.4) give 59.2 % for L3's image tower, trained so. The paper does not say how;
its probe has the augmentation and the label smoothing of Szegedy (2016, Inception-v3), Adam, and images of 256 px, and
so has this training. The augmentation takes crops of .08 to 1 of the area with sides of 3:4 to 4:3, mirrored half of
the time, without changes of color. The learning rate follows one cycle.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from earshot.core.prefetch import prefetch
from earshot.core.rng import generator
from earshot.evaluation.image_files import ImageMemory, read_image
from earshot.evaluation.images.sampling import batch_indices
from earshot.networks.crops import crop_images
from earshot.networks.network import Convolutional
from earshot.networks.towers import pooled
from earshot.pipeline.settings import settings
from earshot.training.augmentation import Augmentation

SMOOTHING = 0.1  # Szegedy 2016, section 7
CROPS = Augmentation(crop_min_scale=0.08, crop_max_scale=1.0, flip_prob=0.5)
SIDE = 4  # positions per side after pooling, as in the probe
TEST_IMAGES = 32  # at once


class Classifier(nn.Module):
    """A network's last map after its ReLU, max-pooled to at most 4 x 4, and one linear layer.

    Args:
        network: with weights of its own.
        classes: their number.
        size: side of the images, px.
    """

    def __init__(self, network: Convolutional, classes: int, size: int) -> None:
        super().__init__()
        self.network = network
        with torch.no_grad():
            black = torch.zeros((1, 3, size, size), dtype=torch.uint8)
            dimensions = self._features(black).shape[1]
        self.output = nn.Linear(dimensions, classes)
        nn.init.zeros_(self.output.weight)
        nn.init.zeros_(self.output.bias)

    def forward(self, images: Tensor) -> Tensor:
        """Scores of the classes, float32 (images, classes), of uint8 images (images, 3, size, size)."""
        return self.output(self._features(images)).float()

    def _features(self, images: Tensor) -> Tensor:
        return pooled(self.network.convolve(self.network.normalize(images)), SIDE, SIDE)


class ClassTask:
    """Random crops of images and their classes, as a task for the trainer.

    Args:
        network: on its device.
        files, labels: of the training images.
        size: side of the crops, px.
        batch_size: images per step; an epoch leaves out the rest of less than a batch.
        seed: of the order of the images and of the crops.
    """

    def __init__(
        self, network: Classifier, files: Sequence[str], labels: np.ndarray, *, size: int, batch_size: int, seed: int
    ) -> None:
        self.network, self.files, self.labels = network, files, labels
        self.size, self.batch_size, self.seed = size, min(batch_size, len(files)), seed
        self.batches_per_epoch = len(files) // self.batch_size
        self.images = ImageMemory()
        self.device = next(network.parameters()).device

    def batches(self, numbers: range) -> Iterator[tuple[Tensor, Tensor]]:
        """uint8 crops (batch, 3, size, size) and their classes (batch,)."""
        return prefetch(self._batch, numbers, settings().threads)

    def loss(self, batch: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        """Smoothed cross-entropy, and the share of crops whose highest score is that of their class."""
        images, labels = batch
        scores = self.network(images)
        correct = (scores.argmax(1) == labels).float().mean()
        return functional.cross_entropy(scores, labels, label_smoothing=SMOOTHING), correct

    def _batch(self, number: int) -> tuple[Tensor, Tensor]:
        count = len(self.files)
        indices = batch_indices("supervised order", self.seed, number, batch_size=self.batch_size, count=count)
        changes = CROPS.draw(len(indices), generator("supervised crops", self.seed, number))
        files = [Path(self.files[index]) for index in indices]
        crops = crop_images(map(self.images.read, files), len(files), self.size, changes)
        return crops.to(self.device), torch.from_numpy(self.labels[indices]).to(self.device)


@torch.inference_mode()
def predict(network: Classifier, files: Sequence[str], size: int) -> np.ndarray:
    """The class with the highest score for each image, squeezed to `size` x `size` px as in the probe: (images,)."""
    network.eval()
    device = next(network.parameters()).device

    def read(first: int) -> Tensor:
        return torch.stack([read_image(Path(file), size, size) for file in files[first : first + TEST_IMAGES]])

    batches = prefetch(read, range(0, len(files), TEST_IMAGES), settings().threads)
    return np.concatenate([network(batch.to(device)).argmax(1).cpu().numpy() for batch in batches])
