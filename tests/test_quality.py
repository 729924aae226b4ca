"""Quality: silent, still, clipped and duplicate clips are recognized, and refused or flagged."""

import csv
import hashlib
import json
import shutil
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pytest
import soundfile
from conftest import PARAMS, earshot
from odd_media import BLEND, MP4, decode, ffmpeg, render

import stages.extract
from earshot.core.hashing import list_hash
from earshot.core.params import load_params
from earshot.corpus.completeness import MAX_CLASSES, OTHERS, Completeness
from earshot.corpus.ledger import LedgerRow, Refusal, read_ledger, write_ledger
from earshot.corpus.manifest import ManifestRow
from earshot.corpus.requested import row_text
from earshot.corpus.split import split_of
from earshot.media.quality import Measured, audio_print, measure, quality_flags
from earshot.params.extract import ExtractParams
from earshot.pipeline.settings import settings
from earshot.scenes.annotations import read_annotations
from earshot.scenes.duplicates import CorpusPrints, Prints, first_of_each, read_duplicates, write_duplicates
from earshot.scenes.table import read_scenes
from earshot.scenes.writing import Scene, write_scenes
from stages.extract import STAGE, main

QUALITY = load_params(ExtractParams, PARAMS).extract.quality
RATE = 22050
MANDELBROT = "mandelbrot=s=96x64:r=10:end_scale=0.01:end_pts=30,trim=duration=3"
LIFE = "life=s=96x64:mold=10:r=10:ratio=0.3:seed={}:death_color=blue:life_color=white,trim=duration=3"
# As a site compresses it again: another size and rate, a weaker codec, one channel, softer.
AGAIN = ("-vf", "scale=64:48", "-c:v", "mpeg4", "-q:v", 8, "-c:a", "aac", "-b:a", "48k", "-ac", 1, "-ar", 32000)
AGAIN += ("-af", "volume=0.5")


def notes(seed: int, seconds: float = 3.0) -> np.ndarray:
    """Sixty tones and some noise, int16 (samples, 2)."""
    draw, time = np.random.default_rng(seed), np.arange(int(seconds * RATE)) / RATE
    sound = 0.01 * draw.standard_normal(len(time))
    for start, pitch in zip(draw.uniform(0, seconds, 60), draw.uniform(200, 3400, 60), strict=True):
        sound += 0.1 * np.sin(2 * np.pi * pitch * time) * np.exp(-8 * np.abs(time - start))
    return np.repeat((sound * 20000).astype(np.int16)[:, None], 2, axis=1)


def video(path: Path, image: str, sound: int) -> Path:
    """A video of a moving pattern with the notes of a seed."""
    soundfile.write(path.with_suffix(".wav"), notes(sound), RATE)
    ffmpeg("-f", "lavfi", "-i", image, "-i", path.with_suffix(".wav"), *MP4, "-shortest", path)
    path.with_suffix(".wav").unlink()
    return path


@pytest.fixture(scope="module")
def corpus(tmp_path_factory) -> Path:
    """Five videos: b is a compressed again, d has the sound of a and e its images, c differs; a and e share a group."""
    folder = tmp_path_factory.mktemp("corpus")
    video(folder / "a.mp4", MANDELBROT, 1)
    ffmpeg("-i", folder / "a.mp4", *AGAIN, folder / "b.mp4")
    video(folder / "c.mp4", LIFE.format(3), 2)
    video(folder / "d.mp4", LIFE.format(8), 1)
    video(folder / "e.mp4", MANDELBROT, 5)
    rows = ["file,group,annotations", "a.mp4,one,bell", "b.mp4,two,bell", "c.mp4,three,", "d.mp4,four,bell;dog"]
    (folder / "manifest.csv").write_text("\n".join([*rows, "e.mp4,one,dog"]))
    return folder


def extract(root: Path, clips: Path, *overrides: str) -> dict:
    """Run the stage in this process; its metrics."""
    root.mkdir(parents=True, exist_ok=True)
    changes = (
        "corpus.ontology=none",
        f"corpus.clips={clips}",
        "extract.frame_size=32",
        "extract.window_s=1",
        "extract.shard_clips=2",
    )
    changes += overrides
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EARSHOT_WORKERS", "1")
        settings.cache_clear()
        STAGE.run(main, ["--params", str(PARAMS), "--root", str(root), *(f"--set={change}" for change in changes)])
    settings.cache_clear()
    return json.loads((root / "metrics/extract.json").read_text())


