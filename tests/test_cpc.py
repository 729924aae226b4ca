"""Contrastive predictive coding: the loss of its equation, from sound alone, over processes as in one."""

import itertools
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from test_correspond import correspond, rooted, weights
from test_correspondence import write_world
from test_correspondence_networks import build, pairs_for
from test_correspondence_task import CENTERED, SPEC, decode_sound, write_clips
from test_distributed import run_torchrun
from torch import Tensor, nn

from earshot.core.errors import EarshotError
from earshot.core.rng import generator
from earshot.scenes.clips import clips_of
from earshot.training.correspondence import PairedClips, make_pairs
from earshot.training.objectives import build_objective
from earshot.training.objectives.cpc import Predictor
from earshot.training.pairs import Pairs

pytestmark = pytest.mark.usefixtures("one_process")
WINDOWS = 3
CPC = build_objective("cpc", windows=WINDOWS)
GROUPS = (0, 1, 2, 3, 0, 4, 5, 1)
SHARED = """
import sys
import torch
from test_cpc import CPC, batch_of, predictor
from earshot.training import distributed as processes
with processes.together():
    network = predictor()
    loss = processes.shared_loss(network, lambda batch: CPC.loss(network, batch, shared=True))
    value, right = loss(batch_of(processes.part(8)))
    value.backward()
    values = processes.mean(torch.stack([value.detach(), right]))
    if processes.rank() == 0:
        gradients = {name: weights.grad for name, weights in network.named_parameters() if weights.requires_grad}
        torch.save({"values": values, **gradients}, sys.argv[1])
"""


class Linear(nn.Module):
    """An audio tower of one linear layer without batch norm, and an image tower."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.audio_tower, self.image_tower = nn.Linear(7, 4), nn.Linear(12, 4)
        self.audio_tower.channels = 4

    def pooled_audio(self, sounds: Tensor) -> Tensor:
        return torch.relu(self.audio_tower(sounds))


def predictor() -> Predictor:
    """Predictions that are not 0, unlike at first."""
    network = Predictor(Linear(), WINDOWS - 1, seed=0)
    for prediction in network.predictions:
        nn.init.normal_(prediction.weight, generator=torch.Generator().manual_seed(3))
    return network


def batch_of(part: slice = slice(0, 8)) -> Pairs:
    """A part of a batch of 8 clips; the sound of a clip's mismatched pair is that of the next clip of the part."""
    sounds = torch.randn(8, WINDOWS * 7, generator=torch.Generator().manual_seed(1))[part]
    own = torch.arange(len(sounds))
    images, index = torch.zeros(len(own), 3, 2, 2, dtype=torch.uint8), torch.cat([own, own.roll(-1)])
    is_match = torch.tensor([1.0, 0.0]).repeat_interleave(len(own))
    return Pairs(images, sounds, own.repeat(2), index, is_match, torch.tensor(GROUPS)[part]).in_windows(WINDOWS)


def contexts_of(gru: nn.GRU, latents: np.ndarray) -> np.ndarray:
    """The states of a GRU by its equations: (clips, windows, hidden)."""
    w, r = (getattr(gru, f"weight_{kind}_l0").detach().numpy() for kind in ("ih", "hh"))
    b, c = (getattr(gru, f"bias_{kind}_l0").detach().numpy() for kind in ("ih", "hh"))
    state, states = np.zeros((len(latents), r.shape[1])), []
    for step in range(latents.shape[1]):
        from_input, from_state = (np.split(each, 3, axis=1) for each in (latents[:, step] @ w.T + b, state @ r.T + c))
        reset, update = (1 / (1 + np.exp(-(from_input[n] + from_state[n]))) for n in (0, 1))
        new = np.tanh(from_input[2] + reset * from_state[2])
        state = (1 - update) * new + update * state
        states.append(state)
    return np.stack(states, axis=1)


def test_the_loss_is_that_of_equation_4_by_hand():
    """-log of the right second's share of exp(z W c) among all other groups, for each context and later second."""
    network, batch = predictor(), batch_of()
    sounds = batch.sounds.numpy().reshape(WINDOWS, 8, 7)
    tower = network.encoder.audio_tower
    latents = np.maximum(sounds @ tower.weight.detach().numpy().T + tower.bias.detach().numpy(), 0).transpose(1, 0, 2)
    contexts = contexts_of(network.context, latents)
    losses, shares = [], []
    for first, later in itertools.combinations(range(WINDOWS), 2):
        weight = network.predictions[later - first - 1].weight.detach().numpy()
        scores = contexts[:, first] @ weight.T @ latents[:, later].T
        for clip, row in enumerate(scores):
            others = [row[other] for other in range(8) if GROUPS[other] != GROUPS[clip]]
            losses.append(math.log(sum(map(math.exp, [row[clip], *others]))) - row[clip])
            shares.append(np.mean([row[clip] > score for score in others]))
    loss, right = CPC.loss(network, batch, shared=True)
    assert len(losses) == 3 * 8
    assert loss.item() == pytest.approx(np.mean(losses), rel=1e-5)
    assert right.item() == pytest.approx(np.mean(shares), rel=1e-5)


