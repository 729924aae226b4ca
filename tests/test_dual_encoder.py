"""A dual encoder compares any backbone's feature of an image with the sound; its files and errors are as others'."""

import pytest
import torch
from test_correspondence_networks import pairs_for

from earshot.core.errors import EarshotError
from earshot.networks.backbones import build_network
from earshot.networks.correspondence import build_correspondence
from earshot.networks.files import load_correspondence, load_encoder, save_architecture, save_weights


def build(backbone="resnet18", **changes):
    torch.manual_seed(0)
    return build_correspondence("dual_encoder", backbone=backbone, width=1 / 8, image_size=64, **changes)


@pytest.fixture(scope="module")
def resnet():
    return build().eval()


def test_the_image_tower_is_the_backbone_with_its_own_random_weights(resnet):
    """64 px at stride 32 are 2 x 2 positions of 512 channels; the embedding has 128 / 8 units."""
    images, sounds = pairs_for(resnet, 2)
    torch.manual_seed(0)
    alone = build_network("resnet18", classes=1, width=1, image_size=64, dropout=0.0).eval()
    with torch.inference_mode():
        assert resnet.image_maps(images).shape == (2, 512, 2, 2)
        expected = alone.features(images, ["fc7"])["fc7"]  # the mean over the positions, 512
        torch.testing.assert_close(resnet.pooled_images(images), expected)
        torch.testing.assert_close(resnet.features(images, ["fc7"])["fc7"], expected)
        embeddings = resnet.embed_images(images), resnet.embed_audio(sounds)
        assert [rows.shape for rows in embeddings] == [(2, 16), (2, 16)]
        distance = torch.linalg.vector_norm(embeddings[0] - embeddings[1], dim=1)
        torch.testing.assert_close(resnet(images, sounds), 2 * (2**0.5 - distance))  # AVE-Net's first last layer


def test_every_weight_learns(resnet):
    """Several processes could not train a weight without a gradient."""
    images, sounds = pairs_for(resnet, 2)
    resnet(images, sounds).sum().backward()
    assert all(values.grad is not None for values in resnet.parameters())
    resnet.zero_grad()


def test_the_map_of_a_mean_is_the_score_at_each_position(resnet):
    images, sounds = pairs_for(resnet, 1)
    with torch.inference_mode():
        scores = resnet.localization_map(images, sounds)
        position = resnet.image_head(resnet.image_maps(images)[:, :, 1, 0])
        position = position / position.norm()
        distance = torch.linalg.vector_norm(position - resnet.embed_audio(sounds))
        assert scores.shape == (1, 2, 2)
        assert scores[0, 1, 0].item() == pytest.approx((2 * (2**0.5 - distance)).item(), abs=1e-4)


def test_a_backbone_whose_feature_is_no_mean_has_no_map():
    network = build("alexnet").eval()
    with pytest.raises(EarshotError, match="dual_encoder has no localization map with the backbone alexnet"):
        network.localization_map(*pairs_for(network, 1))


@pytest.mark.parametrize(("backbone", "channels"), [("vit_b_16", 768), ("vgg11", 4096)])
def test_the_feature_is_the_input_of_the_output_layer(backbone, channels):
    with torch.device("meta"):
        network = build_correspondence("dual_encoder", backbone=backbone, width=1, image_size=224)
        assert network.image_head[0].in_features == channels
        network.image_tower.to("meta")
        assert network.embed_images(torch.zeros(2, 3, 224, 224, dtype=torch.uint8)).shape == (2, 128)


@pytest.mark.parametrize("backbone", ["resnet18", pytest.param("mnasnet0_5", marks=pytest.mark.slow)])
def test_its_files_restore_it(backbone, tmp_path):
    network = build(backbone).eval()
    save_architecture(tmp_path, network)
    save_weights(tmp_path, "encoder", network)
    inputs = pairs_for(network, 2)
    with torch.inference_mode():
        torch.testing.assert_close(load_correspondence(tmp_path)(*inputs), network(*inputs))
        rows = load_encoder(tmp_path).features(inputs[0], ["fc7"])["fc7"]
        torch.testing.assert_close(rows, network.features(inputs[0], ["fc7"])["fc7"])


def test_an_unknown_backbone_is_refused_by_the_name_of_its_parameter():
    with pytest.raises(EarshotError, match=r"correspond.backbone is 'resnet19', .* the nearest is resnet1"):
        build("resnet19")
