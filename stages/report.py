"""Report: one folder of pages that shows a run, to be opened from disk with no network.

The start page has the question, the corpus, every score beside its controls, curves and parameters; a page each shows
the exhibits, and what was left out. Charts are there as SVG and PNG.

reads   data/explain, metrics, the ledgers in data/clips and data/scenes
        data/predictions    how the scores of benchmarks are displayed
        data/labels/labels.json    what a label is
writes  report               index.html, the other pages, media/, figures/, and plots/, which `dvc plots` draws

    python -m stages.report
    python -m earshot.commands.compare main fifteen        # several runs side by side
"""

from earshot.core.yaml_files import flatten
from earshot.params.report import Params
from earshot.pipeline.stage import Stage, StageContext
from earshot.report.build import START, write_report
from earshot.report.sources import LABELS, LEDGERS, PREDICTIONS, Source


def inputs(params: Params, choice: str | None) -> list[str]:
    """The exhibits, the metrics and the ledgers; that of a download only where the corpus came from it."""
    downloaded = params.corpus["clips"] == "data/clips"
    ledgers = [ledger for ledger in LEDGERS.values() if downloaded or not ledger.startswith("data/clips")]
    return ["data/explain", PREDICTIONS, LABELS, *ledgers, "metrics"]


STAGE = Stage(name="report", params=Params, reads=inputs, writes=("report",))


def main(run: StageContext[Params]) -> str:
    source = Source("this run", run.root, dict(flatten(run.params.model_dump())))
    site = write_report([source], run.out("report"))
    run.publish("report")
    return f"report/{START}: {site}"


if __name__ == "__main__":
    STAGE.run(main)
