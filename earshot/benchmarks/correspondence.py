"""Correspondence on held-out clips: do this image and this sound match?

Every clip of the test split gives a matching and a mismatched pair, cut as in training; all networks get the same
pairs, and chance is one half. `own_sound` is how often an image scores higher with its own sound than with a sound of
another group: the pairs need a threshold that serves all images, this compares the sounds for each image alone. The
controls are the wrong-sound network, random weights, and, if there are annotations, the two supervised baselines of
Arandjelovic & Zisserman (2017, section 3.1), with L3's towers at the size and on the spectrograms of the evaluated
network:

- direct: each tower learns the annotations of the clips separately, with 128 hidden units; a pair matches if the scalar
  product of the two distributions is above the threshold that is best on the validation split;
- supervised towers: both towers are then frozen, and L3's fusion layers learn correspondence on them.

All annotations of a clip have equal weight.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Literal, cast

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from earshot.core.errors import EarshotError
from earshot.core.params import INDIFFERENT, Amount, Count
from earshot.core.prefetch import prefetch
from earshot.core.rng import generator
from earshot.evaluation.benchmark import NETWORK_CONTROLS, Benchmark, Context, NotApplicable, Result
from earshot.evaluation.clips.clip_embeddings import read_all_annotations
from earshot.evaluation.encoders import load_encoders
from earshot.evaluation.significance import standard_error
from earshot.networks.audio_visual_base import Correspondence
from earshot.networks.correspondence import build_correspondence
from earshot.networks.device import on_device
from earshot.networks.files import load_correspondence
from earshot.networks.towers import CHANNELS
from earshot.networks.two_towers import TwoTowers
from earshot.params.evaluate import BenchmarkParams
from earshot.pipeline.settings import settings
from earshot.scenes.clips import InputSpec, Sampling, SceneClip, clips_of
from earshot.scenes.table import decoding_frames
from earshot.training.augmentation import read_augmentation
from earshot.training.batch_norm import estimate_batch_norm, first_batches
from earshot.training.correspondence import CorrespondenceTask, PairedClips, make_pairs
from earshot.training.objectives import build_objective
from earshot.training.pairs import Pairs
from earshot.training.trainer import Plan, Trainer

PROTOCOL = "correspondence of held-out clips, balanced pairs"
BATCH = 32  # clips per batch
HIDDEN = 128  # units of a classifier on a tower (section 3.1)
MODALITIES = ("images", "sounds")


class CorrespondenceParams(BenchmarkParams):
    """How pairs are drawn, as in the stage correspond, and how the two supervised baselines are trained.

    `synchrony` measures `in_sync` too. 0 `supervised_epochs` skips the baselines; `supervised_batch_size` counts pairs.
    """

    inputs: Literal["clips"]
    positives: Literal["centered", "overlapping"]
    negatives: Literal["other-group", "shifted"]
    grid_s: Amount
    min_shift_s: Amount
    synchrony: Annotated[bool, INDIFFERENT]
    supervised_epochs: Count
    supervised_batch_size: Annotated[int, Field(ge=4, multiple_of=2)]
    supervised_learning_rate: Amount


def evaluate(context: Context[CorrespondenceParams]) -> Result:
    """The accuracy on pairs of the network, its controls and, if requested, the baselines; and `own_sound`.

    Raises:
        EarshotError: the folder of encoders lacks a network or its random weights, or holds one of another kind.
    """
    from sklearn.metrics import roc_auc_score  # takes as long to import as torch

    p = context.params
    sampling = Sampling(positives=p.positives, negatives=p.negatives, grid_s=p.grid_s, min_shift_s=p.min_shift_s)
    metrics: dict[str, Any] = {}
    items: dict[str, np.ndarray] = {}  # by metric: which pairs are classified correctly, and the shares of `own_sound`
    for prefix, network in load_encoders(context.encoder, load_correspondence).items():
        scores, is_match = score_pairs(network, context.data_dir, sampling, "test")
        items[f"{prefix}accuracy"] = (scores > 0) == is_match
        metrics[f"{prefix}roc_auc"] = float(roc_auc_score(is_match, scores))
        if InputSpec.by(network).frames == 1:  # a sequence and a sound pass the multisensory network as a pair
            shares = own_sound(network, context.data_dir, sampling, "test")
            items |= {f"{prefix}own_sound": shares} if len(shares) else {}
        if p.synchrony:
            metrics |= in_sync(network, context.data_dir, sampling, prefix)
    if p.supervised_epochs:
        items |= supervised(context, network.architecture, sampling)
    for metric, values in items.items():
        metrics |= {metric: float(values.mean()), f"{metric}_error": standard_error(values)}
    metrics |= {"chance": 0.5, "pairs": len(is_match)}
    prefixes = [key.removesuffix("accuracy") for key in items if key.endswith("accuracy")]
    columns = [key for key in ("accuracy", "own_sound", "synchrony") if key in metrics]
    rows = [
        {"network": prefix.strip("_") or "trained"}
        | {name: metrics.get(prefix + name) for key in columns for name in (key, f"{key}_error")}
        for prefix in prefixes
    ]
    groups = clips_of(context.data_dir, InputSpec.by(network), sampling, split="test")
    clips = [clip_id for group in groups for clip_id in group.clip_ids()]
    return Result(metrics, rows, PROTOCOL, summarize(rows, metrics), clips, item_scores=items)


def summarize(rows: Sequence[Mapping[str, Any]], metrics: Mapping[str, Any]) -> str:
    """The scores of all networks in a line."""
    titles = {"accuracy": f"{metrics['pairs']} pairs", "own_sound": "own sound above another"}
    if "synchrony" in metrics:
        titles["synchrony"] = f"synchrony of {metrics['synchrony_clips']} clips"
    parts = []
    for key, title in titles.items():
        values = ((row["network"].replace("_", " "), row.get(key), row.get(f"{key}_error")) for row in rows)
        words = [f"{name} {value:.3f} ± {error:.3f}" for name, value, error in values if value is not None]
        parts += [f"{title}: {', '.join(words)}"] if words else []
    return f"{'; '.join(parts)} (standard errors); chance 0.500"


def in_sync(network: Correspondence, scenes: Path, sampling: Sampling, prefix: str) -> dict[str, Any]:
    """How often the sound at the time of the image scores above the same clip's sound elsewhere; ties count half.

    It is measured on test clips that have a sound at least `min_shift_s` away from every frame. Chance is one half.

    Raises:
        NotApplicable: there are fewer than two of them.
    """
    scores, is_match = score_pairs(network, scenes, replace(sampling, negatives="shifted"), "test")
    right, elsewhere = scores[is_match], scores[~is_match]  # in the order of the clips, both
    above = (right > elsewhere) + (right == elsewhere) / 2
    shares = {"synchrony": float(above.mean()), "synchrony_error": standard_error(above)}
    return {prefix + key: value for key, value in shares.items()} | {"synchrony_clips": len(above)}


@torch.inference_mode()
def own_sound(network: Correspondence, scenes: Path, sampling: Sampling, split: str) -> np.ndarray:
    """For each image of a split, the share of other sounds that score below its own; ties count half; (clips,).

    The others are those of a batch of clips, without the image's own group. An image whose batch has no other group is
    left out. Chance is one half.
    """
    on_device(network).eval()
    shares = []
    for pairs in held_out_pairs(network, scenes, sampling, split):
        count = len(pairs.images)
        rows, columns = torch.meshgrid(*[torch.arange(count, device=pairs.images.device)] * 2, indexing="ij")
        scores = network(pairs.images, pairs.sounds[:count], rows.flatten(), columns.flatten()).view(count, count)
        own, groups = scores.diagonal()[:, None], pairs.groups[:count]
        others = groups[:, None] != groups
        below = ((scores < own).float() + (scores == own).float() / 2) * others
        shares.append((below.sum(1) / others.sum(1))[others.any(1)].cpu())
    return torch.cat(shares).numpy()


@torch.inference_mode()
def score_pairs(network: Correspondence, scenes: Path, sampling: Sampling, split: str) -> tuple[np.ndarray, np.ndarray]:
    """The log-odds of every pair of a split, and which pairs match, both (pairs,)."""
    on_device(network).eval()
    pairs = held_out_pairs(network, scenes, sampling, split)
    batches = [(network(*each[:4]).float().cpu(), each.is_match.cpu()) for each in pairs]
    scores, is_match = (torch.cat(parts).numpy() for parts in zip(*batches, strict=True))
    return scores, is_match > 0


def held_out_pairs(network: Correspondence, scenes: Path, sampling: Sampling, split: str) -> Iterator[Pairs]:
    """The pairs of a split on the network's device; every call gives the same pairs.

    Raises:
        NotApplicable: the clips of the split that are long enough are not of two groups.
    """
    spec, device = InputSpec.by(network), next(network.parameters()).device
    clips = PairedClips(clips_of(scenes, spec, sampling, split=split), batch_size=BATCH, seed=None)
    if not clips.has_others:
        actual = f"{clips.items} clips of one group or none in the split {split}"
        raise NotApplicable(f"{scenes}: {actual}, expected two groups; give more clips")

    def batch(number: int) -> Pairs:
        batch_clips = clips[number]
        chances = generator("held-out pairs", number).random((len(batch_clips), 6))
        with decoding_frames(scenes):
            pairs = make_pairs(batch_clips, spec, sampling, chances)
        return Pairs(*(tensor.to(device) for tensor in pairs))

    return prefetch(batch, range(clips.batches_per_epoch), settings().threads)


def supervised(
    context: Context[CorrespondenceParams], architecture: Mapping[str, Any], sampling: Sampling
) -> dict[str, np.ndarray]:
    """Which test pairs each of the two supervised baselines classifies correctly, bool (pairs,), by metric."""
    annotations = Annotations.read(context.required_annotations)
    torch.set_num_threads(1)  # sums, and so scores, depend on their number
    torch.manual_seed(context.seed)
    augmentation, sound = read_augmentation(context.encoder)  # that of the network's own training
    network = cast(TwoTowers, on_device(build_correspondence(**{**architecture, "name": "l3"})))
    task = CorrespondenceTask(
        network,
        context.data_dir,
        build_objective("match"),
        sampling,
        augmentation,
        sound=sound,
        batch_size=context.params.supervised_batch_size,
        seed=context.seed,
    )
    annotations.check(clip_id for group in task.training.groups for clip_id in group.clip_ids())
    begin(task)
    towers = {
        modality: ClassifiedTower(network, modality, len(annotations.names)).to(task.device) for modality in MODALITIES
    }
    for modality, tower in towers.items():
        train(context, AnnotationTask(task, tower, annotations), modality)
    direct = classify_directly(network, towers, context.data_dir, sampling)
    train(context, FusionTask(task), "fusion")
    scores, is_match = score_pairs(network, context.data_dir, sampling, "test")
    return {"direct_accuracy": direct, "supervised_accuracy": (scores > 0) == is_match}


def begin(task: CorrespondenceTask) -> None:
    """Set the audio scale and the batch-norm statistics of a random network from training pairs."""
    pairs = first_batches(task)
    task.network.fit_audio_scale(torch.cat([pair.sounds for pair in pairs]))
    estimate_batch_norm(task.network, [pair[:4] for pair in pairs])


def train(context: Context[CorrespondenceParams], task: Any, name: str) -> None:
    """Train a baseline, or resume its training."""
    p = context.params
    plan = Plan(
        epochs=p.supervised_epochs,
        learning_rate=p.supervised_learning_rate,
        weight_decay=1e-5,  # that of L3's own training (section 2.2)
        grad_clip_norm=5.0,
        precision="auto",
        seed=context.seed,
        optimizer="adam",
        schedule="onecycle",
    )
    Trainer(task, plan, context.scratch / f"supervised.{name}.checkpoint.safetensors").train(f"supervised {name}")


@dataclass(frozen=True)
class Annotations:
    """The annotations of the clips in a folder: the names, and for each clip the share of each name, (names,)."""

    folder: Path
    names: list[str]
    shares: Mapping[str, np.ndarray]

    @classmethod
    def read(cls, folder: Path) -> "Annotations":
        """The annotations of a folder.

        Raises:
            EarshotError: there are fewer than two different annotations.
        """
        annotations = read_all_annotations(folder)
        names = sorted({name for of_clip in annotations.values() for name in of_clip})
        if len(names) < 2:
            actual = f"{len(names)} different annotations of {len(annotations)} clips"
            advice = "set evaluate.correspondence.supervised_epochs=0 to skip the supervised baselines"
            raise EarshotError(f"{folder}: {actual}, expected two or more; {advice}")
        shares = {clip: np.array([of_clip.count(name) for name in names]) for clip, of_clip in annotations.items()}
        return cls(folder, names, {clip: counts / max(counts.sum(), 1) for clip, counts in shares.items()})

    def check(self, clip_ids: Iterable[str]) -> None:
        """Raise EarshotError for a clip that the folder does not list, as in annotations of another corpus."""
        missing = next((clip_id for clip_id in clip_ids if clip_id not in self.shares), None)
        if missing is not None:
            raise EarshotError(
                f"{self.folder}: has no row of the training clip {missing!r}; run the stage extract again"
            )

    def targets(self, clips: Sequence[SceneClip]) -> Tensor:
        """The shares of the names, float32 (clips, names); all zero for a clip without annotations."""
        return torch.from_numpy(np.stack([self.shares[clip.clip_id] for clip in clips])).float()


class ClassifiedTower(nn.Module):
    """A tower of L3 and two layers that predict the annotations: 512 to 128 to the names (section 3.1)."""

    def __init__(self, network: TwoTowers, modality: str, names: int) -> None:
        super().__init__()
        self.tower = network.image_tower if modality == "images" else network.audio_tower
        self.embed = network.embed_images if modality == "images" else network.embed_audio
        units = self.tower.channels
        hidden = max(1, round(HIDDEN * units / CHANNELS[-1]))
        self.head = nn.Sequential(nn.Linear(units, hidden), nn.ReLU(inplace=True), nn.Linear(hidden, names))

    def forward(self, inputs: Tensor) -> Tensor:
        """Scores of the names, (inputs, names)."""
        return self.head(self.embed(inputs)).float()


class AnnotationTask:
    """One tower learns the annotations of the clips, on the images or sounds of a correspondence task."""

    def __init__(self, pairs: CorrespondenceTask, network: ClassifiedTower, annotations: Annotations) -> None:
        self.pairs, self.network, self.annotations = pairs, network, annotations
        self.modality = "images" if network.tower is pairs.network.image_tower else "sounds"
        self.batches_per_epoch = pairs.batches_per_epoch

    def batches(self, numbers: range) -> Iterator[tuple[Tensor, Tensor]]:
        """Images or sounds, and the shares of the names in their clips."""
        for number, pairs in zip(numbers, self.pairs.batches(numbers), strict=True):
            clips = [clip for clip, _ in self.pairs.training[number]]
            inputs = getattr(pairs, self.modality)[: len(clips)]
            yield inputs, self.annotations.targets(clips).to(self.pairs.device)

    def loss(self, batch: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        """Cross-entropy, and the share of clips whose most likely name is among their annotations."""
        inputs, targets = batch
        scores = self.network(inputs)
        correct = targets.gather(1, scores.argmax(1, keepdim=True)) > 0
        return functional.cross_entropy(scores, targets), correct.float().mean()


class FusionTask:
    """The last two layers of L3 learn correspondence on frozen towers."""

    def __init__(self, pairs: CorrespondenceTask) -> None:
        self.network, self.batches, self.loss = pairs.network, pairs.batches, pairs.loss
        self.batches_per_epoch = pairs.batches_per_epoch
        for tower in (self.network.image_tower, self.network.audio_tower):
            tower.requires_grad_(False)

    def prepare(self) -> None:
        """Freeze the towers' batch norm statistics."""
        self.network.image_tower.eval()
        self.network.audio_tower.eval()


