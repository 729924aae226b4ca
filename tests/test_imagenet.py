"""The linear probe on folders of classes: its features, its layer, data_dirs of two kinds, and killed measurements."""

import csv
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import PARAMS
from PIL import Image

from earshot.benchmarks import imagenet
from earshot.core.errors import EarshotError
from earshot.core.hashing import list_hash
from earshot.evaluation.benchmark import Context
from earshot.evaluation.image_files import read_image
from earshot.evaluation.images.supervised import Classifier, ClassTask
from earshot.networks.backbones.alexnet import AlexNet
from earshot.networks.correspondence import build_correspondence
from earshot.networks.files import load_encoder, save_architecture, save_weights
from earshot.pipeline.settings import settings
from stages.evaluate import STAGE, main

CLASSES = {"n01440764": 0, "n02102040": 1, "n03394916": 2}
SETTINGS = {"inputs": "images", "annotations": "none"}
SETTINGS |= {"pool": "maximum", "crops": 1, "optimizer": "adam"}
SETTINGS |= {"resize": 48, "epochs": 15, "batch_size": 8, "learning_rate": 0.01, "weight_decay": 0.0}
SETTINGS |= {"supervised_epochs": 0, "supervised_learning_rate": 0.003}


@pytest.fixture(autouse=True)
def _one_thread(monkeypatch) -> Iterator[None]:
    """Work this small loses by threads and processes."""
    monkeypatch.setenv("EARSHOT_THREADS", "1")
    monkeypatch.setenv("EARSHOT_WORKERS", "1")
    settings.cache_clear()
    yield
    settings.cache_clear()


def draw_image(file: Path, kind: int, seed: int) -> None:
    """A square of the class's color somewhere on noise."""
    rng = np.random.default_rng(seed)
    image = rng.integers(0, 120, (60, 80, 3), np.uint8)
    row, column = rng.integers(0, 30, 2)
    image[row : row + 30, column : column + 30, kind] = 255
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(image).save(file, "JPEG", quality=90)


def write_encoders(folder: Path, network: torch.nn.Module) -> Path:
    save_architecture(folder, network)
    for name in ("encoder", "random"):
        save_weights(folder, name, network)
    return folder


@pytest.fixture(scope="module")
def encoder(tmp_path_factory) -> Path:
    torch.manual_seed(0)
    network = build_correspondence("l3", width=1 / 8, stride=2, image_size=32)
    return write_encoders(tmp_path_factory.mktemp("correspond"), network)


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory) -> Path:
    """ImageNet's folders in small: 10 training and 4 test images per class."""
    folder = tmp_path_factory.mktemp("imagenet")
    for part, count in (("train", 10), ("val", 4)):
        for name, kind in CLASSES.items():
            for number in range(count):
                draw_image(folder / part / name / f"{name}_{number}.JPEG", kind, number + 100 * len(part))
    return folder


@pytest.fixture
def make_context(data_dir, encoder, tmp_path):
    def context(**changes: object) -> Context:
        params = imagenet.ImageNetParams(data_dir=str(data_dir), encoder=str(encoder), **SETTINGS | changes)
        return Context(data_dir, encoder, params, 0, tmp_path)

    return context


