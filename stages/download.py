"""Download: a manifest becomes shards of clips, cut to the seconds requested, and a ledger of what became of each.

reads   corpus.manifest    one of manifests/*.json, which names a published list; a csv or Parquet file (AudioSet,
                           VGGSound, Kinetics, or plain with url,start,end or path,start,end); or a folder with
                           manifest.csv and the media that it names
        corpus.select.ontology, unless it is none
writes  data/clips         00000.tar of <clip_id>.mp4 and <clip_id>.json, ledger/00000.csv with a row a clip,
                           asked/00000.jsonl with what the manifest says of each, download.json with what all were
                           made from; for published lists lists.json, with their checksums
        metrics/download.json

    python -m stages.download
    python -m stages.download --set corpus.manifest=manifests/audioset-balanced.json
    python -m stages.download --set corpus.manifest=mine.csv --set corpus.select.clips=1000
    python -m stages.download --set corpus.accept_pending=true

Each site gets so many requests an hour (EARSHOT_REQUESTS_PER_HOUR), from all workers and machines that share the
scratch folder; one that limits or blocks is left alone for as long as it asks, or longer and longer. Where clips are
pending (the network, a limit of the site) the stage ends with an error, after all others are settled; run again, it
asks for those alone. Cookies and a proxy are settings: EARSHOT_COOKIES, EARSHOT_PROXY.

What data/clips holds already is not fetched again: with the same manifest and parameters it stays as it is, and where
others are requested, clips that are requested in the same words are taken over.

    python -m stages.download --status          what is kept, left out, pending, and the hours left; also in mid-run
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
    format_version=1,  # clips as they were measured and what sites said; raise it where journals or folders change
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
    """What a run has done so far, and what it has to wait for."""
    done = progress(run.scratch / "requested", run.scratch / "clips", run.root / "data/clips/ledger")
    return done | sites(RateLimiter.shared(run.scratch_root))


if __name__ == "__main__":
    STAGE.run(main, status=status)
