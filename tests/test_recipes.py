"""Recipes: a row has a method and a size; each file holds only differences; a size recipe changes no method."""

import re
import subprocess
from pathlib import Path

import pytest
from conftest import PARAMS, REPOSITORY, earshot
from safetensors.torch import save_file

from earshot.commands.recipe import apply_recipes
from earshot.core.errors import EarshotError
from earshot.core.params import load_params
from earshot.core.yaml_files import flatten, read_yaml
from earshot.networks.backbones import build_network
from earshot.networks.files import load_weights
from earshot.params.schema import Pipeline
from earshot.results.recipes import recipe_values, recipe_words, with_foundation

DEFAULTS = dict(flatten(read_yaml(PARAMS)))
RECIPES = sorted((REPOSITORY / "recipes").glob("*.yaml"))
SIZE = REPOSITORY / "recipes" / "sample-large.yaml"
ROWS = [recipe for recipe in RECIPES if not recipe.stem.startswith(("sample-", "benchmark-", "labels-", "real"))]
REAL = [recipe for recipe in RECIPES if recipe.stem.startswith("real-")]
each_recipe = pytest.mark.parametrize("recipe", RECIPES, ids=lambda path: path.stem)
each_row = pytest.mark.parametrize("recipe", ROWS, ids=lambda path: path.stem)


@pytest.fixture
def committed_params(tmp_path) -> Path:
    """params.yaml in a Git repository of its own."""
    params = tmp_path / "params.yaml"
    params.write_text(PARAMS.read_text())
    git = ["git", "-C", str(tmp_path), "-c", "user.name=a", "-c", "user.email=a@b"]
    for words in (["init", "--quiet"], ["add", "--all"], ["commit", "--quiet", "--message", "a state"]):
        subprocess.run([*git, *words], check=True)
    return params


def applied(*recipes: Path, output: Path) -> dict:
    apply_recipes(recipes, PARAMS.read_text(), output)  # checks every value
    return dict(flatten(read_yaml(output)))


def size_of(recipe: Path) -> Path:
    """The recipe that scales a row down to two cores."""
    values = DEFAULTS | recipe_values([recipe])
    if values["evaluate.esc50.encoder"] != "models/correspond":
        return SIZE
    name = "sample-multisensory" if values["correspond.network"] == "multisensory" else "sample-correspond"
    return SIZE.with_name(f"{name}.yaml")


@each_recipe
def test_every_recipe_applies_keeps_the_comments_and_changes_only_its_values(recipe, tmp_path):
    after = applied(recipe, output=tmp_path / "params.yaml")
    assert {key: after[key] for key in recipe_values([recipe])} == recipe_values([recipe])
    assert {key for key in after if DEFAULTS.get(key) != after[key]} <= {*recipe_values([recipe])}
    assert PARAMS.read_text().count("#") == (tmp_path / "params.yaml").read_text().count("#")


@each_recipe
def test_every_recipe_describes_itself_its_cost_and_its_published_scores(recipe):
    words = recipe_words(recipe)
    assert all(len(words[heading].split()) > 1 for heading in ("about", "cost", "reach"))


def printed_of(recipes: list[Path], params: Path, capsys, *options: str) -> str:
    """What `earshot recipe` prints about the recipes."""
    options = (*options, "--output", str(params.with_name("applied.yaml")))
    earshot("recipe", *recipes, "--params", params, *options)
    return capsys.readouterr().out


@each_recipe
def test_every_recipe_prints_its_own_time_and_disk(recipe, committed_params, capsys):
    printed = printed_of([recipe], committed_params, capsys)
    costs = "\n".join(line for line in printed.splitlines() if line.startswith("cost of "))
    number = r"([\d.,]+|an?|one|two|three|four|five|seven|eight|nine|ten|fourteen|twenty)"
    assert re.search(rf"\b{number} (core )?(minutes?|hours?|days?|weeks?|months?)\b", costs, re.I), costs
    assert re.search(r"\d (GB|TB)\b", costs), costs
    others = {other.stem for other in RECIPES} - {recipe.stem, "real"}
    assert not [other for other in others if re.search(rf"\b{other}\b", recipe_words(recipe)["cost"])]


def test_the_cost_is_that_of_the_last_size_and_of_what_is_added_to_it(committed_params, capsys):
    row, added = SIZE.with_name("mahadev-resnet50.yaml"), SIZE.with_name("benchmark-imagenet-mahadev.yaml")
    cases = [
        ([row], ["mahadev-resnet50"]),
        ([row, added], ["mahadev-resnet50", "benchmark-imagenet-mahadev"]),
        ([row, SIZE], ["sample-large"]),
        ([row, added, SIZE], ["sample-large", "benchmark-imagenet-mahadev"]),
        ([added], ["the default run", "benchmark-imagenet-mahadev"]),
    ]
    for recipes, expected in cases:
        printed = printed_of(recipes, committed_params, capsys)
        assert re.findall("^cost of (.*?): ", printed, re.M) == expected
    kept = printed_of([added], committed_params, capsys, "--keep")
    assert re.findall("^cost of (.*?): ", kept, re.M) == ["benchmark-imagenet-mahadev"]


