"""The report says what metrics and tables hold, in the same bytes for the same run, and what is wrong in one line."""

import csv
import hashlib
import json
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path
from xml.etree import ElementTree

import conftest
import numpy as np
import pytest
from conftest import REPOSITORY, earshot, run_stage
from peak_memory import measured
from synthetic_exhibits import KINDS, Synthetic, empty_chart, graph, photograph

from earshot.commands.recipe import apply_recipes
from earshot.core.errors import EarshotError
from earshot.core.registry import find_all
from earshot.core.yaml_files import flatten, read_yaml
from earshot.corpus.ignored import write_ignored
from earshot.corpus.ledger import LedgerRow, write_ledger
from earshot.explanation.tables import write_table
from earshot.media.quality import Measured
from earshot.report import clips, generic, seeds
from earshot.report.build import write_report
from earshot.report.comparison import changed_parameters, other_lists
from earshot.report.drawing import COLUMN, label, save_chart, save_paper_chart
from earshot.report.figures import class_bars
from earshot.report.overview import beside_papers, run_summary
from earshot.report.pages import embeddings, localization, units
from earshot.report.paper import confusion_matrix
from earshot.report.revisions import folder_source, revision_source
from earshot.report.site import Site
from earshot.report.sources import Source
from earshot.results.score_tables import grid
from earshot.scenes.annotations import write_annotations
from earshot.scenes.writing import Scene, write_scenes

PARAMS = dict(flatten(read_yaml(conftest.PARAMS)))
DISPLAYS = find_all("earshot.benchmarks", "BENCHMARK")
GIT = {"GIT_AUTHOR_NAME": "a", "GIT_AUTHOR_EMAIL": "a@b", "GIT_COMMITTER_NAME": "a", "GIT_COMMITTER_EMAIL": "a@b"}


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    """A made-up run with its report, written by the stage."""
    folder = Synthetic(tmp_path_factory.mktemp("run")).write(clusters=2, units=4, points=20)
    closing = run_stage("report", folder)
    assert closing.startswith("report/index.html: 13 pages, ") and closing.count("\n") == 1
    return folder


def without_charts(monkeypatch) -> None:
    """Write charts as empty files, for tests of all else: to draw takes longest."""
    for name in ("save_chart", "save_paper_chart"):
        monkeypatch.setattr(f"earshot.report.site.{name}", empty_chart)


def bytes_of(folder: Path) -> dict[str, str]:
    return {
        str(file.relative_to(folder)): hashlib.sha256(file.read_bytes()).hexdigest()
        for file in folder.rglob("*")
        if file.is_file()
    }


def test_the_same_run_gives_the_same_bytes_and_the_same_bytes_are_one_file(root, tmp_path, monkeypatch):
    without_charts(monkeypatch)
    for name in ("once", "again"):
        write_report([Source("this run", root, PARAMS)], tmp_path / name)
    once, again = bytes_of(tmp_path / "once"), bytes_of(tmp_path / "again")
    names = {name for name in once if not name.endswith((".svg", ".png", ".pdf")) or name.startswith("media/")}
    assert {name: once[name] for name in names} == {name: again[name] for name in names} and len(names) > 100
    media = [digest for name, digest in once.items() if name.startswith("media/")]
    assert len(media) == len(set(media)) > 50


def test_the_same_chart_gives_the_same_bytes_and_a_pdf_holds_its_fonts(tmp_path):
    for number in range(2):
        (tmp_path / str(number)).mkdir()
        save_chart(lambda: class_bars(["a", "b"], {"sound": [0.5, 0.2]}, "x"), tmp_path / str(number) / "chart")
        draw = lambda: confusion_matrix(["a", "b"], np.array([[3, 1], [0, 2]]))  # noqa: E731
        save_paper_chart(draw, tmp_path / str(number) / "paper")
    once, again = (bytes_of(tmp_path / str(number)) for number in range(2))
    assert once == again and len(once) == 6
    pdf = (tmp_path / "0/paper.pdf").read_bytes()
    assert pdf.startswith(b"%PDF") and b"FontFile2" in pdf and b"/Type3" not in pdf
    width = ElementTree.parse(tmp_path / "0/paper.svg").getroot().get("width")
    assert width == f"{72 * COLUMN:g}pt"


