"""The parameters: their names, types and ranges, and how params.yaml and --set become checked values.

Whatever changes a result is a parameter. An unknown key, a wrong type or a value out of range is refused by name before
any work, with the nearest valid name.
"""

import difflib
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from earshot.core.errors import EarshotError

Positive = Annotated[int, Field(ge=1)]
Count = Annotated[int, Field(ge=0)]
Seed = Annotated[int, Field(ge=0, lt=2**32)]
Amount = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Share = Annotated[float, Field(ge=0, le=1)]
Pixels = Annotated[int, Field(ge=32, le=4096)]
Layer = Literal["max5", "pool5", "fc6", "fc7"]
Split = Literal["train", "val", "test"]
Outcome = Literal["refuse", "flag", "ignore"]


class Group(BaseModel):
    """A group of parameters: frozen, strict about types, closed to unknown names."""

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid")


class Sample(Group):
    """The rendered world."""

    seed: Seed
    clips: Positive
    seconds: Annotated[float, Field(ge=4, le=60)]
    picture_size: Pixels
    frame_rate: Positive
    shard_clips: Positive
    voc_train: Positive
    voc_val: Positive
    voc_test: Positive
    sun_images: Positive
    esc50_sounds: Positive
    localisation: Positive


class Select(Group):
    """Which clips of the manifest are asked for."""

    classes: Annotated[tuple[str, ...], Field(strict=False)]
    ontology: str
    clips: Count
    seed: Seed


class Corpus(Group):
    """Where clips come from."""

    manifest: str
    select: Select
    clips: str
    accept_pending: bool
    ontology: str


class Download(Group):
    """From a manifest to tar shards."""

    shard_clips: Positive
    fetch: Literal["whole", "section"]
    seconds_limit: Amount
    megabytes_limit: Amount


class Quality(Group):
    """What is done about clips that decode and yet may be of no use, and from where on they count as such."""

    silent: Outcome
    silent_peak: Share
    still: Outcome
    still_change: Annotated[float, Field(ge=0, le=255)]
    clipped: Outcome
    clipped_share: Share
    duplicate: Outcome
    duplicate_sound: Annotated[float, Field(ge=0, le=0.25)]
    duplicate_picture: Annotated[float, Field(ge=0, le=0.25)]


class Extract(Group):
    """From clips to scenes."""

    frames: Positive
    times: Literal["random", "even"]
    frame_size: Pixels
    jpeg_quality: Annotated[int, Field(ge=1, le=100)]
    sequence_rate: Annotated[float, Field(ge=0, le=60)]
    sequence_size: Pixels
    window: Amount
    shortest: Amount
    clip_seconds: Amount
    megapixels_limit: Amount
    minutes_limit: Amount
    shard_clips: Positive
    quality: Quality


class Texture(Group):
    """The switches of the sound texture, where the papers disagree."""

    order: Literal["compress-then-resample", "resample-then-compress"]
    ends: Literal["lowpass+highpass", "band-passes"]
    modulation_norm: Literal["variance", "squared-mean"]
    exactness: Literal["earshot", "owens-exact"]


class Label(Group):
    """From descriptors to labels."""

    model: Literal["clusters", "binary", "textons"]
    components: Annotated[int, Field(ge=1, le=62)]  # the bits of a code are those of one int64
    threshold: Literal["zero", "median"]
    textons: Annotated[int, Field(ge=2, le=4096)]
    scale: Literal["z-score+sqrt", "sqrt", "count", "none"]
    distance_filter: bool
    control: Literal["none", "wrong-sound"]
    iterations: Positive
    restarts: Positive
    memory_megabytes: Positive


class Pretrain(Group):
    """Training a network to tell the label from a frame."""

    backbone: str
    initialisation: Literal["random", "kmeans"]
    weights: str
    width: Annotated[float, Field(ge=1 / 64, le=4)]
    image_size: Annotated[int, Field(ge=63, le=1024)]  # smaller ones leave nothing after the pools
    batch: Annotated[int, Field(ge=2)]
    epochs: Count
    keep: Literal["last", "best", "lowest-loss"]
    optimiser: Literal["adamw", "adam", "sgd"]
    schedule: Literal["onecycle", "steps"]
    drops: Count
    drop: Share
    learning_rate: Amount
    weight_decay: Annotated[float, Field(ge=0)]
    clip_norm: Amount
    dropout: Annotated[float, Field(ge=0, lt=1)]
    precision: Literal["bf16", "float32"]
    threads: Positive
    crop: Annotated[float, Field(gt=0, le=1)]
    jitter: Share
    grey: Share
    flip: bool
    control: bool


