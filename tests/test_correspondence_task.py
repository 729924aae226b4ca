"""Pairs: what belongs together overlaps in time, what does not is another group's, and both are cut alike."""

import io
from dataclasses import replace

import numpy as np
import pytest
import soundfile
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from torch import nn

from earshot.core.errors import EarshotError
from earshot.core.rng import generator
from earshot.corpus.split import split_of
from earshot.corpus.wrong_sound import derange_to_others, sounds_of_others
from earshot.networks.correspondence import build_correspondence
from earshot.scenes.audio_slices import sound_slice
from earshot.scenes.clips import InputSpec, Sampling, SceneClip, clips_of
from earshot.scenes.writing import Scene, write_scenes
from earshot.training import distributed as processes
from earshot.training.augmentation import Augmentation
from earshot.training.correspondence import KEPT_SOUNDS, CorrespondenceTask, KeptSounds, PairedClips, make_pairs
from earshot.training.objectives import build_objective
from earshot.training.sound_augmentation import SoundAugmentation

RATE, SECONDS = 4000, 4.0
SPEC = InputSpec(image_size=32, frames=1, audio_samples=4000, audio_rate=RATE, audio_channels=1)
SEQUENCE = InputSpec(image_size=32, frames=5, audio_samples=4000, audio_rate=RATE, audio_channels=2)
CENTERED = Sampling(positives="centered", negatives="other-group", grid_s=0.04, min_shift_s=1.0)
SHIFTED = replace(CENTERED, negatives="shifted")


def image(gray: int) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (40, 32), (gray, gray, gray)).save(file, "JPEG")
    return file.getvalue()


def flac(samples: np.ndarray, rate: int = RATE) -> bytes:
    file = io.BytesIO()
    soundfile.write(file, samples, rate, format="FLAC", subtype="PCM_16")
    return file.getvalue()


def ramp(number: int) -> np.ndarray:
    """A sound whose samples say whose it is and when: clip number in the sign's place, time in the value."""
    time = np.arange(int(RATE * SECONDS)) / RATE
    return np.stack([time / 10, np.full_like(time, number / 1000)], axis=1)


def write_clips(folder, groups, shard_clips=1000):
    """Scenes of clips; the image's gray is the clip's number, its sound encodes number and time."""
    for shard, start in enumerate(range(0, len(groups), shard_clips)):
        rows = [
            Scene(
                clip_id=f"clip_{number}",
                group=groups[number],
                duration=SECONDS,
                frames=[image(number)] * 2,
                times=[1.0, 2.5],
                sound=flac(ramp(number)),
                audio_rate=RATE,
                audio_channels=2,
                sequence=[image(10 * place) for place in range(20)],
                sequence_rate=5.0,
            )
            for number in range(start, min(start + shard_clips, len(groups)))
        ]
        write_scenes(folder / f"{shard:05d}.parquet", rows)


@pytest.fixture(scope="module")
def scenes(tmp_path_factory):
    folder = tmp_path_factory.mktemp("scenes")
    write_clips(folder, [f"group_{number // 2}" for number in range(160)], shard_clips=90)
    return folder


def decode_sound(sound: np.ndarray) -> tuple[int, float, float]:
    """Of a stereo slice the clip, and when it begins and ends."""
    times = sound[0] * 10
    return round(float(sound[1].mean()) * 1000), float(times[0]), float(times[-1])


@given(
    st.floats(1.0, 20.0), st.floats(0, 1), st.floats(0, 0.999), st.sampled_from(["centered", "overlapping"]),
    st.sampled_from([0.04, 0.1, 1 / 3]),
)  # fmt: skip
def test_a_slice_overlaps_its_frame_lies_in_the_clip_and_on_the_grid(duration, share, chance, positives, grid):
    clip = SceneClip("a", "g", duration, b"", [], [])
    time = share * duration
    start = replace(CENTERED, positives=positives, grid_s=grid).start(clip, time, 1.0, chance)
    assert -1e-9 <= start <= max(duration - 1.0, 0) + 1e-6
    assert abs(start / grid - round(start / grid)) < 1e-6
    assert start - grid <= time <= start + 1.0 + grid


