"""The exhibit of localisation: pictures and clips are hot where a network of a known map looks."""

import io
import tarfile
from types import SimpleNamespace

import av
import numpy as np
import pytest
import soundfile
from annotated_scenes import RATE, TEST_GROUPS, flac, write_annotated
from PIL import Image
from test_localization import Looking, data_dir  # noqa: F401  the fixture

from earshot.core.errors import EarshotError
from earshot.evaluation.clips.clip_embeddings import load_correspondences
from earshot.evaluation.clips.images_with_sound import LocalizationExample
from earshot.exhibits import localization
from earshot.exhibits.localization import make
from earshot.explanation.exhibit import ExhibitContext
from earshot.explanation.tables import SKIPPED, read_table
from earshot.explanation.video import mp4_of
from earshot.networks.correspondence import build_correspondence
from earshot.networks.files import save_architecture, save_weights

SECONDS, SIZE = 2.0, (96, 64)


def write_clips(folder, names):
    """A grey video of 2 s for each name, 5 pictures a second, whose sound is soft in its first second, then loud."""
    folder.mkdir(parents=True, exist_ok=True)
    time = np.arange(int(SECONDS * RATE)) / RATE
    sound = np.where(time < 1, 0.1, 0.6) * np.sin(2 * np.pi * 500 * time)
    frames = [Image.new("RGB", SIZE, (90, 90, 90))] * 10
    for name in names:
        (folder / f"{name}.mp4").write_bytes(mp4_of(frames, SIZE, 5, flac(sound), SECONDS))


@pytest.fixture
def run_exhibit(tmp_path, data_dir, monkeypatch):  # noqa: F811
    """What the exhibit shows of a tree of twenty pictures and of three clips, with a network that knows or another."""
    groups = TEST_GROUPS[:3]
    annotations = [["surf"], ["surf"], ["rain"]]
    write_annotated(tmp_path, [40, 60, 90], [0.1] * 3, annotations, groups)
    write_clips(tmp_path / "data/clips", [f"{group}_{number}" for number, group in enumerate(groups)])
    save_architecture(tmp_path / "models", build_correspondence("ave", width=1 / 16, image_size=32))
    networks = {"": Looking(), "random_": Looking((1, 3))}
    for network in networks.values():
        network.audio_samples = RATE // 4  # .25 s

    def run(images=6, videos=2, name="result", load=lambda folder: networks):
        monkeypatch.setattr(localization, "load_correspondences", load)
        data = tmp_path / "data"
        folders = {
            "data_dir": data_dir,
            "encoder": tmp_path / "models",
            "scenes": data / "scenes",
            "clips": data / "clips",
        }
        folders |= {"annotations": data / "annotations", "folder": tmp_path / name, "scratch": tmp_path / "scratch"}
        params = SimpleNamespace(images=images, videos=videos)
        how = {"params": params, "seed": 0, "window_s": 3.75}
        result = make(ExhibitContext(**folders, **how))
        if SKIPPED in result.metadata:
            return result, [], []
        return result, *(list(read_table(tmp_path / name, table)) for table in ("localized", "videos_with_sound"))

    return run


def light(data):
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB"), float).sum(2)