def scenes(root: Path) -> dict[str, dict]:
    shards = sorted((root / "data/scenes").glob("*.parquet"))
    return {row["clip_id"]: row for shard in shards for table in read_scenes(shard) for row in table.to_pylist()}


def ledger(root: Path) -> dict[str, LedgerRow]:
    return {row.clip_id: row for path in (root / "data/scenes/ledger").iterdir() for row in read_ledger(path)}


def contents(root: Path) -> dict[str, bytes]:
    files = [path for name in ("data", "metrics") for path in (root / name).rglob("*") if path.is_file()]
    return {str(path.relative_to(root)): path.read_bytes() for path in files}


# What is measured of one clip.


def thumbnails(change: int = 0) -> list[np.ndarray]:
    gray = np.full((8, 32, 32), 100, np.uint8)
    gray[4:, :4] += change  # an eighth of the image
    return list(gray)


def test_loudness_and_samples_at_full_scale_are_counted():
    sound = np.zeros((1000, 2), np.int16)
    sound[:30, 0], sound[:20, 1], sound[500] = 32767, -32768, 1000
    assert measure(sound, RATE, thumbnails()).clipped == pytest.approx(50 / 2000)
    measured = measure(sound[100:], RATE, thumbnails())
    assert (measured.peak, measured.clipped) == (pytest.approx(1000 / 32767), 0)
    assert measure(sound[:0], RATE, thumbnails()) == Measured(0, 0, 0, "", "")


@pytest.mark.parametrize("change", [0, 7, 120])
def test_change_is_that_of_the_liveliest_part_of_the_image(change):
    assert measure(notes(1), RATE, thumbnails(change)).change == change


@pytest.mark.parametrize("options", [MP4, (*MP4, "-crf", 40, "-g", 10), ("-c:v", "mpeg4", "-q:v", 20, "-g", 12)])
def test_an_image_that_only_its_coding_changes_is_still_and_one_that_moves_is_not(tmp_path, options):
    still = decode(render(tmp_path / "still.mkv", *options, image=BLEND)).measured
    assert still.change <= QUALITY.still_change and not still.image_print
    assert quality_flags(still, QUALITY) == ["still"]
    assert decode(render(tmp_path / "moving.mkv", *options)).measured.change > 4 * QUALITY.still_change


def test_silence_and_a_single_click_have_no_fingerprint():
    click = np.zeros((3 * RATE, 1), np.int16)
    assert audio_print(click, RATE) == b""
    click[RATE : RATE + 2000] = notes(1)[:2000, :1]
    assert audio_print(click, RATE) == b""
    assert audio_print(notes(1)[:500], RATE) == b"" == audio_print(notes(1), 4000)  # too short, and too low a rate


def test_a_clip_is_recognized_at_another_rate_in_one_channel_and_softer(corpus):
    a, b, c = (decode(corpus / f"{name}.mp4").measured for name in "abc")
    for kind, share in (("audio_print", QUALITY.duplicate_audio), ("image_print", QUALITY.duplicate_image)):
        one, again, other = (np.unpackbits(np.frombuffer(bytes.fromhex(getattr(m, kind)), np.uint8)) for m in (a, b, c))
        assert np.mean(one != again) <= share / 2 < 2 * share < np.mean(one != other)


@pytest.mark.parametrize("reason", ["silent", "still", "clipped"])
def test_each_reason_is_refused_flagged_or_ignored(reason):
    faults = {"silent": {"peak": 0.0}, "still": {"change": 0.0}, "clipped": {"clipped": 0.5}}
    measured = replace(Measured(), **faults[reason])
    options = dict.fromkeys(faults, "ignore") | {"silent_peak": 0.001, "still_change": 12.0, "clipped_share": 0.01}
    assert quality_flags(measured, SimpleNamespace(**options)) == []
    assert quality_flags(measured, SimpleNamespace(**options | {reason: "flag"})) == [reason]
    with pytest.raises(Refusal) as refusal:
        quality_flags(measured, SimpleNamespace(**options | {reason: "refuse"}))
    assert refusal.value.reason == reason


