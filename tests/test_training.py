"""Training learns, follows its schedule, uses each moment once per epoch, and ends the same after an interruption."""

import math
from collections import Counter
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from conftest import REPOSITORY
from hypothesis import given
from hypothesis import strategies as st
from labeled_scenes import striped_frame, write_striped_tables
from torch import nn
from torchvision.io import encode_jpeg

from earshot.core.errors import EarshotError
from earshot.networks.backbones.alexnet import AlexNet
from earshot.networks.crops import LUMA, Changes, affine_colors, crop_frames, crop_roi, recolor
from earshot.networks.device import autocast, used_precision
from earshot.results.recipes import recipe_values
from earshot.training import batch_norm, trainer
from earshot.training.augmentation import (
    RGB_TO_YIQ,
    Augmentation,
    color_matrices,
    read_augmentation,
    write_augmentation,
)
from earshot.training.batch_norm import estimate_batch_norm
from earshot.training.data import Frames, labeled_frames
from earshot.training.label_prediction import BinaryCodes, Clusters, LabeledScenes, LabelTask
from earshot.training.sound_augmentation import SoundAugmentation
from earshot.training.trainer import Plan, Trainer, lr_steps_before

PLAN = Plan(epochs=3, learning_rate=2e-3, weight_decay=0.01, grad_clip_norm=5.0, precision="auto", seed=7)
STRONG = Augmentation(
    crop_min_scale=0.4, brightness=0.5, contrast=0.5, saturation=0.5, hue=0.125, grayscale_prob=0.3, flip_prob=0.5
)


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """Tables of three shards, 70 clips of two frames; a shard of more than one row group among them."""
    root = tmp_path_factory.mktemp("striped")
    write_striped_tables(root, [110, 40, 20])
    return root


def frames_of(root, split="train", label="label"):
    return labeled_frames(root / "data/scenes", root / "data/labels", split=split, label=label, values=3)


def striped_task(root, **changes):
    torch.manual_seed(0)
    network = AlexNet(classes=3, width=0.1, image_size=64, dropout=0.2).to(memory_format=torch.channels_last)
    table = LabeledScenes(root / "data/scenes", root / "data/labels", "label", Clusters(3))
    return LabelTask(network, table, STRONG, **{"batch_size": 16, "seed": 7} | changes)


class OneBatch:
    """A task of a single batch of 12 striped images, over and over."""

    def __init__(self, device="cpu"):
        torch.manual_seed(0)
        generator = np.random.default_rng(0)
        network = AlexNet(classes=3, width=0.25, image_size=64, dropout=0.2)
        self.network = network.to(device, memory_format=torch.channels_last)
        labels = torch.arange(12) % 3
        self.images = crop_frames([striped_frame(label, generator) for label in labels.tolist()], 64).to(device)
        self.labels = labels.to(device)
        self.batches_per_epoch = 10

    def batches(self, numbers):
        return ((self.images, self.labels) for _ in numbers)

    def loss(self, batch):
        scores = self.network(batch[0]).float()
        return nn.functional.cross_entropy(scores, batch[1]), (scores.argmax(1) == batch[1]).float().mean()

    def validate(self):
        return {"val_accuracy": self.loss((self.images, self.labels))[1].item()}


# The trainer


@pytest.mark.parametrize("precision", [pytest.param("bf16", marks=pytest.mark.slow), "float32"])
def test_one_batch_can_be_overfitted(tmp_path, precision):
    progress = Trainer(OneBatch(), replace(PLAN, epochs=6, precision=precision), tmp_path / "c").train("")
    assert progress.history[-1]["train_loss"] < progress.history[0]["train_loss"] / 5
    assert progress.history[-1]["train_accuracy"] == progress.history[-1]["val_accuracy"] == 1


@pytest.mark.parametrize(
    ("able", "used"),
    [({"avx2": True}, "float32"), ({"avx512_bf16": True}, "float32"), ({"amx_bf16": True}, "bf16"), ({}, "float32")],
)
def test_auto_is_bf16_only_where_the_processor_does_it_fast(monkeypatch, able, used):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: able)
    cpu = torch.device("cpu")
    assert used_precision("auto", cpu) == used
    assert [used_precision(precision, cpu) for precision in ("bf16", "float32")] == ["bf16", "float32"]
    with autocast("auto", cpu):
        assert torch.is_autocast_enabled("cpu") == (used == "bf16")


