"""README's three ways and the pages on corpora, as a newcomer follows them: their very commands, and what they state.

The commands run in a copy of the repository. A local server replaces the hosts of the published lists and YouTube,
whose pages become plain files: only the addresses in manifests/*.json and YOUTUBE_PAGE of earshot/corpus/manifest.py
differ. Of commands that run all stages, only the relevant stages run.

Not run: `make install`, `source .venv/bin/activate` and `pip install deno`, which take the network or an environment of
their own; the programs of the tests' environment stand in PATH instead. Nor `grep` in a ledger.
"""

import hashlib
import json
import os
import re
import shlex
import shutil
import tarfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from conftest import PARAMS, REPOSITORY, run_stage
from media_server import MediaServer, send, serve, status
from odd_media import ffmpeg
from repository import Repository, stages_run

from earshot.corpus.ledger import read_ledger

pytestmark = pytest.mark.slow

VIDEOS = 16


def commands_in(code: str) -> list[list[str]]:
    """The commands of some code that run stages, tell of them or restore what they wrote, as words."""
    lines = code.replace("\\\n", " ").splitlines()
    started = ("dvc ", "python ", "earshot ", "git ")
    return [shlex.split(line, comments=True) for line in lines if line.startswith(started)]


def commands(page: str) -> list[list[str]]:
    """The commands of a page of docs/."""
    text = (REPOSITORY / "docs" / page).read_text()
    return commands_in("\n".join(re.findall(r"^```sh\n(.*?)^```", text, re.M | re.S)))


def ways() -> list[list[list[str]]]:
    """The commands of each of README's three ways."""
    text = (REPOSITORY / "README.md").read_text()
    (section,) = re.findall(r"^## Three ways to use it\n(.*?)^## ", text, re.M | re.S)
    _, *parts = re.split(r"^(?=\*\*)", section, flags=re.M)
    return [commands_in("\n".join(re.findall(r"^    (.*)", part, re.M))) for part in parts]


# Every command of these pages is tried below: one that is added there belongs here too.
A_FOLDER, MIRROR, COMPLETENESS, ODD_CLIPS, PAPERS_SIZE = commands("your-own-videos.md")
DOWNLOADING = commands("downloading.md")
CLASSES, PLAN, CATS, CATS_STATUS, CATS_AGAIN, CATS_RETRY, CATS_LAST = DOWNLOADING[:7]
PART, MERGE, BALANCED, VGGSOUND, UNBALANCED, STATUS, RETRY, REPRO, RESTORE, CHECKOUT = DOWNLOADING[7:]
(RECIPE, RUN, TABLES, BACK), (WAY_OF_A_FOLDER, WHY), (WAY_OF_A_LIST, HOW_FAR) = ways()


def video(number: int) -> str:
    """A name like those of YouTube."""
    return f"video-{number:05d}"


@pytest.fixture(scope="module")
def videos(tmp_path_factory) -> list[Path]:
    """Different videos of the rendered world, twelve seconds each."""
    root = tmp_path_factory.mktemp("world")
    shutil.copy2(PARAMS, root)
    small = {"clips": VIDEOS, "duration_s": 12.0, "voc_train": 10, "voc_val": 10, "voc_test": 10, "sun_images": 1}
    small |= {"esc50_recordings": 1, "localization_images": 1}
    run_stage("sample", root, *(f"--set=sample.{name}={value}" for name, value in small.items()))
    videos = sorted((root / "data/sample/corpus/videos").glob("*.mp4"))
    assert len(videos) == VIDEOS
    return videos


@pytest.fixture(scope="module")
def server(videos) -> Iterator[MediaServer]:
    """The video site: videos by names like those of YouTube."""
    with MediaServer({f"{video(number)}.mp4": serve(path) for number, path in enumerate(videos)}) as running:
        yield running


@pytest.fixture(scope="module")
def copy(tmp_path_factory, server) -> Repository:
    """A clone of the repository in which the server replaces the network and a run is tiny."""
    clone = Repository(tmp_path_factory.mktemp("newcomer"))
    with open(clone.folder / "earshot/corpus/manifest.py", "a") as source:
        source.write(f'\nYOUTUBE_PAGE = "{server.address("{video}.mp4")}"\n')  # instead of the page above
    clone.environment |= {"EARSHOT_REQUESTS_PER_HOUR": "0", "EARSHOT_BACKOFF": "0.1", "EARSHOT_PATIENCE": "2"}
    clone.commit()
    clone.git("tag", "cloned")
    return clone


