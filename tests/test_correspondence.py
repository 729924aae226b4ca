"""The benchmark of correspondence: pairs of held-out clips, and the supervised baselines."""

import json
import shutil
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score
from test_correspondence_task import CENTERED, RATE, SECONDS, Comparing, flac, image, write_clips

from earshot.benchmarks import correspondence
from earshot.benchmarks.correspondence import (
    BATCH,
    BENCHMARK,
    Annotations,
    best_threshold,
    evaluate,
    held_out_pairs,
    in_sync,
    own_sound,
    score_pairs,
    supervised,
)
from earshot.core.errors import EarshotError
from earshot.corpus.split import split_of
from earshot.evaluation.benchmark import Context, read_item_scores, write_predictions
from earshot.networks.correspondence import build_correspondence
from earshot.networks.files import save_architecture, save_weights
from earshot.scenes.annotations import write_annotations
from earshot.scenes.writing import Scene, write_scenes
from earshot.training.augmentation import Augmentation, write_augmentation
from earshot.training.sound_augmentation import SoundAugmentation

KINDS = {"dark": (40, 300.0), "light": (210, 1500.0)}  # of the small world: gray of the image, Hz of the tone
PARAMS = {
    "positives": "centered",
    "negatives": "other-group",
    "grid_s": 0.04,
    "min_shift_s": 1.0,
    "synchrony": False,
    "supervised_epochs": 0,
    "supervised_batch_size": 32,
    "supervised_learning_rate": 0.003,
}


AUGMENTATION = Augmentation(crop_min_scale=0.5, brightness=0.4, contrast=0.4, saturation=0.4, hue=0.1, flip_prob=0.5)


def write_world(root, clips):
    """Clips of two kinds that differ in image and sound, a group each, and their annotations."""
    time = np.arange(int(RATE * SECONDS)) / RATE
    rows = []
    for number in range(clips):
        kind = list(KINDS)[number % 2]
        gray, pitch = KINDS[kind]
        rows.append(
            Scene(
                clip_id=f"clip_{number}_{kind}",
                group=f"group_{number}",
                duration=SECONDS,
                frames=[image(gray + number % 7)] * 2,
                times=[1.0, 2.5],
                sound=flac(0.4 * np.sin(2 * np.pi * (pitch + number) * time)),
                audio_rate=RATE,
                audio_channels=1,
            )
        )
    write_scenes(root / "scenes" / "00000.parquet", rows)
    write_annotations(
        root / "annotations" / "00000.parquet", {row.clip_id: [row.clip_id.split("_")[2]] for row in rows}
    )


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    root = tmp_path_factory.mktemp("world")
    write_world(root, 240)
    torch.manual_seed(0)
    network = build_correspondence("ave", width=1 / 16, image_size=32)
    for name in ("encoder", "random"):
        save_weights(root / "models", name, network)
    save_architecture(root / "models", network)
    write_augmentation(root / "models", AUGMENTATION, SoundAugmentation(gain_jitter=0.1))
    return root


def context(world, scratch, **changes):
    params = SimpleNamespace(**PARAMS | changes)
    return Context(world / "scenes", world / "models", params, 0, scratch, world / "annotations")


def test_random_weights_are_right_by_chance_and_the_same_again(world, tmp_path):
    result = evaluate(context(world, tmp_path))
    assert result.metrics["pairs"] == 2 * sum(split_of(f"group_{number}") == "test" for number in range(240))
    assert result.metrics["accuracy"] == result.metrics["random_accuracy"]
    assert 0.2 < (accuracy := result.metrics["accuracy"]) < 0.8
    error = (accuracy * (1 - accuracy) / (result.metrics["pairs"] - 1)) ** 0.5
    assert result.metrics["accuracy_error"] == pytest.approx(error)
    assert result.item_scores["accuracy"].mean() == accuracy and f"± {error:.3f}" in result.scores
    assert 2 * len(set(result.items)) == result.metrics["pairs"]
    assert result.metrics == evaluate(context(world, tmp_path)).metrics


@pytest.mark.parametrize("kept", ["", "encoder.json", "encoder.json random.safetensors"])
def test_a_folder_that_lacks_the_network_is_refused(kept, world, tmp_path):
    for name in kept.split():
        shutil.copy(world / "models" / name, tmp_path)
    with pytest.raises(EarshotError, match=rf"{tmp_path}/encoder\.(json|safetensors): cannot be read"):
        evaluate(replace(context(world, tmp_path), encoder=tmp_path))