def test_overlapping_slices_begin_anywhere_over_the_frame_and_centered_ones_around_it():
    clip = SceneClip("a", "g", 10.0, b"", [], [])
    overlapping = replace(CENTERED, positives="overlapping")
    starts = [overlapping.start(clip, 5.0, 1.0, chance) for chance in np.linspace(0, 0.999, 500)]
    assert min(starts) == pytest.approx(4.0) and max(starts) == pytest.approx(5.0)
    assert CENTERED.start(clip, 5.0, 1.0, 0.7) == pytest.approx(4.5, abs=0.02)


def pairs_of(scenes, spec=SPEC, sampling=CENTERED, seed=0, batch_size=16, split="train", **how):
    batches = PairedClips(clips_of(scenes, spec, sampling, split=split, **how), batch_size=batch_size, seed=seed)
    for number in range(batches.batches_per_epoch):
        clips = batches[number]
        yield clips, make_pairs(clips, spec, sampling, generator("t", number).random((len(clips), 6)))


def test_what_belongs_together_is_of_one_clip_and_the_rest_of_another_group(scenes):
    stereo = replace(SPEC, audio_channels=2)
    observed, grays = [], []
    for clips, pairs in pairs_of(scenes, stereo):
        assert pairs.is_match.tolist() == [1.0] * 16 + [0.0] * 16
        for (own, other), sound in zip(clips * 2, pairs.sounds[pairs.audio_index].numpy(), strict=True):
            observed.append((own.clip_id, own.group, other.group, *decode_sound(sound)))
        grays += pairs.images[pairs.image_index, 0, 0, 0].tolist()
    assert len(observed) > 100
    for place, ((clip_id, group, other, number, start, end), gray) in enumerate(zip(observed, grays, strict=True)):
        own = int(clip_id.removeprefix("clip_"))
        assert abs(gray - own) <= 2  # JPEG
        assert split_of(group) == "train"
        if place % 32 < 16:
            assert number == own
        else:
            assert f"group_{number // 2}" == other != group
        assert end - start == pytest.approx(1.0, abs=0.01)
        assert min(abs(start + 0.5 - time) for time in (1.0, 2.5)) < 0.03  # cut as a right one is


def test_each_image_and_each_sound_is_in_one_pair_of_either_kind(scenes):
    for clips, pairs in pairs_of(scenes):
        assert sorted(own.clip_id for own, _ in clips) == sorted(other.clip_id for _, other in clips)
        assert len(pairs.images) == len(pairs.sounds) == 16
        for numbers in (pairs.image_index, pairs.audio_index):
            right, wrong = numbers.split(16)
            assert right.tolist() == sorted(wrong.tolist()) == list(range(16))


@pytest.mark.parametrize("batch_size", [1, 3])
def test_where_a_batch_has_but_one_group_the_others_are_from_beyond_it(scenes, batch_size):
    stereo, beyond = replace(SPEC, audio_channels=2), 0
    for clips, pairs in pairs_of(scenes, stereo, seed=None, batch_size=batch_size):
        beyond += len(pairs.sounds) - len(clips)
        rows = zip(
            clips * 2, pairs.images[pairs.image_index], pairs.sounds[pairs.audio_index], pairs.is_match, strict=True
        )
        for (own, _), image, sound, together in rows:
            number, start, _ = decode_sound(sound.numpy())
            assert abs(image.float().mean() - int(own.clip_id.removeprefix("clip_"))) <= 2
            assert (f"group_{number // 2}" == own.group) == bool(together)
            assert min(abs(start + 0.5 - time) for time in (1.0, 2.5)) < 0.03
    assert beyond > 50 if batch_size == 1 else beyond < 50


def test_test_pairs_are_the_same_every_time_and_training_pairs_are_not(scenes):
    groups = clips_of(scenes, SPEC, CENTERED, split="train")
    one, two = (PairedClips(groups, batch_size=8, seed=None) for _ in range(2))
    assert [b.clip_id for _, b in one[0]] == [b.clip_id for _, b in two[0]]
    trained = PairedClips(groups, batch_size=8, seed=0)
    epochs = {
        own.clip_id: other.clip_id for number in range(trained.batches_per_epoch) for own, other in trained[number]
    }
    later = [pair for n in range(trained.batches_per_epoch) for pair in trained[trained.batches_per_epoch + n]]
    assert sum(epochs.get(own.clip_id) == other.clip_id for own, other in later) < len(later) / 4


