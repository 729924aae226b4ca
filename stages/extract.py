"""Extract: clips become scenes, a few frames of each and all of its sound.

Reads corpus.clips: tar shards (`<clip_id>.mp4` + `.json`, those of video2dataset too), or any folder of videos in any
format that FFmpeg reads, sub-folders included; a manifest.csv in it may give `group` and `annotations` by `file`, and
so may a .json beside a video. Every file ends as a row or as a refusal with its reason.

Writes data/scenes (a row a clip: pictures with their times, sound, group, split), data/scenes/ledger (a row for every
clip, kept or refused), data/annotations (what humans said of the clips, which training never reads) and
metrics/extract.json.

    python -m stages.extract
    python -m stages.extract --set corpus.clips=/path/to/videos --set extract.frames=10 --set extract.frame_size=256
"""

import hashlib
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from earshot.corpus.ledger import LedgerRow, Refusal, count, write_ledger
from earshot.media.annotations import write_annotations
from earshot.media.child import Decoder
from earshot.media.clips import Clip, read_listing
from earshot.media.decoding import Wanted
from earshot.media.listing import list_shards
from earshot.media.scenes import Scene, write_scenes
from earshot.pipeline.shards import shard_name
from earshot.pipeline.stage import Run, Stage

STAGE = Stage(
    name="extract",
    params=("seed", "corpus.clips", "extract"),
    reads=lambda params, _: (params.corpus.clips,),
    writes=("data/scenes", "data/annotations"),
    metrics=("extract",),
    spreads=True,
)


def main(run: Run) -> str:
    listing = partial(listing_path, run.scratch)
    shards = list_shards(run.path(run.params.corpus.clips), run.params.extract.shard_clips, listing)
    extract = partial(
        extract_shard,
        scratch=run.scratch,
        scenes=run.out("data/scenes"),
        annotations=run.out("data/annotations"),
        params=run.params.extract,
        seed=run.params.seed,
    )
    counts = run.map_shards(extract, range(shards), title="extracting")
    run.place("data/scenes")
    run.place("data/annotations")
    refused = {name: number for name, number in sorted(counts.items()) if name.startswith("refused_")}
    kept = {name: counts[name] for name in ("clips_in", "clips_kept", "moments")}
    run.write_metrics("extract", kept | refused)
    return closing_line(kept, refused)


def extract_shard(number: int, scratch: Path, scenes: Path, annotations: Path, params, seed: int) -> dict[str, int]:
    """Extract the clips of one shard into its files; return the counts of its ledger and of its moments."""
    clips = read_listing(listing_path(scratch, number))
    ledger: list[LedgerRow] = []
    with Decoder(params.clip_seconds) as decoder:
        rows = extract_clips(clips, decoder, params, seed, ledger)
        write_scenes(scenes / f"{shard_name(number)}.parquet", rows)
    write_ledger(scenes / "ledger" / f"{shard_name(number)}.csv", ledger)
    kept = {row.clip_id for row in ledger if row.status == "kept"}
    said = {clip.clip_id: clip.annotations for clip in clips if clip.clip_id in kept}
    write_annotations(annotations / f"{shard_name(number)}.parquet", said)
    return count(ledger) | {"moments": len(kept) * params.frames}


def extract_clips(clips: list[Clip], decoder: Decoder, params, seed: int, ledger: list[LedgerRow]) -> Iterator[Scene]:
    """The scenes of the clips that yield one; `ledger` gets a row for every clip."""
    for clip in clips:
        try:
            if clip.refusal:
                raise Refusal(*clip.refusal)
            wanted = what_is_wanted(params, places(clip.clip_id, params.frames, params.times, seed))
            decoded = decoder.decode(clip.path, clip.offset, clip.size, wanted)
        except Refusal as refusal:
            ledger.append(LedgerRow(clip.clip_id, clip.source, "refused", refusal.reason, refusal.detail))
        else:
            ledger.append(LedgerRow(clip.clip_id, clip.source, "kept"))
            yield Scene(clip_id=clip.clip_id, group=clip.group or clip.clip_id, **vars(decoded))


def places(clip_id: str, frames: int, times: str, seed: int) -> tuple[float, ...]:
    """Where in [0, 1) of a clip its moments are: one in each of `frames` equal parts, in its middle or at random.

    Random places depend on the seed and the clip alone.
    """
    draws = [0.5 if times == "even" else _draw(f"{seed}/{clip_id}/{moment}") for moment in range(frames)]
    return tuple((moment + draw) / frames for moment, draw in enumerate(draws))


def _draw(name: str) -> float:
    """A number in [0, 1) that is the same for the same name, for ever and everywhere."""
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:6], "big") / 2**48


def what_is_wanted(params, places: tuple[float, ...]) -> Wanted:
    """The parameters as the decoder has them, in seconds and pixels."""
    return Wanted(
        places=places,
        frame_size=params.frame_size,
        jpeg_quality=params.jpeg_quality,
        window=params.window,
        shortest=params.shortest,
        longest=params.minutes_limit * 60,
        pixels=round(params.megapixels_limit * 1e6),
        sequence_rate=params.sequence_rate,
        sequence_size=params.sequence_size,
    )


def listing_path(scratch: Path, number: int) -> Path:
    """Where the list of a shard's clips waits for its worker."""
    return scratch / "clips" / f"{shard_name(number)}.json"


def closing_line(kept: dict[str, int], refused: dict[str, int]) -> str:
    """What came out and what was left out."""
    line = f"{kept['clips_kept']:,} of {kept['clips_in']:,} clips kept, {kept['moments']:,} moments"
    reasons = ", ".join(f"{number:,} {name.removeprefix('refused_')}" for name, number in refused.items())
    return f"{line}; refused: {reasons} (why: data/scenes/ledger)" if refused else line


if __name__ == "__main__":
    STAGE.run(main)
