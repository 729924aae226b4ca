"""Manifests: published and own lists are read as a stream of rows, and an error names the first bad row."""

import hashlib
import os
import tracemalloc
from dataclasses import replace
from itertools import islice
from urllib.parse import quote

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import without_children
from hypothesis import given, settings
from hypothesis import strategies as st

from earshot.core.errors import EarshotError
from earshot.corpus.manifest import address_name, path_name, read_manifest, source_name

AUDIOSET = """\
# Segments csv created Sun Mar  5 10:54:31 2017
# num_ytids=2, num_segs=2, num_unique_labels=2, num_positive_labels=3
# YTID, start_seconds, end_seconds, positive_labels
--PJHxphWEs, 30.000, 40.000, "/m/09x0r,/t/dd00088"
0a_b-c3D4e5, 0.000, 7.500, "/m/012xff"
"""


@pytest.fixture(scope="module", autouse=True)
def in_process():
    with without_children():
        yield


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


def test_vggsounder_has_a_row_a_label_and_the_name_of_vggsounds_file(tmp_path):
    header = "video_id,label,modality,background_music,static_image,voice_over\n"
    speech = '--i-y1v8Hy8_000107,"child speech, kid speaking",AV,False,False,True\n'
    wind = "--i-y1v8Hy8_000107,wind noise,A,False,False,True\n"
    first, second = rows(tmp_path, header + speech + wind)
    assert first.clip_id == second.clip_id == "--i-y1v8Hy8_107000" and (first.start, first.end) == (107.0, 117.0)
    assert (first.annotations, second.annotations) == (("child speech, kid speaking",), ("wind noise",))
    with pytest.raises(EarshotError, match="line 2: video_id 'x': expected one such as --PJHxphWEs_000030"):
        rows(tmp_path, f"{header}x,wind noise,A,False,False,True\n")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("---g-f_I2yQ,1,people marching,test\n", "test"),
        ("---g-f_I2yQ,1,people marching\n", ""),
        ("label,youtube_id,time_start,time_end,split\nclapping,---g-f_I2yQ,1,11,validate\n", "val"),
        ("url,start,end,split\nhttps://youtu.be/---g-f_I2yQ,1,11,Train\n", "train"),
        ("path,start,end,split\na.mp4,1,11,fold 3\n", ""),
        (AUDIOSET, ""),
    ],
)
def test_a_row_has_the_split_that_its_list_names_which_is_no_part_of_the_request(tmp_path, text, expected):
    row = rows(tmp_path, text)[0]
    assert row.split == expected and row == replace(row, split="other")


def test_vggsounds_list_of_files_has_the_start_in_the_name(tmp_path):
    (row,) = rows(tmp_path, "glLQrEijrKg_000300.mp4,playing hammond organ\n")
    assert (row.group, row.start, row.end) == ("glLQrEijrKg", 300.0, 310.0)
    assert row.annotations == ("playing hammond organ",)


def test_kinetics_rows_have_their_own_start_and_end_and_may_have_no_label(tmp_path):
    text = "label,youtube_id,time_start,time_end,split,is_cc\n"
    text += 'air drumming,--nQbRBEz2s,104,114,val,0\n"cooking, eating",-3B32lodo2M,59,69,train,0\n'
    first, second = rows(tmp_path, text)
    assert (first.clip_id, first.group, first.start, first.end) == ("--nQbRBEz2s_104000", "--nQbRBEz2s", 104, 114)
    assert (first.annotations, second.annotations) == (("air drumming",), ("cooking, eating",))
    (row,) = rows(tmp_path, "youtube_id,time_start,time_end,split\n--nQbRBEz2s,0,10,test\n")
    assert row.annotations == ()


def test_a_plain_table_may_have_its_columns_in_any_order_and_further_ones(tmp_path):
    header = "notes,end,start,path,Group,annotations\n"
    first, second = rows(tmp_path, header + "x,4.5,2.25,videos/one.mp4,beach,surf; gull\ny,2,0,videos/two.mp4,,\n")
    assert (first.source, first.start, first.end, first.is_local) == ("videos/one.mp4", 2.25, 4.5, True)
    assert (first.clip_id, first.group, first.annotations) == ("videos-one_2250", "beach", ("surf", "gull"))
    assert (second.group, second.annotations) == ("videos-two", ())


