"""Checks of methods that need another model: continual learning begins with one, and in distillation one teaches.

Checked before there is a job: that the model is there, that it suits, and its data. Such a method trains like another
one (`replay` like `full`), so the base models of that one suit it."""

from __future__ import annotations

import hashlib
from pathlib import Path

from speciate.datasets import versions
from speciate.datasets.versions import Manifest
from speciate.errors import Call, CallAgain, Code, SpeciateError
from speciate.evaluation.contamination import learned_from
from speciate.models import registry
from speciate.models.backbones.architectures import dividing
from speciate.models.language.causal_lm import check as check_writes
from speciate.models.language.causal_lm import is_causal_lm
from speciate.models.model_card import ModelCard
from speciate.models.model_folder import check_weights, weight_files
from speciate.models.published.manifest import has_trained_head, needs_labels
from speciate.refs import model_ref
from speciate.tasks import soft_targets
from speciate.tasks.families import preference
from speciate.tasks.network_predictor import has_head
from speciate.training.language_hyperparameters import TEXT_TASKS, VISION_TASK, VISION_VARIANTS
from speciate.training.networks.optimizer import LoopParameters
from speciate.training.planning import base_models
from speciate.training.planning.available_methods import check_candidate
from speciate.training.planning.base_models import Base
from speciate.training.recipes import replay_buffer
from speciate.training.train_spec import CONTINUAL, STREAMING, Candidate, Method, Teacher, TrainSpec
from speciate.vocabulary import Family, Task
from speciate.workspace.workspace import Workspace

_TRAINS_AS: dict[str, Method] = {
    "replay": "full", "der": "full", "lwf": "full", "ewc": "full", "distill": "full", "slda": "probe",
}  # fmt: skip

_FAMILIES_WITH_LABELS: tuple[Family, ...] = ("classification",)


def base_method(method: str, family: Family | None = None) -> Method:
    """The method whose base models it takes."""
    if method == "distill" and family == "generation":
        return "sft"
    return _TRAINS_AS.get(method) or method  # type: ignore[return-value]  # what is left is one of those


def suits_family(method: str, family: Family) -> bool:
    """Whether a method of `_TRAINS_AS` does tasks of this family; True for other methods."""
    if method == "distill" and family == "generation":
        return True
    return method not in _TRAINS_AS or family in (
        _FAMILIES_WITH_LABELS if method == STREAMING else soft_targets.FAMILIES
    )


def language_model_teaches(spec: TrainSpec, workspace: Workspace) -> bool:
    """Whether the first teacher is a language model."""
    if spec.method != "distill" or not spec.teacher:
        return False
    ref = model_ref(spec.teacher[0])
    if ref.source in ("path", "api"):
        if ref.source == "path" and Path(ref.name).is_dir():
            check_weights(Path(ref.name))
        return ref.source == "api" or is_causal_lm(Path(ref.name))
    version = registry.resolve(workspace.database, workspace.folders, ref)
    return version.card.task in TEXT_TASKS and is_causal_lm(version.path)  # others write by a head, as T5 does


def resolve_candidate(
    spec: TrainSpec, manifest: Manifest, task: Task, workspace: Workspace
) -> tuple[Candidate, Base | None]:
    """As `check_candidate`. A streaming model keeps its own encoder, whatever that is."""
    if spec.method == STREAMING and spec.base_model and (card := _streaming_card(workspace, spec.base_model)):
        if card.modality != manifest.modality:
            raise SpeciateError(
                Code.INVALID,
                f"{card.ref} reads {card.modality}, and {manifest.ref} holds {manifest.modality}.",
                "Name a dataset of the same modality, or leave continue_from out.",
            )
        base = base_models.find_base(workspace, card.ref)
        return Candidate(method="probe", base_model=base.ref), base
    assert spec.method is not None, "resolve_recipe() sees to it"
    if (task.name == preference.PREFERENCE) != (spec.method == preference.REWARD):
        raise SpeciateError(
            Code.INVALID,
            f"{preference.REWARD!r} alone learns {preference.PREFERENCE!r}, and nothing else: the method is "
            f"{spec.method!r} "
            f"and the task {task.name!r}.",
            f"Call again with method={preference.REWARD!r} and no task, or with another task and method.",
        )
    if task.name == VISION_TASK and spec.method in _TRAINS_AS:
        raise SpeciateError(
            Code.INVALID,
            f"{spec.method!r} does not learn {task.name!r}; {' or '.join(map(repr, VISION_VARIANTS))} does.",
            next=[CallAgain("train_model", {"method": next(iter(VISION_VARIANTS))})],
        )
    family: Family = "generation" if task.name == preference.PREFERENCE else task.family
    wanted = Candidate(method=base_method(spec.method, task.family), base_model=_student_base(spec, task))
    candidate, taken = check_candidate(wanted, manifest.modality, family, workspace)
    if spec.base_model is None and candidate.base_model and _divides_batches(spec):
        other = candidate.model_copy(update={"base_model": dividing(candidate.base_model)})
        return check_candidate(other, manifest.modality, family, workspace)
    return candidate, taken


