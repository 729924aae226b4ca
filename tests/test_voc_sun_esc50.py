"""Benchmarks read datasets in the official layouts, follow their protocols, and refuse a broken dataset by name."""

import csv
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from conftest import PARAMS
from descriptions import described_as
from PIL import Image
from striped_images import VOC_CLASSES, draw_image, write_voc_dataset

from earshot.benchmarks import esc50, sun, voc
from earshot.core.errors import EarshotError
from earshot.core.hashing import list_hash
from earshot.evaluation.encoders import load_encoders
from earshot.evaluation.image_files import read_image
from earshot.evaluation.images import voc_lists
from earshot.evaluation.images.image_features import color_features, layer_features
from earshot.networks.backbones.alexnet import AlexNet
from earshot.networks.files import load_encoder, save_architecture, save_weights
from earshot.pipeline.settings import settings
from earshot.results.score_tables import grid
from stages.evaluate import STAGE, main

pytestmark = pytest.mark.filterwarnings("ignore:.*edge of the grid")
SIDE, CROP = 72, 64
VOC_SIZES = {"train": 16, "val": 14, "test": 12}
SUN_CLASSES = ("/a/abbey", "/a/apse/indoor", "/z/zen_garden")
SOUNDS = {0: "dog", 41: "chainsaw"}


@pytest.fixture(scope="module")
def encoder(tmp_path_factory) -> Path:
    """A folder of encoders as the stage pretrain writes it, all with the same weights."""
    folder = tmp_path_factory.mktemp("encoder")
    torch.manual_seed(0)
    network = AlexNet(classes=4, width=0.1, image_size=CROP)
    save_architecture(folder, network)
    for name in ("encoder", "random", "wrong_sound"):
        save_weights(folder, name, network)
    return folder


@pytest.fixture(scope="module")
def voc_whole(tmp_path_factory) -> Path:
    """VOC2007 in small: several classes per image, and some of them difficult."""
    folder = tmp_path_factory.mktemp("voc")
    write_voc_dataset(folder, VOC_SIZES)
    return folder


@pytest.fixture(scope="module")
def sun_whole(tmp_path_factory) -> Path:
    """SUN397 in small: a category inside another's folder too, six images to train and four to test a split."""
    folder = tmp_path_factory.mktemp("sun")
    (folder / "Partitions").mkdir()
    for kind, category in enumerate(SUN_CLASSES):
        for number in range(10):
            draw_image(folder / "SUN397" / f"{category[1:]}/sun_{'a' * 15}{chr(97 + number)}.jpg", {kind}, number)
    names = np.array([f"sun_{'a' * 15}{chr(97 + number)}.jpg" for number in range(10)])
    for split in range(1, 4):
        order = np.random.default_rng(split).permutation(10)
        for part, members in (("Training", order[:6]), ("Testing", order[6:])):
            lines = [f"{category}/{name}\n" for category in SUN_CLASSES for name in names[members]]
            (folder / "Partitions" / f"{part}_{split:02d}.txt").write_text("".join(lines))
    return folder


