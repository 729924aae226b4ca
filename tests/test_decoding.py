"""Decoding: of any video the images and the sound come out right and on one clock, or it is refused."""

import io
import os
import signal
import subprocess
import sys
import threading
import time
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from odd_decoder import odd
from odd_media import (
    BLEND,
    DAWN,
    FFMPEG,
    FLASH,
    FRAME_RATE,
    LOSSLESS,
    MP4,
    OPTIONS,
    SECONDS,
    TONE,
    beeping,
    decode,
    ffmpeg,
    flashing,
    images,
    render,
    samples,
)
from PIL import Image

from earshot.corpus.ledger import Refusal
from earshot.media.decoder_process import Decoder

EVERY_FRAME = tuple((i + 0.5) / (SECONDS * FRAME_RATE) for i in range(SECONDS * FRAME_RATE))
FORMATS = {
    "mp4": MP4,
    "mkv": LOSSLESS,
    "webm": ("-c:v", "libvpx", "-deadline", "realtime", "-c:a", "libopus"),
    "avi": ("-c:v", "mpeg4", "-c:a", "libmp3lame"),
    "mpg": ("-c:v", "mpeg2video", "-c:a", "mp2"),
    "ts": (*MP4, "-bf", "2"),
    "mov": ("-c:v", "mjpeg", "-c:a", "pcm_s24be"),
    "flv": ("-c:v", "flv", "-c:a", "libmp3lame", "-ar", "44100"),
    "wmv": ("-c:v", "wmv2", "-c:a", "wmav2"),
    "ogv": ("-c:v", "libtheora", "-c:a", "libvorbis"),
}


def flash_and_beep(path: Path) -> tuple[float, float]:
    """When the video turns white and when the sound begins, seconds on the clock of the clip."""
    decoded = decode(path, places=EVERY_FRAME, window_s=0.01)
    bright = images(decoded).mean(axis=(1, 2, 3)) > 128
    loud = np.abs(samples(decoded).astype(float)).max(axis=1) > 2000
    return decoded.times[int(np.argmax(bright))], np.argmax(loud) / decoded.audio_rate


def refusal(path: Path, **changes: object) -> str:
    with pytest.raises(Refusal) as caught:
        decode(path, **changes)
    return caught.value.reason


@pytest.mark.parametrize("suffix", FORMATS)
def test_flash_and_beep_coincide_in_every_format(tmp_path, suffix):
    path = render(tmp_path / f"a.{suffix}", *FORMATS[suffix], image=flashing(), sound=beeping())
    flash, beep = flash_and_beep(path)
    assert abs(flash - beep) < 1.5 / FRAME_RATE
    assert abs(flash - FLASH) < 0.15


@pytest.mark.parametrize("late", ["sound", "image"])
@pytest.mark.parametrize("suffix", ["mkv", "mp4"])
def test_flash_and_beep_coincide_where_one_of_them_starts_late(tmp_path, late, suffix):
    codecs = LOSSLESS if suffix == "mkv" else MP4
    times = {"sound": (FLASH, FLASH - 0.5), "image": (FLASH - 0.5, FLASH)}[late]
    whole = render(tmp_path / f"whole.{suffix}", *codecs, image=flashing(times[0]), sound=beeping(times[1]))
    path = tmp_path / f"late.{suffix}"
    maps = {"sound": ("0:v", "1:a"), "image": ("1:v", "0:a")}[late]
    inputs = ("-i", whole, "-itsoffset", 0.5, "-i", whole)
    ffmpeg(*inputs, "-map", maps[0], "-map", maps[1], "-c", "copy", path)
    decoded = decode(path)
    flash, beep = flash_and_beep(path)
    assert abs(flash - beep) < 1 / FRAME_RATE
    assert flash == pytest.approx(FLASH - 0.5, abs=0.05)  # a clip begins where both have begun
    assert decoded.duration == pytest.approx(SECONDS - 0.5, abs=0.05)


