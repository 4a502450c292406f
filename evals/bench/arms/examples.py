"""What the peers' scripts share: reading the examples of a split, and saying how a model does. Standard library, Pillow
and numpy alone, so that every peer's environment runs it.

A folder holds `SPLIT.csv` (input, label) or pictures as `SPLIT/LABEL/NUMBER.png`. `final` is what no arm has seen: it
is judged after the model is saved, and the seconds for it are told, so that they can be taken off.
"""

from __future__ import annotations

import csv
import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple


class Examples(NamedTuple):
    inputs: list[Any]
    """Texts, or uint8 (H, W) each."""
    labels: list[str]


def read(folder: Path, *splits: str) -> Examples:
    found = [each for split in splits for each in (_pictures if (folder / split).is_dir() else _rows)(folder, split)]
    return Examples([medium for medium, _ in found], [label for _, label in found])


def _rows(folder: Path, split: str) -> list[tuple[Any, str]]:
    with (folder / f"{split}.csv").open(newline="") as file:
        return [(row["input"], row["label"]) for row in csv.DictReader(file)]


def _pictures(folder: Path, split: str) -> list[tuple[Any, str]]:
    import numpy as np
    from PIL import Image

    return [(np.asarray(Image.open(path)), path.parent.name) for path in sorted((folder / split).glob("*/*.png"))]


def tell(folder: Path, predict: Callable[[list[Any]], Sequence[str]], *splits: str, **facts: Any) -> None:
    """One line of JSON, the last on stdout: accuracy on `splits`, in the clock, and on `final`, out of it."""
    accuracy = {split: _accuracy(read(folder, split), predict) for split in splits}
    before = time.perf_counter()
    accuracy["final"] = _accuracy(read(folder, "final"), predict)
    print(json.dumps({"accuracy": accuracy, "uncounted": time.perf_counter() - before, **facts}))


def _accuracy(examples: Examples, predict: Callable[[list[Any]], Sequence[str]]) -> float:
    pairs = zip(predict(examples.inputs), examples.labels, strict=True)
    return sum(str(answer) == truth for answer, truth in pairs) / len(examples.labels)
