"""Fingerprints of work: from the content of inputs, or, if they are too large, from size and modification time."""

import os

from earshot.core import hashing
from earshot.core.hashing import fingerprint


def test_a_fingerprint_goes_by_content_and_names_and_not_by_time_or_place(tmp_path):
    for name in ("here", "there"):
        (tmp_path / name / "in").mkdir(parents=True)
        (tmp_path / name / "in/a.csv").write_text("a")
    first = fingerprint([tmp_path / "here"], {})
    assert first == fingerprint([tmp_path / "there"], {})
    os.utime(tmp_path / "here/in/a.csv", (1e9, 1e9))
    assert first == fingerprint([tmp_path / "here"], {})
    (tmp_path / "here/in/a.csv").write_text("b")
    (tmp_path / "there/in/a.csv").rename(tmp_path / "there/in/b.csv")
    changed = [fingerprint([tmp_path / name], {}) for name in ("here", "there")]
    others = [fingerprint([tmp_path / "here"], {"seed": 1}), fingerprint([tmp_path / "here", tmp_path / "there"], {})]
    assert len({first, *changed, *others}) == 5


def test_what_is_too_large_to_be_read_counts_by_size_and_time(tmp_path, monkeypatch):
    monkeypatch.setattr(hashing, "CONTENT_BYTES", 3)
    for name, text in (("a", "aa"), ("b", "bb"), ("c", "c")):
        (tmp_path / name).write_text(text)
        os.utime(tmp_path / name, (1e9, 1e9))
    first = fingerprint([tmp_path], {})
    (tmp_path / "b").write_text("BB")
    os.utime(tmp_path / "b", (1e9, 1e9))
    assert fingerprint([tmp_path], {}) == first
    os.utime(tmp_path / "b", (2e9, 2e9))
    assert fingerprint([tmp_path], {}) != first


def test_links_to_nowhere_and_pipes_are_not_read(tmp_path):
    (tmp_path / "link").symlink_to("nowhere")
    os.mkfifo(tmp_path / "pipe")
    assert fingerprint([tmp_path], {}) == fingerprint([tmp_path], {})
