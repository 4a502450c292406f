"""What a base model's ref means to a training: where its weights lie, what it reads, and under which licence."""

from __future__ import annotations

import contextlib
import hashlib
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from speciate.datasets.versions import Manifest
from speciate.errors import Code, SpeciateError
from speciate.evaluation.seen import learned_from
from speciate.jobs.run import Run
from speciate.models import registry, trust, weights
from speciate.models.backbones import saved
from speciate.models.backbones.exported import refuse_training
from speciate.models.backbones.table import ARCHITECTURES, modality_of, refuse_adapter
from speciate.models.card import Card
from speciate.refs import model_ref
from speciate.training.specs import Payload
from speciate.workspace.workspace import Workspace

_COPIES = "copies"
"""Folder of a run."""


class Base(NamedTuple):
    ref: str
    """Canonical: a registered name with its version."""
    modality: str | None
    """None where it cannot be told."""
    folder: Path | None
    """None for fresh weights."""
    license: str | None
    learned_from: tuple[Manifest, ...] | None = ()
    """Data of this workspace that its weights learned from; None where they are not known any more."""
    inputs: tuple[str, ...] = ()
    """The columns that a model of ours was trained on."""

    @property
    def fresh(self) -> bool:
        """Whether nothing was learned yet."""
        return self.folder is None


def find(workspace: Workspace, base_model: str) -> Base:
    """Raises NOT_FOUND with near names, MISSING_EXTRA for a package that is absent, INVALID for other sources."""
    ref = model_ref(base_model)
    if ref.source in ("new", "timm"):
        _check_fresh(base_model)
        return Base(base_model, modality_of(base_model), None, None)
    if ref.source == "path":
        folder = Path(ref.name)
        if not folder.is_dir():
            raise SpeciateError(Code.NOT_FOUND, f"There is no folder {ref.name!r}.", "Name an existing model folder.")
        weights.check_folder(folder)
        refuse_adapter(folder)
        return Base(base_model, modality_of(base_model), folder, None)
    version = registry.resolve(workspace.database, workspace.folders, ref)
    if saved.is_export(version.path):
        raise refuse_training(version.ref)
    card, modality = version.card, modality_of(version.ref, version.path)
    return Base(version.ref, modality, version.path, card.license, _learned_from(workspace, card), card.inputs)


def _learned_from(workspace: Workspace, card: Card) -> tuple[Manifest, ...] | None:
    """Nothing of ours for published weights."""
    ours = card.dataset is not None or bool(card.parents)
    return learned_from(workspace.database, workspace.folders, card) if ours else ()


@contextlib.contextmanager
def copied(run: Run, payload: Payload) -> Iterator[Payload]:
    """The payload of a run, whose folders that a caller named are copies that nobody else can change, for as long as it
    lasts. REFUSED where trust.py refuses one of them."""
    place = run.folder.path / _COPIES
    shutil.rmtree(place, ignore_errors=True)  # of an attempt that was killed
    try:
        yield payload.model_copy(
            update={
                "base_folder": payload.base_folder and _copied(place, payload.spec.base_model, payload.base_folder),
                "teachers": tuple(
                    each.model_copy(update={"folder": _copied(place, each.model, each.folder)})
                    for each in payload.teachers
                ),
            }
        )
    finally:
        shutil.rmtree(place, ignore_errors=True)


def _copied(place: Path, ref: str | None, folder: str) -> str:
    """Of the same name, by which cached vectors are known; itself where it is of the registry or a package."""
    if ref is None or model_ref(ref).source != "path":
        return folder
    source = Path(folder)
    copy = place / hashlib.sha256(folder.encode()).hexdigest()[:16] / source.name
    if not copy.is_dir():
        copy.mkdir(parents=True)
        trust.take(source, copy)
    return str(copy)


def without_linear(base_model: str) -> SpeciateError:
    return SpeciateError(
        Code.INVALID,
        f"The method 'lora' changes linear layers, and {base_model!r} has none, as most convolutions.",
        "Call train_model again with method='full'.",
    )


def _check_fresh(base_model: str) -> None:
    if base_model.startswith("new:") and base_model not in ARCHITECTURES:
        raise SpeciateError(
            Code.NOT_FOUND,
            f"There is no architecture {base_model!r}.",
            f"Use one of: {', '.join(ARCHITECTURES)}, or timm:NAME.",
        )
