"""Segmentation: IoU by hand, masks and what is refused, what trains, and a head that learns plain rectangles."""

import atexit
import csv
import json
import shutil
import tempfile
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import PARAMS, REPOSITORY
from PIL import Image

from earshot.benchmarks import segmentation
from earshot.benchmarks.segmentation import confusion, intersection_over_union, mean_iou, read_mask
from earshot.commands.recipe import apply_recipes
from earshot.core.params import load_params
from earshot.evaluation.benchmark import Context
from earshot.networks.backbones import build_network
from earshot.networks.files import save_architecture, save_weights
from earshot.params.evaluate import params_of as schema_of
from earshot.world.scenes import MASK_CLASSES, render_image
from earshot.world.sources import KINDS
from earshot.world.voc import PALETTE, render_voc, write_image_sets
from stages.evaluate import STAGE, main

# The parameters as committed, with the benchmark that the default run leaves out.
_FOLDER = tempfile.TemporaryDirectory(prefix="earshot-segmentation-")
atexit.register(_FOLDER.cleanup)
WITH_SEGMENTATION = Path(_FOLDER.name) / "params.yaml"
apply_recipes([REPOSITORY / "recipes" / "benchmark-segmentation.yaml"], PARAMS.read_text(), WITH_SEGMENTATION)
CLASSES, COLORS = ("cow", "dog"), ((220, 40, 40), (40, 60, 220))
WIDTH, HEIGHT, SIDE = 96, 72, 64
SPLITS = {"train": range(1, 7), "val": range(7, 9), "test": range(9, 13)}
pytestmark = pytest.mark.usefixtures("one_process")


def write_scene(year: Path, number: int) -> None:
    """A gray image with a red cow and a blue dog, plain rectangles with a void outline."""
    rng = np.random.default_rng(number)
    image = rng.integers(110, 140, (HEIGHT, WIDTH, 3))
    mask = np.zeros((HEIGHT, WIDTH), np.uint8)
    for place, color in enumerate(COLORS):
        top, left, side = rng.integers(4, 24), 8 + 46 * place, rng.integers(24, 34)
        image[top : top + side, left : left + side] = color
        mask[top - 1 : top + side + 1, left - 1 : left + side + 1] = 255
        mask[top : top + side, left : left + side] = place + 1
    for folder in ("JPEGImages", "SegmentationClass"):
        (year / folder).mkdir(parents=True, exist_ok=True)
    Image.fromarray(image.astype(np.uint8)).save(year / f"JPEGImages/{number:06d}.jpg", quality=95)
    drawn = Image.fromarray(mask, "L")
    drawn.putpalette(PALETTE.tobytes())
    drawn.save(year / f"SegmentationClass/{number:06d}.png")


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Path:
    """VOC2007 in small."""
    data_dir = tmp_path_factory.mktemp("voc")
    year = data_dir / "VOCdevkit/VOC2007"
    for task in ("Main", "Segmentation"):
        (year / "ImageSets" / task).mkdir(parents=True)
    for split, numbers in SPLITS.items():
        for number in numbers:
            write_scene(year, number)
        for task in ("Main", "Segmentation"):
            (year / f"ImageSets/{task}/{split}.txt").write_text("".join(f"{n:06d}\n" for n in numbers))
        for kind in CLASSES:
            (year / f"ImageSets/Main/{kind}_{split}.txt").write_text("".join(f"{n:06d}  1\n" for n in numbers))
    return data_dir


@pytest.fixture(scope="module")
def encoders(tmp_path_factory) -> Path:
    """encoder and wrong_sound are alike, random is another network."""
    folder = tmp_path_factory.mktemp("encoders")
    for name, seed in {"encoder": 0, "wrong_sound": 0, "random": 1}.items():
        torch.manual_seed(seed)
        network = build_network("alexnet", classes=5, width=0.1, image_size=SIDE, dropout=0.2)
        save_weights(folder, name, network)
    save_architecture(folder, network)
    return folder


def params_of(**changes: object):
    few = {"steps": 4, "batch_size": 4, "resize": SIDE} | changes
    overrides = [f"evaluate.segmentation.{k}={v}" for k, v in few.items()]
    return load_params(schema_of("segmentation"), WITH_SEGMENTATION, overrides).evaluate.segmentation


@pytest.fixture
def make_context(whole, encoders, tmp_path):
    """A context of few steps; parameters by keyword."""

    def context(scratch: str = "scratch", data_dir: Path = whole, **changes: object) -> Context:
        (tmp_path / scratch).mkdir(exist_ok=True)
        return Context(data_dir, encoders, params_of(**changes), 0, tmp_path / scratch)

    return context


