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

    python -m stages.download --status          kept, refused and pending clips, and the hours left; also during a run
    python -m stages.download --status --json
"""

from earshot.download.earlier import counts_of_finished, index_earlier, record_of
from earshot.download.progress import closing_line, progress, sites
from earshot.download.rate_limit import RateLimiter
from earshot.download.whole_list import download_list
from earshot.params.download import Params
from earshot.pipeline.stage import Stage, StageContext

STAGE = Stage(
    name="download",
    params=Params,
    unhashed=("corpus.accept_pending",),
    reads=lambda params, _: (params.corpus.manifest, params.corpus.select.ontology),
    writes=("data/clips",),
    metrics=("download",),
    format_version=1,  # raise it when the format of journals or folders changes
)


def main(run: StageContext[Params]) -> str:
    params, clips = run.params, run.path("data/clips")
    record = record_of([run.path(name) for name in STAGE.inputs(params, None)], params, STAGE.format_version)
    counts = counts_of_finished(clips, record)
    if counts is not None:
        run.reuse("data/clips")
    else:
        counts = download_list(run, record, index_earlier(clips, record, run.scratch / "earlier.npy"))
    refused = {name: counts[name] for name in sorted(counts) if name.startswith("refused_")}
    metrics = {name: counts[name] for name in ("clips_requested", "clips_kept", "clips_pending")} | refused
    run.write_metrics("download", metrics)
    return closing_line(metrics)


def status(run: StageContext[Params]) -> dict[str, int | float | str]:
    """The progress of a run, and the sites that limit it."""
    done = progress(run.scratch / "requested", run.scratch / "clips", run.root / "data/clips/ledger")
    return done | sites(RateLimiter.shared(run.scratch_root))


if __name__ == "__main__":
    STAGE.run(main, status=status)
