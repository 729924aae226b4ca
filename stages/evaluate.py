"""Evaluate: measure the trained network and its controls on one annotated benchmark.

reads   evaluate.<benchmark>.data_dir     the benchmark in its official layout
        evaluate.<benchmark>.encoder      a folder of encoders, or models/descriptor
        evaluate.<benchmark>.annotations  if the benchmark uses clips of the corpus
writes  metrics/<benchmark>.json, metrics/<benchmark>_classes.csv; also `dataset` if the data are rendered,
        clips_hash, of the list of clips that the encoder was trained on, and items_hash, of the list of test items. A
        benchmark that requires annotations which the corpus lacks has 0 clips and no scores
        data/predictions/<benchmark>/confusion.csv, each item with its class and the predicted one, for sun (on pool5),
        esc50 and dcase; empty for the others, which do not predict one class
        data/predictions/<benchmark>/items.csv, the scores of single items, a column per metric, if it is their mean
        data/predictions/<benchmark>/draws.csv, for a score that is no mean of items, the scores in resamples of them
        data/predictions/<benchmark>/benchmark.json, how the scores are displayed

    python -m stages.evaluate --benchmark voc
    python -m stages.evaluate --benchmark voc --set evaluate.voc.data_dir=/path/to/VOCdevkit
    python -m stages.evaluate --benchmark finetune --set evaluate.finetune.modes=[head]
    python -m stages.evaluate --benchmark esc50 --set evaluate.esc50.encoder=models/correspond
"""

import torch

from earshot.core.hashing import list_hash
from earshot.core.registry import find, names
from earshot.evaluation.benchmark import (
    Benchmark,
    Context,
    NotApplicable,
    Result,
    is_rendered_data,
    rendered_name,
    write_predictions,
)
from earshot.params.evaluate import BenchmarkParams, EvaluateParams, params_of
from earshot.pipeline.settings import settings
from earshot.pipeline.stage import Stage, StageContext


def group_of(params: EvaluateParams, benchmark: str | None) -> BenchmarkParams:
    """The parameters of the benchmark itself."""
    return getattr(params.evaluate, benchmark or "")


def inputs(params: EvaluateParams, benchmark: str | None) -> list[str]:
    """The inputs of a benchmark; annotations may be absent."""
    group = group_of(params, benchmark)
    return [group.data_dir, group.encoder, group.annotations]


STAGE = Stage(
    name="evaluate",
    params=params_of,
    reads=inputs,
    clips=lambda params, benchmark: group_of(params, benchmark).encoder,
    writes=("data/predictions/{choice}",),
    metrics=("{choice}",),
    plots=("{choice}_classes",),
    choices=("benchmark", names("earshot.benchmarks")),
)


def main(run: StageContext[EvaluateParams]) -> str:
    torch.set_num_threads(settings().threads)
    name, group = run.choice or "", group_of(run.params, run.choice)
    benchmark: Benchmark = find("earshot.benchmarks", name, "BENCHMARK", what="--benchmark")
    context = Context(
        data_dir=run.path(group.data_dir),
        encoder=run.path(group.encoder),
        params=group,
        seed=run.params.seed,
        scratch=run.scratch,
        annotations=run.optional_path(group.annotations),
    )
    try:
        result = benchmark.evaluate(context)
    except NotApplicable as reason:
        result = Result({"clips": 0}, [], f"{name} is not measured", str(reason), [])
    if not result.learned:
        run.clips_hash = None
    rendered = is_rendered_data(group.data_dir, run.params.corpus.clips, run.params.corpus.manifest)
    data = {"dataset": rendered_name(benchmark.title, rendered)} if rendered else {}
    run.write_metrics(name, data | result.metrics | {"items": len(result.items), "items_hash": list_hash(result.items)})
    run.write_plot(f"{name}_classes", result.classes)
    write_predictions(run.out(f"data/predictions/{name}"), benchmark, result)
    run.publish(f"data/predictions/{name}")
    return f"{rendered_name(result.protocol, rendered)}: {result.scores}"


if __name__ == "__main__":
    STAGE.run(main)
