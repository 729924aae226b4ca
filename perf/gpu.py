"""The papers' trainings on one device: items a second through the feed and in memory, and the hours of each row.

    python -m perf.gpu             # on a GPU, at the papers' sizes; made for eight minutes, not measured on one
    python -m perf.gpu --small     # the same code on a CPU: tiny networks, two steps, numbers without meaning

Clips are made: noise of 256 px, and ten seconds of noise at 48 kHz. Each training runs its recipe's network, batch and
precision for STEPS steps, in turn through the feed and on batches in memory. A row of the table:

- items a second through the feed, in memory, and the first over the second
- TFLOP/s of the steps in memory, and their share of the best that one matrix product of the same precision reaches here
- hours of the recipe's training at the speed through the feed, for one network; its control takes as many again

Below it stand sound textures a second, of numpy on one core and of torch on the device, and their difference.
"""

import argparse
import io
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import soundfile
import torch
from PIL import Image
from threadpoolctl import threadpool_limits
from torch.utils.flop_counter import FlopCounterMode

from earshot.commands.recipe import apply_recipes
from earshot.core.files import shard_name
from earshot.core.params import load_params
from earshot.corpus.split import split_of
from earshot.labels.table import LABELS, LABELS_FILE, write_table
from earshot.networks.device import autocast, get_device, used_precision
from earshot.params.correspond import CorrespondParams
from earshot.params.pretrain import PretrainParams
from earshot.scenes.writing import Scene, write_scenes
from earshot.sound.texture import sound_textures
from earshot.sound.texture_transform import TextureTransform
from earshot.training.corresponding import Corresponding
from earshot.training.pretraining import Pretraining
from earshot.training.trainer import Plan
from perf.steps import Steps

REPOSITORY = Path(__file__).parent.parent
ROUNDS, STEPS = 3, 12
CLIPS, FRAMES, SIDE, CLUSTERS = 512, 2, 256, 30
SECONDS, RATE = 10, 48_000
SOUNDS, BATCH_SIZES = 256, (64, 256)  # of the textures
PRODUCT = 8192  # side of the matrices of the product whose speed stands for the device's peak
SMALL = {"width": 0.125, "image_size": 96, "batch_size": 8}
STAGES: dict[str, Any] = {"pretrain": (Pretraining, PretrainParams), "correspond": (Corresponding, CorrespondParams)}


@dataclass(frozen=True)
class Training:
    """A training of a paper: its recipe, its stage, and the images or pairs that it takes, by the recipe's `cost`."""

    name: str
    recipe: str
    stage: str
    items: float
    more: tuple[str, ...] = ()


TRAININGS = (
    Training("CaffeNet 227 px (Owens)", "owens-cluster", "pretrain", 82e6),
    Training("AlexNet 227 px (Mahadev and Lu)", "mahadev-texture", "pretrain", 9e6),
    Training("ResNet-50 227 px (Mahadev and Lu)", "mahadev-resnet50", "pretrain", 9e6),
    Training("L3-Net pairs", "arandjelovic-l3-flickr", "correspond", 60e6),
    Training("AVE-Net pairs", "kim-instruments-ave", "correspond", 19e6),
    Training("AVE-Net, contrastive", "kim-instruments-ave", "correspond", 19e6, ("correspond.objective=contrastive",)),
)


def write_data(root: Path, clips: int) -> None:
    """Write data/scenes and data/labels of so many clips below a folder."""
    noise = np.random.default_rng(0)
    scenes = [_scene(number, noise) for number in range(clips)]
    write_scenes(root / "data/scenes" / f"{shard_name(0)}.parquet", scenes)
    rows = [scene for scene in scenes for _ in range(FRAMES)]
    labels = noise.integers(CLUSTERS, size=len(rows))
    columns = {
        "clip_id": [scene.clip_id for scene in rows],
        "moment": np.tile(np.arange(FRAMES), clips),
        "group": [scene.group for scene in rows],
        "split": [split_of(scene.group) for scene in rows],
        "label": labels,
        "kept": np.ones(len(rows), bool),
        "distance": np.zeros(len(rows)),
        "wrong_sound_label": labels,
        "wrong_sound_kept": np.ones(len(rows), bool),
    }
    (root / "data/labels").mkdir(parents=True)
    write_table(root / "data/labels" / f"{shard_name(0)}.parquet", pa.table(columns, schema=LABELS))
    (root / "data/labels" / LABELS_FILE).write_text(f'{{"kind": "cluster", "values": {CLUSTERS}}}')


