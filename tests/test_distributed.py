"""Several processes train as one does: the same batches and steps, one line of output, and a kill changes nothing."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time

import numpy as np
import pytest
import torch
from conftest import PARAMS, REPOSITORY
from labeled_scenes import write_striped_tables
from safetensors.torch import load_file
from torch import nn

from earshot.pipeline import torchrun
from earshot.training import distributed as processes
from earshot.training.augmentation import Augmentation
from earshot.training.label_prediction import Clusters, LabeledScenes, LabelTask
from earshot.training.trainer import Plan, Trainer

SMALL = ["pretrain.width=0.1", "pretrain.image_size=64", "pretrain.batch_size=16", "pretrain.epochs=4"]
AUGMENTATION = Augmentation(
    crop_min_scale=0.4, brightness=0.5, contrast=0.5, saturation=0.5, hue=0.125, grayscale_prob=0.3, flip_prob=0.5
)
# The stage with a checkpoint after every step, as a module that torchrun can start.
CHECKPOINTED = """
from earshot.training import trainer
trainer.CHECKPOINT_SECONDS = 0
from stages.pretrain import STAGE, join, main
STAGE.run(main, join=join)
"""
TRAINED = """
import sys
from pathlib import Path
from test_distributed import train
from earshot.training.distributed import together
with together():
    train(Path(sys.argv[1]), Path(sys.argv[2]))
"""


class Plain(nn.Module):
    """A network without batch norm and dropout, in which a batch is the mean of its images."""

    image_size = 32

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.layers = nn.Sequential(nn.Conv2d(3, 8, 5, 3), nn.ReLU(), nn.Flatten(), nn.Linear(800, 3))

    def forward(self, images):
        return self.layers(images / 128 - 1)


def train(root, folder):
    """Train a plain network in float32 for three epochs, write its checkpoint, and return its progress."""
    torch.set_num_threads(1)
    table = LabeledScenes(root / "data/scenes", root / "data/labels", "label", Clusters(3))
    task = LabelTask(Plain(), table, AUGMENTATION, batch_size=16, seed=3)
    plan = Plan(epochs=3, learning_rate=0.01, weight_decay=0.01, grad_clip_norm=1.0, precision="float32", seed=3,
                optimizer="sgd")  # fmt: skip
    return Trainer(task, plan, folder / "checkpoint").train("")


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    root = tmp_path_factory.mktemp("striped")
    write_striped_tables(root, [110, 60])
    return root


def start(*words, **more):
    environment = os.environ | {"EARSHOT_DEVICE": "cpu", "PYTHONPATH": f"{REPOSITORY}:{REPOSITORY / 'tests'}"}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen([sys.executable, *words], cwd=REPOSITORY, env=environment | more, **pipes)


def free_port():
    with socket.socket() as server:
        server.bind(("localhost", 0))
        return server.getsockname()[1]


def torchrun_words(file):
    return [
        "-m",
        "torch.distributed.run",
        "--master-port",
        str(free_port()),
        "--nproc-per-node",
        "2",
        str(file),
    ]


def run_torchrun(file, code, *arguments):
    file.write_text(code)
    process = start(*torchrun_words(file), *arguments)
    _, errors = process.communicate()
    assert process.returncode == 0, errors


def arguments(root, *changes):
    sets = [word for change in [*SMALL, *changes] for word in ("--set", change)]
    return ["--params", str(PARAMS), "--root", str(root), *sets]


def pretrain_together(root, *changes):
    process = start("-m", "stages.pretrain", *arguments(root, *changes), EARSHOT_PROCESSES="2")
    output, errors = process.communicate()
    return process.returncode, output, errors


def link_tables(root, place):
    (place / "data").symlink_to(root / "data")
    return place


@pytest.mark.slow
def test_two_processes_take_the_steps_of_one(root, tmp_path):
    """Batches, augmentation, gradients, clipping, sums and validation agree, to the rounding of sums in float32."""
    (tmp_path / "one").mkdir()
    expected = train(root, tmp_path / "one")
    run_torchrun(tmp_path / "train.py", TRAINED, root, tmp_path)
    one, two = load_file(tmp_path / "one/checkpoint"), load_file(tmp_path / "checkpoint")
    assert one.keys() == two.keys()
    for name, values in one.items():
        torch.testing.assert_close(two[name], values, rtol=1e-4, atol=1e-5, msg=name)
    again = train(root, tmp_path)  # in one process: all is done, and the history is there
    for row, other in zip(expected.history, again.history, strict=True):
        assert row == pytest.approx(other, rel=1e-4, abs=1e-5)


MEETING = """
import os, sys
from pathlib import Path
import psutil, torch
from earshot.training.distributed import rank, together, total
with together():
    sum = int(total(torch.tensor([rank() + 1.0])))
    places = {c.laddr.ip for c in psutil.Process().net_connections() if c.status == "LISTEN"}
    total(torch.tensor([0.0]))  # nobody leaves before all have looked
    Path(sys.argv[1], str(rank())).write_text(f"{sum} {sorted(places)}")
if sys.argv[2] == "fails":
    sys.exit(3 * int(os.environ["RANK"]))
if sys.argv[2] == "dies" and os.environ["RANK"] == "1":
    os.kill(os.getpid(), 9)