def test_youtube_addresses_of_every_form_name_the_same_video(tmp_path):
    forms = ("www.youtube.com/watch?v={}", "youtu.be/{}?t=3", "m.youtube.com/watch?app=desktop&v={}&t=1s")
    text = "url,start,end\n" + "".join(f"https://{form.format('--PJHxphWEs')},30,40\n" for form in forms)
    assert {row.clip_id for row in rows(tmp_path, text)} == {"--PJHxphWEs_30000"}
    assert {row.source for row in rows(tmp_path, text)} == {"https://www.youtube.com/watch?v=--PJHxphWEs"}


YOUTUBE_FORMS = [
    "https://www.youtube.com/watch?v={}", "HTTP://WWW.YouTube.COM/watch?v={}", "https://www.youtube-nocookie.com/embed/{}",
    "https://youtu.be/{}#t=5", "https://youtube.com/shorts/{}?feature=share", "https://m.youtube.com/live/{}",
    "https://www.youtube.com:443/watch?v={}#comments", "https://www.youtube.com/v/{}", "youtu.be/{}",
    "www.youtube.com/watch?v={}&list=x", "https://www.youtube.com/watch?list=x&amp;v={}", "https://youtube.com./e/{}",
    "https://www.youtube.com/#/watch?v={}", "https://music.youtube.com/watch?si=1&v={}",
]  # fmt: skip


@pytest.mark.parametrize("form", YOUTUBE_FORMS)
def test_a_youtube_video_has_one_name_and_one_address(tmp_path, form):
    (row,) = rows(tmp_path, f"url,start,end\n{form.format('--PJHxphWEs')},30,40\n")
    assert row.source == "https://www.youtube.com/watch?v=--PJHxphWEs"
    assert (row.clip_id, row.group) == ("--PJHxphWEs_30000", "--PJHxphWEs")


@pytest.mark.parametrize(
    "address",
    [
        "https://www.youtube.com/embed/videoseries?list=--PJHxphWEs", "https://www.youtube.com/embed/live_stream?channel=x",
        "https://youtube.com.evil.org/watch?v=--PJHxphWEs", "https://a.org/watch?v=--PJHxphWEs",
        "https://www.youtube.com/watch?v=--PJHxphWEsX", "https://www.youtube.com/channel/--PJHxphWEs",
    ],
)  # fmt: skip
def test_an_address_that_only_resembles_a_youtube_video_keeps_its_own_name(tmp_path, address):
    (row,) = rows(tmp_path, f"url,start,end\n{address},30,40\n")
    assert row.source == address and row.group != "--PJHxphWEs"


SAME_SOURCES = [
    ("path", ["c1.mp4", "./c1.mp4", ".//c1.mp4", "././c1.mp4", "c1.mp4/"]),
    ("path", ["a/c1.mp4", "./a/c1.mp4", "a//c1.mp4", "a/./c1.mp4"]),
    ("path", ["caf\u00e9.mp4", "cafe\u0301.mp4", "./caf\u00e9.mp4"]),
    ("url", ["https://a.org/v.mp4", "http://a.org/v.mp4", "HTTPS://A.Org/v.mp4", "https://a.org:443/v.mp4",
             "http://a.org:80/v.mp4", "https://a.org/v.mp4#t=10", "https://a.org/x/../v.mp4", "https://a.org/./v.mp4",
             "https://a.org/%76.mp4", "https://a.org./v.mp4"]),
    ("url", ["https://a.org", "https://a.org/", "http://A.org/#top"]),
    ("url", ["https://a.org/a%c3%bc.mp4", "https://a.org/a\u00fc.mp4", "https://a.org/a%C3%BC.mp4"]),
]  # fmt: skip
OTHER_SOURCES = [
    ("path", ["c1.mp4", "C1.mp4", "c1.mkv", "a/c1.mp4", "c 1.mp4"]),
    ("url", ["https://a.org/v.mp4", "https://a.org/V.mp4", "https://a.org:8443/v.mp4", "https://b.org/v.mp4",
             "https://a.org/v.mp4?x=1", "https://a.org/#!/v.mp4", "https://a.org/#/v.mp4", "ftp://a.org/v.mp4",
             "https://a.org/x%2Fv.mp4", "https://a.org/x/v.mp4", "https://me@a.org/v.mp4"]),
]  # fmt: skip


