"""Memory and time of the stages from a thousand clips to a hundred thousand: flat memory, linear time.

    python -m perf.scale                                   # 1,000 and 10,000 clips
    python -m perf.scale --rows 1000 100000 --assert       # exits with 1 if a bound does not hold

Tiny clips (4 s at 64 px, one frame kept) go through the real stages: a manifest of local files, download with its
ledger, extract, describe; then DVC commits the outputs and checks them for changes. A few hundred clips are
rendered, and each is there under many names, so duplicates are not looked for. 1,000, 10,000 and 100,000 clips take 45
minutes of processor time. Measured for every number of clips:

- seconds by the clock and of the processors, per clip; other work on the machine slows the first, and the second less
- peak resident memory of the stage's own process, and of the largest of its workers and their decoders
- disk: bytes and files of what the stage wrote
- seconds of `dvc status` and of `dvc repro` when nothing has changed

Each number of clips stands beside every smaller one.
"""

import csv
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import dataclass, field
from itertools import combinations
from pathlib import Path

import imageio_ffmpeg
import psutil

from earshot.commands.recipe import apply_recipes
from perf.rounds import end, parser_of

REPOSITORY = Path(__file__).parent.parent
STAGES = {"download": "data/clips", "extract": "data/scenes", "describe": "data/sounds"}
DISTINCT = 200
A_FOLDER = 1000  # clips in one folder
SAMPLING = 0.25  # s, between two looks at the memory
GROWTH, EVEN, UNCHANGED_SECONDS = 1.1, 1.1, 5.0
GIT = {"GIT_AUTHOR_NAME": "a", "GIT_AUTHOR_EMAIL": "a@b", "GIT_COMMITTER_NAME": "a", "GIT_COMMITTER_EMAIL": "a@b"}
RECIPE = """about: Many tiny clips.
cost: {rows} clips.
reach: Flat memory, even time.
params:
  corpus: {{manifest: {manifest}, ontology: none}}
  extract: {{frames: 1, frame_size: 64, quality: {{duplicate: ignore}}}}
"""


@dataclass
class Cost:
    """The cost of one stage for so many clips: seconds, megabytes at the peak, megabytes and files on disk."""

    rows: int
    clock: float
    processors: float
    own_memory: float
    worker_memory: float
    disk: float
    files: int


@dataclass
class Watch:
    """Samples the memory and the processor time of a process and of all that it has started."""

    process: psutil.Process
    own: int = 0
    others: int = 0
    seconds: dict[tuple[int, float], float] = field(default_factory=dict)
    over: threading.Event = field(default_factory=threading.Event)

    def run(self) -> None:
        """Look until `over` is set."""
        while not self.over.wait(SAMPLING):
            for member in _family(self.process):
                self._look(member)

    def _look(self, member: psutil.Process) -> None:
        try:
            memory, times = member.memory_info().rss, member.cpu_times()
            self.seconds[member.pid, member.create_time()] = times.user + times.system
        except psutil.Error:
            return
        if member == self.process:
            self.own = max(self.own, memory)
        else:
            self.others = max(self.others, memory)


def _family(process: psutil.Process) -> list[psutil.Process]:
    try:
        return [process, *process.children(recursive=True)]
    except psutil.Error:
        return []


