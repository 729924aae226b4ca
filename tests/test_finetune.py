"""Fine-tuning trains the layers of its mode, keeps its protocol, resumes after a kill, and refuses incomplete data."""

import csv
import json
import os
import shutil
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import PARAMS, run_stage
from striped_images import VOC_CLASSES, write_voc_dataset
from torchvision.transforms import RandomResizedCrop

from earshot.benchmarks.finetune import FineTuning, VocTask, draw_crops, evaluate, renew, score_images
from earshot.core.errors import EarshotError
from earshot.core.params import load_params
from earshot.core.rng import generator
from earshot.evaluation.benchmark import Context
from earshot.evaluation.images.sampling import batch_indices
from earshot.evaluation.images.voc_lists import read_dataset
from earshot.evaluation.metrics import mean_average_precision
from earshot.networks.backbones import build_network
from earshot.networks.crops import crop_frames, crop_roi
from earshot.networks.files import load_encoder, save_architecture, save_weights
from earshot.params.evaluate import params_of
from earshot.pipeline.settings import settings
from earshot.training import trainer
from earshot.training.augmentation import Augmentation
from earshot.training.trainer import Plan, Trainer

SIDE = 64
CROPS = Augmentation(crop_min_scale=0.1, crop_max_scale=0.5, flip_prob=0.5)
SIZES = {"train": 9, "val": 7, "test": 8}
PLAN = partial(
    Plan, epochs=1, learning_rate=0.05, weight_decay=0.01, grad_clip_norm=10.0, precision="auto", seed=0,
    optimizer="sgd", schedule="steps", lr_step_epochs=1 / 3, lr_gamma=0.5,
)  # fmt: skip


@pytest.fixture(autouse=True)
def _one_process(monkeypatch):
    """Work this small loses by threads and processes."""
    monkeypatch.setenv("EARSHOT_THREADS", "1")
    monkeypatch.setenv("EARSHOT_WORKERS", "1")
    settings.cache_clear()
    torch.set_num_threads(1)
    yield
    settings.cache_clear()


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("voc")
    write_voc_dataset(folder, SIZES)
    return folder


@pytest.fixture(scope="module")
def encoders(tmp_path_factory) -> Path:
    """A folder of encoders: encoder and wrong_sound are alike, random is another network."""
    folder = tmp_path_factory.mktemp("encoders")
    for name, seed in {"encoder": 0, "wrong_sound": 0, "random": 1}.items():
        torch.manual_seed(seed)
        network = build_network("alexnet", classes=5, width=0.1, image_size=SIDE, dropout=0.2)
        save_weights(folder, name, network)
    save_architecture(folder, network)
    return folder


@pytest.fixture
def make_context(data_dir, encoders, tmp_path):
    """A context of few steps; parameters by keyword."""

    def context(scratch: str = "scratch", **changes: object) -> Context:
        few = {"steps": 6, "batch_size": 4, "crops": 2} | changes
        overrides = [f"evaluate.finetune.{k}={v}" for k, v in few.items()]
        params = load_params(params_of("finetune"), PARAMS, overrides)
        (tmp_path / scratch).mkdir(exist_ok=True)
        return Context(data_dir, encoders, params.evaluate.finetune, 0, tmp_path / scratch)

    return context


def trained(encoders: Path, data_dir: Path, mode: str, checkpoint: Path) -> tuple[dict, dict]:
    """The state of a network with new fully connected layers before and after a few steps in a mode."""
    network = load_encoder(encoders)
    renew(network, len(VOC_CLASSES), mode, seed=0, first_weights="he")
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    task = VocTask(network, read_dataset(data_dir)[1]["train"], CROPS, batch_size=4, steps=3, seed=0)
    Trainer(task, PLAN(), checkpoint).train("x")
    return before, network.state_dict()