def _scene(number: int, noise: np.random.Generator) -> Scene:
    sound, small = io.BytesIO(), noise.integers(0, 256, (SIDE // 4, SIDE // 4, 3), np.uint8)
    soundfile.write(sound, noise.uniform(-0.3, 0.3, SECONDS * RATE), RATE, format="FLAC", subtype="PCM_16")
    frames = []
    for turn in range(FRAMES):
        file = io.BytesIO()
        Image.fromarray(np.rot90(small, turn)).resize((SIDE, SIDE)).save(file, "JPEG", quality=90)
        frames.append(file.getvalue())
    name = f"video{number:04d}"
    return Scene(name, name, float(SECONDS), frames, [3.0, 6.0], sound.getvalue(), RATE, 1)


def steps_of(training: Training, root: Path, steps: int, small: bool) -> tuple[Callable[[bool], Steps], Plan]:
    """The steps of a training, in memory or not, and its plan."""
    changes = dict(SMALL) if small else {}
    if training.recipe.endswith("resnet50"):
        changes.pop("width", None)
    overrides = [*training.more, *(f"{training.stage}.{key}={value}" for key, value in changes.items())]
    recipes = [REPOSITORY / "recipes" / f"{training.recipe}.yaml"]
    apply_recipes(recipes, (REPOSITORY / "params.yaml").read_text(), root / "params.yaml", overrides)
    kind, model = STAGES[training.stage]
    params = load_params(model, root / "params.yaml")
    group = getattr(params, training.stage)
    stage = kind(root, params.seed, group, None, root / "models", root)

    def build(in_memory: bool) -> Steps:
        torch.manual_seed(params.seed)
        return Steps(stage.task("encoder", stage.build()), steps, in_memory=in_memory)

    return build, replace(Plan.of(group, params.seed), epochs=1)


def flops_of(steps: Steps, precision: str) -> int:
    """Floating point operations of one step, forward and back."""
    steps.network.train()
    with FlopCounterMode(display=False) as counter:
        with autocast(precision, get_device()):
            loss, _ = steps.loss(next(steps.batches(range(1))))
        loss.backward()
    steps.network.zero_grad(set_to_none=True)
    return counter.get_total_flops()


def peak(precision: str, side: int) -> float:
    """FLOP/s of the best of several products of two square matrices."""
    device = get_device()
    kind = torch.bfloat16 if used_precision(precision, device) == "bf16" else torch.float32
    matrix, best = torch.ones(side, side, dtype=kind, device=device), 0.0
    for _ in range(5):
        finish(device)
        began = time.perf_counter()
        matrix @ matrix
        finish(device)
        best = max(best, 2 * side**3 / (time.perf_counter() - began))
    return best


def finish(device: torch.device) -> None:
    """Wait for the device."""
    if device.type == "cuda":
        torch.cuda.synchronize()


def measure(training: Training, root: Path, *, small: bool) -> str:
    """A row of the table."""
    build, plan = steps_of(training, root, 2 if small else STEPS, small)
    fed, kept = build(False), build(True)
    rates: dict[bool, list[float]] = {False: [], True: []}
    for round_ in range(2 if small else ROUNDS + 1):  # the first warms up
        for in_memory, steps in ((False, fed), (True, kept)):
            rate = steps.batches_per_epoch * steps.task.batch_size / steps.train(plan).seconds
            if round_:
                rates[in_memory].append(rate)
    through, memory = statistics.median(rates[False]), statistics.median(rates[True])
    speed = flops_of(kept, plan.precision) / kept.task.batch_size * memory
    share = speed / peak(plan.precision, 256 if small else PRODUCT)
    return (
        f"{training.name:<36}{through:>10,.0f}{memory:>10,.0f}{through / memory:>8.2f}{speed / 1e12:>9.2f}{share:>7.0%}"
        f"{training.items / through / 3600:>10,.1f}"
    )


def measure_textures(seconds: float, sounds: int) -> list[str]:
    """Lines of textures a second: of numpy on one core, and of torch on the device, by its batch size.

    Sounds begin and textures end in the CPU's memory. The difference is the root mean square over all numbers, in
    standard deviations between the sounds.
    """
    windows = modulated_noise(sounds)
    with threadpool_limits(1):
        expected, rate = _repeated(lambda: sound_textures(windows, RATE), seconds)
    rows = [f"textures a second, numpy, one core: {sounds * rate:,.0f}"]
    for batch_size in BATCH_SIZES:
        transform = TextureTransform(RATE, batch_size=batch_size)
        actual, rate = _repeated(partial(_in_torch, transform, windows), seconds)
        difference = np.sqrt(np.mean(np.square((actual - expected) / expected.std(axis=0))))
        name = f"torch, this device, batches of {batch_size}"
        rows.append(f"textures a second, {name}: {sounds * rate:,.0f}, difference {difference:.5f}")
    return rows


def _in_torch(transform: TextureTransform, windows: np.ndarray) -> np.ndarray:
    with torch.inference_mode():
        return transform(torch.from_numpy(windows).to(get_device())).cpu().numpy()


def modulated_noise(sounds: int) -> np.ndarray:
    """Noise whose level, color and rate of modulation differ: float32 (sounds, samples) of 3.75 s."""
    generator = np.random.default_rng(0)
    time_ = np.arange(round(3.75 * RATE)) / RATE
    level, color, rate = generator.uniform((0.1, -0.9, 1), (1, 0.9, 30), (sounds, 3)).T[:, :, None]
    noise = generator.uniform(-0.2, 0.2, (sounds, len(time_)))
    modulated = level * (noise + color * np.roll(noise, 1, axis=1)) * (1 + np.sin(2 * np.pi * rate * time_))
    return modulated.astype(np.float32)


def _repeated(work: Callable[[], Any], seconds: float) -> tuple[Any, float]:
    """The result of work, and how often it ran a second after its first time."""
    work()
    done, began = 0, time.perf_counter()
    while not done or time.perf_counter() - began < seconds:
        result = work()
        done += 1
    return result, done / (time.perf_counter() - began)


def main(arguments: list[str] | None = None) -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--small", action="store_true", help="tiny networks and two steps, for a CPU")
    small = parser.parse_args(arguments).small
    device = get_device()
    name = torch.cuda.get_device_name() if device.type == "cuda" else "CPU"
    print(f"{name}, {torch.get_num_threads()} threads, torch {torch.__version__}")
    print(f"{'items a second':<36}{'feed':>10}{'memory':>10}{'ratio':>8}{'TFLOP/s':>9}{'peak':>7}{'hours':>10}")
    with tempfile.TemporaryDirectory() as folder:
        write_data(Path(folder), 48 if small else CLIPS)
        for training in TRAININGS:
            print(measure(training, Path(folder), small=small), flush=True)
    print(*measure_textures(0.1 if small else 10, 8 if small else SOUNDS), sep="\n")


if __name__ == "__main__":
    main()