@pytest.mark.parametrize(("column", "sources"), SAME_SOURCES)
def test_a_source_written_in_several_ways_is_one_group(tmp_path, column, sources):
    of_list = rows(tmp_path, f"{column},start,end\n" + "".join(f"{source},0,10\n" for source in sources))
    assert len({(row.clip_id, row.group) for row in of_list}) == 1
    assert len({source_name(row) for row in of_list}) == 1
    assert of_list[0].source == sources[0], "the source is fetched as it is written"


@pytest.mark.parametrize(("column", "sources"), OTHER_SOURCES)
def test_sources_that_only_resemble_each_other_are_several_groups(tmp_path, column, sources):
    of_list = rows(tmp_path, f"{column},start,end\n" + "".join(f"{source},0,10\n" for source in sources))
    assert len({row.group for row in of_list}) == len({source_name(row) for row in of_list}) == len(sources)


def test_usual_addresses_and_paths_keep_their_names(tmp_path):
    address, path = "https://a.org/v.mp4?q=1&r=a%20b", "videos/a b.mp4"
    (remote,), (local,) = (
        rows(tmp_path, f"{column},start,end\n{value},0,1\n") for column, value in (("url", address), ("path", path))
    )
    assert remote.clip_id == f"v-{hashlib.sha256(address.encode()).hexdigest()[:10]}_0"
    assert local.clip_id == f"videos-a-b-{hashlib.sha256(path.encode()).hexdigest()[:10]}_0"


PARTS = st.text(st.sampled_from("abcXYZ019-_. ~()+"), min_size=1, max_size=8).filter(
    lambda part: part.strip(". ") == part
)


@settings(max_examples=100, deadline=None)
@given(st.lists(PARTS, min_size=1, max_size=4), st.lists(st.integers(0, 4), min_size=5, max_size=5))
def test_any_path_has_one_name_however_it_is_written(parts, changes):
    written = "./" * changes[0] + ("/" + "./" * changes[1] + "/" * changes[2]).join(parts)
    address = "/".join(map(quote, parts))
    codes = "%{:02x}" if changes[3] % 2 else "%{:02X}"
    coded = "/".join("".join(codes.format(ord(letter)) for letter in part) for part in parts)
    scheme, host = ("http", "https", "HTTP")[changes[3] % 3], ("a.org", "A.ORG", "a.Org.")[changes[4] % 3]
    assert path_name(written) == path_name("/".join(parts))
    assert address_name(f"{scheme}://{host}/{coded}#t={changes[0]}") == address_name(f"https://a.org/{address}")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("path,start,end\na.mp4,0,1\n#1 dog.mp4,0,1\n", "line 3: begins with '#1 dog.mp4', expected comments above"),
        ("path,start,end\n#1 dog.mp4,0,1\n", "line 2: begins with '#1 dog.mp4'"),
        ('path,start,end\n"#1, dog.mp4",0,1\n', "line 2: begins with '#1, dog.mp4'"),
        ("path,start,end\na.mp4,0,1\n# the end\n", "line 3: begins with '# the end'"),
        (AUDIOSET + "#-PJHxphWEs, 0, 10, x\n", "line 6: begins with '#-PJHxphWEs'"),
        ("#NAME?,1,people marching,test\n---g-f_I2yQ,30,waterfall,train\n", "line 1: '#NAME?' is an error of a spread"),
        ("# VGGSound\n#REF!,1,x,test\n---g-f_I2yQ,30,x,test\n", "line 2: '#REF!' is an error"),
        ("---g-f_I2yQ,30,#N/A,train\n", "line 1: '#N/A' is an error"),
        ("path,start,end,group\na.mp4,0,1,#VALUE!\n", "line 2: '#VALUE!' is an error"),
        ("path,start,end\na.mp4,0,#DIV/0!\n", "line 2: '#DIV/0!' is an error"),
    ],
)
def test_a_row_that_begins_with_a_number_sign_never_vanishes(tmp_path, text, message):
    with pytest.raises(EarshotError) as error:
        rows(tmp_path, text)
    assert f"list.csv, {message}" in str(error.value)


