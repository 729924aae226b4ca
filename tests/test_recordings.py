"""Recordings are classified by the mean of their windows, from a descriptor or an audio tower, on ESC-50 and DCASE."""

import csv
import json
import re
import shutil
import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from conftest import PARAMS
from descriptions import described_as, description

from earshot.benchmarks import dcase, esc50
from earshot.core.errors import EarshotError
from earshot.core.hashing import list_hash
from earshot.evaluation.recordings import recordings
from earshot.evaluation.recordings.recordings import (
    Split,
    classify,
    embed_recordings,
)
from earshot.evaluation.recordings.windows import cut_recording, describe_recording
from earshot.networks.correspondence import build_correspondence
from earshot.networks.files import save_architecture, save_weights
from earshot.networks.towers import pooled
from earshot.pipeline.settings import settings
from stages.evaluate import STAGE, main

pytestmark = pytest.mark.filterwarnings("ignore:.*edge of the grid")
RATE = 16_000
SECONDS = 3
SCENES = {"bus": 300, "park": 1500, "tubestation": 4000}  # Hz


@pytest.fixture(autouse=True)
def _one_thread(monkeypatch) -> Iterator[None]:
    """Work this small loses by threads and processes."""
    monkeypatch.setenv("EARSHOT_THREADS", "1")
    monkeypatch.setenv("EARSHOT_WORKERS", "1")
    settings.cache_clear()
    yield
    settings.cache_clear()


@pytest.fixture(scope="module")
def encoder(tmp_path_factory) -> Path:
    """A folder of encoders as the stage correspond writes it, random and trained being the same."""
    folder = tmp_path_factory.mktemp("correspond")
    torch.manual_seed(0)
    network = build_correspondence("ave", width=1 / 16, image_size=32)
    network.fit_audio_scale(torch.randn(2, 48_000).clamp(-1, 1) * 0.1)
    save_architecture(folder, network)
    for name in ("encoder", "random", "wrong_sound"):
        save_weights(folder, name, network)
    return folder


def write_scene(file: Path, name: str, number: int) -> None:
    """A stereo recording with a tone for its scene."""
    file.parent.mkdir(parents=True, exist_ok=True)
    rng, times = np.random.default_rng(number), np.arange(SECONDS * RATE) / RATE
    tone = 0.2 * np.sin(2 * np.pi * SCENES[name] * rng.uniform(0.9, 1.1) * times)
    sound = tone[:, None] + 0.02 * rng.standard_normal((len(times), 2))
    soundfile.write(file, sound, RATE)


@pytest.fixture
def dataset_2013(tmp_path) -> Path:
    """DCASE 2013: names with gaps, as the official ones have."""
    for folder, count in (("scenes_stereo", 3), ("scenes_stereo_testset", 2)):
        for name in SCENES:
            for number in range(1, count + 1):
                write_scene(tmp_path / "dcase" / folder / f"{name}{2 * number:02d}.wav", name, number + len(folder))
    return tmp_path / "dcase"


@pytest.fixture
def dataset_2016(tmp_path) -> Path:
    """The development set of 2016: two segments of each of four places a scene, a place a fold."""
    root = tmp_path / "dcase" / "TUT-acoustic-scenes-2016-development"
    folds: list[list[str]] = [[], [], [], []]
    for number, name in enumerate(SCENES):
        for place in range(4):
            for start in (0, 30):
                file = f"audio/{'abc'[number]}{place:03d}_{start}_{start + 30}.wav"
                write_scene(root / file, name, place + start)
                folds[place].append(f"{file}\t{name}\n")
    write_lists(root, folds)
    return tmp_path / "dcase"


def write_lists(root: Path, folds: list[list[str]]) -> None:
    (root / "evaluation_setup").mkdir()
    (root / "meta.txt").write_text("".join(line for fold in folds for line in fold))
    for number, fold in enumerate(folds, 1):
        setup = root / "evaluation_setup"
        others = [line for other in folds for line in other if other is not fold]
        (setup / f"fold{number}_train.txt").write_text("".join(others))
        (setup / f"fold{number}_evaluate.txt").write_text("".join(fold))
        (setup / f"fold{number}_test.txt").write_text("".join(line.partition("\t")[0] + "\n" for line in fold))


