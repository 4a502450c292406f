"""What a base model's ref means to a training: where its weights lie, what it reads, its licence, and what it has seen.

Validation examples that a base model of ours learned from cannot evaluate what is trained from it: they are excluded.
Weights remember. A split that was drawn anew would make a warm start look better than it is. What an earlier version
was only selected on stays: that is as optimistic as every choice among candidates."""

from __future__ import annotations

import contextlib
import hashlib
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from speciate.datasets.loading.loader import Example
from speciate.datasets.versions import Manifest
from speciate.errors import CallAgain, Code, SpeciateError
from speciate.evaluation.contamination import find_seen, learned_from, learned_validation
from speciate.jobs.run import Run
from speciate.models import model_folder, registry, trust
from speciate.models.backbones.architectures import ARCHITECTURES, modality_of, refuse_adapter
from speciate.models.backbones.exported import refuse_training
from speciate.models.backbones.timm_names import check_timm_name
from speciate.models.model_card import ModelCard
from speciate.models.published.architectures import PublishedHead, find_head
from speciate.refs import model_ref
from speciate.training.train_spec import Payload
from speciate.workspace.workspace import Folders, Workspace

_COPY_FOLDER = "copies"
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
    learned_validation: bool = False
    """Whether its weights learned from validation examples of those data, too (`refit`)."""
    inputs: tuple[str, ...] = ()
    """The columns that a model of ours was trained on."""
    head: PublishedHead | None = None
    """Head that it was published with."""

    @property
    def fresh(self) -> bool:
        """Whether nothing was learned yet."""
        return self.folder is None


def find_base(workspace: Workspace, base_model: str) -> Base:
    """Raises NOT_FOUND with near names, MISSING_EXTRA for a package that is absent, INVALID for other sources."""
    ref = model_ref(base_model)
    if ref.source in ("new", "timm"):
        _check_fresh(base_model)
        return Base(base_model, modality_of(base_model), None, None)
    if ref.source == "path":
        folder = Path(ref.name)
        if not folder.is_dir():
            raise SpeciateError(Code.NOT_FOUND, f"There is no folder {ref.name!r}.", "Name an existing model folder.")
        model_folder.check_weights(folder)
        refuse_adapter(folder)
        return Base(base_model, modality_of(base_model), folder, None, head=_head_in(folder))
    version = registry.resolve(workspace.database, workspace.folders, ref)
    if model_folder.is_export(version.path):
        raise refuse_training(version.ref)
    card, modality = version.card, modality_of(version.ref, version.path)
    learned, head = _training_data(workspace, card), _head_in(version.path)
    saw = learned_validation(workspace.database, workspace.folders, card)
    return Base(version.ref, modality, version.path, card.license, learned, saw, card.inputs, head)


def _head_in(folder: Path) -> PublishedHead | None:
    return None if model_folder.has_backbone(folder) else find_head(folder)


def _training_data(workspace: Workspace, card: ModelCard) -> tuple[Manifest, ...] | None:
    """Nothing of ours for published weights."""
    ours = card.dataset is not None or bool(card.parents)
    return learned_from(workspace.database, workspace.folders, card) if ours else ()


@contextlib.contextmanager
def copy_caller_folders(run: Run, payload: Payload) -> Iterator[Payload]:
    """The payload of a run, whose folders that a caller named are copies that nobody else can change, for as long as it
    lasts. REFUSED where trust.py refuses one of them."""
    place = run.folder.path / _COPY_FOLDER
    shutil.rmtree(place, ignore_errors=True)  # of an attempt that was killed
    try:
        yield payload.model_copy(
            update={
                "base_folder": payload.base_folder
                and _copy_folder(place, payload.spec.base_model, payload.base_folder),
                "part_encoders": tuple(
                    each.model_copy(
                        update={"folder": each.folder and _copy_folder(place, each.base_model, each.folder)}
                    )
                    for each in payload.part_encoders
                ),
                "teachers": tuple(
                    each.model_copy(update={"folder": _copy_folder(place, each.model, each.folder)})
                    for each in payload.teachers
                ),
            }
        )
    finally:
        shutil.rmtree(place, ignore_errors=True)


