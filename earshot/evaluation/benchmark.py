"""The definition of a benchmark: its parameters, its evaluation, and the display of its scores.

    BENCHMARK = Benchmark(params=ProbeParams, evaluate=evaluate, title="VOC2007", scores="map", leading="map_pool5")

`evaluate(context)` returns a `Result`. A new benchmark requires only a module in earshot/benchmarks and its group of
parameters.
"""

import csv
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from itertools import zip_longest
from pathlib import Path
from typing import Any, Generic, TypeVar

import numpy as np

from earshot.core.csv_files import write_csv
from earshot.core.errors import EarshotError
from earshot.core.files import write_atomically
from earshot.core.params import Group

BENCHMARK_FILE = "benchmark.json"  # beside the predictions: what `Benchmark.describe` returns
ITEMS_FILE = "items.csv"  # beside the predictions: the scores of single items, a column per metric
DRAWS_FILE = "draws.csv"  # the same for scores that are no means of items: the scores in resamples of the items
PROBES = "earshot.evaluation.probes"
PLAIN_PROBE = "svm"  # its scores have plain names, such as map_pool5; those of another end in its name: map_pool5_knn
SAMPLE = "data/sample/"  # the folder of the rendered corpus and datasets
DOWNLOADED, SCENES = "data/clips", "data/scenes"  # the clips of a manifest, and what the corpus's clips became
# Rows of a table of scores, and the prefixes of their metrics.
NETWORK_CONTROLS = {"wrong sound": "wrong_sound_", "random weights": "random_"}

P = TypeVar("P", bound=Group)


@dataclass(frozen=True)
class Context(Generic[P]):
    """The arguments of an evaluation.

    Args:
        data_dir: the benchmark's folder in its official layout, or a folder of scenes.
        encoder: a folder of encoders from the stage pretrain or correspond, or the folder of a descriptor.
        params: the benchmark's own parameters.
        seed: of the protocol's random draws.
        scratch: a folder for unfinished work, from which a killed evaluation resumes.
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
        """The annotations, for a benchmark that requires them; raises NotApplicable if there are none."""
        if self.annotations is None:
            raise NotApplicable("annotations is none; set it to those of the corpus, such as data/annotations")
        return self.annotations


@dataclass(frozen=True)
class Result:
    """The result of an evaluation.

    Args:
        metrics: flat, every score with its controls.
        classes: a row per class with the same scores.
        protocol: the protocol's name, for the closing line.
        scores: the text of the scores and their controls in the closing line.
        items: the names of all test items, such as images or clips, in any order.
        confusion: the actual and the predicted class of each item, if the benchmark classifies.
        item_scores: the scores of single items, (items,), by the metric that is their mean, if it is one; the order of
            the items is the same for the trained network and its controls. Metrics may have different items, such as
            pairs and clips.
        learned: whether the encoder was trained on clips; a descriptor was not.
        drawn: the scores in resamples of the items, (draws,), by metric, of scores that are no means of items; the
            resamples are the same for the trained network and its controls (`resampled_counts`).
    """

    metrics: dict[str, Any]
    classes: list[dict[str, Any]]
    protocol: str
    scores: str
    items: Sequence[str]
    confusion: Sequence[tuple[str, str]] = ()
    item_scores: Mapping[str, np.ndarray] = field(default_factory=dict)
    learned: bool = True
    drawn: Mapping[str, np.ndarray] = field(default_factory=dict)


class NotApplicable(EarshotError):
    """A benchmark that a corpus cannot measure, for example because the corpus has no annotations.

    By default every benchmark runs on every corpus, so this is not an error and stops no run.
    """


@dataclass(frozen=True, kw_only=True)
class Display:
    """How the scores of a benchmark are displayed.

    The name of the trained network's score is a metric with an optional column, such as `map_pool5`. A control's score
    has the same name after the control's prefix, such as `random_map_pool5`.

    Args:
        title: the benchmark's name in tables and charts.
        scores: a regular expression for the names of scores without their columns.
        leading: the score that represents the benchmark, fixed in advance; by default the first one.
        metric: the name of the scores in words, if the columns do not give it.
        columns: labels of columns, or of whole scores.
        brief: short title and leading column for a chart.
        higher_is_better: which direction is better.
        controls: rows below the trained network, and the prefixes of their metrics.
        alike: rows with a single score for all columns, and the prefix of its metric.
        own_beside: by control, the name of the encoder's row if that control is measured; by default `sound`.
        references: rows that a trained network need not exceed, such as supervised training.
        not_scores: metrics that match `scores` but are no scores.
        class_score: the name of the leading score of a single class without its column; empty for no chart by class.
        at_a_glance: whether the report's first lines display it.
        on_console: whether the table of `make repro` displays it.
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
    references: Sequence[str] = ()
    not_scores: Sequence[str] = ()
    class_score: str = ""
    at_a_glance: bool = False
    on_console: bool = False

    @property
    def heading(self) -> str:
        """The title and the metric."""
        return ", ".join(filter(None, [self.title, self.metric]))

    def describe(self) -> dict[str, Any]:
        """The attributes as JSON values."""
        return {each.name: getattr(self, each.name) for each in fields(Display)}


