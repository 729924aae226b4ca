"""Parameters: what is wrong is refused by name before any work."""

from pathlib import Path

import pytest
from earshot.pipeline.params import load_params, parameter_names, read_yaml, unknown_key
from hypothesis import given
from hypothesis import strategies as st

from earshot.commands.recipe import flatten
from earshot.core.errors import EarshotError

REPOSITORY = Path(__file__).parent.parent
PARAMS = REPOSITORY / "params.yaml"


def test_the_default_parameters_are_valid_and_every_one_stands_in_the_file(tmp_path):
    load_params(PARAMS)
    groups = {name.rpartition(".")[0] for name in parameter_names()}
    text = PARAMS.read_text()
    first, last = text.split("# Two more, of which the sample has no tree")
    _, *commented = last.splitlines()
    whole = tmp_path / "params.yaml"
    whole.write_text(first + "\n".join(line.removeprefix("#") for line in commented))
    load_params(whole)
    assert {key for key, _ in flatten(read_yaml(whole))} == set(parameter_names()) - groups


@pytest.mark.parametrize(
    ("override", "told"),
    [
        ("cluster=3", "unknown parameter cluster; the nearest is clusters"),
        ("pretrain.epoch=3", "the nearest is pretrain.epochs"),
        ("epochs=3", "the nearest is pretrain.epochs"),
        ("evaluate.vocc.tree=x", "the nearest is evaluate.voc.tree"),
        ("clusters=two", "clusters is 'two', wanted a valid integer"),
        ("clusters=1", "clusters is 1, wanted greater than or equal to 2"),
        ("extract.frames=2.5", "extract.frames is 2.5"),
        ("label.distance_filter=1", "label.distance_filter is 1"),
        ("pretrain.learning_rate=.nan", "pretrain.learning_rate is nan"),
        ("pretrain.learning_rate=-1e-3", "pretrain.learning_rate is -0.001"),
        ("descriptor=mfc", "wanted 'texture', 'mfcc' or 'spectrum'; the nearest is mfcc"),
        ("evaluate.voc.layers=[conv9]", "evaluate.voc.layers.0 is 'conv9'"),
        ("sample=3", "sample is a group"),
        ("clusters", "wanted key=value"),
        ("clusters=[1", "cannot be read as YAML"),
    ],
)
def test_a_wrong_override_is_refused_by_name(override, told):
    with pytest.raises(EarshotError) as refusal:
        load_params(PARAMS, [override])
    assert told in str(refusal.value)


def test_overrides_are_laid_over_the_file_in_order():
    params = load_params(PARAMS, ["clusters=5", "clusters=15", "sample.seconds=9", "pretrain.learning_rate=1e-2"])
    assert (params.clusters, params.sample.seconds, params.pretrain.learning_rate) == (15, 9.0, 0.01)


def test_a_missing_parameter_is_named(tmp_path):
    text = PARAMS.read_text().replace("clusters: 30", "")
    (tmp_path / "params.yaml").write_text(text)
    with pytest.raises(EarshotError, match="clusters is missing"):
        load_params(tmp_path / "params.yaml")


@pytest.mark.parametrize("content", ["", "a: [1", "- 1", "\x00"])
def test_a_file_that_is_no_mapping_is_refused(tmp_path, content):
    (tmp_path / "params.yaml").write_text(content)
    with pytest.raises(EarshotError, match=r"params\.yaml"):
        load_params(tmp_path / "params.yaml")


@given(st.sampled_from(parameter_names()), st.data())
def test_a_slip_of_one_letter_still_finds_the_parameter(name, data):
    last = name.rpartition(".")[2]
    place = data.draw(st.integers(0, len(last) - 1))
    slip = name[: len(name) - len(last)] + last[:place] + "_" + last[place:]
    nearest = unknown_key(slip).rpartition("the nearest is ")[2]
    assert nearest in parameter_names()