@pytest.mark.gpu
def test_one_batch_can_be_overfitted_on_a_gpu_in_two_runs(tmp_path, monkeypatch):
    monkeypatch.setattr(trainer, "CHECKPOINT_SECONDS", 0)
    with pytest.raises(Interrupted):
        Trainer(stop_after(OneBatch("cuda"), 25), replace(PLAN, epochs=6), tmp_path / "c").train("")
    training = Trainer(OneBatch("cuda"), replace(PLAN, epochs=6), tmp_path / "c")
    assert training.progress.step == 25
    assert training.train("").history[-1]["train_accuracy"] == 1


def test_a_process_that_writes_no_checkpoint_waits_as_long_for_the_next_one(tmp_path, monkeypatch):
    training = Trainer(OneBatch(), replace(PLAN, epochs=6), tmp_path / "c")
    saves = []
    monkeypatch.setattr(trainer.processes, "rank", lambda: 1)
    monkeypatch.setattr(training, "_save", lambda save=training._save: (saves.append(training.progress.step), save()))
    step = training._step

    def late(batch):
        if training.progress.step == 3:
            training._saved -= trainer.CHECKPOINT_SECONDS
        return step(batch)

    monkeypatch.setattr(training, "_step", late)
    training.train("")
    assert saves == [4, training.steps] and not (tmp_path / "c").exists()


def test_the_schedule_is_stepped_at_every_step(tmp_path):
    training = Trainer(OneBatch(), replace(PLAN, epochs=4), tmp_path / "c")
    rates = []
    training.optimizer.register_step_pre_hook(lambda optimizer, *_: rates.append(optimizer.param_groups[0]["lr"]))
    progress = training.train("")
    peak = PLAN.learning_rate
    assert len(rates) == 40
    assert rates[0] == pytest.approx(peak / 25)
    assert rates[11] == max(rates) == pytest.approx(peak)  # at 30 % of the steps
    assert all(a < b for a, b in zip(rates[:11], rates[1:12], strict=True))
    assert all(a > b for a, b in zip(rates[11:-1], rates[12:], strict=True))
    assert rates[-1] == pytest.approx(peak / 25 / 1e4)
    assert [row["learning_rate"] for row in progress.history] == [rates[9], rates[19], rates[29], rates[39]]


class Interrupted(Exception):
    pass


def stop_after(task, steps):
    """Make the task's batches raise an exception after a number of them."""
    batches = task.batches

    def interrupted(numbers):
        for number, batch in zip(numbers, batches(numbers), strict=True):
            if number == steps:
                raise Interrupted
            yield batch

    task.batches = interrupted
    return task


PLANS = {
    "onecycle": PLAN,
    "sgd in steps": replace(PLAN, optimizer="sgd", schedule="steps", learning_rate=0.02),
    "sgd, onecycle": replace(PLAN, optimizer="sgd"),
    "best": replace(PLAN, checkpoint_selection="best", learning_rate=0.02),
}


@pytest.mark.parametrize(
    ("plan", "stops"), [("onecycle", (1,)), ("onecycle", (9,)), *((plan, (4, 11, 12)) for plan in PLANS)]
)
def test_a_training_that_was_interrupted_ends_with_the_same_bits(root, tmp_path, monkeypatch, plan, stops):
    monkeypatch.setattr(trainer, "CHECKPOINT_SECONDS", 0)
    whole = striped_task(root)
    expected = Trainer(whole, PLANS[plan], tmp_path / "whole").train("")
    assert whole.batches_per_epoch > 4
    for stop in stops:
        with pytest.raises(Interrupted):
            Trainer(stop_after(striped_task(root), stop), PLANS[plan], tmp_path / "parts").train("")
    resumed = striped_task(root)
    training = Trainer(resumed, PLANS[plan], tmp_path / "parts")
    assert training.progress.step == stops[-1]
    progress = training.train("")
    assert progress.history == expected.history
    for name, values in whole.network.state_dict().items():
        assert torch.equal(values, resumed.network.state_dict()[name]), name


class Scored(OneBatch):
    """One batch; validation returns given accuracies, one per epoch, and records the weights."""

    def __init__(self, accuracies):
        super().__init__()
        self.accuracies, self.recorded = list(accuracies), []

    def validate(self):
        self.recorded.append({name: values.clone() for name, values in self.network.state_dict().items()})
        return {"val_accuracy": self.accuracies[len(self.recorded) - 1]}