@pytest.fixture
def repository(copy, server) -> Iterator[Repository]:
    """The copy as it was cloned."""
    behaviors = dict(server.behaviors)
    yield copy
    copy.git("reset", "--quiet", "--hard", "cloned")
    for folder in ("data/clips", ".earshot"):  # what was fetched before is not requested again
        shutil.rmtree(copy.folder / folder, ignore_errors=True)
    server.behaviors = behaviors
    server.requests.clear()


def publish(repository: Repository, server: MediaServer, name: str, text: str) -> None:
    """Put a list on the server, and point the manifest of that name to it."""
    file = repository.folder / "manifests" / f"{name}.json"
    manifest = json.loads(file.read_text())
    (listed,) = manifest["lists"]
    path = "lists/" + listed["address"].rpartition("/")[2]
    listed["address"] = server.address(path)
    if listed["sha256"]:
        listed |= {"sha256": hashlib.sha256(text.encode()).hexdigest(), "bytes": len(text)}
    file.write_text(json.dumps(manifest))
    repository.commit()
    server.behaviors[path] = send(text.encode(), "text/csv")


def audioset(rows: list[tuple[str, float, float, str]]) -> str:
    """A list in the format of AudioSet."""
    heads = "# Segments csv created Sun Mar  5 10:54:31 2017\n# num_ytids=...\n# YTID, start_seconds, ...\n"
    return heads + "".join(f'{name}, {start:.3f}, {end:.3f}, "{labels}"\n' for name, start, end, labels in rows)


# Your own folder


@pytest.fixture(scope="module")
def my_videos(copy, videos) -> int:
    """Write ../my-videos: many formats, unusable files and a duplicate; return the number of good clips."""
    folder = copy.folder.parent / "my-videos"
    for number, path in enumerate(videos):
        suffix = (".mp4", ".mkv", ".mov", ".ts")[number % 4]
        target = folder / f"day {number % 3}" / f"{number}{suffix}"
        target.parent.mkdir(parents=True, exist_ok=True)
        ffmpeg("-i", path, "-c", "copy", target)
    ffmpeg("-i", videos[0], "-c:v", "libx264", "-crf", 30, "-c:a", "aac", folder / "once more.mp4")
    ffmpeg("-i", videos[1], "-c", "copy", "-an", folder / "mute.mp4")
    (folder / "broken.mp4").write_bytes(b"no video" * 1000)
    still = ["-f", "lavfi", "-i", "color=teal:s=128x96:r=5:d=8", "-f", "lavfi", "-i", "anoisesrc=d=8:seed=1:a=.3"]
    ffmpeg(*still, "-c:v", "libx264", "-pix_fmt", "yuv420p", "-c:a", "aac", folder / "still.mp4")
    real = os.environ.get("EARSHOT_REAL_DATA")
    clips = sorted((Path(real).resolve() / "clips").glob("*.mp4"))[::6] if real else []
    for path in clips:
        shutil.copy2(path, folder / f"real-{path.name}")
    return VIDEOS + 1 + len(clips)


REFUSED = {"refused_no-sound": 1, "refused_unreadable": 1}


def refused(metrics: dict) -> dict[str, int]:
    return {name: value for name, value in metrics.items() if name.startswith("refused_") and value}


def test_a_folder_goes_through_every_stage_that_its_clips_go_through(repository, my_videos):
    of_clips = ["evaluate@correspondence", "evaluate@retrieval", "evaluate@nmi", "evaluate@units"]
    output = repository.run(*A_FOLDER, "pretrain", *of_clips)
    assert {"extract", "describe", "label", "pretrain", "correspond", *of_clips} <= set(stages_run(output))
    metrics = repository.metrics("extract")
    assert (metrics["clips_in"], metrics["clips_kept"]) == (my_videos + 3, my_videos)
    assert refused(metrics) == REFUSED | {"refused_duplicate": 1}
    assert metrics["flagged_still"] >= 1
    ledger = [row for path in repository.folder.glob("data/scenes/ledger/*.csv") for row in read_ledger(path)]
    assert len(ledger) == my_videos + 3
    (again,) = [row for row in ledger if row.reason == "duplicate"]
    assert f"{my_videos} of {my_videos + 3} clips kept" in output
    for name in ("retrieval", "nmi", "units"):
        assert f"{name} is not measured: " in output and "no clip of the split train is annotated" in output
        assert repository.metrics(name)["clips"] == 0
    for name in ("pretrain", "correspondence"):
        assert repository.metrics(name)["clips_hash"] == metrics["clips_hash"]
    params = repository.folder / "params.yaml"
    assert "clips: ../my-videos" in params.read_text(), "-S changes params.yaml"
    repository.git("restore", "params.yaml")
    assert "clips: ../my-videos" not in params.read_text()