def test_sound_stays_in_step_after_a_gap(tmp_path):
    path = render(
        tmp_path / "a.mkv", *LOSSLESS, "-af", "aselect='not(between(t,0.5,1.5))'", image=flashing(), sound=beeping()
    )
    flash, beep = flash_and_beep(path)
    assert abs(flash - beep) < 1 / FRAME_RATE


def test_frames_carry_their_own_times_at_a_variable_rate(tmp_path):
    irregular = ("-vf", "select='lt(mod(n*n,11),4)'", "-fps_mode", "vfr")
    path = render(tmp_path / "a.mkv", *LOSSLESS, *irregular, image=DAWN)
    decoded = decode(path, places=EVERY_FRAME)
    read = (images(decoded).mean(axis=(1, 2, 3)) / 255 * 219) / 40  # from full range back to the rendered luma
    within = (np.array(decoded.times) > 0.6) & (np.array(decoded.times) < SECONDS - 0.6)
    assert len(set(decoded.times)) < SECONDS * FRAME_RATE / 2
    assert np.abs(read + 16 / 40 - np.array(decoded.times))[within].max() < 1 / FRAME_RATE


def test_a_sequence_is_on_the_clock_of_the_moments_and_changes_none_of_them(tmp_path):
    path = render(tmp_path / "a.mp4", image=flashing(), sound=beeping())
    plain, both = decode(path), decode(path, sequence_rate=6.0, sequence_size=32)
    assert plain.sequence == [] and both.frames == plain.frames and both.times == plain.times
    assert len(both.sequence) == int(both.duration * 6.0)
    bright = [np.asarray(Image.open(io.BytesIO(jpeg))).mean() > 128 for jpeg in both.sequence]
    assert bright.index(True) == np.ceil(FLASH * 6.0)  # frame i is the one displayed at i / rate
    assert min(Image.open(io.BytesIO(both.sequence[0])).size) == 32


def test_moments_lie_where_the_whole_window_fits(tmp_path):
    path = render(tmp_path / "a.mp4")
    times = decode(path, window_s=3.75, places=(0.0, 0.5, 0.999999)).times
    assert times == sorted(times)
    assert times[0] == pytest.approx(1.875) and times[-1] == pytest.approx(SECONDS - 1.875, abs=1 / FRAME_RATE)
    anywhere = decode(path, window_s=SECONDS + 1, places=(0.0, 0.999)).times
    assert anywhere[0] == 0 and anywhere[1] > SECONDS - 2 / FRAME_RATE


def test_a_frame_is_the_one_displayed_at_that_time(tmp_path):
    path = render(tmp_path / "a.mkv", *LOSSLESS, "-r", 2, image=DAWN)
    decoded = decode(path, places=(0.39,), window_s=1e-6)  # 1.95 s, when the frame of 1.5 s is displayed
    assert decoded.times == [1.5]


