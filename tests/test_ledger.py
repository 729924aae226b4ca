"""The ledger and the split: every missing clip has a reason, and a group never changes its split."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from earshot.core.errors import EarshotError
from earshot.corpus.ledger import REASONS, LedgerRow, Refusal, count, read_ledger, write_ledger
from earshot.corpus.split import SPLITS, split_of

ROWS = [
    LedgerRow("a", "videos/a.mp4", "kept"),
    LedgerRow("b", 'it\'s "b",\n\r\t\0.mp4', "refused", "no-sound", "one stream,\nno sound"),
    LedgerRow("c", "https://example.org/c", "pending", "rate-limited"),
    LedgerRow("d", "caf\udce9.mp4", "refused", "too-short", "x" * 999),
    LedgerRow("e", "", "refused", "no-sound"),
]


def test_a_ledger_is_read_as_it_was_written(tmp_path):
    write_ledger(tmp_path / "ledger" / "00000.csv", ROWS)
    assert read_ledger(tmp_path / "ledger" / "00000.csv") == ROWS
    assert len((tmp_path / "ledger" / "00000.csv").read_text().splitlines()) == len(ROWS) + 1


@given(text=st.text(st.characters(codec=None), max_size=20))
def test_any_file_name_is_one_line_of_a_ledger(tmp_path_factory, text):
    path = tmp_path_factory.mktemp("ledger") / "00000.csv"
    row = LedgerRow("a", text, "refused", "unreadable", text)
    write_ledger(path, [row])
    assert read_ledger(path) == [row]
    assert row.source.isprintable() and row.detail.isprintable()


def test_counts_carry_the_names_of_the_metrics_and_add_up():
    counts = count(ROWS)
    assert counts == {
        "clips_in": 5,
        "clips_kept": 1,
        "clips_pending": 1,
        "refused_no-sound": 2,
        "refused_too-short": 1,
    }
    assert count([], total="clips_requested") == {"clips_requested": 0, "clips_kept": 0}


@pytest.mark.parametrize(
    ("status", "reason"),
    [
        ("kept", "no-sound"),
        ("refused", ""),
        ("refused", "ugly"),
        ("refused", "network"),
        ("pending", "private"),
        ("", ""),
    ],
)
def test_an_unknown_status_or_reason_is_refused(status, reason):
    with pytest.raises(ValueError, match="'a'"):
        LedgerRow("a", "", status, reason)


@pytest.mark.parametrize("reason", ["", "ugly", "kept"])
def test_a_refusal_has_a_reason_on_the_lists(reason):
    with pytest.raises(ValueError, match=f"unknown reason '{reason}'"):
        Refusal(reason, "")


@pytest.mark.parametrize(
    "content", ["", "clip_id,source\n", "clip_id,source,status,reason,detail\na,b,refused,ugly,\n", "\0\n"]
)
def test_a_broken_ledger_is_named(tmp_path, content):
    (tmp_path / "00000.csv").write_text(content)
    with pytest.raises(EarshotError, match="00000.csv"):
        read_ledger(tmp_path / "00000.csv")


def test_reasons_are_distinct():
    assert len(set(REASONS)) == len(REASONS)


def test_the_split_is_80_10_10_and_never_moves():
    splits = [split_of(f"video{i}") for i in range(10_000)]
    shares = [splits.count(name) / len(splits) for name in SPLITS]
    assert shares == pytest.approx([0.8, 0.1, 0.1], abs=0.01)
    # Recorded when the split was first defined; a change would leak test videos into trained networks.
    assert [split_of(name) for name in ("", "a", "video2", "---g-f_I2yQ", "caf\udce9")] == PINNED


PINNED = ["val", "train", "test", "train", "val"]
