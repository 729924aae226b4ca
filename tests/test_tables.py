"""The tables show what is published exactly, and runs beside it: hand-worked means, nothing mixed, nothing lost."""

import csv
import json
import subprocess
from pathlib import Path

import pytest
from conftest import REPOSITORY, committed, earshot

from earshot.commands.recipe import apply_recipes
from earshot.commands.tables import sections
from earshot.core.errors import EarshotError
from earshot.results.paper_tables import Score
from earshot.results.published import published_tables
from earshot.results.recipes import recipe_params
from earshot.results.run_settings import agree, idea, setting
from earshot.results.runs import collect
from earshot.results.trainings import PRETRAIN

TABLES = {table.name: table for table in published_tables()}
PARAMS = committed("params.yaml")
CLASSES = [key.split(".")[1] for key in TABLES["owens-2c"].columns.values()]


def write_run(folder: Path, pool5: float = 0.5, *changes: str, size: str = "sample-large", **more: float | str) -> Path:
    """A run as the stages leave it, with params.yaml and metrics/."""
    (folder / "metrics").mkdir(parents=True)
    apply_recipes([REPOSITORY / "recipes" / f"{size}.yaml"], PARAMS, folder / "params.yaml", changes)
    scores = {"map_pool5": pool5, "random_map_pool5": 0.2, "wrong_sound_map_pool5": 0.3, "chance": 0.1} | more
    (folder / "metrics" / "voc.json").write_text(json.dumps(scores))
    return folder


def read_csv(file: Path) -> list[dict[str, str]]:
    with file.open(newline="") as lines:
        return list(csv.DictReader(lines))


def collected(*folders: Path) -> list:
    return collect(folders[0], folders[1:] or folders, False, []).runs


@pytest.mark.parametrize(
    ("table", "row", "mean"),
    [
        ("owens-2c", "Sound (cluster)", 45.8),
        ("owens-2c", "Sound (binary)", 46.7),
        ("owens-2c", "Sound (spect.)", 44.0),
        ("owens-2c", "Texton-CNN", 37.5),
        ("owens-2c", "K-means", 34.8),
        ("owens-2c", "Motion", 42.2),
        ("owens-2c", "Patches", 46.0),  # 46.7 in Table 2a, which the paper corrected later
        ("owens-2c", "Egomotion", 31.1),
        ("owens-2c", "ImageNet", 65.6),
        ("owens-2c", "Places", 63.2),
        ("mahadev-2", "Owens et al.", 45.8),
        ("mahadev-2", "k-means", 34.8),
        ("mahadev-2", "Ours - Sound Texture", 53.5),
        ("mahadev-2", "Ours - MFCC", 53.9),
    ],
)
def test_a_published_row_of_classes_has_the_published_mean(table, row, mean):
    scores = next(each.scores for each in TABLES[table].rows if each.name == row)
    assert sum(scores) / 20 == pytest.approx(mean, abs=0.25)  # twenty roundings to a whole point


@pytest.mark.parametrize("table", TABLES.values(), ids=TABLES)
def test_every_row_has_a_score_a_column_and_the_papers_own_a_way_to_be_filled(table):
    assert all(len(row.scores) == len(table.columns) for row in table.rows)
    quoted = [row for row in table.rows if row.run is None and not row.weights]
    assert all(row.recipe for row in table.rows if row.run is not None)
    assert not quoted or table.trained == "correspond"
    assert not any(row.name.startswith("Ours") for row in quoted) and len(quoted) < len(table.rows)
    assert len({row.name for row in table.rows}) == len(table.rows)


@pytest.mark.parametrize("table", TABLES.values(), ids=TABLES)
def test_the_recipe_of_a_row_is_known_as_that_row_in_the_papers_own_setting(table):
    for row in table.rows:
        if row.recipe:
            params = recipe_params(row.recipe)
            assert table.admits(params) and table.row_of(params) is row


def test_a_file_of_weights_fills_the_row_of_its_name():
    params = recipe_params("owens-random") | {"pretrain.weights": "../networks/patch-position.safetensors"}
    assert TABLES["owens-2a"].row_of(params).name == "Patch pos."
    assert TABLES["owens-2a"].row_of(params | {"pretrain.epochs": 5}) is None


