"""Report: write one folder of pages about a run; they open from disk without a network.

The start page has the question, the corpus, every score beside its controls, curves and parameters. Each exhibit has a
page, and so have the clips that were refused or flagged. Charts are SVG and PNG. The report is made of whatever stages
have run: after extract alone, it shows the corpus.

reads   data/explain, metrics, the ledgers in data/clips, data/scenes and data/annotations
        data/predictions    how the scores of benchmarks are displayed
        data/labels/labels.json    the definition of a label
writes  report               index.html, the other pages, media/, figures/, and plots/, which `dvc plots` draws

    python -m stages.report
    earshot compare main fifteen        # several runs side by side
"""

from earshot.core.yaml_files import flatten
from earshot.params.report import ReportParams
from earshot.pipeline.stage import Stage, StageContext
from earshot.report.build import START, write_report
from earshot.report.sources import LABELS, Source
from earshot.results.clip_outcomes import ANNOTATIONS, CLIPS, LEDGERS, SCENES
from earshot.results.provenance import provenance
from earshot.results.verdicts import PREDICTIONS


def inputs(params: ReportParams, choice: str | None) -> list[str]:
    """The exhibits, the metrics, the scenes and the ledgers; the download's ledger only if the corpus is data/clips."""
    downloaded = [LEDGERS["download"]] if params.corpus["clips"] == CLIPS else []
    return ["data/explain", PREDICTIONS, LABELS, *downloaded, SCENES, ANNOTATIONS, "metrics"]


STAGE = Stage(name="report", params=ReportParams, reads=inputs, writes=("report",), reads_all=False)


def main(run: StageContext[ReportParams]) -> str:
    origin = provenance(run.root)
    source = Source(origin.name, run.root, dict(flatten(run.params.model_dump())), provenance=origin)
    site = write_report([source], run.out("report"))
    run.publish("report")
    return f"report/{START}: {site}"


if __name__ == "__main__":
    STAGE.run(main)
