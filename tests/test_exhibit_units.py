"""Units of a network that responds to colours: which frames are on top, how pure, what is lit, and IoU by hand."""

import io
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from annotated_scenes import RATE, TEST_GROUPS, flac
from PIL import Image
from torch import nn

from earshot.core.errors import EarshotError
from earshot.evaluation.images.voc_annotations import Objects
from earshot.exhibits import units
from earshot.exhibits.units import make
from earshot.explanation.exhibit import ExhibitContext
from earshot.explanation.galleries import DIMMED, SQUARE, lit
from earshot.explanation.network_dissection import RASTER, draw_boxes
from earshot.explanation.receptive_fields import Fields
from earshot.explanation.selectivity import purity
from earshot.explanation.tables import SKIPPED, read_table
from earshot.networks.correspondence import build_correspondence
from earshot.networks.files import save_architecture
from earshot.networks.network import CHANNEL_DEVIATION, CHANNEL_MEAN, Convolutional
from earshot.scenes.annotations import write_annotations
from earshot.scenes.writing import Scene, write_scenes

SIDE, CELL, GRAY = 32, 4, 60
RED, GREEN, DEAD = range(3)  # the units
GROUPS = TEST_GROUPS[:15]
pytestmark = pytest.mark.usefixtures("one_process")


class Colors(Convolutional):
    """A position sees a cell of 4 x 4 px; one unit for red and one for green there, and one that is silent.

    Args:
        seeing: whether units respond at all.
    """

    def __init__(self, seeing: bool = True) -> None:
        super().__init__(SIDE)
        self.architecture = {"name": "colors"}
        self.cells = nn.Conv2d(3, 3, CELL, CELL)
        signs = torch.tensor([[1.0, -1, -1], [-1, 1, -1], [0, 0, 0]]) * seeing
        mean, deviation = torch.tensor(CHANNEL_MEAN), torch.tensor(CHANNEL_DEVIATION)
        with torch.no_grad():
            each = signs * deviation / 255 / CELL**2  # (units, channels)
            self.cells.weight.copy_(each[:, :, None, None].expand(-1, -1, CELL, CELL))
            self.cells.bias.copy_((signs * mean / 255).sum(1) - 0.1)

    def convolve(self, normalized):
        return torch.relu(self.cells(normalized))

    def activations(self, normalized):
        raise NotImplementedError


def image(color=None, level=0, top=8, left=16):
    """Grey, and two by two cells of a colour, 0 for red and 1 for green."""
    pixels = np.full((SIDE, SIDE, 3), GRAY, np.uint8)
    if color is not None:
        pixels[top : top + 8, left : left + 8] = np.eye(3, dtype=np.uint8)[color] * level
    return Image.fromarray(pixels)


def jpeg(*what):
    file = io.BytesIO()
    image(*what).save(file, "JPEG", quality=100, subsampling=0)
    return file.getvalue()


# Two frames of each clip, a clip a source video: the first two are both redder than the frames of the next clip.
DISPLAYED = [[(RED, 250), (RED, 246)], [(RED, 230), ()], [(RED, 200), ()], [(RED, 180), ()], [(), (RED, 160)]]
DISPLAYED += [[(), (GREEN, 250 - 20 * number)] for number in range(5)] + [[(), ()]] * 5
ANNOTATIONS = [["fire"], ["fire", "wind"], ["rain"], ["wind"], ["wind"]]
ANNOTATIONS += [["grass"], ["rain"], ["fire"], ["grass"], ["grass"]] + [["night"], []] + [["night"]] * 3


def write_corpus(root, order=range(15), shards=2):
    """The clips in that order in so many shards."""
    silence = flac(np.zeros(RATE))
    for shard, part in enumerate(np.array_split(np.array(list(order)), shards)):
        scenes = [
            Scene(
                f"{GROUPS[n]}_0", GROUPS[n], 2.0, [jpeg(*each) for each in DISPLAYED[n]], [0.5, 1.5], silence, RATE, 1
            )
            for n in part.tolist()
        ]
        write_scenes(root / f"data/scenes/{shard:05d}.parquet", scenes)
        (root / "data/annotations").mkdir(parents=True, exist_ok=True)
        annotations = {scene.clip_id: ANNOTATIONS[n] for scene, n in zip(scenes, part.tolist(), strict=True)}
        write_annotations(root / f"data/annotations/{shard:05d}.parquet", annotations)


