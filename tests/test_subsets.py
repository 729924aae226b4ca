"""Annotated corpora: small lists in the published formats, and the real ones if available."""

import json

import pytest
from conftest import earshot

from earshot.commands.subsets import KIM_INSTRUMENTS, KINETICS_SOUNDS, SUBSETS, instruments
from earshot.core.errors import EarshotError
from earshot.corpus.manifest import read_manifest
from earshot.corpus.ontology import read_ontology
from earshot.corpus.split import split_of

CLASSES = {
    "Music": ["Guitar", "Violin, fiddle"], "Guitar": ["Acoustic guitar"], "Acoustic guitar": [], "Violin, fiddle": [],
    "Animal": ["Dog", "Cat"], "Dog": ["Bark"], "Bark": [], "Cat": [], "Speech": [],
}  # fmt: skip
IDS = {name: f"/m/{number:03d}" for number, name in enumerate(CLASSES)}


def video(number: int) -> str:
    return f"abc-_{number:06d}"


def labels(*names: str) -> str:
    return '"' + ",".join(IDS[name] for name in names) + '"'


@pytest.fixture
def metadata(tmp_path):
    """Published lists of a few clips each."""
    files = {
        "audioset/ontology.json": json.dumps(
            [{"id": IDS[name], "name": name, "child_ids": [IDS[child] for child in below]}
             for name, below in CLASSES.items()]
        ),
        "audioset/audioset_filter_ots.csv": "filter_type,accept_reject,include_children,string\n"
        'label,accept,false,Guitar\nlabel,accept,false,Acoustic guitar\nlabel,accept,false,"Violin, fiddle"\n',
        "audioset/balanced_train_segments.csv": "# a list\n# of clips\n# YTID, start_seconds, end_seconds, labels\n"
        f"{video(0)}, 30.000, 40.000, {labels('Guitar', 'Acoustic guitar', 'Music', 'Speech')}\n"
        f"{video(1)}, 0.000, 10.000, {labels('Violin, fiddle', 'Guitar')}\n"
        f"{video(2)}, 20.000, 30.000, {labels('Dog', 'Animal', 'Bark', 'Guitar')}\n",
        "audioset/eval_segments.csv": "# a list\n"
        f"{video(3)}, 5.000, 12.000, {labels('Animal')}\n{video(4)}, 5.000, 15.000, {labels('Music', 'Speech')}\n"
        f"{video(5)}, 5.000, 15.000, {labels('Cat')}\n",
        "ave/Annotations.txt": "Category&VideoID&Quality&StartTime&EndTime\n"
        f"Bark&{video(2)}&good&0&10\nAcoustic guitar&{video(7)}&good&2&8\nBark&{video(7)}&good&0&4\n",
        "kinetics-sounds/my_train.txt": f"{video(8)}_000058_000068,10,4\n",
        "kinetics-sounds/my_test.txt": f"{video(9)}_2,10,30\n",
        "vggsound/test.csv": f"{video(10)}_000300.mp4,playing cello\n{video(10)}_000010.mp4,\"talking, loud\"\n",
    }  # fmt: skip
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    return tmp_path


def written(name, metadata, capsys):
    """The manifest of a corpus as the stage download reads it, by video, and what is printed."""
    earshot("subsets", name, "--metadata", metadata, "--output", metadata / "out" / "manifest.csv")
    rows = list(read_manifest(metadata / "out"))
    return {(row.group, row.start): row for row in rows}, capsys.readouterr().out


def test_instruments_keep_their_most_special_classes(metadata, capsys):
    rows, printed = written("audioset-instruments-all", metadata, capsys)
    assert {group: row.annotations for (group, _), row in rows.items()} == {
        video(0): ("Acoustic guitar",),
        video(1): ("Guitar", "Violin, fiddle"),
        video(2): ("Guitar",),
    }
    first = rows[video(0), 30.0]
    assert (first.source, first.end) == (f"https://www.youtube.com/watch?v={video(0)}", 40)
    assert printed.startswith("audioset-instruments-all: 3 clips of 3 videos, 3 classes, 1.33 of them per clip; ")
    for side in ("train", "val", "test"):
        assert f"{sum(split_of(group) == side for group, _ in rows)} {side}" in printed


def test_the_instruments_with_most_clips_are_taken(metadata):
    rows = instruments(metadata, None, most=1)  # guitar, of three clips
    assert [(row.video, row.annotations) for row in rows] == [(video(n), ("Guitar",)) for n in range(3)]
    of_two = {name for row in instruments(metadata, None, most=2) for name in row.annotations}
    assert of_two == {"Guitar", "Acoustic guitar"}  # one clip each, as the violin: the first by name