def test_figures_and_tables_for_a_paper_say_what_made_them(root):
    report = root / "report"
    page = (report / "figures.html").read_text()
    for name in ("scores", "layers-voc", "layers-sun", "classes-voc"):
        assert all((report / f"figures/paper-{name}.{kind}").exists() for kind in ("pdf", "svg", "png"))
        text = (report / f"figures/paper-{name}.txt").read_text()
        assert "Command: " in text and "clusters=30" in text and "clips_hash " in text and f"paper-{name}.pdf" in page
    assert r"\toprule" in (report / "tables/voc.tex").read_text()
    assert "| sound |" in (report / "tables/voc.md").read_text()
    summary = (report / "summary.html").read_text()
    assert summary.count('class="badge') == 9 and "paper-scores.svg" in summary


def test_every_score_stands_on_the_start_page_with_the_file_that_it_is_from(root):
    page = (root / "report" / "index.html").read_text()
    for name in ("voc", "sun", "finetune", "correspondence", "esc50", "retrieval", "nmi", "localization"):
        scores_grid = grid(DISPLAYS[name], json.loads((root / "metrics" / f"{name}.json").read_text()))
        assert f"metrics/{name}.json" in page
        for value in [score for row in scores_grid.rows.values() for score in row.values()] + [
            *scores_grid.alike.values()
        ]:
            assert f">{value:.3f}<" in page or f">{value:.3f} <span" in page
        for key in scores_grid.others:
            assert key in page
    for key in PARAMS:
        assert key in page
    assert json.loads((root / "metrics" / "extract.json").read_text())["clips_hash"] in page


def test_the_start_page_opens_with_the_verdicts_the_worst_first_each_with_its_table_and_page(root):
    page = (root / "report" / "index.html").read_text()
    verdicts, computed = page[page.index('<ol class="verdicts">') : page.index('<div class="split">')].split("<h3>")
    assert page.index("Did sound teach anything?") < page.index('<ol class="verdicts">') < page.index("<table")
    kinds = re.findall(r'<li class="(\w+)">', verdicts)
    assert kinds == sorted(kinds, key=["worse", "level", "unknown", "above", "learned"].index) and len(kinds) == 8
    assert computed.startswith("Computed, not learned") and computed.count("<li class") == 1
    assert 'href="#table-esc50"' in computed and 'href="clusters.html"' in computed
    assert "AlexNet, trained by the stage pretrain" in verdicts and "AVE-Net, trained by the stage" in verdicts
    for name, network in (("units", "AlexNet"), ("heatmaps", "AVE-Net")):  # their pages name the network too
        exhibit = (root / f"report/{name}.html").read_text()
        assert f"{network}, trained by the stage" in exhibit
        assert "they are not tested" in exhibit and 'href="index.html">overview' in exhibit
    links = re.findall(r'href="#(table-\w+)"', verdicts)
    assert {"table-voc", "table-nmi"} < {*links} and all(f'id="{link}"' in page for link in links)
    assert 'href="retrieval.html"' in verdicts and "n = 40" in verdicts
    assert all("rendered" in title.lower() for title in re.findall(r'href="#table-\w+">([^<]*)<', verdicts))


def test_rendered_scores_stand_beside_the_papers_only_behind_a_word_of_warning(root):
    page = (root / "report" / "index.html").read_text()
    beside = page[page.index("<h2>Beside the papers</h2>") :]
    beside = beside[: beside.index("<h2>Provenance</h2>")]
    assert beside.index("<details>") < beside.index("<summary>Not comparable") < beside.index("<table")
    assert "<details open" not in beside and ">published<" in beside and ">ours" not in beside
    assert re.search(r"(?<![Rr]endered )(VOC2007|SUN397|ESC-50)[^<]*<", page[: page.index("<h2>Beside")]) is None


def test_every_column_of_a_table_of_scores_has_its_verdict(root):
    page = (root / "report" / "index.html").read_text()
    table = page[page.index('id="table-voc"') :]
    table = table[: table.index("</table>")]
    judged = table[table.index('class="judged"') :]
    assert judged.count("badge") == 4 * 2 - 4 and judged.count("not tested") == 3  # only pool5 has resamples
    assert judged.count('class="badge learned"') == 1


