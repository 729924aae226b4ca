"""Supervised contrastive learning has the loss of its source, the same over processes as in one, and learns labels."""

import json
import math

import pytest
import torch
from conftest import PARAMS
from labeled_scenes import write_striped_tables
from safetensors import safe_open
from test_distributed import run_torchrun
from torch import nn

from earshot.networks.backbones.alexnet import AlexNet
from earshot.networks.files import load_encoder
from earshot.networks.two_towers import of_length_one
from earshot.training.augmentation import Augmentation
from earshot.training.label_prediction import Clusters, LabeledScenes
from earshot.training.supervised_contrastive import Projected, SupervisedContrastiveTask, supervised_contrastive
from stages.pretrain import STAGE, main

pytestmark = pytest.mark.usefixtures("one_process")
LABELS = torch.tensor([0, 0, 1, 1, 0, 0, 2, 2])
SHARED = """
import sys
import torch
from test_supervised_contrastive import LABELS, linear, rows_of
from earshot.training import distributed as processes
from earshot.training.supervised_contrastive import supervised_contrastive
with processes.together():
    network, part = linear(), processes.part(8)
    def loss(inputs):
        value = supervised_contrastive(rows_of(network, inputs), LABELS[part], 0.2, shared=True)
        return value, value.detach()
    shared = processes.shared_loss(network, loss)  # it must live until the backward pass
    value, _ = shared(torch.randn(8, 6, generator=torch.Generator().manual_seed(1))[part])
    value.backward()
    mean = processes.mean(value.detach().clone())
    if processes.rank() == 0:
        torch.save({"value": mean, "gradient": network.weight.grad}, sys.argv[1])
"""


def linear():
    torch.manual_seed(0)
    return nn.Linear(6, 4)


def rows_of(network, inputs):
    return of_length_one(network(inputs))


def test_two_labels_at_right_angles():
    """Each row has one other of its label, product 1, and two of the other label, product 0: log(1 + 2 / e^2)."""
    rows = torch.eye(2).repeat_interleave(2, 0)
    loss = supervised_contrastive(rows, torch.tensor([3, 3, 5, 5]), 0.5, shared=False)
    assert loss.item() == pytest.approx(math.log(1 + 2 / math.e**2), rel=1e-6)
    mixed = supervised_contrastive(rows, torch.tensor([3, 5, 3, 5]), 0.5, shared=False)
    assert mixed.item() == pytest.approx(math.log(math.e**2 + 2), rel=1e-6)  # -log(1 / (e^2 + 2))


def test_the_loss_is_equation_2_of_the_paper():
    """1 / |P(i)| stands outside of the logarithm; A(i) are all rows but i."""
    inputs = torch.randn(8, 6, generator=torch.Generator().manual_seed(1))
    rows, labels = rows_of(linear(), inputs), LABELS.tolist()
    products = (rows @ rows.T).tolist()
    total = 0.0
    for i in range(8):
        everything = sum(math.exp(products[i][a] / 0.2) for a in range(8) if a != i)
        positives = [p for p in range(8) if p != i and labels[p] == labels[i]]
        total -= sum(math.log(math.exp(products[i][p] / 0.2) / everything) for p in positives) / len(positives)
    assert supervised_contrastive(rows, LABELS, 0.2, shared=False).item() == pytest.approx(total / 8, rel=1e-5)


@pytest.mark.slow
def test_two_processes_have_the_loss_and_the_gradient_of_one(tmp_path):
    network = linear()
    inputs = torch.randn(8, 6, generator=torch.Generator().manual_seed(1))
    loss = supervised_contrastive(rows_of(network, inputs), LABELS, 0.2, shared=True)
    loss.backward()
    run_torchrun(tmp_path / "shared.py", SHARED, tmp_path / "result.pt")
    actual = torch.load(tmp_path / "result.pt", weights_only=True)
    torch.testing.assert_close(actual, {"value": loss.detach(), "gradient": network.weight.grad})


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    root = tmp_path_factory.mktemp("striped")
    write_striped_tables(root, [110, 60])
    return root


