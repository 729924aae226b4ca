"""A synthetic run with all exhibits: tables as the stage explain writes them, metrics and ledgers.

Random draws depend on the seed alone. Images and sounds are real, distinct files.
"""

import csv
import io
import json
import shutil
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import av
import numpy as np
import soundfile
from conftest import PARAMS, copy_committed
from PIL import Image

from earshot.core.registry import find_all
from earshot.corpus.ledger import LedgerRow, write_ledger
from earshot.evaluation.benchmark import BENCHMARK_FILE
from earshot.explanation.tables import METADATA_FILE, write_table

CLASSES = ("bell", "bird", "car", "dog", "fire", "rain", "saw", "surf", "train", "wind")
NETWORKS = ("encoder", "wrong_sound", "random")
KINDS = find_all("earshot.exhibits", "EXHIBIT")
EXHIBITS = ("clusters", "units", "heatmaps", "localization", "embeddings", "retrieval")
RATE = 16_000


@cache
def photograph(number: int, width: int = 96, height: int = 72) -> bytes:
    """A JPEG of soft colors: one of 24, with the number appended so that no two files are equal."""
    return _photograph(number % 24, width, height) + f"#{number}".encode()


@cache
def _photograph(number: int, width: int, height: int) -> bytes:
    rng = np.random.default_rng(number)
    small = Image.fromarray(rng.integers(40, 220, (6, 8, 3), dtype=np.uint8))
    data = io.BytesIO()
    small.resize((width, height), Image.Resampling.BICUBIC).save(data, "JPEG", quality=85)
    return data.getvalue()


@cache
def graph(number: int, width: int = 150, height: int = 32) -> bytes:
    """A PNG such as a cochleagram."""
    rng = np.random.default_rng(number % 24)
    data = io.BytesIO()
    Image.fromarray(rng.integers(0, 255, (height, width), dtype=np.uint8)).save(data, "PNG")
    return data.getvalue()


@cache
def sound(number: int, seconds: float = 1.0) -> bytes:
    """An MP3 of a quiet tone."""
    times = np.arange(int(seconds * RATE)) / RATE
    data = io.BytesIO()
    soundfile.write(data, 0.05 * np.sin(2 * np.pi * (220 + 20 * (number % 40)) * times), RATE, format="MP3")
    return data.getvalue()


@cache
def video(number: int, seconds: float = 1.0) -> bytes:
    """An MP4 of a moving bar, H.264 and AAC."""
    data = io.BytesIO()
    with av.open(data, "w", format="mp4") as container:
        images, sounds = container.add_stream("h264", rate=10), container.add_stream("aac", rate=RATE)
        images.width, images.height, images.pix_fmt = 64, 48, "yuv420p"
        for step in range(int(10 * seconds)):
            frame_pixels = np.full((48, 64, 3), 60, np.uint8)
            frame_pixels[:, (6 * step + number) % 56 : (6 * step + number) % 56 + 8] = 220
            container.mux(images.encode(av.VideoFrame.from_ndarray(frame_pixels)))
        tone = 0.05 * np.sin(2 * np.pi * 330 * np.arange(int(seconds * RATE)) / RATE)
        frame = av.AudioFrame.from_ndarray(tone[None].astype(np.float32), "fltp", "mono")
        frame.sample_rate = RATE
        container.mux(sounds.encode(frame))
        container.mux(images.encode())
        container.mux(sounds.encode())
    return data.getvalue()


def empty_chart(draw: object, place: Path) -> tuple[int, int]:
    """In place of `save_chart`: an image with nothing in it; returns its size."""
    for name in (f"{place.name}.svg", f"{place.name}-dark.svg"):
        place.with_name(name).write_text('<svg xmlns="http://www.w3.org/2000/svg" width="20" height="10"></svg>')
    for kind in (".png", ".pdf"):
        place.with_suffix(kind).write_bytes(b"")
    return 20, 10


def write_csv_file(file: Path, names: list[str], rows: list[list[float]]) -> None:
    """A table of numbers."""
    lines = (",".join(f"{value:g}" for value in row) for row in rows)
    file.write_text("\n".join([",".join(names), *lines]) + "\n")


