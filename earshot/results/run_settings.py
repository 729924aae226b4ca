"""Of a run's parameters: which are its idea, which are the setting it was measured in, and which do not matter.

Runs may stand in one table where only their ideas and seeds differ. So a setting is everything else that can change a
score, and a parameter that a run does not use (the clusters of a binary code) belongs to neither.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

Params = Mapping[str, Any]  # flat, by dotted name

SEEDS = ("seed", "sample.seed")
LABELS = "labels"  # no parameter: where labels are none that the pipeline makes, what they are, from labels.txt
STEPS = "steps, as epochs of half the moments"  # that the distance filter keeps: what rows with and without have alike
NO_WEIGHTS = "earshot/networks"
OWN_NETWORKS = ("alexnet", "caffenet")  # the others come in width 1 alone
UNUSED_OF_LABELS = {
    "clusters": ("label.components", "label.threshold", "label.textons"),
    "binary": ("clusters", "label.distance_filter", "label.iterations", "label.restarts", "label.textons"),
    "textons": ("descriptor", "texture", "label.components", "label.threshold", "label.scale"),
}
# How the work is cut, what runs beside it, and limits: none changes a score. What a benchmark is told counts for it.
INDIFFERENT = ("download", "corpus.accept_pending", "sample.shard_clips", "sample.esc50_sounds", "extract.shard_clips")
INDIFFERENT += ("extract.clip_seconds", "sample.localisation", "corpus.ontology", "evaluate", "explain")
OF_A_BENCHMARK = ("layers", "modes", "encoder")  # which scores are computed, and of what this pipeline trained


@dataclass(frozen=True)
class Training:
    """One of the pipeline's two trainings, and what of a run's parameters is an idea of it.

    Args:
        stage: of which it is the work; the group of its parameters, and its folder in models/.
        ideas: by what the rows of a table are told apart. No training at all is an idea, the number of epochs a
            setting.
        plain: what a row does unless it says otherwise.
        of_the_network: of the parameters of the stage, those on which random weights depend.
        indifferent: what changes no score of its networks.
        unused: of a run's parameters, those that its training does not use.
        steps: how long a run trained, where epochs of different lengths do not say it; else nothing.
    """

    stage: str
    ideas: tuple[str, ...]
    plain: Params
    of_the_network: tuple[str, ...]
    indifferent: tuple[str, ...]
    unused: Callable[[Params], Iterator[str]]
    steps: Callable[[Params], dict[str, float]]

    @property
    def untrained(self) -> str:
        """The parameter that is 0 where nothing was trained."""
        return f"{self.stage}.epochs"

    def is_random(self, idea: Params) -> bool:
        """Whether this idea is not to train at all, nor to begin with anything but random weights."""
        plain = all(idea.get(key, value) == value for key, value in self.plain.items())
        return idea.get(self.untrained) == 0 and plain

    def used(self, params: Params) -> dict[str, Any]:
        """The parameters that this run uses."""
        unused = [*self.indifferent, *self.unused(params)]
        if params.get(self.untrained) == 0:
            unused += [LABELS, "descriptor", "texture", "clusters", "label"]
            kept = (*self.of_the_network, self.untrained)
            unused += [key for key in params if key.startswith(f"{self.stage}.") and key not in kept]
        return {key: value for key, value in params.items() if not _among(key, unused)}

    def idea(self, params: Params, more: tuple[str, ...] = ()) -> dict[str, Any]:
        """The parameters that make the run's idea; `more` names further ones that a table tells its rows apart by."""
        found = {key: value for key, value in self.used(params).items() if key in (*self.ideas, *more)}
        return found | ({self.untrained: 0} if params.get(self.untrained) == 0 else {})

    def setting(self, params: Params, benchmarks: set[str], more: tuple[str, ...] = ()) -> dict[str, Any]:
        """All else that can change a score on one of `benchmarks`, but for the seeds."""
        apart, steps = {*self.idea(params, more), *SEEDS}, self.steps(params)
        if steps:
            apart.add(self.untrained)
        own = {key: value for key, value in self.used(params).items() if key not in apart}
        groups = [f"evaluate.{name}" for name in benchmarks]
        measured = {key: value for key, value in own.items() if _among(key, groups)}
        return {
            **steps,
            **{key: value for key, value in own.items() if not _among(key, INDIFFERENT)},
            **{key: value for key, value in measured.items() if not key.endswith(OF_A_BENCHMARK)},
        }


