"""The sample world: images and sounds share a cause, and nothing else reveals the kind."""

import csv
import json
import xml.etree.ElementTree as ElementTree
from dataclasses import replace

import av
import numpy as np
import pytest
import soundfile
import torch
from PIL import Image
from sklearn.svm import LinearSVC
from torchvision import datasets

from earshot.corpus.manifest import read_manifest
from earshot.evaluation.metrics import average_precisions
from earshot.networks.backbones.alexnet import AlexNet
from earshot.sound.texture import sound_textures
from earshot.world import KINDS, RATE, VisibleObject, render_clip, render_image, render_sound
from earshot.world.appearance import draw
from earshot.world.drawing import Colors, Pose, Sketch
from earshot.world.esc50 import FOLDS, recordings
from earshot.world.localization import plan_image, render_pair
from earshot.world.media import write_video
from earshot.world.recording import LOUDEST, QUIETEST
from earshot.world.scenes import plan_clip, visible_object
from earshot.world.sources import draw_cause, generator
from stages import sample

SHORT = {"image_size": 64, "seconds": 4.0, "frame_rate": 2}


@pytest.mark.parametrize("number", [0, 5])
def test_a_clip_is_a_function_of_its_seed_and_number(number):
    first, again, other = (render_clip(seed, number, **SHORT) for seed in (3, 3, 4))
    np.testing.assert_array_equal(first.frames, again.frames)
    np.testing.assert_array_equal(first.sound, again.sound)
    assert first.annotations == again.annotations
    assert not np.array_equal(first.frames, other.frames)
    assert not np.array_equal(first.sound, other.sound)


def test_a_clip_has_the_requested_shape_with_even_sides():
    clip = render_clip(0, 1, image_size=95, seconds=4.5, frame_rate=4)
    assert clip.frames.shape == (18, 96, 128, 3)
    assert clip.frames.dtype == np.uint8
    assert clip.sound.shape == (round(4.5 * RATE),)
    assert clip.sound.dtype == np.float32
    assert 0 < np.abs(clip.sound).max() <= 1


def test_clips_hold_every_kind_alike_and_sometimes_several_sources():
    plans = [plan_clip(1, number) for number in range(1000)]
    assert [plan.visible[0].kind for plan in plans[:10]] == list(KINDS)
    assert 0.25 < np.mean([len(plan.visible) == 2 for plan in plans]) < 0.35
    assert 0.2 < np.mean([len(plan.off_screen) for plan in plans]) < 0.3
    for plan in plans:
        assert len(set(plan.annotations)) == len(plan.visible) + len(plan.off_screen)


def test_no_instance_of_the_corpus_is_in_a_benchmark():
    corpus = {cause.instance for number in range(3000) for cause in _causes(plan_clip(0, number))}
    images = {
        draw_cause(generator(0, purpose, number), kind).instance
        for purpose in ("voc", "sun")
        for number in range(1500)
        for kind in KINDS
    }
    sounds = {draw_cause(generator(0, "esc50", kind, source), KINDS[kind]).instance
              for kind in range(10) for source in range(100)}  # fmt: skip
    localization = {cause.instance for number in range(1000) for cause in plan_image(0, number)[1] if cause}
    assert not corpus & localization
    assert not (images | sounds) & localization
    assert len(corpus) == sum(len(_causes(plan_clip(0, number))) for number in range(3000))
    assert not corpus & images
    assert not corpus & sounds
    assert not images & sounds


def _causes(plan):
    return plan.visible + plan.off_screen


@pytest.mark.parametrize("kind", KINDS)
def test_a_box_is_the_extent_of_what_was_drawn(kind):
    white = (255, 255, 255)
    image = Image.new("RGB", (400, 300))
    pen = Sketch(image, Pose(190, 140, 60, 1.1, 0.2, True), Colors(white, white, white))
    draw(pen, draw_cause(generator(0, "box", 1), kind), 2.0)
    left, top, right, bottom = image.getbbox()
    np.testing.assert_allclose(pen.box(), (left, top, right, bottom), atol=5)


