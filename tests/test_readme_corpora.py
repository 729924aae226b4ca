"""README on corpora, tried as by a newcomer: its very commands, in a copy of the repository, and what it says of them.

A server on this machine stands in for the hosts of the published lists and for YouTube, whose pages become plain files:
only the addresses in manifests/*.json and YOUTUBE_PAGE of earshot/corpus/manifest.py are other ones. Where
a command runs all stages, those run here that have to do with what is tried: four minutes of processor time in all.
"""

import hashlib
import json
import os
import re
import shlex
import shutil
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import PARAMS, REPOSITORY, run_stage
from media_server import MediaServer, send, serve, status
from odd_media import ffmpeg
from repository import Repository, stages_run

from earshot.corpus.ledger import read_ledger

pytestmark = pytest.mark.slow

VIDEOS = 16


def commands(section: str) -> list[list[str]]:
    """The commands in a section of README, as words."""
    text = (REPOSITORY / "README.md").read_text()
    body = re.search(rf"^## {re.escape(section)}\n(.*?)^## ", text, re.M | re.S)[1]
    code = "\n".join(line.strip() for line in body.splitlines() if line.startswith("    "))
    lines = re.sub(r"\\\n", " ", code).splitlines()
    return [shlex.split(line, comments=True) for line in lines if line.startswith(("dvc ", "python "))]


# Every command of these sections is tried below: one that is added there belongs here too.
A_FOLDER, ODD_CLIPS, COMPLETENESS, PAPERS_SIZE = commands("Your own folder of videos")
BALANCED, VGGSOUND, UNBALANCED, STATUS = commands("A list of addresses: AudioSet, VGGSound, Kinetics, AVE, your own")


def video(number: int) -> str:
    """A name as YouTube's are."""
    return f"video-{number:05d}"


@pytest.fixture(scope="module")
def videos(tmp_path_factory) -> list[Path]:
    """Videos of twelve seconds that differ in picture and sound: some of the rendered world."""
    root = tmp_path_factory.mktemp("world")
    shutil.copy2(PARAMS, root)
    small = {"clips": VIDEOS, "seconds": 12.0, "voc_train": 10, "voc_val": 10, "voc_test": 10, "sun_images": 1}
    small |= {"esc50_sounds": 1, "localization": 1}
    run_stage("sample", root, *(f"--set=sample.{name}={value}" for name, value in small.items()))
    found = sorted((root / "data/sample/corpus/videos").glob("*.mp4"))
    assert len(found) == VIDEOS
    return found


@pytest.fixture(scope="module")
def server(videos) -> Iterator[MediaServer]:
    """The video site: videos by the names of YouTube's."""
    with MediaServer({f"{video(number)}.mp4": serve(path) for number, path in enumerate(videos)}) as running:
        yield running


@pytest.fixture(scope="module")
def copy(tmp_path_factory, server) -> Repository:
    """The repository as it is cloned, but that the server takes the place of the network, and a run is tiny."""
    made = Repository(tmp_path_factory.mktemp("newcomer"))
    with open(made.folder / "earshot/corpus/manifest.py", "a") as source:
        source.write(f'\nYOUTUBE_PAGE = "{server.address("{video}.mp4")}"\n')  # instead of the page above
    made.environment |= {"EARSHOT_REQUESTS_PER_HOUR": "0", "EARSHOT_BACKOFF": "0.1", "EARSHOT_PATIENCE": "2"}
    made.commit()
    made.git("tag", "cloned")
    return made


@pytest.fixture
def repository(copy, server) -> Iterator[Repository]:
    """The copy as it was cloned."""
    behaviours = dict(server.behaviours)
    yield copy
    copy.git("reset", "--quiet", "--hard", "cloned")
    server.behaviours = behaviours
    server.requests.clear()


