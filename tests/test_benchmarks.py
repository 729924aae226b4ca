"""What benchmarks have in common: how they are displayed."""

import json
import re

import pytest

from earshot.benchmarks import voc
from earshot.core.registry import find_all, names

BENCHMARKS = names("earshot.benchmarks")


@pytest.mark.parametrize("benchmark", BENCHMARKS)
def test_how_a_benchmark_is_displayed_is_described_as_json(benchmark):
    of = find_all("earshot.benchmarks", "BENCHMARK")[benchmark]
    described = json.loads(json.dumps(of.describe()))
    assert described["title"] == of.title and described["higher_is_better"] is True
    assert not of.leading or re.fullmatch(f"({of.scores})(?:_(.+))?", of.leading)
    assert all(prefix.endswith("_") for prefix in [*of.controls.values(), *of.alike.values()])
    assert set(of.own_beside) <= set(of.controls)


def test_voc_is_displayed_as_the_papers_have_it():
    described = voc.BENCHMARK.describe()
    assert {"params", "evaluate"}.isdisjoint(described)
    assert described["controls"] == {"wrong sound": "wrong_sound_", "random weights": "random_"}
    assert (described["scores"], described["leading"], described["metric"]) == ("map", "map_pool5", "mAP")