"""


@pytest.mark.parametrize(
    ("end", "outcome"),
    [("ends", "0"), pytest.param("fails", "3", marks=pytest.mark.slow), ("dies", "process 1 was killed by signal 9")],
)
def test_our_own_processes_listen_on_loopback_alone(tmp_path, end, outcome):
    (tmp_path / "meeting.py").write_text(MEETING)
    code = (
        "import sys, psutil\nfrom earshot.pipeline.torchrun import launch\ntry:\n"
        "    print(launch('meeting', sys.argv[1:], 2))\nexcept Exception as error:\n    print(error)\n"
        "print([c for c in psutil.Process().net_connections() if c.status == 'LISTEN'])"
    )
    process = start("-c", code, str(tmp_path), end, PYTHONPATH=f"{REPOSITORY}:{tmp_path}")
    output, errors = process.communicate()
    ended, listening = output.splitlines()
    assert ended.startswith(outcome) and listening == "[]", errors
    assert [(tmp_path / rank).read_text() for rank in "01"] == ["3 ['127.0.0.1']"] * 2


def test_one_process_has_all_of_a_batch_and_all_sums():
    assert (processes.count(), processes.rank(), torchrun.rank()) == (1, 0, 0)
    assert processes.part(15) == slice(0, 15)
    assert processes.mean(torch.tensor(3.0)) == 3
    loss = object()
    assert processes.shared_loss(nn.Linear(1, 1), loss) is loss


def test_a_batch_that_cannot_be_shared_equally_is_refused(monkeypatch):
    monkeypatch.setattr(processes, "count", lambda: 4)
    monkeypatch.setattr(processes, "rank", lambda: 3)
    assert processes.part(32) == slice(24, 32)
    with pytest.raises(
        processes.EarshotError,
        match="a batch has 30 items .* for 4 processes; set pretrain.batch_size to a multiple of 4",
    ):
        processes.part(30)


def test_a_part_of_the_changes_is_that_of_its_images():
    changes = AUGMENTATION.draw(6, np.random.default_rng(0))
    part = changes[2:4]
    assert np.array_equal(part.boxes, changes.boxes[2:4])
    assert np.array_equal(part.colors, changes.colors[2:4])
    assert Augmentation().draw(6, np.random.default_rng(0))[2:4].boxes is None


@pytest.mark.slow
def test_the_stage_in_two_processes_learns_what_it_learns_in_one(root, tmp_path):
    one, two = tmp_path / "one", tmp_path / "two"
    for place in (one, two):
        place.mkdir()
        link_tables(root, place)
    assert start("-m", "stages.pretrain", *arguments(one, "pretrain.epochs=8")).wait() == 0
    status, output, errors = pretrain_together(two, "pretrain.epochs=8")
    assert (status, errors) == (0, "")
    assert len(output.splitlines()) == 1
    alone, together = (json.loads((place / "metrics/pretrain.json").read_text()) for place in (one, two))
    assert together["val_accuracy"] == pytest.approx(alone["val_accuracy"], abs=0.1)
    assert together["train_accuracy"] == pytest.approx(alone["train_accuracy"], abs=0.1)
    assert together["wrong_sound_val_accuracy"] == pytest.approx(alone["wrong_sound_val_accuracy"], abs=0.2)
    names = {path.name for path in (one / "models/pretrain").iterdir()}
    assert {path.name for path in (two / "models/pretrain").iterdir()} == names
    assert not list((two / ".earshot/pretrain").iterdir())


@pytest.mark.slow
def test_a_killed_training_of_two_processes_resumes_and_ends_with_the_same_bytes(root, tmp_path):
    script = tmp_path / "checkpointed.py"
    script.write_text(CHECKPOINTED)
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    for place in (whole, killed):
        place.mkdir()
        link_tables(root, place)
    assert start(*torchrun_words(script), *arguments(whole)).wait() == 0
    process = start(*torchrun_words(script), *arguments(killed))
    while not list(killed.glob(".earshot/pretrain/*/*.checkpoint.safetensors")):
        time.sleep(0.01)
        assert process.poll() is None
    time.sleep(0.2)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (killed / "models").exists()
    time.sleep(2)  # the processes that torchrun had started end with it
    again = start(*torchrun_words(script), *arguments(killed))
    assert again.wait() == 0, again.stderr.read()
    for path in (whole / "models/pretrain").iterdir():
        assert path.read_bytes() == (killed / "models/pretrain" / path.name).read_bytes(), path.name
    assert (whole / "metrics/history.csv").read_bytes() == (killed / "metrics/history.csv").read_bytes()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("change", "errors"),
    [
        ("pretrain.batch_size=15", r"pretrain: a batch has 15 items .*; set pretrain.batch_size to a multiple of 2\n"),
        ("pretrain.learning_rate=1e30", r"pretrain: step \d+ of \d+: the loss is .*, expected a number; lower .*\n"),
        ("pretrain.backbone=alexnot", r"pretrain: .*alexnot.*\n"),
    ],
)
def test_an_error_ends_all_processes_with_one_line(root, tmp_path, change, errors):
    status, output, complaint = pretrain_together(link_tables(root, tmp_path), change)
    assert (status, output) == (1, "")
    assert len(complaint.splitlines()) == 1, complaint
    assert re.fullmatch(errors, complaint)