def test_comments_above_the_first_row_and_names_with_a_number_sign_are_read(tmp_path):
    of_list = rows(tmp_path, "# mine\n\n#\n # one\npath,start,end,label\n./#1 dog.mp4,0,1,#dogs\na#2.mp4,0,1,\n")
    assert [(row.source, row.annotations) for row in of_list] == [("#1 dog.mp4", ("#dogs",)), ("a#2.mp4", ())]


@pytest.mark.parametrize(
    "number", ["8_0", "1_000.5", "\uff18", "\u0668", "inf", "Infinity", "0x10", "1,5", "8 0", "", "."]
)
def test_a_text_that_is_no_decimal_number_is_no_time(tmp_path, number):
    with pytest.raises(EarshotError, match="line 2: end .*: expected seconds from 0 to 1,000,000"):
        rows(tmp_path, f'path,start,end\na.mp4,0,"{number}"\n')


@pytest.mark.parametrize(
    ("number", "seconds"), [("8", 8), ("08.50", 8.5), (".5", 0.5), ("5.", 5), ("1e2", 100), ("+3", 3)]
)
def test_decimal_numbers_are_times(tmp_path, number, seconds):
    assert rows(tmp_path, f"path,start,end\na.mp4,0,{number}\n")[0].end == seconds


@pytest.mark.parametrize("separator", [",", ";", "\t"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be"])
@pytest.mark.parametrize(
    ("lines", "annotations"),
    [
        ([["path", "start", "end", "label"], ["a.mp4", "0", "1", '"surf; gull"'], ["b.mp4", "2", "3", "s\u00fc\u00df"]],
         [("surf", "gull"), ("s\u00fc\u00df",)]),
        ([["# a, b; c\td"], ["url", "end", "start"], ["https://a.org/?a=1", "1", "0"]], [()]),
        ([["---g-f_I2yQ", "1", '"a; b; c; d; e"', "test"]], [("a; b; c; d; e",)]),
        ([["--PJHxphWEs", "30", "40", '"/m/09x0r,/t/dd00088"']], [("/m/09x0r", "/t/dd00088")]),
        ([["glLQrEijrKg_000300.mp4", '"a, b;\tc"']], [("a, b;\tc",)]),
        ([["label", "youtube_id", "time_start", "time_end"], ['"x, y"', "--nQbRBEz2s", "1", "2"]], [("x, y",)]),
    ],
)  # fmt: skip
def test_every_separator_and_encoding_is_read(tmp_path, separator, encoding, lines, annotations):
    text = "".join(separator.join(line) + "\r\n" for line in lines)
    assert [row.annotations for row in rows(tmp_path, text.encode(encoding))] == annotations


def test_a_field_with_the_separator_is_told_of(tmp_path):
    for separator, name in ((",", "a comma"), (";", "a semicolon"), ("\t", "a tab")):
        text = "path,start,end,label\na.mp4,0,1,x,y\n".replace(",", separator)
        with pytest.raises(EarshotError, match=f"line 2: 5 fields, expected 4 .* contains {name}"):
            rows(tmp_path, text)
    with pytest.raises(EarshotError, match="line 2: end '1,5': expected seconds"):
        rows(tmp_path, "path;start;end\na.mp4;0;1,5\n")
    with pytest.raises(EarshotError, match="not UTF-8 text"):
        rows(tmp_path, "path,start,end\na.mp4,0,1\n".encode("utf-16")[:-1])


def test_clip_ids_are_safe_file_names_and_differ_if_sources_do(tmp_path):
    sources = ["a b.mp4", "a-b.mp4", "a/b.mp4x", "a/b.mkv", "ü.mp4", "x" * 200 + ".mp4", "'; rm $HOME.mp4", "$(id).mp4"]
    local = rows(tmp_path, "path,start,end\n" + "".join(f'"{source}",0,1\n' for source in sources))
    addresses = ["a.org/v.mp4", "b.org/v.mp4", "a.org/v.mp4?q=../..", "a.org/", "[::1]/%2e%2e", "a.org/%00%2f.mp4"]
    remote = rows(tmp_path, "url,start,end\n" + "".join(f"http://{address},0,1\n" for address in addresses))
    ids = [row.clip_id for row in local + remote]
    assert len(set(ids)) == len(ids)
    assert all(set(i) <= set("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-") for i in ids)
    assert max(map(len, ids)) <= 90


@pytest.mark.parametrize("path", ["../secret.mp4", "/etc/passwd", "a/../../b.mp4", "..\\b.mp4"])
def test_a_path_out_of_the_manifests_folder_is_refused(tmp_path, path):
    with pytest.raises(EarshotError, match="line 3: path .* below the manifest's folder"):
        rows(tmp_path, f"path,start,end\nfine.mp4,0,1\n{path},0,1\n")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("path,start,end\na.mp4,0,1\na.mp4,zero,1\n", "line 3: start 'zero': expected seconds"),
        ("path,start,end\na.mp4,-1,1\n", "line 2: start '-1'"),
        ("path,start,end\na.mp4,0,nan\n", "line 2: end 'nan'"),
        ("path,start,end\na.mp4,0,1e400\n", "line 2: end '1e400'"),
        ("path,start,end\na.mp4,5,5\n", "line 2: end 5: expected more than start, 5"),
        ("path,start,end\na.mp4,0\n", "line 2: 2 fields, expected 3"),
        ("path,start,end\n,0,1\n", "line 2: path and url: neither is given"),
        ("path,url,start,end\na.mp4,http://x/,0,1\n", "line 2: path and url: both"),
        ("url,start\nhttp://x/,0\n", "line 1: the column end is missing"),
        (AUDIOSET + "short, 0, 10, x\n", "line 6: YTID 'short'"),
        (AUDIOSET + "--PJHxphWEs, 0, 10\n", "line 6: 3 fields, expected 4"),
        ("---g-f_I2yQ,1,people marching,test\n---g-f_I2yQ,one,people marching,test\n", "line 2: start 'one'"),
        ("name,when\nx,1\n", "line 1: found 'name,when', expected the rows of AudioSet"),
        ('path,start,end\n"a.mp4,0,1\n', "not a CSV row"),
        (b"path,start,end\na.mp4,0,1\n\xff\xfe.mp4,0,1\n", "not UTF-8"),
        ("label,youtube_id,time_start,split\nx,--nQbRBEz2s,0,val\n", "line 1: the column time_end is missing"),
        ("youtube_id,time_start,time_end\n--nQbRBEz2s,0,1\nbad,0,1\n", "line 3: youtube_id 'bad'"),
        ("youtube_id,time_start,time_end\n--nQbRBEz2s,soon,1\n", "line 2: time_start 'soon'"),
        ("Category&VideoID&Quality&StartTime&EndTime\nBell&RUhOCu3LNXM&good&0&10\n", "use manifests/ave.json"),
        ("path,start,end\n" + "a" * (1 << 20), "line 2: longer than 1,048,576 characters"),
        ("", "holds no rows"),
        ("# nothing here\n\n", "holds no rows"),
    ],
)
def test_the_first_bad_row_is_named_by_file_line_and_field(tmp_path, text, message):
    with pytest.raises(EarshotError) as error:
        rows(tmp_path, text)
    assert message in str(error.value)
    assert "list.csv" in str(error.value)


