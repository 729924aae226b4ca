"""Hosts that a download may reach, what it tells them, and what it tells others about them; all servers are local."""

import contextlib
import csv
import io
import os
import socket
import stat
import time
from pathlib import Path

import pytest
import requests
from conftest import PARAMS
from media_server import MediaServer, send, status
from test_published import listed, named

from earshot.core import csv_files
from earshot.core.errors import EarshotError
from earshot.core.files import open_lock
from earshot.core.messages import MESSAGE_LENGTH, console_line, for_output, without_secrets
from earshot.corpus.ledger import LedgerRow, Refusal, read_ledger, write_ledger
from earshot.corpus.manifest import address_name
from earshot.download import yt_dlp_client
from earshot.download.published import open_manifest
from earshot.download.rate_limit import RateLimiter, site_of
from earshot.download.reachable import check_reachable, guard
from earshot.download.yt_dlp_client import _referrer, fetch
from earshot.pipeline.settings import settings
from stages import download as stage_download

LISTED = {"nas.local", "127.0.0.1:8000", "example.org"}


@pytest.mark.parametrize("address", [
    "http://nas.local/v.mp4", "https://NAS.local./v", "http://nas.local:80/v", "http://127.0.0.1:8000/v",
    "https://cdn.example.com/v", "http://93.184.215.14/v", "https://[2606:2800:21f:cb07:6820:80da:af6b:8b2c]/v",
])  # fmt: skip
def test_listed_hosts_and_public_ones_are_requested(address):
    check_reachable(address, LISTED)


@pytest.mark.parametrize("address", [
    "http://127.0.0.1/", "http://127.0.0.1:8001/", "http://127.1/", "http://2130706433/", "http://0x7f.1/", "http://0/",
    "http://localhost/", "http://a.localhost/", "http://10.0.0.1/", "http://192.168.1.1/", "http://172.16.0.9/",
    "http://169.254.169.254/latest/meta-data", "http://100.64.0.1/", "http://[::1]/", "http://[fe80::1]/",
    "http://[fd00::1]/", "http://[::ffff:127.0.0.1]/", "http://[64:ff9b::a00:1]/", "http://[2002:7f00:1::]/",
    "http://224.0.0.1/", "http://example.org:8080/", "http://93.184.215.14:22/", "http://nas.local:8080/",
])  # fmt: skip
def test_private_hosts_and_other_ports_are_not(address):
    with pytest.raises(Refusal) as refusal:
        check_reachable(address, LISTED)
    assert refusal.value.reason == "unsupported"


@pytest.fixture
def secret():
    """A server of a private network, which no manifest lists, and the requests that it got."""
    with MediaServer(otherwise=send(b"secret")) as server:
        yield server


def names_lead_to(monkeypatch, *addresses):
    """Every name has these addresses."""
    results = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, 80)) for address in addresses]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: results)


@pytest.mark.parametrize("addresses", [["127.0.0.1"], ["169.254.169.254"], ["93.184.215.14", "10.0.0.1"], ["fd00::1"]])
def test_a_name_that_leads_to_a_private_address_is_not_connected(monkeypatch, addresses):
    names_lead_to(monkeypatch, *addresses)
    connected = []
    monkeypatch.setattr("urllib3.util.connection.create_connection", lambda *how, **_: connected.append(how))
    with requests.Session() as session:
        adapter = requests.adapters.HTTPAdapter()
        guard(adapter, {"example.org"})
        session.mount("http://", adapter)
        with pytest.raises(Refusal, match="private address"):
            session.get("http://cdn.example.com/v")
    assert not connected


def test_a_name_that_changes_after_its_check_gets_no_request(monkeypatch, secret):
    names_lead_to(monkeypatch, "93.184.215.14")
    port = int(secret.address("").split(":")[2].strip("/"))
    monkeypatch.setattr("urllib3.util.connection.create_connection", lambda *_, **__: _connected(port))
    with requests.Session() as session:
        adapter = requests.adapters.HTTPAdapter()
        guard(adapter, ())
        session.mount("http://", adapter)
        with pytest.raises(Refusal, match="private address"):
            session.get("http://cdn.example.com/v")
    assert not secret.requests


