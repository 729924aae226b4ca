"""Completeness: how many of the clips that were asked for exist at the end, by split and by what humans said of them.

What was asked for is the list that the stage download leaves beside its clips, or, where clips came from elsewhere, the
clips that were there. A clip of several annotations counts in the class of each.
"""

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from earshot.core.errors import EarshotError
from earshot.core.files import shard_name, write_atomically
from earshot.corpus.ledger import LedgerRow, outcome, read_ledger
from earshot.corpus.requested import read_requested
from earshot.corpus.split import SPLITS, split_of

ALL = "all"  # of the splits
EVERY_CLIP = ""  # instead of a class
MAX_CLASSES = 10_000  # classes that are told apart: annotations may be sentences, as many as there are clips
CLASS_LENGTH = 100  # characters of a class's name
OTHERS = "(others)"
REQUESTED, LEDGER = "requested", "ledger"  # folders beside the clips, where the stage download has made them


class Completeness:
    """Counts of what became of clips, by split and class; memory grows with the classes and not with the clips."""

    def __init__(self) -> None:
        self._counts: dict[tuple[str, str], Counter[str]] = {}
        self._classes: set[str] = {EVERY_CLIP}

    def add(self, split: str, class_name: str, became: str, number: int) -> None:
        """Count `number` clips of a split and class of which became `kept`, `pending` or `refused_<reason>`."""
        if class_name not in self._classes:
            if len(self._classes) > MAX_CLASSES:
                class_name = OTHERS
            self._classes.add(class_name)
        for place in (split, ALL):
            self._counts.setdefault((place, class_name), Counter())[became] += number

    def rows(self) -> list[dict[str, str | int | float]]:
        """A row a split and class, `all` splits first, and in each all of its clips before its classes.

        Keys: split, class, asked, kept, share_kept, pending, refused, and refused_<reason> for those there are.
        """
        reasons = sorted({key for counts in self._counts.values() for key in counts if key.startswith("refused_")})
        order = [ALL, *SPLITS]
        places = sorted(self._counts, key=lambda place: (order.index(place[0]), place[1]))
        return [_row(*place, self._counts[place], reasons) for place in places]


def _row(split: str, class_name: str, counts: Counter[str], reasons: list[str]) -> dict[str, str | int | float]:
    asked, kept, pending = counts.total(), counts["kept"], counts["pending"]
    whole: dict[str, str | int | float] = {"split": split, "class": class_name, "requested": asked, "kept": kept}
    whole |= {"share_kept": kept / asked, "pending": pending, "refused": asked - kept - pending}
    return whole | {name: counts[name] for name in reasons}


def write_outcomes(path: Path, clips: Iterable[tuple[str, Iterable[str], str]]) -> None:
    """Count clips, each of a group, annotations and what became of it, and write the counts of a shard."""
    counts: Counter[tuple[str, str, str]] = Counter()
    for group, annotations, became in clips:
        for class_name in {EVERY_CLIP, *(said[:CLASS_LENGTH] for said in annotations if said)}:
            counts[split_of(group), class_name, became] += 1
    with write_atomically(path) as temporary_path:
        temporary_path.write_text(json.dumps([[*place, number] for place, number in sorted(counts.items())]))


def read_outcomes(paths: Iterable[Path]) -> Completeness:
    """The counts of all these shards."""
    whole = Completeness()
    for path in paths:
        for split, class_name, became, number in json.loads(path.read_text()):
            whole.add(split, class_name, became, number)
    return whole


def requested_shards(clips: Path) -> list[tuple[Path, Path]]:
    """The lists of what the stage download was asked for, each with its ledger; none for other folders of clips."""
    return [requested_shard(clips, number) for number in range(sum(1 for _ in (clips / REQUESTED).glob("*.jsonl")))]


def requested_shard(clips: Path, number: int) -> tuple[Path, Path]:
    """The list of one shard of clips that were asked for, and its ledger."""
    return clips / REQUESTED / f"{shard_name(number)}.jsonl", clips / LEDGER / f"{shard_name(number)}.csv"


def never_had(asked: Path, ledger: Path) -> Iterator[tuple[str, Iterable[str], str]]:
    """Of the clips asked for those that were not had: group, annotations, and what became of each.

    Raises EarshotError where the list or the ledger is none of the stage download's.
    """
    try:
        rows: Mapping[str, LedgerRow] = {row.clip_id: row for row in read_ledger(ledger)}
        for row in read_requested(asked):
            became = outcome(rows[row.clip_id])
            if became != "kept":
                yield row.group, row.annotations, became
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise EarshotError(f"{asked}: cannot be read beside {ledger} ({error!r:.100}); run download again") from None