def test_a_chart_is_an_svg_for_light_and_dark_and_a_png(root):
    charts = {file.name for file in (root / "report" / "figures").iterdir() if not file.name.startswith("paper-")}
    names = {name.removesuffix(".png") for name in charts if name.endswith(".png")}
    assert charts == {f"{name}{kind}" for name in names for kind in (".png", ".svg", "-dark.svg")} and len(names) > 15
    for name in names:
        light, dark = ((root / "report/figures" / f"{name}{kind}").read_text() for kind in (".svg", "-dark.svg"))
        assert light != dark and len(light) == len(dark)
        assert "<dc:date>" not in light


def test_a_chart_holds_whatever_a_class_may_be_called(tmp_path):
    names = ["$x^{$ \\frac", "<script>", "two\nlines \x01\x0b\ufffe", "\u97f3 \U0001f514", "long" * 50, "a & b"]
    save_chart(lambda: class_bars([label(name) for name in names], {"sound": [0.5] * 6}, "accuracy"), tmp_path / "x")
    text = ElementTree.parse(tmp_path / "x.svg").getroot()
    texts = {element.text for element in text.iter("{http://www.w3.org/2000/svg}text")}
    assert {"$x^{$ \\frac", "<script>", "\u97f3 \U0001f514", "a & b"} <= texts


def test_the_shares_of_neighbors_are_those_that_the_exhibit_measured(tmp_path):
    folder = Synthetic(tmp_path / "run").write(clusters=1, units=1, points=21)
    page = embeddings.column(Site(tmp_path / "report", "x", {}), Source("x", folder, PARAMS), "")
    assert [f"{each['knn_precision']:.2f}" for each in page.view["maps"]] == ["0.90", "0.20", "0.90", "0.20"]
    assert {row[2:] for row in page.view["table"].rows} == {("0.900", "0.200") * 2}
    assert "images 0.900 (random weights 0.200)" in page.lead


def test_images_of_gradient_ascent_stand_beside_their_units_with_what_they_are(root, tmp_path, monkeypatch):
    without_charts(monkeypatch)
    folder = tmp_path / "run/data/explain/units"
    shutil.copytree(root / "data/explain/units", folder)
    (folder / "exhibit.json").write_text(
        '{"exhibit": "units", "title": "Units", "layer": "conv5", "ascent_steps": 256}'
    )
    rows = [{"network": "encoder", "unit": unit, "start": 0.5, "highest": 4.25} for unit in range(2)]
    ascents = [{"image": graph(unit, 64, 64), "end": end} for unit, end in enumerate((7.5, 0.0))]
    write_table(folder, KINDS["units"].tables, "unit_ascent", [a | b for a, b in zip(rows, ascents, strict=True)])
    write_report([Source("x", tmp_path / "run", {"explain.units.encoder": "models/pretrain"})], tmp_path / "report")
    page = (tmp_path / "report/units.html").read_text()
    assert page.count('<figure class="ascent">') == 2 and "256 steps of gradient ascent" in page
    assert (
        page.count("Found by gradient ascent; no image of the corpus. Activation 7.5, at its start 0.5; highest") == 1
    )
    assert page.count("Gradient ascent found no image that activates this unit; highest") == 1
    assert page.count("on images of the corpus 4.25.") == 2
    assert "gradient ascent" not in (root / "report/units.html").read_text()


def test_an_exhibit_without_a_page_is_shown_as_it_is(root, tmp_path):
    folder = tmp_path / "run" / "data" / "explain"
    shutil.copytree(root / "data/explain/localization", folder / "new")
    (folder / "new" / "exhibit.json").write_text('{"exhibit": "new", "title": "New things"}')
    params = {"explain.new.data_dir": "data/scenes"}
    write_report([Source("x", tmp_path / "run", params)], tmp_path / "report")
    page = (tmp_path / "report/new.html").read_text()
    assert "<h1>New things</h1>" in page and page.count("<video") == 2 and page.count("<audio") == 6
    assert page.count("<img") == 6 * 2 + 2 and "clip0.jpg" in page and "data/explain/new/localized.parquet" in page
    assert 'href="new.html"' in (tmp_path / "report/index.html").read_text()
    assert generic.page("absent").column(Site(tmp_path / "s", "x", {}), Source("x", tmp_path, params), "").skipped