@pytest.mark.parametrize(
    ("selection", "accuracies", "kept"),
    [("best", [0.3, 0.5, 0.5], 2), ("best", [0.6, 0.5, 0.1], 1), ("last", [0.6, 0.5, 0.1], 3), ("best", [None] * 3, 3)],
)
def test_the_weights_and_statistics_of_the_epoch_to_keep_are_kept(tmp_path, selection, accuracies, kept):
    task = Scored(accuracies)
    plan = replace(PLAN, checkpoint_selection=selection)
    training = Trainer(task, plan, tmp_path / "c")
    training.train("")
    assert training.epoch_kept() == kept
    again = OneBatch()
    Trainer(again, plan, tmp_path / "c").train("")  # finished: read from its checkpoint
    for name, values in task.recorded[kept - 1].items():
        assert torch.equal(values, task.network.state_dict()[name]), name
        assert torch.equal(values, again.network.state_dict()[name]), name


def test_the_schedule_in_steps_drops_after_every_interval(tmp_path):
    plan = replace(PLAN, schedule="steps", lr_step_epochs=1, lr_gamma=0.5, optimizer="sgd", learning_rate=0.008)
    training = Trainer(OneBatch(), replace(plan, epochs=4), tmp_path / "c")
    rates = []
    training.optimizer.register_step_pre_hook(lambda optimizer, *_: rates.append(optimizer.param_groups[0]["lr"]))
    training.train("")
    assert rates == pytest.approx([0.008] * 10 + [0.004] * 10 + [0.002] * 10 + [0.001] * 10)
    assert training.optimizer.param_groups[0]["momentum"] == trainer.MOMENTUM


# Caffe: rate * gamma ^ floor(step / stepsize), stepsize 100,000 (solver.prototxt); 320,000 steps (Owens 2016, 3.3).
# Kim: StepLR(16, .94), stepped after an epoch (train.py). Thirds and tenths are those of fine-tuning and detection.
@pytest.mark.parametrize(
    ("interval", "expected"),
    [
        (5 * 20_000, {0: 0, 99_999: 0, 100_000: 1, 199_999: 1, 200_000: 2, 300_000: 3, 319_999: 3}),
        (16 * 1_500, {0: 0, 23_999: 0, 24_000: 1, 47_999: 1, 48_000: 2, 299_999: 12}),
        (1 / 3 * 150_000, {49_999: 0, 50_000: 1, 99_999: 1, 100_000: 2, 149_999: 2}),
        (1 / 10 * 200_000, {19_999: 0, **{20_000 * n: n for n in range(10)}, 199_999: 9}),
        (0, {0: 0, 10**6: 0}),
    ],
)
def test_rates_drop_at_the_steps_of_the_published_solvers(interval, expected):
    assert {step: lr_steps_before(step, interval) for step in expected} == expected


def test_owens_recipe_drops_where_caffes_solver_does():
    """At 320,000 steps in 91 epochs; whole epochs of another corpus keep the proportion."""
    values = recipe_values([REPOSITORY / "recipes/owens-cluster.yaml"])
    interval = values["pretrain.lr_step_epochs"] * 320_000 / values["pretrain.epochs"]
    assert [interval * drop for drop in (1, 2, 3)] == [100_000, 200_000, 300_000]


def test_only_parameters_that_require_gradients_are_trained(tmp_path):
    task = OneBatch()
    task.network.convolutions.requires_grad_(False)
    before = {name: values.clone() for name, values in task.network.named_parameters()}
    Trainer(task, replace(PLAN, epochs=1), tmp_path / "c").train("")
    for name, values in task.network.named_parameters():
        assert torch.equal(values, before[name]) == name.startswith("convolutions"), name


def test_a_task_prepares_its_network_whenever_it_is_put_into_training_mode(tmp_path):
    task = OneBatch()
    task.prepare = lambda: task.network.convolutions.eval()
    before = {name: values.clone() for name, values in task.network.named_buffers()}
    Trainer(task, replace(PLAN, epochs=2), tmp_path / "c").train("")
    assert task.network.training
    assert not task.network.convolutions.training
    assert all(torch.equal(values, before[name]) for name, values in task.network.named_buffers())


