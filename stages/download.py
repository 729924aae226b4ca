"""Download: a manifest becomes shards of clips, cut to the seconds asked for, and a ledger of what became of each.

reads   corpus.manifest    one of manifests/*.json, which names a published list; a csv or Parquet file (AudioSet,
                           VGGSound, Kinetics, or plain with url,start,end or path,start,end); or a folder with
                           manifest.csv and the media that it names
        corpus.select.ontology, where it names a file
writes  data/clips         00000.tar of <clip_id>.mp4 and <clip_id>.json, ledger/00000.csv with a row a clip,
                           asked/00000.jsonl with what the manifest says of each; for published lists lists.json, with
                           their checksums
        metrics/download.json

    python -m stages.download
    python -m stages.download --set corpus.manifest=manifests/audioset-balanced.json
    python -m stages.download --set corpus.manifest=mine.csv --set corpus.select.clips=1000
    python -m stages.download --set corpus.accept_pending=true

Each site gets so many requests an hour (EARSHOT_REQUESTS_PER_HOUR), from all workers and machines that share the
scratch folder; one that limits or blocks is left alone for as long as it asks, or longer and longer. Where clips are
pending (the network, a limit of the site) the stage ends with an error, after all others are settled; run again, it
asks for those alone. Cookies and a proxy are settings: EARSHOT_COOKIES, EARSHOT_PROXY.

    python -m stages.download --status          what is kept, left out, pending, and the hours left; also in mid-run
    python -m stages.download --status --json
"""

import json
import shutil
import warnings
from collections import Counter
from functools import partial

from earshot.core.errors import EarshotError
from earshot.core.files import link_tree, shard_name, write_atomically
from earshot.corpus.completeness import ASKED
from earshot.corpus.ontology import read_ontology
from earshot.corpus.requested import read_asked
from earshot.corpus.selection import Selection
from earshot.download.clips import Job, download_shard
from earshot.download.progress import progress
from earshot.download.published import open_manifest
from earshot.download.rate_limit import Host, Pace, clock
from earshot.download.sharding import deal
from earshot.download.yt_dlp_client import check_cookies, check_js_runtime
from earshot.pipeline.settings import settings
from earshot.pipeline.shards import map_shards
from earshot.pipeline.stage import Run, Stage, View


def inputs(params: View, choice: str | None) -> list[str]:
    """The manifest, and the ontology that classes are selected by, where there is one."""
    ontology = params.corpus.select.ontology
    return [params.corpus.manifest, *([] if ontology.startswith("earshot/") else [ontology])]


STAGE = Stage(
    name="download",
    params=("corpus.manifest", "corpus.select", "corpus.accept_pending", "download"),
    finishing=("corpus.accept_pending",),
    reads=inputs,
    writes=("data/clips",),
    metrics=("download",),
    facts=1,  # clips as they were measured and what sites said; raise it where journals or their folders change
)


def main(run: Run) -> str:
    download = run.params.download
    check_cookies()
    pace = pace_of(run)
    pace.check()
    manifest = open_manifest(run.path(run.params.corpus.manifest), run.scratch_root / "lists")
    for told in manifest.unknown():
        warnings.warn(told, stacklevel=1)
    job = Job(
        media=manifest.file.parent,
        asked=run.scratch / "asked",
        clips=run.scratch / "clips",
        out=run.out("data/clips"),
        seconds=download.seconds_limit,
        megabytes=download.megabytes_limit,
        fetch=download.fetch,
        accept_pending=run.params.corpus.accept_pending,
        pace=pace,
    )
    shards = deal(manifest, job.asked, download.shard_clips, selection(run))
    asked = (row for number in range(shards) for row in read_asked(job.asked / f"{shard_name(number)}.jsonl"))
    check_js_runtime(row.source for row in asked if not row.is_local)
    # A shard with pending clips is done again in the next run, so markers of finished shards last for this run only.
    markers = run.scratch / "this-run"
    shutil.rmtree(markers, ignore_errors=True)
    counts = map_shards(partial(download_shard, job), range(shards), markers, title="downloading")
    if counts["clips_pending"] and not job.accept_pending:
        raise EarshotError(pending(counts, job))
    if manifest.is_published:
        with write_atomically(job.out / "lists.json") as growing:
            growing.write_text(json.dumps(manifest.record(), indent=2) + "\n")
    link_tree(job.asked, job.out / ASKED)
    run.place("data/clips")
    refused = {name: counts[name] for name in sorted(counts) if name.startswith("refused_")}
    run.write_metrics("download", {name: counts[name] for name in TOTALS} | refused)
    return closing(counts, refused)


def selection(run: Run) -> Selection:
    """What the parameters want of the manifest."""
    wanted = run.params.corpus.select
    files = inputs(run.params, None)[1:]
    ontology = read_ontology(run.path(files[0])) if files and wanted.classes else None
    return Selection(wanted.classes, wanted.clips, wanted.seed, ontology)


TOTALS = ("clips_asked", "clips_kept", "clips_pending")


def pace_of(run: Run) -> Pace:
    """The pace that all runs with this scratch folder share."""
    now = settings()
    return Pace(run.scratch_root / "pace.sqlite", now.requests_per_hour, now.backoff, now.patience)


def status(run: Run) -> dict[str, int | float | str]:
    """What a run has done so far, and what it has to wait for."""
    pace = pace_of(run)
    held = {f"held {host.host}": f"{host.reason}, until {clock(host.until)}" for host in pace.held().values()}
    vain = {f"gives nothing {site.host}": in_vain(site) for site in pace.giving_nothing().values()}
    return progress(run.scratch / "asked", run.scratch / "clips", run.root / "data/clips/ledger") | held | vain


def in_vain(site: Host) -> str:
    """What to say of a site that has never given anything."""
    return f"nothing in {site.failures} tries, and it may never; corpus.accept_pending=true goes on without it"


def pending(counts: Counter[str], job: Job) -> str:
    """What to say when clips are pending."""
    held = [host for host in job.pace.held().values() if job.pace.too_long(host)]
    when = f"after {clock(min(host.until for host in held))}" if held else "later"
    reasons = ", ".join(f"{counts[name]} {name[8:]}" for name in sorted(counts) if name.startswith("pending_"))
    return (
        f"{counts['clips_pending']} of {counts['clips_asked']} clips are pending ({reasons}; {job.out / 'ledger'}): "
        f"run again {when} and these alone are asked for, or go on without them with corpus.accept_pending=true"
    ) + "".join(f"; {site.host} gives {in_vain(site)}" for site in job.pace.giving_nothing().values())


def closing(counts: Counter[str], refused: dict[str, int]) -> str:
    """The last line: what came out and what was left out."""
    left_out = [f"{number:,} {name.removeprefix('refused_')}" for name, number in refused.items()]
    left_out += [f"{counts['clips_pending']:,} pending"] if counts["clips_pending"] else []
    kept = f"{counts['clips_kept']:,} of {counts['clips_asked']:,} clips kept"
    return f"{kept}; left out: {', '.join(left_out) or 'none'}"


if __name__ == "__main__":
    STAGE.run(main, status=status)
