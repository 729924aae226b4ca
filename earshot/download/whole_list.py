"""A whole list of clips, from its manifest to data/clips."""

import shutil
import warnings
from collections import Counter
from functools import partial
from typing import Any

from earshot.core.errors import EarshotError
from earshot.core.files import link_tree, shard_name
from earshot.corpus.completeness import REQUESTED
from earshot.corpus.requested import read_requested
from earshot.corpus.selection import Selection
from earshot.download.clips import Job, download_shard
from earshot.download.earlier import Earlier, write_record
from earshot.download.progress import pending_line
from earshot.download.published import open_manifest
from earshot.download.rate_limit import RateLimiter
from earshot.download.sharding import deal
from earshot.download.yt_dlp_client import check_cookies, check_js_runtime
from earshot.params.download import Params
from earshot.pipeline.shards import map_shards
from earshot.pipeline.stage import StageContext


def download_list(run: StageContext[Params], record: dict[str, Any], earlier: Earlier | None) -> Counter[str]:
    """Download all clips of a run's list but those that an earlier run has, and publish data/clips.

    Args:
        run: the run of the stage download.
        record: what the clips are made from (`earlier.record_of`).
        earlier: the clips of an earlier run, if there are any.

    Returns:
        The counts of what became of the clips: clips_asked, clips_kept, clips_pending, refused_<reason>.

    Raises:
        EarshotError: clips are pending and `corpus.accept_pending` is false; or the list or a setting is wrong.
    """
    params, out = run.params, run.out("data/clips")
    check_cookies()
    limiter = RateLimiter.shared(run.scratch_root)
    limiter.check()
    manifest = open_manifest(run.path(params.corpus.manifest), run.scratch_root / "lists")
    for message in manifest.unknown():
        warnings.warn(message, stacklevel=1)
    job = Job(
        media=manifest.file.parent,
        asked=run.scratch / "requested",
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
    shards = deal(manifest, job.asked, params.download.shard_clips, selection)
    requested = (row for number in range(shards) for row in read_requested(job.asked / f"{shard_name(number)}.jsonl"))
    check_js_runtime(row.source for row in requested if not row.is_local)
    # A shard with pending clips is done again in the next run, so markers of finished shards last for this run only.
    markers = run.scratch / "this-run"
    shutil.rmtree(markers, ignore_errors=True)
    counts = map_shards(partial(download_shard, job), range(shards), markers, title="downloading")
    if counts["clips_pending"] and not job.accept_pending:
        raise EarshotError(pending_line(counts, job))
    manifest.write_lists(out)
    link_tree(job.asked, out / REQUESTED)
    write_record(out, record)
    run.publish("data/clips")
    return counts
