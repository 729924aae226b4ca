"""The start page: a summary, the corpus, every score with its controls, curves, classes, and all parameters."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from typing import Any

from earshot.corpus.completeness import ALL, EVERY_CLIP
from earshot.evaluation.benchmark import is_sample
from earshot.report.columns import ExamplesPage
from earshot.report.figures import Bar, score_dots
from earshot.report.site import Chart, Numbers, Site
from earshot.report.sources import Source
from earshot.results.network_names import correspond_network, pretrain_network
from earshot.results.paper_tables import Line, RunGroup, Score, TableSection, has_scores, lines
from earshot.results.published import published_tables
from earshot.results.score_tables import Grid, is_rendered, leading_column
from earshot.results.verdicts import Finding, Items, ranked

PACKAGES = (
    *("torch", "torchvision", "torchaudio", "numpy", "scipy", "scikit-learn", "faiss-cpu", "librosa", "av"),
    *("pyarrow", "dvc", "matplotlib", "Jinja2"),
)


# By correspond.objective: what the network learned.
MATCHES = {
    "match": "to predict whether an image and audio match",
    "contrastive": "to tell the audio of an image from that of others (a contrastive loss)",
    "clusters": "to predict from an image the cluster of its audio, and the reverse",
    "cpc": "to predict the seconds of audio that follow, without images (its image tower keeps its initial weights)",
}


@dataclass(frozen=True)
class ScoreTable:
    """The grid of a benchmark for the page, with the verdicts on its columns."""

    name: str
    title: str
    metric: str
    grid: Grid
    finding: Finding
    source: str
    items: Items

    @property
    def counts(self) -> str:
        """The numbers of items of the columns in words; empty without items."""
        counts = sorted({each.n for each in self.finding.scores.values() if each.n})
        return f"n = {' or '.join(f'{count:,}' for count in counts)} {self.finding.items}" if counts else ""

    def plus_minus(self, row: str, key: str = "") -> str:
        """How sure a score is, by its row and column; without a column, that of a row with one score for all."""
        metrics = self.grid.metrics[key] if key else next(iter(self.grid.metrics.values()))
        return self.items.plus_minus(metrics[row]) if row in metrics else ""


@dataclass(frozen=True)
class Beside:
    """A paper's table with the run in it."""

    title: str
    source: str
    columns: Sequence[str]
    lines: Sequence[Line]
    rendered: bool
    note: str = ""


def run_summary(params: Mapping[str, Any], labels: str) -> str:
    """Sentences on what was trained on what; `labels` describes the labels."""
    corpus, window = corpus_in_words(params), params.get("extract.window_s")
    around = f" ({window:g} s of sound each)" if window else ""
    network = f"{pretrain_network(params)} ({_size(params, 'pretrain')})"
    pairs = f"{correspond_network(params)} ({_size(params, 'correspond')})"
    if params.get("pretrain.epochs") == 0:
        first = f"{network} was not trained."
    else:
        control = (
            "" if params.get("label.control") != "wrong-sound" else " (the wrong-sound control: sounds of other videos)"
        )
        first = f"{network} learned from single frames of {corpus} to predict {labels}{around}{control}."
    second = f"{pairs} learned {MATCHES.get(str(params.get('correspond.objective')), MATCHES['match'])}."
    return f"{first} {second[:1].upper()}{second[1:]}" if params.get("correspond.epochs") else first


def corpus_in_words(params: Mapping[str, Any]) -> str:
    """The origin of the clips in words."""
    if params.get("corpus.clips") != "data/clips":
        return f"the videos in {params.get('corpus.clips')}"
    manifest = str(params.get("corpus.manifest"))
    return "the rendered world" if is_sample(manifest) else f"the clips of {manifest}"


def _size(params: Mapping[str, Any], stage: str) -> str:
    width = params.get(f"{stage}.width")
    wide = "full width" if width == 1 else f"width {width:g}" if width else ""
    return ", ".join(filter(None, [wide, f"{params.get(f'{stage}.image_size')} px"]))


# Pages of exhibits that show what a benchmark measures, by benchmark; others have the exhibit of their name, if any.
EXHIBIT_OF = {
    "voc": "units",
    "sun": "units",
    "finetune": "units",
    "detection": "units",
    "segmentation": "units",
    "nmi": "embeddings",
    "units": "heatmaps",
    "correspondence": "retrieval",
}
OF_THE_DESCRIPTOR = "clusters"  # the exhibit that shows what is computed


