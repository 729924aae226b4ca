"""The correspondence task: do an image and a sound match? (Arandjelovic & Zisserman 2017, section 2).

In an epoch every clip gives a matching and a mismatched pair (Kim 2020) in the same batch. Both have the same image.
The mismatched sound is the matching sound of another clip of the batch: all sounds are cut the same way, on one grid,
so that neither modality alone separates the two kinds. An image or sound that two pairs share passes its tower once,
which halves the towers' work.
"""

import math
import warnings
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from earshot.core.errors import EarshotError
from earshot.core.hashing import stable_hash
from earshot.core.prefetch import prefetch
from earshot.core.rng import generator
from earshot.corpus.wrong_sound import derange_to_others
from earshot.networks.crops import Changes, crop_frames
from earshot.pipeline.settings import settings
from earshot.scenes.clips import ClipRowGroup, InputSpec, Sampling, SceneClip, clips_of
from earshot.scenes.table import decoding_frames
from earshot.training import distributed as processes
from earshot.training.augmentation import Augmentation
from earshot.training.batches import Batches
from earshot.training.collapse import collapse, spread
from earshot.training.feed import feed
from earshot.training.objectives import Objective
from earshot.training.pairs import Pairs
from earshot.training.sound_augmentation import SoundAugmentation

# Clips that are shuffled together and swap sounds: some 300 MB at ten frames of 256 px and ten seconds of stereo. Two
# pools are in memory at a time.
POOL_CLIPS = 256
KEPT_SOUNDS = 512 << 20  # bytes of decoded sound that a training keeps
UNCHANGED = SoundAugmentation()
CHANCES = "chances"  # a name in a checkpoint
STUCK_STEPS, STUCK = 500, 0.003  # a loss this close to chance after so many steps counts as stuck


class PairedClips(Batches[ClipRowGroup, tuple[SceneClip, SceneClip]]):
    """Batches of clips, each with a clip of another group, which gives the mismatched sound.

    If the groups of a batch allow it, its clips swap their sounds: each clip's sound is the mismatched one of exactly
    one other clip. With a seed, every epoch draws new partners; without one, as for a test, the pairs are fixed.

    Raises EarshotError, when a batch is read, if all clips are of one group.
    """

    pool = POOL_CLIPS

    @property
    def has_others(self) -> bool:
        """Whether there are clips of two groups, so that sounds can be mismatched."""
        return len(set().union(*(group.sources.tolist() for group in self.groups))) > 1

    def __getitem__(self, number: int) -> list[tuple[SceneClip, SceneClip]]:
        items = super().__getitem__(number)
        clips = [clip for clip, _ in items]
        drawn = generator("others", self.seed, number)
        deranged = derange_to_others(np.array([clip.group for clip in clips]), drawn)
        return items if (deranged < 0).any() else [(clip, clips[n]) for clip, n in zip(clips, deranged, strict=True)]

    def _shuffled(self, items: list[SceneClip], epoch: int, pool: int) -> list[tuple[SceneClip, SceneClip]]:
        """The clips of a pool in the order of their batches, each with one of another group, of the pool if it can."""
        clips: list[Any] = super()._shuffled(items, epoch, pool)
        drawn = generator("others of a pool", self.seed, epoch, pool)
        deranged = derange_to_others(np.array([clip.group for clip in clips]), drawn)
        if (deranged >= 0).all():
            return [(clip, clips[other]) for clip, other in zip(clips, deranged, strict=True)]
        return list(zip(clips, self._others(clips, drawn), strict=True))

    def _others(self, clips: Sequence[SceneClip], drawn: np.random.Generator) -> list[SceneClip]:
        """For the clips of a pool of one group, as many of other groups, from one more row group."""
        if not self.has_others:
            scenes = self.groups[0].group.shard.parent
            actual = f"{len(clips)} clips, all of the group {clips[0].group!r}"
            raise EarshotError(f"{scenes}: {actual}, expected two groups or more; give clips of other videos")
        source = stable_hash(clips[0].group)
        elsewhere = [group for group in self.groups if (group.sources != source).any()]
        row_group = elsewhere[drawn.integers(len(elsewhere))].read()
        others = [clip for clip in row_group if clip.group != clips[0].group]
        return [others[number % len(others)] for number in range(len(clips))]