@pytest.mark.parametrize("recipe", [*ROWS, *REAL], ids=lambda path: path.stem)
@pytest.mark.parametrize("part", ["size", "params"])
def test_a_row_states_only_what_differs(recipe, part):
    *foundation, row = (dict(flatten(recipe.get(part, {}))) for recipe in with_foundation(recipe))
    below = DEFAULTS | (foundation[0] if foundation else {})
    assert all(key not in below or below[key] != value for key, value in row.items())  # an added benchmark is whole
    assert recipe_values([recipe])


@each_row
def test_the_size_recipe_scales_every_row_and_keeps_its_method(recipe, tmp_path):
    size_recipe = size_of(recipe)
    row = applied(recipe, size_recipe, output=tmp_path / "row.yaml")
    size = DEFAULTS | recipe_values([size_recipe])
    idea = {key: value for part in with_foundation(recipe) for key, value in flatten(part.get("params", {}))}
    assert row == size | idea


@each_row
def test_a_row_of_a_paper_does_not_read_the_rendered_world(recipe, tmp_path):
    params = applied(recipe, output=tmp_path / "params.yaml")
    others = ("finetune", "detection") if size_of(recipe) == SIZE else ("esc50", "localization")
    keys = [f"evaluate.{name}.data_dir" for name in ("voc", "sun", *others)]
    datasets = [params[key] for key in keys if key in params]  # detection is for some rows alone
    assert len(datasets) >= 3
    corpus = params["corpus.clips"] if params["corpus.clips"] != "data/clips" else params["corpus.manifest"]
    assert not any(path.startswith("data/sample") for path in (*datasets, corpus))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("about: a\ncost: b\nreach: c\nparams: {clusterz: 3}\n", "the nearest is clusters"),
        ("about: a\ncost: b\nreach: c\nparams: {clusters: 1}\n", "clusters is 1, expected"),
        ("about: a\ncost: b\nparams: {clusters: 3}\n", "expected about, cost, reach"),
        ("cost: b\nreach: c\nonto: ground\nparams: {clusters: 3}\n", "expected about, cost, reach"),
        ("about: a\ncost: b\nreach: c\nparam: {clusters: 3}\n", "expected about, cost, reach"),
        ("about: a\ncost: b\nreach: c\nsize: [1]\n", "expected a mapping"),
        ("about: a\ncost: b\nreach: c\nonto: ../recipe\nparams: {clusters: 3}\n", "a recipe in the same folder: below"),
        ("about: a\ncost: b\nreach: c\nonto: below\nparams: {clusters: 3}\n", "itself builds onto ground"),
    ],
)
def test_a_wrong_recipe_is_named_and_nothing_is_written(content, message, tmp_path):
    (tmp_path / "recipe.yaml").write_text(content)
    (tmp_path / "below.yaml").write_text("about: a\ncost: b\nreach: c\nonto: ground\nparams: {clusters: 5}\n")
    with pytest.raises(SystemExit, match=message) as refusal:
        earshot("recipe", tmp_path / "recipe.yaml", "--keep", "--params", PARAMS, "--output", tmp_path / "out.yaml")
    assert "recipe.yaml" in str(refusal.value)
    assert not (tmp_path / "out.yaml").exists()


def test_an_override_applies_after_the_recipes(tmp_path):
    apply_recipes([SIZE], PARAMS.read_text(), tmp_path / "params.yaml", ["pretrain.epochs=3", "seed=7"])
    params = load_params(Pipeline, tmp_path / "params.yaml")
    assert (params.pretrain.epochs, params.seed, params.sample.clips) == (3, 7, 2000)
    with pytest.raises(EarshotError, match="expected key=value"):
        apply_recipes([SIZE], PARAMS.read_text(), tmp_path / "params.yaml", ["seed"])


PLACES = [REPOSITORY / "docs" / "reproducing.md", REPOSITORY / "recipes" / "owens-random.yaml"]


