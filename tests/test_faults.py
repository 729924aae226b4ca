"""No bad input crashes a stage, hangs it past its limit, makes it write outside its root, or open what it points at.

The inputs are those of `bad_media`: 100 of them by default, 2,000 in the long run.
"""

import csv
import io
import os
import shutil
import subprocess
import sys
import tarfile
import threading
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from bad_media import BadInput, bad_input, seed_files
from conftest import PARAMS, REPOSITORY
from media_server import MediaServer

from earshot.core.messages import printable
from earshot.corpus.ledger import LedgerRow, read_ledger
from earshot.media.clips import may_be_clip
from earshot.networks.correspondence import build_correspondence
from earshot.networks.files import save_architecture, save_weights

CLIP_SECONDS = 10  # the limit of one clip
# A generous limit for a stage.
SECONDS_AN_INPUT, SECONDS_TO_START = 1.0, 60
SMALL = (
    "corpus.ontology=none",
    "extract.quality.duplicate=ignore",
    "extract.frame_size=32",
    "extract.frames=2",
    "extract.window_s=1.5",
    "extract.min_duration_s=1.5",
)
COUNTS = [24, pytest.param(2000, marks=pytest.mark.slow)]


@pytest.fixture(scope="module")
def seeds(tmp_path_factory) -> dict[str, bytes]:
    """An intact file of each container."""
    return seed_files(tmp_path_factory.mktemp("seeds"))


class Elsewhere:
    """The targets of pointing inputs, which nothing may touch: a file and a server. A context manager."""

    def __init__(self, folder: Path) -> None:
        self.file = folder / "secret.mp4"
        self.opened = 0
        self.server = MediaServer()
        self._ending = threading.Event()

    def __enter__(self) -> "Elsewhere":
        # A named pipe can be opened for writing only while another process has it open for reading.
        os.mkfifo(self.file)
        self._watch = threading.Thread(target=self._watching, daemon=True)
        self._watch.start()
        self.server.__enter__()
        return self

    @contextmanager
    def untouched(self, root: Path) -> Iterator[None]:
        """Check at the end that neither target was touched, and that all writes were below `root`."""
        root.mkdir(exist_ok=True)
        before = outside(self.file.parent, root)
        yield
        time.sleep(0.05)  # the watch checks once more
        assert self.opened == 0
        assert not self.server.requests
        assert outside(self.file.parent, root) == before

    def __exit__(self, *_: object) -> None:
        self._ending.set()
        self._watch.join()
        self.server.__exit__()

    def _watching(self) -> None:
        while not self._ending.wait(0.01):
            try:
                descriptor = os.open(self.file, os.O_WRONLY | os.O_NONBLOCK)
            except OSError:
                continue
            self.opened += 1
            os.close(descriptor)

    @property
    def targets(self) -> list[str]:
        """Addresses of the file and of the server, as in playlists."""
        file, address = str(self.file), self.server.address("secret.mp4")
        schemes = ("subfile,,start,0,end,99,,:", "concat:", "async:", "cache:", "crypto:", "pipe:")
        return [file, f"file://{file}", f"file:{file}", address, *(scheme + file for scheme in schemes)]


def outside(folder: Path, root: Path) -> set[tuple[str, int]]:
    """Every file in `folder` and in the repository, except below `root`, with the time of its last change."""
    files = set()
    for top in (folder, REPOSITORY):
        for parent, folders, names in os.walk(top):
            folders[:] = [name for name in folders if not (name.startswith(".") or name == "__pycache__")]
            folders[:] = [name for name in folders if Path(parent, name) != root]
            files |= {(os.path.join(parent, name), os.lstat(os.path.join(parent, name)).st_mtime_ns) for name in names}
    return files


def command(name: str, root: Path, changes: Iterable[str]) -> list[str]:
    """The command line of a stage."""
    options = ["--params", str(PARAMS), "--root", str(root)]
    return [
        sys.executable,
        "-m",
        f"stages.{name}",
        *options,
        *(word for change in changes for word in ("--set", change)),
    ]


def stage(name: str, root: Path, inputs: int, *changes: str) -> str:
    """Run a stage, check that it succeeds in time without a traceback, and return its closing line."""
    seconds = SECONDS_TO_START + inputs * SECONDS_AN_INPUT
    done = subprocess.run(command(name, root, changes), cwd=REPOSITORY, capture_output=True, text=True, timeout=seconds)
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr, done.stderr
    return done.stdout


def ledger(folder: Path) -> list[LedgerRow]:
    return [row for path in sorted(folder.glob("*.csv")) for row in read_ledger(path)]