def test_a_finished_training_is_not_done_again(root, tmp_path):
    expected = Trainer(striped_task(root), PLAN, tmp_path / "c").train("")
    again = Trainer(stop_after(striped_task(root), 0), PLAN, tmp_path / "c").train("")
    assert again == expected


def test_validation_is_without_dropout_and_leaves_the_network_alone(root, tmp_path):
    task = striped_task(root)
    training = Trainer(task, replace(PLAN, epochs=1), tmp_path / "c")
    training.train("")
    before = {name: values.clone() for name, values in task.network.state_dict().items()}
    first = training.validate()
    torch.manual_seed(1)
    assert training.validate() == first
    assert all(torch.equal(values, before[name]) for name, values in task.network.state_dict().items())
    assert task.network.training


def test_validation_measures_all_labeled_frames_of_its_split(root):
    task = striped_task(root)
    groups = frames_of(root, "val")
    frames = [frame for group in groups for frame in group.frames()]
    labels = torch.from_numpy(np.concatenate([group.labels for group in groups]))
    task.network.eval()
    with torch.inference_mode():
        nn.init.normal_(task.network.fc8.weight)
        scores = task.network(crop_frames(frames, 64))
        actual = task.validate()
    assert actual["val_loss"] == pytest.approx(nn.functional.cross_entropy(scores, labels).item(), rel=1e-4)
    assert actual["val_accuracy"] == pytest.approx((scores.argmax(1) == labels).float().mean().item())


def test_a_loss_that_is_no_number_ends_the_training_with_advice(tmp_path):
    task = OneBatch()
    task.loss = lambda batch: (OneBatch.loss(task, batch)[0] * math.nan, torch.tensor(0.0))
    with pytest.raises(EarshotError, match=r"step 10 of 30: the loss is nan.*lower learning_rate \(0.002\)"):
        Trainer(task, PLAN, tmp_path / "c").train("")
    assert not (tmp_path / "c").exists()


def test_a_damaged_checkpoint_is_refused_by_name(tmp_path):
    (tmp_path / "c").write_bytes(b"half a file")
    with pytest.raises(EarshotError, match="c: is no complete checkpoint .* remove it"):
        Trainer(OneBatch(), PLAN, tmp_path / "c")


def test_estimated_batch_norm_is_the_average_over_the_batches():
    torch.manual_seed(0)
    network = nn.Sequential(nn.BatchNorm2d(3), nn.Dropout(0.5))
    batches = torch.randn(4, 5, 3, 6, 6) * 2 + 1
    estimate_batch_norm(network, [(batch,) for batch in batches])
    assert not network.training
    assert network[0].momentum == 0.1
    torch.testing.assert_close(network[0].running_mean, batches.mean((0, 1, 3, 4)))
    variances = torch.stack([batch.var((0, 2, 3)) for batch in batches])
    torch.testing.assert_close(network[0].running_var, variances.mean(0))


# Kinds of labels


LEARNED = {"clusters": (Clusters(3), [0, 1, 2]), "binary": (BinaryCodes(40), [5, 2**39 + 1, 2**40 - 2])}


class LabeledBatch(OneBatch):
    """The batch of stripes with labels of a kind, one for each direction."""

    def __init__(self, kind, labels):
        super().__init__()
        self.network = AlexNet(classes=kind.outputs, width=0.25, image_size=64, dropout=0.2)
        self.labels, self.kind = torch.tensor(labels)[self.labels], kind

    def loss(self, batch):
        return self.kind.loss(self.network(batch[0]).float(), batch[1])


@pytest.mark.parametrize("kind", LEARNED)
def test_labels_of_every_kind_can_be_overfitted(tmp_path, kind):
    task = LabeledBatch(*LEARNED[kind])
    progress = Trainer(task, replace(PLAN, epochs=6), tmp_path / "c").train("")
    assert progress.history[-1]["train_loss"] < progress.history[0]["train_loss"] / 5
    assert progress.history[-1]["train_accuracy"] == progress.history[-1]["val_accuracy"] == 1