@pytest.mark.parametrize("place", PLACES, ids=lambda path: path.name)
def test_the_settings_for_a_row_of_others_load_weights_of_caffe(place, tmp_path):
    folded = " ".join(place.read_text().replace("\\\n", " ").split())
    (settings,) = re.findall(r"((?:--set pretrain\.\w+=\S+ ?)*--set pretrain\.weights=\S+)", folded)
    file = tmp_path / "tracking.safetensors"
    overrides = re.sub(r"(?<=weights=)\S+", str(file), settings).replace("--set", "").split()
    smaller = [*overrides, "pretrain.width=0.0625"]
    apply_recipes([REPOSITORY / "recipes" / "owens-random.yaml"], PARAMS.read_text(), tmp_path / "params.yaml", smaller)
    pretrain = load_params(Pipeline, tmp_path / "params.yaml").pretrain
    size = {"width": pretrain.width, "image_size": pretrain.image_size, "dropout": pretrain.dropout}
    caffes = build_network("caffenet_plain", classes=4, **size).state_dict()
    layers = [*(f"conv{n}" for n in range(1, 6)), "fc6", "fc7"]  # as `earshot caffemodel --leave-out fc8_tracking`
    names = {f"{layer}.{part}" for layer in layers for part in ("weight", "bias")}
    save_file(
        {key.removeprefix("body."): value for key, value in caffes.items() if key.removeprefix("body.") in names}, file
    )
    network = build_network(pretrain.backbone, classes=30, **size)
    with pytest.warns(UserWarning, match="has no weights of fc8; the network keeps its own"):
        load_weights(network, Path(pretrain.weights))
    assert pretrain.epochs == 0
    assert all((network.state_dict()[key] == caffes[key]).all() for key in caffes if "fc8" not in key)


def test_a_recipe_starts_from_the_committed_parameters_and_prints_what_it_drops(committed_params, capsys):
    params = committed_params
    earshot("recipe", REPOSITORY / "recipes" / "owens-binary.yaml", "--params", params)
    capsys.readouterr()
    earshot("recipe", REPOSITORY / "recipes" / "mahadev-mfcc.yaml", "--params", params)
    printed = capsys.readouterr().out.splitlines()
    start = next(place for place, line in enumerate(printed) if "not committed, so dropped" in line)
    number = int(printed[start].split()[0])
    assert number > 10 and printed[start + 11] == f"  and {number - 10} more"
    assert all(line.startswith("  ") for line in printed[start + 1 : start + 11])
    again = params.read_text()
    params.write_text(PARAMS.read_text())
    earshot("recipe", REPOSITORY / "recipes" / "mahadev-mfcc.yaml", "--params", params)
    assert params.read_text() == again
    assert "dropped" not in capsys.readouterr().out
    earshot("recipe", SIZE, "--params", params, "--keep")
    assert load_params(Pipeline, params).descriptor == "mfcc"


def test_outside_a_repository_recipes_are_refused_and_not_mixed(tmp_path, capsys):
    params = tmp_path / "params.yaml"
    params.write_text(PARAMS.read_text())
    with pytest.raises(SystemExit, match="the committed state cannot be read .*--keep"):
        earshot("recipe", REPOSITORY / "recipes" / "owens-binary.yaml", "--params", params)
    assert params.read_text() == PARAMS.read_text()


def test_a_recipe_prints_what_is_missing_and_reset_restores_the_committed_parameters(committed_params, capsys):
    params = committed_params
    earshot("recipe", REPOSITORY / "recipes" / "owens-binary.yaml", "--params", params)
    printed = capsys.readouterr().out
    assert "evaluate.voc.data_dir: ../VOCdevkit" in printed and "cost of owens-binary: " in printed
    earshot("recipe", "--reset", "--params", params)
    assert "params.yaml: as committed; " in capsys.readouterr().out
    assert params.read_text() == PARAMS.read_text()


def test_reset_prints_the_values_that_it_drops_and_which_are_removed(committed_params, capsys):
    earshot("recipe", SIZE.with_name("benchmark-dcase.yaml"), "--params", committed_params, "--set", "clusters=15")
    capsys.readouterr()
    earshot("recipe", "--reset", "--params", committed_params)
    heading, *lines = capsys.readouterr().out.splitlines()
    assert heading == f"{committed_params}: as committed; 7 values dropped:" and len(lines) == 7
    assert f"  clusters: {DEFAULTS['clusters']} again (was 15)" in lines
    assert "  evaluate.dcase.windows: removed (was 60)" in lines
    committed_params.write_text(PARAMS.read_text().replace("\nclusters:", "\n#clusters:"))
    earshot("recipe", "--reset", "--params", committed_params)
    heading, line = capsys.readouterr().out.splitlines()
    assert heading == f"{committed_params}: as committed; 1 value dropped:"
    assert line == f"  clusters: {DEFAULTS['clusters']} again (was missing)"
    earshot("recipe", "--reset", "--params", committed_params)
    assert capsys.readouterr().out == f"{committed_params}: as committed, nothing to drop\n"