def test_mode_head_changes_the_fully_connected_layers_alone_and_mode_all_every_weight(tmp_path, encoders, data_dir):
    head = load_encoder(encoders).fully_connected_names
    for mode in ("head", "all"):
        before, after = trained(encoders, data_dir, mode, tmp_path / mode)
        changed = {name for name in before if not torch.equal(before[name], after[name])}
        of_head = {name for name in before if name.startswith(head)}
        statistics = {name for name in before if "running" in name or "num_batches" in name or "channel_" in name}
        assert len(of_head) == 6 and len(statistics) > 15
        assert changed == (of_head if mode == "head" else set(before) - statistics)


def test_the_fully_connected_layers_start_anew_and_alike_for_every_encoder(encoders):
    networks = [load_encoder(encoders, name) for name in ("encoder", "random")]
    old = networks[0].fully_connected[0].state_dict()
    old = {name: tensor.clone() for name, tensor in old.items()}
    for network in networks:
        renew(network, 3, "head", seed=0, first_weights="he")
    first, second = (network.fully_connected for network in networks)
    for one, other in zip(first, second, strict=True):
        assert all(torch.equal(one.state_dict()[name], other.state_dict()[name]) for name in one.state_dict())
    assert not torch.equal(first[0].state_dict()["weight"], old["weight"])
    assert first[-1].out_features == 3


def test_difficult_labels_have_no_gradient(encoders, data_dir):
    network = load_encoder(encoders)
    renew(network, 3, "head", seed=0, first_weights="he")
    task = VocTask(network, read_dataset(data_dir)[1]["train"], CROPS, batch_size=4, steps=1, seed=0)
    images, _ = next(task.batches(range(1)))
    labels = torch.tensor([[1.0, 0, -1], [0, 0, -1], [-1, 0, 1], [1, 0, -1]])
    loss, _ = task.loss((images, labels))
    loss.backward()
    assert loss.item() == pytest.approx(7 / 4 * np.log(2))  # the new output is zero: seven labels at even odds
    # with a score of 0 the gradient is 1/2 for a negative class and -1/2 for a positive one, a quarter of it per image
    assert network.fully_connected[-1].bias.grad.tolist() == pytest.approx([-1 / 8, 0, 1 / 4])
    assert task.loss((images, torch.zeros(4, 3)))[0].item() == 0


def test_every_image_comes_once_before_any_comes_again():
    orders = np.concatenate([batch_indices("order", 0, step, batch_size=4, count=9) for step in range(9)]).reshape(4, 9)
    assert all(sorted(order) == list(range(9)) for order in orders.tolist())
    assert len({tuple(order) for order in orders.tolist()}) == 4


def test_crops_show_a_share_of_the_image_between_the_two_parameters(make_context):
    context = make_context(crop_min_scale=0.2, crop_max_scale=0.3)
    changes = FineTuning(context, ([], None), ([], None), []).augmentation().draw(1000, np.random.default_rng(0))
    assert changes.boxes[:, 0].min() == pytest.approx(0.2, abs=0.001)
    assert changes.boxes[:, 0].max() == pytest.approx(0.3, abs=0.001)
    assert 400 < changes.mirrored.sum() < 600


def test_crops_are_square_as_in_the_published_code():
    """RandomResizedCrop(scale=(0.1, 0.5), ratio=(1, 1)): the moments of its sides, on an image of VOC's size."""
    height, width = 375, 500
    changes = draw_crops(CROPS, 2000, np.random.default_rng(0))
    boxes = np.array([crop_roi(height, width, box) for box in changes.boxes])
    assert (boxes[:, 2] == boxes[:, 3]).all()
    torch.manual_seed(0)
    image, crop = torch.empty(3, height, width), RandomResizedCrop(224, (0.1, 0.5), (1, 1))
    published = np.array([crop.get_params(image, crop.scale, crop.ratio) for _ in range(2000)])
    # Of shares from .1 to .5 the sides are 137 to 306 px; their mean is 233.
    for column in range(4):  # standard errors are 1 to 2 px
        assert boxes[:, column].mean() == pytest.approx(published[:, column].mean(), abs=6)
        assert boxes[:, column].std() == pytest.approx(published[:, column].std(), abs=6)
    assert (boxes[:, 3].min(), boxes[:, 3].max()) == pytest.approx((137, 306), abs=1)