def verdicts(source: Source, examples: Mapping[str, ExamplesPage]) -> list[dict[str, Any]]:
    """What each benchmark says, the worst first, with the page that shows examples of it; `examples` are by exhibit."""
    rows = []
    for each in ranked(source.findings.values()):
        exhibit = OF_THE_DESCRIPTOR if each.computed else EXHIBIT_OF.get(each.name, each.name)
        displayed = "" if source.exhibit(exhibit).skipped else exhibit
        rows.append({"finding": each, "exhibit": displayed, "examples": examples.get(exhibit)})
    return rows


def is_rendered_run(source: Source) -> bool:
    """Whether any score of a run comes from the rendered world."""
    return any(is_rendered(source.params, name) for name in (*source.grids, "pretrain"))


def score_tables(source: Source) -> list[ScoreTable]:
    """The scores of every benchmark with its controls."""
    return [
        ScoreTable(
            name, display.title, display.metric, each, source.findings[name], f"metrics/{name}.json", source.items(name)
        )
        for name, each in source.grids.items()
        for display in (source.displays[name],)
    ]


def pretext_scores(source: Source) -> list[Numbers]:
    """The accuracies of the two trainings on held-out clips."""
    validation = {"val_accuracy": "sound", "wrong_sound_val_accuracy": "wrong sound", "majority": "majority"}
    test = {"test_accuracy": "sound", "wrong_sound_test_accuracy": "wrong sound", "test_majority": "majority"}
    listed = [
        ("pretrain", "Label predicted from a frame, accuracy, not tested (test clips)", test),
        ("pretrain", "Label predicted from a frame, accuracy, not tested (validation clips)", validation),
        ("correspond", "Image and audio matched, accuracy, not tested (validation clips)", validation),
    ]
    tables = []
    for stage, title, own in listed:
        values = source.metrics(stage)
        scores = [(name, f"{values[key]:.3f}") for key, name in own.items() if values.get(key) is not None]
        if "test_accuracy" in own and values.get("moments_tested"):
            title += f", n = {values['moments_tested']:,} frames"
        if scores:
            scores.append(("chance", f"{values['chance']:.3f}"))
            tables.append(Numbers(title, ("", "accuracy"), scores, f"metrics/{stage}.json"))
    return tables


def score_rows(source: Source) -> tuple[dict[str, dict[str, float]], dict[str, dict[str, Bar]]]:
    """The leading score of each benchmark with its controls, and the parts of its 95 % interval below and above it.

    Both are by benchmark, the worst first, as the verdicts.
    """
    rows: dict[str, dict[str, float]] = {}
    bars: dict[str, dict[str, Bar]] = {}
    for finding in ranked(source.findings.values()):
        grid, leading = source.grids[finding.name], finding.leading
        title, key = score_title(source, finding.name), leading_column(source.displays[finding.name], grid)
        rows[title] = {row: score for row, score in grid.beside(key).items() if 0 <= score <= 1}
        low, high = leading.interval or (leading.score, leading.score)
        bars[title] = {grid.own: (leading.score - low, high - leading.score)}
    return rows, bars


def score_title(source: Source, name: str) -> str:
    """The title of a benchmark's leading score."""
    display, grid = source.displays[name], source.grids[name]
    key = leading_column(display, grid)
    if source.findings[name].computed:
        return f"{display.brief or display.title} (computed)"
    return display.brief or display.title + (f", {grid.columns[key]}" if key and len(grid.columns) > 1 else "")


def scores_chart(site: Site, source: Source, name: str) -> Chart | None:
    """One row per benchmark: its leading column with its controls."""
    rows, bars = score_rows(source)
    if not rows:
        return None
    summary = "; ".join(f"{title} {next(iter(scores.values())):.3f}" for title, scores in rows.items() if scores)
    return site.chart(
        name,
        lambda: score_dots(rows, bars),
        "Scores and their controls; bars: 95 % intervals over the test items",
        f"One row of marks per benchmark: {summary}",
    )


