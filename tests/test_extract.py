"""The stage extract from its command line: every file becomes a row or a refusal, in any kind of corpus."""

import csv
import io
import json
import os
import shutil
import tarfile
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import PARAMS
from odd_media import LOSSLESS, MP4, TONE, render

from earshot.core.errors import EarshotError
from earshot.core.hashing import list_hash
from earshot.corpus.ledger import read_ledger
from earshot.corpus.split import split_of
from earshot.media.clips import read_listing, write_listing
from earshot.media.folders import clips_in_folder
from earshot.media.listing import list_shards
from earshot.pipeline.settings import settings
from earshot.scenes.annotations import read_annotations
from earshot.scenes.extraction import places
from earshot.scenes.table import SCHEMA, read_scenes
from earshot.scenes.writing import Scene, write_scenes
from stages.extract import STAGE, main

# All rendered clips show the same pattern, so that each is a duplicate of the others.
QUICK = (
    "corpus.ontology=none",
    "extract.frame_size=32",
    "extract.window_s=1.0",
    "extract.shard_clips=4",
    "extract.quality.duplicate=ignore",
)


@pytest.fixture(autouse=True)
def one_worker(monkeypatch):
    """Corpora this small are extracted fastest in one process."""
    monkeypatch.setenv("EARSHOT_WORKERS", "1")
    settings.cache_clear()
    yield
    settings.cache_clear()


@pytest.fixture(scope="session")
def media(tmp_path_factory) -> Path:
    """Four videos with sound and two unusable files."""
    folder = tmp_path_factory.mktemp("media")
    for number in range(4):
        render(folder / f"v{number}.mp4", *MP4, "-t", 2 + number / 4, sound=TONE.replace("440", str(300 + 50 * number)))
    render(folder / "mute.mp4", sound=None)
    (folder / "zero.mp4").touch()
    return folder


def extract(root: Path, clips: Path, *overrides: str) -> None:
    root.mkdir(parents=True, exist_ok=True)
    changes = (f"corpus.clips={clips}", *QUICK, *overrides)
    arguments = ["--params", str(PARAMS), "--root", str(root)]
    STAGE.run(main, arguments + [a for change in changes for a in ("--set", change)])


def scenes(root: Path) -> list[dict]:
    shards = sorted((root / "data" / "scenes").glob("*.parquet"))
    return [row for shard in shards for table in read_scenes(shard) for row in table.to_pylist()]


def ledger(root: Path) -> list:
    return [row for path in sorted((root / "data" / "scenes" / "ledger").glob("*.csv")) for row in read_ledger(path)]


def metrics(root: Path) -> dict:
    return json.loads((root / "metrics" / "extract.json").read_text())


def contents(root: Path) -> dict[str, bytes]:
    return {str(path.relative_to(root)): path.read_bytes() for path in (root / "data").rglob("*") if path.is_file()}


def tar(path: Path, files: dict[str, bytes]) -> None:
    with tarfile.open(path, "w") as archive:
        for name, data in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))


def listed(folder: Path, size: int, listings: Path) -> list:
    """The clips of a corpus as the stage lists them."""
    count = list_shards(folder, size, lambda number: listings / f"{number}.json")
    return [clip for number in range(count) for clip in read_listing(listings / f"{number}.json")]


def test_every_file_is_a_row_or_a_refusal_and_the_counts_add_up(tmp_path, media, capsys):
    extract(tmp_path, media)
    rows = ledger(tmp_path)
    assert [row.source for row in rows] == sorted(path.name for path in media.iterdir())
    assert {row.source: row.reason for row in rows if row.reason} == {"mute.mp4": "no-sound", "zero.mp4": "unreadable"}
    assert metrics(tmp_path) == {
        "clips_in": 6,
        "clips_kept": 4,
        "moments": 12,
        "refused_no-sound": 1,
        "refused_unreadable": 1,
        "clips_hash": list_hash(["v0", "v1", "v2", "v3"]),
    }
    assert [row["clip_id"] for row in scenes(tmp_path)] == [f"v{number}" for number in range(4)]
    assert "4 of 6 clips kept, 12 moments; refused: 1 no-sound, 1 unreadable" in capsys.readouterr().out


