"""Splits a run's parameters into its method (idea), its setting, and those that do not matter.

Runs share a table if only their ideas and seeds differ. The setting is everything else that can change a score. A
parameter that a run does not use (the clusters of a binary code) belongs to neither. The schema marks each parameter
(`Role`, `UsedIf`, `UnusedIf`, `Initial` of earshot/core/params).
"""

from collections.abc import Collection
from functools import cache
from typing import Any

from earshot.core.params import IDEA, INDIFFERENT, Initial, Role, UnusedIf, UsedIf, declared_marks
from earshot.params.schema import Pipeline
from earshot.results.trainings import LABELS, SEEDS, TRAININGS, Params, TrainingStage, among, group_of

STEPS = "steps, as epochs of half the moments"  # kept by a filter: comparable between rows with and without it
MEASURED, DISPLAYED = "evaluate", "explain"  # groups that change no weights


@cache
def marks() -> dict[str, list[Any]]:
    """The marks of each parameter in the schema, by dotted name."""
    return dict(declared_marks(Pipeline))


def role_of(key: str) -> str:
    """`idea`, `indifferent`, `filter`, or empty for a setting."""
    return next((mark.of for mark in marks().get(key, ()) if isinstance(mark, Role)), "")


def idea(training: TrainingStage, params: Params, more: tuple[str, ...] = ()) -> dict[str, Any]:
    """The parameters of a run's idea; `more` names further ones that distinguish the rows of a table.

    No training at all is an idea; the number of epochs is a setting.
    """
    values = {key: value for key, value in used(training, params).items() if _is_idea(training, key) or key in more}
    return values | ({training.untrained: 0} if params.get(training.untrained) == 0 else {})


def setting(
    training: TrainingStage, params: Params, benchmarks: Collection[str], more: tuple[str, ...] = ()
) -> dict[str, Any]:
    """All other parameters that can change a score on one of `benchmarks`, except seeds."""
    excluded, epochs = {*idea(training, params, more), *SEEDS}, steps(training, params)
    if epochs:
        excluded.add(training.untrained)
    own = {key: value for key, value in used(training, params).items() if key not in excluded}
    own = {key: value for key, value in own.items() if role_of(key) != INDIFFERENT.of}
    measured = tuple(map(group_of, benchmarks))
    return {
        **epochs,
        **{key: value for key, value in own.items() if not among(key, (MEASURED, DISPLAYED))},
        **{key: value for key, value in own.items() if among(key, measured)},
    }


def used(training: TrainingStage, params: Params) -> dict[str, Any]:
    """The parameters that a run uses."""
    untrained = params.get(training.untrained) == 0
    unused = (LABELS, *training.targets) if untrained else training.targets if LABELS in params else ()

    def matters(key: str) -> bool:
        if untrained and among(key, (training.stage,)) and key != training.untrained:
            return any(isinstance(mark, Initial) for mark in marks().get(key, ()))
        return not among(key, unused)

    return {key: value for key, value in params.items() if _is_used(training, params, key) and matters(key)}


def steps(training: TrainingStage, params: Params) -> dict[str, float]:
    """The length of training in epochs of half the moments; empty without training or without a filter."""
    epochs = params.get(training.untrained)
    filters = [key for key in marks() if role_of(key) == "filter" and _is_of(training, key)]
    if not epochs or not filters:
        return {}
    filtered = any(params.get(key) and _is_used(training, params, key) for key in filters)
    return {STEPS: epochs if filtered else 2 * epochs}


def agree(one: Params, other: Params) -> bool:
    """Whether two settings have equal values for all common parameters."""
    return all(one[key] == other[key] for key in one.keys() & other.keys())


def format_params(params: Params) -> str:
    """Parameters as text, in the syntax of --set."""
    return ", ".join(f"{key}={value}" for key, value in params.items())


def _is_idea(training: TrainingStage, key: str) -> bool:
    return role_of(key) == IDEA.of or (key == LABELS and bool(training.targets))


def _is_of(training: TrainingStage, key: str) -> bool:
    """Whether a parameter can affect this training, and does not belong to another one."""
    others = [other for other in TRAININGS.values() if other is not training]
    return not any(among(key, (other.stage, *other.targets)) for other in others)


def _is_used(training: TrainingStage, params: Params, key: str) -> bool:
    """Whether a parameter matters, given the values of the others."""
    if not _is_of(training, key):
        return False
    for mark in marks().get(key, ()):
        if isinstance(mark, UsedIf):
            decides = _is_used(training, params, mark.key)
            fits = decides and (not mark.values or params.get(mark.key) in mark.values)
            if fits == isinstance(mark, UnusedIf):
                return False
    return True