def _copy_folder(place: Path, ref: str | None, folder: str) -> str:
    """A copy with the same name, the key of cached vectors; the folder itself for the registry or a package."""
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
        next=[CallAgain("train_model", {"method": "full"})],
    )


def _check_fresh(base_model: str) -> None:
    if base_model.startswith("timm:"):
        check_timm_name(base_model)
    if base_model.startswith("new:") and base_model not in ARCHITECTURES:
        raise SpeciateError(
            Code.NOT_FOUND,
            f"There is no architecture {base_model!r}.",
            f"Use one of: {', '.join(ARCHITECTURES)}, or timm:NAME.",
        )


class UnseenExamples(NamedTuple):
    examples: Sequence[Example]
    left_out: int | None = 0
    """Validation examples that the base model or a teacher learned from; None where its data are not known any more."""

    def notes(self, payload: Payload) -> list[str]:
        base = " and ".join(_prior_models(payload))
        if self.left_out is None:
            return [f"The data that {base} learned from are not here any more: if it saw these, it looks too good."]
        if self.left_out:
            return [f"{self.left_out} validation examples that {base} has learned from were excluded."]
        return []


def drop_seen(folders: Folders, payload: Payload, examples: Sequence[Example]) -> UnseenExamples:
    """The examples without the validation examples that a base model or a teacher learned from.

    Weights remember: such examples would make a warm start look better than it is. Examples that an earlier version was
    only selected on stay; that is as optimistic as every choice among candidates. Raises INVALID where nothing remains
    to evaluate on. Folds cannot evaluate either, if the base model learned from any of their examples: what is left of
    each would be another sample than what is learned.
    """
    before, base = _learned_manifests(payload), " and ".join(_prior_models(payload))
    if before is None:
        return UnseenExamples(examples, None)
    if not before:
        return UnseenExamples(examples)
    held = [example.id for example in examples if example.split == "validation"]
    ids = held or [example.id for example in examples]
    splits = ("train", "validation") if payload.base_learned_validation else ("train",)
    known = find_seen(folders, payload.manifest, ids, before, splits)
    if known and (not held or len(known) == len(held)):
        raise no_unseen_examples(base, payload.dataset, bool(held))
    return UnseenExamples([each for each in examples if each.split != "validation" or each.id not in known], len(known))


def _learned_manifests(payload: Payload) -> tuple[Manifest, ...] | None:
    """What the weights and whoever teaches them have learned from: an answer of a teacher tells what it remembers."""
    known = [
        payload.base_learned_from,
        *(each.learned_from for each in payload.teachers),
        *(each.learned_from for each in payload.part_encoders),
    ]
    if any(each is None for each in known):
        return None
    return tuple({version.ref: version for each in known for version in each or ()}.values())


def _prior_models(payload: Payload) -> list[str]:
    """Models of this workspace that the training begins with or that teach."""
    base = [payload.spec.base_model] if payload.base_learned_from != () and payload.spec.base_model else []
    beside = [each.base_model for each in payload.part_encoders if each.learned_from != ()]
    return list(dict.fromkeys([*base, *beside, *(teacher.model for teacher in payload.teachers)]))


def no_unseen_examples(base_model: str, dataset: str, validation: bool) -> SpeciateError:
    which = "all validation examples" if validation else "examples of the training split, and there is no other"
    return SpeciateError(
        Code.INVALID,
        f"{base_model} has learned from {which} of {dataset}: they cannot tell how good what begins with it is.",
        "Call train_model with another base_model or teacher, without continue_from; or "
        f"add_examples(dataset={dataset!r}) "
        "with new ones whose split is 'validation'.",
    )