def test_a_mirror_takes_labels_splits_and_what_is_missing_from_its_list(repository, videos):
    folder, names = repository.folder.parent / "vggsound", [f"abcdefghi{number:02d}" for number in range(5)]
    folder.mkdir()
    with tarfile.open(folder / "part.tar.gz", "w:gz") as tar:
        for name, path in zip(names[:4], videos, strict=False):
            tar.add(path, f"clips/{name}_000000.mp4")
    splits = ["train", "train", "test", "train", "test"]
    rows = "".join(f"{name},0,dog barking,{split}\n" for name, split in zip(names, splits, strict=True))
    (folder.parent / "vggsound.csv").write_text(rows)
    output = repository.run(*MIRROR, "extract")
    assert "4 of 5 clips kept" in output
    assert refused(repository.metrics("extract")) == {"refused_not-found": 1}
    tables = [pq.read_table(path) for path in sorted(repository.folder.glob("data/scenes/*.parquet"))]
    kept = {
        clip: split
        for table in tables
        for clip, split in zip(*(table[c].to_pylist() for c in ("clip_id", "split")), strict=True)
    }
    assert sorted(split == "test" for split in kept.values()) == [False, False, False, True]


def test_what_becomes_of_odd_clips_is_a_parameter(repository, my_videos):
    repository.run(*ODD_CLIPS, "extract")
    metrics = repository.metrics("extract")
    assert metrics["flagged_duplicate"] == 1
    assert refused(metrics).items() >= (REFUSED | {"refused_still": metrics["refused_still"]}).items()
    assert metrics["clips_kept"] == my_videos + 1 - metrics["refused_still"]
    output = repository.run(*COMPLETENESS)
    assert f"{metrics['clips_kept']} of {my_videos + 3}" in output and metrics["clips_hash"] in output
    assert "1 no-sound" in output and "1 unreadable" in output and "train" in output


def test_the_papers_size_is_a_line_of_parameters(repository, my_videos):
    repository.dvc("repro", "sample")
    for name, place in {"voc": "VOCdevkit", "sun": "SUN"}.items():
        shutil.copytree(repository.folder / "data/sample" / name, repository.folder.parent / place)
    shorter = ["-S", "pretrain.epochs=1", "-S", "pretrain.control=false", "-S", "extract.frames=4"]
    output = repository.run(*PAPERS_SIZE, *shorter, "evaluate@voc", "evaluate@sun")
    assert {"evaluate@voc", "evaluate@sun"} <= set(stages_run(output))
    assert repository.metrics("extract")["moments"] == 4 * repository.metrics("extract")["clips_kept"]


# A row of a paper


def test_a_recipe_is_run_compared_and_taken_back(repository):
    params = repository.folder / "params.yaml"
    committed = params.read_text()
    repository.run(*RECIPE)
    assert "model: binary" in params.read_text() and "clips: 2000" in params.read_text()
    tiny = ["tests/tiny.yaml", "--set", "pretrain.image_size=67"]  # the least that caffenet takes
    repository.run(*RECIPE, *tiny)  # the same at a size that a test can train
    for file in [repository.folder / "dvc.lock", *repository.folder.glob("metrics/*.json")]:
        file.unlink()  # of the committed run, since not all benchmarks run again
    output = repository.run(*RUN, "evaluate@voc", "evaluate@sun")
    assert {"sample", "label", "pretrain", "evaluate@voc", "evaluate@sun"} <= set(stages_run(output))
    repository.run(*TABLES)
    (table,) = (repository.folder / "tables").glob("owens-2a*.md")
    assert "Sound (binary)" in table.read_text()
    repository.run(*BACK)
    assert params.read_text() == committed


def test_readmes_way_of_a_folder_is_the_one_tried_here():
    assert [WAY_OF_A_FOLDER, WHY] == [A_FOLDER, COMPLETENESS] and HOW_FAR == STATUS


