"""Shard lists and selection: every row once, rows of one source together, the same selection everywhere."""

import hashlib
import itertools
import json
import os
import subprocess
import sys
import tracemalloc
from collections import Counter
from itertools import groupby

import numpy as np
import pytest
from conftest import REPOSITORY
from hypothesis import given, settings
from hypothesis import strategies as st
from peak_memory import measured

from earshot.core.errors import EarshotError
from earshot.corpus.manifest import read_manifest
from earshot.corpus.ontology import read_ontology
from earshot.corpus.overlaps import merged_groups, rows_with_rival_groups
from earshot.corpus.requested import read_requested
from earshot.corpus.selection import Selection
from earshot.download.published import FetchedList, Manifest, open_manifest
from earshot.download.sharding import merge_sources, shard_sizes, write_shard_lists

HEADER = "path,start,end,annotations\n"


def manifest(folder, rows, header=HEADER, name="list.csv"):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(header + "".join(f"{row}\n" for row in rows))
    return open_manifest(folder / name, folder / "lists")


def shard_lists(folder):
    return [read_requested(path) for path in sorted(folder.glob("*.jsonl"))]


def clips(folder):
    return [row.clip_id for shard in shard_lists(folder) for row in shard]


# Merging


@given(st.lists(st.integers(0, 12), min_size=1, max_size=60), st.integers(1, 8), st.data())
def test_rows_of_one_source_are_together_and_everything_else_keeps_its_order(sources, size, data):
    selected = np.array(sorted(data.draw(st.sets(st.integers(0, len(sources) - 1), min_size=1))))
    order, lengths = merge_sources(selected, np.array(sources, np.uint64))
    assert sorted(order.tolist()) == selected.tolist(), "every selected row once"
    runs = [(source, list(rows)) for source, rows in groupby(order.tolist(), key=lambda row: sources[row])]
    assert len({source for source, _ in runs}) == len(runs), "one run a source"
    assert lengths.tolist() == [len(rows) for _, rows in runs]
    assert all(rows == sorted(rows) for _, rows in runs)
    assert [rows[0] for _, rows in runs] == sorted(rows[0] for _, rows in runs)

    sizes = list(shard_sizes(lengths, size))
    assert sum(sizes) == len(selected) and all(0 < count <= size for count in sizes)
    of_shard = np.repeat(np.arange(len(sizes)), sizes)
    begin = 0
    for length in lengths.tolist():
        shards = len(set(of_shard[begin : begin + length].tolist()))
        assert shards == -(-length // size), "a source is in as few shards as can hold it"
        begin += length


def test_a_manifest_of_many_sources_is_written_in_order_into_full_shards(tmp_path):
    rows = [f"{number}.mp4,0,5,x" for number in range(5)]
    assert write_shard_lists(manifest(tmp_path, rows), tmp_path / "requested", 2) == 3
    assert [len(shard) for shard in shard_lists(tmp_path / "requested")] == [2, 2, 1]
    assert [row for shard in shard_lists(tmp_path / "requested") for row in shard] == list(
        read_manifest(tmp_path / "list.csv")
    )


def test_requests_for_one_video_are_merged_whatever_form_its_address_has(tmp_path):
    rows = [
        "https://youtu.be/--PJHxphWEs,0,5", "https://a.org/v.mp4,0,5", "https://www.youtube.com/watch?v=--PJHxphWEs,50,55",
        "https://a.org/w.mp4,0,5", "https://a.org/v.mp4,7,9", "https://m.youtube.com/watch?v=--PJHxphWEs&t=1,20,25",
    ]  # fmt: skip
    assert write_shard_lists(manifest(tmp_path, rows, "url,start,end\n"), tmp_path / "requested", 4) == 2
    first, second = shard_lists(tmp_path / "requested")
    assert [row.start for row in first] == [0, 50, 20] and len({row.source for row in first}) == 1
    assert [(row.source[-5:], row.start) for row in second] == [("v.mp4", 0), ("v.mp4", 7), ("w.mp4", 0)]


def test_a_clip_that_occurs_twice_is_named(tmp_path):
    with pytest.raises(EarshotError, match=r"list\.csv, line 4: clip a_0 repeats line 2"):
        write_shard_lists(manifest(tmp_path, ["a.mp4,0,5,", "b.mp4,0,5,", "a.mp4,0,7,"]), tmp_path / "requested", 2)
    assert not list((tmp_path / "requested").iterdir())


def test_a_clip_that_a_published_list_names_twice_has_all_annotations(tmp_path):
    text = "label,youtube_id,time_start,time_end,split\n"
    text += "".join(f"{label},abc-_00000{n},0,10,train\n" for label, n in (("a", 1), ("b", 2), ("c", 1), ("a", 1)))
    (tmp_path / "k.csv").write_text(text)
    list_file = FetchedList("https://a.org/k.csv", tmp_path / "k.csv", "", len(text), True)
    with pytest.warns(UserWarning, match="2 rows repeat a clip, such as abc-_000001_0"):
        write_shard_lists(Manifest(tmp_path / "k.json", (list_file,)), tmp_path / "requested", 10)
    ((first, second),) = shard_lists(tmp_path / "requested")
    assert (first.annotations, second.annotations) == (("a", "c"), ("b",))


def test_a_manifest_of_a_header_alone_is_refused(tmp_path):
    with pytest.raises(EarshotError, match="holds no clips below its header"):
        write_shard_lists(manifest(tmp_path, []), tmp_path / "requested", 2)


# Selecting


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 30), st.integers(1, 30), st.integers(0, 3))
def test_fewer_clips_are_a_subset_of_more_in_the_same_order(tmp_path_factory, few, many, seed):
    folder = tmp_path_factory.mktemp("selected")
    listed = manifest(folder, [f"{number}.mp4,0,5,x" for number in range(30)])
    for count in (few, few + many):
        folder_of_run = folder / str(count)
        if count > 30:
            with pytest.warns(UserWarning, match=f"has 30 clips, corpus.select.clips is {count}"):
                write_shard_lists(listed, folder_of_run, 7, Selection(clips=count, seed=seed))
        else:
            write_shard_lists(listed, folder_of_run, 7, Selection(clips=count, seed=seed))
    few_clips, more_clips = clips(folder / str(few)), clips(folder / str(few + many))
    assert (len(few_clips), len(more_clips)) == (few, min(few + many, 30))
    assert [clip for clip in more_clips if clip in set(few_clips)] == few_clips
    assert sorted(more_clips, key=lambda clip: int(clip.split("_")[0])) == more_clips


