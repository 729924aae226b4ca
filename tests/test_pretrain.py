"""The stage pretrain, through its command line: what it writes, its controls, and that a kill leaves no trace."""

import csv
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
import torchvision
from conftest import PARAMS, REPOSITORY
from labeled_scenes import write_striped_tables
from safetensors.torch import load_file, save_file

from earshot.core.errors import EarshotError
from earshot.evaluation.images.image_features import layer_features
from earshot.networks import backbones
from earshot.networks.files import load_convolutional, load_encoder, load_network
from earshot.networks.network import require_convolutional
from earshot.results.recipes import recipe_values
from stages.pretrain import STAGE, main

pytestmark = pytest.mark.usefixtures("one_process")
SMALL = ["pretrain.width=0.1", "pretrain.image_size=64", "pretrain.batch_size=16", "pretrain.epochs=3"]
# The stage with a checkpoint after every step, in one process.
CHECKPOINTED = """
import sys
from earshot.training import trainer
trainer.CHECKPOINT_SECONDS = 0
from stages.pretrain import STAGE, main
STAGE.run(main, sys.argv[1:])
"""


@pytest.fixture(scope="module")
def tables(tmp_path_factory):
    """Striped scenes and labels; never written to."""
    root = tmp_path_factory.mktemp("tables")
    write_striped_tables(root, [110, 60])
    return root


@pytest.fixture
def root(tables, tmp_path):
    """A root of its own with the tables."""
    shutil.copytree(tables / "data", tmp_path / "data", copy_function=os.link)
    return tmp_path


def arguments(root, *changes):
    sets = [word for change in [*SMALL, *changes] for word in ("--set", change)]
    return ["--params", str(PARAMS), "--root", str(root), *sets]


def pretrain(root, *changes):
    STAGE.run(main, arguments(root, *changes))
    return json.loads((root / "metrics/pretrain.json").read_text())


def rows_of(root, split):
    table = pa.concat_tables(pq.read_table(path) for path in sorted((root / "data/labels").glob("*.parquet")))
    return [row for row in table.to_pylist() if row["split"] == split]


def weights(root, name):
    return (root / f"models/pretrain/{name}.safetensors").read_bytes()


def test_it_writes_the_networks_their_history_and_accuracy_beside_what_it_must_beat(root, capsys):
    metrics = pretrain(root)
    assert capsys.readouterr().out.startswith(f"validation accuracy {metrics['val_accuracy']:.3f} (chance 0.333, ")
    kept = [row["label"] for row in rows_of(root, "train") if row["kept"]]
    validated = [row["label"] for row in rows_of(root, "val") if row["kept"]]
    assert metrics["majority"] == pytest.approx(np.mean(np.array(validated) == np.bincount(kept).argmax()), abs=1e-6)
    tested = [row["label"] for row in rows_of(root, "test") if row["kept"]]
    frequent = np.mean(np.array(tested) == np.bincount(kept).argmax())
    assert metrics["test_majority"] == pytest.approx(frequent, abs=1e-6)
    assert metrics["moments_tested"] == len(tested)
    assert metrics["test_accuracy"] * len(tested) == pytest.approx(
        round(metrics["test_accuracy"] * len(tested)), abs=1e-3
    )
    assert metrics["chance"] == pytest.approx(1 / 3, abs=1e-6)
    assert metrics["moments_trained_on"] == len(kept)
    assert metrics["epochs"] == 3
    assert metrics["precision"] in ("bf16", "float32")
    assert not [name for name in metrics if "second" in name]  # what a clock decides is no metric
    assert json.loads((root / ".earshot/timings/pretrain.json").read_text())["images_per_second"] > 0
    with open(root / "metrics/history.csv") as file:
        history = list(csv.DictReader(file))
    assert [row["epoch"] for row in history] == ["1", "2", "3"]
    assert float(history[-1]["val_accuracy"]) == metrics["val_accuracy"]
    assert float(history[-1]["wrong_sound_val_accuracy"]) == metrics["wrong_sound_val_accuracy"]
    assert float(history[-1]["train_loss"]) < float(history[0]["train_loss"])
    for name in ("encoder", "wrong_sound", "random"):
        assert load_encoder(root / "models/pretrain", name).architecture["classes"] == 3
    assert not list((root / ".earshot/pretrain").iterdir())