FLAGS = "<truncated>0</truncated><difficult>0</difficult>"
BOX = f"<object><name>{{}}</name>{FLAGS}<bndbox>{{}}</bndbox></object>"


def write_dataset(root, boxes=True):
    """Ten pictures to test: four with red just in a box of fire, one box of fire without, five boxes of night."""
    year = root / "data_dir" / "VOCdevkit" / "VOC2007"
    for folder in ("JPEGImages", "ImageSets/Main", *(["Annotations"] if boxes else [])):
        (year / folder).mkdir(parents=True)
    listed = {"test": list(range(10)), "train": [10, 11], "val": [12, 13]}
    fires = {*range(5), 10, 12}
    for number in range(14):
        image(RED if number < 4 else None, 250).save(year / f"JPEGImages/{number:06d}.jpg", quality=100, subsampling=0)
        name, corners = ("fire", (17, 9, 24, 16)) if number in fires else ("night", (1, 25, 32, 32))
        tags = zip(("xmin", "ymin", "xmax", "ymax"), corners, strict=True)
        entry = BOX.format(name, "".join(f"<{tag}>{value}</{tag}>" for tag, value in tags))
        size = f"<size><width>{SIDE}</width><height>{SIDE}</height><depth>3</depth></size>"
        if boxes:
            (year / f"Annotations/{number:06d}.xml").write_text(f"<annotation>{size}{entry}</annotation>")
    for split, numbers in listed.items():
        (year / f"ImageSets/Main/{split}.txt").write_text("".join(f"{n:06d}\n" for n in numbers))
        for name, shows in (("fire", lambda n: n in fires), ("night", lambda n: n not in fires)):
            lines = "".join(f"{n:06d} {1 if shows(n) else -1:2d}\n" for n in numbers)
            (year / f"ImageSets/Main/{name}_{split}.txt").write_text(lines)


@pytest.fixture
def run_exhibit(tmp_path, monkeypatch):
    """The exhibit of the corpus and the tree; a random network to which everything is nothing."""
    monkeypatch.setattr(units, "load_encoders", lambda folder: {"": Colors(), "random_": Colors(seeing=False)})
    monkeypatch.setattr(units, "why_no_maps", lambda folder: None)

    def run(root=tmp_path, **changed):
        params = {"layer": "conv5", "frames": 1000, "top": 60, "gallery": 3, "selective": 0.6, "iou": 0.04}
        params |= {"rank_by": "maximum", "galleries": "frames", "ascent_steps": 0}
        return make(context(root, SimpleNamespace(**params | {"audible_classes": ()} | changed)))

    return run


def context(root, params):
    data = root / "data"
    rest = dict.fromkeys(("encoder", "clips"), root)
    how = {"params": params, "seed": 0, "window_s": 3.75}
    places = {"scenes": data / "scenes", "annotations": data / "annotations", "data_dir": root / "data_dir"}
    return ExhibitContext(**rest, **how, **places, folder=root / "result", scratch=root / "scratch")


def rows_of(root, name="units", network="encoder"):
    return [row for row in read_table(root / "result", name) if row["network"] == network]


@pytest.fixture
def world(tmp_path):
    write_corpus(tmp_path)
    write_dataset(tmp_path)
    return tmp_path


def clips(*numbers):
    return [f"{GROUPS[number]}_0" for number in numbers]


def test_the_frames_of_a_color_are_on_top_one_a_source_video(run_exhibit, world):
    result = run_exhibit()
    red, green, dead = rows_of(world)
    assert red["clips"] == clips(0, 1, 2) and green["clips"] == clips(5, 6, 7)
    np.testing.assert_allclose(red["activations"], np.array([250, 230, 200]) / 255 - 0.1, atol=0.02)
    assert red["maximum"] == red["activations"][0]
    # Of 15 source videos 3 are judged, of 10 pictures 2.
    assert (result.metrics["groups"], result.metrics["judged"], result.metrics["boxed_judged"]) == (15, 3, 2)
    assert (red["annotation"], red["purity"]) == ("fire", pytest.approx(2 / 3))
    assert (green["annotation"], green["purity"]) == ("fire", pytest.approx(1 / 3))  # grass, rain, fire
    assert (red["selective"], green["selective"]) == (True, False)
    assert (red["boxed"], red["boxed_purity"]) == ("fire", 1)
    assert (green["boxed"], green["boxed_purity"]) == ("", 0)
    assert result.metrics["frames"] == 30 and result.metrics["images"] == 10
    assert result.metrics["most_frequent"] == pytest.approx(4 / 15)  # night
    assert dead["clips"] == []


