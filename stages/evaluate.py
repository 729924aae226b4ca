"""Evaluate: what was learned, measured on one annotated benchmark beside its controls.

Pictures (voc, sun): linear SVMs on layers of the trained network, of the wrong-sound control, of the same architecture
with random weights, and on a colour histogram. finetune: these networks trained on, their fully connected layers or all
of them. detection: Fast R-CNN on their convolutions. imagenet: a linear layer on their pooled convolutions. Sound
(esc50, dcase): linear SVMs on the sound tower of a correspondence network, or on the descriptor itself.

reads   evaluate.<benchmark>.tree      the benchmark in its official layout
        evaluate.<benchmark>.encoder   what is measured: a folder of encoders, or earshot/sound for the descriptor
        data/annotations, corpus.ontology    where the benchmark is clips of the corpus
writes  metrics/<benchmark>.json, metrics/<benchmark>_classes.csv; beside the scores stand clips_hash, of the list of
        clips that the encoder was trained on, and items_hash, of the list of test items. What the corpus gives no
        answer to, such as its annotations where it has none, is told and has 0 clips and no scores
        data/told/<benchmark>/confusion.csv, a row an item with its class and what it was told as, of sun (on pool5),
        esc50 and dcase; without rows of the others, which do not tell one class from others

    python -m stages.evaluate --benchmark voc
    python -m stages.evaluate --benchmark voc --set evaluate.voc.tree=/path/to/VOCdevkit
    python -m stages.evaluate --benchmark finetune --set evaluate.finetune.modes=[head]
    python -m stages.evaluate --benchmark esc50 --set descriptor=mfcc
    python -m stages.evaluate --benchmark esc50 --set evaluate.esc50.encoder=models/correspond
"""

import csv
from collections.abc import Iterable
from pathlib import Path

import torch

from earshot.benchmarks import (
    correspondence,
    dcase,
    detection,
    esc50,
    finetune,
    imagenet,
    localisation,
    nmi,
    retrieval,
    sun,
    units,
    voc,
)
from earshot.core.errors import EarshotError
from earshot.core.files import write_atomically
from earshot.core.hashing import list_hash
from earshot.evaluation.benchmark import Answer, Question, Unanswerable
from earshot.pipeline.settings import settings
from earshot.pipeline.stage import Run, Stage, View

BENCHMARKS = {
    "voc": voc.evaluate,
    "sun": sun.evaluate,
    "esc50": esc50.evaluate,
    "finetune": finetune.evaluate,
    "detection": detection.evaluate,
    "correspondence": correspondence.evaluate,
    "retrieval": retrieval.evaluate,
    "nmi": nmi.evaluate,
    "units": units.evaluate,
    "localisation": localisation.evaluate,
    "dcase": dcase.evaluate,
    "imagenet": imagenet.evaluate,
}

# Benchmarks on clips of the corpus; dvc.yaml, which has one list for all, declares these inputs for every benchmark.
ON_SCENES = ("correspondence", "retrieval", "nmi", "units")
ANNOTATIONS = "data/annotations"


def inputs(params: View, benchmark: str | None) -> list[str]:
    """The tree and the encoder of a benchmark, where the encoder is not the code itself."""
    asked = getattr(params.evaluate, benchmark or "")
    if asked is None:
        raise EarshotError(f"evaluate.{benchmark} is not among the parameters; add it with its tree and encoder")
    paths = [asked.tree, asked.encoder, *([ANNOTATIONS, params.corpus.ontology] if benchmark in ON_SCENES else [])]
    return [path for path in paths if not path.startswith("earshot/")]


STAGE = Stage(
    name="evaluate",
    params=("seed", "descriptor", "texture", "corpus.ontology", "evaluate.{choice}"),
    reads=inputs,
    clips=lambda params, benchmark: getattr(params.evaluate, benchmark).encoder,
    writes=("data/told/{choice}",),
    metrics=("{choice}",),
    plots=("{choice}_classes",),
    choices=("benchmark", tuple(BENCHMARKS)),
)


def main(run: Run) -> str:
    torch.set_num_threads(settings().threads)
    asked = getattr(run.params.evaluate, run.choice)
    question = Question(
        tree=run.path(asked.tree),
        encoder=run.path(asked.encoder),
        params=asked,
        seed=run.params.seed,
        descriptor=run.params.descriptor,
        switches=run.params.texture.model_dump(),
        scratch=run.scratch,
        annotations=run.path(ANNOTATIONS),
        ontology=run.path(run.params.corpus.ontology),
    )
    try:
        answer = BENCHMARKS[run.choice](question)
    except Unanswerable as why:
        answer = Answer({"clips": 0}, [], f"{run.choice} is not measured", str(why), [])
    run.write_metrics(run.choice, answer.metrics | {"items_hash": list_hash(answer.items)})
    run.write_plot(f"{run.choice}_classes", answer.classes)
    told = f"data/told/{run.choice}"
    write_confusion(run.out(told) / "confusion.csv", answer.confusion)
    run.place(told)
    return f"{answer.protocol}: {answer.scores}"


def write_confusion(file: Path, rows: Iterable[tuple[str, str]]) -> None:
    """Write what each item is and was told as, with the columns that the confusion template of `dvc plots` wants."""
    with write_atomically(file) as growing, growing.open("w", newline="", encoding="utf-8") as lines:
        writer = csv.writer(lines, lineterminator="\n")
        writer.writerow(("actual", "predicted"))
        writer.writerows(rows)


if __name__ == "__main__":
    STAGE.run(main)
