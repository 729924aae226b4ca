"""Searches a table of embeddings: the moments nearest to a sound, an image or a video, by cosine."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import faiss
import numpy as np
import pyarrow as pa

from earshot.core.channels import mix_channels
from earshot.core.errors import EarshotError
from earshot.core.files import real_path
from earshot.corpus.ledger import Refusal
from earshot.embedding.model import Model
from earshot.embedding.moments import FULL_SCALE
from earshot.embedding.table import Origin, read_origin, read_parts, vectors
from earshot.media.stream_process import MediaReader
from earshot.media.streaming import StreamOptions

MODALITIES = ("audio", "images")
WHERE = ("clip_id", "file", "path", "offset", "size", "time")
MOMENTS_A_HIT = 100  # neighbors that are looked at first for each hit, since a file counts once
EXCERPT_S, IMAGE_SIDE = 4.0, 256  # of a hit: seconds of sound around its time, px of its image


@dataclass(frozen=True)
class Hit:
    """A file that is near a query: its nearest moment.

    Args:
        clip_id, file: its name, and as it was given to `earshot embed`.
        path, offset, size: where its bytes are.
        time: seconds; None in a table of whole files.
        modality: `audio` or `images`: which embedding is near.
        score: the cosine.
    """

    clip_id: str
    file: str
    path: str
    offset: int
    size: int
    time: float | None
    modality: str
    score: float


class Index:
    """The embeddings of a table in memory.

    Args:
        table: that `earshot embed` wrote.

    Raises:
        EarshotError: the file is no such table.
    """

    def __init__(self, table: Path) -> None:
        self.table, self.origin = table, read_origin(table)
        dimensions = {"audio": self.origin.audio_dimensions, "images": self.origin.image_dimensions}
        self._dimensions = {name: number for name, number in dimensions.items() if number}
        self._indices = {name: faiss.IndexFlatIP(number) for name, number in self._dimensions.items()}
        rows: dict[str, list[np.ndarray]] = {name: [] for name in self._indices}
        parts, begin = [], 0
        for part in read_parts(table, [*WHERE, *self._indices]):
            for name, number in self._dimensions.items():
                values, present = vectors(part[name], number)
                self._indices[name].add(scaled(values))
                rows[name].append(present + begin)
            parts.append(part.select(WHERE))
            begin += len(part)
        self._where = pa.concat_tables(parts) if parts else pa.table({name: [] for name in WHERE})
        self._rows = {name: np.concatenate([*each, np.empty(0, int)]) for name, each in rows.items()}

    def search(self, query: dict[str, np.ndarray], number: int, find: str | None = None) -> list[Hit]:
        """The nearest files, each once for each modality in which it is near, best first.

        Args:
            query: a vector of each modality that the query has.
            number: of hits, at most.
            find: the modality to search; by default all that can be compared with the query.

        Raises:
            EarshotError: the query and the table have no modality that can be compared.
        """
        pairs = [
            (own, other)
            for own in query
            for other in self._indices
            if (own == other or self.origin.aligned) and find in (None, other)
        ]
        if not pairs:
            actual = f"the query has {' and '.join(query) or 'nothing'}, the table {' and '.join(self._indices)}"
            raise EarshotError(
                f"{self.table}: {actual}; {self.origin.name} compares none of these; choose another query"
            )
        best: dict[tuple[str, str], Hit] = {}
        for own, other in pairs:
            for hit in self._nearest(query[own], other, number):
                key = (hit.clip_id, hit.modality)
                if key not in best or best[key].score < hit.score:
                    best[key] = hit
        return sorted(best.values(), key=lambda hit: -hit.score)[:number]

    def _nearest(self, vector: np.ndarray, modality: str, number: int) -> Iterator[Hit]:
        """The nearest moment of each of the `number` nearest files, or of all files if there are fewer."""
        index, moments = self._indices[modality], number * MOMENTS_A_HIT
        while True:
            moments = min(moments, index.ntotal)
            scores, places = index.search(scaled(vector[None]), moments) if moments else np.empty((2, 1, 0), int)
            rows = self._rows[modality][places[0]]
            nearest: dict[str, int] = {}  # the place of each file's nearest moment
            for place, clip_id in enumerate(self._where["clip_id"].take(pa.array(rows)).to_pylist()):
                nearest.setdefault(clip_id, place)
            if len(nearest) >= number or moments == index.ntotal:
                break
            moments *= 2  # a file with many near moments hides others
        for place in [*nearest.values()][:number]:
            (row,) = self._where.slice(int(rows[place]), 1).to_pylist()
            yield Hit(**row, modality=modality, score=float(scores[0][place]))


def scaled(rows: np.ndarray) -> np.ndarray:
    """Rows of length 1, float32; a row of zeros stays one."""
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    return np.ascontiguousarray(rows / np.maximum(lengths, 1e-12), np.float32)


def query_vectors(model: Model, query: Path, origin: Origin) -> dict[str, np.ndarray]:
    """The mean embedding of a file for each modality that it has.

    Raises EarshotError if the model is not that of the table, or the file cannot be read.
    """
    if model.fingerprint != origin.fingerprint:
        actual = f"the model is {model.fingerprint}, the table was made by {origin.fingerprint} ({origin.model})"
        raise EarshotError(f"{actual}; name the model of the table with --model, or embed the files again")
    embedded = model.embed_video(query, hop=origin.hop_s, center=origin.center)
    both = {"audio": embedded.audio, "images": embedded.images}
    return {name: model.pool(rows) for name, rows in both.items() if rows is not None}


def excerpt(hit: Hit) -> tuple[np.ndarray | None, np.ndarray, int]:
    """The image at the time of a hit, uint8 (256, 256, 3), and the sound around it, float32 (samples,), with its rate.

    None and no samples where the file has none, or cannot be read any more.
    """
    time = hit.time or 0.0
    begin = max(time - EXCERPT_S / 2, 0)
    options = StreamOptions(audio=True, image_size=IMAGE_SIDE, hop_s=max(time, 0.5))  # an image at 0 s and at the time
    image, sounds, rate, passed, displayed = None, [], 0, 0, 0
    try:
        with MediaReader() as reader:
            for piece in reader.read(real_path(Path(hit.path)), options, hit.offset, hit.size):
                if piece.whole:
                    return np.frombuffer(piece.whole, np.uint8).reshape(*piece.shape, 3), np.empty(0, np.float32), 0
                for frame, count in zip(_frames(piece.images), piece.counts, strict=True):
                    image = frame if displayed < 2 and (time or image is None) else image
                    displayed += count
                rate = piece.rate or rate
                if piece.rate:
                    first = max(round(begin * rate) - passed, 0)
                    last = max(round((begin + EXCERPT_S) * rate) - passed, 0)
                    sounds.append(piece.samples()[first:last])
                    passed += len(piece.samples())
                if displayed >= 2 and passed >= (begin + EXCERPT_S) * rate:
                    break
    except Refusal:
        pass
    sound = np.concatenate([part for part in sounds if len(part)] or [np.empty((0, 1), np.int16)]) / FULL_SCALE
    return image, (mix_channels(sound) if len(sound) else np.empty(0, np.float32)), rate


def _frames(images: bytes) -> np.ndarray:
    return np.frombuffer(images, np.uint8).reshape(-1, IMAGE_SIDE, IMAGE_SIDE, 3)