def test_the_question_says_what_was_trained_on_what(root):
    labels = Source("x", root, PARAMS).labels
    assert "AlexNet (width 0.25, 112 px)" in run_summary(PARAMS, labels)
    assert "to predict which of 30 clusters of sound textures is heard" in run_summary(PARAMS, labels)
    assert "labels clusters" in run_summary(PARAMS, Source("x", root / "nowhere", PARAMS).labels)
    assert "was not trained" in run_summary(PARAMS | {"pretrain.epochs": 0}, labels)
    assert "the videos in ../my-videos" in run_summary(PARAMS | {"corpus.clips": "../my-videos"}, labels)
    assert "AVOL-Net" in run_summary(PARAMS | {"correspond.network": "avol"}, labels)


def test_a_run_stands_beside_the_published_row_that_it_is_of(root):
    def table(params):
        return {each.title: each for each in beside_papers(Source("x", root, params))}[
            "Classification with linear SVMs, VOC2007 mAP and SUN397 accuracy, %"
        ]

    rendered = table(PARAMS)  # whose scores do not compare
    assert rendered.rendered and {line.kind for line in rendered.lines} == {"published"}
    own = table(PARAMS | {"evaluate.voc.data_dir": "../VOC2007", "evaluate.sun.data_dir": "../SUN397"})
    lines = {line.kind: line.scores for line in own.lines}
    assert own.source.endswith("row Sound (cluster)") and not own.rendered
    ours = 100 * json.loads((root / "metrics" / "voc.json").read_text())["map_pool5"]
    assert lines["published"]["VOC pool5"] == 45.8 and lines["ours"]["VOC pool5"].mean == pytest.approx(ours)
    other = beside_papers(Source("x", root, PARAMS | {"label.control": "wrong-sound", "correspond.epochs": 0}))
    assert not any("Classification with linear" in each.title for each in other)


def test_an_exhibit_that_is_not_there_is_told_with_its_reason(root, tmp_path):
    params = {key: value for key, value in PARAMS.items() if not key.startswith("explain.heatmaps")}
    source = Source("x", tmp_path, params)
    assert source.exhibit("units").skipped == "the run lacks it; run python -m stages.explain --exhibit units"
    assert source.exhibit("heatmaps").skipped == "explain.heatmaps is not among the parameters of this run"
    assert Source("x", tmp_path, PARAMS, "not in the cache").exhibit("units").skipped == "not in the cache"
    page = units.column(Site(tmp_path / "report", "x", {}), source, "")
    assert page.skipped and "the run lacks it" in page.lead
    assert Source("x", root, PARAMS).exhibit("units").skipped == ""


def test_clips_are_listed_up_to_a_number_and_the_rest_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(clips, "MOST_ROWS", 20)
    rows = [LedgerRow(f"lost{n}", "a.mp4", "refused", "unreadable", "why") for n in range(25)]
    write_ledger(tmp_path / "data/scenes/ledger/00000.csv", [LedgerRow("there", "b.mp4", "kept"), *rows[:9]])
    write_ledger(tmp_path / "data/scenes/ledger/00001.csv", rows[9:])
    site = Site(tmp_path / "report", "x", {})
    column = clips.column(site, Source("x", tmp_path, PARAMS), "")
    assert column.lead == "25 of 26 clips were left out; each has a reason."
    site.write_page("clips.html", "clips.html", title="x", about="", columns=[column], prefixes=[""])
    page = (tmp_path / "report/clips.html").read_text()
    assert "The table lists the first 20; <code>earshot completeness --csv</code> writes all" in page
    assert page.count("lost") == 20 and "there" not in page.split("<tbody")[2]
    elsewhere = clips.column(site, Source("x", tmp_path / "none", PARAMS), "")
    assert "no ledger" in elsewhere.skipped


