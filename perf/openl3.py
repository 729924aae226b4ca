"""Windows a second on one core: `embed_audio` of L3-Net, beside OpenL3's own interface with a tower of the same size.

    python -m perf.openl3 --python ENVIRONMENT/bin/python [--representation linear] [--seconds 10] [--rounds 3]

OpenL3 requires TensorFlow, so it runs in an environment of its own, whose Python is given. There `import openl3` must
work, and its network is built with random weights: no weights are downloaded, and a checkout of its source in
PYTHONPATH will do (with tensorflow-cpu, tf-keras, kapre, resampy, soundfile, scikit-image, scikit-learn and moviepy).
Both embed the same noise at 48 kHz, 1 s every .1 s, after a first call that is not timed, in turn. With --assert, the
program exits with 1 if the bound does not hold.
"""

import argparse
import os
import subprocess
import sys
from pathlib import Path

from perf.rounds import Ratio, Rounds, Speed, end, in_turns, parser_of, print_speeds, report

AT_LEAST = 3.0  # times as many windows a second
ONE_CORE = {"OMP_NUM_THREADS": "1", "TF_NUM_INTRAOP_THREADS": "1", "TF_NUM_INTEROP_THREADS": "1"}
COMMON = """
import sys, time
import numpy as np
sound = (0.1 * np.random.default_rng(0).standard_normal(int(float(sys.argv[1]) * 48_000))).astype(np.float32)
def timed(embed):
    embed(sound[:96_000])
    processor, clock = time.process_time(), time.perf_counter()
    embeddings, _ = embed(sound)
    processor, clock = time.process_time() - processor, time.perf_counter() - clock
    print(embeddings.shape[1], len(embeddings) / processor, len(embeddings) / clock)
"""
OPENL3 = """
import tempfile
import openl3
from openl3 import models
with tempfile.TemporaryDirectory() as folder:
    weights = f"{folder}/random.h5"
    models.AUDIO_MODELS[sys.argv[2]](include_frontend=True).save_weights(weights)
    model = models.load_audio_embedding_model_from_path(weights, sys.argv[2], 512)
timed(lambda part: openl3.get_audio_embedding(part, 48_000, model=model, hop_size=0.1, verbose=False))
"""
EARSHOT = """
from pathlib import Path
import torch
from earshot.embedding.network import NetworkModel
from earshot.networks.correspondence.l3 import CORRESPONDENCE
torch.manual_seed(0)
model = NetworkModel(CORRESPONDENCE(width=1.0, stride=1).eval(), Path())
timed(lambda part: model.embed_audio(part, 48_000, hop=0.1))
"""


def main() -> None:
    """Run the command line."""
    parser = parser_of(__doc__)
    parser.add_argument("--python", type=Path, required=True, help="the Python that can import openl3")
    parser.add_argument("--representation", choices=("linear", "mel128", "mel256"), default="linear")
    parser.add_argument("--seconds", type=float, default=10, help="of sound")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    kinds = {
        "OpenL3": lambda: windows_a_second(options.python, OPENL3, options),
        "Earshot": lambda: windows_a_second(Path(sys.executable), EARSHOT, options),
    }
    speeds = in_turns(kinds, options.rounds, warm_up=0)  # each process warms up for itself
    print_speeds("windows a second, one core", speeds)
    end(options, report(ratios(speeds)))


def ratios(speeds: dict[str, Rounds]) -> list[Ratio]:
    """The measurement beside its bound."""
    return [Ratio.of("Earshot / OpenL3", speeds["Earshot"], speeds["OpenL3"], by="processor", least=AT_LEAST)]


def windows_a_second(python: Path, program: str, options: argparse.Namespace) -> Speed:
    """Of one program in a process of its own."""
    command = [str(python), "-c", COMMON + program, str(options.seconds), options.representation]
    variables = {"TF_USE_LEGACY_KERAS": "1", "CUDA_VISIBLE_DEVICES": "", "TF_CPP_MIN_LOG_LEVEL": "2"}
    done = subprocess.run(command, env=os.environ | ONE_CORE | variables, check=True, stdout=subprocess.PIPE, text=True)
    dimensions, *speed = done.stdout.split()[-3:]
    assert int(dimensions) == 512, dimensions
    return Speed(*map(float, speed))


if __name__ == "__main__":
    main()
