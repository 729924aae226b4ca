"""Bad inputs by number: media that is cut off, bit-flipped, spliced or bloated, files that point elsewhere, odd names.

`bad_input(number, ...)` is the same for the same number, so that a harmful input can be reproduced.
"""

import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from odd_media import MP4, PATTERN, TONE, render

SHORT = {"image": PATTERN.replace("d=5", "d=2"), "sound": TONE.replace("d=5", "d=2")}
# One file of every common container, small enough for thousands of copies.
SEEDS = {
    "mp4": (*MP4, "-movflags", "+faststart"),
    "mov": MP4,
    "frag.mp4": (*MP4, "-movflags", "+frag_keyframe+empty_moov", "-g", "10"),
    "mkv": ("-c:v", "mjpeg", "-c:a", "flac"),
    "webm": ("-c:v", "libvpx", "-deadline", "realtime", "-c:a", "libvorbis"),
    "avi": ("-c:v", "mpeg4", "-c:a", "mp3"),
    "flv": ("-c:v", "flv1", "-c:a", "mp3"),
    "ts": ("-c:v", "mpeg2video", "-c:a", "mp2"),
    "mpg": ("-c:v", "mpeg1video", "-c:a", "mp2"),
    "ogv": ("-c:v", "libtheora", "-c:a", "libvorbis"),
    "wmv": ("-c:v", "wmv2", "-c:a", "wmav2"),
    "nut": ("-c:v", "ffv1", "-c:a", "pcm_s16le"),
}
# Numbers at which arithmetic on sizes, counts and times may fail.
EDGES = (0, 1, 0x7F, 0xFF, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFE, 0xFFFFFFFF)
HEADER = 4096  # bytes at either end, where most containers keep their metadata
# Names of files in one folder: all characters but / and \0 are allowed.
NAMES = (
    "-i {n}.mp4", "-y{n}", "$(touch pwned){n}.mp4", "`touch pwned`{n}.mp4", "; touch pwned #{n}.mp4",
    "|touch pwned{n}.mp4", "'{n}'.mp4", '"{n}".mp4', "new\nline{n}.mp4", "tab\t{n}.mp4", "nul%00{n}.mp4", "%05d{n}.mp4",
    "%s%n{n}.mp4", "{{{n}}}.mp4", "*{n}?.mp4", "[{n}].mp4", "file:{n}.mp4", "concat:a|b{n}.mp4", "http:{n}.mp4",
    "subfile,,start,0,end,9,,:{n}.mp4", "data:video{n}", "pipe:0{n}", "\u202egnp.{n}.mp4", "\u0301{n}.mp4", " {n} .mp4",
    "{n}" + "n" * 240, "CON{n}.mp4", "~{n}.mp4", "\udcff{n}.mp4", "a\\..\\b{n}.mp4", "=cmd(){n}.mp4", "{n},a;b.mp4",
)  # fmt: skip


@dataclass(frozen=True)
class BadInput:
    """A file for a corpus: its name in a folder, its bytes, and what is wrong with it."""

    name: str
    content: bytes
    fault: str