def parquet(folder, name="list.parquet", **columns):
    pq.write_table(pa.table(columns), folder / name, row_group_size=2)
    return folder / name


def test_parquet_has_the_columns_of_the_plain_table(tmp_path):
    columns = {
        "notes": ["x", "y", None], "URL": ["https://youtu.be/--PJHxphWEs", None, ""], "path": [None, "b.mp4", "c.mp4"],
        "start": [0.0, 2.25, 4.0], "end": [10, 20, 30], "group": ["g", None, ""],
    }  # fmt: skip
    of_texts = parquet(tmp_path, "a.parquet", **columns, annotations=["surf; gull", None, ""])
    of_lists = parquet(tmp_path, "b", **columns, annotations=[["surf", "gull"], None, []])
    assert list(read_manifest(of_texts)) == list(read_manifest(of_lists))
    first, second, third = read_manifest(of_texts)
    assert (first.clip_id, first.group, first.annotations) == ("--PJHxphWEs_0", "g", ("surf", "gull"))
    assert (second.source, second.is_local, second.start, second.end) == ("b.mp4", True, 2.25, 20.0)
    assert (third.group, third.annotations) == ("c", ())


NAN = float("nan")


@pytest.mark.parametrize(
    ("column", "values", "groups", "annotations"),
    [
        ("group", [NAN, 1.0, None], ["a", "1.0", "c"], [(), (), ()]),
        ("group", [NAN, NAN, NAN], ["a", "b", "c"], [(), (), ()]),
        ("label", ["x", None, "y"], ["a", "b", "c"], [("x",), (), ("y",)]),
        ("label", [NAN, 2.5, NAN], ["a", "b", "c"], [(), ("2.5",), ()]),
        ("annotations", [["x", None, "y"], [None], []], ["a", "b", "c"], [("x", "y"), (), ()]),
        ("annotations", [["x"], None, [""]], ["a", "b", "c"], [("x",), (), ()]),
        ("annotations", [[NAN], [NAN, NAN], None], ["a", "b", "c"], [(), (), ()]),
        ("url", [NAN, NAN, NAN], ["a", "b", "c"], [(), (), ()]),
    ],
)
def test_a_missing_value_of_parquet_is_an_empty_cell(tmp_path, column, values, groups, annotations):
    columns = {"path": ["a.mp4", "b.mp4", "c.mp4"], "start": [0.0] * 3, "end": [1] * 3, column: values}
    of_list = list(read_manifest(parquet(tmp_path, **columns)))
    assert [row.group for row in of_list] == groups
    assert [row.annotations for row in of_list] == annotations


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"path": ["a.mp4"] * 3, "start": [0.0, 1, 2], "end": [1, 2, None]}, "row 3: end '': expected seconds"),
        ({"path": ["a.mp4"] * 3, "start": [0.0, 1, 2], "end": [1, 1, 3]}, "row 2: end 1: expected more than start"),
        ({"path": ["a.mp4"] * 2, "start": ["0", "one"], "end": ["1", "2"]}, "row 2: start 'one'"),
        ({"path": ["a.mp4", "../b.mp4"], "start": [0, 0], "end": [1, 1]}, "row 2: path '../b.mp4'"),
        ({"path": [b"a.mp4"], "start": [0], "end": [1]}, "row 1: path \"b'a.mp4'\": expected a text or a number"),
        ({"path": ["a"], "start": [0], "end": [1], "label": [["a;b"]]}, "row 1: label 'a;b': expected texts without"),
        ({"path": ["a"], "start": [0], "end": [1], "label": [[1, None]]}, "row 1: label 1: expected texts without"),
        ({"path": ["a"], "start": [NAN], "end": [1]}, "row 1: start 'nan': expected seconds"),
        ({"path": ["a"], "start": [0], "end": ["8_0"]}, "row 1: end '8_0': expected seconds"),
        ({"path": ["a"], "start": [0], "label": ["x"]}, "the column end is missing"),
        ({"when": ["a"], "start": [0]}, "has the columns when, start; expected url,start,end"),
        ({"path": pa.array([], pa.string()), "start": pa.array([], "f8"), "end": pa.array([], "f8")}, "holds no rows"),
    ],
)
def test_a_bad_value_of_parquet_is_named_by_file_row_and_column(tmp_path, columns, message):
    with pytest.raises(EarshotError) as error:
        list(read_manifest(parquet(tmp_path, **columns)))
    assert "list.parquet" in str(error.value) and message in str(error.value)


