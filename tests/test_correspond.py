"""The stage correspond, through its command line: what it writes, its control, and that a kill leaves no trace."""

import json
import signal
import subprocess
import sys

import pytest
import torch
from conftest import PARAMS, REPOSITORY
from safetensors.torch import load_file
from test_correspondence import write_world
from test_correspondence_task import write_clips

from earshot.networks.files import load_correspondence
from earshot.scenes.clips import Sampling
from earshot.training.augmentation import Augmentation, read_augmentation
from earshot.training.correspondence import CorrespondenceTask
from earshot.training.objectives import build_objective
from stages.correspond import STAGE, main

pytestmark = pytest.mark.usefixtures("one_process")
SMALL = ["correspond.network=ave", "correspond.width=0.0625", "correspond.image_size=32", "correspond.batch_size=16"]
SMALL += ["correspond.epochs=2"]
MULTISENSORY = ["correspond.network=multisensory", "correspond.negatives=shifted", "correspond.objective=match"]
# The stage with a checkpoint after every step, in one process, which ends itself by SIGKILL after the fifth step.
KILLED = """
import os, signal, sys
from earshot.training import trainer
trainer.CHECKPOINT_SECONDS = 0
step = trainer.Trainer._step
def killed(self, batch):
    if self.progress.step == 5:
        os.kill(os.getpid(), signal.SIGKILL)
    return step(self, batch)
trainer.Trainer._step = killed
from stages.correspond import STAGE, main
STAGE.run(main, sys.argv[1:])
"""


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """A small world's tables; never written to."""
    root = tmp_path_factory.mktemp("world")
    write_world(root / "data", 60)
    return root / "data" / "scenes"


def arguments(root, *changes):
    sets = [word for change in [*SMALL, *changes] for word in ("--set", change)]
    return ["--params", str(PARAMS), "--root", str(root), *sets]


def rooted(world, root):
    (root / "data").mkdir(parents=True)
    (root / "data" / "scenes").symlink_to(world)
    return root


def correspond(root, *changes):
    STAGE.run(main, arguments(root, *changes))
    return json.loads((root / "metrics/correspond.json").read_text())


@pytest.fixture(scope="module")
def done(world, tmp_path_factory):
    """The stage, run once."""
    root = rooted(world, tmp_path_factory.mktemp("done") / "root")
    correspond(root)
    return root


def weights(root, name):
    return load_file(root / "models/correspond" / f"{name}.safetensors")


def test_it_writes_both_trainings_their_beginning_and_the_history(done):
    metrics = json.loads((done / "metrics/correspond.json").read_text())
    assert {"val_accuracy", "wrong_sound_val_accuracy", "chance", "clips_trained_on"} <= set(metrics)
    assert metrics["precision"] in ("bf16", "float32")
    assert json.loads((done / ".earshot/timings/correspond.json").read_text())["pairs_per_second"] > 0
    assert len((done / "metrics/correspond_history.csv").read_text().splitlines()) == 3
    actual = {name: weights(done, name) for name in ("encoder", "wrong_sound", "random")}
    key = "image_tower.conv1_1.weight"
    assert not torch.equal(actual["encoder"][key], actual["random"][key])
    assert not torch.equal(actual["encoder"][key], actual["wrong_sound"][key])
    assert torch.equal(actual["encoder"]["audio_mean"], actual["random"]["audio_mean"])
    assert load_correspondence(done / "models/correspond").architecture["name"] == "ave"


OPTIONS = [
    *("correspond.network=dual_encoder", "correspond.backbone=alexnet", "correspond.image_size=64"),
    *("correspond.negatives=both", "correspond.min_shift_s=1.0", "correspond.queue=8", "correspond.noise_level=0.1"),
    *("correspond.time_shift_s=0.2", "correspond.mix_share=0.2", "correspond.frequency_mask=0.3"),
    *("correspond.time_mask=0.3", "correspond.epochs=1"),
]