class Synthetic:
    """Writes a run below `root`.

    Args:
        annotations: the classes of clips.
        clip: the prefix of every clip's name.
    """

    def __init__(self, root: Path, seed: int = 0, annotations: tuple[str, ...] = CLASSES, clip: str = "clip") -> None:
        self.root, self.annotations, self.clip = root, annotations, clip
        self.rng = np.random.default_rng(seed)

    def write(
        self,
        *,
        clusters: int = 6,
        units: int = 24,
        points: int = 60,
        texture: bool = True,
        without: tuple[str, ...] = (),
    ) -> Path:
        """The whole run. Exhibits in `without` are skipped; centroids have charts only with `texture`."""
        self.root.mkdir(parents=True, exist_ok=True)
        shutil.copy(PARAMS, self.root / "params.yaml")
        copy_committed("metrics", self.root)
        for name in ("voc_classes", "completeness"):
            self._rename_classes(self.root / "metrics" / f"{name}.csv")
        self._ledgers()
        self._words()
        tables = {
            "clusters": {
                "clusters": self._clusters(clusters, texture),
                "cluster_moments": self._cluster_moments(clusters),
            },
            "units": {
                "units": self._units(units),
                "unit_sweep": self._sweep(units),
                "unit_classes": self._unit_classes(),
            },
            "heatmaps": {"heatmaps": self._heatmaps()},
            "localization": {"localized": self._localized(), "videos_with_sound": self._videos()},
            "embeddings": {
                "embeddings": self._embeddings(points),
                "embeddings_joint": self._embeddings_joint(points),
                "embedding_moments": self._embedding_moments(points),
            },
            "retrieval": {"retrieval_results": self._retrieval_results(), "retrieval_clips": self._retrieval_clips()},
        }
        for exhibit, parts in tables.items():
            folder = self.root / "data" / "explain" / exhibit
            folder.mkdir(parents=True, exist_ok=True)
            metadata = {"exhibit": exhibit, "encoder": "models/pretrain", "data_dir": "data/scenes"}
            metadata["title"] = KINDS[exhibit].title
            if exhibit in without:
                metadata["skipped"] = "the network has no map of where a sound comes from"
            else:
                metadata |= {"layer": "conv5", "frames": 73, "split": "test"}
                for name, rows in parts.items():
                    write_table(folder, KINDS[exhibit].tables, name, rows)
            (folder / METADATA_FILE).write_text(json.dumps(metadata))
        return self.root

    def _rename_classes(self, file: Path) -> None:
        """Give the classes of a table the names of the annotations."""
        with file.open(newline="") as lines:
            rows = list(csv.DictReader(lines))
        names = dict(zip(dict.fromkeys(row["class"] for row in rows if row["class"]), self.annotations, strict=False))
        with file.open("w", newline="") as lines:
            writer = csv.DictWriter(lines, rows[0])
            writer.writeheader()
            writer.writerows(row | {"class": names.get(row["class"], row["class"])} for row in rows)

    def moment(self, number: int) -> dict:
        """The columns of a moment."""
        return {
            "clip_id": f"{self.clip}{number:05d}",
            "moment": number % 3,
            "group": f"group{number}",
            "annotations": [self.annotations[number % len(self.annotations)]],
        }

    def _ledgers(self) -> None:
        rows = [LedgerRow(f"{self.clip}{n:05d}", f"videos/{n}.mp4", "kept") for n in range(20)]
        failed = [
            LedgerRow(
                f"{self.clip}{n:05d}", "https://example.org/a", "refused", reason, f"{self.annotations[0]} {reason}"
            )
            for n, reason in enumerate(("private", "removed", "unreadable", "no-sound"), 20)
        ]
        waiting = [LedgerRow(f"{self.clip}00024", "https://example.org/b", "pending", "network", "timed out")]
        write_ledger(self.root / "data/clips/ledger/00000.csv", [*rows, *failed[:2], *waiting])
        write_ledger(self.root / "data/scenes/ledger/00000.csv", [*rows[:18], *failed[2:]])

    def _words(self) -> None:
        """The description of the labels, and how to display benchmarks."""
        labels = self.root / "data/labels/labels.json"
        labels.parent.mkdir(parents=True)
        labels.write_text(json.dumps({"predicts": "which of 30 clusters of sound textures is heard around them"}))
        for name, benchmark in find_all("earshot.benchmarks", "BENCHMARK").items():
            file = self.root / "data/predictions" / name / BENCHMARK_FILE
            file.parent.mkdir(parents=True)
            file.write_text(json.dumps(benchmark.describe()))
        self._items()

    def _items(self, items: int = 40) -> None:
        """Scores of items and of resamples for two benchmarks: all networks are right as often as the metrics say."""
        folder = self.root / "data/predictions"
        for name, metric in (("correspondence", "accuracy"), ("voc", "map_pool5")):
            values = json.loads((self.root / "metrics" / f"{name}.json").read_text())
            (self.root / "metrics" / f"{name}.json").write_text(json.dumps(values | {"items": items}))
            names = [f"{prefix}{metric}" for prefix in ("", "wrong_sound_", "random_")]
            if name == "voc":
                file, rows = "draws.csv", self.rng.normal([values[key] for key in names], 0.02, (100, 3))
            else:
                file, rows = "items.csv", np.arange(items)[:, None] < items * np.array([values[key] for key in names])
            write_csv_file(folder / name / file, names, rows.astype(float).tolist())

    def _clusters(self, number: int, texture: bool) -> Iterator[dict]:
        for cluster in range(number):
            ranked = self.rng.permutation(len(self.annotations))[:4]
            sizes = {"mean": 32, "spread": 32, "correlation": 1024, "modulation": 320}
            axes = {"frequencies": np.geomspace(20, 10_000, 32), "rates": np.geomspace(0.5, 200, 10)}
            charts = {name: self.rng.uniform(0.05, 0.6, size if texture else 0) for name, size in sizes.items()}
            yield {
                "cluster": cluster,
                "moments": int(self.rng.integers(10, 200)),
                "trained_on": 9,
                "split_moments": 5,
                "annotations": [self.annotations[place] for place in ranked],
                "shares": sorted(self.rng.uniform(0.02, 0.8, len(ranked)), reverse=True),
                **charts,
                **{name: hertz if texture else [] for name, hertz in axes.items()},
                "centroid": self.rng.uniform(0, 1, 502),
            }

    def _cluster_moments(self, number: int) -> Iterator[dict]:
        for cluster in range(number):
            for rank in range(1, 10):
                number = 9 * cluster + rank - 1
                media = {"frame": photograph(number), "cochleagram": graph(number)}
                media |= {"sound": sound(number) if rank <= 3 else b"", "seconds": 1.0 if rank <= 3 else 0.0}
                yield {"cluster": cluster, "rank": rank, **self.moment(number), "distance": 0.1 * rank, **media}

    def _units(self, number: int) -> Iterator[dict]:
        for network, purity in zip(NETWORKS, (0.62, 0.4, 0.3), strict=True):
            for unit in range(number):
                own = float(np.clip(self.rng.normal(purity, 0.15), 0.1, 1))
                name = self.annotations[int(self.rng.integers(len(self.annotations)))]
                yield {
                    "network": network,
                    "unit": unit,
                    "maximum": float(self.rng.uniform(1, 20)),
                    "position": 0.1,
                    "annotation": name,
                    "purity": own,
                    "boxed": name,
                    "boxed_purity": own / 2,
                    "iou_class": name,
                    "iou": float(self.rng.uniform(0, 0.2)),
                    "selective": own >= 0.6,
                    "audible": name != self.annotations[-1],
                    "gallery": b"" if network == "wrong_sound" else photograph(unit + 10_000 * len(network), 576, 64),
                    "clips": [f"{self.clip}{place:05d}" for place in range(9)],
                    "activations": np.linspace(9, 5, 9),
                }

    def _sweep(self, number: int) -> Iterator[dict]:
        for network, slope in zip(NETWORKS, (1.0, 1.6, 2.0), strict=True):
            for threshold in np.linspace(0, 1, 11):
                share = float((1 - threshold) ** slope)
                counts = {"units": round(share * number), "share": share, "boxed_units": round(share * number / 2)}
                yield {"network": network, "threshold": threshold, **counts}

    def _unit_classes(self) -> Iterator[dict]:
        for network in NETWORKS:
            for place, name in enumerate(self.annotations):
                counts = {column: int(self.rng.integers(0, 9)) for column in ("units", "boxed_units", "iou_units")}
                yield {"network": network, "class": name, "audible": place % 2 == 0, **counts}

    def _heatmaps(self) -> Iterator[dict]:
        for network in ("encoder", "random"):
            for modality in ("image", "audio"):
                for unit in range(2):
                    for rank in range(1, 4):
                        number = 100 * unit + 10 * rank + (modality == "audio")
                        draw = photograph if modality == "image" else graph
                        annotation = {"annotation": self.annotations[unit % len(self.annotations)], "share": 0.8}
                        media = {"image": draw(number), "heat": draw(number + 5000), "sound": b""}
                        media |= {"sound": sound(number)} if modality == "audio" else {}
                        key = {"network": network, "modality": modality, "unit": unit, "rank": rank}
                        yield key | annotation | self.moment(number) | media

    def _localized(self) -> Iterator[dict]:
        for number in range(6):
            values = {"name": f"{self.clip}{number}.jpg", "class": self.annotations[number % len(self.annotations)]}
            values |= {"hit": number % 2 == 0, "control_hit": number % 3 == 0}
            yield values | {"image": photograph(number), "heat": photograph(number + 6000), "sound": sound(number)}

    def _videos(self) -> Iterator[dict]:
        for number in range(2):
            values = {key: value for key, value in self.moment(number).items() if key in ("clip_id", "annotations")}
            yield values | {"seconds": 1.0, "poster": photograph(number, 64, 48), "video": video(number)}

    def _embeddings(self, points: int) -> Iterator[dict]:
        for network in ("encoder", "random"):
            for modality in ("image", "audio"):
                for number in range(points):
                    angle = 2 * np.pi * (number % len(self.annotations)) / len(self.annotations)
                    loose = 0.05 if network == "encoder" else 0.4
                    x, y = np.clip(
                        0.5 + 0.4 * np.array([np.cos(angle), np.sin(angle)]) + self.rng.normal(0, loose, 2), 0, 1
                    )
                    yield {
                        "network": network,
                        "modality": modality,
                        "clip_id": f"{self.clip}{number:05d}",
                        "moment": number % 3,
                        "x": x,
                        "y": y,
                        "knn_precision": 1 - 2 * loose if number else None,
                    }

    def _embeddings_joint(self, points: int) -> Iterator[dict]:
        for row in self._embeddings(points):
            yield {key: value for key, value in row.items() if key != "knn_precision"}

    def _embedding_moments(self, points: int) -> Iterator[dict]:
        for number in range(points):
            yield self.moment(number) | {"thumbnail": photograph(number, 64, 48)}

    def _retrieval_results(self) -> Iterator[dict]:
        for network in ("encoder", "random"):
            for direction in ("image-to-audio", "audio-to-image", "image-to-image", "audio-to-audio"):
                for query in range(2):
                    for rank in range(1, 6):
                        gain = float(self.rng.choice([1.0, 0.66, 0.33]))
                        yield {
                            "network": network,
                            "direction": direction,
                            "query": f"{self.clip}{query:05d}",
                            "rank": rank,
                            "result": f"{self.clip}{int(self.rng.integers(2, 12)):05d}",
                            "gain": gain,
                        }

    def _retrieval_clips(self) -> Iterator[dict]:
        for number in range(12):
            values = {key: value for key, value in self.moment(number).items() if key != "moment"}
            yield values | {"frame": photograph(number), "spectrogram": graph(number), "sound": sound(number)}