def test_first_weights_are_those_of_the_published_code():
    network = build_network("alexnet", classes=5, width=0.5, image_size=128, dropout=0.2)
    renew(network, 20, "head", seed=0, first_weights="published")
    fc6, fc7, fc8 = network.fully_connected
    for layer in (fc6, fc7):  # N(0, .01)
        weights = layer.weight.detach()
        assert weights.mean().item() == pytest.approx(0, abs=5e-5)
        assert weights.std().item() == pytest.approx(0.01, rel=0.01)
        assert (weights.abs() > 0.02).float().mean().item() == pytest.approx(0.0455, abs=0.002)
    assert fc8.out_features == 20
    bound = 2048**-0.5  # torch.nn.Linear's own: uniform up to 1 / root of the inputs
    assert fc8.weight.detach().abs().max().item() == pytest.approx(bound, rel=0.01)
    assert fc8.weight.detach().std().item() == pytest.approx(bound / 3**0.5, rel=0.02)
    assert all((layer.bias == 0.1).all() for layer in network.fully_connected)


def test_several_crops_of_one_decoded_image_are_the_crops_of_the_image(data_dir):
    frames = [file.read_bytes() for file in read_dataset(data_dir)[1]["train"][0][:2]]
    changes = CROPS.draw(6, np.random.default_rng(0))
    together = crop_frames(frames, SIDE, changes, crops=3)
    assert torch.equal(together, crop_frames([frame for frame in frames for _ in range(3)], SIDE, changes))
    assert len({image.numpy().tobytes() for image in together}) == 6


def test_scores_of_an_image_are_summed_over_its_crops(encoders, data_dir):
    network, files = load_encoder(encoders), read_dataset(data_dir)[1]["train"][0][:5]
    torch.nn.init.normal_(network.fully_connected[-1].weight)
    changes = draw_crops(CROPS, 15, generator("test crops", 0, 0))
    with torch.inference_mode():
        scores = network(crop_frames([file.read_bytes() for file in files], SIDE, changes, crops=3))
    summed = scores.view(5, 3, -1).sum(1).numpy()
    actual = score_images(network, files, CROPS, 3, seed=0)
    np.testing.assert_allclose(actual, summed, rtol=1e-4, atol=1e-5 * np.abs(summed).max())


def test_eight_images_can_be_overfitted(tmp_path, encoders, data_dir):
    files, labels = (part[:8] for part in read_dataset(data_dir)[1]["train"])
    network = load_encoder(encoders, "random")
    renew(network, len(VOC_CLASSES), "all", seed=0, first_weights="he")
    before = mean_average_precision(score_images(network, files, CROPS, 10, seed=0), labels)
    task = VocTask(network, (files, labels), CROPS, batch_size=8, steps=300, seed=0)
    Trainer(task, PLAN(), tmp_path / "checkpoint").train("x")
    # Processors round otherwise, and end between .77 and .97.
    assert mean_average_precision(score_images(network, files, CROPS, 10, seed=0), labels) > before + 0.2


def test_every_score_stands_beside_its_controls(make_context):
    result = evaluate(make_context())
    scores = {
        f"{prefix}map_{mode}{rule}"
        for prefix in ("", "wrong_sound_", "random_")
        for mode in ("head", "all")
        for rule in ("", "_11_point")
    }
    assert set(result.metrics) == scores | {"chance", "steps"}
    assert result.metrics["steps"] == 6
    for mode in ("head", "all"):  # the same weights see the same crops, whatever they are called
        assert result.metrics[f"map_{mode}"] == result.metrics[f"wrong_sound_map_{mode}"]
    assert [row["class"] for row in result.classes] == list(VOC_CLASSES)
    for metric in scores:
        column = [row[metric.replace("map", "ap", 1)] for row in result.classes]
        assert np.mean(column) == pytest.approx(result.metrics[metric])
    assert result.protocol == "VOC2007 fine-tuning, mAP after 6 steps"
    assert result.scores.count("(random ") == 2 and "chance" in result.scores


