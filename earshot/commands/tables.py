"""Write the papers' tables beside our runs from folders, DVC experiments and branches, as CSV, Markdown and plots.

Runs that differ in nothing but seeds are one row: their number, mean and standard deviation. Rows of one table share a
setting, which is every parameter that is neither seed nor idea; for another setting the table is made again. Every
score stands above that of random weights and of the wrong sound in the same runs. What matches no published row stands
below them, named by its parameters; runs.csv lists every run, and what was left out and why.
"""

import io
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import click

from earshot.commands import options
from earshot.commands.output import echo
from earshot.core.csv_files import write_csv
from earshot.core.errors import EarshotError
from earshot.core.files import write_atomically
from earshot.results.charts import draw
from earshot.results.paper_tables import AS_PUBLISHED, DO_NOT_COMPARE, RunGroup, Score, TableSection, has_scores, lines
from earshot.results.published import PublishedRow, PublishedTable, published_tables
from earshot.results.recipes import recipe_params
from earshot.results.run_settings import agree, format_params, idea, setting, steps
from earshot.results.runs import Collection, FinishedRun, collect
from earshot.results.trainings import TRAININGS, Params, group_of


def sections(table: PublishedTable, runs: Sequence[FinishedRun]) -> list[TableSection]:
    """The table once for each setting of the runs that have any of its scores, the one of most runs first."""
    groups = grouped(table, [run for run in runs if table.admits(run.params) and has_scores(table, run)])
    settings: list[dict[str, Any]] = []
    for group in sorted(
        groups, key=lambda group: -len(group.setting)
    ):  # the group with most parameters is most specific
        if not any(agree(group.setting, other) for other in settings):
            settings.append(dict(group.setting))
    members = [[group for group in groups if agree(group.setting, each)] for each in settings]
    order = sorted(range(len(settings)), key=lambda i: -sum(len(group.runs) for group in members[i]))
    return [TableSection(table, number, settings[i], members[i]) for number, i in enumerate(order, 1)]


def grouped(table: PublishedTable, runs: Iterable[FinishedRun]) -> list[RunGroup]:
    """Runs by row, idea and setting: published rows in their order, then what matches none."""
    groups: dict[str, RunGroup] = {}
    for run in runs:
        row = table.row_of(run.params)
        published = recipe_params((row and row.recipe) or table.recipe)
        own_idea = idea(table.training, run.params, table.sweep)
        own_setting = setting(table.training, run.params, table.benchmarks, table.sweep)
        for key, value in (published | steps(table.training, published)).items():
            if key in own_setting and own_setting[key] == value:
                own_setting[key] = AS_PUBLISHED
        name = _name(table, row, run.params, own_idea, published)
        key = json.dumps([name, own_idea, own_setting], sort_keys=True)
        groups.setdefault(key, RunGroup(row, name, own_idea, own_setting)).runs.append(run)
    rows = [*table.rows, None]
    return sorted(groups.values(), key=lambda group: (rows.index(group.row), group.idea.get("clusters", 0), group.name))


def _name(table: PublishedTable, row: PublishedRow | None, params: Params, own: Params, published: Params) -> str:
    """The published row's name, if any, and the parameters of the idea that differ from the published ones."""
    if row is None and table.training.is_random(params):
        return "random weights"
    if row and row.weights:
        return row.name
    differs = {key: value for key, value in own.items() if published.get(key) != value}
    return ", ".join(filter(None, [row.name if row else "", format_params(differs)])) or "the same"


def as_markdown(table_sections: Sequence[TableSection], plots: Mapping[int, str]) -> str:
    """All sections of one table as Markdown; `plots` holds the image file of a section's number."""
    table = table_sections[0].table
    text = [f"# {table.title}", "", f"{table.source}. {table.note}".strip(), ""]
    for section in table_sections:
        text += [f"## Setting {section.number} of {len(table_sections)}", "", _setting_in_words(section), ""]
        text += [f"**{DO_NOT_COMPARE}**", ""] if section.rendered else []
        text += [line for message in section.other_lists for line in (f"**{message}**", "")]
        text += [*_markdown_table(section), ""]
        text += [f"![{table.title}]({plots[section.number]})", ""] if section.number in plots else []
    text.append("ours: mean ± standard deviation over seeds, of the runs that runs.csv lists.")
    return "\n".join(text) + "\n"


def _setting_in_words(section: TableSection) -> str:
    if not section.differences:
        return f"The paper's own (recipes/{section.table.recipe}.yaml)."
    return f"Not as in recipes/{section.table.recipe}.yaml: {format_params(section.differences)}."


def _markdown_table(section: TableSection) -> Iterable[str]:
    columns = section.columns
    yield f"| method | | seeds | {' | '.join(columns)} |"
    yield f"|---|---|---|{'---|' * len(columns)}"
    before = None
    for line in lines(section):
        seeds = {score.seeds for score in line.scores.values() if isinstance(score, Score)}
        counts = f"{min(seeds)}" if len(seeds) == 1 else f"{min(seeds)}-{max(seeds)}" if seeds else ""
        scores = " | ".join(_cell(line.scores[title]) for title in columns)
        kind = f"{line.kind}, rendered" if section.rendered and line.kind != "published" else line.kind
        yield f"| {line.method if line.method != before else ''} | {kind} | {counts} | {scores} |"
        before = line.method


