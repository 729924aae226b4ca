"""Search finds the nearest file of either modality, and writes a page; the boards get the shapes they require."""

import inspect
import sys
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from annotated_scenes import write_annotated
from conftest import earshot as run
from odd_media import LOSSLESS, render
from test_embedding import RATE, noise, saved

from earshot.boards.hear import get_scene_embeddings, get_timestamp_embeddings, load_model
from earshot.boards.mteb import EarshotModel
from earshot.boards.xares import EarshotEncoder
from earshot.corpus.ledger import LedgerRow, write_ledger
from earshot.embedding import index
from earshot.embedding.moments import MomentEmbeddings
from earshot.embedding.table import Origin
from earshot.media.clips import MediaFile
from earshot.networks.correspondence import build_correspondence

pytestmark = pytest.mark.usefixtures("one_process")
TONES = {"low": 200, "middle": 1500, "high": 7000}


@pytest.fixture(scope="module")
def network(tmp_path_factory) -> str:
    torch.manual_seed(0)
    built = build_correspondence("ave", width=1 / 16, image_size=32, stride=2)
    built.audio_mean.fill_(-10.0)
    built.audio_std.fill_(3.0)
    return saved(tmp_path_factory.mktemp("network"), built)


@pytest.fixture(scope="module")
def table(network, tmp_path_factory):
    """A table of three videos, each of a tone and a color."""
    folder = tmp_path_factory.mktemp("clips")
    for (name, hertz), color in zip(TONES.items(), ("red", "green", "blue"), strict=True):
        image, sound = f"color={color}:s=64x48:r=10:d=3", f"sine={hertz}:r=48000:d=3"
        render(folder / f"{name}.mkv", *LOSSLESS, image=image, sound=sound)
    run("embed", folder, "--model", network, "--output", folder / "emb.parquet", "--hop", 0.5)
    return folder / "emb.parquet"


def test_a_file_finds_itself_in_both_modalities_and_a_sound_its_video(table, network, capsys, tmp_path):
    run("search", table.parent / "middle.mkv", "--index", table, "--number", 2)
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 2 and all("middle.mkv" in line and line.startswith(("1.000", "0.9")) for line in lines)
    render(tmp_path / "tone.wav", "-c:a", "pcm_s16le", image=None, sound=f"sine={TONES['high']}:r=48000:d=3")
    output = tmp_path / "page"
    run("search", tmp_path / "tone.wav", "--index", table, "--find", "audio", "--number", 3, "--output", output)
    lines = capsys.readouterr().out.splitlines()
    assert "high.mkv" in lines[0] and "audio at" in lines[0] and len(lines) == 4
    page = (output / "index.html").read_text()
    assert page.index("high.mkv") < page.index("low.mkv") and "<audio" in page and "<img" in page
    run("search", tmp_path / "tone.wav", "--index", table, "--find", "images", "--number", 3)
    assert all("images at" in line for line in capsys.readouterr().out.splitlines())


def test_a_file_with_many_near_moments_hides_no_other(table, network, capsys, monkeypatch):
    monkeypatch.setattr(index, "MOMENTS_A_HIT", 1)  # the nearest three are of one file
    run("search", table.parent / "middle.mkv", "--index", table, "--find", "images", "--number", 3)
    lines = capsys.readouterr().out.splitlines()
    assert [sum(f"{name}.mkv" in line for line in lines) for name in TONES] == [1, 1, 1]


def test_another_model_or_no_table_is_an_error(table, network, tmp_path):
    with pytest.raises(SystemExit, match="the table was made by"):
        run("search", table.parent / "low.mkv", "--index", table, "--model", "texture")
    with pytest.raises(SystemExit, match="is no table of embeddings"):
        run("search", table.parent / "low.mkv", "--index", table.parent / "low.mkv")


@pytest.mark.parametrize("kind", ["texture", "network"])
def test_hear_gets_its_shapes_and_times(kind, network):
    model = load_model(network if kind == "network" else "")
    assert model.sample_rate in {16000, 22050, 32000, 44100, 48000} and isinstance(model, torch.nn.Module)
    audio = torch.from_numpy(np.stack([noise(4.0, seed, model.sample_rate) for seed in range(2)]))
    audio[1] = 0  # silence is a sound too
    scenes = get_scene_embeddings(audio, model)
    embeddings, times = get_timestamp_embeddings(audio, model)
    assert scenes.shape == (2, model.scene_embedding_size) and scenes.dtype == torch.float32
    assert embeddings.shape == (2, times.shape[1], model.timestamp_embedding_size)
    assert embeddings.dtype == torch.float32 and torch.isfinite(embeddings).all() and torch.isfinite(scenes).all()
    steps = times.diff()
    assert (steps - steps[0, 0]).abs().max() < 1 and steps.max() <= 50.01 and times.max() <= 4000 and times.min() >= 0


def test_xares_gets_an_encoder(network):
    class MyEncoder(EarshotEncoder):
        source = network

    encoder = MyEncoder()
    assert type(encoder).__name__.endswith("Encoder") and isinstance(encoder, torch.nn.Module)
    audio = torch.randn(2, 50_000) / 10  # what its checker gives
    embedded = encoder(audio)
    assert embedded.shape[0] == 2 and embedded.shape[2] == encoder.output_dim and embedded.dim() == 3
    expected = 50_000 / encoder.sampling_rate * 1000 / encoder.hop_size_in_ms
    assert abs(embedded.shape[1] - expected) <= 6
    assert EarshotEncoder()(audio[0]).shape[2] == 502