def publish(repository: Repository, server: MediaServer, name: str, text: str) -> None:
    """Let the server have a list, and the manifest of that name ask it for the list."""
    file = repository.folder / "manifests" / f"{name}.json"
    said = json.loads(file.read_text())
    (listed,) = said["lists"]
    path = "lists/" + listed["address"].rpartition("/")[2]
    listed["address"] = server.address(path)
    if listed["sha256"]:
        listed |= {"sha256": hashlib.sha256(text.encode()).hexdigest(), "bytes": len(text)}
    file.write_text(json.dumps(said))
    repository.commit()
    server.behaviours[path] = send(text.encode(), "text/csv")


def audioset(rows: list[tuple[str, float, float, str]]) -> str:
    """A list as AudioSet's are."""
    heads = "# Segments csv created Sun Mar  5 10:54:31 2017\n# num_ytids=...\n# YTID, start_seconds, ...\n"
    return heads + "".join(f'{name}, {start:.3f}, {end:.3f}, "{labels}"\n' for name, start, end, labels in rows)


# A folder of one's own


@pytest.fixture(scope="module")
def my_videos(copy, videos) -> int:
    """The folder ../my-videos, of many formats, with a file that is none and a copy; returns how many good ones."""
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
    said = repository.run(*A_FOLDER, "pretrain", *of_clips)
    assert {"extract", "describe", "label", "pretrain", "correspond", *of_clips} <= set(stages_run(said))
    metrics = repository.metrics("extract")
    assert (metrics["clips_in"], metrics["clips_kept"]) == (my_videos + 3, my_videos)
    assert refused(metrics) == REFUSED | {"refused_duplicate": 1}
    assert metrics["flagged_still"] >= 1
    ledger = [row for path in repository.folder.glob("data/scenes/ledger/*.csv") for row in read_ledger(path)]
    assert len(ledger) == my_videos + 3
    (again,) = [row for row in ledger if row.reason == "duplicate"]
    assert f"{my_videos} of {my_videos + 3} clips kept" in said
    for name in ("retrieval", "nmi", "units"):
        assert f"{name} is not measured: " in said and "no clip of the split train is annotated" in said
        assert repository.metrics(name)["clips"] == 0
    for name in ("pretrain", "correspondence"):
        assert repository.metrics(name)["clips_hash"] == metrics["clips_hash"]
    params = repository.folder / "params.yaml"
    assert "clips: ../my-videos" in params.read_text(), "what -S said stays"
    repository.git("restore", "params.yaml")
    assert "clips: ../my-videos" not in params.read_text()


def test_what_becomes_of_odd_clips_is_a_parameter(repository, my_videos):
    repository.run(*ODD_CLIPS, "extract")
    metrics = repository.metrics("extract")
    assert metrics["flagged_duplicate"] == 1
    assert refused(metrics).items() >= (REFUSED | {"refused_still": metrics["refused_still"]}).items()
    assert metrics["clips_kept"] == my_videos + 1 - metrics["refused_still"]
    said = repository.run(*COMPLETENESS)
    assert f"{metrics['clips_kept']} of {my_videos + 3}" in said and metrics["clips_hash"] in said
    assert "1 no-sound" in said and "1 unreadable" in said and "train" in said


def test_the_papers_size_is_a_line_of_parameters(repository, my_videos):
    repository.dvc("repro", "sample")
    for name, place in {"voc": "VOCdevkit", "sun": "SUN"}.items():
        shutil.copytree(repository.folder / "data/sample" / name, repository.folder.parent / place)
    shorter = ["-S", "pretrain.epochs=1", "-S", "pretrain.control=false", "-S", "extract.frames=4"]
    said = repository.run(*PAPERS_SIZE, *shorter, "evaluate@voc", "evaluate@sun")
    assert {"evaluate@voc", "evaluate@sun"} <= set(stages_run(said))
    assert repository.metrics("extract")["moments"] == 4 * repository.metrics("extract")["clips_kept"]


# Published lists


