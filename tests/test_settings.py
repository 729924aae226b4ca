"""Settings: environment variables that never change a result, named in an error if invalid."""

import importlib
import os

import pytest
from conftest import REPOSITORY

from earshot.core.errors import EarshotError
from earshot.core.processors import cpu_quota, processors
from earshot.pipeline.settings import NAMES, settings, settings_of

STAGES = REPOSITORY / "stages"


@pytest.fixture
def environment(monkeypatch):
    """Sets variables for settings that are read anew; none of the tests' own are there."""
    for name in NAMES:
        monkeypatch.delenv(name, raising=False)
    settings.cache_clear()
    yield monkeypatch.setenv
    settings.cache_clear()


@pytest.mark.parametrize(
    ("variable", "message"),
    [
        ("EARSHOT_WORKERS=none", "EARSHOT_WORKERS is 'none', expected a whole number of at least 1"),
        ("EARSHOT_WORKERS=0", "EARSHOT_WORKERS is '0', expected a whole number of at least 1"),
        ("EARSHOT_WORKERS=²", "EARSHOT_WORKERS is '²', expected a whole number of at least 1"),
        ("EARSHOT_THREADS=1.5", "EARSHOT_THREADS is '1.5', expected a whole number of at least 1"),
        ("EARSHOT_DEVICE=tpu", "EARSHOT_DEVICE is 'tpu', expected auto, cpu or cuda"),
        ("EARSHOT_CLUSTER=here", "EARSHOT_CLUSTER is 'here', expected the address of a Dask scheduler such as tcp:"),
        ("EARSHOT_JS_RUNTIME=java", "EARSHOT_JS_RUNTIME is 'java', expected deno, node, bun or quickjs"),
        ("EARSHOT_BACKOFF=nan", "EARSHOT_BACKOFF is 'nan', expected a number of at least 0"),
        ("EARSHOT_WORKER=2", "environment variable EARSHOT_WORKER is not a setting; the nearest is EARSHOT_WORKERS"),
    ],
)
def test_an_invalid_setting_is_named(environment, variable, message):
    environment(*variable.split("="))
    with pytest.raises(EarshotError) as error:
        settings()
    assert str(error.value).startswith(message)


def test_an_unset_or_empty_setting_has_its_default(environment, tmp_path, monkeypatch):
    environment("EARSHOT_WORKERS", "")
    environment("EARSHOT_BACKOFF", "0.5")
    environment("EARSHOT_JS_RUNTIME", "node:/usr/bin/node")
    monkeypatch.chdir(tmp_path)
    environment("EARSHOT_SCRATCH", "here")
    actual = settings()
    assert (actual.workers, actual.threads, actual.processes) == (processors(), processors(), 1)
    assert (actual.backoff, actual.patience, actual.requests_per_hour) == (0.5, 900, 1000)
    assert (actual.device, actual.cluster, actual.cookies, actual.proxy) == ("auto", None, None, None)
    assert (actual.js_runtime, actual.scratch) == ("node:/usr/bin/node", tmp_path / "here")


# The processors of a container


def groups(folder, lines, **files):
    """The control groups of a system: /proc/self/cgroup, and files where they are mounted."""
    for name, text in files.items():
        file = folder / "mounted" / name.replace("__", "/").replace("cpu_", "cpu.")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text + "\n")
    (folder / "cgroup").write_text("\n".join(lines) + "\n")
    return folder / "cgroup", folder / "mounted"


def test_the_tightest_quota_on_the_way_up_counts(tmp_path):
    files = {"cpu_max": "max 100000", "a__cpu_max": "150000 100000", "a__b__cpu_max": "400000 100000"}
    assert cpu_quota(*groups(tmp_path, ["0::/a/b"], **files)) == 1.5


def test_a_container_of_version_1_is_at_the_top_whatever_the_host_calls_it(tmp_path):
    lines = ["5:memory:/docker/f00", "4:cpu,cpuacct:/docker/f00", "0::/"]
    files = {"cpu__cpu_cfs_quota_us": "50000", "cpu__cpu_cfs_period_us": "100000"}
    assert cpu_quota(*groups(tmp_path, lines, **files)) == 0.5


@pytest.mark.parametrize(
    "files",
    [
        {},
        {"cpu_max": "max 100000"},
        {"cpu_max": "none"},
        {"cpu__cpu_cfs_quota_us": "-1", "cpu__cpu_cfs_period_us": "100000"},
    ],
)
def test_no_quota_is_no_bound(tmp_path, files):
    assert cpu_quota(*groups(tmp_path, ["4:cpu:/", "0::/"], **files)) == float("inf")
    assert cpu_quota(tmp_path / "none", tmp_path) == float("inf")


@pytest.mark.parametrize(("quota", "expected"), [(0.3, 1), (1.2, 2), (2.0, 2), (float("inf"), 8)])
def test_a_quota_bounds_the_processors_rounded_up(monkeypatch, quota, expected):
    monkeypatch.setattr("earshot.core.processors.cpu_quota", lambda: quota)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: range(8), raising=False)
    assert processors() == expected


def test_the_help_of_a_stage_lists_the_settings_that_it_reads():
    stages = {file.stem: importlib.import_module(f"stages.{file.stem}").STAGE for file in STAGES.glob("[a-z]*.py")}
    assert {name for stage in stages for name in settings_of(stage)} == set(NAMES) - {"EARSHOT_REAL_DATA"}
    assert "EARSHOT_PROXY" in settings_of("download") and "EARSHOT_PROXY" not in settings_of("report")
    clustered = {name for name, stage in stages.items() if stage.uses_cluster}
    assert clustered == {name for name in stages if "EARSHOT_CLUSTER" in settings_of(name)}
