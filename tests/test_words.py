"""One word for one thing: names use the words of docs/concepts.md and of the field's libraries."""

import ast
import json
import re
import subprocess
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path

import pytest
from conftest import PARAMS, REPOSITORY

from earshot.core.registry import find_all
from earshot.core.yaml_files import flatten, read_yaml
from earshot.params.schema import parameter_names

# Words that once had a meaning of their own here, and the word that has it now.
INSTEAD = {
    "wanted": "expected, options or spec",
    "growing": "temporary_path",
    "picture": "image",
    "pictures": "images",
    "sense": "modality",
    "senses": "modalities",
    "deal": "shard, sample or derange",
    "dealing": "sharding",
    "dealt": "deranged",
    "switches": "options",
    "facts": "metadata",
    "regions": "rois",
    "strongest": "top or max",
    "sounding": "audible",
    "unanswerable": "NotApplicable",
    "heed": "record_response",
    "sayings": "ERROR_PATTERNS",
    "vain": "MAX_FAILURES",
    "surroundings": "background",
}
# Past participles: fine in the sentences that name tests, but no nouns elsewhere.
INSTEAD_OF_NOUN = {
    "asked": "requested",
    "told": "predicted, annotations or message",
    "said": "annotations or message",
    "found": "actual or result",
    "shown": "displayed",
    "made": "output",
    "heard": "audio",
    "seen": "images",
    "probed": "probe_features or result",
    "chosen": "gather or selected",
    "shortest": "min_duration",
    "gave": "record_success",
    "tree": "data_dir or dataset",
    "nothing": "skipped",
}
AMERICAN = {
    "behaviour": "behavior",
    "behaviours": "behaviors",
    "grey": "gray",
    "colour": "color",
    "colours": "colors",
    "centre": "center",
    "centred": "centered",
    "centres": "centers",
    "neighbour": "neighbor",
    "neighbours": "neighbors",
    "normalise": "normalize",
    "normalised": "normalized",
    "optimise": "optimize",
    "optimiser": "optimizer",
    "labelled": "labeled",
    "localise": "localize",
    "localisation": "localization",
    "initialise": "initialize",
    "initialisation": "initialization",
    "licence": "license",
}
# Several words, one after the other.
PHRASES = {
    "by_heart": "overfits",
    "even_out": "calibrate_bias",
    "one_speaks": "report_first_error",
    "near_means_match": "sign_is_correct",
    "name_clips": "set_clips_hash",
    "stand_on": "check_worker",
    "giving_nothing": "never_succeeded",
    "clip_norm": "grad_clip_norm",
    "accuracy_spread": "accuracy_std",
}
# Whole names of classes, functions and attributes.
NAMES = {
    "View": "RenderedScene",
    "Run": "StageContext",
    "Question": "Context",
    "Answer": "Result",
    "Shown": "ExhibitResult",
    "Ground": "WorkerEnvironment",
    "Standing": "WorkerCheck",
    "Lost": "Failure",
    "Held": "RateLimited",
    "Machines": "LinearSVMs",
    "Located": "LocalizationExample",
    "Codes": "BinaryCodes",
    "ahead": "prefetch",
    "finishing": "resume_params",
}
PARAMETERS = {
    "jitter": "brightness, contrast, saturation, hue or gain_jitter",
    "volume": "gain_jitter",
    "flip": "flip_prob",
    "crop": "crop_min_scale",
    "drops": "lr_steps",
    "drop": "lr_gamma",
    "keep": "checkpoint_selection",
    "batch": "batch_size",
    "threads": "num_threads",
    "clip_seconds": "decode_timeout_s",
    "seconds_limit": "timeout_s",
    "minutes_limit": "max_duration_s",
}
OPTIONS = {"first": "first_seed"}
METRICS = {
    r"ranked": "roc_auc",
    r"C_.*": "svm_c",
    r"floor_.*": "random_order_",
    r"whole_.*": "full_image_",
    r"other_sound_.*": "mismatched_audio_",
    r"neighbou?rs_.*": "knn_precision",
}
FILES = {
    "corpus": ["guard", "pace", "fetching", "section"],
    "evaluation": ["moments", "objects", "pictures"],
    "exhibits": ["boxes", "draw"],
    "labels": ["seen"],
    "media": ["child", "columns"],
    "networks": ["parts"],
    "training": ["chance", "encoders", "pretext", "processes"],
    "world": ["listening", "sights", "causes"],
}
KEPT = {
    *("link_tree", "ElementTree", "copytree", "rmtree", "ls_tree"),  # a folder with all in it; XML
    "made_by",  # of a figure: the runs and parameters that made it
    "NOTHING",  # of a benchmark: what sound taught
}
WORD = re.compile(r"[A-Z]?[a-z0-9]+|[A-Z]+(?![a-z])")


def identifiers(file: Path) -> set[str]:
    """The names that a Python file defines: modules, classes, functions, arguments, variables, attributes, fields."""
    names = {file.stem}
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            names.add(node.name)
        elif isinstance(node, ast.arg):
            names.add(node.arg)
        elif isinstance(node, ast.Name | ast.Attribute) and isinstance(node.ctx, ast.Store):
            names.add(node.id if isinstance(node, ast.Name) else node.attr)
    return names