@pytest.mark.parametrize("kind", KINDS)
def test_a_cause_keeps_its_shape_and_moves(kind):
    cause = draw_cause(generator(0, "moving", 2), kind)
    now, again, later = (_drawn(cause, time) for time in (1.0, 1.0, 1.4))
    other = _drawn(replace(cause, instance=cause.instance + 1), 1.0)
    np.testing.assert_array_equal(now, again)
    assert 0 < np.mean(now != later) < np.mean(now != other) + 0.1


def _drawn(cause, time):
    image = Image.new("RGB", (400, 400))
    draw(Sketch(image, Pose(200, 200, 120), Colors((255, 0, 0), (0, 255, 0), (0, 0, 255))), cause, time)
    return np.asarray(image)


def test_hidden_and_tiny_objects_are_difficult_and_those_outside_are_left_out():
    inside, half_out, tiny = (np.array(box, float) for box in ([10, 10, 60, 60], [-40, 10, 45, 60], [10, 10, 18, 18]))
    assert visible_object("car", inside, [], 100, 100) == VisibleObject("car", (10, 10, 60, 60), False, False)
    assert visible_object("car", half_out, [], 100, 100) == VisibleObject("car", (0, 10, 45, 60), True, False)
    assert visible_object("car", half_out - [20, 0, 20, 0], [], 100, 100).difficult
    assert visible_object("car", inside, [inside + 10], 100, 100).difficult
    assert visible_object("car", tiny, [], 100, 100).difficult
    assert visible_object("car", inside + 200, [], 100, 100) is None


@pytest.fixture(scope="module")
def recorded():
    """Eight recordings of as many sources a kind, float32 (kinds, 8, samples)."""
    return np.stack([[render_sound(5, kind, source=s, take=0, seconds=3.75) for s in range(8)] for kind in KINDS])


def test_the_level_of_a_sound_does_not_reveal_its_kind(recorded):
    level = 20 * np.log10(np.sqrt((recorded**2).mean(-1)))  # (kinds, 8), uniform between two levels for every kind
    assert level.min() > QUIETEST - 0.2
    assert level.max() < LOUDEST + 0.2
    deviation = (LOUDEST - QUIETEST) / np.sqrt(12)
    assert np.all(np.abs(level.mean(1) - (QUIETEST + LOUDEST) / 2) < 4 * deviation / np.sqrt(level.shape[1]))


def test_the_statistics_of_a_sound_reveal_its_kind(recorded):
    textures = np.stack([sound_textures(sounds, RATE) for sounds in recorded])[..., :-1]  # without the loudness
    textures = (textures - textures.mean((0, 1))) / (textures.std((0, 1)) + 1e-6)
    means, queries = textures[:, :4].mean(1), textures[:, 4:]  # (kinds, 501), (kinds, 4, 501)
    nearest = ((queries[:, :, None] - means) ** 2).sum(-1).argmin(-1)
    assert np.mean(nearest == np.arange(len(KINDS))[:, None]) > 0.85


def test_takes_of_a_source_are_not_the_same_but_sound_more_alike_than_sources_do(recorded):
    again = np.stack([[render_sound(5, kind, source=s, take=1, seconds=3.75) for s in range(3)] for kind in KINDS])
    assert np.abs(again - recorded[:, :3]).max(-1).min() > 0.01
    first, second = (
        np.stack([sound_textures(sounds, RATE) for sounds in part])[..., :-1] for part in (recorded, again)
    )
    scale = first.std((0, 1)) + 1e-6
    same = np.square((first[:, :3] - second) / scale).sum(-1)  # (kinds, sources)
    other = np.square((first[:, 3:6] - second) / scale).sum(-1)
    assert same.mean() < 0.9 * other.mean()


def test_takes_of_a_source_lie_in_one_fold():
    listed = recordings(4)
    assert len({row.filename for row in listed}) == len(listed) == FOLDS * len(KINDS) * 4
    folds = {}
    for row in listed:
        folds.setdefault(row.source_file, set()).add(row.fold)
    assert all(len(each) == 1 for each in folds.values())
    assert len(folds) == len(listed) / 2


