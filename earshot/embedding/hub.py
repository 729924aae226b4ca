"""Models on the Hugging Face Hub, through huggingface_hub's mixin: weights as safetensors, nothing that runs code."""

import json
from pathlib import Path
from typing import Any

from huggingface_hub import ModelCard, ModelHubMixin, snapshot_download

from earshot.core.errors import EarshotError
from earshot.core.files import link_file, write_atomically
from earshot.embedding.card import model_card
from earshot.embedding.loading import ARCHITECTURE_FILE, load
from earshot.embedding.model import Model
from earshot.embedding.network import NetworkModel
from earshot.embedding.published import CONFIG_FILE, configuration
from earshot.networks.files import save_architecture, save_weights
from earshot.pipeline.stage import CLIPS_FILE, read_clips_hash

WEIGHTS_NAME = "encoder"
FILES = (ARCHITECTURE_FILE, f"{WEIGHTS_NAME}.safetensors", CONFIG_FILE, CLIPS_FILE)


class HubModel(ModelHubMixin):
    """A model with the mixin's methods.

    Args:
        model: a network.
        run: the folder of its run, for the model card.
        license: of the weights.
    """

    def __init__(self, model: Model, run: Path | None, license: str) -> None:
        if not isinstance(model, NetworkModel):
            raise EarshotError(f"{model.name} has no weights to publish; expected a network")
        if model.layer is not None:
            raise EarshotError(f"the layer {model.layer} is chosen by who loads a model; publish it without one")
        above = model.source.absolute().parent.parent
        self.model, self.license = model, license
        self.run = run or (above if (above / "params.yaml").is_file() else None)

    def _save_pretrained(self, save_directory: Path) -> None:
        model = self.model
        save_architecture(save_directory, model.network)
        save_weights(save_directory, WEIGHTS_NAME, model.network)
        if (model.source / CLIPS_FILE).is_file():
            link_file(model.source / CLIPS_FILE, save_directory / CLIPS_FILE)
        config = configuration(model, model.network.architecture, read_clips_hash(model.source))
        with write_atomically(save_directory / CONFIG_FILE) as temporary:
            temporary.write_text(json.dumps(config, indent=2) + "\n")

    def generate_model_card(self, *_: Any, **__: Any) -> ModelCard:
        return ModelCard(model_card(self.model, self.run, self.license))

    @classmethod
    def _from_pretrained(
        cls,
        *,
        model_id: str,
        revision: str | None,
        cache_dir: str | Path | None,
        force_download: bool,
        local_files_only: bool,
        token: str | bool | None,
        **options: Any,
    ) -> Any:
        folder = model_id
        if not Path(model_id).is_dir():
            folder = snapshot_download(
                model_id,
                revision=revision,
                cache_dir=cache_dir,
                force_download=force_download,
                local_files_only=local_files_only,
                token=token,
                allow_patterns=list(FILES),
            )
        return load(folder, **options)