def _connected(port):
    connection = socket.socket()
    connection.connect(("127.0.0.1", port))
    return connection


HLS = "#EXTM3U\n#EXT-X-TARGETDURATION:4\n#EXT-X-PLAYLIST-TYPE:VOD\n#EXTINF:4,\n{there}\n#EXT-X-ENDLIST\n"
PAGES = {
    "redirect": lambda there: status(302, Location=there),
    "video": lambda there: send(f'<html><video src="{there}"></video></html>'.encode(), "text/html"),
    "og": lambda there: send(f'<html><meta property="og:video" content="{there}"></html>'.encode(), "text/html"),
    "hls": lambda there: send(HLS.format(there=there).encode(), "application/vnd.apple.mpegurl"),
    "refresh": lambda there: send(f'<meta http-equiv="refresh" content="0; url={there}">'.encode(), "text/html"),
}


@pytest.mark.parametrize("page", PAGES)
def test_a_page_leads_to_no_host_that_is_not_listed(tmp_path, secret, page):
    with MediaServer({"page": PAGES[page](secret.address("v.mp4"))}) as server:
        limiter = RateLimiter(tmp_path / "pace.sqlite", 0, 0.01, 1)
        with pytest.raises(Refusal) as refusal:
            visit = limiter.visit(server.address("page"))
            fetch(server.address("page"), tmp_path / "f", megabytes=10, seconds=20, visit=visit)
    assert server.requests["page"] and not secret.requests
    assert refusal.value.reason == "unsupported" and site_of(secret.address("")) in refusal.value.detail


def test_a_page_may_lead_to_another_host_of_the_manifest(tmp_path, secret):
    with MediaServer({"page": PAGES["redirect"](secret.address("v.mp4"))}) as server:
        visit = RateLimiter(tmp_path / "pace.sqlite", 0, 0.01, 1).visit(
            server.address("page"), [site_of(secret.address(""))]
        )
        with contextlib.suppress(Refusal):  # it is no video
            fetch(server.address("page"), tmp_path / "f", megabytes=10, seconds=20, visit=visit)
    assert secret.requests["v.mp4"]


@pytest.mark.parametrize("known", [True, False])
def test_a_published_list_is_no_way_into_a_private_network(tmp_path, secret, known):
    text = "secret"
    with MediaServer({"list.csv": status(302, Location=secret.address("list.csv"))}) as server:
        file = named(tmp_path, listed(server.address("list.csv"), text if known else None))
        with pytest.raises(EarshotError, match="cannot be requested" if known else "without a checksum no redirect"):
            open_manifest(file, tmp_path / "lists")
    assert not secret.requests


def test_a_redirect_of_a_list_is_followed_on_its_host_if_a_checksum_checks_it(tmp_path):
    text = "url,start,end\nhttps://a.org/v.mp4,0,1\n"
    with MediaServer({"old.csv": status(302, Location="/new.csv"), "new.csv": send(text.encode())}) as server:
        known = named(tmp_path, listed(server.address("old.csv"), text))
        assert len(list(open_manifest(known, tmp_path / "lists").rows())) == 1


# Passwords and tokens


