"""Localization: cIoU and its area by hand, both layouts, and networks that look at the box, elsewhere, or nowhere."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
import soundfile
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from earshot.benchmarks import localization
from earshot.benchmarks.localization import areas_under, center_map, evaluate
from earshot.core.errors import EarshotError
from earshot.evaluation.benchmark import Context
from earshot.evaluation.clips import images_with_sound
from earshot.evaluation.clips.images_with_sound import LocalizationExample, read_dataset
from earshot.evaluation.clips.localization_maps import SIDE, ciou, middle_slice, positive


def test_ciou_by_hand():
    truth = np.zeros((4, 4))
    truth[:2, :2] = 1  # four places
    roi = np.zeros((4, 4), bool)
    roi[:, 1] = True  # two of them, and two outside
    assert ciou(roi, truth) == 2 / (4 + 2)
    truth[0, 1] = 0.5  # one annotator of two
    assert ciou(roi, truth) == 1.5 / (3.5 + 2)
    assert ciou(truth > 0, truth) == 1
    assert ciou(truth == 0, truth) == 0


def test_a_map_is_positive_above_its_median_or_half_way_and_everywhere_where_it_is_even():
    values = np.array([[0.0, 0, 0, 1], [2, 3, 8, 10]])
    np.testing.assert_array_equal(positive(values, "median"), [[0, 0, 0, 0], [1, 1, 1, 1]])
    np.testing.assert_array_equal(positive(values, "half"), [[0, 0, 0, 0], [0, 0, 1, 1]])
    assert positive(np.full((2, 2), 3.0), "median").all() and positive(np.full((2, 2), 3.0), "half").all()


@settings(deadline=None, max_examples=40)
@given(st.lists(st.floats(0, 1), min_size=1, max_size=30))
def test_the_area_is_about_the_mean_of_the_values(values):
    assert areas_under(np.array(values)).mean() == pytest.approx(np.mean(values), abs=0.026)  # steps of .05


@pytest.mark.parametrize(("values", "area"), [([1.0], 1), ([0.0], 0.025), ([0.5], 0.525), ([0.5, 1.0], 0.7625)])
def test_the_area_by_hand(values, area):
    assert areas_under(np.array(values)).mean() == pytest.approx(area)


def test_the_center_control_has_its_peak_in_the_middle_and_its_lows_in_the_corners():
    control = center_map()
    assert np.abs(np.array(np.unravel_index(control.argmax(), control.shape)) - SIDE / 2).max() <= 1
    assert control.min() == control[0, 0] == control[-1, -1]
    assert positive(control, "median").mean() == pytest.approx(0.5, abs=0.01)


def test_a_box_covers_its_share_of_the_truth_and_two_annotators_make_certain(tmp_path):
    image = LocalizationExample(tmp_path, tmp_path, "x", ((0.5, 0, 1, 0.5), (0.75, 0, 1, 0.25)), agree=2)
    truth = image.truth()
    assert truth.shape == (SIDE, SIDE)
    assert (truth > 0).mean() == pytest.approx(1 / 4)
    assert (truth == 1).mean() == pytest.approx(1 / 16)
    assert truth[0, -1] == 1 and truth[0, SIDE // 2] == 0.5 and truth[-1, 0] == 0


RATE = 8000
CORNERS = {"left": (0.0, 0.0, 0.5, 0.5), "right": (0.5, 0.5, 1.0, 1.0)}


def write_media(data_dir, name, level, suffix="wav"):
    (data_dir / "frames").mkdir(parents=True, exist_ok=True)
    (data_dir / "audio").mkdir(exist_ok=True)
    Image.new("RGB", (60, 40), (90, 90, 90)).save(data_dir / "frames" / f"{name}.jpg")
    time = np.arange(3 * RATE) / RATE
    sound = np.where(np.abs(time - 1.5) < 0.3, level, 0.9)  # what is not in the middle is louder
    soundfile.write(data_dir / "audio" / f"{name}.{suffix}", sound, RATE)


@pytest.fixture
def data_dir(tmp_path):
    """Quiet sounds come from the upper left, loud ones from the lower right."""
    entries = []
    for number in range(20):
        kind = list(CORNERS)[number % 2]
        write_media(tmp_path / "data_dir", f"p{number:02d}", 0.1 if kind == "left" else 0.5)
        entries.append({"file": f"p{number:02d}", "class": kind, "bbox": [list(CORNERS[kind])]})
    (tmp_path / "data_dir" / "vggss.json").write_text(json.dumps(entries))
    return tmp_path / "data_dir"


class Looking(torch.nn.Module):
    """Its map peaks where the loudness of the sound points, or at a fixed position."""

    frames, image_size = 1, 32
    audio_samples, audio_rate, audio_channels = RATE // 2, RATE, 1

    def __init__(self, place=None):
        super().__init__()
        self.place, self.architecture = place, {"name": "looking"}

    def localization_map(self, images, sounds):
        assert images.dtype == torch.uint8 and images.shape[1:] == (3, 32, 32)
        maps = torch.zeros(len(sounds), 4, 4)
        for number, level in enumerate(sounds.abs().amax(1).tolist()):
            row, column = self.place or ((1, 1) if level < 0.3 else (3, 3))
            maps[number, row - 1 : row + 1, column - 1 : column + 1] = 1
        return maps


@pytest.fixture
def run_benchmark(data_dir, tmp_path, monkeypatch):
    def run(**networks):
        actual = {"": networks.get("own", Looking()), "random_": networks.get("random", Looking((1, 3)))}
        monkeypatch.setattr(localization, "load_correspondences", lambda folder: actual)
        return evaluate(Context(data_dir, tmp_path, SimpleNamespace(), 0, tmp_path))

    return run


def test_a_network_that_uses_the_sound_finds_every_box_and_the_controls_do_not(run_benchmark):
    result = run_benchmark()
    metrics = result.metrics
    assert metrics["peak"] == 1 and metrics["random_peak"] == 0
    assert metrics["ciou_half"] == 1 and metrics["auc_half"] > 0.7
    assert metrics["ciou_half"] > metrics["center_ciou_half"]
    assert metrics["mismatched_audio_peak"] == 0  # the sound of the image before is the other kind's
    assert metrics["full_image_peak"] == pytest.approx(1 / 4)
    assert metrics["full_image_ciou_median"] == metrics["full_image_ciou_half"] == 0  # a quarter of the image
    assert metrics["full_image_auc_median"] == pytest.approx(0.05 * (0.5 + 5))  # .25 reaches 0, .05 ... .25
    assert 0 <= metrics["center_peak"] <= 1
    assert metrics["images"] == 20
    assert [(row["class"], row["clips"], row["peak"]) for row in result.classes] == [("left", 10, 1), ("right", 10, 1)]
    assert "20 images" in result.protocol


def test_a_map_that_is_no_number_is_refused(run_benchmark):
    broken = Looking()
    broken.localization_map = lambda images, sounds: torch.full((len(sounds), 4, 4), torch.nan)
    with pytest.raises(EarshotError, match="is not finite"):
        run_benchmark(own=broken)


def test_the_middle_of_a_recording_is_used_and_short_ones_end_in_silence(data_dir):
    network = Looking()
    file = data_dir / "audio" / "p00.wav"
    assert middle_slice(file, network).abs().max() == pytest.approx(0.1, abs=1e-3)
    network.audio_samples, network.audio_channels = 4 * RATE, 2
    cut = middle_slice(file, network)
    assert cut.shape == (2, 4 * RATE)
    assert (cut[:, 3 * RATE :] == 0).all() and (cut[0] == cut[1]).all()
    network.audio_samples, network.audio_channels, network.audio_rate = RATE, 1, 2 * RATE  # half a second
    assert middle_slice(file, network).abs().max() == pytest.approx(0.1, abs=0.01)


def test_boxes_of_flickr_soundnet_are_read_with_their_annotators(tmp_path):
    write_media(tmp_path, "10000130166", 0.1, "flac")
    (tmp_path / "Annotations").mkdir()
    boxes = "".join(
        f"<annotator><bbox><label>object</label><xmin>{left}</xmin><ymin>0</ymin><xmax>256</xmax><ymax>128</ymax>"
        "</bbox></annotator>"
        for left in (0, 128, 192)
    )
    (tmp_path / "Annotations" / "10000130166.xml").write_text(f"<annotation>{boxes}</annotation>")
    (actual,) = read_dataset(tmp_path)
    assert actual.boxes == ((0, 0, 1, 0.5), (0.5, 0, 1, 0.5), (0.75, 0, 1, 0.5))
    assert actual.sound.suffix == ".flac"
    truth = actual.truth()
    assert truth[0, 0] == 0.5 and truth[0, SIDE // 2] == 1 and truth[0, -1] == 1 and truth[-1, 0] == 0


def test_a_box_that_leaves_the_image_is_cut_and_one_outside_it_is_empty(data_dir):
    entries = json.loads((data_dir / "vggss.json").read_text())
    entries[0]["bbox"] = [[0.5, -2.9e16, 1.2, 1.0], [1.0, 0.2, 1.5, 0.4]]
    (data_dir / "vggss.json").write_text(json.dumps(entries))
    actual = read_dataset(data_dir)[0]
    assert actual.boxes == ((0.5, 0, 1, 1), (1, 0.2, 1, 0.4))
    assert actual.truth().mean() == 0.5


def test_an_image_whose_box_is_empty_is_counted_and_scores_nothing(data_dir, run_benchmark):
    entries = json.loads((data_dir / "vggss.json").read_text())
    entries[0]["bbox"] = [[0.2, 1.0, 0.7, 1.0]]
    (data_dir / "vggss.json").write_text(json.dumps(entries))
    metrics = run_benchmark().metrics
    assert (metrics["images"], metrics["images_without_box"]) == (20, 1)
    assert metrics["peak"] == metrics["ciou_half"] == 19 / 20


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"bbox": []}, "p00 has the boxes"),
        ({"bbox": [[0.1, 0.2, 0.3]]}, "expected left, top, right, bottom"),
        ({"bbox": [[0.1, 0.2, 0.3, "nan"]]}, "expected left, top, right, bottom"),
        ({"bbox": 3}, "cannot be read"),
        ({"file": "../p00"}, "expected a plain name"),
        ({"file": "other"}, "no such sound"),
    ],
)
def test_entries_that_are_none_are_refused_by_file(data_dir, change, message):
    entries = json.loads((data_dir / "vggss.json").read_text())
    entries[0] |= change
    (data_dir / "vggss.json").write_text(json.dumps(entries))
    with pytest.raises(EarshotError, match=message):
        read_dataset(data_dir)


def test_a_data_dir_without_boxes_is_refused(tmp_path):
    with pytest.raises(EarshotError, match=r"expected frames, audio, and vggss.json or Annotations"):
        read_dataset(tmp_path)


def test_the_boxes_of_vgg_ss_are_read(real_data, tmp_path):
    listed = json.loads((real_data / "metadata" / "vggss" / "vggss.json").read_text())
    (tmp_path / "vggss.json").write_text(json.dumps(listed))
    actual = images_with_sound._vggss(tmp_path / "vggss.json")
    assert len(actual) == 5158
    assert len({kind for _, kind, _ in actual}) == 221
