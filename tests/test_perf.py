"""The programs that measure speed: each finds the bounds that do not hold, and its small form runs.

No test is timed.
"""

import os
import pkgutil
import re
import subprocess
import sys
from dataclasses import dataclass
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from conftest import PARAMS, REPOSITORY
from hostile_site import Request

import perf
from perf import (
    cluster,
    embed,
    explain,
    extract,
    feed,
    gpu,
    hostile_site,
    kmeans,
    linear,
    openl3,
    pairs,
    rounds,
    scale,
    startup,
    steps,
    texture,
    training,
)
from perf.rounds import Ratio, Speed

HELPERS = {"rounds", "steps"}


def at(speed: float) -> list[Speed]:
    """Three rounds of nearly this speed."""
    return [Speed(factor * speed, factor * speed) for factor in (0.99, 1.0, 1.01)]


def speeds(**by_name: float) -> dict[str, list[Speed]]:
    return {name: at(speed) for name, speed in by_name.items()}


def of_loader(free: float, shared: float) -> dict[str, list[Speed]]:
    return {steps.LOADED: at(free), steps.SHARED: at(shared), steps.IN_MEMORY: at(1.0)}


def ratio_faults(ratios: list[Ratio]) -> list[str]:
    return rounds.report(ratios)


def of_training(free: float, shared: float, bf16: float) -> list[str]:
    return ratio_faults(training.ratios(of_loader(free, shared) | speeds(bf16=bf16, float32=1.0)))


def of_pairs(free: float, shared: float, spectrogram: float) -> list[str]:
    return ratio_faults(pairs.ratios(speeds(ours=spectrogram, bare=1.0), of_loader(free, shared)))


def of_feed(one: float, two: float, loaders: float) -> list[str]:
    measured = {"pairs, 1 workers": one, "pairs, 2 workers": two, "sounds by PyAV": 1.0, "sounds by soundfile": 2.0}
    measured |= {"pairs, 1 loaders": 1.0, "pairs, 2 loaders": loaders}
    images = {"images by Pillow": 1.0, "images by torchvision": 2.0}
    ratios = feed.ratios(speeds(**measured, **images))
    assert "torchvision, soundfile" in ratios[0].name
    return ratio_faults(ratios)


def of_embed(bare: float) -> list[str]:
    seconds = [{"embed": (1.0, 1.0), "bare": (bare, bare)} for _ in range(9)]
    return ratio_faults(embed.ratios(embed.in_rounds(seconds)))


def of_embed_workers(two: float) -> list[str]:
    return ratio_faults(embed.ratios({"1 workers": at(1.0), "2 workers": at(two)}))


def of_extract(costs: tuple[float, ...], memory: float) -> list[str]:
    measured = {name: at(1 / cost) for name, cost in zip(extract.COSTS, costs, strict=True)}
    return ratio_faults(extract.ratios(measured | {extract.DECODING: at(1.0)})) + extract.growth([100.0, memory])


def of_texture(fast: float, error: float) -> list[str]:
    errors = {"moments": np.full(3, error)}
    measured = {texture.FAST: at(fast), texture.TORCH: at(fast / 2), texture.JUDGE: at(1.0)}
    comparison = texture.Comparison(3, errors, {"moments": np.zeros(3)}, measured)
    assert "moments, torch" in comparison.table()
    return comparison.faults() + ratio_faults(comparison.ratios())


def of_descriptors(mfcc: float, two: float) -> list[str]:
    measured = {"mfcc": at(1 / mfcc), "mfcc, bare": at(1.0), "spectrum": at(1.0), "spectrum, bare": at(1.0)}
    ratios = texture.transform_ratios(measured)
    return ratio_faults(ratios + texture.process_ratios({"processes: 1": at(1.0), "processes: 2": at(two)}))


def of_gpu(fed: float, difference: float, minutes: float) -> list[str]:
    row = gpu.Row("AVE-Net", at(fed), at(100.0), items=3.6e6, flops=1e9, peak=1e12)
    units = gpu.Row("exhibit units", at(10.0), at(100.0), items=3600)
    assert str(row).endswith(f"{1000 / fed:.1f}") and "10%" in str(row)
    assert "%" not in str(units)
    return gpu.faults_of([row, units], [difference], minutes)


def of_cluster(two: float, dask: float) -> list[str]:
    each = {"one": (10.0, 10.0), "two": (20 / two, 10 / two), "dask": (dask * 20 / two, dask * 10 / two)}
    return cluster.report([each] * 3)


