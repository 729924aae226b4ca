"""Downloading: the seconds asked for, the true reason where they cannot be had, and nothing asked for twice."""

import errno
import json
import os
import pickle
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
from media_server import MediaServer, drip, endless, lie, say, serve, stall, status
from yt_dlp.utils import DownloadError, ExtractorError, GeoRestrictedError

from earshot.corpus.completeness import asked_shards, never_had
from earshot.corpus.cutting import cut, measure
from earshot.corpus.dealing import deal
from earshot.corpus.download import Job, download_shard
from earshot.corpus.fetching import _refusal, fetch
from earshot.corpus.guard import Lost, guarded_map
from earshot.corpus.ledger import Refusal, read_ledger
from earshot.pipeline.errors import EarshotError

REPOSITORY = Path(__file__).resolve().parents[1]
GREY_STEP, TONE_STEP = 20, 100  # a second of the test video: levels of grey, Hz of the tone


def render(path, *arguments):
    """Run ffmpeg; the path is the output."""
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-nostdin", "-y", "-loglevel", "error", *arguments, str(path)]
    subprocess.run(command, check=True)
    return path


@pytest.fixture(scope="module")
def media(tmp_path_factory):
    """Real media of twelve seconds with one key frame: second n is grey 20 n and sounds at 200 + 100 n Hz."""
    folder = tmp_path_factory.mktemp("media")
    grey = f"color=black:size=64x48:rate=10:duration=12,geq=lum='{GREY_STEP}*floor(T)':cb=128:cr=128"
    tone = f"aevalsrc='0.5*sin(2*PI*(200+{TONE_STEP}*floor(t))*t)':sample_rate=16000:duration=12"
    form = ["-pix_fmt", "yuv420p", "-g", "1000", "-c:a", "aac"]
    whole = render(folder / "whole.mp4", "-f", "lavfi", "-i", grey, "-f", "lavfi", "-i", tone, *form)
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


