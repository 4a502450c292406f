"""Checkpoints of one training: each written whole or not there, the newest two kept.

    checkpoint-000007/   state.json, weights.safetensors, optimizer.safetensors, best.safetensors, further files,
                         files.json (sha256 of each; written last, see models/sealed.py)

A folder gets its name only when everything in it is on disk, and it is believed only as long as every hash is right.
Tensors are safetensors, all else is JSON: nothing in a checkpoint can run.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
import uuid
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from speciate.errors import Code, SpeciateError
from speciate.models import sealed

if TYPE_CHECKING:
    import torch


_log = logging.getLogger(__name__)
_KEPT = 2
_NAME, _UNFINISHED = "checkpoint-", ".unfinished-"
_STATE, _TENSORS = "state.json", ".safetensors"

Tensors = Mapping[str, "torch.Tensor"]


CheckpointFacts = dict[str, Any]
"""JSON beside the tensors of a checkpoint; each loop or trainer writes its own keys and reads them back."""


class TrainingState(NamedTuple):
    """Everything that a training resumes from."""

    facts: CheckpointFacts
    """JSON."""
    tensors: dict[str, Tensors]
    """Group -> name -> tensor."""


class SavedCheckpoint(NamedTuple):
    state: TrainingState
    files: dict[str, bytes]
    """What was handed to `save` beside the state."""


class Checkpoints:
    """`folder` is where this attempt writes; `earlier` are the folders of those before it, newest first."""

    def __init__(self, folder: Path, earlier: Sequence[Path] = ()) -> None:
        self._folder, self._earlier = folder, earlier

    def save(self, state: TrainingState, files: Mapping[str, bytes]) -> Path:
        """Durable when it returns. Raises OSError where the disk is full; what was there before still stands."""
        from safetensors.torch import save_file

        self._folder.mkdir(parents=True, exist_ok=True)
        for left in self._folder.glob(f"{_UNFINISHED}*"):  # by a process that was killed
            shutil.rmtree(left, ignore_errors=True)
        temporary = self._folder / f"{_UNFINISHED}{uuid.uuid4().hex}"
        temporary.mkdir()
        try:
            for group, tensors in state.tensors.items():
                kept = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
                save_file(kept, temporary / f"{group}{_TENSORS}")
            (temporary / _STATE).write_text(json.dumps(state.facts))
            for name, data in files.items():
                (temporary / name).write_bytes(data)
            sealed.seal(temporary)
            made = self._folder / f"{_NAME}{self._next():06d}"
            temporary.rename(made)
        except BaseException:
            shutil.rmtree(temporary, ignore_errors=True)
            raise
        _flush(self._folder)
        for old in _newest_first(self._folder)[_KEPT:]:
            shutil.rmtree(old, ignore_errors=True)
        return made

    def newest(self) -> SavedCheckpoint | None:
        """The newest complete checkpoint of this attempt, else of those before it."""
        for folder in (self._folder, *self._earlier):
            for path in _newest_first(folder):
                if (saved := _read(path)) is not None:
                    return saved
        return None

    def discard(self) -> None:
        """Delete them: nothing will resume from here."""
        shutil.rmtree(self._folder, ignore_errors=True)

    def _next(self) -> int:
        names = [_number(path) for path in _newest_first(self._folder)]
        return max(names, default=0) + 1


def check_names(found: Iterable[str], expected: Iterable[str], where: str) -> None:
    """Raises INVALID, naming the keys, unless both are the same: a weight that is not restored is worse than none."""
    found, expected = set(found), set(expected)
    missing, foreign = sorted(expected - found), sorted(found - expected)
    if missing or foreign:
        said = [f"{what}: {_listed(keys)}" for what, keys in (("missing", missing), ("unexpected", foreign)) if keys]
        raise SpeciateError(
            Code.INVALID,
            f"The checkpoint's {where} are not those of this training; {'; '.join(said)}.",
            "It belongs to another model or version: call train_model again to begin anew.",
        )


def _listed(keys: Sequence[str]) -> str:
    return ", ".join(repr(key) for key in keys[:5]) + (f" and {len(keys) - 5} more" if len(keys) > 5 else "")


def _read(path: Path) -> SavedCheckpoint | None:
    from safetensors.torch import load_file

    try:
        sealed.check(path)
    except (SpeciateError, ValueError) as error:
        _log.warning("a torn checkpoint is passed over: %s", error)
        return None
    tensors, files = {}, {}
    for name in json.loads((path / sealed.MANIFEST).read_text()):
        if name.endswith(_TENSORS):
            tensors[name.removesuffix(_TENSORS)] = load_file(path / name)
        elif name != _STATE:
            files[name] = (path / name).read_bytes()
    return SavedCheckpoint(TrainingState(json.loads((path / _STATE).read_text()), dict(tensors)), files)


def _newest_first(folder: Path) -> list[Path]:
    return sorted(folder.glob(f"{_NAME}*"), key=_number, reverse=True)


def _number(path: Path) -> int:
    return int(path.name.removeprefix(_NAME))


def _flush(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