def inputs_of(count: int, seeds: dict[str, bytes], targets: list[str]) -> list[BadInput]:
    return [bad_input(number, seeds, targets) for number in range(count)]


def tar(path: Path, inputs: Iterable[BadInput]) -> None:
    """Write a shard; two of three members have names that lead out of the folder."""
    with tarfile.open(path, "w") as archive:
        for number, each in enumerate(inputs):
            climbing = ("", "../" * 9 + "tmp/", "/tmp/")[number % 3]
            member = tarfile.TarInfo(climbing + each.name.encode("utf-8", "replace").decode())
            member.size = len(each.content)
            archive.addfile(member, io.BytesIO(each.content))


def check_outcomes(rows: Iterable[LedgerRow], inputs: Iterable[BadInput]) -> None:
    """Some faults make a file useless, others may be survived (a wrong bit in an image); odd names do no harm."""
    outcomes: dict[str, Counter] = {}
    for row, each in zip(rows, inputs, strict=True):
        outcomes.setdefault(each.fault.partition(":")[0], Counter())[row.status, row.reason] += 1
    for fault, counts in outcomes.items():
        print(f"{fault}: " + ", ".join(f"{number} {' '.join(what).strip()}" for what, number in counts.most_common()))
    kept = {fault: counts["kept", ""] for fault, counts in outcomes.items()}
    assert kept["pointing"] == kept["noise"] == 0
    assert kept["name"] == outcomes["name"].total()
    assert kept["flipped bits"] > 0


def extract_and_describe(root: Path, corpus: Path, count: int) -> list[LedgerRow]:
    limits = (f"extract.decode_timeout_s={CLIP_SECONDS}", "extract.shard_clips=25")
    stage("extract", root, count, f"corpus.clips={corpus}", *SMALL, *limits)
    stage("describe", root, count, *SMALL)
    return ledger(root / "data/scenes/ledger")


def write_files(corpus: Path, inputs: list[BadInput]) -> None:
    for each in inputs:
        (corpus / each.name).write_bytes(each.content)


def write_tars(corpus: Path, inputs: list[BadInput]) -> None:
    for number in range(0, len(inputs), 50):
        tar(corpus / f"{number // 50:05d}.tar", inputs[number : number + 50])


@pytest.mark.parametrize("count", COUNTS)
@pytest.mark.parametrize("write", [write_files, write_tars])
def test_bad_files_and_members_of_tar_shards_are_refused_or_survived(seeds, tmp_path, write, count):
    corpus, root = tmp_path / "corpus", tmp_path / "root"
    corpus.mkdir()
    with Elsewhere(tmp_path) as elsewhere:
        inputs = inputs_of(count, seeds, elsewhere.targets)
        write(corpus, inputs)
        with elsewhere.untouched(root):
            rows = extract_and_describe(root, corpus, count)
    check_outcomes(rows if write is write_tars else in_order(rows, inputs), inputs)


def in_order(rows: Iterable[LedgerRow], inputs: Iterable[BadInput]) -> list[LedgerRow]:
    """The rows in the order of the inputs, matched by the names in the ledger."""
    by_source = {row.source: row for row in rows}
    return [by_source[printable(each.name)] for each in inputs]


@pytest.mark.parametrize("count", COUNTS)
def test_bad_sources_of_a_manifest_are_refused_or_survived(seeds, tmp_path, count):
    corpus, root = tmp_path / "corpus", tmp_path / "root"
    corpus.mkdir()
    with Elsewhere(tmp_path) as elsewhere:
        inputs = [each for each in inputs_of(count, seeds, elsewhere.targets) if can_be_listed(each.name)]
        write_files(corpus, inputs)
        with open(corpus / "manifest.csv", "w", newline="", encoding="utf-8") as file:
            csv.writer(file).writerows([("path", "start", "end"), *((each.name, 0.2, 1.8) for each in inputs)])
        with elsewhere.untouched(root):
            limits = (f"download.timeout_s={CLIP_SECONDS}", "download.shard_clips=25")
            stage("download", root, count, f"corpus.manifest={corpus}", *limits)
            rows = ledger(root / "data/clips/ledger")
            stage("extract", root, count, *SMALL)
    check_outcomes(in_order(rows, inputs), inputs)


def can_be_listed(name: str) -> bool:
    """Whether a manifest can name such a file: ASCII, without outer spaces and backslashes."""
    return name.isascii() and name.strip() == name and "\\" not in name