def grey_and_tone(clip):
    """Level of the first picture, and the frequency (Hz) of the first half second of sound."""
    with av.open(str(clip)) as file:
        grey = next(file.decode(video=0)).to_ndarray()[:48].mean()  # the Y of yuv420p
    with av.open(str(clip)) as file:
        rate = file.streams.audio[0].rate
        sound = np.concatenate([frame.to_ndarray()[0] for frame in file.decode(audio=0)])
    spectrum = np.abs(np.fft.rfft(sound[rate // 20 : rate // 2]))
    return grey, spectrum.argmax() * rate / len(sound[rate // 20 : rate // 2])


def is_second(clip, second):
    grey, tone = grey_and_tone(clip)
    return abs(grey - GREY_STEP * second) < 5 and abs(tone - 200 - TONE_STEP * second) < 10


# The cut


@pytest.mark.parametrize("name", ["whole.mp4", "front.mp4", "whole.mkv", "whole.ts"])
def test_a_cut_has_the_seconds_asked_for_wherever_key_frames_are(media, tmp_path, name):
    assert cut([media / name], 7, 10, tmp_path / "clip.mp4") == pytest.approx(3, abs=0.1)
    assert is_second(tmp_path / "clip.mp4", 7)
    for start, end in measure(tmp_path / "clip.mp4"):
        assert (start, end) == (pytest.approx(0, abs=0.1), pytest.approx(3, abs=0.1))


def test_picture_and_sound_may_come_from_two_files(media, tmp_path):
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


@pytest.mark.parametrize("playlist", ["ffconcat version 1.0\nfile whole.mp4\n", "#EXTM3U\n#EXTINF:12,\nwhole.mp4\n"])
def test_a_playlist_is_not_followed(media, tmp_path, playlist):
    (tmp_path / "whole.mp4").symlink_to(media / "whole.mp4")
    (tmp_path / "list.mp4").write_text(playlist)
    with pytest.raises(Refusal, match="unreadable"):
        cut([tmp_path / "list.mp4"], 0, 12, tmp_path / "clip.mp4")


# The fetch


@pytest.fixture(scope="module")
def server(media):
    behaviours = {
        "gone": status(410),
        "secret": status(403),
        "login": status(401),
        "limit": status(429, Retry_After=60),
        "broken": status(503),
        "law": status(451),
        "circle": status(302, Location="/circle"),
        "inward": status(302, Location="file:///etc/hostname"),
        "page": say(b"<html><body>nothing to see</body></html>", "text/html"),
        "list": say(b'<html><video src="/a.mp4"></video><video src="/b.mp4"></video></html>', "text/html"),
        "files.m3u8": say(b"#EXTM3U\n#EXTINF:10,\nfile:///etc/hostname\n#EXT-X-ENDLIST\n", "application/x-mpegurl"),
        "empty.mp4": say(b""),
        "stalled.mp4": stall(),
        "halfway.mp4": stall((media / "whole.mp4").read_bytes()[:5000]),
        "torn.mp4": lie(media / "whole.mp4", 1000),
        "endless.mp4": endless(),
        "large.mp4": lie(media / "whole.mp4", 10**9),
    }
    with MediaServer(behaviours) as running:
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
        ("circle", "unsupported"),
        ("inward", "unsupported"),
        ("page", "unsupported"),
        ("list", "unsupported"),
        ("files.m3u8", "unsupported"),
        ("empty.mp4", "network"),
        ("stalled.mp4", "network"),
        ("halfway.mp4", "network"),
        ("torn.mp4", "network"),
        ("endless.mp4", "too-large"),
        ("large.mp4", "too-large"),
    ],
)
def test_what_a_server_does_has_its_reason(server, tmp_path, name, reason):
    patience = 2 if name in ("stalled.mp4", "halfway.mp4") else 60
    with pytest.raises(Refusal) as refusal:
        fetch(server.address(name), tmp_path / "fetched", megabytes=3, seconds=patience)
    assert refusal.value.reason == reason, refusal.value.detail


def test_of_many_formats_the_smallest_that_will_do_is_fetched(media, tmp_path):
    """Picture and sound apart, as the large sites have them."""
    picture = '<Representation id="{}" codecs="avc1.4d401e" width="{}" height="{}" bandwidth="{}"><BaseURL>{}</BaseURL>'
    small, large = picture.format("p", 640, 360, 1e5, "silent.mp4"), picture.format("q", 1280, 720, 1e6, "large.mp4")
    sound = '<Representation id="s" codecs="mp4a.40.2" bandwidth="64000"><BaseURL>blind.mp4</BaseURL>'
    listing = (
        '<MPD xmlns="urn:mpeg:dash:schema:mpd:2011" type="static" mediaPresentationDuration="PT12S"><Period>'
        f'<AdaptationSet mimeType="video/mp4">{small}</Representation>{large}</Representation></AdaptationSet>'
        f'<AdaptationSet mimeType="audio/mp4">{sound}</Representation></AdaptationSet></Period></MPD>'
    )
    behaviours = {name: serve(media / name) for name in ("silent.mp4", "blind.mp4")}
    with MediaServer(behaviours | {"all.mpd": say(listing.encode(), "application/dash+xml")}) as server:
        fetch(server.address("all.mpd"), tmp_path / "fetched", megabytes=3, seconds=60)
        assert server.requests == {"all.mpd": 1, "silent.mp4": 1, "blind.mp4": 1}
    cut(sorted((tmp_path / "fetched").iterdir()), 7, 10, tmp_path / "clip.mp4")
    assert is_second(tmp_path / "clip.mp4", 7)


def test_a_video_in_pieces_is_put_together(media, tmp_path):
    listing = b"#EXTM3U\n#EXT-X-TARGETDURATION:12\n#EXTINF:12,\nwhole.ts\n#EXT-X-ENDLIST\n"
    behaviours = {"all.m3u8": say(listing, "application/x-mpegurl"), "whole.ts": serve(media / "whole.ts")}
    with MediaServer(behaviours) as server:
        fetch(server.address("all.m3u8"), tmp_path / "fetched", megabytes=3, seconds=60)
    cut(list((tmp_path / "fetched").iterdir()), 7, 10, tmp_path / "clip.mp4")
    assert is_second(tmp_path / "clip.mp4", 7)


@pytest.mark.parametrize(
    "address",
    ["file:///etc/hostname", "ftp://127.0.0.1/a", "data:text/plain,x", "ytsearch:rain", "/etc/hostname", "http:a", ""],
)
def test_only_http_is_asked(tmp_path, address):
    with pytest.raises(Refusal, match="unsupported"):
        fetch(address, tmp_path / "fetched", megabytes=3, seconds=60)
    assert not (tmp_path / "fetched").exists()


def test_a_refused_connection_is_the_network(tmp_path):
    with MediaServer() as closed:
        address = closed.address("a.mp4")
    with pytest.raises(Refusal, match="network"):
        fetch(address, tmp_path / "fetched", megabytes=3, seconds=60)


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        ("Private video. Sign in if you've been granted access to this video", "private"),
        ("Video unavailable. This video has been removed by the uploader", "removed"),
        ("This video is no longer available because the YouTube account has been terminated.", "removed"),
        ("Video unavailable. The uploader has not made this video available in your country", "geo-blocked"),
        ("Sign in to confirm your age. This video may be inappropriate for some users.", "age-restricted"),
        ("Sign in to confirm you’re not a bot. Use --cookies-from-browser", "blocked"),
        ("Video unavailable. This content isn't available, try again later.", "rate-limited"),
        ("Requested format is not available. Use --list-formats", "unsupported"),
        ("This live event will begin in 3 days.", "unsupported"),
    ],
)
def test_what_youtube_says_has_its_reason(said, reason):
    cause = ExtractorError(said, expected=True, video_id="--PJHxphWEs", ie="youtube")
    refusal = _refusal(DownloadError(f"ERROR: {cause}", (type(cause), cause, None)))
    assert (refusal.reason, refusal.detail) == (reason, said)


def test_a_block_by_country_is_told_by_its_kind():
    cause = GeoRestrictedError("Not here", countries=["NO"])
    assert _refusal(DownloadError("ERROR: Not here", (type(cause), cause, None))).reason == "geo-blocked"


def test_a_full_disk_is_not_the_clips_fault():
    full = OSError(28, "No space left on device")
    with pytest.raises(OSError, match="No space"):
        _refusal(DownloadError("ERROR: unable to write data", (OSError, full, None)))


# The process that can be ended


def _stumble(kind):
    if kind == "crash":
        os.abort()
    if kind == "hang":
        subprocess.run(["sleep", "60"])
    if kind == "mistake":
        raise ValueError("a mistake of ours")
    if kind == "full":
        raise OSError(errno.ENOSPC, "No space left on device", Path("a.mp4"))
    return os.getpid(), kind


def test_an_item_that_hangs_or_crashes_costs_only_itself():
    items = ["one", "crash", "two", "three", "hang", "four"]
    results = dict(guarded_map(_stumble, items, seconds=2))
    assert list(results) == items
    assert [results[name][1] for name in ("one", "two", "three", "four")] == ["one", "two", "three", "four"]
    assert results["crash"] == Lost(hung=False, exit_code=-signal.SIGABRT)
    assert results["hang"] == Lost(hung=True)
    assert results["two"][0] == results["three"][0], "a process that is well does item after item"


def test_a_mistake_of_ours_is_not_taken_for_a_bad_item():
    with pytest.raises(RuntimeError, match="ValueError: a mistake of ours") as mistake:
        list(guarded_map(_stumble, ["mistake"], seconds=5))
    assert "in _stumble" in mistake.value.__notes__[0]
    with pytest.raises(OSError, match="No space") as full:
        list(guarded_map(_stumble, ["full"], seconds=5))
    assert (full.value.errno, full.value.filename) == (errno.ENOSPC, "a.mp4")


class _Spell:
    """Unpickling it makes a folder."""

    def __init__(self, folder):
        self.folder = folder

    def __reduce__(self):
        return os.mkdir, (self.folder,)


def _turn_on_the_parent(spell):
    os.write(int(sys.argv[1]), struct.pack("!i", len(spell)) + spell)  # as multiprocessing frames a message
    return "kept"


def test_what_a_process_that_was_taken_over_says_is_not_run(tmp_path):
    spell = pickle.dumps(_Spell(str(tmp_path / "made")))
    assert list(guarded_map(_turn_on_the_parent, [spell], seconds=5)) == [(spell, Lost(hung=False))]
    assert not (tmp_path / "made").exists()


# The shard


def manifest(folder, rows, header="url,start,end"):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "manifest.csv").write_text("\n".join([header, *rows]) + "\n")
    return folder