def test_a_video_is_h264_and_aac_of_the_requested_length_and_the_same_on_every_run(tmp_path):
    clip = render_clip(2, 7, **SHORT)
    for name in ("first.mp4", "second.mp4"):
        write_video(tmp_path / name, clip)
    assert (tmp_path / "first.mp4").read_bytes() == (tmp_path / "second.mp4").read_bytes()
    with av.open(tmp_path / "first.mp4") as container:
        image, sound = container.streams.video[0], container.streams.audio[0]
        assert (image.codec_context.name, sound.codec_context.name) == ("h264", "aac")
        assert (sound.rate, sound.channels) == (RATE, 1)
        assert container.duration / av.time_base == pytest.approx(4.0, abs=0.05)
        frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(image)]
        container.seek(0)
        audio = np.concatenate([frame.to_ndarray()[0] for frame in container.decode(sound)])[: len(clip.sound)]
    later = [np.dot(audio[delay : delay + RATE], clip.sound[:RATE]) for delay in range(1100)]
    assert np.argmax(later) == 0, "the encoder's delay is cut off"
    assert np.shape(frames) == clip.frames.shape
    assert np.abs(np.array(frames, float) - clip.frames).mean() < 8


def test_a_video_has_the_same_bytes_whatever_lies_in_memory(tmp_path):
    """Of this clip, x264 with AVX-512 wrote other bytes in one of eight runs (`earshot.core.encoding`)."""
    clip = render_clip(0, 3, image_size=128, seconds=8.0, frame_rate=5.0)
    clip = replace(clip, sound=clip.sound[:RATE])
    drawn, written = np.random.default_rng(0), set()
    for _ in range(100):
        others = [np.full(drawn.integers(1_000, 400_000), drawn.integers(256), np.uint8) for _ in range(10)]
        write_video(tmp_path / "video.mp4", clip)
        written.add((tmp_path / "video.mp4").read_bytes())
        del others  # their memory is free for the next video
    assert len(written) == 1