def test_iou_sums_px_over_images_and_leaves_out_void():
    mask = np.array([[0, 0, 1, 255], [2, 2, 1, 255]])
    predicted = np.array([[0, 1, 1, 2], [2, 0, 0, 0]])
    counts = confusion(mask, predicted, 4)
    assert counts.tolist() == [[1, 1, 0, 0], [1, 1, 0, 0], [1, 0, 1, 0], [0, 0, 0, 0]]
    # Background 1 of 2 + 3 - 1, class 1 1 of 2 + 2 - 1, class 2 1 of 2 + 1 - 1; class 3 is in no mask.
    np.testing.assert_allclose(intersection_over_union(counts), [1 / 4, 1 / 3, 1 / 2, 0])
    assert mean_iou(counts) == pytest.approx((1 / 4 + 1 / 3 + 1 / 2) / 3)
    assert mean_iou(2 * counts) == mean_iou(counts)


def test_controls_are_measured_alike_and_a_resumed_evaluation_is_the_same(make_context):
    result = segmentation.evaluate(make_context())
    metrics = result.metrics
    scores = {f"{prefix}miou_{mode}" for prefix in ("", "wrong_sound_", "random_") for mode in ("head", "all")}
    assert {*metrics} == scores | {"chance", "steps"}
    assert metrics["miou_head"] == metrics["wrong_sound_miou_head"]
    background = sum(int((read_mask(segmentation.mask_of(file), 3) == 0).sum()) for file in listed(make_context()))
    counted = sum(int((read_mask(segmentation.mask_of(file), 3) != 255).sum()) for file in listed(make_context()))
    assert metrics["chance"] == pytest.approx(background / counted / 3)
    assert [row["class"] for row in result.classes] == ["background", "cow", "dog"]
    assert np.mean([row["iou_all"] for row in result.classes]) == pytest.approx(metrics["miou_all"])
    assert segmentation.evaluate(make_context("again")) == result


def test_with_validation_scored_training_takes_train_alone_and_no_test_image_is_scored(make_context, monkeypatch):
    works = []
    monkeypatch.setattr(
        segmentation, "map_shards", lambda work, *rest, **how: works.append(work.keywords["segmentation"])
    )
    for split in ("val", "test"):
        with pytest.raises(FileNotFoundError):  # no counts, since nothing has trained
            segmentation.evaluate(make_context(split=split))
    images = [[int(file.stem) for file in files] for work in works for files in (work.train, work.test)]
    assert images == [[*SPLITS["train"]], [*SPLITS["val"]], [*SPLITS["train"], *SPLITS["val"]], [*SPLITS["test"]]]


def listed(context: Context) -> list[Path]:
    return segmentation.read_lists(context.data_dir / "VOCdevkit/VOC2007")["test"]


@pytest.mark.parametrize("mode", ["head", "all"])
def test_the_head_alone_or_everything_but_batch_norm_trains(mode, make_context):
    context = make_context(learning_rate=0.1)
    torch.manual_seed(0)
    network = segmentation.FullyConvolutional(segmentation.load_encoder(context.encoder), 3, mode)
    assert not network(torch.zeros(1, 3, 80, 96, dtype=torch.uint8), (80, 96)).any()  # all classes are equally likely
    before = {name: values.clone() for name, values in network.state_dict().items()}
    work = segmentation.Segmentation(context, ["background", *CLASSES], listed(context), [], [])
    fixed = {"epochs": 1, "precision": "float32", "optimizer": "sgd", "schedule": "steps"}
    plan = segmentation.Plan.of(context.params, 0, **fixed, lr_step_epochs=1.0, checkpoint_selection="last")
    task = segmentation.SegmentationTask(network, work)
    segmentation.Trainer(task, plan, context.scratch / "checkpoint").train("test")
    changed = {name for name, values in network.state_dict().items() if not values.equal(before[name])}
    statistics = {name for name in before if "running" in name or "tracked" in name}
    assert changed & statistics == {name for name in statistics if name.startswith("head.")}
    encoder = {name for name in changed if name.startswith("encoder.convolutions")}
    assert bool(encoder) == (mode == "all")
    assert {"head.0.weight", "head.4.weight", "head.4.bias"} <= changed


