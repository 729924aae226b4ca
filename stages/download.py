"""Download: a manifest becomes shards of clips, cut to the seconds asked for, and a ledger of what became of each.

reads   corpus.manifest    a csv file (AudioSet, VGGSound, or plain with url,start,end or path,start,end), or a folder
                           with manifest.csv and the media that it names
writes  data/clips         00000.tar of <clip_id>.mp4 and <clip_id>.json, ledger/00000.csv with a row a clip,
                           asked/00000.jsonl with what the manifest says of each
        metrics/download.json

    python -m stages.download
    python -m stages.download --set corpus.manifest=balanced_train_segments.csv
    python -m stages.download --set corpus.accept_pending=true

Where clips are pending (the network, a limit of the site) it ends with an error, after all others are settled; run
again, it asks for those alone. Cookies and a proxy are settings: EARSHOT_COOKIES, EARSHOT_PROXY.
"""

import shutil
from collections import Counter
from functools import partial

from earshot.corpus.completeness import ASKED
from earshot.corpus.dealing import deal
from earshot.corpus.download import Job, download_shard
from earshot.corpus.fetching import check_cookies
from earshot.corpus.manifest import manifest_file
from earshot.pipeline.errors import EarshotError
from earshot.pipeline.shards import link_tree, map_shards
from earshot.pipeline.stage import Run, Stage

STAGE = Stage(
    name="download",
    params=("corpus.manifest", "corpus.accept_pending", "download"),
    finishing=("corpus.accept_pending",),
    reads=lambda params, _: (params.corpus.manifest,),
    writes=("data/clips",),
    metrics=("download",),
)


def main(run: Run) -> str:
    download, manifest = run.params.download, run.path(run.params.corpus.manifest)
    check_cookies()
    job = Job(
        media=manifest_file(manifest).parent,
        asked=run.scratch / "asked",
        clips=run.scratch / "clips",
        out=run.out("data/clips"),
        seconds=download.seconds_limit,
        megabytes=download.megabytes_limit,
        accept_pending=run.params.corpus.accept_pending,
    )
    shards = deal(manifest, job.asked, download.shard_clips)
    # A shard with pending clips is done again in the next run, so markers of finished shards last for this run only.
    markers = run.scratch / "this-run"
    shutil.rmtree(markers, ignore_errors=True)
    counts = map_shards(partial(download_shard, job), range(shards), markers, title="downloading")
    if counts["clips_pending"] and not job.accept_pending:
        raise EarshotError(pending(counts, job))
    link_tree(job.asked, job.out / ASKED)
    run.place("data/clips")
    refused = {name: counts[name] for name in sorted(counts) if name.startswith("refused_")}
    run.write_metrics("download", {name: counts[name] for name in TOTALS} | refused)
    return closing(counts, refused)


TOTALS = ("clips_asked", "clips_kept", "clips_pending")


def pending(counts: Counter[str], job: Job) -> str:
    """What to say when clips are pending."""
    reasons = ", ".join(f"{counts[name]} {name[8:]}" for name in sorted(counts) if name.startswith("pending_"))
    return (
        f"{counts['clips_pending']} of {counts['clips_asked']} clips are pending ({reasons}; {job.out / 'ledger'}): "
        "run again later and these alone are asked for, or go on without them with corpus.accept_pending=true"
    )


def closing(counts: Counter[str], refused: dict[str, int]) -> str:
    """The last line: what came out and what was left out."""
    left_out = [f"{number:,} {name.removeprefix('refused_')}" for name, number in refused.items()]
    left_out += [f"{counts['clips_pending']:,} pending"] if counts["clips_pending"] else []
    kept = f"{counts['clips_kept']:,} of {counts['clips_asked']:,} clips kept"
    return f"{kept}; left out: {', '.join(left_out) or 'none'}"


if __name__ == "__main__":
    STAGE.run(main)