def test_stripes_are_learned_and_the_wrong_sounds_stripes_are_not(root):
    metrics = pretrain(root, "pretrain.epochs=12", "pretrain.width=0.25")
    assert metrics["val_accuracy"] > metrics["majority"] + 0.2
    assert metrics["val_accuracy"] > metrics["wrong_sound_val_accuracy"] + 0.2
    assert metrics["test_accuracy"] > metrics["test_majority"] + 0.2
    assert metrics["test_accuracy"] > metrics["wrong_sound_test_accuracy"] + 0.2


def test_trained_networks_start_from_the_random_one(root):
    pretrain(root, "pretrain.learning_rate=1e-12", "pretrain.weight_decay=0")
    random_weights = load_file(root / "models/pretrain/random.safetensors")
    for name in ("encoder", "wrong_sound"):
        trained = load_file(root / f"models/pretrain/{name}.safetensors")
        learned = [key for key in trained if "running" not in key and "num_batches" not in key]
        assert all(torch.allclose(trained[key], random_weights[key], atol=1e-8) for key in learned)


def test_the_random_networks_batch_norm_has_statistics_of_training_frames(root):
    pretrain(root, "pretrain.epochs=0")
    network = load_encoder(root / "models/pretrain", "random")
    norms = [module for module in network.modules() if isinstance(module, torch.nn.BatchNorm2d)]
    assert all(0 < norm.num_batches_tracked <= 64 for norm in norms)
    assert all(norm.running_mean.abs().max() > 0 for norm in norms)


def test_no_epochs_leave_the_random_network_as_the_encoder(root):
    metrics = pretrain(root, "pretrain.epochs=0")
    assert weights(root, "encoder") == weights(root, "random")
    assert not (root / "models/pretrain/wrong_sound.safetensors").exists()
    assert metrics["epochs"] == 0
    assert 0 <= metrics["val_accuracy"] <= 1
    assert json.loads((root / ".earshot/timings/pretrain.json").read_text()) == {"images_per_second": None}


def test_weights_from_k_means_are_the_encoder_where_nothing_is_trained(root):
    pretrain(root, "pretrain.epochs=0")
    random_weights = weights(root, "random")
    metrics = pretrain(root, "pretrain.epochs=0", "pretrain.initialization=kmeans")
    assert weights(root, "random") == random_weights
    assert weights(root, "encoder") != random_weights
    assert metrics["epoch_kept"] == 0


def test_trained_networks_start_from_k_means_where_requested(root):
    kmeans = "pretrain.initialization=kmeans"
    pretrain(root, kmeans, "pretrain.epochs=0")
    start = load_file(root / "models/pretrain/encoder.safetensors")
    pretrain(root, kmeans, "pretrain.learning_rate=1e-12", "pretrain.weight_decay=0", "pretrain.epochs=1")
    for name in ("encoder", "wrong_sound"):
        trained = load_file(root / f"models/pretrain/{name}.safetensors")
        learned = [key for key in trained if "running" not in key and "num_batches" not in key]
        assert all(torch.allclose(trained[key], start[key], atol=1e-8) for key in learned)


def test_weights_of_a_file_are_the_encoder_with_their_own_statistics(root):
    pretrain(root, "pretrain.epochs=1", "pretrain.control=false")
    begun = load_file(root / "models/pretrain/encoder.safetensors")
    (root / "given.safetensors").write_bytes(weights(root, "encoder"))
    pretrain(root, "pretrain.epochs=0", "pretrain.weights=given.safetensors", "seed=1")
    actual = load_file(root / "models/pretrain/encoder.safetensors")
    assert all(torch.equal(actual[name], values) for name, values in begun.items())


def test_a_network_of_torchvision_and_its_own_file_stand_as_a_row_that_nothing_trains(root):
    """With recipes/benchmark-frozen.yaml; fc7 is what the network itself computes before its output layer."""
    torch.manual_seed(5)
    theirs = torchvision.models.shufflenet_v2_x0_5(num_classes=1000).eval()
    save_file(theirs.state_dict(), root / "given.safetensors")
    recipe = recipe_values([REPOSITORY / "recipes" / "benchmark-frozen.yaml"])
    changes = [f"{key}={value}" for key, value in recipe.items() if key.startswith("pretrain.")]
    changes += ["pretrain.backbone=shufflenet_v2_x0_5", "pretrain.image_size=64", "pretrain.weights=given.safetensors"]
    with pytest.warns(UserWarning, match="1000 classes, expected .* keeps its own layer"):
        metrics = pretrain(root, *changes)
    assert metrics["epochs"] == 0 and "wrong_sound_val_accuracy" not in metrics
    assert {file.name for file in (root / "models/pretrain").iterdir()} >= {"encoder.safetensors", "random.safetensors"}
    assert not (root / "models/pretrain/wrong_sound.safetensors").exists()
    network = load_encoder(root / "models/pretrain")
    images = torch.randint(0, 256, (2, 3, 64, 64), dtype=torch.uint8)
    theirs.fc = torch.nn.Identity()
    with torch.inference_mode():
        expected = theirs(network.normalize(images))
        assert torch.allclose(network.features(images, ["fc7"])["fc7"], expected, atol=1e-5)


