"""The model card of a network, made from its run: corpus, parameters, and scores beside their controls."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from earshot.core.yaml_files import flatten, read_yaml
from earshot.embedding.network import NetworkModel
from earshot.networks.correspondence import is_correspondence
from earshot.pipeline.stage import read_clips_hash
from earshot.results.runs import read_metrics
from earshot.results.score_tables import Display, displays_of, grid, is_rendered, registered_displays

CORPUS = ("seed", "corpus.clips", "corpus.manifest")  # parameters beside those of the training


def model_card(model: NetworkModel, run: Path | None, license: str) -> str:
    """The text of README.md, with the metadata that Hugging Face reads.

    Args:
        model: the network.
        run: the folder with params.yaml and metrics/, if there is one.
        license: of the weights; empty if unknown.
    """
    return "\n".join([*_head(license), *_use(model), *_training(model, run), *_scores(model, run)]) + "\n"


def _head(license: str) -> Iterator[str]:
    yield "---"
    yield "library_name: earshot"
    yield f"license: {license or 'unknown'}"
    yield "tags: [earshot, audio-visual, self-supervised, feature-extraction]"
    yield "---"
    yield ""


def _use(model: NetworkModel) -> Iterator[str]:
    yield f"# {model.name}, trained with Earshot"
    yield ""
    yield "```python"
    yield "import earshot"
    yield ""
    yield 'model = earshot.load("<this repository or folder>")'
    if model.audio_dimensions:
        yield f'embeddings, times = model.embed_audio("sound.wav")  # (T, {model.audio_dimensions})'
    yield f'vector = model.embed_image("image.jpg")  # ({model.image_dimensions},)'
    yield "```"
    yield ""
    yield "| | |"
    yield "|---|---|"
    yield f"| fingerprint | `{model.fingerprint}` |"
    for key, value in model.network.architecture.items():
        yield f"| {key.replace('_', ' ')} | {value} |"
    yield ""


def _training(model: NetworkModel, run: Path | None) -> Iterator[str]:
    yield "## Training"
    yield ""
    clips_hash = read_clips_hash(model.source)
    yield f"The hash of the list of clips is `{clips_hash}`." if clips_hash else "The list of clips is unknown."
    yield ""
    stage = f"{_stage(model)}."
    params = _params(run)
    if any(key.startswith(stage) for key in params):
        yield "| parameter | value |"
        yield "|---|---|"
        for key, value in params.items():
            if key.startswith(stage) or key in CORPUS:
                yield f"| `{key}` | {value} |"
        yield ""


def _scores(model: NetworkModel, run: Path | None) -> Iterator[str]:
    """The scores of the benchmarks that probed this network."""
    params = _params(run)
    if run is None or not params:
        return
    for name, display in displays_of(registered_displays(), params).items():
        is_of_model = params.get(f"evaluate.{name}.encoder") == f"models/{_stage(model)}"
        if is_of_model and (values := read_metrics(run, name)):
            yield from _table(display, values)
            if is_rendered(params, name):
                yield "This benchmark is rendered: do not compare its scores with published ones."
                yield ""


def _table(display: Display, values: dict[str, float]) -> Iterator[str]:
    scores = grid(display, values)
    yield f"## {display.heading}"
    yield ""
    yield f"| | {' | '.join(scores.columns.values())} |"
    yield f"|---|{'---|' * len(scores.columns)}"
    for row, by_column in scores.rows.items():
        cells = (f"{by_column[key]:.3f}" if by_column.get(key) is not None else "" for key in scores.columns)
        yield f"| {row} | {' | '.join(cells)} |"
    for row, score in scores.alike.items():
        yield f"| {row} | {' | '.join([f'{score:.3f}'] * len(scores.columns))} |"
    yield ""


def _stage(model: NetworkModel) -> str:
    return "correspond" if is_correspondence(model.name) else "pretrain"


def _params(run: Path | None) -> dict[str, Any]:
    file = run / "params.yaml" if run else None
    return dict(flatten(read_yaml(file))) if file and file.is_file() else {}