def make_pairs(
    clips: Sequence[tuple[SceneClip, SceneClip]],
    spec: InputSpec,
    sampling: Sampling,
    chances: np.ndarray,
    changes: Changes | None = None,
    gains: np.ndarray | None = None,
    shifts: np.ndarray | None = None,
    shifted: np.ndarray | None = None,
    cut: Callable[[SceneClip, float], np.ndarray] | None = None,
) -> Pairs:
    """A matching pair of every clip, followed by a mismatched pair of every clip.

    Args:
        clips: each with the clip of the mismatched sound.
        spec: the network's input.
        sampling: how pairs are drawn.
        chances: random numbers in [0, 1), (clips, 6).
        changes: of each clip's images; None takes their middle squares.
        gains: of each clip's sound, and of its mismatched sound if that is not another clip's matching one; (clips, 2).
        shifts: of the same sounds in time, in seconds, (clips, 2).
        shifted: which mismatched sounds are of the same clip (`Sampling.shifted`), bool (clips,); by default all or
            none, as `sampling` says.
        cut: what gives the sound of a clip from a time on; by default it is decoded.
    """
    cut = cut or spec.cut
    shifted = sampling.shifted(len(clips)) if shifted is None else shifted
    positions = [_pair_position(clip, spec, sampling, row[:3]) for (clip, _), row in zip(clips, chances, strict=True)]
    mismatched, further = _mismatched_sounds(clips, shifted)
    cuts = [(clip, position.start) for (clip, _), position in zip(clips, positions, strict=True)]
    for number in further:
        clip, other = clips[number]
        if shifted[number]:
            cuts.append((clip, positions[number].shifted))
        else:
            cuts.append((other, _pair_position(other, spec, sampling, chances[number, 3:]).start))
    draws = [*range(len(clips)), *further], np.repeat([0, 1], [len(clips), len(further)])  # those of each sound
    if shifts is not None:
        moved = zip(cuts, shifts[draws], strict=True)
        cuts = [(clip, sampling.on_grid(clip, start + move, spec.seconds)) for (clip, start), move in moved]
    sounds = np.stack([cut(clip, start) for clip, start in cuts])
    if gains is not None:
        sounds *= gains[draws].astype(np.float32).reshape(-1, *[1] * (sounds.ndim - 1))
    own = torch.arange(len(clips))
    return Pairs(
        images=_images(positions, spec, changes),
        sounds=torch.from_numpy(sounds),
        image_index=own.repeat(2),
        audio_index=torch.cat([own, torch.tensor(mismatched)]),
        is_match=torch.tensor([1.0, 0.0]).repeat_interleave(len(clips)),
        groups=torch.tensor([stable_hash(clip.group) >> 1 for clip, _ in cuts]),
    )


def _mismatched_sounds(
    clips: Sequence[tuple[SceneClip, SceneClip]], shifted: np.ndarray
) -> tuple[list[int], list[int]]:
    """The index of each clip's mismatched sound, and the clips whose mismatched sound is no other clip's matching one.

    Those are cut for them alone, and lie behind the matching sounds.
    """
    numbers = {id(clip): number for number, (clip, _) in enumerate(clips)}
    mismatched: list[int] = []
    further: list[int] = []
    for number, (_, other) in enumerate(clips):
        if shifted[number] or id(other) not in numbers:
            mismatched.append(len(clips) + len(further))
            further.append(number)
        else:
            mismatched.append(numbers[id(other)])
    return mismatched, further


def _images(positions: Sequence["PairPosition"], spec: InputSpec, changes: Changes | None) -> Tensor:
    """The images of pairs, cropped, and changed where changes are given: (clips, ...)."""
    each = None if changes is None else changes[np.repeat(np.arange(len(positions)), spec.frames)]
    images = crop_frames([jpeg for position in positions for jpeg in position.images], spec.image_size, each)
    return images.unflatten(0, (len(positions), spec.frames)) if spec.frames > 1 else images


class PairPosition(NamedTuple):
    """The position of a pair in a clip: its images, and the start of its sound and of its shifted sound in seconds."""

    images: Sequence[bytes]
    start: float
    shifted: float = math.nan


def _pair_position(clip: SceneClip, spec: InputSpec, sampling: Sampling, chances: np.ndarray) -> PairPosition:
    """A random position; the images of a sequence begin together with its sound."""
    if spec.frames == 1:
        frame = int(chances[0] * len(clip.frames))
        start = sampling.start(clip, clip.times[frame], spec.seconds, chances[2])
        shifted = sampling.shifted_start(clip, start, spec.seconds, chances[1]) if sampling.shift else math.nan
        return PairPosition([clip.frames[frame]], start, shifted)
    rate = clip.sequence_rate
    end = min(len(clip.sequence) - spec.frames, int((clip.duration - spec.seconds) * rate + 1e-6))
    if sampling.shift:
        # Two starts at least a shift apart, in either order, so that both have the same distribution.
        shift = int(np.ceil(sampling.min_shift_s * rate))
        first = int(chances[0] * (end - shift + 1))
        second = first + shift + int(chances[1] * (end - shift - first + 1))
        first_frame, first_sound = (first, second) if chances[2] < 0.5 else (second, first)
    else:
        first_frame = first_sound = int(chances[0] * (end + 1))
    return PairPosition(clip.sequence[first_frame : first_frame + spec.frames], first_frame / rate, first_sound / rate)


