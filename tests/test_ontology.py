"""Ontologies: distances by hand, several parents, and invalid files."""

import json

import numpy as np
import pytest

from earshot.core.errors import EarshotError
from earshot.corpus.ontology import read_ontology
from earshot.world import KINDS
from earshot.world.ontology import write_ontology


def written(folder, **children):
    """An ontology of classes and their children by name; the ids are the names after a slash."""
    entries = [{"id": f"/{name}", "name": name, "child_ids": [f"/{child}" for child in below]}
               for name, below in children.items()]  # fmt: skip
    (folder / "ontology.json").write_text(json.dumps(entries))
    return folder / "ontology.json"


@pytest.fixture
def instruments(tmp_path):
    """Singing is below both voice and music, as in AudioSet's ontology."""
    return read_ontology(
        written(
            tmp_path, human=["voice"], voice=["speech", "singing"], speech=[], singing=["choir"], choir=[],
            music=["guitar", "singing"], guitar=["bass"], bass=[],
        )
    )  # fmt: skip


@pytest.mark.parametrize(
    ("one", "other", "steps"),
    [
        ("guitar", "guitar", 0),
        ("guitar", "bass", 1),
        ("guitar", "singing", 2),
        ("speech", "singing", 2),
        ("bass", "choir", 4),
        ("human", "music", 2),  # their common ancestor is the root
        ("voice", "guitar", 4),  # not 3, through singing, which is below both
        ("speech", "bass", 6),
        ("choir", "human", 3),
    ],
)
def test_a_distance_counts_steps_up_to_the_nearest_common_ancestor(instruments, one, other, steps):
    assert instruments.distance(one, other) == instruments.distance(f"/{other}", one) == steps


def test_a_table_of_distances_is_symmetric_and_has_the_largest(instruments):
    table = instruments.distances(["speech", "bass", "choir"])
    np.testing.assert_array_equal(table, [[0, 6, 3], [6, 0, 4], [3, 4, 0]])
    assert instruments.diameter() == 6


def test_descendants_and_ancestors_are_all_below_and_above(instruments):
    assert instruments.descendants("voice") == {"/speech", "/singing", "/choir"}
    assert instruments.descendants("bass") == set()
    assert instruments.ancestors("choir") == {"/singing", "/voice", "/human", "/music"}


def test_an_unknown_class_is_refused_with_the_nearest(instruments):
    with pytest.raises(EarshotError, match=r"ontology.json: has no class 'guitars'; the nearest is 'guitar'"):
        instruments.distance("bass", "guitars")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "cannot be read as JSON"),
        ("{}", "holds no list of classes"),
        ('[{"id": "/a", "name": "a"}]', "class 1: expected id and name"),
        ('[{"id": "/a", "name": "a", "child_ids": ["/b"]}]', "'/b', which is not a class"),
        ('[{"id": "/a", "name": "a", "child_ids": []}, {"id": "/b", "name": "a", "child_ids": []}]', "occurs twice"),
        ('[{"id": "/a", "name": "a", "child_ids": ["/a"]}]', "a is its own descendant"),
    ],
)
def test_an_invalid_file_is_refused(tmp_path, text, message):
    (tmp_path / "ontology.json").write_text(text)
    with pytest.raises(EarshotError, match=message):
        read_ontology(tmp_path / "ontology.json")


def test_the_sample_world_has_kinds_near_and_far(tmp_path):
    write_ontology(tmp_path)
    ontology = read_ontology(tmp_path / "ontology.json")
    table = ontology.distances(KINDS)
    assert ontology.distance("surf", "rain") == ontology.distance("bird", "crowd") == 2
    assert ontology.distance("surf", "fire") == 4
    assert ontology.distance("bell", "bird") == 4
    assert ontology.distance("car", "surf") == table.max() == ontology.diameter() == 6


def test_the_ontology_of_audioset_is_read(real_data):
    ontology = read_ontology(real_data / "metadata" / "audioset" / "ontology.json")
    assert len(ontology.names) == 632
    assert ontology.distance("Acoustic guitar", "Electric guitar") == 2
    assert ontology.distance("/m/0jbk", "Animal") == 0
    assert ontology.diameter() == 11
    assert {ontology.names[child] for child in ontology.descendants("Dog")} >= {"Bark", "Howl"}
