"""Selecting clips of a manifest: by annotated class, and by number.

A class is an id or a name of an ontology and includes all classes below it. Without an ontology, or if the ontology
does not have it, it must equal an annotation. A hash of seed and clip_id decides which clips are drawn: every machine
draws the same ones, a smaller number is a subset of a larger one, and adding clips to a list changes few others.
"""

import warnings
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

from earshot.core.errors import EarshotError
from earshot.core.hashing import stable_hash
from earshot.corpus.manifest import ManifestRow
from earshot.corpus.ontology import Ontology, nearest_names, read_ontology
from earshot.params.download import Select


class Selection:
    """Which clips of a manifest to take.

    Args:
        classes: names or ids; empty takes clips of all classes.
        clips: how many to take; 0 takes all.
        seed: another seed draws other clips.
        ontology: gives the classes below each class.
        part: of how many, such as (2, 3), the selected clips are divided into by their groups.
    """

    def __init__(
        self,
        classes: Sequence[str] = (),
        clips: int = 0,
        seed: int = 0,
        ontology: Ontology | None = None,
        part: tuple[int, int] = (1, 1),
    ) -> None:
        self.part = part
        self.classes, self.clips, self.seed, self.ontology = tuple(classes), clips, seed, ontology
        self._counts: Counter[str] = Counter()  # clips of each class in `classes`
        self._annotations: set[str] = set()  # of all rows, to name the nearest one
        self._classes_of: dict[str, list[str]] = {}  # for each annotation, the classes that include it
        for name in self.classes:
            for word in _words(name, ontology):
                self._classes_of.setdefault(word, []).append(name)

    @classmethod
    def of(cls, params: Select, ontology: Path | None) -> "Selection":
        """What the parameters select; raises EarshotError as `read_ontology` does."""
        classes = read_ontology(ontology) if ontology and params.classes else None
        part, parts = map(int, params.part.split("/"))
        if part > parts:
            raise EarshotError(
                f"corpus.select.part is {params.part}, expected a part from 1/{parts} to {parts}/{parts}"
            )
        return cls(params.classes, params.clips, params.seed, classes, (part, parts))

    def is_in_part(self, row: ManifestRow) -> bool:
        """Whether a selected row is in the part of this machine; all rows of a group are in the same part."""
        part, parts = self.part
        return stable_hash(f"part/{row.group}") % parts == part - 1

    def takes(self, row: ManifestRow) -> bool:
        """Whether a row has one of the classes; counts it for `check`."""
        if not self.classes:
            return True
        self._annotations.update(row.annotations)
        named = {name for word in row.annotations for name in self._classes_of.get(word, ())}
        self._counts.update(named)
        return bool(named)

    def rank(self, row: ManifestRow) -> int:
        """The rank of a row in the draw, 0 to 2^64 - 1: the lowest are taken first."""
        return stable_hash(f"{self.seed}/{row.clip_id}")

    def check(self, file: Path) -> None:
        """After all rows of `file`: warn of a class that no clip has.

        Raises EarshotError if the ontology does not have that class either, or if no clip remains.
        """
        for name in self.classes:
            if self._counts[name]:
                continue
            if not _is_class(name, self.ontology):
                nearest = nearest_names(name, self.ontology.names.values() if self.ontology else self._annotations)
                below = "" if self.ontology else "set corpus.select.ontology to include classes below it"
                hint = ", or ".join(filter(None, [nearest, below]))
                raise EarshotError(f"{file}: no clip has the class {name!r} of corpus.select.classes; {hint}")
            warnings.warn(f"{file}: no clip has the class {name!r} of corpus.select.classes", stacklevel=2)
        if self.classes and not self._counts:
            raise EarshotError(f"{file}: no clip has one of the classes of corpus.select.classes; set other classes")


def _is_class(name: str, ontology: Ontology | None) -> bool:
    return ontology is not None and (name in ontology.names or name in ontology.names.values())


def _words(name: str, ontology: Ontology | None) -> Iterable[str]:
    """The annotations that a class includes: ids and names of itself and all classes below it, or the text itself."""
    if ontology is None or not _is_class(name, ontology):
        return {name}
    identities = {ontology.find(name)} | ontology.descendants(name)
    return identities | {ontology.names[identity] for identity in identities}
