"""Of a run's parameters: which are its idea, which are the setting it was measured in, and which do not matter.

Runs may stand in one table where only their ideas and seeds differ. So a setting is everything else that can change a
score, and a parameter that a run does not use (the clusters of a binary code) belongs to neither.
"""

from collections.abc import Mapping
from typing import Any

Params = Mapping[str, Any]  # flat, by dotted name

SEEDS = ("seed", "sample.seed")
LABELS = "labels"  # no parameter: where labels are none that the pipeline makes, what they are, from labels.txt
# By what the rows of a table are told apart. No pretraining at all is an idea, the number of epochs is a setting.
IDEAS = (
    LABELS,
    "descriptor",
    "clusters",
    "label.model",
    "label.components",
    "label.threshold",
    "label.textons",
    "label.control",
    "pretrain.initialisation",
    "pretrain.weights",
)
UNTRAINED = "pretrain.epochs"
STEPS = "steps, as epochs of half the moments"  # that the distance filter keeps: what rows with and without have alike
NO_WEIGHTS = "earshot/networks"
# What a row of a table does unless it says otherwise.
PLAIN = {LABELS: None, "label.control": "none", "pretrain.initialisation": "random", "pretrain.weights": NO_WEIGHTS}
# How the work is cut, what runs beside it, and limits: none changes the score of a picture.
INDIFFERENT = ("download", "corpus.accept_pending", "sample.shard_clips", "sample.esc50_sounds", "extract.shard_clips")
INDIFFERENT += ("extract.clip_seconds", "label.memory_megabytes", "pretrain.threads", "pretrain.control", "evaluate")
INDIFFERENT += ("extract.sequence_rate", "extract.sequence_size", "sample.localisation", "corpus.ontology")
INDIFFERENT += ("correspond",)
OF_A_BENCHMARK = ("layers", "modes", "encoder")  # which scores are computed, and of what this pipeline trained
OF_THE_NETWORK = ("pretrain.backbone", "pretrain.initialisation", "pretrain.weights", "pretrain.image_size")
OWN_NETWORKS = ("alexnet", "caffenet")  # the others come in width 1 alone
UNUSED = {
    "clusters": ("label.components", "label.threshold", "label.textons"),
    "binary": ("clusters", "label.distance_filter", "label.iterations", "label.restarts", "label.textons"),
    "textons": ("descriptor", "texture", "label.components", "label.threshold", "label.scale"),
}


def used(params: Params) -> dict[str, Any]:
    """The parameters that this run uses."""
    unused = [*UNUSED.get(params.get("label.model"), ())]
    if LABELS in params:
        unused += ["descriptor", "texture", "clusters", "label"]
    if params.get("descriptor") != "texture":
        unused.append("texture")
    if params.get("pretrain.backbone") not in OWN_NETWORKS:
        unused.append("pretrain.width")
    if params.get(UNTRAINED) == 0:
        unused += [LABELS, "descriptor", "texture", "clusters", "label"]
        network = (*OF_THE_NETWORK, "pretrain.width", UNTRAINED)
        unused += [key for key in params if key.startswith("pretrain.") and key not in network]
    return {key: value for key, value in params.items() if not _among(key, unused)}


def idea(params: Params, more: tuple[str, ...] = ()) -> dict[str, Any]:
    """The parameters that make the run's idea; `more` names further ones that a table tells its rows apart by."""
    found = {key: value for key, value in used(params).items() if key in (*IDEAS, *more)}
    return found | ({UNTRAINED: 0} if params.get(UNTRAINED) == 0 else {})


def setting(params: Params, benchmarks: set[str], more: tuple[str, ...] = ()) -> dict[str, Any]:
    """All else that can change a score on one of `benchmarks`, but for the seeds."""
    apart = {*idea(params, more), *SEEDS, UNTRAINED}
    own = {key: value for key, value in used(params).items() if key not in apart}
    measured = {key: value for key, value in own.items() if _among(key, [f"evaluate.{name}" for name in benchmarks])}
    return {
        **training_steps(params),
        **{key: value for key, value in own.items() if not _among(key, INDIFFERENT)},
        **{key: value for key, value in measured.items() if not key.endswith(OF_A_BENCHMARK)},
    }


def training_steps(params: Params) -> dict[str, float]:
    """How long was trained, in epochs of half the moments; nothing for a run that was not trained."""
    filtered = params.get("label.distance_filter") and params.get("label.model") != "binary"
    epochs = params.get(UNTRAINED)
    return {STEPS: epochs if filtered else 2 * epochs} if epochs else {}


def agree(one: Params, other: Params) -> bool:
    """Whether two settings have the same value wherever both have one."""
    return all(one[key] == other[key] for key in one.keys() & other.keys())


def told(params: Params) -> str:
    """Parameters in words, as --set takes them."""
    return ", ".join(f"{key}={value}" for key, value in params.items())


def _among(key: str, names: list[str] | tuple[str, ...]) -> bool:
    return any(key == name or key.startswith(f"{name}.") for name in names)
