"""The lists of the clips that a download requests: one line of JSON for each row of the manifest."""

import json
from dataclasses import replace
from pathlib import Path

from earshot.core.messages import without_secrets
from earshot.corpus.manifest import ManifestRow


def read_requested(path: Path) -> list[ManifestRow]:
    """The rows of one shard."""
    return [row_of(line) for line in path.read_bytes().splitlines()]


def row_text(row: ManifestRow) -> bytes:
    values = [row.clip_id, row.source, row.start, row.end, row.group, row.annotations, row.is_local]
    return json.dumps(values).encode() + b"\n"


def public_row(row: ManifestRow) -> ManifestRow:
    """The row as it may be shared: its address without password and tokens."""
    return row if row.is_local else replace(row, source=without_secrets(row.source))


def row_of(text: bytes) -> ManifestRow:
    clip_id, source, start, end, group, annotations, is_local = json.loads(text)
    return ManifestRow(clip_id, source, start, end, group, tuple(annotations), is_local)
