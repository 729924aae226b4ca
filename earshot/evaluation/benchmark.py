"""What every benchmark is asked and what it answers: one function `evaluate(question) -> answer` a module."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Question:
    """What to measure.

    Args:
        tree: the benchmark's folder in its official layout.
        encoder: a folder of encoders, as the stage pretrain writes it.
        params: the benchmark's own parameters.
        seed: for whatever the protocol draws.
        descriptor, switches: how sound is described, for benchmarks of sound.
    """

    tree: Path
    encoder: Path
    params: Any
    seed: int
    descriptor: str
    switches: Mapping[str, str]


@dataclass(frozen=True)
class Answer:
    """What was measured.

    Args:
        metrics: flat, every score with its controls.
        classes: a row a class with the same scores.
        protocol: the protocol's name, for the closing line.
        best: the scores to show in the closing line.
    """

    metrics: dict[str, Any]
    classes: list[dict[str, Any]]
    protocol: str
    best: str