def of_explain(minutes: float, memory: float) -> list[str]:
    few = explain.Cost(500, 100.0, 80.0, 2000.0)
    return explain.report([few, explain.Cost(20_000, 60 * minutes, 800.0, memory)])


def of_kmeans(seconds: float, inertia: float) -> list[str]:
    return kmeans.report([kmeans.Fit(seconds, seconds, inertia)], [kmeans.Fit(6.0, 6.0, 1.0)], 1)


def of_linear(seconds: float, test: float) -> list[str]:
    ours, theirs = (linear.Outcome(s, (0.4, 0.5), score) for s, score in ((seconds, test), (30.0, 0.5)))
    return linear.report("fc6", ours, theirs, 4)


def of_openl3(ours: float) -> list[str]:
    return ratio_faults(openl3.ratios({"Earshot": at(ours), "OpenL3": at(1.0)}))


def of_startup(sample: float, command: float) -> list[str]:
    return startup.report(dict.fromkeys(startup.LIGHT, [1.0]) | {"sample": [sample], "earshot": [command]})


def of_hostile_site(wrong: dict, gap: float) -> list[str]:
    log = [Request(number * gap, "a") for number in range(100)]
    return hostile_site.report(wrong, [SimpleNamespace(limit="patient", log=log, ways={"a": "good"})], 1)


@dataclass
class Growth:
    """The costs of three numbers of clips: what the middle one and the largest one cost, in times of the smallest."""

    clock: tuple[float, float] = (1.0, 1.0)
    processors: tuple[float, float] = (1.0, 1.0)
    memory: tuple[float, float] = (1.0, 1.0)
    repro: float = 1.0

    def faults(self) -> list[str]:
        measured = []
        for number, rows in enumerate((1000, 10_000, 100_000)):
            clock, processors, memory = ((1.0, *each)[number] for each in (self.clock, self.processors, self.memory))
            cost = scale.Cost(rows, clock * rows, processors * rows, 100 * memory, 100.0, 1.0, 1)
            measured.append(({"extract": cost}, {"dvc status": 1.0, "dvc repro": self.repro}))
        return scale.report(measured)


# Of each program: what reports, numbers that hold, and numbers of which one or more do not, with the faults expected.
REPORTS = {
    "cluster": [(of_cluster, (1.8, 1.05), (1.6, 1.2), ["gain", "Dask"])],
    "embed": [
        (of_embed, (0.8,), (0.7,), ["cost over decode"]),
        (of_embed_workers, (1.75,), (1.65,), ["two workers"]),
    ],
    "explain": [(of_explain, (14, 2100.0), (16, 2500.0), ["minutes", "memory"])],
    "extract": [
        (of_extract, ((1.2, 0.99, 0.8), 105.0), ((1.3, 1.02, 0.9), 120.0), ["every", "10", "3", "memory"]),
    ],
    "feed": [
        (
            of_feed,
            (0.85, 1.6, 1.85),
            (0.75, 1.3, 1.75),
            ["pairs / torchvision, soundfile", "two workers", "two loaders"],
        )
    ],
    "gpu": [(of_gpu, (96, 0.001, 7), (94, 0.02, 9), ["AVE-Net", "textures", "minutes"])],
    "hostile_site": [(of_hostile_site, ({}, 0.1), ({"a": (1, 2)}, 0.05), ["wrong", "beyond the budget"])],
    "kmeans": [(of_kmeans, (1.0, 1.0), (2.0, 1.02), ["process_s", "clock_s", "inertia"])],
    "linear": [(of_linear, (1.0, 0.501), (2.0, 0.49), ["15.0 times", "-1.00 points"])],
    "openl3": [(of_openl3, (3.1,), (2.9,), ["Earshot / OpenL3"])],
    "pairs": [(of_pairs, (0.96, 0.91, 0.25), (0.94, 0.89, 0.15), ["spectrograms", "free core", "one core"])],
    "scale": [
        (Growth.faults, (Growth(),), (Growth(clock=(1.0, 1.2)),), ["100,000 over 1,000: clock", "over 10,000: clock"]),
        (Growth.faults, (Growth(),), (Growth(processors=(0.5, 0.9)),), ["100,000 over 10,000: processor time"]),
        (Growth.faults, (Growth(),), (Growth(memory=(1.2, 1.2), repro=6.0),), ["dvc repro", "10,000", "100,000"]),
    ],
    "startup": [(of_startup, (1.9, 0.4), (2.1, 0.6), ["sample", "earshot"])],
    "texture": [
        (of_texture, (31.0, 0.001), (29.0, 0.02), ["moments", "textures / judge"]),
        (of_descriptors, (1.4, 1.95), (1.6, 1.85), ["cost of mfcc", "two processes"]),
    ],
    "training": [(of_training, (0.96, 0.91, 1.8), (0.94, 0.89, 1.6), ["free core", "one core", "bf16"])],
}