def test_units_are_in_their_table_in_percent_beside_random_weights(tmp_path):
    run = write_run(tmp_path / "run")
    scores = {"selective_share": 0.25, "random_selective_share": 0.125, "audible_share": 0.5, "audible_videos": 0.4}
    (run / "metrics/explain_units.json").write_text(json.dumps(scores))
    (section,) = sections(TABLES["owens-1"], collected(run))
    assert section.rendered and any(key.startswith("explain.units.") for key in section.setting)
    (group,) = section.groups
    assert group.name == "Sound (cluster)" and group.score("explain_units.selective_share").mean == 25
    assert group.score("explain_units.random_selective_share").mean == 12.5
    other = write_run(tmp_path / "other", 0.5, "explain.units.encoder=models/correspond")
    (other / "metrics/explain_units.json").write_text(json.dumps(scores))
    assert sections(TABLES["owens-1"], collected(other)) == []


def test_a_run_under_its_recipe_stands_in_the_papers_own_setting(tmp_path):
    for recipe in ("owens-cluster", "owens-binary", "owens-textons", "owens-kmeans"):
        write_run(tmp_path / recipe, size=recipe)
    (section,) = sections(TABLES["owens-2a"], collected(tmp_path))
    assert section.differences == {} and not section.rendered
    assert [group.name for group in section.groups] == ["Sound (cluster)", "Sound (binary)", "Texton-CNN", "K-means"]


def test_runs_that_differ_in_seeds_are_one_row_with_mean_and_sample_deviation(tmp_path):
    for seed, score in enumerate((0.4, 0.5, 0.6)):
        write_run(tmp_path / str(seed), score, f"seed={seed}", f"sample.seed={seed}")
    write_run(tmp_path / "again", 0.9, "seed=2", "sample.seed=2", "pretrain.num_threads=2")  # a seed counts once
    (section,) = sections(TABLES["owens-2a"], collected(tmp_path))
    (group,) = section.groups
    assert group.name == "Sound (cluster)"
    assert group.score("voc.map_pool5") == Score(pytest.approx(50), pytest.approx(10), 3)
    assert group.score("voc.random_map_pool5") == Score(pytest.approx(20), pytest.approx(0), 3)
    assert group.score("voc.map_fc7") is None


def test_other_settings_are_other_tables_and_unused_parameters_separate_nothing(tmp_path):
    write_run(tmp_path / "cluster", 0.5, "pretrain.epochs=20")
    write_run(tmp_path / "binary", 0.5, "label.model=binary", "pretrain.epochs=10", "label.distance_filter=false")
    write_run(tmp_path / "random", 0.5, "pretrain.epochs=0", "pretrain.learning_rate=0.5")
    write_run(tmp_path / "longer", 0.5, "pretrain.epochs=40")
    write_run(tmp_path / "elsewhere", 0.5, "evaluate.voc.data_dir=../VOCdevkit", "pretrain.epochs=20")
    actual = sections(TABLES["owens-2a"], collected(tmp_path))
    names = {tuple(group.name for group in section.groups) for section in actual}
    assert names == {
        ("Sound (cluster)", "Sound (binary)", "random weights"),
        ("Sound (cluster)", "random weights"),
        ("Sound (cluster)",),
    }
    assert [section.rendered for section in actual if len(section.groups) == 1] == [False]


def test_rows_with_and_without_distance_filter_share_a_setting_of_as_many_steps(tmp_path):
    write_run(tmp_path / "cluster", 0.5)
    write_run(tmp_path / "binary", 0.5, "label.model=binary", size="sample-large-unfiltered")
    (section,) = sections(TABLES["owens-2a"], collected(tmp_path))
    assert [group.name for group in section.groups] == ["Sound (cluster)", "Sound (binary)"]


def test_labels_that_the_pipeline_does_not_make_are_an_idea_of_their_own(tmp_path):
    run = write_run(tmp_path / "kinds", 0.5, "label.model=binary", "label.components=10", "pretrain.epochs=10")
    (run / "labels.txt").write_text("true kinds\n")
    (section,) = sections(TABLES["owens-2a"], collected(tmp_path))
    assert [(group.row, group.name) for group in section.groups] == [(None, "labels=true kinds")]