def test_all_that_is_off_by_default_works_together(world, tmp_path):
    root = rooted(world, tmp_path / "root")
    assert correspond(root, *OPTIONS)["clips_trained_on"] > 40
    assert load_correspondence(root / "models/correspond").architecture["backbone"] == "alexnet"
    _, sound = read_augmentation(root / "models/correspond")
    assert (sound.noise_level, sound.time_shift_s, sound.frequency_mask) == (0.1, 0.2, 0.3)


@pytest.mark.slow
def test_a_killed_training_ends_with_the_same_weights(done, world, tmp_path):
    root = rooted(world, tmp_path / "root")
    command = [sys.executable, "-c", KILLED, *arguments(root, "correspond.control=false")]
    environment = {"EARSHOT_WORKERS": "1", "EARSHOT_DEVICE": "cpu", "PATH": "", "PYTHONPATH": str(REPOSITORY)}
    killed = subprocess.run(command, cwd=REPOSITORY, env=environment, capture_output=True)
    assert killed.returncode == -signal.SIGKILL, killed.stderr.decode()
    assert not (root / "models/correspond").exists()
    correspond(root, "correspond.control=false")
    kept, again = weights(done, "encoder"), weights(root, "encoder")
    assert all(torch.equal(kept[key], again[key]) for key in kept)
    assert not (root / "models/correspond/wrong_sound.safetensors").exists()


def test_weights_of_a_file_are_where_training_begins(done, world, tmp_path):
    root = rooted(world, tmp_path / "root")
    inputs = root / "given.safetensors"
    inputs.write_bytes((done / "models/correspond/encoder.safetensors").read_bytes())
    correspond(root, "correspond.epochs=0", "correspond.weights=given.safetensors", "seed=1")
    kept, actual = load_file(inputs), weights(root, "encoder")
    assert all(torch.equal(kept[key], actual[key]) for key in kept)
    assert not torch.equal(weights(root, "random")["image_tower.conv1_1.weight"], kept["image_tower.conv1_1.weight"])
    for changes, message in (
        (("correspond.weights=none.safetensors",), "none.safetensors"),
        (
            ("correspond.weights=given.safetensors", "correspond.width=0.125"),
            "correspond.network=ave of this width requires",
        ),
        (
            ("correspond.weights=given.safetensors", "correspond.network=l3", "correspond.objective=match"),
            "which correspond.network=l3 of this width",
        ),
    ):
        with pytest.raises(SystemExit, match=message):
            correspond(root, *changes)


def test_avol_begins_between_the_two_answers(world, tmp_path):
    """The best of its many positions would otherwise say of all pairs alike that they belong together."""
    root = rooted(world, tmp_path / "root")
    correspond(root, "correspond.epochs=0", "correspond.network=avol")
    network = load_correspondence(root / "models/correspond")
    sampling = Sampling(positives="centered", negatives="other-group", grid_s=0.04, min_shift_s=1.0)
    task = CorrespondenceTask(
        network,
        root / "data/scenes",
        build_objective("match"),
        sampling,
        Augmentation(),
        batch_size=16,
        seed=1,
    )
    with torch.inference_mode():
        batches = task.batches(range(task.batches_per_epoch))
        actual = torch.stack([network(*batch[:4]).mean() for batch in batches]).mean()
    assert abs(actual) < abs(actual - network.bias.detach()) / 2  # other pairs than those that it was made even on


def test_motion_needs_sequences_and_names_the_parameter(tmp_path, capsys):
    write_clips(tmp_path / "data/scenes", [f"group_{number}" for number in range(20)])
    with pytest.raises(SystemExit) as ended:
        correspond(tmp_path, *MULTISENSORY)
    assert "set extract.sequence_rate" in str(ended.value)


def test_a_corpus_of_one_clip_is_refused(tmp_path):
    write_clips(tmp_path / "data/scenes", ["group_0"])
    with pytest.raises(SystemExit, match=r"training clips last the network's 1.00 s, expected 2 or more"):
        correspond(tmp_path)