def test_flagged_clips_have_measurements_and_an_image_and_the_csv_has_the_same_rows(tmp_path, capsys):
    scenes, ledgers = tmp_path / "data/scenes", tmp_path / "data/scenes/ledger"
    media = {"frames": [photograph(1)], "times": [0.5], "sound": bytes(16), "audio_rate": 8000, "audio_channels": 1}
    measured = Measured(peak=0.5, clipped=0.0, change=0.25)
    both = {"quiet": ["silent", "still"], "fine": list[str]()}
    rows = [Scene(name, "g", 1.0, **media, measured=measured, flags=flags) for name, flags in both.items()]
    write_scenes(scenes / "00000.parquet", rows)
    (tmp_path / "data/annotations").mkdir()
    write_annotations(tmp_path / "data/annotations/00000.parquet", {"quiet": ["bell"], "fine": []})
    refused = LedgerRow("twin", "c.mp4", "refused", "duplicate", "the same as fine (bits that differ: sound 1.0%)")
    write_ledger(ledgers / "00000.csv", [*(LedgerRow(n, f"{n}.mp4", "kept") for n in ("quiet", "fine")), refused])
    write_ignored(scenes, {".jpg": (1, "in/b.jpg"), ".txt": (1200, "a.txt")})
    (tmp_path / "params.yaml").write_text("corpus: {clips: my-videos}\n")
    source = Source("x", tmp_path, {"corpus.clips": "my-videos"})
    view = clips.column(Site(tmp_path / "report", "x", {}), source, "").view
    quiet, twin = view["rows"]
    assert (quiet.status, quiet.reason, quiet.classes) == ("flagged", "silent, still", "bell")
    assert (quiet.peak, quiet.motion) == (0.5, 0.25) and quiet.split in ("train", "val", "test")
    assert (twin.status, twin.reason, twin.detail, twin.peak) == ("refused", "duplicate", refused.detail, None)
    assert view["displayed"] == {"quiet": "quiet", "twin": "fine"} and {*view["images"]} == {"quiet", "fine"}
    assert view["ignored"].rows == [(".txt", 1200, "a.txt"), (".jpg", 1, "in/b.jpg")]
    earshot("completeness", "--csv", "--root", tmp_path)
    written = [*csv.DictReader(capsys.readouterr().out.splitlines())]
    assert [row["clip_id"] for row in written] == ["quiet", "fine", "twin", "", ""]
    assert written[0]["status"] == "flagged" and written[0]["peak"] == "0.5" and written[2]["detail"] == refused.detail
    assert written[1]["status"] == "kept"
    ignored = [written[3][name] for name in ("source", "status", "reason", "detail")]
    assert ignored == ["a.txt", "ignored", ".txt", "1200 files"]
    (tmp_path / "metrics").mkdir()
    columns = "split,class,requested,kept,share_kept,pending,refused"
    (tmp_path / "metrics/completeness.csv").write_text(f"{columns}\nall,,3,2,0.666667,0,1\n")
    earshot("completeness", "--root", tmp_path)
    assert re.search(r"files that are no clips\n  \.txt +1,200  the first is a.txt\n", capsys.readouterr().out)


def test_a_report_is_made_of_whatever_stages_have_run(tmp_path):
    Synthetic(tmp_path)._ledgers()
    shutil.copy(conftest.PARAMS, tmp_path / "params.yaml")
    run_stage("report", tmp_path)
    page = (tmp_path / "report/index.html").read_text()
    assert "This run has no benchmark results" in page
    assert "5 of 23 clips were left out" in (tmp_path / "report/clips.html").read_text()


def test_what_is_broken_is_one_line_that_names_it(tmp_path):
    folder = tmp_path / "data/explain/localization"
    folder.mkdir(parents=True)
    (folder / "exhibit.json").write_text("{}")
    row = {"name": "a", "class": "b", "hit": True, "control_hit": True, "heat": photograph(1), "sound": b""}
    write_table(folder, KINDS["localization"].tables, "localized", [row | {"image": b"no picture"}])
    site, source = Site(tmp_path / "report", "x", {}), Source("x", tmp_path, PARAMS)
    with pytest.raises(
        EarshotError, match=r"localized.parquet, a: 10 bytes are not a JPEG or PNG; run the stage explain"
    ):
        localization.column(site, source, "")
    (folder / "localized.parquet").unlink()
    with pytest.raises(EarshotError, match=r"localized.parquet: cannot be read"):
        localization.column(site, source, "")
    (folder / "exhibit.json").write_text("[")
    with pytest.raises(EarshotError, match=r"exhibit.json: cannot be read"):
        localization.column(site, source, "")