def color_histogram(image):
    """The shares of 8 x 8 x 8 colors in an image, their square roots."""
    cells = (image // 32).reshape(-1, 3) @ np.array([64, 8, 1])
    return np.sqrt(np.bincount(cells, minlength=512) / len(cells))


def random_pool5(images):
    """Features of an untrained AlexNet, its batch norm fitted on these images: (n, 128, 128, 3) to (n, d)."""
    torch.manual_seed(0)
    network = AlexNet(classes=2, width=0.5, image_size=112)
    images = torch.from_numpy(images[:, 8:120, 8:120]).permute(0, 3, 1, 2).contiguous()
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.momentum = None
    with torch.no_grad():
        network.train()(images[:200])
        return np.concatenate(
            [network.eval().features(part, ("pool5",))["pool5"].numpy() for part in images.split(100)]
        )


def linear_scores(features, labels, train, share):
    """Scores (tests, classes) of linear SVMs fitted on the first `train` rows, by the C that suits the test best."""
    features = features - features[:train].mean(0)
    features *= np.sqrt(features.shape[1]) / np.linalg.norm(features[:train], axis=1).mean()
    scores = []
    for cost in (1e-4, 1e-3, 1e-2):
        svms = [LinearSVC(C=cost, tol=1e-2).fit(features[:train], labels[:train, c]) for c in range(labels.shape[1])]
        scores.append(np.stack([svm.decision_function(features[train:]) for svm in svms], axis=1))
    return max(scores, key=share)


def from_chance(score, chance):
    """A score rescaled so that chance is 0 and perfect is 1."""
    return (score - chance) / (1 - chance)


def squared(image):
    return np.asarray(Image.fromarray(image).resize((128, 128), Image.Resampling.BILINEAR))


BASELINES = {
    "color": lambda images: np.stack([color_histogram(image) for image in images]),
    "brightness": lambda images: np.stack([np.sort(p.mean(-1).ravel())[::128] for p in images]) / 255,
    "random pool5": random_pool5,
}
MOST = 0.6  # of the way from chance to perfect


@pytest.mark.slow
def test_neither_color_nor_random_features_reveal_the_objects_of_an_image():
    rng = np.random.default_rng(0)
    contents = [tuple(rng.choice(KINDS, rng.integers(1, 4)).tolist()) for _ in range(400)]
    images = np.stack([squared(render_image(8, "voc", n, image_size=128, kinds=kinds)[0])
                         for n, kinds in enumerate(contents)])  # fmt: skip
    labels = np.array([[1 if kind in kinds else -1 for kind in KINDS] for kinds in contents])

    def metric(scores):
        return average_precisions(scores, labels[200:]).mean()

    for name, features in BASELINES.items():
        score = metric(linear_scores(features(images), labels, 200, metric))
        assert from_chance(score, np.mean(labels[200:] == 1)) < MOST, f"{name}: mean average precision {score:.3f}"


@pytest.mark.slow
def test_neither_color_nor_random_features_reveal_the_kind_of_a_scene():
    kinds = np.arange(400) % len(KINDS)
    images = np.stack([squared(render_image(8, "sun", n, image_size=128, kinds=(KINDS[kind],))[0])
                         for n, kind in enumerate(kinds)])  # fmt: skip
    labels = np.where(kinds[:, None] == np.arange(len(KINDS)), 1, -1)

    def metric(scores):
        return np.mean(scores.argmax(1) == kinds[200:])

    for name, features in BASELINES.items():
        score = metric(linear_scores(features(images), labels, 200, metric))
        assert from_chance(score, 1 / len(KINDS)) < MOST, f"{name}: accuracy {score:.3f}"


@pytest.fixture(scope="module")
def rendered(tmp_path_factory):
    """data/sample of a very small run of the stage, through its command line."""
    root = tmp_path_factory.mktemp("root")
    images = {"image_size": 64, "voc_train": 6, "voc_val": 5, "voc_test": 4, "sun_images": 2}
    small = {"clips": 3, "shard_clips": 2, "duration_s": 4.0, "esc50_recordings": 1, "localization_images": 5, **images}
    changes = [part for key, value in small.items() for part in ("--set", f"sample.{key}={value}")]
    sample.STAGE.run(sample.main, ["--root", str(root), *changes])
    return root / "data" / "sample"


def test_the_manifest_lists_every_video(rendered):
    rows = list(read_manifest(rendered / "corpus"))
    assert {rendered / "corpus" / row.source for row in rows} == set((rendered / "corpus").rglob("*.mp4"))
    assert len({row.group for row in rows}) == len(rows) == 3
    assert [(row.start, row.end) for row in rows] == [(0, 4)] * 3
    assert [row.annotations for row in rows] == [plan_clip(0, number).annotations for number in range(3)]


@pytest.mark.parametrize(("image_set", "images"), [("train", 6), ("val", 5), ("trainval", 11), ("test", 4)])
def test_an_independent_reader_of_voc2007_reads_the_images(rendered, image_set, images):
    dataset = datasets.VOCDetection(rendered / "voc", year="2007", image_set=image_set)
    assert len(dataset) == images
    for image, entry in dataset:
        size = entry["annotation"]["size"]
        assert image.size == (int(size["width"]), int(size["height"]))
        for each in entry["annotation"].get("object", []):
            box = {side: int(value) for side, value in each["bndbox"].items()}
            assert each["name"] in KINDS
            assert 1 <= box["xmin"] < box["xmax"] <= image.width
            assert 1 <= box["ymin"] < box["ymax"] <= image.height


def test_image_sets_agree_with_the_annotations(rendered):
    year = rendered / "voc" / "VOCdevkit" / "VOC2007"
    for kind in KINDS:
        for line in (year / "ImageSets" / "Main" / f"{kind}_test.txt").read_text().splitlines():
            name, label = line.split()
            objects = ElementTree.parse(year / "Annotations" / f"{name}.xml").findall("object")
            flags = [entry.findtext("difficult") for entry in objects if entry.findtext("name") == kind]
            assert int(label) == (-1 if not flags else int("0" in flags))


def test_an_independent_reader_of_sun397_reads_the_scenes(rendered):
    dataset = datasets.SUN397(rendered / "sun")
    assert sorted(dataset.classes) == sorted(KINDS)
    assert len(dataset) == len(list((rendered / "sun").rglob("*.jpg")))
    assert dataset[0][0].size[0] >= 64


def test_partitions_name_images_that_are_there_and_never_test_on_training(rendered):
    drawn = []
    for split in ("01", "02", "03"):
        training, testing = ((rendered / "sun" / "Partitions" / f"{part}_{split}.txt").read_text().splitlines()
                             for part in ("Training", "Testing"))  # fmt: skip
        assert len(set(training)) == len(set(testing)) == 2 * len(KINDS)
        assert not set(training) & set(testing)
        assert all((rendered / "sun" / "SUN397" / name[1:]).is_file() for name in training + testing)
        drawn.append(tuple(training))
    assert len(set(drawn)) == 3


def test_the_table_of_esc50_lists_every_recording(rendered):
    with open(rendered / "esc50" / "meta" / "esc50.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == ["filename", "fold", "target", "category", "esc10", "src_file", "take"]
    assert {row["filename"] for row in rows} == {path.name for path in (rendered / "esc50" / "audio").iterdir()}
    for row in rows:
        assert row["filename"] == f"{row['fold']}-{row['src_file']}-{row['take']}-{row['target']}.wav"
        assert KINDS[int(row["target"])] == row["category"]
    described = soundfile.info(rendered / "esc50" / "audio" / rows[0]["filename"])
    assert (described.samplerate, described.channels, described.frames) == (44_100, 1, 220_500)


def test_the_audible_source_stands_anywhere_and_half_the_time_beside_a_silent_one():
    plans = [plan_image(3, number) for number in range(600)]
    assert [audible.kind for audible, _ in plans[:10]] == list(KINDS)
    places = np.array([[cause is audible for cause in places] for audible, places in plans])
    assert np.all(np.abs(places.mean(0) - 1 / 3) < 0.07)
    silent = [sum(cause is not None for cause in places) == 2 for _, places in plans]
    assert 0.43 < np.mean(silent) < 0.57
    assert all(len({cause.kind for cause in places if cause}) == sum(map(bool, places)) for _, places in plans)


def test_the_audible_source_covers_the_middle_of_an_image_in_the_minority_of_images():
    covers = []
    for number in range(30):
        image, sound, audible = render_pair(0, number, image_size=64)
        (left, top, right, bottom), (height, width) = audible.box, image.shape[:2]
        assert audible.kind == plan_image(0, number)[0].kind
        assert 0 <= left < right <= width
        assert 0 <= top < bottom <= height
        assert sound.shape == (2 * RATE,)
        covers.append(left <= width / 2 <= right and top <= height / 2 <= bottom)
    assert 0.1 < np.mean(covers) < 0.6


def test_the_boxes_are_listed_as_vgg_ss_lists_them(rendered):
    data_dir = rendered / "localization"
    listed = json.loads((data_dir / "vggss.json").read_text())
    assert sorted(path.name for path in data_dir.iterdir()) == ["audio", "frames", "vggss.json"]
    assert [entry["class"] for entry in listed] == list(KINDS[:5])
    for entry in listed:
        with Image.open(data_dir / "frames" / f"{entry['file']}.jpg") as image:
            assert min(image.size) == 64
        assert soundfile.info(data_dir / "audio" / f"{entry['file']}.wav").duration >= 1
        ((left, top, right, bottom),) = entry["bbox"]
        assert 0 <= left < right <= 1
        assert 0 <= top < bottom <= 1


def test_the_annotations_of_the_corpus_are_leaves_of_its_ontology(rendered):
    entries = json.loads((rendered / "ontology.json").read_text())
    children = [child for entry in entries for child in entry["child_ids"]]
    assert len(set(children)) == len(children)  # no class has two parents
    assert set(children) < {entry["id"] for entry in entries}
    assert {entry["name"] for entry in entries if not entry["child_ids"]} == set(KINDS)
