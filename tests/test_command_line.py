"""The command line: commands and stages describe themselves in one way; make speaks before it installs."""

import importlib
import os
import re
import shutil
import subprocess
from pathlib import Path

import click
import pytest
from click.testing import CliRunner
from conftest import REPOSITORY, earshot
from repository import GIT, Repository

from earshot.commands.main import COMMANDS, cli
from earshot.commands.recipe import DEFAULT_COST
from earshot.commands.run import STAGES

SENTENCE = re.compile(r"[A-Z].*\.", re.S)
METAVARS = {
    "--root": {"DIR"},
    "--params": {"FILE"},
    "--set": {"KEY=VALUE"},
    "--model": {"MODEL"},
    "--output": {"FILE", "DIR", "FILE_OR_DIR"},
}


@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_has_examples_and_its_options_are_sentences(name):
    printed = CliRunner().invoke(cli, [name, "--help"]).output
    assert "\n  Examples:\n" in printed and f"\n    earshot {name}" in printed
    assert SENTENCE.fullmatch(COMMANDS[name])
    command = cli.get_command(click.Context(cli), name)
    for parameter in command.params:
        if isinstance(parameter, click.Option):
            (option, *_) = parameter.opts
            assert parameter.help and SENTENCE.fullmatch(parameter.help), option
            assert parameter.is_flag or isinstance(parameter.type, click.Choice) or parameter.metavar, option
            assert parameter.metavar in METAVARS.get(option, {parameter.metavar}), option


@pytest.mark.parametrize("name", STAGES)
def test_the_options_of_a_stage_read_like_those_of_the_commands(name):
    module = importlib.import_module(f"stages.{name}")
    retry = getattr(module, "RETRIED_REASONS", ())
    parser = module.STAGE._parser(module.main, getattr(module, "VIEWS", {}), retry)
    shared = {option.opts[0]: option for option in cli.get_command(click.Context(cli), "status").params}
    for action in parser._actions:
        option = action.option_strings[-1]
        assert action.help and SENTENCE.fullmatch(action.help), option
        assert action.metavar in METAVARS.get(option, {action.metavar}), option
        if option in ("--params", "--set"):
            assert action.help == shared[option].help


def test_the_command_itself_has_examples():
    assert "\n  Examples:\n    earshot scores" in CliRunner().invoke(cli, ["--help"]).output


# A Python that installs nothing: its venv has a python, a dvc and an earshot that print their names and words.
FAKE_PYTHON = """#!/bin/sh
mkdir -p .venv/bin
for name in python dvc earshot; do
    printf '#!/bin/sh\\necho ran %s "$@"\\n' $name > .venv/bin/$name
    chmod +x .venv/bin/$name
done
"""


class MakeFolder:
    """A folder with what make needs before it installs."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "a folder"
        self.folder.mkdir()
        for name in ("Makefile", "requirements.txt", "pyproject.toml", "params.yaml"):
            shutil.copy(REPOSITORY / name, self.folder)
        self.python = folder / "fake-python"
        self.python.write_text(FAKE_PYTHON)
        self.python.chmod(0o755)

    def run(self, *words: str) -> tuple[int, list[str]]:
        """Run a command; its exit code and the lines that it prints."""
        settings = {"PYTHON": str(self.python), "GIT_CEILING_DIRECTORIES": str(self.folder.parent)}
        outer = ("EARSHOT_REAL_DATA", "MAKEFLAGS", "MAKELEVEL", "MFLAGS")  # of the make that runs the tests
        environment = {key: value for key, value in os.environ.items() if key not in outer} | GIT | settings
        done = subprocess.run(
            words, cwd=self.folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        return done.returncode, done.stdout.splitlines()

    def commit(self) -> None:
        for words in (["init"], ["add", "--all"], ["commit", "--message", "start"]):
            assert self.run("git", *words)[0] == 0


@pytest.fixture
def make_folder(tmp_path) -> MakeFolder:
    return MakeFolder(tmp_path)


def test_make_repro_says_what_it_does_once_before_it_installs(make_folder):
    make_folder.commit()
    code, lines = make_folder.run("make", "repro")
    assert code == 0
    cost = DEFAULT_COST.split(".")[0]  # what `earshot recipe show` says of the default run
    assert lines[0].startswith("make repro: runs only what has changed.") and lines[0].endswith(cost)
    assert lines[1].startswith("make: installs requirements.txt into .venv first") and "three minutes" in lines[1]
    assert [line.split()[:3] for line in lines[2:]] == [["ran", "python", "-m"]] * 2 + [
        ["ran", "dvc", "repro"],
        ["ran", "earshot", "scores"],
    ]
    assert make_folder.run("make", "repro") == (0, [lines[0], *lines[-2:]])


def test_make_real_needs_data_before_it_installs(make_folder):
    make_folder.commit()
    code, lines = make_folder.run("make", "real")
    assert code != 0 and lines[0] == "make real: needs DATA=folder with real/clips, voc2007_256 and esc10"
    assert not (make_folder.folder / ".venv").exists()
    code, lines = make_folder.run("make", "-n", "real", "DATA=../my data")
    assert code == 0 and lines[-1].endswith(' python -m experiments.real "../my data"')
    assert (REPOSITORY / "experiments" / "real.py").is_file()
    code, lines = make_folder.run("make", "real", "DATA=../my data")
    assert code == 0 and lines[-1] == "ran python -m experiments.real ../my data"


@pytest.mark.parametrize("state", ["no repository", "no commit", "another repository"])
def test_without_its_own_commit_make_and_recipe_refuse_and_say_what_to_do(state, make_folder):
    if state == "no commit":
        make_folder.run("git", "init")
    elif state == "another repository":
        for words in (["init"], ["commit", "--allow-empty", "--message", "of another project"]):
            make_folder.run("git", *words)
    code, lines = make_folder.run("make", "repro")
    assert code != 0 and lines[0].startswith("make repro: ")
    assert "git init && git add --all && git commit --message start" in lines[1]
    assert not (make_folder.folder / ".venv").exists()
    with pytest.raises(SystemExit, match="the committed state cannot be read .*; commit the folder .*--keep"):
        earshot("recipe", REPOSITORY / "recipes" / "real.yaml", "--params", make_folder.folder / "params.yaml")


@pytest.mark.slow
def test_a_path_with_spaces_a_worktree_and_an_archive_of_its_own_work(tmp_path, capsys):
    clone = Repository(tmp_path / "a folder")
    clone.git("worktree", "add", "--quiet", str(tmp_path / "a worktree" / "repository"))
    archive = tmp_path / "an archive" / "repository"
    archive.mkdir(parents=True)
    clone.run("sh", "-c", f"git archive HEAD | tar -x -C '{archive}'")
    for place in ("a folder", "a worktree", "an archive"):
        here = Repository.__new__(Repository)
        here.folder = tmp_path / place / "repository"
        here._set_environment(tmp_path / place)
        if place == "an archive":
            here.git("init", "--quiet")
            here.commit()
        planned = here.run("make", "-n", "repro")
        assert f'PATH="{here.folder}/.venv/bin:$PATH" DVC_NO_ANALYTICS=1 dvc repro' in planned
        assert "sample" in here.dvc("status")
        earshot("recipe", here.folder / "recipes" / "real.yaml", "--params", here.folder / "params.yaml")
        assert "cost of real" in capsys.readouterr().out
        assert "clusters: 5" in (here.folder / "params.yaml").read_text()
        earshot("recipe", "--reset", "--params", here.folder / "params.yaml")
        capsys.readouterr()
        assert here.git("status", "--porcelain") == ""