# Published lists


def test_a_newcomer_gets_the_cats_of_vggsound_and_gets_them_back(repository, server):
    labels = ["cat meowing", "cat purring", "dog barking", "playing banjo"]
    names = [*(video(number) for number in range(VIDEOS)), "no-page-yet"]
    rows = [f"{name},1,{labels[number % 4]},train\n" for number, name in enumerate(names)]
    publish(repository, server, "vggsound", "".join(rows))
    well, other = server.behaviors[f"{video(0)}.mp4"], server.behaviors[f"{video(1)}.mp4"]
    server.behaviors |= {
        f"{video(0)}.mp4": status(503),
        "no-page-yet.mp4": send(b"<html><p>nothing to play</p></html>", "text/html"),
    }
    of_classes = repository.run("bash", "-c", in_bash(CLASSES)).splitlines()
    assert [label for line in of_classes for label in labels if label in line] == labels[:2]
    assert re.search(rf"^clips +{VIDEOS // 2 + 1}$", repository.run(*PLAN), re.M)
    output = repository.run(*CATS, "extract", fails=True)
    assert "are pending" in output and "run again later" in output
    assert "pending" in repository.run(*CATS_STATUS) and not server.requests[f"{video(2)}.mp4"]

    server.behaviors[f"{video(0)}.mp4"] = well
    repository.run(*CATS_AGAIN, "extract")
    assert repository.metrics("download")["clips_kept"] == VIDEOS // 2
    assert refused(repository.metrics("download")) == {"refused_no-media": 1}
    server.behaviors["no-page-yet.mp4"] = other
    repository.run(*CATS_RETRY)
    repository.run(*CATS_LAST, "extract")
    assert repository.metrics("extract")["clips_in"] == VIDEOS // 2 + 1

    repository.commit()
    repository.run(*CATS[:3], "-S", "corpus.select.classes=[cat purring]", "extract")
    assert repository.metrics("download")["clips_kept"] == VIDEOS // 4
    server.requests.clear()
    repository.run(*RESTORE)
    repository.run(*CHECKOUT)
    repository.run(*REPRO, "extract")
    assert repository.metrics("download")["clips_kept"] == VIDEOS // 2 + 1
    assert not [name for name in server.requests if name.endswith(".mp4")]


def in_bash(words: list[str]) -> str:
    """A command of a page as a line of Bash."""
    return " ".join(word if word == "|" else shlex.quote(word) for word in words)


GUITAR, DOG, SPEECH = "/m/0342h", "/m/0bt9lr", "/m/09x0r"
ONTOLOGY = [
    {"id": "/m/04szw", "name": "Musical instrument", "child_ids": [GUITAR]},
    {"id": GUITAR, "name": "Guitar", "child_ids": []},
    {"id": "/m/0jbk", "name": "Animal", "child_ids": [DOG]},
    {"id": DOG, "name": "Dog", "child_ids": []},
    {"id": SPEECH, "name": "Speech", "child_ids": []},
]


def test_audioset_waits_for_pending_clips_and_requests_only_those(repository, server):
    rows = [(video(number), 1, 11, GUITAR) for number in range(1, VIDEOS)]
    rows += [(video(0), 0, 5, SPEECH), ("removed-abc", 30, 40, DOG), ("private-abc", 30, 40, f"{DOG},{SPEECH}")]
    publish(repository, server, "audioset-balanced", audioset([(video(0), 7, 12, DOG), *rows]))
    well = server.behaviors[f"{video(1)}.mp4"]
    server.behaviors |= {"removed-abc.mp4": status(410), "private-abc.mp4": status(401)}
    server.behaviors[f"{video(1)}.mp4"] = status(503)
    output = repository.run(*BALANCED, "extract", fails=True)
    assert f"1 of {VIDEOS + 3} clips are pending (1 network" in output and "run again later" in output
    assert server.requests[f"{video(0)}.mp4"] == server.requests[f"{video(2)}.mp4"], "fetched once for both clips"
    metadata = json.loads(repository.run(*STATUS, "--json"))
    assert (metadata["clips_requested"], metadata["clips_kept"], metadata["pending_network"]) == (VIDEOS + 3, VIDEOS, 1)

    server.behaviors[f"{video(1)}.mp4"] = well
    before = Counter(server.requests)
    output = repository.run(*BALANCED, "extract")
    assert f"{VIDEOS + 1} of {VIDEOS + 3} clips kept; left out: 1 private, 1 removed" in output
    assert set(server.requests - before) == {f"{video(1)}.mp4"}, "neither other videos nor the list are requested again"
    assert refused(repository.metrics("download")) == {"refused_private": 1, "refused_removed": 1}
    output = repository.run(*COMPLETENESS)
    assert f" of {VIDEOS + 3}" in output and DOG in output and "1 private" in output


