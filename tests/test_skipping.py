"""Decoding only the needed images gives the bytes that decoding all of them gives."""

from dataclasses import asdict, replace
from pathlib import Path

import av
import pytest
from odd_media import MP4, OPTIONS, PATTERN, decode, ffmpeg, render

from earshot.corpus.ledger import Refusal
from earshot.media import decoding
from earshot.media.decoding import decode_clip
from earshot.media.skipping import plan

AAC = ("-c:a", "aac")
X264 = ("-c:v", "libx264", "-pix_fmt", "yuv420p", *AAC, "-bf", "3", "-x264-params")
X265 = ("-c:v", "libx265", "-preset", "ultrafast", "-pix_fmt", "yuv420p", *AAC, "-x265-params")
VARIABLE = f"{PATTERN},select='not(mod(n,3))+lt(n,40)'"
# Name and options of each stream that a plan can thin out.
THINNED = {
    "pyramid.mp4": (*X264, "b-adapt=0:b-pyramid=normal:keyint=12:scenecut=0"),
    "pyramid.mkv": (*X264, "b-adapt=0:b-pyramid=normal:keyint=50"),
    "pyramid.ts": (*X264, "b-adapt=0:b-pyramid=normal:keyint=12"),
    "open.mp4": (*X264, "b-adapt=0:open-gop=1:keyint=12:min-keyint=12:scenecut=0"),
    "open.mkv": (*X264, "b-adapt=0:open-gop=1:keyint=12:min-keyint=12:scenecut=0"),
    "refresh.mkv": (*X264, "intra-refresh=1:keyint=12"),
    "fields.mp4": (*X264, "interlaced=1:keyint=12"),
    "variable.mp4": ("-fps_mode", "vfr", *X264, "b-adapt=0:keyint=12"),
    "intra.mp4": (*X264, "keyint=1"),
    "hevc.mp4": (*X265, "keyint=12:min-keyint=12:open-gop=0:bframes=3:b-adapt=0:b-pyramid=1:log-level=none"),
    "hevc-open.mkv": (*X265, "keyint=12:min-keyint=12:open-gop=1:bframes=3:b-adapt=0:log-level=none"),
    "hevc-layers.mp4": (*X265, "keyint=24:temporal-layers=3:bframes=3:b-adapt=0:log-level=none"),
    "mpeg4.mp4": ("-c:v", "mpeg4", "-bf", "2", *AAC),
    "mpeg4-closed.avi": ("-c:v", "mpeg4", "-g", "12", "-flags", "cgop", "-sc_threshold", "1000000000", *AAC),
    "mpeg4-p.mp4": ("-c:v", "mpeg4", "-g", "10", *AAC),
    "mpeg2.mpg": ("-c:v", "mpeg2video", "-bf", "2", "-c:a", "mp2"),
    "mpeg2.mkv": ("-c:v", "mpeg2video", "-bf", "2", "-g", "12", "-c:a", "mp2"),
    "vp9.webm": ("-c:v", "libvpx-vp9", "-deadline", "realtime", "-g", "12", "-c:a", "libopus"),
    "vp9-hidden.webm": (
        *("-c:v", "libvpx-vp9", "-deadline", "good", "-cpu-used", "5", "-auto-alt-ref", "1", "-lag-in-frames", "16"),
        *("-g", "30", "-c:a", "libopus"),
    ),
    "vp9-444.webm": (
        "-c:v",
        "libvpx-vp9",
        "-pix_fmt",
        "yuv444p10",
        "-deadline",
        "realtime",
        "-g",
        "12",
        "-c:a",
        "libopus",
    ),
    "av1.mkv": ("-c:v", "libaom-av1", "-cpu-used", "8", "-usage", "realtime", "-g", "12", "-c:a", "libopus"),
    "av1-hidden.mp4": ("-c:v", "libaom-av1", "-cpu-used", "8", "-lag-in-frames", "19", "-g", "30", *AAC),
}
WHOLE = {"vp8.webm": ("-c:v", "libvpx", "-deadline", "realtime", "-g", "12", "-c:a", "libopus")}


def both(path: Path, **changes: object) -> tuple[dict, dict]:
    """The results of decoding all images and of decoding the needed ones."""
    all_images, needed = (decode(path, all_images=every, **changes) for every in (True, False))
    return asdict(all_images), asdict(needed)