def job_for(folder, **changes):
    values = {"seconds": 60.0, "megabytes": 50.0, "accept_pending": False} | changes
    return Job(folder, folder / "asked", folder / "clips", folder / "out", **values)


def run_shard(folder, **changes):
    job = job_for(folder, **changes)
    assert deal(folder, job.asked, 100) == 1
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
        "clips_asked": 6,
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
    asked = {"source": "whole.mp4", "start": 0.0, "end": 12.0, "group": "whole", "annotations": []}
    assert about == {**asked, "seconds": 12.0}
    assert not (corpus / "clips" / "00000").exists(), "what is in the tar file is not kept twice"


def test_the_tar_file_depends_on_nothing_but_the_clips(media, tmp_path):
    for name in ("one", "two"):
        manifest(tmp_path / name, ["whole.mp4,0,12", "whole.mp4,5,7"], "path,start,end")
        (tmp_path / name / "whole.mp4").write_bytes((media / "whole.mp4").read_bytes())
        os.utime(tmp_path / name / "whole.mp4", (1e9, 1e9))
        run_shard(tmp_path / name)
    assert (tmp_path / "one/out/00000.tar").read_bytes() == (tmp_path / "two/out/00000.tar").read_bytes()


def test_clips_of_one_video_in_a_row_are_fetched_once(media, tmp_path):
    with MediaServer({"a.mp4": serve(media / "whole.mp4")}) as server:
        rows = [f"{server.address('a.mp4')},{start},{start + 2}" for start in (1, 4, 8)]
        counts, _ = run_shard(manifest(tmp_path, rows))
        assert counts["clips_kept"] == 3
        assert server.requests == {"a.mp4": 2}, "one request tells what it is, one fetches it"