def test_held_out_pairs_are_of_the_test_split_and_half_match(world):
    network = Comparing()
    network.audio_channels = 1
    pairs = list(held_out_pairs(network, world / "scenes", CENTERED, "test"))
    is_match = torch.cat([each.is_match for each in pairs])
    assert is_match.mean() == 0.5
    assert len(is_match) == 2 * sum(split_of(f"group_{number}") == "test" for number in range(240)) > 30


@pytest.mark.slow
def test_the_baselines_learn_from_annotations(world, tmp_path):
    """Two kinds: a sound of another group is of the other kind half of the time, so accuracy is at most 3/4."""
    result = evaluate(context(world, tmp_path, supervised_epochs=12))
    assert result.metrics["direct_accuracy"] > 0.65
    assert result.metrics["supervised_accuracy"] > 0.65
    assert {row["network"] for row in result.classes} == {"trained", "random", "direct", "supervised"}


@pytest.mark.usefixtures("one_process")
def test_the_baselines_have_every_argument_of_the_evaluated_network(world, tmp_path, monkeypatch):
    begun = []
    monkeypatch.setattr(correspondence, "begin", begun.append)
    threads = []
    monkeypatch.setattr(correspondence, "train", lambda *_: threads.append(torch.get_num_threads()))
    torch.set_num_threads(2)
    architecture = {"name": "ave", "width": 1 / 16, "stride": 1, "spectrogram": "mel", "image_size": 32}
    supervised(context(world, tmp_path), architecture, replace(CENTERED, negatives="other-group"))
    assert begun[0].network.architecture == architecture | {"name": "l3"}
    assert threads == [1, 1, 1]  # whatever EARSHOT_THREADS is


def test_annotations_that_lack_a_training_clip_are_refused(world, tmp_path):
    others = {"other_1": ["dark"], "other_2": ["light"]}
    write_annotations(tmp_path / "annotations" / "00000.parquet", others)
    with pytest.raises(EarshotError, match=r"annotations: has no row of the training clip 'clip_\d+_.*stage extract"):
        evaluate(replace(context(world, tmp_path, supervised_epochs=1), annotations=tmp_path / "annotations"))


def test_a_network_that_knows_scores_matching_pairs_higher(world):
    class Knowing(Comparing):
        audio_channels = 1

        def forward(self, images, sounds, image_index, audio_index):
            light = images.float().mean((1, 2, 3)) > 120
            crossings = (sounds[:, 1:] * sounds[:, :-1] < 0).float().sum(1)
            return self.scale * torch.where(light[image_index] == (crossings > 1800)[audio_index], 1.0, -1.0)

    scores, is_match = score_pairs(Knowing(), world / "scenes", CENTERED, "test")
    assert (scores[is_match] > 0).all()
    assert 0.3 < (scores[~is_match] > 0).mean() < 0.7
    # A sound of the other kind scores below, one of the same kind alike, which counts half.
    shares = own_sound(Knowing(), world / "scenes", CENTERED, "test")
    assert len(shares) == is_match.sum() and 0.7 < shares.mean() < 0.8


def test_own_sound_leaves_out_the_own_group_and_counts_ties_half(tmp_path):
    groups = [name for name in map(str, range(200)) if split_of(name) == "test"]
    write_clips(tmp_path, [name for name in groups for _ in range(2)])  # two clips a group

    class Ranking(Comparing):
        """The other clip of the own group first, then the own sound, then all others."""

        def forward(self, images, sounds, image_index, audio_index):
            assert len(image_index) == len(images) ** 2
            group = images.float().mean((1, 2, 3)).round() // 2  # the gray is the clip's number
            return (group[image_index] == group[audio_index]).float() - 0.5 * (image_index == audio_index)

    shares = own_sound(Ranking(), tmp_path, CENTERED, "test")
    assert len(shares) == 2 * len(groups) and (shares == 1).all()

    class Blind(Comparing):
        def forward(self, images, sounds, image_index, audio_index):
            return torch.zeros(len(image_index))

    assert (own_sound(Blind(), tmp_path, CENTERED, "test") == 0.5).all()
    one_more = tmp_path / "one-more"
    test_groups = [name for name in map(str, range(900)) if split_of(name) == "test"]
    write_clips(one_more, test_groups[: BATCH + 1])  # the second batch has one clip, and no other sound
    assert len(own_sound(Blind(), one_more, CENTERED, "test")) == BATCH


