"""Attacks by number, beside those on media in `bad_media`: tars, sidecars, lists, tables and benchmark trees.

`mutated` changes any bytes; the others know a format, so that more than its first check is reached. Everything is the
same for the same number.
"""

import base64
import copy
import io
import json
import os
import tarfile
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
from bad_media import DAMAGES, EDGES

TEXTS = (
    "", "\0", "\x1b[2J\x1b]0;owned\x07", "a\nforged line", "=cmd()", "@SUM(A1)", "../../../../tmp/pwned", "/tmp/pwned",
    "a" * 20_000, "NaN", "-1", "1e999", "99999999999999999999", "\ud800", "http://127.0.0.1:99999/", "file:///etc/passwd",
    "$(touch pwned)", "'; drop table hosts; --", "{{7*7}}", "<script>alert(1)</script>", "\u202egnp.exe", "%n%s%n",
    "CON",
)  # fmt: skip
VALUES = (None, True, -1, 0, 1e308, 10**30, [], {}, [[]], [None], {"": {}}, *TEXTS)


def mutated(number: int, content: bytes) -> bytes:
    """The bytes with one to three damages: cut, flipped, overwritten, shuffled, edge numbers, noise."""
    chance = np.random.default_rng(number)
    for _ in range(int(chance.integers(1, 4))):
        damage = [*DAMAGES][int(chance.integers(len(DAMAGES)))]
        if len(content) < 16 or damage == "without its beginning" and chance.random() < 0.8:
            break
        content = DAMAGES[damage](chance, content, {"": content})
    return content


def mutated_text(number: int, text: str) -> bytes:
    """A text with lines repeated, dropped, swapped or joined, and fields exchanged for hostile ones."""
    chance = np.random.default_rng(number)
    lines = text.split("\n")
    for _ in range(int(chance.integers(1, 5))):
        place, kind = int(chance.integers(len(lines))), int(chance.integers(6))
        if kind == 0:
            lines[place] = lines[place] * int(chance.choice([2, 3, 2000]))
        elif kind == 1:
            lines.insert(place, lines[int(chance.integers(len(lines)))])
        elif kind == 2 and len(lines) > 1:
            del lines[place]
        else:
            separator = next((sign for sign in ",;\t " if sign in lines[place]), ",")
            fields = lines[place].split(separator)
            fields[int(chance.integers(len(fields)))] = TEXTS[int(chance.integers(len(TEXTS)))]
            lines[place] = separator.join(fields)
    encodings = ("utf-8", "utf-8", "utf-8", "utf-16", "utf-8-sig", "latin-1")
    data = "\n".join(lines).encode(encodings[int(chance.integers(len(encodings)))], "replace")
    return mutated(number, data) if chance.random() < 0.2 else data


def mutated_json(number: int, values: object) -> bytes:
    """JSON with a value or a key exchanged, or its text damaged."""
    chance = np.random.default_rng(number)
    values = json.loads(json.dumps(values))
    for _ in range(int(chance.integers(1, 4))):
        place, key = _anywhere(chance, values)
        value = copy.deepcopy(VALUES[int(chance.integers(len(VALUES)))])
        if isinstance(place, dict) and chance.random() < 0.3:
            place[TEXTS[int(chance.integers(len(TEXTS)))]] = value
        elif place is not None:
            place[key] = value
    text = json.dumps(values, ensure_ascii=bool(chance.random() < 0.8))
    extremes = {
        0: lambda: "[" * 100_000 + "]" * 100_000,
        1: lambda: text.replace(":", ":" + "{" * 3000),
        2: lambda: text.replace("1", "1" * 5000),
        3: lambda: text + text,
        4: lambda: '{"a": ' * 50_000,
    }
    text = extremes.get(int(chance.integers(25)), lambda: text)()
    data = text.encode("utf-8", "surrogatepass")
    return mutated(number, data) if chance.random() < 0.3 else data


def _anywhere(chance: np.random.Generator, values: object) -> tuple[object, object]:
    """A container within some values, and one of its keys."""
    places, waiting = [], [values]
    while waiting:
        inner = waiting.pop()
        keys = list(inner) if isinstance(inner, dict) else range(len(inner)) if isinstance(inner, list) else ()
        places += [(inner, key) for key in keys]
        waiting += [inner[key] for key in keys]
    return places[int(chance.integers(len(places)))] if places else (None, None)


# Tars.

KINDS = b"0\x001234567LKSxgVMNADX"
NAMES = ("x.mp4", "x.json", "../x.mp4", "/tmp/pwned.mp4", "x/../../y.mp4", "x.mp4/", "", ".", "..", "x" * 99,
         "\x1b[2J.mp4", "x\n.mp4", "=x.mp4", "x.txt", "x.cls", "PaxHeaders/x", "././@LongLink", "x.tar",
         "x.mp4.json")  # fmt: skip
RECORDS = ("path", "linkpath", "size", "mtime", "uid", "GNU.sparse.major", "GNU.sparse.minor", "GNU.sparse.map",
           "GNU.sparse.size", "GNU.sparse.realsize", "GNU.sparse.name", "GNU.sparse.numblocks", "hdrcharset", "comment",
           "SCHILY.xattr.user")  # fmt: skip


