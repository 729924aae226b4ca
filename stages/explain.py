"""Explain: what was learned, to be looked at and listened to, as one of the exhibits that the report shows.

clusters      the moments nearest to the centroid of each label, and what the centroid says of sound
units         the frames that activate each unit most, under its receptive fields; objects that it is selective for
heatmaps      where in frames and spectrograms units respond that prefer a class
localisation  the map of where a sound comes from, over pictures and over whole clips
embeddings    t-SNE of pictures and sounds, trained beside random
retrieval     the nearest clips to some clips, in four directions

reads   explain.<exhibit>.tree, explain.<exhibit>.encoder
        data/scenes, data/annotations, corpus.clips, corpus.ontology
writes  data/explain/<exhibit>      its tables (earshot/explanation/tables.py), and exhibit.json
        metrics/explain_<exhibit>.json

    python -m stages.explain --exhibit units
    python -m stages.explain --exhibit units --set explain.units.encoder=models/correspond
    python -m stages.explain --exhibit clusters --set explain.clusters.examples=25
"""

import json

import torch

from earshot.core.errors import EarshotError
from earshot.core.files import write_atomically
from earshot.evaluation.benchmark import NotApplicable
from earshot.exhibits import clusters, embeddings, heatmaps, localisation, retrieval, units
from earshot.explanation.exhibit import FACTS_FILE, Question, nothing
from earshot.pipeline.settings import settings
from earshot.pipeline.stage import Run, Stage, View

EXHIBITS = {
    "clusters": clusters.show,
    "units": units.show,
    "heatmaps": heatmaps.show,
    "localisation": localisation.show,
    "embeddings": embeddings.show,
    "retrieval": retrieval.show,
}
SCENES, ANNOTATIONS = "data/scenes", "data/annotations"


def inputs(params: View, exhibit: str | None) -> list[str]:
    """The corpus, and the tree and the encoder of the exhibit."""
    asked = getattr(params.explain, exhibit or "")
    if asked is None:
        raise EarshotError(f"explain.{exhibit} is not among the parameters; add it with its tree and encoder")
    paths = [asked.tree, asked.encoder, SCENES, ANNOTATIONS, params.corpus.clips, params.corpus.ontology]
    return list(dict.fromkeys(paths))


STAGE = Stage(
    name="explain",
    params=("seed", "descriptor", "texture", "extract.window", "corpus.clips", "corpus.ontology", "explain.{choice}"),
    reads=inputs,
    clips=lambda params, exhibit: getattr(params.explain, exhibit).encoder,
    writes=("data/explain/{choice}",),
    metrics=("explain_{choice}",),
    choices=("exhibit", tuple(EXHIBITS)),
)


def main(run: Run) -> str:
    torch.set_num_threads(settings().threads)
    asked = getattr(run.params.explain, run.choice)
    out = f"data/explain/{run.choice}"
    question = Question(
        tree=run.path(asked.tree),
        encoder=run.path(asked.encoder),
        params=asked,
        seed=run.params.seed,
        descriptor=run.params.descriptor,
        switches=run.params.texture.model_dump(),
        window=run.params.extract.window,
        scenes=run.path(SCENES),
        annotations=run.path(ANNOTATIONS),
        clips=run.path(run.params.corpus.clips),
        ontology=run.path(run.params.corpus.ontology),
        folder=run.out(out),
        scratch=run.scratch,
    )
    try:
        shown = EXHIBITS[run.choice](question)
    except NotApplicable as why:
        shown = nothing(str(why))
    with write_atomically(question.folder / FACTS_FILE) as growing:
        facts = {"exhibit": run.choice, "encoder": asked.encoder, "tree": asked.tree} | shown.facts
        growing.write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")
    run.place(out)
    run.write_metrics(f"explain_{run.choice}", shown.metrics)
    return f"{run.choice}: {shown.closing}"


if __name__ == "__main__":
    STAGE.run(main)
