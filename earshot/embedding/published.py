"""The configuration of a published model: what it is, and embeddings by which a change of the code shows.

config.json holds the embeddings of one sound and one image. Whoever loads the model computes them again: other numbers
are an error, because embeddings of the two versions could not be compared.
"""

from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

from earshot.core.errors import EarshotError
from earshot.core.json_files import parse_json
from earshot.core.untrusted import read_document
from earshot.embedding.model import EMBEDDING_VERSION, Model

CONFIG_FILE = "config.json"
MAX_CONFIG_BYTES = 1 << 20
TOLERANCE = 1e-3  # of a value, relative to the largest; processors differ by less
PROBE_RATE = 48_000  # Hz


def probe_sound() -> np.ndarray:
    """Two seconds at 48 kHz of a tone that rises from 100 Hz to 10 kHz, above a noise of -50 dB: float32 (samples,).

    Without noise, the quietest frequencies would hold the rounding errors of the loudest, which no two machines share.
    """
    number = np.arange(2 * PROBE_RATE, dtype=np.int64)
    rising = np.sin(2 * np.pi * 200 * (100 ** (number / PROBE_RATE / 2) - 1) / np.log(100))
    noise = (number * number % 65_521 * 40_503 % 65_536) / 32_768 - 1
    return (0.3 * rising + 0.003 * noise).astype(np.float32)


def probe_image() -> np.ndarray:
    """Red grows to the right, green downwards, and blue is a checkerboard: uint8 (256, 256, 3)."""
    down, right = np.mgrid[:256, :256]
    return np.stack([right, down, 255 * ((right // 32 + down // 32) % 2)], axis=2).astype(np.uint8)


def probe_embeddings(model: Model) -> dict[str, list[float]]:
    """The embeddings of the probes, by modality."""
    probes: dict[str, list[float]] = {}
    if model.audio_dimensions:
        embeddings, _ = model.embed_audio(probe_sound(), PROBE_RATE, hop=1.0, center=False)
        probes["audio"] = embeddings[0].tolist()
    if model.image_dimensions:
        probes["images"] = model.embed_image(probe_image()).tolist()
    return probes


def configuration(model: Model, architecture: dict[str, Any], clips_hash: str | None) -> dict[str, Any]:
    """The contents of config.json."""
    return {
        "library": "earshot",
        "earshot": metadata.version("earshot"),
        "embedding_version": EMBEDDING_VERSION,
        "architecture": architecture,
        "fingerprint": model.fingerprint,
        "clips_hash": clips_hash,
        "embeddings": probe_embeddings(model),
    }


def check_published(model: Model, file: Path) -> None:
    """Compare a model with the configuration that was published with it.

    Raises EarshotError if the file is damaged, if the weights are others than those published, or if this version
    computes other embeddings.
    """
    try:
        config = parse_json(read_document(file, MAX_CONFIG_BYTES))
        version, fingerprint = config["embedding_version"], config["fingerprint"]
        expected = {key: np.asarray(values, np.float64) for key, values in config["embeddings"].items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise EarshotError(f"{file}: is no configuration of a published model ({error!r:.100}); restore it") from None
    if version != EMBEDDING_VERSION:
        actual = f"published with embeddings of version {version!r:.20}, this Earshot computes {EMBEDDING_VERSION}"
        raise EarshotError(f"{file}: {actual}; install earshot=={config.get('earshot')!s:.20}, or publish it again")
    if fingerprint != model.fingerprint:
        weights = f"the weights are those of {model.fingerprint}"
        raise EarshotError(f"{file}: describes the model {fingerprint!r:.20}, {weights}; restore both files")
    for key, actual_values in probe_embeddings(model).items():
        values = expected.get(key, np.empty(0))
        largest = np.abs(values).max(initial=1e-6)
        if values.shape != (len(actual_values),) or np.abs(values - actual_values).max() > TOLERANCE * largest:
            raise EarshotError(
                f"{file}: this version computes other embeddings of {key} than were published; install "
                f"earshot=={config.get('earshot')!s:.20}, and do not compare old embeddings with new ones"
            )