@pytest.fixture(scope="module")
def esc50_whole(tmp_path_factory) -> Path:
    """ESC-50 in small: wav and ogg, names that the table alone knows, class numbers with gaps."""
    folder = tmp_path_factory.mktemp("esc50")
    (folder / "audio").mkdir()
    (folder / "meta").mkdir()
    rows, rng = [], np.random.default_rng(0)
    for fold in range(1, 6):
        for target, category in SOUNDS.items():
            for take in "AB":
                name = f"{fold}-{take}{target}.{'wav' if take == 'A' else 'ogg'}"
                time = np.arange(5 * 16_000) / 16_000
                tone = np.sin(2 * np.pi * rng.uniform(300, 900) * time)
                sound = 0.1 * rng.standard_normal(time.size) if target else 0.2 * tone
                soundfile.write(folder / "audio" / name, sound, 16_000)
                rows.append((name, fold, target, category, True, f"{fold}{target}", take))
    with (folder / "meta" / "esc50.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("filename", "fold", "target", "category", "esc10", "src_file", "take"), *rows])
    return folder


@pytest.fixture(autouse=True)
def _one_thread(monkeypatch):
    """Work this small loses by threads and processes."""
    monkeypatch.setenv("EARSHOT_THREADS", "1")
    monkeypatch.setenv("EARSHOT_WORKERS", "1")
    settings.cache_clear()
    yield
    settings.cache_clear()


@pytest.fixture
def datasets(tmp_path, voc_whole, sun_whole, esc50_whole) -> dict[str, Path]:
    """A copy of each tree that a test may spoil."""
    wholes = {"voc": voc_whole, "sun": sun_whole, "esc50": esc50_whole}
    return {name: shutil.copytree(whole, tmp_path / "trees" / name) for name, whole in wholes.items()}


def run_stage(root: Path, benchmark: str, **changes: object) -> tuple[dict, list[dict]]:
    """The metrics and the table of classes that the stage writes."""
    root.mkdir(exist_ok=True)
    sets = [word for key, value in changes.items() for word in ("--set", f"{key.replace('__', '.')}={value}")]
    params = ["--params", str(PARAMS), "--root", str(root)]
    STAGE.run(main, ["--benchmark", benchmark, *params, *sets])
    with (root / "metrics" / f"{benchmark}_classes.csv").open() as file:
        return json.loads((root / "metrics" / f"{benchmark}.json").read_text()), list(csv.DictReader(file))


def test_voc_scores_every_layer_beside_its_controls(tmp_path, voc_whole, encoder, capsys):
    layers = ("max5", "pool5", "fc6", "fc7")
    changes = {"evaluate__voc__data_dir": voc_whole, "evaluate__voc__encoder": encoder, "evaluate__voc__resize": SIDE}
    metrics, classes = run_stage(tmp_path / "root", "voc", **changes)
    for layer in layers:
        assert metrics[f"map_{layer}"] == metrics[f"random_map_{layer}"] == metrics[f"wrong_sound_map_{layer}"]
        assert 0 < metrics[f"svm_c_{layer}"] <= 0.0625
        assert np.mean([float(row[f"ap_{layer}"]) for row in classes]) == pytest.approx(
            metrics[f"map_{layer}"], abs=1e-5
        )
    assert [row["class"] for row in classes] == list(VOC_CLASSES)
    _, splits = voc_lists.read_dataset(voc_whole)
    shares = [(column == 1).sum() / (column != 0).sum() for column in splits["test"][1].T]
    assert metrics["chance"] == pytest.approx(np.mean(shares), abs=1e-6)
    assert metrics["map_pool5"] > metrics["chance"] + 0.1  # stripes lie or stand in pool5, whatever their colour
    closing = capsys.readouterr().out
    assert closing.startswith("VOC2007 linear SVM, 11-point mAP: max5 ")
    assert closing.count("(random ") == 4


def test_every_probe_has_its_scores_and_controls(tmp_path, voc_whole, sun_whole, esc50_whole, encoder, capsys):
    values = {"data_dir": voc_whole, "encoder": encoder, "resize": SIDE, "layers": "[pool5]", "probes": "[svm,knn]"}
    metrics, classes = run_stage(tmp_path, "voc", **{f"evaluate__voc__{key}": value for key, value in values.items()})
    closing = capsys.readouterr().out
    assert "VOC2007 linear SVM and weighted kNN, 11-point mAP: pool5 " in closing and "pool5_knn" in closing
    assert metrics["knn_k_pool5"] in (10, 20, 100, 200) and 0 < metrics["svm_c_pool5"] <= 0.0625
    assert "ap_pool5_knn" in classes[0] and "color_histogram_ap_knn" in classes[0]
    scores = grid(voc.BENCHMARK, metrics)
    assert list(scores.columns.values()) == ["pool5", "pool5, knn"]
    assert scores.metrics["map_pool5_knn"]["wrong sound"] == "wrong_sound_map_pool5_knn"
    assert scores.beside("map_pool5_knn") == {
        "sound": metrics["map_pool5_knn"],
        "wrong sound": metrics["map_pool5_knn"],
        "random weights": metrics["map_pool5_knn"],
        "color histogram, knn": metrics["color_histogram_map_knn"],
        "chance": metrics["chance"],
    }
    assert "color histogram, knn" not in scores.beside("map_pool5")

    values |= {"data_dir": sun_whole, "images_per_class": 4, "probes": "[logistic,knn]"}
    metrics, _ = run_stage(tmp_path, "sun", **{f"evaluate__sun__{key}": value for key, value in values.items()})
    assert {"accuracy_pool5_logistic", "random_accuracy_pool5_knn", "logistic_c_pool5"} <= metrics.keys()
    assert "accuracy_pool5" not in metrics
    confusion = (tmp_path / "data" / "predictions" / "sun" / "confusion.csv").read_text().splitlines()
    assert len(confusion) == 1 + metrics["items"]

    values = {
        "data_dir": esc50_whole,
        "encoder": described_as("spectrum", tmp_path / "models"),
        "windows": 2,
        "probes": "[knn]",
    }
    metrics, _ = run_stage(tmp_path, "esc50", **{f"evaluate__esc50__{key}": value for key, value in values.items()})
    assert metrics["accuracy_knn"] > 0.8  # a tone or a noise
    assert list(grid(esc50.BENCHMARK, metrics).columns) == ["accuracy_knn"]


def test_a_layer_that_the_network_does_not_have_is_refused_with_those_it_has(tmp_path, voc_whole, encoder):
    changes = {"evaluate__voc__data_dir": voc_whole, "evaluate__voc__encoder": encoder, "evaluate__voc__resize": SIDE}
    with pytest.raises(SystemExit, match="layers: the encoder has no conv9; it has max5, pool5, fc6, fc7"):
        run_stage(tmp_path / "root", "voc", **changes, evaluate__voc__layers="[pool5, conv9]")


def test_voc_is_found_from_each_folder_above_its_lists_and_keeps_difficult_apart(voc_whole):
    places = voc_whole, voc_whole / "VOCdevkit", voc_whole / "VOCdevkit/VOC2007"
    actual = [voc_lists.read_dataset(place) for place in places]
    classes, splits = actual[0]
    assert classes == list(VOC_CLASSES)
    assert {split: len(files) for split, (files, _) in splits.items()} == VOC_SIZES
    for _, labels in splits.values():
        assert [labels[3, 1], labels[4, 2]] == [0, 0]
        assert sorted(np.unique(labels)) == [-1, 0, 1]
    for _, others in actual[1:]:
        assert all((splits[split][1] == others[split][1]).all() for split in splits)


def test_the_real_lists_of_voc2007_are_read(real_data):
    classes, splits = voc_lists.read_dataset(real_data / "voc2007")
    assert len(classes) == 20
    assert [len(splits[split][0]) for split in voc_lists.SPLITS] == [300, 100, 200]
    assert (np.concatenate([labels for _, labels in splits.values()]) == 0).any()


@pytest.mark.slow
def test_a_random_network_tells_real_photographs_better_than_chance(real_data, tmp_path):
    torch.manual_seed(0)
    network = AlexNet(classes=2, width=0.5, image_size=112)
    files = voc_lists.read_dataset(real_data / "voc2007")[1]["train"][0]
    save_architecture(tmp_path, network)
    network.train()
    for norm in (module for module in network.modules() if isinstance(module, torch.nn.BatchNorm2d)):
        norm.momentum = None
    with torch.no_grad():
        network(torch.stack([read_image(file, 128, 112) for file in files[:128]]))
    for name in ("encoder", "random"):
        save_weights(tmp_path, name, network)
    places = {"evaluate__voc__data_dir": real_data / "voc2007", "evaluate__voc__encoder": tmp_path}
    metrics, _ = run_stage(tmp_path / "root", "voc", **places, evaluate__voc__resize=128)
    for layer in ("max5", "pool5", "fc6", "fc7"):
        assert metrics[f"random_map_{layer}"] > metrics["chance"] + 0.1


def share_correct(root: Path, benchmark: str, items: int) -> float:
    """Of the items in the table of confusions, the share that was told as what it is."""
    with (root / "data" / "predictions" / benchmark / "confusion.csv").open(newline="") as lines:
        rows = list(csv.DictReader(lines))
    assert len(rows) == items and list(rows[0]) == ["actual", "predicted"]
    return float(np.mean([row["actual"] == row["predicted"] for row in rows]))


def test_sun_scores_the_mean_of_three_splits_beside_its_controls(tmp_path, sun_whole, encoder, capsys):
    changes = {"evaluate__sun__data_dir": sun_whole, "evaluate__sun__encoder": encoder, "evaluate__sun__resize": SIDE}
    changes |= {"evaluate__sun__layers": "[pool5]", "evaluate__sun__images_per_class": 4}
    metrics, classes = run_stage(tmp_path / "root", "sun", **changes)
    names = ["accuracy_pool5", "wrong_sound_accuracy_pool5", "random_accuracy_pool5"]
    assert set(metrics) == {*names, "color_histogram_accuracy", "svm_c_pool5", "chance", "items", "items_hash"}
    requested = [
        f"{split}/SUN397{name}"
        for split in range(1, 4)
        for name in (sun_whole / "Partitions" / f"Testing_{split:02d}.txt").read_text().split()
    ]
    assert metrics["items_hash"] == list_hash(requested)
    assert metrics["accuracy_pool5"] == metrics["random_accuracy_pool5"] > 0.45
    assert metrics["chance"] == pytest.approx(1 / 3, abs=1e-6)
    assert [row["class"] for row in classes] == [name[1:] for name in SUN_CLASSES]
    assert np.mean([float(row["accuracy_pool5"]) for row in classes]) == pytest.approx(
        metrics["accuracy_pool5"], abs=1e-5
    )
    assert "SUN397 linear SVM, accuracy over 3 splits: pool5" in capsys.readouterr().out
    assert share_correct(tmp_path / "root", "sun", items=len(requested)) == pytest.approx(
        metrics["accuracy_pool5"], abs=1e-5
    )


def test_sun_draws_as_many_of_the_official_fifty_as_asked_by_the_seed(tmp_path):
    (tmp_path / "Partitions").mkdir()
    for part, first in (("Training", 0), ("Testing", 50)):
        lines = [f"{name}/sun_{first + place:02d}.jpg\n" for name in SUN_CLASSES for place in range(50)]
        (tmp_path / "Partitions" / f"{part}_01.txt").write_text("".join(lines))
    classes, train, test = sun.read_split(tmp_path, 1, 20, seed=0)
    assert classes == ["a/abbey", "a/apse/indoor", "z/zen_garden"]
    for files, labels in (train, test):
        assert np.bincount(labels).tolist() == [20, 20, 20]
        assert len(set(files)) == 60
        assert all(
            file.parent == tmp_path / "SUN397" / classes[label] for file, label in zip(files, labels, strict=True)
        )
    assert not set(train[0]) & set(test[0])
    assert sun.read_split(tmp_path, 1, 20, seed=0)[1][0] == train[0] != sun.read_split(tmp_path, 1, 20, seed=1)[1][0]
    assert len(sun.read_split(tmp_path, 1, 50, seed=0)[1][0]) == 150


@pytest.mark.parametrize(
    ("images_per_class", "message"),
    [
        (5, r"Testing_01\.txt: 4 images of a/abbey, expected 5; .*images_per_class to at most 4"),
        (6, r"Testing_01\.txt: 4 images of a/abbey, expected 6"),
        (7, r"Training_01\.txt: 6 images of a/abbey, expected 7; .*images_per_class to at most 6"),
        (20, r"Training_01\.txt: 6 images of a/abbey, expected 20"),
    ],
)
def test_more_images_than_a_category_has_are_refused(sun_whole, images_per_class, message):
    assert len(sun.read_split(sun_whole, 1, 4, seed=0)[2][0]) == 12
    with pytest.raises(EarshotError, match=message):
        sun.read_split(sun_whole, 1, images_per_class, seed=0)


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-16-le"])
@pytest.mark.parametrize("ends", ["\n", "\r\n"])
def test_lists_are_read_in_every_encoding(datasets, encoding, ends):
    def read():
        return (
            voc_lists.read_dataset(datasets["voc"])[1]["train"][0],
            sun.read_split(datasets["sun"], 1, 4, 0)[1][0],
            esc50.read_table(datasets["esc50"]),
        )

    whole = read()
    for file in [*(datasets["voc"] / MAIN).iterdir(), *datasets["sun"].glob("Partitions/*"),
                 datasets["esc50"] / "meta/esc50.csv"]:  # fmt: skip
        file.write_bytes(file.read_text().replace("\n", ends).encode(encoding))
    assert read() == whole


@pytest.mark.parametrize("separator", [";", "\t"])
@pytest.mark.parametrize("quote", ["", '"'])
def test_the_table_of_esc50_may_have_any_separator(datasets, separator, quote):
    whole, file = esc50.read_table(datasets["esc50"]), datasets["esc50"] / "meta/esc50.csv"
    file.write_text(
        quote + file.read_text().replace(",", f"{quote}{separator}{quote}").replace("\n", f"{quote}\n{quote}")
    )
    file.write_text(file.read_text().removesuffix('"'))
    assert esc50.read_table(datasets["esc50"]) == whole


def test_esc50_scores_the_descriptor_beside_the_spectrum_and_chance(tmp_path, esc50_whole, capsys):
    changes = {"evaluate__esc50__data_dir": esc50_whole, "evaluate__esc50__windows": 2}
    changes["evaluate__esc50__encoder"] = described_as("mfcc", tmp_path / "models")
    metrics, classes = run_stage(tmp_path / "root", "esc50", **changes)
    requested = list_hash(f"audio/{file.name}" for file in (esc50_whole / "audio").iterdir())
    scores = {"accuracy": 1, "accuracy_std": 0, "spectrum_accuracy": 1, "chance": 0.5}
    assert metrics == scores | {"items": 20, "items_hash": requested}  # the descriptor was trained on no clips
    assert [row["class"] for row in classes] == ["dog", "chainsaw"]  # by number, not by name
    assert "mfcc 1.000, spectrum 1.000; chance 0.500" in capsys.readouterr().out
    assert share_correct(tmp_path / "root", "esc50", items=len([*(esc50_whole / "audio").iterdir()])) == 1


def test_a_part_of_esc50_may_name_its_only_table_as_it_likes(datasets):
    whole = esc50.read_table(datasets["esc50"])
    (datasets["esc50"] / "meta/esc50.csv").rename(datasets["esc50"] / "meta/esc2.csv")
    assert esc50.read_table(datasets["esc50"]) == whole
    shutil.copy(datasets["esc50"] / "meta/esc2.csv", datasets["esc50"] / "meta/esc3.csv")
    with pytest.raises(EarshotError, match=r"esc50\.csv: cannot be read"):
        esc50.read_table(datasets["esc50"])


def test_features_do_not_depend_on_how_images_are_batched(voc_whole, encoder, monkeypatch):
    files = voc_lists.read_dataset(voc_whole)[1]["train"][0]
    network = load_encoder(encoder)
    together = layer_features(network, files, ("max5", "fc7"), SIDE, "x")
    monkeypatch.setattr("earshot.evaluation.images.image_features.BATCH", 3)
    apart = layer_features(network, files, ("max5", "fc7"), SIDE, "x")
    for layer, values in together.items():
        np.testing.assert_allclose(values, apart[layer], rtol=1e-4, atol=1e-5)
        assert (values >= 0).all()  # after the ReLU


def test_an_image_is_squeezed_whole_and_cut_to_its_middle(tmp_path):
    image = np.zeros((50, 200, 3), np.uint8)
    image[:, :100, 0] = 255  # left half red
    Image.fromarray(image).save(tmp_path / "a.png")
    actual = read_image(tmp_path / "a.png", SIDE, CROP)
    assert actual.shape == (3, CROP, CROP)
    assert actual.dtype == torch.uint8
    assert (actual[0, :, : CROP // 2 - 2] == 255).all()
    assert (actual[0, :, CROP // 2 + 2 :] == 0).all()
    Image.fromarray(image).convert("CMYK").save(tmp_path / "b.jpg", quality=95)  # four colours
    again = read_image(tmp_path / "b.jpg", SIDE, CROP)
    assert (again.int() - actual.int()).abs().float().mean() < 16


def test_color_histograms_see_colors_and_no_shapes(tmp_path):
    image = np.zeros((SIDE, SIDE, 3), np.uint8)
    image[20:52, 20:52] = (255, 128, 0)
    Image.fromarray(image).save(tmp_path / "a.png")
    Image.fromarray(np.roll(image, (10, -8), (0, 1))).save(tmp_path / "b.png")
    shares = color_features([tmp_path / "a.png", tmp_path / "b.png"], SIDE, SIDE) ** 2
    assert shares.shape == (2, 512)
    np.testing.assert_allclose(shares[0], shares[1], atol=1e-6)
    assert shares[0, 0] == pytest.approx(1 - 32**2 / SIDE**2)
    assert shares[0, 7 * 64 + 4 * 8] == pytest.approx(32**2 / SIDE**2)


def test_the_control_is_measured_where_it_was_trained(tmp_path, encoder):
    shutil.copytree(encoder, tmp_path / "models")
    assert list(load_encoders(tmp_path / "models")) == ["", "wrong_sound_", "random_"]
    (tmp_path / "models" / "wrong_sound.safetensors").unlink()
    assert list(load_encoders(tmp_path / "models")) == ["", "random_"]


def spoil(name: str, change: Callable[[str], str]) -> Callable[[Path], None]:
    """Rewrite the text of one file of a dataset."""

    def write(data_dir: Path) -> None:
        (data_dir / name).write_text(change((data_dir / name).read_text()))

    return write


MAIN = "VOCdevkit/VOC2007/ImageSets/Main"
IMAGE = "VOCdevkit/VOC2007/JPEGImages/000005.jpg"

VOC_SPOILED = [
    (lambda root: shutil.rmtree(root / MAIN), r"Main: holds no lists such as aeroplane_train\.txt"),
    (
        lambda root: shutil.rmtree(root / "VOCdevkit/VOC2007/ImageSets"),
        r"voc: holds no VOC2007, expected VOCdevkit/VOC",
    ),
    (lambda root: (root / MAIN / "val.txt").unlink(), r"val\.txt: cannot be read"),
    (
        spoil(f"{MAIN}/cow_test.txt", lambda text: text.replace(" 1\n", "-1\n")),
        r"cow_test\.txt: no image shows a cow",
    ),
    (spoil(f"{MAIN}/cow_val.txt", lambda text: text[text.index("\n") + 1 :]), r"lacks image 000017"),
    (
        spoil(f"{MAIN}/cow_val.txt", lambda text: "000017 yes\n" + text.partition("\n")[2]),
        r"line 1: '000017 yes', expected",
    ),
    (
        spoil(f"{MAIN}/train.txt", lambda text: text + "000002\n"),
        r"train\.txt, line 17: lists 000002 again after line 2",
    ),
    (
        spoil(f"{MAIN}/test.txt", lambda text: text + "\n" + text),
        r"test\.txt, line 14: lists 000031 again after line 1",
    ),
    (
        spoil(f"{MAIN}/cow_val.txt", lambda text: text + "000018 -1\n"),
        r"cow_val\.txt, line 15: lists 000018 again after",
    ),
    (
        spoil(f"{MAIN}/test.txt", lambda text: text + "000002\n"),
        r"test\.txt: 000002 is in train\.txt too, expected in one",
    ),
    (spoil(f"{MAIN}/train.txt", lambda text: "../../etc\n" + text), r"names image '\.\./\.\./etc'"),
    (lambda root: (root / IMAGE).unlink(), r"000005\.jpg: no such image"),
    (
        lambda root: (root / IMAGE).write_bytes(b"\xff\xd8\xffnothing"),
        r"000005\.jpg: cannot be read as an image",
    ),
]
SUN_SPOILED = [
    (
        lambda root: shutil.rmtree(root / "Partitions"),
        r"Training_01\.txt: cannot be read .* expected Partitions/",
    ),
    (lambda root: (root / "Partitions/Testing_01.txt").unlink(), r"Testing_01\.txt: cannot be read"),
    (
        spoil("Partitions/Testing_01.txt", lambda text: text.replace("/a/abbey", "/b/barn")),
        r"abbey is in only one of",
    ),
    (spoil("Partitions/Training_01.txt", lambda text: text.split("\n", 5)[5]), r"1 images of a/abbey, expected 3"),
    (spoil("Partitions/Testing_01.txt", lambda text: "/a/../../x.jpg\n" + text), r"line 1: '/a/\.\./\.\./x\.jpg'"),
    (lambda root: shutil.rmtree(root / "SUN397/z"), r"sun_a*.\.jpg and 7 more of 24: no such image"),
    (
        spoil("Partitions/Training_01.txt", lambda text: text + text.split("\n")[1]),
        r"line 19: lists a/abbey/sun_a*.\.jpg again after line 2, expected once",
    ),
    (
        spoil("Partitions/Testing_02.txt", lambda text: text + text.split("\n")[4][1:]),
        r"Testing_02\.txt, line 13: lists a/apse/indoor/sun_a*.\.jpg again after line 5",
    ),
    (
        lambda root: (root / "Partitions/Testing_01.txt").write_text((root / "Partitions/Training_01.txt").read_text()),
        r"split 1: a/abbey/sun_a*.\.jpg is in Training and Testing, expected in one",
    ),
]
ESC50_SPOILED = [
    (lambda data_dir: (data_dir / "meta/esc50.csv").unlink(), r"esc50\.csv: cannot be read"),
    (
        spoil("meta/esc50.csv", lambda text: text.replace("target", "class")),
        r"line 2: target is None, expected a whole",
    ),
    (spoil("meta/esc50.csv", lambda text: text.replace("1-A0.wav", "../a.wav")), r"filename is '\.\./a\.wav'"),
    (
        spoil("meta/esc50.csv", lambda text: text.replace(",41,chainsaw", ",0,dog")),
        r"expected some in at least three folds and two",
    ),
    (
        spoil("meta/esc50.csv", lambda text: text.replace(",41,", ",\u00b2,", 1)),
        r"target is '\u00b2', expected a whole",
    ),
    (spoil("meta/esc50.csv", lambda text: text.replace(",41,", ",4_1,", 1)), r"target is '4_1', expected a whole"),
    (
        spoil("meta/esc50.csv", lambda text: text + text.split("\n")[1] + "\n"),
        r"line 22: lists 1-A0\.wav again after line 2",
    ),
    (
        spoil("meta/esc50.csv", lambda text: text.replace("3-A0.wav", "1-A0.wav")),
        r"lists 1-A0\.wav again after line 2, expected once",
    ),
    (
        spoil("meta/esc50.csv", lambda text: text.replace(",41,chainsaw", ",41,cat", 1)),
        r"line 5: target 41 is 'chainsaw', expected 'cat' as above",
    ),
    (lambda data_dir: (data_dir / "audio/3-A41.wav").unlink(), r"3-A41\.wav: cannot be read as sound"),
    (lambda data_dir: (data_dir / "audio/3-A41.wav").write_bytes(b"nothing"), r"3-A41\.wav: cannot be read as sound"),
]
SPOILED = [("voc", *case) for case in VOC_SPOILED] + [("sun", *case) for case in SUN_SPOILED]
SPOILED += [("esc50", *case) for case in ESC50_SPOILED]


@pytest.mark.parametrize(("benchmark", "damage", "message"), SPOILED, ids=[message for *_, message in SPOILED])
def test_a_dataset_that_is_not_whole_is_refused_by_name(benchmark, damage, message, tmp_path, datasets, encoder):
    damage(datasets[benchmark])
    changes = {f"evaluate__{benchmark}__data_dir": datasets[benchmark]}
    if benchmark == "esc50":
        encoder = described_as("spectrum", tmp_path / "models")
        changes |= {"evaluate__esc50__windows": 1, "evaluate__esc50__encoder": encoder}
    else:
        changes |= {f"evaluate__{benchmark}__encoder": encoder, f"evaluate__{benchmark}__layers": "[max5]"}
    if benchmark == "sun":
        changes["evaluate__sun__images_per_class"] = 4
    with pytest.raises(SystemExit, match=message) as refused:
        run_stage(tmp_path / "root", benchmark, **changes)
    assert "\n" not in str(refused.value)
    assert not (tmp_path / "root" / "metrics").exists()


def test_a_resize_below_what_the_network_sees_is_refused(voc_whole, encoder):
    with pytest.raises(EarshotError, match=r"resize is 63 px, expected at least the encoder's 64"):
        layer_features(load_encoder(encoder), voc_lists.read_dataset(voc_whole)[1]["val"][0], ("max5",), CROP - 1, "x")
