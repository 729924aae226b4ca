"""The parameters of the whole pipeline, as in params.yaml, for commands that read or set any of them."""

from typing import Annotated, Any

from pydantic import ConfigDict, create_model

from earshot.core.params import INDIFFERENT, Group, Seed, dotted_names
from earshot.core.registry import find_all
from earshot.params import correspond, describe, download, extract, label, pretrain, sample


class Corpus(download.CorpusList, extract.CorpusClips):
    """Where clips come from."""

    model_config = ConfigDict(extra="forbid")


class _Pipeline(Group):
    """All parameters."""

    seed: Seed
    clusters: label.ClusterCount
    sample: sample.Sample
    corpus: Corpus
    download: Annotated[download.Download, INDIFFERENT]
    extract: extract.Extract
    pretrain: pretrain.Pretrain


def _one_each(name: str, package: str, attribute: str) -> type[Group]:
    """A group with a subgroup for every benchmark or exhibit; those that are left out do not run."""
    groups: dict[str, Any] = {key: (module.params | None, None) for key, module in find_all(package, attribute).items()}
    return create_model(name, __base__=Group, **groups)


_FIELDS: dict[str, Any] = {
    name: (Annotated[kind, label.DESCRIBED], ...)
    for name, kind in {"descriptor": describe.Descriptor, **describe.OPTIONS}.items()
}
Pipeline = create_model(
    "Pipeline",
    __base__=_Pipeline,
    correspond=(correspond.Correspond, ...),
    **_FIELDS,
    label=(label.Label, ...),
    evaluate=(_one_each("Evaluate", "earshot.benchmarks", "BENCHMARK"), ...),
    explain=(_one_each("Explain", "earshot.exhibits", "EXHIBIT"), ...),
)


def parameter_names() -> list[str]:
    """All dotted names: groups and single parameters."""
    return list(dotted_names(Pipeline))