@dataclass(frozen=True, kw_only=True)
class Benchmark(Display, Generic[P]):
    """A benchmark and the display of its scores.

    Args:
        params: the schema of its group of parameters.
        evaluate: evaluates the encoder of a context.
    """

    params: type[P]
    evaluate: Callable[[Context[P]], Result]


def is_sample(data_dir: str) -> bool:
    """Whether a folder of data lies in the rendered sample."""
    return data_dir.startswith(SAMPLE)


def is_rendered_data(data_dir: str, clips: str, manifest: str) -> bool:
    """Whether a benchmark measures on the sample: on its datasets, or on clips of its corpus.

    Args:
        data_dir: of the benchmark.
        clips, manifest: of the corpus, the parameters `corpus.clips` and `corpus.manifest`.
    """
    return is_sample(manifest if data_dir == SCENES and clips == DOWNLOADED else data_dir)


def rendered_name(name: str, rendered: bool) -> str:
    """The name of a benchmark, which says so if its data are rendered."""
    if not (rendered and name):
        return name
    is_word = name[1:].islower()  # and no proper name such as SUN397 or ImageNet
    return f"rendered {name[:1].lower() if is_word else name[:1]}{name[1:]}"


def write_predictions(folder: Path, benchmark: Display, result: Result) -> None:
    """Write the display of the scores, the scores of items and resamples, and the classes as `dvc plots` reads them.

    A metric of fewer items than another, such as clips beside pairs, has empty cells at the end.
    """
    _write_table(folder / "confusion.csv", ("actual", "predicted"), result.confusion)
    for file, scores in ((ITEMS_FILE, result.item_scores), (DRAWS_FILE, result.drawn)):
        columns = [[f"{value:.6g}" for value in values.tolist()] for values in scores.values()]
        _write_table(folder / file, tuple(scores), zip_longest(*columns, fillvalue=""))
    with write_atomically(folder / BENCHMARK_FILE) as path:
        path.write_text(json.dumps(benchmark.describe(), indent=2) + "\n", encoding="utf-8")


def read_item_scores(folder: Path, name: str = ITEMS_FILE) -> dict[str, np.ndarray]:
    """The scores of single items by metric, (items,) each, from the folder of predictions of a benchmark.

    The folder is data/predictions/<benchmark>; with the name `DRAWS_FILE`, the scores in resamples, (draws,). Empty
    without the file. Raises EarshotError for a damaged file.
    """
    file = folder / name
    if not file.exists():
        return {}
    try:
        with file.open(newline="", encoding="utf-8") as lines:
            names, *rows = list(csv.reader(lines)) or [[]]
        columns = [list(column) for column in zip(*rows, strict=True)] if rows else [[] for _ in names]
        return {name: _without_end(column) for name, column in zip(names, columns, strict=True)}
    except (OSError, ValueError) as error:
        raise EarshotError(f"{file}: cannot be read ({error}); run the stage evaluate again") from None


def _without_end(column: list[str]) -> np.ndarray:
    """The numbers of a column, float64, without the empty cells at its end. Raises ValueError for other cells."""
    while column and not column[-1]:
        column.pop()
    return np.array(column, float)


def _write_table(file: Path, names: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    with write_atomically(file) as path, path.open("w", newline="", encoding="utf-8") as lines:
        write_csv(lines, names, rows)


def beside_random(metrics: Mapping[str, float], metric: str, layers: Sequence[str]) -> str:
    """Every layer's score beside the random network's, as text; no layer is selected by its test score."""
    pairs = [(metrics[f"{metric}_{layer}"], metrics[f"random_{metric}_{layer}"]) for layer in layers]
    scores = [f"{layer} {own:.3f} (random {other:.3f})" for layer, (own, other) in zip(layers, pairs, strict=True)]
    return f"{', '.join(scores)}; chance {metrics['chance']:.3f}"
