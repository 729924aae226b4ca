"""Objectives: the losses of their sources, the same over processes as in one, and what teaches nothing is refused."""

import math

import pytest
import torch
from test_correspondence_networks import build, pairs_for
from test_correspondence_task import CENTERED, write_clips
from test_distributed import run_torchrun
from torch import Tensor, nn

from earshot.core.errors import EarshotError
from earshot.corpus.split import split_of
from earshot.networks.two_towers import of_length_one
from earshot.training.augmentation import Augmentation
from earshot.training.correspondence import CorrespondenceTask
from earshot.training.objectives import build_objective
from earshot.training.objectives.clusters import balanced
from earshot.training.pairs import Pairs
from earshot.training.trainer import Plan, Trainer

CONTRASTIVE = build_objective("contrastive", temperature=0.2)
CLUSTERS = build_objective("clusters", centroids=6, labels_from="both", balance="sinkhorn")
SHARED = """
import sys
from pathlib import Path
import torch
from test_objectives import DISTRIBUTED, Cosines, batch_of
from earshot.training import distributed as processes
with processes.together():
    objective = DISTRIBUTED[sys.argv[2]]()
    network = objective.trained(Cosines(), 0)
    loss = processes.shared_loss(network, lambda batch: objective.loss(network, batch, shared=True))
    value, right = loss(batch_of(processes.part(8)))
    value.backward()
    values = processes.mean(torch.stack([value.detach(), right]))
    if processes.rank() == 0:
        gradients = {name: weights.grad for name, weights in network.named_parameters()}
        torch.save({"values": values, **gradients}, sys.argv[1])
"""


class Cosines(nn.Module):
    """A network without batch norm: linear embeddings, cosines, and log-odds of twice the cosine."""

    units = 5

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.image, self.audio, self.scale = nn.Linear(12, 5), nn.Linear(7, 5), nn.Parameter(torch.tensor(2.0))

    def compared_images(self, images: Tensor) -> Tensor:
        return of_length_one(self.image(images.flatten(1) / 255))

    def compared_audio(self, sounds: Tensor) -> Tensor:
        return of_length_one(self.audio(sounds))

    def similarities(self, images: Tensor, sounds: Tensor) -> Tensor:
        return images @ sounds.T

    def log_odds(self, similarities: Tensor) -> Tensor:
        return self.scale * similarities


def batch_of(part: slice = slice(0, 8), groups: tuple[int, ...] = (0, 1, 2, 3, 0, 4, 5, 1)) -> Pairs:
    """A part of a batch of 8 clips; the sound of a clip's mismatched pair is that of the next clip of the part."""
    drawn = torch.Generator().manual_seed(1)
    images = torch.randint(0, 256, (8, 3, 2, 2), dtype=torch.uint8, generator=drawn)[part]
    sounds = torch.randn(8, 7, generator=drawn)[part]
    own = torch.arange(len(images))
    is_match = torch.tensor([1.0, 0.0]).repeat_interleave(len(images))
    return Pairs(images, sounds, own.repeat(2), torch.cat([own, own.roll(-1)]), is_match, torch.tensor(groups)[part])


def test_infonce_is_symmetric_and_leaves_out_clips_of_the_own_group():
    """-log of the own pair's share of exp(cosine / .2) among all other groups, by rows and by columns."""
    network, batch = Cosines(), batch_of()
    cosines = network.compared_images(batch.images) @ network.compared_audio(batch.sounds).T
    terms = []
    for matrix in (cosines.tolist(), cosines.T.tolist()):
        for row, own in enumerate(batch.groups.tolist()):
            others = [c for c, group in enumerate(batch.groups.tolist()) if group != own or c == row]
            total = sum(math.exp(matrix[row][c] / 0.2) for c in others)
            terms.append(-math.log(math.exp(matrix[row][row] / 0.2) / total))
    loss, right = CONTRASTIVE.loss(network, batch, shared=True)
    assert loss.item() == pytest.approx(sum(terms) / 16, rel=1e-5)
    own = cosines.diagonal() > 0
    others = cosines[range(8), [*range(1, 8), 0]] <= 0
    assert right.item() == pytest.approx(torch.cat([own, others]).float().mean().item())


