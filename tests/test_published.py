"""Published lists: fetched once, verified by their checksum, and every way in which that can fail."""

import email.utils
import hashlib
import json
import subprocess
import sys
import time

import pytest
from conftest import PARAMS, REPOSITORY
from media_server import MediaServer, endless, lie, send, serve, status
from odd_media import MP4, render

from earshot.core.errors import EarshotError
from earshot.download import published
from earshot.download.published import open_manifest, read_published

AUDIOSET = "# a list\n" + "".join(f'abc-_{n:06d}, {10 * n}.000, {10 * n + 10}.000, "/m/09x0r"\n' for n in range(400))
AVE = "Category&VideoID&Quality&StartTime&EndTime\nBark&abc-_000002&good&0&10\nBell&abc-_000999&good&2&8\n"
AVE += "Dog&abc-_000002&good&3&5\n"


@pytest.fixture(autouse=True)
def impatient(monkeypatch):
    monkeypatch.setattr(published, "PAUSE_SECONDS", 0.01)
    monkeypatch.setattr(published, "READ_TIMEOUT_SECONDS", 0.5)


@pytest.fixture
def at_hand(tmp_path):
    """The list on the server."""
    (tmp_path / "list.csv").write_text(AUDIOSET)
    return tmp_path / "list.csv"


def listed(address, text=None, **changes):
    known = {"sha256": hashlib.sha256(text.encode()).hexdigest(), "bytes": len(text)} if text else {}
    return {"address": address, "sha256": None, "bytes": None} | known | changes


def named(folder, *lists, starts=()):
    file = folder / "named.json"
    file.write_text(json.dumps({"about": "a list", "lists": lists, "starts": starts}))
    return file


def test_a_list_is_fetched_once_and_read_as_any_file_is(tmp_path, at_hand):
    with MediaServer({"v1/list.csv": serve(at_hand)}) as server:
        file = named(tmp_path, listed(server.address("v1/list.csv"), AUDIOSET))
        for _ in range(2):
            manifest = open_manifest(file, tmp_path / "lists")
            rows = [row for _, row in manifest.rows()]
        assert server.requests == {"v1/list.csv": 1}
    assert (len(rows), rows[3].clip_id, rows[3].annotations) == (400, "abc-_000003_30000", ("/m/09x0r",))
    assert manifest.unknown() == []
    manifest.write_lists(tmp_path)
    record = json.loads((tmp_path / "lists.json").read_text())
    assert record == [listed(server.address("v1/list.csv"), AUDIOSET)]


def test_several_lists_are_read_one_after_another(tmp_path):
    texts = [f"label,youtube_id,time_start,time_end,split\nsinging,abc-_00000{n},0,10,train\n" for n in (1, 2)]
    with MediaServer({f"{n}.csv": send(text.encode()) for n, text in enumerate(texts)}) as server:
        file = named(tmp_path, *(listed(server.address(f"{n}.csv"), text) for n, text in enumerate(texts)))
        rows = [row for _, row in open_manifest(file, tmp_path / "lists").rows()]
    assert [row.group for row in rows] == ["abc-_000001", "abc-_000002"]


def test_ave_begins_where_audiosets_lists_say(tmp_path, at_hand):
    with MediaServer({"list.csv": serve(at_hand), "Annotations.txt": send(AVE.encode())}) as server:
        starts = [listed(server.address("list.csv"), AUDIOSET)]
        file = named(tmp_path, listed(server.address("Annotations.txt"), AVE), starts=starts)
        known, unknown = (row for _, row in open_manifest(file, tmp_path / "lists").rows())
    assert (known.clip_id, known.start, known.annotations) == ("abc-_000002_20000", 20.0, ("Bark", "Dog"))
    assert (unknown.is_local, unknown.source) == (True, "abc-_000999.mp4")


def test_a_list_without_a_checksum_is_used_reported_and_kept(tmp_path, at_hand):
    with MediaServer({"list.csv": serve(at_hand)}) as server:
        file = named(tmp_path, listed(server.address("list.csv")))
        (message,) = open_manifest(file, tmp_path / "lists").unknown()
        at_hand.write_text(AUDIOSET + "more\n")
        again = open_manifest(file, tmp_path / "lists")
        assert server.requests == {"list.csv": 1}
    assert hashlib.sha256(AUDIOSET.encode()).hexdigest() in message and f"{len(AUDIOSET):,} bytes" in message
    assert sum(1 for _ in again.rows()) == 400


def test_another_list_at_the_same_address_is_refused_with_both_checksums(tmp_path, at_hand):
    with MediaServer({"list.csv": serve(at_hand)}) as server:
        file = named(tmp_path, listed(server.address("list.csv"), AUDIOSET))
        at_hand.write_text(AUDIOSET.replace("09x0r", "09x0s"))
        changed = hashlib.sha256(at_hand.read_bytes()).hexdigest()
        with pytest.raises(EarshotError, match=f"named.json: http.* the sha256 {changed}, expected .* has changed"):
            open_manifest(file, tmp_path / "lists")
        at_hand.write_text(AUDIOSET)
        assert sum(1 for _ in open_manifest(file, tmp_path / "lists").rows()) == 400


