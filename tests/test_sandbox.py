"""A guarded process opens the files that its work needs, and no others; it connects to nobody, unless it downloads."""

import os
import signal
import socket
import subprocess
from pathlib import Path
from types import SimpleNamespace

import pytest

from earshot.core import sandbox
from earshot.core.subprocess_pool import ChildProcess, Limits

needs_kernel = pytest.mark.skipif(sandbox.version() < 6, reason="this kernel has no Landlock, or an older one")
GUARDED = {"starts_processes": False, "memory": 1 << 30}


def attempt(item: tuple[str, ...]) -> str:
    """The work of the child: do something; the result, or the error."""
    kind, *values = item
    try:
        if kind == "read":
            return Path(values[0]).read_text()
        if kind == "list":
            return " ".join(sorted(os.listdir(values[0])))
        if kind == "write":
            Path(values[0]).write_text("written")
        if kind == "append":
            with open(values[0], "a") as file:
                file.write("more")
        if kind == "truncate":
            os.truncate(values[0], 0)
        if kind == "mkdir":
            os.mkdir(values[0])
        if kind == "remove":
            os.remove(values[0])
        if kind == "rename":
            os.rename(*values)
        if kind == "link":
            os.link(*values)
        if kind == "symlink":
            os.symlink(*values)
        if kind == "connect":
            socket.create_connection((values[0], int(values[1])), 5).close()
        if kind == "datagram":
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sending:
                sending.sendto(b"secret", (values[0], int(values[1])))
        if kind == "listen":
            socket.create_server(("127.0.0.1", 0)).close()
        if kind == "run":
            subprocess.run(values, check=True)
        if kind == "kill":
            os.kill(int(values[0]), signal.SIGTERM)
    except OSError as error:
        return error.strerror or str(error)
    return "done"


@pytest.fixture
def places(tmp_path) -> dict[str, str]:
    """Files and folders by name: some named to the child, and others."""
    for name in ("named", "scratch", "secret"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "file").write_text(name)
    (tmp_path / "named" / "out").symlink_to(tmp_path / "secret" / "file")
    return {name: str(tmp_path / name) for name in ("named", "scratch", "secret")}


REFUSED = ("Permission denied", "Operation not permitted", "Invalid cross-device link")


@needs_kernel
def test_a_process_reads_what_is_named_and_changes_nothing(places):
    named, secret = places["named"], places["secret"]
    with ChildProcess(attempt, Limits(20, reads=(Path(named),), **GUARDED)) as child:
        assert child.run(("read", f"{named}/file")) == "named"
        for item in (
            ("read", f"{secret}/file"), ("read", f"{named}/out"), ("list", secret), ("write", f"{secret}/new"),
            ("read", str(Path(__file__).parents[1] / "params.yaml")), ("write", f"{named}/new"),
            ("append", f"{named}/file"), ("truncate", f"{named}/file"), ("mkdir", f"{named}/new"),
            ("remove", f"{named}/file"), ("rename", f"{named}/file", f"{named}/new"),
            ("link", f"{named}/file", f"{named}/new"), ("symlink", "/", f"{named}/new"), ("run", "/bin/true"),
        ):  # fmt: skip
            assert child.run(item) in REFUSED, item
        assert Path(named, "file").read_text() == "named"


@needs_kernel
def test_a_process_writes_in_its_scratch_folder_alone(places):
    scratch, secret, named = places["scratch"], places["secret"], places["named"]
    limits = Limits(20, reads=(Path(named),), writes=(Path(scratch),), memory=1 << 30)
    with ChildProcess(attempt, limits) as child:
        for item in (
            ("write", f"{scratch}/new"), ("append", f"{scratch}/new"), ("mkdir", f"{scratch}/inner"),
            ("rename", f"{scratch}/new", f"{scratch}/inner/new"), ("truncate", f"{scratch}/inner/new"),
            ("remove", f"{scratch}/inner/new"), ("run", "/bin/true"),
        ):  # fmt: skip
            assert child.run(item) == "done", item
        for item in (
            ("write", f"{secret}/new"), ("remove", f"{secret}/file"), ("rename", f"{scratch}/file", f"{secret}/new"),
            ("rename", f"{secret}/file", f"{scratch}/new"), ("link", f"{secret}/file", f"{scratch}/new"),
            ("write", f"{named}/new"),
        ):  # fmt: skip
            assert child.run(item) in REFUSED, item


@needs_kernel
@pytest.mark.parametrize("connects", [False, True])
def test_only_a_process_that_downloads_connects_and_none_listens(connects):
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = ("127.0.0.1", str(server.getsockname()[1]))
        with ChildProcess(attempt, Limits(20, reads=(), connects=connects, **GUARDED)) as child:
            assert child.run(("connect", *address)) == ("done" if connects else "Permission denied")
            assert child.run(("listen",)).startswith("Permission denied")
            assert child.run(("datagram", *address)) == ("done" if connects else "Permission denied")


@needs_kernel
def test_a_process_signals_no_other():
    with subprocess.Popen(["sleep", "60"]) as other:
        with ChildProcess(attempt, Limits(20, reads=(), **GUARDED)) as child:
            assert child.run(("kill", str(other.pid))) == "Operation not permitted"
        assert other.poll() is None
        other.kill()


def test_a_kernel_without_landlock_restricts_nothing(monkeypatch, places):
    monkeypatch.setattr(sandbox, "_call", lambda *_: -1)
    monkeypatch.setattr(sandbox.ctypes, "CDLL", lambda _: SimpleNamespace(prctl=lambda *_: 0))
    assert sandbox.version() == 0
    assert not sandbox.restrict({"/": sandbox.READ}, connects=True)
    assert Path(places["secret"], "file").read_text() == "secret"


@pytest.mark.parametrize(("version", "size", "rights"), [(1, 8, 13), (2, 8, 14), (3, 8, 15), (4, 16, 15), (5, 16, 16),
                                                         (6, 24, 16), (9, 24, 16)])  # fmt: skip
def test_an_older_kernel_is_asked_for_what_it_knows(monkeypatch, version, size, rights):
    """The sizes of struct landlock_ruleset_attr and the rights by version: landlock(7)."""
    calls = []

    def call(number, *arguments):
        calls.append((number, arguments))
        return version if arguments[0] is None else -1

    monkeypatch.setattr(sandbox, "_call", call)
    monkeypatch.setattr(sandbox.ctypes, "CDLL", lambda _: SimpleNamespace(prctl=lambda *_: 0))
    assert not sandbox.restrict({}, connects=True)
    number, (settings, stated, flags) = calls[-1]
    assert (number, stated, len(settings), flags) == (sandbox.CREATE_RULESET, size, size, 0)
    assert int.from_bytes(settings[:8], "little") == 2**rights - 1
