"""What a benchmark is: its parameters, what it measures, and how its scores are displayed. One module defines one.

    BENCHMARK = Benchmark(params=Params, evaluate=evaluate, title="VOC2007", scores="map", leading="map_pool5")

`evaluate(context)` returns a `Result`. A module of earshot/benchmarks and its group of parameters are all that a new
benchmark takes.
"""

import csv
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Generic, TypeVar

from earshot.core.errors import EarshotError
from earshot.core.files import write_atomically
from earshot.core.params import Group

BENCHMARK_FILE = "benchmark.json"  # beside the predictions: what `Benchmark.describe` returns
# Rows of a table of scores, and what stands before the names of their metrics.
NETWORK_CONTROLS = {"wrong sound": "wrong_sound_", "random weights": "random_"}

P = TypeVar("P", bound=Group)


@dataclass(frozen=True)
class Context(Generic[P]):
    """What a benchmark runs on.

    Args:
        data_dir: the benchmark's folder in its official layout, or a folder of scenes.
        encoder: a folder of encoders, as the stages pretrain and correspond write it; or of a descriptor's description.
        params: the benchmark's own parameters.
        seed: for whatever the protocol draws.
        scratch: a folder for unfinished work, for benchmarks that train: a killed evaluation goes on from there.
        annotations: the corpus's annotations, for benchmarks of its clips.
    """

    data_dir: Path
    encoder: Path
    params: P
    seed: int
    scratch: Path
    annotations: Path | None = None

    @property
    def required_annotations(self) -> Path:
        """The annotations, for a benchmark that cannot do without; raises NotApplicable where there are none."""
        if self.annotations is None:
            raise NotApplicable("annotations are none; name those of the corpus, such as data/annotations")
        return self.annotations


@dataclass(frozen=True)
class Result:
    """What was measured.

    Args:
        metrics: flat, every score with its controls.
        classes: a row a class with the same scores.
        protocol: the protocol's name, for the closing line.
        scores: the scores to display in the closing line, beside their controls.
        items: the names of all test items, such as pictures or clips; their order does not matter.
        confusion: of each item, where a benchmark tells one class from others, its class and the predicted one.
        learned: whether what was measured has learned from clips; a descriptor has not.
    """

    metrics: dict[str, Any]
    classes: list[dict[str, Any]]
    protocol: str
    scores: str
    items: Sequence[str]
    confusion: Sequence[tuple[str, str]] = ()
    learned: bool = True


class NotApplicable(EarshotError):
    """What a corpus cannot measure, such as how well annotations are matched where it has none.

    Every corpus is measured on every benchmark by default, so this is no mistake and ends no run.
    """


@dataclass(frozen=True, kw_only=True)
class Display:
    """How the scores of a benchmark are displayed.

    A score is called by a metric and maybe a column, such as `map_pool5`: what was trained. The same name after a
    control's prefix, such as `random_map_pool5`, is the control's score.

    Args:
        title: its name in tables and charts.
        scores: what its scores are called before their column: a regular expression.
        leading: the score that stands for the benchmark, chosen beforehand and not by its value; else the first one.
        metric: the scores in words, where the columns do not say it.
        columns: words for columns, or for whole scores.
        brief: title and leading column in a chart, where they are too long for it.
        higher_is_better: which direction is better.
        controls: rows beside what was trained, and the prefix of their metrics.
        alike: rows of one score for all columns, and the prefix that stands before the metric.
        own_beside: what the row of the encoder is called where a control is measured, by the control; else `sound`.
        not_scores: metrics whose names look like those of scores.
        class_score: what the leading score of a single class is called before its column; empty: not charted by class.
        at_a_glance: whether the report's first lines and
        on_console: the table of `make repro` display it.
    """

    title: str
    scores: str
    leading: str = ""
    metric: str = ""
    columns: Mapping[str, str] = field(default_factory=dict)
    brief: str = ""
    higher_is_better: bool = True
    controls: Mapping[str, str] = field(default_factory=lambda: dict(NETWORK_CONTROLS))
    alike: Mapping[str, str] = field(default_factory=dict)
    own_beside: Mapping[str, str] = field(default_factory=dict)
    not_scores: Sequence[str] = ()
    class_score: str = ""
    at_a_glance: bool = False
    on_console: bool = False

    @property
    def heading(self) -> str:
        """Title and metric."""
        return ", ".join(filter(None, [self.title, self.metric]))

    def describe(self) -> dict[str, Any]:
        """The attributes, for a JSON file."""
        return {each.name: getattr(self, each.name) for each in fields(Display)}


@dataclass(frozen=True, kw_only=True)
class Benchmark(Display, Generic[P]):
    """A benchmark and how its scores are displayed.

    Args:
        params: the schema of its group of parameters.
        evaluate: measures the encoder that a context names.
    """

    params: type[P]
    evaluate: Callable[[Context[P]], Result]


def write_predictions(folder: Path, benchmark: Display, confusion: Iterable[tuple[str, str]]) -> None:
    """Write how the scores are displayed, and a row an item: its class and the predicted one, as `dvc plots` has it."""
    with write_atomically(folder / "confusion.csv") as path, path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(("actual", "predicted"))
        writer.writerows(confusion)
    with write_atomically(folder / BENCHMARK_FILE) as path:
        path.write_text(json.dumps(benchmark.describe(), indent=2) + "\n", encoding="utf-8")


def beside_random(metrics: Mapping[str, float], metric: str, layers: Sequence[str]) -> str:
    """Every layer's score beside the random network's, in words: none is picked out by its score on the test."""
    pairs = [(metrics[f"{metric}_{layer}"], metrics[f"random_{metric}_{layer}"]) for layer in layers]
    scores = [f"{layer} {own:.3f} (random {other:.3f})" for layer, (own, other) in zip(layers, pairs, strict=True)]
    return f"{', '.join(scores)}; chance {metrics['chance']:.3f}"