def test_settings_agree_where_both_have_a_value():
    cluster, kmeans = recipe_params("owens-cluster"), recipe_params("owens-kmeans")
    own, scaled = setting(PRETRAIN, cluster, {"voc"}), cluster | {"evaluate.voc.resize": 300}
    assert agree(own, setting(PRETRAIN, kmeans, {"voc"}))
    assert not agree(own, setting(PRETRAIN, scaled, {"voc"}))
    assert agree(own, setting(PRETRAIN, cluster | {"evaluate.sun.resize": 300}, {"voc"}))
    assert idea(PRETRAIN, kmeans) == {
        "pretrain.initialization": "kmeans",
        "pretrain.weights": "none",
        "pretrain.equalize_gradients": False,
        "pretrain.epochs": 0,
    }


def test_the_command_writes_published_rows_ours_and_controls(tmp_path, capsys):
    for clusters, score in ((2, 0.3), (30, 0.5)):
        write_run(tmp_path / "runs" / str(clusters), score, f"clusters={clusters}")
    write_run(tmp_path / "runs" / "new", 0.7, "label.threshold=median", "label.model=binary", "descriptor=mfcc")
    earshot("tables", "--folder", tmp_path / "runs", "--root", tmp_path, "--output", tmp_path / "tables")
    rows = {
        (row["method"], row["kind"]): row["mean"]
        for row in read_csv(tmp_path / "tables" / "owens-2a.csv")
        if row["column"] == "VOC pool5"
    }
    assert rows["Sound (cluster)", "published"] == "45.8" and rows["Sound (cluster)", "ours"] == "50"
    assert rows["Sound (cluster), clusters=2", "wrong sound"] == "30" and rows["Places", "published"] == "63.2"
    new = "descriptor=mfcc, label.model=binary, label.threshold=median"
    assert rows[new, "ours"] == "70" and rows[new, "random weights"] == "20" and rows["chance", "control"] == "10"
    text = (tmp_path / "tables" / "owens-2a.md").read_text()
    assert "with each other, not with the published" in text and "| Sound (cluster) | published |" in text
    assert (tmp_path / "tables" / "owens-a1-1.png").stat().st_size > 10_000
    runs = {Path(row["run"]).name: row["rows"] for row in read_csv(tmp_path / "tables" / "runs.csv")}
    assert "owens-a1: 2 clusters" in runs["2"] and f"owens-2a: {new}" in runs["new"]
    assert f"left out: {tmp_path}" not in capsys.readouterr().out


@pytest.mark.parametrize("classes", [CLASSES, ["bird", "surf"]])
def test_classes_stand_in_the_papers_order_or_are_those_of_another_tree(classes, tmp_path):
    run = write_run(tmp_path / "run")
    rows = "".join(f"{name},0.{number:02},0.1\n" for number, name in enumerate(sorted(classes)))
    (run / "metrics" / "voc_classes.csv").write_text(f"class,ap_pool5,random_ap_pool5\n{rows}")
    earshot("tables", "--folder", run, "--root", tmp_path, "--output", tmp_path / "tables")
    text = (tmp_path / "tables" / "owens-2c.md").read_text()
    short = list(TABLES["owens-2c"].columns) if classes is CLASSES else classes
    assert f"| method | | seeds | {' | '.join(short)} |" in text
    assert ("| published |" in text) == (classes is CLASSES)
    assert (tmp_path / "tables" / "owens-2c-1.png").exists()


def test_a_run_that_cannot_stand_in_a_table_is_listed_with_its_reason(tmp_path, capsys):
    write_run(tmp_path / "runs" / "good")
    empty = write_run(tmp_path / "runs" / "empty")
    (empty / "metrics" / "voc.json").unlink()
    stale = write_run(tmp_path / "runs" / "stale")
    lock = "stages: {pretrain: {params: {params.yaml: {pretrain: {epochs: 99}}}}}"
    (stale / "dvc.lock").write_text(lock)
    earshot("tables", "--folder", tmp_path / "runs", "--root", tmp_path, "--output", tmp_path / "tables")
    message = capsys.readouterr().out
    assert "empty: has no scores" in message and "epochs=99, but params.yaml has" in message
    left = [row["rows"] for row in read_csv(tmp_path / "tables" / "runs.csv") if "left out" in row["rows"]]
    assert len(left) == 3  # the workspace is empty too


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("voc.json", "{"),
        ("voc.json", "[1]"),
        ("voc_classes.csv", "class,ap_pool5\ncow,many\n"),
        ("voc_classes.csv", "name,ap_pool5\ncow,0.5\n"),
    ],
)
def test_broken_metrics_are_refused_by_name(file, content, tmp_path):
    (write_run(tmp_path / "run") / "metrics" / file).write_text(content)
    with pytest.raises(SystemExit, match=rf"^earshot tables: .*run: metrics/{file}"):
        earshot("tables", "--folder", tmp_path / "run", "--root", tmp_path, "--output", tmp_path / "tables")