def test_animals_are_the_clips_with_that_label(metadata, capsys):
    rows, _ = written("audioset-animals", metadata, capsys)
    animals = {group: (row.start, row.end, row.annotations) for (group, _), row in rows.items()}
    assert animals == {video(2): (20, 30, ("Bark",)), video(3): (5, 12, ("Animal",))}


def test_ave_starts_come_from_audioset_or_the_clip_is_a_file(metadata, capsys):
    rows, printed = written("ave", metadata, capsys)
    known, unknown = rows[video(2), 20.0], rows[video(7), 0.0]
    assert (known.is_local, known.end, known.annotations) == (False, 30, ("Bark",))
    assert (unknown.is_local, unknown.source, unknown.end) == (True, f"{video(7)}.mp4", 10)
    assert unknown.annotations == ("Acoustic guitar", "Bark")
    assert "1 of them are files of the authors' archive" in printed


def test_kinetics_sounds_reads_classes_and_starts_of_both_lists(metadata, capsys):
    rows, _ = written("kinetics-sounds", metadata, capsys)
    assert rows[video(8), 58.0].annotations == ("dribbling basketball",)
    assert rows[video(8), 58.0].end == 68
    assert rows[video(9), 2.0].annotations == ("tickling",)


def test_clips_of_one_video_stay_together(metadata, capsys):
    rows, printed = written("vggsound", metadata, capsys)
    assert [row.group for row in rows.values()] == [video(10)] * 2
    assert rows[video(10), 10.0].annotations == ("talking, loud",)
    assert "2 clips of 1 videos" in printed


def test_the_whole_list_of_vggsound_is_preferred(metadata, capsys):
    (metadata / "vggsound" / "vggsound.csv").write_text(f"{video(11)},30,cat purring,train\n")
    rows, _ = written("vggsound", metadata, capsys)
    assert list(rows) == [(video(11), 30)]


@pytest.mark.parametrize(
    ("name", "file", "text", "message"),
    [
        ("ave", "ave/Annotations.txt", "Bark&short&good&0&10\n", "line 1: 'Bark&short"),
        ("kinetics-sounds", "kinetics-sounds/my_test.txt", f"{video(1)}_2,10,31\n", "a class below 31"),
        ("audioset-animals", "audioset/ontology.json", "[]", "holds no list of classes"),
        ("audioset-instruments", "audioset/audioset_filter_ots.csv", "string\nGuitarre\n", "no class 'Guitarre'"),
        ("audioset-instruments", "audioset/audioset_filter_ots.csv", "name\nGuitar\n", "no column 'string'"),
    ],
)
def test_a_damaged_list_is_named_and_nothing_is_written(metadata, capsys, name, file, text, message):
    (metadata / file).write_text(text)
    with pytest.raises(SystemExit, match=f"subsets: .*{message}"):
        written(name, metadata, capsys)
    assert not (metadata / "out").exists()


def test_missing_lists_are_named(tmp_path):
    with pytest.raises(EarshotError, match="holds neither vggsound.csv nor test.csv"):
        SUBSETS["vggsound"](tmp_path)
    with pytest.raises(EarshotError, match="cannot be read"):
        SUBSETS["kinetics-sounds"](tmp_path)


def test_the_papers_have_this_many_classes():
    assert len(set(KIM_INSTRUMENTS)) == 50
    assert len(set(KINETICS_SOUNDS)) == 31 and list(KINETICS_SOUNDS) == sorted(KINETICS_SOUNDS)


# Clips, videos and classes of the lists in EARSHOT_REAL_DATA, counted when this was written.
REAL = {
    "audioset-instruments": (5652, 5652, 49),  # one of the fifty never occurs alone
    "audioset-instruments-kim": (5448, 5448, 48),
    "audioset-instruments-all": (9015, 9015, 97),
    "audioset-animals": (1432, 1432, 40),
    "ave": (4097, 4097, 28),
    "kinetics-sounds": (17396, 17396, 31),
    "vggsound": (15446, 14851, 309),
}


@pytest.mark.parametrize("name", REAL)
def test_the_published_lists_give_as_many_clips_as_they_did(real_data, name):
    rows = SUBSETS[name](real_data / "metadata")
    names = {annotation for row in rows for annotation in row.annotations}
    assert (len(rows), len({row.video for row in rows}), len(names)) == REAL[name]
    if name.startswith("audioset") or name == "ave":
        ontology = read_ontology(real_data / "metadata" / "audioset" / "ontology.json")
        assert all(ontology.find(annotation) for annotation in names)
    assert all(row.annotations for row in rows)


def test_every_class_of_kim_is_one_of_the_110(real_data):
    listed = (real_data / "metadata" / "audioset" / "audioset_filter_ots.csv").read_text()
    assert all(name in listed for name in KIM_INSTRUMENTS)
