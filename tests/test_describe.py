"""The stage describe: a row a moment, in order, flagged if silent, the same however windows are batched."""

import io
import json
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import soundfile
from conftest import PARAMS
from descriptions import description
from sample_networks import save_correspondence_network

from earshot.scenes.writing import Scene, write_scenes
from earshot.sound.description import load_description
from stages import describe

RATE = 16_000


def _noise(seconds: float, *, rate: int = RATE, channels: int = 1, level: float = 0.1, seed: int = 0) -> np.ndarray:
    return level * np.random.default_rng(seed).standard_normal((round(seconds * rate), channels))


def _scene(name: str, sound: np.ndarray, times: list[float], rate: int = RATE) -> Scene:
    flac = io.BytesIO()
    soundfile.write(flac, sound.clip(-1, 1), rate, format="FLAC")
    duration, channels = len(sound) / rate, sound.shape[1]
    return Scene(name, f"video-{name}", duration, [b""] * len(times), times, flac.getvalue(), rate, channels)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two shards: a stereo sound, a silent one, a short one, a clip without moments, and 21 windows of one size."""
    root = tmp_path_factory.mktemp("describe")
    first = [
        _scene("long", _noise(8, seed=1), list(np.linspace(1.875, 6, 19))),
        _scene("stereo", _noise(5, rate=22_050, channels=2, seed=2), [2.0, 2.5], 22_050),
        _scene("silent", np.zeros((5 * RATE, 1)), [2.5]),
        _scene("none", _noise(4), []),
        _scene("short", _noise(2, seed=3), [0.2, 1.9]),
        _scene("same-kind", _noise(5, seed=4), [1.875, 3.0]),
    ]
    write_scenes(root / "data/scenes/00000.parquet", first)
    write_scenes(root / "data/scenes/00001.parquet", [_scene("other", _noise(4, seed=5), [2.0])])
    return root


def _describe(root: Path, *settings: str) -> list[dict]:
    changes = [argument for setting in settings for argument in ("--set", setting)]
    describe.STAGE.run(describe.main, ["--params", str(PARAMS), "--root", str(root), *changes])
    return [row for path in sorted((root / "data/sounds").glob("*.parquet")) for row in pq.read_table(path).to_pylist()]


@pytest.fixture(scope="module")
def rows(root: Path) -> list[dict]:
    return _describe(root)


def test_every_moment_has_a_row_in_the_order_of_the_scenes(root, rows):
    moments = {"long": 19, "stereo": 2, "silent": 1, "short": 2, "same-kind": 2, "other": 1}
    assert [(row["clip_id"], row["moment"]) for row in rows] == [(c, m) for c, n in moments.items() for m in range(n)]
    assert all(row["group"] == f"video-{row['clip_id']}" for row in rows)
    scenes = [s for path in sorted((root / "data/scenes").iterdir()) for s in pq.read_table(path).to_pylist()]
    splits = {scene["clip_id"]: scene["split"] for scene in scenes}
    assert all(row["split"] == splits[row["clip_id"]] for row in rows)


def test_silent_moments_are_kept_flagged_and_counted(root, rows):
    assert {row["clip_id"] for row in rows if row["silent"]} == {"silent"}
    assert json.loads((root / "metrics/describe.json").read_text()) == {"moments": 27, "silent": 1}
    assert not np.any(next(row["descriptor"] for row in rows if row["silent"]))


def test_a_moment_is_described_by_the_sound_around_its_frame(root, rows):
    scenes = pq.read_table(root / "data/scenes/00000.parquet").to_pylist()
    for name, time, start, stop in (
        ("stereo", 1, 13_781, 96_469),
        ("same-kind", 0, 0, 60_000),
        ("short", 1, 0, 32_000),
    ):
        scene = next(scene for scene in scenes if scene["clip_id"] == name)
        sound, rate = soundfile.read(io.BytesIO(scene["sound"]), dtype="float32", always_2d=True)
        assert scene["times"][time] in (2.5, 1.875, 1.9)
        expected, _ = description("texture").describe(sound.mean(1)[None, start:stop], rate)
        row = next(row for row in rows if row["clip_id"] == name and row["moment"] == time)
        np.testing.assert_allclose(row["descriptor"], expected[0], atol=2e-4)


@pytest.mark.slow
def test_descriptor_and_options_are_parameters(root, rows):
    sizes = {"texture": 502, "mfcc": 3100, "spectrum": 32}
    for descriptor, size in sizes.items():
        described = _describe(root, f"descriptor={descriptor}", "texture.outer_channels=band-passes")
        assert {len(row["descriptor"]) for row in described} == {size}
        assert [row["silent"] for row in described] == [row["silent"] for row in rows]
        if descriptor == "texture":
            assert np.abs(np.subtract(described[0]["descriptor"], rows[0]["descriptor"])).max() > 0.01


@pytest.mark.usefixtures("one_process")
def test_a_trained_network_describes_every_moment(root, rows):
    save_correspondence_network(root / "models" / "correspond", "ave", seeds=(0, 1, 2))
    changes = ("descriptor=encoder", "encoder.folder=models/correspond", "encoder.windows=1")
    described = _describe(root, *changes)
    assert {len(row["descriptor"]) for row in described} == {8}
    assert [(row["clip_id"], row["silent"]) for row in described] == [(row["clip_id"], row["silent"]) for row in rows]
    assert {file.name for file in (root / "models/descriptor").iterdir()} >= {"encoder.json", "encoder.safetensors"}
    assert load_description(root / "models/descriptor").dimensions == 8
    with pytest.raises(SystemExit, match="encoder.folder is none, expected a folder of encoders"):
        _describe(root, "descriptor=encoder")


def test_the_table_is_the_same_byte_for_byte_when_written_again(root, rows):
    _describe(root)
    before = {path.name: path.read_bytes() for path in (root / "data/sounds").iterdir()}
    _describe(root)
    assert {path.name: path.read_bytes() for path in (root / "data/sounds").iterdir()} == before


def test_how_it_was_described_is_kept_with_a_digest_that_changes_with_any_descriptor(root):
    kept = []
    for change in ("seed=0", "texture.exactness=owens-exact", "seed=1"):
        _describe(root, "descriptor=spectrum", change)
        kept.append((root / "models/descriptor/descriptor.json").read_bytes())
    assert kept[0] == kept[2]
    one, other = (json.loads(text) for text in kept[:2])
    assert (one["descriptor"], one["dimensions"]) == ("spectrum", 32)
    assert one["options"]["texture"]["exactness"] == "earshot" and one["digest"] != other["digest"]


def test_a_run_that_is_stopped_goes_on_to_the_same_description(root, monkeypatch):
    _describe(root, "descriptor=spectrum")
    whole = (root / "models/descriptor/descriptor.json").read_bytes()

    def stop(*arguments):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("stages.describe.read_digests", stop)
        with pytest.raises(SystemExit):
            _describe(root, "descriptor=spectrum")
    monkeypatch.setattr("stages.describe.describe_shard", stop)
    _describe(root, "descriptor=spectrum")
    assert (root / "models/descriptor/descriptor.json").read_bytes() == whole


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("extract.window_s=5", "extract.window_s is 5.0, expected 1.5 to 3.75 s"),
        ("extract.min_duration_s=1", "extract.min_duration_s is 1.0, expected 1.5 s or more"),
    ],
)
def test_lengths_without_a_descriptor_are_refused_before_any_work(root, setting, message):
    with pytest.raises(SystemExit, match=message):
        _describe(root, setting)


@pytest.mark.parametrize(
    ("scene", "message"),
    [
        (Scene("odd", "video", 5.0, [b""], [2.0], b"not a sound", RATE, 1), "clip odd cannot be read"),
        (_scene("brief", _noise(1), [0.5]), r"clip brief lasts 1\.000 s, expected 1\.5 s or more"),
    ],
)
def test_a_sound_that_cannot_be_described_is_one_line_that_names_the_clip(tmp_path, scene, message):
    write_scenes(tmp_path / "data/scenes/00000.parquet", [scene])
    with pytest.raises(SystemExit, match=rf"00000\.parquet: the sound of {message}"):
        _describe(tmp_path)


def test_a_damaged_shard_is_one_line_that_names_it(tmp_path):
    write_scenes(tmp_path / "data/scenes/00000.parquet", [_scene("whole", _noise(5), [2.0])])
    shard = tmp_path / "data/scenes/00000.parquet"
    shard.write_bytes(shard.read_bytes()[:-100])
    with pytest.raises(SystemExit, match=r"00000\.parquet: cannot be read .*; run the stage extract again$"):
        _describe(tmp_path)
