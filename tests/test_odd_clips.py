"""Clips as editors and recorders leave them: still tails, dropped frames, joined parts, interlaced images."""

from pathlib import Path

import numpy as np
import pytest
from odd_media import DAWN, LOSSLESS, MP4, beeping, decode, ffmpeg, flashing, images, render, samples

from earshot.corpus.ledger import Refusal

EVERY_FRAME = tuple((i + 0.5) / 125 for i in range(125))
TONE = "sine=440:r=44100:d=8"
SHORT_DAWN = DAWN.replace("d=5", "d=2")
IMAGE = "testsrc2=s=64x48:r=25:d=0.04"
AVI = ("-c:v", "mpeg4", "-c:a", "libmp3lame")
MPEG2 = ("-c:v", "mpeg2video", "-c:a", "mp2")


def refusal(path: Path) -> Refusal:
    with pytest.raises(Refusal) as caught:
        decode(path)
    return caught.value


def brightness(path: Path, **changes: object) -> tuple[np.ndarray, np.ndarray]:
    """The times of the frames and the times that the brightness of `DAWN` in them gives, s."""
    decoded = decode(path, **changes)
    return np.array(decoded.times), (images(decoded).mean(axis=(1, 2, 3)) / 255 * 219 + 16) / 40


# Still images.

STILL = {
    "the image ends": (SHORT_DAWN, ()),
    "frames cloned, then dropped": (
        f"{SHORT_DAWN},tpad=stop_mode=clone:stop_duration=6,mpdecimate",
        ("-fps_mode", "vfr"),
    ),
    "a rate of one image a second": (SHORT_DAWN.replace("r=25", "r=1"), ()),
    "the last image of a slide show": (f"{SHORT_DAWN},select='not(mod(n,25))'", ("-fps_mode", "vfr")),
}


@pytest.mark.parametrize("suffix", ["mp4", "mkv"])
@pytest.mark.parametrize("kind", STILL)
def test_the_last_image_stands_until_the_sound_ends(tmp_path, kind, suffix):
    image, options = STILL[kind]
    codecs = MP4 if suffix == "mp4" else LOSSLESS
    decoded = decode(render(tmp_path / f"a.{suffix}", *codecs, *options, image=image, sound=TONE), sequence_rate=1.0,
                     sequence_size=32)  # fmt: skip
    assert decoded.duration == pytest.approx(8, abs=0.05) and len(decoded.sequence) in (7, 8)
    assert len(samples(decoded)) == pytest.approx(8 * 44100, abs=2000)
    times, frames = decoded.times, images(decoded)
    assert times == sorted(times)
    assert times[3:] == pytest.approx([0.5 + 7 * (i + 0.5) / 8 for i in range(3, 8)], abs=0.05)  # each its own sound
    assert np.abs(frames[3:] - frames[-1]).max() == 0
    assert np.abs(frames[0] - frames[-1]).mean() > 5


@pytest.mark.parametrize("suffix", ["mp4", "mkv", "avi", "ts"])
def test_one_image_with_sound_is_a_still_clip(tmp_path, suffix):
    codecs = {"mkv": LOSSLESS, "avi": AVI}.get(suffix, MP4)
    decoded = decode(render(tmp_path / f"a.{suffix}", *codecs, image=IMAGE, sound=TONE))
    assert decoded.duration == pytest.approx(8, abs=0.1) and decoded.measured.change == 0
    assert np.diff(decoded.times) == pytest.approx(7 / 8, abs=0.05)


def test_a_looped_photograph_is_a_still_clip(tmp_path):
    render(tmp_path / "a.png", "-frames:v", 1, image=IMAGE, sound=None)
    ffmpeg("-loop", 1, "-r", 1, "-i", tmp_path / "a.png", "-f", "lavfi", "-i", TONE, *MP4, "-shortest",
           tmp_path / "a.mp4")  # fmt: skip
    decoded = decode(tmp_path / "a.mp4")
    assert decoded.duration == pytest.approx(8, abs=0.1) and decoded.measured.change < 10  # of compression


@pytest.mark.parametrize(("sound_s", "duration"), [(4.0, 4.0), (5.0, 5.0), (5.9, 5.0), (6.1, 6.1), (9.0, 9.0)])
def test_a_clip_ends_with_its_sound_and_a_tail_of_rounding_is_cut_off(tmp_path, sound_s, duration):
    sound = f"sine=440:r=44100:d={sound_s}"
    path = render(tmp_path / "a.mkv", *LOSSLESS, image=DAWN, sound=sound)
    assert decode(path).duration == pytest.approx(duration, abs=0.02)