GUITAR, DOG, SPEECH = "/m/0342h", "/m/0bt9lr", "/m/09x0r"
ONTOLOGY = [
    {"id": "/m/04szw", "name": "Musical instrument", "child_ids": [GUITAR]},
    {"id": GUITAR, "name": "Guitar", "child_ids": []},
    {"id": "/m/0jbk", "name": "Animal", "child_ids": [DOG]},
    {"id": DOG, "name": "Dog", "child_ids": []},
    {"id": SPEECH, "name": "Speech", "child_ids": []},
]


def test_audioset_waits_for_what_is_pending_and_asks_for_that_alone(repository, server):
    rows = [(video(number), 1, 11, GUITAR) for number in range(1, VIDEOS)]
    rows += [(video(0), 0, 5, SPEECH), ("removed-abc", 30, 40, DOG), ("private-abc", 30, 40, f"{DOG},{SPEECH}")]
    publish(repository, server, "audioset-balanced", audioset([(video(0), 7, 12, DOG), *rows]))
    well = server.behaviours[f"{video(1)}.mp4"]
    server.behaviours |= {"removed-abc.mp4": status(410), "private-abc.mp4": status(401)}
    server.behaviours[f"{video(1)}.mp4"] = status(503)
    said = repository.run(*BALANCED, "extract", fails=True)
    assert f"1 of {VIDEOS + 3} clips are pending (1 network" in said and "run again later" in said
    assert server.requests[f"{video(0)}.mp4"] == server.requests[f"{video(2)}.mp4"], "fetched once for both clips"
    metadata = json.loads(repository.run(*STATUS, "--json"))
    assert (metadata["clips_requested"], metadata["clips_kept"], metadata["pending_network"]) == (VIDEOS + 3, VIDEOS, 1)

    server.behaviours[f"{video(1)}.mp4"] = well
    before = Counter(server.requests)
    said = repository.run(*BALANCED, "extract")
    assert f"{VIDEOS + 1} of {VIDEOS + 3} clips kept; left out: 1 private, 1 removed" in said
    assert set(server.requests - before) == {f"{video(1)}.mp4"}, "nothing else is asked for again, the list neither"
    assert refused(repository.metrics("download")) == {"refused_private": 1, "refused_removed": 1}
    said = repository.run(*COMPLETENESS)
    assert f" of {VIDEOS + 3}" in said and DOG in said and "1 private" in said


def test_vggsound_is_asked_for_two_classes_alone(repository, server):
    said = ["playing banjo", "cat purring", "people marching", "playing banjo"]
    text = "".join(f"{video(number)},1,{said[number % 4]},train\n" for number in range(VIDEOS))
    publish(repository, server, "vggsound", text)
    output = repository.run(*VGGSOUND, "extract")
    assert "no checksum is known" in output and hashlib.sha256(text.encode()).hexdigest() in output
    asked = {name for name in server.requests if name.endswith(".mp4")}
    assert asked == {f"{video(number)}.mp4" for number in range(VIDEOS) if number % 4 != 2}
    assert repository.metrics("download")["clips_kept"] == len(asked) == VIDEOS * 3 // 4
    (record,) = json.loads((repository.folder / "data/clips/lists.json").read_text())
    assert record["sha256"] == hashlib.sha256(text.encode()).hexdigest()


def test_classes_of_the_ontology_bring_those_below_and_retrieval_is_measured_with_it(repository, server):
    labels = [GUITAR, DOG, SPEECH, f"{SPEECH},{GUITAR}"]
    rows = [(video(number), 1, 11, labels[number % 4]) for number in range(VIDEOS)]
    publish(repository, server, "audioset-unbalanced", audioset(rows))
    (repository.folder.parent / "ontology.json").write_text(json.dumps(ONTOLOGY))
    repository.run(*UNBALANCED, "evaluate@retrieval")
    assert repository.metrics("download")["clips_requested"] == VIDEOS * 3 // 4
    metrics = repository.metrics("retrieval")
    assert 0 < metrics["random_order_ndcg5"] < 1 and 0 < metrics["ndcg5_image_audio"] <= 1
