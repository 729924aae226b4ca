"""Several machines share a list: its parts divide the clips by group, and merged they are the whole."""

import json
import shutil
import tarfile
import warnings
from pathlib import Path

import pytest
from conftest import PARAMS, earshot
from hypothesis import given, settings
from hypothesis import strategies as st
from odd_media import MP4, render

from earshot.core.errors import EarshotError
from earshot.core.params import load_params
from earshot.corpus.ledger import read_ledger
from earshot.corpus.manifest import ManifestRow
from earshot.corpus.requested import read_requested
from earshot.corpus.selection import Selection
from earshot.download.merging import merge_parts
from earshot.download.published import Manifest
from earshot.download.sharding import write_shard_lists
from earshot.params.download import DownloadParams
from stages import download

NAMES = [f"c{number}" for number in range(9)]


def row(group: str) -> ManifestRow:
    return ManifestRow(f"{group}_0", group, 0.0, 1.0, group, (), is_local=True)


@given(st.lists(st.text(min_size=1), min_size=1, max_size=30), st.integers(1, 7))
@settings(deadline=None)
def test_each_group_is_in_one_part(groups, parts):
    for group in groups:
        assert sum(Selection(part=(part, parts)).is_in_part(row(group)) for part in range(1, parts + 1)) == 1


@pytest.mark.parametrize("parts", [1, 2, 3, 5])
def test_the_parts_of_a_drawn_selection_are_the_selection(tmp_path, parts):
    file = tmp_path / "list.csv"
    rows = [f"v{n}.mp4,{s},{s + 1},g{n % 20},{'cat' if n % 2 else 'dog'}" for n in range(60) for s in (0, 5)]
    file.write_text("\n".join(["path,start,end,group,annotations", *rows]))

    def clips(part: tuple[int, int]) -> list[tuple[str, str]]:
        folder = tmp_path / f"{part}"
        shards = write_shard_lists(Manifest(file), folder, 7, Selection(["cat"], 40, 3, part=part))
        listed = [r for n in range(shards) for r in read_requested(folder / f"{n:05d}.jsonl")]
        return [(r.clip_id, r.group) for r in listed]

    divided = [clips((part, parts)) for part in range(1, parts + 1)]
    assert sorted(clip for part in divided for clip in part) == sorted(clips((1, 1)))
    groups = [{group for _, group in part} for part in divided]
    assert sum(map(len, groups)) == len(set.union(*groups))


@pytest.mark.parametrize("part", ["0/3", "1/0", "1", "1/3/2", "-1/3", "1.0/3", "a/b", "", "01/3", "2/99999"])
def test_a_part_that_is_none_is_refused(part):
    with pytest.raises(EarshotError, match=r"corpus\.select\.part is "):
        load_params(DownloadParams, PARAMS, [f"corpus.select.part='{part}'"])


def test_a_part_beyond_the_last_is_refused():
    select = load_params(DownloadParams, PARAMS, ["corpus.select.part=4/3"]).corpus.select
    with pytest.raises(EarshotError, match=r"corpus\.select\.part is 4/3, expected a part from 1/3 to 3/3"):
        Selection.of(select, None)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    """A folder of local files with a manifest; the last file is missing, so that a clip is refused."""
    folder = tmp_path_factory.mktemp("corpus")
    one = render(folder / f"{NAMES[0]}.mp4", *MP4, image="testsrc2=s=64x48:r=10:d=2", sound="sine=440:d=2")
    for name in NAMES[1:-1]:
        shutil.copy(one, folder / f"{name}.mp4")
    (folder / "manifest.csv").write_text("path,start,end\n" + "".join(f"{name}.mp4,0,1.5\n" for name in NAMES))
    return folder


def run(root: Path, corpus: Path, *changes: str, view: str = "") -> None:
    root.mkdir(exist_ok=True)
    sets = [f"corpus.manifest={corpus}", "download.shard_clips=2", *changes]
    words = [word for change in sets for word in ("--set", change)]
    options = ["--params", str(PARAMS), "--root", str(root), *words, *([f"--{view}", "--json"] if view else [])]
    (root / "none").touch()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        download.STAGE.run(download.main, options, views=download.VIEWS)


@pytest.fixture(scope="module")
def parts(corpus, tmp_path_factory):
    roots = [tmp_path_factory.mktemp(f"machine{part}") for part in (1, 2, 3)]
    for part, root in enumerate(roots, 1):
        run(root, corpus, f"corpus.select.part={part}/3")
    return [root / "data/clips" for root in roots]


def outcomes(folder: Path) -> dict[str, str]:
    return {row.clip_id: row.status for file in folder.glob("ledger/*.csv") for row in read_ledger(file)}


def members(folder: Path) -> list[str]:
    return sorted(name for tar in folder.glob("*.tar") for name in tarfile.open(tar).getnames())


def test_merged_parts_are_the_whole_and_nothing_is_downloaded_again(corpus, parts, tmp_path, capsys):
    whole, root = tmp_path / "whole", tmp_path / "root"
    run(whole, corpus)
    shuffled = [parts[2], parts[0], parts[1]]
    earshot("merge", *shuffled, "--output", root / "data/clips")
    assert "8 clips kept, 1 refused, 0 pending" in capsys.readouterr().out
    assert outcomes(root / "data/clips") == outcomes(whole / "data/clips")
    assert members(root / "data/clips") == members(whole / "data/clips")
    before = {path: path.stat().st_ino for path in (root / "data/clips").rglob("*.tar")}
    run(root, corpus)
    assert "8 of 9 clips kept" in capsys.readouterr().out
    assert {path: path.stat().st_ino for path in (root / "data/clips").rglob("*.tar")} == before
    with pytest.raises(SystemExit, match=r"exists, expected a new folder"):
        earshot("merge", *parts, "--output", root / "data/clips")