def test_the_selection_is_the_same_in_every_process_and_depends_on_the_seed(tmp_path):
    listed = manifest(tmp_path, [f"{number}.mp4,0,5,x" for number in range(1000)])
    code = (
        "import sys; from pathlib import Path; from earshot.download.sharding import write_shard_lists;"
        "from earshot.download.published import open_manifest; from earshot.corpus.selection import Selection;"
        "manifest, folder = open_manifest(Path(sys.argv[1]), Path('x')), Path(sys.argv[2]);"
        "write_shard_lists(manifest, folder, 7, Selection(clips=5, seed=1))"
    )
    for salt in ("1", "2"):
        environment = {**os.environ, "PYTHONHASHSEED": salt}
        command = [sys.executable, "-c", code, tmp_path / "list.csv", tmp_path / salt]
        subprocess.run(command, env=environment, cwd=REPOSITORY, check=True)
    drawn = sorted(range(1000), key=lambda n: hashlib.blake2b(f"1/{n}_0".encode(), digest_size=8).digest())[:5]
    assert clips(tmp_path / "1") == clips(tmp_path / "2") == [f"{n}_0" for n in sorted(drawn)]
    write_shard_lists(listed, tmp_path / "other", 7, Selection(clips=5, seed=2))
    assert set(clips(tmp_path / "other")) != {f"{n}_0" for n in drawn}