def test_a_file_of_weights_that_is_not_there_is_refused(root):
    with pytest.raises(SystemExit, match="^pretrain: .*nowhere.safetensors: no such file or folder"):
        pretrain(root, "pretrain.weights=nowhere.safetensors")


def test_the_best_epoch_is_kept_where_requested(root):
    metrics = pretrain(root, "pretrain.checkpoint_selection=best", "pretrain.control=false")
    with open(root / "metrics/history.csv") as file:
        accuracies = [float(row["val_accuracy"]) for row in csv.DictReader(file)]
    assert metrics["val_accuracy"] == max(accuracies)
    assert metrics["epoch_kept"] == 1 + np.argmax(accuracies)


def test_binary_codes_are_learned_bit_by_bit(root):
    """Three labels are codes of two bits; the bits of a label that is 2 are 0 and 1."""
    (root / "data/labels/labels.json").unlink()  # a hard link
    (root / "data/labels/labels.json").write_text('{"kind": "bits", "values": 2}')
    metrics = pretrain(root, "pretrain.control=false")
    bits = {split: [row["label"] for row in rows_of(root, split) if row["kept"]] for split in ("train", "val")}
    shares = []
    for place in (0, 1):
        one = np.mean(np.array(bits["train"]) >> place & 1) > 0.5
        shares.append(np.mean((np.array(bits["val"]) >> place & 1) == one))
    assert metrics["majority"] == pytest.approx(np.mean(shares), abs=1e-6)
    assert metrics["chance"] == 0.5
    assert load_encoder(root / "models/pretrain").architecture["classes"] == 2


def test_codes_of_more_bits_than_labels_json_declares_are_refused(root):
    (root / "data/labels/labels.json").unlink()
    (root / "data/labels/labels.json").write_text('{"kind": "bits", "values": 1}')
    with pytest.raises(SystemExit, match=r"label is from 0 to 2, expected 0 to 1 \(by labels.json\)"):
        pretrain(root)


def test_no_control_is_trained_where_none_is_requested(root):
    assert "wrong_sound_val_accuracy" not in pretrain(root, "pretrain.control=false")
    assert not (root / "models/pretrain/wrong_sound.safetensors").exists()
    assert "wrong_sound" not in (root / "metrics/history.csv").read_text()


def test_a_network_joins_by_one_file(root, tmp_path_factory, monkeypatch):
    """A transformer is trained, loaded, probed by its own layers and trained on; what needs maps refuses it by name."""
    more = tmp_path_factory.mktemp("more")
    shutil.copy(REPOSITORY / "tests/examples/vit.py", more)
    monkeypatch.setattr(backbones, "__path__", [*backbones.__path__, str(more)])
    metrics = pretrain(root, "pretrain.backbone=vit", "pretrain.width=0.25", "pretrain.epochs=2")
    assert metrics["val_accuracy"] is not None and "wrong_sound_val_accuracy" in metrics
    folder, images = root / "models/pretrain", torch.randint(0, 256, (4, 3, 64, 64), dtype=torch.uint8)
    network = load_encoder(folder)
    features = network.features(images)
    assert list(features) == ["block1", "block2", "block3", "block4"]
    assert all(rows.shape == (4, 48) for rows in features.values())
    with pytest.raises(EarshotError, match="has no pool5; it has block1, block2"):
        layer_features(network, [], ["pool5"], 64, "")
    for name, trained in (("encoder", network), ("random", load_network(folder, "random"))):
        trained.renew_fully_connected(7)
        assert torch.equal(trained(images), torch.zeros(4, 7)), name
    with pytest.raises(EarshotError, match="encoder.json: vit is no convolutional classifier; use one, such as"):
        load_convolutional(folder)
    with pytest.raises(EarshotError, match="vit is not convolutional; use a network that is, such as alexnet or ave"):
        require_convolutional(network)


