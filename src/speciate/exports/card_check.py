"""Whether an exported folder answers as the model does: the program of its own card, run as it stands but for its
inputs, in a new process that cannot import this package.

    media -> inputs.npz and inputs.json -> the card's program elsewhere -> answers.json
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from speciate.datasets.loading.loader import Example
from speciate.environment import clean_environment
from speciate.tasks.task import Prediction

TOLERANCE = 1e-4
"""Largest difference of probabilities, and of numbers in units of their spread."""
_TIES = 0.05
"""Share of inputs whose answer may differ although all probabilities agree: they lie on a threshold."""
_PATIENCE_SECONDS = 600.0
_INPUTS = re.compile(r"^inputs = .*$", re.MULTILINE)
_PROGRAM = re.compile(r"```python\n(.*?)```", re.DOTALL)
_BEFORE = """
import sys
class _Elsewhere:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "speciate":
            raise ImportError("speciate is not installed")
sys.meta_path.insert(0, _Elsewhere())
import os
sys.path.insert(0, os.getcwd())
def _given(folder):
    import json, numpy
    from pathlib import Path
    arrays = numpy.load(Path(folder) / "inputs.npz", allow_pickle=False)
    def made(value):
        if isinstance(value, dict) and set(value) == {"$array"}:
            return arrays[value["$array"]]
        if isinstance(value, dict) and set(value) == {"$image"}:
            from PIL import Image
            return Image.fromarray(arrays[value["$image"]])
        if isinstance(value, dict):
            return {name: made(each) for name, each in value.items()}
        return [made(each) for each in value] if isinstance(value, list) else value
    return made(json.loads((Path(folder) / "inputs.json").read_text()))
"""
_AFTER = """
import json as _json
from pathlib import Path as _Path
def _plain(value):
    return value.tolist() if hasattr(value, "tolist") else str(value)
_told = {"answers": answers, "scores": globals().get("scores"), "found": globals().get("found")}
(_Path(_FOLDER) / "answers.json").write_text(_json.dumps(_told, default=_plain))
"""


class CardError(Exception):
    """The program of a card did not run, or gave other answers than the model; says why."""


class CardCheck(NamedTuple):
    """How the answers of the card's program compare with ours."""

    n: int
    largest_difference: float
    """Largest difference between two probabilities, or two numbers."""
    ties: int
    """Answers that differ on the threshold between two."""


def check_card(
    folder: Path, media: Sequence[Any], answers: Sequence[Prediction], *, images: bool, tolerance: float = TOLERANCE
) -> CardCheck:
    """Raises CardError. `images`: arrays of pixels are given as images of Pillow."""
    return compare(run_card(folder, media, images=images), answers, tolerance)


def differing(answers: Sequence[Prediction], others: Sequence[Prediction]) -> tuple[float, int]:
    """The largest difference of a probability, or of a number in units of their spread, and how many answers differ."""
    largest, count, spread = 0.0, 0, _spread([each.output for each in answers])
    for one, other in zip(answers, others, strict=True):
        numbers = isinstance(one.output, int | float) and not isinstance(one.output, bool)
        apart = _difference(one.output, other.output, spread) if numbers else 0.0
        table = other.probabilities or {}
        apart = max([apart, *(abs(table.get(name, 0.0) - each) for name, each in (one.probabilities or {}).items())])
        largest, count = max(largest, apart), count + (not numbers and one.output != other.output)
    return largest, count


def program_of(folder: Path) -> str:
    """The first program of the folder's README."""
    found = _PROGRAM.search((folder / "README.md").read_text(encoding="utf-8"))
    if found is None:
        raise CardError("its card has no program")
    return found.group(1)