def test_iou_is_that_of_what_is_picked_out_with_the_boxes_of_all_images(run_exhibit, world):
    result = run_exhibit()
    red, green, _ = rows_of(world)
    # Between the middles of 2 x 2 cells the scaled map is at its height: 4 x 4 px of 32, of a box of 8 x 8, in four of
    # five pictures with a box of fire. That is 14 x 14 of 28 x 28 px of the raster.
    assert RASTER == 112
    assert (red["iou_class"], red["iou"]) == ("fire", pytest.approx(4 * 14 * 14 / (5 * 28 * 28)))
    assert (green["iou_class"], green["iou"]) == ("", 0)
    metrics = result.metrics
    assert (metrics["detectors"], metrics["detector_classes"], metrics["random_detectors"]) == (1, 1, 0)


def test_a_unit_that_never_responds_is_selective_for_nothing_and_has_no_gallery(run_exhibit, world):
    result = run_exhibit(selective=0.01)
    dead = rows_of(world)[DEAD]
    assert (dead["maximum"], dead["annotation"], dead["purity"], dead["iou"]) == (0, "", 0, 0)
    assert not dead["selective"] and not dead["audible"] and dead["gallery"] == b""
    assert result.metrics["silent"] == 1
    assert result.metrics["random_silent"] == 3 and result.metrics["random_selective"] == 0
    assert all(row["gallery"] == b"" and not row["selective"] for row in rows_of(world, network="random"))


def test_counts_sweep_and_classes_are_those_of_the_units(run_exhibit, world):
    metrics = run_exhibit().metrics
    assert (metrics["units"], metrics["selective"], metrics["boxed_selective"]) == (3, 1, 1)
    assert metrics["selective_share"] == pytest.approx(1 / 3)
    swept = {round(row["threshold"], 1): (row["units"], row["boxed_units"]) for row in rows_of(world, "unit_sweep")}
    assert swept == {0.3: (2, 1), 0.4: (1, 1), 0.5: (1, 1), 0.6: (1, 1)} | dict.fromkeys((0.7, 0.8, 0.9, 1.0), (0, 1))
    classes = {row["class"]: row for row in rows_of(world, "unit_classes")}
    assert list(classes) == ["fire", "night"]
    assert [classes["fire"][kind] for kind in ("units", "boxed_units", "iou_units")] == [1, 1, 1]
    assert {row["class"]: row["units"] for row in rows_of(world, "unit_classes", "random")} == {"fire": 0, "night": 0}


def test_what_makes_sound_is_what_is_listed(run_exhibit, world):
    metrics = run_exhibit(audible_classes=("Fire",)).metrics
    assert metrics["audible_share"] == 1 and rows_of(world)[RED]["audible"]
    assert not [name for name in run_exhibit().metrics if "audible" in name]  # nothing is said of any class
    metrics = run_exhibit(audible_classes=("rain",)).metrics
    assert (metrics["audible"], metrics["audible_share"], metrics["boxed_audible"]) == (0, 0, 0)
    assert not rows_of(world)[RED]["audible"]
    assert "random_audible_share" not in metrics  # of no unit


def test_a_gallery_is_dark_but_for_the_fields_of_positions_at_half_the_maximum(run_exhibit, world):
    run_exhibit()
    strip = np.asarray(Image.open(io.BytesIO(rows_of(world)[RED]["gallery"]))).astype(int)
    assert strip.shape == (SQUARE, 3 * SQUARE, 3)
    middles = [round((px + 2) * SQUARE / SIDE) for px in (8, 12, 16, 20)]  # of cells
    for place, level in enumerate((250, 230, 200)):
        square = strip[:, place * SQUARE : (place + 1) * SQUARE]
        for row in middles[:2]:
            for column in middles[2:]:
                np.testing.assert_allclose(square[row, column], [level, 0, 0], atol=20)
        for corner in ((3, 3), (3, -4), (-4, 3), (-4, -4)):
            np.testing.assert_allclose(square[corner], GRAY * DIMMED, atol=8)