class Repository:
    """A copy of this repository's tracked files under Git and DVC, for a corpus of so many clips."""

    def __init__(self, folder: Path, rows: int, manifest: Path) -> None:
        self.folder = folder
        listed = subprocess.run(["git", "ls-files", "-z"], cwd=REPOSITORY, capture_output=True, text=True, check=True)
        for name in filter(None, listed.stdout.split("\0")):
            if name != "dvc.lock" and (REPOSITORY / name).exists():
                (folder / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(REPOSITORY / name, folder / name)
        recipe = folder / "recipes" / "many.yaml"
        recipe.write_text(RECIPE.format(rows=rows, manifest=manifest))
        apply_recipes([recipe], (folder / "params.yaml").read_text(), folder / "params.yaml")
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        self.environment = {**os.environ, **GIT, "DVC_NO_ANALYTICS": "1", "PATH": path}
        self.environment["DVC_SITE_CACHE_DIR"] = str(folder / ".site")
        self.do("git", "init", "--quiet")
        self.dvc("config", "cache.type", "hardlink")  # what is measured is no copying

    def do(self, *command: str) -> str:
        """Run a command here; its output."""
        done = subprocess.run(command, cwd=self.folder, env=self.environment, capture_output=True, text=True)
        if done.returncode:
            sys.exit(f"{' '.join(command)}: {done.stderr or done.stdout}")
        return done.stdout

    def dvc(self, *words: str) -> str:
        return self.do(sys.executable, "-m", "dvc", *words)

    def stage(self, name: str, rows: int) -> Cost:
        """Run a stage and measure it."""
        start = time.perf_counter()
        with open(self.folder / f"{name}.log", "wb") as log:
            command = [sys.executable, "-m", f"stages.{name}"]
            process = subprocess.Popen(command, cwd=self.folder, env=self.environment, stdout=log, stderr=log)
            watch = Watch(psutil.Process(process.pid))
            thread = threading.Thread(target=watch.run)
            thread.start()
            status = process.wait()
            clock = time.perf_counter() - start
            watch.over.set()
            thread.join()
        if status:
            sys.exit(f"{name}: {(self.folder / f'{name}.log').read_text()}")
        files = [file for file in (self.folder / STAGES[name]).rglob("*") if file.is_file()]
        disk = sum(file.stat().st_size for file in files)
        seconds = sum(watch.seconds.values())
        return Cost(rows, clock, seconds, watch.own / 1e6, watch.others / 1e6, disk / 1e6, len(files))

    def unchanged_seconds(self) -> dict[str, float]:
        """Seconds of `dvc status` and `dvc repro` of the three stages, without changes."""
        self.dvc("commit", "--force", *STAGES)
        seconds = {}
        # A stage before them, such as the sample of which the manifest tells nothing, is not looked at.
        for command in ("status", "repro --single-item"):
            start = time.perf_counter()
            output = self.dvc(*command.split(), *STAGES)
            seconds[f"dvc {command.split()[0]}"] = time.perf_counter() - start
            if "up to date" not in output or "Running stage" in output:
                sys.exit(f"dvc {command}: {output}")
        return seconds


def render_clips(folder: Path) -> list[Path]:
    """Clips that differ in image and sound, none of them silent or still."""
    folder.mkdir()
    paths = [folder / f"{number}.mp4" for number in range(DISTINCT)]
    form = ["-c:v", "libx264", "-preset", "ultrafast", "-pix_fmt", "yuv420p", "-c:a", "aac", "-threads", "1"]
    for number, path in enumerate(paths):
        image = f"testsrc2=s=64x64:r=5:d=4,hue=h={number}"
        sound = f"sine={200 + 10 * number}:r=16000:d=4,tremolo=f={1 + number % 16}"
        command = [
            imageio_ffmpeg.get_ffmpeg_exe(),
            "-v",
            "error",
            "-f",
            "lavfi",
            "-i",
            image,
            "-f",
            "lavfi",
            "-i",
            sound,
        ]
        subprocess.run([*command, *form, str(path)], check=True, stdin=subprocess.DEVNULL)
    return paths


def write_corpus(folder: Path, clips: list[Path], rows: int) -> Path:
    """A manifest of so many local files, each a hard link to a clip; return its path."""
    folder.mkdir()
    with open(folder / "manifest.csv", "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["path", "start", "end"])
        for number in range(rows):
            path = folder / f"{number // A_FOLDER:05d}" / f"{number:08d}.mp4"
            path.parent.mkdir(exist_ok=True)
            os.link(clips[number % len(clips)], path)
            writer.writerow([path.relative_to(folder), 0, 4])
    return folder / "manifest.csv"


def measure(folder: Path, clips: list[Path], rows: int) -> tuple[dict[str, Cost], dict[str, float]]:
    """The cost of every stage for so many clips, and the seconds of DVC's commands when nothing has changed."""
    manifest = write_corpus(folder / f"corpus-{rows}", clips, rows)
    repository = Repository(folder / f"repository-{rows}", rows, manifest)
    costs = {}
    for name in STAGES:
        costs[name] = cost = repository.stage(name, rows)
        print(
            f"{rows:>9,} {name:<10}{cost.clock:>9.1f}{rows / cost.clock:>8.0f}{1000 * cost.processors / rows:>9.2f}"
            f"{cost.own_memory:>9.0f}{cost.worker_memory:>9.0f}{cost.disk:>10.1f}{cost.files:>7,}",
            flush=True,
        )
    unchanged = repository.unchanged_seconds()
    for name, seconds in unchanged.items():
        print(f"{rows:>9,} {name:<10}{seconds:>9.1f}", flush=True)
    shutil.rmtree(repository.folder)
    return costs, unchanged


def report(measured: list[tuple[dict[str, Cost], dict[str, float]]]) -> list[str]:
    """Print how each number of clips compares with every smaller one; return the bounds that do not hold."""
    faults = [f"{name} takes {s:.1f} s" for name, s in measured[-1][1].items() if s > UNCHANGED_SECONDS]
    print(f"\n{'a clip, more over fewer':<38}{'clock':>9}{'cpu':>9}{'own MB':>9}{'MB':>9}")
    for (few, _), (many, _) in combinations(measured, 2):
        for name, before in few.items():
            after, times = many[name], many[name].rows / before.rows
            growths = {
                "clock": (after.clock / before.clock / times, EVEN),
                "processor time": (after.processors / before.processors / times, EVEN),
                "its own memory": (after.own_memory / before.own_memory, GROWTH),
                "a worker's memory": (after.worker_memory / before.worker_memory, GROWTH),
            }
            title = f"{name}, {after.rows:,} over {before.rows:,}"
            print(f"{title:<38}" + "".join(f"{growth:>9.2f}" for growth, _ in growths.values()))
            faults += [f"{title}: {what} {growth:.2f}" for what, (growth, most) in growths.items() if growth > most]
    return faults


def main() -> None:
    """Measure every number of clips and print it; with --assert, fail if a bound does not hold."""
    parser = parser_of(__doc__)
    parser.add_argument("--rows", type=int, nargs="+", default=[1000, 10_000], help="numbers of clips, rising")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        clips = render_clips(folder / "rendered")
        heads = ["stage", "seconds", "clips/s", "cpu ms", "own MB", "MB", "disk MB", "files"]
        print("{:>9} {:<10}{:>9}{:>8}{:>9}{:>9}{:>9}{:>10}{:>7}".format("clips", *heads), flush=True)
        faults = report([measure(folder, clips, rows) for rows in options.rows])
    end(options, faults)


if __name__ == "__main__":
    main()
