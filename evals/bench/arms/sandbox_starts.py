"""Starts sandboxed processes as it is told: a line `python` or `true`, answered with two times in milliseconds, from
the call of `start` until the process has run, and until it was killed and reaped.

    PYTHONPATH=TREE/src python sandbox_starts.py
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from pathlib import Path

from speciate import sandbox
from speciate.sandbox import Sandbox, start

PROGRAMS = {"python": [sys.executable, "-I", "-c", "import os; os.write(1, b'x')"], "true": ["/bin/true"]}


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        cage = Sandbox((), Path(folder), code=True)
        print(json.dumps(sandbox.__file__), flush=True)
        for line in sys.stdin:
            began = time.perf_counter()
            process = start(PROGRAMS[line.strip()], cage)
            process.stdout.read(1)
            ran = time.perf_counter()
            process.kill()
            print(json.dumps([1000 * (ran - began), 1000 * (time.perf_counter() - began)]), flush=True)


if __name__ == "__main__":
    main()