def test_rows_have_the_schema_and_say_what_they_hold(tmp_path, media):
    extract(tmp_path, media)
    shards = sorted((tmp_path / "data" / "scenes").glob("*.parquet"))
    assert [path.name for path in shards] == ["00000.parquet", "00001.parquet"]
    assert all(pq.read_schema(path).equals(SCHEMA) for path in shards)
    for row in scenes(tmp_path):
        assert len(row["frames"]) == len(row["times"]) == 3
        assert all(0.5 <= time <= row["duration"] - 0.5 for time in row["times"])
        assert row["times"] == sorted(row["times"])
        assert row["split"] == split_of(row["group"]) and row["group"] == row["clip_id"]
        assert (row["sound_rate"], row["sound_channels"]) == (44100, 1)
        assert row["duration"] == pytest.approx(2 + int(row["clip_id"][1:]) / 4, abs=0.1)


def test_extracting_twice_gives_the_same_bytes(tmp_path, media):
    extract(tmp_path / "one", media)
    extract(tmp_path / "two", media)
    assert contents(tmp_path / "one") == contents(tmp_path / "two")


def test_tar_shards_and_a_folder_of_the_same_clips_give_the_same_rows(tmp_path, media):
    tars, folder = tmp_path / "tars", tmp_path / "folder"
    tars.mkdir()
    folder.mkdir()
    names = sorted(path.name for path in media.iterdir())
    for number in range(2):
        files = {}
        for name in names[4 * number : 4 * number + 4]:
            metadata = {"group": f"video-{name}", "annotations": ["people; marching", name], "start": 0}
            files |= {name: (media / name).read_bytes(), f"{Path(name).stem}.json": json.dumps(metadata).encode()}
        tar(tars / f"{number:05d}.tar", files)
    with open(folder / "manifest.csv", "w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["path", "group", "annotations"])
        for name in names:
            shutil.copy(media / name, folder)
            rows.writerow([name, f"video-{name}", f"people;marching;{name}"])
    extract(tmp_path / "one", tars)
    extract(tmp_path / "two", folder)
    assert scenes(tmp_path / "one") == scenes(tmp_path / "two")
    assert {row["group"] for row in scenes(tmp_path / "one")} == {f"video-v{number}.mp4" for number in range(4)}
    assert [r.source for r in ledger(tmp_path / "one")] == [f"{i // 4:05d}.tar/{n}" for i, n in enumerate(names)]
    annotations = read_annotations(tmp_path / "one" / "data" / "annotations" / "00001.parquet")
    assert annotations == {"v3": ["people; marching", "v3.mp4"]}


def test_annotations_are_separate_from_scenes(tmp_path, media):
    folder = tmp_path / "folder"
    shutil.copytree(media, folder)
    (folder / "manifest.csv").write_text("file,label\nfolder/v0.mp4,a very telling word\nv1.mp4,b; c\n")
    extract(tmp_path, folder, "corpus.unmatched=warn")
    annotations = read_annotations(tmp_path / "data" / "annotations" / "00000.parquet")
    assert annotations == {"v0": ["a very telling word"], "v1": ["b", "c"], "v2": []}
    assert b"telling" not in (tmp_path / "data" / "scenes" / "00000.parquet").read_bytes()


def test_sub_folders_and_odd_names_count_and_clip_ids_are_unique(tmp_path, media):
    folder = tmp_path / "folder"
    (folder / "deep" / "er").mkdir(parents=True)
    names = ["a.mp4", "a.mkv", "deep/er/b.mp4", 'it\'s "c"\nd.mp4', "deep/a b.mp4", "deep_a_b.mp4", "Käse.MP4"]
    for name in (*names, os.fsdecode(b"\xff.mp4")):
        shutil.copy(media / "v0.mp4", folder / name)
    for aside in (".hidden.mp4", "notes.txt", "a.srt", "deep/thumbnail.JPG"):
        (folder / aside).write_text("not a clip")
    clips = listed(folder, 3, tmp_path / "all")
    ids = [clip.clip_id for clip in clips]
    assert len(set(ids)) == len(ids) == 8
    assert {"deep_er_b", "it_s_c_d", "Käse", "_"} < set(ids)
    (folder / "a.mkv").unlink()
    assert "a" in [clip.clip_id for clip in listed(folder, 3, tmp_path / "without")]
    before = {clip.source: clip.clip_id for clip in clips}
    shutil.copy(media / "v0.mp4", folder / "a.avi")
    shutil.copy(media / "v0.mp4", folder / "a.mkv")
    after = {clip.source: clip.clip_id for clip in listed(folder, 3, tmp_path / "more")}
    assert {source: after[source] for source in before} == before  # names do not depend on who else shares them
    extract(tmp_path, folder)
    assert metrics(tmp_path)["clips_kept"] == 9


def test_nothing_outside_the_folder_is_read(tmp_path, media):
    outside, folder = tmp_path / "outside", tmp_path / "folder"
    for target in (outside, folder):
        target.mkdir()
        shutil.copy(media / "v0.mp4", target / "v.mp4")
    (folder / "link.mp4").symlink_to(outside / "v.mp4")
    (folder / "inner.mp4").symlink_to("v.mp4")
    (folder / "gone.mp4").symlink_to("missing.mp4")
    (folder / "linked").symlink_to(outside)
    os.mkfifo(folder / "pipe.mp4")
    (folder / "manifest.csv").write_text("path,group\nv.mp4,g\n../outside/v.mp4,h\n/etc/passwd,i\n")
    with pytest.raises(SystemExit):
        extract(tmp_path, folder)
    extract(tmp_path, folder, "corpus.unmatched=warn")
    outcome = {row.source: row.reason for row in ledger(tmp_path)}
    refused = dict.fromkeys(["link.mp4", "gone.mp4", "linked", "pipe.mp4"], "unsupported")
    assert outcome == {"v.mp4": "", "inner.mp4": ""} | refused


def test_a_tar_holds_only_what_is_in_it(tmp_path, media):
    clip = (media / "v0.mp4").read_bytes()
    shards = tmp_path / "shards"
    shards.mkdir()
    tar(shards / "00000.tar", {"../../escape.mp4": clip, "/abs/olute.mp4": clip, "deep/er.mp4": clip, "no.txt": b"x"})
    with tarfile.open(shards / "00000.tar", "a") as archive:
        for name, kind in (("sym.mp4", tarfile.SYMTYPE), ("hard.mp4", tarfile.LNKTYPE), ("fifo.mp4", tarfile.FIFOTYPE)):
            member = tarfile.TarInfo(name)
            member.type, member.linkname = kind, "/etc/passwd"
            archive.addfile(member)
    extract(tmp_path, shards)
    outcome = {row.clip_id: row.reason for row in ledger(tmp_path)}
    refused = dict.fromkeys(["sym", "hard", "fifo"], "unsupported")
    assert outcome == {".._.._escape": "", "_abs_olute": "", "deep_er": ""} | refused


def test_a_broken_shard_costs_only_what_is_lost_and_is_in_the_ledger(tmp_path, media):
    shards = tmp_path / "shards"
    shards.mkdir()
    files = {f"v{number}.mp4": (media / f"v{number}.mp4").read_bytes() for number in range(4)}
    files |= {"v1.json": b"{not json", "v2.json": b"[1, 2]", "v3.json": b'{"group": "g"}'}
    tar(shards / "00000.tar", files)
    tar(shards / "00001.tar", files)
    whole = (shards / "00001.tar").read_bytes()
    (shards / "00001.tar").write_bytes(whole[: len(files["v0.mp4"]) + 2000])
    (shards / "00002.tar").write_bytes(b"")
    extract(tmp_path, shards)
    outcome = {row.source: row.reason for row in ledger(tmp_path)}
    assert outcome == {
        "00000.tar/v0.mp4": "",
        "00000.tar/v1.mp4": "unreadable",
        "00000.tar/v2.mp4": "unreadable",
        "00000.tar/v3.mp4": "",
        "00001.tar/v0.mp4": "",
        "00001.tar/v1.mp4": "unreadable",
        "00001.tar": "unreadable",
        "00002.tar": "unreadable",
    }
    assert len({row.clip_id for row in ledger(tmp_path)}) == 8
    assert len(list((tmp_path / "data" / "scenes").glob("*.parquet"))) == 3


def test_random_times_depend_only_on_the_seed_and_the_clip():
    drawn = {(seed, clip): places(clip, 5, "random", seed) for seed in (0, 1) for clip in ("a", "b")}
    assert len(set(drawn.values())) == 4
    assert drawn[0, "a"] == places("a", 5, "random", 0)
    assert all(moment / 5 <= place < (moment + 1) / 5 for times in drawn.values() for moment, place in enumerate(times))
    assert places("a", 5, "even", 0) == places("b", 5, "even", 1) == (0.1, 0.3, 0.5, 0.7, 0.9)


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({}, "holds no videos"),
        ({"notes.txt": "x"}, "holds no videos"),
        ({"00000.tar": "", "v.mp4": ""}, "tar shards and also v.mp4"),
        ({"v.mp4": "", "manifest.csv": "group,label\na,b\n"}, "group, label, expected one named file or path"),
        ({"v.mp4": "", "manifest.csv": "path,group\nw.mp4,b\n"}, "names none of the 1 files"),
    ],
)
def test_an_invalid_corpus_is_refused_in_a_line(tmp_path, files, message):
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    with pytest.raises(EarshotError, match=message):
        listed(tmp_path, 10, tmp_path / ".listings")


