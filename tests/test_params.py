"""Parameters: an error names a wrong one before any work."""

import copy

import pytest
from conftest import PARAMS
from hypothesis import given, settings
from hypothesis import strategies as st

from earshot.commands.recipe import apply_recipes
from earshot.core.errors import EarshotError
from earshot.core.params import check_params, load_params, set_value, split_override, unknown_key
from earshot.core.yaml_files import flatten, read_yaml
from earshot.params.schema import Pipeline, parameter_names

NAMES = parameter_names()


def test_the_default_parameters_are_valid_and_every_one_is_in_the_file(tmp_path):
    load_params(Pipeline, PARAMS)
    groups = {name.rpartition(".")[0] for name in NAMES}
    text = PARAMS.read_text()
    first, last = text.split("# Four more benchmarks")
    _, *commented = last.splitlines()
    whole = tmp_path / "params.yaml"
    whole.write_text(first + "\n".join(line.removeprefix("#") for line in commented))
    load_params(Pipeline, whole)
    assert {key for key, _ in flatten(read_yaml(whole))} == set(NAMES) - groups


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("cluster=3", "unknown parameter cluster; the nearest is clusters"),
        ("pretrain.epoch=3", "the nearest is pretrain.epochs"),
        ("epochs=3", "the nearest is pretrain.epochs"),
        ("evaluate.vocc.data_dir=x", "the nearest is evaluate.voc.data_dir"),
        ("clusters=two", "clusters is 'two', expected a valid integer"),
        ("clusters=1", "clusters is 1, expected greater than or equal to 2"),
        ("extract.frames=2.5", "extract.frames is 2.5"),
        ("label.distance_filter=1", "label.distance_filter is 1"),
        ("pretrain.learning_rate=.nan", "pretrain.learning_rate is nan"),
        ("pretrain.learning_rate=-1e-3", "pretrain.learning_rate is -0.001"),
        ("descriptor=mfc", "expected 'encoder', 'mfcc', 'spectrum' or 'texture'; the nearest is mfcc"),
        ("evaluate.finetune.modes=[hed]", "evaluate.finetune.modes.0 is 'hed'"),
        ("correspond.temperature=-1", "correspond.temperature is -1, expected greater than 0 or 'learned'"),
        ("correspond.temperature=lerned", "is 'lerned', expected a valid number or 'learned'; the nearest is learned"),
        ("sample=3", "sample is a group"),
        ("clusters", "expected key=value"),
        ("clusters=[1", "cannot be read as YAML"),
    ],
)
def test_a_wrong_override_is_named(override, message):
    with pytest.raises(EarshotError) as refusal:
        load_params(Pipeline, PARAMS, [override])
    assert message in str(refusal.value)


def test_overrides_apply_in_order():
    overrides = ["clusters=5", "clusters=15", "sample.duration_s=9", "pretrain.learning_rate=1e-2"]
    params = load_params(Pipeline, PARAMS, overrides)
    assert (params.clusters, params.sample.duration_s, params.pretrain.learning_rate) == (15, 9.0, 0.01)


def test_a_missing_parameter_is_named(tmp_path):
    text = PARAMS.read_text().replace("clusters: 30", "")
    (tmp_path / "params.yaml").write_text(text)
    with pytest.raises(EarshotError, match="clusters is missing"):
        load_params(Pipeline, tmp_path / "params.yaml")


@pytest.mark.parametrize("content", ["", "a: [1", "- 1", "\x00"])
def test_a_file_that_is_no_mapping_is_refused(tmp_path, content):
    (tmp_path / "params.yaml").write_text(content)
    with pytest.raises(EarshotError, match=r"params\.yaml"):
        load_params(Pipeline, tmp_path / "params.yaml")


@settings(deadline=None)
@given(st.sampled_from(NAMES), st.data())
def test_a_misspelled_parameter_is_still_found(name, data):
    last = name.rpartition(".")[2]
    position = data.draw(st.integers(0, len(last) - 1))
    slip = name[: len(name) - len(last)] + last[:position] + "_" + last[position:]
    nearest = unknown_key(slip, NAMES).rpartition("the nearest is ")[2]
    assert nearest in NAMES


NOT_DECIMAL = ["8_0", "1_0.5", "1__0", "1e1_0", "010", "0x10", "0o17", "0b11", "1:30", "1,5", "'8'", "\u0661\u0665"]
EMPTY = ["", "''", "~", "null"]


def _answer(key: str, text: str) -> str:
    values = copy.deepcopy(VALUES)
    try:
        set_value(values, *split_override(f"{key}={text}"), known=NAMES)
        check_params(Pipeline, values, "params.yaml")
    except EarshotError as error:
        return str(error)
    return "accepted"


VALUES = read_yaml(PARAMS)
NUMBERS = [k for k, v in flatten(VALUES) if isinstance(v, int | float) and not isinstance(v, bool)]


@pytest.mark.parametrize("text", [*NOT_DECIMAL, "1e400", "1e3x"])
def test_only_decimal_notation_is_a_number(text):
    assert len(NUMBERS) > 50
    assert {key: answer for key in NUMBERS if " expected " not in (answer := _answer(key, text))} == {}


@pytest.mark.parametrize("text", ["8_0", "010", "1_0.5", "0x10"])
def test_the_same_holds_in_params_yaml_and_in_recipes(tmp_path, text):
    message = rf"clusters is '{text}', expected a valid integer"
    (tmp_path / "params.yaml").write_text(PARAMS.read_text().replace("clusters: 30", f"clusters: {text}"))
    with pytest.raises(EarshotError, match=message):
        load_params(Pipeline, tmp_path / "params.yaml")
    with pytest.raises(EarshotError, match=message):  # a file of this kind that a recipe begins with
        apply_recipes([], (tmp_path / "params.yaml").read_text(), tmp_path / "out.yaml")
    recipe = tmp_path / "r.yaml"
    recipe.write_text(f"about: a\ncost: b\nreach: c\nparams: {{clusters: {text}}}\n")
    with pytest.raises(EarshotError, match=message):
        apply_recipes([recipe], PARAMS.read_text(), tmp_path / "out.yaml")
    assert not (tmp_path / "out.yaml").exists()


@pytest.mark.parametrize(("text", "value"), [("1e-3", 0.001), (".5", 0.5), ("1.", 1.0), ("+2", 2.0), ("1e1", 10.0)])
def test_decimal_numbers_are_read(text, value):
    overrides = [f"pretrain.learning_rate={text}"]
    assert load_params(Pipeline, PARAMS, overrides).pretrain.learning_rate == value


@pytest.mark.parametrize("text", EMPTY)
def test_an_empty_value_is_called_empty_and_gets_no_nearest_name(text):
    answers = {key: _answer(key, text) for key, _ in flatten(VALUES)}
    messages = {key: answer for key, answer in answers.items() if answer != "accepted"}
    assert messages["clusters"] == "params.yaml: clusters is empty, expected a valid integer"
    assert not [key for key, answer in messages.items() if "nearest" in answer or "is empty, expected" not in answer]
    assert set(NUMBERS) <= set(messages)
