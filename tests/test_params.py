"""Parameters: an error names a wrong one before any work."""

import pytest
from conftest import PARAMS
from hypothesis import given
from hypothesis import strategies as st

from earshot.core.errors import EarshotError
from earshot.core.params import load_params, unknown_key
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
        ("descriptor=mfc", "expected 'mfcc', 'spectrum' or 'texture'; the nearest is mfcc"),
        ("evaluate.finetune.modes=[hed]", "evaluate.finetune.modes.0 is 'hed'"),
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


@given(st.sampled_from(NAMES), st.data())
def test_a_misspelled_parameter_is_still_found(name, data):
    last = name.rpartition(".")[2]
    position = data.draw(st.integers(0, len(last) - 1))
    slip = name[: len(name) - len(last)] + last[:position] + "_" + last[position:]
    nearest = unknown_key(slip, NAMES).rpartition("the nearest is ")[2]
    assert nearest in NAMES
