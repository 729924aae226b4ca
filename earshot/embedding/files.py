"""Embeds many files on all workers: a table with a row a moment, or an npz a file, and a ledger with a row a file.

Finished files are kept beside the output, so that a run that was stopped continues.
"""

import hashlib
import itertools
import json
import os
import shutil
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache, partial
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from earshot.core.errors import EarshotError
from earshot.core.files import real_path, shard_name, write_atomically
from earshot.core.hashing import stable_hash
from earshot.corpus.ledger import LedgerRow, Refusal, count, read_ledger, write_ledger
from earshot.embedding.loading import load
from earshot.embedding.model import Model
from earshot.embedding.moments import MomentEmbeddings
from earshot.embedding.table import ROWS_AT_ONCE, Origin
from earshot.media.clips import MediaFile, Skipped, clip_name, read_listing, write_listing
from earshot.media.listing import list_shards
from earshot.media.stream_process import MediaReader
from earshot.media.tar_process import TarLister
from earshot.pipeline.shards import first_result, map_shards

TABLE, LEDGER = ".parquet", ".ledger.csv"
LISTED_AT_ONCE = 1000
SHARD_FILES = 8  # at most, that a worker embeds before it takes the next
LEAST_SHARDS = 64  # of fewer files each is a shard, so that all workers end together
MOMENTS_AT_ONCE = 1024  # of one file that are in memory
TIMEOUT_S = 60.0  # for a second of a file, about


@dataclass(frozen=True)
class EmbedTask:
    """What to embed, for the workers.

    Args:
        model, weights, layer: as for `load`.
        hop_s, center: of the moments.
        pooled: one row a file.
        max_duration_s: longer files are refused.
        output: a Parquet file, or a folder of npz files.
        scratch: the folder of unfinished work.
    """

    model: str
    weights: str
    layer: str | None
    hop_s: float
    center: bool
    pooled: bool
    max_duration_s: float
    output: Path
    scratch: Path

    @property
    def writes_table(self) -> bool:
        """Whether the output is a table, and not a folder."""
        return self.output.suffix == TABLE

    def listing(self, number: int) -> Path:
        """The listing of the files of a shard."""
        return self.scratch / "files" / f"{shard_name(number)}.json"

    def part(self, number: int) -> Path:
        """The rows of a shard."""
        return self.scratch / "rows" / f"{shard_name(number)}{TABLE}"

    def ledger(self, number: int) -> Path:
        """The ledger of a shard."""
        return self.scratch / "ledger" / f"{shard_name(number)}.csv"

    def origin(self, model: Model) -> Origin:
        """What the table says of itself."""
        return Origin(
            self.model,
            model.name,
            model.fingerprint,
            metadata.version("earshot"),
            model.audio_dimensions,
            model.image_dimensions,
            model.aligned,
            self.hop_s,
            self.center,
            self.pooled,
        )


