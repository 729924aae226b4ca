"""The inputs of a report: parameters, metrics, exhibits and ledgers of a run, all in one folder."""

import csv
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from earshot.core.csv_files import read_csv
from earshot.core.errors import EarshotError
from earshot.core.json_files import parse_json, read_json
from earshot.explanation.tables import METADATA_FILE, SKIPPED, read_table
from earshot.results.clip_outcomes import CLIPS, ClipOutcome, clip_outcomes, ledger_shards
from earshot.results.provenance import Provenance
from earshot.results.runs import FinishedRun, folder_files, read_metrics, read_run
from earshot.results.score_tables import Display, Grid, displays_of, grid, written_displays
from earshot.results.verdicts import PREDICTIONS, Finding, Items, finding

OF_THE_STAGE = ("exhibit", "title", "encoder", "data_dir", SKIPPED)  # metadata written by the stage explain itself
LABELS = "data/labels/labels.json"


@dataclass(frozen=True)
class ExhibitOutput:
    """An exhibit of a run.

    Args:
        folder: of its tables.
        title: its name in the report; empty if the run lacks it.
        metadata: words and numbers, by name.
        skipped: the reason why there is nothing to display, else empty.
        metrics: the metrics that the stage explain wrote, by name.
    """

    folder: Path
    title: str = ""
    metadata: dict[str, Any] = field(default_factory=dict)
    skipped: str = ""
    metrics: dict[str, Any] = field(default_factory=dict)

    def rows(self, table: str, columns: list[str] | None = None) -> Iterator[dict[str, Any]]:
        """The rows of one of its tables, as `read_table` returns them."""
        return read_table(self.folder, table, columns)


@dataclass(frozen=True)
class Source:
    """A run to display.

    Args:
        name: its name among the runs.
        root: the folder with metrics/ and data/.
        params: by dotted name.
        absent: the reason why `root` lacks its exhibits and ledgers, else empty.
        known: how to display benchmarks, by name; by default as the stage evaluate wrote it in `root`.
        provenance: the commit that it started from.
    """

    name: str
    root: Path
    params: Mapping[str, Any]
    absent: str = ""
    known: Mapping[str, Display] | None = None
    provenance: Provenance | None = None

    @property
    def title(self) -> str:
        """The name of the run, with its date and commit if they are known."""
        return str(self.provenance or self.name)

    @cached_property
    def run(self) -> FinishedRun:
        """The run in the form of the papers' tables."""
        files = folder_files(self.root)
        files.pop("params.yaml", None)
        return replace(read_run(self.name, files), params=dict(self.params))

    @cached_property
    def labels(self) -> str:
        """A description of the labels: that of the stage label if its file exists."""
        file = self.root / LABELS
        return read_json(file, "label")["predicts"] if file.exists() else f"labels {self.params.get('label.model')}"

    @cached_property
    def displays(self) -> dict[str, Display]:
        """How to display the benchmarks, in the order of the parameters."""
        known = written_displays(self.root / PREDICTIONS) if self.known is None else self.known
        return displays_of(known, self.params)

    @cached_property
    def grids(self) -> dict[str, Grid]:
        """The grids of all benchmarks that the run has."""
        grids = {name: grid(display, self.metrics(name)) for name, display in self.displays.items()}
        return {name: each for name, each in grids.items() if each.columns}

    @cached_property
    def findings(self) -> dict[str, Finding]:
        """What each benchmark says on whether sound taught anything, by name."""
        return {
            name: finding(name, self.displays[name], each, self.items(name), self.params)
            for name, each in self.grids.items()
        }

    def items(self, name: str) -> Items:
        """The scores of a benchmark on single items and in resamples of them."""
        return Items.read(self.root, name, self.metrics(name))

    def metrics(self, name: str) -> dict[str, Any]:
        """The metrics of a stage or benchmark; empty without its file."""
        return read_metrics(self.root, name)

    def table(self, name: str) -> list[dict[str, str]]:
        """The rows of metrics/<name>.csv; none without that file.

        Raises EarshotError for a file that is not a CSV.
        """
        file = self.root / "metrics" / f"{name}.csv"
        try:
            with file.open(newline="", encoding="utf-8") as lines:
                return list(read_csv(lines))
        except FileNotFoundError:
            return []
        except (OSError, UnicodeDecodeError, csv.Error) as error:
            raise EarshotError(f"{file}: cannot be read ({error}); run the stage that writes it") from None

    def exhibit(self, name: str) -> ExhibitOutput:
        """An exhibit, or the reason why there is none.

        Raises EarshotError if its metadata cannot be read.
        """
        folder = self.root / "data" / "explain" / name
        if not any(key.startswith(f"explain.{name}.") for key in self.params):
            return ExhibitOutput(folder, skipped=f"explain.{name} is not among the parameters of this run")
        file = folder / METADATA_FILE
        try:
            metadata = parse_json(file.read_text(encoding="utf-8"))
            own = {key: value for key, value in metadata.items() if key not in OF_THE_STAGE}
            reason, metrics = str(metadata.get(SKIPPED, "")), self.metrics(f"explain_{name}")
            return ExhibitOutput(folder, str(metadata.get("title", "")), own, reason, metrics)
        except FileNotFoundError:
            reason = self.absent or f"the run lacks it; run python -m stages.explain --exhibit {name}"
            return ExhibitOutput(folder, skipped=reason)
        except (OSError, ValueError, AttributeError) as error:
            raise EarshotError(f"{file}: cannot be read ({error}); run the stage explain again") from None

    @property
    def downloaded(self) -> bool:
        """Whether the corpus is that of the stage download."""
        return self.params.get("corpus.clips") == CLIPS

    def ledger_shards(self, stage: str) -> list[Path]:
        """The ledgers of a stage, one CSV file per shard; none for the download of another corpus."""
        return ledger_shards(self.root, stage, self.downloaded)

    def clip_outcomes(self, selected: Callable[[str], bool]) -> Iterator[ClipOutcome]:
        """What became of the clips with a selected status."""
        return clip_outcomes(self.root, self.downloaded, selected)