def test_what_is_lit_are_circles_around_the_middles_of_fields():
    responding = np.zeros((8, 8), bool)
    responding[2, 5] = responding[7, 0] = True
    square = lit(responding, (Fields(0, 4, 4), Fields(0, 4, 4)), 32)  # a px is 3.5 of the square's
    rows, columns = np.mgrid[:SQUARE, :SQUARE] + 0.5
    nearest = np.minimum(np.hypot(rows - 35, columns - 77), np.hypot(rows - 105, columns - 7))
    assert square[nearest < 6].all() and not square[nearest > 8.5].any()
    assert lit(responding, (Fields(0, 1, None),) * 2, 32).all()


def test_the_order_of_clips_and_shards_changes_nothing(run_exhibit, world, tmp_path_factory):
    other = tmp_path_factory.mktemp("other")
    write_corpus(other, order=np.random.default_rng(0).permutation(15).tolist(), shards=3)
    write_dataset(other)
    assert run_exhibit().metrics == run_exhibit(other).metrics
    for name in ("units", "unit_sweep", "unit_classes"):
        assert rows_of(world, name) == rows_of(other, name)


def test_a_tree_without_boxes_has_classes_and_no_iou(run_exhibit, tmp_path):
    write_corpus(tmp_path)
    write_dataset(tmp_path, boxes=False)
    metrics = run_exhibit().metrics
    assert np.isnan(rows_of(tmp_path)[RED]["iou"]) and "detectors" not in metrics
    assert metrics["boxed_selective"] == 1


def test_a_tree_of_another_layout_and_a_layer_that_is_none_are_refused(run_exhibit, world):
    with pytest.raises(EarshotError, match="layer 'conv9' is not in the network; expected conv5 or .* cells"):
        run_exhibit(layer="conv9")
    (world / "data_dir").rename(world / "elsewhere")
    (world / "data_dir").mkdir()
    with pytest.raises(EarshotError, match="data_dir: holds no image, expected VOCdevkit/VOC2007"):
        run_exhibit()


def test_a_named_layer_is_shown_as_conv5_is(run_exhibit, world):
    run_exhibit(layer="cells")
    before = rows_of(world)  # before the ReLU, of which nothing below zero counts
    run_exhibit()
    for name in ("clips", "purity", "boxed_purity", "iou"):
        assert [row[name] for row in before] == [row[name] for row in rows_of(world)]


def test_frames_are_ranked_by_the_mean_of_the_map_where_requested(run_exhibit, tmp_path, monkeypatch):
    """A few pixels at full strength have the largest activation, four weaker cells the larger mean."""
    displayed = [[(RED, 250, 8, 28), ()], [(RED, 180), ()], *DISPLAYED[10:], *DISPLAYED[5:15]]
    monkeypatch.setitem(globals(), "DISPLAYED", displayed[:15])
    write_corpus(tmp_path)
    write_dataset(tmp_path)
    run_exhibit()
    assert rows_of(tmp_path)[RED]["clips"] == clips(0, 1)
    run_exhibit(rank_by="mean")
    red = rows_of(tmp_path)[RED]
    assert red["clips"] == clips(1, 0)
    # Four of 64 positions respond.
    np.testing.assert_allclose(red["activations"][0], 4 / 64 * (180 / 255 - 0.1), rtol=0.05)
    assert red["maximum"] == pytest.approx(250 / 255 - 0.1, abs=0.02)  # of the map, which galleries are cut by


def test_position_is_what_a_unit_prefers_whatever_the_image(run_exhibit, world):
    metrics = run_exhibit().metrics
    red, _, dead = rows_of(world)
    assert 0.1 < red["position"] < 0.5 and dead["position"] == 0  # red is always at one place, in 6 of 30 frames
    assert metrics["position_selective"] == 0 and metrics["random_position_share"] == 0