def add_evaluation_set(data_dir: Path) -> None:
    root = data_dir / "TUT-acoustic-scenes-2016-evaluation"
    lines = []
    for number, name in enumerate(SCENES):
        write_scene(root / f"audio/{number}.wav", name, 90 + number)
        lines.append(f"audio/{number}.wav\t{name}\n")
    (root / "meta.txt").write_text("".join(lines))


def run_stage(root: Path, benchmark: str, data_dir: Path, **changes: object) -> tuple[dict, list[dict]]:
    """The metrics and the table of classes that the stage writes."""
    root.mkdir(exist_ok=True)
    values = {
        "data_dir": data_dir,
        "windows": 2,
        "inputs": "recordings",
        "annotations": "none",
        "probes": "[svm]",
    } | changes
    sets = [word for key, value in values.items() for word in ("--set", f"evaluate.{benchmark}.{key}={value}")]
    STAGE.run(main, ["--benchmark", benchmark, "--params", str(PARAMS), "--root", str(root), *sets])
    with (root / "metrics" / f"{benchmark}_classes.csv").open() as file:
        return json.loads((root / "metrics" / f"{benchmark}.json").read_text()), list(csv.DictReader(file))


def test_no_split_shows_its_test_recordings_to_the_scale_or_the_choice_of_c(monkeypatch):
    calls = []
    probe = recordings.cross_validated_probe

    def watched(kind, train, folds, test, *rest, **named):
        calls.append((len(train[0]), sorted(set(folds)), len(test), train[0].mean(0), train[0].std(0)))
        return probe(kind, train, folds, test, *rest, **named)

    monkeypatch.setattr(recordings, "cross_validated_probe", watched)
    targets, folds = np.arange(30) % 3, np.arange(30) // 3 % 5 + 1
    features = torch.randn(30, 4, 6, generator=torch.Generator().manual_seed(0)) * 50 + 7
    features[:, :, 5] = 3  # a dimension that never changes
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        predicted = classify("svm", features, targets, esc50.folds_of(folds), "x")
    assert [(rows, inner, test_rows) for rows, inner, test_rows, *_ in calls] == [
        (96, [each for each in range(1, 6) if each != fold], 24) for fold in range(1, 6)
    ]
    for *_, mean, deviation in calls:  # z-scored on the training windows alone
        np.testing.assert_allclose(mean, 0, atol=1e-5)
        np.testing.assert_allclose(deviation, [1, 1, 1, 1, 1, 0], atol=1e-5)
    right = [part == targets[split.test] for part, split in zip(predicted, esc50.folds_of(folds), strict=True)]
    assert np.concatenate(right).mean() < 0.7  # labels that no feature predicts


