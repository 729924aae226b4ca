"""Downloading: the seconds requested, the true reason if they cannot be downloaded, and no request twice."""

import errno
import gzip
import json
import os
import pickle
import re
import shutil
import signal
import struct
import subprocess
import sys
import tarfile
import time
from collections import Counter
from pathlib import Path

import av
import imageio_ffmpeg
import numpy as np
import pytest
import yt_dlp
from conftest import PARAMS
from hypothesis import assume, given
from hypothesis import settings as settings_of_hypothesis
from hypothesis import strategies as st
from media_server import MediaServer, drip, endless, lie, send, serve, stall, status
from shard_work import an_hour_later
from yt_dlp.utils import DownloadError, ExtractorError, GeoRestrictedError

from earshot.core.errors import EarshotError
from earshot.core.subprocess_pool import Failure, Limits, guarded_map
from earshot.corpus.completeness import missing_clips, requested_shards
from earshot.corpus.ledger import Refusal, read_ledger
from earshot.download.clips import Job, download_shard
from earshot.download.cutting import cut, measure
from earshot.download.published import open_manifest
from earshot.download.rate_limit import RateLimiter, site_of
from earshot.download.sharding import write_shard_lists
from earshot.download.yt_dlp_client import ERROR_PATTERNS, _refusal, fetch
from earshot.pipeline.settings import check_settings, settings
from stages import download as stage_download

REPOSITORY = Path(__file__).resolve().parents[1]
GRAY_STEP, TONE_STEP = 20, 100  # a second of the test video: gray levels, Hz of the tone


def render(path, *arguments):
    """Run ffmpeg; the path is the output."""
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-nostdin", "-y", "-loglevel", "error", *arguments, str(path)]
    subprocess.run(command, check=True)
    return path


