"""The progress of a download: settled and pending clips, and the hours left at the rate of the last hour."""

import json
import time

import pytest

from earshot.corpus.ledger import LedgerRow, write_ledger
from earshot.download.clips import Entry, Journal
from earshot.download.progress import progress
from earshot.pipeline.stage import _print_view


def row(number, status="kept", reason=""):
    return LedgerRow(f"{number}_0", "http://site/", status, reason)


def write(folder, shard, requested, entries):
    (folder / "requested").mkdir(exist_ok=True)
    (folder / "requested" / f"{shard:05d}.jsonl").write_text("{}\n" * requested)
    (folder / "clips" / f"{shard:05d}").mkdir(parents=True)
    with Journal(folder / "clips" / f"{shard:05d}" / "journal.jsonl") as journal:
        for entry in entries:
            journal.write(entry)


def counts(folder):
    return progress(folder / "requested", folder / "clips", folder / "ledger")


def test_the_last_outcome_of_each_clip_counts_and_the_last_hour_gives_the_rate(tmp_path):
    now = time.time()
    write(tmp_path, 0, 5, [Entry(now - 9000, row(n)) for n in range(5)])
    recent = [Entry(now - 1800 + n, row(n)) for n in range(10)] + [Entry(now - 60, row(11, "refused", "removed"))]
    pending = [Entry(now - 50, row(12, "pending", "network")), Entry(now - 40, row(12, "pending", "blocked"))]
    pending += [Entry(now - 50, row(13, "pending", "network")), Entry(now - 30, row(13))]
    write(tmp_path, 1, 40, [*recent, *pending])
    (tmp_path / "requested" / "00002.jsonl").write_text("{}\n" * 7)
    metadata = counts(tmp_path)
    assert metadata == {
        "clips_requested": 52,
        "clips_kept": 16,
        "pending_blocked": 1,
        "refused_removed": 1,
        "not_yet_requested": 34,
        "clips_an_hour": pytest.approx(24, abs=0.1),
        "hours_left": pytest.approx(35 / 24, abs=0.01),
    }


def test_a_truncated_line_is_not_an_outcome(tmp_path):
    write(tmp_path, 0, 2, [Entry(time.time(), row(0))])
    with open(tmp_path / "clips" / "00000" / "journal.jsonl", "a") as file:
        file.write('\n{"at": 1.0, "clip_id": "1_0", "sta')
    assert counts(tmp_path)["clips_kept"] == 1
    assert counts(tmp_path)["not_yet_requested"] == 1


def test_before_any_run_and_after_the_last_one(tmp_path):
    assert counts(tmp_path) == {"clips_requested": 0, "clips_kept": 0, "not_yet_requested": 0, "clips_an_hour": 0}
    write_ledger(tmp_path / "ledger" / "00000.csv", [row(0), row(1, "refused", "private")])
    metadata = {"clips_requested": 2, "clips_kept": 1, "refused_private": 1, "not_yet_requested": 0, "clips_an_hour": 0}
    assert counts(tmp_path) == metadata


def test_a_status_is_printed_as_lines_or_as_json(capsys):
    metadata = {"clips_requested": 12345, "hours_left": 1.5, "limited site": "blocked, until 2026-01-01 00:00"}
    _print_view(metadata, as_json=False)
    lines = capsys.readouterr().out.splitlines()
    assert lines == [
        "clips_requested  12,345",
        "hours_left       1.5",
        "limited site     blocked, until 2026-01-01 00:00",
    ]
    _print_view(metadata, as_json=True)
    assert json.loads(capsys.readouterr().out) == metadata