def test_a_table_of_networks_is_passed_over(tmp_path, capsys):
    run = write_run(tmp_path / "run")
    (run / "metrics" / "correspondence_classes.csv").write_text("network,accuracy\ntrained,0.5\n")
    earshot("tables", "--folder", run, "--root", tmp_path, "--output", tmp_path / "tables")
    assert "1 runs" in capsys.readouterr().out


def test_runs_of_one_world_and_different_clips_are_named(tmp_path, capsys):
    runs = tmp_path / "runs"
    write_run(runs / "one", 0.5, clips_hash="a" * 16)
    write_run(runs / "two", 0.6, "seed=1", clips_hash="a" * 16)
    write_run(runs / "other world", 0.6, "seed=1", "sample.seed=1", clips_hash="b" * 16)
    command = ["--folder", str(runs), "--root", str(tmp_path), "--output", str(tmp_path / "tables")]
    earshot("tables", *command)
    assert "different training clips" not in capsys.readouterr().out
    write_run(runs / "some missing", 0.6, "seed=2", clips_hash="c" * 16)
    earshot("tables", *command)
    message = f"These runs have different training clips for voc ({'a' * 16}, {'c' * 16})"
    assert message in capsys.readouterr().out
    assert message in (tmp_path / "tables" / "owens-2a.md").read_text()


def test_what_is_no_folder_of_runs_or_no_revision_is_refused(tmp_path):
    with pytest.raises(EarshotError, match="holds no run"):
        collect(tmp_path, [tmp_path], False, [])
    for revision in ("no-such-branch", "--output=x"):
        with pytest.raises(EarshotError, match=revision):
            collect(REPOSITORY, [], False, [revision])


