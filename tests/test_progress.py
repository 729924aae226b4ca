"""How far downloading is: what is settled, what waits, and the hours left at the pace of the last hour."""

import json
import time

import pytest

from earshot.corpus.ledger import LedgerRow, write_ledger
from earshot.download.clips import Entry, Journal
from earshot.download.progress import progress
from earshot.pipeline.stage import _tell


def row(number, status="kept", reason=""):
    return LedgerRow(f"{number}_0", "http://site/", status, reason)


def write(folder, shard, asked, entries):
    (folder / "requested").mkdir(exist_ok=True)
    (folder / "requested" / f"{shard:05d}.jsonl").write_text("{}\n" * asked)
    (folder / "clips" / f"{shard:05d}").mkdir(parents=True)
    with Journal(folder / "clips" / f"{shard:05d}" / "journal.jsonl") as journal:
        for entry in entries:
            journal.write(entry)


def look(folder):
    return progress(folder / "requested", folder / "clips", folder / "ledger")


def test_the_last_outcome_of_each_clip_counts_and_the_last_hour_gives_the_pace(tmp_path):
    now = time.time()
    write(tmp_path, 0, 5, [Entry(now - 9000, row(n)) for n in range(5)])
    late = [Entry(now - 1800 + n, row(n)) for n in range(10)] + [Entry(now - 60, row(11, "refused", "removed"))]
    waiting = [Entry(now - 50, row(12, "pending", "network")), Entry(now - 40, row(12, "pending", "blocked"))]
    waiting += [Entry(now - 50, row(13, "pending", "network")), Entry(now - 30, row(13))]
    write(tmp_path, 1, 40, [*late, *waiting])
    (tmp_path / "requested" / "00002.jsonl").write_text("{}\n" * 7)
    metadata = look(tmp_path)
    assert metadata == {
        "clips_requested": 52,
        "clips_kept": 16,
        "pending_blocked": 1,
        "refused_removed": 1,
        "not_yet_requested": 34,
        "clips_an_hour": pytest.approx(24, abs=0.1),
        "hours_left": pytest.approx(35 / 24, abs=0.01),
    }


def test_a_line_that_a_kill_has_cut_off_is_no_outcome(tmp_path):
    write(tmp_path, 0, 2, [Entry(time.time(), row(0))])
    with open(tmp_path / "clips" / "00000" / "journal.jsonl", "a") as file:
        file.write('\n{"at": 1.0, "clip_id": "1_0", "sta')
    assert look(tmp_path)["clips_kept"] == 1
    assert look(tmp_path)["not_yet_requested"] == 1


def test_before_any_run_and_after_the_last_one(tmp_path):
    assert look(tmp_path) == {"clips_requested": 0, "clips_kept": 0, "not_yet_requested": 0, "clips_an_hour": 0}
    write_ledger(tmp_path / "ledger" / "00000.csv", [row(0), row(1, "refused", "private")])
    metadata = {"clips_requested": 2, "clips_kept": 1, "refused_private": 1, "not_yet_requested": 0, "clips_an_hour": 0}
    assert look(tmp_path) == metadata


def test_facts_are_told_as_lines_or_as_json(capsys):
    metadata = {"clips_requested": 12345, "hours_left": 1.5, "held site": "blocked, until 2026-01-01 00:00"}
    _tell(metadata, as_json=False)
    lines = capsys.readouterr().out.splitlines()
    assert lines == ["clips asked  12,345", "hours left   1.5", "held site    blocked, until 2026-01-01 00:00"]
    _tell(metadata, as_json=True)
    assert json.loads(capsys.readouterr().out) == metadata
