"""An ontology of sounds in the format of AudioSet's ontology.json: its classes and the distances between them.

A distance counts steps between parent and child, from both classes up to their nearest common ancestor. A root joins
all classes without a parent. With several parents, the shortest path counts.
"""

import difflib
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from earshot.core.errors import EarshotError
from earshot.core.json_files import parse_json
from earshot.core.text import encoding_of
from earshot.core.untrusted import read_document

ROOT = ""  # above the classes that have no parent
CLOSE = 0.75  # similarity of two spellings that differ by a letter or an ending: cat, cats
NEAREST_NAMES = 5  # of them in a message
MAX_CLASSES = 2_000  # AudioSet has 632; the distances of all pairs take time in the third power
FAR = 1 << 20  # more steps than any path has


class Ontology:
    """The classes of an ontology, each descendants by its id or its name.

    Args:
        file: for error messages.
        names: of the classes, by their ids.
        children: the ids of the children of each class.
    """

    def __init__(self, file: Path, names: dict[str, str], children: dict[str, tuple[str, ...]]) -> None:
        self.file, self.names, self.children = file, names, children
        self._ids = {name: identity for identity, name in names.items()} | {identity: identity for identity in names}
        self._parents: dict[str, list[str]] = {identity: [] for identity in names}
        for identity, below in children.items():
            for child in below:
                self._parents[child].append(identity)
        if circular := self._circular():
            raise EarshotError(f"{file}: {names[circular]} is its own descendant; restore the published file")

    def has(self, name: str) -> bool:
        """Whether this is the id or the name of a class."""
        return name in self._ids

    def find(self, name: str) -> str:
        """The id of a class from its id or its name.

        Raises EarshotError if there is no such class; the error gives the nearest names.
        """
        if name not in self._ids:
            message = f"{self.file}: has no class {name!r}; {nearest_names(name, self.names.values())}"
            raise EarshotError(f"{message}: correct the annotations or set another corpus.ontology")
        return self._ids[name]

    def distance(self, one: str, other: str) -> int:
        """Steps between two classes, 0 for the same class; raises EarshotError as `find` does."""
        steps_one, steps_other = self._ancestor_steps(self.find(one)), self._ancestor_steps(self.find(other))
        return min(steps + steps_other[common] for common, steps in steps_one.items() if common in steps_other)

    def distances(self, names: Sequence[str]) -> np.ndarray:
        """Steps between all pairs of these classes, int32 (names, names); raises EarshotError as `find` does."""
        columns = {identity: column for column, identity in enumerate([*self.names, ROOT])}
        steps_up = np.full((len(names), len(columns)), FAR, np.int32)  # steps up to each class
        for row, name in zip(steps_up, names, strict=True):
            for identity, steps in self._ancestor_steps(self.find(name)).items():
                row[columns[identity]] = steps
        return np.stack([(steps_up + row).min(1) for row in steps_up])

    def diameter(self) -> int:
        """The largest distance between two classes: 11 in AudioSet's ontology."""
        return int(self.distances(list(self.names)).max())

    def ancestors(self, name: str) -> set[str]:
        """The ids of all classes above a class, without itself."""
        return set(self._ancestor_steps(self.find(name))) - {ROOT, self.find(name)}

    def descendants(self, name: str) -> set[str]:
        """The ids of all classes below a class, without itself."""
        descendants: set[str] = set()
        waiting = [self.find(name)]
        while waiting:
            below = set(self.children[waiting.pop()]) - descendants
            descendants |= below
            waiting += below
        return descendants

    def _circular(self) -> str | None:
        """A class that is its own descendant or below one, if any: each other class follows all of its parents."""
        missing = {identity: len(parents) for identity, parents in self._parents.items()}
        following = [identity for identity, number in missing.items() if not number]
        for identity in following:  # the loop extends this list
            for child in self.children[identity]:
                missing[child] -= 1
                if not missing[child]:
                    following.append(child)
        return next((identity for identity, number in missing.items() if number), None)

    def _ancestor_steps(self, identity: str) -> dict[str, int]:
        """The fewest steps from a class up to each of its ancestors; 0 to itself."""
        steps, reached = {identity: 0}, [identity]
        for current in reached:  # the loop extends this list, breadth first
            for parent in self._parents.get(current) or ([ROOT] if current != ROOT else []):
                if parent not in steps:
                    steps[parent] = steps[current] + 1
                    reached.append(parent)
        return steps


