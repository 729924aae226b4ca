"""Match: for each pair alone, do image and sound belong together? (Arandjelovic & Zisserman 2017, section 2)."""

import math
from collections.abc import Sequence

import numpy as np
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits

from earshot.networks.audio_visual_base import Correspondence
from earshot.training.objectives import Objective, accuracy
from earshot.training.pairs import Pairs


class Match(Objective):
    """Binary cross-entropy of matching and mismatched pairs."""

    def loss(self, network: Correspondence, batch: Pairs, *, shared: bool) -> tuple[Tensor, Tensor]:
        log_odds = network(*batch[:4]).float()
        return binary_cross_entropy_with_logits(log_odds, batch.is_match), accuracy(log_odds, batch.is_match)

    def chance(self, groups: Sequence[str], shifted: Sequence[bool] | np.ndarray) -> float:
        return math.log(2)


OBJECTIVE = Match
