"""What a correspondence network minimizes, one module each: the values of `correspond.objective`.

A module defines OBJECTIVE, a subclass of Objective.
"""

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits

from earshot.core.errors import EarshotError
from earshot.core.params import Group
from earshot.core.registry import find
from earshot.networks.audio_visual_base import Correspondence
from earshot.training.pairs import Pairs


class NoArguments(Group):
    """The arguments of an objective without any."""


class Objective(ABC):
    """A loss of pairs.

    Attributes:
        arguments: the schema of the arguments of the constructor; they are also parameters of the stage correspond.
        sound_alone: whether images teach nothing, so that the image tower keeps its initial weights.
        windows: consecutive sounds of each clip in a batch (`Pairs.in_windows`).
        last_chance: the loss of a random guess on the last shared batch, a scalar, where `chance` cannot know it.
    """

    arguments: ClassVar[type[Group]] = NoArguments
    sound_alone: ClassVar[bool] = False
    windows: int = 1
    last_chance: Tensor | None = None

    def trained(self, network: Correspondence, seed: int) -> nn.Module:
        """The module to train: the network, or one that holds it beside weights of the objective, which are not kept.

        Raises EarshotError for a network that lacks what the objective trains.
        """
        return network

    @abstractmethod
    def loss(self, network: Any, batch: Pairs, *, shared: bool) -> tuple[Tensor, Tensor]:
        """The mean loss, and the share of pairs whose log-odds have the right sign: scalars.

        Args:
            network: the module that `trained` returned.
            shared: whether each process calls this with its part of one batch; a validation batch is a process's own.
        """

    def prepare(self, network: Correspondence, *inputs: Tensor) -> None:
        """Set initial values of the random network from a batch of its inputs, in place."""
        network.calibrate_bias(*inputs)

    def embeddings(self, network: Correspondence, batch: Pairs) -> dict[str, Tensor]:
        """What must not collapse, (n, units), by modality."""
        return {"image": network.embed_images(batch.images), "audio": network.embed_audio(batch.sounds)}

    def state(self) -> dict[str, Tensor]:
        """What a checkpoint must keep of the steps before, by name."""
        return {}

    def restore(self, state: dict[str, Tensor]) -> None:
        """Go on from the `state` of a checkpoint, on the network's device."""
        assert not state

    @abstractmethod
    def chance(self, groups: Sequence[str], shifted: Sequence[bool] | np.ndarray) -> float | None:
        """The loss of a random guess on a batch of clips of these groups; None if it depends on earlier batches too.

        Args:
            shifted: of each clip, whether its mismatched sound is its own at another time.

        Raises:
            EarshotError: such a batch teaches nothing.
        """


def build_objective(name: str, **arguments: Any) -> Objective:
    """An objective; it ignores arguments that are not its own.

    Raises:
        EarshotError: the name is unknown.
    """
    kind = find(__name__, name, "OBJECTIVE", what="correspond.objective")
    return kind(**{key: value for key, value in arguments.items() if key in kind.arguments.model_fields})


def negatives(groups: Sequence[str]) -> np.ndarray:
    """For each clip of a batch the number of clips of other groups, int (clips,).

    Raises:
        EarshotError: all clips are of one group.
    """
    counts = Counter(groups)
    if len(counts) < 2:
        raise EarshotError(
            f"all {len(groups)} clips of a batch are of the group {groups[0]!r}, expected two groups or more; "
            "raise correspond.batch_size, give clips of other videos, or set correspond.objective=match"
        )
    return np.array([len(groups) - counts[group] for group in groups])


def of_own_group(groups: Tensor, all_groups: Tensor, targets: Tensor) -> Tensor:
    """Which clips are no negatives of a clip, because they are of its group: bool (clips, all clips).

    Args:
        groups, all_groups: of a process's clips, int64 (clips,), and of the clips of all processes.
        targets: the index of each clip among all, which is its own positive, int64 (clips,).
    """
    excluded = groups[:, None] == all_groups
    excluded[range(len(groups)), targets] = False
    return excluded


def accuracy(log_odds: Tensor, is_match: Tensor) -> Tensor:
    """The share of pairs whose log-odds have the right sign, a scalar."""
    return ((log_odds > 0) == (is_match > 0)).float().mean()


def calibrated(
    loss: Tensor, network: Correspondence, images: Tensor, sounds: Tensor, batch: Pairs
) -> tuple[Tensor, Tensor]:
    """A loss of compared features by which the last layer learns its pairs too, and their accuracy.

    Some losses rank pairs and say nothing of where a match begins. So the network's last layer, which turns
    similarities into log-odds, learns the pairs of the batch by binary cross-entropy, without gradients for what comes
    before it. Log-odds thus mean what they do after training by `match`. Only the gradient of this term counts: the
    value of the loss stays.
    """
    detached = network.similarities(images.detach(), sounds.detach())
    log_odds = network.log_odds(detached)[batch.image_index, batch.audio_index]
    calibration = binary_cross_entropy_with_logits(log_odds, batch.is_match)
    return loss + calibration - calibration.detach(), accuracy(log_odds, batch.is_match)