@pytest.mark.parametrize("command", [VGGSOUND, WAY_OF_A_LIST], ids=["the page", "README"])
def test_only_the_classes_named_are_requested(repository, server, command):
    labels = ["playing banjo", "cat purring", "people marching", "playing banjo"]
    named = [label for label in labels if any(label in word for word in command)]
    text = "".join(f"{video(number)},1,{labels[number % 4]},train\n" for number in range(VIDEOS))
    publish(repository, server, "vggsound", text)
    output = repository.run(*command, "extract")
    assert "no checksum is known" in output and hashlib.sha256(text.encode()).hexdigest() in output
    requested = {name for name in server.requests if name.endswith(".mp4")}
    assert requested == {f"{video(number)}.mp4" for number in range(VIDEOS) if labels[number % 4] in named}
    assert repository.metrics("download")["clips_kept"] == len(requested) == VIDEOS // 4 * len(named)
    (record,) = json.loads((repository.folder / "data/clips/lists.json").read_text())
    assert record["sha256"] == hashlib.sha256(text.encode()).hexdigest()


def test_machines_divide_a_list_and_merge_what_they_have(repository, server):
    text = "".join(f"{video(number)},1,playing banjo,train\n" for number in range(VIDEOS))
    publish(repository, server, "vggsound", text)
    whole = ["--set", "corpus.manifest=manifests/vggsound.json"]
    for number, machine in enumerate(("one", "two", "three"), 1):
        command = [word.replace("part=1/3", f"part={number}/3") for word in PART]
        repository.run(*command, *whole)
        (repository.folder / machine / "data").mkdir(parents=True)
        (repository.folder / "data/clips").rename(repository.folder / machine / "data/clips")
    repository.run(*MERGE)
    requested = Counter(name for name in server.requests if name.endswith(".mp4"))
    assert sorted(requested) == [f"{video(number)}.mp4" for number in range(VIDEOS)]
    repository.run(*PART[:3], *whole)
    assert Counter(name for name in server.requests if name.endswith(".mp4")) == requested, "merged clips are kept"
    assert repository.metrics("download")["clips_kept"] == VIDEOS
    for machine in ("one", "two", "three"):
        shutil.rmtree(repository.folder / machine)


def test_refused_clips_are_requested_again_by_reason(repository, server):
    publish(repository, server, "vggsound", "".join(f"{video(number)},1,dog barking,train\n" for number in range(3)))
    well = server.behaviors[f"{video(0)}.mp4"]
    server.behaviors[f"{video(0)}.mp4"] = send(b"<html><p>nothing to play</p></html>", "text/html")
    whole = ["--set", "corpus.manifest=manifests/vggsound.json"]
    repository.run(*RETRY[:3], *whole)
    assert refused(repository.metrics("download")) == {"refused_no-media": 1}
    server.behaviors[f"{video(0)}.mp4"] = well
    server.requests.clear()
    repository.run(*RETRY[:3], *whole)
    assert not server.requests[f"{video(0)}.mp4"], "a refused clip stays refused"
    repository.run(*RETRY, *whole)
    assert repository.metrics("download")["clips_kept"] == 3 and not server.requests[f"{video(1)}.mp4"]


def test_classes_of_the_ontology_include_those_below_and_retrieval_uses_it(repository, server):
    labels = [GUITAR, DOG, SPEECH, f"{SPEECH},{GUITAR}"]
    rows = [(video(number), 1, 11, labels[number % 4]) for number in range(VIDEOS)]
    publish(repository, server, "audioset-unbalanced", audioset(rows))
    (repository.folder.parent / "ontology.json").write_text(json.dumps(ONTOLOGY))
    repository.run(*UNBALANCED, "evaluate@retrieval")
    assert repository.metrics("download")["clips_requested"] == VIDEOS * 3 // 4
    metrics = repository.metrics("retrieval")
    assert 0 < metrics["random_order_ndcg5"] < 1 and 0 < metrics["ndcg5_image_audio"] <= 1