def test_a_server_that_drips_is_given_up_in_time(media, tmp_path):
    with MediaServer({"a.mp4": drip(media / "whole.mp4", 0.5)}) as server:
        counts, _ = run_shard(manifest(tmp_path, [f"{server.address('a.mp4')},0,12"]), seconds=2.0)
    assert counts == {"clips_asked": 1, "clips_kept": 0, "refused_timeout": 1}


def test_a_clip_that_is_asked_for_twice_is_named(tmp_path):
    folder = manifest(tmp_path, ["a.mp4,0,5", "b.mp4,0,5", "a.mp4,0,7"], "path,start,end")
    with pytest.raises(EarshotError, match="line 4: clip a_0 is asked for on line 2 already"):
        deal(folder, tmp_path / "asked", 2)


def test_a_manifest_is_dealt_into_shards_in_order(tmp_path):
    folder = manifest(tmp_path, [f"{number}.mp4,0,5" for number in range(5)], "path,start,end")
    assert deal(folder, tmp_path / "asked", 2) == 3
    dealt = [path.read_text().count("\n") for path in sorted((tmp_path / "asked").iterdir())]
    assert dealt == [2, 2, 1]


# The stage


def stage(root, *changes, **where):
    command = [sys.executable, "-m", "stages.download", "--root", root, "--params", REPOSITORY / "params.yaml"]
    for change in ("corpus.manifest=corpus", *changes):
        command += ["--set", change]
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY), "EARSHOT_WORKERS": "1"}
    return subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=root, **where
    )


def finish(process):
    out, err = process.communicate(timeout=120)
    return process.returncode, out, err


