"""The own programs of the boards accept the adapters; a test runs where its kit is installed."""

import subprocess
import sys

import numpy as np
import pytest
import torch
from test_embedding import RATE, saved

from earshot.boards.mteb import EarshotModel
from earshot.boards.xares import EarshotEncoder
from earshot.networks.correspondence import build_correspondence


@pytest.fixture(scope="module", params=["texture", "network"])
def source(request, tmp_path_factory) -> str:
    if request.param == "texture":
        return "texture"
    torch.manual_seed(0)
    network = build_correspondence("ave", width=1 / 32, image_size=32, stride=2)
    return str(saved(tmp_path_factory.mktemp("model"), network))


def test_xares_own_checker(source):
    checker = pytest.importorskip("xares.audio_encoder_checker")

    class OwnEncoder(EarshotEncoder):
        pass

    assert checker.check_audio_encoder(OwnEncoder(source))


def test_hears_own_validator(source):
    pytest.importorskip("hearvalidator")
    model = [] if source == "texture" else ["--model", source]
    # In a process of its own, because it imports TensorFlow, which crashes beside other kits.
    command = [sys.executable, "-m", "hearvalidator.validate", "earshot.boards.hear", *model, "--device", "cpu"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0 and done.stdout.endswith("Looks good!\n"), done.stderr


def test_a_task_of_mteb_tells_a_hum_from_a_hiss(source):
    pytest.importorskip("mteb")
    import mteb
    from datasets import Dataset, DatasetDict
    from mteb.models.models_protocols import EncoderProtocol
    from mteb.tasks.classification.zxx.esc50 import ESC50Classification

    chances, time = np.random.default_rng(0), np.arange(2 * RATE) / RATE
    targets = [0, 1] * 12
    hums = [np.sin(2 * np.pi * chances.uniform(80, 300) * time) for _ in targets]
    hisses = [chances.standard_normal(len(time)) / 4 for _ in targets]
    sounds = [(hisses if target else hums)[number].astype(np.float32) for number, target in enumerate(targets)]
    rows = {"audio": [{"array": sound, "sampling_rate": RATE} for sound in sounds], "target": targets}

    class Small(ESC50Classification):
        n_splits = 3

        def load_data(self, **_):
            self.dataset, self.data_loaded = DatasetDict(train=Dataset.from_dict(rows)), True

    model = EarshotModel(source)
    assert isinstance(model, EncoderProtocol)
    (result,) = mteb.evaluate(model, [Small()], cache=None, co2_tracker=False).task_results
    assert result.scores["train"][0]["accuracy"] > 0.9
    assert model.mteb_model_meta.revision == model.model.fingerprint
