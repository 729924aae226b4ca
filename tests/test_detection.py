"""Detection: average precision of boxes worked by hand, what is read and refused, and a detector that learns."""

import atexit
import csv
import json
import math
import shutil
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import scipy.io
import torch
from conftest import PARAMS, REPOSITORY
from PIL import Image

from earshot.benchmarks import detection
from earshot.benchmarks.detection import Detection, evaluate, image_indices, read_images
from earshot.commands.recipe import apply_recipes
from earshot.core.errors import EarshotError
from earshot.core.params import load_params
from earshot.evaluation.benchmark import Context
from earshot.evaluation.image_files import read_image
from earshot.evaluation.images.fast_rcnn import (
    FastRcnn,
    detect,
    draw_rois,
    moved,
    offsets_between,
    scaled,
    select,
)
from earshot.evaluation.images.proposals import clean_boxes, from_files, search_proposals, selective_search
from earshot.evaluation.images.voc_annotations import Objects, annotation_of, read_objects
from earshot.evaluation.metrics import Detections, GroundTruth, detection_precision, match_detections, overlap
from earshot.networks.backbones import build_network
from earshot.networks.files import save_architecture, save_weights
from earshot.params.evaluate import params_of as schema_of
from earshot.pipeline.settings import settings
from earshot.training import trainer
from earshot.training.batch_norm import estimate_batch_norm
from earshot.world.scenes import VisibleObject
from earshot.world.sources import KINDS
from earshot.world.voc import annotation, render_voc
from stages.evaluate import STAGE, main

# The parameters as committed, with the benchmark that the default run leaves out.
_FOLDER = tempfile.TemporaryDirectory(prefix="earshot-detection-")
atexit.register(_FOLDER.cleanup)
WITH_DETECTION = Path(_FOLDER.name) / "params.yaml"
apply_recipes([REPOSITORY / "recipes" / "benchmark-detection.yaml"], PARAMS.read_text(), WITH_DETECTION)
CLASSES = ("cow", "dog")
COLORS = {"cow": (220, 40, 40), "dog": (40, 60, 220)}
WIDTH, HEIGHT, SIDE = 96, 72, 64
SIZES = {"train": 6, "val": 4, "test": 5}
YEAR, MAIN = "VOCdevkit/VOC2007", "ImageSets/Main"


@pytest.fixture(autouse=True)
def _one_process(monkeypatch):
    """Work this small loses by threads and processes."""
    monkeypatch.setenv("EARSHOT_THREADS", "1")
    monkeypatch.setenv("EARSHOT_WORKERS", "1")
    settings.cache_clear()
    yield
    settings.cache_clear()


def write_scene(year: Path, number: int) -> list[VisibleObject]:
    """A gray image with a red cow and a blue dog, plain rectangles, at places drawn by the number."""
    rng, objects = np.random.default_rng(number), []
    image = rng.integers(110, 140, (HEIGHT, WIDTH, 3))
    for place, kind in enumerate(CLASSES):
        wide, high = rng.integers(20, 36, 2)
        left, top = 4 + 46 * place + rng.integers(0, 8), rng.integers(2, 30)
        box = tuple(int(edge) for edge in (left, top, left + wide, top + high))
        image[box[1] : box[3], box[0] : box[2]] = COLORS[kind]
        objects.append(VisibleObject(kind, box, truncated=False, difficult=number % 5 == 4 and kind == "dog"))
    file = year / "JPEGImages" / f"{number:06d}.jpg"
    for folder in (file.parent, annotation_of(file).parent):
        folder.mkdir(parents=True, exist_ok=True)
    Image.fromarray(image.astype(np.uint8)).save(file, quality=95)
    annotation_of(file).write_text(annotation(number, image, objects))
    return objects


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Path:
    """VOC2007 in small."""
    data_dir, number = tmp_path_factory.mktemp("voc"), 0
    year = data_dir / YEAR
    (year / MAIN).mkdir(parents=True)
    for split, size in SIZES.items():
        names = {f"{number + place:06d}": write_scene(year, number + place) for place in range(1, size + 1)}
        (year / MAIN / f"{split}.txt").write_text("".join(f"{name}\n" for name in names))
        for kind in CLASSES:
            lines = [f"{n} {0 if objects[CLASSES.index(kind)].difficult else 1:2d}\n" for n, objects in names.items()]
            (year / MAIN / f"{kind}_{split}.txt").write_text("".join(lines))
        number += size
    return data_dir