def task_of(root):
    torch.manual_seed(0)
    network = AlexNet(classes=3, width=0.1, image_size=64, dropout=0.0)
    table = LabeledScenes(root / "data/scenes", root / "data/labels", "label", Clusters(3))
    augmentation = Augmentation(crop_min_scale=0.4, flip_prob=0.5)
    return SupervisedContrastiveTask(network, table, augmentation, temperature=0.1, batch_size=16, seed=7)


def test_a_batch_has_two_views_of_each_frame(root):
    task = task_of(root)
    images, labels = next(task.batches(range(1)))
    assert images.shape == (32, 3, 64, 64) and labels.shape == (32,)
    assert labels[::2].tolist() == labels[1::2].tolist() == [label for _, label in task.training[0]]
    assert all(not torch.equal(one, other) for one, other in zip(images[::2], images[1::2], strict=True))
    for name, values in task_of(root).network.state_dict().items():  # the projection's weights depend on the seed alone
        assert torch.equal(values, task.network.state_dict()[name]), name


def test_the_output_layer_alone_learns_the_labels(root):
    """It gets the gradient of the cross-entropy of its own scores, and nothing else does."""
    task = task_of(root)
    network: Projected = task.network.train()
    images, labels = next(task.batches(range(1)))
    task.loss((images, labels))[0].backward()
    output = task.encoder.fully_connected[-1]
    # A zero output layer gives each of 3 labels a third: the bias's gradient is 1/3 minus the label's share.
    shares = torch.bincount(labels, minlength=3) / len(labels)
    torch.testing.assert_close(output.bias.grad, 1 / 3 - shares)
    first = [values.grad.clone() for values in network.encoder.parameters() if values is not output.bias][0]
    with torch.no_grad():
        output.weight.normal_()
    network.zero_grad()
    task.loss((images, labels))[0].backward()
    assert torch.allclose(first, next(iter(network.encoder.parameters())).grad)


def test_projections_of_one_point_raise_an_alarm(root):
    task = task_of(root)
    steps = 3 * task.batches_per_epoch
    assert task.alarms([{"epoch": 3, "image_spread": 0.5}]) == task.alarms([]) == {}
    expected = f"collapsed after {steps} steps (image, spread 1.0e-06), expected 0.001 or more"
    assert task.alarms([{"epoch": 3, "image_spread": 1e-6}])["collapsed"].endswith(expected)


def pretrain(root, *changes):
    small = ["pretrain.width=0.1", "pretrain.image_size=64", "pretrain.batch_size=16"]
    small += ["pretrain.objective=supervised-contrastive", *changes]
    sets = [word for change in small for word in ("--set", change)]
    STAGE.run(main, ["--params", str(PARAMS), "--root", str(root), *sets])
    return json.loads((root / "metrics/pretrain.json").read_text())


def test_the_stage_writes_the_encoder_without_the_projection(root, capsys):
    metrics = pretrain(root, "pretrain.epochs=1")
    assert {"val_accuracy", "wrong_sound_val_accuracy", "majority"} <= set(metrics)
    assert load_encoder(root / "models/pretrain").architecture["classes"] == 3
    with safe_open(root / "models/pretrain/encoder.safetensors", framework="pt") as file:
        assert not [name for name in file.keys() if "projection" in name]  # noqa: SIM118
    assert "image_spread" in (root / "metrics/history.csv").read_text().splitlines()[0]


@pytest.mark.slow
def test_stripes_are_learned_and_the_wrong_sounds_stripes_are_not(root):
    metrics = pretrain(root, "pretrain.epochs=12", "pretrain.width=0.25")
    assert metrics["val_accuracy"] > metrics["majority"] + 0.2
    assert metrics["val_accuracy"] > metrics["wrong_sound_val_accuracy"] + 0.2
