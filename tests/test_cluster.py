"""Shards on a Dask cluster of real processes: the same bytes as from the local pool, even if workers are killed."""

import importlib
import os
import random
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import cloudpickle
import dask
import psutil
import pytest
from conftest import REPOSITORY, run_stage
from dask.distributed import Client
from shard_work import die_at, fail_at, work_on
from test_kill import arguments, command, contents, finished_shards, fresh, published_shards

from earshot.core.errors import EarshotError
from earshot.core.yaml_files import flatten, read_yaml
from earshot.pipeline import cluster
from earshot.pipeline.settings import settings
from earshot.pipeline.shards import map_shards

SHARD_SECONDS = 15.0  # longer than a shard of the tiny run takes on a busy machine
STARTING_SECONDS = 120.0  # for a scheduler or a worker to start on a busy machine
# A shard that kills a worker is set aside at once. By default Dask retries 3 times, and starts a worker each time.
ALLOWED_FAILURES = {"DASK_DISTRIBUTED__SCHEDULER__ALLOWED_FAILURES": "0"}
pytestmark = pytest.mark.filterwarnings("ignore:.*workers died; retrying . shards once")
CLUSTER_STAGES = [
    "extract",
    pytest.param("describe", marks=pytest.mark.slow),
    pytest.param("label", marks=pytest.mark.slow),
]