def test_listings_come_back_as_they_were_written(tmp_path, media):
    clips = list(clips_in_folder(media))
    clips[0] = replace(clips[0], refusal=("unsupported", "x"), annotations=("a", "b"), source="caf\udce9")
    write_listing(tmp_path / "00000.json", clips)
    assert read_listing(tmp_path / "00000.json") == clips


def scene(number: int, size: int) -> Scene:
    return Scene(f"c{number}", "g", 2.0, [b"j" * size], [1.0], b"f" * size, 44100, 2)


def test_scenes_are_written_and_read_in_groups_of_bounded_size(tmp_path):
    assert write_scenes(tmp_path / "many.parquet", (scene(i, 10) for i in range(60))) == 60
    assert [len(table) for table in read_scenes(tmp_path / "many.parquet", ["clip_id"])] == [25, 25, 10]
    write_scenes(tmp_path / "large.parquet", (scene(i, 20 << 20) for i in range(4)))
    assert [len(table) for table in read_scenes(tmp_path / "large.parquet")] == [2, 2]
    write_scenes(tmp_path / "none.parquet", [])
    assert list(read_scenes(tmp_path / "none.parquet")) == []
    table = pa.concat_tables(read_scenes(tmp_path / "many.parquet"))
    assert table.schema.equals(SCHEMA) and set(table["split"].to_pylist()) == {split_of("g")}


