"""The papers' trainings on one device: items a second through the feed and in memory, and the hours of each row.

    python -m perf.gpu             # on a GPU, at the papers' sizes; made for eight minutes, not measured on one
    python -m perf.gpu --compile   # networks by torch.compile; also --compile reduce-overhead, which uses CUDA graphs
    python -m perf.gpu --small     # the same code on a CPU: tiny networks, two steps, numbers without meaning
    python -m perf.gpu --assert    # exits with 1 if a bound does not hold

Clips are made: noise of 256 px, and ten seconds of noise at 48 kHz. Each training runs its recipe's network, batch and
precision for STEPS steps, in turn through the feed and on batches in memory. A row of the table:

- items a second through the feed, in memory, and the first over the second: medians by the clock, and of the ratio the
  lowest and the highest
- TFLOP/s of the steps in memory, and their share of the best that one matrix product of the same precision reaches here
- hours of the recipe's training at the speed through the feed, for one network; its control takes as many again

The last row is the exhibit units: frames a second through three AlexNets up to conv5 with what is kept of every unit,
the maps alone of images in memory, and the hours of Owens' 200,000 frames.

Below it stand sound textures a second, of NumPy on one core and of torch on the device, and their difference.
"""

import io
import re
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import median
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
from earshot.explanation.encoders import NETWORKS
from earshot.explanation.frames import FramePool
from earshot.explanation.layers import CONV5, Layer, maps_of
from earshot.explanation.selectivity import look_at_frames
from earshot.labels.table import LABELS, LABELS_FILE, write_table
from earshot.networks.backbones import build_network
from earshot.networks.crops import crop_frames
from earshot.networks.device import autocast, get_device, on_device, used_precision
from earshot.networks.two_towers import TwoTowers
from earshot.results.recipes import with_foundation
from earshot.scenes.writing import Scene, write_scenes
from earshot.sound.texture import sound_textures
from earshot.sound.texture_transform import TextureTransform
from earshot.training.trainer import Plan
from perf.rounds import Ratio, Rounds, end, in_turns, parser_of, timed
from perf.steps import FREE_CORE, STAGES, Steps, plan_of, task_of

REPOSITORY = Path(__file__).parent.parent
ROUNDS, STEPS = 3, 12
CLIPS, FRAMES, SIDE, CLUSTERS = 512, 2, 256, 30
SECONDS, RATE = 10, 48_000
SOUNDS, BATCH_SIZES = 256, (64, 256)  # of the textures
PRODUCT = 8192  # side of the matrices of the product whose speed stands for the device's peak
SMALL = {"width": 0.125, "image_size": 96, "batch_size": 8}
UNITS_SMALL = {"width": 0.125, "image_size": 96}
POOL, TOP, OWENS_FRAMES = 1024, 60, 200_000  # frames that are looked at, a unit's top ones, all of the paper's
MINUTES, DIFFERENCE = 8.0, 0.01  # of the whole program; of textures, in standard deviations; the most


@dataclass(frozen=True)
class Training:
    """A training of a paper: its recipe, its stage, and what else is set."""

    name: str
    recipe: str
    stage: str
    more: tuple[str, ...] = ()


TRAININGS = (
    Training("CaffeNet 227 px (Owens)", "owens-cluster", "pretrain"),
    Training("AlexNet 227 px (Mahadev and Lu)", "mahadev-texture", "pretrain"),
    Training("ResNet-50 227 px (Mahadev and Lu)", "mahadev-resnet50", "pretrain"),
    Training("ResNet-50 224 px", "mahadev-resnet50", "pretrain", ("pretrain.image_size=224",)),
    Training("L3-Net pairs", "arandjelovic-l3-flickr", "correspond"),
    Training("AVE-Net pairs", "kim-instruments-ave", "correspond"),
    Training("AVE-Net, contrastive", "kim-instruments-ave", "correspond", ("correspond.objective=contrastive",)),
)


@dataclass(frozen=True)
class Row:
    """What was measured of a training, or of the exhibit units.

    Args:
        fed, kept: items a second, through the feed and in memory.
        items: of the paper.
        flops: of one item, forward and back; 0 where they are not counted.
        peak: FLOP/s of a matrix product.
    """

    name: str
    fed: Rounds
    kept: Rounds
    items: float
    flops: float = 0.0
    peak: float = 1.0

    @property
    def ratio(self) -> Ratio:
        """Through the feed over in memory; the bound is for trainings alone."""
        bound = {"least": FREE_CORE} if self.flops else {}
        return Ratio.of(f"{self.name}, feed / memory", self.fed, self.kept, by="clock", **bound)

    def __str__(self) -> str:
        fed, kept = (median(speed.clock for speed in rounds) for rounds in (self.fed, self.kept))
        ratios = [speed.clock for speed in self.ratio.rounds]
        line = f"{self.name:<36}{fed:>10,.0f}{kept:>10,.0f}{median(ratios):>8.2f}{min(ratios):>8.2f}{max(ratios):>8.2f}"
        speed = self.flops * kept
        line += f"{speed / 1e12:>9.2f}{speed / self.peak:>7.0%}" if self.flops else " " * 16
        return line + f"{self.items / fed / 3600:>10,.1f}"


def items_of(recipe: str) -> float:
    """The images or pairs of a recipe's training, which its `cost` names, or that of the recipe that it builds onto."""
    for each in reversed(with_foundation(REPOSITORY / "recipes" / f"{recipe}.yaml")):
        if match := re.search(r"([\d.]+) million (?:images|pairs)", each["cost"]):
            return float(match[1]) * 1e6
    raise ValueError(f"recipes/{recipe}.yaml: cost names no number of images or pairs, expected '9 million images'")


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
    _, model = STAGES[training.stage]
    params = load_params(model, root / "params.yaml")

    def build(in_memory: bool) -> Steps:
        return Steps(task_of(training.stage, params, root), steps, in_memory=in_memory)

    return build, plan_of(training.stage, params)


