"""Download a whole list of clips, from its manifest to data/clips."""

import contextlib
import shutil
import warnings
from collections import Counter
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from earshot.core.errors import EarshotError
from earshot.core.files import shard_name, write_atomically
from earshot.corpus.completeness import REQUESTED
from earshot.corpus.requested import public_row, read_requested, row_text
from earshot.corpus.selection import Selection
from earshot.download.clips import Job, download_shard
from earshot.download.earlier import Earlier, write_record
from earshot.download.progress import pending_line
from earshot.download.published import open_manifest
from earshot.download.rate_limit import RateLimiter, site_of
from earshot.download.sharding import write_shard_lists
from earshot.download.yt_dlp_client import check_cookies, check_js_runtime
from earshot.params.download import DownloadParams
from earshot.pipeline.settings import settings
from earshot.pipeline.shards import map_shards
from earshot.pipeline.stage import StageContext


def download_list(run: StageContext[DownloadParams], record: dict[str, Any], earlier: Earlier | None) -> Counter[str]:
    """Download all clips of a list, except those of an earlier run, and publish data/clips.

    Args:
        run: the run of the stage download.
        record: the record of the request (`earlier.record_of`).
        earlier: the clips of an earlier run, if any.

    Returns:
        The counts of outcomes: clips_requested, clips_kept, clips_pending, refused_<reason>.

    Raises:
        EarshotError: clips are pending and `corpus.accept_pending` is false; or the list or a setting is wrong.
    """
    params, out = run.params, run.out("data/clips")
    if settings().cluster:
        warnings.warn(
            "EARSHOT_CLUSTER is set, but download requests clips from this machine alone; the stages after it use the "
            "cluster",
            stacklevel=1,
        )
    check_cookies()
    limiter = RateLimiter.shared(run.scratch_root)
    limiter.check()
    manifest = open_manifest(run.path(params.corpus.manifest), run.scratch_root / "lists")
    for message in manifest.unknown():
        warnings.warn(message, stacklevel=1)
    job = Job(
        media=manifest.file.parent,
        requested=run.scratch / "requested",
        clips=run.scratch / "clips",
        out=out,
        seconds=params.download.timeout_s,
        megabytes=params.download.max_megabytes,
        fetch=params.download.fetch,
        accept_pending=params.corpus.accept_pending,
        limiter=limiter,
        earlier=earlier,
    )
    selection = Selection.of(params.corpus.select, run.optional_path(params.corpus.select.ontology))
    shards = write_shard_lists(manifest, job.requested, params.download.shard_clips, selection)
    rows = (row for number in range(shards) for row in read_requested(job.requested / f"{shard_name(number)}.jsonl"))
    check_js_runtime(row.source for row in rows if not row.is_local)
    job = replace(job, hosts=_hosts(job, shards))
    # The next run repeats shards with pending clips, so markers of finished shards last for this run only.
    markers = run.scratch / "this-run"
    shutil.rmtree(markers, ignore_errors=True)
    counts = map_shards(partial(download_shard, job), range(shards), markers, title="downloading")
    if counts["clips_pending"] and not job.accept_pending:
        raise EarshotError(pending_line(counts, job))
    manifest.write_lists(out)
    for number in range(shards):
        _write_public(job.requested / f"{shard_name(number)}.jsonl", out / REQUESTED)
    write_record(out, record)
    run.publish("data/clips")
    return counts


def _hosts(job: Job, shards: int) -> frozenset[str]:
    """The hosts of all addresses of the list."""
    hosts = set()
    for number in range(shards):
        for row in read_requested(job.requested / f"{shard_name(number)}.jsonl"):
            if not row.is_local:
                with contextlib.suppress(ValueError):  # its clip is refused
                    hosts.add(site_of(row.source))
    return frozenset(hosts)


def _write_public(requested: Path, folder: Path) -> None:
    """Write a shard's list of requested clips into a folder, without passwords and tokens."""
    with write_atomically(folder / requested.name) as temporary_path, open(temporary_path, "wb") as file:
        file.writelines(row_text(public_row(row)) for row in read_requested(requested))
