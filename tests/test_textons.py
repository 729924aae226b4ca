"""Visual textons: the filters, the dictionary and the histograms of frames."""

from pathlib import Path

import numpy as np
import pytest
from labeled_scenes import striped_frame

from earshot.core.errors import EarshotError
from earshot.labels.textons import (
    RADIUS,
    STRIDE,
    Textons,
    filter_bank,
    filter_responses,
    fit_textons,
    load_textons,
    read_luma,
    save_textons,
)

FIT = {"iterations": 10, "restarts": 1, "seed": 0}


def stripes(angle: float, contrast: float = 0.4, phase: float = 0.0, height: int = 96, width: int = 120) -> np.ndarray:
    """Waves of 8 px across an angle (radians), around a mean of .5."""
    y, x = np.mgrid[:height, :width]
    wave = np.sin(2 * np.pi / 8 * (x * np.cos(angle) + y * np.sin(angle)) + phase)
    return (0.5 + contrast * wave).astype(np.float32)


def test_filters_have_no_mean_and_a_norm_of_one():
    bank = filter_bank()
    assert bank.shape == (37 * 37, 66)
    np.testing.assert_allclose(bank.sum(0), 0, atol=1e-5)
    np.testing.assert_allclose(np.abs(bank).sum(0), 1, atol=1e-5)


def test_pairs_are_even_and_odd_and_centers_are_bright():
    squares = filter_bank().T.reshape(66, 37, 37)
    turned = squares[:, ::-1, ::-1]
    pairs, around = slice(0, 64, 2), slice(64, None)
    np.testing.assert_allclose(turned[pairs], squares[pairs], atol=1e-7)
    np.testing.assert_allclose(turned[1:64:2], -squares[1:64:2], atol=1e-7)
    assert (squares[around, RADIUS, RADIUS] > 0).all()


def test_a_response_is_the_filter_laid_on_the_frame_by_webers_law():
    luma = np.random.default_rng(0).random((60, 70), dtype=np.float32)
    responses = filter_responses(luma)
    assert responses.shape == (20 * 24, 66) and responses.dtype == np.float32
    row, column = 8, 10  # of the grid, far from the edges
    y, x = row * STRIDE, column * STRIDE
    patch = luma[y - RADIUS : y + RADIUS + 1, x - RADIUS : x + RADIUS + 1]
    raw = (patch.reshape(-1, 1).astype(np.float64) * filter_bank()).sum(0)
    expected = raw * np.log(1 + np.linalg.norm(raw) / 0.03) / np.linalg.norm(raw)
    np.testing.assert_allclose(responses[row * 24 + column], expected, rtol=1e-3, atol=1e-5)


def test_the_filter_along_the_stripes_responds_most():
    for number in range(8):
        angle = np.pi * number / 8  # waves across this angle are stripes a quarter turn on
        pairs = filter_responses(stripes(angle))[:, :64].reshape(-1, 2, 2, 8, 2)  # (pixels, scale, length, angle, pair)
        energy = np.square(pairs).sum((0, 1, 2, 4))
        assert energy.argmax() == (number + 4) % 8


def test_a_flat_frame_has_no_responses_and_contrast_counts_less_than_pattern():
    np.testing.assert_allclose(filter_responses(np.full((50, 50), 0.7, dtype=np.float32)), 0, atol=1e-4)
    strong, weak, other = (filter_responses(s) for s in (stripes(0, 0.4), stripes(0, 0.2), stripes(1.57, 0.4)))
    assert np.linalg.norm(strong - weak) < 0.5 * np.linalg.norm(strong - other)


def test_histograms_distinguish_textures_whatever_their_phase_and_contrast():
    angles = (0.0, np.pi / 4, np.pi / 2)
    rng = np.random.default_rng(0)
    kinds = np.arange(18) % 3
    frames = [filter_responses(stripes(angles[k], rng.uniform(0.2, 0.5), rng.uniform(0, 6))) for k in kinds]
    textons = fit_textons(frames[:9], 24, **FIT)
    histograms = np.array([textons.histogram(frame) for frame in frames])
    np.testing.assert_allclose(histograms.sum(1), 1, rtol=1e-5)
    distances = np.abs(histograms[9:, None] - histograms[:9]).sum(2)  # of new frames to those of the dictionary
    np.testing.assert_array_equal(kinds[:9][distances.argmin(1)], kinds[9:])
    same = distances[kinds[9:, None] == kinds[:9]]
    assert same.max() < distances[kinds[9:, None] != kinds[:9]].min()


def test_a_histogram_counts_the_nearest_texton_of_every_pixel():
    rng = np.random.default_rng(0)
    pixels, textons = (rng.standard_normal((n, 66)).astype(np.float32) for n in (300, 10))
    nearest = np.linalg.norm(pixels[:, None] - textons, axis=2).argmin(1)
    np.testing.assert_allclose(Textons(textons).histogram(pixels), np.bincount(nearest, minlength=10) / 300)


def test_fewer_pixels_than_textons_are_refused_with_both_numbers():
    with pytest.raises(EarshotError, match="40 pixels of training frames are too few for 50 textons; .*label.textons"):
        fit_textons(np.zeros((2, 20, 66), np.float32), 50, **FIT)


def test_frames_of_every_size_are_scaled_to_a_short_side_of_128():
    rng = np.random.default_rng(0)
    for height, width, shape in ((72, 96, (128, 171)), (300, 150, (256, 128)), (128, 128, (128, 128))):
        luma = read_luma(striped_frame(0, rng, height, width))
        assert luma.shape == shape and luma.dtype == np.float32
        assert 0 <= luma.min() < 0.5 < luma.max() <= 1


@pytest.mark.parametrize("damaged", [b"", b"no image", "half"])
def test_a_damaged_frame_is_refused(damaged):
    whole = striped_frame(0, np.random.default_rng(0))
    with pytest.raises(EarshotError, match="not a complete JPEG image"):
        read_luma(whole[: len(whole) // 2] if damaged == "half" else damaged)


def test_a_dictionary_comes_back_from_disk_and_a_damaged_one_is_refused(tmp_path: Path):
    textons = Textons(np.random.default_rng(0).standard_normal((12, 66)).astype(np.float32))
    save_textons(tmp_path, textons)
    np.testing.assert_array_equal(load_textons(tmp_path).textons, textons.textons)
    for wrong, message in (
        (np.zeros((12, 60), np.float32), r"textons is float32 \(12, 60\), expected float32 \(any number, 66\)"),
        (np.zeros((12, 66)), "textons is float64"),
        (np.full((12, 66), np.nan, np.float32), "not finite"),
    ):
        save_textons(tmp_path, Textons(wrong))
        with pytest.raises(EarshotError, match=message):
            load_textons(tmp_path)
    (tmp_path / "textons.safetensors").write_bytes(b"not tensors")
    with pytest.raises(EarshotError, match="not a whole safetensors file"):
        load_textons(tmp_path)
    (tmp_path / "textons.safetensors").unlink()
    with pytest.raises(EarshotError, match="the stage label writes it"):
        load_textons(tmp_path)