def test_shifted_sounds_are_of_the_same_clip_at_least_a_shift_away(scenes):
    starts = {1.0: [], 0.0: []}
    for clips, pairs in pairs_of(scenes, SEQUENCE, SHIFTED):
        assert pairs.images.shape[1:] == (5, 3, 32, 32)
        sequences, sounds = pairs.images[pairs.image_index], pairs.sounds[pairs.audio_index].numpy()
        rows = zip(clips * 2, sequences, sounds, pairs.is_match.tolist(), strict=True)
        for (own, _), images, sound, together in rows:
            number, start, _ = decode_sound(sound)
            observed = round(float(images[0].float().mean()) / 10) / 5
            assert number == int(own.clip_id.removeprefix("clip_"))
            assert abs(start - observed) < 0.01 if together else abs(start - observed) >= 0.99
            starts[together].append((observed, start))
    apart = np.array(starts[0.0])
    assert abs(apart[:, 0].mean() - apart[:, 1].mean()) < 0.3  # the time of neither modality separates the kinds


@given(st.floats(3.0, 12.0), st.floats(0, 1), st.floats(0, 0.999), st.sampled_from([0.04, 0.1, 1 / 3]))
def test_a_shifted_start_is_on_the_grid_in_the_clip_and_a_shift_away(duration, share, chance, grid):
    sampling = replace(SHIFTED, grid_s=grid)
    duration = max(duration, 1 + 2 * sampling.shift_steps * grid)  # as clips_of requires
    clip = SceneClip("a", "g", duration, b"", [], [])
    start = sampling.start(clip, share * duration, 1.0, 0.0)
    other = sampling.shifted_start(clip, start, 1.0, chance)
    assert abs(other - start) >= 1.0 - 1e-6 and -1e-9 <= other <= duration - 1.0 + 1e-6
    assert abs(other / grid - round(other / grid)) < 1e-6


def test_a_shifted_start_is_anywhere_a_shift_away():
    """A slice of 1 s from 2.0 s on in 5 s, shifts of 1 s: starts from 0 to 1.0 and from 3.0 to 4.0 s, 26 each."""
    clip = SceneClip("a", "g", 5.0, b"", [], [])
    starts = [SHIFTED.shifted_start(clip, 2.0, 1.0, chance) for chance in np.linspace(0, 0.9999, 520)]
    expected = np.concatenate([np.arange(26), np.arange(75, 101)]) * 0.04
    values, counts = np.unique(np.round(starts, 6), return_counts=True)
    np.testing.assert_allclose(values, expected, atol=1e-6)
    assert counts.min() >= 9 and counts.max() <= 11


def test_both_kinds_of_negatives_have_their_shares(scenes):
    """A frame's sound is cut around it, its own sound elsewhere a shift away, and another clip's as a matching one."""
    stereo, both = replace(SPEC, audio_channels=2), replace(CENTERED, negatives="both", shifted_share=0.3)
    shares = []
    groups = clips_of(scenes, stereo, both, split="train")
    batches = PairedClips(groups, batch_size=16, seed=0)
    for number in range(batches.batches_per_epoch):
        clips, shifted = batches[number], both.shifted(16, 0, number)
        assert (shifted == both.shifted(16, 0, number)).all()
        pairs = make_pairs(clips, stereo, both, generator("t", number).random((16, 6)), shifted=shifted)
        sounds = [decode_sound(sound)[:2] for sound in pairs.sounds.numpy()]
        assert len(pairs.groups) == len(sounds) and len({number for number, _ in sounds}) == 16
        for clip, (own, _) in enumerate(clips):
            other, start = sounds[pairs.audio_index[16 + clip]]
            assert sounds[clip][0] == int(own.clip_id.removeprefix("clip_"))
            assert bool(shifted[clip]) == (other == sounds[clip][0])
            if shifted[clip]:
                assert abs(start - sounds[clip][1]) >= 0.99 and pairs.audio_index[16 + clip] >= 16
                assert pairs.groups[pairs.audio_index[16 + clip]] == pairs.groups[clip]
            else:
                assert other // 2 != sounds[clip][0] // 2
        shares += shifted.tolist()
    assert 0.15 < np.mean(shares) < 0.45
    assert both.shifted(4, 1).dtype == bool and SHIFTED.shifted(3).all() and not CENTERED.shifted(3).any()