def test_a_kept_list_that_was_damaged_is_fetched_again(tmp_path, at_hand):
    with MediaServer({"list.csv": serve(at_hand)}) as server:
        file = named(tmp_path, listed(server.address("list.csv"), AUDIOSET))
        (fetched,) = open_manifest(file, tmp_path / "lists").lists
        fetched.file.write_text("half of it")
        assert sum(1 for _ in open_manifest(file, tmp_path / "lists").rows()) == 400
        assert server.requests == {"list.csv": 2}


def test_an_interrupted_list_is_resumed(tmp_path, at_hand, monkeypatch):
    monkeypatch.setattr(published, "CHUNK_BYTES", 1000)
    ranges = []

    def breaking(handler):
        ranges.append(handler.headers.get("Range"))
        if len(ranges) == 1:
            (tmp_path / "half").write_text(AUDIOSET[:5000])
            lie(tmp_path / "half", len(AUDIOSET) - 5000)(handler)
        else:
            serve(at_hand)(handler)

    with MediaServer({"list.csv": breaking}) as server:
        file = named(tmp_path, listed(server.address("list.csv"), AUDIOSET))
        assert sum(1 for _ in open_manifest(file, tmp_path / "lists").rows()) == 400
    assert ranges == [None, "bytes=5000-"]


def test_parts_of_two_lists_are_detected_and_the_list_is_fetched_again(tmp_path, at_hand):
    with MediaServer({"list.csv": serve(at_hand)}) as server:
        file = named(tmp_path, listed(server.address("list.csv"), AUDIOSET))
        (fetched,) = open_manifest(file, tmp_path / "lists").lists
        fetched.file.unlink()
        for rest in (b"another list" * 99, AUDIOSET.encode() + b"!" * 99):
            (tmp_path / "lists" / f".{fetched.file.name}.part").write_bytes(rest)
            assert sum(1 for _ in open_manifest(file, tmp_path / "lists").rows()) == 400
            fetched.file.unlink()


def test_a_temporary_failure_is_retried(tmp_path, at_hand):
    trouble = [status(503), status(429, Retry_After="0"), serve(at_hand)]
    with MediaServer({"list.csv": lambda handler: trouble.pop(0)(handler)}) as server:
        file = named(tmp_path, listed(server.address("list.csv"), AUDIOSET))
        assert sum(1 for _ in open_manifest(file, tmp_path / "lists").rows()) == 400


def test_a_retry_after_is_obeyed(tmp_path, at_hand):
    until = int(time.time()) + 3
    ranges = []

    def limit(handler):
        ranges.append(time.time())
        first = len(ranges) == 1
        (status(429, Retry_After=email.utils.formatdate(until, usegmt=True)) if first else serve(at_hand))(handler)

    with MediaServer({"list.csv": limit}) as server:
        open_manifest(named(tmp_path, listed(server.address("list.csv"), AUDIOSET)), tmp_path / "lists")
    assert ranges[0] < until <= ranges[1] and len(ranges) == 2


@pytest.mark.parametrize(
    ("behavior", "message", "requests"),
    [
        (status(404), "answers 404; get the list by other means", 1),
        (status(403), "answers 403", 1),
        (status(500), "cannot be fetched (it answers 500); run again later", published.TRIES),
        (status(302, Location="list.csv"), "cannot be requested", published.REDIRECTS + 1),
        (status(302, Location="file:///etc/passwd"), "cannot be requested", 1),
        (status(302, Location="ftp://127.0.0.1/list.csv"), "cannot be requested", 1),
        (endless(), f"gives more than {len(AUDIOSET):,} bytes", 1),
    ],
)
def test_a_list_that_cannot_be_fetched_is_one_line(tmp_path, behavior, message, requests):
    with MediaServer({"list.csv": behavior}) as server:
        file = named(tmp_path, listed(server.address("list.csv"), AUDIOSET))
        with pytest.raises(EarshotError) as error:
            open_manifest(file, tmp_path / "lists")
        assert server.requests == {"list.csv": requests}
    assert message in str(error.value) and "named.json" in str(error.value) and "\n" not in str(error.value)
    assert not list((tmp_path / "lists").glob("[!.]*.csv"))