def copies(parts: list[Path], folder: Path) -> list[Path]:
    for number, part in enumerate(parts):
        shutil.copytree(part, folder / str(number))
    return [folder / str(number) for number in range(len(parts))]


def change_record(folder: Path, **values: object) -> None:
    record = json.loads((folder / "download.json").read_text())
    (folder / "download.json").write_text(json.dumps(record | values))


def twice(folders: list[Path]) -> list[Path]:
    """One clip of the first part replaces one of the second, as after another division."""
    line = (folders[0] / "requested/00000.jsonl").read_text().splitlines()[0]
    rows = (folders[0] / "ledger/00000.csv").read_text().splitlines()
    requested, ledger = folders[1] / "requested/00000.jsonl", folders[1] / "ledger/00000.csv"
    requested.write_text("\n".join([line, *requested.read_text().splitlines()[1:]]) + "\n")
    ledger.write_text("\n".join([rows[0], rows[1], *ledger.read_text().splitlines()[2:]]) + "\n")
    return folders


def changed(number: int, **values: object):
    def change(folders: list[Path]) -> list[Path]:
        change_record(folders[number], **values)
        return folders

    return change


def without(name: str):
    def change(folders: list[Path]) -> list[Path]:
        (folders[1] / name).unlink()
        return folders

    return change


def other_list(folders: list[Path]) -> list[Path]:
    (folders[2] / "lists.json").write_text("[]")
    return folders


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda folders: folders[:2], "part 3/3 is missing"),
        (lambda folders: folders[1:2], "part 1/3, 3/3 is missing"),
        (lambda folders: [*folders, folders[0].rename(folders[0].with_name("x"))][1:], None),
        (changed(1, part="1/3"), "give each once"),
        (changed(2, part="3/4"), "give each once"),
        (changed(1, whole="0" * 16), "another list, selection or limits"),
        (changed(1, conditions={}), "another limits"),
        (twice, "is in another part too"),
        (without("00000.tar"), r"00000\.tar: the shard is incomplete"),
        (without("download.json"), "is no record of a download"),
        (other_list, "differs from .* download the older of the two parts again"),
    ],
)
def test_parts_that_do_not_fit_are_refused_before_anything_is_written(parts, tmp_path, change, message):
    folders = change(copies(parts, tmp_path / "parts"))
    if message is None:
        merge_parts(folders, tmp_path / "out")
        return
    with pytest.raises(EarshotError, match=message):
        merge_parts(folders, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_plan_says_what_a_download_costs_and_requests_nothing(tmp_path, capsys, monkeypatch):
    rows = ["https://example.org/a.mp4,0,10,x", "https://example.org/a.mp4,10,20,y", "https://example.org/b.mp4,0,10,x;z",
            "https://other.example/c.mp4,0,30,x", "d.mp4,0,40,y"]  # fmt: skip
    lines = [
        f",{row}" if row.startswith("http") else f"{row.partition(',')[0]},,{row.partition(',')[2]}" for row in rows
    ]
    (tmp_path / "list.csv").write_text("\n".join(["path,url,start,end,annotations", *lines]))
    monkeypatch.setattr("earshot.download.whole_list.download_list", None)
    run(tmp_path / "root", tmp_path / "list.csv", view="plan")
    plan = json.loads(capsys.readouterr().out)
    assert plan == {
        "list": str(tmp_path / "list.csv"), "part": "1/1", "clips": 5, "sources": 4, "clips_of_local_files": 1,
        "requests_at_least": 6, "requests_an_hour": 1000.0, "hours_at_least": 0.0,
        "disk_gb_about": round(100 * 52_000 / 1e9, 3),
    }  # fmt: skip
    run(tmp_path / "root", tmp_path / "list.csv", "download.fetch=section", view="plan")
    assert json.loads(capsys.readouterr().out)["requests_at_least"] == 8
    run(tmp_path / "root", tmp_path / "list.csv", view="classes")
    assert list(json.loads(capsys.readouterr().out).items()) == [("x", 3), ("y", 2), ("z", 1)]
    assert not (tmp_path / "root/data").exists()


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("cat", "the nearest are 'cat meowing', 'cat purring'"),
        ("dogs barking", "the nearest is 'dog barking'"),
        ("Cat Purring", "the nearest is 'cat purring'"),
        ("banjo", "the nearest is 'playing banjo'"),
    ],
)
def test_a_class_that_does_not_exist_names_the_nearest(tmp_path, name, message):
    names = ["cat meowing", "cat purring", "dog barking", "playing banjo"]
    (tmp_path / "l.csv").write_text(
        "path,start,end,label\n" + "".join(f"{n}.mp4,0,1,{c}\n" for n, c in enumerate(names))
    )
    with pytest.raises(SystemExit, match=message):
        run(tmp_path / "root", tmp_path / "l.csv", f"corpus.select.classes=[{name}]", view="plan")