def test_accuracy_stands_beside_random_weights_and_chance(tmp_path, data_dir, encoder, capsys):
    values = {"data_dir": data_dir, "encoder": encoder} | SETTINGS
    sets = [word for key, value in values.items() for word in ("--set", f"evaluate.imagenet.{key}={value}")]
    root = tmp_path / "root"
    root.mkdir()
    STAGE.run(main, ["--benchmark", "imagenet", "--params", str(PARAMS), "--root", str(root), *sets])
    metrics = json.loads((root / "metrics/imagenet.json").read_text())
    assert set(metrics) == {
        "accuracy",
        "random_accuracy",
        "chance",
        "images_train",
        "images_test",
        "items",
        "items_hash",
    }
    assert metrics["items_hash"] == list_hash(
        str(file.relative_to(data_dir)) for file in (data_dir / "val").rglob("*.JPEG")
    )
    assert metrics["accuracy"] == metrics["random_accuracy"] > 0.7
    assert (metrics["images_train"], metrics["images_test"]) == (30, 12)
    with (root / "metrics/imagenet_classes.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["class"] for row in rows] == list(CLASSES)
    assert np.mean([float(row["accuracy"]) for row in rows]) == pytest.approx(metrics["accuracy"], abs=1e-5)
    assert "(random" in capsys.readouterr().out
    assert not list(root.rglob("*.npy"))  # gigabytes at the paper's size


def test_features_are_the_last_map_after_the_relu_of_the_whole_image_pooled_to_4_by_4(
    make_context, data_dir, encoder, tmp_path
):
    context, images = make_context(resize=128), imagenet.read_dataset(data_dir)
    place = tmp_path / "features"
    place.mkdir()
    (place / "00000.json").write_text(json.dumps({"files": images.files[:3], "crops": 1}))
    imagenet.describe_shard(0, "encoder", context, place)
    network = load_encoder(encoder)
    batch = torch.stack([read_image(Path(file), 128, 128) for file in images.files[:3]])
    with torch.inference_mode():  # (3, 64, 8, 8)
        maps = torch.relu(network.image_tower((batch - network.channel_mean) / network.channel_deviation))
    expected = torch.nn.functional.max_pool2d(maps, 2).flatten(1)
    actual = imagenet.Features([place / "00000.npy"])
    assert actual.dimensions == 64 * 16
    np.testing.assert_allclose(actual[np.array([2, 0])][:, 0], expected[[2, 0]], rtol=2e-3, atol=1e-3)


def test_rows_come_from_the_right_file_whatever_their_order(make_context, data_dir, monkeypatch):
    whole = imagenet.measure("encoder", make_context(), imagenet.read_dataset(data_dir))
    monkeypatch.setattr(imagenet, "SHARD", 7)
    again = imagenet.measure(
        "random", make_context(), imagenet.read_dataset(data_dir)
    )  # the same weights, in six files
    np.testing.assert_array_equal(again, whole)


def test_a_killed_measurement_resumes(make_context, data_dir, monkeypatch):
    monkeypatch.setattr(imagenet, "SHARD", 16)
    context, images, described = make_context(), imagenet.read_dataset(data_dir), []
    describe = imagenet.describe_shard

    def counted(shard, **how):
        described.append(shard)
        if len(described) == 2:
            raise KeyboardInterrupt
        return describe(shard, **how)

    monkeypatch.setattr(imagenet, "describe_shard", counted)
    with pytest.raises(KeyboardInterrupt):
        imagenet.measure("encoder", context, images)
    correct = imagenet.measure("encoder", context, images)
    assert described == [0, 1, 1, 2]
    np.testing.assert_array_equal(imagenet.measure("encoder", context, images), correct)
    assert described == [0, 1, 1, 2]  # a measured encoder is not measured again
    np.testing.assert_array_equal(imagenet.measure("random", make_context(), images), correct)


def test_a_layer_learns_what_is_linearly_separable_and_no_more(tmp_path):
    drawn = np.random.default_rng(0)
    labels = drawn.integers(0, 3, 400)
    rows = drawn.standard_normal((400, 20)) * 5
    rows[np.arange(400), labels] += 30
    for name, part in (("train", rows[:300]), ("test", rows[300:])):
        np.save(tmp_path / f"{name}.npy", part[:, None].astype(np.float16))
    train, test = (imagenet.Features([tmp_path / f"{name}.npy"]) for name in ("train", "test"))
    params = imagenet.ImageNetParams(
        data_dir="", encoder="", **SETTINGS | {"resize": 32, "epochs": 5, "batch_size": 32, "learning_rate": 0.03}
    )
    context = Context(tmp_path, tmp_path, params, 0, tmp_path)
    for inputs, lowest, highest in ((labels, 0.97, 1), (drawn.permutation(labels), 0.15, 0.55)):
        images = imagenet.LabeledImages([""] * 400, ["a", "b", "c"], inputs, train=300)
        torch.set_num_threads(2)
        layer, scale = imagenet.train_linear(train, images, context)
        assert torch.get_num_threads() == 1  # whatever EARSHOT_THREADS is
        correct = imagenet.classify(layer, scale, test, images)
        assert correct.shape == (100,)
        assert lowest <= correct.mean() <= highest


def test_average_pooling_sgd_and_ten_crops_as_published(make_context, data_dir, encoder, tmp_path):
    changes = {"pool": "average", "crops": 10, "optimizer": "sgd", "learning_rate": 0.01, "weight_decay": 0.0001}
    context, images = make_context(**changes, epochs=30), imagenet.read_dataset(data_dir)
    place = tmp_path / "features"
    place.mkdir()
    (place / "00000.json").write_text(json.dumps({"files": images.files[:2], "crops": 10}))
    imagenet.describe_shard(0, "encoder", context, place)
    network = load_encoder(encoder)
    # An image of 60 x 80 px is 48 x 64 px. The third crop of 32 px is at the bottom on the left, the fourth on the
    # right; the eighth is at the bottom on the left of the mirror image.
    crops, expected = imagenet.read_crops(Path(images.files[1]), 48, 32, 10), []
    assert torch.equal(crops[7], crops[3].flip(-1)) and torch.equal(crops[9], crops[4].flip(-1))
    for crop in crops[[2, 7]]:
        with torch.inference_mode():
            maps = torch.relu(network.image_tower((crop[None] - network.channel_mean) / network.channel_deviation))
        assert maps.shape == (1, 64, 2, 2)
        expected.append(maps.mean((2, 3))[0])
    actual = imagenet.Features([place / "00000.npy"])[np.array([1])][0]
    assert actual.shape == (10, 64)
    np.testing.assert_allclose(actual[[2, 7]], torch.stack(expected), rtol=2e-3, atol=1e-3)
    assert imagenet.rate_at(10_000, context.params, 30) == pytest.approx((1 + 0.01 * 0.0001 * 10_000) ** -0.5)
    assert imagenet.measure("encoder", context, images).shape == (12,)
    with pytest.raises(EarshotError, match="resize is 31 px, expected at least the encoder's 32"):
        context.params.__dict__["resize"] = 31
        imagenet.describe_shard(0, "encoder", context, place)


def test_folders_alone_are_split_by_a_hash_that_stays(tmp_path):
    for name in ("cat", "dog"):
        (tmp_path / name).mkdir()
        for number in range(200):
            (tmp_path / name / f"{number}.jpg").touch()
        (tmp_path / name / "notes.txt").touch()
    actual = imagenet.read_dataset(tmp_path)
    assert len(actual.files) == len(set(actual.files)) == 400
    assert 300 <= actual.train <= 340  # four fifths
    for name in ("cat", "dog"):
        (tmp_path / name / "200.jpg").touch()  # one more changes no other's side
    more = imagenet.read_dataset(tmp_path)
    assert set(actual.files[: actual.train]) <= set(more.files[: more.train])
    assert set(actual.files[actual.train :]) <= set(more.files[more.train :])


def test_a_classifiers_conv5_is_probed_too(data_dir, tmp_path):
    torch.manual_seed(0)
    folder = write_encoders(tmp_path, AlexNet(classes=2, width=0.1, image_size=64))
    params = imagenet.ImageNetParams(data_dir=str(data_dir), encoder=str(folder), **SETTINGS | {"resize": 96})
    context = Context(data_dir, folder, params, 0, tmp_path)
    assert imagenet.measure("encoder", context, imagenet.read_dataset(data_dir)).shape == (12,)


def test_a_data_dir_of_another_layout_is_refused_by_name(tmp_path, data_dir):
    with pytest.raises(EarshotError, match="holds 0 classes and 0 test images, expected train and val with a folder"):
        imagenet.read_dataset(tmp_path / "nothing")
    for name in CLASSES:
        draw_image(tmp_path / "train" / name / "a.JPEG", 0, 0)
    draw_image(tmp_path / "val" / "ILSVRC2012_val_00000001.JPEG", 0, 0)  # as it is unpacked, without folders
    draw_image(tmp_path / "val" / "n00000000" / "a.webp", 0, 0)  # of a format that is not read
    with pytest.raises(EarshotError, match="holds 3 classes and 0 test images"):
        imagenet.read_dataset(tmp_path)
    draw_image(tmp_path / "val" / "n09999999" / "a.JPEG", 0, 0)
    with pytest.raises(EarshotError, match="n09999999 has test images but no training images"):
        imagenet.read_dataset(tmp_path)


def test_a_file_that_is_no_image_is_named(make_context, data_dir, encoder, tmp_path):
    images = imagenet.read_dataset(data_dir)
    broken = tmp_path / "broken.jpg"
    broken.write_bytes(b"\xff\xd8\xffnothing")
    images.files[4] = str(broken)
    with pytest.raises(EarshotError, match=r"broken\.jpg: cannot be read as an image"):
        imagenet.measure("encoder", make_context(), images)


def test_the_supervised_reference_learns_the_classes_and_resumes(make_context, data_dir, monkeypatch):
    context, images = make_context(supervised_epochs=12), imagenet.read_dataset(data_dir)
    torch.set_num_threads(2)
    correct = imagenet.measure_supervised(context, images)
    assert torch.get_num_threads() == 1  # whatever EARSHOT_THREADS is
    assert correct.mean() > 0.7  # a third by chance
    checkpoint = context.scratch / "supervised.checkpoint.safetensors"
    assert checkpoint.exists()
    monkeypatch.setattr(imagenet.ClassTask, "loss", None)  # no step is repeated
    np.testing.assert_array_equal(imagenet.measure_supervised(context, images), correct)


def test_the_supervised_reference_ignores_labels_that_images_do_not_show(make_context, data_dir):
    images = imagenet.read_dataset(data_dir)
    wrong = replace(images, labels=np.concatenate([np.arange(images.train) % 3, images.labels[images.train :]]))
    assert imagenet.measure_supervised(make_context(supervised_epochs=12), wrong).mean() < 0.7


def test_its_loss_is_the_smoothed_cross_entropy_of_the_last_map(encoder, data_dir):
    images = imagenet.read_dataset(data_dir)
    classifier = Classifier(load_encoder(encoder), 3, 48)
    task = ClassTask(classifier, images.files[:8], images.labels[:8], size=48, batch_size=4, seed=0)
    assert task.batches_per_epoch == 2
    ((batch, labels),) = task.batches(range(1))
    assert batch.shape == (4, 3, 48, 48) and batch.dtype == torch.uint8
    torch.nn.init.normal_(classifier.output.weight)
    scores = classifier(batch)
    loss, _ = task.loss((batch, labels))
    logs = scores.log_softmax(1)
    expected = -(0.9 * logs.gather(1, labels[:, None])[:, 0] + 0.1 * logs.mean(1)).mean()
    assert loss.item() == pytest.approx(expected.item(), rel=1e-5)


def test_supervised_accuracy_stands_beside_the_probes(make_context):
    result = imagenet.BENCHMARK.evaluate(make_context(supervised_epochs=1, epochs=1))
    assert {"accuracy", "random_accuracy", "supervised_accuracy"} <= set(result.metrics)
    assert all("supervised_accuracy" in row for row in result.classes)
