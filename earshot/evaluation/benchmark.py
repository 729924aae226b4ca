"""What every benchmark is asked and what it answers: one function `evaluate(question) -> answer` a module."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from earshot.core.errors import EarshotError


@dataclass(frozen=True)
class Question:
    """What to measure.

    Args:
        tree: the benchmark's folder in its official layout, or a folder of scenes.
        encoder: a folder of encoders, as the stage pretrain writes it.
        params: the benchmark's own parameters.
        seed: for whatever the protocol draws.
        descriptor, switches: how sound is described, for benchmarks of sound.
        scratch: a folder for unfinished work, for benchmarks that train: a killed evaluation goes on from there.
        annotations, ontology: what humans said of the clips of scenes, and the classes they could name.
    """

    tree: Path
    encoder: Path
    params: Any
    seed: int
    descriptor: str
    switches: Mapping[str, str]
    scratch: Path
    annotations: Path
    ontology: Path


@dataclass(frozen=True)
class Answer:
    """What was measured.

    Args:
        metrics: flat, every score with its controls.
        classes: a row a class with the same scores.
        protocol: the protocol's name, for the closing line.
        scores: the scores to show in the closing line, beside their controls.
        items: the names of all that was asked, such as pictures or clips; their order does not matter.
        confusion: of each item, where a benchmark tells one class from others, its class and what it was told as.
    """

    metrics: dict[str, Any]
    classes: list[dict[str, Any]]
    protocol: str
    scores: str
    items: Sequence[str]
    confusion: Sequence[tuple[str, str]] = ()


class Unanswerable(EarshotError):
    """What a corpus gives no answer to, such as what its annotations are worth where it has none.

    Every corpus is asked everything by default, so this is no mistake and ends no run.
    """


def beside_random(metrics: Mapping[str, float], metric: str, layers: Sequence[str]) -> str:
    """Every layer's score beside the random network's, in words: none is picked out by its score on the test."""
    pairs = [(metrics[f"{metric}_{layer}"], metrics[f"random_{metric}_{layer}"]) for layer in layers]
    told = [f"{layer} {own:.3f} (random {other:.3f})" for layer, (own, other) in zip(layers, pairs, strict=True)]
    return f"{', '.join(told)}; chance {metrics['chance']:.3f}"