class Correspond(Group):
    """Training a network to tell whether a picture and a sound belong together."""

    network: Literal["l3", "ave", "avol", "multisensory"]
    weights: str
    width: Annotated[float, Field(ge=1 / 64, le=4)]
    stride: Literal[1, 2]
    image_size: Annotated[int, Field(ge=32, le=1024)]
    frames: Positive
    sound_samples: Positive
    positives: Literal["centred", "overlapping"]
    negatives: Literal["other-group", "shifted"]
    grid: Amount
    shift: Amount
    batch: Annotated[int, Field(ge=4, multiple_of=2)]
    epochs: Count
    keep: Literal["last", "best", "lowest-loss"]
    optimiser: Literal["adamw", "adam", "sgd"]
    schedule: Literal["onecycle", "steps"]
    drops: Count
    drop: Share
    learning_rate: Amount
    weight_decay: Annotated[float, Field(ge=0)]
    clip_norm: Amount
    precision: Literal["bf16", "float32"]
    threads: Positive
    crop: Annotated[float, Field(gt=0, le=1)]
    jitter: Share
    grey: Share
    flip: bool
    volume: Annotated[float, Field(ge=0, lt=1)]
    control: bool


class Benchmark(Group):
    """What every benchmark has: its tree, and the encoder that is measured on it."""

    tree: str
    encoder: str


class Voc(Benchmark):
    """PASCAL VOC2007 classification with linear SVMs."""

    layers: Annotated[tuple[Layer, ...], Field(min_length=1, strict=False)]
    resize: Pixels


class Sun(Benchmark):
    """SUN397 with linear SVMs."""

    layers: Annotated[tuple[Layer, ...], Field(min_length=1, strict=False)]
    resize: Pixels
    images: Positive


class Esc50(Benchmark):
    """ESC-50 with linear SVMs on a sound tower, or on a descriptor where `encoder` is earshot/sound."""

    windows: Positive


class Dcase(Benchmark):
    """DCASE acoustic scenes with linear SVMs on a sound tower, or on a descriptor."""

    windows: Positive


class Imagenet(Benchmark):
    """A linear layer on pooled features, for any tree with a folder of pictures a class."""

    resize: Pixels
    epochs: Positive
    batch: Positive
    learning_rate: Amount
    weight_decay: Annotated[float, Field(ge=0)]


class Finetune(Benchmark):
    """PASCAL VOC2007 classification by training on: the fully connected layers, and the whole network."""

    modes: Annotated[tuple[Literal["head", "all"], ...], Field(min_length=1, strict=False)]
    steps: Positive
    batch: Annotated[int, Field(ge=2)]
    learning_rate: Amount
    drops: Count
    drop: Share
    weight_decay: Annotated[float, Field(ge=0)]
    clip_norm: Amount
    crop_smallest: Annotated[float, Field(gt=0, le=1)]
    crop_largest: Annotated[float, Field(gt=0, le=1)]
    crops: Positive


class Detection(Benchmark):
    """PASCAL VOC2007 detection with Fast R-CNN."""

    proposals: Literal["selective-search", "files"]
    proposals_kept: Positive
    shorter_side: Pixels
    longest_side: Pixels
    steps: Positive
    pictures: Positive
    regions: Positive
    learning_rate: Amount
    drops: Count
    drop: Share
    weight_decay: Annotated[float, Field(ge=0)]
    clip_norm: Amount


class Correspondence(Benchmark):
    """Whether pictures and sounds of held-out clips belong together."""

    positives: Literal["centred", "overlapping"]
    negatives: Literal["other-group", "shifted"]
    grid: Amount
    shift: Amount
    supervised_epochs: Count
    supervised_batch: Annotated[int, Field(ge=4, multiple_of=2)]
    supervised_learning_rate: Amount