@pytest.fixture
def data_dir(tmp_path, whole) -> Path:
    """A copy of the tree that a test may spoil."""
    return shutil.copytree(whole, tmp_path / "data_dir")


def write_encoders(folder: Path, **names: int) -> Path:
    """A folder of encoders with random weights from these seeds."""
    folder.mkdir(exist_ok=True)
    for name, seed in names.items():
        torch.manual_seed(seed)
        network = build_network("alexnet", classes=5, width=0.1, image_size=SIDE, dropout=0.2)
        save_weights(folder, name, network)
    save_architecture(folder, network)
    return folder


@pytest.fixture(scope="module")
def encoders(tmp_path_factory) -> Path:
    """encoder and wrong_sound are alike, random is another network."""
    return write_encoders(tmp_path_factory.mktemp("encoders"), encoder=0, wrong_sound=0, random=1)


def params_of(**changes: object):
    few = {"steps": 4, "rois_per_step": 16, "proposals_kept": 60, "shorter_side": 72, "longer_side": 96}
    few |= {"train_scales": "[64, 72]", "train_longer_side": 96} | changes
    overrides = [f"evaluate.detection.{k}={v}" for k, v in few.items()]
    return load_params(schema_of("detection"), WITH_DETECTION, overrides)


@pytest.fixture
def make_context(whole, encoders, tmp_path):
    """A context of few steps; parameters by keyword."""

    def context(scratch: str = "scratch", data_dir: Path = whole, **changes: object) -> Context:
        (tmp_path / scratch).mkdir(exist_ok=True)
        params = params_of(**changes).evaluate.detection
        return Context(data_dir, encoders, params, 0, tmp_path / scratch)

    return context


def boxes_of(*rows: tuple[float, ...]) -> np.ndarray:
    return np.array(rows, np.float64).reshape(-1, 4)


def annotated_at(*rows: tuple[float, ...], difficult: tuple[bool, ...] | None = None) -> GroundTruth:
    return GroundTruth(boxes_of(*rows), np.array(difficult or (False,) * len(rows), bool))


HERE, THERE = (0, 0, 10, 10), (50, 50, 60, 60)  # two objects of 10 x 10 px
NEARLY = (0, 0, 10, 8)  # overlaps HERE by .8
HALF = (0, 0, 10, 5)  # by exactly .5
LESS = (0, 0, 10, 4)  # by .4


def test_overlap_counts_whole_pixels_as_voc_does():
    # The pixels 1 to 10 of both directions, and 6 to 15: 5 x 5 pixels shared of 100 + 100 - 25.
    first, second = boxes_of((0, 0, 10, 10)), boxes_of((5, 5, 15, 15), (0, 0, 10, 10), (10, 0, 20, 10))
    np.testing.assert_allclose(overlap(first, second), [[25 / 175, 1, 0]])
    assert overlap(first, boxes_of()).shape == (1, 0)


@pytest.mark.parametrize(
    ("boxes", "scores", "objects", "expected"),
    [
        ([HERE, THERE], [0.9, 0.8], annotated_at(HERE, THERE), [1, 1]),
        ([LESS, HALF], [0.9, 0.8], annotated_at(HERE), [-1, 1]),  # half is enough
        ([NEARLY, HERE], [0.9, 0.8], annotated_at(HERE), [1, -1]),  # of two the better score, not the better box
        ([NEARLY, HERE], [0.8, 0.9], annotated_at(HERE), [-1, 1]),
        ([HERE, HERE, HERE], [0.5, 0.5, 0.5], annotated_at(HERE), [1, -1, -1]),  # a tie has one winner
        ([HERE, HERE, THERE], [0.9, 0.8, 0.7], annotated_at(HERE, THERE, difficult=(True, False)), [0, 0, 1]),
        # A detection is compared only with the nearest object: the first belongs to the difficult one, which is nearer.
        ([(0, 0, 10, 9)], [0.9], annotated_at((0, 0, 10, 6), HERE, difficult=(False, True)), [0]),
        # Both are nearest to HERE: the second is wrong, although it overlaps the other object by half too.
        ([HERE, (0, 0, 10, 9)], [0.9, 0.8], annotated_at(HERE, (0, 0, 10, 5)), [1, -1]),
        ([THERE], [0.9], annotated_at(), [-1]),
        ([], [], annotated_at(HERE), []),
    ],
)
def test_detections_of_an_image_are_matched_as_worked_by_hand(boxes, scores, objects, expected):
    assert match_detections(Detections(boxes_of(*boxes), np.array(scores, float)), objects).tolist() == expected


