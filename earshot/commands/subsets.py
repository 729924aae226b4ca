"""The annotated corpora of the papers, from the lists and the ontology that their authors published, as manifests.

- `audioset-instruments`: clips of AudioSet with one of 50 of the 110 classes of audioset_filter_ots.csv, those that
  most clips of the lists at hand have (Kim 2020, section 3.2, takes 50 and names none); annotated with these classes.
- `audioset-instruments-kim`: the same with the 50 classes that Kim's published code lists.
- `audioset-instruments-all`: the same with all 110 (Arandjelovic & Zisserman 2018).
- `audioset-animals`: clips of AudioSet labeled Animal (Kim 2020, section 3.2), annotated with it or classes below.
- `ave`: the clips of AVE's Annotations.txt (Tian 2018), with 28 classes of AudioSet.
- `kinetics-sounds`: the clips of published lists, with those 31 of the 34 classes of the L3 paper (2017, appendix A)
  that later versions of Kinetics still have. They are not classes of AudioSet.
- `vggsound`: the clips of VGGSound's lists, with its classes, which are not classes of AudioSet either.

If a clip has an AudioSet label and another one below it, only the lower one is kept; otherwise two clips would seem
similar because both are music. The lists are read from the metadata folder: audioset/*_segments.csv,
audioset/ontology.json, audioset/audioset_filter_ots.csv, ave/Annotations.txt, kinetics-sounds/my_*.txt and
vggsound/vggsound.csv, or test.csv if that is missing.

The manifest is a plain table for the stage download: url (or path), start, end, group (the video) and annotations.
AVE's list does not give the start of a clip in its video; AudioSet's lists do. A clip that is in none of the available
lists must come from the archive of AVE's authors, as the path `<video>.mp4` beside the manifest.
"""

import csv
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import click

from earshot.commands import options
from earshot.commands.output import echo
from earshot.core.errors import EarshotError
from earshot.core.files import write_atomically
from earshot.corpus.ave import read_ave
from earshot.corpus.manifest import read_manifest, youtube_address
from earshot.corpus.ontology import Ontology, read_ontology
from earshot.corpus.split import SPLITS, split_of

MOST = 50  # classes of Kim's Instruments
ANIMAL = "Animal"
HEADER = ("url", "path", "start", "end", "group", "annotations")

# The classes of metadata/tags.cls in github.com/kyuyeonpooh/objects-that-sound, without Animal, which belongs to the
# other corpus.
KIM_INSTRUMENTS = (
    "Accordion", "Acoustic guitar", "Bagpipes", "Banjo", "Bass drum", "Bell", "Church bell", "Bicycle bell", "Bugle",
    "Cello", "Chant", "Child singing", "Chime", "Choir", "Clarinet", "Cowbell", "Cymbal",
    "Dental drill, dentist's drill", "Drill", "Drum", "Drum kit", "Electric guitar", "Electric piano",
    "Electronic organ", "Female singing", "Filing (rasp)", "Flute", "French horn", "Gong", "Guitar", "Hammer",
    "Harmonica", "Harp", "Jackhammer", "Keyboard (musical)", "Male singing", "Mandolin", "Marimba, xylophone",
    "Musical ensemble", "Orchestra", "Piano", "Power tool", "Sanding", "Sawing", "Saxophone", "Sitar", "Tabla",
    "Trumpet", "Tuning fork", "Wind chime",
)  # fmt: skip

# The lists number the classes in this alphabetical order; ten were verified with clips that AudioSet and VGGSound list
# too.
KINETICS_SOUNDS = (
    "blowing nose", "blowing out candles", "bowling", "chopping wood", "dribbling basketball", "laughing",
    "mowing lawn", "playing accordion", "playing bagpipes", "playing bass guitar", "playing clarinet",
    "playing drums", "playing guitar", "playing harmonica", "playing keyboard", "playing organ", "playing piano",
    "playing saxophone", "playing trombone", "playing trumpet", "playing violin", "playing xylophone",
    "ripping paper", "shoveling snow", "shuffling cards", "singing", "stomping grapes", "tap dancing",
    "tapping guitar", "tapping pen", "tickling",
)  # fmt: skip
KINETICS_LINE = re.compile(r"([\w-]{11})_(\d{1,6})(?:_(\d{6}))?,(\d+),(\d+)", re.ASCII)


