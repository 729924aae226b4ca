"""Selecting clips of a manifest: by the classes that they are annotated with, and by number.

A class is an id or a name of an ontology and brings all classes below it; without an ontology, and where the ontology
does not have it, it is the very word of the annotations. A number of clips is drawn by a hash of seed and clip_id: the
same on every machine, a smaller number is a part of a larger one, and clips that are added to a list move few others.
"""

import difflib
import warnings
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

from earshot.core.errors import EarshotError
from earshot.core.hashing import stable_hash
from earshot.corpus.manifest import ManifestRow
from earshot.corpus.ontology import Ontology, read_ontology
from earshot.params.download import Select


class Selection:
    """What is wanted of a manifest.

    Args:
        classes: by name or id; none takes the clips of all.
        clips: how many to take; 0 takes all.
        seed: another one draws other clips.
        ontology: the classes that bring others with them.
    """

    def __init__(
        self, classes: Sequence[str] = (), clips: int = 0, seed: int = 0, ontology: Ontology | None = None
    ) -> None:
        self.classes, self.clips, self.seed, self.ontology = tuple(classes), clips, seed, ontology
        self._found: Counter[str] = Counter()  # clips of each class that is named
        self._asked: dict[str, list[str]] = {}  # by the word of an annotation, the classes that bring it
        for name in self.classes:
            for word in _words(name, ontology):
                self._asked.setdefault(word, []).append(name)

    @classmethod
    def of(cls, params: Select, ontology: Path | None) -> "Selection":
        """What the parameters select; raises EarshotError as `read_ontology` does."""
        classes = read_ontology(ontology) if ontology and params.classes else None
        return cls(params.classes, params.clips, params.seed, classes)

    def takes(self, row: ManifestRow) -> bool:
        """Whether a row has one of the classes; counted for `check`."""
        if not self.classes:
            return True
        named = {name for word in row.annotations for name in self._asked.get(word, ())}
        self._found.update(named)
        return bool(named)

    def rank(self, row: ManifestRow) -> int:
        """The place of a row in the draw, 0 to 2^64 - 1: the lowest are taken first."""
        return stable_hash(f"{self.seed}/{row.clip_id}")

    def check(self, file: Path) -> None:
        """After all rows of `file`: tell of a class that no clip has.

        Raises EarshotError for one that the ontology does not have either, and where no clip is left.
        """
        for name in self.classes:
            if self._found[name]:
                continue
            if not _is_class(name, self.ontology):
                near = difflib.get_close_matches(name, self.ontology.names.values() if self.ontology else [], 1)
                hint = f"; the nearest class is {near[0]!r}" if near else "; an ontology is corpus.select.ontology"
                raise EarshotError(f"{file}: no clip has the class {name!r} of corpus.select.classes{hint}")
            warnings.warn(f"{file}: no clip has the class {name!r} of corpus.select.classes", stacklevel=2)
        if self.classes and not self._found:
            raise EarshotError(f"{file}: no clip has one of the classes of corpus.select.classes; name others")


def _is_class(name: str, ontology: Ontology | None) -> bool:
    return ontology is not None and (name in ontology.names or name in ontology.names.values())


def _words(name: str, ontology: Ontology | None) -> Iterable[str]:
    """The annotations that a class stands for: ids and names of itself and of all below it, or the word itself."""
    if ontology is None or not _is_class(name, ontology):
        return {name}
    identities = {ontology.find(name)} | ontology.descendants(name)
    return identities | {ontology.names[identity] for identity in identities}
