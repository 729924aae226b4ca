"""The code of the pages runs as it stands there: Python and commands of README, Embed your own, Networks and Extending.

Nothing is copied: a page that changes is run as it is. Small random networks and short sounds take the place of a run.
What a page has that is not run is in `NOT_RUN`, with its reason.
"""

import doctest
import os
import re
import shlex
import subprocess
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from annotated_scenes import write_annotated
from conftest import PARAMS, REPOSITORY, copy_committed, earshot
from odd_media import MP4, render
from PIL import Image
from repository import GIT
from sample_networks import save_correspondence_network
from test_other_networks import SMALL, caffemodel

from earshot.corpus.ledger import LedgerRow, write_ledger
from earshot.networks.backbones import build_network
from earshot.networks.files import ENCODERS, save_architecture, save_weights

pytestmark = pytest.mark.usefixtures("one_process")

RATE = 48_000
# By the beginning of a step of a page: why it is not run here.
NOT_RUN = {
    "embedding.md": {
        "import fiftyone": "opens a browser and waits for it; tests/test_search.py reads such a folder",
        "earshot export --to rerun": "needs rerun-sdk; tests/test_search.py runs it where that is installed",
        "earshot export --to fiftyone": "needs FiftyOne; tests/test_search.py runs it where that is installed",
    },
    "networks.md": {
        "dvc exp run": "trains, or needs the weights of others; the settings are checked in tests/test_docs.py",
        "dvc repro": "needs the weights of others; tests/test_dvc.py runs dvc repro",
    },
    "clusters-and-gpus.md": {
        "EARSHOT_LOADERS=12 dvc repro": "needs a GPU to help; tests/test_training.py prepares batches so",
        "EARSHOT_PROCESSES=4 dvc repro": "tests/test_distributed.py trains in two processes",
        "torchrun": "needs two machines; tests/test_distributed.py trains under torchrun on one",
        "python -m dask": "needs HOST and THIS; tests/test_cluster.py runs the last of each with its own addresses",
        "EARSHOT_CLUSTER": "needs a cluster; tests/test_cluster.py runs stages on one",
        "openssl": "tests/test_cluster.py runs it",
        "export DASK_CONFIG": "tests/test_cluster.py sets it",
    },
    "extending.md": {
        "cp tests/examples/": "tests/test_extending.py runs it, and then dvc repro",
        '"""Random hyperplanes': "tests/test_docs.py compares it with the file that tests/test_extending.py runs",
    },
}
SLOW = ("earshot export --to onnx", "earshot export --to torch")  # torch.export takes many seconds


def steps(page: str) -> list[str]:
    """The Python blocks of a page and the commands of its blocks of shell, in order."""
    codes = []
    for language, code in re.findall(
        r"^```(python|sh)\n(.*?)^```", (REPOSITORY / "docs" / page).read_text(), re.M | re.S
    ):
        lines = code.replace("\\\n", " ").splitlines()
        codes += [code] if language == "python" else [line for line in lines if not line.startswith("#")]
    return codes


def is_run(page: str, step: str) -> bool:
    return not step.startswith(tuple(NOT_RUN.get(page, {})))


def noise(seconds: float, seed: int = 0, rate: int = RATE) -> np.ndarray:
    """Noise, float32 (samples,)."""
    return np.random.default_rng(seed).uniform(-0.3, 0.3, round(seconds * rate)).astype(np.float32)


@pytest.fixture(scope="module")
def finished_run(tmp_path_factory) -> Path:
    """The folder of a run, as the pages assume it: networks, scenes, the user's files in it and beside it."""
    folder = tmp_path_factory.mktemp("page") / "repository"
    (folder / "models").mkdir(parents=True)
    save_correspondence_network(folder / "models/correspond", "ave", seeds=(0, 1, 2), stride=2)
    (folder / "models/pretrain").mkdir()
    network = build_network("alexnet", classes=3, width=1 / 16, image_size=64, dropout=0.0)
    save_architecture(folder / "models/pretrain", network)
    for encoder in ENCODERS:
        save_weights(folder / "models/pretrain", encoder, network)
    write_annotated(folder, [10, 200], [0.1, 0.2], [["dog"], []], ["a", "b"])
    ledger = [LedgerRow("a_0", "a.mp4", "kept"), LedgerRow("b_1", "b.mp4", "kept")]
    write_ledger(folder / "data/scenes/ledger/00000.csv", ledger)
    places = ("../clips", "../sounds", "data/clips")
    for place in places:
        (folder / place).mkdir()
    for seed, name in enumerate(("dog.wav", "../sounds/one.wav", "../clips/two.wav")):
        soundfile.write(folder / name, noise(2.0, seed), RATE)
    for name, color in (
        ("dog.jpg", "red"),
        ("cat.jpg", "blue"),
        ("photo.jpg", "green"),
        ("../clips/photo.jpg", "gray"),
    ):
        Image.new("RGB", (60, 40), color).save(folder / name)
    for name in ("dog.mp4", "cat.mp4", "data/clips/a_0.mp4"):
        sources = {"image": "testsrc2=s=64x48:r=10:d=2", "sound": "anoisesrc=d=2:r=48000:a=0.3"}
        render(folder / name, *MP4, **sources)
    caffemodel(folder / "tracking.caffemodel", [*SMALL, ("fc8_tracking", *SMALL[1][1:])])
    copy_committed("recipes", folder)
    (folder / "params.yaml").write_text(PARAMS.read_text())
    for words in (["init", "--quiet"], ["add", "params.yaml"], ["commit", "--quiet", "--message", "a state"]):
        subprocess.run(["git", *words], cwd=folder, env=os.environ | GIT, check=True)
    return folder