def test_videos_with_the_objects_sound_are_the_clips_annotated_with_what_images_show(run_exhibit, world):
    metrics = run_exhibit(audible_classes=("fire",)).metrics
    assert metrics["audible_videos"] == pytest.approx(2 / 3)  # of the three clips of red: fire, fire, rain
    assert "random_audible_videos" not in metrics
    assert "audible_videos" not in run_exhibit(audible_classes=("night",)).metrics


def test_images_of_any_folder_are_of_the_classes_that_their_folders_name(run_exhibit, tmp_path):
    write_corpus(tmp_path)
    for number in range(10):
        folder = tmp_path / "data_dir" / ("n/fire" if number < 4 else "o/night" if number < 9 else "")
        folder.mkdir(parents=True, exist_ok=True)
        image(RED if number < 4 else None, 250 - number).save(folder / f"{number}.JPEG", quality=100, subsampling=0)
    (tmp_path / "data_dir/notes.txt").touch()
    metrics = run_exhibit(galleries="images").metrics
    assert (metrics["images"], metrics["boxed_judged"], metrics["boxed_most_frequent"]) == (10, 2, 0.5)
    red, green, _ = rows_of(tmp_path)
    assert (red["boxed"], red["boxed_purity"], green["boxed"]) == ("fire", 1, "")
    assert red["clips"] == ["n/fire/0.JPEG", "n/fire/1.JPEG", "n/fire/2.JPEG"] and green["gallery"] == b""
    strip = np.asarray(Image.open(io.BytesIO(red["gallery"]))).astype(int)
    assert strip.shape == (SQUARE, 3 * SQUARE, 3)
    np.testing.assert_allclose(strip[35, 2 * SQUARE + 77], [248, 0, 0], atol=20)
    np.testing.assert_allclose(strip[3, 3], GRAY * DIMMED, atol=8)


def test_gradient_ascent_excites_each_displayed_unit_more_than_its_start_does(run_exhibit, world):
    result = run_exhibit(ascent_steps=24)
    red, green = rows_of(world, "unit_ascent")  # the silent unit has no gallery and no row
    assert (red["unit"], green["unit"]) == (RED, GREEN) and not rows_of(world, "unit_ascent", "random")
    for row, channel in ((red, 0), (green, 1)):
        assert row["start"] <= 0 < row["end"]  # gray does not activate it: its ReLU has to wake
        pixels = np.asarray(Image.open(io.BytesIO(row["image"]))).astype(int)
        assert pixels.shape == (SIDE, SIDE, 3)
        assert (pixels - pixels.mean(2, keepdims=True)).max((0, 1)).argmax() == channel  # the strongest color
        assert row["highest"] == rows_of(world)[row["unit"]]["activations"][0]
    assert result.metadata["ascent_steps"] == 24


def test_without_gradient_ascent_nothing_is_added(run_exhibit, world):
    metadata = run_exhibit().metadata
    files = {file.name: file.read_bytes() for file in (world / "result").iterdir()}
    assert {*files} == {"units.parquet", "unit_sweep.parquet", "unit_classes.parquet"}
    assert "ascent_steps" not in metadata
    run_exhibit(ascent_steps=1)
    assert {name: (world / "result" / name).read_bytes() for name in files} == files


def test_a_network_without_layers_for_single_images_shows_nothing(tmp_path):
    save_architecture(tmp_path, build_correspondence("multisensory", width=1 / 16, image_size=32))
    assert "multisensory" in make(context(tmp_path, None)).metadata[SKIPPED]


def test_purity_counts_a_frame_for_all_that_it_shows_and_missing_frames_against_it():
    assert purity([["a", "b"], ["b", "b"], ["c"]], 3) == ("b", pytest.approx(2 / 3))
    assert purity([["b"], ["a"]], 4) == ("a", 0.25)
    assert purity([[], []], 2) == purity([], 2) == ("", 0)


def test_boxes_cover_the_px_whose_middles_lie_in_them():
    boxes = np.array([[0, 0, 50, 100], [40, 0, 60, 50], [0, 0, 100, 100]], float)
    flags = np.zeros(3, bool)
    present, covered = draw_boxes(Objects(100, 100, boxes, np.array([4, 4, 2]), flags, flags))
    assert present.tolist() == [2, 4]
    assert covered.mean(0).tolist() == pytest.approx([1, 0.55], abs=0.01)  # boxes of a class overlap