def test_clips_too_short_for_a_shift_give_no_shifted_pairs(scenes):
    """4 s hold a slice of 1 s and 1.5 s before and after it, no more."""
    for shift, enough in ((1.5, True), (1.6, False)):
        sampling = replace(SHIFTED, min_shift_s=shift, grid_s=0.1)
        assert bool(clips_of(scenes, SPEC, sampling, split="train")[0].rows.size) == enough


def test_the_control_gets_one_fixed_clip_of_another_group(scenes):
    actual = []
    for seed in (0, 1):
        deranged = {}
        for clips, pairs in pairs_of(scenes, replace(SPEC, audio_channels=2), seed=seed, wrong_sound=5):
            for (own, _), sound in zip(clips, pairs.sounds.numpy()[: len(clips)], strict=True):
                number = decode_sound(sound)[0]
                assert f"group_{number // 2}" != own.group
                assert split_of(f"group_{number // 2}") == "train"
                deranged[own.clip_id] = number
        actual.append(deranged)
    common = actual[0].keys() & actual[1].keys()
    assert len(common) > 50
    assert all(actual[0][clip] == actual[1][clip] for clip in common)


@pytest.fixture(scope="module")
def sorted_scenes(tmp_path_factory):
    """500 clips, five classes of a hundred one after the other, each clip a group of its own."""
    folder = tmp_path_factory.mktemp("sorted")
    write_clips(folder, [f"group_{number}" for number in range(500)], shard_clips=250)
    return folder


