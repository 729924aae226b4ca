"""Publishing: a model is the same before and after; a silent change of its embeddings is an error; ONNX agrees."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from test_embedding import RATE, noise, saved

import earshot
from earshot.core.errors import EarshotError
from earshot.embedding import published
from earshot.embedding.network import NetworkModel
from earshot.networks.backbones import build_network
from earshot.networks.correspondence import build_correspondence
from earshot.networks.network import Network

HUB_FILES = ["README.md", "config.json", "encoder.json", "encoder.safetensors"]


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    torch.manual_seed(0)
    run = tmp_path_factory.mktemp("run")
    built = build_correspondence("ave", width=1 / 16, image_size=32, stride=2)
    return saved(run / "models" / "correspond", built)


@pytest.fixture(scope="module")
def folder(source, tmp_path_factory):
    """A published folder, with a card made from a small run."""
    pytest.importorskip("huggingface_hub")
    target = tmp_path_factory.mktemp("published")
    run = tmp_path_factory.mktemp("elsewhere")
    (run / "metrics").mkdir()
    (run / "params.yaml").write_text(
        "seed: 3\ncorrespond: {network: ave, epochs: 7}\n"
        "evaluate:\n  retrieval: {data_dir: data/scenes, encoder: models/correspond}\n"
    )
    scores = {f"{prefix}image_to_audio": 0.25 for prefix in ("", "random_", "wrong_sound_")}
    (run / "metrics" / "retrieval.json").write_text(json.dumps(scores))
    earshot.load(source).save_pretrained(target, run=run, license="cc-by-4.0")
    return target


def test_a_published_model_is_the_same_model(source, folder):
    assert sorted(path.name for path in folder.iterdir()) == HUB_FILES
    before, after = earshot.load(source), earshot.load(folder)
    assert after.fingerprint == before.fingerprint
    for mine, same in zip(before.embed_audio(noise(1), RATE), after.embed_audio(noise(1), RATE), strict=True):
        np.testing.assert_array_equal(mine, same)
    assert type(before).from_pretrained(folder).fingerprint == before.fingerprint


def test_the_card_names_the_corpus_the_parameters_and_the_license(folder):
    card = (folder / "README.md").read_text()
    assert card.startswith("---\nlibrary_name: earshot\nlicense: cc-by-4.0\n")
    assert "| `correspond.epochs` | 7 |" in card and "| `seed` | 3 |" in card
    assert json.loads((folder / "config.json").read_text())["fingerprint"] in card


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"embedding_version": 0}, "published with embeddings of version 0, this Earshot computes"),
        ({"fingerprint": "0" * 16}, "describes the model '0000000000000000'"),
        ({"embeddings": {"audio": [0.5] * 8, "images": [0.5] * 8}}, "computes other embeddings of audio"),
        ({"embeddings": 3}, "is no configuration of a published model"),
    ],
)
def test_a_silent_change_is_an_error(folder, change, message):
    file = folder / "config.json"
    before = file.read_text()
    file.write_text(json.dumps(json.loads(before) | change))
    try:
        with pytest.raises(EarshotError, match=message):
            earshot.load(folder)
    finally:
        file.write_text(before)


def test_what_has_no_weights_is_not_published(tmp_path):
    pytest.importorskip("huggingface_hub")
    with pytest.raises(EarshotError, match="texture has no weights to publish"):
        earshot.load("texture").save_pretrained(tmp_path / "texture")


def test_the_probes_never_change():
    """Their sums, computed once from the formulas: a published model would be refused otherwise."""
    sound, image = published.probe_sound(), published.probe_image()
    assert sound.shape == (96_000,) and image.shape == (256, 256, 3)
    assert float(np.abs(sound).sum()) == pytest.approx(SUM_OF_SOUND, rel=1e-5)
    assert int(image.astype(np.int64).sum()) == 127.5 * 3 * 256 * 256


SUM_OF_SOUND = 18_336.787


def test_the_embeddings_of_fixed_weights_never_change():
    """Stored vectors of a network whose weights are a formula; made by `python tests/test_publish.py`."""
    actual = published.probe_embeddings(formula_model())
    assert actual.keys() == VECTORS.keys()
    for key, values in VECTORS.items():
        np.testing.assert_allclose(actual[key], values, atol=1e-3)


def formula_model():
    """An AVE-Net whose weights are cosines, which no generator of random numbers can change."""
    network = build_correspondence("ave", width=1 / 32, image_size=32, stride=2).eval()
    with torch.no_grad():
        for number, (name, values) in enumerate(network.named_parameters()):
            wave = torch.cos(torch.arange(values.numel(), dtype=torch.float64) * (0.7 + number))
            if values.dim() > 1:
                values.copy_((wave * (2 / values[0].numel()) ** 0.5).view_as(values))
            elif "norm" in name:
                values.copy_(1 + 0.1 * wave if name.endswith("weight") else 0.1 * wave)
        network.audio_mean.fill_(-8.0)
        network.audio_std.fill_(4.0)
    return NetworkModel(network, Path("formula"))


VECTORS = {
    "audio": [0.27267, -0.56225, -0.7712, -0.12154],
    "images": [0.50409, -0.50368, -0.33637, 0.61568],
}


def small_model(name: str, folder: Path):
    torch.manual_seed(0)
    if name == "alexnet":
        network = build_network("alexnet", classes=3, width=1 / 16, image_size=64, dropout=0.0)
    else:
        name, _, spectrogram = name.partition("-")
        network = build_correspondence(name, width=1 / 16, image_size=32, stride=2, spectrogram=spectrogram or "linear")
    return earshot.load(saved(folder / "model", network))


def embeddings_of(model: NetworkModel) -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
    """Inputs of the exported files, by name, and what the network itself computes of them."""
    network, size = model.network, model.image_size
    images = torch.randint(0, 256, (3, 3, size, size), dtype=torch.uint8)
    with torch.inference_mode():
        if isinstance(network, Network):
            hidden: list[torch.Tensor] = []
            hook = network.fully_connected[-1].register_forward_pre_hook(lambda _, inputs: hidden.append(inputs[0]))
            scores = network(images)
            hook.remove()
            return {"images": (images, hidden[0]), "labels": (images, scores)}
        windows = torch.from_numpy(noise(3.0).reshape(3, RATE))
        return {"audio": (windows, network.embed_audio(windows)), "images": (images, network.embed_images(images))}


def assert_alike(actual: np.ndarray, expected: torch.Tensor) -> None:
    """Embeddings of l3 have no unit length, so the tolerance is relative to the largest value."""
    np.testing.assert_allclose(actual, expected, atol=1e-4 * float(expected.abs().max()))


PROGRAM = """
import json, sys, torch
about = {"earshot.json": ""}
with open(sys.argv[1], "rb") as file:
    module = torch.export.load(file, extra_files=about).module()
