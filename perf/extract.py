"""The cost of the stage extract relative to decoding alone, and its memory for more clips.

    EARSHOT_REAL_DATA=/path/to/material python -m perf.extract
    python -m perf.extract --assert          # exits with 1 if a bound does not hold
    python -m perf.extract --codec vp9       # on the first twelve clips, encoded in this codec before

Takes three minutes. Reads the folder clips under the one that EARSHOT_REAL_DATA names. Other work on the machine slows
what is measured on the clock, so everything is also measured in time of the processors, of the stage and its decoding
process together; what is compared runs in turns.

- cost: extraction of ten frames of 256 px (as in the papers) and all the sound, from listing to finished shard, over
  decoding every frame and all the sound with the same library and one thread, converting nothing
- needed: the same with extract.decode=needed, and for three frames
- memory: the largest resident size for n and for 4 n clips in one shard
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
from functools import partial
from pathlib import Path

import av
from imageio_ffmpeg import get_ffmpeg_exe

from earshot.core.params import load_params
from earshot.media.clips import MediaFile, write_listing
from earshot.media.folders import clips_in_folder
from earshot.params.extract import Extract, ExtractParams
from earshot.scenes.extraction import Extraction, Tables, extract_shard
from perf.rounds import Ratio, Rounds, Speed, end, in_turns, parser_of, print_speeds, report, timed

ROUNDS = 4
CLIPS, TIMES = 120, 4  # more than a row group holds, so that growth would be that of the shard
GROWTH = 1.1
PARAMS = Path(__file__).parent.parent / "params.yaml"
PAPERS, NEEDED = ("extract.frames=10", "extract.frame_size=256"), ("extract.decode=needed",)
DECODING = "decoding alone"
# Options of FFmpeg's encoders, with groups of images as long as the real clips have or longer.
CODECS = {
    "hevc": ("-c:v", "libx265", "-preset", "veryfast", "-x265-params", "log-level=none"),
    "mpeg4": ("-c:v", "mpeg4", "-q:v", "5", "-bf", "2", "-g", "48"),
    "vp9": ("-c:v", "libvpx-vp9", "-deadline", "realtime", "-cpu-used", "8", "-g", "128"),
    "av1": ("-c:v", "libaom-av1", "-usage", "realtime", "-cpu-used", "8", "-g", "128"),
}
ENCODED = 12  # clips
# What is compared with decoding alone: its overrides, and the most that it may cost.
COSTS = {
    "every image, 10 frames": (PAPERS, 1.25),
    "needed images, 10 frames": ((*PAPERS, *NEEDED), 1.0),
    "needed images, 3 frames": ((*PAPERS, "extract.frames=3", *NEEDED), 0.85),
}


def real_clips() -> list[MediaFile]:
    """The clips of EARSHOT_REAL_DATA; exits if it is not set."""
    material = os.environ.get("EARSHOT_REAL_DATA")
    if not material:
        sys.exit("EARSHOT_REAL_DATA is not set: set it to the folder of real material that contains clips/")
    return list(clips_in_folder(Path(material).resolve() / "clips"))


def encode(clips: list[MediaFile], codec: str, folder: Path) -> list[MediaFile]:
    """The first clips, encoded anew in a codec; their sound is copied."""
    for clip in clips[:ENCODED]:
        file = folder / Path(clip.path).with_suffix(".mkv").name
        command = [get_ffmpeg_exe(), "-v", "error", "-i", clip.path, *CODECS[codec], "-c:a", "copy", file]
        subprocess.run(command, check=True, stdin=subprocess.DEVNULL)
    return list(clips_in_folder(folder))


def list_shards(clips: list[MediaFile], shards: int, folder: Path) -> None:
    """Write the listing of each shard; every shard gets clips of all kinds."""
    for number in range(shards):
        write_listing(extraction(folder).listing(number), clips[number::shards])


def decode_only(clips: list[MediaFile]) -> None:
    """Decode every frame and all the sound on one thread and discard them."""
    for clip in clips:
        with av.open(str(clip.path)) as container:
            for stream in container.streams:
                stream.codec_context.thread_count = 1
            for _ in container.decode(container.streams.video[0], container.streams.audio[0]):
                pass


def extract(number: int, folder: Path, overrides: tuple[str, ...]) -> dict[str, int]:
    """Extract a listed shard; return its counts."""
    params = load_params(ExtractParams, PARAMS, overrides).extract
    return extract_shard(extraction(folder, params), number)


def extraction(folder: Path, params: Extract | None = None) -> Extraction:
    """The extraction in a folder."""
    return Extraction(folder, Tables(folder / "scenes", folder / "annotations"), params, seed=0)


def measure_cost(clips: list[MediaFile], folder: Path) -> dict[str, list[Speed]]:
    """Clips a second of each kind of extraction and of decoding alone; all clips are one shard."""
    list_shards(clips, 1, folder)
    kinds = {DECODING: partial(decode_only, clips)} | {
        name: partial(extract, 0, folder, overrides) for name, (overrides, _) in COSTS.items()
    }
    return in_turns({name: partial(timed, work, len(clips)) for name, work in kinds.items()}, ROUNDS, warm_up=0)


def measure_memory(clips: list[MediaFile], folder: Path) -> list[float]:
    """Megabytes at the peak, of the stage and of its decoding process, for `CLIPS` and `TIMES` as many small clips."""
    small = sorted(clips, key=lambda clip: clip.size)[:20]
    peaks = []
    for count in (CLIPS, CLIPS * TIMES):
        list_shards([small[i % len(small)] for i in range(count)], 1, folder)
        command = [sys.executable, "-m", "perf.extract", "--peak", str(folder)]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
        peaks.append(json.loads(done.stdout))
    return peaks


def peak(folder: Path) -> float:
    """Extract the listed shard and return the peak memory of this process and its child, in megabytes."""
    extract(0, folder, ())
    largest = (resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(largest) / 1024


def ratios(speeds: dict[str, Rounds]) -> list[Ratio]:
    """What extraction costs, in times of what decoding alone costs, beside the bounds."""
    decoding = speeds[DECODING]
    return [Ratio.of(name, decoding, speeds[name], by="processor", most=most) for name, (_, most) in COSTS.items()]


def growth(peaks: list[float]) -> list[str]:
    """Print the memory; return a phrase if it grows."""
    print(f"peak memory, MB, for {CLIPS} and {CLIPS * TIMES} clips: {peaks[0]:.0f} and {peaks[1]:.0f}")
    times = peaks[1] / peaks[0]
    return [f"memory grows {times:.2f} times, expected at most {GROWTH}"] if times > GROWTH else []


def main(arguments: list[str] | None = None) -> None:
    """Measure everything and print it; with --assert, fail if a bound does not hold."""
    parser = parser_of(__doc__)
    parser.add_argument("--codec", choices=CODECS, help="of the first clips, encoded anew before; leaves out memory")
    parser.add_argument("--peak", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.peak:
        print(json.dumps(peak(options.peak)))
        return
    clips, grown = real_clips(), []
    with tempfile.TemporaryDirectory() as folder, tempfile.TemporaryDirectory() as media:
        if options.codec:
            clips = encode(clips, options.codec, Path(media))
        speeds = measure_cost(clips, Path(folder))
    if not options.codec:
        with tempfile.TemporaryDirectory() as folder:
            grown = growth(measure_memory(clips, Path(folder)))
    print_speeds("clips a second", speeds)
    print("cost, in times of decoding alone:")
    end(options, report(ratios(speeds)) + grown)


if __name__ == "__main__":
    main()