@dataclass(frozen=True)
class SubsetRow:
    """A clip of a corpus: seconds `start` to `end` of a YouTube video or, if `is_file`, of `<video>.mp4`."""

    video: str
    start: float
    end: float
    annotations: tuple[str, ...]
    is_file: bool = False


def audioset_rows(metadata: Path) -> Iterator[SubsetRow]:
    """All clips of the available AudioSet lists, annotated with the ids of their labels.

    Raises EarshotError if there is no list.
    """
    lists = sorted((metadata / "audioset").glob("*_segments.csv"))
    if not lists:
        raise EarshotError(
            f"{metadata / 'audioset'}: holds no lists such as balanced_train_segments.csv; save the lists there"
        )
    for file in lists:
        for row in read_manifest(file):
            yield SubsetRow(row.group, row.start, row.end, row.annotations)


def instruments(metadata: Path, classes: Sequence[str] | None, most: int | None = None) -> list[SubsetRow]:
    """AudioSet's clips of some classes of audioset_filter_ots.csv.

    Args:
        classes: names; None for all.
        most: keep only this many classes, the most frequent.

    Raises:
        EarshotError: a list is missing, or names a class that is not in the ontology.
    """
    ontology = read_ontology(metadata / "audioset" / "ontology.json")
    listed = _column(metadata / "audioset" / "audioset_filter_ots.csv", "string")
    ids = {ontology.find(name) for name in classes or listed}
    rows = list(audioset_rows(metadata))
    if most is not None:
        counts = Counter(label for row in rows for label in set(row.annotations) & ids)
        ranked = sorted(ids, key=lambda label: (-counts[label], ontology.names[label]))
        ids = set(ranked[:most])
    return _labeled(rows, ontology, ids, lambda labels: bool(labels & ids))


def animals(metadata: Path) -> list[SubsetRow]:
    """AudioSet's clips with the label Animal."""
    ontology = read_ontology(metadata / "audioset" / "ontology.json")
    root = ontology.find(ANIMAL)
    ids = {root} | ontology.descendants(ANIMAL)
    return _labeled(audioset_rows(metadata), ontology, ids, lambda labels: root in labels)


def ave(metadata: Path) -> list[SubsetRow]:
    """The clips of AVE; a video with several classes occurs once.

    Raises EarshotError for a line that is not `class&video&quality&start&end`.
    """
    lists = sorted((metadata / "audioset").glob("*_segments.csv"))
    rows = (row for _, row in read_ave(metadata / "ave" / "Annotations.txt", lists))
    return [SubsetRow(row.group, row.start, row.end, row.annotations, row.is_local) for row in rows]


def kinetics_sounds(metadata: Path) -> list[SubsetRow]:
    """The clips of both lists of Kinetics-Sounds; their split is ignored, because groups are split by their hash.

    Raises EarshotError for a line that is neither `video_start,10,class` nor `video_start_end,10,class`.
    """
    rows = []
    for name in ("my_train.txt", "my_test.txt"):
        file = metadata / "kinetics-sounds" / name
        for number, line in enumerate(_lines(file), 1):
            match = KINETICS_LINE.fullmatch(line)
            if not match or int(match[5]) >= len(KINETICS_SOUNDS):
                expected = f"video_start,seconds,class with a class below {len(KINETICS_SOUNDS)}"
                raise EarshotError(
                    f"{file}, line {number}: {line!r:.80}, expected {expected}; restore the published list"
                )
            start = float(match[2])
            rows.append(SubsetRow(match[1], start, start + float(match[4]), (KINETICS_SOUNDS[int(match[5])],)))
    return rows


def vggsound(metadata: Path) -> list[SubsetRow]:
    """The clips of VGGSound's full list, or of its list of test files."""
    folder = metadata / "vggsound"
    file = next((folder / name for name in ("vggsound.csv", "test.csv") if (folder / name).is_file()), None)
    if file is None:
        raise EarshotError(f"{folder}: holds neither vggsound.csv nor test.csv; save one of them there")
    return [SubsetRow(row.group, row.start, row.end, row.annotations) for row in read_manifest(file)]


