"""Report: write one folder of pages about a run; they open from disk without a network.

The start page has the question, the corpus, every score beside its controls, curves and parameters. Each exhibit has a
page, and so have the refused clips. Charts are SVG and PNG.

reads   data/explain, metrics, the ledgers in data/clips and data/scenes
        data/predictions    how the scores of benchmarks are displayed
        data/labels/labels.json    the definition of a label
writes  report               index.html, the other pages, media/, figures/, and plots/, which `dvc plots` draws

    python -m stages.report
    earshot compare main fifteen        # several runs side by side
"""

from earshot.core.yaml_files import flatten
from earshot.params.report import Params
from earshot.pipeline.stage import Stage, StageContext
from earshot.report.build import START, write_report
from earshot.report.sources import LABELS, LEDGERS, PREDICTIONS, Source


def inputs(params: Params, choice: str | None) -> list[str]:
    """The exhibits, the metrics and the ledgers; the download's ledger only if the corpus is data/clips."""
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