def _cell(score: Score | float | None) -> str:
    if score is None:
        return "-"
    if isinstance(score, Score):
        return f"{score.mean:.1f}" + (f" ± {score.std:.1f}" if score.std is not None else "")
    return str(score)


def as_csv(table_sections: Sequence[TableSection]) -> str:
    """One row for each score: table, setting, method, kind, column, mean, std, seeds, and whether it is rendered."""
    rows = []
    for section in table_sections:
        where = {"table": section.table.name, "setting": section.number}
        for line in lines(section):
            for column, score in line.scores.items():
                if score is None:
                    continue
                value = score if isinstance(score, Score) else Score(score, None, 0)
                std = "" if value.std is None else f"{value.std:.6g}"
                numbers = {"mean": f"{value.mean:.6g}", "std": std, "seeds": value.seeds or ""}
                numbers["data"] = "rendered" if section.rendered and line.kind != "published" else "real"
                rows.append({**where, "method": line.method, "kind": line.kind, "column": column, **numbers})
    return _csv(rows)


def runs_csv(collection: Collection, tables: Mapping[str, Sequence[TableSection]]) -> str:
    """One row for each run: its source, seeds and idea, and its rows or why it was left out."""
    rows = []
    for run in collection.runs:
        rows_of_run = [
            f"{name}: {group.name}"
            for name, table in tables.items()
            for group in {id(group): group for section in table for group in section.groups}.values()
            if run in group.runs
        ]
        seeds = dict(zip(("seed", "world"), run.seeds, strict=True))
        rows.append({"run": run.source, **seeds, "idea": format_params(ideas(run)), "rows": "; ".join(rows_of_run)})
    for reason in collection.left_out:
        source, _, text = reason.partition(": ")
        rows.append({"run": source, "seed": "", "world": "", "idea": "", "rows": f"left out: {text}"})
    return _csv(rows)


def ideas(run: FinishedRun) -> dict[str, Any]:
    """The ideas of the trainings whose networks the run measured."""
    measured = {key.partition(".")[0] for key in run.scores}
    encoders = {run.params.get(f"{group_of(name)}.encoder", f"models/{name}") for name in measured}
    trainings = [training for name, training in TRAININGS.items() if f"models/{name}" in encoders]
    return {key: value for training in trainings for key, value in idea(training, run.params).items()}


def _csv(rows: Sequence[Mapping[str, Any]]) -> str:
    text = io.StringIO()
    write_csv(text, list(rows[0]), (row.values() for row in rows))
    return text.getvalue()


def write_tables(collection: Collection, output: Path) -> list[str]:
    """Write every table that has any run, and runs.csv; return a message for each."""
    tables = {table.name: sections(table, collection.runs) for table in published_tables()}
    tables = {name: table for name, table in tables.items() if table}
    messages = []
    for name, table_sections in tables.items():
        images = {section.number: output / f"{name}-{section.number}.png" for section in table_sections}
        drawn = [section.number for section in table_sections if draw(section, images[section.number])]
        plots = {number: images[number].name for number in drawn}
        _write(output / f"{name}.md", as_markdown(table_sections, plots))
        _write(output / f"{name}.csv", as_csv(table_sections))
        filled = {group.row.name for section in table_sections for group in section.groups if group.row}
        table = table_sections[0].table
        messages.append(f"{output / name}.md: {table.source}, {len(filled)} of {len(table.rows)} rows filled")
        messages += dict.fromkeys(
            f"{output / name}.md: {message}" for section in table_sections for message in section.other_lists
        )
    _write(output / "runs.csv", runs_csv(collection, tables))
    return messages


def _write(file: Path, text: str) -> None:
    with write_atomically(file) as temporary:
        temporary.write_text(text, encoding="utf-8")


@click.command()
@click.argument("runs", nargs=-1, metavar="[RUN]...")
@click.option("--all-experiments", is_flag=True, help="Every DVC experiment of the repository.")
@options.experiments
@options.folders
@options.root
@options.output("tables", "The folder of tables")
def command(
    runs: tuple[str, ...],
    all_experiments: bool,
    experiments: tuple[str, ...],
    folders: tuple[Path, ...],
    root: Path,
    output: Path,
) -> None:
    """Write the tables of the papers with our runs in them, as CSV, Markdown and plots.

    The workspace is always one of the runs. A RUN is a branch, a tag or a commit. A folder may hold folders of runs.
    Runs that differ only in seeds share a row, with mean and standard deviation; runs with different settings get
    separate tables. runs.csv lists every run, and what was left out and why.

    \b
    Examples:
      earshot tables
      earshot tables main fifteen --all-experiments
      earshot tables --folder .earshot/rows --output tables
    """
    collection = collect(root, folders, all_experiments or experiments, runs)
    if not collection.runs:
        raise EarshotError(f"no run to show; left out: {'; '.join(collection.left_out)}")
    for line in (*write_tables(collection, output), *(f"left out: {reason}" for reason in collection.left_out)):
        echo(line)
    echo(f"{output / 'runs.csv'}: {len(collection.runs)} runs")
