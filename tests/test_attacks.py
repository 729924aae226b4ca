"""A thousand attacks on extract, download, describe and evaluate: each costs itself alone.

Everything that the stages' processes write, start and connect to is recorded (`watched`), with the memory of each.
"""

import csv
import io
import json
import os
import shutil
import sys
import tarfile
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace

import imageio_ffmpeg
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from attacks import hostile_tar, mutated, mutated_json, mutated_text, spoil
from bad_media import bad_input, seed_files
from conftest import PARAMS, REPOSITORY
from media_server import Behavior, MediaServer, drip, endless, lie, send, serve, stall, status
from watched import Watched, python, run

from earshot.corpus.ledger import read_ledger

pytestmark = pytest.mark.slow

MEGABYTES = 1536  # of any process
CLIP_SECONDS = 10
SMALL = (
    "corpus.ontology=none",
    "corpus.unmatched=warn",
    "extract.quality.duplicate=ignore",
    "extract.frame_size=32",
    "extract.frames=2",
    "extract.window_s=1.5",
    "extract.min_duration_s=1.5",
    f"extract.decode_timeout_s={CLIP_SECONDS}",
    "extract.shard_clips=50",
)
ENVIRONMENT = {name: value for name, value in os.environ.items() if not name.startswith("EARSHOT_")} | {
    "EARSHOT_WORKERS": "2",
    "OMP_NUM_THREADS": "1",
}
SETTINGS = {
    "download": {"EARSHOT_REQUESTS_PER_HOUR": "0", "EARSHOT_BACKOFF": "0.01", "EARSHOT_PATIENCE": "1"},
    "evaluate": {"EARSHOT_THREADS": "1", "EARSHOT_DEVICE": "cpu"},
}
# Stages one after another, each in a fork of a process that has imported everything: `jobs` are the command lines.
FORKS = """
import atexit, importlib, json, os, signal, sys, threading, time, traceback
name, seconds, file = sys.argv[1:]
stage = importlib.import_module(f"stages.{name}")
for job in json.load(open(file)):
    sys.stdout.flush()
    begin = time.monotonic()
    child = os.fork()
    if not child:
        signal.alarm(int(seconds))  # ends the process: a hang is a result
        status = 0
        try:
            stage.STAGE.run(stage.main, job)
        except SystemExit as error:
            status = error.code if isinstance(error.code, int) else 1
            print(error.code, file=sys.stderr)
        except BaseException:
            traceback.print_exc()
            status = 70
        threading._shutdown()  # as at the end of a process, where joblib ends its workers
        atexit._run_exitfuncs()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)
    print("ENDED", os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), round(time.monotonic() - begin, 1), flush=True)
"""