def nearest_names(name: str, names: Iterable[str]) -> str:
    """A hint that names the classes nearest to `name`: the nearest is 'dog'; the nearest are 'cat meowing', ....

    These are close spellings; otherwise names with a word close to one of its words; otherwise the closest spelling.
    Case does not matter. Empty without names.
    """
    by_case = {other.casefold(): other for other in sorted(names, reverse=True)}
    folded = name.casefold()
    nearest = difflib.get_close_matches(folded, by_case, 1, cutoff=CLOSE)
    if not nearest:
        close_words = {word: _is_close_word(word, folded) for other in by_case for word in _words(other)}
        nearest = [other for other in sorted(by_case) if any(close_words[word] for word in _words(other))]
    nearest = nearest or difflib.get_close_matches(folded, by_case, 1, cutoff=0)
    quoted = [repr(by_case[other]) for other in nearest[:NEAREST_NAMES]]
    return f"the nearest {'is' if len(quoted) == 1 else 'are'} {', '.join(quoted)}" if quoted else ""


def _is_close_word(word: str, name: str) -> bool:
    return bool(difflib.get_close_matches(word, _words(name), 1, cutoff=CLOSE))


def _words(name: str) -> list[str]:
    """The words of a name, without those that say little."""
    return [word for word in re.findall(r"\w+", name) if len(word) > 2 and word not in ("and", "the", "with", "for")]


def read_ontology(file: Path) -> Ontology:
    """Read a JSON list of classes with `id`, `name` and `child_ids`; other keys are ignored.

    Raises EarshotError if the file is missing or not such a list, if an id or a name occurs twice, if a child is not a
    class, or if a class is its own descendant.
    """
    try:
        entries = parse_json(read_document(file).decode(encoding_of(file)))
    except (OSError, ValueError) as error:
        raise EarshotError(f"{file}: cannot be read as JSON ({error}); expected AudioSet's ontology.json") from None
    if not isinstance(entries, list) or not entries:
        raise EarshotError(f"{file}: holds no list of classes, expected AudioSet's ontology.json")
    if len(entries) > MAX_CLASSES:
        raise EarshotError(f"{file}: holds {len(entries):,} classes, expected at most {MAX_CLASSES:,}")
    names: dict[str, str] = {}
    taken: set[str] = set()
    children: dict[str, tuple[str, ...]] = {}
    for number, entry in enumerate(entries, 1):
        identity, name, below = _entry(file, number, entry)
        if identity in names or name in taken:
            raise EarshotError(
                f"{file}, class {number}: {identity} or {name!r} occurs twice; restore the published file"
            )
        names[identity], children[identity] = name, below
        taken.add(name)
    for identity, below in children.items():
        if unknown := [child for child in below if child not in names]:
            raise EarshotError(
                f"{file}: {identity} has the child {unknown[0]!r}, which is not a class; restore the published file"
            )
    return Ontology(file, names, children)


def _entry(file: Path, number: int, entry: Any) -> tuple[str, str, tuple[str, ...]]:
    """Id, name and children of one class."""
    entry = entry if isinstance(entry, dict) else {}
    identity, name, below = (entry.get(key) for key in ("id", "name", "child_ids"))
    words = [identity, name, *(below if isinstance(below, list) else [None])]
    if not all(isinstance(word, str) and word for word in words):
        expected = "id and name as texts and child_ids as a list of ids"
        raise EarshotError(f"{file}, class {number}: expected {expected}; restore the published file")
    return identity, name, tuple(dict.fromkeys(below))