def test_a_code_is_predicted_bit_by_bit():
    codes = BinaryCodes(3)
    scores = torch.tensor([[2.0, -1.0, 0.5], [-3.0, 1.0, -1.0]])
    loss, right = codes.loss(scores, torch.tensor([0b001, 0b111]))  # bits, lowest first: 1 0 0 and 1 1 1
    message = [[2.0, 1.0, -0.5], [-3.0, 1.0, -1.0]]  # each score, turned towards its bit
    assert loss.item() == pytest.approx(np.log1p(np.exp(-np.array(message))).sum() / 2)  # two images
    assert right.item() == pytest.approx(3 / 6)
    assert (codes.values, codes.chance) == (8, 0.5)


def test_the_gradient_of_a_code_is_caffes():
    """sigmoid - target over the number of images: 30 times that of a mean over 30 bits."""
    scores = torch.zeros(4, 30, requires_grad=True)
    BinaryCodes(30).loss(scores, torch.tensor([0, 1, 2, 3]))[0].backward()
    assert scores.grad[0].tolist() == pytest.approx([0.5 / 4] * 30)
    assert scores.grad[3].tolist() == pytest.approx([-0.5 / 4] * 2 + [0.5 / 4] * 28)


def test_the_highest_of_62_bits_is_separate_from_the_lowest():
    scores = torch.full((2, 62), -9.0)
    scores[0, 61] = scores[1, 0] = 9
    assert BinaryCodes(62).loss(scores, torch.tensor([2**61, 1]))[1] == 1


def test_the_majority_is_the_most_frequent_label_of_training():
    assert Clusters(3).majority(np.array([2, 2, 0]), np.array([2, 0, 1, 2])) == 0.5
    training = np.array([0b01, 0b01, 0b11])  # bit 0 is mostly 1, bit 1 mostly 0
    assert BinaryCodes(2).majority(training, np.array([0b01, 0b10, 0b00, 0b11])) == pytest.approx((2 + 2) / 8)


# Frames and labels


def identities(groups):
    """The frames of row groups, each JPEG with its label."""
    return Counter(pair for group in groups for pair in zip(group.frames(), group.labels.tolist(), strict=True))


def test_frames_come_with_the_labels_of_their_own_moments(root):
    scenes = [row for path in sorted((root / "data/scenes").iterdir()) for row in pq.read_table(path).to_pylist()]
    frame = {(row["clip_id"], moment): jpeg for row in scenes for moment, jpeg in enumerate(row["frames"])}
    shards = sorted((root / "data/labels").glob("*.parquet"))
    labels = [row for path in shards for row in pq.read_table(path).to_pylist()]
    for column, kept in (("label", "kept"), ("wrong_sound_label", "wrong_sound_kept")):
        for split in ("train", "val"):
            used = [row for row in labels if row["split"] == split and row[kept]]
            expected = Counter((frame[row["clip_id"], row["moment"]], row[column]) for row in used)
            assert len(used) > 5
            assert identities(frames_of(root, split, column)) == expected


def test_no_group_is_trained_on_and_validated(root):
    training, validation = (set(identities(frames_of(root, split))) for split in ("train", "val"))
    assert not training & validation


@pytest.mark.parametrize("pool", [1, 60, 4096])
def test_an_epoch_shows_every_moment_once_but_for_the_rest(root, pool):
    groups = frames_of(root)
    frames = Frames(groups, batch_size=32, seed=3, pool=pool)
    epochs = []
    for epoch in range(2):
        first = epoch * frames.batches_per_epoch
        batches = [frames[first + number] for number in range(frames.batches_per_epoch)]
        assert all(len(batch) == 32 for batch in batches)
        epochs.append([moment for batch in batches for moment in batch])
    assert frames.batches_per_epoch == frames.items // 32
    for recorded in epochs:
        assert max((Counter(recorded) - identities(groups)).values(), default=0) == 0
    assert epochs[0] != epochs[1]


def test_a_batch_depends_on_its_number_and_the_seed_alone(root):
    def batches(order, **how):
        frames = Frames(frames_of(root), batch_size=16, pool=60, **how)
        return {number: frames[number] for number in order}

    forward, backward = batches(range(14), seed=3), batches(range(13, -1, -1), seed=3)
    assert forward == backward
    assert forward != batches(range(14), seed=4)


def test_without_a_seed_all_frames_come_once_in_one_order(root):
    groups = frames_of(root, "val")
    one, two = (Frames(groups, batch_size=4, seed=None) for _ in range(2))
    drawn = [item for number in range(one.batches_per_epoch) for item in one[number]]
    assert drawn == [item for number in range(two.batches_per_epoch) for item in two[number]]
    in_table_order = [item for group in groups for item in group.read()]
    assert sorted(drawn) == sorted(in_table_order) and drawn != in_table_order


