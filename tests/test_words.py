"""One word for one thing: identifiers use the words of docs/concepts.md and of the field's libraries."""

import ast
import re
import subprocess
from pathlib import Path

import pytest
from conftest import REPOSITORY

from earshot.params.schema import parameter_names

# Words that once had a meaning of their own here, and the word that has it now.
INSTEAD = {
    "told": "predicted, annotations or message",
    "said": "annotations or message",
    "asked": "requested",
    "wanted": "expected, options or spec",
    "shown": "displayed",
    "heard": "audio",
    "seen": "images",
    "growing": "temporary_path",
    "picture": "image",
    "pictures": "images",
    "sense": "modality",
    "senses": "modalities",
    "deal": "shard, sample or derange",
    "dealt": "deranged",
    "switches": "options",
    "facts": "metadata",
    "grey": "gray",
    "colour": "color",
    "colours": "colors",
    "centre": "center",
    "centres": "centers",
    "neighbour": "neighbor",
    "neighbours": "neighbors",
    "normalise": "normalize",
    "optimiser": "optimizer",
    "localisation": "localization",
    "initialisation": "initialization",
    "strongest": "top or max",
    "sounding": "audible",
    "tree": "data_dir or dataset",
}
KEPT = {"link_tree", "ElementTree", "copytree", "rmtree", "ls_tree"}  # a folder with all in it; XML
WORD = re.compile(r"[A-Z]?[a-z0-9]+|[A-Z]+(?![a-z])")


def identifiers(file: Path) -> set[str]:
    """The names that a Python file defines: modules, classes, functions, arguments, variables, attributes, fields."""
    found = {file.stem}
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            found.add(node.name)
        elif isinstance(node, ast.arg):
            found.add(node.arg)
        elif isinstance(node, ast.Name | ast.Attribute) and isinstance(node.ctx, ast.Store):
            found.add(node.id if isinstance(node, ast.Name) else node.attr)
    return found


def strange(names: set[str]) -> dict[str, str]:
    """Names with a word that has another one now, and that one."""
    words = {name: [word.lower() for word in WORD.findall(name)] for name in names - KEPT}
    return {name: INSTEAD[word] for name, split in words.items() for word in split if word in INSTEAD}


def python_files() -> list[Path]:
    listed = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard", "*.py"], cwd=REPOSITORY, capture_output=True, text=True
    )
    files = [REPOSITORY / name for name in listed.stdout.splitlines()] or [*REPOSITORY.glob("earshot/**/*.py")]
    return [file for file in files if file.exists()]


def test_identifiers_use_the_words_of_the_field():
    found = {f"{file.relative_to(REPOSITORY)}: {name}": word for file in python_files()
             for name, word in strange(identifiers(file)).items() if not name.startswith("test_")}  # fmt: skip
    assert not found


def test_parameters_use_the_words_of_the_field():
    assert not strange({part for name in parameter_names() for part in name.split(".")})


@pytest.mark.parametrize(
    "text", ["def read_picture(): pass", "def f(told): pass", "self.asked = 1", "class Senses: pass"]
)
def test_a_word_of_old_is_found(text, tmp_path):
    (tmp_path / "module.py").write_text(text)
    assert strange(identifiers(tmp_path / "module.py"))
