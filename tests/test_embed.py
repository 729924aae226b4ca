"""The command embed: every file has its rows or a reason, a run that was stopped continues, memory stays flat."""

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import soundfile
import torch
from conftest import earshot as run
from odd_media import MP4, render
from peak_memory import measured
from PIL import Image
from test_embedding import RATE, noise, saved

import earshot
from earshot.core.errors import EarshotError
from earshot.corpus.ledger import read_ledger
from earshot.embedding import files
from earshot.embedding.table import read_origin
from earshot.networks.correspondence import build_correspondence


@pytest.fixture(scope="module")
def network(tmp_path_factory) -> str:
    torch.manual_seed(0)
    built = build_correspondence("ave", width=1 / 16, image_size=32, stride=2)
    return saved(tmp_path_factory.mktemp("network"), built)


@pytest.fixture(scope="module")
def clips(tmp_path_factory) -> Path:
    """A video, a sound whose second half is silent, an image, and what is none of these."""
    folder = tmp_path_factory.mktemp("clips")
    render(folder / "video.mp4", *MP4)
    half = np.concatenate([noise(2.0), np.zeros(2 * RATE, np.float32)])
    soundfile.write(folder / "half.flac", half, RATE)
    soundfile.write(folder / "tiny.wav", noise(0.05), RATE)
    Image.fromarray(np.full((40, 60, 3), 200, np.uint8)).save(folder / "image.jpg")
    (folder / "broken.mp4").write_bytes((folder / "video.mp4").read_bytes()[:5000])
    return folder


pytestmark = pytest.mark.usefixtures("one_process")


def test_a_table_holds_the_embeddings_of_the_model_and_the_ledger_every_file(network, clips, tmp_path):
    output = tmp_path / "emb.parquet"
    named = [clips / name for name in ("video.mp4", "half.flac", "tiny.wav", "image.jpg", "broken.mp4")]
    run("embed", *named, "--model", network, "--output", output, "--hop", 0.5)
    table, model = pq.read_table(output), earshot.load(network)
    assert read_origin(output).fingerprint == model.fingerprint and read_origin(output).hop_s == 0.5
    rows = {name: [row for row in table.to_pylist() if row["clip_id"] == name] for name in ("video", "half", "image")}
    assert len(table) == sum(map(len, rows.values()))
    both = model.embed_video(clips / "video.mp4", hop=0.5)
    for name, expected in (("audio", both.audio), ("images", both.images), ("time", both.times)):
        np.testing.assert_allclose([row[name] for row in rows["video"]], expected, atol=1e-6)
    silent = [row["silent"] for row in rows["half"]]
    assert silent == [row["time"] >= 2.5 for row in rows["half"]] == [row["audio"] is None for row in rows["half"]]
    assert all(row["images"] is None for row in rows["half"])
    (image,) = rows["image"]
    np.testing.assert_allclose(image["images"], model.embed_image(clips / "image.jpg"), atol=1e-5)
    ledger = {row.clip_id: row for row in read_ledger(tmp_path / "emb.ledger.csv")}
    assert {name: row.reason for name, row in ledger.items()} == {
        "video": "", "half": "", "tiny": "too-short", "image": "", "broken": "unreadable"
    }  # fmt: skip
    assert sorted(path.name for path in tmp_path.iterdir()) == ["emb.ledger.csv", "emb.parquet"]


def test_a_pooled_row_is_the_mean_of_what_is_not_silent(network, clips, tmp_path):
    run("embed", clips / "half.flac", "--model", network, "--output", tmp_path / "emb.parquet", "--pool", "--hop", 0.5)
    (row,) = pq.read_table(tmp_path / "emb.parquet").to_pylist()
    embeddings, times = earshot.load(network).embed_audio(clips / "half.flac", hop=0.5)
    np.testing.assert_allclose(row["audio"], embeddings[times < 2.5].mean(axis=0), atol=1e-6)
    assert row["time"] is None


def test_a_folder_of_npz_is_what_openl3_writes(clips, tmp_path):
    run("embed", clips, "--model", "texture", "--output", tmp_path / "npz", "--hop", 1)
    assert sorted(path.name for path in (tmp_path / "npz").iterdir()) == ["half.npz", "video.npz"]
    with np.load(tmp_path / "npz" / "half.npz") as held:
        embeddings, times = earshot.load("texture").embed_audio(clips / "half.flac", hop=1)
        np.testing.assert_array_equal(held["embedding"], embeddings)
        np.testing.assert_array_equal(held["timestamps"], times)
        assert str(held["fingerprint"]) == earshot.load("texture").fingerprint


def test_a_run_that_was_stopped_continues_and_another_model_begins_anew(network, clips, tmp_path, monkeypatch):
    named = [clips / "half.flac"] * 3 + [clips / "video.mp4"]
    monkeypatch.setattr(files, "SHARD_FILES", 1)
    embedded, original = [], files.embed_shard

    def stopping(task, number):
        embedded.append(number)
        if len(embedded) == 3:
            raise EarshotError("stopped")
        return original(task, number)

    monkeypatch.setattr(files, "embed_shard", stopping)
    words = ["embed", *named, "--model", network, "--output", tmp_path / "emb.parquet", "--hop", 1]
    with pytest.raises(SystemExit, match="stopped"):
        run(*words)
    assert embedded == [0, 1, 2] and not (tmp_path / "emb.parquet").exists()
    run(*words)
    assert embedded == [0, 1, 2, 2, 3]
    names = pq.read_table(tmp_path / "emb.parquet", columns=["clip_id"])["clip_id"].unique().to_pylist()
    assert len(names) == 4  # files of one name have names of their own


def test_what_cannot_be_is_said_at_once(network, tmp_path):
    for words, message in {
        ("nothing.wav", "--output", tmp_path / "emb.parquet"): "no such file or folder; give files, tars or folders",
        (network, "--output", tmp_path / "npz", "--pool"): "--pool gives a row a file",
        (network, "--output", tmp_path / "emb.parquet", "--hop", 0): "expected seconds above 0",
    }.items():
        with pytest.raises(SystemExit, match=message):
            run("embed", *words, "--model", network)


@pytest.mark.slow
def test_memory_does_not_grow_with_the_length_of_a_file(network, tmp_path):
    def peak(minutes: int) -> float:
        file = tmp_path / f"{minutes}.wav"
        with soundfile.SoundFile(file, "w", RATE, 2) as opened:
            for minute in range(minutes):
                opened.write(np.stack([noise(60, minute)] * 2, axis=1))
        work = "sum(len(m.times) for m in model.moments_of(model._reader.read(path, options), 1.0, True, 64))"
        imports = (
            "import earshot; from pathlib import Path; model = earshot.load(sys.argv[1]); path = Path(sys.argv[2]);"
            "options = model.stream_options(1.0); model.embed_audio(path.with_name('1.wav'), hop=1.0)"
        )
        number, megabytes, _ = measured(imports, work, network, file)
        assert number == minutes * 60 + 1
        return megabytes

    short = peak(1)
    assert short + 60 > peak(10)  # ten minutes of this sound take 230 MB