def test_the_scores_of_a_recordings_windows_are_averaged():
    train = torch.tensor([-1.0, 1.0]).repeat(6)[:, None, None] + 0.05 * torch.arange(3)[None, :, None]
    test_rows = torch.tensor([[-9.0, 2.0, 2.0], [1.0, 1.0, -1.0]])[:, :, None]  # of the first one window weighs most
    targets = np.array([0, 1] * 6 + [0, 1])
    split = Split(np.arange(12), np.arange(12, 14), np.arange(12) // 2 % 3)
    assert classify("svm", torch.cat([train, test_rows]), targets, [split], "x")[0].tolist() == [0, 1]


def test_trailing_digital_zeros_of_a_recording_change_no_descriptor(tmp_path):
    noise = np.random.default_rng(0).uniform(-0.2, 0.2, RATE * 5)
    noise[-1] = 0.1
    soundfile.write(tmp_path / "noise.wav", noise, RATE)
    soundfile.write(tmp_path / "padded.wav", np.append(noise, np.zeros(RATE * 3)), RATE)
    soundfile.write(tmp_path / "bark.wav", np.append(noise[-8_000:], np.zeros(RATE * 4)), RATE)
    spectrum = description("spectrum")
    descriptors = [describe_recording(tmp_path / f"{name}.wav", 3, spectrum) for name in ("noise", "padded")]
    np.testing.assert_array_equal(*descriptors)
    assert not np.array_equal(descriptors[0][0], descriptors[0][2])  # windows at different places
    bark = describe_recording(tmp_path / "bark.wav", 3, spectrum)  # half a second of sound
    assert bark.shape == (3, 32)
    assert np.isfinite(bark).all()


def test_windows_are_equally_spaced_from_the_first_sample_to_the_last(tmp_path):
    ramp = np.linspace(-0.9, 0.9, 5 * 48_000)
    soundfile.write(tmp_path / "ramp.wav", np.stack([ramp, np.zeros_like(ramp)], 1), 48_000, subtype="FLOAT")
    cut = cut_recording(tmp_path / "ramp.wav", 10, 48_000, 48_000)
    assert cut.shape == (10, 48_000)
    starts = np.round(np.linspace(0, 4 * 48_000, 10)).astype(int)
    for window, start in zip(cut, starts, strict=True):
        np.testing.assert_allclose(window, ramp[start : start + 48_000] / 2, atol=1e-6)  # the mean of both channels
    assert np.diff(starts).std() < 1


def test_recordings_of_any_rate_and_length_give_whole_windows(tmp_path):
    times = np.arange(int(0.6 * 44_100)) / 44_100
    soundfile.write(tmp_path / "short.wav", 0.5 * np.sin(2 * np.pi * 1000 * times), 44_100)
    cut = cut_recording(tmp_path / "short.wav", 2, 48_000, 48_000)
    np.testing.assert_array_equal(cut[0], cut[1])
    assert not cut[0, 28_801:].any()  # 0.6 s, then silence
    expected = 0.5 * np.sin(2 * np.pi * 1000 * np.arange(28_000) / 48_000)
    np.testing.assert_allclose(cut[0, 500:27_500], expected[500:27_500], atol=2e-3)


def test_a_tower_gives_its_last_map_before_the_relu_pooled_to_4_by_3(tmp_path):
    torch.manual_seed(0)
    network = build_correspondence("l3", width=1 / 16, image_size=32).eval()
    write_scene(tmp_path / "a.wav", "bus", 0)
    (actual,) = embed_recordings([tmp_path / "a.wav"], "x", network, 2)
    waveforms = torch.from_numpy(cut_recording(tmp_path / "a.wav", 2, 48_000, 48_000))
    with torch.inference_mode():
        maps = network.audio_tower(network.spectrogram(waveforms))  # (2, 32, 16, 12)
    assert actual.shape == (2, 32 * 4 * 3)
    assert (actual < 0).any()
    expected = torch.nn.functional.max_pool2d(maps, 4).flatten(1)
    np.testing.assert_allclose(actual, expected, atol=1e-4)
    assert torch.equal(pooled(maps, 4, 3), expected)


def test_esc50_scores_an_audio_tower_beside_its_controls(tmp_path, encoder, capsys):
    data_dir, rows = tmp_path / "esc50", []
    for fold in range(1, 4):
        for target, name in enumerate(SCENES):
            for take in "AB":
                write_scene(data_dir / "audio" / f"{fold}-{take}{target}.wav", name, fold + ord(take))
                rows.append((f"{fold}-{take}{target}.wav", fold, target, name))
    (data_dir / "meta").mkdir()
    with (data_dir / "meta" / "esc50.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("filename", "fold", "target", "category"), *rows])
    metrics, classes = run_stage(tmp_path / "root", "esc50", data_dir, encoder=encoder)
    names = ["accuracy", "accuracy_std", "wrong_sound_accuracy", "random_accuracy", "chance"]
    assert set(metrics) == {*names, "items", "items_hash"}
    assert metrics["items_hash"] == list_hash(f"audio/{name}" for name, *_ in rows)
    assert metrics["accuracy"] == metrics["random_accuracy"] == metrics["wrong_sound_accuracy"] > 0.8
    assert metrics["chance"] == pytest.approx(1 / 3, abs=1e-6)
    assert [row["class"] for row in classes] == list(SCENES)
    assert re.search(r"ave 0\.\d+, wrong sound 0\.\d+, random 0\.\d+; chance 0\.333", capsys.readouterr().out)


def test_dcase_2013_trains_on_one_folder_and_tests_on_the_other(tmp_path, dataset_2013, encoder, capsys):
    scenes = dcase.read_dataset(dataset_2013)
    (split,) = scenes.splits
    assert [scenes.files[place].parent.name for place in (0, 8, 9, 14)] == ["scenes_stereo"] * 2 + [
        "scenes_stereo_testset"
    ] * 2
    assert split.train.tolist() == list(range(9))
    assert split.test.tolist() == list(range(9, 15))
    for name in SCENES:  # every fold has one of each scene
        assert split.folds[[place for place in range(9) if scenes.classes[place] == name]].tolist() == [0, 1, 2]
    metrics, classes = run_stage(tmp_path / "root", "dcase", dataset_2013, encoder=encoder)
    assert metrics["accuracy"] == metrics["random_accuracy"] > 0.6
    assert (metrics["recordings_train"], metrics["recordings_test"]) == (9, 6)
    assert [row["class"] for row in classes] == list(SCENES)
    assert "DCASE 2013 linear SVM on windows: ave" in capsys.readouterr().out


def test_dcase_2016_tests_on_the_four_folds_in_turn_where_there_is_no_evaluation_set(tmp_path, dataset_2016):
    scenes = dcase.read_dataset(dataset_2016)
    assert len(scenes.splits) == 4
    for number, split in enumerate(scenes.splits):
        places = [[scenes.files[place].name[1:4] for place in part] for part in (split.train, split.test)]
        assert set(places[1]) == {f"{number:03d}"}
        assert not set(places[0]) & set(places[1])  # one place is on one side
        assert [int(place) for place in places[0]] == split.folds.tolist()  # and in one fold
    metrics, _ = run_stage(
        tmp_path / "root", "dcase", dataset_2016, encoder=described_as("texture", tmp_path / "models")
    )
    assert metrics["accuracy"] > 0.6 < metrics["spectrum_accuracy"]
    assert (metrics["recordings_train"], metrics["recordings_test"]) == (18, 24)


def test_dcase_2016_tests_on_the_evaluation_set_where_it_is_there(dataset_2016):
    add_evaluation_set(dataset_2016)
    scenes = dcase.read_dataset(dataset_2016)
    (split,) = scenes.splits
    assert (len(split.train), len(split.test)) == (24, 3)
    assert [scenes.classes[place] for place in split.test] == list(SCENES)
    assert np.bincount(split.folds).tolist() == [6, 6, 6, 6]


def spoil(name: str, old: str, new: str):
    def change(data_dir: Path) -> None:
        text = (data_dir / name).read_text()
        assert old in text
        (data_dir / name).write_text(text.replace(old, new))

    return change


DEVELOPMENT = "TUT-acoustic-scenes-2016-development"
SPOILED = {
    "a fold without list": (
        lambda data_dir: (data_dir / DEVELOPMENT / "evaluation_setup/fold3_train.txt").unlink(),
        r"fold3_train\.txt: cannot be read",
    ),
    "no scene": (
        spoil(f"{DEVELOPMENT}/meta.txt", "a000_0_30.wav\tbus", "a000_0_30.wav"),
        r"meta\.txt, line 1: 'audio/a0",
    ),
    "another folder": (
        spoil(f"{DEVELOPMENT}/meta.txt", "audio/a000_0", "../a000_0"),
        r"meta\.txt, line 1: '\.\./a000_0",
    ),
    "another scene": (
        spoil(f"{DEVELOPMENT}/evaluation_setup/fold1_evaluate.txt", "a000_0_30.wav\tbus", "a000_0_30.wav\tpark"),
        r"fold1_evaluate\.txt: a000_0_30\.wav is park, but bus in TUT-acoustic-scenes-2016-development/meta\.txt",
    ),
    "trained on and tested": (
        spoil(f"{DEVELOPMENT}/evaluation_setup/fold2_train.txt", "b000_0", "b001_0"),
        r"fold 2 has b001_0_30\.wav in training and test",
    ),
    "both years": (lambda data_dir: (data_dir / "scenes_stereo").mkdir(), "holds both years of DCASE"),
    "no recording": (
        lambda data_dir: (data_dir / DEVELOPMENT / "audio/a000_0_30.wav").unlink(),
        r"a000_0_30\.wav: cannot be",
    ),
    "an empty recording": (
        lambda data_dir: soundfile.write(data_dir / DEVELOPMENT / "audio/a000_0_30.wav", np.zeros((0, 2)), RATE),
        r"a000_0_30\.wav: holds no samples",
    ),
    "not a number": (
        lambda data_dir: soundfile.write(
            data_dir / DEVELOPMENT / "audio/a000_0_30.wav", np.full((RATE, 2), np.nan), RATE, subtype="FLOAT"
        ),
        r"a000_0_30\.wav: holds NaN or infinity",
    ),
}


@pytest.mark.parametrize("damage", SPOILED)
def test_an_incomplete_data_dir_of_2016_is_refused_by_name(damage, tmp_path, dataset_2016, encoder):
    spoiled, predicted = SPOILED[damage]
    spoiled(dataset_2016)
    with pytest.raises(SystemExit, match=predicted):
        run_stage(tmp_path / "root", "dcase", dataset_2016, encoder=encoder)


def test_an_incomplete_data_dir_of_2013_is_refused_by_name(tmp_path, dataset_2013):
    with pytest.raises(
        EarshotError, match="holds neither year of DCASE, expected scenes_stereo and scenes_stereo_testset"
    ):
        dcase.read_dataset(tmp_path)
    (dataset_2013 / "scenes_stereo" / "notes.wav").touch()
    with pytest.raises(EarshotError, match=r"scenes_stereo: holds notes\.wav, expected names such as"):
        dcase.read_dataset(dataset_2013)
    (dataset_2013 / "scenes_stereo" / "notes.wav").unlink()
    shutil.copytree(dataset_2013, tmp_path / "untested")
    for file in (tmp_path / "untested" / "scenes_stereo_testset").glob("park*.wav"):
        file.unlink()
    with pytest.raises(EarshotError, match="no test recordings of park"):
        dcase.read_dataset(tmp_path / "untested")
    for file in (dataset_2013 / "scenes_stereo").glob("park*.wav"):
        file.unlink()
    with pytest.raises(EarshotError, match="no training recordings of park"):
        dcase.read_dataset(dataset_2013)


def test_a_network_without_an_audio_tower_is_refused(tmp_path, dataset_2013):
    torch.manual_seed(0)
    network = build_correspondence("multisensory", width=1 / 64, image_size=32, frames=4, audio_samples=8000)
    save_architecture(tmp_path, network)
    for name in ("encoder", "random"):
        save_weights(tmp_path, name, network)
    with pytest.raises(SystemExit, match="multisensory has no audio tower; choose another"):
        run_stage(tmp_path / "root", "dcase", dataset_2013, encoder=tmp_path)


@pytest.mark.slow
def test_the_random_l3_tower_and_the_descriptor_go_through_real_recordings(real_data, tmp_path):
    torch.manual_seed(0)
    network = build_correspondence("l3", width=1 / 8, image_size=32)
    save_architecture(tmp_path, network)
    for name in ("encoder", "random"):
        save_weights(tmp_path, name, network)
    metrics, _ = run_stage(tmp_path / "root", "esc50", real_data / "esc10", encoder=tmp_path, windows=10)
    assert metrics["random_accuracy"] > 3 * metrics["chance"]
