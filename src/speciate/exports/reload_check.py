"""A version's folder loaded in a new process: its answers there, and the memory that it adds.

python -m speciate.exports.reload_check < request.json
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from speciate.datasets.loading.loader import Example, load_examples
from speciate.environment import clean_environment
from speciate.errors import Code, SpeciateError
from speciate.evaluation.payload import EvaluationPayload
from speciate.exports.exportable import scores
from speciate.sandbox import python
from speciate.tasks.example_targets import evaluation_examples, settle_terms
from speciate.tasks.predictor import load
from speciate.workspace.workspace import Folders

_PATIENCE_SECONDS = 600.0
_MODULE = "speciate.exports.reload_check"


class ReloadedAnswers(NamedTuple):
    scores: list[npt.NDArray[Any]]
    memory_mb: float | None
    """Megabytes at the peak of loading and answering; None if the system does not count them."""


def load_questions(folders: Folders, task: EvaluationPayload, ids: Sequence[str] | None = None) -> list[Example]:
    """The examples as the model sees them, by id; all of the split, or `ids`."""
    inputs = task.models[0].inputs or task.dataset.inputs
    manifest = task.dataset.model_copy(update={"inputs": inputs})
    examples = load_examples(folders, manifest, {task.split} if task.split else None, ids)
    terms = settle_terms(task.terms, task.task, examples)
    return [one.example for one in evaluation_examples(examples, manifest, task.target_column, task.task, terms)]


def answer_in_new_process(
    folders: Folders, model: Path, task: EvaluationPayload, ids: Sequence[str], out: Path
) -> ReloadedAnswers:
    """Raises INVALID if the process cannot load the folder or answer."""
    request = {
        "root": str(folders.root), "model": str(model), "task": task.model_dump(mode="json"), "ids": list(ids),
        "out": str(out),
    }  # fmt: skip
    done = subprocess.run(
        python(_MODULE), input=json.dumps(request), env=clean_environment(), timeout=_PATIENCE_SECONDS,
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    if done.returncode:
        why = next((line for line in reversed(done.stderr.splitlines()) if line.strip()), "it ended")
        raise SpeciateError(
            Code.INVALID,
            f"A process that has just started cannot answer with {model}: {why[:300]}",
            "Call export_model again with another format.",
        )
    with np.load(out, allow_pickle=False) as kept:
        found = [kept[str(place)] for place in range(len(kept.files))]
    memory = json.loads(done.stdout.splitlines()[-1])["memory_mb"]
    return ReloadedAnswers(found, memory)


def main() -> None:
    request = json.load(sys.stdin)
    folders, task = Folders(Path(request["root"])), EvaluationPayload.model_validate(request["task"])
    examples = load_questions(folders, task, request["ids"])
    pa.default_memory_pool().release_unused()
    before = _reset_peak_mb()
    found = scores(load(Path(request["model"])), examples)
    memory = None if before is None else round(max(_status_mb("VmHWM") - before, 0.0), 1)
    named: Mapping[str, Any] = {str(place): each for place, each in enumerate(found)}
    np.savez(request["out"], **named)
    sys.stdout.write(json.dumps({"memory_mb": memory}) + "\n")


def _reset_peak_mb() -> float | None:
    """Start counting the peak anew; returns what is resident now."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
        return _status_mb("VmRSS")
    except (OSError, StopIteration):
        return None


def _status_mb(field: str) -> float:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{field}:")) / 1024


if __name__ == "__main__":
    main()