def test_mirrored_images_keep_their_masks_and_void_stays_void(make_context):
    context = make_context()
    work = segmentation.Segmentation(context, ["background", *CLASSES], listed(context), [], [])
    network = torch.nn.Linear(1, 1)
    images, masks = next(iter(segmentation.SegmentationTask(network, work).batches(range(1))))
    assert images.shape == (4, 3, SIDE, SIDE) and masks.shape == (4, SIDE, SIDE)
    assert {*masks.unique().tolist()} == {0, 1, 2, 255}
    red, blue = (images[:, channel].float()[masks == value].mean() for channel, value in ((0, 1), (2, 2)))
    assert red > 200 and blue > 200
    assert {bool(mask[:, : SIDE // 2].eq(1).any()) for mask in masks} == {True, False}  # some are mirrored


@pytest.mark.slow
def test_a_head_on_random_weights_learns_plain_rectangles(make_context):
    context = make_context(steps=120, learning_rate=0.1, modes="[all]", resize=128)
    assert segmentation.evaluate(context).metrics["miou_all"] > 0.6


def spoil(data_dir: Path, name: str, image: Image.Image | bytes) -> None:
    file = data_dir / "VOCdevkit/VOC2007" / name
    file.write_bytes(image) if isinstance(image, bytes) else image.save(file)


MASK, LIST = "SegmentationClass/000010.png", "ImageSets/Segmentation/test.txt"
SPOILED = [
    (lambda d: (d / "VOCdevkit/VOC2007" / MASK).unlink(), r"000010\.png: no such image"),
    (lambda d: (d / "VOCdevkit/VOC2007" / LIST).unlink(), r"test\.txt: cannot be read .* restore VOC's ImageSets"),
    (lambda d: spoil(d, LIST, b"\n"), r"test\.txt: names no images"),
    (lambda d: spoil(d, LIST, b"../000009\n"), r"test\.txt: names image '\.\./000009', expected a plain name"),
    (lambda d: spoil(d, LIST, b"000010\n000010\n"), r"test\.txt: 000010 is there more than once, expected once"),
    (lambda d: spoil(d, LIST, b"000010\n000001\n"), r"test\.txt: 000001 is in train\.txt too, expected once"),
    (lambda d: spoil(d, MASK, b"PNG"), r"000010\.png: cannot be read as an image"),
    (lambda d: spoil(d, MASK, Image.new("RGB", (WIDTH, HEIGHT))), "its mode is RGB, expected a palette"),
    (lambda d: spoil(d, MASK, Image.new("L", (WIDTH, HEIGHT), 3)), "has a px of class 3, expected at most 2, or 255"),
    (lambda d: spoil(d, MASK, Image.new("L", (WIDTH, 9), 1)), "has 9 x 96 px, expected 72 x 96 as its image"),
]


def run_stage(root: Path, data_dir: Path, encoder: Path, **changes: object) -> None:
    root.mkdir(exist_ok=True)
    few = {"data_dir": data_dir, "encoder": encoder, "steps": 2, "batch_size": 2, "resize": SIDE} | changes
    sets = [f"evaluate.segmentation.{k}={v}" for k, v in few.items()]
    params = ["--params", str(WITH_SEGMENTATION), "--root", str(root)]
    STAGE.run(main, ["--benchmark", "segmentation", *params, *(word for each in sets for word in ("--set", each))])


@pytest.mark.parametrize(("damage", "message"), SPOILED, ids=[message for _, message in SPOILED])
def test_damaged_masks_and_lists_are_refused_by_name(damage, message, tmp_path, whole, encoders):
    damage(shutil.copytree(whole, tmp_path / "data_dir"))
    with pytest.raises(SystemExit, match=message) as refused:
        run_stage(tmp_path / "root", tmp_path / "data_dir", encoders)
    assert "\n" not in str(refused.value)


def test_the_stage_writes_scores_and_a_row_a_class(tmp_path, whole, encoders, capsys):
    run_stage(tmp_path / "root", whole, encoders)
    assert json.loads((tmp_path / "root/metrics/segmentation.json").read_text())["steps"] == 2
    with (tmp_path / "root/metrics/segmentation_classes.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["class"] for row in rows] == ["background", *CLASSES]
    assert "VOC2007 segmentation, mean IoU of the split test after 2 steps: head " in capsys.readouterr().out


# The rendered masks


def test_a_mask_has_the_kinds_of_its_image_where_their_boxes_are():
    for number in range(6):
        kinds = (KINDS[number], KINDS[number + 3])
        image, objects, mask = render_image(4, "voc", number, image_size=128, kinds=kinds)
        assert mask.shape == image.shape[:2] and mask.dtype == np.uint8
        assert {*np.unique(mask).tolist()} <= {0, 255, *(MASK_CLASSES[kind] for kind in kinds)}
        for each in objects:
            left, top, right, bottom = each.box
            box = np.zeros(mask.shape, bool)
            box[top:bottom, left:right] = True
            inside = (mask == MASK_CLASSES[each.kind]) & box
            assert inside.any() or each.difficult
            assert (mask == MASK_CLASSES[each.kind]).sum() <= 1.02 * inside.sum() + 20  # an outline is a px wide


def test_rendered_masks_are_read_as_masks_and_their_classes_are_those_of_the_lists(tmp_path):
    render_voc(tmp_path, 0, range(1, 5), image_size=64)
    year = tmp_path / "VOCdevkit/VOC2007"
    for number in range(1, 5):
        mask = read_mask(year / f"SegmentationClass/{number:06d}.png", len(KINDS) + 1)
        assert mask.shape == np.asarray(Image.open(year / f"JPEGImages/{number:06d}.jpg")).shape[:2]
    assert list(MASK_CLASSES) == sorted(KINDS) and [*MASK_CLASSES.values()] == list(range(1, 11))
    write_image_sets(tmp_path, train=2, val=1, test=1)
    assert (year / "ImageSets/Segmentation/trainval.txt").read_text() == "000001\n000002\n000003\n"


def test_the_palette_is_that_of_voc():
    # VOC's development kit: aeroplane, bicycle, bird, and the void.
    assert PALETTE[[0, 1, 2, 3, 15, 255]].tolist() == [
        [0, 0, 0],
        [128, 0, 0],
        [0, 128, 0],
        [128, 128, 0],
        [192, 128, 128],
        [224, 224, 192],
    ]