@pytest.mark.parametrize("suffix", ["mp4", "mkv", "avi"])
@pytest.mark.parametrize("seconds", [2, 5, 10])
def test_each_moment_of_a_slide_has_a_sound_of_its_own(tmp_path, seconds, suffix):
    codecs = {"mp4": MP4, "mkv": LOSSLESS, "avi": AVI}[suffix]
    image = DAWN.replace("d=5", "d=20").replace("40*T", f"10*floor(T/{seconds})*{seconds}")
    path = tmp_path / f"a.{suffix}"
    render(path, *codecs, "-vf", f"select='not(mod(n,{25 * seconds}))'", "-fps_mode", "vfr", image=image,
           sound=TONE.replace("d=8", "d=20"))  # fmt: skip
    decoded = decode(path)
    requested = [0.5 + 19 * (i + 0.5) / 8 for i in range(8)]
    assert np.abs(np.array(decoded.times) - requested).max() < 1.05  # at most STILL and a frame earlier
    assert np.diff(decoded.times).min() > 1
    slide = np.floor(np.array(requested) / seconds) * seconds
    bright = (images(decoded).mean(axis=(1, 2, 3)) / 255 * 219 + 16) / 10
    assert np.abs(bright - np.maximum(slide, 1.6)).max() < 0.5  # and the image that is displayed then


def test_a_video_of_one_image_a_second_keeps_the_times_of_its_images(tmp_path):
    image = DAWN.replace("r=25", "r=1")
    times = np.array(decode(render(tmp_path / "a.mkv", *LOSSLESS, image=image), window_s=0.1).times)
    assert np.abs(times[(times > 0.5) & (times < 4)] % 1).max() < 1e-6


# Dropped frames.


@pytest.mark.parametrize(
    "dropped", ["lt(mod(n,25),5)", "not(mod(n,4))", "lt(n,50)+gt(n,70)", "not(mod(n*n,11))", "not(eq(n,60))"]
)
def test_an_avi_with_dropped_frames_is_whole(tmp_path, dropped):
    path = render(tmp_path / "a.avi", *AVI, "-vf", f"select='{dropped}'", "-fps_mode", "vfr", image=DAWN)
    times, bright = brightness(path)
    assert decode(path).duration == pytest.approx(5, abs=0.8)  # a tail below a second is cut off
    inner = (times > 0.6) & (times < 4.4)
    assert np.abs(bright - times)[inner].max() < 0.2


@pytest.mark.parametrize("share", [0.3, 0.5, 0.7])
def test_an_avi_with_dropped_frames_that_is_cut_off_is_unreadable(tmp_path, share):
    select = ("-vf", "select='lt(mod(n,25),5)'", "-fps_mode", "vfr")
    whole = render(tmp_path / "a.avi", *AVI, *select, image=DAWN).read_bytes()
    (tmp_path / "b.avi").write_bytes(whole[: int(len(whole) * share)])
    assert refusal(tmp_path / "b.avi").reason == "unreadable"


# Joined parts.

PARTS = {
    "ts": (*MP4, "-bf", "2", "-g", "25"),
    "mpeg2.ts": MPEG2,
    "mpg": MPEG2,
}


@pytest.mark.parametrize(
    ("suffix", "clock"), [*((suffix, "restarts") for suffix in PARTS), ("ts", "goes on"), ("mpeg2.ts", "goes on")]
)
def test_joined_parts_are_one_clip_in_step(tmp_path, suffix, clock):
    parts = []
    for number, at in enumerate((2.4, 1.4, 3.2)):
        shift = ("-output_ts_offset", 5 * number) if clock == "goes on" else ()
        options = (*PARTS[suffix], *shift)
        parts.append(render(tmp_path / f"{number}.{suffix}", *options, image=flashing(at), sound=beeping(at)))
    joined = tmp_path / f"all.{suffix}"
    joined.write_bytes(b"".join(part.read_bytes() for part in parts))
    decoded = decode(joined, places=tuple((i + 0.5) / 375 for i in range(375)), window_s=0.01)
    assert decoded.duration == pytest.approx(15, abs=0.2)
    bright = images(decoded).mean(axis=(1, 2, 3)) > 128
    loud = np.abs(samples(decoded).astype(float)).max(axis=1) > 2000
    times = np.array(decoded.times)
    for number, at in enumerate((2.4, 1.4, 3.2)):
        inside = (times > 5 * number + 0.3) & (times < 5 * number + 4.7)
        flash = times[inside & bright][0]
        loud_times = np.flatnonzero(loud) / decoded.audio_rate
        beep = loud_times[(loud_times > 5 * number + 0.3) & (loud_times < 5 * number + 4.7)][0]
        assert abs(flash - beep) < 2.5 / 25 and abs(flash - 5 * number - at) < 0.2