def run_card(folder: Path, media: Sequence[Any], *, images: bool) -> Mapping[str, Any]:
    """`answers`, and `scores` or `found` where the program has them, as JSON gives them."""
    program = program_of(folder)
    with tempfile.TemporaryDirectory() as named:
        work = Path(named)
        _write_inputs(work, media, images=images)
        program, count = _INPUTS.subn(lambda _: "inputs = _given(_FOLDER)", program)
        if count != 1:
            raise CardError(f"its program has {count} lines of inputs")
        text = "\n".join([f"_FOLDER = {str(work)!r}", _BEFORE, program, _AFTER])
        environment = {**clean_environment(), "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
        done = subprocess.run(
            [sys.executable, "-I", "-B", "-W", "ignore", "-c", text], cwd=folder, env=environment,
            timeout=_PATIENCE_SECONDS, capture_output=True, text=True, check=False,
        )  # fmt: skip
        if done.returncode:
            why = next((line for line in reversed(done.stderr.splitlines()) if line.strip()), "it ended")
            raise CardError(f"its program failed: {why[:300]}")
        told: Mapping[str, Any] = json.loads((work / "answers.json").read_text())
        return told


def compare(told: Mapping[str, Any], answers: Sequence[Prediction], tolerance: float = TOLERANCE) -> CardCheck:
    """Raises CardError where an answer differs, or a probability by more than the tolerance."""
    given = told["answers"]
    if len(given) != len(answers):
        raise CardError(f"it gives {len(given)} answers to {len(answers)} inputs")
    largest, ties = 0.0, 0
    spread = _spread([each.output for each in answers])
    for place, (theirs, ours) in enumerate(zip(given, answers, strict=True)):
        table = _table(told, place)
        if table is not None and ours.probabilities is not None:
            apart = max((abs(table.get(name, 0.0) - value) for name, value in ours.probabilities.items()), default=0.0)
            largest = max(largest, apart)
            if apart > tolerance:
                raise CardError(f"its probabilities of input {place} are {apart:.2g} apart")
        differs = _difference(theirs, _plain(ours.output), spread)
        if differs <= tolerance:
            largest = max(largest, differs)
        elif table is not None and _tied(theirs, ours, tolerance) and ties < max(1, _TIES * len(answers)):
            ties += 1
        else:
            raise CardError(f"it gives another answer to input {place} ({differs:.2g})")
    return CardCheck(len(answers), largest, ties)


def _table(told: Mapping[str, Any], place: int) -> dict[str, float] | None:
    if told.get("scores") is not None:
        return {each["label"]: each["score"] for each in told["scores"][place]}
    if told.get("found") is not None and isinstance(told["found"][place], dict):
        found: dict[str, float] | None = told["found"][place].get("probabilities")
        return found
    return None


def _tied(theirs: Any, ours: Prediction, tolerance: float) -> bool:
    """Whether rounding may decide between two answers: labels as likely as each other, or one label more or less."""
    table = ours.probabilities or {}
    if isinstance(ours.output, str):
        return abs(table.get(str(theirs), -1.0) - table.get(ours.output, 2.0)) <= 2 * tolerance
    both = isinstance(theirs, list) and isinstance(ours.output, list)
    return both and len(set(theirs) ^ set(ours.output)) == 1 and set(theirs) <= set(table)


def _difference(theirs: Any, ours: Any, spread: float) -> float:
    """0 for what is equal, the largest difference of numbers in units of `spread`, infinity for other things."""
    if isinstance(ours, bool | str) or ours is None:
        return 0.0 if theirs == ours else float("inf")
    if isinstance(ours, int | float):
        if not isinstance(theirs, int | float):
            return float("inf")
        return 0.0 if theirs == ours else abs(theirs - ours) / max(spread, abs(ours), 1e-12)
    if isinstance(ours, dict):
        if not isinstance(theirs, dict) or set(theirs) != set(ours):
            return float("inf")
        return max((_difference(theirs[name], each, spread) for name, each in ours.items()), default=0.0)
    if not isinstance(theirs, list) or len(theirs) != len(ours):
        return float("inf")
    return max((_difference(one, other, spread) for one, other in zip(theirs, ours, strict=True)), default=0.0)


def _spread(outputs: Sequence[Any]) -> float:
    numbers = [each for each in outputs if isinstance(each, int | float)]
    return float(np.std(numbers)) if numbers else 1.0


def _plain(value: Any) -> Any:
    """A value as it comes back from JSON."""
    return json.loads(json.dumps(value, default=lambda each: each.tolist() if hasattr(each, "tolist") else str(each)))


def _write_inputs(work: Path, media: Sequence[Any], *, images: bool) -> None:
    arrays: dict[str, npt.NDArray[Any]] = {}

    def told(value: Any) -> Any:
        if isinstance(value, np.ndarray):
            name = str(len(arrays))
            arrays[name] = value
            return {"$image" if images and value.ndim == 3 and value.dtype == np.uint8 else "$array": name}
        if isinstance(value, dict):
            return {name: told(each) for name, each in value.items()}
        return [told(each) for each in value] if isinstance(value, list | tuple) else value

    (work / "inputs.json").write_text(json.dumps([told(each) for each in media], default=str))
    np.savez(work / "inputs.npz", **arrays)  # type: ignore[arg-type]  # names of arrays, no options


def made_up(modality: str | None) -> list[Example]:
    """Media to try a model on whose dataset is not here; none for modalities that need a file."""
    rng = np.random.default_rng(0)
    media: list[Any] = []
    if modality == "text":
        media = [
            "a fine day",
            "It rained, and nobody came.",
            "x" * 40,
            "two words\nand a line",
            " ".join(["long"] * 300),
        ]
    elif modality == "protein":
        media = ["".join(rng.choice(list("ACDEFGHIKLMNPQRSTVWY"), size)) for size in (8, 30, 75)]
    elif modality == "image":
        media = [rng.integers(0, 256, (high, wide, 3), np.uint8) for high, wide in ((32, 32), (48, 20), (100, 130))]
    elif modality == "audio":
        media = [rng.normal(0, 0.1, size).astype(np.float32) for size in (8000, 16000)]
    return [Example(str(place), each, None, str(place), "", {}) for place, each in enumerate(media)]