def quarters(image):
    """The mean light of the four quarters of a picture (height, width): (2, 2)."""
    height, width = (side // 2 for side in image.shape)
    return np.array([[image[:height, :width].mean(), image[:height, width:].mean()],
                     [image[height:, :width].mean(), image[height:, width:].mean()]])  # fmt: skip


def test_images_are_hot_where_the_network_looks_and_classes_take_turns(run_exhibit):
    result, images, _ = run_exhibit(videos=0)
    assert result.metrics == {"images": 6, "videos": 0}
    assert [row["name"] for row in images] == sorted(row["name"] for row in images)
    assert sorted(row["class"] for row in images) == ["left"] * 3 + ["right"] * 3
    for row in images:
        assert row["hit"] and not row["control_hit"]
        assert Image.open(io.BytesIO(row["image"])).size == Image.open(io.BytesIO(row["heat"])).size == (320, 213)
        place = (0, 0) if row["class"] == "left" else (1, 1)
        plain, hot = quarters(light(row["image"])), quarters(light(row["heat"]))
        assert np.unravel_index(hot.argmax(), (2, 2)) == place
        assert np.ptp(hot) > 150 > 5 * np.ptp(plain)  # but for the box the picture is one grey


def test_a_ring_is_around_the_highest_point_and_a_box_stands_where_it_is(tmp_path):
    gray = Image.new("RGB", (200, 100), (90, 90, 90))
    values = np.zeros((4, 8))
    values[1, 6] = 1
    marked = np.asarray(localization._marked(gray.copy(), values), float).mean(2)
    rows, columns = np.nonzero(marked != 90)
    assert (rows.min() + rows.max()) / 2 == pytest.approx(37.5, abs=1)
    assert (columns.min() + columns.max()) / 2 == pytest.approx(162.5, abs=1)
    assert marked[37, 162] == 90 and marked.max() == 255 and marked.min() == 0
    example = LocalizationExample(tmp_path, tmp_path, "x", ((0.1, 0.2, 0.5, 0.9),), agree=1)
    boxed = np.asarray(localization._boxed(gray, example), float).mean(2)
    assert (boxed[20:90, 20] == 255).all() and (boxed[20, 20:100] == 255).all() and boxed[50, 60] == 90


def test_the_sound_of_an_image_is_all_of_its_recording(run_exhibit):
    _, images, _ = run_exhibit(images=1, videos=0)
    sound, rate = soundfile.read(io.BytesIO(images[0]["sound"]))
    assert len(sound) / rate == pytest.approx(3, abs=0.01)


def decoded(data):
    """Light of all pictures, (frames, height, width), and the sound, (samples,), with its rate."""
    with av.open(io.BytesIO(data)) as file:
        assert [stream.codec_context.name for stream in file.streams] == ["h264", "aac"]
        assert file.streams.video[0].codec_context.pix_fmt == "yuv420p"
        images = np.stack([frame.to_ndarray(format="gray").astype(float) for frame in file.decode(video=0)])
        file.seek(0)
        parts = [frame.to_ndarray()[0] for frame in file.decode(audio=0)]
        return images, np.concatenate(parts), file.streams.audio[0].rate


def test_a_clip_is_a_video_of_its_length_with_its_sound_and_hot_where_the_map_is(run_exhibit):
    result, _, videos = run_exhibit(images=1)
    assert result.metrics["videos"] == 2
    assert sorted(row["annotations"] for row in videos) == [["rain"], ["surf"]]
    for row in videos:
        images, sound, rate = decoded(row["video"])
        assert row["seconds"] == pytest.approx(SECONDS, abs=0.05)
        assert images.shape == (20, 256, 384)  # 10 a second, 256 px high
        assert len(sound) / rate == pytest.approx(SECONDS, abs=0.05)
        levels = [np.abs(part).max() for part in np.array_split(sound[: 2 * rate], 4)]
        assert max(levels[:2]) < 0.3 < min(levels[2:])
        for number, place in ((2, (0, 0)), (6, (0, 0)), (14, (1, 1)), (18, (1, 1))):
            assert np.unravel_index(quarters(images[number]).argmax(), (2, 2)) == place
        assert Image.open(io.BytesIO(row["poster"])).size == (384, 256)
        assert row["video"].index(b"moov") < row["video"].index(b"mdat")  # plays before all of it is read


def test_videos_are_of_as_many_clips_as_there_are(run_exhibit):
    assert len(run_exhibit(images=1, videos=5)[2]) == 3


def test_a_clip_that_cannot_be_decoded_any_more_makes_room_for_another(run_exhibit, tmp_path):
    (first,) = run_exhibit(images=1, videos=1)[2]
    (tmp_path / "data/clips" / f"{first['clip_id']}.mp4").write_bytes(b"no video at all")
    (other,) = run_exhibit(images=1, videos=1, name="again")[2]
    assert other["clip_id"] != first["clip_id"]


def test_a_clip_that_is_gone_is_told_by_name(run_exhibit, tmp_path):
    (first,) = run_exhibit(images=1, videos=1)[2]
    (tmp_path / "data/clips" / f"{first['clip_id']}.mp4").unlink()
    with pytest.raises(EarshotError, match=f"has no clip {first['clip_id']}"):
        run_exhibit(images=1, videos=1)


def test_a_clip_of_a_tar_is_found(run_exhibit, tmp_path):
    clips = tmp_path / "data/clips"
    with tarfile.open(clips / "00000.tar", "w") as tar:
        for file in sorted(clips.glob("*.mp4")):
            tar.add(file, file.name)
            file.unlink()
    assert len(run_exhibit(images=1, videos=1)[2]) == 1


def test_shown_twice_it_is_the_same(run_exhibit, tmp_path):
    run_exhibit(images=2, videos=1)
    run_exhibit(images=2, videos=1, name="again")
    for name in ("localized", "videos_with_sound"):
        assert (tmp_path / f"result/{name}.parquet").read_bytes() == (tmp_path / f"again/{name}.parquet").read_bytes()


@pytest.mark.parametrize("name", ["l3", "ave", "avol"])
def test_every_network_of_two_towers_has_maps(run_exhibit, tmp_path, name):
    network = build_correspondence(name, width=1 / 16, image_size=32)
    save_architecture(tmp_path / "models", network)
    for weights in ("encoder", "random"):
        save_weights(tmp_path / "models", weights, network)
    result, images, videos = run_exhibit(images=2, videos=1, load=load_correspondences)
    assert result.metadata["network"] == name and len(videos) == 1
    assert all(row["hit"] == row["control_hit"] for row in images)  # of the same weights
    assert np.ptp(quarters(light(images[0]["heat"]))) > 5


@pytest.mark.parametrize(
    ("architecture", "reason"),
    [
        ({"name": "multisensory", "width": 0.1, "image_size": 32, "frames": 8, "audio_samples": 6000}, "sequences"),
        ({"name": "alexnet", "classes": 4, "width": 0.1, "image_size": 64, "dropout": 0.0}, "takes no audio"),
    ],
)
def test_networks_without_towers_have_nothing_to_show(run_exhibit, tmp_path, architecture, reason):
    save_architecture(tmp_path / "models", SimpleNamespace(architecture=architecture))
    result, *_ = run_exhibit()
    assert reason in result.metadata[SKIPPED] and not (tmp_path / "result").exists()