def test_the_learned_temperature_is_the_scale_of_the_log_odds():
    network, batch = Cosines(), batch_of()
    learned, _ = build_objective("contrastive", temperature="learned").loss(network, batch, shared=True)
    fixed, _ = build_objective("contrastive", temperature=0.5).loss(network, batch, shared=True)
    assert learned.item() == pytest.approx(fixed.item())
    learned.backward()
    assert network.scale.grad.item() != 0


def test_the_last_layer_alone_learns_the_calibration():
    """The scale gets the gradient of the pairs' cross-entropy; embeddings get that of InfoNCE alone."""
    network, batch = Cosines(), batch_of()
    CONTRASTIVE.loss(network, batch, shared=True)[0].backward()
    cosines = (network.compared_images(batch.images) @ network.compared_audio(batch.sounds).T).detach()
    values = cosines[batch.image_index, batch.audio_index]
    expected = ((torch.sigmoid(2 * values) - batch.is_match) * values).mean()
    assert network.scale.grad.item() == pytest.approx(expected.item(), rel=1e-4)
    other = Cosines()
    other.scale.requires_grad_(False).fill_(0.1)  # another calibration
    CONTRASTIVE.loss(other, batch, shared=True)[0].backward()
    torch.testing.assert_close(other.image.weight.grad, network.image.weight.grad)


def test_the_own_sound_at_another_time_is_a_further_negative_of_the_image():
    """Clips 2 and 5 have a shifted sound (8 and 9); clip 3's further sound (10) is another group's, and no negative."""
    network, batch = Cosines(), batch_of()
    further = torch.randn(3, 7, generator=torch.Generator().manual_seed(3))
    others = torch.tensor([1, 2, 8, 10, 5, 9, 7, 0])
    groups = torch.cat([batch.groups, torch.tensor([2, 4, 9])])
    index = torch.cat([torch.arange(8), others])
    more = batch._replace(sounds=torch.cat([batch.sounds, further]), audio_index=index, groups=groups)
    cosines = network.compared_images(batch.images) @ network.compared_audio(more.sounds).T
    allowed = batch.groups[:, None] != batch.groups
    allowed.fill_diagonal_(True)
    total = 0.0
    for clip in range(8):
        row = [cosines[clip, other].item() for other in range(8) if allowed[clip, other]]
        row += [cosines[clip, others[clip]].item()] if clip in (2, 5) else []
        column = [cosines[other, clip].item() for other in range(8) if allowed[clip, other]]
        for values in (row, column):
            total -= math.log(math.exp(cosines[clip, clip].item() / 0.2) / sum(math.exp(v / 0.2) for v in values))
    loss, _ = CONTRASTIVE.loss(network, more, shared=True)
    assert loss.item() == pytest.approx(total / 16, rel=1e-5)
    loss.backward()
    assert all(torch.isfinite(weights.grad).all() for weights in network.parameters())


def with_queue():
    """The contrastive objective with a queue of 6 clips, which holds those of a batch before: groups 0 and 6 to 8."""
    objective = build_objective("contrastive", temperature=0.2, queue=6)
    features = torch.nn.functional.normalize(torch.randn(2, 6, 5, generator=torch.Generator().manual_seed(2)), dim=2)
    objective.restore({"images": features[0], "sounds": features[1], "groups": torch.tensor([0, 6, 6, 7, 8, 0])})
    return objective


def test_earlier_clips_of_the_queue_are_negatives_of_other_groups():
    """As above, with the 6 clips of the queue behind the 8 of the batch; 0 is a group of both."""
    network, batch, objective = Cosines(), batch_of(), with_queue()
    queued = objective.state()
    images, sounds = network.compared_images(batch.images), network.compared_audio(batch.sounds)
    groups = [*batch.groups.tolist(), *queued["groups"].tolist()]
    terms = []
    for own, others in ((images, (sounds, queued["sounds"])), (sounds, (images, queued["images"]))):
        matrix = (own @ torch.cat(others).T).tolist()
        for row in range(8):
            shares = [math.exp(matrix[row][c] / 0.2) for c in range(14) if groups[c] != groups[row] or c == row]
            terms.append(-math.log(math.exp(matrix[row][row] / 0.2) / sum(shares)))
    loss, _ = objective.loss(network, batch, shared=True)
    assert loss.item() == pytest.approx(sum(terms) / 16, rel=1e-5)
    kept = objective.state()  # the newest 6: the first of this batch
    torch.testing.assert_close(kept["images"], images[:6])
    assert kept["groups"].tolist() == batch.groups[:6].tolist() and not kept["sounds"].requires_grad
    objective.loss(network, batch, shared=False)  # validation leaves the queue alone
    assert torch.equal(objective.state()["images"], kept["images"])
    assert build_objective("contrastive", temperature=0.2).state() == {}
    assert objective.chance(["a", "a", "b", "c"], [False] * 4) is None


