"""Download: turn a manifest into shards of clips, cut to the requested seconds, and a ledger of outcomes.

reads   corpus.manifest    one of manifests/*.json, which names a published list; a csv or Parquet file (AudioSet,
                           VGGSound, Kinetics, or plain with url,start,end or path,start,end); or a folder with
                           manifest.csv and the media that it names
        corpus.select.ontology, unless it is none
writes  data/clips         00000.tar of <clip_id>.mp4 and <clip_id>.json, ledger/00000.csv with a row for each clip,
                           requested/00000.jsonl with the manifest's rows, download.json with the record of the
                           request; for published lists lists.json, with their checksums
        metrics/download.json

    python -m stages.download
    python -m stages.download --set corpus.manifest=manifests/audioset-balanced.json
    python -m stages.download --set corpus.manifest=mine.csv --set corpus.select.clips=1000
    python -m stages.download --set corpus.accept_pending=true

Each site gets at most EARSHOT_REQUESTS_PER_HOUR requests an hour, from all workers and machines that share the scratch
folder. A site that limits or blocks us gets no requests for the time that it names, or for a pause that doubles. If
clips are pending (network errors, limits), the stage settles all others and ends with an error; the next run requests
only the pending ones. Cookies and a proxy are settings: EARSHOT_COOKIES, EARSHOT_PROXY.

Clips in data/clips are not fetched again: the same manifest and parameters keep them all, and another request reuses
those with an identical row.

A refused clip stays refused, unless you ask for it by its reason, as after an update of yt-dlp:

    python -m stages.download --retry unsupported --retry no-media

The progress:

    python -m stages.download --status          kept, refused and pending clips, and the hours left; also during a run
    python -m stages.download --status --json

Before a download:

    python -m stages.download --plan            clips, requests, hours at the budget, and disk
    python -m stages.download --classes         the classes of the list and their numbers of clips
"""

import warnings
from collections.abc import Callable, Mapping
from typing import Any

from earshot.corpus.ledger import MEDIA_REASONS, SOURCE_REASONS
from earshot.download.earlier import counts_of_finished, index_earlier, read_record, record_of
from earshot.download.plan import classes, plan
from earshot.download.progress import closing_line, list_line, progress, sites
from earshot.download.rate_limit import RateLimiter
from earshot.download.retry import reopen
from earshot.download.whole_list import download_list
from earshot.params.download import DownloadParams
from earshot.pipeline.stage import Stage, StageContext

RETRIED_REASONS = MEDIA_REASONS + SOURCE_REASONS

STAGE = Stage(
    name="download",
    params=DownloadParams,
    unhashed=("corpus.accept_pending",),
    reads=lambda params, _: (params.corpus.manifest, params.corpus.select.ontology),
    writes=("data/clips",),
    metrics=("download",),
    format_version=1,  # raise it when the format of journals or folders changes
)


def main(run: StageContext[DownloadParams]) -> str:
    params, clips = run.params, run.path("data/clips")
    record = record_of([run.path(name) for name in STAGE.inputs(params, None)], params, STAGE.format_version)
    if run.retry:
        number = reopen(run.retry, clips, run.scratch / "clips", run.out("data/clips"))
        again = f"{number:,} clips are requested again" if number else "no clip was refused"
        warnings.warn(f"--retry {' '.join(run.retry)}: {again}", stacklevel=1)
    counts = counts_of_finished(clips, record)
    if counts is not None:
        run.reuse("data/clips")
    else:
        counts = download_list(run, record, index_earlier(clips, record, run.scratch / "earlier.npy"))
    refused = {name: counts[name] for name in sorted(counts) if name.startswith("refused_")}
    metrics = {name: counts[name] for name in ("clips_requested", "clips_kept", "clips_pending")} | refused
    run.write_metrics("download", metrics)
    return closing_line(metrics)


def status(run: StageContext[DownloadParams]) -> dict[str, int | float | str]:
    """the progress of the list's download and the sites that limit it; works during a run too."""
    requested, clips = run.scratch / "requested", run.root / "data/clips"
    record = record_of([run.path(name) for name in STAGE.inputs(run.params, None)], run.params, STAGE.format_version)
    is_other = not any(requested.glob("*.jsonl")) and clips.exists() and read_record(clips) != record
    done: dict[str, int | float | str] = {"list": list_line(run.params.corpus, is_other)}
    done |= progress(requested, run.scratch / "clips", clips / "ledger")
    return done | sites(RateLimiter.shared(run.scratch_root))


VIEWS: dict[str, Callable[[StageContext[DownloadParams]], Mapping[str, Any]]] = {
    "status": status,
    "plan": plan,
    "classes": classes,
}

if __name__ == "__main__":
    STAGE.run(main, views=VIEWS, retry=RETRIED_REASONS)