def test_a_mode_that_is_not_requested_is_not_trained(make_context):
    assert not [key for key in evaluate(make_context(modes="[head]")).metrics if "_all" in key]


def test_a_killed_evaluation_resumes_and_ends_with_the_same_scores(make_context, monkeypatch):
    expected = evaluate(make_context("whole"))
    monkeypatch.setattr(trainer, "CHECKPOINT_SECONDS", 0)
    steps, step = [], Trainer._step

    def counted(self, batch):
        if len(steps) == 9:
            raise KeyboardInterrupt  # in the second of six trainings, half way
        steps.append(self.progress.step)
        return step(self, batch)

    monkeypatch.setattr(Trainer, "_step", counted)
    with pytest.raises(KeyboardInterrupt):
        evaluate(make_context("killed"))
    steps.append(None)
    result = evaluate(make_context("killed"))
    assert (result.metrics, result.classes) == (expected.metrics, expected.classes)
    assert steps[10:] == [3, 4, 5, *range(6), *range(6), *range(6), *range(6)]
    assert not list(make_context("killed").scratch.glob("*checkpoint*"))


@pytest.mark.slow
def test_workers_and_threads_do_not_change_the_scores(make_context, monkeypatch):
    expected = evaluate(make_context("one"))
    monkeypatch.setenv("EARSHOT_THREADS", "3")
    monkeypatch.setenv("EARSHOT_WORKERS", "2")
    settings.cache_clear()
    assert evaluate(make_context("several")) == expected


def spoil_image(data_dir: Path) -> None:
    (data_dir / "VOCdevkit/VOC2007/JPEGImages/000003.jpg").write_bytes(b"no image")


SPOILED = [
    (lambda q: shutil.rmtree(q.data_dir / "VOCdevkit"), "holds no VOC2007, expected VOCdevkit/VOC"),
    (lambda q: (q.data_dir / "VOCdevkit/VOC2007/JPEGImages/000003.jpg").unlink(), r"000003.jpg: no such image"),
    (lambda q: spoil_image(q.data_dir), r"000003.jpg: cannot be read as an image"),
    (lambda q: (q.encoder / "random.safetensors").unlink(), r"random.safetensors: cannot be read"),
    (lambda q: (q.encoder / "encoder.json").write_text("{}"), r"encoder.json: "),
]


@pytest.mark.parametrize(("damage", "message"), SPOILED, ids=[message for _, message in SPOILED])
def test_an_incomplete_data_dir_or_encoder_is_refused_by_name(damage, message, make_context, tmp_path):
    whole = make_context()
    copies = {name: shutil.copytree(getattr(whole, name), tmp_path / name) for name in ("data_dir", "encoder")}
    spoiled = replace(whole, **copies)
    damage(spoiled)
    with pytest.raises(EarshotError, match=message):
        evaluate(spoiled)


def test_crops_from_large_to_small_are_refused(make_context):
    with pytest.raises(EarshotError, match=r"crop_min_scale is 0.6, expected at most crop_max_scale, which is 0.5"):
        evaluate(make_context(crop_min_scale=0.6))


def test_the_stage_writes_scores_and_a_row_a_class(tiny_root, tmp_path):
    root = tmp_path / "root"
    shutil.copytree(tiny_root, root, copy_function=os.link)
    few = {"steps": 2, "batch_size": 4, "crops": 1}
    sets = [word for key, value in few.items() for word in ("--set", f"evaluate.finetune.{key}={value}")]
    closing = run_stage("evaluate", root, "--benchmark", "finetune", *sets)
    assert closing.startswith("rendered VOC2007 fine-tuning, mAP after 2 steps: head 0.")
    metrics = json.loads((root / "metrics/finetune.json").read_text())
    with (root / "metrics/finetune_classes.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert {"map_head", "map_all", "random_map_head", "wrong_sound_map_all", "chance"} < set(metrics)
    assert len(rows) == 10 and all(0 <= float(row["random_ap_all"]) <= 1 for row in rows)
    assert not list((root / ".earshot/evaluate-finetune").iterdir())
