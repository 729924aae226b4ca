"""Shards: each is processed once, in any order, even if a worker dies."""

import itertools
import multiprocessing
import os
import signal
import subprocess
import sys
import textwrap
import time
import warnings
from functools import partial
from pathlib import Path

import pytest
from shard_work import answer, die_at, fail_at, grow

from earshot.core.errors import EarshotError
from earshot.core.files import link_tree, shard_name, shard_paths, write_atomically
from earshot.pipeline.shards import first_result, map_shards


def _square(number: int, *, folder: Path) -> dict[str, int]:
    with (folder / f"done-{number}").open("a") as file:
        file.write("x")
    return {"sum": number * number, "shards": 1}


def _fail_at(number: int, *, folder: Path, bad: int) -> dict[str, int]:
    if number == bad:
        raise EarshotError(f"clip {number} is bad")
    return _square(number, folder=folder)


def _die_once(number: int, *, folder: Path, times: int) -> dict[str, int]:
    tries = folder / f"tries-{number}"
    tries.open("a").write("x")
    if number == 2 and tries.stat().st_size <= times:
        os.kill(os.getpid(), signal.SIGKILL)
    return _square(number, folder=folder)


def test_counts_are_summed_over_all_shards_and_nothing_is_done_twice(tmp_path):
    work = partial(_square, folder=tmp_path)
    first = map_shards(work, range(5), tmp_path / "markers", title="squares")
    again = map_shards(work, range(7), tmp_path / "markers", title="squares")
    assert first == {"sum": 30, "shards": 5}
    assert again == {"sum": 91, "shards": 7}
    assert all((tmp_path / f"done-{number}").read_text() == "x" for number in range(7))


def test_an_error_keeps_what_was_finished(tmp_path):
    with pytest.raises(EarshotError, match="clip 3 is bad"):
        map_shards(partial(_fail_at, folder=tmp_path, bad=3), range(6), tmp_path / "markers", title="squares")
    kept = {int(path.stem) for path in (tmp_path / "markers").glob("*.json")}
    assert {0, 1, 2} <= kept and 3 not in kept
    map_shards(partial(_square, folder=tmp_path), range(6), tmp_path / "markers", title="squares")
    assert all((tmp_path / f"done-{number}").read_text() == "x" for number in kept)


@pytest.mark.filterwarnings("ignore:.*a worker died")
@pytest.mark.filterwarnings("ignore:A worker stopped")
def test_a_worker_that_dies_once_costs_only_its_shard(tmp_path):
    counts = map_shards(partial(_die_once, folder=tmp_path, times=1), range(5), tmp_path / "markers", title="squares")
    assert counts == {"sum": 30, "shards": 5}


@pytest.mark.filterwarnings("ignore:.*a worker died")
@pytest.mark.filterwarnings("ignore:A worker stopped")
def test_a_shard_whose_worker_always_dies_is_named_and_the_others_are_kept(tmp_path):
    with pytest.raises(EarshotError, match=shard_name(2)):
        map_shards(partial(_die_once, folder=tmp_path, times=99), range(5), tmp_path / "markers", title="squares")
    assert {int(path.stem) for path in (tmp_path / "markers").glob("*.json")} == {0, 1, 3, 4}


def test_workers_are_ready_after_the_first_result_and_may_grow(tmp_path):
    """The shards run in the processes that answered; loky would restart one that grows by 300 MB."""
    answered = first_result(partial(answer, tmp_path), 9)
    assert answered != os.getpid()
    with warnings.catch_warnings(record=True) as raised:
        warnings.simplefilter("always")
        map_shards(partial(grow, tmp_path), range(6), tmp_path / "markers", title="growing")
    assert not [each for each in raised if "worker stopped" in str(each.message)]
    processes = [{path.name.split("-")[-1] for path in tmp_path.glob(f"{word}-*")} for word in ("answered", "grew")]
    assert processes[1] <= processes[0]


def test_the_first_result_of_one_task_comes_from_this_process(tmp_path):
    assert first_result(partial(answer, tmp_path), 1) == os.getpid()


@pytest.mark.filterwarnings("ignore:A worker stopped")
def test_the_error_of_a_first_result_arrives_and_so_does_its_death(tmp_path):
    with pytest.raises(EarshotError, match="shard 0 is bad"):
        first_result(partial(fail_at, tmp_path, 0, 0), 2)
    with pytest.raises(EarshotError, match="EARSHOT_WORKERS=1"):
        first_result(partial(die_at, tmp_path, 0, 0), 2)


