"""Which packets of a video a decoder needs for some of its frames, where the video is H.264 or HEVC.

Two kinds of frames are left out: those to which no other frame refers, and in each group of images all that come after
the last needed one. A group ends where an image is stored on its own that no later frame looks behind (IDR); other key
frames may be referred across, and end none.

The plan rests on the packets' times alone. Whoever follows it must compare the times of the frames that come with
`appears`, and decode everything if one differs or the decoder complains.
"""

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import av
from av.bitstream import BitStreamFilterContext

# The filter of FFmpeg that passes only the units of an IDR image (H.264, table 7-1; HEVC, table 7-1).
IDR = {"h264": "filter_units=pass_types=5", "hevc": "filter_units=pass_types=19-20"}


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

    None if everything must be decoded: for another codec, and where the packets do not give each frame its own time.
    """
    codec, tick = video.codec_context.name, video.time_base
    stamps = [packet.pts for packet in packets if packet.pts is not None]
    if codec not in IDR or tick is None or not times or len(set(stamps)) < len(packets):
        return None
    ticks = sorted(packet.pts for packet in packets if packet.pts is not None and not packet.is_discard)
    seconds = [stamp * tick.numerator / tick.denominator for stamp in ticks]
    displayed = [max(bisect_right(seconds, time) - 1, 0) for time in times]
    needed = frozenset(ticks[index] for index in displayed)
    starts = [0, *(index for index in range(1, len(packets)) if _is_idr(video, packets[index])), len(packets)]
    groups = [packets[start:end] for start, end in pairwise(starts)]
    kept = [packet for group in groups for packet in _up_to_last(group, needed)]
    return DecodePlan(kept, needed, [seconds[index] for index in displayed])


def _up_to_last(group: Sequence[av.Packet], needed: frozenset[int]) -> Sequence[av.Packet]:
    """The packets of a group in the order of decoding, up to the last needed one."""
    last = max((index for index, packet in enumerate(group) if packet.pts in needed), default=-1)
    return group[: last + 1]


def _is_idr(video: av.VideoStream, packet: av.Packet) -> bool:
    """Whether a packet begins a group to whose frames nothing before it matters."""
    if not packet.is_keyframe:
        return False
    copy = av.Packet(bytes(packet))  # the filter takes what it is given
    return bool(BitStreamFilterContext(IDR[video.codec_context.name], video).filter(copy))