def test_synchrony_is_how_often_the_sound_at_the_right_time_scores_higher(tmp_path):
    """A network that reads the times of image and sound is right, one that knows nothing is right half of the time."""
    groups = [name for name in map(str, range(200)) if split_of(name) == "test"]
    write_clips(tmp_path, groups)  # frames at 1.0 and 2.5 s; the first channel of the sound says when it is

    class Knowing(Comparing):
        def forward(self, images, sounds, image_index, audio_index):
            middles = sounds[:, 0].mean(1) * 10
            return -(middles[:, None] - torch.tensor([1.0, 2.5])).abs().amin(1)[audio_index]

    class Blind(Comparing):
        def forward(self, images, sounds, image_index, audio_index):
            return torch.zeros(len(image_index))

    sampling = replace(CENTERED, min_shift_s=1.2)
    blind = in_sync(Blind(), tmp_path, sampling, "random_")
    assert blind == {"random_synchrony": 0.5, "random_synchrony_error": 0.0, "synchrony_clips": len(groups)}
    knowing = in_sync(Knowing(), tmp_path, sampling, "")
    assert knowing["synchrony"] > 0.8


@given(st.lists(st.tuples(st.integers(-5, 5), st.booleans()), min_size=2, max_size=60))
def test_ranking_is_the_area_under_the_roc_curve(rows):
    scores, is_match = (np.array(column) for column in zip(*rows, strict=True))
    if 0 < is_match.sum() < len(is_match):
        right = [score > other for score in scores[is_match] for other in scores[~is_match]]
        ties = [score == other for score in scores[is_match] for other in scores[~is_match]]
        assert roc_auc_score(is_match, scores) == pytest.approx(np.mean(right) + np.mean(ties) / 2)


@given(st.lists(st.tuples(st.integers(-5, 5), st.booleans()), min_size=1, max_size=40))
def test_no_threshold_is_more_accurate(rows):
    scores, is_match = (np.array(column) for column in zip(*rows, strict=True))
    actual = ((scores > best_threshold(scores, is_match)) == is_match).mean()
    assert actual == max(((scores > edge - 0.5) == is_match).mean() for edge in range(-6, 8))


def test_every_annotation_of_a_clip_counts_alike_and_one_kind_is_too_few(tmp_path):
    write_annotations(tmp_path / "00000.parquet", {"a": ["rain", "bell"], "b": ["bell"], "c": []})
    annotations = Annotations.read(tmp_path)
    assert annotations.names == ["bell", "rain"]
    actual = annotations.targets([SimpleNamespace(clip_id=name) for name in "abc"])
    assert actual.tolist() == [[0.5, 0.5], [1.0, 0.0], [0.0, 0.0]]
    write_annotations(tmp_path / "00000.parquet", {"a": ["rain"]})
    with pytest.raises(EarshotError, match=r"1 different annotations of 1 clips, expected two .*supervised_epochs=0"):
        Annotations.read(tmp_path)


def test_metrics_are_plain_numbers(world, tmp_path):
    result = evaluate(context(world, tmp_path, synchrony=True))
    metrics = result.metrics
    assert metrics["synchrony_clips"] == metrics["pairs"] / 2 and 0 <= metrics["random_synchrony"] <= 1
    assert f"synchrony of {metrics['synchrony_clips']} clips: trained {metrics['synchrony']:.3f}" in result.scores
    assert "synchrony" not in evaluate(context(world, tmp_path)).metrics
    assert json.loads(json.dumps(metrics, allow_nan=False)) == metrics
    write_predictions(tmp_path / "predictions", BENCHMARK, result)
    written = read_item_scores(tmp_path / "predictions")
    for name, count in (("accuracy", metrics["pairs"]), ("own_sound", metrics["pairs"] // 2)):
        for each in (name, f"random_{name}"):
            assert len(written[each]) == count and written[each].mean() == pytest.approx(metrics[each], abs=1e-6)