def beside_papers(source: Source) -> list[Beside]:
    """The papers' tables that have the run as a row: published scores, the run, and its controls, in percent.

    The scores of a run on the rendered world are left out, since they do not compare with the published ones.
    """
    tables = []
    for table in published_tables():
        row = table.row_of(source.run.params) if table.admits(source.run.params) else None
        if row is None or table.classes:  # other classes have no published scores
            continue
        if not has_scores(table, source.run):
            continue
        section = TableSection(table, 1, {}, [RunGroup(row, row.name, {}, {}, [source.run])])
        displayed_lines = [line for line in lines(section) if line.kind != "published" or line.method == row.name]
        if any(line.kind == "published" and any(line.scores.values()) for line in displayed_lines):
            row_source = f"{table.source}, row {row.name}"
            if section.rendered:
                displayed_lines = [line for line in displayed_lines if line.kind == "published"]
            columns, note = [*section.columns], table.note
            tables.append(Beside(table.title, row_source, columns, displayed_lines, section.rendered, note))
    return tables


def cell(value: Score | float | None) -> str:
    """A score of a paper's table, in percent."""
    if value is None:
        return "–"
    return f"{value.mean:.1f}" if isinstance(value, Score) else f"{value:g}"


def corpus_metadata(source: Source) -> list[tuple[str, str, str]]:
    """Numbers of the corpus: name, value, and file."""
    download, extract, describe = (source.metrics(name) for name in ("download", "extract", "describe"))
    if source.params.get("corpus.clips") != "data/clips":
        download = {}  # it belongs to another corpus
    entries = []
    if download:
        pending = f", {download['clips_pending']:,} pending" if download.get("clips_pending") else ""
        entries.append(("requested", f"{download['clips_requested']:,} clips", "download.json"))
        entries.append(("downloaded", f"{download['clips_kept']:,} clips{pending}", "download.json"))
    if extract:
        kept = f"{extract['clips_kept']:,} of {extract['clips_in']:,} clips, {extract['moments']:,} moments"
        entries.append(("kept", kept, "extract.json"))
    for file, values in (("download.json", download), ("extract.json", extract)):
        for key, value in values.items():
            kind, _, reason = key.partition("_")
            entries += [(f"{kind}: {reason}", f"{value:,} clips", file)] if kind in ("refused", "flagged") else []
    if describe:
        entries.append(("silent", f"{describe['silent']:,} of {describe['moments']:,} moments", "describe.json"))
    splits = [row for row in source.table("completeness") if row["class"] == EVERY_CLIP and row["split"] != ALL]
    if splits:
        words = ", ".join(f"{row['split']} {int(row['kept']):,}" for row in splits)
        entries.append(("splits", words, "completeness.csv"))
    if extract.get("clips_hash"):
        entries.append(("list of clips", extract["clips_hash"], "extract.json"))
    return [(name, value, f"metrics/{file}") for name, value, file in entries]


def lists(source: Source) -> Numbers:
    """The hashes of the training clips and of the test items, by benchmark or stage."""
    hashes = source.run.lists
    names = sorted({key.partition(".")[0] for key in hashes})
    rows = [(name, hashes.get(f"{name}.clips_hash", ""), hashes.get(f"{name}.items_hash", "")) for name in names]
    return Numbers("Scores compare only if their hashes are equal", ("metrics/", "clips", "items"), rows)


def versions() -> Numbers:
    """The installed versions of the main packages."""
    rows = [(name, metadata.version(name)) for name in PACKAGES]
    return Numbers("Versions", ("package", "version"), rows, "requirements.txt")


def parameters(params: Mapping[str, Any]) -> list[Numbers]:
    """All parameters by their group."""
    groups: dict[str, list[tuple[str, str]]] = {}
    for key, value in params.items():
        group = key.partition(".")[0] if "." in key else "at the top level"
        groups.setdefault(group, []).append((key, in_yaml(value)))
    return [Numbers(group, ("parameter", "value"), rows) for group, rows in groups.items()]


def in_yaml(value: Any) -> str:
    """A value in the syntax of --set."""
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(in_yaml, value))}]"
    return str(value).lower() if isinstance(value, bool) else str(value)


def plot_tables(source: Source) -> dict[str, list[dict[str, Any]]]:
    """Tables for `dvc plots`: all scores of the run in one row with its number of clusters, so that runs form a curve;
    and the completeness of each class, one row each.
    """
    scores = {
        f"{name}_{prefix}{key}": grid.rows[row][key]
        for name, grid in source.grids.items()
        for row, prefix in {grid.own: "", **source.displays[name].controls}.items()
        for key in grid.rows.get(row, ())
    }
    rows = [row for row in source.table("completeness") if row["split"] == ALL and row["class"] != EVERY_CLIP]
    complete = [{"class": row["class"], "share_kept": row["share_kept"]} for row in rows]
    return {"scores": [{"clusters": source.params.get("clusters"), **scores}], "completeness": complete}