class Retrieval(Benchmark):
    """Retrieval across and within the senses, among annotated clips."""

    split: Split
    k: Positive


class Nmi(Benchmark):
    """Clusters of embeddings against what humans said of the clips."""

    split: Split
    clusters: Annotated[int, Field(ge=2)]


class Units(Benchmark):
    """Units of the towers that prefer a class."""

    split: Split


class Localisation(Benchmark):
    """Where a sound comes from in a picture, against boxes."""


class Evaluate(Group):
    """One group a benchmark; a benchmark that is left out is not run."""

    voc: Voc | None = None
    sun: Sun | None = None
    esc50: Esc50 | None = None
    finetune: Finetune | None = None
    detection: Detection | None = None
    correspondence: Correspondence | None = None
    retrieval: Retrieval | None = None
    nmi: Nmi | None = None
    units: Units | None = None
    localisation: Localisation | None = None
    dcase: Dcase | None = None
    imagenet: Imagenet | None = None


class Exhibit(Group):
    """What an exhibit is made of: a tree of data, and an encoder."""

    tree: str
    encoder: str


class ClustersExhibit(Exhibit):
    """The moments nearest to each centroid, and what the centroid says of sound."""

    examples: Positive
    heard: Count


class UnitsExhibit(Exhibit):
    """What the units of a layer respond to."""

    layer: str
    frames: Positive
    top: Positive
    gallery: Positive
    selective: Share
    iou: Share
    sounding: Annotated[tuple[str, ...], Field(strict=False)]


class HeatmapsExhibit(Exhibit):
    """Where in frames and spectrograms single units respond."""

    split: Split
    units: Positive
    examples: Positive


class LocalisationExhibit(Exhibit):
    """The map of where a sound comes from, over pictures and over whole clips."""

    pictures: Positive
    videos: Count


class EmbeddingsExhibit(Exhibit):
    """t-SNE of what pictures and sounds are compared by."""

    split: Split
    points: Annotated[int, Field(ge=10)]
    perplexity: Amount


class RetrievalExhibit(Exhibit):
    """The nearest clips to some clips, in four directions."""

    split: Split
    queries: Positive
    results: Positive


class Explain(Group):
    """One group an exhibit; an exhibit that is left out is not made."""

    clusters: ClustersExhibit | None = None
    units: UnitsExhibit | None = None
    heatmaps: HeatmapsExhibit | None = None
    localisation: LocalisationExhibit | None = None
    embeddings: EmbeddingsExhibit | None = None
    retrieval: RetrievalExhibit | None = None


class Params(Group):
    """All parameters of the pipeline."""

    seed: Seed
    descriptor: Literal["texture", "mfcc", "spectrum"]
    clusters: Annotated[int, Field(ge=2, le=32767)]
    sample: Sample
    corpus: Corpus
    download: Download
    extract: Extract
    texture: Texture
    label: Label
    pretrain: Pretrain
    correspond: Correspond
    evaluate: Evaluate
    explain: Explain


def load_params(file: Path, overrides: Sequence[str] = ()) -> Params:
    """Read `file`, lay `key=value` overrides over it and check the whole.

    Raises EarshotError for a missing or broken file, an unknown key, a wrong type or a value out of range.
    """
    values = read_yaml(file)
    for override in overrides:
        set_value(values, *split_override(override))
    return check_params(values, file)


