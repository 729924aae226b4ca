"""What every exhibit is asked and what it gives: one function `show(question) -> Shown` a module.

An exhibit writes its tables (earshot/explanation/tables) into a folder; what can be told in a number or a word stands
beside them as facts.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

FACTS_FILE = "exhibit.json"
NOTHING = "nothing"  # the fact that says why there is nothing to show


@dataclass(frozen=True)
class Question:
    """What to show.

    Args:
        tree, encoder: the folders that the exhibit's parameters name.
        params: the exhibit's own parameters.
        seed: for whatever is drawn.
        descriptor, switches: how sound is described.
        window: seconds of sound around a frame.
        scenes, annotations, clips, ontology: the corpus.
        folder: where the exhibit's tables go; a killed exhibit finds there what it had finished.
        scratch: a folder for unfinished work.
    """

    tree: Path
    encoder: Path
    params: Any
    seed: int
    descriptor: str
    switches: Mapping[str, str]
    window: float
    scenes: Path
    annotations: Path
    clips: Path
    ontology: Path
    folder: Path
    scratch: Path


@dataclass(frozen=True)
class Shown:
    """What is told of an exhibit.

    Args:
        facts: flat, words and numbers that stand beside the pictures; `nothing` says why there are none, such as for a
            network that has no map of where a sound comes from.
        metrics: flat, numbers alone, every score with its controls.
        closing: for the closing line.
    """

    facts: dict[str, Any]
    metrics: dict[str, Any]
    closing: str


def nothing(reason: str) -> Shown:
    """What an exhibit gives that has nothing to show."""
    return Shown({NOTHING: reason}, {}, f"nothing to show: {reason}")
