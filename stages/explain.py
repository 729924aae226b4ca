"""Explain: make one exhibit of the report, which shows what the network learned in images and sounds.

reads   explain.<exhibit>.data_dir, explain.<exhibit>.encoder
        data/scenes, data/annotations, corpus.clips
writes  data/explain/<exhibit>      its tables (columns: its module in earshot/exhibits) and exhibit.json
        metrics/explain_<exhibit>.json

    python -m stages.explain --exhibit units
    python -m stages.explain --exhibit units --set explain.units.encoder=models/correspond
    python -m stages.explain --exhibit clusters --set explain.clusters.examples=25
"""

import json
import sys
from typing import Any

from earshot.core.files import write_atomically
from earshot.core.registry import find, names
from earshot.evaluation.benchmark import NotApplicable
from earshot.explanation.exhibit import Exhibit, ExhibitContext, skipped
from earshot.explanation.tables import METADATA_FILE
from earshot.params.explain import ExhibitParams, ExplainParams, params_of
from earshot.pipeline.settings import settings
from earshot.pipeline.stage import Stage, StageContext

SCENES, ANNOTATIONS = "data/scenes", "data/annotations"


def own_params(params: ExplainParams, exhibit: str | None) -> Any:
    """The exhibit's own group of parameters."""
    own = getattr(params.explain, exhibit or "")
    assert isinstance(own, ExhibitParams)
    return own


def inputs(params: ExplainParams, exhibit: str | None) -> list[str]:
    """The data_dir and the encoder of the exhibit, and the corpus."""
    own = own_params(params, exhibit)
    return [own.encoder, own.data_dir, SCENES, ANNOTATIONS, params.corpus.clips]


STAGE = Stage(
    name="explain",
    params=params_of,
    reads=inputs,
    clips=lambda params, exhibit: own_params(params, exhibit).encoder,
    writes=("data/explain/{choice}",),
    metrics=("explain_{choice}",),
    choices=("exhibit", names("earshot.exhibits")),
)


def main(run: StageContext[ExplainParams]) -> str:
    name = run.choice or ""
    exhibit: Exhibit = find("earshot.exhibits", name, "EXHIBIT", what="--exhibit")
    if torch := sys.modules.get("torch"):  # an exhibit without networks does not wait for its import
        torch.set_num_threads(settings().threads)
    own, out = own_params(run.params, name), f"data/explain/{name}"
    context = ExhibitContext(
        data_dir=run.path(own.data_dir),
        encoder=run.path(own.encoder),
        params=own,
        seed=run.params.seed,
        window_s=run.params.extract.window_s,
        scenes=run.path(SCENES),
        annotations=run.path(ANNOTATIONS),
        clips=run.path(run.params.corpus.clips),
        follow_links=tuple(run.path(name) for name in run.params.corpus.follow_links),
        folder=run.out(out),
        scratch=run.scratch,
    )
    try:
        result = exhibit.make(context)
    except NotApplicable as reason:
        result = skipped(str(reason))
    exhibit.check_metrics(result.metrics)
    metadata = {
        "exhibit": name,
        "title": exhibit.title,
        "encoder": own.encoder,
        "data_dir": own.data_dir,
    } | result.metadata
    with write_atomically(context.folder / METADATA_FILE) as temporary:
        temporary.write_text(json.dumps(metadata, indent=2) + "\n", encoding="utf-8")
    run.publish(out)
    run.write_metrics(f"explain_{name}", result.metrics)
    return f"{name}: {result.closing}"


if __name__ == "__main__":
    STAGE.run(main)