def seed_files(folder: Path) -> dict[str, bytes]:
    """An intact file of each container, rendered into `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    return {
        suffix: render(folder / f"seed.{suffix}", *options, **SHORT).read_bytes() for suffix, options in SEEDS.items()
    }


def bad_input(number: int, seeds: dict[str, bytes], elsewhere: Sequence[str]) -> BadInput:
    """The bad input of that number.

    Args:
        seeds: as `seed_files` returns them.
        elsewhere: paths and addresses for files that point elsewhere.
    """
    chance = np.random.default_rng(number)
    faults = [*DAMAGES, "pointing", "bomb", "name", "pointing"]
    fault = faults[number % len(faults)]
    suffix = [*seeds][int(chance.integers(len(seeds)))]
    name = f"{number:05d}.{suffix}"
    if fault == "pointing":
        suffix, content = pointing(chance, elsewhere[int(chance.integers(len(elsewhere)))], seeds["mp4"])
        return BadInput(f"{number:05d}.{suffix}", content, f"{fault}: {suffix}")
    if fault == "bomb":
        suffix, content = bomb(chance, seeds)
        return BadInput(f"{number:05d}.{suffix}", content, f"{fault}: {suffix}")
    if fault == "name":
        odd = NAMES[int(chance.integers(len(NAMES)))].format(n=number)
        return BadInput(odd, seeds["mp4"], f"{fault}: {odd!r}")
    return BadInput(name, DAMAGES[fault](chance, seeds[suffix], seeds), f"{fault}: {suffix}")


# Damage.


def boundaries(content: bytes) -> list[int]:
    """The offsets of parts of a file: MP4's boxes at any depth, or any word that containers use."""
    words = (b"moov", b"trak", b"mdia", b"minf", b"stbl", b"stts", b"stsz", b"stco", b"stsc", b"avcC", b"esds", b"mdat")
    words += (b"moof", b"traf", b"trun", b"\x1a\x45\xdf\xa3", b"\x1f\x43\xb6\x75", b"LIST", b"idx1", b"movi", b"OggS")
    offsets = [content.find(word) for word in words]
    return sorted(offset for offset in offsets if offset >= 0) or [len(content) // 2]


def cut_anywhere(chance: np.random.Generator, content: bytes, _: dict) -> bytes:
    """The beginning of a file."""
    return content[: int(chance.integers(len(content)))]


def cut_at_a_boundary(chance: np.random.Generator, content: bytes, _: dict) -> bytes:
    """The beginning of a file, up to a few bytes around the beginning of a part."""
    places = boundaries(content)
    return content[: max(places[int(chance.integers(len(places)))] + int(chance.integers(-9, 10)), 0)]


def cut_at_the_end(chance: np.random.Generator, content: bytes, _: dict) -> bytes:
    """A file that lacks its last few bytes."""
    return content[: -int(chance.integers(1, 64))]


def without_its_beginning(chance: np.random.Generator, content: bytes, _: dict) -> bytes:
    """The end of a file."""
    return content[int(chance.integers(1, len(content))) :]


def flipped_bits(chance: np.random.Generator, content: bytes, _: dict) -> bytes:
    """One to a thousand flipped bits, anywhere or in the header."""
    damaged = bytearray(content)
    reach = len(damaged) if chance.random() < 0.5 else min(HEADER, len(damaged))
    for place in chance.integers(reach, size=int(10 ** chance.uniform(0, 3))):
        damaged[place] ^= 1 << int(chance.integers(8))
    return bytes(damaged)


def edge_numbers(chance: np.random.Generator, content: bytes, _: dict) -> bytes:
    """Numbers of one to four bytes at the edges of their range, beside the words of the header."""
    damaged = bytearray(content)
    places = boundaries(content)
    for _ in range(int(chance.integers(1, 9))):
        nearby = places[int(chance.integers(len(places)))] + int(chance.integers(-8, 64))
        at = nearby if chance.random() < 0.7 else int(chance.integers(min(HEADER, len(damaged) - 4)))
        at, size = min(max(at, 0), len(damaged) - 4), int(2 ** chance.integers(3))
        value = EDGES[int(chance.integers(len(EDGES)))] & (256**size - 1)
        damaged[at : at + size] = value.to_bytes(size, "big" if chance.random() < 0.8 else "little")
    return bytes(damaged)


def overwritten(chance: np.random.Generator, content: bytes, _: dict) -> bytes:
    """A stretch of zeros, ones or noise."""
    start = int(chance.integers(len(content)))
    size = min(int(10 ** chance.uniform(0, 4)), len(content) - start)
    stretch = (bytes(size), b"\xff" * size, chance.bytes(size))[int(chance.integers(3))]
    return content[:start] + stretch + content[start + size :]


def shuffled(chance: np.random.Generator, content: bytes, _: dict) -> bytes:
    """A stretch that is missing, repeated, or moved."""
    a, b, c = sorted(int(place) for place in chance.integers(len(content), size=3))
    kinds = (
        content[:a] + content[b:],
        content[:b] + content[a:],
        content[:a] + content[b:c] + content[a:b] + content[c:],
    )
    return kinds[int(chance.integers(3))]


def spliced(chance: np.random.Generator, content: bytes, seeds: dict) -> bytes:
    """The beginning of one container and the end of another."""
    other = [*seeds.values()][int(chance.integers(len(seeds)))]
    return content[: int(chance.integers(len(content)))] + other[int(chance.integers(len(other))) :]


def noise(chance: np.random.Generator, content: bytes, _: dict) -> bytes:
    """Random bytes, with the first ones of a container in half of the cases."""
    size = int(10 ** chance.uniform(0, 5))
    return (content[: int(chance.integers(4, 64))] if chance.random() < 0.5 else b"") + chance.bytes(size)


DAMAGES: dict[str, Callable[[np.random.Generator, bytes, dict], bytes]] = {
    "cut anywhere": cut_anywhere,
    "cut at a boundary": cut_at_a_boundary,
    "cut at the end": cut_at_the_end,
    "without its beginning": without_its_beginning,
    "flipped bits": flipped_bits,
    "edge numbers": edge_numbers,
    "overwritten": overwritten,
    "shuffled": shuffled,
    "spliced": spliced,
    "noise": noise,
}


# Files that point at other files or addresses.


def pointing(chance: np.random.Generator, target: str, mp4: bytes) -> tuple[str, bytes]:
    """A suffix and the bytes of a file that tries to make FFmpeg open `target`; the suffix is true or innocent."""
    hls = "#EXTM3U\n#EXT-X-TARGETDURATION:5\n{}#EXTINF:5,\n{}\n#EXT-X-ENDLIST\n"
    xml = '<?xml version="1.0"?>\n'
    mpd = (
        xml + '<MPD xmlns="urn:mpeg:dash:schema:mpd:2011" type="static" mediaPresentationDuration="PT5S">'
        '<Period><AdaptationSet mimeType="video/mp4"><Representation id="1" bandwidth="1"><BaseURL>{}</BaseURL>'
        "</Representation></AdaptationSet></Period></MPD>"
    )
    kinds = {
        "m3u8": hls.format("", target),
        "key.m3u8": hls.format(f'#EXT-X-KEY:METHOD=AES-128,URI="{target}"\n', "part.ts"),
        "map.m3u8": hls.format(f'#EXT-X-MAP:URI="{target}"\n', target),
        "nested.m3u8": f"#EXTM3U\n#EXT-X-STREAM-INF:BANDWIDTH=1\n{target}\n",
        "mpd": mpd.format(target),
        "ism": xml + f'<SmoothStreamingMedia MajorVersion="2"><StreamIndex Url="{target}"/></SmoothStreamingMedia>',
        "ffconcat": f"ffconcat version 1.0\nfile '{target}'\n",
        "concat.txt.mp4": f"ffconcat version 1.0\nfile {target}\nduration 5\n",
        "sdp": f"v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\na=control:{target}\nm=video 9 RTP/AVP 96\n",
        "asx": f'<asx version="3.0"><entry><ref href="{target}"/></entry></asx>',
        "pls": f"[playlist]\nFile1={target}\nNumberOfEntries=1\nVersion=2\n",
        "xspf": xml + f"<playlist><trackList><track><location>{target}</location></track></trackList></playlist>",
        "smil": f'<smil><body><video src="{target}"/></body></smil>',
        "ram": f"{target}\n",
        "svg": f'<svg xmlns="http://www.w3.org/2000/svg"><image href="{target}"/></svg>',
        "avs": f'DirectShowSource("{target}")\n',
        "vpy": f"import vapoursynth\nopen({target!r}).read()\n",
        "imf": xml + f'<CompositionPlaylist xmlns="http://www.smpte-ra.org/schemas/2067-3/2016"><Path>{target}</Path>',
        "edl": f"# mpv EDL v0\n{target},0,5\n",
        "cue": f'FILE "{target}" MP3\n  TRACK 01 AUDIO\n    INDEX 01 00:00:00\n',
        "lavfi.mp4": f"movie={target}",
        "rtsptext": f"RTSPtext\nrtsp://{target}\n",
        "referring.mov": referring_movie(target, mp4),
        "redirected.mov": redirected_movie(target),
    }
    suffix = [*kinds][int(chance.integers(len(kinds)))]
    content = kinds[suffix] if isinstance(kinds[suffix], bytes) else kinds[suffix].encode()
    return (suffix if chance.random() < 0.5 else suffix.replace(".", "_") + ".mp4"), content


def box(kind: bytes, content: bytes) -> bytes:
    """A box of MP4."""
    return struct.pack(">I4s", len(content) + 8, kind) + content


def referring_movie(target: str, mp4: bytes) -> bytes:
    """A movie whose samples lie in another file, by a data reference of the kinds `url ` and `alis`."""
    content = bytearray(mp4)
    place = content.find(b"url \0\0\0\1")
    while place >= 0:
        # The reference no longer says that the samples are in this file. The address overwrites what follows, so that
        # no size changes.
        content[place : place + 8] = b"url \0\0\0\0"
        content[place + 8 : place + 8 + len(target) + 1] = target.encode() + b"\0"
        place = content.find(b"url \0\0\0\1")
    return bytes(content)


def redirected_movie(target: str) -> bytes:
    """A QuickTime reference movie: only the address of another."""
    address = b"url " + struct.pack(">I", len(target) + 1) + target.encode() + b"\0"
    reference = box(b"rdrf", b"\0\0\0\0" + address)
    return box(b"ftyp", b"qt  \0\0\0\0qt  ") + box(b"moov", box(b"rmra", box(b"rmda", reference)))


# Small files that claim to be large.


def bomb(chance: np.random.Generator, seeds: dict[str, bytes]) -> tuple[str, bytes]:
    """A suffix and the bytes of a small file that claims to be large: pixels, samples, channels, entries or time."""
    mp4 = bytearray(seeds["mp4"])
    size = int(chance.choice([4096, 16384, 32767, 65535]))
    kinds: dict[str, Callable[[], bytes]] = {
        "wide.mp4": lambda: _after(mp4, b"avc1", 24, struct.pack(">HH", size, size)),
        "track.mp4": lambda: _after(mp4, b"tkhd", 76, struct.pack(">II", size << 16, size << 16)),
        "long.mp4": lambda: _after(mp4, b"mvhd", 16, struct.pack(">II", 1, 0xFFFFFFF0)),
        "slow.mp4": lambda: _after(mp4, b"stts", 8, struct.pack(">III", 1, 50, 0x7FFFFFFF)),
        "many.mp4": lambda: _after(mp4, b"stts", 8, struct.pack(">III", 1, 0xFFFFFFFF, 1)),
        "sizes.mp4": lambda: _after(mp4, b"stsz", 8, struct.pack(">II", 1, 0x7FFFFFFF)),
        "channels.mp4": lambda: _after(mp4, b"mp4a", 20, struct.pack(">HH", 0xFFFF, 16)),
        "rate.mp4": lambda: _after(mp4, b"mp4a", 28, struct.pack(">I", 0xFFFFFFFF)),
        "deep.mp4": lambda: bytes(mp4[:32]) + _nested(int(chance.integers(100, 5000))),
        "png.mp4": lambda: (
            b"\x89PNG\r\n\x1a\n" + struct.pack(">I4sIIBBBBB", 13, b"IHDR", size, size, 8, 6, 0, 0, 0) + bytes(99)
        ),
        "gif": lambda: b"GIF89a" + struct.pack("<HHBBB", size, size, 0xF7, 0, 0) + bytes(768) + endless_gif(size),
        "bmp": lambda: b"BM" + struct.pack("<IHHIIiiHHIIiiII", 99, 0, 0, 54, 40, size, size, 1, 24, 0, 0, 1, 1, 0, 0),
        "wav": lambda: (
            b"RIFF\xff\xff\xff\xffWAVEfmt "
            + struct.pack("<IHHIIHH", 16, 1, 65535, 1, 1, 1, 8)
            + b"data\xff\xff\xff\xff"
        ),
        "y4m": lambda: f"YUV4MPEG2 W{size} H{size} F1:1 C444\nFRAME\n".encode() + bytes(1000),
        "ivf": lambda: b"DKIF\0\0 \0VP80" + struct.pack("<HHIIII", size, size, 1, 1, 0xFFFFFFFF, 0) + bytes(1000),
        "ts": lambda: seeds["ts"] * 40,
        "mpg": lambda: seeds["mpg"] * 40,
        "flv": lambda: seeds["flv"] + seeds["flv"][13:] * 40,
        "ogv": lambda: seeds["ogv"] * 40,
    }
    kind = [*kinds][int(chance.integers(len(kinds)))]
    return kind, kinds[kind]()


def _after(content: bytearray, word: bytes, offset: int, value: bytes) -> bytes:
    """Write `value` at `offset` bytes after the word of every box of a kind."""
    content, place = bytearray(content), content.find(word)
    while place >= 0:
        at = place + len(word) + offset
        content[at : at + len(value)] = value
        place = content.find(word, at)
    return bytes(content)


def _nested(depth: int) -> bytes:
    content = b""
    for _ in range(depth):
        content = box(b"moov", content)
    return content


def endless_gif(size: int) -> bytes:
    """Images of an endless animation, each as large as the whole."""
    repeat = b"\x21\xff\x0bNETSCAPE2.0\x03\x01\0\0\0"
    image = b"\x21\xf9\x04\0\xff\xff\0\0\x2c" + struct.pack("<HHHHB", 0, 0, size, size, 0) + b"\x08\x01\0\0"
    return repeat + image * 100 + b"\x3b"