@pytest.mark.parametrize(("text", "expected"), [
    ("http://user:pw@host/v.mp4", "http://host/v.mp4"),
    ("https://user@host:81/a?b=1", "https://host:81/a?b=1"),
    ("http://u:p@ss@host/", "http://host/"),
    ("cannot open http://u:p@host/v, and //v:q@other/w", "cannot open http://host/v, and //other/w"),
    ("https://h/v?token=abc&v=dQw4w9WgXcQ", "https://h/v?token=...&v=dQw4w9WgXcQ"),
    ("https://h/v?a=1&X-Amz-Signature=ff&X-Amz-Credential=AK%2F1", "https://h/v?a=1&X-Amz-Signature=...&X-Amz-Credential=..."),
    ("url: /v?sig=0a&api_key=9 (refused)", "url: /v?sig=...&api_key=... (refused)"),
    ("https://h/#access_token=1&x=2", "https://h/#access_token=...&x=2"),
    ("https://h/v?a=b?token=c?d&e=1", "https://h/v?a=b?token=...&e=1"),
    ("https://h/v?a=1&amp;token=c", "https://h/v?a=1&amp;token=..."),
    ("https://www.youtube.com/watch?v=abc-_000001&t=3", "https://www.youtube.com/watch?v=abc-_000001&t=3"),
    ("mail me@host.org, design=5, /a?monkey=2&keyboard=3", "mail me@host.org, design=5, /a?monkey=2&keyboard=3"),
])  # fmt: skip
def test_texts_lose_users_passwords_and_tokens(text, expected):
    assert without_secrets(text) == expected == without_secrets(expected)


@pytest.mark.parametrize("piece", ["?", "&token", "//", "//a", "?a=", "?key=", "-pw", "=", "?a.pass.b", "//@"])
def test_secrets_are_found_in_time_that_grows_with_a_text_alone(piece):
    begin = time.process_time()
    many = piece * 50_000
    for text in (many, f"?{many}", f"{piece}{'token' * 50_000}", f"?{many}=", f"?{many}=1"):
        without_secrets(text)
    assert time.process_time() - begin < 5  # it takes a tenth of a second; 36 s with 20,000 question marks once


@pytest.mark.parametrize(("page", "address", "expected"), [
    ("http://u:p@a.org/page?token=x&q=1", "http://a.org/v.mp4", "http://a.org/page?token=...&q=1"),
    ("http://u:p@a.org/page?token=x", "http://b.org/v.mp4", "http://a.org/"),
    ("https://a.org/deep/page#part", "https://cdn.a.org/v", "https://a.org/"),
    ("https://a.org/deep/page#part", "https://a.org/v", "https://a.org/deep/page"),
])  # fmt: skip
def test_other_hosts_get_the_host_alone_as_referer(page, address, expected):
    assert _referrer(page, address) == expected


def test_no_password_or_token_is_in_what_a_download_writes(tmp_path, monkeypatch, capsys):
    """Neither in clip ids, ledgers, tars and lists nor in messages; the site itself gets them."""
    monkeypatch.setenv("EARSHOT_WORKERS", "1")
    received = []

    def behave(handler):
        received.append((handler.headers.get("Authorization"), handler.path))
        status(404)(handler)

    with MediaServer(otherwise=behave) as server:
        address = server.address("").replace("http://", "http://user:hunter2@")
        rows = [f"{address}?token=s3cret", f"{address}v.mp4", f"{address}w.mp4?sig=s3cret&n=1"]
        (tmp_path / "manifest.csv").write_text("url,start,end\n" + "".join(f"{row},0,1\n" for row in rows))
        settings.cache_clear()
        stage_download.STAGE.run(
            stage_download.main,
            ["--root", str(tmp_path), "--params", str(PARAMS), "--set", "corpus.manifest=manifest.csv",
             "--set", "corpus.accept_pending=true", "--set", "download.timeout_s=20"],
        )  # fmt: skip
    assert ("Basic dXNlcjpodW50ZXIy", "/?token=s3cret") in received
    written = b"".join(path.read_bytes() for path in (tmp_path / "data").rglob("*") if path.is_file())
    output = "".join(capsys.readouterr()).encode()
    assert b"token=..." in written and b"sig=...&n=1" in written
    assert b"hunter2" not in written + output and b"s3cret" not in written + output


@pytest.mark.parametrize(
    "address", ["http://a:b@h.org", "http://a:b@h.org/", "http://a:b@h.org/?v=1", "http://a:b@h.org/x"]
)
def test_a_clip_id_depends_on_no_password(address):
    name = address_name(address)
    assert name == address_name(address.replace(":b@", ":other@")) and "b@" not in name and "a-b" not in name


