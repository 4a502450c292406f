"""How much memory a model needs: what one copy of it adds to a process of its own that has just read some examples.

The libraries that it runs on are part of it, as they are where it serves. In the evaluating process itself the figure
would depend on what was loaded before, and on how many copies there are.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa

from speciate.datasets.loading.loader import load_examples
from speciate.datasets.versions import Manifest
from speciate.environment import clean_environment
from speciate.sandbox import python
from speciate.tasks.predictor import load
from speciate.workspace.workspace import Folders

_PATIENCE_SECONDS = 300.0
_MODULE = "speciate.evaluation.predictors.memory_use"


def measure_memory(folders: Folders, model: Path, manifest: Manifest, ids: Sequence[str]) -> float | None:
    """MiB at the peak of loading `model` and answering the examples `ids`; None where it cannot be told."""
    request = {
        "root": str(folders.root),
        "model": str(model),
        "manifest": manifest.model_dump(mode="json"),
        "ids": list(ids),
    }
    try:
        done = subprocess.run(
            python(_MODULE), input=json.dumps(request), env=clean_environment(), timeout=_PATIENCE_SECONDS,
            capture_output=True, text=True, check=True,
        )  # fmt: skip
    except (OSError, subprocess.SubprocessError):
        return None
    return float(json.loads(done.stdout.splitlines()[-1]))


def main() -> None:
    """In the process that is measured: request from stdin, MiB to stdout. Fails where the system counts no peaks."""
    request = json.load(sys.stdin)
    folders, manifest = Folders(Path(request["root"])), Manifest.model_validate(request["manifest"])
    examples = load_examples(folders, manifest, ids=request["ids"])
    pa.default_memory_pool().release_unused()
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts again from here
    before = _status_mb("VmRSS")
    load(Path(request["model"])).predict(examples)
    sys.stdout.write(f"{max(_status_mb('VmHWM') - before, 0.0):.1f}\n")


def _status_mb(field: str) -> float:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{field}:")) / 1024


if __name__ == "__main__":
    main()