def test_at_first_every_sound_is_equally_likely():
    network, batch = Predictor(Linear(), WINDOWS - 1, seed=0), batch_of()
    loss, right = CPC.loss(network, batch, shared=False)
    chance = CPC.chance([str(group) for group in GROUPS], [False] * 8)
    assert chance == pytest.approx((4 * math.log(7) + 4 * math.log(8)) / 8)  # two groups have two clips
    assert loss.item() == pytest.approx(chance)
    assert right == 0.5
    loss.backward()
    assert all(prediction.weight.grad.abs().sum() > 0 for prediction in network.predictions)
    with pytest.raises(EarshotError, match="all 2 clips of a batch are of the group 'a'"):
        CPC.chance(["a", "a"], [False] * 2)


def test_a_clip_without_negatives_counts_half():
    _, right = CPC.loss(predictor(), batch_of(slice(0, 1)), shared=False)
    assert right == 0.5


@pytest.mark.slow
def test_two_processes_have_the_loss_and_the_gradients_of_one(tmp_path):
    network = predictor()
    loss, right = CPC.loss(network, batch_of(), shared=True)
    loss.backward()
    run_torchrun(tmp_path / "shared.py", SHARED, tmp_path / "result.pt")
    actual = torch.load(tmp_path / "result.pt", weights_only=True)
    torch.testing.assert_close(actual.pop("values"), torch.stack([loss.detach(), right]))
    for name, values in actual.items():
        torch.testing.assert_close(values, network.get_parameter(name).grad, msg=name)


def test_the_sounds_of_a_batch_are_consecutive(tmp_path):
    write_clips(tmp_path, [f"group_{number}" for number in range(40)])
    spec = replace(SPEC, audio_channels=2, audio_samples=3 * SPEC.audio_samples)
    clips = PairedClips(clips_of(tmp_path, spec, CENTERED, split="train"), batch_size=8, seed=0)[0]
    pairs = make_pairs(clips, spec, CENTERED, generator("t").random((8, 6))).in_windows(3)
    assert pairs.sounds.shape == (24, 2, SPEC.audio_samples)
    for clip, (own, _) in enumerate(clips):
        decoded = [decode_sound(pairs.sounds[window * 8 + clip].numpy()) for window in range(3)]
        assert [f"clip_{number}" for number, _, _ in decoded] == [own.clip_id] * 3
        starts = [start for _, start, _ in decoded]
        assert np.diff(starts) == pytest.approx([1.0, 1.0], abs=0.01)
        assert len({pairs.groups[window * 8 + clip].item() for window in range(3)}) == 1


@pytest.mark.parametrize("name", ["ave", pytest.param("l3", marks=pytest.mark.slow)])
def test_eight_clips_are_overfitted_and_the_audio_tower_alone_learns(name):
    objective, encoder = build_objective("cpc", windows=2), build(name, width=1 / 16, image_size=32)
    images, sounds = pairs_for(encoder, 8)
    encoder.fit_audio_scale(sounds)
    before = {key: values.clone() for key, values in encoder.state_dict().items()}
    network = objective.trained(encoder, seed=0).train()
    own = torch.arange(8)
    several = (sounds.repeat(1, 2) + 0.02 * torch.randn(8, 2 * encoder.audio_samples)).clamp(-1, 1)
    is_match = torch.tensor([1.0, 0.0]).repeat_interleave(8)
    pairs = Pairs(images, several, own.repeat(2), torch.cat([own, own.roll(-1)]), is_match, own).in_windows(2)
    optimizer = torch.optim.Adam([each for each in network.parameters() if each.requires_grad], lr=3e-3)
    for step in range(30):
        loss, right = objective.loss(network, pairs, shared=True)
        if step == 0:
            assert loss.item() == pytest.approx(math.log(8))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss < 0.3 and right > 0.95
    (latents,) = objective.embeddings(encoder, pairs).values()  # for the alarm of a collapse
    assert latents.shape == (8 * 2, encoder.audio_tower.channels)
    changed = {key.partition(".")[0] for key, values in encoder.state_dict().items() if not values.equal(before[key])}
    assert changed == {"audio_tower"}
    assert all(values.grad is None for key, values in encoder.named_parameters() if not key.startswith("audio_tower"))


def test_a_network_without_an_audio_tower_is_refused():
    with pytest.raises(EarshotError, match="network=multisensory has no tower for sound alone.*use ave"):
        CPC.trained(build("multisensory"), seed=0)


def test_the_stage_has_no_control_and_says_what_learned(tmp_path, capsys):
    write_world(tmp_path / "world", 60)
    root = rooted(tmp_path / "world" / "scenes", tmp_path / "root")
    with pytest.warns(UserWarning, match="objective=cpc learns from sound alone: skips the control"):
        metrics = correspond(root, "correspond.objective=cpc", "correspond.windows=2", "correspond.epochs=1")
    assert "sound alone trained the audio tower" in capsys.readouterr().out
    assert metrics["chance"] == 0.5 and "wrong_sound_val_accuracy" not in metrics
    header = (root / "metrics/correspond_history.csv").read_text().splitlines()[0].split(",")
    assert "image_spread" not in header
    actual, random = weights(root, "encoder"), weights(root, "random")
    assert actual.keys() == random.keys()  # the context and the predictions are not kept
    assert {key.partition(".")[0] for key in actual if not actual[key].equal(random[key])} == {"audio_tower"}
    assert not (root / "models/correspond/wrong_sound.safetensors").exists()