def thin(path: Path, moments: int) -> tuple[int, int]:
    """How many frames come when the needed images are decoded, and when all are."""
    counts = []
    for every in (False, True):
        with av.open(str(path)) as container:
            video = container.streams.video[0]
            packets = [packet for packet in container.demux(video) if packet.size]
            planned = plan(video, packets, [0.3 + 4 * moment / moments for moment in range(moments)])
            assert planned
            sent = packets if every else planned.decoded_by(video.codec_context)
            counts.append(sum(1 for _ in decoding.decode_packets(video.codec_context.decode, sent)))
    return counts[0], counts[1]


@pytest.mark.parametrize("name", THINNED | WHOLE)
def test_the_needed_images_are_those_of_all(tmp_path, name):
    image = VARIABLE if name.startswith("variable") else PATTERN
    path = render(tmp_path / name, *(THINNED | WHOLE)[name], image=image)
    for moments in (2, 11):
        places = tuple((moment + 0.37) / moments for moment in range(moments))
        all_images, needed = both(path, places=places, sequence_rate=1.0, sequence_size=32)
        assert needed == all_images
    if name in THINNED:
        few, every = thin(path, 2)
        assert few < every / 2


@pytest.mark.parametrize("start", [0.5, 1.7])
def test_an_edit_list_leaves_out_the_same_images(tmp_path, start):
    whole = render(tmp_path / "whole.mp4", *X264, "b-adapt=0:keyint=50")
    cut = tmp_path / "cut.mp4"
    ffmpeg("-ss", start, "-i", whole, "-c", "copy", cut)
    with av.open(str(cut)) as container:
        assert any(packet.is_discard for packet in container.demux(container.streams.video[0]))
    all_images, needed = both(cut)
    assert needed == all_images


def test_few_images_are_decoded(tmp_path):
    """Of 125 frames in groups of 12, where every group begins with I B B B P in the order of display."""
    path = render(tmp_path / "clip.mp4", *THINNED["pyramid.mp4"])
    few, every = thin(path, 2)
    assert every == 125
    assert few <= 2 * 12
    assert thin(path, 100)[0] > 75


def test_what_does_not_come_as_planned_is_decoded_whole(tmp_path, monkeypatch):
    path = render(tmp_path / "clip.mp4")
    with open(path, "rb") as file:
        expected = decode_clip(file, OPTIONS)
    plans = []

    def wrong(*arguments):
        plans.append(plan(*arguments))
        return replace(plans[-1], appears=[time + 0.04 for time in plans[-1].appears])

    monkeypatch.setattr(decoding, "plan", wrong)
    assert decode(path, all_images=False) == expected
    assert len(plans) == 1


def test_damage_of_an_image_that_is_needed_is_found_and_of_another_goes_unnoticed(tmp_path):
    path = render(tmp_path / "clip.mp4", *MP4[:4], "-g", "25", *MP4[4:])
    with av.open(str(path)) as container:
        packets = [packet for packet in container.demux(container.streams.video[0]) if packet.size]
    damaged = tmp_path / "damaged.mp4"
    moment = {"places": (0.5,)}

    def damage(packet: av.Packet) -> None:
        content = bytearray(path.read_bytes())
        content[packet.pos + 8 : packet.pos + packet.size] = b"\xff" * (packet.size - 8)
        damaged.write_bytes(content)

    # The third group of images lasts from 2 to 3 s. The last images that it must give are the moment at 2.5 s and a
    # thumbnail at 2.81 s, which is frame 70.
    damage(packets[74])
    assert decode(damaged, all_images=False, **moment) == decode(path, **moment)
    with pytest.raises(Refusal):
        decode(damaged, **moment)
    damage(packets[66])
    with pytest.raises(Refusal):
        decode(damaged, all_images=False, **moment)


FOLDERS = ("clips", "fixtures", "real/clips")  # of real material


@pytest.mark.slow
def test_real_clips_are_the_same(real_data):
    files = [file for folder in FOLDERS for file in sorted((real_data / folder).iterdir())]
    for file in files:
        results = []
        for every in (True, False):
            try:
                results.append(asdict(decode(file, frame_size=128, max_pixels=10**8, all_images=every)))
            except Refusal as refusal:
                results.append(refusal.args)
        assert results[0] == results[1], file
