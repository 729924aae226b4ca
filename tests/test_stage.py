"""The frame of a stage: it allows only what is declared, checks before any work, and publishes atomically."""

import errno
import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from conftest import PARAMS, REPOSITORY

from earshot.core.hashing import list_hash
from earshot.core.params import Part, declared_keys, load_params
from earshot.pipeline.settings import settings
from earshot.pipeline.stage import Stage, StageContext


class Frames(Part):
    frames: int


class Params(Part):
    clusters: int
    extract: Frames


STAGE = Stage(name="count", params=Params, reads=("data/in",), writes=("data/out",), metrics=("count",))


def _main(run: StageContext) -> str:
    (run.out("data/out") / "00000.txt").write_text(str(run.params.clusters))
    run.publish("data/out")
    run.write_metrics("count", {"clusters": run.params.clusters, "share": 1 / 3})
    return f"{run.params.clusters} clusters"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "data" / "in").mkdir(parents=True)
    return tmp_path


def _arguments(root: Path, *more: str) -> list[str]:
    return ["--params", str(PARAMS), "--root", str(root), *more]


def test_a_stage_publishes_its_outputs_and_leaves_no_scratch(root, capsys):
    STAGE.run(_main, _arguments(root, "--set", "clusters=7"))
    assert capsys.readouterr().out == "7 clusters\n"
    assert (root / "data/out/00000.txt").read_text() == "7"
    assert json.loads((root / "metrics/count.json").read_text()) == {"clusters": 7, "share": 0.333333}
    assert not list((root / ".earshot/count").iterdir())


def test_the_hash_of_the_clips_goes_from_stage_to_stage_and_into_every_metric(tmp_path):
    def begin(run: StageContext) -> str:
        run.set_clips_hash(["b", "a"])
        return _main(run)

    on_clips = replace(STAGE, reads=("data/out",), clips="data/out", writes=("data/out",))
    (tmp_path / "data/in").mkdir(parents=True)
    STAGE.run(begin, _arguments(tmp_path))
    expected = {"clips_hash": list_hash(["a", "b"])}
    for _ in range(2):
        assert json.loads((tmp_path / "data/out/clips.json").read_text()) == expected
        assert json.loads((tmp_path / "metrics/count.json").read_text()).items() > expected.items()
        on_clips.run(_main, _arguments(tmp_path))
    (tmp_path / "data/out/clips.json").write_text('{"clips_hash": "../../x"}')
    with pytest.raises(SystemExit, match=r"clips\.json: cannot be read .*; write it again"):
        on_clips.run(_main, _arguments(tmp_path))


def test_a_parameter_that_is_not_declared_cannot_be_read():
    params = load_params(STAGE.schema(), PARAMS, ["extract.frames=4"])
    assert params.extract.frames == 4
    for read in (lambda: params.seed, lambda: params.extract.times, lambda: params.nonsense):
        with pytest.raises(AttributeError):
            read()
    assert [*declared_keys(STAGE.schema())] == ["clusters", "extract.frames"]


def test_an_output_that_is_not_declared_or_not_written_is_an_error(root):
    with pytest.raises(LookupError, match=r"count\.json, data/out"):
        STAGE.run(lambda run: "nothing", _arguments(root))
    with pytest.raises(LookupError, match="data/else"):
        STAGE.run(lambda run: str(run.out("data/else")), _arguments(root))


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--set", "clusterz=7"], "count: unknown parameter clusterz; the nearest is clusters"),
        (["--root", "nowhere"], "nowhere: no such file or folder; give an existing folder with --root"),
        (["--params", "nowhere.yaml"], "count: nowhere.yaml: no such file"),
    ],
)
def test_a_users_mistake_is_one_line_before_any_work(root, more, message):
    with pytest.raises(SystemExit) as stop:
        STAGE.run(lambda run: pytest.fail("work began"), _arguments(root, *more))
    assert message in str(stop.value) and "\n" not in str(stop.value)


def test_an_input_that_nothing_writes_is_named(tmp_path):
    with pytest.raises(SystemExit, match=r"data/in: no such file or folder; put it there, because no stage writes it"):
        STAGE.run(_main, _arguments(tmp_path))


def test_a_missing_input_names_the_stage_that_writes_it_and_the_parameter_that_names_it(tmp_path):
    inputs = replace(STAGE, reads=("data/scenes",)), replace(STAGE, reads=lambda params, _: [params.source])

    class WithSource(Part):
        source: str

    messages = ["run the stage extract, which writes it$", "run the stage sample, which writes it, or set source to an"]
    (tmp_path / "source.yaml").write_text("source: data/sample/voc\n")
    for stage, message in zip((inputs[0], replace(inputs[1], params=WithSource)), messages, strict=True):
        params = PARAMS if stage is inputs[0] else tmp_path / "source.yaml"
        with pytest.raises(SystemExit, match=message):
            stage.run(_main, ["--params", str(params), "--root", str(tmp_path)])


