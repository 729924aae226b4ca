"""Manifests: the published lists and one's own are read as a stream of rows, and a bad row is named."""

import os
import tracemalloc
from itertools import islice

import pytest

from earshot.corpus.manifest import read_manifest
from earshot.pipeline.errors import EarshotError

AUDIOSET = """\
# Segments csv created Sun Mar  5 10:54:31 2017
# num_ytids=2, num_segs=2, num_unique_labels=2, num_positive_labels=3
# YTID, start_seconds, end_seconds, positive_labels
--PJHxphWEs, 30.000, 40.000, "/m/09x0r,/t/dd00088"
0a_b-c3D4e5, 0.000, 7.500, "/m/012xff"
"""


def write(folder, text, name="list.csv"):
    file = folder / name
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    return file


def rows(folder, text):
    return list(read_manifest(write(folder, text)))


def test_audioset_rows_are_youtube_videos_with_their_labels(tmp_path):
    first, second = rows(tmp_path, AUDIOSET)
    assert first.source == "https://www.youtube.com/watch?v=--PJHxphWEs"
    assert (first.clip_id, first.group) == ("--PJHxphWEs_30000", "--PJHxphWEs")
    assert (first.start, first.end, first.annotations) == (30.0, 40.0, ("/m/09x0r", "/t/dd00088"))
    assert (second.start, second.end, second.annotations) == (0.0, 7.5, ("/m/012xff",))


def test_vggsound_rows_last_ten_seconds_and_keep_a_label_with_a_comma(tmp_path):
    first, second = rows(tmp_path, '---g-f_I2yQ,1,people marching,test\n--0PQM4-hqg,30,"waterfall, burbling",train\n')
    assert (first.clip_id, first.start, first.end) == ("---g-f_I2yQ_1000", 1.0, 11.0)
    assert second.annotations == ("waterfall, burbling",)


def test_vggsounds_list_of_files_has_the_start_in_the_name(tmp_path):
    (row,) = rows(tmp_path, "glLQrEijrKg_000300.mp4,playing hammond organ\n")
    assert (row.group, row.start, row.end) == ("glLQrEijrKg", 300.0, 310.0)
    assert row.annotations == ("playing hammond organ",)


def test_a_plain_table_may_have_its_columns_in_any_order_and_others_beside(tmp_path):
    header = "notes,end,start,path,Group,annotations\n"
    first, second = rows(tmp_path, header + "x,4.5,2.25,videos/one.mp4,beach,surf; gull\ny,2,0,videos/two.mp4,,\n")
    assert (first.source, first.start, first.end, first.is_local) == ("videos/one.mp4", 2.25, 4.5, True)
    assert (first.clip_id, first.group, first.annotations) == ("videos-one_2250", "beach", ("surf", "gull"))
    assert (second.group, second.annotations) == ("videos-two", ())


def test_youtube_addresses_of_every_form_name_the_same_video(tmp_path):
    forms = ("www.youtube.com/watch?v={}", "youtu.be/{}?t=3", "m.youtube.com/watch?app=desktop&v={}&t=1s")
    text = "url,start,end\n" + "".join(f"https://{form.format('--PJHxphWEs')},30,40\n" for form in forms)
    assert {row.clip_id for row in rows(tmp_path, text)} == {"--PJHxphWEs_30000"}


def test_clip_ids_are_safe_file_names_and_differ_where_sources_do(tmp_path):
    sources = ["a b.mp4", "a-b.mp4", "a/b.mp4x", "a/b.mkv", "ü.mp4", "x" * 200 + ".mp4", "'; rm $HOME.mp4", "$(id).mp4"]
    local = rows(tmp_path, "path,start,end\n" + "".join(f'"{source}",0,1\n' for source in sources))
    places = ["a.org/v.mp4", "b.org/v.mp4", "a.org/v.mp4?q=../..", "a.org/", "[::1]/%2e%2e", "a.org/%00%2f.mp4"]
    remote = rows(tmp_path, "url,start,end\n" + "".join(f"http://{place},0,1\n" for place in places))
    ids = [row.clip_id for row in local + remote]
    assert len(set(ids)) == len(ids)
    assert all(set(i) <= set("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-") for i in ids)
    assert max(map(len, ids)) <= 90