torch.save(module(torch.load(sys.argv[2])), sys.argv[3])
assert not [name for name in sys.modules if name.startswith("earshot")]
print(json.loads(about["earshot.json"])["fingerprint"])
"""


@pytest.mark.slow  # torch.export takes many seconds
@pytest.mark.parametrize("name", ["ave", "ave-mel", "avol", "l3", "alexnet"])
def test_a_program_of_torch_export_gives_the_embeddings_without_earshot(name, tmp_path):
    from earshot.embedding.torch_programs import write_programs

    model = small_model(name, tmp_path)
    written = write_programs(model, tmp_path / "programs")
    expected = embeddings_of(model)
    assert sorted(file.stem for file in written) == sorted(expected) and max(written.values()) < 1e-4
    for kind, (inputs, values) in expected.items():
        torch.save(inputs, tmp_path / "inputs")
        files = (tmp_path / "programs" / f"{kind}.pt2", tmp_path / "inputs", tmp_path / "out")
        command = [sys.executable, "-c", PROGRAM, *files]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
        assert done.stdout.strip() == model.fingerprint
        assert_alike(torch.load(tmp_path / "out").detach().numpy(), values)


@pytest.mark.slow  # torch.export takes many seconds
@pytest.mark.parametrize("name", ["ave", "ave-mel", "avol", "l3", "alexnet"])
def test_onnx_gives_the_embeddings_of_torch(name, tmp_path):
    pytest.importorskip("onnxscript")
    onnxruntime = pytest.importorskip("onnxruntime")
    from earshot.embedding.onnx_files import write_onnx

    model = small_model(name, tmp_path)
    files = write_onnx(model, tmp_path / "onnx")
    expected = embeddings_of(model)
    assert sorted(file.stem for file in files) == sorted(expected) and max(files.values()) < 1e-4
    for kind, (inputs, values) in expected.items():
        session = onnxruntime.InferenceSession(str(tmp_path / "onnx" / f"{kind}.onnx"))
        assert session.get_modelmeta().custom_metadata_map["fingerprint"] == model.fingerprint
        (actual,) = session.run(None, {"waveforms" if kind == "audio" else "images": inputs.numpy()})
        assert_alike(actual, values)


if __name__ == "__main__":
    print(published.probe_embeddings(formula_model()), float(np.abs(published.probe_sound()).sum()))