class Cluster:
    """A scheduler on this machine, and workers in their own folder with their own environment."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.processes: list[subprocess.Popen] = []
        address = folder / "scheduler.json"
        here = ["--host", "127.0.0.1", "--port", "0", "--no-dashboard", "--scheduler-file", str(address)]
        self.start("scheduler", *here, PYTHONPATH="")
        self.wait_for(address.exists)
        self.address = "tcp://" + address.read_text().partition("tcp://")[2].partition('"')[0]

    def start(self, *words: str, **environment: str) -> subprocess.Popen:
        log = open(self.folder / f"{len(self.processes)}-{words[0]}.log", "wb")  # noqa: SIM115
        variables = (
            os.environ
            | ALLOWED_FAILURES
            | {"PYTHONPATH": f"{REPOSITORY}{os.pathsep}{Path(__file__).parent}"}
            | environment
        )
        command = [sys.executable, "-m", "dask", *words]
        self.processes.append(subprocess.Popen(command, cwd=self.folder, env=variables, stdout=log, stderr=log))
        return self.processes[-1]

    def worker(self, *words: str, **environment: str) -> subprocess.Popen:
        here = ["--nthreads", "1", "--no-dashboard", "--local-directory", str(self.folder)]
        return self.start("worker", self.address, *here, *words, **environment)

    def workers(self, at_least: int = 0) -> list[int]:
        """The started worker processes: a nanny gives up on one that dies earlier, and exits."""
        with Client(self.address, set_as_default=False) as client:
            client.wait_for_workers(at_least or 1, timeout=STARTING_SECONDS)
            return [pid for pid in client.run(os.getpid, on_error="return").values() if isinstance(pid, int)]

    @staticmethod
    def wait_for(holds) -> None:
        until = time.monotonic() + STARTING_SECONDS
        while not holds():
            assert time.monotonic() < until
            time.sleep(0.05)

    def end(self) -> None:
        for process in self.processes:
            family = [process, *_descendants(process.pid)]
            for member in family:
                member.kill()
            process.wait()


def _descendants(pid: int) -> list[psutil.Process]:
    try:
        return psutil.Process(pid).children(recursive=True)
    except psutil.NoSuchProcess:
        return []


@pytest.fixture(scope="module")
def running(tmp_path_factory) -> Iterator[Cluster]:
    """A scheduler with two workers that restart when they die."""
    started_cluster = Cluster(tmp_path_factory.mktemp("cluster"))
    started_cluster.worker("--nworkers", "2")
    started_cluster.workers(at_least=2)
    yield started_cluster
    started_cluster.end()


@pytest.fixture(autouse=True)
def impatient(monkeypatch):
    monkeypatch.setattr(cluster, "CONNECTING_SECONDS", 20.0)
    monkeypatch.setattr(cluster, "FILE_CACHE_SECONDS", 0.0)


def map_over(running: Cluster, folder: Path, work, shards: int = 6):
    return map_shards(work, range(shards), folder / "markers", title="t", cluster=running.address)


def started(folder: Path) -> dict[int, set[int]]:
    """The processes that began each shard."""
    processes: dict[int, set[int]] = {}
    for path in folder.glob("started-*"):
        _, number, pid = path.name.split("-")
        processes.setdefault(int(number), set()).add(int(pid))
    return processes


def kept(folder: Path) -> set[int]:
    return {int(path.stem) for path in (folder / "markers").glob("*.json")}


def test_a_killed_worker_costs_only_its_shard(running, tmp_path):
    victims = []

    def kill() -> None:
        running.wait_for(lambda: len(kept(tmp_path)) >= 2 and set(started(tmp_path)) - kept(tmp_path))
        number = (set(started(tmp_path)) - kept(tmp_path)).pop()
        [pid] = started(tmp_path)[number]
        os.kill(pid, signal.SIGKILL)
        victims.append((number, pid))

    killer = threading.Thread(target=kill)
    killer.start()
    counts = map_over(running, tmp_path, partial(work_on, tmp_path))
    killer.join()
    [(number, pid)] = victims
    assert counts == {"sum": 55, "shards": 6}
    assert pid in started(tmp_path)[number] and len(started(tmp_path)[number]) == 2
    assert all(len(pids) == 1 for other, pids in started(tmp_path).items() if other != number)
    assert all((tmp_path / f"done-{shard}").read_text() == "x" for shard in range(6))
    assert not [path for path in (tmp_path / "markers").iterdir() if path.suffix != ".json"]


@pytest.mark.slow
def test_a_shard_that_kills_its_workers_is_named_and_the_others_are_kept(running, tmp_path):
    with pytest.raises(EarshotError, match=r"^shards 00002: their workers died repeatedly"):
        map_over(running, tmp_path, partial(die_at, tmp_path, 2))
    assert kept(tmp_path) == {0, 1, 3, 4, 5} and len(started(tmp_path)[2]) == 2
    assert map_over(running, tmp_path, partial(work_on, tmp_path)) == {"sum": 55, "shards": 6}
    assert all((tmp_path / f"done-{number}").read_text() == "x" for number in kept(tmp_path) - {2})


def test_an_error_of_the_work_is_the_error_here_and_keeps_what_was_finished(running, tmp_path):
    with pytest.raises(EarshotError, match="^shard 3 is bad$"):
        map_over(running, tmp_path, partial(fail_at, tmp_path, 3))
    assert 3 not in kept(tmp_path) and kept(tmp_path) <= {0, 1, 2, 4, 5}


def test_a_worker_with_other_code_or_other_files_is_refused_by_name(running, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(cluster, "code_digest", lambda: "another state")
        with pytest.raises(EarshotError, match=r"worker tcp://127\.0\.0\.1:\d+ on .* has other code in .*earshot"):
            map_over(running, tmp_path, partial(work_on, tmp_path))
    with monkeypatch.context() as patch:
        patch.setattr(cluster, "_last_change", lambda path: 1)
        with pytest.raises(EarshotError, match=r"finds .*/markers/\.visible-to-workers-.* in another state"):
            map_over(running, tmp_path, partial(work_on, tmp_path))
    assert not started(tmp_path)


@pytest.mark.slow
def test_other_versions_are_warned_of(running, tmp_path, monkeypatch):
    monkeypatch.setattr(cluster, "_versions", lambda: dict.fromkeys(cluster.PACKAGES, "0.1"))
    with pytest.warns(UserWarning, match=r"worker .* has av \d.*, here 0\.1; .*: results may differ between machines"):
        map_over(running, tmp_path, partial(work_on, tmp_path), shards=1)


def listening(pid: int) -> set[str]:
    """The addresses on which a process and its descendants listen."""
    processes = [psutil.Process(pid), *_descendants(pid)]
    connections = [connection for process in processes for connection in process.net_connections()]
    return {connection.laddr.ip for connection in connections if connection.status == "LISTEN"}


def documented(program: str, page: str, **places: str) -> list[str]:
    """The options of the last `dask <program>` command of the page, the one for TLS."""
    words = re.findall(rf"python -m dask {program} (.*?[^\\])\n", page, re.DOTALL)[-1].replace("\\\n", " ")
    for name, place in places.items():
        words = words.replace(name, place)
    return words.split()


@pytest.mark.slow
def test_the_documented_cluster_binds_where_the_user_says_and_needs_its_key(tmp_path):
    page = (REPOSITORY / "docs/clusters-and-gpus.md").read_text()
    configured = re.search(r"```yaml\n(distributed:.*?)```", page, re.DOTALL)[1]
    for owner in ("own", "other"):
        (tmp_path / owner).mkdir()
        make = re.search(r"^openssl .*$", page, re.MULTILINE)[0].split()
        subprocess.run(make, cwd=tmp_path / owner, check=True, capture_output=True)
        (tmp_path / owner / "tls.yaml").write_text(configured.replace("/shared", str(tmp_path / owner)))
    assert (tmp_path / "own/key.pem").stat().st_mode & 0o77 == 0
    scheduler, worker, nanny = map(str, random.Random(os.getpid()).sample(range(20000, 30000), 3))
    places = {"HOST": "127.0.0.1", "THIS": "127.0.0.1", ":8786": f":{scheduler}"}
    places |= {"9000:9007": worker, "9100:9107": nanny, "--nworkers 8": "--nworkers 1"}
    cluster_of_one = Cluster.__new__(Cluster)
    cluster_of_one.folder, cluster_of_one.processes = tmp_path, []
    try:
        for program, more in {"scheduler": ["--port", scheduler], "worker": []}.items():
            words = [*documented(program, page, **places), *more]
            cluster_of_one.start(program, *words, DASK_CONFIG=str(tmp_path / "own/tls.yaml"))
        with secured(tmp_path / "own"), Client(f"tls://127.0.0.1:{scheduler}", timeout=STARTING_SECONDS) as client:
            client.wait_for_workers(1, timeout=STARTING_SECONDS)
            assert client.submit(lambda: 7).result() == 7
            assert [listening(process.pid) for process in cluster_of_one.processes] == [{"127.0.0.1"}] * 2
        with secured(tmp_path / "other"), pytest.raises(OSError):
            Client(f"tls://127.0.0.1:{scheduler}", timeout=2)
        with pytest.raises(OSError):
            Client(f"tcp://127.0.0.1:{scheduler}", timeout=2)
        with pytest.raises(TypeError):  # without a certificate
            Client(f"tls://127.0.0.1:{scheduler}", timeout=2)
    finally:
        cluster_of_one.end()


def secured(folder: Path):
    """Dask with the configuration in a folder."""
    return dask.config.set(dict(flatten(read_yaml(folder / "tls.yaml"))))


def test_no_scheduler_and_no_address_are_one_line(tmp_path, monkeypatch):
    monkeypatch.setattr(cluster, "CONNECTING_SECONDS", 1.0)
    with pytest.raises(EarshotError, match=r"EARSHOT_CLUSTER is tcp://127\.0\.0\.1:9: .* unset it"):
        map_shards(partial(work_on, tmp_path), [0], tmp_path / "markers", title="t", cluster="tcp://127.0.0.1:9")
    with pytest.raises(EarshotError, match="EARSHOT_CLUSTER is tls://127"):  # no certificates are configured
        map_shards(partial(work_on, tmp_path), [0], tmp_path / "markers", title="t", cluster="tls://127.0.0.1:9")
    monkeypatch.setenv("EARSHOT_CLUSTER", "localhost")
    settings.cache_clear()
    with pytest.raises(EarshotError, match="EARSHOT_CLUSTER is 'localhost', expected .* tcp://host:8786"):
        settings()
    settings.cache_clear()


@pytest.mark.parametrize("stage", ["extract", "describe", "label"])
def test_a_task_does_not_list_the_shards(tiny_root, tmp_path, monkeypatch, stage):
    """A list of all shards in each task would make the total size quadratic."""
    tasks = []

    def capture(work, *_, **__):
        tasks.append(cloudpickle.dumps(work))
        raise KeyboardInterrupt

    monkeypatch.setattr("earshot.pipeline.stage.map_shards", capture)
    module = importlib.import_module(f"stages.{stage}")
    with pytest.raises(SystemExit):
        module.STAGE.run(module.main, arguments(fresh(tiny_root, tmp_path / "root", stage)))
    assert tasks and not any(b"00000." in task for task in tasks)


@pytest.mark.parametrize("stage", CLUSTER_STAGES)
def test_a_stage_gives_the_bytes_of_the_local_pool_even_if_workers_are_killed(running, tiny_root, tmp_path, stage):
    root = fresh(tiny_root, tmp_path / "root", stage)
    process = subprocess.Popen(
        command(stage, root), cwd=REPOSITORY, env=os.environ | {"EARSHOT_CLUSTER": running.address}
    )
    running.wait_for(lambda: finished_shards(root, stage) or process.poll() is not None)
    for worker in running.workers():
        os.kill(worker, signal.SIGKILL)
    before = finished_shards(root, stage)
    assert process.wait(STARTING_SECONDS) == 0
    assert contents(root, stage) == contents(tiny_root, stage)
    assert before.items() <= published_shards(root, stage).items()
    assert not list((root / ".earshot" / stage).iterdir())


@pytest.mark.slow
@pytest.mark.parametrize("stage", ["extract", "describe", "label"])
def test_a_stage_whose_workers_are_killed_at_random_gives_the_bytes_of_the_local_pool(
    running, tiny_root, tmp_path, stage
):
    draw = random.Random(stage)
    for _ in range(3):
        root = fresh(tiny_root, tmp_path / "root", stage)
        environment = os.environ | {"EARSHOT_CLUSTER": running.address}
        process = subprocess.Popen(command(stage, root), cwd=REPOSITORY, env=environment)
        for _ in range(4):
            time.sleep(draw.uniform(1, 8))
            os.kill(draw.choice(running.workers()), signal.SIGKILL)
        process.wait(2 * STARTING_SECONDS)
        # By chance a shard's worker may be killed twice: the error then names the shard, and the next run continues.
        if process.returncode:
            run_stage(stage, root)
        assert contents(root, stage) == contents(tiny_root, stage)


@pytest.mark.slow
def test_a_run_that_is_killed_leaves_the_cluster_and_continues_without_it(running, tiny_root, tmp_path):
    root = fresh(tiny_root, tmp_path / "root", "extract")
    process = subprocess.Popen(
        command("extract", root), cwd=REPOSITORY, env=os.environ | {"EARSHOT_CLUSTER": running.address}
    )
    running.wait_for(lambda: finished_shards(root, "extract"))
    process.kill()
    process.wait()
    before = None
    while before != (before := finished_shards(root, "extract")):  # a worker finishes its current shard
        time.sleep(SHARD_SECONDS)
    assert len(before) < 2 * 6
    run_stage("extract", root)
    assert before.items() <= published_shards(root, "extract").items()
    assert contents(root, "extract") == contents(tiny_root, "extract")


@pytest.mark.slow
def test_without_workers_or_scheduler_the_run_ends_with_a_line(tmp_path, monkeypatch):
    monkeypatch.setattr(cluster, "WITHOUT_WORKERS_SECONDS", 1.0)
    monkeypatch.setattr(cluster, "CONNECTING_SECONDS", 5.0)
    empty = Cluster(tmp_path)
    try:
        with pytest.raises(
            EarshotError, match=r"no worker for 1 s; .*python -m dask worker tcp://127\.0\.0\.1:\d+ --nth"
        ):
            map_over(empty, tmp_path, partial(work_on, tmp_path))
        empty.worker("--no-nanny")
        monkeypatch.setattr(cluster, "WITHOUT_WORKERS_SECONDS", 60.0)
        threading.Thread(target=lambda: (empty.wait_for(lambda: kept(tmp_path)), empty.processes[0].kill())).start()
        with pytest.raises(EarshotError, match="the scheduler is gone; finished shards are kept"):
            map_over(empty, tmp_path, partial(work_on, tmp_path))
        assert kept(tmp_path)
    finally:
        empty.end()
