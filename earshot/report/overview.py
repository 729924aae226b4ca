"""The start page: the question, the corpus, every score beside its controls, curves, classes, and all parameters."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from typing import Any

from earshot.corpus.completeness import ALL, EVERY_CLIP
from earshot.report.figures import score_dots
from earshot.report.site import Chart, Numbers, Site
from earshot.report.sources import Source
from earshot.results.charts import BACKBONES
from earshot.results.paper_tables import RENDERED, Group, Line, Score, Section, has_scores, lines
from earshot.results.published import published_tables
from earshot.results.score_tables import OWN, Grid, leading_column

PACKAGES = (
    *("torch", "torchvision", "torchaudio", "numpy", "scipy", "scikit-learn", "faiss-cpu", "librosa", "av"),
    *("pyarrow", "dvc", "matplotlib", "Jinja2"),
)
CORRESPONDENCE = {"ave": "AVE-Net", "l3": "L3-Net", "avol": "AVOL-Net", "multisensory": "the multisensory network"}


@dataclass(frozen=True)
class ScoreTable:
    """A benchmark's grid, as the page shows it."""

    title: str
    metric: str
    grid: Grid
    source: str


@dataclass(frozen=True)
class Beside:
    """A paper's table with the run in it: its heading, how the setting differs, and its lines."""

    title: str
    source: str
    columns: Sequence[str]
    lines: Sequence[Line]
    rendered: bool


def question(params: Mapping[str, Any], labels: str) -> str:
    """What was trained on what, in sentences; `labels`: what a label is."""
    corpus = corpus_in_words(params)
    backbone = str(params.get("pretrain.backbone"))
    network = f"{BACKBONES.get(backbone, backbone)} ({_size(params, 'pretrain')})"
    pairs = f"{CORRESPONDENCE.get(str(params.get('correspond.network')), 'a network')} ({_size(params, 'correspond')})"
    if params.get("pretrain.epochs") == 0:
        first = f"{network} was not trained."
    else:
        told = "" if params.get("label.control") != "wrong-sound" else ", dealt from other videos, the control"
        first = f"{network} learned from single frames of {corpus} to tell {labels}{told}."
    second = f"{pairs} learned whether a picture and a sound belong together."
    return f"{first} {second[:1].upper()}{second[1:]}" if params.get("correspond.epochs") else first


def corpus_in_words(params: Mapping[str, Any]) -> str:
    """Where clips come from."""
    if params.get("corpus.clips") != "data/clips":
        return f"the videos in {params.get('corpus.clips')}"
    manifest = str(params.get("corpus.manifest"))
    return "the rendered world" if manifest.startswith(RENDERED) else f"the clips of {manifest}"


def _size(params: Mapping[str, Any], stage: str) -> str:
    width = params.get(f"{stage}.width")
    wide = "full width" if width == 1 else f"width {width:g}" if width else ""
    return ", ".join(filter(None, [wide, f"{params.get(f'{stage}.image_size')} px"]))


@dataclass(frozen=True)
class Finding:
    """One benchmark in a glance: what was learned, and its controls."""

    title: str
    score: float
    controls: list[tuple[str, float]]


def findings(source: Source) -> list[Finding]:
    """What was learned, of the benchmarks that tell most of it: seeing, and hearing what is seen."""
    told = []
    for name, found in source.grids.items():
        display = source.displays[name]
        key = leading_column(display, found)
        if display.at_a_glance and key in found.rows.get(OWN, {}):
            scores = found.beside(key)
            layer = f"{found.columns[key]}, " if len(found.columns) > 1 else ""
            title = f"{display.title}, {layer}{display.metric or found.columns[key]}"
            told.append(Finding(title, scores.pop(OWN), [*scores.items()]))
    return told


def score_tables(source: Source) -> list[ScoreTable]:
    """Every benchmark's scores beside its controls."""
    return [
        ScoreTable(source.displays[name].title, source.displays[name].metric, each, f"metrics/{name}.json")
        for name, each in source.grids.items()
    ]


def pretext_scores(source: Source) -> list[Numbers]:
    """How well the two trainings told what they were trained to tell, on held-out clips."""
    titles = {
        "pretrain": "The label of a sound, told from a held-out frame",
        "correspond": "Whether a held-out picture and sound belong together",
    }
    rows = {
        "val_accuracy": "sound",
        "wrong_sound_val_accuracy": "wrong sound",
        "majority": "majority",
        "chance": "chance",
    }
    made = []
    for stage, title in titles.items():
        values = source.metrics(stage)
        told = [(name, f"{values[key]:.3f}") for key, name in rows.items() if values.get(key) is not None]
        made += [Numbers(title, ("", "accuracy"), told, f"metrics/{stage}.json")] if told else []
    return made


