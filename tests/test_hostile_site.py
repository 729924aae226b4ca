"""Sites that limit, block, stall and send wrong data, and killed stages: no clip is lost, no limit exceeded."""

import random
import tarfile
from collections import Counter

import pytest
from hostile_site import (
    NEAR,
    Downloads,
    HostileWeb,
    Request,
    download_all,
    excess_requests,
    outcomes,
    render,
    too_early,
    unexpected,
)


@pytest.mark.slow
def test_every_available_clip_is_downloaded_within_the_budget_despite_kills(tmp_path):
    an_hour = 72_000  # 20 a second for each site
    chance = random.Random(1)
    with HostileWeb(60, render(tmp_path), every=20, seconds=1.5) as web:
        downloads = Downloads(tmp_path, an_hour)
        download_all(web, downloads, kills=2, runs=8, chance=chance)
        code, out, error = downloads.run("--set=corpus.accept_pending=true")
    assert code == 0, error
    actual = outcomes(tmp_path)
    assert not unexpected(actual, web.expected)
    names = []
    for path in sorted((tmp_path / "data/clips").glob("*.tar")):
        with tarfile.open(path) as tar:
            names += tar.getnames()
    kept = Counter(web.expected.values())["kept", ""]
    assert sum(name.endswith(".mp4") for name in names) == kept
    for site in web.sites:
        gap = 3600 / an_hour
        assert excess_requests(site.log, gap) <= 1 + NEAR / gap, site.limit
        assert too_early(site.log) == 0, site.limit
        assert site.limit == "patient" or len(site.log) > site.every + 3, "it has limited requests"


def test_the_checks_detect_excess_requests_and_early_ones():
    calm = [Request(number * 0.1, "a") for number in range(100)]
    assert excess_requests(calm, 0.1) <= 1.001
    assert excess_requests(calm, 0.11) > 8.9
    response, meanwhile, late, after = (
        Request(0, "a", until=3.0),
        Request(0.1, "b"),
        Request(2.5, "b"),
        Request(3.1, "c"),
    )
    assert too_early([response, meanwhile, after]) == 0, "the second was already sent"
    assert too_early([response, late, after]) == 1
