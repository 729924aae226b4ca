"""Sample: render a corpus of videos and small benchmark datasets, so that everything runs without a network.

    python -m stages.sample
    python -m stages.sample --set sample.clips=100 --set sample.seed=1

Writes data/sample: corpus/ (manifest.csv and videos/*.mp4), ontology.json (of its annotations, in AudioSet's
format), voc/ (in the layout of VOC2007), sun/ (of SUN397), esc50/ (of ESC-50) and localization/ (of VGG-SS). Images and
sounds of the benchmarks come from the same world as the corpus, but from other instances.
"""

from collections.abc import Sequence
from functools import partial
from pathlib import Path

from earshot.params.sample import Sample, SampleParams
from earshot.pipeline.stage import Stage, StageContext
from earshot.world.corpus import render_corpus, write_manifest
from earshot.world.esc50 import FOLDS, recordings, render_esc50, write_table
from earshot.world.localization import render_localization, write_boxes
from earshot.world.ontology import write_ontology
from earshot.world.sources import KINDS
from earshot.world.sun import images_per_category, render_sun, write_partitions
from earshot.world.voc import render_voc, write_image_sets

STAGE = Stage(name="sample", params=SampleParams, writes=("data/sample",))

Part = tuple[str, range]  # a dataset and the numbers of some of its items


def main(run: StageContext[SampleParams]) -> str:
    sample, folder = run.params.sample, run.out("data/sample")
    images, sounds = sample.voc_train + sample.voc_val + sample.voc_test, sample.esc50_recordings
    scenes = len(KINDS) * images_per_category(sample.sun_images)
    parts = [
        *shares("corpus", range(sample.clips), sample.shard_clips),
        *shares("voc", range(1, images + 1), 4 * sample.shard_clips),
        *shares("sun", range(scenes), 4 * sample.shard_clips),
        *shares("esc50", range(len(KINDS) * FOLDS * sounds), 4 * sample.shard_clips),
        *shares("localization", range(sample.localization_images), 2 * sample.shard_clips),
    ]
    run.map_shards(partial(render_part, parts, sample, folder), range(len(parts)), title="rendering")

    write_manifest(folder / "corpus", sample.seed, sample.clips, sample.duration_s)
    write_image_sets(folder / "voc", train=sample.voc_train, val=sample.voc_val, test=sample.voc_test)
    write_partitions(folder / "sun", sample.seed, sample.sun_images)
    write_table(folder / "esc50", recordings(sounds))
    write_boxes(folder / "localization", sample.localization_images)
    write_ontology(folder)
    run.publish("data/sample")
    return (
        f"{sample.clips:,} videos of {len(KINDS)} kinds of scene rendered; for the benchmarks {images:,} annotated "
        f"images (voc), {scenes:,} scenes (sun), {len(recordings(sounds)):,} recordings (esc50) and "
        f"{sample.localization_images:,} images with their sound (localization)"
    )


def shares(dataset: str, numbers: range, size: int) -> list[Part]:
    """The numbers of a dataset in parts of at most `size`."""
    return [(dataset, numbers[start : start + size]) for start in range(0, len(numbers), size)]


def render_part(parts: Sequence[Part], sample: Sample, folder: Path, number: int) -> dict[str, int]:
    """Render one part of a dataset; return the number of items."""
    dataset, items = parts[number]
    size = sample.image_size
    match dataset:
        case "corpus":
            render_corpus(
                folder / dataset,
                sample.seed,
                items,
                image_size=size,
                seconds=sample.duration_s,
                frame_rate=sample.frame_rate,
            )
        case "voc":
            render_voc(folder / dataset, sample.seed, items, image_size=size)
        case "sun":
            render_sun(folder / dataset, sample.seed, items, image_size=size)
        case "esc50":
            listed = recordings(sample.esc50_recordings)
            render_esc50(folder / dataset, sample.seed, [listed[item] for item in items])
        case "localization":
            render_localization(folder / dataset, sample.seed, items, image_size=size)
    return {dataset: len(items)}


if __name__ == "__main__":
    STAGE.run(main)
