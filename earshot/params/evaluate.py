"""Parameters of the stage evaluate: each benchmark declares its own in its module."""

from typing import Annotated, Any, Literal

from pydantic import create_model

from earshot.core.params import INDIFFERENT, Group, Part, Seed
from earshot.core.registry import find


class BenchmarkParams(Group):
    """What every benchmark has: its data, the encoder that it measures, and the code that it shares with others.

    `inputs` is the folder of earshot/evaluation that its module uses. `annotations` names the corpus's annotations if
    the benchmark uses clips of the corpus, and is `none` if the annotations are in `data_dir`.
    """

    data_dir: str
    encoder: Annotated[str, INDIFFERENT]
    inputs: Annotated[Literal["images", "recordings", "clips"], INDIFFERENT]
    annotations: str


class CorpusSource(Part):
    """Where the clips come from, which says whether they are rendered."""

    clips: str
    manifest: str


class EvaluateParams(Part):
    """What the stage evaluate reads; `evaluate` holds the group of the one benchmark that runs."""

    seed: Seed
    corpus: CorpusSource
    evaluate: Part


def params_of(benchmark: str) -> type[EvaluateParams]:
    """The parameters of one benchmark's run."""
    group = find("earshot.benchmarks", benchmark, "BENCHMARK", what="--benchmark").params
    own: dict[str, Any] = {benchmark: (group, ...)}
    evaluate = create_model("Evaluate", __base__=Part, **own)
    return create_model("EvaluateParams", __base__=EvaluateParams, evaluate=(evaluate, ...))