def test_a_table_smaller_than_a_batch_is_one_batch(root):
    frames = Frames(frames_of(root, "val"), batch_size=1000, seed=0)
    assert frames.batches_per_epoch == 1
    assert len(frames[0]) == frames.items


def test_training_batches_are_the_same_however_many_threads_or_processes_prepare_them(root, change_setting):
    task = striped_task(root)
    alone = [task._training_batch(number) for number in range(8)]
    for name, count in (("EARSHOT_THREADS", "3"), ("EARSHOT_LOADERS", "1"), ("EARSHOT_LOADERS", "2")):
        change_setting(name, count)
        for one, other in zip(task.batches(range(8)), alone, strict=True):
            assert torch.equal(one[0], other[0]) and torch.equal(one[1], other[1])


def rewrite(folder, number, change):
    path = folder / f"{number:05d}.parquet"
    pq.write_table(change(pq.read_table(path)), path)


MISFITS = {
    "rows of another order": (lambda t: t.take(list(range(len(t)))[::-1]), "rows 0 to 49 are not the moments of"),
    "a row less": (lambda t: t.slice(0, len(t) - 1), "rows 200 to 219 are not the moments of"),
    "rows left over": (lambda t: t.take([*range(len(t)), 0]), "221 rows for the 220 frames of"),
    "a column less": (lambda t: t.drop_columns(["kept"]), "has no column kept"),
}


@pytest.mark.parametrize("misfit", MISFITS)
def test_labels_of_other_scenes_are_refused_by_name(tmp_path, misfit):
    write_striped_tables(tmp_path, [110])
    change, message = MISFITS[misfit]
    rewrite(tmp_path / "data/labels", 0, change)
    with pytest.raises(EarshotError, match=f"labels/00000.parquet: {message}"):
        frames_of(tmp_path)


def test_labels_of_more_clusters_than_requested_are_refused(root):
    with pytest.raises(EarshotError, match=r"label is from 0 to 2, expected 0 to 1 \(by labels.json"):
        labeled_frames(root / "data/scenes", root / "data/labels", split="train", label="label", values=2)


def test_another_number_of_shards_is_refused(tmp_path):
    write_striped_tables(tmp_path, [5, 5])
    (tmp_path / "data/labels/00001.parquet").unlink()
    with pytest.raises(EarshotError, match="1 shards of labels, but 2 of scenes"):
        frames_of(tmp_path)


def test_labels_that_are_no_whole_numbers_are_refused(tmp_path):
    write_striped_tables(tmp_path, [5])
    rewrite(tmp_path / "data/labels", 0, lambda t: t.set_column(4, "label", t["label"].cast("float")))
    with pytest.raises(EarshotError, match="labels/00000.parquet: label is float, expected int64"):
        frames_of(tmp_path)


def test_a_table_without_training_frames_is_refused(tmp_path):
    write_striped_tables(tmp_path, [5])
    rewrite(tmp_path / "data/labels", 0, lambda t: t.set_column(3, "split", [["val"] * len(t)]))
    with pytest.raises(EarshotError, match="0 training moments in column label, expected 2"):
        striped_task(tmp_path)


# Images


def jpeg(image):
    return bytes(encode_jpeg(torch.as_tensor(image, dtype=torch.uint8), quality=100).numpy())


def test_without_changes_the_middle_square_is_cropped():
    image = np.zeros((3, 64, 128))
    image[:, :, 32:96] = 200
    assert crop_frames([jpeg(image)], 32)[0].float().mean() == pytest.approx(200, abs=2)
    assert crop_frames([jpeg(image[0][None])], 32).shape == (1, 3, 32, 32)  # a gray JPEG gets three channels


def test_half_of_the_images_are_mirrored():
    changes = replace(STRONG, crop_min_scale=1).draw(400, np.random.default_rng(0))
    assert 0.4 < changes.mirrored.mean() < 0.6
    frame = striped_frame(2, np.random.default_rng(0))
    flipped = crop_frames([frame] * 400, 24, replace(changes, colors=None))
    plain = crop_frames([frame], 24)[0]
    assert torch.equal(flipped[changes.mirrored.argmin()], plain)
    mirrored = flipped[changes.mirrored.argmax()].float()
    assert (mirrored - plain.flip(-1).float()).abs().mean() < 1


