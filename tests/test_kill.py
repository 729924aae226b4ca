"""A stage killed at any instant and run again gives the same outputs, and repeats no finished work."""

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from conftest import REPOSITORY, run_stage

EVALUATE = "evaluate --benchmark esc50"  # the cheapest of the benchmarks
OUTPUTS = {
    "sample": ["data/sample"],
    "download": ["data/clips"],
    "extract": ["data/scenes", "data/annotations"],
    "describe": ["data/sounds"],
    "label": ["data/labels", "models/labeler"],
    "pretrain": ["models/pretrain"],
    EVALUATE: [],
}
SLOW = [
    pytest.param(stage, marks=pytest.mark.slow)
    for stage in ("download", "extract", "pretrain", "sample", "label", EVALUATE)
]
SHARDS = (".parquet", ".tar")
KILLED_WHILE_PUBLISHING = """
import os, signal, sys
import earshot.pipeline.stage
from stages.{stage} import STAGE, main
earshot.pipeline.stage.link_tree = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
STAGE.run(main, sys.argv[1:])
"""


def contents(root: Path, stage: str) -> dict[str, bytes]:
    """Every output file of a stage, and its metrics."""
    files = [file for name in OUTPUTS[stage] for file in sorted((root / name).rglob("*")) if file.is_file()]
    return {str(file.relative_to(root)): file.read_bytes() for file in (*files, *metrics(root, stage))}


def metrics(root: Path, stage: str) -> list[Path]:
    """The metrics files of a stage; sample has none."""
    return sorted((root / "metrics").glob(f"{stage.split()[-1]}*"))


def scratch(root: Path, stage: str) -> Path:
    """The folder of the unfinished work of a stage."""
    return root / ".earshot" / stage.replace(" --benchmark ", "-")


def fresh(tiny_root: Path, root: Path, stage: str) -> Path:
    """A copy of the tiny run in which `stage` has not run yet."""
    shutil.rmtree(root, ignore_errors=True)
    shutil.copytree(tiny_root, root, copy_function=os.link)
    for name in [*OUTPUTS[stage], ".earshot"]:
        shutil.rmtree(root / name, ignore_errors=True)
    for file in metrics(root, stage):
        file.unlink()
    return root


def kill_after(seconds: float, command: list[str]) -> bool:
    """Start a command in its own process group and kill the group; False if it had ended before."""
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    process = subprocess.Popen(command, cwd=REPOSITORY, start_new_session=True, **quiet)
    try:
        process.wait(seconds)
        return False
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        return True


def finished_shards(root: Path, stage: str) -> dict[str, int]:
    """The finished shards in the scratch folder: file name to inode.

    None for label, which writes all of its shards at the end, from the results of its workers.
    """
    if stage == "label":
        return {}
    done = {marker.stem for marker in scratch(root, stage).glob("*/finished/*/*.json")}
    done |= {settled.stem for settled in scratch(root, stage).glob("*/out/data/clips/ledger/*.csv")}
    files = [file for name in OUTPUTS[stage] for file in scratch(root, stage).glob(f"*/**/{Path(name).name}/*")]
    tables = [file for file in files if file.suffix in SHARDS and file.stem in done]
    return {f"{file.parent.name}/{file.name}": file.stat().st_ino for file in tables}


def published_shards(root: Path, stage: str) -> dict[str, int]:
    """The published shards: file name to inode, which a hard link keeps."""
    tables = [file for name in OUTPUTS[stage] for file in (root / name).rglob("*") if file.suffix in SHARDS]
    return {f"{file.parent.name}/{file.name}": file.stat().st_ino for file in tables}


def command(stage: str, root: Path) -> list[str]:
    return [sys.executable, "-m", *f"stages.{stage}".split(), *arguments(root)]


def arguments(root: Path) -> list[str]:
    return ["--params", str(root / "params.yaml"), "--root", str(root)]


@dataclass(frozen=True)
class Rerun:
    """A stage that was killed and run again: its finished shards before, its published ones after, and what is left."""

    outputs: dict[str, bytes]
    finished: dict[str, int]
    published: dict[str, int]
    left: list[Path]


def kill_and_rerun(tiny_root: Path, root: Path, stage: str, kills: int) -> Iterator[Rerun]:
    """Kill `stage` while it runs, at so many random instants, each in a fresh root, and run it again."""
    draw, killed = random.Random(stage), 0
    start = time.monotonic()
    run_stage(stage, fresh(tiny_root, root, stage))
    duration = time.monotonic() - start
    while killed < kills:
        fresh(tiny_root, root, stage)
        start = time.monotonic()
        if kill_after(draw.uniform(0, duration), command(stage, root)):
            killed += 1
        else:  # the machine is less busy than it was: no kill
            duration = time.monotonic() - start
        finished = finished_shards(root, stage)
        run_stage(stage, root)
        left = list(scratch(root, stage).iterdir())
        yield Rerun(contents(root, stage), finished, published_shards(root, stage), left)


@pytest.mark.slow
@pytest.mark.parametrize("kills", [2, 20])
@pytest.mark.parametrize("stage", OUTPUTS)
def test_a_killed_stage_gives_the_same_outputs(tiny_root, tmp_path, stage, kills):
    expected = contents(tiny_root, stage)
    for rerun in kill_and_rerun(tiny_root, tmp_path / "root", stage, kills):
        assert rerun.outputs == expected
        assert rerun.finished.items() <= rerun.published.items(), "a finished shard was written again"
        assert not rerun.left


@pytest.mark.parametrize("stage", ["describe", *SLOW[:-1]])  # evaluate publishes only metrics
def test_a_stage_killed_between_writing_and_publishing_repeats_no_shard(tiny_root, tmp_path, stage):
    root = fresh(tiny_root, tmp_path / "root", stage)
    code = [sys.executable, "-c", KILLED_WHILE_PUBLISHING.format(stage=stage), *arguments(root)]
    done = subprocess.run(code, cwd=REPOSITORY, capture_output=True)
    assert done.returncode == -signal.SIGKILL, done.stderr.decode()
    assert not any((root / name).exists() for name in OUTPUTS[stage])
    before = finished_shards(root, stage)
    run_stage(stage, root)
    assert before.items() <= published_shards(root, stage).items()
    assert contents(root, stage) == contents(tiny_root, stage)