def test_every_program_is_tested():
    assert {module.name for module in pkgutil.iter_modules(perf.__path__)} - HELPERS == REPORTS.keys()


@pytest.mark.parametrize(
    ("report", "holds", "fails", "expected"),
    [pytest.param(*each, id=name) for name in REPORTS for each in REPORTS[name]],
)
def test_a_report_names_the_bounds_that_do_not_hold_and_no_others(report, holds, fails, expected):
    assert report(*holds) == []
    faults = report(*fails)
    assert len(faults) == len(expected), faults
    for fault, words in zip(faults, expected, strict=True):
        assert words in fault


def test_a_ratio_is_taken_within_each_round_and_its_median_must_hold():
    """A slow round slows both, and changes no ratio."""
    one, other = ([Speed(factor * speed, speed) for factor in (1, 0.1, 1)] for speed in (9.0, 10.0))
    ratio = Ratio.of("one / other", one, other, by="processor", least=0.9)
    assert [speed.processor for speed in ratio.rounds] == pytest.approx([0.9] * 3)
    assert Ratio("spread", [Speed(low, 1) for low in (0.1, 0.8, 0.9)], "processor", least=0.8).holds
    assert not Ratio("spread", [Speed(low, 1) for low in (0.1, 0.79, 0.9)], "processor", least=0.8).holds
    assert "0.10" in rounds.row("spread", [Speed(low, 1) for low in (0.1, 0.8, 0.9)])


def test_kinds_of_work_take_turns_and_the_first_round_does_not_count():
    order = []

    def kind(name: str, first: float):
        calls = iter((first, 2.0, 3.0))
        return lambda: order.append(name) or Speed(next(calls), 1.0)

    measured = rounds.in_turns({"a": kind("a", 0.5), "b": kind("b", 0.6)}, 2)
    assert "".join(order) == "ababab"
    assert [speed.processor for speed in measured["a"]] == [2.0, 3.0]


def test_a_program_fails_only_where_bounds_are_demanded():
    options = rounds.parser_of("").parse_args([])
    rounds.end(options, ["too slow"])
    with pytest.raises(SystemExit, match="does not hold: too slow"):
        rounds.end(rounds.parser_of("").parse_args(["--assert"]), ["too slow"])


@pytest.mark.parametrize("training_", gpu.TRAININGS, ids=lambda each: each.name)
def test_the_recipe_of_each_training_says_how_many_images_or_pairs_it_takes(training_):
    assert 1e6 < gpu.items_of(training_.recipe) < 1e9


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    """A root with the tables of a few clips."""
    root = tmp_path_factory.mktemp("work")
    gpu.write_data(root, 24)
    return root


@pytest.fixture
def small(monkeypatch, one_process):
    """Few steps of tiny networks."""
    for program, values in (
        (feed, {"ROUNDS": 1, "ITEMS": 16, "EPOCHS": 1}),
        (pairs, {"ROUNDS": 1, "STEPS": 2, "SOUNDS": 4}),
        (training, {"ROUNDS": 1, "STEPS": 2, "EPOCHS": 1}),
    ):
        for name, value in values.items():
            monkeypatch.setattr(program, name, value)
    sizes = {"width": 0.125, "image_size": 64, "batch_size": 8}
    return [
        f"--set={stage}.{name}={value}" for stage in ("pretrain", "correspond") for name, value in sizes.items()
    ] + [f"--params={PARAMS}"]


@pytest.mark.parametrize("program", [feed, pairs, training])
def test_a_root_without_tables_is_named(program, tmp_path, small):
    with pytest.raises(SystemExit, match=r"data/labels/labels\.json: cannot be read|data/scenes: .*run the stage"):
        program.main([*small, f"--root={tmp_path}"])


@pytest.mark.slow
def test_the_small_form_of_extract_encodes_clips_anew(real_data, monkeypatch, capsys):
    monkeypatch.setattr(extract, "ENCODED", 2)
    monkeypatch.setattr(extract, "ROUNDS", 1)
    monkeypatch.setenv("EARSHOT_REAL_DATA", str(real_data))
    extract.main(["--codec=mpeg4"])
    output = capsys.readouterr().out
    for name in (extract.DECODING, *extract.COSTS):
        assert name in output


