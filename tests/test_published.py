"""Published lists by name: fetched once, believed by their checksum, and every way in which that can fail."""

import email.utils
import hashlib
import json
import subprocess
import sys
import time

import pytest
from conftest import PARAMS, REPOSITORY
from media_server import MediaServer, endless, lie, say, serve, status
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
    monkeypatch.setattr(published, "SILENCE_SECONDS", 0.5)


@pytest.fixture
def at_hand(tmp_path):
    """The list as the server has it."""
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
    with MediaServer({f"{n}.csv": say(text.encode()) for n, text in enumerate(texts)}) as server:
        file = named(tmp_path, *(listed(server.address(f"{n}.csv"), text) for n, text in enumerate(texts)))
        rows = [row for _, row in open_manifest(file, tmp_path / "lists").rows()]
    assert [row.group for row in rows] == ["abc-_000001", "abc-_000002"]


def test_ave_begins_where_audiosets_lists_say(tmp_path, at_hand):
    with MediaServer({"list.csv": serve(at_hand), "Annotations.txt": say(AVE.encode())}) as server:
        starts = [listed(server.address("list.csv"), AUDIOSET)]
        file = named(tmp_path, listed(server.address("Annotations.txt"), AVE), starts=starts)
        known, unknown = (row for _, row in open_manifest(file, tmp_path / "lists").rows())
    assert (known.clip_id, known.start, known.annotations) == ("abc-_000002_20000", 20.0, ("Bark", "Dog"))
    assert (unknown.is_local, unknown.source) == (True, "abc-_000999.mp4")


def test_a_list_without_a_checksum_is_taken_told_and_kept(tmp_path, at_hand):
    with MediaServer({"list.csv": serve(at_hand)}) as server:
        file = named(tmp_path, listed(server.address("list.csv")))
        (told,) = open_manifest(file, tmp_path / "lists").unknown()
        at_hand.write_text(AUDIOSET + "more\n")
        again = open_manifest(file, tmp_path / "lists")
        assert server.requests == {"list.csv": 1}
    assert hashlib.sha256(AUDIOSET.encode()).hexdigest() in told and f"{len(AUDIOSET):,} bytes" in told
    assert sum(1 for _ in again.rows()) == 400


def test_another_list_at_the_same_address_is_refused_with_both_checksums(tmp_path, at_hand):
    with MediaServer({"list.csv": serve(at_hand)}) as server:
        file = named(tmp_path, listed(server.address("list.csv"), AUDIOSET))
        at_hand.write_text(AUDIOSET.replace("09x0r", "09x0s"))
        changed = hashlib.sha256(at_hand.read_bytes()).hexdigest()
        with pytest.raises(EarshotError, match=f"named.json: http.* the sha256 {changed}, wanted .* another one now"):
            open_manifest(file, tmp_path / "lists")
        at_hand.write_text(AUDIOSET)
        assert sum(1 for _ in open_manifest(file, tmp_path / "lists").rows()) == 400


def test_a_kept_list_that_was_damaged_is_fetched_again(tmp_path, at_hand):
    with MediaServer({"list.csv": serve(at_hand)}) as server:
        file = named(tmp_path, listed(server.address("list.csv"), AUDIOSET))
        (found,) = open_manifest(file, tmp_path / "lists").lists
        found.file.write_text("half of it")
        assert sum(1 for _ in open_manifest(file, tmp_path / "lists").rows()) == 400
        assert server.requests == {"list.csv": 2}


def test_what_broke_off_is_taken_up_where_it_ended(tmp_path, at_hand, monkeypatch):
    monkeypatch.setattr(published, "PIECE", 1000)
    asked = []

    def breaking(handler):
        asked.append(handler.headers.get("Range"))
        if len(asked) == 1:
            (tmp_path / "half").write_text(AUDIOSET[:5000])
            lie(tmp_path / "half", len(AUDIOSET) - 5000)(handler)
        else:
            serve(at_hand)(handler)

    with MediaServer({"list.csv": breaking}) as server:
        file = named(tmp_path, listed(server.address("list.csv"), AUDIOSET))
        assert sum(1 for _ in open_manifest(file, tmp_path / "lists").rows()) == 400
    assert asked == [None, "bytes=5000-"]


def test_pieces_of_two_lists_are_told_and_the_whole_is_fetched(tmp_path, at_hand):
    with MediaServer({"list.csv": serve(at_hand)}) as server:
        file = named(tmp_path, listed(server.address("list.csv"), AUDIOSET))
        (found,) = open_manifest(file, tmp_path / "lists").lists
        found.file.unlink()
        for rest in (b"another list" * 99, AUDIOSET.encode() + b"!" * 99):
            (tmp_path / "lists" / f".{found.file.name}.part").write_bytes(rest)
            assert sum(1 for _ in open_manifest(file, tmp_path / "lists").rows()) == 400
            found.file.unlink()


def test_what_passes_is_tried_again(tmp_path, at_hand):
    trouble = [status(503), status(429, Retry_After="0"), serve(at_hand)]
    with MediaServer({"list.csv": lambda handler: trouble.pop(0)(handler)}) as server:
        file = named(tmp_path, listed(server.address("list.csv"), AUDIOSET))
        assert sum(1 for _ in open_manifest(file, tmp_path / "lists").rows()) == 400


