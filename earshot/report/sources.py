"""What a report reads of a run: parameters, metrics, exhibits and ledgers, all below one folder."""

import csv
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from earshot.core.errors import EarshotError
from earshot.core.json_files import read_json
from earshot.explanation.tables import METADATA_FILE, NOTHING, read_table
from earshot.results.runs import StageContext, folder_files, read_metrics, read_run
from earshot.results.score_tables import Display, Grid, grid, in_order, written_displays

OF_THE_STAGE = ("exhibit", "title", "encoder", "data_dir", NOTHING)  # facts that the stage explain writes itself
LEDGERS = {"download": "data/clips/ledger", "extract": "data/scenes/ledger"}  # by stage
LABELS, PREDICTIONS = "data/labels/labels.json", "data/predictions"


@dataclass(frozen=True)
class Exhibit:
    """An exhibit of a run.

    Args:
        folder: of its tables.
        title: what it is called, where it was made.
        facts: words and numbers that stand beside the pictures, by name.
        nothing: in words, why there is nothing to show; empty where there is.
        metrics: the numbers that the stage explain wrote with it, by name.
    """

    folder: Path
    title: str = ""
    metadata: dict[str, Any] = field(default_factory=dict)
    nothing: str = ""
    metrics: dict[str, Any] = field(default_factory=dict)

    def rows(self, table: str, columns: list[str] | None = None) -> Iterator[dict[str, Any]]:
        """The rows of one of its tables, as `read_table` gives them."""
        return read_table(self.folder, table, columns)


@dataclass(frozen=True)
class Source:
    """A run to be shown.

    Args:
        name: what it is called beside others.
        root: the folder with metrics/ and data/.
        params: by dotted name.
        absent: in words, why none of its exhibits and ledgers are below `root`; empty where they should be.
        known: how benchmarks are displayed, by name; else as the stage evaluate wrote it below `root`.
    """

    name: str
    root: Path
    params: Mapping[str, Any]
    absent: str = ""
    known: Mapping[str, Display] | None = None

    @cached_property
    def run(self) -> StageContext:
        """The run as the tables of papers know it."""
        files = folder_files(self.root)
        files.pop("params.yaml", None)
        return replace(read_run(self.name, files), params=dict(self.params))

    @cached_property
    def labels(self) -> str:
        """What a label is, in words: those of the stage label, where its file is there."""
        file = self.root / LABELS
        return read_json(file, "label")["predicts"] if file.exists() else f"labels {self.params.get('label.model')}"

    @cached_property
    def displays(self) -> dict[str, Display]:
        """How the benchmarks are displayed, in the order of the parameters."""
        known = written_displays(self.root / PREDICTIONS) if self.known is None else self.known
        return in_order(known, self.params)

    @cached_property
    def grids(self) -> dict[str, Grid]:
        """The grids of all benchmarks that were run."""
        found = {name: grid(display, self.metrics(name)) for name, display in self.displays.items()}
        return {name: each for name, each in found.items() if each.columns}

    def metrics(self, name: str) -> dict[str, Any]:
        """The metrics of a stage or benchmark; empty where there are none."""
        return read_metrics(self.root, name)

    def table(self, name: str) -> list[dict[str, str]]:
        """The rows of metrics/<name>.csv; none where there is no such file.

        Raises EarshotError for a file that is no CSV.
        """
        file = self.root / "metrics" / f"{name}.csv"
        try:
            with file.open(newline="", encoding="utf-8") as lines:
                return list(csv.DictReader(lines))
        except FileNotFoundError:
            return []
        except (OSError, UnicodeDecodeError, csv.Error) as error:
            raise EarshotError(f"{file}: cannot be read ({error}); run the stage that writes it") from None

    def exhibit(self, name: str) -> Exhibit:
        """An exhibit, or why there is none.

        Raises EarshotError where its facts cannot be read.
        """
        folder = self.root / "data" / "explain" / name
        if not any(key.startswith(f"explain.{name}.") for key in self.params):
            return Exhibit(folder, nothing=f"explain.{name} is not among the parameters of this run")
        file = folder / METADATA_FILE
        try:
            metadata = json.loads(file.read_text(encoding="utf-8"))
            told = {key: value for key, value in metadata.items() if key not in OF_THE_STAGE}
            why, metrics = str(metadata.get(NOTHING, "")), self.metrics(f"explain_{name}")
            return Exhibit(folder, str(metadata.get("title", "")), told, why, metrics)
        except FileNotFoundError:
            how = self.absent or f"it was not made; python -m stages.explain --exhibit {name} makes it"
            return Exhibit(folder, nothing=how)
        except (OSError, ValueError, AttributeError) as error:
            raise EarshotError(f"{file}: cannot be read ({error}); run the stage explain again") from None

    def ledger_shards(self, stage: str) -> list[Path]:
        """The ledgers of a stage, a CSV file a shard; none of a download that the corpus did not come from."""
        if stage == "download" and self.params.get("corpus.clips") != "data/clips":
            return []
        return sorted((self.root / LEDGERS[stage]).glob("*.csv"))