def test_runs_side_by_side_show_differences_changed_parameters_and_other_lists(root, tmp_path, monkeypatch):
    without_charts(monkeypatch)
    other = tmp_path / "other"
    shutil.copytree(root, other, ignore=shutil.ignore_patterns("report"))
    apply_recipes([], (root / "params.yaml").read_text(), other / "params.yaml", ["clusters=15"])
    voc = json.loads((other / "metrics/voc.json").read_text())
    voc |= {"map_pool5": voc["map_pool5"] - 0.125, "clips_hash": "0" * 16}
    (other / "metrics/voc.json").write_text(json.dumps(voc))
    sources = [folder_source(root, "main"), folder_source(other, "fifteen")]
    assert changed_parameters(sources).rows == [("clusters", "30", "15")]
    (warning,) = other_lists(sources)
    assert "different lists of clips for voc" in warning and f"fifteen {'0' * 16}" in warning
    earshot("compare", "--folder", root, "--folder", other, "--output", tmp_path / "report")
    page = (tmp_path / "report/index.html").read_text()
    assert page.index("<h2>Changed parameters") < page.index("<h2>Scores") < page.index("<h2>What sound taught")
    assert "−0.125" in page and "+0.000 (" in page and "no difference" in page
    assert (tmp_path / "report/figures/clusters.txt").exists()
    assert "−0.125" in page and "+0.000" in page and "different lists of clips for voc" in page
    clusters = (tmp_path / "report/clusters.html").read_text()
    assert 'href="clusters/1-0.html"' in clusters and 'href="clusters/2-0.html"' in clusters


def test_runs_that_differ_in_seeds_alone_have_figures_with_their_mean_and_spread(root, tmp_path, monkeypatch):
    runs = [folder_source(root, "0")]
    for seed in (1, 2):
        other = tmp_path / str(seed)
        shutil.copytree(root, other, ignore=shutil.ignore_patterns("report"))
        apply_recipes([], (root / "params.yaml").read_text(), other / "params.yaml", [f"seed={seed}"])
        voc = json.loads((other / "metrics/voc.json").read_text())
        voc |= {"map_pool5": voc["map_pool5"] + 0.03 * seed}
        (other / "metrics/voc.json").write_text(json.dumps(voc))
        runs.append(folder_source(other, str(seed)))
    again, clusters = folder_source(root, "again"), folder_source(root, "fifteen")
    changed = replace(clusters, params=clusters.params | {"clusters": 15})
    runs += [again, changed]
    (group,) = seeds.seed_groups(runs)  # the second run of a seed, and other parameters, do not count
    assert [source.name for source in group] == ["0", "1", "2"]
    drawn: dict[str, tuple] = {}
    for name in ("score_dots", "layer_lines", "class_bars"):
        record = partial(lambda name, *values, **named: drawn.setdefault(name, (values, named)), name)
        monkeypatch.setattr(seeds, name, record)
    notes: dict[str, str] = {}

    class Recorder:
        def paper_chart(self, name, draw, caption, alt, made_by):
            draw()
            notes[name] = f"{caption} {made_by}"
            return name

    charts = seeds.seed_figures(Recorder(), runs)
    assert "seeds-1-scores" in charts and any(name.startswith("seeds-1-classes-") for name in charts)
    first = json.loads((root / "metrics/voc.json").read_text())["map_pool5"]
    (rows, bars, _), _ = drawn["score_dots"]
    (title,) = (title for title in rows if "VOC" in title and "pool5" in title)
    # Of x, x + .03 and x + .06, the mean is x + .03 and the standard deviation .03.
    assert rows[title]["sound"] == pytest.approx(first + 0.03) and bars[title]["sound"] == pytest.approx(0.03)
    assert bars[title]["random weights"] == pytest.approx(0)
    (_, scores, _), named = drawn["class_bars"]
    assert {*named["bars"]} == {*scores} and max(map(max, named["bars"].values())) == pytest.approx(0)
    assert "Mean of 3 seeds" in notes["seeds-1-scores"] and "seed=2 sample.seed=0" in notes["seeds-1-scores"]
    assert not seeds.seed_figures(Recorder(), runs[3:])


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["HEAD"], "1 run given, expected two or more"),
        (["nosuch", "main"], "nosuch"),
        (["--folder", "tests", "--folder", "earshot"], "tests: holds no run"),
        (["--output", "tests", "a", "b"], "tests: does not hold a report"),
        (["--experiment", "nosuch-exp", "--experiment", "other-exp"], "nosuch-exp: no such experiment"),
    ],
)
def test_a_run_that_is_none_is_one_line(arguments, reason):
    with pytest.raises(SystemExit, match=f"^earshot compare: .*{reason}"):
        earshot("compare", *arguments, "--root", REPOSITORY)


