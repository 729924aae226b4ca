"""Extraction: from listed clips to the tables of scenes and of annotations, shard by shard.

A first pass extracts all scenes; a second pass refuses or flags duplicates.
"""

import hashlib
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from earshot.core.files import link_file, shard_name, shard_paths
from earshot.corpus.completeness import missing_clips, read_outcomes, requested_shard, write_outcomes
from earshot.corpus.ledger import LedgerRow, Refusal, count, outcome, read_ledger, write_ledger
from earshot.corpus.split import split_of
from earshot.media.clips import MediaFile, read_listing
from earshot.media.decoder_process import Decoder
from earshot.media.decoding import Decoded, DecodeOptions
from earshot.media.quality import quality_flags
from earshot.media.unpacking import Unpacked
from earshot.params.extract import Extract
from earshot.scenes.annotations import read_annotations, write_annotations
from earshot.scenes.duplicates import read_duplicates, write_duplicates
from earshot.scenes.refused import REFUSED, write_refused_images
from earshot.scenes.table import read_scenes
from earshot.scenes.writing import Scene, with_flag, without, write_changed_scenes, write_scenes

MOST_IMAGES = 50  # of refused clips of a shard
MISSING = "-missing"  # in the names of outcomes: of requested clips that were not downloaded


@dataclass(frozen=True)
class Tables:
    """The folders of the two tables and their files."""

    scenes: Path
    annotations: Path

    def table(self, number: int) -> Path:
        """A shard of scenes."""
        return self.scenes / f"{shard_name(number)}.parquet"

    def ledger(self, number: int) -> Path:
        """The ledger of a shard."""
        return self.scenes / "ledger" / f"{shard_name(number)}.csv"

    def refused_images(self, number: int) -> Path:
        """The first frames of some clips of a shard that decoded and were refused; there is no file without any."""
        return self.scenes / REFUSED / f"{shard_name(number)}.parquet"

    def annotation_shard(self, number: int) -> Path:
        """A shard of annotations."""
        return self.annotations / f"{shard_name(number)}.parquet"


@dataclass(frozen=True)
class Extraction:
    """The task of the workers: the folders of listings and tables, the parameters and the seed."""

    scratch: Path
    out: Tables
    params: Extract
    seed: int

    @property
    def extracted(self) -> Tables:
        """The tables before duplicates are removed; they never change."""
        return Tables(self.scratch / "extracted" / "scenes", self.scratch / "extracted" / "annotations")

    def listing(self, number: int) -> Path:
        """The listing of a shard's clips, for its worker."""
        return self.scratch / "clips" / f"{shard_name(number)}.json"

    @property
    def unpacked(self) -> Path:
        """The folder of the unpacked tars."""
        return self.scratch / "unpacked"

    def outcomes(self, name: str) -> Path:
        """The file of outcomes of clips, by split and class."""
        return self.scratch / "outcomes" / f"{name}.json"

    @property
    def duplicates(self) -> Path:
        """The folder of the lists of duplicates, one a shard."""
        return self.scratch / "duplicates"

    def clip_ids(self, shards: Iterable[int]) -> Iterator[str]:
        """The ids of the clips in the finished tables, in order."""
        for number in shards:
            for group in read_scenes(self.out.table(number), ["clip_id"]):
                yield from group["clip_id"].to_pylist()

    def completeness(self, shards: Iterable[int], requested: Iterable[int]) -> list[dict[str, str | int | float]]:
        """By split and class, how many of the requested clips are kept, and why the others are missing.

        Args:
            shards: the shards of clips.
            requested: the shards of the list that the stage download was given, where there is one.
        """
        names = [*map(shard_name, shards), *(shard_name(number) + MISSING for number in requested)]
        return read_outcomes(map(self.outcomes, names)).rows()


def unpack_shard(packed: Sequence[Unpacked], number: int) -> dict[str, int]:
    """Unpack a compressed tar."""
    packed[number].unpack()
    return {}


def extract_shard(extraction: Extraction, number: int) -> dict[str, int]:
    """Extract the clips of one shard and write its files; return the counts of its ledger."""
    params, tables = extraction.params, extraction.extracted
    clips = read_listing(extraction.listing(number))
    ledger: list[LedgerRow] = []
    images: dict[str, bytes] = {}
    with Decoder(params.decode_timeout_s, (clip.path for clip in clips if not clip.refusal)) as decoder:
        rows = extract_clips(clips, decoder, params, extraction.seed, ledger, images)
        write_scenes(tables.table(number), rows)
    write_ledger(tables.ledger(number), ledger)
    write_refused_images(tables.refused_images(number), images)
    kept = {row.clip_id for row in ledger if row.status == "kept"}
    annotations = {clip.clip_id: clip.annotations for clip in clips if clip.clip_id in kept}
    write_annotations(tables.annotation_shard(number), annotations)
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
    """Write one shard with its duplicates refused or flagged, and count its clips; return the counts for the metrics.

    The extracted shard is not changed, so that a late worker, which the scheduler had given up, cannot undo this.
    """
    before, after, action = extraction.extracted, extraction.out, extraction.params.quality.duplicate
    duplicates = {} if action == "ignore" else read_duplicates(extraction.duplicates, number)
    if duplicates and action == "refuse":
        refuse(before, after, number, duplicates)
    else:
        if duplicates:
            flag = partial(with_flag, clip_ids=duplicates, flag="duplicate")
            write_changed_scenes(before.table(number), after.table(number), flag)
        else:
            link_file(before.table(number), after.table(number))
        link_file(before.ledger(number), after.ledger(number))
        link_file(before.annotation_shard(number), after.annotation_shard(number))
    if before.refused_images(number).exists():
        link_file(before.refused_images(number), after.refused_images(number))
    ledger = read_ledger(after.ledger(number))
    outcomes = {row.clip_id: outcome(row) for row in ledger}
    clips = read_listing(extraction.listing(number))
    of_clips = ((split_of_clip(clip), clip.annotations, outcomes[clip.clip_id]) for clip in clips)
    write_outcomes(extraction.outcomes(shard_name(number)), of_clips)
    counts = count(ledger)
    return counts | flags(after.table(number)) | {"moments": counts["clips_kept"] * extraction.params.frames}