# Duplicates.


def related(draw: np.random.Generator, clips: int, words: int) -> np.ndarray:
    """Fingerprints of which some are others with a few bits changed, and some are none."""
    bits = draw.random((clips, words * 64)) < 0.5
    for clip in range(clips // 2):
        bits[clip] = bits[draw.integers(clips)] ^ (draw.random(words * 64) < 0.03)
    bits[draw.random(clips) < 0.1] = False
    return np.packbits(bits, axis=1).view(np.uint64)


def plainly_first(ids: list[str], groups: np.ndarray, kinds: list[np.ndarray], limits: list[int]) -> list[int]:
    """For each clip the first by id that stays and is the same, by comparing all with all."""

    def same(one: int, other: int) -> bool:
        verdicts = [
            int(np.bitwise_count(words[one] ^ words[other]).sum()) <= limit
            for words, limit in zip(kinds, limits, strict=True)
            if words[one].any() and words[other].any()
        ]
        return any(verdicts) and (groups[one] != groups[other] or all(verdicts))

    stay: list[int] = []
    firsts = list(range(len(ids)))
    for clip in sorted(firsts, key=lambda clip: ids[clip]):
        firsts[clip] = next((first for first in stay if same(first, clip)), clip)
        stay += [clip] if firsts[clip] == clip else []
    return firsts


@pytest.mark.parametrize("seed", range(8))
def test_duplicates_are_those_that_comparing_all_with_all_finds(seed):
    draw, clips = np.random.default_rng(seed), 60
    kinds, limits = [related(draw, clips, 4), related(draw, clips, 8)], [38, 40]
    ids = [f"clip{number}" for number in draw.permutation(clips)]
    groups = draw.integers(clips // 2, size=clips)
    prints = [Prints(words, words.any(1), limit) for words, limit in zip(kinds, limits, strict=True)]
    firsts = first_of_each(CorpusPrints(pa.chunked_array([ids[:20], ids[20:]]), groups, np.array([0, 20]), *prints))
    assert firsts.tolist() == plainly_first(ids, groups, kinds, limits)
    assert len(set(firsts)) < 45


def test_thousands_of_equal_clips_have_one_first_and_shards_list_their_own(tmp_path):
    prints = {"audio_print": "ab" * 32, "image_print": "cd" * 64}
    for shard in range(3):
        rows = [
            Scene(f"c{shard}{row:04d}", f"g{shard}{row}", 2.0, [b""], [1.0], b"", 1, 1, measured=Measured(**prints))
            for row in range(1000)
        ]
        write_scenes(tmp_path / f"{shard:05d}.parquet", rows)
    write_duplicates(sorted(tmp_path.glob("*.parquet")), tmp_path / "duplicates", 0.15, 0.08)
    lists = [read_duplicates(tmp_path / "duplicates", shard) for shard in range(3)]
    assert [len(each) for each in lists] == [999, 1000, 1000] and "c00000" not in lists[0]
    assert set(lists[2].values()) == {"the same as c00000 (bits that differ: sound 0.0%, image 0.0%)"}


@pytest.fixture(scope="module")
def refused(tmp_path_factory, corpus) -> Path:
    """The root of a run that refuses duplicates, as it does by default."""
    root = tmp_path_factory.mktemp("refused")
    extract(root, corpus)
    return root


def test_a_refused_duplicate_is_in_the_ledger_and_in_no_table(refused):
    metrics = json.loads((refused / "metrics/extract.json").read_text())
    counts = {"clips_in": 5, "clips_kept": 3, "moments": 9, "refused_duplicate": 2}
    assert metrics == counts | {"clips_hash": list_hash("ace")}
    assert list(scenes(refused)) == ["a", "c", "e"]  # e has the images of a, but is cut from the same video
    rows = ledger(refused)
    assert {clip: row.reason for clip, row in rows.items() if row.reason} == dict.fromkeys("bd", "duplicate")
    assert rows["d"].detail.startswith("the same as a (bits that differ: sound 0.0%, image ")
    annotations = [read_annotations(path) for path in sorted((refused / "data/annotations").glob("*.parquet"))]
    assert annotations == [{"a": ["bell"]}, {"c": []}, {"e": ["dog"]}]


@pytest.fixture(scope="module")
def flagged(tmp_path_factory, corpus) -> Path:
    """The root of a run that flags duplicates."""
    root = tmp_path_factory.mktemp("flagged")
    extract(root, corpus, "extract.quality.duplicate=flag", "extract.quality.clipped_share=0")
    return root


def test_flagged_duplicates_stay_with_their_flags_and_ignored_ones_without(flagged, tmp_path, corpus):
    metrics = json.loads((flagged / "metrics/extract.json").read_text())
    assert metrics == {"clips_in": 5, "clips_kept": 5, "moments": 15, "flagged_duplicate": 2} | {
        "clips_hash": list_hash("abcde")
    }
    flags = {clip: row["flags"] for clip, row in scenes(flagged).items()}
    assert flags == {"a": [], "b": ["duplicate"], "c": [], "d": ["duplicate"], "e": []}
    extract(tmp_path / "ignore", corpus, "extract.quality.duplicate=ignore")
    assert not any(row.pop("flags") for row in scenes(tmp_path / "ignore").values())


@pytest.mark.parametrize("outcome", ["refuse", "flag"])
def test_a_run_stopped_among_the_duplicates_gives_the_same_outputs(request, tmp_path, corpus, monkeypatch, outcome):
    changes = (f"extract.quality.duplicate={outcome}", "extract.quality.clipped_share=0")
    whole = request.getfixturevalue({"refuse": "refused", "flag": "flagged"}[outcome])
    finish, decoded = stages.extract.finish_shard, []

    def stop_after_one(extraction, number):
        finish(extraction, number)
        raise KeyboardInterrupt

    monkeypatch.setattr(stages.extract, "finish_shard", stop_after_one)
    with pytest.raises(SystemExit):
        extract(tmp_path, corpus, *changes)
    monkeypatch.setattr(stages.extract, "finish_shard", finish)
    monkeypatch.setattr(stages.extract, "extract_shard", lambda _, number: decoded.append(number))
    extract(tmp_path, corpus, *changes)
    assert not decoded
    assert contents(tmp_path) == contents(whole)


def test_a_worker_that_is_late_with_a_shard_brings_no_duplicate_back(refused, tmp_path, corpus, monkeypatch):
    """The scheduler has given it up, but it continues after another worker has finished its shard."""
    finish = stages.extract.finish_shard

    def late(extraction, number):
        counts = finish(extraction, number)
        stages.extract.extract_shard(extraction, number)
        return counts

    monkeypatch.setattr(stages.extract, "finish_shard", late)
    extract(tmp_path, corpus)
    assert contents(tmp_path) == contents(refused)


# The list of clips, and the missing ones.


def test_the_hash_of_a_list_is_the_one_that_is_described():
    items = ["b", "a", "caf\u00e9", "\udce9", ""]
    digests = sorted(hashlib.sha256(item.encode("utf-8", "surrogateescape")).digest() for item in items)
    assert list_hash(items) == list_hash(reversed(items)) == hashlib.sha256(b"".join(digests)).hexdigest()[:16]
    assert len({list_hash(items[:number]) for number in range(6)}) == 6


def test_requested_clips_that_were_not_downloaded_are_counted_by_split_and_class(tmp_path, corpus, capsys):
    clips = tmp_path / "clips"
    shutil.copytree(corpus, clips / "inner")
    (clips / "inner" / "manifest.csv").rename(clips / "manifest.csv")
    text = (clips / "manifest.csv").read_text()
    (clips / "manifest.csv").write_text(text.replace("\n", "\ninner/"))
    rows = [("x", "group0", ["bell"], "refused", "private"), ("y", "group1", [], "pending", "network")]
    rows.append(("z", "group2", ["bell", "a\nbell"], "kept", ""))  # kept: extract counts it
    requested = [ManifestRow(name, name, 0.0, 1.0, group, words, is_local=True) for name, group, words, *_ in rows]
    (clips / "requested").mkdir()
    (clips / "requested/00000.jsonl").write_bytes(b"".join(map(row_text, requested)))
    write_ledger(clips / "ledger/00000.csv", [LedgerRow(name, name, *became) for name, _, _, *became in rows])
    extract(tmp_path, clips)
    with open(tmp_path / "metrics/completeness.csv", newline="") as file:
        table = {(row["split"], row["class"]): row for row in csv.DictReader(file)}
    columns = ("requested", "kept", "pending", "refused", "refused_duplicate", "refused_private")
    counts = {place: tuple(int(row[name]) for name in columns) for place, row in table.items()}
    assert counts["all", ""] == (7, 3, 1, 3, 2, 1)
    assert counts["all", "bell"] == (4, 1, 0, 3, 2, 1)
    assert counts["all", "dog"] == (2, 1, 0, 1, 1, 0)
    assert table["all", "bell"]["share_kept"] == "0.25"
    by_split = [counts[split, ""] for split in ("train", "val", "test") if (split, "") in counts]
    assert tuple(map(sum, zip(*by_split, strict=True))) == counts["all", ""]
    groups = ["one", "two", "three", "four", "one", "group0", "group1"]
    assert counts["train", ""][0] == sum(split_of(group) == "train" for group in groups)
    capsys.readouterr()
    earshot("completeness", "--root", tmp_path)
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert lines[1][:7] == ["all", "3", "of", "7", "42.9%", "2", "duplicate,"]
    assert [line[0] for line in lines if line and line[0] in ("bell", "dog")] == ["bell", "dog"]  # the worst first
    assert lines[-1][-1] == json.loads((tmp_path / "metrics/extract.json").read_text())["clips_hash"]


def test_sentences_for_classes_do_not_fill_the_memory():
    counts = Completeness()
    for number in range(MAX_CLASSES + 500):
        counts.add("train", f"sentence {number}", "kept", 1)
    rows = counts.rows()
    assert len(rows) <= 2 * (MAX_CLASSES + 2)
    assert sum(row["kept"] for row in rows if row["split"] == "train") == MAX_CLASSES + 500
    assert next(row["kept"] for row in rows if row["class"] == OTHERS) >= 499


@pytest.mark.parametrize("content", [None, "", "a,b\n1,2\n"])
def test_a_missing_or_other_table_is_one_line(tmp_path, content):
    if content is not None:
        (tmp_path / "metrics").mkdir()
        (tmp_path / "metrics/completeness.csv").write_text(content)
    with pytest.raises(SystemExit, match=r"^earshot completeness: .*completeness\.csv.*run the stage extract"):
        earshot("completeness", "--root", tmp_path)


# Real media.


def test_of_the_fixtures_the_silent_one_is_flagged(tmp_path, real_data):
    metrics = extract(tmp_path, real_data / "fixtures")
    flagged = {clip: row["flags"] for clip, row in scenes(tmp_path).items() if row["flags"]}
    assert flagged == {"digital_silence_audio": ["silent"]}
    assert metrics["flagged_silent"] == 1 and "refused_duplicate" not in metrics


@pytest.mark.slow
def test_real_clips_coded_again_are_duplicates_and_no_others_are(tmp_path, real_data):
    folder = tmp_path / "clips"
    folder.mkdir()
    originals = sorted((real_data / "clips").glob("*.mp4"))
    for number, path in enumerate(originals):
        shutil.copy(path, folder / path.name)
        if number % 4 == 0:
            again = ("-vf", "scale=-2:240", "-c:v", "libx264", "-preset", "veryfast", "-crf", 32, "-c:a", "aac")
            ffmpeg("-i", path, *again, "-b:a", "64k", folder / f"{path.stem}_again.mp4")
    metrics = extract(tmp_path, folder, "extract.frames=1", "extract.shard_clips=25")
    refused = [clip for clip, row in ledger(tmp_path).items() if row.reason == "duplicate"]
    assert all(clip.endswith("_again") for clip in refused)
    assert len(refused) >= 19 and metrics["clips_in"] == len(originals) + 20
