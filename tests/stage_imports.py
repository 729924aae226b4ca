"""What the stages import: prints as JSON, a row a stage and choice, the files of this project that are loaded then, the
packages that these files import when they are loaded, and the help of the stage.

    python tests/stage_imports.py '[["label", null], ["evaluate", "voc"]]'

A process of its own imports each stage, the module of the choice and the schema of the parameters. All are forks of
this one, which has imported nothing of this project, and the slowest of all else.
"""

import ast
import contextlib
import importlib
import io
import json
import os
import runpy
import sys
import traceback
from collections.abc import Iterator
from pathlib import Path

import dask.distributed  # noqa: F401
import faiss  # noqa: F401
import pyarrow.parquet  # noqa: F401
import pydantic_settings  # noqa: F401
import ruamel.yaml  # noqa: F401
import sklearn.svm  # noqa: F401
import torchaudio  # noqa: F401
import torchvision  # noqa: F401

REPOSITORY = Path(__file__).parent.parent


def imported(stage: str, choice: str | None) -> Iterator[str]:
    """The files that are loaded, relative to the repository; those that hold nothing but a docstring are left out."""
    importlib.import_module(f"stages.{stage}").STAGE.schema(choice)
    if choice:
        importlib.import_module(f"earshot.{'benchmarks' if stage == 'evaluate' else 'exhibits'}.{choice}")
    for name, module in sorted(sys.modules.items()):
        file = Path(module.__file__ or "") if name.partition(".")[0] in ("earshot", "stages") else Path()
        if file.is_file() and len(ast.parse(file.read_text()).body) > 1:
            yield str(file.relative_to(REPOSITORY))


def described(stage: str) -> str:
    """What `python -m stages.<stage> --help` prints."""
    sys.argv = ["", "--help"]
    with contextlib.redirect_stdout(io.StringIO()) as printed, contextlib.suppress(SystemExit):
        runpy.run_module(f"stages.{stage}", run_name="__main__", alter_sys=True)
    return printed.getvalue()


def packages(files: list[str]) -> list[str]:
    """The packages that these files import at their top level; imports in functions wait until they are needed."""
    names = set()
    for file in files:
        for node in ast.parse((REPOSITORY / file).read_text()).body:
            if isinstance(node, ast.Import):
                names |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                names.add((node.module or "").partition(".")[0])
    return sorted(names)


def main() -> None:
    sys.path.insert(0, str(REPOSITORY))
    for stage, choice in json.loads(sys.argv[1]):
        child = os.fork()
        if not child:
            try:
                files = list(imported(stage, choice))
                print(json.dumps([stage, choice, files, packages(files), described(stage)]), flush=True)
            except Exception:
                traceback.print_exc()
            os._exit(0)
        os.waitpid(child, 0)


if __name__ == "__main__":
    main()
