"""Extraction: from listed clips to the tables of scenes and of annotations, shard by shard.

Scenes are first extracted as they come, then looked over for duplicates, which are refused or flagged in a second pass.
"""

import hashlib
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from earshot.core.files import link_file, shard_name, shard_paths
from earshot.corpus.completeness import missing_clips, read_outcomes, requested_shard, write_outcomes
from earshot.corpus.ledger import LedgerRow, Refusal, count, outcome, read_ledger, write_ledger
from earshot.media.clips import Clip, read_listing
from earshot.media.decoder_process import Decoder
from earshot.media.decoding import DecodeOptions
from earshot.media.quality import judge
from earshot.params.extract import Extract
from earshot.scenes.annotations import read_annotations, write_annotations
from earshot.scenes.duplicates import read_duplicates, write_duplicates
from earshot.scenes.table import read_scenes
from earshot.scenes.writing import Scene, with_flag, without, write_changed_scenes, write_scenes

MISSING = "-missing"  # in the names of outcomes: of clips that were requested and never came


@dataclass(frozen=True)
class Tables:
    """The folders of the two tables, and their files."""

    scenes: Path
    annotations: Path

    def table(self, number: int) -> Path:
        """A shard of scenes."""
        return self.scenes / f"{shard_name(number)}.parquet"

    def ledger(self, number: int) -> Path:
        """The ledger of a shard."""
        return self.scenes / "ledger" / f"{shard_name(number)}.csv"

    def said(self, number: int) -> Path:
        """A shard of annotations."""
        return self.annotations / f"{shard_name(number)}.parquet"


@dataclass(frozen=True)
class Extraction:
    """What the workers are given: where listings wait, where tables grow, and how."""

    scratch: Path
    out: Tables
    params: Extract
    seed: int

    @property
    def extracted(self) -> Tables:
        """The tables before duplicates are looked for, which stay as they are."""
        return Tables(self.scratch / "extracted" / "scenes", self.scratch / "extracted" / "annotations")

    def listing(self, number: int) -> Path:
        """Where the list of a shard's clips waits for its worker."""
        return self.scratch / "clips" / f"{shard_name(number)}.json"

    def outcomes(self, name: str) -> Path:
        """What became of clips, by split and class."""
        return self.scratch / "outcomes" / f"{name}.json"

    @property
    def duplicates(self) -> Path:
        """The folder of the lists of duplicates, a shard each."""
        return self.scratch / "duplicates"

    def clip_ids(self, shards: Iterable[int]) -> Iterator[str]:
        """The clips of the finished tables, in order."""
        for number in shards:
            for group in read_scenes(self.out.table(number), ["clip_id"]):
                yield from group["clip_id"].to_pylist()

    def completeness(self, shards: Iterable[int], requested: Iterable[int]) -> list[dict[str, str | int | float]]:
        """Of the clips requested, by split and class, how many there are and why the others are not.

        Args:
            shards: those that clips came in.
            requested: those of the lists of what the stage download was requested to get, where there are any.
        """
        names = [*map(shard_name, shards), *(shard_name(number) + MISSING for number in requested)]
        return read_outcomes(map(self.outcomes, names)).rows()


def extract_shard(extraction: Extraction, number: int) -> dict[str, int]:
    """Extract the clips of one shard into its files; return the counts of its ledger."""
    params, tables = extraction.params, extraction.extracted
    clips = read_listing(extraction.listing(number))
    ledger: list[LedgerRow] = []
    with Decoder(params.decode_timeout_s) as decoder:
        rows = extract_clips(clips, decoder, params, extraction.seed, ledger)
        write_scenes(tables.table(number), rows)
    write_ledger(tables.ledger(number), ledger)
    kept = {row.clip_id for row in ledger if row.status == "kept"}
    said = {clip.clip_id: clip.annotations for clip in clips if clip.clip_id in kept}
    write_annotations(tables.said(number), said)
    return count(ledger)


def find_duplicates(extraction: Extraction) -> None:
    """List the duplicates of all shards, once."""
    quality, finished = extraction.params.quality, extraction.duplicates / "finished"
    if quality.duplicate == "ignore" or finished.exists():
        return
    shards = shard_paths(extraction.extracted.scenes, ".parquet")
    write_duplicates(shards, extraction.duplicates, quality.duplicate_audio, quality.duplicate_image)
    finished.touch()