def test_a_random_guess_is_among_the_clips_of_other_groups_that_the_queue_holds():
    """The loss of a network whose features are all alike is that of a random guess: with an empty queue and a full one.

    The mismatched sound of clip 2 is its own at another time.
    """
    batch = batch_of()
    shifted = batch._replace(
        sounds=torch.cat([batch.sounds, batch.sounds[:1]]),
        groups=torch.cat([batch.groups, batch.groups[2:3]]),
        audio_index=torch.cat([torch.arange(8), torch.tensor([1, 2, 8, 4, 5, 6, 7, 0])]),
    )
    objective = build_objective("contrastive", temperature=0.2, queue=6)
    losses = []
    for _ in range(2):
        losses.append(objective.loss(Flat(), shifted, shared=True)[0].item())
        assert objective.last_chance.item() == pytest.approx(losses[-1], rel=1e-5)
    assert losses[0] < losses[1]


def test_chance_of_a_queue_is_that_of_the_steps(tmp_path):
    write_clips(tmp_path, [f"group_{number}" for number in range(40)])
    objective = build_objective("contrastive", temperature=0.2, queue=1000)
    task = CorrespondenceTask(Flat(), tmp_path, objective, CENTERED, Augmentation(), batch_size=16, seed=0)
    losses = [task.loss(batch)[0].item() for batch in task.batches(range(task.batches_per_epoch))]
    alarm = task.alarms([{"epoch": 1000, "train_loss": sum(losses) / len(losses)}])["stuck"]
    assert f"chance is {sum(losses) / len(losses):.4f}" in alarm


def test_a_checkpoint_keeps_the_queue(tmp_path):
    """A killed training would otherwise go on without negatives."""
    task = OneBatch(with_queue())
    plan = {"learning_rate": 1e-3, "weight_decay": 0.0, "grad_clip_norm": 5.0, "precision": "float32", "seed": 0}
    Trainer(task, Plan(epochs=1, **plan), tmp_path / "checkpoint").train("")
    resumed = OneBatch(build_objective("contrastive", temperature=0.2, queue=6))
    Trainer(resumed, Plan(epochs=2, **plan), tmp_path / "checkpoint")
    assert len(task.state()) == 3
    for name, values in task.state().items():
        assert torch.equal(resumed.state()[name], values)


class OneBatch:
    """A task of one batch."""

    batches_per_epoch = 1

    def __init__(self, objective) -> None:
        self.network, self.objective = Cosines(), objective
        self.state, self.restore = objective.state, objective.restore

    def batches(self, numbers):
        return (batch_of() for _ in numbers)

    def loss(self, batch):
        return self.objective.loss(self.network, batch, shared=True)


DISTRIBUTED = {"contrastive": with_queue, "clusters": lambda: CLUSTERS}


@pytest.mark.slow
@pytest.mark.parametrize("name", DISTRIBUTED)
def test_two_processes_have_the_loss_and_the_gradients_of_one(tmp_path, name):
    objective, batch = DISTRIBUTED[name](), batch_of()
    network = objective.trained(Cosines(), 0)
    # Within each half the mismatched sound is the next one of that half.
    index = torch.cat([torch.arange(8), torch.tensor([1, 2, 3, 0, 5, 6, 7, 4])])
    loss, right = objective.loss(network, batch._replace(audio_index=index), shared=True)
    loss.backward()
    run_torchrun(tmp_path / "shared.py", SHARED, tmp_path / "result.pt", name)
    actual = torch.load(tmp_path / "result.pt", weights_only=True)
    torch.testing.assert_close(actual.pop("values"), torch.stack([loss.detach(), right]))
    for part, weights in network.named_parameters():
        torch.testing.assert_close(actual[part], weights.grad, msg=part)