def read_yaml(file: Path) -> dict[str, Any]:
    """The mapping in a YAML 1.2 file (where `1e-3` is a number and `on` a word)."""
    try:
        values = YAML(typ="safe", pure=True).load(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise EarshotError(f"{file}: no such file; run in the folder of params.yaml or name it with --params") from None
    except (OSError, UnicodeDecodeError, YAMLError) as error:
        raise EarshotError(f"{file}: cannot be read as YAML: {' '.join(str(error).split())}") from None
    if not isinstance(values, dict):
        raise EarshotError(f"{file}: holds {type(values).__name__}, wanted a mapping of parameters")
    return values


def split_override(override: str) -> tuple[str, Any]:
    """`pretrain.epochs=3` as ("pretrain.epochs", 3); the value is read as YAML."""
    key, equals, text = override.partition("=")
    if not equals or not key.strip():
        raise EarshotError(f"--set {override}: wanted key=value, such as --set clusters=15")
    try:
        return key.strip(), YAML(typ="safe", pure=True).load(text)
    except YAMLError:
        raise EarshotError(f"--set {override}: the value {text!r} cannot be read as YAML") from None


def set_value(values: dict[str, Any], key: str, value: Any) -> None:
    """Put `value` at a dotted `key` that the schema knows, in place; the file's comments survive if it carries any.

    Raises EarshotError for a key that is no parameter, and for a key that is a whole group.
    """
    *groups, last = key.split(".")
    model: type[BaseModel] = Params
    for depth, name in enumerate([*groups, last]):
        if name not in model.model_fields:
            raise EarshotError(unknown_key(key))
        inner = _group_of(model, name)
        if depth < len(groups):
            if inner is None:
                raise EarshotError(unknown_key(key))
            model, values = inner, values.setdefault(name, {})
        elif inner is not None and not isinstance(value, dict | None):
            raise EarshotError(f"{key}={value}: {key} is a group; its parameters: {', '.join(inner.model_fields)}")
    values[last] = value


def check_params(values: dict[str, Any], source: Path | str) -> Params:
    """Checked parameters from a nested mapping; `source` is named in the error."""
    try:
        return Params.model_validate(_integers_as_floats(values, Params))
    except ValidationError as error:
        raise EarshotError(f"{source}: {_explain(error.errors()[0])}") from None


def parameter_names(model: type[BaseModel] = Params, prefix: str = "") -> list[str]:
    """All dotted names, groups and single parameters."""
    names = []
    for name in model.model_fields:
        names.append(prefix + name)
        inner = _group_of(model, name)
        if inner is not None:
            names += parameter_names(inner, f"{prefix}{name}.")
    return names


def unknown_key(key: str) -> str:
    """A sentence that refuses `key` and names the nearest parameter."""
    names = parameter_names()
    near = difflib.get_close_matches(key, names, n=1, cutoff=0.5)
    last = [name for name in names if name.rpartition(".")[2] == key.rpartition(".")[2]]
    nearest = (last or near)[:1]
    hint = f"; the nearest is {nearest[0]}" if nearest else f"; the groups are {', '.join(Params.model_fields)}"
    return f"unknown parameter {key}{hint}"


def _group_of(model: type[BaseModel], name: str) -> type[BaseModel] | None:
    annotation = model.model_fields[name].annotation
    candidates = [annotation, *getattr(annotation, "__args__", ())]
    return next((c for c in candidates if isinstance(c, type) and issubclass(c, BaseModel)), None)


def _integers_as_floats(values: Any, model: type[BaseModel]) -> Any:
    """Strict types, but `8` is as good as `8.0` where a float is wanted."""
    if not isinstance(values, dict):
        return values
    fields = model.model_fields
    result = {}
    for name, value in values.items():
        inner = _group_of(model, name) if name in fields else None
        wants_float = name in fields and fields[name].annotation is float
        is_integer = isinstance(value, int) and not isinstance(value, bool)
        if inner is not None:
            value = _integers_as_floats(value, inner)
        elif wants_float and is_integer:
            value = float(value)
        result[name] = value
    return result


def _explain(problem: Any) -> str:
    """One pydantic problem as a sentence in the parameters' own words."""
    key = ".".join(str(part) for part in problem["loc"])
    if problem["type"] == "extra_forbidden":
        return unknown_key(key)
    if problem["type"] == "missing":
        return f"{key} is missing; add it (params.yaml of the repository shows every parameter)"
    wanted = problem["msg"].removeprefix("Input should be ").replace("Input should ", "")
    message = f"{key} is {problem['input']!r}, wanted {wanted}"
    options = problem.get("ctx", {}).get("expected", "").replace(" or ", ", ").split(", ")
    near = difflib.get_close_matches(str(problem["input"]), [option.strip("'") for option in options], 1)
    return f"{message}; the nearest is {near[0]}" if near else message