def coarse(image: np.ndarray) -> np.ndarray:
    """Means over squares of 8 pixels: a JPEG stores colors no finer than two pixels."""
    height, width, _ = image.shape
    return image.reshape(height // 8, 8, width // 8, 8, 3).mean(axis=(1, 3))


def ffmpeg_image(path: Path, width: int, height: int) -> np.ndarray:
    scale = f"scale={width}:{height}:flags=bicubic+full_chroma_int"
    raw = ("-frames:v", "1", "-f", "rawvideo", "-pix_fmt", "rgb24", "-")
    done = subprocess.run([FFMPEG, "-v", "error", "-i", path, "-vf", scale, *raw], check=True, capture_output=True)
    return np.frombuffer(done.stdout, np.uint8).reshape(height, width, 3).astype(float)


@pytest.mark.parametrize("matrix", [(0,), (90,), (180,), (270,), (0, "-display_hflip"), (90, "-display_hflip")])
def test_images_are_upright(tmp_path, matrix):
    render(tmp_path / "flat.mp4", image=BLEND)
    turn = ("-display_rotation", *matrix) if matrix != (0,) else ()
    ffmpeg(*turn, "-i", tmp_path / "flat.mp4", "-c", "copy", tmp_path / "turned.mp4")
    image = images(decode(tmp_path / "turned.mp4", places=(0.0,), window_s=100.0))[0]
    width, height = (48, 64) if matrix[0] in (90, 270) else (64, 48)
    assert image.shape == (height, width, 3)
    expected = ffmpeg_image(tmp_path / "turned.mp4", width, height)
    assert np.abs(coarse(image) - coarse(expected)).mean() < 3


@pytest.mark.parametrize(
    "codec",
    [
        ("-c:v", "libx264", "-pix_fmt", "yuv420p10le"),
        ("-c:v", "ffv1", "-pix_fmt", "yuv444p16le"),
        ("-c:v", "ffv1", "-pix_fmt", "gray"),
        ("-c:v", "ffv1", "-pix_fmt", "bgra"),
        ("-c:v", "png", "-pix_fmt", "pal8"),
        ("-c:v", "mjpeg", "-pix_fmt", "yuvj422p"),
        ("-c:v", "libx264", "-pix_fmt", "yuv420p", "-vf", "scale=out_color_matrix=bt709", "-colorspace", "bt709"),
    ],
    ids=lambda codec: f"{codec[1]}-{codec[-1]}",
)
def test_colors_come_through_any_pixel_format(tmp_path, codec):
    path = render(tmp_path / "a.mkv", *codec, "-c:a", "aac", image=BLEND)
    image = images(decode(path, places=(0.0,), window_s=100.0))[0]
    assert np.abs(coarse(image) - coarse(ffmpeg_image(path, 64, 48))).mean() < 3


def test_pixels_that_are_not_square_become_square(tmp_path):
    path = render(tmp_path / "a.mp4", *MP4, "-vf", "setsar=2")
    assert images(decode(path)).shape[1:] == (48, 128, 3)


def test_the_short_side_is_the_requested_one(tmp_path):
    path = render(tmp_path / "a.mp4", *MP4, "-vf", "scale=90:160,setsar=1")
    assert images(decode(path, frame_size=45)).shape[1:] == (80, 45, 3)


@pytest.mark.parametrize("rate", [8000, 11025, 96000])
def test_sound_keeps_its_rate(tmp_path, rate):
    path = render(tmp_path / "a.mkv", *LOSSLESS, "-ar", rate)
    decoded = decode(path)
    assert decoded.audio_rate == rate and len(samples(decoded)) == pytest.approx(rate * SECONDS, abs=rate / 10)


@pytest.mark.parametrize("codec", ["pcm_s16le", "flac"])
@pytest.mark.parametrize("channels", [1, 2])
def test_sixteen_bit_sound_comes_through_unchanged(tmp_path, codec, channels):
    noise = f"anoisesrc=r=22050:d={SECONDS}:seed=3,aformat=sample_fmts=s16"
    noise += ",asplit[a][b];[b]adelay=5[c];[a][c]amerge" if channels == 2 else ""
    path = render(tmp_path / "a.mkv", "-c:v", "ffv1", "-c:a", codec, sound=noise)
    ffmpeg("-i", path, "-f", "s16le", "-c:a", "pcm_s16le", tmp_path / "raw")
    raw = np.fromfile(tmp_path / "raw", np.int16).reshape(-1, channels)
    sound = samples(decode(path))
    assert sound.shape[1] == channels
    assert np.array_equal(sound, raw[: len(sound)])
    assert len(sound) > 22050 * (SECONDS - 0.1)


@pytest.mark.parametrize("sample_format", ["u8", "s32", "flt", "dbl"])
def test_sound_comes_through_any_sample_format(tmp_path, sample_format):
    codec = {"u8": "pcm_u8", "s32": "pcm_s32le", "flt": "pcm_f32le", "dbl": "pcm_f64le"}[sample_format]
    path = render(tmp_path / "a.mkv", "-c:v", "ffv1", "-c:a", codec)
    render(tmp_path / "b.mkv", "-c:v", "ffv1", "-c:a", "pcm_s16le")
    difference = samples(decode(path)).astype(float) - samples(decode(tmp_path / "b.mkv"))
    assert np.abs(difference).max() <= (256 if sample_format == "u8" else 1)


def test_sound_that_is_no_number_is_silent_and_infinite_sound_is_clipped(tmp_path):
    sound = "aevalsrc='if(lt(t,.5),.5,if(lt(t,1),0/0,if(lt(t,1.5),1/0,-1/0)))':s=8000:d=2"
    decoded = samples(decode(render(tmp_path / "a.mkv", "-c:v", "ffv1", "-c:a", "pcm_f32le", sound=sound)))[:, 0]
    halves = [set(decoded[start + 100 : start + 3900].tolist()) for start in range(0, 16000, 4000)]
    assert halves == [{16384}, {0}, {32767}, {-32768}]


def test_surround_sound_is_mixed_to_stereo_with_left_on_the_left(tmp_path):
    left = f"{TONE},pan=5.1|FL=c0|FR=0*c0|FC=0*c0|LFE=0*c0|BL=c0|BR=0*c0"
    decoded = decode(render(tmp_path / "a.mkv", "-c:v", "ffv1", "-c:a", "ac3", sound=left))
    loudness = np.abs(samples(decoded).astype(float)).mean(axis=0)
    assert decoded.audio_channels == 2 and loudness[0] > 20 * loudness[1] > 0 or loudness[1] == 0


def test_many_channels_of_an_unknown_layout_are_still_sound(tmp_path):
    many = f"{TONE},pan=12c|" + "|".join(f"c{i}=c0" for i in range(12))
    decoded = decode(render(tmp_path / "a.mkv", "-c:v", "ffv1", "-c:a", "pcm_s16le", sound=many))
    assert decoded.audio_channels in (1, 2) and np.abs(samples(decoded)).max() > 1000


def test_silent_sound_is_kept(tmp_path):
    silence = f"anullsrc=r=44100:cl=mono:d={SECONDS}"
    assert not samples(decode(render(tmp_path / "a.mp4", sound=silence))).any()


def test_what_is_missing_or_too_short_is_named(tmp_path):
    assert refusal(render(tmp_path / "mute.mp4", sound=None)) == "no-sound"
    assert refusal(render(tmp_path / "blind.mp4", image=None)) == "no-video"
    assert refusal(render(tmp_path / "blind.mp3", "-c:a", "libmp3lame", image=None)) == "no-video"
    brief = render(tmp_path / "brief.mp4", *MP4, "-af", "atrim=0:1.2")
    assert refusal(brief) == "too-short"
    assert refusal(render(tmp_path / "long.mp4"), max_duration_s=3.0) == "too-large"
    assert refusal(tmp_path / "long.mp4", max_pixels=64 * 48 - 1) == "too-large"


def test_cover_art_is_no_video(tmp_path):
    render(tmp_path / "song.mp3", "-c:a", "libmp3lame", image=None)
    render(tmp_path / "cover.png", "-frames:v", 1, sound=None)
    inputs = ("-i", tmp_path / "song.mp3", "-i", tmp_path / "cover.png")
    ffmpeg(*inputs, "-map", 0, "-map", 1, "-c:v", "png", "-disposition:v", "attached_pic", tmp_path / "with.mp3")
    assert refusal(tmp_path / "with.mp3") == "no-video"


@pytest.mark.parametrize("suffix", ["mp4", "mkv", "webm", "avi", "mov", "flv"])
def test_a_file_cut_off_in_the_middle_is_unreadable(tmp_path, suffix):
    faststart = ("-movflags", "+faststart") if suffix in ("mp4", "mov") else ()
    whole = render(tmp_path / f"whole.{suffix}", *FORMATS[suffix], *faststart, image=DAWN).read_bytes()
    cut = tmp_path / f"cut.{suffix}"
    for share in (0.5, 0.8):
        cut.write_bytes(whole[: int(len(whole) * share)])
        assert refusal(cut) == "unreadable"


def test_damage_in_the_middle_is_unreadable(tmp_path):
    damaged = bytearray(render(tmp_path / "a.mp4", *MP4, "-b:v", "1M", image=DAWN).read_bytes())
    for place in range(len(damaged) // 4, len(damaged) // 2, 997):
        damaged[place : place + 16] = bytes(range(16))
    (tmp_path / "b.mp4").write_bytes(damaged)
    assert refusal(tmp_path / "b.mp4") == "unreadable"


@pytest.mark.parametrize(
    "content",
    [b"", b"\0" * 9999, b"<html>404</html>" * 99, bytes(range(256)) * 99, b"ftypmoovmdat" * 99],
    ids=["empty", "zeros", "a-web-page", "bytes", "words"],
)
def test_garbage_is_unreadable(tmp_path, content):
    (tmp_path / "a.mp4").write_bytes(content)
    assert refusal(tmp_path / "a.mp4") == "unreadable"


PLAYLISTS = {
    "concat": "ffconcat version 1.0\nfile '{other}'\n",
    "hls": "#EXTM3U\n#EXT-X-TARGETDURATION:5\n#EXTINF:5,\n{other}\n#EXT-X-ENDLIST\n",
    "sdp": "v=0\r\no=- 0 0 IN IP4 127.0.0.1\r\ns=x\r\nc=IN IP4 127.0.0.1\r\nm=video 5004 RTP/AVP 96\r\n",
}


@pytest.mark.parametrize("kind", PLAYLISTS)
def test_a_playlist_opens_no_other_file(tmp_path, kind):
    other = render(tmp_path / "other.ts", *FORMATS["ts"])
    for suffix in ("mp4", "m3u8"):
        path = tmp_path / f"list.{suffix}"
        path.write_text(PLAYLISTS[kind].format(other=other))
        assert refusal(path) == "unsupported"


def test_a_stream_that_begins_in_the_middle_of_a_group_of_images_is_cut_not_damaged(tmp_path):
    whole = render(tmp_path / "a.ts", *MP4, "-g", 25, "-bf", 2, "-sc_threshold", 0, image=flashing(), sound=beeping())
    tail = tmp_path / "tail.ts"
    tail.write_bytes(whole.read_bytes()[188 * 40 :])  # a transport stream may begin at any packet
    flash, beep = flash_and_beep(tail)
    assert abs(flash - beep) < 1.5 / FRAME_RATE


# The child process.


def through(decoder: Decoder, path: Path) -> list[float]:
    return decoder.decode(path, 0, path.stat().st_size, OPTIONS).times


@pytest.fixture
def clip(tmp_path) -> Path:
    return render(tmp_path / "a.mp4")


def test_the_child_returns_what_decoding_in_this_process_returns(clip):
    with Decoder(20, [clip]) as decoder:
        assert decoder.decode(clip, 0, clip.stat().st_size, OPTIONS) == decode(clip)
        with pytest.raises(Refusal):
            decoder.decode(clip, 0, 100, OPTIONS)
        assert through(decoder, clip) == decode(clip).times


def test_a_hang_in_native_code_costs_its_clip_and_no_more_than_its_time(tmp_path, clip):
    hanging = tmp_path / "hang.mp4"
    hanging.write_bytes(clip.read_bytes() + b"\0" * 8)
    # PyDLL keeps the interpreter's lock, so that no thread and no signal handler of the child can run.
    prepare = f"file.size == {hanging.stat().st_size} and ctypes.PyDLL(None).sleep(60)"
    with Decoder(1.5, [hanging, clip], partial(odd, prepare)) as decoder:
        started = time.monotonic()
        with pytest.raises(Refusal) as caught:
            through(decoder, hanging)
        assert caught.value.reason == "timeout" and time.monotonic() - started < 15
        assert through(decoder, clip)


@pytest.mark.parametrize("prepare", ["os.abort()", "ctypes.string_at(0)", "os._exit(3)"])
def test_a_crash_makes_its_clip_unreadable(clip, prepare):
    with Decoder(20, [clip], partial(odd, prepare)) as decoder, pytest.raises(Refusal) as caught:
        through(decoder, clip)
    assert caught.value.reason == "unreadable"


def test_a_child_that_was_killed_from_outside_costs_no_clip(clip):
    with Decoder(20, [clip], partial(odd, "ctypes.PyDLL(None).usleep(500_000)")) as decoder:
        threading.Timer(0.2, os.kill, (decoder.child.start(), signal.SIGKILL)).start()
        assert through(decoder, clip) == decode(clip).times


@pytest.mark.skipif(sys.platform != "linux", reason="other systems do not limit a process's data")
def test_a_clip_that_needs_all_the_memory_is_too_large(clip):
    with Decoder(20, [clip], partial(odd, "bytearray(3 << 30)")) as decoder, pytest.raises(Refusal) as caught:
        through(decoder, clip)
    assert caught.value.reason == "too-large"


def test_the_child_can_write_no_file(tmp_path, clip):
    prepare = f"open({str(tmp_path / 'written')!r}, 'w').write('x' * 9999)"
    with Decoder(20, [clip], partial(odd, prepare)) as decoder, pytest.raises(Refusal):
        through(decoder, clip)
    assert not (tmp_path / "written").exists() or not (tmp_path / "written").stat().st_size


def test_only_regular_files_are_read(tmp_path):
    os.mkfifo(tmp_path / "fifo.mp4")
    with Decoder(20, [tmp_path]) as decoder:
        for path, reason in ((tmp_path / "fifo.mp4", "unsupported"), (tmp_path / "nowhere.mp4", "unreadable")):
            with pytest.raises(Refusal) as caught:
                decoder.decode(path, 0, 100, OPTIONS)
            assert caught.value.reason == reason


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere the child's alarm ends it later")
def test_the_child_does_not_outlive_its_parent(clip):
    code = (
        "from functools import partial\nfrom pathlib import Path\nfrom earshot.media.decoder_process import Decoder\n"
        "from odd_media import OPTIONS\nfrom odd_decoder import odd\n"
        f"decoder = Decoder(60, [Path({str(clip)!r})], partial(odd, 'ctypes.PyDLL(None).sleep(60)'))\n"
        "print(decoder.child.start(), flush=True)\n"
        f"decoder.decode(Path({str(clip)!r}), 0, 9999, OPTIONS)"
    )
    environment = os.environ | {"PYTHONPATH": os.pathsep.join((*sys.path, str(Path(__file__).parent)))}
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, env=environment) as parent:
        pid = int(parent.stdout.readline())
        time.sleep(0.5)  # the child is now deep in native code
        parent.send_signal(signal.SIGKILL)
    deadline = time.monotonic() + 10
    while _runs(pid) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not _runs(pid)


def _runs(pid: int) -> bool:
    try:
        return "State:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except FileNotFoundError:
        return False


def test_real_clips_are_all_decoded_on_one_clock(real_data):
    for path in sorted((real_data / "clips").glob("*.mp4"))[::8]:
        decoded = decode(path, frame_size=64)
        assert len(decoded.frames) == len(decoded.times) == 8
        assert len(samples(decoded)) == round(decoded.duration * decoded.audio_rate)


@pytest.mark.parametrize("size", ["160:90", "90:160"])
def test_a_squeezed_frame_is_a_square_and_shows_everything(tmp_path, size):
    path = render(tmp_path / "a.mp4", *MP4, "-vf", f"scale={size},setsar=1")
    squeezed, kept = (images(decode(path, frame_size=45, squeeze=squeeze))[0] for squeeze in (True, False))
    assert squeezed.shape == (45, 45, 3)
    expected = np.asarray(
        Image.fromarray(kept.astype(np.uint8)).resize((45, 45), Image.Resampling.BICUBIC), dtype=float
    )
    assert np.abs(squeezed - expected).mean() < 8  # a crop differs by far more