def hostile_tar(number: int, first: str, clip: bytes) -> bytes:
    """A tar whose first member is an intact clip, and whose others have fields that no library writes."""
    chance = np.random.default_rng(number)
    data = _member(first, clip)
    for _ in range(int(chance.integers(1, 12))):
        kind = KINDS[int(chance.integers(len(KINDS)))]
        name = NAMES[int(chance.integers(len(NAMES)))].encode()[:100]
        content = chance.bytes(int(chance.integers(700)))
        if kind in b"xgX":
            content = b"".join(_record(chance) for _ in range(int(chance.integers(1, 6))))
        if chance.random() < 0.2:
            content = mutated_json(int(chance.integers(10**6)), {"group": "a", "annotations": ["b"]})[:5000]
        data += _header(chance, name, kind, len(content)) + content + b"\0" * (-len(content) % 512)
    data += b"\0" * int(chance.choice([0, 512, 1024, 10240]))
    return data if chance.random() < 0.7 else data[: max(1024 + len(clip), int(chance.integers(len(data))))]


def _member(name: str, content: bytes) -> bytes:
    info = tarfile.TarInfo(name)
    info.size = len(content)
    return info.tobuf() + content + b"\0" * (-len(content) % 512)


def _record(chance: np.random.Generator) -> bytes:
    key = RECORDS[int(chance.integers(len(RECORDS)))]
    value = [*TEXTS, "0,1,5,9", "-5", "1,2,3"][int(chance.integers(len(TEXTS) + 3))][:3000]
    record = f" {key}={value}\n".encode("utf-8", "replace")
    length = len(record) + len(str(len(record) + 3))
    stated = length if chance.random() < 0.8 else int(EDGES[int(chance.integers(len(EDGES)))])
    return str(stated).encode() + record


def _header(chance: np.random.Generator, name: bytes, kind: int, size: int) -> bytes:
    """A header with a right checksum; some of its fields are edges of their range."""
    block = bytearray(tarfile.TarInfo("x").tobuf())
    block[:100] = name.ljust(100, b"\0")
    block[124:136] = b"%011o\0" % size
    block[156] = kind
    if kind in b"12":
        block[157:257] = NAMES[int(chance.integers(len(NAMES)))].encode()[:100].ljust(100, b"\0")
    if chance.random() < 0.3:
        edge = EDGES[int(chance.integers(len(EDGES)))] * int(chance.choice([1, -1]))
        field = int(chance.choice([100, 108, 116, 136, 329, 337]))
        block[field : field + 8] = (edge & (2**63 - 1) | 1 << 63).to_bytes(8, "big")
    if chance.random() < 0.2:
        edge = EDGES[int(chance.integers(len(EDGES)))] * int(chance.choice([1, 512, 1 << 40, -1]))
        block[124:136] = (edge % 2**96 | 1 << 95).to_bytes(12, "big")
    if chance.random() < 0.2:
        block[int(chance.integers(512))] ^= 1 << int(chance.integers(8))
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block)


# Benchmark trees.


def spoil(number: int, dataset: Path, elsewhere: Path) -> str:
    """Damage one file of a benchmark's dataset, or put something else in its place; what was done.

    `elsewhere` is a file outside that nothing may read as a part of the dataset's.
    """
    chance = np.random.default_rng(number)
    files = sorted(file for file in dataset.rglob("*") if file.is_file())
    lists = [file for file in files if file.suffix in (".txt", ".csv", ".xml", ".json", ".mat")]
    selected = lists if lists and chance.random() < 0.5 else files
    file = selected[int(chance.integers(len(selected)))]
    content = file.read_bytes()
    file.unlink()
    ways: Mapping[str, Callable[[], object]] = {
        "a pipe": lambda: os.mkfifo(file),
        "a folder": file.mkdir,
        "a link to itself": lambda: file.symlink_to(file.name),
        "a link to nowhere": lambda: file.symlink_to("nowhere"),
        "a link outside": lambda: file.symlink_to(elsewhere),
        "a device": lambda: file.symlink_to("/dev/zero"),
        "nothing": lambda: None,
        "empty": lambda: file.write_bytes(b""),
        "a bomb": lambda: file.write_bytes(_bomb(chance)),
        "huge": lambda: _sparse(file, content),
    }
    way = [*ways][int(chance.integers(len(ways)))]
    if chance.random() < 0.65:
        way = "damaged"
        is_text = file.suffix in (".txt", ".csv", ".xml", ".json")
        file.write_bytes(mutated_text(number, content.decode()) if is_text else mutated(number, content))
    else:
        ways[way]()
    return f"{file.name}: {way}"


def _sparse(file: Path, content: bytes) -> None:
    file.write_bytes(content)
    with file.open("r+b") as grown:
        grown.truncate(6 << 30)


def _bomb(chance: np.random.Generator) -> bytes:
    """A small file that claims to be, or unpacks to, a large one."""
    import soundfile
    from test_bombs import ALIASES, EPS, large_jpeg, png, wav

    flac = io.BytesIO()
    soundfile.write(flac, np.zeros(8000 * 700, np.int16), 8000, format="FLAC", subtype="PCM_16")
    kinds: tuple[Callable[[], bytes], ...] = (
        lambda: png(20_000, 20_000),
        lambda: large_jpeg(30_000),
        lambda: EPS,
        lambda: wav(60_000, 1) + bytes(120_000),
        lambda: wav(2**31 - 1, 48_000, 255),
        flac.getvalue,
        ALIASES.encode,
        lambda: (
            b"<?xml version='1.0'?><!DOCTYPE a [<!ENTITY b 'bbbb'><!ENTITY c '&b;&b;&b;'>]><annotation>&c;</annotation>"
        ),
        lambda: b"<a>" * 300_000,
        lambda: b"MATLAB 5.0 MAT-file".ljust(124) + b"\0\x01IM" + chance.bytes(500),
        lambda: base64.b64decode("UEsDBAoAAAAAAA==") + bytes(200),
    )
    return kinds[int(chance.integers(len(kinds)))]()