def test_a_random_guess_among_the_other_groups():
    """Of 4 clips, 2 of one group: these choose among 3 sounds, the others among 4."""
    expected = (2 * math.log(3) + 2 * math.log(4)) / 4
    assert CONTRASTIVE.chance(["a", "a", "b", "c"], [False] * 4) == pytest.approx(expected)
    # The first image has its own shifted sound as a fourth choice.
    shifted = (math.log(4) - math.log(3)) / 8
    assert CONTRASTIVE.chance(["a", "a", "b", "c"], [True, *[False] * 3]) == pytest.approx(expected + shifted)
    assert build_objective("match").chance(["a", "a"], [False] * 2) == pytest.approx(0.6931, abs=1e-4)


@pytest.mark.parametrize("name", ["ave", "avol"])
def test_similarities_of_all_pairs_give_the_scores_of_single_pairs(name):
    network = build(name).eval()
    images, sounds = pairs_for(network, 4)
    with torch.inference_mode():
        similarities = network.similarities(network.compared_images(images), network.compared_audio(sounds))
        numbers = torch.arange(4)
        scores = network(images, sounds, numbers.repeat_interleave(4), numbers.repeat(4)).reshape(4, 4)
        torch.testing.assert_close(network.log_odds(similarities), scores, atol=1e-4, rtol=1e-4)
        if name == "avol":  # the strongest position against every sound
            map_ = network.localization_map(images[:1], sounds[2:3])
            assert network.log_odds(similarities)[0, 2].item() == pytest.approx(map_.amax().item(), rel=1e-4)


@pytest.mark.parametrize("name", ["ave", "avol"])
def test_centered_features_do_not_coincide(name):
    network = build(name).eval()
    images, sounds = pairs_for(network, 8)
    network.fit_audio_scale(sounds)
    network.center_features(images, sounds)
    with torch.inference_mode():
        for features, head in ((network.compared_images(images), 0), (network.compared_audio(sounds), 1)):
            rows = features.flatten(0, -2)
            if name == "avol":
                torch.testing.assert_close(rows.mean(0), torch.zeros(rows.shape[1]), atol=1e-5, rtol=0)
            else:
                assert rows.mean(0).norm() < 0.5, head  # the mean of equal directions has length 1


@pytest.mark.parametrize("name", ["l3", "multisensory"])
def test_a_network_of_single_pairs_is_refused(name):
    network = build(name)
    images, sounds = pairs_for(network, 2)
    numbers = torch.arange(2)
    batch = Pairs(images, sounds, numbers, numbers, torch.ones(2), numbers)
    with pytest.raises(EarshotError, match=f"correspond.network={name} compares single pairs.*objective=match"):
        CONTRASTIVE.loss(network, batch, shared=True)


def test_a_batch_of_one_group_is_refused_by_name(tmp_path):
    names = [name for name in map(str, range(100)) if split_of(name) == "train"]
    write_clips(tmp_path, [names[0]] * 40 + [names[1]])
    task = CorrespondenceTask(Plain(), tmp_path, CONTRASTIVE, CENTERED, Augmentation(), batch_size=4, seed=0)
    with pytest.raises(EarshotError, match=f"all 2 clips of a batch are of the group '{names[0]}', expected two"):
        list(task.batches(range(task.batches_per_epoch)))


class Plain(nn.Module):
    """A network whose inputs fit write_clips."""

    image_size, frames, audio_samples, audio_rate, audio_channels = 32, 1, 4000, 4000, 1

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(1))


class Flat(Plain):
    """All features are alike."""

    def compared_images(self, images: Tensor) -> Tensor:
        return self.scale * torch.ones(len(images), 2)

    compared_audio = compared_images

    def similarities(self, images: Tensor, sounds: Tensor) -> Tensor:
        return images @ sounds.T

    def log_odds(self, similarities: Tensor) -> Tensor:
        return similarities