def test_precision_of_detections_over_images_worked_by_hand():
    truths = [annotated_at(HERE, THERE), annotated_at(HERE), annotated_at(HERE, difficult=(True,)), annotated_at()]
    actual = [
        Detections(boxes_of(HERE, HERE), np.array([0.9, 0.6])),  # right, a second time; THERE is never found
        Detections(boxes_of(NEARLY), np.array([0.7])),  # right
        Detections(boxes_of(HERE), np.array([0.8])),  # difficult: does not count
        Detections(boxes_of(HERE), np.array([0.95])),  # nothing is there
    ]
    # In order: wrong, right, right, wrong; of 3 objects. Precision 1/2 at recall 1/3, 2/3 at 2/3, recall 1 never.
    assert detection_precision(actual, truths) == pytest.approx(7 / 11 * 2 / 3)
    assert detection_precision(actual[1:2], truths[1:2]) == 1
    # Equal scores enter together, whatever the order of images: 2 of 4 that count.
    level = [Detections(each.boxes, np.zeros(len(each.scores))) for each in actual]
    for order in ([0, 1, 2, 3], [3, 0, 2, 1]):
        mixed = detection_precision([level[n] for n in order], [truths[n] for n in order])
        assert mixed == pytest.approx(7 / 11 * 2 / 4)


def test_area_counts_every_recall_where_eleven_points_skip_some():
    """Worked out by the two rules of py-faster-rcnn's voc_eval.py."""
    truths = [annotated_at(HERE, THERE)]
    actual = [Detections(boxes_of((30, 0, 40, 10), HERE, (70, 0, 80, 10), THERE), np.array([0.9, 0.8, 0.7, 0.6]))]
    # Precision 0, 1/2, 1/3, 1/2 at recall 0, 1/2, 1/2, 1; the highest from there on is 1/2 throughout.
    assert detection_precision(actual, truths, "area") == pytest.approx(1 / 2)
    first = [Detections(actual[0].boxes[1:2], np.array([0.8]))]
    assert detection_precision(first, truths) == pytest.approx(6 / 11)  # the levels 0 to .5
    assert detection_precision(first, truths, "area") == pytest.approx(1 / 2)


def of_release(images: list[Detections]) -> list[list[int]]:
    """What rbgirshick/fast-rcnn, lib/fast_rcnn/test.py, keeps of a class before suppression: rows of each image.

    Image by image, with a threshold that follows a heap of the best 40 x images scores, and a last pass.
    """
    heap, threshold, kept = [], -np.inf, []
    for image in images:
        rows = [row for row in np.argsort(-image.scores, kind="stable") if image.scores[row] > threshold][:100]
        heap = sorted([*heap, *image.scores[rows]], reverse=True)
        if len(heap) > 40 * len(images):
            heap = heap[: 40 * len(images)]
            threshold = heap[-1]
        kept.append(rows)
    return [[row for row in rows if image.scores[row] > threshold] for rows, image in zip(kept, images, strict=True)]


@pytest.mark.parametrize("sizes", [(100, 7, 60), (100, 100, 100), (30, 20, 40), (40, 40, 40)])
def test_detections_are_selected_as_in_the_release(sizes):
    rng = np.random.default_rng(sum(sizes))
    images = []
    for size in sizes:  # boxes far apart, so that none suppresses another
        lefts = 20.0 * np.arange(size)
        boxes = np.column_stack([lefts, np.zeros(size), lefts + 10, np.full(size, 10.0)])
        images.append(Detections(boxes, -np.sort(-rng.random(size).round(2))))
    for actual, image, expected in zip(select(images), images, of_release(images), strict=True):
        assert sorted(actual.boxes[:, 0]) == sorted(image.boxes[expected, 0])
    most = 40 * len(sizes)
    assert sum(len(each.scores) for each in select(images)) <= max(most, 0)


def test_a_box_that_overlaps_a_better_one_by_more_than_three_tenths_goes():
    boxes = boxes_of(HERE, NEARLY, (0, 0, 10, 3), THERE)  # overlaps with HERE: .8 and exactly .3
    (kept,) = select([Detections(boxes, np.array([0.9, 0.8, 0.7, 1e-9]))])
    assert kept.scores.tolist() == [0.9, 0.7, 1e-9]  # no score is too small