def _divides_batches(spec: TrainSpec) -> bool:
    """Whether it asks for batches in parts, so that what nobody named should be able to learn them so."""
    at_once = spec.hyperparameters.get("per_device_train_batch_size")
    size = spec.hyperparameters.get("batch_size", LoopParameters().batch_size)
    return (spec.resources.gpu or 0) > 1 or (isinstance(at_once, int) and isinstance(size, int) and at_once < size)


def _student_base(spec: TrainSpec, task: Task) -> str | None:
    """A student that is cut from its teacher needs no other base model."""
    if spec.base_model or spec.method != "distill" or task.name not in TEXT_TASKS or not spec.teacher:
        return spec.base_model
    if not spec.hyperparameters.get("num_hidden_layers"):
        raise SpeciateError(
            Code.INVALID,
            "'distill' needs a student: base_model names none.",
            "Call train_model again with base_model, or with hyperparameters={'num_hidden_layers': N}: the student "
            "then begins as N of the layers of its teacher.",
        )
    return spec.teacher[0]


def _streaming_card(workspace: Workspace, model: str) -> ModelCard | None:
    """The card of a streaming model, which is updated by itself; None of other models."""
    if model_ref(model).source:
        return None
    card = registry.resolve(workspace.database, workspace.folders, model).card
    return card if card.method == STREAMING else None


def check_prior_models(
    spec: TrainSpec, manifest: Manifest, task: Task, base: Base | None, workspace: Workspace
) -> tuple[TrainSpec, tuple[Teacher, ...]]:
    """The spec with its teachers as canonical refs, and those. Raises INVALID, NOT_FOUND or CONFLICT."""
    if spec.method not in _TRAINS_AS:
        if spec.teacher:
            raise SpeciateError(
                Code.INVALID,
                f"teacher is {', '.join(spec.teacher)!r}, and {spec.method!r} learns from the labels alone.",
                next=[CallAgain("train_model", {"method": "distill"}), CallAgain("train_model", {"teacher": None})],
            )
        return spec, ()
    if spec.method == "distill" and task.family == "generation" and task.name not in TEXT_TASKS:
        raise SpeciateError(
            Code.INVALID,
            f"'distill' teaches students that write in answer to texts, and does not do {task.name!r} yet.",
            "Keep the teacher's answers with the operation 'answer' of curate_dataset, and call train_model with "
            "method='sft' and target='answer'.",
        )
    if not suits_family(spec.method, task.family) and spec.method != STREAMING:
        raise SpeciateError(
            Code.INVALID,
            f"{spec.method!r} does {', '.join(soft_targets.FAMILIES)}, and no {task.family} yet.",
            "" if spec.teacher else "Say continue_from, too.",
            next=[CallAgain("train_model", {"method": "full"})],
        )
    if not suits_family(STREAMING, task.family) and spec.method == STREAMING:
        raise SpeciateError(
            Code.INVALID,
            f"{spec.method!r} keeps a mean for each label, and {task.name} has none such.",
            "Or with 'der'.",
            next=[CallAgain("train_model", {"method": "replay"})],
        )
    if spec.method == STREAMING and not (base and _streaming_card(workspace, base.ref)):
        return spec, ()  # the first of its line
    if spec.method in CONTINUAL:
        _check_continual(spec, manifest, task, base, workspace)
        return spec, ()
    of_task = _language_teacher if task.name in TEXT_TASKS else _resolve_teacher
    teachers = tuple(of_task(workspace, name, manifest, task) for name in spec.teacher)
    if not teachers:
        raise SpeciateError(
            Code.INVALID,
            "'distill' needs a model that teaches, and teacher names none.",
            "Call train_model again with teacher='NAME@v1': search_models(query='', installed=true) lists models.",
        )
    return spec.model_copy(update={"teacher": tuple(each.model for each in teachers)}), teachers


