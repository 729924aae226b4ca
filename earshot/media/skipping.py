"""Which packets of a video a decoder needs for some of its frames.

Two kinds of frames are left out: those to which no other frame refers, and in each group of images all that come after
the last needed one. A group ends where an image is stored on its own that no later frame looks behind; other key frames
may be referred across, and end none. What a packet begins with says so, not the container, which may be wrong.

The plan rests on the packets' times alone. Whoever follows it must compare the times of the frames that come with
`appears`, and decode everything if one differs or the decoder complains.
"""

from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import accumulate, pairwise

import av
from av.bitstream import BitStreamFilterContext


@dataclass(frozen=True)
class DecodePlan:
    """What to decode: the packets in order, which of them hold needed frames, and when each requested frame appears.

    Args:
        packets: to decode.
        needed: presentation times in ticks. A packet without one of them may be left out by the decoder if no other
            frame refers to it.
        appears: of the frame that is displayed at each requested time, in seconds.
    """

    packets: Sequence[av.Packet]
    needed: frozenset[int]
    appears: Sequence[float]

    def decoded_by(self, decoder: av.VideoCodecContext) -> Iterator[av.Packet]:
        """The packets; before each one, the decoder is told whether it may leave it out."""
        for packet in self.packets:
            decoder.skip_frame = "DEFAULT" if packet.pts in self.needed else "NONREF"
            yield packet
        decoder.skip_frame = "DEFAULT"


def plan(video: av.VideoStream, packets: Sequence[av.Packet], times: Sequence[float]) -> DecodePlan | None:
    """What to decode of a video for the frames that are displayed at `times`, in seconds, ascending.

    None if everything must be decoded: for a codec that is not here, and where the packets do not give each frame its
    own time.
    """
    codec, tick = video.codec_context.codec.canonical_name, video.time_base
    stamps = [packet.pts for packet in packets if packet.pts is not None]
    if codec not in STARTS or tick is None or not times or len(set(stamps)) < len(packets):
        return None
    ticks = sorted(packet.pts for packet in packets if packet.pts is not None and not packet.is_discard)
    seconds = [stamp * tick.numerator / tick.denominator for stamp in ticks]
    displayed = [max(bisect_right(seconds, time) - 1, 0) for time in times]
    needed = frozenset(ticks[index] for index in displayed)
    starts = [0, *_group_starts(packets, partial(STARTS[codec], video)), len(packets)]
    groups = [packets[start:end] for start, end in pairwise(starts)]
    kept = [packet for group in groups for packet in _up_to_last(group, needed)]
    return DecodePlan(kept, needed, [seconds[index] for index in displayed])


def _up_to_last(group: Sequence[av.Packet], needed: frozenset[int]) -> Sequence[av.Packet]:
    """The packets of a group in the order of decoding, up to the last needed one."""
    last = max((index for index, packet in enumerate(group) if packet.pts in needed), default=-1)
    return group[: last + 1]


def _group_starts(packets: Sequence[av.Packet], is_start: Callable[[av.Packet], bool]) -> Iterator[int]:
    """The indices after the first one of packets that begin a group: all later ones are displayed later."""
    stamps = [packet.pts or 0 for packet in packets]
    earliest = [*accumulate(reversed(stamps), min)][::-1]  # of each packet and those after it
    for index in range(1, len(packets)):
        if packets[index].is_keyframe and earliest[index] == stamps[index] and is_start(packets[index]):
            yield index


def _is_idr(pass_types: str, video: av.VideoStream, packet: av.Packet) -> bool:
    """Whether a packet of H.264 or HEVC has a unit of these types: instantaneous decoding refresh (IDR)."""
    copy = av.Packet(bytes(packet))  # the filter takes what it is given
    return bool(BitStreamFilterContext(f"filter_units=pass_types={pass_types}", video).filter(copy))


def _is_vp9_key(video: av.VideoStream, packet: av.Packet) -> bool:
    """Whether a packet begins with a key frame, which resets all that VP9 refers to.

    After the marker 10 and the two bits of the profile, and a reserved one in profile 3, a bit is set for a frame that
    is only shown again, and the next one for a frame that is no key frame (VP9 specification, section 6.2).
    """
    bits = f"{int.from_bytes(bytes(packet)[:1]):08b}"
    return bits[:2] == "10" and bits[5 if bits[2:4] == "11" else 4 :][:2] == "00"


def _is_av1_key(video: av.VideoStream, packet: av.Packet) -> bool:
    """Whether the first frame of a packet is a shown key frame, which resets all that AV1 refers to.

    Of a frame's header, the first bit is set for a frame that is only shown again, two bits are 0 for a key frame, and
    the fourth is set for a frame that is shown (AV1 specification, sections 5.3 to 5.9.2).
    """
    data, place = bytes(packet), 0
    while place < len(data):
        kind, extended, sized = data[place] >> 3 & 15, data[place] >> 2 & 1, data[place] >> 1 & 1
        place += 1 + extended
        if not sized:
            return False
        size, shift = 0, 0
        while place < len(data):  # a number in groups of seven bits, lowest first
            size |= (data[place] & 127) << shift
            shift, place = shift + 7, place + 1
            if data[place - 1] < 128:
                break
        if kind in (3, 6):  # a frame's header, alone or with the frame
            return place < len(data) and data[place] >> 4 == 0b0001
        place += size
    return False


def _is_intra(start_code: bytes, bits: slice, intra: str, video: av.VideoStream, packet: av.Packet) -> bool:
    """Whether the first image of a packet of MPEG-2 or MPEG-4 is of the type `intra`, in these bits after its code.

    Images refer to the last image that is no B image and, if they are B images, to the next one.
    """
    _, code, header = bytes(packet).partition(b"\x00\x00\x01" + start_code)
    return bool(code) and "".join(f"{byte:08b}" for byte in header[:2])[bits] == intra


# For each codec, whether a packet begins with an image to whose later ones nothing before it matters. Types of units:
# H.264, table 7-1; HEVC, table 7-1. Types of images: MPEG-2 (H.262), table 6-12; MPEG-4 part 2, table 6-20.
STARTS: dict[str, Callable[[av.VideoStream, av.Packet], bool]] = {
    "h264": partial(_is_idr, "5"),
    "hevc": partial(_is_idr, "19-20"),
    "vp9": _is_vp9_key,
    "av1": _is_av1_key,
    "mpeg2video": partial(_is_intra, b"\x00", slice(10, 13), "001"),
    "mpeg4": partial(_is_intra, b"\xb6", slice(0, 2), "00"),
}
