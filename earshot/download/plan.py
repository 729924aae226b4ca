"""What a download would cost, and which classes its list has, before any clip is requested.

A published list itself is fetched, once, as the download would fetch it.
"""

import tempfile
from collections import Counter
from pathlib import Path

from earshot.core.files import shard_name
from earshot.corpus.requested import read_requested
from earshot.corpus.selection import Selection
from earshot.download.published import open_manifest
from earshot.download.rate_limit import site_of
from earshot.download.sharding import write_shard_lists
from earshot.params.download import DownloadParams
from earshot.pipeline.settings import settings
from earshot.pipeline.stage import StageContext

REQUESTS_A_SOURCE = 2  # at least: the page of a video and its media
BYTES_A_SECOND = 52_000  # of image and sound: measured on 79 real clips of 624 s and 224 to 340 lines


def plan(run: StageContext[DownloadParams]) -> dict[str, int | float | str]:
    """clips, sources, requests, hours at the budget and disk of a download, before anything is requested."""
    params = run.params
    manifest = open_manifest(run.path(params.corpus.manifest), run.scratch_root / "lists")
    selection = Selection.of(params.corpus.select, run.optional_path(params.corpus.select.ontology))
    sites: Counter[str] = Counter()  # requests
    clips = local = sources = 0
    seconds, last = 0.0, ""
    with tempfile.TemporaryDirectory(prefix="earshot-") as scratch:
        for number in range(write_shard_lists(manifest, Path(scratch), params.download.shard_clips, selection)):
            for row in read_requested(Path(scratch) / f"{shard_name(number)}.jsonl"):
                clips, local, seconds = clips + 1, local + row.is_local, seconds + row.end - row.start
                is_new = row.source != last  # the rows of a source are adjacent
                sources, last = sources + is_new, row.source
                if not row.is_local and (is_new or params.download.fetch == "section"):
                    sites[site_of(row.source)] += REQUESTS_A_SOURCE
    budget = settings().requests_per_hour
    hours = max(sites.values(), default=0) / budget if budget else 0.0  # each site has its own budget
    return {
        "list": params.corpus.manifest,
        "part": params.corpus.select.part,
        "clips": clips,
        "sources": sources,
        "clips_of_local_files": local,
        "requests_at_least": sites.total(),
        "requests_an_hour": budget or "no limit",
        "hours_at_least": round(hours, 2),
        "disk_gb_about": round(seconds * BYTES_A_SECOND / 1e9, 3),
    }


def classes(run: StageContext[DownloadParams]) -> dict[str, int]:
    """the classes of the list and their numbers of clips, the largest first."""
    manifest = open_manifest(run.path(run.params.corpus.manifest), run.scratch_root / "lists")
    counts = Counter(name for _, row in manifest.rows() for name in dict.fromkeys(row.annotations))
    return dict(sorted(counts.items(), key=lambda entry: (-entry[1], entry[0])))
