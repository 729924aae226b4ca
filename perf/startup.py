"""The processor time of each stage and command before it does anything.

    python -m perf.startup
    python -m perf.startup --folder ../another-checkout    # beside it, in turns
    python -m perf.startup --assert                        # exits with 1 if a bound does not hold

Takes three minutes of processor time a folder. A stage loads its code and its parameters, and ends because its root is
missing; a command prints its help. Beside them stand an empty program and the import of torch alone, which bound what
can be had.
"""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import median

from perf.rounds import end, parser_of

ROUNDS = 5
MISSING = ("--root", "missing", "--params")
STAGES = ("sample", "download", "extract", "describe", "label", "pretrain", "correspond", "report")
CHOICES = {"evaluate": ("--benchmark", ("voc", "nmi", "esc50")), "explain": ("--exhibit", ("units", "clusters"))}
COMMANDS = ("", "scores", "recipe", "tables", "embed")
LIGHT = ("sample", "download", "extract", "describe", "label", "report", "explain clusters")
OF_LIGHT, OF_HELP = 2.0, 0.5  # s, the most
REPOSITORY = Path(__file__).parent.parent
# A process that runs what it is told and prints the processor time of that, so that each has its own measure.
MEASURED = (
    "import json, resource, subprocess, sys; subprocess.run(json.loads(sys.argv[1]), capture_output=True);"
    "used = resource.getrusage(resource.RUSAGE_CHILDREN); print(used.ru_utime + used.ru_stime)"
)


def programs(folder: Path) -> dict[str, list[str]]:
    """The arguments of Python by the name of what is measured."""
    params = str(folder / "params.yaml")
    stages = {name: ["-m", f"stages.{name}", *MISSING, params] for name in STAGES}
    for stage, (option, names) in CHOICES.items():
        stages |= {f"{stage} {name}": ["-m", f"stages.{stage}", option, name, *MISSING, params] for name in names}
    commands = {f"earshot {name}".strip(): ["-m", "earshot", *name.split(), "--help"] for name in COMMANDS}
    return {"an empty program": ["-c", ""], "import torch": ["-c", "import torch"]} | stages | commands


def processor_time(arguments: list[str], folder: Path) -> float:
    """Seconds of processor time of a Python process that runs the code in a folder."""
    command = json.dumps([sys.executable, *arguments])
    environment = os.environ | {"PYTHONPATH": str(folder)}
    with tempfile.TemporaryDirectory() as empty:
        done = subprocess.run(
            [sys.executable, "-c", MEASURED, command], cwd=empty, env=environment, capture_output=True, text=True
        )
    return float(done.stdout)


def main() -> None:
    """Measure everything in turns and print the medians; with --assert, fail if a bound does not hold."""
    parser = parser_of(__doc__)
    parser.add_argument("--folder", type=Path, action="append", default=[], help="another checkout, to compare")
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    options = parser.parse_args()
    folders = [REPOSITORY, *(folder.resolve() for folder in options.folder)]
    times: dict[str, list[list[float]]] = {name: [[] for _ in folders] for name in programs(REPOSITORY)}
    for _ in range(options.rounds):
        for name in times:
            for folder, measured in zip(folders, times[name], strict=True):
                measured.append(processor_time(programs(folder)[name], folder))
    end(options, report({name: [median(measured) for measured in of_folders] for name, of_folders in times.items()}))


def report(medians: dict[str, list[float]]) -> list[str]:
    """Print the seconds of each folder; return the bounds that the first does not keep, a phrase each."""
    for name, of_folders in medians.items():
        print(f"{name:<24}" + "".join(f"{seconds:>8.2f}" for seconds in of_folders))
    most = dict.fromkeys(LIGHT, OF_LIGHT) | {"earshot": OF_HELP}
    return [f"{name} takes {medians[name][0]:.2f} s" for name, seconds in most.items() if medians[name][0] > seconds]


if __name__ == "__main__":
    main()
