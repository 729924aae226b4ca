"""Heat maps of towers that respond to one thing: which units and moments are chosen, and where the map is bright."""

import io
from types import SimpleNamespace

import numpy as np
import pytest
import soundfile
import torch
from annotated_scenes import RATE, TEST_GROUPS
from PIL import Image
from torch import nn

from earshot.exhibits import heatmaps
from earshot.exhibits.heatmaps import make, middle_square, select_units
from earshot.explanation.exhibit import ExhibitContext
from earshot.explanation.tables import SKIPPED, read_table
from earshot.networks.backbones.alexnet import AlexNet
from earshot.networks.correspondence import build_correspondence
from earshot.networks.files import save_architecture, save_weights
from earshot.networks.spectrogram import RATE as AUDIO_RATE
from earshot.networks.spectrogram import SAMPLES, TRANSFORMS, Spectrogram
from earshot.scenes.annotations import write_annotations
from earshot.scenes.writing import Scene, write_scenes

SIDE = 32
pytestmark = pytest.mark.usefixtures("one_process")


def test_the_units_that_prefer_an_annotation_most_are_chosen_at_most_two_a_class():
    names = [(f"clip_{n}", f"group_{n // 2}") for n in range(12)]  # two clips of each video
    annotations = {clip: ["ab"[n // 6]] for n, (clip, _) in enumerate(names)}
    up = np.arange(1.0, 13)
    strengths = np.stack([up, up[::-1], up**2, up, 0 * up, np.where(up % 4 == 1, up, 0.1)], axis=1).astype(np.float32)
    selected = select_units(strengths, names, annotations, units=9, examples=2)
    # Units 0, 2 and 3 prefer b alike; 4 is silent; the last one's strongest are clips 8, of b, and 4, of a.
    assert [(each.unit, each.annotation, each.share) for each in selected] == [
        (0, "b", 1),
        (1, "a", 1),
        (2, "b", 1),
        (5, "a", 0.5),
    ]
    assert selected[0].clips == ["clip_11", "clip_9"]  # one a video
    assert (selected[0].maximum, selected[2].maximum) == (12, 144)
    assert [each.unit for each in select_units(strengths, names, annotations, units=1, examples=2)] == [0]


class Bright(nn.Module):
    """Two units: where a cell of 4 x 4 px is brighter than grey, and nowhere."""

    def __init__(self, channels, least):
        super().__init__()
        self.cells = nn.Conv2d(channels, 2, 4, 4)
        with torch.no_grad():
            self.cells.weight.copy_(torch.tensor([1.0, 0])[:, None, None, None] / 16 / channels)
            self.cells.bias.fill_(-least)

    def forward(self, inputs):
        return self.cells(inputs)


class Towers(nn.Module):
    """Responds to bright cells of pictures and to loud ones of spectrograms, or to the opposite."""

    frames, image_size = 1, SIDE
    audio_samples, audio_rate, audio_channels = SAMPLES, AUDIO_RATE, 1

    def __init__(self, spectrogram="linear"):
        super().__init__()
        self.architecture = {"name": "towers"}
        self.image_tower, self.spectrogram = Bright(3, 0.5), Spectrogram(spectrogram)
        # A tone fills two of four mel bands, where the mean is -8; that of silence is -22.
        self.audio_tower = Bright(1, {"linear": 2.0, "mel": -12.0}[spectrogram])

    def normalize(self, images):
        return images / 255

    def convolve(self, normalized):
        return torch.relu(self.image_tower(normalized))

    def audio_maps(self, sounds):
        return self.audio_tower(self.spectrogram(sounds))


def tone(frequency, level):
    time = np.arange(2 * RATE) / RATE
    file = io.BytesIO()
    sound = level * np.sin(2 * np.pi * frequency * time) * (time > 1)  # silent in the first second
    soundfile.write(file, sound, RATE, format="FLAC", subtype="PCM_16")
    return file.getvalue()


def spotted(level, size=(48, 36)):
    """A dark frame with a light spot in the upper left of its middle square."""
    pixels = np.full((*size[::-1], 3), 20, np.uint8)
    left = (size[0] - size[1]) // 2
    pixels[: size[1] // 2, left : left + size[1] // 2] = level
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", quality=95)
    return file.getvalue()


@pytest.fixture
def run_exhibit(tmp_path, monkeypatch):
    """The exhibit of six clips, of which three light ones with a loud tone are of "a"."""
    scenes = [
        Scene(
            f"{TEST_GROUPS[n]}_0",
            TEST_GROUPS[n],
            2.0,
            [spotted(250 - 15 * n)],
            [1.0],
            tone(1000, 0.9 - 0.1 * n),
            RATE,
            1,
        )
        for n in range(6)
    ]
    write_scenes(tmp_path / "data/scenes/00000.parquet", scenes)
    (tmp_path / "data/annotations").mkdir()
    annotations = {scene.clip_id: ["a"] if n < 3 else ["b"] for n, scene in enumerate(scenes)}
    write_annotations(tmp_path / "data/annotations/00000.parquet", annotations)

    def run(network=None, split="test", spectrogram="linear"):
        towers = {"": Towers(spectrogram), "random_": Towers(spectrogram)}
        monkeypatch.setattr(heatmaps, "load_correspondences", lambda folder: towers)
        network = network or build_correspondence("ave", width=1 / 16, image_size=32)
        save_architecture(tmp_path / "models", network)
        for name in ("encoder", "random"):
            save_weights(tmp_path / "models", name, network)
        data, params = tmp_path / "data", SimpleNamespace(split=split, units=4, examples=3)
        folders = {"data_dir": data / "scenes", "encoder": tmp_path / "models", "annotations": data / "annotations"}
        rest = dict.fromkeys(("scenes", "clips", "scratch"), tmp_path)
        how = {"params": params, "seed": 0, "window_s": 3.75}
        result = make(ExhibitContext(**folders, **rest, **how, folder=tmp_path / "result"))
        return result, [] if SKIPPED in result.metadata else list(read_table(tmp_path / "result", "heatmaps"))

    return run


def pixels(image):
    return np.asarray(Image.open(io.BytesIO(image)).convert("RGB")).astype(int)


def warmth(image):
    """How much redder than blue: a frame under the map of a unit is so where the map is high."""
    values = pixels(image)
    return values[..., 0] - values[..., 2]


def test_rows_are_by_network_modality_unit_and_rank_the_highest_first(run_exhibit):
    result, rows = run_exhibit()
    keys = [(row["network"], row["modality"], row["unit"], row["rank"]) for row in rows]
    assert keys == [(n, s, 0, r) for n in ("encoder", "random") for s in ("image", "audio") for r in (1, 2, 3)]
    assert [row["clip_id"] for row in rows[:3]] == [f"{group}_0" for group in TEST_GROUPS[:3]]
    assert {(row["annotation"], row["share"]) for row in rows} == {("a", 1)}
    assert result.metrics["clips"] == 6 and result.metrics["units_image"] == result.metrics["random_units_audio"] == 1
    assert {row["moment"] for row in rows} == {0} and rows[0]["annotations"] == ["a"]


def test_a_frame_is_warm_where_its_unit_responds(run_exhibit):
    row = run_exhibit()[1][0]
    assert pixels(row["image"]).shape == pixels(row["heat"]).shape == (36, 36, 3)  # the middle square
    heat, first, second = warmth(row["heat"]), slice(3, 15), slice(21, 33)
    assert heat[first, first].mean() > 40
    assert max(heat[part].mean() for part in ((first, second), (second, first), (second, second))) < 10
    assert np.abs(warmth(row["image"])).mean() < 5
    assert row["sound"] == b""


# 1 kHz is row 11 of 257 from the bottom, or band 15 of 64: the scale has 15 mel below 1 kHz, and .94 mel a band.
@pytest.mark.parametrize(("spectrogram", "expected"), [("linear", 11), ("mel", 15)])
def test_a_spectrogram_is_warm_at_the_tone_low_at_the_bottom_and_is_heard(run_exhibit, spectrogram, expected):
    row = next(row for row in run_exhibit(spectrogram=spectrogram)[1] if row["modality"] == "audio")
    kind = TRANSFORMS[spectrogram]
    assert pixels(row["image"]).shape == pixels(row["heat"]).shape == (kind.frequencies, kind.windows, 3)
    # The slice of sound goes from .5 to 1.5 s: the tone begins at its middle.
    heat = warmth(row["heat"])
    row_index, column = np.unravel_index(heat.argmax(), heat.shape)
    assert abs(kind.frequencies - 1 - row_index - expected) <= 4 and column > kind.windows / 2
    assert heat[:, : kind.windows // 2 - 8].max() < 25 and heat[: kind.frequencies // 2].max() < 25
    sound, rate = soundfile.read(io.BytesIO(row["sound"]))
    assert rate == AUDIO_RATE and len(sound) == pytest.approx(SAMPLES, rel=0.1)
    assert np.abs(sound[: SAMPLES // 3]).max() < 0.05 < np.abs(sound[-SAMPLES // 3 :]).max()


def test_a_network_that_hears_nothing_shows_frames_alone(run_exhibit):
    torch.manual_seed(0)
    result, rows = run_exhibit(AlexNet(classes=2, width=0.05, image_size=64))
    assert {row["modality"] for row in rows} == {"image"} and result.metadata["modalities"] == "image"
    assert {row["network"] for row in rows} == {"encoder", "random"}


def test_there_is_nothing_to_show_of_a_sequence_or_of_a_split_without_annotations(run_exhibit):
    multisensory = build_correspondence("multisensory", width=1 / 16, image_size=32)
    assert "multisensory" in run_exhibit(multisensory)[0].metadata[SKIPPED]
    assert "split val" in run_exhibit(split="val")[0].metadata[SKIPPED]


def test_a_frame_is_shown_as_networks_see_it():
    frame = Image.new("RGB", (700, 500), "blue")
    frame.paste("red", (100, 0, 600, 500))
    square = middle_square(frame)
    assert square.size == (256, 256)
    assert (np.asarray(square)[:, [1, -2]] == [255, 0, 0]).all()
