"""The label model `textons`, the visual control: clusters of texton histograms (Owens et al. 2016, section 5).

Of the sound it uses only which moments are silent, so that it is fitted on the same moments as other label models.
"""

import json
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Annotated

import numpy as np
from pydantic import Field

from earshot.core.files import shard_name, shard_paths, write_atomically
from earshot.core.params import IDEA
from earshot.labels.model import Described
from earshot.labels.models import clusters
from earshot.labels.texton_histograms import check_shards, draw_frames, read_pixels, write_histograms, write_pixels
from earshot.labels.textons import TEXTONS_FILE, Textons, fit_textons, load_textons, save_textons
from earshot.pipeline.stage import StageContext


class TextonLabelParams(clusters.ClusterLabelParams):
    """The model's own parameters."""

    textons: Annotated[int, Field(ge=2, le=4096), IDEA]


@dataclass(frozen=True)
class Folders:
    """The folders for workers that read frames: of both tables and of intermediate results."""

    scenes: Path
    sounds: Path
    scratch: Path

    def drawn(self, number: int) -> Path:
        """The list of a shard's frames for fitting the dictionary."""
        return self.scratch / "drawn" / f"{shard_name(number)}.json"

    def pixels(self, number: int) -> Path:
        """The filter responses at pixels of these frames."""
        return self.scratch / "pixels" / f"{shard_name(number)}.safetensors"


def texton_histograms(
    run: StageContext, sounds: list[Path], options: TextonLabelParams, seed: int
) -> tuple[list[Path], Described]:
    """The shards of the table of texton histograms, with a row for each moment of `sounds`."""
    folders = Folders(run.path("data/scenes"), sounds[0].parent, run.scratch)
    check_shards(shard_paths(folders.scenes, ".parquet"), sounds)
    work = partial(histogram_shard, folders=folders, textons=fitted_textons(run, folders, sounds, options, seed))
    run.map_shards(work, range(len(sounds)), title="finding textons")
    parts = {"textons": slice(0, options.textons)}
    return shard_paths(folders.scratch / "histograms", ".parquet"), Described("textons", parts)


def fitted_textons(
    run: StageContext, folders: Folders, sounds: list[Path], options: TextonLabelParams, seed: int
) -> Textons:
    """The dictionary of this run; fits and saves it if it is not there yet."""
    folder = run.out("models/labeler")
    if not (folder / TEXTONS_FILE).exists():
        for number, rows in enumerate(draw_frames(sounds, seed)):
            with write_atomically(folders.drawn(number)) as temporary_path:
                temporary_path.write_text(json.dumps(rows.tolist()))
        run.map_shards(partial(pixels_shard, folders=folders, seed=seed), range(len(sounds)), title="drawing pixels")
        pixels = (read_pixels(folders.pixels(number)) for number in range(len(sounds)))
        save_textons(folder, fit_textons(pixels, options.textons, **options.kmeans, seed=seed))
    return load_textons(folder)


def pixels_shard(number: int, folders: Folders, seed: int) -> dict[str, int]:
    """Write the responses at pixels of the drawn frames of a shard."""
    name = f"{shard_name(number)}.parquet"
    rows = np.array(json.loads(folders.drawn(number).read_text()), np.int64)
    write_pixels(folders.pixels(number), folders.scenes / name, folders.sounds / name, rows, [seed, number])
    return {}


def histogram_shard(number: int, folders: Folders, textons: Textons) -> dict[str, int]:
    """Write the histograms of a shard."""
    name = f"{shard_name(number)}.parquet"
    write_histograms(folders.scratch / "histograms" / name, folders.scenes / name, folders.sounds / name, textons)
    return {}


LABEL_MODEL = replace(
    clusters.LABEL_MODEL,
    params=TextonLabelParams,
    predicts="which of {values} clusters of what is seen they fall into, the visual control",
    table=texton_histograms,
    clusters_of="what frames look like",
)