def test_damaged_parquet_is_refused_with_its_name(tmp_path):
    intact = parquet(tmp_path, path=["a.mp4"] * 100, start=list(range(100)), end=list(range(1, 101))).read_bytes()
    for damaged in (intact[:-20], intact[:4], intact[:8] + bytes(200) + intact[208:]):
        with pytest.raises(EarshotError, match="list.parquet: cannot be read as Parquet"):
            list(read_manifest(write(tmp_path, damaged, "list.parquet")))


def test_memory_does_not_grow_with_parquet(tmp_path):
    def peak(rows):
        file = tmp_path / f"{rows}.parquet"
        names = [f"videos/{number:09d}.mp4" for number in range(rows)]
        table = pa.table({"path": names, "start": [0.0] * rows, "end": [10.0] * rows})
        pq.write_table(table, file, row_group_size=5000)
        manifest = read_manifest(file)
        next(manifest)
        before = pa.total_allocated_bytes()
        return max(pa.total_allocated_bytes() for _ in manifest) - before

    assert peak(40_000) < peak(10_000) + 500_000


CELLS = st.one_of(
    st.text(max_size=12),
    st.floats().map(str),
    st.sampled_from(
        ["0", "10", "--PJHxphWEs", "a.mp4", "../a.mp4", "https://[::1", "https://youtu.be/--PJHxphWEs", '"', ""]
    ),
)
HEADERS = ("", "path,start,end", "url,start,end,group,label", "label,youtube_id,time_start,time_end,split,is_cc")