@pytest.fixture
def ontology(tmp_path):
    """Singing is below both voice and music."""
    below = {"voice": ["speech", "singing"], "speech": [], "singing": ["choir"], "choir": [], "music": ["singing"]}
    entries = [{"id": f"/{name}", "name": name, "child_ids": [f"/{c}" for c in b]} for name, b in below.items()]
    (tmp_path / "ontology.json").write_text(json.dumps([*entries, {"id": "/dog", "name": "dog", "child_ids": []}]))
    return read_ontology(tmp_path / "ontology.json")


ANNOTATED = ["a.mp4,0,5,/speech", "b.mp4,0,5,/choir;/dog", "c.mp4,0,5,choir", "d.mp4,0,5,train whistle", "e.mp4,0,5,"]


@pytest.mark.parametrize(
    ("classes", "letters"),
    [
        (["voice"], "abc"),
        (["/music"], "bc"),
        (["speech", "dog"], "ab"),
        (["train whistle", "/speech"], "ad"),
        ([], "abcde"),
    ],
)
def test_a_class_includes_all_below_it_and_a_plain_word_only_itself(tmp_path, ontology, classes, letters):
    write_shard_lists(manifest(tmp_path, ANNOTATED), tmp_path / "requested", 10, Selection(classes, ontology=ontology))
    assert "".join(clip[0] for clip in clips(tmp_path / "requested")) == letters


def test_without_an_ontology_a_class_is_the_word_of_the_annotations(tmp_path):
    write_shard_lists(manifest(tmp_path, ANNOTATED), tmp_path / "requested", 10, Selection(["choir", "train whistle"]))
    assert [clip[0] for clip in clips(tmp_path / "requested")] == ["c", "d"]


def test_clips_are_counted_after_classes(tmp_path, ontology):
    rows = [f"{number}.mp4,0,5,{'dog' if number % 3 else 'choir'}" for number in range(60)]
    write_shard_lists(
        manifest(tmp_path, rows), tmp_path / "requested", 10, Selection(["music"], clips=7, ontology=ontology)
    )
    assert [row.annotations for shard in shard_lists(tmp_path / "requested") for row in shard] == [("choir",)] * 7


def test_a_class_without_clips_is_named(tmp_path, ontology):
    listed = manifest(tmp_path, ANNOTATED)
    with pytest.raises(EarshotError, match="no clip has the class 'musik' .* the nearest is 'music'"):
        write_shard_lists(listed, tmp_path / "requested", 10, Selection(["speech", "musik"], ontology=ontology))
    with pytest.raises(
        EarshotError, match=r"no clip has the class 'Dog' .* the nearest is '/dog', or set corpus\.select\.ontology"
    ):
        write_shard_lists(listed, tmp_path / "requested", 10, Selection(["Dog"]))
    with pytest.warns(UserWarning, match="no clip has the class 'singing'"):
        without_choirs = manifest(tmp_path, ["a.mp4,0,5,speech"], name="few.csv")
        write_shard_lists(
            without_choirs, tmp_path / "requested", 10, Selection(["voice", "singing"], ontology=ontology)
        )
    with pytest.warns(UserWarning), pytest.raises(EarshotError, match="no clip has one of the classes"):
        write_shard_lists(without_choirs, tmp_path / "requested", 10, Selection(["dog"], ontology=ontology))


CATS = "'cat growling', 'cat meowing', 'cat purring'"


