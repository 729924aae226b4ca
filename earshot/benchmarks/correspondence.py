"""Correspondence on clips whose group was never trained on: does this sound belong to this picture?

Every clip of the test split gives one pair that belongs together and one that does not, cut as in training, the same
pairs for every network: half of the answers are right by chance. Beside the trained network stand its control, its
random weights, and where annotations may be read the two supervised baselines of Arandjelovic & Zisserman (2017,
section 3.1), made of L3's towers at the size of the network measured:

- direct: each tower learns the annotations of the clip by itself, through 128 hidden units; a pair belongs together
  where the scalar product of the two distributions is above the threshold that tells best on the validation split;
- supervised towers: both towers stay as they are then, and L3's fusion learns correspondence on them.

Of a clip with several annotations each counts alike.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, cast

import numpy as np
import torch
from pydantic import Field
from sklearn.metrics import roc_auc_score
from torch import Tensor, nn
from torch.nn import functional

from earshot.core.errors import EarshotError
from earshot.core.params import Amount, Count
from earshot.core.prefetch import prefetch
from earshot.core.rng import generator
from earshot.evaluation.benchmark import NETWORK_CONTROLS, Benchmark, Context, NotApplicable, Result
from earshot.evaluation.clips.clip_embeddings import read_all_annotations
from earshot.evaluation.encoders import PREFIXES
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
from earshot.training.augmentation import Augmentation
from earshot.training.batch_norm import estimate_batch_norm, first_batches
from earshot.training.correspondence import CorrespondenceTask, PairedClips, Pairs, make_pairs
from earshot.training.trainer import Plan, Trainer

PROTOCOL = "correspondence of held-out clips, balanced pairs"
BATCH = 32  # clips whose pairs are told together
HIDDEN = 128  # units of a classifier on a tower (section 3.1)
MODALITIES = ("images", "sounds")


class Params(BenchmarkParams):
    """How pairs are made, as in the stage correspond, and how the two supervised baselines are trained.

    With 0 `supervised_epochs` the baselines are left out; `supervised_batch` counts pairs.
    """

    inputs: Literal["clips"]
    positives: Literal["centered", "overlapping"]
    negatives: Literal["other-group", "shifted"]
    grid_s: Amount
    min_shift_s: Amount
    supervised_epochs: Count
    supervised_batch_size: Annotated[int, Field(ge=4, multiple_of=2)]
    supervised_learning_rate: Amount


def evaluate(context: Context[Params]) -> Result:
    """The share of the pairs told by the network and its controls, and by the baselines where they are asked for."""
    p = context.params
    sampling = Sampling(positives=p.positives, negatives=p.negatives, grid_s=p.grid_s, min_shift_s=p.min_shift_s)
    there = [name for name in PREFIXES if (context.encoder / f"{name}.safetensors").exists()]
    metrics: dict[str, Any] = {}
    network = load_correspondence(context.encoder)
    for name in there:
        network = load_correspondence(context.encoder, name)
        scores, is_match = score_pairs(network, context.data_dir, sampling, "test")
        metrics[f"{PREFIXES[name]}accuracy"] = float(((scores > 0) == is_match).mean())
        metrics[f"{PREFIXES[name]}roc_auc"] = float(roc_auc_score(is_match, scores))
    metrics |= {"chance": 0.5, "pairs": len(is_match)}
    if p.supervised_epochs:
        metrics |= supervised(context, network.architecture, sampling)
    names = [key.removesuffix("accuracy") for key in metrics if key.endswith("accuracy")]
    rows = [{"network": name.strip("_") or "trained", "accuracy": metrics[f"{name}accuracy"]} for name in names]
    told = [f"{row['network'].replace('_', ' ')} {row['accuracy']:.3f}" for row in rows]
    groups = clips_of(context.data_dir, InputSpec.by(network), sampling, split="test")
    asked = [clip_id for group in groups for clip_id in group.clip_ids()]
    return Result(metrics, rows, PROTOCOL, f"{', '.join(told)}; chance 0.500", asked)


@torch.inference_mode()
def score_pairs(network: Correspondence, scenes: Path, sampling: Sampling, split: str) -> tuple[np.ndarray, np.ndarray]:
    """The log-odds of every pair of a split, and which pairs match, both (pairs,)."""
    on_device(network).eval()
    pairs = held_out_pairs(network, scenes, sampling, split)
    found = [(network(*each[:4]).float().cpu(), each.is_match.cpu()) for each in pairs]
    scores, is_match = (torch.cat(parts).numpy() for parts in zip(*found, strict=True))
    return scores, is_match > 0


def held_out_pairs(network: Correspondence, scenes: Path, sampling: Sampling, split: str) -> Iterator[Pairs]:
    """The pairs of a split on the network's device: the same whenever they are asked for.

    Raises:
        NotApplicable: the split has fewer than two clips that are long enough.
    """
    wanted, device = InputSpec.by(network), next(network.parameters()).device
    clips = PairedClips(clips_of(scenes, wanted, sampling, split=split), batch_size=BATCH, seed=None)
    if clips.items < 2:
        raise NotApplicable(f"{scenes}: {clips.items} clips in the split {split}, wanted two or more; give more clips")

    def batch(number: int) -> Pairs:
        chosen = clips[number]
        chances = generator("held-out pairs", number).random((len(chosen), 6))
        with decoding_frames(scenes):
            pairs = make_pairs(chosen, wanted, sampling, chances)
        return Pairs(*(tensor.to(device) for tensor in pairs))

    return prefetch(batch, range(clips.batches_per_epoch), settings().threads)


def supervised(context: Context[Params], architecture: Mapping[str, Any], sampling: Sampling) -> dict[str, float]:
    """The accuracy of both supervised baselines on the test pairs."""
    annotations = Annotations.read(context.required_annotations)
    torch.manual_seed(context.seed)
    sizes = {name: architecture[name] for name in ("width", "stride", "image_size") if name in architecture}
    network = cast(TwoTowers, on_device(build_correspondence("l3", **sizes)))
    task = CorrespondenceTask(
        network,
        context.data_dir,
        sampling,
        Augmentation(
            crop_min_scale=0.5, brightness=0.4, contrast=0.4, saturation=0.4, hue=0.1, flip_prob=0.5
        ),  # as params.yaml has them for the networks compared with
        gain_jitter=0.1,
        batch_size=context.params.supervised_batch_size,
        seed=context.seed,
    )
    begin(task)
    towers = {
        modality: ClassifiedTower(network, modality, len(annotations.names)).to(task.device) for modality in MODALITIES
    }
    for modality, tower in towers.items():
        train(context, AnnotationTask(task, tower, annotations), modality)
    direct = direct_accuracy(network, towers, context.data_dir, sampling)
    train(context, FusionTask(task), "fusion")
    scores, is_match = score_pairs(network, context.data_dir, sampling, "test")
    return {"direct_accuracy": direct, "supervised_accuracy": float(((scores > 0) == is_match).mean())}


def begin(task: CorrespondenceTask) -> None:
    """Give a random network the scale of the sounds and the batch-norm statistics of training pairs."""
    pairs = first_batches(task)
    task.network.fit_audio_scale(torch.cat([pair.sounds for pair in pairs]))
    estimate_batch_norm(task.network, [pair[:4] for pair in pairs])


def train(context: Context[Params], task: Any, name: str) -> None:
    """Train a baseline, from where it was interrupted."""
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
    """What humans said of the clips: the names, and for each clip the share of each of them, (names,)."""

    names: list[str]
    shares: Mapping[str, np.ndarray]

    @classmethod
    def read(cls, folder: Path) -> "Annotations":
        """The annotations of a folder.

        Raises:
            EarshotError: nobody said two different things.
        """
        said = read_all_annotations(folder)
        names = sorted({word for words in said.values() for word in words})
        if len(names) < 2:
            found = f"{len(names)} different annotations of {len(said)} clips"
            raise EarshotError(
                f"{folder}: {found}, wanted two or more; set evaluate.correspondence.supervised_epochs=0 to do without"
            )
        shares = {clip: np.array([words.count(name) for name in names]) for clip, words in said.items()}
        return cls(names, {clip: counts / max(counts.sum(), 1) for clip, counts in shares.items()})

    def targets(self, clips: Sequence[SceneClip]) -> Tensor:
        """The shares of the names, float32 (clips, names); all zero where nobody said anything."""
        return torch.from_numpy(np.stack([self.shares[clip.clip_id] for clip in clips])).float()


class ClassifiedTower(nn.Module):
    """A tower of L3 and two layers that tell the annotations: 512 to 128 to the names (section 3.1)."""

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
    """One tower learns the annotations of the clips, on the pictures or sounds of a task of correspondence."""

    def __init__(self, pairs: CorrespondenceTask, network: ClassifiedTower, annotations: Annotations) -> None:
        self.pairs, self.network, self.annotations = pairs, network, annotations
        self.modality = "images" if network.tower is pairs.network.image_tower else "sounds"
        self.batches_per_epoch = pairs.batches_per_epoch

    def batches(self, numbers: range) -> Iterator[tuple[Tensor, Tensor]]:
        """Pictures or sounds, and the shares of the names in their clips."""
        for number, pairs in zip(numbers, self.pairs.batches(numbers), strict=True):
            clips = [clip for clip, _ in self.pairs.training[number]]
            inputs = getattr(pairs, self.modality)[: len(clips)]
            yield inputs, self.annotations.targets(clips).to(self.pairs.device)

    def loss(self, batch: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        """Cross-entropy, and the share of the clips of which the most likely name was said."""
        inputs, targets = batch
        scores = self.network(inputs)
        told = targets.gather(1, scores.argmax(1, keepdim=True)) > 0
        return functional.cross_entropy(scores, targets), told.float().mean()


class FusionTask:
    """L3's two last layers learn correspondence on towers that stay as they are."""

    def __init__(self, pairs: CorrespondenceTask) -> None:
        self.network, self.batches, self.loss = pairs.network, pairs.batches, pairs.loss
        self.batches_per_epoch = pairs.batches_per_epoch
        for tower in (self.network.image_tower, self.network.audio_tower):
            tower.requires_grad_(False)

    def prepare(self) -> None:
        """Keep the statistics of the towers' batch norm."""
        self.network.image_tower.eval()
        self.network.audio_tower.eval()