class KeptSounds:
    """The sounds of pairs, of which the first ones are kept, so that later epochs need not decode them again.

    Centered pairs of a clip have as many sounds as frames: three of one second for each of 648 clips are 373 MB.

    Args:
        spec: the network's input.
        most: bytes to keep; further sounds are decoded each time.
    """

    def __init__(self, spec: InputSpec, most: int = KEPT_SOUNDS) -> None:
        self.spec, self.most, self.bytes = spec, most, 0
        self._kept: dict[tuple[str, float], np.ndarray] = {}

    def cut(self, clip: SceneClip, start: float) -> np.ndarray:
        """The sound of a clip from `start` seconds on, as `InputSpec.cut` gives it; a clip has one sound."""
        key = clip.clip_id, start
        sound = self._kept.get(key)
        if sound is None:
            sound = self.spec.cut(clip, start)
            if self.bytes + sound.nbytes <= self.most:  # threads may pass it by a few sounds
                self._kept[key] = sound
                self.bytes += sound.nbytes
        return sound


class CorrespondenceTask:
    """Pairs of the training split as a task for the trainer.

    Raises:
        EarshotError: fewer than two clips are long enough.
    """

    def __init__(
        self,
        network: Any,
        scenes: Path,
        objective: Objective,
        sampling: Sampling,
        augmentation: Augmentation,
        *,
        sound: SoundAugmentation = UNCHANGED,
        batch_size: int,
        seed: int,
        wrong_sound: bool = False,
    ) -> None:
        self.encoder, self.objective, self.sampling, self.augmentation = network, objective, sampling, augmentation
        self.network: Any = objective.trained(network, seed)
        self.scenes, self.sound, self.seed = scenes, sound, seed
        spec = InputSpec.by(network)
        self.spec = replace(spec, audio_samples=objective.windows * spec.audio_samples)
        if sound.time_shift_s and self.spec.frames > 1:
            actual = f"correspond.time_shift_s is {sound.time_shift_s:g}, but a network of sequences learns synchrony"
            raise EarshotError(f"{actual}; set it to 0, or use a network of single frames, such as ave")
        if sound.frequency_mask or sound.time_mask:
            network.mask_spectrograms(sound.frequency_mask, sound.time_mask)
        self._sounds = KeptSounds(self.spec, KEPT_SOUNDS // max(settings().loaders, 1))  # each loader keeps its own
        kind = {"wrong_sound": seed if wrong_sound else None}
        training, validation = (clips_of(scenes, self.spec, sampling, split=name, **kind) for name in ("train", "val"))
        self.training = PairedClips(training, batch_size=batch_size // 2, seed=seed)
        self.validation = PairedClips(validation, batch_size=batch_size // 2, seed=None)
        if self.training.items < 2:
            actual = f"{self.training.items} training clips last the network's {self.spec.seconds:.2f} s"
            raise EarshotError(f"{scenes}: {actual}, expected 2 or more; give more or longer clips")
        self.batch_size, self.batches_per_epoch = 2 * self.training.batch_size, self.training.batches_per_epoch
        self.part = processes.part(self.training.batch_size, "correspond.batch_size", each=2)
        self.validated = self.validation.items if self.validation.has_others else 0
        self._alarms: set[str] = set()
        # Losses of a random guess on the batches of the last epoch.
        self._chances: deque[float | Tensor] = deque(maxlen=self.batches_per_epoch)
        self.device = next(network.parameters()).device

    def batches(self, numbers: range) -> Iterator[Pairs]:
        """This process's pairs of the batches, on the network's device."""
        return feed(self._training_batch, self._take, numbers)

    def loss(self, batch: Pairs) -> tuple[Tensor, Tensor]:
        """The loss of the objective, and the accuracy on pairs."""
        loss, right = self.objective.loss(self.network, batch, shared=True)
        if self.objective.last_chance is not None:
            self._chances.append(self.objective.last_chance)
        return loss, right

    def state(self) -> dict[str, Tensor]:
        """What a checkpoint keeps: the state of the objective, and the losses of a random guess."""
        return self.objective.state() | {
            CHANCES: torch.tensor([float(each) for each in self._chances], dtype=torch.float64)
        }

    def restore(self, state: dict[str, Tensor]) -> None:
        """Go on from the `state` of a checkpoint."""
        self._chances.extend(state[CHANCES].tolist())
        self.objective.restore({name: tensor for name, tensor in state.items() if name != CHANCES})

    def validate(self) -> dict[str, float | None]:
        """Loss and accuracy on the validation pairs, and the spread of the last batch's embeddings."""
        sums = torch.zeros(2, dtype=torch.float64, device=self.device)
        batches = self.validation.batches_per_epoch if self.validated else 0
        numbers = range(processes.rank(), batches, processes.count())
        spreads: dict[str, float] = {}
        for batch in prefetch(self._validation_batch, numbers, settings().threads):
            sums += torch.stack(self.objective.loss(self.network, batch, shared=False)) * len(batch.is_match)
            if len(batch.images) > 1:  # one embedding alone has no spread
                spreads = self._spreads(batch)
        processes.total(sums)
        loss, right = (sums / (2 * self.validation.items)).tolist() if batches else (None, None)
        return {"val_loss": loss, "val_accuracy": right} | spreads

    def watch(self, history: Sequence[dict[str, Any]]) -> None:
        """Warn, once each, of a loss that stays at chance and of collapsed embeddings."""
        for name, message in self.alarms(history).items():
            if name not in self._alarms:
                self._alarms.add(name)
                advice = "the network has learned nothing so far: try another correspond.learning_rate, or more clips"
                warnings.warn(f"{message}; {advice}", stacklevel=2)

    def alarms(self, history: Sequence[dict[str, Any]]) -> dict[str, str]:
        """A loss that stays at chance, and embeddings that have collapsed, after the last of these epochs."""
        if not history:
            return {}
        row, alarms = history[-1], {}
        steps = row["epoch"] * self.batches_per_epoch
        chance = float(np.mean([float(each) for each in self._chances])) if self._chances else math.inf
        if steps >= STUCK_STEPS and row["train_loss"] > chance - STUCK:
            loss = row["train_loss"]
            alarms["stuck"] = f"the training loss is {loss:.4f} after {steps} steps, chance is {chance:.4f}"
        spreads = {modality: row.get(f"{modality}_spread", 1.0) for modality in ("image", "audio")}
        return alarms | collapse(spreads, steps)

    def _chance(self, clips: Sequence[tuple[SceneClip, SceneClip]], shifted: np.ndarray) -> float | None:
        """As `Objective.chance`; raises EarshotError if the batch teaches nothing."""
        try:
            return self.objective.chance([clip.group for clip, _ in clips], shifted)
        except EarshotError as error:
            raise EarshotError(f"{self.scenes}: {error}") from None

    def _spreads(self, batch: Pairs) -> dict[str, float]:
        """The spread of each modality's embeddings: 1 minus the length of the mean of their directions."""
        if self.spec.frames > 1:
            return {}  # the multisensory network has no embedding of a single modality
        embeddings = self.objective.embeddings(self.encoder, batch)
        return {f"{modality}_spread": spread(rows) for modality, rows in embeddings.items()}

    def _training_batch(self, number: int) -> tuple[Pairs, float | None]:
        """This process's pairs of a batch, in CPU memory, and the loss of a random guess on it."""
        clips = self.training[number]
        shifted = self.sampling.shifted(len(clips), self.seed, number)
        chance = self._chance(clips, shifted)
        drawn = generator("pairs", self.seed, number)
        chances, loudness = drawn.random((len(clips), 6)), drawn.random((len(clips), 2))
        changes = self.augmentation.draw(len(clips), drawn)
        own, gains = self.part, self.sound.gains(loudness)
        shifts = self.sound.shifts(gains.shape, generator("shifts", self.seed, number))
        pairs = self._pairs(
            clips[own],
            chances[own],
            changes=changes[np.arange(len(clips))[own]],
            gains=gains[own],
            shifts=None if shifts is None else shifts[own],
            shifted=shifted[own],
        )
        if not (self.sound.mix_share or self.sound.noise_level):
            return pairs, chance
        drawn = generator("sounds", self.seed, number, processes.rank())
        changed = self.sound.change(pairs.sounds.numpy(), drawn)
        return pairs._replace(sounds=torch.from_numpy(changed)), chance

    def _take(self, prepared: tuple[Pairs, float | None]) -> Pairs:
        pairs, chance = prepared
        if chance is not None:
            self._chances.append(chance)
        return self._on_device(pairs)

    def _validation_batch(self, number: int) -> Pairs:
        clips = self.validation[number]
        chances = generator("held-out pairs", number).random((len(clips), 6))
        shifted = self.sampling.shifted(len(clips), number)
        return self._on_device(self._pairs(clips, chances, shifted=shifted))

    def _pairs(self, clips: list, chances: np.ndarray, **draws: Any) -> Pairs:
        with decoding_frames(self.scenes):
            return make_pairs(clips, self.spec, self.sampling, chances, cut=self._sounds.cut, **draws)

    def _on_device(self, pairs: Pairs) -> Pairs:
        return Pairs(*(tensor.to(self.device) for tensor in pairs.in_windows(self.objective.windows)))