def test_a_run_with_pending_clips_fails_and_the_next_asks_for_those_alone(media, tmp_path):
    passing = {"c.mp4": status(429), "d.mp4": status(500), "e.mp4": lie(media / "front.mp4", 100)}
    fine = {"a.mp4": serve(media / "whole.mp4"), "b.mp4": serve(media / "whole.mp4", ranges=False)}
    evil = tmp_path / "yt_dlp_plugins" / "extractor"
    evil.mkdir(parents=True)
    (evil / "evil.py").write_text(f"open({str(tmp_path / 'loaded')!r}, 'w')")
    with MediaServer(fine | passing | {"g.mp4": say(b"no video")}) as server:
        rows = [f"{server.address(name + '.mp4')},7,10,{name}" for name in "abcdefg"]
        manifest(tmp_path / "corpus", rows, "url,start,end,group")
        code, _, error = finish(stage(tmp_path))
        assert code == 1
        assert "3 of 7 clips are pending (2 network, 1 rate-limited;" in error
        assert "Traceback" not in error
        assert not (tmp_path / "data").exists()

        server.requests.clear()
        server.behaviours |= {name: serve(media / "front.mp4") for name in ("c.mp4", "e.mp4")}
        code, out, error = finish(stage(tmp_path, "corpus.accept_pending=true"))
        assert code == 0, error
        assert out == "4 of 7 clips kept; left out: 1 not-found, 1 unreadable, 1 pending\n"
        assert set(server.requests) == {"c.mp4", "d.mp4", "e.mp4"}
    metrics = json.loads((tmp_path / "metrics" / "download.json").read_text())
    assert metrics == {
        "clips_asked": 7,
        "clips_kept": 4,
        "clips_pending": 1,
        "refused_not-found": 1,
        "refused_unreadable": 1,
    }
    rows = read_ledger(tmp_path / "data/clips/ledger/00000.csv")
    assert Counter(row.status for row in rows) == {"kept": 4, "refused": 2, "pending": 1}
    missing = [became for shard in asked_shards(tmp_path / "data/clips") for _, _, became in never_had(*shard)]
    assert sorted(missing) == ["pending", "refused_not-found", "refused_unreadable"]
    with tarfile.open(tmp_path / "data/clips/00000.tar") as tar:
        tar.extractall(tmp_path, filter="data")
    clips = sorted(tmp_path.glob("*.mp4"))
    assert len(clips) == 4
    assert all(is_second(clip, 7) and measure(clip)[1].end == pytest.approx(3, abs=0.1) for clip in clips)
    assert not (tmp_path / "loaded").exists(), "code in the working folder is not for yt-dlp"


def test_a_run_that_is_killed_goes_on_with_the_clip_that_it_was_at(media, tmp_path):
    with MediaServer({name: serve(media / "whole.mp4") for name in ("a.mp4", "b.mp4")}) as server:
        server.behaviours["c.mp4"] = stall()
        manifest(tmp_path / "corpus", [f"{server.address(name + '.mp4')},1,3" for name in "abc"])
        process = stage(tmp_path, start_new_session=True)
        deadline = time.monotonic() + 60
        while server.requests["c.mp4"] < 2 and time.monotonic() < deadline:
            time.sleep(0.05)
        process.kill()
        process.communicate()
        deadline = time.monotonic() + 20
        while _commands_with(tmp_path) and time.monotonic() < deadline:
            time.sleep(0.05)
        assert not _commands_with(tmp_path), "nothing goes on working for a run that is gone"

        server.requests.clear()
        server.behaviours["c.mp4"] = serve(media / "whole.mp4")
        code, out, error = finish(stage(tmp_path))
        assert (code, out) == (0, "3 of 3 clips kept; left out: none\n"), error
        assert set(server.requests) == {"c.mp4"}


def _commands_with(folder):
    """The processes whose working folder this is."""
    found = []
    for process in Path("/proc").glob("[0-9]*/cwd"):
        try:
            if process.readlink() == folder:
                found.append(process.parent.name)
        except OSError:
            continue
    return found


def test_cookies_that_cannot_be_read_stop_the_stage_before_any_clip(media, tmp_path, monkeypatch):
    manifest(tmp_path / "corpus", ["http://127.0.0.1:9/a.mp4,0,1"])
    monkeypatch.setenv("EARSHOT_COOKIES", str(tmp_path / "cookies.txt"))
    code, _, error = finish(stage(tmp_path))
    assert code == 1
    assert "cookies.txt" in error and "EARSHOT_COOKIES" in error and "Traceback" not in error
