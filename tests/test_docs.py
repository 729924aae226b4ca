"""The commands and links of README and docs/*.md, checked against the code, without running anything.

test_docs_code.py, test_docs_corpora.py, test_extending.py and test_cluster.py run what can be run of them.
"""

import ast
import errno
import importlib
import os
import re
import shlex
import shutil
import subprocess
import sys
import textwrap
from functools import cache
from pathlib import Path

import pytest
from conftest import PARAMS, REPOSITORY, copy_committed

from earshot.commands.recipe import apply_recipes
from earshot.commands.scores import VERDICTS, WIDTH, table
from earshot.commands.subsets import SUBSETS
from earshot.core.params import split_override
from earshot.params.schema import parameter_names
from earshot.results.verdicts import LEGEND

PAGES = [REPOSITORY / "README.md", *sorted((REPOSITORY / "docs").glob("*.md"))]
PROGRAMS = ("python", "dvc", "make", "earshot", "torchrun")
DVC = {  # the subcommands that the pages use, with their options
    "repro": {"-f"},
    "exp run": {"-S", "--queue"},
    "exp show": {"--only-changed"},
    "exp apply": set(),
    "queue start": {"-j"},
    "queue status": set(),
    "metrics diff": set(),
    "plots diff": set(),
    "plots show": set(),
    "checkout": set(),
    "status": set(),
    "push": set(),
    "pull": set(),
}
LEGENDS = textwrap.wrap(LEGEND, WIDTH)
each_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)


def prose_of(page: Path) -> str:
    """A page without its fenced blocks, which may be indented."""
    return re.sub(r"^ *```.*?^ *```", "", page.read_text(), flags=re.M | re.S)


def code(page: Path) -> str:
    """The shell commands of a page: blocks fenced as sh, and in README also indented ones."""
    fenced = "\n".join(re.findall(r"^ *```(?:sh|bash|console)\n(.*?)^ *```", page.read_text(), re.M | re.S))
    indented = "\n".join(line for line in prose_of(page).splitlines() if line.startswith("    "))
    lines = (line.strip() for line in f"{fenced}\n{indented}".splitlines())
    return "\n".join(lines).replace("\\\n", " ")


def loose_rows(text: str) -> list[str]:
    """The first row of each block of a text that is no table of a heading, a rule and rows of equal width."""
    rows = []
    for block in re.split(r"\n\s*\n", text):
        lines = block.strip("\n").splitlines()
        if any(line.startswith("|") for line in lines):
            cells = {len(re.split(r"(?<!\\)\|", re.sub(r"`[^`]*`", "", line))) for line in lines}
            is_table = len(lines) > 2 and len(cells) == 1 and re.fullmatch(r"\|(:?-+:?\|)+", lines[1])
            if not is_table or not all(line.startswith("|") for line in lines):
                rows.append(next(line for line in lines if line.startswith("|")))
    return rows


def commands(page: Path) -> list[list[str]]:
    """The words of each command of a page that one of PROGRAMS runs, without the settings before it."""
    parsed = []
    for line in code(page).splitlines():
        for part in re.split(r"\s&&\s", line):
            try:
                words = shlex.split(part, comments=True)
            except ValueError:  # a line of output
                continue
            while words and re.fullmatch(r"EARSHOT_[A-Z_]+=.*", words[0]):
                words.pop(0)
            if words and words[0] in PROGRAMS:
                parsed.append(words)
    return parsed


def inline_commands(page: Path) -> list[list[str]]:
    """The commands between backticks in the prose, which may be shortened by `...`."""
    prose = prose_of(page)
    spans = [" ".join(span.split()) for span in re.findall(r"`([^`\n]+)`", prose)]
    return [shlex.split(span) for span in spans if span.split(" ")[0] in PROGRAMS and " " in span and "..." not in span]


