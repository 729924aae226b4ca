"""Contrastive predictive coding of sound alone: which of all sounds of the batch comes next?

The loss is InfoNCE (van den Oord, Li & Vinyals 2018, "Representation learning with contrastive predictive coding",
arXiv 1807.03748, equation 4), with the log-bilinear scores of equation 3. A context, the state of a GRU over the
latents so far, predicts the latents of later steps, with one linear map for each number of steps ahead (section 2.2).

Unlike there, a latent stands for a second of sound and not for 10 ms: it is the pooled output of the audio tower, which
describes sounds elsewhere too (`TwoTowers.pooled_audio`). The columns of the tower's last map would be too near each
other: the receptive field of one is 68 of the second's 199 windows at stride 1, and 133 at stride 2, so that fields are
disjoint from 9 columns on, of 24 or 12. Consecutive seconds share no sample. They do share the recording: its noise and
its loudness predict it as well as its sources do.
"""

from collections.abc import Sequence
from typing import Annotated

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from earshot.core.errors import EarshotError
from earshot.core.params import IDEA, Group
from earshot.core.rng import generator
from earshot.networks.audio_visual_base import Correspondence
from earshot.networks.two_towers import TwoTowers
from earshot.training import distributed as processes
from earshot.training.objectives import Objective, negatives, of_own_group
from earshot.training.pairs import Pairs


class PredictiveCodingArguments(Group):
    """The number of consecutive seconds of a clip."""

    windows: Annotated[int, Field(ge=2, le=16), IDEA]


class Predictor(nn.Module):
    """An audio tower with a context of its latents, and a prediction for each number of steps ahead.

    Of the encoder the audio tower alone is trained. At first all predictions are 0, so that all sounds are equally
    likely. The context has half as many units as a latent, as in the paper (section 3.1).

    Args:
        encoder: its weights outside the audio tower require no gradients from now on.
        steps: how far the predictions reach.
        seed: of the context's random weights.
    """

    def __init__(self, encoder: TwoTowers, steps: int, seed: int) -> None:
        super().__init__()
        encoder.requires_grad_(False)
        encoder.audio_tower.requires_grad_(True)
        self.encoder, units = encoder, encoder.audio_tower.channels
        hidden = max(units // 2, 1)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(int(generator("context", seed).integers(2**63)))
            self.context = nn.GRU(units, hidden, batch_first=True)
        predictions = [nn.Linear(hidden, units, bias=False) for _ in range(steps)]
        for prediction in predictions:
            nn.init.zeros_(prediction.weight)
        self.predictions = nn.ModuleList(predictions)
        self.to(next(encoder.parameters()).device)

    def latents(self, sounds: Tensor) -> Tensor:
        """Of each second, float32 (sounds, units)."""
        return self.encoder.pooled_audio(sounds).float()


class PredictiveCoding(Objective):
    """InfoNCE of later seconds of a clip, by its earlier ones, over the whole batch on all processes.

    The negatives of a second are those of the other clips at the same place, except clips of its own group. All pairs
    of a context and a later second have the same weight. The accuracy is the share of comparisons in which the right
    second scores above one of another clip: one half is chance, whatever the size of the batch.

    Args:
        windows: consecutive seconds of a clip; the context of all up to each predicts each after it.
    """

    arguments = PredictiveCodingArguments
    sound_alone = True

    def __init__(self, windows: int) -> None:
        self.windows = windows

    def trained(self, network: Correspondence, seed: int) -> Predictor:
        if not isinstance(network, TwoTowers):
            lack = f"correspond.network={network.architecture['name']} has no tower for sound alone"
            raise EarshotError(f"{lack}; for correspond.objective=cpc use ave, l3, avol or dual_encoder")
        return Predictor(network, self.windows - 1, seed)

    def loss(self, network: Predictor, batch: Pairs, *, shared: bool) -> tuple[Tensor, Tensor]:
        own = len(batch.images)
        seconds = batch.sounds.unflatten(0, (self.windows, -1))[:, :own]
        latents = network.latents(seconds.flatten(0, 1)).unflatten(0, (self.windows, own)).transpose(0, 1)
        groups, first = batch.groups[:own], 0
        all_latents, all_groups = latents, groups
        if shared:
            all_latents, all_groups = processes.gather(latents), processes.gather(groups)
            first = own * processes.rank()
        with torch.autocast(latents.device.type, enabled=False):
            contexts, _ = network.context(latents)  # (clips, windows, hidden)
            scores = torch.cat(
                [
                    torch.einsum("ctu,atu->tca", predict(contexts[:, :-steps]), all_latents[:, steps:])
                    for steps, predict in enumerate(network.predictions, 1)
                ]
            )  # (pairs of a context and a later second, clips, all clips)
        targets = torch.arange(first, first + own, device=groups.device)
        excluded = of_own_group(groups, all_groups, targets)
        loss = cross_entropy(scores.masked_fill(excluded, -torch.inf).flatten(0, 1), targets.repeat(len(scores)))
        return loss, _share_above(scores, targets, excluded)

    def embeddings(self, network: Correspondence, batch: Pairs) -> dict[str, Tensor]:
        assert isinstance(network, TwoTowers)
        return {"audio": network.pooled_audio(batch.sounds)}

    def chance(self, groups: Sequence[str], shifted: Sequence[bool] | np.ndarray) -> float:
        return float(np.mean(np.log1p(negatives(groups))))


def _share_above(scores: Tensor, targets: Tensor, excluded: Tensor) -> Tensor:
    """The share of the other sounds above which the right one scores, a scalar; a tie counts half."""
    right = scores[:, range(len(targets)), targets, None]
    others = ~excluded
    others[range(len(targets)), targets] = False
    signs = (right - scores).sign() * others
    return 0.5 + 0.5 * (signs.sum(2) / others.sum(1).clamp(min=1)).mean()


OBJECTIVE = PredictiveCoding