def _unused_by_labels(params: Params) -> Iterator[str]:
    yield from UNUSED_OF_LABELS.get(params.get("label.model"), ())
    if LABELS in params:
        yield from ("descriptor", "texture", "clusters", "label")
    if params.get("descriptor") != "texture":
        yield "texture"
    if params.get("pretrain.backbone") not in OWN_NETWORKS:
        yield "pretrain.width"


def _unused_by_pairs(params: Params) -> Iterator[str]:
    if params.get("correspond.network") == "multisensory":
        yield from ("correspond.stride", "extract.frames", "extract.times", "extract.frame_size")
    else:
        yield from ("correspond.frames", "correspond.sound_samples", "extract.sequence_rate", "extract.sequence_size")
    if params.get("correspond.negatives") != "shifted":
        yield "correspond.shift"
    if params.get("correspond.schedule") == "onecycle":
        yield from ("correspond.drops", "correspond.drop")


def _label_steps(params: Params) -> dict[str, float]:
    """How long was pretrained, in epochs of half the moments; nothing where nothing was."""
    filtered = params.get("label.distance_filter") and params.get("label.model") != "binary"
    epochs = params.get("pretrain.epochs")
    return {STEPS: epochs if filtered else 2 * epochs} if epochs else {}


PRETRAIN = Training(
    stage="pretrain",
    ideas=(
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
    ),
    plain={
        LABELS: None,
        "label.control": "none",
        "pretrain.initialisation": "random",
        "pretrain.weights": NO_WEIGHTS,
    },
    of_the_network=(
        "pretrain.backbone",
        "pretrain.width",
        "pretrain.image_size",
        "pretrain.initialisation",
        "pretrain.weights",
    ),
    indifferent=(
        "label.memory_megabytes",
        "pretrain.threads",
        "pretrain.control",
        "extract.sequence_rate",
        "extract.sequence_size",
        "correspond",
    ),
    unused=_unused_by_labels,
    steps=_label_steps,
)
CORRESPOND = Training(
    stage="correspond",
    ideas=(
        "correspond.network",
        "correspond.weights",
        "correspond.positives",
        "correspond.negatives",
        "correspond.crop",
        "correspond.jitter",
        "correspond.grey",
        "correspond.flip",
        "correspond.volume",
    ),
    plain={"correspond.weights": NO_WEIGHTS},
    of_the_network=(
        "correspond.network",
        "correspond.weights",
        "correspond.width",
        "correspond.stride",
        "correspond.image_size",
        "correspond.frames",
        "correspond.sound_samples",
    ),
    indifferent=(
        "descriptor",
        "clusters",
        "texture",
        "label",
        "pretrain",
        "correspond.threads",
        "correspond.control",
        "extract.window",
    ),
    unused=_unused_by_pairs,
    steps=lambda params: {},
)
TRAININGS = {training.stage: training for training in (PRETRAIN, CORRESPOND)}


def agree(one: Params, other: Params) -> bool:
    """Whether two settings have the same value wherever both have one."""
    return all(one[key] == other[key] for key in one.keys() & other.keys())


def told(params: Params) -> str:
    """Parameters in words, as --set takes them."""
    return ", ".join(f"{key}={value}" for key, value in params.items())


def _among(key: str, names: list[str] | tuple[str, ...]) -> bool:
    return any(key == name or key.startswith(f"{name}.") for name in names)