@pytest.mark.parametrize("mode", [0o600, 0o644, 0o400])
def test_a_copy_of_cookies_is_readable_by_its_owner_alone(tmp_path, monkeypatch, mode):
    cookies = tmp_path / "cookies.txt"
    cookies.write_text("# Netscape HTTP Cookie File\n")
    cookies.chmod(mode)
    monkeypatch.setenv("EARSHOT_COOKIES", str(cookies))
    settings.cache_clear()
    (tmp_path / "f").mkdir()
    copy = Path(yt_dlp_client._options(tmp_path / "f", 10)["cookiefile"])
    settings.cache_clear()
    assert stat.S_IMODE(copy.stat().st_mode) == 0o600 and copy.read_text() == cookies.read_text()


# Names of strangers in what people read and open


@pytest.mark.parametrize(
    "name", ["a\nextract: 9 clips kept", "\x1b[2J\x1b[31mred", "\u202egnp.exe", "a\rb", "\x9b31m", "\udcff"]
)
def test_no_name_forges_a_line_or_moves_the_cursor(name):
    line = for_output(name)
    assert line.isprintable() and len(line.splitlines()) == 1
    line.encode()


@pytest.mark.parametrize("text", ["=1+1", "+cmd|' /C calc'!A0", "-2+3", "@SUM(A1)", "\t=1", "'=1", "-abc_000001"])
def test_no_cell_is_a_formula_and_each_is_read_back(tmp_path, text):
    file = io.StringIO()
    csv_files.write_csv(file, ("name", "n"), [(text, -0.5), ("plain", "-0.5"), ("a-b", 1)])
    file.seek(0)
    (_, first, *rest) = list(csv.reader(file))
    assert first == [f"'{text}", "-0.5"] and rest == [["plain", "-0.5"], ["a-b", "1"]]
    file.seek(0)
    assert next(iter(csv_files.read_csv(file)))["name"] == text
    rows = [LedgerRow("-id_0", text, "kept"), LedgerRow("b", "t.tar/=a.mp4", "refused", "removed", text)]
    write_ledger(tmp_path / "l.csv", rows)
    assert read_ledger(tmp_path / "l.csv") == rows


@pytest.mark.parametrize("kind", ["link", "dead", "folder", "pipe"])
def test_a_planted_lock_harms_nothing(tmp_path, kind):
    target, lock = tmp_path / "precious", tmp_path / "lock"
    target.write_text("precious")
    {
        "link": lambda: lock.symlink_to(target),
        "dead": lambda: lock.symlink_to(tmp_path / "new"),
        "folder": lock.mkdir,
        "pipe": lambda: os.mkfifo(lock),
    }[kind]()
    with pytest.raises(EarshotError, match="expected a lock file; remove it"):
        open_lock(lock)
    assert target.read_text() == "precious" and not (tmp_path / "new").exists()


def test_a_lock_that_is_there_is_opened_again(tmp_path):
    for _ in range(2):
        open_lock(tmp_path / "lock").close()
    assert (tmp_path / "lock").read_bytes() == b""


def test_a_line_of_the_console_keeps_its_beginning_and_its_advice():
    short, long = "a.csv: bad; mend it", "a.csv: has " + "x" * 10**6 + "; mend it"
    assert str(EarshotError(short)) == short
    assert str(EarshotError(long)) == console_line(long)
    assert console_line(short) == short
    line = console_line(long)
    assert line.startswith("a.csv: has x") and line.endswith("x; mend it") and " ... " in line
    assert len(line) <= MESSAGE_LENGTH + 10


def test_an_error_holds_no_part_of_a_secret_even_where_it_is_cut():
    for length in range(1500, 2600, 7):
        assert "S3" not in str(EarshotError("a" * length + "?token=" + "S3" * 300 + "&" + "b" * 500))