def test_unfinished_work_is_resumed_by_the_same_run_and_by_no_other(root):
    attempts = []

    def interrupted(run: StageContext) -> str:
        attempts.append((run.scratch, (run.scratch / "mark").exists()))
        (run.scratch / "mark").touch()
        raise KeyboardInterrupt

    def attempt(*more: str) -> bool:
        with pytest.raises(SystemExit):
            STAGE.run(interrupted, _arguments(root, *more))
        return attempts[-1][1]

    assert not attempt()
    assert attempt()
    assert not attempt("--set", "clusters=7")  # another parameter
    assert attempt("--set", "seed=7")  # a parameter that the stage does not read
    (root / "data/in/00000.txt").write_text("changed")
    assert not attempt()


def test_work_with_a_format_version_survives_a_change_of_code_but_not_of_the_version(root, monkeypatch):
    attempts = []

    def interrupted(run: StageContext) -> str:
        attempts.append((run.scratch / "mark").exists())
        (run.scratch / "mark").touch()
        raise KeyboardInterrupt

    def attempt(stage: Stage, code: str) -> bool:
        (root / "module.py").write_text(code)
        monkeypatch.setattr("earshot.pipeline.stage.loaded_sources", lambda: [root / "module.py"])
        with pytest.raises(SystemExit):
            stage.run(interrupted, _arguments(root))
        return attempts[-1]

    assert [attempt(STAGE, "one"), attempt(STAGE, "one"), attempt(STAGE, "two")] == [False, True, False]
    this, other = replace(STAGE, format_version=1), replace(STAGE, format_version=2)
    assert [attempt(this, "one"), attempt(this, "two"), attempt(other, "two")] == [False, True, False]


def test_a_full_disk_is_one_line(root):
    def fill(run: StageContext) -> str:
        raise OSError(28, "No space left on device", "data/out/00000.txt")

    with pytest.raises(SystemExit, match=r"data/out/00000\.txt: No space left on device; finished work is kept"):
        STAGE.run(fill, _arguments(root))


def test_a_warning_is_one_line_without_code(root):
    code = (
        "import sys, warnings; sys.path.insert(0, 'tests'); from test_stage import STAGE, _main;"
        "STAGE.run(lambda run: warnings.warn('few frames') or _main(run), sys.argv[1:])"
    )
    command = [sys.executable, "-c", code, *_arguments(root)]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=True)
    assert done.stderr == "count: few frames\n"


def test_two_runs_of_the_same_work_exclude_each_other(root):
    def nested(run: StageContext) -> str:
        STAGE.run(_main, _arguments(root))
        return "unreachable"

    with pytest.raises(SystemExit, match="another run is doing the same work"):
        STAGE.run(nested, _arguments(root))


@pytest.mark.parametrize("variable", ["EARSHOT_WORKERS=none", "EARSHOT_DEVICE=tpu", "EARSHOT_WORKER=2"])
def test_a_wrong_setting_is_named(variable):
    name, _, value = variable.partition("=")
    code = "from earshot.pipeline.settings import settings; settings()"
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, env={name: value}, cwd=REPOSITORY, capture_output=True, text=True)
    assert done.returncode and f"EarshotError: {'environment variable ' * (name[-1] == 'R')}{name}" in done.stderr


@pytest.mark.parametrize("code", [errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOLCK, errno.EINVAL])
def test_a_file_system_without_locks_is_warned_of(root, monkeypatch, capsys, code):
    def no_lock(*_: object) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr("earshot.pipeline.stage.fcntl.flock", no_lock)
    with pytest.warns(UserWarning, match="has no locks .*EARSHOT_SCRATCH"):
        STAGE.run(_main, _arguments(root))
    assert (root / "data/out/00000.txt").exists()


@pytest.mark.parametrize(
    "code", [errno.EIO, errno.ENAMETOOLONG, errno.ENOTDIR, errno.ESTALE, errno.EMFILE, errno.ELOOP]
)
def test_any_fault_of_the_scratch_folder_is_one_line(root, code):
    def fail(run: StageContext) -> str:
        raise OSError(code, os.strerror(code), str(run.scratch / "x"))

    with pytest.raises(SystemExit) as stop:
        STAGE.run(fail, _arguments(root))
    assert "finished work is kept: set EARSHOT_SCRATCH to a usable folder" in str(stop.value)
    assert "\n" not in str(stop.value)
    with pytest.raises(OSError):  # a fault elsewhere is ours
        STAGE.run(lambda run: _raise(OSError(code, "", "/elsewhere")), _arguments(root))


def _raise(error: Exception) -> str:
    raise error


@pytest.mark.parametrize("place", ["file", "file/inner", "n" * 300, "loop"])
def test_a_scratch_folder_that_is_none_is_one_line(root, tmp_path, monkeypatch, place):
    (tmp_path / "file").write_text("")
    (tmp_path / "loop").symlink_to("loop")
    monkeypatch.setenv("EARSHOT_SCRATCH", str(tmp_path / place))
    settings.cache_clear()
    try:
        with pytest.raises(SystemExit, match="EARSHOT_SCRATCH"):
            STAGE.run(_main, _arguments(root))
    finally:
        settings.cache_clear()