@pytest.mark.parametrize("name", ["ave", "avol", pytest.param("dual_encoder", marks=pytest.mark.slow)])
def test_eight_clips_are_overfitted(name):
    network = build(name, width=1 / 8, image_size=32, backbone="resnet18").train()
    images, sounds = pairs_for(network, 8)
    network.fit_audio_scale(sounds)
    CONTRASTIVE.prepare(network, images, sounds)
    own = torch.arange(8)
    is_match = torch.tensor([1.0, 0.0]).repeat_interleave(8)
    batch = Pairs(images, sounds, own.repeat(2), torch.cat([own, own.roll(-1)]), is_match, own)
    optimizer = torch.optim.Adam(network.parameters(), lr=3e-3)
    for _ in range(60):
        loss, right = CONTRASTIVE.loss(network, batch, shared=True)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss < 0.3 < math.log(8)
    if name != "avol":  # AVOL's similarities have no bounds, so its bias has a longer way to go
        assert right == 1


def test_collapsed_embeddings_raise_an_alarm(tmp_path):
    """With one embedding for all, the loss is that of a random guess."""
    write_clips(tmp_path, [f"group_{number}" for number in range(40)])
    task = CorrespondenceTask(Plain(), tmp_path, CONTRASTIVE, CENTERED, Augmentation(), batch_size=16, seed=0)
    next(task.batches(range(1)))
    row = {"epoch": 1000, "train_loss": math.log(8), "image_spread": 1e-6, "audio_spread": 0.5}
    with pytest.warns(UserWarning) as caught:
        task.watch([row])
    messages = [str(warning.message) for warning in caught]
    assert any("2.0794" in message and "chance is 2.0794" in message for message in messages)
    assert any("the embeddings of one modality have collapsed" in message for message in messages)
    expected = "collapsed after 4000 steps (image, spread 1.0e-06), expected 0.001 or more"
    assert task.alarms([row])["collapsed"].endswith(expected)  # for the closing line
    assert task.alarms([row | {"image_spread": 0.5, "train_loss": 1.0}]) == task.alarms([]) == {}


def test_a_training_that_resumes_after_its_last_step_keeps_its_alarms(tmp_path):
    class Blind(Plain):
        def forward(self, images, sounds, image_index, audio_index):
            return self.scale * torch.zeros(len(image_index))

        def embed_images(self, images):
            return torch.eye(len(images))

        embed_audio = embed_images

    write_clips(tmp_path, [f"group_{number}" for number in range(40)])
    match = build_objective("match")
    stuck = {"learning_rate": 0.0, "weight_decay": 0.0, "grad_clip_norm": 5.0, "precision": "float32", "seed": 0}
    alarms = []
    for _ in range(2):
        task = CorrespondenceTask(Blind(), tmp_path, match, CENTERED, Augmentation(), batch_size=8, seed=0)
        progress = Trainer(task, Plan(epochs=1, schedule="steps", **stuck), tmp_path / "checkpoint").train("")
        alarms.append(task.alarms([progress.history[-1] | {"epoch": 1000}]))
    assert "stuck" in alarms[0] and alarms[0] == alarms[1]


def test_balanced_labels_give_every_centroid_the_same_share():
    """By hand for two clips that both prefer the first centroid, by a factor of e^2 and of e.

    The balance divides out what they have in common; between them, the odds ratio of e stays. Labels with rows and
    columns of one are [[p, 1 - p], [1 - p, p]] with (p / (1 - p))^2 = e.
    """
    share = 1 / (1 + math.exp(-0.5))
    labels = balanced(torch.tensor([[0.1, 0.0], [0.05, 0.0]]))
    torch.testing.assert_close(labels, torch.tensor([[share, 1 - share], [1 - share, share]]), atol=1e-3, rtol=0)
    drawn = torch.rand(64, 8, generator=torch.Generator().manual_seed(0)) * 0.2 + torch.arange(8) * 0.1
    labels = balanced(drawn)
    torch.testing.assert_close(labels.sum(1), torch.ones(64))
    assert labels.sum(0) == pytest.approx([8.0] * 8, rel=0.1)
    assert torch.bincount(drawn.argmax(1), minlength=8).max() > 32  # without balance


def scaled_rows(features: torch.Tensor) -> torch.Tensor:
    """Each unit with mean 0 and variance 1, and each row with length 1."""
    rows = (features - features.mean(0)) / features.std(0, correction=0)
    return rows / rows.norm(dim=1, keepdim=True)


