"""docs/coverage.md: each recipe, table, benchmark and exhibit that it names exists; none of the papers' is missing."""

import re

import pytest
from conftest import REPOSITORY

from earshot.core.registry import find, names
from earshot.results.published import published_tables

PAGE = (REPOSITORY / "docs" / "coverage.md").read_text()
ROWS = [[cell.strip() for cell in line.strip("|").split("|")] for line in PAGE.splitlines() if line.startswith("| ")]
ROWS = [row for row in ROWS if row[0] != "exhibit of the paper"]
RECIPES = {file.stem for file in (REPOSITORY / "recipes").glob("*.yaml")}
TABLES = {table.name for table in published_tables()}
BENCHMARKS, EXHIBITS = names("earshot.benchmarks"), names("earshot.exhibits")
STATES = ("rendered", "ready", "part", "no", "quoted", "-", "as above", "real photographs")


def spans(words: str, kind: str) -> set[str]:
    """The names between backticks after `kind` or its plural, separated by commas, `and` or `or`."""
    listed = re.findall(rf"\b{kind}s? (`[^`]+`(?:(?:, | and | or )`[^`]+`)*)", words)
    return {name for each in listed for name in re.findall(r"`([^`]+)`", each)}


def exhibit_tables() -> set[str]:
    return {name for each in EXHIBITS for name in find("earshot.exhibits", each, "EXHIBIT", what="exhibit").tables}


def test_every_row_has_a_place_and_a_state():
    assert len(ROWS) > 75
    for row in ROWS:
        assert len(row) == 3 and all(row), row
        assert row[2].startswith(STATES), row


@pytest.mark.parametrize(
    ("kind", "known"),
    [
        ("recipe", RECIPES),
        ("benchmark", {*BENCHMARKS}),
        ("exhibit", {*EXHIBITS}),
        ("table", TABLES | exhibit_tables()),
    ],
)
def test_every_name_of_the_page_exists(kind, known):
    assert spans(PAGE, kind)
    assert spans(PAGE, kind) <= known


def test_every_table_and_every_recipe_of_a_paper_is_on_the_page():
    assert spans(PAGE, "table") >= TABLES
    papers = {name for name in RECIPES if not name.startswith(("sample-", "real", "labels-"))}
    papers -= {"benchmark-detection", "benchmark-frozen"}  # of no paper
    assert {name for name in papers if f"`{name}`" not in PAGE} == set()


def test_every_table_and_figure_of_the_papers_has_a_row():
    owens, mahadev, l3, kim = re.split(r"^## ", PAGE, flags=re.M)[1:5]
    for text, items in (
        (owens, [*(f"Figure {n}" for n in ("1", "2", "3", "4", "A1a", "A1b", "A4", "A5")), "Figures A2 and A3"]),
        (owens, [*(f"Table 1 row {n}" for n in range(1, 5)), "Table 2a", "Table 2b", "Table 2c"]),
        (mahadev, [*(f"Figure {n}" for n in range(1, 5)), "Table 1", "Table 2", "Slides"]),
        (l3, ["Table 1", "Table 2a", "Table 2b", "Table 3", "Table 4", "Figures 1 and 2", "Figures 3, 5 and 6"]),
        (l3, ["Figure 4", "Figures 7 and 8", "Figure 9", "Figure 10", "section 3.5.3"]),
        (kim, ["Kim Table 1", "Kim Table 2", "Kim Figures 1 to 4", "Kim Figure 5", "Kim Figure 6"]),
    ):
        for item in items:
            assert re.search(rf"^\| {re.escape(item)}\b", text, re.M), item


WISHES = {
    "Owens": ["section 5, other representations of sound", "section 5, when sound does and does not tell of objects"],
    "Mahadev": [
        *(f"section 6, {wish}" for wish in ("Wide-ResNet", "bounding box", "instance segmentation", "learned audio")),
        *("Slides, improvements: bigger models", "Slides, improvements: WaveNet or CPC"),
        *("Slides, improvements: contrastive learning", "Slides, improvements: augmented images"),
    ],
    "Look, Listen and Learn": ["section 4, concurrency", "section 4, AudioSet, curated by audio"],
    "Kim": ["Kim section 5, other architectures"],
}


@pytest.mark.parametrize("paper", WISHES)
def test_every_wish_of_the_papers_for_the_future_has_a_row(paper):
    (part,) = [part for part in re.split(r"^## ", PAGE, flags=re.M) if re.match(rf".*\b{paper}\b", part)]
    for wish in WISHES[paper]:
        assert re.search(rf"^\| {re.escape(wish)}\b", part, re.M), wish


def test_the_slides_table_of_imagenet_has_its_fourteen_rows():
    (table,) = [table for table in published_tables() if table.name == "mahadev-imagenet"]
    others = [row.scores[0] for row in table.rows if row.weights]
    assert len(others) == 13 and others == sorted(others)  # as the slides have them
    assert sum(row.run is not None for row in table.rows) == 1