@pytest.mark.parametrize(
    ("name", "nearest"),
    [
        ("cat", f"are {CATS}"),
        ("cats", f"are {CATS}"),
        ("Cat Purring", "is 'cat purring'"),
        ("barking dog", "is 'dog barking'"),
        ("guitar", "is 'playing bass guitar'"),
        ("cat_meowing", "is 'cat meowing'"),
    ],
)
def test_a_class_that_does_not_exist_names_the_nearest_ones_of_the_list(tmp_path, name, nearest):
    classes = ["cat meowing", "cat purring", "cat growling", "dog barking", "playing bass guitar", "cattle mooing"]
    listed = manifest(tmp_path, [f"{number}.mp4,0,5,{word}" for number, word in enumerate(classes)])
    with pytest.raises(EarshotError, match=f"no clip has the class '{name}' .*; the nearest {nearest}, or set corpus"):
        write_shard_lists(listed, tmp_path / "requested", 10, Selection([name]))


def test_classes_of_audioset_are_selected_from_its_real_list(tmp_path, real_data):
    of_audioset = real_data / "metadata" / "audioset"
    known = read_ontology(of_audioset / "ontology.json")
    listed = open_manifest(of_audioset / "balanced_train_segments.csv", tmp_path)
    write_shard_lists(listed, tmp_path / "requested", 1000, Selection(["Animal"], ontology=known))
    below = {known.find("Animal")} | known.descendants("Animal")
    expected = [row.clip_id for _, row in listed.rows() if below & set(row.annotations)]
    assert sorted(clips(tmp_path / "requested")) == sorted(expected)
    assert len(expected) == 2469  # counted when this was written


# Size


def test_a_row_needs_few_bytes(tmp_path):
    def peak(rows):
        listed = manifest(tmp_path, [f"videos/{n % 9000:09d}.mp4,{n},{n + 10},a word;{n}" for n in range(rows)])
        tracemalloc.start()
        write_shard_lists(listed, tmp_path / "requested", 250)
        _, most = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        return most

    a_row = (peak(8_000) - peak(4_000)) / 4_000
    assert a_row < 130, f"{a_row:.0f} bytes a row: 32 of hashes and offsets, and what sorting them takes"


@pytest.mark.slow
def test_two_million_rows_are_written_in_a_minute_of_processor_time(tmp_path):
    with open(tmp_path / "list.csv", "w") as file:
        file.write("url,start,end,annotations\n")
        for n in range(2_000_000):
            file.write(f"https://www.youtube.com/watch?v={n * 7919 % 1_500_007:011d},{n % 1000},{n % 1000 + 10},a;b\n")
    imports = (
        "from pathlib import Path; from earshot.download.sharding import write_shard_lists\n"
        "from earshot.download.published import open_manifest"
    )
    work = "write_shard_lists(open_manifest(Path(sys.argv[1]), Path('x')), Path(sys.argv[2]), 250)"
    shards, megabytes, seconds = measured(imports, work, tmp_path / "list.csv", tmp_path / "requested")
    print(f"2,000,000 rows: {shards} shards, {megabytes:.0f} MB, {seconds:.0f} s")
    assert 8000 <= shards <= 8200
    assert seconds < 120 and megabytes < 400
    read = Counter(len(path.read_bytes().splitlines()) for path in (tmp_path / "requested").glob("*.jsonl"))
    assert sum(size * count for size, count in read.items()) == 2_000_000 and max(read) <= 250


# Overlapping pieces


GROUPED = "path,start,end,group\n"
OVERLAPS = [
    (["a.mp4,0,10,x", "a.mp4,5,15,y"], ["x", "x"]),
    (["a.mp4,5,15,y", "./a.mp4,0,10,x"], ["y", "y"]),
    (["a.mp4,0,100,x", "a.mp4,1,2,y", "a.mp4,50,60,z"], ["x", "x", "x"]),  # inside a longer piece
    (["a.mp4,0,10,x", "b.mp4,0,10,y", "a.mp4,5,15,y", "b.mp4,50,60,z"], ["x", "x", "x", "z"]),  # all rows of a group
    (["a.mp4,0,10,x", "a.mp4,9,20,y", "c.mp4,0,10,y", "c.mp4,9,20,z"], ["x", "x", "x", "x"]),  # by way of others
    (["a.mp4,0,10,x", "a.mp4,5,15,"], ["x", "x"]),
    (["cafe\u0301.mp4,0,10,x", "caf\u00e9.mp4,5,15,y"], ["x", "x"]),
    (["a.mp4,0,10,x", "a.mp4,10,20,y"], ["x", "y"]),  # they only touch
    (["a.mp4,0,10,x", "a.mp4,30,40,y", "b.mp4,5,15,y"], ["x", "y", "y"]),
    (["a/b.mp4,0,10,x", "a-b.mp4,5,15,y"], ["x", "y"]),
]