@pytest.mark.parametrize("path", ["../secret.mp4", "/etc/passwd", "a/../../b.mp4", "..\\b.mp4"])
def test_a_path_out_of_the_manifests_folder_is_refused(tmp_path, path):
    with pytest.raises(EarshotError, match="line 3: path .* below the manifest's folder"):
        rows(tmp_path, f"path,start,end\nfine.mp4,0,1\n{path},0,1\n")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("path,start,end\na.mp4,0,1\na.mp4,zero,1\n", "line 3: start 'zero': wanted seconds"),
        ("path,start,end\na.mp4,-1,1\n", "line 2: start '-1'"),
        ("path,start,end\na.mp4,0,nan\n", "line 2: end 'nan'"),
        ("path,start,end\na.mp4,0,1e400\n", "line 2: end '1e400'"),
        ("path,start,end\na.mp4,5,5\n", "line 2: end 5: wanted more than start, 5"),
        ("path,start,end\na.mp4,0\n", "line 2: 2 fields, the header has 3"),
        ("path,start,end\n,0,1\n", "line 2: path and url: nothing is given"),
        ("path,url,start,end\na.mp4,http://x/,0,1\n", "line 2: path and url: both"),
        ("url,start\nhttp://x/,0\n", "line 1: the column end is missing"),
        (AUDIOSET + "short, 0, 10, x\n", "line 6: YTID 'short'"),
        (AUDIOSET + "--PJHxphWEs, 0, 10\n", "line 6: 3 fields, wanted 4"),
        ("---g-f_I2yQ,1,people marching,test\n---g-f_I2yQ,one,people marching,test\n", "line 2: start 'one'"),
        ("name,when\nx,1\n", "line 1: found 'name,when', wanted AudioSet's"),
        ('path,start,end\n"a.mp4,0,1\n', "not a CSV row"),
        (b"path,start,end\na.mp4,0,1\n\xff\xfe.mp4,0,1\n", "not UTF-8"),
        ("", "holds no rows"),
        ("# nothing here\n\n", "holds no rows"),
    ],
)
def test_the_first_bad_row_is_named_by_file_line_and_field(tmp_path, text, said):
    with pytest.raises(EarshotError) as error:
        rows(tmp_path, text)
    assert said in str(error.value)
    assert "list.csv" in str(error.value)


def test_a_folder_stands_for_the_manifest_in_it(tmp_path):
    write(tmp_path, "path,start,end\na.mp4,0,1\n", "manifest.csv")
    assert [row.source for row in read_manifest(tmp_path)] == ["a.mp4"]
    with pytest.raises(EarshotError, match=r"manifest\.csv: no such file"):
        list(read_manifest(tmp_path / "elsewhere" / "manifest.csv"))


def test_memory_does_not_grow_with_the_manifest(tmp_path):
    lines = "".join(f"videos/{number:09d}.mp4,0,10\n" for number in range(20_000))
    manifest = read_manifest(write(tmp_path, "path,start,end\n" + lines))
    del lines
    list(islice(manifest, 100))
    tracemalloc.start()
    assert sum(1 for _ in manifest) == 19_900
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 100_000, "a row of the list costs no memory once it is read"


def test_the_published_lists_are_read_to_the_last_row(real_data):
    lists = real_data / "metadata"
    balanced = list(read_manifest(lists / "audioset" / "balanced_train_segments.csv"))
    evaluation = list(read_manifest(lists / "audioset" / "eval_segments.csv"))
    vggsound = list(read_manifest(lists / "vggsound" / "test.csv"))
    # The first two as their own second lines count them, the last by its number of lines.
    assert [len(balanced), len(evaluation), len(vggsound)] == [22160, 20371, 15446]
    assert sum(len(row.annotations) for row in balanced) == 52882
    assert len({row.clip_id for row in balanced + evaluation}) == 22160 + 20371
    assert all(row.end - row.start == pytest.approx(10) for row in vggsound)
    assert os.sep not in "".join(row.clip_id for row in balanced + evaluation + vggsound)