def direct_accuracy(
    network: Correspondence, towers: Mapping[str, nn.Module], scenes: Path, sampling: Sampling
) -> float:
    """The share of the test pairs told by the product of the two distributions of names."""
    products, is_match = agreement(network, towers, scenes, sampling, "val")
    threshold = best_threshold(products, is_match)
    products, is_match = agreement(network, towers, scenes, sampling, "test")
    return float(((products > threshold) == is_match).mean())


@torch.inference_mode()
def agreement(
    network: Correspondence, towers: Mapping[str, nn.Module], scenes: Path, sampling: Sampling, split: str
) -> tuple[np.ndarray, np.ndarray]:
    """The scalar product of the two distributions of every pair, and which pairs match, both (pairs,)."""
    products, matches = [], []
    network.eval()
    for pairs in held_out_pairs(network, scenes, sampling, split):
        seen, heard = (towers[modality].eval()(getattr(pairs, modality)).softmax(1) for modality in MODALITIES)
        products.append((seen[pairs.image_index] * heard[pairs.audio_index]).sum(1).cpu())
        matches.append(pairs.is_match.cpu())
    return torch.cat(products).numpy(), torch.cat(matches).numpy() > 0


def best_threshold(scores: np.ndarray, is_match: np.ndarray) -> float:
    """The threshold above which most pairs belong together and below which most do not."""
    order = np.argsort(scores, kind="stable")
    ordered = scores[order]
    right = np.concatenate([[0], np.cumsum(np.where(is_match[order], -1, 1))])  # gained with so many below it
    between = np.concatenate([[True], ordered[1:] > ordered[:-1], [True]])
    below = int(np.argmax(np.where(between, right, -len(right))))
    edges = np.concatenate([[-np.inf], (ordered[1:] + ordered[:-1]) / 2, [np.inf]])
    return float(edges[below])


BENCHMARK = Benchmark(
    params=Params,
    evaluate=evaluate,
    title="Correspondence",
    scores="accuracy",
    leading="accuracy",
    controls=NETWORK_CONTROLS | {"supervised direct": "direct_", "supervised pretraining": "supervised_"},
    at_a_glance=True,
    on_console=True,
)