# On a full small disk a stage fails with a reason; once there is room again, it continues.
SMALL_DISK = """
set -e
mount -t tmpfs -o size=32m none "$1"
cp -r "$2/." "$1"
left=$(df --output=avail --block-size=1K "$1" | tail -1)
head -c $((left - 24))K /dev/zero > "$1/ballast"
shift 2
"$@" && exit 99
rm "$ROOT/ballast"
"$@"
cp -r "$ROOT/data" "$ROOT/metrics" "$TARGET"
"""


CLIPS = 12  # more than fit on the small disk
OUTPUTS = {"download": "data/clips", "extract": "data/scenes", "describe": "data/sounds"}


@pytest.fixture(scope="module")
def plain(seeds, tmp_path_factory) -> tuple[Path, list[str]]:
    """A root with enough space, in which stages can run, and the changed parameters."""
    corpus, root = tmp_path_factory.mktemp("corpus"), tmp_path_factory.mktemp("plain")
    for number in range(CLIPS):
        (corpus / f"clip{number}.mp4").write_bytes(seeds["mp4"])
    (corpus / "manifest.csv").write_text("path,start,end\n" + "".join(f"clip{n}.mp4,0.2,1.8\n" for n in range(CLIPS)))
    changes = [*SMALL, f"corpus.manifest={corpus}", "download.shard_clips=4"]
    return root, changes


@pytest.mark.slow
@pytest.mark.parametrize("name", ["extract", "download", "describe"])
def test_a_full_disk_stops_a_stage_with_a_reason_and_no_work_is_lost(plain, tmp_path, name):
    space = ["unshare", "--mount", "--map-root-user"]
    if not shutil.which("unshare") or subprocess.run([*space, "true"], capture_output=True).returncode:
        pytest.skip("this system lets nobody mount a small disk")
    (finished, changes), full, before, target = plain, tmp_path / "full", tmp_path / "before", tmp_path / "target"
    for folder in (full, before, target):
        folder.mkdir()
    names = [*OUTPUTS]
    for each in names[: names.index(name) + 1]:
        if not (finished / OUTPUTS[each]).exists():
            stage(each, finished, CLIPS, *changes)
    for earlier in names[: names.index(name)]:
        shutil.copytree(finished / OUTPUTS[earlier], before / OUTPUTS[earlier])
    script = [*space, "sh", "-c", SMALL_DISK, "sh", str(full), str(before), *command(name, full, changes)]
    environment = os.environ | {"ROOT": str(full), "TARGET": str(target)}
    done = subprocess.run(script, cwd=REPOSITORY, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert (
        "No space left on device; finished work is kept: free space or correct the permissions, then run again"
        in done.stderr
    )
    assert "Traceback" not in done.stderr
    output = contents(target / OUTPUTS[name])
    assert output and output == contents(finished / OUTPUTS[name])
    metrics = f"metrics/{name}.json"
    assert (target / metrics).read_bytes() == (finished / metrics).read_bytes()


def contents(folder: Path) -> dict[str, bytes]:
    """Every file below a folder."""
    return {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


@pytest.mark.parametrize("count", [24, pytest.param(1000, marks=pytest.mark.slow)])
def test_embed_gives_every_bad_input_its_rows_or_a_reason(tmp_path, seeds, count):
    with Elsewhere(tmp_path) as elsewhere:
        inputs = inputs_of(count, seeds, elsewhere.targets)
        root = tmp_path / "run"
        with elsewhere.untouched(root):
            (root / "corpus").mkdir()
            write_files(root / "corpus", inputs)
            words = [root / "corpus", "--model", network(root / "network"), "--output", root / "emb.parquet"]
            command = [sys.executable, "-m", "earshot", "embed", *map(str, words), "--hop", "1", "--max-hours", "0.02"]
            limit = 3 * SECONDS_TO_START + count * SECONDS_AN_INPUT
            one = os.environ | {"EARSHOT_WORKERS": "1", "OMP_NUM_THREADS": "1"}
            done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, timeout=limit, env=one)
            assert done.returncode == 0 and "Traceback" not in done.stderr, done.stderr
        rows = ledger(root)
        assert len(rows) == len([each for each in inputs if may_be_clip(Path(each.name).name)])
        embedded = pq.read_table(root / "emb.parquet", columns=["clip_id"])["clip_id"].unique().to_pylist()
        assert sorted(embedded) == sorted(row.clip_id for row in rows if row.status == "kept")
        assert len(embedded) > count / 10


def network(folder: Path) -> Path:
    """A small network of correspond."""
    built = build_correspondence("ave", width=1 / 64, image_size=32, stride=2)
    save_architecture(folder, built)
    save_weights(folder, "encoder", built)
    return folder
