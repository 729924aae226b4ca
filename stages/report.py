"""Report: one folder of pages that shows a run, to be opened from disk with no network.

The start page has the question, the corpus, every score beside its controls, curves and parameters; a page each shows
clusters, units, heat maps, localisation, embeddings, retrieval, and what was left out. Charts are there as SVG and PNG.

reads   data/explain, metrics, the ledgers in data/clips and data/scenes
writes  report               index.html, the other pages, media/, figures/, and plots/, which `dvc plots` draws

    python -m stages.report
    python -m earshot.commands.compare main fifteen        # several runs side by side
"""

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel

from earshot.commands.recipe import flatten
from earshot.pipeline.stage import Run, Stage, View
from earshot.report.pages import START, write_report
from earshot.report.sources import LEDGERS, Source


def inputs(params: View, choice: str | None) -> list[str]:
    """The exhibits, the metrics and the ledgers; that of a download only where the corpus came from it."""
    ledgers = [ledger for ledger in LEDGERS.values() if not ledger.startswith("data/clips") or _downloaded(params)]
    return ["data/explain", *ledgers, "metrics"]


def _downloaded(params: View) -> bool:
    return params.corpus.clips == "data/clips"


STAGE = Stage(
    name="report",
    params=(
        "seed",
        "descriptor",
        "clusters",
        "sample",
        "corpus",
        "download",
        "extract",
        "texture",
        "label",
        "pretrain",
        "correspond",
        "evaluate",
        "explain",
    ),
    reads=inputs,
    writes=("report",),
)


def main(run: Run) -> str:
    source = Source("this run", run.root, parameters(run))
    site = write_report([source], run.out("report"))
    run.place("report")
    return f"report/{START}: {site}"


def parameters(run: Run) -> Mapping[str, Any]:
    """All parameters of the run by dotted name, as params.yaml and --set have them."""
    values = {key: getattr(run.params, key) for key in STAGE.params}
    plain = {
        key: value.model_dump(mode="json", exclude_none=True) if isinstance(value, BaseModel) else value
        for key, value in values.items()
    }
    return dict(flatten(plain))


if __name__ == "__main__":
    STAGE.run(main)