def compile_network(network: Any, mode: str) -> None:
    """Let torch compile a network, or both towers of one, when it first runs."""
    for part in (network.image_tower, network.audio_tower) if isinstance(network, TwoTowers) else (network,):
        part.compile(mode=mode)


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


def measure(training: Training, root: Path, *, small: bool, mode: str | None) -> Row:
    """A row of the table; `mode`: of torch.compile, None for none."""
    build, plan = steps_of(training, root, 2 if small else STEPS, small)
    fed, kept = build(False), build(True)
    flops = flops_of(kept, plan.precision) / kept.task.batch_size
    if mode:
        for steps in (fed, kept):
            compile_network(steps.task.encoder, mode)
    speeds = in_turns({"fed": lambda: fed.train(plan), "kept": lambda: kept.train(plan)}, 1 if small else ROUNDS)
    items, best = items_of(training.recipe), peak(plan.precision, 256 if small else PRODUCT)
    return Row(training.name, speeds["fed"], speeds["kept"], items, flops, best)


def measure_units(root: Path, *, small: bool) -> Row:
    """The row of the exhibit units."""
    size = UNITS_SMALL if small else {"width": 1.0, "image_size": 227}
    layers = {
        prefix: Layer(on_device(build_network("alexnet", classes=CLUSTERS, dropout=0.0, **size).eval()), CONV5)
        for prefix in NETWORKS
    }
    pool = FramePool(root / "data/scenes", POOL, split="train")
    batches = list(pool.batches())
    images = crop_frames([frame.jpeg for frame in batches[0]], int(size["image_size"])).to(get_device())

    def look() -> None:
        look_at_frames(layers, pool, TOP, "maximum")

    def maps() -> None:
        for _ in batches:
            maps_of(layers, images)
        finish(get_device())

    kinds = {"fed": lambda: timed(look, len(pool)), "kept": lambda: timed(maps, len(batches) * len(images))}
    speeds = in_turns(kinds, 1 if small else ROUNDS)
    return Row("exhibit units, three AlexNets", speeds["fed"], speeds["kept"], OWENS_FRAMES)


def measure_textures(seconds: float, sounds: int) -> list[float]:
    """Print textures a second, of NumPy on one core and of torch on the device by its batch size.

    Sounds begin and textures end in the CPU's memory. Returns the differences: root mean squares over all numbers, in
    standard deviations between the sounds.
    """
    windows = modulated_noise(sounds)
    with threadpool_limits(1):
        expected, rate = _repeated(lambda: sound_textures(windows, RATE), seconds)
    print(f"textures a second, NumPy, one core: {sounds * rate:,.0f}")
    differences = []
    for batch_size in BATCH_SIZES:
        transform = TextureTransform(RATE, batch_size=batch_size)
        actual, rate = _repeated(partial(_in_torch, transform, windows), seconds)
        differences.append(float(np.sqrt(np.mean(np.square((actual - expected) / expected.std(axis=0))))))
        name = f"torch, this device, batches of {batch_size}"
        print(f"textures a second, {name}: {sounds * rate:,.0f}, difference {differences[-1]:.5f}", flush=True)
    return differences


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


def faults_of(rows: list[Row], differences: list[float], minutes: float) -> list[str]:
    """The bounds that do not hold, a phrase each."""
    ratios = [row.ratio for row in rows]
    faults = [f"{each.name} is {each.median:.3f}, expected {each.bound}" for each in ratios if not each.holds]
    faults += [
        f"textures differ by {each:.4f}, expected less than {DIFFERENCE}" for each in differences if each >= DIFFERENCE
    ]
    return faults + ([f"it took {minutes:.1f} minutes, expected {MINUTES:g}"] if minutes > MINUTES else [])


def main(arguments: list[str] | None = None) -> None:
    """Run the command line."""
    parser = parser_of(__doc__)
    parser.add_argument("--small", action="store_true", help="tiny networks and two steps, for a CPU")
    modes = ("default", "reduce-overhead", "max-autotune")
    parser.add_argument("--compile", nargs="?", const="default", choices=modes, help="use torch.compile in this mode")
    options = parser.parse_args(arguments)
    small, device, began = options.small, get_device(), time.perf_counter()
    name = torch.cuda.get_device_name() if device.type == "cuda" else "CPU"
    print(f"{name}, {torch.get_num_threads()} threads, torch {torch.__version__}, compiled: {options.compile or 'no'}")
    heads = ("feed", "memory"), ("ratio", "lowest", "highest")
    print(
        f"{'items a second':<36}" + "".join(f"{head:>10}" for head in heads[0]) + "".join(f"{h:>8}" for h in heads[1]),
        f"{'TFLOP/s':>8}{'peak':>7}{'hours':>10}",
    )
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        write_data(Path(folder), 48 if small else CLIPS)
        for training in TRAININGS:
            rows.append(measure(training, Path(folder), small=small, mode=options.compile))
            print(rows[-1], flush=True)
        rows.append(measure_units(Path(folder), small=small))
        print(rows[-1], flush=True)
    differences = measure_textures(0.1 if small else 10, 8 if small else SOUNDS)
    minutes = (time.perf_counter() - began) / 60
    print(f"{minutes:.1f} minutes")
    end(options, faults_of(rows, differences, minutes))


if __name__ == "__main__":
    main()