def test_a_class_has_the_hundred_best_rois_of_an_image():
    class LinearScores(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = torch.nn.Parameter(torch.zeros(1))

        def forward(self, images, rois):
            scores = torch.stack([torch.zeros(150), torch.arange(150) / 50, -torch.arange(150) / 50], dim=1)
            return scores, torch.zeros(150, 2, 4)

    lefts = torch.arange(150.0)
    proposals = torch.stack([lefts, lefts * 0, lefts + 10, lefts * 0 + 10], dim=1)
    objects = Objects(200, 100, boxes_of(), np.empty(0, int), np.empty(0, bool), np.empty(0, bool))
    candidates = detect(LinearScores(), torch.zeros(3, 100, 200, dtype=torch.uint8), proposals, objects)
    assert candidates["boxes"][0, :, 0].tolist() == list(range(149, 49, -1))
    assert candidates["boxes"][1, :, 0].tolist() == list(range(100))
    assert (np.diff(candidates["scores"], axis=1) <= 0).all()


def test_training_images_have_every_scale_and_a_test_image_one(make_context):
    work = detection.prepare(make_context(train_scales="[64, 72]", train_longer_side=200, steps=12))
    detector = FastRcnn(detection.load_convolutional(work.context.encoder, "encoder"), 2, 0)
    task = detection.DetectionTask(detector, work)
    sides = {min(image.shape[1:]) for images, *_ in task.batches(range(12)) for image in images}
    assert sides == {64, 72}


def test_a_class_without_detections_scores_nothing_and_one_without_objects_is_refused():
    empty = Detections(boxes_of(), np.empty(0))
    assert detection_precision([empty], [annotated_at(HERE)]) == 0
    with pytest.raises(ValueError, match="no image is positive"):
        detection_precision([empty], [annotated_at(HERE, difficult=(True,))])


def test_an_annotation_gives_boxes_as_edges_with_flags(tmp_path):
    objects = [VisibleObject("cow", (0, 2, 96, 72), True, False), VisibleObject("cat", (1, 1, 9, 9), False, False)]
    objects.append(VisibleObject("dog", (5, 6, 6, 7), False, True))
    (tmp_path / "1.xml").write_text(annotation(1, np.zeros((HEIGHT, WIDTH, 3), np.uint8), objects))
    read = read_objects(tmp_path / "1.xml", CLASSES)
    assert (read.width, read.height) == (WIDTH, HEIGHT)
    assert read.boxes.tolist() == [[0, 2, 96, 72], [5, 6, 6, 7]]  # the cat is of no class of the lists
    assert (read.classes.tolist(), read.difficult.tolist(), read.truncated.tolist()) == (
        [0, 1], [False, True], [True, False],
    )  # fmt: skip


LAUGHS = '<!DOCTYPE a [<!ENTITY b "ha"><!ENTITY c "&b;&b;">]>'
ODD_ANNOTATIONS = [
    (lambda text: LAUGHS + text, "declares a document type"),
    (lambda text: text[:-20], "is not XML"),
    (lambda text: "", "is not XML"),
    (lambda text: text + " " * (1 << 20), "expected at most 1,048,576 bytes"),
    (lambda text: text.replace("<xmax>96<", "<xmax>97<"), r"bndbox/xmax is '97', expected a number from 1 to 96"),
    (lambda text: text.replace("<xmin>1<", "<xmin>0<"), r"bndbox/xmin is '0'"),
    (lambda text: text.replace("<xmin>1<", "<xmin>nan<"), r"bndbox/xmin is 'nan'"),
    (lambda text: text.replace("<ymin>3<", "<ymin>72<").replace(">72</ymax", ">70</ymax"), "a box goes from 1, 72 to"),
    (lambda text: text.replace("<width>96<", "<width>1e9<"), "size/width is '1e9'"),
    (lambda text: text.replace("<difficult>0</difficult>", ""), "lacks difficult"),
    (lambda text: text.replace("<truncated>1<", "<truncated>maybe<"), "truncated is 'maybe', expected 0 or 1"),
    (lambda text: text.replace("<name>cow</name>", ""), "lacks name"),
]


@pytest.mark.parametrize(("change", "message"), ODD_ANNOTATIONS, ids=[message for _, message in ODD_ANNOTATIONS])
def test_an_odd_annotation_is_refused_by_name(change, message, tmp_path):
    image = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    text = annotation(1, image, [VisibleObject("cow", (0, 2, 96, 72), True, False)])
    assert change(text) != text
    (tmp_path / "1.xml").write_text(change(text))
    with pytest.raises(EarshotError, match=rf"1\.xml: .*{message}"):
        read_objects(tmp_path / "1.xml", CLASSES)


def test_an_annotation_in_another_encoding_cannot_hide_a_document_type(tmp_path):
    (tmp_path / "1.xml").write_bytes(f'<?xml version="1.0" encoding="utf-16"?>{LAUGHS}<a>&c;</a>'.encode("utf-16"))
    with pytest.raises(EarshotError, match=r"1\.xml: cannot be read"):
        read_objects(tmp_path / "1.xml", CLASSES)


def test_the_real_annotations_are_read(real_data):
    folder = real_data / "voc2007" / "VOCdevkit" / "VOC2007" / "Annotations"
    objects = [read_objects(file, ("person", "car")) for file in sorted(folder.glob("*.xml"))]
    assert len(objects) == 600
    assert sum(len(each.boxes) for each in objects) > 500
    assert any(each.difficult.any() for each in objects)


def test_boxes_are_clipped_and_neither_repeated_nor_empty():
    rows = boxes_of((5, 5, 20, 30), (-4, -4, 10, 10), (5, 5, 20, 30), (200, 5, 210, 9), (0, 0, 10, 10), (3, 3, 3.5, 9))
    assert clean_boxes(rows, 96, 25).tolist() == [[5, 5, 20, 25], [0, 0, 10, 10]]


def test_selective_search_finds_the_same_in_the_same_order_and_the_objects_of_an_image(whole):
    file = whole / YEAR / "JPEGImages/000001.jpg"
    image = np.asarray(Image.open(file))[..., ::-1].copy()
    boxes = selective_search(image)
    np.testing.assert_array_equal(boxes, selective_search(image))
    objects = read_objects(annotation_of(file), CLASSES)
    assert (overlap(objects.boxes, boxes).max(1) > 0.8).all()
    assert (boxes == clean_boxes(boxes, WIDTH, HEIGHT)).all()


def test_a_large_image_is_searched_smaller_and_its_boxes_fit_it(monkeypatch):
    monkeypatch.setattr("earshot.evaluation.images.proposals.LONGEST_SEARCHED", 60)
    image = np.full((140, 180, 3), 90, np.uint8)
    image[40:100, 60:140] = (40, 200, 40)
    boxes = selective_search(image)
    assert overlap(boxes_of((60, 40, 140, 100), (0, 0, 180, 140)), boxes).max(1).min() > 0.9


def write_released(data_dir: Path, part: str, names: list[str], actual: list[np.ndarray], **changes: object) -> Path:
    """A file in the layout of Fast R-CNN's release."""
    cells = {"images": np.empty((len(names), 1), object), "boxes": np.empty((1, len(names)), object)}
    for place, (name, rows) in enumerate(zip(names, actual, strict=True)):
        cells["images"][place, 0], cells["boxes"][0, place] = name, rows
    file = data_dir / "selective_search_data" / f"voc_2007_{part}.mat"
    file.parent.mkdir(exist_ok=True)
    scipy.io.savemat(file, {name: value for name, value in (cells | changes).items() if value is not None})
    return file


def test_released_proposals_are_read_by_name_in_their_order(tmp_path):
    rows = np.array([[1, 1, 72, 96], [3, 5, 10, 20], [3, 5, 10, 20], [70, 90, 80, 200]], np.uint16)
    for part in ("trainval", "test"):
        write_released(tmp_path, part, ["000007", "000003"], [rows[:1], rows])
    parts = {part: [Path("JPEGImages/000003.jpg")] for part in ("trainval", "test")}
    (tmp_path / "scratch").mkdir()
    proposals = from_files(tmp_path, parts, 2000, tmp_path / "scratch")
    assert proposals.of("000003", WIDTH, HEIGHT).tolist() == [[0, 0, 96, 72], [4, 2, 20, 10], [89, 69, 96, 72]]
    assert len(replace(proposals, kept=1).of("000003", WIDTH, HEIGHT)) == 1


ODD_FILES = [
    (lambda data_dir: None, r"voc_2007_trainval\.mat: cannot be read"),
    (
        lambda data_dir: write_released(data_dir, "trainval", [], []).write_bytes(b"MATLAB 7.3 MAT-file" * 20),
        "cannot be read",
    ),
    (lambda data_dir: write_released(data_dir, "trainval", ["1"], [np.ones((2, 4))], images=None), "holds 0 images"),
    (
        lambda data_dir: write_released(data_dir, "trainval", ["1"], [np.ones((2, 4))], boxes=np.ones((1, 4))),
        "holds 1 images",
    ),
    (lambda data_dir: write_released(data_dir, "trainval", ["1"], [np.ones((2, 5))]), r"boxes 1 are float64 \(2, 5\)"),
    (lambda data_dir: write_released(data_dir, "trainval", ["1"], [np.full((2, 4), np.nan)]), "boxes 1 are"),
    (lambda data_dir: write_released(data_dir, "trainval", ["2"], [np.ones((2, 4))]), "has no proposals for image 1"),
]


@pytest.mark.parametrize(("damage", "message"), ODD_FILES, ids=[message for _, message in ODD_FILES])
def test_proposals_of_another_layout_are_refused_by_name(damage, message, tmp_path):
    damage(tmp_path)
    with pytest.raises(EarshotError, match=message):
        from_files(tmp_path, {"trainval": [Path("1.jpg")]}, 2000, tmp_path)


def test_offsets_bring_a_box_to_its_object_and_back():
    rois = torch.tensor([[0.0, 0, 10, 20], [5, 5, 25, 15]])
    targets = torch.tensor([[2.0, 4, 12, 30], [5, 5, 25, 15]])
    offsets = offsets_between(rois, targets)
    torch.testing.assert_close(moved(rois, offsets), targets)
    assert offsets[1].tolist() == [0, 0, 0, 0]
    # The middle goes from (5, 10) to (7, 17), the size from 10 x 20 to 10 x 26; scaled by .1 .1 .2 .2.
    torch.testing.assert_close(offsets[0], torch.tensor([2.0, 3.5, 0, math.log(1.3) / 0.2]))
    assert torch.isfinite(moved(rois, torch.full((2, 4), 1e4))).all()


def test_rois_are_a_quarter_objects_and_background_near_them():
    objects = Objects(100, 100, boxes_of(HERE, THERE), np.array([0, 1]), np.zeros(2, bool), np.zeros(2, bool))
    near, far = [(0, 0, 10, 2 + n / 40) for n in range(80)], [(80, 0, 90, 10)] * 20
    candidates = boxes_of(*[HERE] * 30, *[THERE] * 30, *near, *far)
    rows, classes, nearest = draw_rois(candidates, objects, 64, np.random.default_rng(0))
    most = overlap(candidates, objects.boxes).max(1)[rows]
    assert len(rows) == len(set(rows)) == 64
    assert (classes > 0).sum() == 16
    assert ((most >= 0.5) == (classes > 0)).all()
    assert (most >= 0.1).all()
    assert set(classes[:16]) == {1, 2}
    assert (nearest[classes == 2] == 1).all()


def test_every_image_is_used_before_one_is_repeated(make_context):
    context = make_context(images_per_step=3)
    order = [place for step in range(8) for place in image_indices(context, 4, step)]
    assert all(sorted(order[start : start + 4]) == [0, 1, 2, 3] for start in range(0, 24, 4))
    assert order != image_indices(replace(context, seed=1), 4, 0) + order[3:]


def test_an_image_is_scaled_to_its_shorter_side_unless_it_becomes_too_long():
    image = torch.zeros(3, 100, 200, dtype=torch.uint8)
    assert scaled(image, 50, 200).shape == (3, 50, 100)
    assert scaled(image, 150, 200).shape == (3, 100, 200)
    assert scaled(image, 150, 400).dtype == torch.uint8


@pytest.mark.parametrize("name", ["alexnet", "resnet18"])
def test_a_region_reads_the_maps_it_touches_and_no_other(name):
    torch.manual_seed(0)
    width = 0.1 if name == "alexnet" else 1.0
    detector = FastRcnn(build_network(name, classes=3, width=width, image_size=SIDE, dropout=0), 2, seed=0).eval()
    side, network = detector.network.pooled_side, detector.network
    maps = torch.rand(1, 4, 8, 8)
    network.convolve = lambda _: maps  # only the pooling is tested
    image = torch.zeros(3, 64, 64, dtype=torch.uint8)
    whole = torch.tensor([[0.0, 0, 1, 1]])
    torch.testing.assert_close(detector._pool(image, whole), torch.nn.functional.adaptive_max_pool2d(maps, side))
    part = torch.tensor([[0.25, 0.5, 0.5, 0.75]])  # positions 2 and 3 across, 4 and 5 down
    assert detector._pool(image, part).amax((2, 3)).equal(maps[:, :, 4:6, 2:4].amax((2, 3)))
    flipped, mirrored = maps.flip(-1), whole.new_tensor([[0.5, 0.5, 0.75, 0.75]])
    network.convolve = lambda _: flipped
    assert detector._pool(image, mirrored).amax((2, 3)).equal(maps[:, :, 4:6, 2:4].amax((2, 3)))


def test_all_but_batch_norm_and_the_old_output_layer_trains(make_context):
    context = make_context(learning_rate=0.05)
    work = detection.prepare(context)
    before = FastRcnn(detection.load_convolutional(context.encoder, "encoder"), 2, context.seed)
    after = detection.trained_detector(work, "encoder")
    frozen = {f"network.{name}" for name, module in before.network.named_modules() if module in before.batch_norms()}
    frozen.add(f"network.{before.network.fully_connected_names[-1]}")
    for name, values in after.state_dict().items():
        kept = name.rpartition(".")[0] in frozen or "channel_" in name
        assert values.equal(before.state_dict()[name]) == kept, name


def test_controls_are_measured_alike_and_a_killed_evaluation_goes_on(make_context, monkeypatch):
    result = evaluate(make_context("whole"))
    metrics = result.metrics
    scores = {f"{p}map{rule}" for p in ("", "wrong_sound_", "random_", "proposals_") for rule in ("", "_area")}
    assert set(metrics) == scores | {"proposals_recall", "steps"}
    assert metrics["map"] == metrics["wrong_sound_map"]
    assert 0 < metrics["proposals_map_area"] < metrics["proposals_map"] < 0.2
    assert metrics["proposals_recall"] > 0.9
    assert [(row["class"], row["objects"]) for row in result.classes] == [("cow", 5), ("dog", 4)]
    assert np.mean([row["ap"] for row in result.classes]) == pytest.approx(metrics["map"])

    step, steps = trainer.Trainer._step, []

    def dies(self, batch):
        if len(steps) == 6:
            self._save()
            raise KeyboardInterrupt
        steps.append(self.progress.step)
        return step(self, batch)

    monkeypatch.setattr(trainer.Trainer, "_step", dies)
    with pytest.raises(KeyboardInterrupt):
        evaluate(make_context("killed"))

    def goes_on(self, batch):
        steps.append(self.progress.step)
        return step(self, batch)

    monkeypatch.setattr(trainer.Trainer, "_step", goes_on)
    monkeypatch.setattr("earshot.evaluation.images.proposals.selective_search", None)  # all is searched
    assert evaluate(make_context("killed")) == result
    assert steps == [0, 1, 2, 3] * 3


@pytest.mark.slow
def test_scores_do_not_depend_on_the_number_of_workers(make_context, monkeypatch):
    alone = evaluate(make_context("alone"))
    monkeypatch.setenv("EARSHOT_WORKERS", "2")
    monkeypatch.setenv("EARSHOT_THREADS", "2")
    settings.cache_clear()
    assert evaluate(make_context("together")) == alone


def overfit(files: list[Path], classes: list[str], folder: Path, width: float, **changes: object) -> float:
    """The mAP on the very images on which a detector was trained."""
    torch.manual_seed(0)
    network = build_network("alexnet", classes=5, width=width, image_size=SIDE, dropout=0)
    estimate_batch_norm(network, [(torch.stack([read_image(file, SIDE, SIDE) for file in files]),)])
    save_architecture(folder, network)
    save_weights(folder, "encoder", network)
    # Enlarged, since regions that touch the same positions of conv5 cannot be separated.
    large = {
        "images_per_step": 4,
        "rois_per_step": 256,
        "proposals_kept": 300,
        "longer_side": 512,
        "train_longer_side": 512,
        "learning_rate": 0.01,
        "lr_steps": 1,
    }
    params = params_of(**large | changes).evaluate.detection
    context = Context(folder, folder, params, 0, folder)
    images = read_images(files, classes)
    proposals = search_proposals(files, 300, folder)
    work = Detection(context, classes, images, images, proposals, ["encoder"])
    detection.trained_detector(work, "encoder")
    detection.detect_shard(0, work)
    precisions, _ = detection.score({"": detection.read_detections(work, "encoder")}, work)
    return float(np.mean(precisions["map"]))


@pytest.mark.slow
def test_a_detector_overfits_four_images(whole, tmp_path):
    files = sorted((whole / YEAR / "JPEGImages").glob("*.jpg"))[:4]
    assert overfit(files, list(CLASSES), tmp_path, 0.1, steps=120, shorter_side=160, train_scales="[160]") > 0.9


@pytest.mark.slow
def test_a_detector_overfits_eight_rendered_images(tmp_path):
    render_voc(tmp_path, 0, range(1, 9), image_size=128)
    files = sorted((tmp_path / YEAR / "JPEGImages").glob("*.jpg"))
    there = {kind for file in files for kind in KINDS if len(read_objects(annotation_of(file), [kind]).boxes)}
    assert overfit(files, sorted(there), tmp_path, 0.25, steps=200, shorter_side=256, train_scales="[256]") > 0.9


@pytest.mark.slow
def test_twenty_steps_on_real_photographs(real_data, encoders, tmp_path):
    sizes = {"shorter_side": 128, "longer_side": 256, "train_scales": "[128]", "train_longer_side": 256}
    params = params_of(steps=20, proposals_kept=200, rois=64, **sizes).evaluate.detection
    result = evaluate(Context(real_data / "voc2007", encoders, params, 0, tmp_path))
    assert len(result.classes) == 20
    assert result.metrics["proposals_recall"] > 0.6
    assert result.metrics["map"] == result.metrics["wrong_sound_map"]


def run_stage(root: Path, data_dir: Path, encoder: Path, **changes: object) -> None:
    root.mkdir(exist_ok=True)
    sets = [f"evaluate.detection.{k}={v}" for k, v in ({"data_dir": data_dir, "encoder": encoder} | changes).items()]
    params = ["--params", str(WITH_DETECTION), "--root", str(root)]
    STAGE.run(main, ["--benchmark", "detection", *params, *(word for each in sets for word in ("--set", each))])


def test_the_stage_writes_scores_and_a_row_a_class(tmp_path, whole, encoders, capsys):
    few = {"steps": 2, "rois_per_step": 8, "proposals_kept": 20, "shorter_side": 72, "train_scales": "[72]"}
    run_stage(tmp_path / "root", whole, encoders, **few)
    metrics = json.loads((tmp_path / "root/metrics/detection.json").read_text())
    assert metrics["steps"] == 2
    with (tmp_path / "root/metrics/detection_classes.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert set(rows[0]) == {"class", "objects"} | {
        f"{prefix}ap{rule}" for prefix in ("", "wrong_sound_", "random_", "proposals_") for rule in ("", "_area")
    }
    assert "VOC2007 Fast R-CNN, 11-point mAP and area after 2 steps: map " in capsys.readouterr().out


SPOILED = [
    (lambda data_dir: shutil.rmtree(data_dir / YEAR / "ImageSets"), {}, "holds no VOC2007"),
    (lambda data_dir: (data_dir / YEAR / "Annotations/000003.xml").unlink(), {}, r"000003\.xml: cannot be read"),
    (lambda data_dir: (data_dir / YEAR / "JPEGImages/000003.jpg").unlink(), {}, r"000003\.jpg: no such image"),
    (lambda data_dir: None, {"proposals": "files"}, r"voc_2007_trainval\.mat: cannot be read"),
]


@pytest.mark.parametrize(("damage", "changes", "message"), SPOILED, ids=[message for *_, message in SPOILED])
def test_an_incomplete_data_dir_is_refused_by_name(damage, changes, message, tmp_path, data_dir, encoders):
    damage(data_dir)
    with pytest.raises(SystemExit, match=message) as refused:
        run_stage(tmp_path / "root", data_dir, encoders, **changes)
    assert "\n" not in str(refused.value)
    assert not (tmp_path / "root" / "metrics").exists()


def test_images_of_which_a_network_leaves_nothing_are_refused():
    network = build_network("alexnet", classes=5, width=0.1, image_size=SIDE, dropout=0)
    network.convolutions.append(torch.nn.Conv2d(26, 26, 5))
    detection.check_size(network, 128)
    with pytest.raises(EarshotError, match="shorter_side and train_scales is 64 px, too small"):
        detection.check_size(network, 64)


def test_an_image_that_is_not_as_large_as_annotated_is_refused(make_context, data_dir):
    Image.new("RGB", (WIDTH, HEIGHT + 1)).save(data_dir / YEAR / "JPEGImages/000012.jpg")
    with pytest.raises(EarshotError, match=r"000012\.jpg: has 96 x 73 px, but its annotation has 96 x 72"):
        evaluate(make_context(data_dir=data_dir))