@pytest.mark.slow
def test_exhibits_of_a_revision_come_from_the_cache_or_are_said_to_be_missing(tmp_path, monkeypatch):
    for key, value in {**GIT, "HOME": str(tmp_path), "DVC_SITE_CACHE_DIR": str(tmp_path / "site")}.items():
        monkeypatch.setenv(key, value)
    repository = tmp_path / "repository"
    Synthetic(repository).write(clusters=1, units=2, points=12)

    def run(*command: str) -> None:
        done = subprocess.run(command, cwd=repository, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr

    for command in (["git", "init", "-q"], [sys.executable, "-m", "dvc", "init", "-q"]):
        run(*command)
    run(sys.executable, "-m", "dvc", "add", "-q", "data/explain", "data/clips/ledger", "data/scenes/ledger")
    for command in (["git", "add", "--all"], ["git", "commit", "-qm", "a run"], ["git", "tag", "first"]):
        run(*command)
    shutil.rmtree(repository / "data" / "explain")
    source = revision_source(repository, "first", "first", tmp_path / "first")
    assert not source.absent and source.exhibit("units").skipped == ""
    assert len([*source.exhibit("units").rows("units")]) == 6
    shutil.rmtree(repository / ".dvc" / "cache")
    uncached = revision_source(repository, "first", "first", tmp_path / "lost")
    assert "not in DVC's cache" in uncached.absent and "dvc fetch" in uncached.exhibit("units").skipped
    assert uncached.metrics("voc") == source.metrics("voc")


@pytest.mark.slow
def test_memory_does_not_grow_with_images_and_sounds(tmp_path):
    def peak(name: str, clusters: int, padding: int) -> float:
        folder = Synthetic(tmp_path / name).write(clusters=1, units=1, points=12)
        moment = {"moment": 0, "group": "g", "annotations": ["bell"], "distance": 0.0, "seconds": 1.0}
        synthetic = Synthetic(tmp_path / f"{name}-clusters")
        rows = (
            {**moment, "cluster": c, "rank": rank, "clip_id": f"{c}/{rank}", "cochleagram": b"", "sound": b""}
            | {"frame": photograph(9 * c + rank) + bytes(padding)}
            for c in range(clusters)
            for rank in range(1, 10)
        )
        write_table(
            folder / "data/explain/clusters", KINDS["clusters"].tables, "clusters", synthetic._clusters(clusters, False)
        )
        write_table(folder / "data/explain/clusters", KINDS["clusters"].tables, "cluster_moments", rows)
        imports = "from earshot.report.build import write_report\n"
        imports += "from earshot.report.revisions import folder_source\nfrom pathlib import Path"
        work = "str(write_report([folder_source(Path(sys.argv[1]), 'x')], Path(sys.argv[2])))"
        return measured(imports, work, folder, tmp_path / f"{name}-report")[1]

    few, many = peak("few", 5, 300_000), peak("many", 100, 300_000)  # 14 MB and 270 MB of frames
    assert many < few + 60
