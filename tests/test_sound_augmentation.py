"""Changes of sounds have the strength of their parameters, and none without one."""

import numpy as np
import pytest
import torch
from test_correspondence_networks import build
from test_correspondence_task import RATE, SPEC, decode_sound, write_clips

from earshot.core.errors import EarshotError
from earshot.corpus.split import split_of
from earshot.networks.spectrogram import Masks
from earshot.scenes.clips import Sampling
from earshot.training.augmentation import Augmentation
from earshot.training.correspondence import CorrespondenceTask
from earshot.training.objectives import build_objective
from earshot.training.sound_augmentation import SoundAugmentation

SAMPLING = Sampling(positives="centered", negatives="other-group", grid_s=0.04, min_shift_s=1.0)


def drawn():
    return np.random.default_rng(0)


def test_nothing_changes_by_default():
    sounds = np.ones((3, 5), np.float32)
    assert SoundAugmentation().change(sounds, drawn()) is sounds
    assert SoundAugmentation().stated() == {}
    assert SoundAugmentation().shifts((2, 2), drawn()) is None
    assert SoundAugmentation(gain_jitter=0.2).gains(np.array([0, 0.5, 1])).tolist() == pytest.approx([0.8, 1, 1.2])


def test_noise_has_at_most_its_share_of_the_sounds_level():
    """Sounds of root mean square 2; the noise's is uniform up to half of it."""
    sounds = np.full((200, 4000), 2, np.float32)
    noise = SoundAugmentation(noise_level=0.5).change(sounds, drawn()) - sounds
    levels = np.sqrt(np.square(noise).mean(1)) / 2
    assert levels.max() < 0.52 and levels.min() < 0.02 and levels.mean() == pytest.approx(0.25, abs=0.03)
    assert abs(noise.mean()) < 0.01


def test_a_mixed_sound_is_mostly_itself():
    """Sound i has the value 10^i: its digits say how much of which other is in it."""
    sounds = np.tile(10.0 ** np.arange(3)[:, None], (1, 4)).astype(np.float32)
    for seed in range(5):
        mixed = SoundAugmentation(mix_share=0.4).change(sounds, np.random.default_rng(seed))[:, 0]
        partners = [[own for own in range(3) if own != i] for i in range(3)]
        shares = [[(mixed[i] - 10**i) / (10**k - 10**i) for k in partners[i]] for i in range(3)]
        assert all(any(0 <= share <= 0.4 for share in both) for both in shares)
    assert SoundAugmentation(mix_share=0.4).change(sounds[:1], drawn()) is not None  # alone it has no partner
    assert (SoundAugmentation(mix_share=0.4).change(sounds[:1], drawn()) == sounds[:1]).all()


def test_masks_are_bands_up_to_their_share_in_training_alone():
    masks, spectrograms = Masks(), torch.ones(500, 1, 257, 199)
    assert masks(spectrograms) is spectrograms
    masks.frequencies, masks.windows = 0.2, 0.0
    torch.manual_seed(0)
    masked = masks(spectrograms)[:, 0] == 0
    assert (masked.any(2) == masked.all(2)).all()  # whole frequencies
    bands = masked[:, :, 0]
    widths = bands.sum(1)
    assert widths.max() == 51 and widths.min() == 0  # .2 * 257 = 51.4
    assert widths.float().mean().item() == pytest.approx(25.5, abs=1.5)
    edges = bands.int().diff(dim=1).abs().sum(1) + bands[:, 0].int() + bands[:, -1].int()
    assert set(edges[widths > 0].tolist()) == {2}  # one band each
    assert bands[:, 0].any() and bands[:, -1].any()  # anywhere
    masks.frequencies, masks.windows = 0.0, 1.0
    masked = masks(spectrograms)[:, 0] == 0
    assert (masked.any(1) == masked.all(1)).all() and masked[:, 0].sum(1).max() > 190
    assert masks.eval()(spectrograms) is spectrograms


def test_a_network_masks_what_its_tower_receives():
    network = build("ave")
    network.mask_spectrograms(0.5, 0.5)
    received = []
    network.audio_tower.register_forward_pre_hook(lambda _, inputs: received.append(inputs[0]))
    sounds = torch.randn(4, 48_000, generator=torch.Generator().manual_seed(0))
    network.train()(torch.zeros(4, 3, 64, 64, dtype=torch.uint8), sounds)
    network.eval()(torch.zeros(4, 3, 64, 64, dtype=torch.uint8), sounds)
    assert (received[0] == 0).any() and not (received[1] == 0).any()
    with pytest.raises(EarshotError, match="multisensory has no spectrogram to mask"):
        build("multisensory").mask_spectrograms(0.5, 0.5)


class Stereo(torch.nn.Module):
    """A network whose inputs fit write_clips."""

    image_size, frames, audio_samples, audio_rate, audio_channels = 32, 1, 4000, RATE, 2

    def __init__(self) -> None:
        super().__init__()
        self.scale = torch.nn.Parameter(torch.ones(1))


def task_of(scenes, **changes):
    sound = SoundAugmentation(**changes)
    objective = build_objective("match")
    return CorrespondenceTask(Stereo(), scenes, objective, SAMPLING, Augmentation(), sound=sound, batch_size=32, seed=0)


def test_sounds_start_at_most_a_shift_away_on_the_grid(tmp_path):
    names = [name for name in map(str, range(60)) if split_of(name) == "train"]
    write_clips(tmp_path, names)
    plain, shifted = (next(task_of(tmp_path, time_shift_s=most).batches(range(1))) for most in (0.0, 0.5))
    assert torch.equal(plain.images, shifted.images)
    starts = [[decode_sound(sound)[:2] for sound in pairs.sounds.numpy()] for pairs in (plain, shifted)]
    moves = [after[1] - before[1] for before, after in zip(*starts, strict=True)]
    assert [clip for clip, _ in starts[0]] == [clip for clip, _ in starts[1]]
    assert max(map(abs, moves)) <= 0.53 and len({round(move, 2) for move in moves}) > 8
    assert all(abs(start / 0.04 - round(start / 0.04)) < 0.02 for _, start in starts[1])
    mixed = next(task_of(tmp_path, mix_share=0.3, noise_level=0.1).batches(range(1)))
    assert mixed.sounds.dtype == torch.float32 and not torch.equal(mixed.sounds, plain.sounds)
    assert SPEC.audio_samples == mixed.sounds.shape[-1]


def test_a_network_of_sequences_takes_no_shifts(tmp_path):
    network = Stereo()
    network.frames = 5
    with pytest.raises(EarshotError, match=r"time_shift_s is 0.5, but a network of sequences learns synchrony; set"):
        CorrespondenceTask(
            network,
            tmp_path,
            build_objective("match"),
            SAMPLING,
            Augmentation(),
            sound=SoundAugmentation(time_shift_s=0.5),
            batch_size=4,
            seed=0,
        )