class Attacked:
    """A folder with everything that an attack gets: seeds, a secret outside, a server that lists nothing."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.seeds = seed_files(folder / "seeds")
        self.clip = self.seeds["mp4"]
        self.secret = folder / "secret.mp4"
        self.secret.write_bytes(self.clip)
        self.server = MediaServer()

    def watch(
        self, name: str, command: Sequence[object], root: Path, seconds: float, port: int | None = None
    ) -> Watched:
        """Run a command of a stage and check what it may do whatever it reads: see the module."""
        watched = run(command, self.folder / "watch", seconds, REPOSITORY, ENVIRONMENT | SETTINGS.get(name, {}))
        assert "Traceback" not in watched.output, watched.output[watched.output.index("Traceback") - 500 :][:6000]
        assert all(line.isprintable() for line in watched.output.split("\n")), watched.output
        assert max(map(len, watched.output.split("\n"))) < 3000
        assert watched.peak < MEGABYTES, watched.peak
        places = (root, self.folder / "watch")
        written = {path for (path,) in watched.of("write")} - {os.devnull}
        assert not [path for path in written if not any(map(Path(path).is_relative_to, places))]
        assert {values[:2] for values in watched.of("socket.connect")} <= {("127.0.0.1", str(port))}
        assert not watched.of("socket.sendto") and not watched.of("os.system")
        programs = {
            path for event in ("subprocess.Popen", "os.exec", "os.posix_spawn") for (path,) in watched.of(event)
        }
        # With ldconfig, modules of Python look for libraries as they are imported.
        assert programs <= {sys.executable, imageio_ffmpeg.get_ffmpeg_exe(), "/sbin/ldconfig"}
        assert not self.server.requests
        return watched

    def stage(self, name: str, root: Path, changes: Sequence[str], seconds: float, port: int | None = None) -> Watched:
        """Run a stage, which succeeds."""
        root.mkdir(exist_ok=True)
        watched = self.watch(name, python("-m", f"stages.{name}", *options(root, changes)), root, seconds, port)
        assert watched.status == 0, watched.output
        return watched

    def stages(self, name: str, jobs: Sequence[Sequence[str]], root: Path, seconds: int) -> list[tuple[int, str]]:
        """Run a stage with many command lines, all below `root`; status and output of each, within `seconds` each."""
        root.mkdir(exist_ok=True)
        (self.folder / "jobs.json").write_text(json.dumps([*jobs]))
        command = python("-c", FORKS, name, seconds, self.folder / "jobs.json")
        watched = self.watch(name, command, root, 60 + seconds * len(jobs))
        assert watched.status == 0, watched.output
        results, text = [], ""
        for line in watched.output.split("\n"):
            if line.startswith("ENDED "):
                results.append((int(line.split()[1]), text.strip()))
                text = ""
            else:
                text += line + "\n"
        assert len(results) == len(jobs), watched.output[-3000:]
        return results


def options(root: Path, changes: Sequence[str]) -> list[str]:
    sets = [word for change in changes for word in ("--set", change)]
    return ["--params", str(PARAMS), "--root", str(root), *sets]


def outcomes(ledger: Path) -> dict[str, tuple[str, str]]:
    """Status and reason by source."""
    rows = [row for path in sorted(ledger.glob("*.csv")) for row in read_ledger(path)]
    return {row.source: (row.status, row.reason) for row in rows}


def one_line_each(results: Sequence[tuple[int, str]], attacks: Sequence[str]) -> None:
    """Each run succeeded, or ended with a message of its own: the first, not attacked, did, and some were refused."""
    print(Counter(code for code, _ in results))
    assert results[0][0] == 0, results[0]
    assert any(code for code, _ in results)
    for (code, output), attack in zip(results, attacks, strict=True):
        assert code in (0, 1), (attack, code, output)
        assert code == 0 or output, attack


@pytest.fixture(scope="module")
def attacked(tmp_path_factory):
    attacked = Attacked(tmp_path_factory.mktemp("attacks"))
    with attacked.server:
        yield attacked


# Extract and describe.

GOOD = 20


def test_files_of_a_folder(attacked, tmp_path):
    """300 files, 20 links, pipes and damaged sidecars, and good clips between them."""
    corpus, root = tmp_path / "corpus", tmp_path / "root"
    corpus.mkdir()
    targets = [str(attacked.secret), f"file:{attacked.secret}", attacked.server.address("secret.mp4")]
    for number in range(5000, 5300):
        each = bad_input(number, attacked.seeds, targets)
        (corpus / each.name).write_bytes(each.content)
    for number in range(GOOD):
        (corpus / f"good {number}.mp4").write_bytes(attacked.clip)
        (corpus / f"side {number}.mp4").write_bytes(attacked.clip)
        (corpus / f"side {number}.json").write_bytes(mutated_json(number, {"group": "g", "annotations": ["a", "b"]}))
    links = {
        "secret": attacked.secret, "passwords": "/etc/passwd", "zero": "/dev/zero", "self": "self.mp4", "up": "..",
        "root": "/", "nowhere": "nowhere", "good link": "good 0.mp4", "process": "/proc/self/environ",
    }  # fmt: skip
    for name, target in links.items():
        (corpus / f"{name}.mp4").symlink_to(target)
        (corpus / f"link {name}.json").symlink_to(target)
        (corpus / f"link {name}.mp4").write_bytes(attacked.clip)
    os.mkfifo(corpus / "pipe.mp4")
    (corpus / "folder.mp4").mkdir()
    attacked.stage("extract", root, [f"corpus.clips={corpus}", *SMALL], 900)
    attacked.stage("describe", root, SMALL, 900)
    actual = outcomes(root / "data/scenes/ledger")
    assert all(actual[f"good {number}.mp4"] == ("kept", "") for number in range(GOOD))
    assert all(actual[f"side {number}.mp4"] in (("kept", ""), ("refused", "unreadable")) for number in range(GOOD))
    assert all(actual[f"{name}.mp4"][0] == ("kept" if name == "good link" else "refused") for name in links)
    print(Counter(actual.values()))


def test_tars(attacked, tmp_path):
    """60 tars with some six members each whose headers no library writes, behind a good clip."""
    corpus, root = tmp_path / "corpus", tmp_path / "root"
    corpus.mkdir()
    for number in range(60):
        (corpus / f"{number:05d}.tar").write_bytes(hostile_tar(number, "first.mp4", attacked.clip))
    attacked.stage("extract", root, [f"corpus.clips={corpus}", *SMALL], 900)
    attacked.stage("describe", root, SMALL, 900)
    actual = outcomes(root / "data/scenes/ledger")
    assert all(actual[f"{number:05d}.tar/first.mp4"] == ("kept", "") for number in range(60))
    print(Counter(actual.values()))


def test_manifests_of_a_folder(attacked, tmp_path):
    """Lists beside clips."""
    table = "file,group,annotations\n" + "".join(f"{n}.mp4,g{n},dog;cat\n" for n in range(3))
    jobs = []
    for number in range(-1, 20):
        corpus = tmp_path / "root" / f"corpus{number}"
        corpus.mkdir(parents=True)
        for clip in range(3):
            (corpus / f"{clip}.mp4").write_bytes(attacked.clip)
        (corpus / "manifest.csv").write_bytes(mutated_text(number, table) if number >= 0 else table.encode())
        root = tmp_path / "root" / str(number)
        root.mkdir()
        jobs.append(options(root, [f"corpus.clips={corpus}", *SMALL]))
    results = attacked.stages("extract", jobs, tmp_path / "root", 60)
    one_line_each(results, [str(number) for number in range(-1, 20)])
    for number, (code, output) in enumerate(results, -1):
        if not code:
            assert set(outcomes(tmp_path / "root" / str(number) / "data/scenes/ledger").values()) == {("kept", "")}
        else:
            assert "manifest.csv" in output


def test_scenes_that_were_exchanged(attacked, tmp_path):
    """The table of scenes, damaged before describe reads it."""
    root = tmp_path / "root" / "whole"
    corpus = tmp_path / "corpus"
    corpus.mkdir()
    root.mkdir(parents=True)
    for number in range(3):
        (corpus / f"{number}.mp4").write_bytes(attacked.clip)
    attacked.stage("extract", root, [f"corpus.clips={corpus}", *SMALL], 300)
    jobs = []
    for number in range(-1, 16):
        copy = shutil.copytree(root, tmp_path / "root" / str(number))
        (table,) = copy.glob("data/scenes/*.parquet")
        content = table.read_bytes()
        if number >= 0:
            table.unlink()
            table.write_bytes(mutated(number, content) if number % 2 else exchanged(number, content, attacked))
        jobs.append(options(copy, SMALL))
    one_line_each(attacked.stages("describe", jobs, tmp_path / "root", 60), [str(n) for n in range(-1, 16)])


def exchanged(number: int, content: bytes, attacked: Attacked) -> bytes:
    """A table with a hostile sound or time."""
    table = pq.read_table(io.BytesIO(content))
    sounds = [b"", b"fLaC" + bytes(100), attacked.clip, mutated(number, table["sound"][0].as_py())]
    times = [[float("nan")], [-1e300, 1.0], [], [1e9, 2e9]]
    name = ("sound", "times")[number % 4 // 2]
    value = (sounds if name == "sound" else times)[number % len(sounds if name == "sound" else times)]
    column = [value, *table[name].to_pylist()[1:]]
    file = io.BytesIO()
    field = table.schema.get_field_index(name)
    pq.write_table(table.set_column(field, name, pa.array(column, table.schema.field(name).type)), file)
    return file.getvalue()


# Download.


def test_sites(attacked, tmp_path):
    """100 addresses that resist, lie or attack, and 60 files, and good ones between them."""
    good, root = tmp_path / "good.mp4", tmp_path / "root"
    good.write_bytes(attacked.clip)
    folder = tmp_path / "list"
    folder.mkdir()
    behaviors: dict[str, Behavior] = {f"good{n}.mp4": serve(good, ranges=n % 2 == 0) for n in range(GOOD)}
    for number in range(60):
        behaviors[f"page{number}"] = page(number, attacked)
    for number in range(25):
        behaviors[f"media{number}.mp4"] = send(bad_input(6000 + number, attacked.seeds, ["secret"]).content)
    slow = [
        stall(),
        stall(b"\0\0\0\x20ftyp"),
        drip(good, 0.5),
        endless(),
        endless("text/html"),
        endless("application/json"),
    ]
    behaviors |= {f"slow{number}.mp4": behavior for number, behavior in enumerate(slow)}
    behaviors |= {"lies.mp4": lie(good, 100), "short.mp4": lie(good, -100), "gone": status(410), "circle": circle}
    with MediaServer(behaviors) as server:
        rows = [(server.address(name), "", 0.1, 1.9) for name in behaviors]
        for number in range(60):
            each = bad_input(7000 + number, attacked.seeds, [str(attacked.secret), attacked.server.address("s")])
            name = f"{number}.mp4"
            (folder / name).write_bytes(each.content)
            rows.append(("", name, 0.2, 1.8))
        (folder / "outside.mp4").symlink_to(attacked.secret)
        os.mkfifo(folder / "pipe.mp4")
        rows += [("", "outside.mp4", 0, 1), ("", "pipe.mp4", 0, 1)]
        with open(folder / "manifest.csv", "w", newline="") as file:
            csv.writer(file).writerows([("url", "path", "start", "end"), *rows])
        port = int(server.address("").split(":")[2].strip("/"))
        changes = [
            f"corpus.manifest={folder}", "corpus.accept_pending=true", "download.max_megabytes=20",
            f"download.timeout_s={CLIP_SECONDS}", "download.shard_clips=50",
        ]  # fmt: skip
        attacked.stage("download", root, changes, 900, port)
        actual = outcomes(root / "data/clips/ledger")
        assert all(actual[server.address(f"good{number}.mp4")] == ("kept", "") for number in range(GOOD))
        kept = {source for source, outcome in actual.items() if outcome[0] == "kept"}
        assert not kept & {server.address(f"slow{number}.mp4") for number in (0, 1, 3, 4)}
    assert actual["outside.mp4"][0] == actual["pipe.mp4"][0] == "refused"
    print(Counter(actual.values()))
    for tar in (root / "data/clips").glob("*.tar"):
        with tarfile.open(tar) as archive:
            assert all("/" not in name for name in archive.getnames())
    attacked.stage("extract", root, SMALL, 900)


HLS = "#EXTM3U\n#EXT-X-TARGETDURATION:4\n{}#EXTINF:4,\n{}\n#EXT-X-ENDLIST\n"


def page(number: int, attacked: Attacked) -> Behavior:
    """A page, playlist or redirect that leads elsewhere, or that grows."""
    chance = np.random.default_rng(number)
    there = [
        attacked.server.address("secret.mp4"), f"file://{attacked.secret}", str(attacked.secret), "http://localhost/",
        "http://127.0.0.2/", "http://0x7f.1/", "http://[::1]/", "pipe:0", "concat:/etc/passwd", "ftp://127.0.0.1/a",
        "data:video/mp4;base64,AAAA",
    ][int(chance.integers(11))]  # fmt: skip
    html = "text/html"
    hls = "application/vnd.apple.mpegurl"
    ld = json.dumps({"@type": "VideoObject", "contentUrl": there, "name": "\x1b[2J"})
    pages: tuple[Callable[[], Behavior], ...] = (
        lambda: status(302, Location=there),
        lambda: send(f'<video src="{there}"></video>'.encode(), html),
        lambda: send(f'<meta property="og:video" content="{there}">'.encode(), html),
        lambda: send(f'<meta http-equiv="refresh" content="0; url={there}">'.encode(), html),
        lambda: send(HLS.format("", there).encode(), hls),
        lambda: send(HLS.format(f'#EXT-X-KEY:METHOD=AES-128,URI="{there}"\n', "a.ts").encode(), hls),
        lambda: send(HLS.format(f'#EXT-X-MAP:URI="{there}"\n', there).encode(), hls),
        lambda: send(f'<script type="application/ld+json">{ld}</script>'.encode(), html),
        lambda: send(f'<MPD><Period><BaseURL>{there}</BaseURL></Period></MPD>'.encode(), "application/dash+xml"),
        lambda: send(f'<rss><channel><item><enclosure url="{there}"/></item></channel></rss>'.encode(), "text/xml"),
        lambda: send(f'<smil><body><video src="{there}"/></body></smil>'.encode(), "application/smil"),
        lambda: send(b"<html>" * 4_000_000, html),
        lambda: send(b'<video src="' * 200_000, html),
        lambda: send(mutated_text(number, f'<html>\n<video src="{there}">\n<meta a="b">\n'), html),
        lambda: send(b"x", html, Content_Disposition='attachment; filename="../../../../tmp/pwned.mp4"'),
        lambda: send(attacked.clip, "video/mp4", Content_Disposition="attachment; filename=/tmp/pwned.sh"),
    )  # fmt: skip
    return pages[number % len(pages)]()


def circle(handler) -> None:
    status(302, Location=handler.path)(handler)


def test_manifests(attacked, tmp_path):
    """Lists of addresses and files, as CSV and as Parquet."""
    rows = [("url", "path", "start", "end", "group"), *(("", f"{n}.mp4", "0.2", "1.8", f"g{n}") for n in range(3))]
    table = "\n".join(",".join(row) for row in rows)
    columns = {name: [row[place] for row in rows[1:]] for place, name in enumerate(rows[0])}
    parquet = io.BytesIO()
    pq.write_table(pa.table(columns), parquet)
    jobs = []
    for number in range(-1, 30):
        folder, root = tmp_path / "root" / f"list{number}", tmp_path / "root" / str(number)
        folder.mkdir(parents=True)
        root.mkdir()
        for clip in range(3):
            (folder / f"{clip}.mp4").write_bytes(attacked.clip)
        if number < 0:
            data = table.encode()
        else:
            data = mutated_text(number, table) if number % 2 else mutated(number, parquet.getvalue())
        (folder / ("manifest.csv" if number % 2 else "list.parquet")).write_bytes(data)
        manifest = folder if number % 2 else folder / "list.parquet"
        changes = [f"corpus.manifest={manifest}", "corpus.accept_pending=true", "download.timeout_s=10"]
        jobs.append(options(root, changes))
    one_line_each(attacked.stages("download", jobs, tmp_path / "root", 90), [str(n) for n in range(-1, 30)])


# Evaluate.


@pytest.fixture(scope="module")
def trees(tmp_path_factory) -> SimpleNamespace:
    """Small benchmarks in their layouts, and what is evaluated on them."""
    import soundfile
    from descriptions import described_as
    from striped_images import draw_image, write_voc_dataset

    from earshot.networks.backbones.alexnet import AlexNet
    from earshot.networks.files import save_architecture, save_weights

    folder = tmp_path_factory.mktemp("trees")
    write_voc_dataset(folder / "voc", {"train": 6, "val": 6, "test": 6})
    partitions = folder / "sun" / "Partitions"
    partitions.mkdir(parents=True)
    for kind, category in enumerate(("/a/abbey", "/b/bakery")):
        for number in range(5):
            draw_image(folder / "sun/SUN397" / category[1:] / f"sun_{'a' * 15}{number}.jpg", {kind}, number)
    for split in range(1, 4):
        for part, members in (("Training", range(4)), ("Testing", range(4, 5))):
            names = [f"{category}/sun_{'a' * 15}{n}.jpg\n" for category in ("/a/abbey", "/b/bakery") for n in members]
            (partitions / f"{part}_{split:02d}.txt").write_text("".join(names))
    for name in ("audio", "meta"):
        (folder / "esc50" / name).mkdir(parents=True)
    rows, rng = [("filename", "fold", "target", "category")], np.random.default_rng(0)
    for fold in range(1, 4):
        for target, category in {0: "dog", 41: "chainsaw"}.items():
            for take in "AB":
                name = f"{fold}-{take}{target}.{'wav' if take == 'A' else 'ogg'}"
                sound = 0.1 * rng.standard_normal(5 * 16_000) * (1 + target)
                soundfile.write(folder / "esc50/audio" / name, sound.clip(-1, 1), 16_000)
                rows.append((name, str(fold), str(target), category))
    (folder / "esc50/meta/esc50.csv").write_text("\n".join(map(",".join, rows)))
    encoder = folder / "encoder"
    encoder.mkdir()
    torch.manual_seed(0)
    network = AlexNet(classes=4, width=0.1, image_size=64)
    save_architecture(encoder, network)
    for name in ("encoder", "random", "wrong_sound"):
        save_weights(encoder, name, network)
    descriptor = described_as("spectrum", folder / "descriptor")
    images = ("layers=[pool5]", "resize=72")
    return SimpleNamespace(
        voc=(folder / "voc", encoder, images),
        sun=(folder / "sun", encoder, (*images, "images_per_class=1")),
        esc50=(folder / "esc50", descriptor, ("windows=2",)),
    )


@pytest.mark.parametrize(("benchmark", "count"), [("voc", 70), ("sun", 60), ("esc50", 80)])
def test_trees(attacked, tmp_path, trees, benchmark, count):
    """A dataset with one damaged or exchanged file."""
    whole, encoder, changes = getattr(trees, benchmark)
    jobs, spoiled = [], []
    for number in range(count):
        dataset, root = shutil.copytree(whole, tmp_path / "root" / f"dataset{number}"), tmp_path / "root" / str(number)
        root.mkdir()
        spoiled.append(spoil(number, dataset, attacked.secret) if number else "nothing")
        sets = [f"data_dir={dataset}", f"encoder={encoder}", *changes]
        arguments = options(root, [f"evaluate.{benchmark}.{change}" for change in sets])
        jobs.append(["--benchmark", benchmark, *arguments])
    one_line_each(attacked.stages("evaluate", jobs, tmp_path / "root", 90), spoiled)


def test_networks_and_proposals(attacked, tmp_path, trees):
    """Encoders and released proposals that somebody gives away."""
    whole, encoder, changes = trees.voc
    jobs, spoiled = [], []
    for number in range(-1, 20):
        given, root = shutil.copytree(encoder, tmp_path / "root" / f"encoder{number}"), tmp_path / "root" / str(number)
        root.mkdir()
        spoiled.append(spoil(number, given, attacked.secret) if number >= 0 else "nothing")
        sets = [f"data_dir={whole}", f"encoder={given}", *changes]
        jobs.append(["--benchmark", "voc", *options(root, [f"evaluate.voc.{change}" for change in sets])])
    one_line_each(attacked.stages("evaluate", jobs, tmp_path / "root", 90), spoiled)