def test_a_time_that_a_server_names_is_waited_for(tmp_path, at_hand):
    until = int(time.time()) + 3
    asked = []

    def limit(handler):
        asked.append(time.time())
        first = len(asked) == 1
        (status(429, Retry_After=email.utils.formatdate(until, usegmt=True)) if first else serve(at_hand))(handler)

    with MediaServer({"list.csv": limit}) as server:
        open_manifest(named(tmp_path, listed(server.address("list.csv"), AUDIOSET)), tmp_path / "lists")
    assert asked[0] < until <= asked[1] and len(asked) == 2


@pytest.mark.parametrize(
    ("behaviour", "said", "requests"),
    [
        (status(404), "answers 404; have the list by other means", 1),
        (status(403), "answers 403", 1),
        (status(500), "cannot be fetched (it answers 500); run again later", published.TRIES),
        (status(302, Location="list.csv"), "leads nowhere", published.REDIRECTS + 1),
        (status(302, Location="file:///etc/passwd"), "leads nowhere", 1),
        (status(302, Location="ftp://127.0.0.1/list.csv"), "leads nowhere", 1),
        (endless(), f"gives more than {len(AUDIOSET):,} bytes", 1),
    ],
)
def test_a_list_that_cannot_be_had_is_told_in_a_line(tmp_path, behaviour, said, requests):
    with MediaServer({"list.csv": behaviour}) as server:
        file = named(tmp_path, listed(server.address("list.csv"), AUDIOSET))
        with pytest.raises(EarshotError) as error:
            open_manifest(file, tmp_path / "lists")
        assert server.requests == {"list.csv": requests}
    assert said in str(error.value) and "named.json" in str(error.value) and "\n" not in str(error.value)
    assert not list((tmp_path / "lists").glob("[!.]*.csv"))


def test_a_server_that_keeps_quiet_is_given_up(tmp_path, monkeypatch):
    monkeypatch.setattr(published, "TRIES", 2)
    monkeypatch.setattr(published, "SILENCE_SECONDS", 0.1)

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
    ("text", "said"),
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
def test_a_file_that_names_no_lists_is_refused_by_field(tmp_path, text, said):
    (tmp_path / "named.json").write_text(text)
    with pytest.raises(EarshotError, match="named.json: ") as error:
        open_manifest(tmp_path / "named.json", tmp_path / "lists")
    assert said in str(error.value)
    assert not (tmp_path / "lists").exists()


# The files of this repository


def test_every_file_under_manifests_is_one_and_asks_by_https():
    files = sorted((REPOSITORY / "manifests").glob("*"))
    assert {file.stem for file in files} >= {
        "audioset-balanced",
        "audioset-unbalanced",
        "audioset-eval",
        "vggsound",
        "ave",
    }
    for file in files:
        said = read_published(file)
        assert all(part.address.startswith("https://") for part in (*said.lists, *said.starts))
        assert all((part.sha256 is None) == (part.bytes is None) for part in (*said.lists, *said.starts))


AT_HAND = {
    "audioset-balanced": "audioset/balanced_train_segments.csv",
    "audioset-eval": "audioset/eval_segments.csv",
    "ave": "ave/Annotations.txt",
    "vggsound-test": "vggsound/test.csv",
}


@pytest.mark.parametrize("name", AT_HAND)
def test_the_checksums_are_those_of_the_published_lists(real_data, name):
    data = (real_data / "metadata" / AT_HAND[name]).read_bytes()
    (said,) = read_published(REPOSITORY / "manifests" / f"{name}.json").lists
    assert (said.sha256, said.bytes) == (hashlib.sha256(data).hexdigest(), len(data))
    assert said.address.endswith(AT_HAND[name].rpartition("/")[2])


# The stage


def test_the_stage_fetches_a_named_list_and_asks_for_what_is_selected(tmp_path):
    render(tmp_path / "v.mp4", *MP4, "-t", 2)
    text = "url,start,end,label\n"
    with MediaServer({f"{n}.mp4": serve(tmp_path / "v.mp4") for n in range(6)}) as server:
        text += "".join(f"{server.address(f'{n}.mp4')},0,2,{'dog' if n % 2 else 'rain'}\n" for n in range(6))
        server.behaviours["list.csv"] = say(text.encode(), "text/csv")
        (tmp_path / "manifests").mkdir()
        file = named(tmp_path / "manifests", listed(server.address("list.csv")))
        chosen = ["--set", "corpus.select.classes=[dog]", "--set", "corpus.select.clips=2"]
        command = [sys.executable, "-m", "stages.download", "--root", tmp_path, "--params", PARAMS]
        command += ["--set", "corpus.manifest=manifests/named.json", *chosen]
        done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        asked = {name for name in server.requests if name.endswith(".mp4")}
    assert done.stdout == "2 of 2 clips kept; left out: none\n"
    assert f"download: {file}: no checksum is known" in done.stderr
    assert len(asked) == 2 and asked < {"1.mp4", "3.mp4", "5.mp4"}
    record = json.loads((tmp_path / "data" / "clips" / "lists.json").read_text())
    assert record == [listed(server.address("list.csv"), text)]
    assert not list((tmp_path / ".earshot" / "download").iterdir())
    assert len(list((tmp_path / ".earshot" / "lists").glob("unknown-*-list.csv"))) == 1