def classify_directly(
    network: Correspondence, towers: Mapping[str, nn.Module], scenes: Path, sampling: Sampling
) -> np.ndarray:
    """Which test pairs the product of the two distributions of names classifies correctly, bool (pairs,)."""
    products, is_match = agreement(network, towers, scenes, sampling, "val")
    threshold = best_threshold(products, is_match)
    products, is_match = agreement(network, towers, scenes, sampling, "test")
    return (products > threshold) == is_match


@torch.inference_mode()
def agreement(
    network: Correspondence, towers: Mapping[str, nn.Module], scenes: Path, sampling: Sampling, split: str
) -> tuple[np.ndarray, np.ndarray]:
    """The scalar product of the two distributions of every pair, and which pairs match, both (pairs,)."""
    products, matches = [], []
    network.eval()
    for pairs in held_out_pairs(network, scenes, sampling, split):
        by_image, by_audio = (towers[modality].eval()(getattr(pairs, modality)).softmax(1) for modality in MODALITIES)
        products.append((by_image[pairs.image_index] * by_audio[pairs.audio_index]).sum(1).cpu())
        matches.append(pairs.is_match.cpu())
    return torch.cat(products).numpy(), torch.cat(matches).numpy() > 0


def best_threshold(scores: np.ndarray, is_match: np.ndarray) -> float:
    """The threshold of the highest accuracy, where scores above it predict a match."""
    order = np.argsort(scores, kind="stable")
    ordered = scores[order]
    right = np.concatenate(
        [[0], np.cumsum(np.where(is_match[order], -1, 1))]
    )  # gain in correct pairs by the number below
    between = np.concatenate([[True], ordered[1:] > ordered[:-1], [True]])
    below = int(np.argmax(np.where(between, right, -len(right))))
    edges = np.concatenate([[-np.inf], (ordered[1:] + ordered[:-1]) / 2, [np.inf]])
    return float(edges[below])


BENCHMARK = Benchmark(
    params=CorrespondenceParams,
    evaluate=evaluate,
    title="Correspondence",
    scores="accuracy|own_sound",
    leading="accuracy",
    columns={"accuracy": "pairs", "own_sound": "own sound"},
    not_scores=("accuracy_error", "own_sound_error"),
    controls=NETWORK_CONTROLS | {"supervised direct": "direct_", "supervised pretraining": "supervised_"},
    references=("supervised direct", "supervised pretraining"),
    at_a_glance=True,
)
