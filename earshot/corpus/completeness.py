"""Completeness: how many of the requested clips are kept, by split and by annotated class.

The requested clips are the list that the stage download writes beside its clips; for clips from elsewhere, they are the
clips in the folder. A clip with several annotations counts in each class.
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
EVERY_CLIP = ""  # in place of a class
MAX_CLASSES = 10_000  # distinct classes: annotations may be free text, different for each clip
CLASS_LENGTH = 100  # characters of a class's name
OTHERS = "(others)"
REQUESTED, LEDGER = "requested", "ledger"  # folders beside the clips that the stage download writes


class Completeness:
    """Counts of outcomes of clips by split and class; memory grows with the classes, not with the clips."""

    def __init__(self) -> None:
        self._counts: dict[tuple[str, str], Counter[str]] = {}
        self._classes: set[str] = {EVERY_CLIP}

    def add(self, split: str, class_name: str, became: str, number: int) -> None:
        """Count `number` clips of a split and class whose outcome is `kept`, `pending` or `refused_<reason>`."""
        if class_name not in self._classes:
            if len(self._classes) > MAX_CLASSES:
                class_name = OTHERS
            self._classes.add(class_name)
        for name in (split, ALL):
            self._counts.setdefault((name, class_name), Counter())[became] += number

    def rows(self) -> list[dict[str, str | int | float]]:
        """One row for each split and class: `all` splits first, and in each split all clips before its classes.

        Keys: split, class, requested, kept, share_kept, pending, refused, and refused_<reason> for each reason found.
        """
        reasons = sorted({key for counts in self._counts.values() for key in counts if key.startswith("refused_")})
        order = [ALL, *SPLITS]
        keys = sorted(self._counts, key=lambda key: (order.index(key[0]), key[1]))
        return [_row(*key, self._counts[key], reasons) for key in keys]


def _row(split: str, class_name: str, counts: Counter[str], reasons: list[str]) -> dict[str, str | int | float]:
    requested, kept, pending = counts.total(), counts["kept"], counts["pending"]
    whole: dict[str, str | int | float] = {"split": split, "class": class_name, "requested": requested, "kept": kept}
    whole |= {"share_kept": kept / requested, "pending": pending, "refused": requested - kept - pending}
    return whole | {name: counts[name] for name in reasons}


def write_outcomes(path: Path, clips: Iterable[tuple[str, Iterable[str], str]]) -> None:
    """Count clips, each with its split, annotations and outcome, and write the counts of a shard."""
    counts: Counter[tuple[str, str, str]] = Counter()
    for split, annotations, became in clips:
        for class_name in {EVERY_CLIP, *(text[:CLASS_LENGTH] for text in annotations if text)}:
            counts[split, class_name, became] += 1
    with write_atomically(path) as temporary_path:
        temporary_path.write_text(json.dumps([[*key, number] for key, number in sorted(counts.items())]))


def read_outcomes(paths: Iterable[Path]) -> Completeness:
    """The summed counts of these shards."""
    whole = Completeness()
    for path in paths:
        for split, class_name, became, number in json.loads(path.read_text()):
            whole.add(split, class_name, became, number)
    return whole


def requested_shards(clips: Path) -> list[tuple[Path, Path]]:
    """The lists of requested clips of the stage download, each with its ledger; empty for other folders of clips."""
    return [requested_shard(clips, number) for number in range(sum(1 for _ in (clips / REQUESTED).glob("*.jsonl")))]


def requested_shard(clips: Path, number: int) -> tuple[Path, Path]:
    """The list of the requested clips of one shard, and its ledger."""
    return clips / REQUESTED / f"{shard_name(number)}.jsonl", clips / LEDGER / f"{shard_name(number)}.csv"


def missing_clips(requested: Path, ledger: Path) -> Iterator[tuple[str, Iterable[str], str]]:
    """The requested clips that were not kept: split, annotations and outcome of each.

    Raises EarshotError if the list or the ledger is not one of the stage download.
    """
    try:
        rows: Mapping[str, LedgerRow] = {row.clip_id: row for row in read_ledger(ledger)}
        for row in read_requested(requested):
            became = outcome(rows[row.clip_id])
            if became != "kept":
                yield split_of(row.group), row.annotations, became
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise EarshotError(
            f"{requested}: cannot be read beside {ledger} ({error!r:.100}); run the stage download again"
        ) from None