@given(
    height=st.integers(1, 500),
    width=st.integers(1, 500),
    box=st.tuples(st.floats(0.001, 1), st.floats(0.75, 1.34), st.floats(0, 1, exclude_max=True), st.floats(0, 0.999)),
)
def test_a_crop_lies_inside_its_image(height, width, box):
    top, left, high, wide = crop_roi(height, width, np.array(box))
    assert 0 <= top < top + high <= height
    assert 0 <= left < left + wide <= width


def test_crops_show_the_share_of_the_image_that_is_requested():
    boxes = Augmentation(crop_min_scale=0.25).draw(2000, np.random.default_rng(0)).boxes
    assert 0.25 <= boxes[:, 0].min() < 0.26
    assert 0.99 < boxes[:, 0].max() <= 1
    _, _, high, wide = crop_roi(400, 400, boxes[0])
    assert high * wide / 400**2 == pytest.approx(boxes[0, 0], rel=0.02)


def changes_of(saturation=1.0, turns=0.0, brightness=1.0, contrast=1.0):
    ones = np.ones(1)
    colors = color_matrices(saturation * ones, turns * ones)
    return Changes(None, ones < 0, colors, brightness * ones, contrast * ones)


def recolored(pixels, **changes):
    return recolor(pixels, affine_colors(changes_of(**changes))[0]).astype(float)


# OpenCV rounds in fixed point: at most half a value, and one in rare cases.
def assert_near(pixels, expected):
    difference = np.abs(pixels - expected)
    assert difference.max() <= 1.01
    assert (difference > 0.51).mean() < 0.05


def test_changes_of_color_match_their_names():
    pixels = np.random.default_rng(0).integers(60, 160, (64, 64, 3), dtype=np.uint8)
    values = pixels.astype(float)
    assert np.array_equal(recolored(pixels), pixels)
    assert_near(recolored(pixels, brightness=1.3), values * 1.3)
    mean = values.mean((0, 1)) @ LUMA
    assert_near(recolored(pixels, contrast=0.4), mean + 0.4 * (values - mean))
    assert_near(recolored(pixels, saturation=0), (values @ LUMA)[..., None].repeat(3, 2))
    assert recolored(pixels, brightness=3.0).max() == 255


def test_hue_keeps_luma_and_grays_and_turns_back():
    pixels = np.random.default_rng(0).integers(90, 130, (64, 64, 3), dtype=np.uint8)
    turned = recolored(pixels, turns=0.3)
    assert np.abs(turned - pixels).max() > 10
    assert np.abs((turned - pixels) @ LUMA).max() <= 1.5
    assert np.abs(recolored(turned.astype(np.uint8), turns=-0.3) - pixels).max() <= 3
    gray = np.full((4, 4, 3), 77, dtype=np.uint8)
    assert np.array_equal(recolored(gray, turns=0.3), gray)


def test_no_augmentation_leaves_images_alone():
    changes = Augmentation().draw(5, np.random.default_rng(0))
    frame = striped_frame(0, np.random.default_rng(0))
    plain = crop_frames([frame] * 5, 40)
    assert torch.equal(crop_frames([frame] * 5, 40, changes), plain)


def test_every_image_is_changed_by_its_own_draw():
    frame = striped_frame(0, np.random.default_rng(0))
    augmentation = Augmentation(0.875, brightness=0.4, contrast=0.4, saturation=0.4, hue=0.1, flip_prob=0.5)
    changes = augmentation.draw(6, np.random.default_rng(0))
    together = crop_frames([frame] * 6, 40, changes)
    alone = [crop_frames([frame], 40, changes[np.array([number])]) for number in range(6)]
    assert torch.equal(together, torch.cat(alone))
    plain = crop_frames([frame] * 6, 40, replace(changes, colors=None))
    for number, image in enumerate(plain.permute(0, 2, 3, 1).numpy()):
        expected = torch.from_numpy(recolor(np.ascontiguousarray(image), affine_colors(changes)[number])).permute(
            2, 0, 1
        )
        assert torch.equal(together[number], expected)