def embed_files(inputs: Sequence[Path], task: EmbedTask) -> Counter[str]:
    """Embed files, folders and tars; return the counts of the ledger.

    Raises EarshotError if an input does not exist, or holds no clips, and as `load` does.
    """
    clips = list(_renamed(_listed(inputs, task.scratch)))
    files = list(_batches(clips, min(max(len(clips) // LEAST_SHARDS, 1), SHARD_FILES)))
    # The workers alone load the model: in this process that would take as long again.
    origin = first_result(partial(_origin, task), len(files))
    task = replace(task, scratch=task.scratch / _key(task, origin, files))
    task.scratch.mkdir(parents=True, exist_ok=True)
    for leftover in task.scratch.parent.iterdir():  # of other inputs or another model
        if leftover != task.scratch:
            shutil.rmtree(leftover)
    for number, batch in enumerate(files):
        write_listing(task.listing(number), batch)
    numbers = range(len(files))
    counts = map_shards(partial(embed_shard, task), numbers, task.scratch / "done", title="embedding")
    if task.writes_table:
        _join_rows(task, origin, numbers)
    ledger = (row for number in numbers for row in read_ledger(task.ledger(number)))
    write_ledger(task.output.with_name(task.output.stem + LEDGER), ledger)
    shutil.rmtree(task.scratch.parent)
    return counts


def embed_shard(task: EmbedTask, number: int) -> dict[str, int]:
    """Embed the files of one shard; return the counts of its ledger."""
    model, ledger = _model(task.model, task.weights, task.layer), []
    origin = task.origin(model)
    task.part(number).parent.mkdir(parents=True, exist_ok=True)
    with write_atomically(task.part(number)) as temporary, pq.ParquetWriter(temporary, origin.schema) as writer:
        for clip in read_listing(task.listing(number)):
            try:
                if clip.refusal:
                    raise Refusal(*clip.refusal)
                if task.writes_table:
                    _add_rows(_rows(task, model, origin, clip), task.part(number), origin, writer)
                else:
                    _write_npz(task, model, clip)
            except Refusal as refusal:
                ledger.append(LedgerRow(clip.clip_id, clip.source, "refused", refusal.reason, refusal.detail))
            else:
                ledger.append(LedgerRow(clip.clip_id, clip.source, "kept"))
    write_ledger(task.ledger(number), ledger)
    return count(ledger, total="files")


def _origin(task: EmbedTask) -> Origin:
    return task.origin(_model(task.model, task.weights, task.layer))


@cache
def _model(source: str, weights: str, layer: str | None) -> Model:
    return load(source, weights=weights, layer=layer)


@cache
def _reader() -> MediaReader:
    return MediaReader(TIMEOUT_S)


def _moments(task: EmbedTask, model: Model, clip: MediaFile, least: int) -> Iterator[MomentEmbeddings]:
    options = model.stream_options(task.hop_s, max_duration_s=task.max_duration_s)
    pieces = _reader().read(clip.path, options, clip.offset, clip.size)
    yield from model.moments_of(pieces, task.hop_s, task.center, least)


def _rows(task: EmbedTask, model: Model, origin: Origin, clip: MediaFile) -> Iterator[pa.Table]:
    parts = _moments(task, model, clip, MOMENTS_AT_ONCE)
    for moments in [_pooled(parts)] if task.pooled else parts:
        yield origin.rows(clip, moments, os.fsencode(clip.path).decode("utf-8", "backslashreplace"))


def _pooled(parts: Iterable[MomentEmbeddings]) -> MomentEmbeddings:
    """The mean over all moments of a file."""
    sums: dict[str, np.ndarray] = {}
    numbers: Counter[str] = Counter()
    for moments in parts:
        audible = None if moments.audio is None else moments.audio[~moments.silent]
        for name, rows in (("audio", audible), ("images", moments.images)):
            if rows is not None and len(rows):
                sums[name] = sums.get(name, 0) + rows.sum(axis=0, dtype=np.float64)
                numbers[name] += len(rows)
    means = {name: (total / numbers[name]).astype(np.float32)[None] for name, total in sums.items()}
    return MomentEmbeddings(np.zeros(1), means.get("audio"), means.get("images"), np.array(["audio" not in means]))


def _add_rows(tables: Iterator[pa.Table], beside: Path, origin: Origin, writer: pq.ParquetWriter) -> None:
    """Add the rows of one file once all of them are there: a file that is refused at its end has none."""
    with write_atomically(beside.with_suffix(".one")) as temporary:
        with pq.ParquetWriter(temporary, origin.schema) as own:
            for table in tables:
                own.write_table(table)
        with pq.ParquetFile(temporary) as opened:
            for number in range(opened.num_row_groups):
                writer.write_table(opened.read_row_group(number).replace_schema_metadata(origin.schema.metadata))


def _write_npz(task: EmbedTask, model: Model, clip: MediaFile) -> None:
    """Write what openl3 writes, `embedding` and `timestamps`, and the fingerprint of the model."""
    file = task.output / f"{clip.clip_id}.npz"
    parts = list(_moments(task, model, clip, MOMENTS_AT_ONCE))
    audio, images = ([getattr(part, name) for part in parts] for name in ("audio", "images"))
    arrays: dict[str, Any] = {"timestamps": np.concatenate([part.times for part in parts])}
    rows = {"embedding": audio, "image_embedding": images}
    if model.audio_dimensions == 0:
        rows = {"embedding": images}
    arrays |= {name: np.concatenate(values) for name, values in rows.items() if values[0] is not None}
    arrays["silent"] = np.concatenate([part.silent for part in parts])
    with write_atomically(file) as temporary, open(temporary, "wb") as opened:
        np.savez(opened, fingerprint=np.array(model.fingerprint), **arrays)


def _join_rows(task: EmbedTask, origin: Origin, numbers: Iterable[int]) -> None:
    """Join the rows of all shards in large row groups."""
    waiting: list[pa.Table] = []
    rows = 0
    with write_atomically(task.output) as temporary, pq.ParquetWriter(temporary, origin.schema) as writer:
        for number in numbers:
            with pq.ParquetFile(task.part(number)) as part:
                for group in range(part.num_row_groups):
                    waiting.append(part.read_row_group(group))
                    rows += len(waiting[-1])
                    if rows >= ROWS_AT_ONCE:
                        writer.write_table(_joined(waiting, origin))
                        waiting, rows = [], 0
        if waiting:
            writer.write_table(_joined(waiting, origin))


def _joined(tables: list[pa.Table], origin: Origin) -> pa.Table:
    return pa.concat_tables(tables).combine_chunks().replace_schema_metadata(origin.schema.metadata)


def _listed(inputs: Sequence[Path], scratch: Path) -> Iterator[MediaFile]:
    """The clips of files, tars and folders."""
    for number, path in enumerate(inputs):
        if not path.exists():
            raise EarshotError(f"{path}: no such file or folder; give files, tars or folders")
        if path.is_dir():
            folder = scratch / f"listed-{number}"
            listing = partial(_listing, folder)
            for shard in range(list_shards(path, LISTED_AT_ONCE, listing)):
                yield from read_listing(listing(shard))
        elif path.suffix == ".tar":
            with TarLister([path]) as lister:
                yield from lister.clips(real_path(path), path.name, Skipped())
        else:
            real = real_path(path)
            clip = MediaFile(clip_name(path.name), "", real, 0, 0, source=str(path))
            refusal = None if real.is_file() else ("unsupported", "not a regular file")
            yield replace(clip, size=real.stat().st_size, refusal=refusal)


def _listing(folder: Path, shard: int) -> Path:
    return folder / f"{shard_name(shard)}.json"


def _renamed(clips: Iterable[MediaFile]) -> Iterator[MediaFile]:
    """Clips with names of their own: a hash of its place tells a clip from one of the same name."""
    names: set[int] = set()
    for number, clip in enumerate(clips):
        if stable_hash(clip.clip_id) in names:
            digest = hashlib.sha256(os.fsencode(f"{number}\0{clip.path}\0{clip.offset}")).hexdigest()[:8]
            clip = replace(clip, clip_id=f"{clip.clip_id}-{digest}")
        names.add(stable_hash(clip.clip_id))
        yield clip


def _batches(clips: Iterable[MediaFile], size: int) -> Iterator[list[MediaFile]]:
    clips = iter(clips)
    while batch := list(itertools.islice(clips, size)):
        yield batch


def _key(task: EmbedTask, origin: Origin, files: Iterable[list[MediaFile]]) -> str:
    """A name of this work: unfinished work of other files or of another model is not continued."""
    options = [origin.fingerprint, task.hop_s, task.center, task.pooled, task.max_duration_s]
    digest = hashlib.sha256(json.dumps(options).encode())
    for clip in itertools.chain.from_iterable(files):
        changed = clip.path.stat().st_mtime_ns if clip.path.exists() else 0
        digest.update(os.fsencode(f"{clip.path}\0{clip.offset}\0{clip.size}\0{changed}\n"))
    return digest.hexdigest()[:16]
