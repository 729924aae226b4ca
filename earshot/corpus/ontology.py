"""An ontology of sounds in the format of AudioSet's ontology.json: its classes, and how far apart they are.

Distance is counted in steps from parent to child: up from both classes to where they first meet. Classes without a
parent meet in a root above all of them. A class of several parents goes the way that is shortest.
"""

import difflib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from earshot.core.errors import EarshotError

ROOT = ""  # above the classes that have no parent
FAR = 1 << 20  # more steps than any way has


class Ontology:
    """The classes of an ontology, each called by its id or by its name.

    Args:
        file: for the messages.
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
        for identity in names:
            if ROOT not in self._climb(identity):
                raise EarshotError(f"{file}: {names[identity]} is below itself, wanted a tree; restore the file")

    def has(self, name: str) -> bool:
        """Whether this is the id or the name of a class."""
        return name in self._ids

    def find(self, name: str) -> str:
        """The id of a class from its id or its name.

        Raises EarshotError where there is none, with the nearest name.
        """
        if name not in self._ids:
            near = difflib.get_close_matches(name, self._ids, 1, cutoff=0)
            raise EarshotError(f"{self.file}: has no class {name!r}; the nearest is {near[0]!r}: mend the annotations")
        return self._ids[name]

    def distance(self, one: str, other: str) -> int:
        """Steps between two classes, 0 for one and the same; raises EarshotError as `find` does."""
        above, beside = self._climb(self.find(one)), self._climb(self.find(other))
        return min(steps + beside[meeting] for meeting, steps in above.items() if meeting in beside)

    def distances(self, names: Sequence[str]) -> np.ndarray:
        """Steps between all these classes, int32 (names, names); raises EarshotError as `find` does."""
        places = {identity: place for place, identity in enumerate([*self.names, ROOT])}
        climbs = np.full((len(names), len(places)), FAR, np.int32)  # steps up to every class
        for row, name in zip(climbs, names, strict=True):
            for identity, steps in self._climb(self.find(name)).items():
                row[places[identity]] = steps
        return np.stack([(climbs + row).min(1) for row in climbs])

    def diameter(self) -> int:
        """The largest distance between two classes: 11 in AudioSet's ontology."""
        return int(self.distances(list(self.names)).max())

    def ancestors(self, name: str) -> set[str]:
        """The ids of all classes above a class, without itself."""
        return set(self._climb(self.find(name))) - {ROOT, self.find(name)}

    def descendants(self, name: str) -> set[str]:
        """The ids of all classes below a class, without itself."""
        found: set[str] = set()
        waiting = [self.find(name)]
        while waiting:
            below = set(self.children[waiting.pop()]) - found
            found |= below
            waiting += below
        return found

    def _climb(self, identity: str) -> dict[str, int]:
        """How many steps each class above a class is from it, at the least; the class itself is 0 steps away."""
        steps, reached = {identity: 0}, [identity]
        for current in reached:  # which grows: the nearest are reached first
            for parent in self._parents.get(current) or ([ROOT] if current != ROOT else []):
                if parent not in steps:
                    steps[parent] = steps[current] + 1
                    reached.append(parent)
        return steps


def read_ontology(file: Path) -> Ontology:
    """An ontology from a JSON list of classes with `id`, `name` and `child_ids`; other keys are left alone.

    Raises EarshotError for a file that is missing or no such list, for an id or a name that is there twice, for a child
    that is no class, and for a class below itself.
    """
    try:
        entries = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise EarshotError(f"{file}: cannot be read as JSON ({error}); wanted AudioSet's ontology.json") from None
    if not isinstance(entries, list) or not entries:
        raise EarshotError(f"{file}: holds no list of classes, wanted AudioSet's ontology.json")
    names: dict[str, str] = {}
    children: dict[str, tuple[str, ...]] = {}
    for number, entry in enumerate(entries, 1):
        identity, name, below = _entry(file, number, entry)
        if identity in names or name in names.values():
            raise EarshotError(f"{file}, class {number}: {identity} or {name!r} is there twice; restore the file")
        names[identity], children[identity] = name, below
    for identity, below in children.items():
        if unknown := [child for child in below if child not in names]:
            raise EarshotError(f"{file}: {identity} has the child {unknown[0]!r}, which is no class; restore the file")
    return Ontology(file, names, children)


def _entry(file: Path, number: int, entry: Any) -> tuple[str, str, tuple[str, ...]]:
    """Id, name and children of one class."""
    entry = entry if isinstance(entry, dict) else {}
    identity, name, below = (entry.get(key) for key in ("id", "name", "child_ids"))
    words = [identity, name, *(below if isinstance(below, list) else [None])]
    if not all(isinstance(word, str) and word for word in words):
        raise EarshotError(f"{file}, class {number}: wanted id and name as words and child_ids as a list of ids")
    return identity, name, tuple(below)