def test_a_silent_server_is_given_up(tmp_path, monkeypatch):
    monkeypatch.setattr(published, "TRIES", 2)
    monkeypatch.setattr(published, "READ_TIMEOUT_SECONDS", 0.1)

    def quiet(handler):
        handler.server.media.ending.wait(5)

    with MediaServer({"list.csv": quiet}) as server:
        file = named(tmp_path, listed(server.address("list.csv")))
        with pytest.raises(EarshotError, match=r"cannot be fetched \(.*timed? ?out.*run again later"):
            open_manifest(file, tmp_path / "lists")


def test_a_list_that_drips_is_given_up_in_time(tmp_path, monkeypatch):
    monkeypatch.setattr(published, "LIST_SECONDS", 0.3)
    with MediaServer({"list.csv": endless()}) as server:
        file = named(tmp_path, listed(server.address("list.csv")))
        with pytest.raises(EarshotError, match=r"took more than 0\.3 s"):
            open_manifest(file, tmp_path / "lists")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[1]", "the whole: Input should be an object"),
        ("{", "Invalid JSON"),
        ('{"about": "x", "lists": []}', "lists: "),
        (
            '{"about": "x", "lists": [{"address": "file:///x", "sha256": null, "bytes": null}]}',
            "lists.0.address",
        ),
        ('{"about": "x", "lists": [{"address": "https://a.org/x", "sha256": "1234", "bytes": 9}]}', "lists.0.sha256"),
        ('{"about": "x", "lists": [{"address": "https://a.org/x", "bytes": 9}]}', "lists.0.sha256: Field required"),
        ('{"about": "x", "lists": [{"address": "https://a.org/x", "sha256": null, "bytes": 0}]}', "lists.0.bytes"),
        ('{"about": "x", "url": "https://a.org/x"}', "lists: Field required"),
    ],
)
def test_a_file_that_names_no_lists_is_refused_by_field(tmp_path, text, message):
    (tmp_path / "named.json").write_text(text)
    with pytest.raises(EarshotError, match="named.json: ") as error:
        open_manifest(tmp_path / "named.json", tmp_path / "lists")
    assert message in str(error.value)
    assert not (tmp_path / "lists").exists()


# The files of this repository


def test_every_file_under_manifests_is_valid_and_uses_https():
    files = sorted((REPOSITORY / "manifests").glob("*"))
    assert {file.stem for file in files} >= {
        "audioset-balanced",
        "audioset-unbalanced",
        "audioset-eval",
        "vggsound",
        "ave",
    }
    for file in files:
        message = read_published(file)
        assert all(part.address.startswith("https://") for part in (*message.lists, *message.starts))
        assert all((part.sha256 is None) == (part.bytes is None) for part in (*message.lists, *message.starts))


AT_HAND = {
    "audioset-balanced": "audioset/balanced_train_segments.csv",
    "audioset-eval": "audioset/eval_segments.csv",
    "ave": "ave/Annotations.txt",
    "vggsound-test": "vggsound/test.csv",
}


@pytest.mark.parametrize("name", AT_HAND)
def test_the_checksums_are_those_of_the_published_lists(real_data, name):
    data = (real_data / "metadata" / AT_HAND[name]).read_bytes()
    (message,) = read_published(REPOSITORY / "manifests" / f"{name}.json").lists
    assert (message.sha256, message.bytes) == (hashlib.sha256(data).hexdigest(), len(data))
    assert message.address.endswith(AT_HAND[name].rpartition("/")[2])


# The stage


def test_the_stage_fetches_a_named_list_and_requests_the_selected_clips(tmp_path):
    render(tmp_path / "v.mp4", *MP4, "-t", 2)
    text = "url,start,end,label\n"
    with MediaServer({f"{n}.mp4": serve(tmp_path / "v.mp4") for n in range(6)}) as server:
        text += "".join(f"{server.address(f'{n}.mp4')},0,2,{'dog' if n % 2 else 'rain'}\n" for n in range(6))
        server.behaviors["list.csv"] = send(text.encode(), "text/csv")
        (tmp_path / "manifests").mkdir()
        file = named(tmp_path / "manifests", listed(server.address("list.csv")))
        selection = ["--set", "corpus.select.classes=[dog]", "--set", "corpus.select.clips=2"]
        command = [sys.executable, "-m", "stages.download", "--root", tmp_path, "--params", PARAMS]
        command += ["--set", "corpus.manifest=manifests/named.json", *selection]
        done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        ranges = {name for name in server.requests if name.endswith(".mp4")}
    assert done.stdout == "2 of 2 clips kept; left out: none\n"
    assert f"download: {file}: no checksum is known" in done.stderr
    assert len(ranges) == 2 and ranges < {"1.mp4", "3.mp4", "5.mp4"}
    record = json.loads((tmp_path / "data" / "clips" / "lists.json").read_text())
    assert record == [listed(server.address("list.csv"), text)]
    assert not list((tmp_path / ".earshot" / "download").iterdir())
    assert len(list((tmp_path / ".earshot" / "lists").glob("unknown-*-list.csv"))) == 1
