"""Memory and time of a computation, measured in a separate process."""

import json
import subprocess
import sys

from conftest import REPOSITORY

# The kernel's own value: getrusage would return the peak of the parent process.
MEASURE = """
import json, re, sys, time
def peak():
    return int(re.search(r"VmHWM:\\s+(\\d+)", open("/proc/self/status").read())[1]) / 1024
{imports}
before, began = peak(), time.process_time()
result = {work}
print(json.dumps([result, peak() - before, time.process_time() - began]))
"""


def measured(imports: str, work: str, *arguments: object) -> tuple[object, float, float]:
    """The result of an expression, the megabytes at its peak above those of its imports, and its processor seconds.

    `arguments` are its sys.argv.
    """
    code = MEASURE.format(imports=imports, work=work)
    command = [sys.executable, "-c", code, *map(str, arguments)]
    done = subprocess.run(command, cwd=REPOSITORY, check=True, capture_output=True, text=True)
    return tuple(json.loads(done.stdout))