def refuse(before: Tables, after: Tables, number: int, duplicates: dict[str, str]) -> None:
    """Write one shard without its duplicates; the ledger gets their refusals."""
    write_changed_scenes(before.table(number), after.table(number), partial(without, clip_ids=duplicates))
    annotations = read_annotations(before.annotation_shard(number))
    remaining = {clip: texts for clip, texts in annotations.items() if clip not in duplicates}
    write_annotations(after.annotation_shard(number), remaining)
    rows = [
        replace(row, status="refused", reason="duplicate", detail=duplicates[row.clip_id])
        if row.clip_id in duplicates
        else row
        for row in read_ledger(before.ledger(number))
    ]
    write_ledger(after.ledger(number), rows)


def flags(table: Path) -> dict[str, int]:
    """The number of clips of a shard with each flag, under the names of the metrics."""
    counts = Counter(flag for group in read_scenes(table, ["flags"]) for row in group["flags"] for flag in row.as_py())
    return {f"flagged_{flag}": number for flag, number in counts.items()}


def miss_shard(extraction: Extraction, corpus: Path, number: int) -> dict[str, int]:
    """Count the outcomes of the requested clips of a shard that were not downloaded."""
    write_outcomes(extraction.outcomes(shard_name(number) + MISSING), missing_clips(*requested_shard(corpus, number)))
    return {}


def extract_clips(
    clips: list[MediaFile],
    decoder: Decoder,
    params: Extract,
    seed: int,
    ledger: list[LedgerRow],
    images: dict[str, bytes] | None = None,
) -> Iterator[Scene]:
    """The scenes of the clips that are kept; appends a row for every clip to `ledger`.

    `images` gets the first frames of some clips that decode and are refused, by name.
    """
    for clip in clips:
        decoded: Decoded | None = None
        try:
            if clip.refusal:
                raise Refusal(*clip.refusal)
            options = decode_options(params, places(clip.clip_id, params.frames, params.times, seed))
            decoded = decoder.decode(clip.path, clip.offset, clip.size, options)
            flags = quality_flags(decoded.measured, params.quality)
        except Refusal as refusal:
            ledger.append(LedgerRow(clip.clip_id, clip.source, "refused", refusal.reason, refusal.detail))
            if images is not None and decoded and decoded.frames and len(images) < MOST_IMAGES:
                images[clip.clip_id] = decoded.frames[0]
        else:
            ledger.append(LedgerRow(clip.clip_id, clip.source, "kept"))
            group = clip.group or clip.clip_id
            split = split_of_clip(clip)
            yield Scene(clip_id=clip.clip_id, group=group, split=split, flags=flags, **vars(decoded))


def split_of_clip(clip: MediaFile) -> str:
    """The split of a clip: that of a published list, else that of its group."""
    return clip.split or split_of(clip.group or clip.clip_id)


def places(clip_id: str, frames: int, times: str, seed: int) -> tuple[float, ...]:
    """The places of a clip's moments, in [0, 1): one in each of `frames` equal parts, in its middle or at random.

    Random places depend only on the seed and the clip.
    """
    draws = [0.5 if times == "even" else _draw(f"{seed}/{clip_id}/{moment}") for moment in range(frames)]
    return tuple((moment + draw) / frames for moment, draw in enumerate(draws))


def _draw(name: str) -> float:
    """A number in [0, 1) that depends only on the name."""
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:6], "big") / 2**48


def decode_options(params: Extract, places: tuple[float, ...]) -> DecodeOptions:
    """The options of the decoder, in seconds and pixels."""
    return DecodeOptions(
        places=places,
        frame_size=params.frame_size,
        squeeze=params.fit == "squeeze",
        all_images=params.decode == "all",
        jpeg_quality=params.jpeg_quality,
        window_s=params.window_s,
        min_duration_s=params.min_duration_s,
        max_duration_s=params.max_duration_s * 60,
        max_pixels=round(params.max_megapixels * 1e6),
        sequence_rate=params.sequence_rate,
        sequence_size=params.sequence_size,
    )