@pytest.fixture(scope="module")
def media(tmp_path_factory):
    """Real media of twelve seconds with one key frame: second n has gray level 20 n and sounds at 200 + 100 n Hz."""
    folder = tmp_path_factory.mktemp("media")
    gray = f"color=black:size=64x48:rate=10:duration=12,geq=lum='{GRAY_STEP}*floor(T)':cb=128:cr=128"
    tone = f"aevalsrc='0.5*sin(2*PI*(200+{TONE_STEP}*floor(t))*t)':sample_rate=16000:duration=12"
    form = ["-pix_fmt", "yuv420p", "-g", "1000", "-c:a", "aac"]
    whole = render(folder / "whole.mp4", "-f", "lavfi", "-i", gray, "-f", "lavfi", "-i", tone, *form)
    render(folder / "front.mp4", "-i", str(whole), "-c", "copy", "-movflags", "+faststart")
    render(folder / "whole.mkv", "-i", str(whole), "-c", "copy")
    render(folder / "whole.ts", "-i", str(whole), "-c", "copy")
    render(folder / "silent.mp4", "-i", str(whole), "-c", "copy", "-an")
    render(folder / "blind.mp4", "-i", str(whole), "-c", "copy", "-vn")
    two = ["-t", "4", "-i", str(whole), "-i", str(whole)]
    render(folder / "hushed.mp4", *two, "-map", "1:v", "-map", "0:a", "-c", "copy")
    render(folder / "half.mp4", *two, "-map", "0:v", "-map", "1:a", "-c", "copy")
    body = (folder / "front.mp4").read_bytes()
    (folder / "torn.mp4").write_bytes(body[: len(body) * 2 // 3])
    (folder / "garbage.mp4").write_bytes(np.random.default_rng(0).bytes(20_000))
    (folder / "empty.mp4").touch()
    return folder


def gray_and_tone(clip):
    """Gray level of the first image, and the frequency (Hz) of the first half second of sound."""
    with av.open(str(clip)) as file:
        gray = next(file.decode(video=0)).to_ndarray()[:48].mean()  # the Y of yuv420p
    with av.open(str(clip)) as file:
        rate = file.streams.audio[0].rate
        sound = np.concatenate([frame.to_ndarray()[0] for frame in file.decode(audio=0)])
    spectrum = np.abs(np.fft.rfft(sound[rate // 20 : rate // 2]))
    return gray, spectrum.argmax() * rate / len(sound[rate // 20 : rate // 2])


def is_second(clip, second):
    gray, tone = gray_and_tone(clip)
    return abs(gray - GRAY_STEP * second) < 5 and abs(tone - 200 - TONE_STEP * second) < 10


# The cut


@pytest.mark.parametrize("name", ["whole.mp4", "front.mp4", "whole.mkv", "whole.ts"])
def test_a_cut_has_the_seconds_asked_for_wherever_key_frames_are(media, tmp_path, name):
    assert cut([media / name], 7, 10, tmp_path / "clip.mp4") == pytest.approx(3, abs=0.1)
    assert is_second(tmp_path / "clip.mp4", 7)
    for start, end in measure(tmp_path / "clip.mp4"):
        assert (start, end) == (pytest.approx(0, abs=0.1), pytest.approx(3, abs=0.1))


def test_image_and_sound_may_come_from_two_files(media, tmp_path):
    cut([media / "silent.mp4", media / "blind.mp4"], 4, 6, tmp_path / "clip.mp4")
    assert is_second(tmp_path / "clip.mp4", 4)


def test_a_file_that_is_the_clip_is_copied_byte_by_byte(media, tmp_path):
    assert cut([media / "whole.mp4"], 0, 12, tmp_path / "clip.mp4") == pytest.approx(12, abs=0.1)
    assert (tmp_path / "clip.mp4").read_bytes() == (media / "whole.mp4").read_bytes()
    cut([media / "whole.mkv"], 0, 12, tmp_path / "clip.mp4")
    with av.open(str(tmp_path / "clip.mp4")) as file:
        assert [stream.codec_context.name for stream in file.streams] == ["h264", "aac"]


def test_a_source_that_ends_early_gives_what_it_has_if_that_is_half(media, tmp_path):
    assert cut([media / "whole.mp4"], 6, 16, tmp_path / "clip.mp4") == pytest.approx(6, abs=0.1)
    with pytest.raises(Refusal, match="bad-cut.*lasts 12"):
        cut([media / "whole.mp4"], 8, 18, tmp_path / "clip.mp4")
    with pytest.raises(Refusal, match="bad-cut"):
        cut([media / "whole.mp4"], 30, 40, tmp_path / "clip.mp4")


def test_the_same_cut_has_the_same_bytes(media, tmp_path):
    for name in ("one.mp4", "two.mp4"):
        cut([media / "whole.mkv"], 2, 4, tmp_path / name)
    assert (tmp_path / "one.mp4").read_bytes() == (tmp_path / "two.mp4").read_bytes()


@pytest.mark.parametrize(
    ("name", "start", "end", "reason"),
    [
        ("silent.mp4", 0, 12, "no-sound"),
        ("blind.mp4", 0, 12, "no-video"),
        ("hushed.mp4", 6, 9, "no-sound"),
        ("half.mp4", 6, 9, "no-video"),
        ("garbage.mp4", 0, 12, "unreadable"),
        ("empty.mp4", 0, 12, "unreadable"),
        ("torn.mp4", 0, 12, "unreadable"),
        ("torn.mp4", 9, 12, "unreadable"),
        ("whole.mp4", 1, 1.3, "too-short"),
    ],
)
def test_what_a_cut_cannot_give_has_its_reason_and_leaves_no_file(media, tmp_path, name, start, end, reason):
    with pytest.raises(Refusal) as refusal:
        cut([media / name], start, end, tmp_path / "clip.mp4")
    assert refusal.value.reason == reason
    assert not list(tmp_path.iterdir())


# Video and audio stay synchronous

FLASH = 5.0  # seconds into the video: for a fifth of a second it is white, and beeps


@pytest.fixture(scope="module")
def flashes(tmp_path_factory):
    """Eight seconds of darkness and silence but for one flash and beep, in several containers, whole and apart."""
    folder = tmp_path_factory.mktemp("flashes")
    now = f"between(t,{FLASH},{FLASH + 0.2})"
    dark = f"color=black:size=64x48:rate=25:duration=8,drawbox=color=white:t=fill:enable='{now}'"
    beep = f"aevalsrc='if({now},0.8*sin(2*PI*1000*t),0)':sample_rate=44100:duration=8"
    form = ["-pix_fmt", "yuv420p", "-bf", "2", "-g", "60", "-c:a", "aac"]
    whole = render(folder / "whole.mp4", "-f", "lavfi", "-i", dark, "-f", "lavfi", "-i", beep, *form)
    render(folder / "whole.mkv", "-i", str(whole), "-c", "copy")
    render(folder / "whole.ts", "-i", str(whole), "-c", "copy")
    render(folder / "image.mp4", "-i", str(whole), "-c", "copy", "-an")
    render(folder / "sound.mkv", "-i", str(whole), "-c", "copy", "-vn")
    late = ["-vn", "-af", "atrim=start=2", "-c:a", "flac"]
    render(folder / "late.mkv", "-i", str(whole), *late)
    render(folder / "late.mp4", "-i", str(whole), "-af", "atrim=start=2", "-c:v", "copy", "-c:a", "aac")
    return folder


def flash_and_beep(clip):
    """When the first white image appears and when the sound starts (s)."""
    with av.open(str(clip)) as file:
        flash = next(frame.time for frame in file.decode(video=0) if frame.to_ndarray()[:48].mean() > 128)
    with av.open(str(clip)) as file:
        for frame in file.decode(audio=0):
            loud = np.flatnonzero(np.abs(frame.to_ndarray()[0]) > 0.3)
            if len(loud):
                return flash, frame.time + loud[0] / frame.sample_rate
    raise AssertionError("no beep")


@pytest.mark.parametrize("start", [0, 2.99, 4.3])
@pytest.mark.parametrize(
    "names", [["whole.mp4"], ["whole.mkv"], ["whole.ts"], ["image.mp4", "sound.mkv"], ["image.mp4", "late.mkv"]]
)
def test_image_and_sound_stay_together(flashes, tmp_path, names, start):
    if "late.mkv" in names and start < 2:
        with pytest.raises(Refusal, match="bad-cut.*the sound at (1.98|2.00) s"):
            cut([flashes / name for name in names], start, 7, tmp_path / "clip.mp4")
        return
    cut([flashes / name for name in names], start, 7, tmp_path / "clip.mp4")
    flash, beep = flash_and_beep(tmp_path / "clip.mp4")
    assert flash == pytest.approx(FLASH - start, abs=0.05)  # an image lasts 0.04 s
    assert beep == pytest.approx(FLASH - start, abs=0.03)


def test_a_clip_whose_sound_begins_late_is_a_bad_cut_though_nothing_is_cut(flashes, tmp_path):
    with pytest.raises(Refusal, match="bad-cut.*the video starts at 0.00 s, the sound at (1.98|2.00) s"):
        cut([flashes / "late.mp4"], 0, 8, tmp_path / "clip.mp4")
    cut([flashes / "late.mp4"], 3, 8, tmp_path / "clip.mp4")
    assert flash_and_beep(tmp_path / "clip.mp4") == (pytest.approx(2, abs=0.05), pytest.approx(2, abs=0.03))


@pytest.mark.slow
def test_image_and_sound_of_real_clips_stay_together(real_data, tmp_path):
    """Sound and image in the middle of a real clip occur at the same time in its cut."""
    clips = sorted((real_data / "clips").glob("*.mp4"))[::8]
    assert clips
    for number, clip in enumerate(clips):
        cut([clip], 0.77, 1.77, tmp_path / f"{number}.mp4")
        sound, part = waveform(clip), waveform(tmp_path / f"{number}.mp4")
        expected = round(0.77 * 8000)
        middle = part[2000:6000]
        scores = [middle @ sound[at + 2000 : at + 6000] for at in range(expected - 400, expected + 400)]
        assert abs(np.argmax(scores) - 400) <= 0.02 * 8000 or np.abs(middle).max() < 0.01, clip.name
        before, after = image_at(clip, 0.77 + 0.5), image_at(tmp_path / f"{number}.mp4", 0.5)
        assert np.abs(before - after).mean() < 8, clip.name


def waveform(clip):
    """The sound of a clip at 8 kHz, one channel, from its time 0 on."""
    decode = ["-nostdin", "-loglevel", "error", "-i", str(clip), "-vn", "-ac", "1", "-ar", "8000", "-f", "f32le", "-"]
    done = subprocess.run([imageio_ffmpeg.get_ffmpeg_exe(), *decode], capture_output=True, check=True)
    return np.frombuffer(done.stdout, np.float32)


def image_at(clip, seconds):
    """The image at a time, small and gray."""
    with av.open(str(clip)) as file:
        images = [frame for frame in file.decode(video=0) if frame.time <= seconds + 0.001]
        return images[-1].reformat(64, 48, "gray").to_ndarray().astype(float)


@pytest.mark.parametrize("playlist", ["ffconcat version 1.0\nfile whole.mp4\n", "#EXTM3U\n#EXTINF:12,\nwhole.mp4\n"])
def test_a_playlist_is_not_followed(media, tmp_path, playlist):
    (tmp_path / "whole.mp4").symlink_to(media / "whole.mp4")
    (tmp_path / "list.mp4").write_text(playlist)
    with pytest.raises(Refusal, match="unreadable"):
        cut([tmp_path / "list.mp4"], 0, 12, tmp_path / "clip.mp4")


# The fetch


def limiter_in(folder, **changes):
    """A rate limiter without a budget and with little patience: a test that waits for a site fails with its reason."""
    return RateLimiter(
        **{"file": folder / "pace.sqlite", "requests_per_hour": 0.0, "backoff": 0.1, "patience": 2.0} | changes
    )


def download(address, folder, seconds=60):
    fetch(address, folder / "fetched", megabytes=3, seconds=seconds, visit=limiter_in(folder).visit(address))


@pytest.fixture(scope="module")
def server(media):
    behaviors = {
        "gone": status(410),
        "secret": status(403),
        "login": status(401),
        "limit": status(429, Retry_After=60),
        "broken": status(503),
        "law": status(451),
        "circle": status(302, Location="/circle"),
        "inward": status(302, Location="file:///etc/hostname"),
        "login.mp4": send(b"<html><form>Please sign in <input type=password></form></html>", "text/html"),
        "proxy": status(407),
        "page": send(b"<html><body>nothing to see</body></html>", "text/html"),
        "list": send(b'<html><video src="/a.mp4"></video><video src="/b.mp4"></video></html>', "text/html"),
        "files.m3u8": send(b"#EXTM3U\n#EXTINF:10,\nfile:///etc/hostname\n#EXT-X-ENDLIST\n", "application/x-mpegurl"),
        "empty.mp4": send(b""),
        "stalled.mp4": stall(),
        "halfway.mp4": stall((media / "whole.mp4").read_bytes()[:5000]),
        "torn.mp4": lie(media / "whole.mp4", 1000),
        "endless.mp4": endless(),
        "endless": endless("text/html"),
        "bomb": send(gzip.compress(bytes(64 << 20)), "text/html", Content_Encoding="gzip"),
        "large.mp4": lie(media / "whole.mp4", 10**9),
    }
    with MediaServer(behaviors) as running:
        yield running


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("nothing", "not-found"),
        ("gone", "removed"),
        ("secret", "forbidden"),
        ("login", "private"),
        ("limit", "rate-limited"),
        ("broken", "network"),
        ("law", "geo-blocked"),
        ("circle", "no-media"),
        ("inward", "unsupported"),
        ("page", "no-media"),
        ("login.mp4", "no-media"),
        ("endless", "too-large"),
        ("bomb", "too-large"),
        ("proxy", "network"),
        ("list", "unsupported"),
        ("files.m3u8", "unsupported"),
        ("empty.mp4", "network"),
        ("stalled.mp4", "network"),
        pytest.param("halfway.mp4", "network", marks=pytest.mark.slow),  # they wait, and are asked for again
        pytest.param("torn.mp4", "network", marks=pytest.mark.slow),
        ("endless.mp4", "too-large"),
        ("large.mp4", "too-large"),
    ],
)
def test_what_a_server_does_has_its_reason(server, tmp_path, name, reason):
    patience = 2 if name in ("stalled.mp4", "halfway.mp4") else 60
    with pytest.raises(Refusal) as refusal:
        download(server.address(name), tmp_path, patience)
    assert refusal.value.reason == reason, refusal.value.detail


def test_of_many_formats_the_smallest_that_will_do_is_fetched(media, tmp_path):
    """Separate video and audio, as on large sites."""
    image = '<Representation id="{}" codecs="avc1.4d401e" width="{}" height="{}" bandwidth="{}"><BaseURL>{}</BaseURL>'
    small, large = image.format("p", 640, 360, 1e5, "silent.mp4"), image.format("q", 1280, 720, 1e6, "large.mp4")
    sound = '<Representation id="s" codecs="mp4a.40.2" bandwidth="64000"><BaseURL>blind.mp4</BaseURL>'
    listing = (
        '<MPD xmlns="urn:mpeg:dash:schema:mpd:2011" type="static" mediaPresentationDuration="PT12S"><Period>'
        f'<AdaptationSet mimeType="video/mp4">{small}</Representation>{large}</Representation></AdaptationSet>'
        f'<AdaptationSet mimeType="audio/mp4">{sound}</Representation></AdaptationSet></Period></MPD>'
    )
    behaviors = {name: serve(media / name) for name in ("silent.mp4", "blind.mp4")}
    with MediaServer(behaviors | {"all.mpd": send(listing.encode(), "application/dash+xml")}) as server:
        download(server.address("all.mpd"), tmp_path)
        assert server.requests == {"all.mpd": 1, "silent.mp4": 1, "blind.mp4": 1}
    cut(sorted((tmp_path / "fetched").iterdir()), 7, 10, tmp_path / "clip.mp4")
    assert is_second(tmp_path / "clip.mp4", 7)


def test_a_video_in_pieces_is_put_together(media, tmp_path):
    listing = b"#EXTM3U\n#EXT-X-TARGETDURATION:12\n#EXTINF:12,\nwhole.ts\n#EXT-X-ENDLIST\n"
    behaviors = {"all.m3u8": send(listing, "application/x-mpegurl"), "whole.ts": serve(media / "whole.ts")}
    with MediaServer(behaviors) as server:
        download(server.address("all.m3u8"), tmp_path)
    cut(list((tmp_path / "fetched").iterdir()), 7, 10, tmp_path / "clip.mp4")
    assert is_second(tmp_path / "clip.mp4", 7)


@pytest.mark.parametrize("key", ["", '#EXT-X-KEY:METHOD=SAMPLE-AES,URI="key"\n'])
def test_an_installed_ffmpeg_is_never_asked_to_download(media, tmp_path, monkeypatch, key):
    (tmp_path / "bin").mkdir()
    program = tmp_path / "bin" / "ffmpeg"
    program.write_text(f"#!/bin/sh\ntouch {tmp_path}/ran\necho ffmpeg version 7\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path / "bin"), prepend=os.pathsep)
    listing = f"#EXTM3U\n#EXT-X-TARGETDURATION:12\n{key}#EXTINF:12,\nwhole.ts\n#EXT-X-ENDLIST\n".encode()
    behaviors = {"all.m3u8": send(listing, "application/x-mpegurl"), "whole.ts": serve(media / "whole.ts")}
    with MediaServer(behaviors) as server:
        if key:
            with pytest.raises(Refusal):
                download(server.address("all.m3u8"), tmp_path)
        else:
            download(server.address("all.m3u8"), tmp_path)
    assert not (tmp_path / "ran").exists()


@pytest.fixture(scope="module")
def long_video(tmp_path_factory):
    """A minute of noise with a key frame each second, some 3 MB: second n has gray level 4 n + 10 on average."""
    folder = tmp_path_factory.mktemp("long")
    gray = "color=black:size=96x72:rate=8:duration=60,geq=lum='4*floor(T)+20*random(1)':cb=128:cr=128"
    tone = "aevalsrc='0.5*sin(2*PI*(200+100*mod(floor(t),12))*t)':sample_rate=16000:duration=60"
    form = ["-pix_fmt", "yuv420p", "-g", "8", "-c:a", "aac", "-b:v", "400k"]
    behind = render(folder / "behind.mp4", "-f", "lavfi", "-i", gray, "-f", "lavfi", "-i", tone, *form)
    render(folder / "whole.mkv", "-i", str(behind), "-c", "copy")
    return folder


@pytest.mark.parametrize("name", ["behind.mp4", "whole.mkv"])
def test_a_section_is_cut_to_the_second_from_the_few_bytes_around_it(long_video, tmp_path, name):
    with MediaServer({"a.mp4": serve(long_video / name)}) as server:
        ((clip, row),) = sections(server, tmp_path, ["a.mp4,41,44"])
        sent, requests = server.parts["a.mp4"], server.requests["a.mp4"]
    assert row.status == "kept", row
    assert about_second(clip) == (41, 44)
    assert sent < 0.5 * (long_video / name).stat().st_size
    assert requests <= 6
    for span in measure(clip):
        assert (span.start, span.end) == (pytest.approx(0, abs=0.1), pytest.approx(3, abs=0.1))


def sections(server, folder, rows):
    """Clips and ledger rows of a manifest whose sources are names on a server, fetched as sections."""
    rows = [f"{server.address(row.partition(',')[0])},{row.partition(',')[2]}" for row in rows]
    _, ledger = run_shard(manifest(folder, rows), fetch="section")
    if (folder / "out" / "00000.tar").exists():
        with tarfile.open(folder / "out" / "00000.tar") as tar:
            tar.extractall(folder / "clips", filter="data")
    return [(folder / "clips" / f"{clip_id}.mp4", row) for clip_id, row in ledger.items()]


def about_second(clip):
    """The seconds of the long video on which a clip begins and ends, by its images."""
    with av.open(str(clip)) as file:
        levels = [frame.to_ndarray()[:72].mean() for frame in file.decode(video=0)]
    return tuple(round((levels[at] - 10) / 4) + (at < 0) for at in (0, -1))


def test_a_section_of_image_and_sound_apart_keeps_them_together(flashes, tmp_path):
    listing = (
        '<MPD xmlns="urn:mpeg:dash:schema:mpd:2011" type="static" mediaPresentationDuration="PT8S"><Period>'
        '<AdaptationSet mimeType="video/mp4"><Representation id="p" codecs="avc1.4d401e" width="640" height="360" '
        'bandwidth="100000"><BaseURL>image.mp4</BaseURL></Representation></AdaptationSet>'
        '<AdaptationSet mimeType="audio/mp4"><Representation id="s" codecs="mp4a.40.2" bandwidth="64000">'
        "<BaseURL>late.mkv</BaseURL></Representation></AdaptationSet></Period></MPD>"
    )
    behaviors = {name: serve(flashes / name) for name in ("image.mp4", "late.mkv")}
    with MediaServer(behaviors | {"all.mpd": send(listing.encode(), "application/dash+xml")}) as server:
        ((clip, row),) = sections(server, tmp_path, ["all.mpd,3.3,7"])
        assert server.parts.keys() == {"image.mp4", "late.mkv"}
    assert row.status == "kept", row
    assert flash_and_beep(clip) == (pytest.approx(FLASH - 3.3, abs=0.05), pytest.approx(FLASH - 3.3, abs=0.03))


def test_a_server_without_parts_gives_the_whole_once_for_all_its_clips(media, tmp_path):
    with MediaServer({"a.mp4": serve(media / "whole.mp4", ranges=False)}) as server:
        outcomes = sections(server, tmp_path, ["a.mp4,2,4", "a.mp4,7,9"])
        assert server.requests["a.mp4"] == 4, "identify, a range, identify again, the whole"
    for (clip, row), second in zip(outcomes, (2, 7), strict=True):
        assert row.status == "kept" and is_second(clip, second)


def torn_range(path):
    """A file of which every range breaks off halfway."""

    def behave(handler):
        body = path.read_bytes()
        first = (
            int(handler.headers["Range"].removeprefix("bytes=").partition("-")[0]) if handler.headers["Range"] else 0
        )
        last = min(first + 262143, len(body) - 1)
        handler.close_connection = True
        range_headers = {"Content_Range": f"bytes {first}-{last}/{len(body)}", "Content_Length": last + 1 - first}
        handler.respond(206, body[first : (first + last) // 2], **range_headers)

    return behave


def false_range(path):
    """A file that gives another part of itself than the one asked for."""
    return lambda handler: handler.respond(206, path.read_bytes()[:100], Content_Range="bytes 7-106/50000")


@pytest.mark.slow
def test_sections_that_cannot_be_had_have_their_reasons(media, tmp_path):
    playlist = b"#EXTM3U\n#EXTINF:12,\nfile:///etc/hostname\n#EXT-X-ENDLIST\n"
    concat = tmp_path / "concat"
    concat.write_bytes(b"ffconcat version 1.0\nfile /etc/hostname\n" + bytes(1000))
    behaviors = {
        "torn.mp4": torn_range(media / "whole.mp4"),
        "false.mp4": false_range(media / "whole.mp4"),
        "concat.mp4": serve(concat),
        "garbage.mp4": serve(media / "garbage.mp4"),
        "silent.mp4": serve(media / "silent.mp4"),
        "short.mp4": serve(media / "whole.mp4"),
        "list.mp4": send(playlist),
    }
    with MediaServer(behaviors) as server:
        rows = [f"{name},{'30,40' if name == 'short.mp4' else '2,4'}" for name in [*behaviors, "none.mp4"]]
        ledger = {Path(row.source).name: row for _, row in sections(server, tmp_path / "corpus", rows)}
    assert {name: row.reason for name, row in ledger.items()} == {
        "torn.mp4": "network",
        "false.mp4": "unreadable",
        "concat.mp4": "unreadable",
        "garbage.mp4": "unreadable",
        "silent.mp4": "no-sound",
        "short.mp4": "bad-cut",
        "list.mp4": "unreadable",
        "none.mp4": "not-found",
    }


@pytest.mark.parametrize(
    "address",
    ["file:///etc/hostname", "ftp://127.0.0.1/a", "data:text/plain,x", "ytsearch:rain", "/etc/hostname", "http:a", ""],
)
def test_only_http_is_asked(tmp_path, address):
    with pytest.raises(Refusal, match="unsupported"):
        fetch(address, tmp_path / "fetched", megabytes=3, seconds=60, visit=None)
    assert not (tmp_path / "fetched").exists()


def test_a_refused_connection_is_the_network(tmp_path):
    with MediaServer() as closed:
        address = closed.address("a.mp4")
    with pytest.raises(Refusal, match="network"):
        download(address, tmp_path)


FAULTS = [
    ExtractorError,
    KeyError,
    ValueError,
    yt_dlp.utils.RegexNotFoundError,
    lambda message: DownloadError(f"ERROR: {message}", (TypeError, TypeError(message), None)),
]


@pytest.mark.parametrize(
    ("message", "reason"),
    [
        ("Private video. Sign in if you've been granted access to this video", "private"),
        ("Video unavailable. This video has been removed by the uploader", "removed"),
        ("This video is no longer available because the YouTube account has been terminated.", "removed"),
        ("Video unavailable. The uploader has not made this video available in your country", "geo-blocked"),
        ("Sign in to confirm your age. This video may be inappropriate for some users.", "age-restricted"),
        ("Sign in to confirm you’re not a bot. Use --cookies-from-browser", "blocked"),
        ("Video unavailable. This content isn't available, try again later.", "rate-limited"),
        ("Requested format is not available. Use --list-formats", "no-media"),
        ("No video formats found!", "no-media"),
        ("This video is DRM protected", "no-media"),
        ("The page needs to be reloaded.", "unclear"),
        ("All player responses are invalid. Your IP is likely being blocked by Youtube", "unclear"),
        ("Failed to extract any player response", "unclear"),
        ("Precondition check failed.", "unclear"),
        ("Unable to extract initial data", "unclear"),
        ("Incomplete data received", "unclear"),
        ("An unknown error has occurred.", "unclear"),
        ("Please sign in", "unclear"),
        ("This service is temporarily unavailable", "unclear"),
        ("Video is currently unavailable", "unclear"),
        ("Session terminated", "unclear"),
        ("The player function does not exist", "unclear"),
        ("The request cannot be completed because you have exceeded your quota.", "rate-limited"),
        ("This video is only available to Music Premium members", "private"),
        ("This video requires payment to watch.", "private"),
        ("This content isn't available.", "removed"),
        ("This clip does not exist", "removed"),
        ("This live event will begin in 3 days.", "unsupported"),
    ],
)
def test_messages_of_youtube_have_their_reasons(message, reason):
    cause = ExtractorError(message, expected=True, video_id="--PJHxphWEs", ie="youtube")
    refusal = _refusal(DownloadError(f"ERROR: {cause}", (type(cause), cause, None)))
    assert (refusal.reason, refusal.detail) == (reason, message)


@settings_of_hypothesis(max_examples=200, deadline=None)
@given(st.text(st.characters(categories=["Lu", "Ll", "Zs", "Po"]), max_size=60), st.sampled_from(FAULTS))
def test_a_fault_never_seen_before_does_not_refuse_a_clip(text, fault):
    assume(not any(re.search(pattern, text.lower()) for pattern, _ in ERROR_PATTERNS))
    assert _refusal(fault(text)).reason == "unclear"


def test_a_block_by_country_is_recognized_by_its_class():
    cause = GeoRestrictedError("Not here", countries=["NO"])
    assert _refusal(DownloadError("ERROR: Not here", (type(cause), cause, None))).reason == "geo-blocked"


def test_a_full_disk_is_not_the_clips_fault():
    full = OSError(28, "No space left on device")
    with pytest.raises(OSError, match="No space"):
        _refusal(DownloadError("ERROR: unable to write data", (OSError, full, None)))


# The process that can be killed


def _fail(kind):
    if kind == "crash":
        os.abort()
    if kind == "hang":
        subprocess.run(["sleep", "60"])
    if kind == "mistake":
        raise ValueError("a mistake of ours")
    if kind == "full":
        raise OSError(errno.ENOSPC, "No space left on device", Path("a.mp4"))
    return os.getpid(), kind


@pytest.mark.slow
def test_an_item_that_hangs_or_crashes_costs_only_itself():
    items = ["one", "crash", "two", "three", "hang", "four"]
    results = dict(guarded_map(_fail, items, Limits(2)))
    assert list(results) == items
    assert [results[name][1] for name in ("one", "two", "three", "four")] == ["one", "two", "three", "four"]
    assert results["crash"] == Failure(hung=False, exit_code=-signal.SIGABRT)
    assert results["hang"] == Failure(hung=True)
    assert results["two"][0] == results["three"][0], "a healthy process handles item after item"


@pytest.mark.slow
def test_a_mistake_of_ours_is_not_taken_for_a_bad_item():
    with pytest.raises(RuntimeError, match="ValueError: a mistake of ours") as mistake:
        list(guarded_map(_fail, ["mistake"], Limits(5)))
    assert "in _fail" in mistake.value.__notes__[0]
    with pytest.raises(OSError, match="No space") as full:
        list(guarded_map(_fail, ["full"], Limits(5)))
    assert (full.value.errno, full.value.filename) == (errno.ENOSPC, "a.mp4")


class _Exploit:
    """Unpickling it creates a folder."""

    def __init__(self, folder):
        self.folder = folder

    def __reduce__(self):
        return os.mkdir, (self.folder,)


def _attack_the_parent(payload):
    os.write(int(sys.argv[1]), struct.pack("!i", len(payload)) + payload)  # as multiprocessing frames a message
    return "kept"


def test_the_response_of_a_compromised_process_is_not_executed(tmp_path):
    payload = pickle.dumps(_Exploit(str(tmp_path / "created")))
    assert list(guarded_map(_attack_the_parent, [payload], Limits(5))) == [(payload, Failure(hung=False))]
    assert not (tmp_path / "created").exists()


# The shard


def manifest(folder, rows, header="url,start,end"):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "manifest.csv").write_text("\n".join([header, *rows]) + "\n")
    return folder


def job_for(folder, **changes):
    values = {
        "seconds": 60.0,
        "megabytes": 50.0,
        "fetch": "whole",
        "accept_pending": False,
        "limiter": limiter_in(folder),
    } | changes
    return Job(folder, folder / "requested", folder / "clips", folder / "out", **values)


def run_shard(folder, **changes):
    job = job_for(folder, **changes)
    assert write_shard_lists(open_manifest(folder, folder / "lists"), job.requested, 100) == 1
    return download_shard(job, 0), {row.clip_id: row for row in read_ledger(job.out / "ledger" / "00000.csv")}


def test_local_files_give_a_row_each_and_none_from_outside_the_folder(media, tmp_path):
    corpus = tmp_path / "corpus"
    names = ["whole.mp4,0,12", "whole.mkv,3,5", "silent.mp4,0,12", "missing.mp4,0,1", "pipe.mp4,0,1", "link.mp4,0,12"]
    manifest(corpus, names, "path,start,end")
    for name in ("whole.mp4", "whole.mkv", "silent.mp4"):
        (corpus / name).write_bytes((media / name).read_bytes())
    (corpus / "link.mp4").symlink_to(media / "whole.mp4")
    os.mkfifo(corpus / "pipe.mp4")
    counts, ledger = run_shard(corpus)
    assert counts == {
        "clips_requested": 6,
        "clips_kept": 2,
        "refused_forbidden": 1,
        "refused_no-sound": 1,
        "refused_not-found": 1,
        "refused_unreadable": 1,
    }
    assert ledger["link_0"].reason == "forbidden"
    assert ledger["pipe_0"].reason == "unreadable"
    with tarfile.open(corpus / "out" / "00000.tar") as tar:
        kept = [row.clip_id for row in ledger.values() if row.status == "kept"]
        assert tar.getnames() == [f"{clip}.{suffix}" for clip in sorted(kept) for suffix in ("json", "mp4")]
        assert tar.extractfile("whole_0.mp4").read() == (media / "whole.mp4").read_bytes()
        about = json.load(tar.extractfile("whole_0.json"))
    row_values = {"source": "whole.mp4", "start": 0.0, "end": 12.0, "group": "whole", "annotations": []}
    assert about == {**row_values, "seconds": 12.0}
    assert [path.name for path in (corpus / "clips" / "00000").iterdir()] == ["journal.jsonl"], (
        "clips in the tar file are not kept twice"
    )


def test_the_tar_file_depends_on_nothing_but_the_clips(media, tmp_path):
    for name in ("one", "two"):
        manifest(tmp_path / name, ["whole.mp4,0,12", "whole.mp4,5,7"], "path,start,end")
        (tmp_path / name / "whole.mp4").write_bytes((media / "whole.mp4").read_bytes())
        os.utime(tmp_path / name / "whole.mp4", (1e9, 1e9))
        run_shard(tmp_path / name)
    assert (tmp_path / "one/out/00000.tar").read_bytes() == (tmp_path / "two/out/00000.tar").read_bytes()


def test_a_shard_with_other_clips_has_only_those(media, tmp_path):
    """As after a change of the code, or if a recorded clip is already in a tar file."""
    (tmp_path / "whole.mp4").write_bytes((media / "whole.mp4").read_bytes())
    for seconds in ((0, 5), (5, 2)):
        manifest(tmp_path, [f"whole.mp4,{start},{start + 2}" for start in seconds], "path,start,end")
        counts, ledger = run_shard(tmp_path)
        assert counts == {"clips_requested": 2, "clips_kept": 2}
        clips = {f"whole_{start * 1000}" for start in seconds}
        with tarfile.open(tmp_path / "out" / "00000.tar") as tar:
            assert {Path(name).stem for name in tar.getnames()} == clips == set(ledger)


def test_clips_of_one_video_in_a_row_are_fetched_once(media, tmp_path):
    with MediaServer({"a.mp4": serve(media / "whole.mp4")}) as server:
        rows = [f"{server.address('a.mp4')},{start},{start + 2}" for start in (1, 4, 8)]
        counts, _ = run_shard(manifest(tmp_path, rows))
        assert counts["clips_kept"] == 3
        assert server.requests == {"a.mp4": 2}, "one request identifies it, one fetches it"


def test_a_server_that_drips_is_given_up_in_time(media, tmp_path):
    with MediaServer({"a.mp4": drip(media / "whole.mp4", 0.5)}) as server:
        counts, _ = run_shard(manifest(tmp_path, [f"{server.address('a.mp4')},0,12"]), seconds=2.0)
    assert counts == {"clips_requested": 1, "clips_kept": 0, "refused_timeout": 1}


@pytest.mark.slow
def test_videos_in_error_do_not_hold_up_a_site_that_gives_others(media, tmp_path):
    behaviors = {f"{number}.mp4": status(503) for number in range(8)}
    behaviors |= {name: serve(media / "whole.mp4") for name in ("first.mp4", "last.mp4")}
    with MediaServer(behaviors) as server:
        names = ["first.mp4", *(f"{number}.mp4" for number in range(8)), "last.mp4"]
        rows = [f"{server.address(name)},0,12" for name in names]
        counts, _ = run_shard(manifest(tmp_path, rows), limiter=limiter_in(tmp_path, backoff=5.0, patience=0.4))
    assert counts["clips_kept"] == 2
    assert counts["pending_network"] == 8


NO_VIDEO = send(b"<html><body>We are back soon</body></html>", "text/html")


@pytest.mark.slow
def test_a_page_without_a_video_refuses_its_clip_only_while_the_site_gives_others(media, tmp_path):
    with MediaServer({"a.mp4": serve(media / "whole.mp4"), "b.mp4": NO_VIDEO}) as server:
        rows = [f"{server.address(name)},0,12" for name in ("b.mp4", "a.mp4")]
        _, ledger = run_shard(manifest(tmp_path, rows))
    assert [(row.status, row.reason) for row in ledger.values()] == [("refused", "no-media"), ("kept", "")]


def test_an_outage_refuses_no_clip_and_stops_the_requests(media, tmp_path):
    """A site that gave a video answers everything with a page, that video too; later it works again."""
    names = ["a.mp4", *(f"{number}.mp4" for number in range(9))]
    impatient = {"backoff": 5.0, "patience": 0.4}
    with MediaServer({"a.mp4": first_then(serve(media / "whole.mp4"), 2, NO_VIDEO)}, NO_VIDEO) as server:
        rows = [f"{server.address(name)},0,12" for name in names]
        counts, _ = run_shard(manifest(tmp_path, rows), limiter=limiter_in(tmp_path, **impatient))
        assert counts == {"clips_requested": 10, "clips_kept": 1, "clips_pending": 9, "pending_unclear": 9}
        assert all(server.requests[f"{number}.mp4"] == 0 for number in range(6, 9)), "the site is left alone"
        server.behaviors |= {name: serve(media / "whole.mp4") for name in names}
        later = limiter_in(tmp_path, now=an_hour_later, **impatient)
        counts, _ = run_shard(tmp_path, limiter=later)
    assert counts == {"clips_requested": 10, "clips_kept": 10}


def first_then(first, requests, then):
    """One behavior for some requests of a name, then another."""

    def behave(handler):
        name = handler.path.lstrip("/")
        (first if handler.server.media.requests[name] <= requests else then)(handler)

    return behave


@pytest.mark.slow
def test_the_least_recently_requested_clips_come_first(media, tmp_path):
    with MediaServer({"limits.mp4": status(429), "b.mp4": serve(media / "whole.mp4")}) as server:
        rows = [f"{server.address(name)},0,12" for name in ("limits.mp4", "b.mp4")]
        impatient = {"backoff": 3000.0, "patience": 0.1}
        counts, ledger = run_shard(manifest(tmp_path, rows), limiter=limiter_in(tmp_path, **impatient))
        assert counts["pending_rate-limited"] == 2 and server.requests["b.mp4"] == 0
        counts, _ = run_shard(tmp_path, limiter=limiter_in(tmp_path, now=an_hour_later, **impatient))
        assert counts["clips_kept"] == 1


# The stage

AT_ONCE = {"EARSHOT_REQUESTS_PER_HOUR": "0", "EARSHOT_BACKOFF": "0.2", "EARSHOT_PATIENCE": "1"}


def stage(root, *changes, status=False, **where):
    command = [sys.executable, "-m", "stages.download", "--root", root, "--params", PARAMS]
    for change in ("corpus.manifest=corpus", *changes):
        command += ["--set", change]
    command += ["--status", "--json"] if status else []
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY), "EARSHOT_WORKERS": "1", **AT_ONCE}
    return subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=root, **where
    )


def progress_of(root):
    """The counts of --status --json."""
    code, out, error = finish(stage(root, status=True))
    assert code == 0, error
    others = ("clips_an", "hours", "limited", "never succeeded", "list")
    return {name: value for name, value in json.loads(out).items() if not name.startswith(others)}


def finish(process):
    out, err = process.communicate(timeout=600)
    return process.returncode, out, err


def test_a_run_with_pending_clips_fails_and_the_next_requests_only_those(media, tmp_path):
    passing = {"c.mp4": status(429), "d.mp4": status(500), "e.mp4": lie(media / "front.mp4", 100)}
    fine = {"a.mp4": serve(media / "whole.mp4"), "b.mp4": serve(media / "whole.mp4", ranges=False)}
    evil = tmp_path / "yt_dlp_plugins" / "extractor"
    evil.mkdir(parents=True)
    (evil / "evil.py").write_text(f"open({str(tmp_path / 'loaded')!r}, 'w')")
    with MediaServer(fine | passing | {"g.mp4": send(b"no video")}) as server:
        rows = [f"{server.address(name + '.mp4')},7,10,{name}" for name in "abcdefg"]
        manifest(tmp_path / "corpus", rows, "url,start,end,group")
        code, _, error = finish(stage(tmp_path))
        assert code == 1
        assert "3 of 7 clips are pending (2 network, 1 rate-limited;" in error
        assert "Traceback" not in error
        assert not (tmp_path / "data").exists()
        metadata = {"clips_requested": 7, "clips_kept": 2, "pending_network": 2, "pending_rate-limited": 1}
        assert progress_of(tmp_path) == metadata | {
            "refused_not-found": 1,
            "refused_unreadable": 1,
            "not_yet_requested": 0,
        }

        server.requests.clear()
        server.behaviors |= {name: serve(media / "front.mp4") for name in ("c.mp4", "e.mp4")}
        code, out, error = finish(stage(tmp_path, "corpus.accept_pending=true"))
        assert code == 0, error
        assert out == "4 of 7 clips kept; left out: 1 not-found, 1 unreadable, 1 pending\n"
        # The last successful video may be requested too, to test the site while d.mp4 fails.
        assert {"c.mp4", "d.mp4", "e.mp4"} <= set(server.requests) <= {"c.mp4", "d.mp4", "e.mp4", "g.mp4"}
    metrics = json.loads((tmp_path / "metrics" / "download.json").read_text())
    assert metrics == {
        "clips_requested": 7,
        "clips_kept": 4,
        "clips_pending": 1,
        "refused_not-found": 1,
        "refused_unreadable": 1,
    }
    assert progress_of(tmp_path)["clips_kept"] == 4
    rows = read_ledger(tmp_path / "data/clips/ledger/00000.csv")
    assert Counter(row.status for row in rows) == {"kept": 4, "refused": 2, "pending": 1}
    missing = [became for shard in requested_shards(tmp_path / "data/clips") for _, _, became in missing_clips(*shard)]
    assert sorted(missing) == ["pending", "refused_not-found", "refused_unreadable"]
    with tarfile.open(tmp_path / "data/clips/00000.tar") as tar:
        tar.extractall(tmp_path, filter="data")
    clips = sorted(tmp_path.glob("*.mp4"))
    assert len(clips) == 4
    assert all(is_second(clip, 7) and measure(clip)[1].end == pytest.approx(3, abs=0.1) for clip in clips)
    assert not (tmp_path / "loaded").exists(), "yt-dlp does not load code of the working folder"


def test_a_killed_run_continues_with_the_clip_it_was_at(media, tmp_path):
    with MediaServer({name: serve(media / "whole.mp4") for name in ("a.mp4", "b.mp4")}) as server:
        server.behaviors["c.mp4"] = stall()
        manifest(tmp_path / "corpus", [f"{server.address(name + '.mp4')},1,3" for name in "abc"])
        process = stage(tmp_path, start_new_session=True)
        deadline = time.monotonic() + 300
        while server.requests["c.mp4"] < 2 and time.monotonic() < deadline:
            time.sleep(0.05)
        metadata = {"clips_requested": 3, "clips_kept": 2, "not_yet_requested": 1}
        assert progress_of(tmp_path) == metadata, "a run does not block --status"
        process.kill()
        process.communicate()
        deadline = time.monotonic() + 20
        while _commands_with(tmp_path) and time.monotonic() < deadline:
            time.sleep(0.05)
        assert not _commands_with(tmp_path), "no process outlives a run"

        server.requests.clear()
        server.behaviors["c.mp4"] = serve(media / "whole.mp4")
        code, out, error = finish(stage(tmp_path))
        assert (code, out) == (0, "3 of 3 clips kept; left out: none\n"), error
        assert set(server.requests) == {"c.mp4"}


def _commands_with(folder):
    """The processes with this working folder."""
    processes = []
    for process in Path("/proc").glob("[0-9]*/cwd"):
        try:
            if process.readlink() == folder:
                processes.append(process.parent.name)
        except OSError:
            continue
    return processes


@pytest.mark.slow
def test_a_site_that_never_succeeds_is_reported_and_its_clips_stay_pending(media, tmp_path, monkeypatch):
    monkeypatch.setitem(AT_ONCE, "EARSHOT_BACKOFF", "0.01")
    forbidding = {f"{number}.mp4": status(403) for number in range(8)}
    with MediaServer(forbidding) as server, MediaServer({"a.mp4": serve(media / "whole.mp4")}) as giving:
        addresses = [*map(server.address, forbidding), giving.address("a.mp4")]
        manifest(tmp_path / "corpus", [f"{address},1,3" for address in addresses])
        code, _, error = finish(stage(tmp_path))
        site = site_of(server.address("0.mp4"))
        _, out, _ = finish(stage(tmp_path, status=True))
        assert code == 1 and "8 of 9 clips are pending (8 blocked;" in error
        assert re.search(rf"; {site}: no video in \d tries; .* set corpus.accept_pending=true", error)
        assert site_of(giving.address("a.mp4")) not in error
        assert json.loads(out)[f"never succeeded {site}"].startswith("no video in ")


def test_cookies_that_cannot_be_read_stop_the_stage_before_any_clip(media, tmp_path, monkeypatch):
    manifest(tmp_path / "corpus", ["http://127.0.0.1:9/a.mp4,0,1"])
    monkeypatch.setenv("EARSHOT_COOKIES", str(tmp_path / "cookies.txt"))
    code, _, error = finish(stage(tmp_path))
    assert code == 1
    assert "cookies.txt" in error and "EARSHOT_COOKIES" in error and "Traceback" not in error


# Downloaded clips are reused


@pytest.fixture
def run_here(monkeypatch, capsys):
    """Runs the stage over a manifest of some rows, in this process, which imports its libraries once; closing line."""
    for name, value in (AT_ONCE | {"EARSHOT_WORKERS": "1"}).items():
        monkeypatch.setenv(name, value)
    settings.cache_clear()

    def run(root, rows, *changes, header="url,start,end", options=()):
        manifest(root / "corpus", rows, header)
        sets = [f"--set={change}" for change in ("corpus.manifest=corpus", *changes)]
        stage_download.STAGE.run(
            stage_download.main,
            ["--root", str(root), "--params", str(REPOSITORY / "params.yaml"), *sets, *options],
            views=stage_download.VIEWS,
            retry=stage_download.RETRIED_REASONS,
        )
        return capsys.readouterr().out

    yield run
    settings.cache_clear()


def clips_of(root):
    """Bytes of all files of data/clips, by name."""
    files = [path for path in (root / "data/clips").rglob("*") if path.is_file()]
    return {str(path.relative_to(root)): path.read_bytes() for path in files}


@pytest.fixture
def rows_of(media):
    """A server, and a function that gives the rows of its videos, one a letter."""
    with MediaServer({f"{name}.mp4": serve(media / "whole.mp4") for name in "abcd"}) as server:
        yield server, lambda names: [f"{server.address(f'{name}.mp4')},1,3" for name in names]


def test_with_the_same_manifest_and_parameters_nothing_is_fetched_again(rows_of, run_here, tmp_path):
    server, rows = rows_of
    small = "download.shard_clips=2"
    first = run_here(tmp_path, rows("abc") + [f"{server.address('nothing.mp4')},0,1"], small)
    before, metrics = clips_of(tmp_path), (tmp_path / "metrics/download.json").read_text()
    server.requests.clear()
    (tmp_path / "metrics/download.json").unlink()
    shutil.rmtree(tmp_path / ".earshot")
    again = run_here(tmp_path, rows("abc") + [f"{server.address('nothing.mp4')},0,1"], small)
    assert (again, clips_of(tmp_path)) == (first, before)
    assert (tmp_path / "metrics/download.json").read_text() == metrics
    assert not server.requests


@pytest.mark.slow
def test_of_another_list_only_new_clips_are_fetched(rows_of, run_here, tmp_path):
    server, rows = rows_of
    gone = [f"{server.address('nothing.mp4')},0,1"]
    run_here(tmp_path / "grown", rows("ab") + gone, "download.shard_clips=2")
    server.requests.clear()
    for names, new in (("abc", {"c.mp4"}), ("ca", set()), ("ad", {"d.mp4"})):
        run_here(tmp_path / "grown", rows(names) + gone, "download.shard_clips=2")
        assert set(server.requests) == new
        server.requests.clear()
    run_here(tmp_path / "other", rows("ad") + gone, "download.shard_clips=1")
    run_here(tmp_path / "grown", rows("ad") + gone, "download.shard_clips=1")
    assert clips_of(tmp_path / "grown") == clips_of(tmp_path / "other"), "as if fetched at once"


@pytest.mark.slow
def test_a_shard_of_the_same_rows_is_linked(rows_of, run_here, tmp_path):
    _, rows = rows_of
    run_here(tmp_path, rows("ab"), "download.shard_clips=1")
    before = (tmp_path / "data/clips/00000.tar").stat().st_ino
    run_here(tmp_path, rows("abc"), "download.shard_clips=1")
    assert (tmp_path / "data/clips/00000.tar").stat().st_ino == before


@pytest.mark.slow
def test_damaged_clips_and_those_of_other_conditions_are_fetched_again(rows_of, run_here, tmp_path):
    server, rows = rows_of
    whole = run_here(tmp_path, rows("ab"), "download.shard_clips=1")
    before = clips_of(tmp_path)
    server.requests.clear()
    tar = tmp_path / "data/clips/00001.tar"
    tar.unlink()
    assert run_here(tmp_path, rows("ab"), "download.shard_clips=1") == whole
    assert set(server.requests) == {"b.mp4"} and clips_of(tmp_path) == before
    tar.write_bytes(b"no tar" * 1000)
    assert run_here(tmp_path, rows("abc"), "download.shard_clips=3") == "3 of 3 clips kept; left out: none\n"
    server.requests.clear()
    run_here(tmp_path, rows("abc"), "download.shard_clips=3", "download.max_megabytes=400.0")
    assert set(server.requests) == {"a.mp4", "b.mp4", "c.mp4"}


@pytest.mark.slow
def test_files_beside_the_manifest_are_read_again_when_they_have_changed(run_here, media, tmp_path):
    (tmp_path / "corpus").mkdir()
    for name, reason in (("front.mp4", ""), ("silent.mp4", "no-sound")):
        shutil.copy(media / name, tmp_path / "corpus/a.mp4")
        run_here(tmp_path, ["a.mp4,0,4"], header="path,start,end")
        (row,) = read_ledger(tmp_path / "data/clips/ledger/00000.csv")
        assert row.reason == reason


@pytest.mark.slow
def test_only_pending_clips_are_requested_again(rows_of, run_here, media, tmp_path):
    server, rows = rows_of
    server.behaviors["c.mp4"] = status(500)
    assert run_here(tmp_path, rows("abc"), "corpus.accept_pending=true").endswith("1 pending\n")
    server.requests.clear()
    server.behaviors["c.mp4"] = serve(media / "whole.mp4")
    assert run_here(tmp_path, rows("abc")) == "3 of 3 clips kept; left out: none\n"
    assert set(server.requests) == {"c.mp4"}


def outcomes(root):
    rows = read_ledger(root / "data/clips/ledger/00000.csv")
    return "".join("k" if row.status == "kept" else {"not-found": "n", "no-sound": "s"}[row.reason] for row in rows)


@pytest.fixture
def refused_rows(rows_of, media):
    """Four clips on a server, of which b is not found and c has no sound, until it is mended."""
    server, rows = rows_of
    server.behaviors |= {"b.mp4": status(404), "c.mp4": serve(media / "silent.mp4")}

    def mend():
        server.requests.clear()
        server.behaviors |= {name: serve(media / "whole.mp4") for name in ("b.mp4", "c.mp4")}

    return server, rows("abcd"), mend


@pytest.mark.parametrize(
    ("reasons", "after", "requested"),
    [
        (["not-found"], "kksk", {"b.mp4"}),
        pytest.param(["no-sound"], "knkk", {"c.mp4"}, marks=pytest.mark.slow),
        (["not-found", "no-sound"], "kkkk", {"b.mp4", "c.mp4"}),
        pytest.param(["unsupported"], "knsk", set(), marks=pytest.mark.slow),
    ],
)
def test_refused_clips_are_requested_again_by_reason(refused_rows, run_here, tmp_path, reasons, after, requested):
    server, rows, mend = refused_rows
    run_here(tmp_path, rows)
    assert outcomes(tmp_path) == "knsk"
    mend()
    run_here(tmp_path, rows)
    assert not server.requests, "a refused clip stays refused"
    message = "no clip was refused" if not requested else f"{len(requested)} clips are requested again"
    with pytest.warns(UserWarning, match=f"--retry {' '.join(reasons)}: {message}"):
        run_here(tmp_path, rows, options=[f"--retry={reason}" for reason in reasons])
    assert (outcomes(tmp_path), set(server.requests)) == (after, requested)


@pytest.mark.slow
def test_a_retry_that_is_interrupted_continues_without_the_option(refused_rows, run_here, tmp_path):
    server, rows, mend = refused_rows
    run_here(tmp_path, rows)
    mend()
    server.behaviors["b.mp4"] = status(503)
    with pytest.warns(UserWarning, match="1 clips are"), pytest.raises(SystemExit, match="1 of 4 clips are pending"):
        run_here(tmp_path, rows, options=["--retry=not-found"])
    mend()
    run_here(tmp_path, rows)
    assert (outcomes(tmp_path), set(server.requests)) == ("kksk", {"b.mp4"})


@pytest.mark.slow
def test_clips_of_an_unfinished_run_are_requested_again_too(refused_rows, run_here, tmp_path):
    """One shard is finished, its clips only in its tar file; another has a pending clip."""
    server, rows, mend = refused_rows
    server.behaviors["d.mp4"] = status(503)
    with pytest.raises(SystemExit, match="1 of 4 clips are pending"):
        run_here(tmp_path, rows, "download.shard_clips=3")
    mend()
    server.behaviors["d.mp4"] = server.behaviors["a.mp4"]
    with pytest.warns(UserWarning, match="1 clips are"):
        run_here(tmp_path, rows, "download.shard_clips=3", options=["--retry=not-found"])
    assert (outcomes(tmp_path), set(server.requests)) == ("kks", {"b.mp4", "d.mp4"})


def test_a_reason_that_is_none_is_named(run_here, tmp_path, capsys):
    with pytest.raises(SystemExit):
        run_here(tmp_path, [], options=["--retry=unsuported"])
    assert re.search("invalid choice: 'unsuported' .*unsupported", capsys.readouterr().err)


def test_the_status_names_its_list(rows_of, run_here, tmp_path, capsys):
    _, rows = rows_of
    for changes, line in [
        ([], "corpus"),
        (["corpus.select.clips=1"], "data/clips, made by another request than that of corpus; at most 1 clips"),
        (
            ["corpus.select.classes=[cat,dog]"],
            "data/clips, made by another request than that of corpus; classes cat, dog",
        ),
    ]:
        if not changes:
            run_here(tmp_path, rows("ab"))
        out = run_here(tmp_path, rows("ab"), *changes, options=["--status", "--json"])
        assert json.loads(out)["list"] == line
    shutil.rmtree(tmp_path / "data")
    assert json.loads(run_here(tmp_path, rows("ab"), options=["--status", "--json"]))["list"] == "corpus"


def test_a_cluster_that_download_does_not_use_is_named(rows_of, run_here, tmp_path, monkeypatch):
    _, rows = rows_of
    monkeypatch.setenv("EARSHOT_CLUSTER", "tcp://127.0.0.1:9")
    settings.cache_clear()
    with pytest.raises(SystemExit, match="EARSHOT_CLUSTER is set, but only describe, extract, label can use it; unset"):
        run_here(tmp_path, rows("a"))
    monkeypatch.setenv("DVC_STAGE", "download")  # under DVC the setting is for the stages after it
    with pytest.warns(UserWarning, match="EARSHOT_CLUSTER is set, but download requests clips from this machine alone"):
        assert run_here(tmp_path, rows("a")) == "1 of 1 clips kept; left out: none\n"


@pytest.mark.parametrize(
    ("stage", "variable", "value", "can"),
    [
        ("download", "PROCESSES", "2", "correspond, pretrain"),
        ("download", "DEVICE", "cpu", "correspond, describe, evaluate, explain, pretrain"),
        ("extract", "PROXY", "http://a", "download"),
        ("extract", "THREADS", "2", "correspond, evaluate, explain, label, pretrain"),
        ("sample", "CLUSTER", "tcp://a:1", "describe, extract, label"),
        ("pretrain", "CLUSTER", "tcp://a:1", "describe, extract, label"),
        ("report", "COOKIES", "a", "download"),
        ("label", "PATIENCE", "0", "download"),
    ],
)
def test_a_stage_refuses_a_setting_that_it_does_not_read(monkeypatch, stage, variable, value, can):
    check_settings(stage)
    monkeypatch.setenv(f"EARSHOT_{variable}", value)
    with pytest.raises(EarshotError, match=f"EARSHOT_{variable} is set, but only {can} can use it; unset it"):
        check_settings(stage)
    for reader in can.split(", "):
        check_settings(reader)
    monkeypatch.setenv("DVC_STAGE", stage)
    check_settings(stage)
    monkeypatch.delenv("DVC_STAGE")
    monkeypatch.setenv(f"EARSHOT_{variable}", "")
    check_settings(stage)


@pytest.mark.slow
def test_a_manifest_that_is_written_anew_with_the_same_content_is_the_same_work(rows_of, run_here, media, tmp_path):
    """As `dvc exp run` writes edited files."""
    server, rows = rows_of
    server.behaviors["c.mp4"] = status(500)
    with pytest.raises(SystemExit):
        run_here(tmp_path, rows("abc"))
    server.requests.clear()
    server.behaviors["c.mp4"] = serve(media / "whole.mp4")
    run_here(tmp_path, rows("abc"))
    assert set(server.requests) == {"c.mp4"}


@pytest.mark.slow
def test_under_dvc_no_edit_of_code_and_no_forced_run_fetches_again(rows_of, tmp_path):
    server, rows = rows_of
    for name in ("earshot", "stages"):
        shutil.copytree(REPOSITORY / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("dvc.yaml", "params.yaml", "none"):
        shutil.copy(REPOSITORY / name, tmp_path)
    params = (tmp_path / "params.yaml").read_text().replace("manifest: data/sample/corpus", "manifest: list.csv")
    (tmp_path / "params.yaml").write_text(params)
    (tmp_path / "list.csv").write_text("\n".join(["url,start,end", *rows("abc")]) + "\n")
    environment = {**os.environ, **AT_ONCE, "DVC_NO_ANALYTICS": "1", "DVC_SITE_CACHE_DIR": str(tmp_path / "site")}

    def dvc(*words):
        command = [sys.executable, "-m", "dvc", *words]
        environment["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    dvc("init", "--no-scm")
    dvc("repro", "--single-item", "download")
    assert set(server.requests) == {"a.mp4", "b.mp4", "c.mp4"}
    before = clips_of(tmp_path)
    server.requests.clear()
    for file in [*tmp_path.glob("earshot/**/*.py"), *tmp_path.glob("stages/*.py")]:
        file.write_text(file.read_text() + "\nEDITED = True\n")
    assert dvc("status", "download").strip() == "Data and pipelines are up to date."
    assert "3 of 3 clips kept" in dvc("repro", "--force", "--single-item", "download")
    assert not server.requests and clips_of(tmp_path) == before