def test_a_missing_shard_is_named(tmp_path):
    for number in (0, 2):
        (tmp_path / f"{shard_name(number)}.tar").touch()
    with pytest.raises(EarshotError, match=r"found 00002\.tar, expected 00001\.tar"):
        shard_paths(tmp_path, ".tar")
    with pytest.raises(EarshotError, match="holds no shards"):
        shard_paths(tmp_path, ".parquet")


def test_a_file_is_written_whole_or_not_at_all(tmp_path):
    target = tmp_path / "table" / "00000.csv"
    with write_atomically(target) as temporary:
        temporary.write_text("first")
    with pytest.raises(ZeroDivisionError), write_atomically(target) as temporary:
        temporary.write_text("half")
        raise ZeroDivisionError
    assert target.read_text() == "first"
    assert [path.name for path in target.parent.iterdir()] == ["00000.csv"]


def test_a_linked_folder_replaces_the_old_one_whole_and_shares_its_bytes(tmp_path):
    for name, content in (("scratch/a", "new"), ("target/b", "old"), (".target.0.placing/c", "left by a kill")):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(content)
    link_tree(tmp_path / "scratch", tmp_path / "target")
    paths = sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*"))
    assert paths == ["scratch", "scratch/a", "target", "target/a"]
    assert os.path.samefile(tmp_path / "scratch/a", tmp_path / "target/a")


def _link_and_be_killed(source: Path, target: Path, steps: int) -> None:
    """Link a folder in a process that is killed before its `steps`-th change of the file system."""
    step_numbers = itertools.count(1)

    def counted(change):
        def step(*arguments, **options):
            if next(step_numbers) == steps:
                os.kill(os.getpid(), signal.SIGKILL)
            return change(*arguments, **options)

        return step

    for name in ("mkdir", "link", "rename", "replace", "rmdir", "unlink"):
        setattr(os, name, counted(getattr(os, name)))
    link_tree(source, target)


def test_linking_that_is_killed_at_any_step_succeeds_the_next_time(tmp_path):
    new, old = {"a": "1", "ledger/b": "2"}, {"a": "0", "c": "3"}
    ends = []
    for steps in range(1, 30):
        root = tmp_path / str(steps)
        for folder, files in (("scratch", new), ("target", old)):
            for name, content in files.items():
                (root / folder / name).parent.mkdir(parents=True, exist_ok=True)
                (root / folder / name).write_text(content)
        process = multiprocessing.get_context("fork").Process(
            target=_link_and_be_killed, args=(root / "scratch", root / "target", steps)
        )
        process.start()
        process.join()
        ends.append(process.exitcode)
        if (root / "target").exists():
            assert _files(root / "target") in (new, old)
        link_tree(root / "scratch", root / "target")
        assert _files(root / "target") == _files(root / "scratch") == new
        assert sorted(path.name for path in root.iterdir()) == ["scratch", "target"]
        if process.exitcode == 0:
            break
    assert ends[-1] == 0 and set(ends[:-1]) == {-signal.SIGKILL} and len(ends) > 8


def _files(folder: Path) -> dict[str, str]:
    return {str(file.relative_to(folder)): file.read_text() for file in folder.rglob("*") if file.is_file()}


SLOW_SHARDS = """
    import sys, time
    from pathlib import Path
    from earshot.pipeline.shards import first_answer, map_shards

    def work(number):
        (Path(sys.argv[1]) / f"begun-{number}").touch()
        time.sleep(30)

    if __name__ == "__main__":
        print("ready", flush=True)
        try:
            map_shards(work, range(4), Path(sys.argv[1]) / "markers", title="slow")
        except KeyboardInterrupt:
            sys.exit("stopped")
"""


@pytest.mark.slow
@pytest.mark.parametrize("after_s", [None])
def test_ctrl_c_is_one_line(tmp_path, after_s):
    script = tmp_path / "slow.py"
    script.write_text(textwrap.dedent(SLOW_SHARDS))
    environment = os.environ | {"EARSHOT_WORKERS": "2", "PYTHONPATH": str(Path.cwd())}
    process = subprocess.Popen([sys.executable, script, tmp_path], start_new_session=True, text=True, env=environment,
                               stdout=subprocess.PIPE, stderr=subprocess.PIPE)  # fmt: skip
    assert process.stdout.readline() == "ready\n"
    until = time.monotonic() + (60 if after_s is None else after_s)
    while time.monotonic() < until and not any(tmp_path.glob("begun-*")):
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does
    _, errors = process.communicate(timeout=60)
    assert (errors.strip(), process.returncode) == ("stopped", 1)