def _check_continual(spec: TrainSpec, manifest: Manifest, task: Task, base: Base | None, workspace: Workspace) -> None:
    """That there is a line of data to be kept in mind, and something to judge by that none of it holds."""
    if base is None or not base.learned_from:
        gone = base is not None and base.learned_from is None
        why = "the data that it learned from are not here any more" if gone else "it has learned nothing here yet"
        raise SpeciateError(
            Code.INVALID,
            f"{spec.method!r} trains on a model that was trained here; of {base.ref if base else spec.base_model!r} "
            f"{why}.",
            "Call train_model again with continue_from='NAME@v1', a model that 'full' or 'lora' made.",
        )
    card = registry.resolve(workspace.database, workspace.folders, base.ref).card
    network = base.folder is not None and has_head(base.folder)
    if base.folder is not None and has_trained_head(base.folder):
        raise SpeciateError(
            Code.INVALID,
            f"{spec.method!r} needs a head of ours, and {base.ref} keeps the one that it was published with.",
            next=[CallAgain("train_model", {"method": "full"}, ": it goes on with that head")],
        )
    if card.task != task.name or not (card.method == STREAMING if spec.method == STREAMING else network):
        raise SpeciateError(
            Code.INVALID,
            f"{spec.method!r} trains on network and head, and {base.ref} is a model for {card.task} that "
            f"{card.method!r} made.",
            f"Name a model for {task.name} that 'full', 'lora' or one of {', '.join(CONTINUAL[:4])} made.",
        )
    if not manifest.splits.get("validation"):
        raise SpeciateError(
            Code.INVALID,
            f"{manifest.ref} has no validation split, and folds would judge by examples that {base.ref} may know.",
            next=[Call("curate_dataset", {"dataset": manifest.ref, "steps": [{"op": "split"}]}, ", then again")],
        )
    name = replay_buffer.buffer_name(spec.name)
    if name in versions.names(workspace.database):
        found = versions.version(workspace.database, name)
        if not replay_buffer.is_buffer(found.operation):
            raise SpeciateError(
                Code.CONFLICT,
                f"What is replayed is kept as the dataset {name!r}, and there is another one of that name.",
                "Call train_model again with another name for the model.",
            )


def _language_teacher(workspace: Workspace, name: str, manifest: Manifest, task: Task) -> Teacher:
    """A language model with weights here, be it of a folder that nobody registered."""
    ref = model_ref(name)
    if ref.source == "api":
        raise SpeciateError(
            Code.INVALID,
            f"{name} is served by others: its weights are not here, and its answers cost money.",
            f"Keep its answers first, curate_dataset(dataset={manifest.ref!r}, steps=[{{'op': 'answer', 'model': "
            f"{name!r}, 'budget_usd': ...}}]), then train_model(method='sft', target='answer').",
        )
    if ref.source != "path":
        found = _resolve_teacher(workspace, name, manifest, task)
        check_writes(Path(found.folder), found.model)
        return found
    base = base_models.find_base(workspace, name)
    assert base.folder is not None, "a path has a folder"
    check_writes(base.folder, base.ref)
    size = sum(each.stat().st_size for each in weight_files(base.folder))
    return Teacher(
        model=base.ref, id=_folder_identity(base.folder), folder=str(base.folder), method="published", parameters=None,
        bytes=size,
    )  # fmt: skip


def _folder_identity(folder: Path) -> str:
    """Identity of a folder that is no version: names, sizes and times of its files, as weights are too large to be read
    here."""
    said = [(each.name, each.stat().st_size, each.stat().st_mtime_ns) for each in sorted(folder.iterdir())]
    return hashlib.sha256(repr(said).encode()).hexdigest()


def _resolve_teacher(workspace: Workspace, name: str, manifest: Manifest, task: Task) -> Teacher:
    version = registry.resolve(workspace.database, workspace.folders, name)
    card = version.card
    if card.task != task.name:
        raise SpeciateError(
            Code.INVALID,
            f"{version.ref} does {card.task or 'no task by itself'}, and the student is to do {task.name}.",
            "Name a teacher of the same task.",
        )
    if needs_labels(version.path):
        raise SpeciateError(
            Code.INVALID,
            f"{version.ref} answers under the labels that it was published with, and nobody has said which of yours "
            "these mean.",
            next=[
                Call(
                    "register_model",
                    {"name": card.name, "source": card.recipe.get("source"), "labels": {}},
                    ": labels is {published label: yours}",
                )
            ],
        )
    lacking = [each for each in card.inputs if each not in manifest.inputs]
    if lacking and manifest.modality == "tabular":
        raise SpeciateError(
            Code.INVALID,
            f"{version.ref} reads the columns {', '.join(card.inputs)}; of these {manifest.ref} has no input "
            f"{', '.join(lacking)}.",
            "Name another teacher, or a dataset with these columns.",
        )
    learned = learned_from(workspace.database, workspace.folders, card) if card.dataset is not None else ()
    return Teacher(
        model=version.ref, id=card.id, folder=str(version.path), method=card.method, parameters=card.parameters,
        bytes=card.bytes, learned_from=learned,
    )  # fmt: skip