class Repository:
    """A small repository under Git and DVC, whose one stage writes a score by its parameters."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        apply_recipes([REPOSITORY / "recipes" / "sample-large.yaml"], PARAMS, folder / "params.yaml")
        (folder / "metrics").mkdir()
        (folder / "measure.py").write_text(
            "import json, pathlib\nfrom ruamel.yaml import YAML\n"
            "clusters = YAML(typ='safe').load(pathlib.Path('params.yaml'))['clusters']\n"
            "pathlib.Path('metrics/voc.json').write_text(json.dumps({'map_pool5': clusters / 100}))\n"
            "pathlib.Path('metrics/voc_classes.csv').write_text(f'class,ap_pool5\\ncow,{clusters / 100}\\n')\n"
        )
        files = {name: {"cache": False} for name in ("metrics/voc.json", "metrics/voc_classes.csv")}
        metrics, plots = ([{name: how}] for name, how in files.items())
        stage = {"cmd": "python measure.py", "params": ["clusters"], "metrics": metrics, "plots": plots}
        (folder / "dvc.yaml").write_text(json.dumps({"stages": {"evaluate": stage}}))
        for words in (["git", "init", "-q", "-b", "main"], ["dvc", "init", "-q"]):
            self.run(*words)

    def run(self, *words: str) -> None:
        subprocess.run(words, cwd=self.folder, check=True, capture_output=True)

    def commit(self) -> None:
        self.run("git", "add", "--all")
        self.run("git", "commit", "-q", "-m", "a state")


@pytest.mark.slow
def test_experiments_and_branches_are_collected_with_their_classes(tmp_path, monkeypatch):
    for name, value in {"HOME": tmp_path, "DVC_SITE_CACHE_DIR": tmp_path / "site", "DVC_NO_ANALYTICS": "1"}.items():
        monkeypatch.setenv(name, str(value))
    for name in ("AUTHOR", "COMMITTER"):
        monkeypatch.setenv(f"GIT_{name}_NAME", "a")
        monkeypatch.setenv(f"GIT_{name}_EMAIL", "a@b")
    (tmp_path / "repository").mkdir()
    repository = Repository(tmp_path / "repository")
    repository.commit()
    repository.run("dvc", "repro", "-q")
    repository.commit()
    for clusters in (5, 15):
        repository.run("dvc", "exp", "run", "-q", "-n", f"with-{clusters}", "-S", f"clusters={clusters}")
    repository.run("git", "switch", "-q", "-c", "fifteen")
    repository.commit()
    repository.run("git", "switch", "-q", "main")
    actual = collect(repository.folder, [], True, ["fifteen"])
    assert not actual.left_out
    scores = {run.source: run.scores for run in actual.runs}  # the branch is the experiment again
    assert sorted(scores) == ["experiment with-15", "experiment with-5", "workspace"]
    assert scores["experiment with-5"] == {"voc.map_pool5": 0.05, "voc_classes.cow.ap_pool5": 0.05}
    alone = collect(repository.folder, [], False, ["fifteen"])
    assert [run.scores["voc.map_pool5"] for run in alone.runs] == [0.3, 0.15]


def write_correspondence(folder: Path, *changes: str, **scores: float) -> None:
    """A run of a correspondence network on the rendered world, and one of pretrain in the same folder's VOC."""
    (folder / "metrics").mkdir(parents=True)
    recipes = [REPOSITORY / "recipes" / f"{name}.yaml" for name in ("kim-instruments-ave", "sample-correspond")]
    apply_recipes(recipes, PARAMS, folder / "params.yaml", changes)
    retrieval = {
        f"with_query_ndcg30_{name}": 0.7 for name in ("image_audio", "audio_image", "image_image", "audio_audio")
    }
    for name, values in {
        "retrieval": retrieval
        | {
            "random_with_query_ndcg30_image_audio": 0.5,
            "random_order_with_query_ndcg30": 0.4,
        },
        "correspondence": {"accuracy": 0.75, "wrong_sound_accuracy": 0.5, "direct_accuracy": 0.6, "chance": 0.5}
        | scores,
        "voc": {"map_pool5": 0.3},
    }.items():
        (folder / "metrics" / f"{name}.json").write_text(json.dumps(values))


def test_networks_of_either_training_stand_in_their_own_tables(tmp_path, capsys):
    write_correspondence(tmp_path / "runs" / "ave")
    write_correspondence(tmp_path / "runs" / "aug", "correspond.flip_prob=0.5", accuracy=0.8)
    write_run(tmp_path / "runs" / "pretrained", 0.5)
    earshot("tables", "--folder", tmp_path / "runs", "--root", tmp_path, "--output", tmp_path / "tables")
    written = {file.stem for file in (tmp_path / "tables").glob("*.csv")}
    assert {"owens-2a", "kim-1-instruments", "kim-2-instruments"} <= written and "mahadev-1" not in written
    pool5 = [row for row in read_csv(tmp_path / "tables" / "owens-2a.csv") if row["kind"] == "ours"]
    assert {row["data"] for row in pool5} == {"rendered"}
    assert [row["mean"] for row in pool5] == ["50"]  # VOC of models/correspond is no score of pretrain
    rows = {
        (row["method"], row["kind"]): row["mean"] for row in read_csv(tmp_path / "tables" / "kim-2-instruments.csv")
    }
    plain = "AVE-Net"
    assert rows[plain, "published"] == "72.8" and rows[plain, "ours"] == "75"
    assert rows[plain, "wrong sound"] == "50" and rows[plain, "supervised direct"] == "60"
    assert [mean for (name, kind), mean in rows.items() if kind == "ours" and name.startswith("AVE-Net + Aug.")] == [
        "80"
    ]
    retrieval = (tmp_path / "tables" / "kim-1-instruments.md").read_text()
    assert "Measured on the rendered world" in retrieval
    assert "| random order | control, rendered | 1 | 40.0 | 40.0 | 40.0 | 40.0 |" in retrieval
    ideas = {row["run"].rpartition("/")[2]: row["idea"] for row in read_csv(tmp_path / "tables" / "runs.csv")}
    assert "correspond.network=ave" in ideas["ave"] and "clusters" not in ideas["ave"]
    assert "clusters=30" in ideas["pretrained"] and "correspond" not in ideas["pretrained"]
