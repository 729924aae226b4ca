"""MTEB and MAEB: https://github.com/embeddings-benchmark/mteb.

import mteb
from earshot.boards.mteb import EarshotModel

mteb.evaluate(EarshotModel("models/correspond"), mteb.get_tasks(["ESC50"]))
"""

import importlib
from collections.abc import Iterable
from typing import Any

import numpy as np

from earshot.embedding.loading import load

HOP_S = 0.5


class EarshotModel:
    """A model with the method `encode`; a sound or image is one vector.

    Args:
        source: of `earshot.load`.
    """

    def __init__(self, source: str = "texture") -> None:
        self.model = load(source)

    def encode(
        self,
        inputs: Iterable[dict[str, Any]],
        *,
        task_metadata: Any = None,
        hf_split: str = "",
        hf_subset: str = "",
        prompt_type: Any = None,
        **_: Any,
    ) -> np.ndarray:
        """Embeddings of the items of all batches, float32 (items, D).

        A batch has `audio`, a list of dictionaries with `array` and `sampling_rate`, or `image`, a list of images of
        Pillow. A sound that is silent or too short is a vector of zeros.
        """
        rows: list[np.ndarray] = []
        for batch in inputs:
            if "audio" in batch:
                rows += [self._audio(np.asarray(item["array"]), int(item["sampling_rate"])) for item in batch["audio"]]
            else:
                rows += list(self.model.embed_image([np.asarray(image.convert("RGB")) for image in batch["image"]]))
        return np.stack(rows)

    @property
    def mteb_model_meta(self) -> Any:
        """The model's name and its fingerprint, mteb.models.ModelMeta, under which MTEB keeps results."""
        meta = importlib.import_module("mteb.models").ModelMeta
        modalities = {"audio": self.model.audio_dimensions, "image": self.model.image_dimensions}
        described = {
            "name": f"earshot/{self.model.name}",
            "revision": self.model.fingerprint,
            "modalities": [name for name, dimensions in modalities.items() if dimensions],
            "embed_dim": self.model.audio_dimensions or self.model.image_dimensions,
        }
        return meta.create_empty(overwrites=described)

    def _audio(self, sound: np.ndarray, rate: int) -> np.ndarray:
        channels_last = sound.T if sound.ndim == 2 and sound.shape[0] < sound.shape[1] else sound
        embeddings, _ = self.model.embed_audio(channels_last.astype(np.float32), rate, HOP_S, unfit="nan")
        return np.nan_to_num(self.model.pool(embeddings))

    def similarity(self, one: np.ndarray, other: np.ndarray) -> np.ndarray:
        """Cosines of all pairs, float32 (one, other), of rows (n, D), or of one vector (D,)."""
        rows_of_both = [np.atleast_2d(np.asarray(rows, np.float32)) for rows in (one, other)]
        scaled = [rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12) for rows in rows_of_both]
        return scaled[0] @ scaled[1].T

    def similarity_pairwise(self, one: np.ndarray, other: np.ndarray) -> np.ndarray:
        """Cosines of rows with the same number: float32 (rows,)."""
        return np.diagonal(self.similarity(one, other)).copy()