def share_alike(pairs) -> float:
    """The share of pairs of numbers of clips whose classes are one; chance is .2."""
    return np.mean([one // 100 == other // 100 for one, other in pairs])


@pytest.mark.parametrize("seed", [None, 0])
def test_mismatched_sounds_of_a_sorted_corpus_are_of_all_classes(sorted_scenes, seed):
    """A pool of 128 clips is six row groups: .25 to .36 of pairs are of one class, of larger groups .40 to .46."""
    groups = clips_of(sorted_scenes, SPEC, CENTERED, split="train")
    batches = PairedClips(groups, batch_size=32, seed=seed, pool=128)
    pairs = [pair for number in range(batches.batches_per_epoch) for pair in batches[number]]
    assert share_alike([int(clip.clip_id.removeprefix("clip_")) for clip in pair] for pair in pairs) < 0.45


def test_wrong_sounds_of_a_sorted_corpus_are_of_all_classes_and_all_are_used(sorted_scenes):
    pairs = []
    for group in clips_of(sorted_scenes, SPEC, CENTERED, split="train", wrong_sound=0):
        for clip in group.read():
            sound = sound_slice(clip.sound, 0.0, samples=RATE, rate=RATE, channels=2)
            pairs.append((int(clip.clip_id.removeprefix("clip_")), decode_sound(sound)[0]))
    assert len({own for own, _ in pairs}) == len(pairs) > 350
    assert share_alike(pairs) < 0.3
    assert len({sound for _, sound in pairs}) > 0.8 * len(pairs)


def test_a_pool_of_one_long_video_gets_sounds_of_others(tmp_path):
    long, other = (next(f"{name}{n}" for n in range(99) if split_of(f"{name}{n}") == "train") for name in "ab")
    write_clips(tmp_path, [long] * 100 + [other] * 2)
    for how in ({}, {"wrong_sound": 0}):
        groups = clips_of(tmp_path, SPEC, CENTERED, split="train", **how)
        batches = PairedClips(groups, batch_size=16, seed=None, pool=25)
        pairs = [pair for number in range(batches.batches_per_epoch) for pair in batches[number]]
        assert len(pairs) == 102
        assert all(clip.group != mismatched.group for clip, mismatched in pairs)


@given(
    st.lists(st.integers(0, 5), min_size=1, max_size=40), st.lists(st.integers(0, 5), min_size=1), st.integers(0, 99)
)
def test_sounds_of_others_are_of_other_groups_if_there_are_any(groups, others, seed):
    groups, others = np.array(groups), np.array(others)
    drawn = sounds_of_others(groups, others, np.random.default_rng(seed))
    for group, other in zip(groups, drawn, strict=True):
        assert (others == group).all() if other < 0 else others[other] != group


@given(st.lists(st.integers(0, 5), min_size=1, max_size=40), st.integers(0, 99))
def test_no_clip_gets_a_sound_of_its_own_group(groups, seed):
    groups = np.array(groups)
    deranged = derange_to_others(groups, np.random.default_rng(seed))
    if len(set(groups.tolist())) == 1:
        assert (deranged == -1).all()
    else:
        assert (groups[deranged] != groups).all()


def test_clips_of_a_single_group_are_refused(tmp_path):
    write_clips(tmp_path, ["group_0"] * 8)
    split = split_of("group_0")
    with pytest.raises(EarshotError, match=r"8 clips, all of the group 'group_0', expected two groups or more"):
        next(pairs_of(tmp_path, split=split, batch_size=4))


def test_a_network_of_motion_needs_sequences_of_its_rate(tmp_path):
    write_clips(tmp_path, ["a", "b"])
    with pytest.raises(EarshotError, match="sequences of 5 frames a second, the network expects 30 frames in 1.00 s"):
        clips_of(tmp_path, replace(SEQUENCE, frames=30), SHIFTED, split="train")


@pytest.mark.parametrize(("own", "rate"), [(20_000, 48_000), (44_100, 21_000), (48_000, 48_000), (11_127, 48_000)])
def test_a_slice_of_a_tone_is_that_tone_at_the_requested_rate(own, rate):
    time = np.arange(3 * own) / own
    tone = np.sin(2 * np.pi * 500 * time) * 0.5
    actual = sound_slice(flac(tone, own), 1.0, samples=rate, rate=rate, channels=1)
    spec = np.sin(2 * np.pi * 500 * (1 + np.arange(rate) / rate)) * 0.5
    middle = slice(rate // 20, -rate // 20)
    assert np.abs(actual - spec)[middle].max() < 0.005


def test_beyond_the_end_there_is_silence_and_mono_fills_both_channels():
    actual = sound_slice(flac(np.full(RATE, 0.5)), 0.5, samples=RATE, rate=RATE, channels=2)
    assert actual.shape == (2, RATE)
    assert (actual[0] == actual[1]).all()
    assert actual[0, : RATE // 2].min() > 0.49 and (actual[0, RATE // 2 + 1 :] == 0).all()


@pytest.mark.slow
def test_the_multisensory_network_overfits_the_shifts_of_eight_clips(tmp_path):
    groups = [name for name in map(str, range(100)) if split_of(name) == "train"]
    write_clips(tmp_path, groups[:8])
    torch.manual_seed(0)
    network = build_correspondence("multisensory", width=1 / 16, image_size=32, frames=5, audio_samples=21_000)
    task = CorrespondenceTask(
        network, tmp_path, build_objective("match"), SHIFTED, Augmentation(), batch_size=16, seed=0
    )
    batch = next(iter(task.batches(range(1))))
    optimizer = torch.optim.Adam(network.parameters(), lr=3e-3)
    for _ in range(60):
        loss, right = task.loss(batch)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert len(batch.images) == 8 and len(batch.sounds) == 16
    assert right == 1 and loss < 0.1


class Comparing(nn.Module):
    """Tells pairs by the clip's number: gray of the image, level of the second channel."""

    image_size, frames, audio_samples, audio_rate, audio_channels = 32, 1, 4000, RATE, 2

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(1))

    def forward(self, images, sounds, image_index, audio_index):
        gray, level = images.float().mean((1, 2, 3)), sounds[:, 1].mean(1) * 1000
        return self.scale * (3 - (gray[image_index] - level[audio_index]).abs())

    def embed_images(self, images):
        return images.float().flatten(1)

    def embed_audio(self, sounds):
        return torch.ones(len(sounds), 3)


def task_of(scenes, **how):
    options = {"batch_size": 32, "seed": 0} | how
    return CorrespondenceTask(Comparing(), scenes, build_objective("match"), CENTERED, Augmentation(), **options)


def batch_of(task, number):
    """The training batch with a number."""
    return next(task.batches(range(number, number + 1)))


def test_a_batch_that_processes_cannot_share_names_its_parameter(scenes, monkeypatch):
    monkeypatch.setattr(processes, "count", lambda: 4)
    message = r"a batch has 12 items \(correspond\.batch_size, .* for 4 processes; .* to a multiple of 8$"
    with pytest.raises(EarshotError, match=message):
        CorrespondenceTask(
            Comparing(), scenes, build_objective("match"), CENTERED, Augmentation(), batch_size=12, seed=0
        )


def test_a_network_that_knows_is_right_and_the_control_leaves_it_nothing(scenes):
    with torch.inference_mode():
        own, control = (task_of(scenes, wrong_sound=wrong).validate()["val_accuracy"] for wrong in (False, True))
    assert own > control + 0.3


SOUND_BYTES = 2 * 4000 * 4  # of Comparing, two channels of float32


def test_a_sound_is_decoded_once_and_is_the_same(scenes, monkeypatch):
    decoded = []
    monkeypatch.setattr(
        "earshot.scenes.clips.sound_slice",
        lambda flac, start, **how: decoded.append((bytes(flac), start)) or sound_slice(flac, start, **how),
    )
    task, fresh = task_of(scenes), [batch_of(task_of(scenes), number).sounds for number in range(12)]
    decoded.clear()
    for number in [*range(12)] * 2:
        assert torch.equal(batch_of(task, number).sounds, fresh[number])
    assert len(decoded) == len(set(decoded)) == len(task._sounds._kept)  # two frames for each clip, or fewer
    assert task._sounds.bytes == sum(sound.nbytes for sound in task._sounds._kept.values()) <= 2 * 160 * SOUND_BYTES


def test_kept_sounds_have_a_limit_and_loudness_does_not_change_them(scenes):
    task, others = task_of(scenes, sound=SoundAugmentation(gain_jitter=0.5)), task_of(scenes)
    task._sounds = KeptSounds(task.spec, most=6 * SOUND_BYTES - 1)
    first = [batch_of(task, number).sounds for number in range(4)]
    assert len(task._sounds._kept) == 5 and task._sounds.bytes == 5 * SOUND_BYTES
    assert all(torch.equal(batch_of(task, number).sounds, first[number]) for number in range(4))
    batch_of(others, 0)
    for key, sound in task._sounds._kept.items():
        np.testing.assert_array_equal(sound, others._sounds._kept.get(key, sound))


def test_batches_do_not_depend_on_the_threads_and_gain_changes_only_sounds(scenes):
    quiet, loud = task_of(scenes), task_of(scenes, sound=SoundAugmentation(gain_jitter=0.5))
    for one, other in zip(quiet.batches(range(3)), (batch_of(quiet, number) for number in range(3)), strict=True):
        assert all(torch.equal(a, b) for a, b in zip(one, other, strict=True))
    one, other = batch_of(quiet, 0), batch_of(loud, 0)
    assert torch.equal(one.images, other.images)
    gains = other.sounds[:, 1, 100] / one.sounds[:, 1, 100].clamp(min=1e-9)
    audible = one.sounds[:, 1, 100] > 0.005
    assert 0.5 <= gains[audible].min() < 0.8 and 1.2 < gains[audible].max() <= 1.5


def test_loader_processes_prepare_the_batches_that_threads_do(scenes, change_setting):
    by_threads, by_processes = task_of(scenes), task_of(scenes)
    expected = list(by_threads.batches(range(5)))
    change_setting("EARSHOT_LOADERS", "2")
    for one, other in zip(by_processes.batches(range(5)), expected, strict=True):
        assert all(torch.equal(a, b) for a, b in zip(one, other, strict=True))
    assert by_processes.state()["chances"].tolist() == by_threads.state()["chances"].tolist() != []
    assert not by_processes._sounds._kept  # each process keeps its own
    assert task_of(scenes)._sounds.most == KEPT_SOUNDS // 2


def test_a_loss_at_chance_and_embeddings_that_coincide_raise_an_alarm_once(scenes):
    task = task_of(scenes)
    batch_of(task, 0)
    row = {"epoch": 1000, "train_loss": 0.6931, "image_spread": 0.5, "audio_spread": 1e-6}
    with pytest.warns(UserWarning) as caught:
        task.watch([row])
        task.watch([row])
    assert len(caught) == 2
    assert any("0.6931" in str(w.message) and "chance is 0.6931" in str(w.message) for w in caught)
    with torch.inference_mode():
        assert task.validate()["audio_spread"] < 1e-6