def change_labels(root, change):
    for path in (root / "data/labels").glob("*.parquet"):
        table = change(pq.read_table(path))
        path.unlink()  # a hard link: the tables of the other tests stay
        pq.write_table(table, path)


def with_column(table, name, values):
    return table.set_column(table.schema.get_field_index(name), name, values)


def test_no_control_is_trained_beside_labels_that_are_the_control(root):
    def permute(table):
        table = with_column(table, "label", table["wrong_sound_label"])
        return with_column(table, "kept", table["wrong_sound_kept"])

    change_labels(root, permute)
    assert "wrong_sound_val_accuracy" not in pretrain(root)


def test_no_control_is_trained_where_no_other_group_has_a_sound(root):
    change_labels(root, lambda table: with_column(table, "wrong_sound_kept", pa.array([False] * len(table))))
    with pytest.warns(UserWarning, match="skips the control"):
        assert "wrong_sound_val_accuracy" not in pretrain(root)


def test_a_corpus_without_validation_frames_has_no_validation_accuracy(root, capsys):
    change_labels(root, lambda table: table.filter(pa.compute.not_equal(table["split"], "val")))
    for path in (root / "data/scenes").iterdir():
        table = pq.read_table(path)
        path.unlink()
        pq.write_table(table.filter(pa.compute.not_equal(table["split"], "val")), path)
    metrics = pretrain(root)
    assert metrics["val_accuracy"] is metrics["majority"] is None
    assert "validation accuracy unknown" in capsys.readouterr().out


def test_a_seed_of_its_own_makes_a_network_of_its_own(root):
    pretrain(root, "pretrain.control=false")
    first = weights(root, "encoder"), weights(root, "random")
    pretrain(root, "pretrain.control=false", "seed=1")
    assert weights(root, "encoder") != first[0]
    assert weights(root, "random") != first[1]


def test_labels_of_other_scenes_end_the_stage_in_one_line(root):
    change_labels(root, lambda table: table.slice(1))
    with pytest.raises(SystemExit, match="^pretrain: .*labels/00000.parquet: rows 0 to 49 are not the moments of"):
        pretrain(root)


def contents(root):
    files = [*(root / "models/pretrain").iterdir(), root / "metrics/history.csv"]
    files.append(root / "metrics/pretrain.json")
    return {file.name: file.read_bytes() for file in files}


@pytest.mark.slow
def test_workers_and_threads_do_not_change_the_result(root):
    pretrain(root)
    expected = contents(root)
    command = [sys.executable, "-m", "stages.pretrain", *arguments(root)]
    several = os.environ | {"EARSHOT_WORKERS": "2", "EARSHOT_THREADS": "3", "OMP_NUM_THREADS": "2"}
    subprocess.run(command, cwd=REPOSITORY, env=several, check=True, capture_output=True)
    assert contents(root) == expected


@pytest.mark.slow
def test_a_killed_training_resumes_and_ends_with_the_same_bytes(root, kills=20):
    """Kills at random instants while checkpoints are written, each rerun going on from where the last one was."""
    pretrain(root)
    expected = contents(root)
    shutil.rmtree(root / "models")
    draw, resumed = random.Random(1), 0
    command = [sys.executable, "-c", CHECKPOINTED, *arguments(root)]
    for _ in range(kills):
        process = subprocess.Popen(command, cwd=REPOSITORY, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        before = wait_for_checkpoint(root, process)
        time.sleep(draw.uniform(0, 0.25))
        process.send_signal(signal.SIGKILL)
        process.wait()
        resumed += before and not (root / "models").exists()
        if (root / "models").exists():  # it was through before the kill: from the start again
            shutil.rmtree(root / "models")
    assert resumed
    subprocess.run(command, cwd=REPOSITORY, check=True, capture_output=True)
    assert contents(root) == expected
    assert not list((root / ".earshot/pretrain").iterdir())


def wait_for_checkpoint(root: Path, process: subprocess.Popen) -> bool:
    """Until the training has written a new checkpoint; False where it ended before."""
    started = time.time()
    while process.poll() is None:
        if any(file.stat().st_mtime > started for file in root.glob(".earshot/pretrain/*/*.checkpoint.safetensors")):
            return True
        time.sleep(0.01)
    return False
