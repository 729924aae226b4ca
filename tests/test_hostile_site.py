"""Sites that limit, block, stall, lie and forget, and a stage that is killed: nothing is lost, nothing rushed."""

import random
import tarfile
from collections import Counter

from hostile_site import NEAR, Downloads, HostileWeb, Request, beyond, download_all, outcomes, render, too_early, unlike


def test_all_that_can_be_had_is_had_within_the_budget_whatever_is_killed(tmp_path):
    an_hour = 72_000  # 20 a second for each site
    chance = random.Random(1)
    with HostileWeb(60, render(tmp_path), every=20, seconds=1.5) as web:
        downloads = Downloads(tmp_path, an_hour)
        download_all(web, downloads, kills=2, runs=8, chance=chance)
        code, out, error = downloads.run("--set=corpus.accept_pending=true")
    assert code == 0, error
    found = outcomes(tmp_path)
    assert not unlike(found, web.expected)
    names = []
    for path in sorted((tmp_path / "data/clips").glob("*.tar")):
        with tarfile.open(path) as tar:
            names += tar.getnames()
    kept = Counter(web.expected.values())["kept", ""]
    assert sum(name.endswith(".mp4") for name in names) == kept
    for site in web.sites:
        gap = 3600 / an_hour
        assert beyond(site.log, gap) <= 1 + NEAR / gap, site.temper
        assert too_early(site.log) == 0, site.temper
        assert site.temper == "patient" or len(site.log) > site.every + 3, "it was out of temper"


def test_the_judge_sees_a_hurry_and_a_request_that_was_not_wanted():
    calm = [Request(number * 0.1, "a") for number in range(100)]
    assert beyond(calm, 0.1) <= 1.001
    assert beyond(calm, 0.11) > 8.9
    answer, meanwhile, late, after = Request(0, "a", until=3.0), Request(0.1, "b"), Request(2.5, "b"), Request(3.1, "c")
    assert too_early([answer, meanwhile, after]) == 0, "the second was on its way"
    assert too_early([answer, late, after]) == 1
