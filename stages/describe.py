"""Describe: compute a descriptor of the sound around every frame.

Silent moments stay in the table with a flag. Benchmarks of recordings compute the same descriptor from
models/descriptor, which changes only if a descriptor in the table does.

reads   data/scenes
        encoder.folder     the network of the descriptor `encoder`, if set
writes  data/sounds        one row for each moment (earshot/sound/table.py)
        models/descriptor  the descriptor, its options and files, and a digest of all of data/sounds
        metrics/describe.json

    python -m stages.describe
    python -m stages.describe --set descriptor=mfcc
    python -m stages.describe --set texture.order=resample-then-compress
    python -m stages.describe --set descriptor=encoder --set encoder.folder=models/correspond
"""

from functools import partial

from earshot.core.files import shard_paths
from earshot.params.describe import DescribeBaseParams, DescribeParams
from earshot.pipeline.stage import Stage, StageContext
from earshot.sound.description import Description
from earshot.sound.table import check_lengths, describe_shard, read_digests

STAGE = Stage(
    name="describe",
    params=DescribeParams,
    reads=lambda params, _: ("data/scenes", params.encoder.folder),
    clips="data/scenes",
    writes=("data/sounds", "models/descriptor"),
    metrics=("describe",),
    uses_cluster=True,
)


def main(run: StageContext[DescribeBaseParams]) -> str:
    p = run.params
    check_lengths(p.extract.window_s, p.extract.min_duration_s)
    description = Description.of(p.descriptor, p.model_dump())
    if folder := run.optional_path(p.encoder.folder):
        description = description.read_from(folder)
    scenes, digests = run.path("data/scenes"), run.scratch / "digests"
    shards = len(shard_paths(scenes, ".parquet"))

    work = partial(describe_shard, scenes, run.out("data/sounds"), digests, description, p.extract.window_s)
    counts = run.map_shards(work, range(shards), title="describing")
    description.save(run.out("models/descriptor"), read_digests(digests, shards))

    run.publish("data/sounds")
    run.publish("models/descriptor")
    run.write_metrics("describe", {"moments": counts["moments"], "silent": counts["silent"]})
    return f"{counts['moments']:,} moments described as {description.name}, {counts['silent']:,} of them silent"


if __name__ == "__main__":
    STAGE.run(main)