def groups_of(folder, rows, header=GROUPED):
    write_shard_lists(manifest(folder, rows, header), folder / "requested", 100)
    return {(row.source, row.start): row.group for shard in shard_lists(folder / "requested") for row in shard}


@pytest.mark.filterwarnings("ignore:.*pieces of one source overlap")
@pytest.mark.parametrize(("rows", "expected"), OVERLAPS)
def test_overlapping_pieces_of_a_source_are_one_group(tmp_path, rows, expected):
    groups = groups_of(tmp_path, rows)
    actual = [
        groups[source.removeprefix("./"), float(start)] for source, start, _, _ in (row.split(",") for row in rows)
    ]
    assert actual == expected


@pytest.mark.filterwarnings("ignore:.*pieces of one source overlap")
def test_overlapping_pieces_of_one_address_in_several_forms_are_one_group(tmp_path):
    forms = ["https://a.org/v.mp4,0,10,p", "http://A.org/v.mp4,8,20,q", "https://a.org/v.mp4#t=3,18,30,r"]
    forms += ["https://youtu.be/--PJHxphWEs,0,10,s", "https://www.youtube-nocookie.com/embed/--PJHxphWEs,5,15,t"]
    groups = groups_of(tmp_path, forms, "url,start,end,group\n")
    assert [group for _, group in sorted(groups.items(), key=lambda item: item[1])] == ["p", "p", "p", "s", "s"]


def test_a_merged_group_is_told_of_with_its_lines(tmp_path):
    rows = ["b.mp4,0,10,y", "a.mp4,0,10,x", "a.mp4,5,15,y", "a.mp4,2,3,x"]
    with pytest.warns(UserWarning, match=r"list\.csv: pieces .* 2 rows change .* line 2 gets 'x' of line 3; give them"):
        groups_of(tmp_path, rows)


@settings(max_examples=100, deadline=None)
@given(
    st.lists(
        st.tuples(st.integers(0, 3), st.integers(0, 30), st.integers(1, 12), st.integers(0, 6)), min_size=1, max_size=25
    )
)
def test_groups_are_merged_as_by_comparing_all_pairs(pieces):
    sources, starts, lengths, groups = np.array(pieces, np.int64).T
    ends = starts + lengths
    expected = groups.copy()
    for _ in pieces:  # until nothing changes
        for one, other in itertools.combinations(range(len(pieces)), 2):
            if sources[one] == sources[other] and starts[one] < ends[other] and starts[other] < ends[one]:
                expected[expected == expected[other]] = expected[one]
    merged = merged_groups(sources, starts, ends, groups)
    actual = np.array([merged.get(group, group) for group in groups.tolist()])
    assert ((actual[:, None] == actual) == (expected[:, None] == expected)).all()
    for group in set(actual.tolist()):
        assert groups[np.flatnonzero(actual == group)[0]] == group, "the group of the first row"
    rivals = rows_with_rival_groups(sources, groups)
    assert rivals.tolist() == [place for place in range(len(pieces)) if len(set(groups[sources == sources[place]])) > 1]
    small = merged_groups(sources[rivals], starts[rivals], ends[rivals], groups[rivals])
    assert small.keys() | set(small.values()) == merged.keys() | set(merged.values()), "other rows do not matter"
