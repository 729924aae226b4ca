"""Extract: turn clips into scenes: a few frames of each clip and all of its sound.

Reads corpus.clips: tar shards (`<clip_id>.mp4` + `.json`, those of video2dataset too; .tar.gz are unpacked into the
scratch folder), or any folder of videos in any format that FFmpeg reads, sub-folders included; a manifest.csv in it may
give `group` and `annotations` by `file`, and so may a .json beside a video. Rows of the manifest without a file, and
files without a row, stop the stage, or warn, as `corpus.unmatched` sets. corpus.clips_manifest, a published list or a
folder of them, gives groups and annotations by the names of files, and its clips without a file are refused as
not-found; corpus.split says whether it also gives the splits. Links that lead out of the folder are followed if DVC
made them or they lead to one of corpus.follow_links. Every file becomes a row or a refusal with its reason. Clips that
decode but may be useless (silent, still, clipped, duplicate) are refused, flagged or ignored, as `extract.quality`
sets; duplicates are found by fingerprints after all clips are extracted. Reads corpus.ontology, the classes of the
annotations.

Writes data/scenes (a row a clip: frames with their times, sound, group, split, flags), data/scenes/ledger (a row for
every clip, kept or refused), data/scenes/refused (first frames of some clips that decoded and were refused),
data/scenes/ignored.csv (files that are no clips, by suffix, if there are any), data/scenes/clips.json (the hash of the
list of clips, which every metric carries from here on), data/annotations (of the clips, which training never reads, and
ontology.json), metrics/extract.json, and metrics/completeness.csv: of the clips requested, by split and class, how many
were kept and why the others were not.

    python -m stages.extract
    python -m stages.extract --set corpus.clips=/path/to/videos --set extract.frames=10 --set extract.frame_size=256
"""

from functools import partial

from earshot.corpus.completeness import requested_shards
from earshot.corpus.ignored import write_ignored
from earshot.media.clips import Skipped
from earshot.media.joining import joined_lists
from earshot.media.listing import list_shards, packed_tars
from earshot.params.extract import ExtractParams
from earshot.pipeline.stage import Stage, StageContext
from earshot.scenes.annotations import write_ontology
from earshot.scenes.extraction import (
    Extraction,
    Tables,
    extract_shard,
    find_duplicates,
    finish_shard,
    miss_shard,
    unpack_shard,
)

STAGE = Stage(
    name="extract",
    params=ExtractParams,
    reads=lambda params, _: (
        params.corpus.clips,
        params.corpus.clips_manifest,
        *params.corpus.follow_links,
        params.corpus.ontology,
    ),
    writes=("data/scenes", "data/annotations"),
    metrics=("extract",),
    plots=("completeness",),
    uses_cluster=True,
)


def main(run: StageContext[ExtractParams]) -> str:
    corpus, ontology = run.path(run.params.corpus.clips), run.optional_path(run.params.corpus.ontology)
    out = Tables(run.out("data/scenes"), run.out("data/annotations"))
    if ontology:
        write_ontology(ontology, out.annotations)
    extraction = Extraction(run.scratch, out, run.params.extract, run.params.seed)

    links = [run.path(name) for name in run.params.corpus.follow_links]
    lists = joined_lists(run.optional_path(run.params.corpus.clips_manifest), run.params.corpus.split)
    skipped = Skipped()
    packed = packed_tars(corpus, links, extraction.unpacked)
    run.map_shards(partial(unpack_shard, packed), range(len(packed)), title="unpacking")
    count = list_shards(
        corpus,
        run.params.extract.shard_clips,
        extraction.listing,
        scratch=extraction.unpacked,
        follow_links=links,
        unmatched=run.params.corpus.unmatched,
        lists=lists,
        skipped=skipped,
    )
    write_ignored(out.scenes, skipped.kinds)
    shards = range(count)
    run.map_shards(partial(extract_shard, extraction), shards, title="extracting")
    find_duplicates(extraction)
    counts = run.map_shards(partial(finish_shard, extraction), shards, title="looking them over")
    requested = range(len(requested_shards(corpus)))
    if requested:
        run.map_shards(partial(miss_shard, extraction, corpus), requested, title="looking for the others")

    run.set_clips_hash(extraction.clip_ids(shards))
    run.publish("data/scenes")
    run.publish("data/annotations")
    kept = {name: counts[name] for name in ("clips_in", "clips_kept", "moments")}
    others = {name: counts[name] for name in sorted(counts) if name.startswith(("flagged_", "refused_"))}
    run.write_metrics("extract", kept | others)
    run.write_plot("completeness", extraction.completeness(shards, requested))
    return closing_line(kept, others)


def closing_line(kept: dict[str, int], others: dict[str, int]) -> str:
    """The numbers of kept, flagged and refused clips."""
    line = f"{kept['clips_kept']:,} of {kept['clips_in']:,} clips kept, {kept['moments']:,} moments"
    for prefix, where in (("flagged_", "data/scenes"), ("refused_", "why: data/scenes/ledger")):
        counts = [f"{number:,} {name[len(prefix) :]}" for name, number in others.items() if name.startswith(prefix)]
        line += f"; {prefix[:-1]}: {', '.join(counts)} ({where})" if counts else ""
    return line


if __name__ == "__main__":
    STAGE.run(main)