def options_of(words: list[str]) -> list[str]:
    return [word.partition("=")[0] for word in words if re.match(r"--?[A-Za-z]", word)]


def overrides_of(words: list[str]) -> list[str]:
    """The key=value texts after -S and --set."""
    after = [words[place + 1] for place, word in enumerate(words[:-1]) if word in ("-S", "--set")]
    return after + [word.partition("=")[2] for word in words if word.startswith("--set=")]


@cache
def help_of(*words: str) -> str:
    done = subprocess.run([sys.executable, "-m", *words, "--help"], cwd=REPOSITORY, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def check(words: list[str]) -> None:
    """Assert that a command names only what exists: parameters, files, subcommands, options, targets."""
    for override in overrides_of(words):
        key, value = split_override(override)
        assert key in parameter_names(), f"{key} is no parameter: {' '.join(words)}"
        if isinstance(value, str) and value.startswith(("manifests/", "recipes/")):
            assert (REPOSITORY / value).is_file(), value
    for word in words:
        if re.fullmatch(r"(recipes|manifests)/\S+", word):
            assert (REPOSITORY / word).is_file(), f"{word} does not exist"
    CHECKS[words[0]](words[1:])


def check_make(words: list[str]) -> None:
    targets = set(re.findall(r"^([a-z-]+):", (REPOSITORY / "Makefile").read_text(), re.M))
    assert {word for word in words if not re.match(r"-|[A-Z]+=", word)} <= targets


def check_dvc(words: list[str]) -> None:
    name = next((name for name in DVC if words[: len(name.split())] == name.split()), None)
    assert name, f"dvc {' '.join(words)}: add the subcommand to DVC in this test once it was tried"
    assert set(options_of(words)) <= DVC[name], words
    if name == "repro":
        stages = set(re.findall(r"^  ([a-z]+):", (REPOSITORY / "dvc.yaml").read_text(), re.M))
        for word in words[1:]:
            stage, _, choice = word.partition("@")
            assert word.startswith("-") or stage in stages, word
            if choice and not choice.startswith("<"):
                assert any(key.startswith(f"{stage}.{choice}.") for key in parameter_names()), word


def check_python(words: list[str]) -> None:
    if words[0] == "-c":
        exec(words[1], {})
        return
    assert words[0] == "-m", words
    if not words[1].startswith(("stages.", "earshot.", "perf.", "experiments.")):
        assert words[1] in ("dask", "venv", "pip", "pytest"), words
        return
    assert (REPOSITORY / (words[1].replace(".", "/") + ".py")).is_file(), words[1]
    if words[1].startswith(("stages.", "experiments.")):
        check_help(words[1:2], words[2:])
        for option in ("--benchmark", "--exhibit"):
            if option in words:
                choice = words[words.index(option) + 1]
                kind = {"--benchmark": "evaluate", "--exhibit": "explain"}[option]
                assert any(key.startswith(f"{kind}.{choice}.") for key in parameter_names()), choice


def check_help(module: list[str], words: list[str]) -> None:
    described = help_of(*module)
    for option in options_of(words):
        assert re.search(rf"(?<![\w-]){re.escape(option)}(?![\w-])", described), f"{' '.join(module)} has no {option}"


def check_earshot(words: list[str]) -> None:
    commands = importlib.import_module("earshot.commands.main").COMMANDS
    if words[0].startswith("-"):
        assert words[0] in ("--help", "--version"), words
        return
    assert words[0] in commands, f"earshot has no command {words[0]}"
    if words[0] == "run":
        if len(words) == 1:
            return
        check_python(["-m", f"stages.{words[1]}", *words[2:]])
        return
    if words[0] == "subsets" and words[1:]:
        assert words[1] in SUBSETS
    command = importlib.import_module(f"earshot.commands.{words[0]}").command
    known = {option for parameter in command.params for option in (*parameter.opts, *parameter.secondary_opts)}
    assert set(options_of(words[1:])) <= known | {"--help"}, f"earshot {' '.join(words)}"


def check_torchrun(words: list[str]) -> None:
    check_python(words[words.index("-m") :])


CHECKS = {
    "make": check_make,
    "dvc": check_dvc,
    "python": check_python,
    "earshot": check_earshot,
    "torchrun": check_torchrun,
}


def test_the_example_of_a_page_is_the_file_that_runs():
    example = (REPOSITORY / "tests" / "examples" / "label_model.py").read_text()
    assert f"```python\n{example}```" in (REPOSITORY / "docs" / "extending.md").read_text()


@each_page
def test_every_command_of_a_page_names_only_what_exists(page):
    for words in [*commands(page), *inline_commands(page)]:
        check(words)


@each_page
def test_every_command_of_a_page_gives_values_that_its_parameters_take(page, tmp_path):
    for words in commands(page):
        recipes = [REPOSITORY / word for word in words if re.fullmatch(r"recipes/\S+", word)]
        first = [re.sub(r"^([^=]+=[^\[,]+),.*", r"\1", override) for override in overrides_of(words)]  # of a sweep
        if recipes or first:
            apply_recipes(recipes, PARAMS.read_text(), tmp_path / "params.yaml", first)


@each_page
def test_every_setting_of_a_page_exists(page):
    from earshot.pipeline.settings import NAMES

    assert set(re.findall(r"(?<!_)EARSHOT_[A-Z_]*[A-Z]\b", page.read_text())) - {"EARSHOT_COMPLETE"} <= set(NAMES)


@each_page
def test_every_parameter_of_a_page_exists(page):
    names = parameter_names()
    groups = {name.partition(".")[0] for name in names if "." in name}
    spans = re.findall(r"`([a-z_0-9]+(?:\.[a-z_0-9]+)+)(?:=[^`]*)?`", page.read_text())
    parameters = {span for span in spans if span.partition(".")[0] in groups}
    assert {name for name in parameters if not name.endswith(".json")} <= set(names)


@each_page
def test_every_link_of_a_page_leads_somewhere(page):
    prose = prose_of(page)
    for target in re.findall(r"\]\(([^)\s]+)\)", prose) + re.findall(r'src="([^"]+)"', prose):
        if re.match(r"https?://|mailto:", target):
            continue
        path, _, anchor = target.partition("#")
        file = (page.parent / path).resolve() if path else page
        assert file.exists(), f"{page.name}: {target}"
        if anchor:
            heads = re.findall(r"^#+ (.*)$", file.read_text(), re.M)
            assert anchor in {re.sub(r"[^\w\- ]", "", head.lower()).replace(" ", "-") for head in heads}, target
        if page in PAGES[1:]:
            assert file.is_relative_to(page.parent), f"{page.name}: {target} is not a part of the site"


@each_page
def test_every_row_of_a_page_is_in_a_table(page):
    assert not loose_rows(prose_of(page))


@pytest.mark.parametrize(
    "text",
    [
        "| a | b |\n|---|---|\n| 1 | 2 |\n\n| 3 | 4 |",  # an empty line ends the table
        "words\n| a | b |\n|---|---|\n| 1 | 2 |",  # its heading belongs to the paragraph
        "| a | b |\n|---|---|\n| 1 | 2 |\nwords",
        "| a | b |\n|---|---|\n| 1 | 2 | 3 |",
        "| a | b |\n| 1 | 2 |\n| 3 | 4 |",
    ],
)
def test_a_row_outside_a_table_is_found(text):
    assert loose_rows(f"# Page\n\n{text}\n\nMore.")


@each_page
def test_no_block_of_code_is_indented(page):  # one in a list would end it: the site numbers the rest from 1 again
    assert not re.findall(r"^ +```.*$", page.read_text(), re.M)


def test_every_page_is_in_the_navigation():
    listed = set(re.findall(r": (\S+\.md)$", (REPOSITORY / "mkdocs.yml").read_text(), re.M))
    assert listed == {page.name for page in PAGES[1:]}


def test_every_refusal_has_its_remedy_on_the_page():
    from earshot.corpus.ledger import REASONS

    rows = set(re.findall(r"^\| `([a-z-]+)` \|", (REPOSITORY / "docs" / "troubleshooting.md").read_text(), re.M))
    assert rows == set(REASONS)


def printed_scores(lines: list[str]) -> tuple[list[str], set[str], list[str]]:
    """Of the lines of `earshot scores`: those beside the verdicts, title and score of each verdict, and the legend.

    Standard errors are left out, because they come from scores of items, which are not committed.
    """
    end = next(number for number, line in enumerate(lines) if line.startswith("Accuracy of the sound label"))
    begin = lines.index(VERDICTS)
    titles = {match[1] for line in lines[begin:end] if (match := re.match(r"  (\w.*?\d\.\d{3})( ± [\d.]+)? \(", line))}
    return [line for line in lines[:begin] + lines[end:] if line], titles, lines[end - 1 - len(LEGENDS) : end - 1]


def test_the_scores_on_the_pages_are_those_of_the_committed_run(tmp_path):
    copy_committed("metrics", tmp_path)
    shutil.copy(PARAMS, tmp_path)
    scores, titles, _ = printed_scores(table(tmp_path).splitlines())
    page = (REPOSITORY / "docs" / "getting-started.md").read_text()
    (printout,) = re.findall(r"^```\n(rendered .*?)^```", page, re.M | re.S)
    assert printed_scores(printout.splitlines()) == (scores, titles, LEGENDS)
    readme = (REPOSITORY / "README.md").read_text()
    (printout,) = re.findall(r"^    rendered VOC2007, mAP .*?^    Try an idea:.*?\n", readme, re.M | re.S)
    some_scores, some_titles, _ = printed_scores([line[4:] for line in printout.splitlines()])
    assert {line for line in some_scores if not line.startswith("(")} <= set(scores) and some_titles <= titles
    assert len(some_titles) > 3 and len(some_scores) > 6


def literals() -> str:
    """All literal text of earshot/ and stages/, a line a literal, with `...` in the place of values."""
    messages = [os.strerror(number) for number in (errno.ENOSPC, errno.EACCES, errno.EROFS)]
    for file in [*(REPOSITORY / "earshot").rglob("*.py"), *(REPOSITORY / "stages").glob("*.py")]:
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.JoinedStr):
                messages.append(
                    "".join(part.value if isinstance(part, ast.Constant) else "..." for part in node.values)
                )
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                messages.append(node.value)
    return "\n".join(messages)


def test_every_message_on_the_page_is_one_of_the_code():
    text, known = (REPOSITORY / "docs" / "troubleshooting.md").read_text(), literals()
    tables = re.findall(r"^\| message contains .*\n\|[-|]+\n((?:\|.*\n)+)", text, re.M)
    messages = [
        m for table in tables for row in table.splitlines() for m in re.findall(r"`([^`]+)`", row.split("|")[1])
    ]
    assert len(messages) > 60
    parts = {part.strip() for message in messages for part in message.split("...")} - {""}
    assert not {part for part in parts if part not in known}


@pytest.mark.parametrize(
    "line",
    [
        "dvc exp run -S pretrain.no_such_thing=1",
        "dvc exp ruin",
        "earshot recipe recipes/no-such-row.yaml",
        "earshot no-such-command",
        "earshot tables --no-such-option",
        "python -m stages.describe --no-such-option",
        "python -m stages.no_such_stage",
        "python -m stages.evaluate --benchmark no-such",
        "make no-such-target",
        "dvc repro evaluate@no-such",
    ],
)
def test_a_wrong_command_is_found(line):
    with pytest.raises((AssertionError, KeyError)):
        check(shlex.split(line))