def test_a_transport_stream_that_lost_packets_within_a_group_of_images_is_unreadable(tmp_path):
    whole = render(tmp_path / "a.ts", *MP4, "-g", "250", image="testsrc2=s=64x48:r=25:d=5").read_bytes()
    middle = 188 * (len(whole) // 376)
    refused = 0
    for lost in (1, 5, 20):
        (tmp_path / "b.ts").write_bytes(whole[:middle] + whole[middle + 188 * lost :])
        refused += refusal(tmp_path / "b.ts").reason == "unreadable"
    (tmp_path / "b.ts").write_bytes(whole[:middle] + whole)  # the first part is cut off
    refused += refusal(tmp_path / "b.ts").reason == "unreadable"
    assert refused == 4


def test_parts_without_the_sound_of_the_others_are_refused_not_put_out_of_step(tmp_path):
    whole = render(tmp_path / "a.mpg", *MPEG2, image=DAWN)
    ffmpeg("-i", whole, "-an", "-c", "copy", tmp_path / "mute.mpg")
    joined = tmp_path / "b.mpg"
    joined.write_bytes(whole.read_bytes() + (tmp_path / "mute.mpg").read_bytes())
    actual = refusal(joined)
    assert actual.reason == "unreadable" and "start again 1 and 0 times" in actual.detail


# Interlaced images.

MOVING = "color=black:s=128x96:r=50:d=5,geq=lum='if(between(mod(X-6*N,128),0,23),235,16)':cb=128:cr=128"
INTERLACED = ("-flags", "+ildct+ilme")
FIELDS = {
    "mpg": (*MPEG2, *INTERLACED),
    "ts": (*MPEG2, *INTERLACED),
    "mkv": ("-c:v", "libx264", "-crf", "10", "-pix_fmt", "yuv420p", *INTERLACED, "-x264opts", "tff=1", "-c:a", "aac"),
    "bottom.mkv": ("-c:v", "libx264", "-crf", "10", "-pix_fmt", "yuv420p", *INTERLACED, "-x264opts", "bff=1",
                   "-c:a", "aac"),
}  # fmt: skip


def combing(frames: np.ndarray) -> float:
    """The mean difference of neighboring lines, gray levels: the bar is as tall as the image, so none without combs."""
    return float(np.abs(np.diff(frames, axis=1)).mean())


@pytest.mark.parametrize("suffix", FIELDS)
def test_an_interlaced_image_is_not_combed(tmp_path, suffix):
    order = "interleave_bottom" if "bottom" in suffix else "interleave_top"
    path = tmp_path / f"a.{suffix}"
    render(path, *FIELDS[suffix], "-vf", f"tinterlace={order}", "-b:v", "8M", image=MOVING)
    frames = images(decode(path, frame_size=96))
    assert frames.shape[1:] == (96, 128, 3)
    assert combing(frames) < 3
    bar = (frames.mean(axis=(1, 3)) > 128).sum(axis=1)
    assert np.abs(bar - 24).max() <= 2  # neither doubled nor smeared


def test_a_progressive_image_keeps_all_its_lines(tmp_path):
    lines = "color=black:s=64x48:r=25:d=5,geq=lum='if(mod(Y,2),235,16)':cb=128:cr=128"
    path = render(tmp_path / "a.mkv", *LOSSLESS, image=lines)
    assert combing(images(decode(path))) > 150


@pytest.mark.parametrize("size", ["64x47", "66x50"])
def test_interlaced_images_of_odd_sizes_decode(tmp_path, size):
    path = render(tmp_path / "a.mpg", *MPEG2, *INTERLACED, image=f"testsrc2=s={size}:r=25:d=5")
    assert len(images(decode(path))) == 8