def instead_of(name: str) -> str:
    """What a name with a word of old uses today; empty for other names."""
    words = [word.lower() for word in WORD.findall(name)]
    table = INSTEAD | AMERICAN | ({} if name.startswith("test_") else INSTEAD_OF_NOUN)
    phrase = f"_{'_'.join(words)}_"
    phrases = [word for old, word in PHRASES.items() if f"_{old}_" in phrase and f"_{word}_" not in phrase]
    return next((table[word] for word in words if word in table), "") or next(iter(phrases), NAMES.get(name, ""))


def strange(names: Iterable[str]) -> dict[str, str]:
    """Names with a word that has another one now, and that one."""
    return {name: word for name in set(names) - KEPT if (word := instead_of(name))}


def options(file: Path) -> set[str]:
    """The options of the command lines that a Python file defines, of click or argparse: `first_seed`."""
    calls = [node for node in ast.walk(ast.parse(file.read_text())) if isinstance(node, ast.Call)]
    texts = [argument.value for call in calls for argument in call.args if isinstance(argument, ast.Constant)]
    return {text[2:].replace("-", "_") for text in texts if re.fullmatch(r"--[a-z][a-z-]*", str(text))}


def header(file: Path) -> list[str]:
    return file.read_text().partition("\n")[0].split(",")


def metrics() -> set[str]:
    """The keys of the committed metrics, and the columns of the committed tables of metrics."""
    keys = {key for file in (REPOSITORY / "metrics").glob("*.json") for key in json.loads(file.read_text())}
    return keys | {key for file in (REPOSITORY / "metrics").rglob("*.csv") for key in header(file)}


def python_files() -> list[Path]:
    listed = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard", "*.py"], cwd=REPOSITORY, capture_output=True, text=True
    )
    files = [REPOSITORY / name for name in listed.stdout.splitlines()] or [*REPOSITORY.glob("earshot/**/*.py")]
    return [file for file in files if file.exists()]


def test_identifiers_use_the_words_of_the_field():
    assert not {f"{file.relative_to(REPOSITORY)}: {name}": word for file in python_files()
                for name, word in strange(identifiers(file)).items()}  # fmt: skip


def test_options_use_the_words_of_the_field():
    for file in python_files():
        names = options(file)
        assert not strange(names) and not names & OPTIONS.keys(), file.relative_to(REPOSITORY)


def test_parameters_use_the_words_of_the_field():
    recipes = (REPOSITORY / "recipes").glob("*.yaml")
    names = {*parameter_names(), *(key for file in [PARAMS, *recipes] for key, _ in flatten(read_yaml(file)))}
    parts = {part for name in names for part in name.split(".")}
    assert len(parts) > 100 and not strange(parts) and not parts & PARAMETERS.keys()


def test_metrics_use_the_words_of_the_field():
    keys = metrics()
    assert len(keys) > 200 and not strange(keys)
    assert not [key for key in keys for old in METRICS if re.fullmatch(old, re.sub("^(wrong_sound|random)_", "", key))]


def test_columns_of_exhibits_use_the_words_of_the_field():
    tables = [table for exhibit in find_all("earshot.exhibits", "EXHIBIT").values() for table in exhibit.tables.items()]
    assert len(tables) > 5 and not strange({name for table, schema in tables for name in (table, *schema.names)})


def test_scripts_of_the_report_use_the_words_of_the_field():
    script = (REPOSITORY / "earshot/report/static/report.js").read_text()
    names = set(re.findall(r"(?:const|let|function|class)\s+(\w+)", script))
    assert len(names) > 20 and not strange(names - {"picture"})  # an element of HTML


def test_files_have_the_names_of_the_field():
    old = [f"{folder}/{name}.py" for folder, names in FILES.items() for name in names]
    assert not [name for name in old if (REPOSITORY / "earshot" / name).exists()]
    assert not (REPOSITORY / "benchmarks").exists() and not (REPOSITORY / "earshot" / "insight").exists()


def test_every_class_has_a_name_of_its_own():
    places = defaultdict(list)
    for file in python_files():
        name = file.relative_to(REPOSITORY)
        if name.parts[0] in ("earshot", "stages"):
            for node in ast.walk(ast.parse(file.read_text())):
                if isinstance(node, ast.ClassDef):
                    places[node.name].append(str(name))
    assert len(places) > 100 and not {name: files for name, files in places.items() if len(files) > 1}


@pytest.mark.parametrize(
    "text",
    [
        *("def read_picture(): pass", "def f(told): pass", "self.asked = 1", "class Senses: pass", "class View: pass"),
        *("def test_a_colour(): pass", "max_clip_norm = 1", "def learn_by_heart(): pass"),
    ],
)
def test_a_word_of_old_is_noticed(text, tmp_path):
    (tmp_path / "module.py").write_text(text)
    assert strange(identifiers(tmp_path / "module.py"))


@pytest.mark.parametrize("text", ["def test_it_is_found(): pass", "grad_clip_norm = 5", "views = []"])
def test_words_of_today_are_not(text, tmp_path):
    (tmp_path / "module.py").write_text(text)
    assert not strange(identifiers(tmp_path / "module.py"))


def test_an_option_of_old_is_noticed(tmp_path):
    (tmp_path / "module.py").write_text('click.option("--first", "start")\nadd("--min-colour")')
    assert options(tmp_path / "module.py") == {"first", "min_colour"}
