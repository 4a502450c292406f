"""How many bytes a training will write, from what its base model takes on disk: rather too much than too little.

Where every weight changes, a checkpoint has the weights and Adam's two moments of each; two are kept while a third is
written, and the model itself follows. Where few weights change, what is written is hardly more than the merged model.
That a base in half precision doubles where it is trained in single precision is not counted, nor are logs.
"""

from __future__ import annotations

from pathlib import Path

_WEIGHTS = (".safetensors", ".bin", ".pt", ".npz")
_IN_A_CHECKPOINT, _CHECKPOINTS = 3, 3
_FEW = 1.5
_EVERY_WEIGHT = frozenset({"full", "replay", "der", "lwf", "ewc", "distill"})
"""Methods of small networks; those of language models say it by their hyperparameter `changes`."""


def bytes_written(method: str, changes: str | None, base_folder: str | None) -> int | None:
    """None where no base model lies on disk: such trainings write little."""
    size = _size(Path(base_folder)) if base_folder else 0
    if not size:
        return None
    whole = changes == "full" or (changes is None and method in _EVERY_WEIGHT)
    return size * (_IN_A_CHECKPOINT * _CHECKPOINTS + 1) if whole else int(_FEW * size)


def _size(folder: Path) -> int:
    """Of the weights; a folder that is gone has none."""
    files = [folder] if folder.is_file() else folder.glob("*")
    return sum(path.stat().st_size for path in files if path.suffix in _WEIGHTS and path.is_file())