def test_the_requested_share_of_images_loses_its_color():
    frames = [striped_frame(0, np.random.default_rng(n)) for n in range(200)]
    changes = Augmentation(grayscale_prob=0.3).draw(200, np.random.default_rng(0))
    images = crop_frames(frames, 16, changes).float()
    gray = (images.amax(1) - images.amin(1)).amax((1, 2)) <= 1
    assert 0.2 < gray.float().mean() < 0.4


def test_a_plan_takes_every_field_from_parameters_or_from_what_is_fixed():
    params = SimpleNamespace(
        **{name: getattr(PLAN, name) for name in Plan.__dataclass_fields__ if name != "checkpoint_selection"}
    )
    assert Plan.of(params, PLAN.seed, checkpoint_selection="best") == replace(PLAN, checkpoint_selection="best")
    with pytest.raises(AttributeError, match="checkpoint_selection"):
        Plan.of(params, PLAN.seed)


# L3-Net: 224 of 256 px (Arandjelovic & Zisserman 2017, section 2.2); CaffeNet: 227 (BVLC, train_val.prototxt).
@pytest.mark.parametrize(("side", "pixels"), [(0.875, 224), (0.8867, 227)])
def test_a_fixed_square_lies_anywhere_in_a_frame_of_256_px(side, pixels):
    boxes = Augmentation(crop_side=side).draw(4000, np.random.default_rng(0)).boxes
    tops, lefts, heights, widths = np.array([crop_roi(256, 455, box) for box in boxes]).T
    assert set(heights) == set(widths) == {pixels}
    assert (tops.min(), tops.max()) == (0, 256 - pixels)
    assert (lefts.min(), lefts.max()) == (0, 455 - pixels)
    assert tops.mean() == pytest.approx((256 - pixels) / 2, rel=0.05)


def test_a_fixed_square_is_cut_and_not_scaled():
    image = torch.randint(0, 256, (3, 256, 256), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    frame = jpeg(image)
    changes = Augmentation(crop_side=0.875).draw(1, np.random.default_rng(0))
    top, left, _, _ = crop_roi(256, 256, changes.boxes[0])
    whole = crop_frames([frame], 256)[0]
    assert torch.equal(crop_frames([frame], 224, changes)[0], whole[:, top : top + 224, left : left + 224])


def test_the_changes_of_a_training_are_read_again(tmp_path):
    for sound in (SoundAugmentation(), SoundAugmentation(gain_jitter=0.1, time_mask=0.3)):
        write_augmentation(tmp_path, STRONG, sound)
        assert read_augmentation(tmp_path) == (STRONG, sound)
    (tmp_path / "augmentation.json").write_text("{}")
    with pytest.raises(EarshotError, match="augmentation.json: does not hold the changes of a training"):
        read_augmentation(tmp_path)


def test_kims_jitter_is_a_tenth_of_brightness_and_saturation_alone():
    """ColorJitter(brightness=.1, saturation=.1) of utils/dataset.py draws factors from .9 to 1.1."""
    changes = Augmentation(crop_side=0.875, brightness=0.1, saturation=0.1, flip_prob=0.5).draw(
        4000, np.random.default_rng(0)
    )
    assert changes.brightness.min() == pytest.approx(0.9, abs=1e-3)
    assert changes.brightness.max() == pytest.approx(1.1, abs=1e-3)
    assert (changes.contrast == 1).all()
    chroma = RGB_TO_YIQ @ changes.colors @ np.linalg.inv(RGB_TO_YIQ)
    saturations = chroma[:, 1, 1]
    assert (saturations.min(), saturations.max()) == pytest.approx((0.9, 1.1), abs=1e-3)
    assert chroma == pytest.approx(np.eye(3) * np.stack([np.ones(4000), saturations, saturations]).T[:, None], abs=1e-9)


def test_the_batches_for_the_initial_values_are_bounded_in_memory(monkeypatch):
    class Task:
        batches_per_epoch, batch_size = 100, 32

        def batches(self, numbers):
            return ((torch.zeros(32, 3, 10, 10), torch.full((32,), number)) for number in numbers)

    assert [int(labels[0]) for _, labels in batch_norm.first_batches(Task())] == list(range(32))
    monkeypatch.setattr(batch_norm, "SAMPLED_BYTES", 3 * 32 * 3 * 100 * 4)
    assert len(batch_norm.first_batches(Task())) == 3