SUBSETS: dict[str, Callable[[Path], list[SubsetRow]]] = {
    "audioset-instruments": lambda metadata: instruments(metadata, None, MOST),
    "audioset-instruments-kim": lambda metadata: instruments(metadata, KIM_INSTRUMENTS),
    "audioset-instruments-all": lambda metadata: instruments(metadata, None),
    "audioset-animals": animals,
    "ave": ave,
    "kinetics-sounds": kinetics_sounds,
    "vggsound": vggsound,
}


def write_subset(rows: Iterable[SubsetRow], output: Path) -> None:
    """Write the manifest of a corpus."""
    with write_atomically(output) as temporary, open(temporary, "w", newline="", encoding="utf-8") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow(HEADER)
        for row in rows:
            source = ("", f"{row.video}.mp4") if row.is_file else (youtube_address(row.video), "")
            table.writerow([*source, f"{row.start:g}", f"{row.end:g}", row.video, ";".join(row.annotations)])


def summary(name: str, rows: Sequence[SubsetRow]) -> str:
    """The number of clips, videos, classes and annotations of a corpus, and the size of each split."""
    videos = {row.video for row in rows}
    classes = {annotation for row in rows for annotation in row.annotations}
    sizes = Counter(split_of(row.video) for row in rows)
    per_clip = sum(len(row.annotations) for row in rows) / max(len(rows), 1)
    counts = f"{len(rows):,} clips of {len(videos):,} videos, {len(classes)} classes, {per_clip:.2f} of them per clip"
    files = sum(row.is_file for row in rows)
    archive = f"; {files:,} of them are files of the authors' archive, whose start in the video is unknown"
    split = ", ".join(f"{sizes[split_name]:,} {split_name}" for split_name in SPLITS)
    return f"{name}: {counts}; {split}{archive if files else ''}"


@click.command()
@click.argument("name", type=click.Choice(list(SUBSETS)))
@click.option("--metadata", type=options.FOLDER, required=True, metavar="DIR", help="The published lists.")
@click.option("--output", type=options.FILE, required=True, metavar="FILE", help="The manifest to write.")
def command(name: str, metadata: Path, output: Path) -> None:
    """Write an annotated corpus of the papers as a manifest for the stage download, from the lists of their authors.

    Expects under --metadata what the corpus needs of audioset/*_segments.csv, audioset/ontology.json,
    audioset/audioset_filter_ots.csv, ave/Annotations.txt, kinetics-sounds/my_*.txt and vggsound/vggsound.csv.

    \b
    Examples:
      earshot subsets ave --metadata ../metadata --output ../ave/manifest.csv
      earshot subsets audioset-animals --metadata ../metadata --output ../animals/manifest.csv
    """
    rows = SUBSETS[name](metadata)
    if not rows:
        raise EarshotError(f"{metadata}: no clip of {name} is in the lists; add more of them")
    write_subset(rows, output)
    echo(summary(name, rows))


def _labeled(
    rows: Iterable[SubsetRow], ontology: Ontology, classes: set[str], belongs: Callable[[set[str]], bool]
) -> list[SubsetRow]:
    """The rows that belong, annotated with the names of their most specific labels among `classes`."""
    labeled = []
    for row in rows:
        labels = set(row.annotations)
        if belongs(labels):
            kept = labels & classes
            kept -= set().union(*(ontology.ancestors(label) for label in kept))
            names = tuple(sorted(ontology.names[label] for label in kept))
            labeled.append(SubsetRow(row.video, row.start, row.end, names))
    return labeled


def _column(file: Path, name: str) -> list[str]:
    """One column of a table with a header."""
    reader = csv.DictReader(_lines(file))
    values = [row.get(name) or "" for row in reader]
    if not values or not all(values):
        raise EarshotError(f"{file}: has no column {name!r} with a value in every row; restore the published file")
    return values


def _lines(file: Path) -> list[str]:
    try:
        return [line.strip() for line in file.read_text(encoding="utf-8").splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise EarshotError(f"{file}: cannot be read ({error}); add the published list") from None