@settings(max_examples=200, deadline=None)
@given(st.sampled_from(HEADERS), st.lists(st.lists(CELLS, min_size=1, max_size=6), min_size=1, max_size=3), st.binary())
def test_any_list_is_read_or_refused_with_its_name(tmp_path_factory, header, cells, tail):
    text = "\n".join([header, *(",".join(row) for row in cells)])
    for data in (text.encode("utf-8", "replace"), text.encode("utf-8", "replace") + tail, b"PAR1" + tail):
        file = write(tmp_path_factory.getbasetemp(), data, "any.csv")
        try:
            rows = list(read_manifest(file))
        except EarshotError as error:
            assert "any.csv" in str(error)
        else:
            assert all(row.start < row.end and row.clip_id and row.group for row in rows)


@settings(max_examples=50, deadline=None)
@given(
    st.lists(st.one_of(st.none(), CELLS), min_size=1, max_size=4),
    st.one_of(st.lists(st.floats()), st.lists(st.integers(-5, 10**7)), st.lists(CELLS), st.lists(st.binary())),
)
def test_any_parquet_is_read_or_refused_with_its_row(tmp_path_factory, paths, starts):
    paths = [path.encode("utf-8", "replace").decode() if path is not None else None for path in paths]
    starts = [s.encode("utf-8", "replace").decode() if isinstance(s, str) else s for s in (starts * 4)[: len(paths)]]
    if len(starts) < len(paths):
        return
    file = parquet(tmp_path_factory.getbasetemp(), "any.parquet", path=paths, start=starts, end=[20] * len(paths))
    try:
        assert len(list(read_manifest(file))) == len(paths)
    except EarshotError as error:
        assert "any.parquet, row " in str(error)


def test_a_folder_means_the_manifest_in_it(tmp_path):
    write(tmp_path, "path,start,end\na.mp4,0,1\n", "manifest.csv")
    assert [row.source for row in read_manifest(tmp_path)] == ["a.mp4"]
    (tmp_path / "of").mkdir()
    parquet(tmp_path / "of", "manifest.parquet", path=["b.mp4"], start=[0], end=[1])
    assert [row.source for row in read_manifest(tmp_path / "of")] == ["b.mp4"]
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
    assert peak < 100_000, "a row needs no memory after it is read"


def test_the_published_lists_are_read_to_the_last_row(real_data):
    lists = real_data / "metadata"
    balanced = list(read_manifest(lists / "audioset" / "balanced_train_segments.csv"))
    evaluation = list(read_manifest(lists / "audioset" / "eval_segments.csv"))
    vggsound = list(read_manifest(lists / "vggsound" / "test.csv"))
    # The first two counts are from the lists' second lines, the last is the number of lines.
    assert [len(balanced), len(evaluation), len(vggsound)] == [22160, 20371, 15446]
    assert sum(len(row.annotations) for row in balanced) == 52882
    assert len({row.clip_id for row in balanced + evaluation}) == 22160 + 20371
    assert all(row.end - row.start == pytest.approx(10) for row in vggsound)
    assert os.sep not in "".join(row.clip_id for row in balanced + evaluation + vggsound)
