"""The package: a wheel with no part missing, whose core needs neither torch nor DVC, and a pinned set made from it."""

import importlib.metadata
import re
import subprocess
import sys
import tomllib
import venv
import zipfile
from pathlib import Path

import numpy as np
import pytest
from conftest import REPOSITORY
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

PROJECT = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
TEXTURE = """
import numpy as np, sys, earshot
textures = earshot.textures(np.random.default_rng(0).standard_normal(48_000), 16_000)
assert textures.shape == (1, 502) and np.isfinite(textures).all()
assert not {"torch", "dvc", "torchvision", "faiss"} & set(sys.modules)
"""
# Refuses what the core does not depend on, as if it were not installed.
ONLY_CORE = """
import sys
class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {absent}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)
sys.meta_path.insert(0, Absent())
"""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    command = ["-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "--wheel-dir", folder, REPOSITORY]
    subprocess.run([sys.executable, *map(str, command)], check=True)
    (built,) = folder.glob("earshot-*.whl")
    return built


def required(*extras: str) -> dict[str, Requirement]:
    """What pyproject.toml asks for: the core and some extras, with the extras that these name."""
    texts = [*PROJECT["dependencies"], *(text for each in extras for text in PROJECT["optional-dependencies"][each])]
    parsed = [Requirement(text) for text in texts]
    inner = [extra for each in parsed if each.name == "earshot" for extra in each.extras]
    own = {canonicalize_name(each.name): each for each in parsed if each.name != "earshot"}
    return own | (required(*inner) if inner else {})


def closure(names: set[str]) -> set[str]:
    """Installed distributions that these need, themselves included."""
    closed: set[str] = set()
    while names - closed:
        name = (names - closed).pop()
        closed.add(name)
        for text in importlib.metadata.requires(name) or ():
            needed = Requirement(text)
            if needed.marker is None or needed.marker.evaluate({"extra": ""}):
                names = names | {canonicalize_name(needed.name)}
    return closed


def test_the_wheel_holds_the_package_its_parameters_and_its_recipes(wheel):
    held = set(zipfile.ZipFile(wheel).namelist())
    listed = subprocess.run(["git", "ls-files", "earshot"], cwd=REPOSITORY, capture_output=True, text=True, check=True)
    files = {name for name in listed.stdout.splitlines() if (REPOSITORY / name).exists()}
    assert files <= held
    recipes = {f"earshot/repository/recipes/{file.name}" for file in (REPOSITORY / "recipes").iterdir()}
    assert recipes | {"earshot/repository/params.yaml"} <= held
    assert not [name for name in held if name.startswith(("tests/", "stages/"))]


def test_the_core_computes_a_texture_and_prints_help_without_the_extras(wheel, tmp_path):
    zipfile.ZipFile(wheel).extractall(tmp_path)
    core = closure(set(required()))
    modules = importlib.metadata.packages_distributions()
    absent = {name for name, owners in modules.items() if not {canonicalize_name(each) for each in owners} & core}
    absent -= {"earshot", "_virtualenv", "_distutils_hack", "distutils-precedence"}
    assert {"torch", "dvc", "faiss", "cv2", "jinja2"} <= absent
    start = ONLY_CORE.format(absent=absent)
    for text in (TEXTURE, "from earshot.commands.main import main\nmain(['--help'])"):
        done = subprocess.run(
            [sys.executable, "-c", start + text], cwd=tmp_path, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
    assert "completeness" in done.stdout
    done = subprocess.run(
        [sys.executable, "-c", start + "from earshot.commands.main import main\nmain(['compare', 'a', 'b'])"],
        cwd=tmp_path, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert "is not installed; run: pip install 'earshot[report]'" in done.stderr


@pytest.mark.slow  # it takes 700 MB from the package index
def test_the_wheel_installs_in_an_empty_environment(wheel, tmp_path):
    venv.create(tmp_path / "env", with_pip=True)
    python = tmp_path / "env" / "bin" / "python"
    subprocess.run([python, "-m", "pip", "install", "--quiet", wheel], check=True)
    subprocess.run([python, "-c", TEXTURE], cwd=tmp_path, check=True)
    done = subprocess.run([tmp_path / "env/bin/earshot", "--help"], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0 and "recipe" in done.stdout


def test_textures_of_a_recording_are_those_of_its_windows():
    from earshot import textures
    from earshot.sound.texture import sound_textures

    sound = np.random.default_rng(1).uniform(-0.5, 0.5, (100_000, 2)).astype(np.float32)
    windows = np.stack([sound[start : start + 30_000].mean(axis=1) for start in (0, 30_000, 60_000)])
    np.testing.assert_array_equal(textures(sound, 8_000), sound_textures(windows, 8_000))
    assert textures(sound, 8_000, hop=1.0).shape == (9, 502)
    with pytest.raises(ValueError, match="too short"):
        textures(sound[:8_000], 8_000)


def test_the_pinned_set_is_what_pyproject_allows():
    pinned = {}
    for line in (REPOSITORY / "requirements.txt").read_text().splitlines():
        name, _, version = line.partition(" ;")[0].strip().partition("==")
        pinned.setdefault(canonicalize_name(re.sub(r"\[.*", "", name)), []).append(version)
    for name, requirement in required("dev").items():
        assert name in pinned, f"{name} is not in requirements.txt; run: make pin"
        for version in pinned[name]:
            assert requirement.specifier.contains(version, prereleases=True), f"{name}=={version}; run: make pin"


def test_the_python_versions_agree():
    assert SpecifierSet(PROJECT["requires-python"]).contains("3.13")
    newest = re.search(r"\(3, 11\) <= sys.version_info\[:2\] <= \(3, (\d+)\)", (REPOSITORY / "Makefile").read_text())
    assert newest and all(SpecifierSet(PROJECT["requires-python"]).contains(f"3.{m}") for m in (11, int(newest[1])))
