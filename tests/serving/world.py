"""Trained versions that can be served, and damaged ones: each as registration would lay it down."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np

from speciate.models import estimators, registry, sealed
from speciate.models.registry import ModelVersion
from speciate.promotion import aliases
from speciate.workspace.workspace import Workspace
from tests.training.world import define, make_dataset, thirds, train_now

USE_CASE, MODEL = "reviews", "films-model"
_ESTIMATOR = "estimator.safetensors"


def trained(workspace: Workspace, examples: int = 80, **limits: float) -> ModelVersion:
    """The use case, its data, and the first version of its model."""
    define(workspace, USE_CASE, "text-classification")
    labels = ["good" if i % 4 < 2 else "bad" for i in range(examples)]
    texts = [f"a {label} film {i}" for i, label in enumerate(labels)]
    make_dataset(workspace, "films", "text", {"text": texts}, labels=labels, splits=thirds(examples), inputs=["text"])
    few = {"candidates": ["logistic"]}
    train_now(workspace, name=MODEL, dataset="films", method="classical", hyperparameters=few)
    return registry.resolve(workspace.database, workspace.folders, MODEL)


def version(workspace: Workspace, like: ModelVersion, change: Callable[[Path], None], mark: str) -> str:
    """The next version: the files of `like` as `change` leaves them, sealed, then as `spoil`ed where that is asked."""
    staged = workspace.folders.runs / f"staged-{mark}"
    shutil.copytree(like.path, staged)
    for name in (sealed.MANIFEST, sealed.CARD):
        (staged / name).unlink()
    change(staged)
    card = like.card.model_copy(update={"version": 0, "id": sealed.seal(staged)})
    return workspace.database.transact(lambda tx: registry.register(tx, workspace.folders, card, staged)).ref


def scaled(factor: float) -> Callable[[Path], None]:
    """Other weights with the same answers, so that it is another version; NaN makes it answer nothing but NaN."""

    def change(folder: Path) -> None:
        arrays, about = estimators.load_arrays(folder / _ESTIMATOR)
        changed = {
            name: (array * factor).astype(array.dtype) if np.issubdtype(array.dtype, np.floating) else array
            for name, array in arrays.items()
        }
        (folder / _ESTIMATOR).unlink()
        estimators.save_arrays(changed, folder / _ESTIMATOR, about)

    return change


def spoil(workspace: Workspace, ref: str) -> None:
    """Change a byte of a registered version: it is not what was sealed any more."""
    path = registry.resolve(workspace.database, workspace.folders, ref).path / _ESTIMATOR
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.unlink()  # the file is a hard link to that of the run
    path.write_bytes(data)


def move(workspace: Workspace, model: str, action: str = "promote") -> None:
    workspace.database.transact(
        lambda tx: aliases.move(
            tx, use_case=USE_CASE, model=model, expected=None, action=action, actor="ada", evidence={}
        )
    )