def finish_shard(extraction: Extraction, number: int) -> dict[str, int]:
    """Write one shard with its duplicates refused or flagged, and count its clips; return the metrics' counts.

    What was extracted is read and not changed: a worker that is late with it, lost to the scheduler, undoes nothing.
    """
    before, after, what = extraction.extracted, extraction.out, extraction.params.quality.duplicate
    found = {} if what == "ignore" else read_duplicates(extraction.duplicates, number)
    if found and what == "refuse":
        refuse(before, after, number, found)
    else:
        if found:
            flag = partial(with_flag, clip_ids=found, flag="duplicate")
            write_changed_scenes(before.table(number), after.table(number), flag)
        else:
            link_file(before.table(number), after.table(number))
        link_file(before.ledger(number), after.ledger(number))
        link_file(before.said(number), after.said(number))
    ledger = read_ledger(after.ledger(number))
    became = {row.clip_id: outcome(row) for row in ledger}
    clips = read_listing(extraction.listing(number))
    of_each = ((clip.group or clip.clip_id, clip.annotations, became[clip.clip_id]) for clip in clips)
    write_outcomes(extraction.outcomes(shard_name(number)), of_each)
    counts = count(ledger)
    return counts | flags(after.table(number)) | {"moments": counts["clips_kept"] * extraction.params.frames}


def refuse(before: Tables, after: Tables, number: int, duplicates: dict[str, str]) -> None:
    """Write one shard without its duplicates, each with its refusal in the ledger."""
    write_changed_scenes(before.table(number), after.table(number), partial(without, clip_ids=duplicates))
    said = read_annotations(before.said(number))
    write_annotations(after.said(number), {clip: texts for clip, texts in said.items() if clip not in duplicates})
    rows = [
        replace(row, status="refused", reason="duplicate", detail=duplicates[row.clip_id])
        if row.clip_id in duplicates
        else row
        for row in read_ledger(before.ledger(number))
    ]
    write_ledger(after.ledger(number), rows)


def flags(table: Path) -> dict[str, int]:
    """How many clips of a shard have which flag, under the names of the metrics."""
    found = Counter(flag for group in read_scenes(table, ["flags"]) for row in group["flags"] for flag in row.as_py())
    return {f"flagged_{flag}": number for flag, number in found.items()}


def miss_shard(extraction: Extraction, corpus: Path, number: int) -> dict[str, int]:
    """Count what became of the clips of a shard that were asked for and never came."""
    write_outcomes(extraction.outcomes(shard_name(number) + MISSING), missing_clips(*requested_shard(corpus, number)))
    return {}


def extract_clips(
    clips: list[Clip], decoder: Decoder, params: Extract, seed: int, ledger: list[LedgerRow]
) -> Iterator[Scene]:
    """The scenes of the clips that yield one; `ledger` gets a row for every clip."""
    for clip in clips:
        try:
            if clip.refusal:
                raise Refusal(*clip.refusal)
            wanted = decode_options(params, places(clip.clip_id, params.frames, params.times, seed))
            decoded = decoder.decode(clip.path, clip.offset, clip.size, wanted)
            flags = judge(decoded.measured, params.quality)
        except Refusal as refusal:
            ledger.append(LedgerRow(clip.clip_id, clip.source, "refused", refusal.reason, refusal.detail))
        else:
            ledger.append(LedgerRow(clip.clip_id, clip.source, "kept"))
            group = clip.group or clip.clip_id
            yield Scene(clip_id=clip.clip_id, group=group, flags=flags, **vars(decoded))


def places(clip_id: str, frames: int, times: str, seed: int) -> tuple[float, ...]:
    """Where in [0, 1) of a clip its moments are: one in each of `frames` equal parts, in its middle or at random.

    Random places depend on the seed and the clip alone.
    """
    draws = [0.5 if times == "even" else _draw(f"{seed}/{clip_id}/{moment}") for moment in range(frames)]
    return tuple((moment + draw) / frames for moment, draw in enumerate(draws))


def _draw(name: str) -> float:
    """A number in [0, 1) that is the same for the same name, for ever and everywhere."""
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:6], "big") / 2**48


def decode_options(params: Extract, places: tuple[float, ...]) -> DecodeOptions:
    """The parameters as the decoder has them, in seconds and pixels."""
    return DecodeOptions(
        places=places,
        frame_size=params.frame_size,
        jpeg_quality=params.jpeg_quality,
        window_s=params.window_s,
        min_duration_s=params.min_duration_s,
        longest=params.max_duration_s * 60,
        pixels=round(params.max_megapixels * 1e6),
        sequence_rate=params.sequence_rate,
        sequence_size=params.sequence_size,
    )