def scores_chart(site: Site, source: Source, name: str) -> Chart | None:
    """One line a benchmark: the column that stands for it, beside its controls."""
    rows = {}
    for benchmark, found in source.grids.items():
        display = source.displays[benchmark]
        key = leading_column(display, found)
        scores = {row: score for row, score in found.beside(key).items() if 0 <= score <= 1}
        rows[display.brief or display.title + (f", {found.columns[key]}" if key and len(found.columns) > 1 else "")] = (
            scores
        )
    if not rows:
        return None
    told = "; ".join(f"{title} {next(iter(scores.values())):.3f}" for title, scores in rows.items() if scores)
    return site.chart(name, lambda: score_dots(rows), "Scores beside their controls", f"A line of marks each: {told}")


def beside_papers(source: Source) -> list[Beside]:
    """The papers' tables of which the run is a row: what is published, the run, and its controls, in per cent."""
    made = []
    for table in published_tables():
        row = table.row_of(source.run.params) if table.admits(source.run.params) else None
        if row is None or table.classes:  # classes of another tree have no published score
            continue
        if not has_scores(table, source.run):
            continue
        section = Section(table, 1, {}, [Group(row, row.name, {}, {}, [source.run])])
        told = [line for line in lines(section) if line.kind != "published" or line.method == row.name]
        if any(line.kind == "published" and any(line.scores.values()) for line in told):
            where = f"{table.source}, row {row.name}"
            made.append(Beside(table.title, where, [*section.columns], told, section.rendered))
    return made


def cell(value: Score | float | None) -> str:
    """A score of a paper's table, in per cent."""
    if value is None:
        return "–"
    return f"{value.mean:.1f}" if isinstance(value, Score) else f"{value:g}"


def corpus_metadata(source: Source) -> list[tuple[str, str, str]]:
    """What there is of the corpus: name, value, and the file where it stands."""
    download, extract, describe = (source.metrics(name) for name in ("download", "extract", "describe"))
    if source.params.get("corpus.clips") != "data/clips":
        download = {}  # of another corpus
    told = []
    if download:
        pending = f", {download['clips_pending']:,} pending" if download.get("clips_pending") else ""
        told.append(("asked for", f"{download['clips_requested']:,} clips", "download.json"))
        told.append(("downloaded", f"{download['clips_kept']:,} clips{pending}", "download.json"))
    if extract:
        kept = f"{extract['clips_kept']:,} of {extract['clips_in']:,} clips, {extract['moments']:,} moments"
        told.append(("kept", kept, "extract.json"))
    for file, values in (("download.json", download), ("extract.json", extract)):
        for key, value in values.items():
            kind, _, reason = key.partition("_")
            told += [(f"{kind}: {reason}", f"{value:,} clips", file)] if kind in ("refused", "flagged") else []
    if describe:
        told.append(("silent", f"{describe['silent']:,} of {describe['moments']:,} moments", "describe.json"))
    splits = [row for row in source.table("completeness") if row["class"] == EVERY_CLIP and row["split"] != ALL]
    if splits:
        words = ", ".join(f"{row['split']} {int(row['kept']):,}" for row in splits)
        told.append(("splits", words, "completeness.csv"))
    if extract.get("clips_hash"):
        told.append(("list of clips", extract["clips_hash"], "extract.json"))
    return [(name, value, f"metrics/{file}") for name, value, file in told]


def lists(source: Source) -> Numbers:
    """The hashes of the list of clips and of the items asked, by benchmark or stage."""
    found = source.run.lists
    names = sorted({key.partition(".")[0] for key in found})
    rows = [(name, found.get(f"{name}.clips_hash", ""), found.get(f"{name}.items_hash", "")) for name in names]
    return Numbers("Numbers of other hashes come from other clips or items", ("metrics/", "clips", "items"), rows)


def versions() -> Numbers:
    """The main packages and their versions, as they are installed where the report is made."""
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
    """A value as --set takes it."""
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(in_yaml, value))}]"
    return str(value).lower() if isinstance(value, bool) else str(value)


def plot_tables(source: Source) -> dict[str, list[dict[str, Any]]]:
    """Tables that `dvc plots` draws and metrics/ has in no such form: all scores of the run in one row, beside its
    clusters, so that runs make a curve; and how complete each class is, in a row each.
    """
    scores = {
        f"{name}_{prefix}{key}": found.rows[row][key]
        for name, found in source.grids.items()
        for row, prefix in {found.own: "", **source.displays[name].controls}.items()
        for key in found.rows.get(row, ())
    }
    rows = [row for row in source.table("completeness") if row["split"] == ALL and row["class"] != EVERY_CLIP]
    complete = [{"class": row["class"], "share_kept": row["share_kept"]} for row in rows]
    return {"scores": [{"clusters": source.params.get("clusters"), **scores}], "completeness": complete}
