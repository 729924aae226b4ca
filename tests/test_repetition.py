"""No two positions of the code share twelve lines, to the letter or in shape: with other names, strings and numbers."""

import ast
import io
import keyword
import tokenize
from collections import defaultdict
from collections.abc import Iterator

import pytest
from conftest import REPOSITORY

LINES = 12
FEW_WORDS = 30  # a run of lines that hardly say anything, such as the entries of a table, is not counted

Line = tuple[int, tuple[str, ...]]  # its number and its shape


def shapes(text: str) -> list[Line]:
    """The lines of code and their shapes; without comments, docstrings, imports and lines of punctuation alone."""
    syntax, left_out = ast.parse(text), set()
    for node in ast.walk(syntax):
        is_docstring = isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
        if is_docstring or isinstance(node, ast.Import | ast.ImportFrom):
            left_out |= set(range(node.lineno, node.end_lineno + 1))
    lines: dict[int, list[str]] = defaultdict(list)
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        shape = _shape(token)
        if shape and token.start[0] not in left_out:
            lines[token.start[0]].append(shape)
    return [(number, tuple(line)) for number, line in sorted(lines.items()) if any(word.isalpha() for word in line)]


def _shape(token: tokenize.TokenInfo) -> str:
    if token.type == tokenize.NAME:
        return token.string if keyword.iskeyword(token.string) else "name"
    return {tokenize.STRING: "string", tokenize.NUMBER: "number", tokenize.OP: token.string}.get(token.type, "")


def repetitions(texts: dict[str, str]) -> list[str]:
    """Pairs of positions that share a run of lines, by the numbers of its first ones."""
    positions: dict[tuple, list[tuple[str, int, int]]] = defaultdict(list)
    for file, text in texts.items():
        lines = shapes(text)
        for first in range(len(lines) - LINES + 1):
            window = tuple(line for _, line in lines[first : first + LINES])
            if sum(word.isalpha() for line in set(window) for word in line) >= FEW_WORDS:
                positions[window].append((file, first, lines[first][0]))
    return sorted({pair for repeated in positions.values() for pair in _pairs(repeated)})


def _pairs(repeated: list[tuple[str, int, int]]) -> Iterator[str]:
    (file, first, number), *others = repeated
    for other, begins, line in others:
        if other != file or begins >= first + LINES:
            yield f"{file}:{number} and {other}:{line}"


CODE = """
def mean_of(values, weights):
    total = 0.0
    for value, weight in zip(values, weights, strict=True):
        if weight < 0:
            raise ValueError(f"a weight is {weight}")
        total += value * weight
    whole = sum(weights)
    if not whole:
        raise ValueError("no weight")
    mean = total / whole
    if mean != mean:
        return None
    return mean
"""
OTHER = CODE.replace("weights", "shares").replace("mean", "middle").replace("0.0", "1.5").replace("a weight", "one")


@pytest.mark.parametrize("other", [CODE, OTHER, f'"""A docstring."""\nimport os\n\n# a comment{OTHER}'])
def test_what_is_written_twice_is_found(other):
    assert repetitions({"a.py": CODE, "b.py": other})
    assert repetitions({"a.py": f"{CODE}\nX = 3\n{other}"})


def test_what_differs_is_not_found():
    assert not repetitions({"a.py": CODE, "b.py": CODE.replace("    if not whole:", "    while not whole:")})
    assert not repetitions({"table.py": "TABLE = {\n" + '    "a": 1,\n' * 40 + "}\n"})


def test_nothing_is_written_twice():
    files = [file for folder in ("earshot", "stages") for file in (REPOSITORY / folder).rglob("*.py")]
    repeated = repetitions({str(file.relative_to(REPOSITORY)): file.read_text() for file in sorted(files)})
    assert not repeated, "\n".join(repeated)