@pytest.fixture
def folder(finished_run, monkeypatch) -> Path:
    """That folder, as the current one."""
    monkeypatch.chdir(finished_run)
    return finished_run


def run(page: str, slow: bool) -> Iterator[str]:
    """Run the steps of a page that are slow, or those that are not, one after another in one namespace."""
    given: dict[str, Any] = {
        "samples": noise(4.0, rate=44_100),
        "waveforms": torch.from_numpy(np.stack([noise(2.0, seed, 44_100) for seed in range(2)])),
    }
    for step in steps(page):
        if not is_run(page, step) or step.startswith(SLOW) != slow:
            continue
        if step.startswith("earshot "):
            earshot(*shlex.split(step, comments=True)[1:])
        else:
            on_cpu = step if torch.cuda.is_available() else step.replace('device="cuda"', 'device="cpu"')
            exec(compile(on_cpu, page, "exec"), given)
        yield step


def test_the_code_of_embed_your_own_runs(folder):
    pytest.importorskip("huggingface_hub")
    done = list(run("embedding.md", slow=False))
    assert len(done) == len([step for step in steps("embedding.md") if is_run("embedding.md", step)]) - len(SLOW)
    expected = ["emb.parquet", "emb.ledger.csv", "embeddings/one.npz", "my-model/config.json", "hits/index.html"]
    assert [name for name in [*expected, "clips.parquet"] if not (folder / name).exists()] == []


def test_what_embed_your_own_says_of_its_results_holds(folder, capsys):
    import earshot as package

    given: dict[str, Any] = {}
    exec(steps("embedding.md")[0], given)
    assert given["scores"].shape == (len(given["model"].embed_audio("dog.wav")[1]), 2)
    assert len(given["audio"]) == len(given["images"]) == len(given["times"])
    (command, *_) = (step for step in steps("embedding.md") if step.startswith("earshot embed ../clips"))
    earshot(*shlex.split(command)[1:])
    assert "1 of 1 files" in capsys.readouterr().out, "images in folders are skipped"
    assert package.load("models/correspond/wrong_sound.safetensors").fingerprint != given["model"].fingerprint


@pytest.mark.slow
def test_the_exports_of_embed_your_own_run(folder):
    pytest.importorskip("onnxscript")
    assert len(list(run("embedding.md", slow=True))) == len(SLOW)
    assert (folder / "onnx/audio.onnx").exists() and (folder / "programs/images.pt2").exists()


def test_the_code_of_networks_runs(folder):
    done = list(run("networks.md", slow=False))
    assert [step.split()[:2] for step in done][:2] == [["earshot", "recipe"], ["earshot", "caffemodel"]] and len(
        done
    ) == 3
    assert "backbone: resnet50" in (folder / "params.yaml").read_text()
    assert (folder / "../tracking.safetensors").exists()


def test_the_marks_of_a_parameter_are_those_of_the_code():
    (sketch,) = (step for step in steps("extending.md") if step.startswith("class "))
    names: dict[str, Any] = {}
    for module in ("earshot.core.params", "earshot.params.training", "earshot.params.extract", "pydantic", "typing"):
        names |= vars(import_module(module))
    exec(sketch, names)
    assert names["Extract"].model_fields["frames"].is_required()


def test_the_examples_of_readme_give_what_it_says(folder):
    examples = doctest.DocTestParser().get_doctest((REPOSITORY / "README.md").read_text(), {}, "README.md", None, 0)
    assert len(examples.examples) == 5
    result = doctest.DocTestRunner().run(examples)
    assert result.failed == 0 and examples.globs == {}  # cleared after a run


@pytest.mark.parametrize("page", NOT_RUN)
def test_every_step_that_is_not_run_is_still_on_its_page(page):
    for beginning in NOT_RUN[page]:
        assert any(step.startswith(beginning) for step in steps(page)), beginning


@pytest.mark.parametrize("page", ["clusters-and-gpus.md", "extending.md"])
def test_every_command_of_a_page_that_is_run_elsewhere_is_listed(page):
    assert not [step for step in steps(page) if is_run(page, step) and not step.startswith("class ")]
