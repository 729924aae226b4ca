"""Pictures and sounds of exhibits: low is at the bottom, sounds keep their length and loudness, maps their places."""

import io
from itertools import pairwise

import numpy as np
import pytest
import soundfile
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from earshot.core.errors import EarshotError
from earshot.explanation.media import (
    cochleagram_png,
    graph_png,
    jpeg_of,
    mp3_of,
    read_image,
    smaller_jpeg,
    spectrogram_png,
    stretched,
    under_map,
)
from earshot.explanation.sampling import draw_evenly, draw_names
from earshot.networks.spectrogram import RATE, Spectrogram
from earshot.sound.cochlea import cochleagrams


def tone(frequency, seconds, rate, level=0.2):
    return (level * np.sin(2 * np.pi * frequency * np.arange(round(seconds * rate)) / rate)).astype(np.float32)


def light(data):
    """The brightness of a picture, (height, width)."""
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB"), float).mean(2)


def brightest_row(data):
    """Where the brightest row is, 0 at the bottom and 1 at the top."""
    rows = light(data).mean(1)
    return 1 - rows.argmax() / (len(rows) - 1)


def test_the_higher_a_tone_the_higher_it_stands_in_a_cochleagram():
    images = [cochleagram_png(cochleagrams(tone(hertz, 3.75, 20_000)[None])[0]) for hertz in (100, 1000, 8000)]
    assert [Image.open(io.BytesIO(data)).size for data in images] == [(375, 64)] * 3
    low, middle, high = map(brightest_row, images)
    assert low < 0.2 < middle < 0.8 < high


def test_the_higher_a_tone_the_higher_it_stands_in_a_spectrogram():
    for hertz in (300, 12_000, 23_000):
        spectrogram = Spectrogram()(torch.from_numpy(tone(hertz, 1, RATE))[None])[0, 0].numpy()
        data = spectrogram_png(spectrogram)
        assert Image.open(io.BytesIO(data)).size == (199, 257)
        assert brightest_row(data) == pytest.approx(hertz / 24_000, abs=0.01)


def test_silence_is_dark_and_what_is_louder_is_lighter():
    assert light(cochleagram_png(np.zeros((32, 1500), np.float32))).max() < 5
    ramp = light(graph_png(np.linspace(0, 1, 50)[None].repeat(3, axis=0)))[0]
    assert all(early <= late + 1 for early, late in pairwise(ramp)) and ramp[-1] > ramp[0] + 200


@pytest.mark.parametrize("rate", [8000, 22_050, 32_000, 44_100, 48_000])
def test_an_mp3_is_as_long_and_as_loud_as_its_sound(rate):
    sound = tone(440, 1.7, rate)
    data = mp3_of(sound, rate)
    decoded, audio_rate = soundfile.read(io.BytesIO(data))
    assert len(decoded) / audio_rate == pytest.approx(1.7, abs=0.002)
    # LAME takes 5 % off every sound, lest it clip.
    assert np.sqrt(np.mean(decoded[2000:-2000] ** 2)) == pytest.approx(0.95 * 0.2 / np.sqrt(2), rel=0.01)
    assert len(data) * 8 / 1.7 == pytest.approx(64_000, rel=0.1)
    assert mp3_of(sound, rate) == data


def test_a_small_image_stays_as_it_is_and_a_large_one_becomes_small():
    small, large = (jpeg_of(Image.new("RGB", size, "red"), 1000) for size in ((256, 100), (300, 600)))
    assert smaller_jpeg(small) is small
    assert read_image(smaller_jpeg(large)).size == (128, 256)
    with pytest.raises(EarshotError, match="a frame is not an image"):
        smaller_jpeg(b"nothing")


def test_an_image_is_hot_where_its_map_is_high_and_shows_where_it_is_low():
    heat = np.zeros((4, 8))
    heat[0, 6] = 1
    image = Image.new("RGB", (80, 60), (100, 100, 100))
    result = np.asarray(under_map(image, heat), float)
    row, column = np.unravel_index(result.sum(2).argmax(), (60, 80))
    assert row < 15 and 60 <= column < 70
    assert (result[30:, :40] == 70).all()  # the picture's grey at seven tenths of its light


def test_a_map_is_stretched_and_an_even_one_is_zero():
    np.testing.assert_allclose(stretched(np.array([[-3.0, 1], [0, 5]])), [[0, 0.5], [0.375, 1]])
    assert not stretched(np.full((2, 2), 3.0)).any()


@settings(deadline=None, max_examples=50)
@given(st.lists(st.sampled_from("abcd"), min_size=1, max_size=30), st.integers(0, 40), st.integers(0, 5))
def test_classes_take_turns_in_a_draw(classes, count, seed):
    drawn = draw_evenly(classes, count, seed)
    assert len(set(drawn)) == len(drawn) == min(count, len(classes))
    taken = {name: sum(classes[number] == name for number in drawn) for name in set(classes)}
    for name, times in taken.items():  # none is behind another, unless all of it is taken
        assert times >= max(taken.values()) - 1 or times == classes.count(name)
    assert drawn == draw_evenly(classes, len(classes), seed)[:count]


def test_a_draw_of_names_does_not_hang_on_their_order_and_is_a_part_of_a_larger_one():
    names = [f"clip_{number}" for number in range(100)]
    few, many = draw_names(names, 10, 0), draw_names(names[::-1], 20, 0)
    assert len(few) == 10 and few < many
    assert draw_names(names, 10, 1) != few
    assert draw_names(names[:5], 10, 0) == set(names[:5])