def test_surround_and_lossless_material_in_one_folder(tmp_path):
    folder = tmp_path / "folder"
    folder.mkdir()
    surround = f"{TONE},pan=5.1|FL=c0|FR=c0|FC=c0|LFE=c0|BL=c0|BR=c0"
    render(folder / "surround.mkv", "-c:v", "libx264", "-c:a", "ac3", sound=surround)
    render(folder / "slow.mkv", *LOSSLESS, "-ar", 8000, "-r", 2)
    extract(tmp_path, folder)
    formats = {row["clip_id"]: (row["sound_rate"], row["sound_channels"]) for row in scenes(tmp_path)}
    assert formats == {"surround": (44100, 2), "slow": (8000, 1)}


def test_the_fixtures_are_kept_or_refused_for_a_true_reason(tmp_path, real_data):
    extract(tmp_path, real_data / "fixtures")
    reasons = {row.clip_id: row.reason for row in ledger(tmp_path)}
    assert len(reasons) == 8
    assert {clip_id: reason for clip_id, reason in reasons.items() if reason} == {
        "no_audio_1s": "no-sound",
        "no_audio_portrait": "no-sound",
        "bento_1s_portrait": "too-short",
    }


@pytest.mark.slow
def test_all_real_clips_are_kept_with_the_groups_of_their_manifest(tmp_path, real_data):
    extract(tmp_path, real_data / "clips", "extract.frames=10", "extract.shard_clips=20")
    with open(real_data / "clips" / "manifest.csv", newline="") as file:
        groups = {Path(row["file"]).stem: row["group"] for row in csv.DictReader(file)}
    assert {row["clip_id"]: row["group"] for row in scenes(tmp_path)} == groups
    counts = {"clips_in": len(groups), "clips_kept": len(groups), "moments": 10 * len(groups)}
    assert metrics(tmp_path) == counts | {"clips_hash": list_hash(groups)}


def test_the_ontology_is_put_beside_the_annotations(tmp_path, media):
    text = '[{"id": "/m/1", "name": "dog", "child_ids": [], "restrictions": []}]'
    (tmp_path / "ontology.json").write_text(text)
    (tmp_path / "broken.json").write_text(text.replace("name", "title"))
    extract(tmp_path / "with", media, f"corpus.ontology={tmp_path / 'ontology.json'}")
    assert (tmp_path / "with/data/annotations/ontology.json").read_text() == text
    extract(tmp_path / "without", media)
    assert not (tmp_path / "without/data/annotations/ontology.json").exists()
    with pytest.raises(SystemExit, match="broken.json, class 1: expected id and name"):
        extract(tmp_path / "broken", media, f"corpus.ontology={tmp_path / 'broken.json'}")
