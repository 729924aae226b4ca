"""The command line: every command and every stage describes itself in one way."""

import importlib
import re

import click
import pytest
from click.testing import CliRunner

from earshot.commands.main import COMMANDS, cli
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