@pytest.mark.parametrize("labels_from", ["both", "other"])
def test_labels_come_from_both_modalities_or_from_the_other(labels_from):
    network, batch = Cosines(), batch_of()
    objective = build_objective("clusters", centroids=6, labels_from=labels_from, balance="none")
    clustered = objective.trained(network, 0)
    by_image, by_audio = (
        (scaled_rows(features.detach()) @ clustered.centroids.detach().T).tolist()
        for features in (network.compared_images(batch.images), network.compared_audio(batch.sounds))
    )
    terms = []
    for image, sound in zip(by_image, by_audio, strict=True):
        both = [first + second for first, second in zip(image, sound, strict=True)]
        labels = (both, both) if labels_from == "both" else (sound, image)
        for row, other in zip((image, sound), labels, strict=True):
            total = sum(math.exp(value / 0.1) for value in row)
            terms.append(-math.log(math.exp(row[other.index(max(other))] / 0.1) / total))
    loss, _ = objective.loss(clustered, batch, shared=False)
    assert loss.item() == pytest.approx(sum(terms) / 16, rel=1e-3)
    assert objective.chance(["a"], [False]) == pytest.approx(math.log(6))


def test_features_that_nearly_coincide_have_clusters():
    network = CLUSTERS.trained(Cosines(), 0)
    rows = torch.randn(64, 5, generator=torch.Generator().manual_seed(3))
    near = torch.ones(5) + 1e-3 * rows
    assert len(network.cosines(near, shared=False).argmax(1).unique()) == 6
    torch.testing.assert_close(
        network.cosines(near, shared=False), network.cosines(rows, shared=False), atol=1e-3, rtol=0
    )


def test_each_process_takes_its_part_of_labels_that_are_balanced_over_all(monkeypatch):
    cosines = torch.rand(8, 6, generator=torch.Generator().manual_seed(2))
    together = CLUSTERS.labels(cosines, shared=True)
    monkeypatch.setattr("earshot.training.distributed.gather", lambda rows: cosines)
    for rank, part in enumerate((slice(0, 4), slice(4, 8))):
        monkeypatch.setattr("earshot.training.distributed.rank", lambda rank=rank: rank)
        torch.testing.assert_close(CLUSTERS.labels(cosines[part], shared=True), together[part])


def test_clusters_are_learned_and_no_cluster_takes_all():
    network, batch = CLUSTERS.trained(Cosines(), 0), batch_of()
    before = network.centroids.detach().clone()
    optimizer = torch.optim.Adam(network.parameters(), lr=0.03)
    for _ in range(150):
        loss, _ = CLUSTERS.loss(network, batch, shared=False)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss < 0.9 < CLUSTERS.chance([], []) / 1.5
    with torch.no_grad():
        labels = CLUSTERS.labels(
            network.cosines(network.encoder.compared_audio(batch.sounds), shared=False), shared=False
        )
    assert len(labels.argmax(1).unique()) > 2
    assert torch.nn.functional.cosine_similarity(before, network.centroids).min() < 0.99


def test_centroids_depend_on_the_seed_alone():
    first, again, other = (CLUSTERS.trained(Cosines(), seed).centroids for seed in (0, 0, 1))
    assert torch.equal(first, again) and not torch.equal(first, other)
    assert torch.allclose(first.norm(dim=1), torch.ones(6))


@pytest.mark.parametrize("name", ["ave", "avol"])
def test_networks_of_two_towers_have_clusters(name):
    network = build(name, width=1 / 16, image_size=32).train()
    images, sounds = pairs_for(network, 4)
    network.fit_audio_scale(sounds)
    CLUSTERS.prepare(network, images, sounds)
    own = torch.arange(4)
    batch = Pairs(images, sounds, own.repeat(2), torch.cat([own, own.roll(-1)]), own.repeat(2).sign().float(), own)
    loss, right = CLUSTERS.loss(CLUSTERS.trained(network, 0), batch, shared=True)
    loss.backward()
    assert 0 < loss < 5 and 0 <= right <= 1
    weights = dict(network.named_parameters())
    for tower in ("image_tower", "audio_tower"):
        assert any(weights[key].grad.abs().sum() > 0 for key in weights if key.startswith(tower))