@pytest.mark.parametrize(
    ("program", "rows"),
    [
        (feed, [*feed.IMAGES, *feed.SOUNDS, feed.KEPT, "frames, two loaders / one", "pairs, two loaders / one"]),
        (pairs, [steps.SHARED, "bare"]),
        (training, ["bf16", "accuracy"]),
    ],
    ids=["feed", "pairs", "training"],
)
def test_a_small_form_runs(program, rows, work, small, capsys):
    cores = os.sched_getaffinity(0)
    program.main([*small, f"--root={work}"])
    output = capsys.readouterr().out
    for words in rows:
        assert words in output
    assert "at least" in output
    assert os.sched_getaffinity(0) == cores


def test_the_bytes_of_bare_decoding_are_those_that_the_feed_decodes(work, small):
    """The first batches of both stages, at the size of the network."""
    for stage, items in (("pretrain", 16), ("correspond", 16)):
        _, model = steps.STAGES[stage]
        params = feed.load_params(model, PARAMS, [word.removeprefix("--set=") for word in small[:-1]])
        task = steps.task_of(stage, params, work)
        data = feed.bytes_of(stage, task, 2)
        images = [batch[0] for batch in task.batches(range(2))]
        assert data.items == items and len(data.images) == sum(map(len, images))
        assert all(jpeg.startswith(b"\xff\xd8") for jpeg, _ in data.images) and data.size == 64
        assert all(flac.startswith(b"fLaC") for flac, _ in data.sounds)
        assert len(data.sounds) == (0 if stage == "pretrain" else len(data.images))


def test_descriptors_stand_beside_their_transforms():
    measured = texture.transforms(gpu.modulated_noise(3), gpu.RATE, rounds=1)
    assert measured.keys() == {"mfcc", "mfcc, bare", "spectrum", "spectrum, bare"}


@pytest.mark.slow  # two processes that import torch
def test_two_processes_share_the_windows():
    measured = texture.processes(gpu.modulated_noise(3), gpu.RATE, rounds=1)
    assert [len(each) for each in measured.values()] == [1, 1]


@pytest.mark.parametrize(("number", "parts"), [(0, ["CaffeNet"]), (-2, ["Tower", "Tower"])])
def test_a_network_or_both_of_its_towers_are_compiled(work, monkeypatch, number, parts):
    compiled = []
    monkeypatch.setattr(torch.nn.Module, "compile", lambda part, mode: compiled.append((type(part).__name__, mode)))
    steps_of, _ = gpu.steps_of(gpu.TRAININGS[number], work, 1, small=True)
    gpu.compile_network(steps_of(False).task.encoder, "reduce-overhead")
    assert compiled == [(part, "reduce-overhead") for part in parts]


@pytest.mark.slow  # torch's compiler takes a minute
def test_a_compiled_training_is_timed(work):
    row = gpu.measure(gpu.TRAININGS[1], work, small=True, mode="default")
    assert row.flops > 0 and row.ratio.median > 0


@pytest.mark.slow
def test_the_trainings_of_the_papers_are_timed():
    command = [sys.executable, "-m", "perf.gpu", "--small"]
    settings = os.environ | {"EARSHOT_DEVICE": "cpu"}
    done = subprocess.run(command, cwd=REPOSITORY, env=settings, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    rows = [line for line in done.stdout.splitlines() if re.search(r"%\s+[\d,.]+$", line)]
    assert len(rows) == len(gpu.TRAININGS)
    for row in rows:
        fed, kept, ratio, lowest, highest, _, share, hours = row[36:].replace(",", "").replace("%", "").split()
        assert float(fed) > 0 and float(kept) > 0 and 0 < float(share) <= 110 and float(hours) > 0
        assert abs(float(ratio) - float(fed) / float(kept)) < 0.01 + 1 / float(kept)
        assert float(lowest) <= float(ratio) <= float(highest)
    numpy, *in_torch = re.findall(r"^textures a second, .*: ([\d,]+)(?:, difference ([\d.]+))?$", done.stdout, re.M)
    assert int(numpy[0].replace(",", "")) > 0 and len(in_torch) == 2
    for textures, difference in in_torch:
        assert int(textures.replace(",", "")) > 0 and float(difference) < 0.01
    assert re.search(r"^exhibit units, three AlexNets +[\d,]+ +[\d,]+ ", done.stdout, re.M)