def test_mteb_gets_a_vector_for_each_sound_and_each_image(network):
    from PIL import Image

    model = EarshotModel(network)
    sounds = [{"array": noise(1.0, seed), "sampling_rate": RATE} for seed in range(3)]
    one = model.encode([{"audio": sounds[:2]}, {"audio": sounds[2:]}], task_metadata=None, hf_split="", hf_subset="")
    assert one.shape == (3, model.model.audio_dimensions) and one.dtype == np.float32
    images = model.encode([{"image": [Image.new("RGB", (50, 40), "red")] * 2}])
    assert images.shape == (2, model.model.image_dimensions)
    np.testing.assert_allclose(np.diag(model.similarity(one, one)), 1, atol=1e-5)
    np.testing.assert_allclose(model.similarity_pairwise(one, one), 1, atol=1e-5)
    parameters = inspect.signature(model.encode).parameters
    assert {"inputs", "task_metadata", "hf_split", "hf_subset", "prompt_type"} <= set(parameters)


@pytest.fixture
def clips_of_a_run(tmp_path):
    """A run with two kept clips and a refused one, and embeddings of one of them."""
    write_annotated(tmp_path, [10, 200], [0.1, 0.2], [["dog"], []], ["a", "b"])
    ledger = [LedgerRow("a_0", "a.mp4", "kept"), LedgerRow("x", "x", "refused", "no-sound", "none")]
    write_ledger(tmp_path / "data/scenes/ledger/00000.csv", [*ledger, LedgerRow("b_1", "b.mp4", "kept")])
    origin = Origin("m", "m", "f", "0", 2, 3, True, 0.5, True, False)
    audio = np.array([[1, 2], [3, 6], [9, 9]], np.float32)
    moments = MomentEmbeddings(
        np.arange(3) / 2, audio, None, np.array([False, False, True])
    )  # silence has no embedding
    rows = origin.rows(MediaFile("a_0", "", tmp_path, 0, 1), moments, "")
    pq.write_table(rows, tmp_path / "emb.parquet")
    return tmp_path


def test_the_clips_of_a_run_are_one_table(clips_of_a_run):
    table, embeddings = clips_of_a_run / "clips.parquet", clips_of_a_run / "emb.parquet"
    run("export", "--to", "parquet", "--root", clips_of_a_run, "--embeddings", embeddings, "--output", table)
    rows = pq.read_table(table).to_pylist()
    listed = [(row["clip_id"], row["status"], row["reason"]) for row in rows]
    assert listed == [("a_0", "kept", ""), ("b_1", "kept", ""), ("x", "refused", "no-sound")]
    assert rows[0]["annotations"] == ["dog"] and rows[0]["image_time"] == 1.1 and rows[0]["sound"][:4] == b"fLaC"
    assert rows[0]["image"] in rows[0]["frames"] and len(rows[0]["frames"]) == len(rows[0]["times"])
    assert [row["audio_embedding"] for row in rows] == [[2.0, 4.0], None, None]
    assert {row["image_embedding"] for row in rows} == {None} and rows[2]["image"] is None


def test_the_clips_of_a_run_are_a_recording_for_rerun(clips_of_a_run):
    chunks = pytest.importorskip("rerun.chunk")
    recording, embeddings = clips_of_a_run / "clips.rrd", clips_of_a_run / "emb.parquet"
    run("export", "--to", "rerun", "--root", clips_of_a_run, "--embeddings", embeddings, "--output", recording)
    paths = {str(chunk.entity_path) for chunk in chunks.RrdReader(recording).stream()}
    assert {"/clip/about", "/clip/sound", "/clip/frame", "/clip/embedding/audio", "/refused"} <= paths


def test_without_rerun_the_error_names_the_package(clips_of_a_run, monkeypatch):
    monkeypatch.setitem(sys.modules, "rerun", None)
    with pytest.raises(SystemExit, match="requires rerun-sdk; run pip install"):
        run("export", "--to", "rerun", "--root", clips_of_a_run, "--output", clips_of_a_run / "clips.rrd")


def test_the_clips_of_a_run_are_a_dataset_for_fiftyone(clips_of_a_run):
    fiftyone = pytest.importorskip("fiftyone")
    folder, embeddings = clips_of_a_run / "clips", clips_of_a_run / "emb.parquet"
    command = ("export", "--to", "fiftyone", "--root", clips_of_a_run, "--embeddings", embeddings, "--output", folder)
    run(*command)
    with pytest.raises(SystemExit, match="clips exists; remove it"):
        run(*command)
    dataset = fiftyone.Dataset.from_dir(str(folder), dataset_type=fiftyone.types.FiftyOneDataset)
    try:
        frames = dataset.match_tags("refused", bool=False).sort_by("time")
        assert sorted(set(frames.values("clip_id"))) == ["a_0", "b_1"] and len(dataset.load_saved_view("clips")) == 3
        dog = frames.match({"clip_id": "a_0"}).first()
        assert [each.label for each in dog.annotations.classifications] == ["dog"]
        assert dog.audio_embedding.tolist() == [2, 4] and (folder / dog.sound).read_bytes()[:4] == b"fLaC"
        assert {Path(path).read_bytes()[:2] for path in frames.values("filepath")} == {b"\xff\xd8"}
        (refused,) = dataset.match_tags("refused")
        assert (refused.clip_id, refused.reason, refused.detail) == ("x", "no-sound", "none")
    finally:
        dataset.delete()


def test_without_fiftyone_the_error_names_the_package(clips_of_a_run, monkeypatch):
    monkeypatch.setitem(sys.modules, "fiftyone", None)
    with pytest.raises(SystemExit, match="requires FiftyOne; run pip install"):
        run("export", "--to", "fiftyone", "--root", clips_of_a_run, "--output", clips_of_a_run / "clips")
