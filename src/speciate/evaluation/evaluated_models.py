"""Models under evaluation: registered ones, endpoints, several as one (`ensemble:`), a function in a file (`code:`),
answers stored in a column or in a log of inspect-ai, the constant answer, and the nearest training rows.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict

from speciate.datasets.versions import Manifest
from speciate.errors import Code, SpeciateError, unknown
from speciate.evaluation.contamination import learned_from
from speciate.evaluation.endpoints.pricing import usd_for, usd_per_core_hour
from speciate.evaluation.predictors import inspect_log_process
from speciate.evaluation.predictors.code_process import code_identity
from speciate.evaluation.published_models import (
    PACKAGE,
    PATH,
    PublishedLabels,
    folder_of,
    head_of,
    labels_of,
    read_folder,
)
from speciate.evaluation.reports.report import Role
from speciate.models.endpoints import Endpoint
from speciate.models.fetch import IMAGE_TEXT, PUBLISHED
from speciate.models.model_card import ModelCard
from speciate.models.published.architectures import PublishedHead
from speciate.models.registry import resolve
from speciate.models.training_statement import TrainingStatement
from speciate.sandbox import user_code
from speciate.tasks.families import preference
from speciate.tasks.language_predictor import answer_identity as answering
from speciate.tasks.task import TaskTerms
from speciate.use_cases import COLUMN, CONSTANT, NEAREST, UseCase, incumbent_of
from speciate.vocabulary import Family, Task, task_named
from speciate.workspace.workspace import Workspace

ENSEMBLE, CODE, INSPECT = "ensemble:", "code:", "inspect:"
CANDIDATES = ("model", "published", "endpoint", "ensemble")
"""Sources that get a verdict. An ensemble gets one to tell whether it is worth making one model of; it cannot serve."""


class EvaluatedModel(BaseModel):
    """`name` is canonical (`digits-probe@v2`), so that two refs of one model are one entry."""

    model_config = ConfigDict(frozen=True)
    name: str
    source: Literal["model", "published", "endpoint", "ensemble", "code", "inspect", "column", "constant", "nearest"]
    identity: str
    """Content hash of a model version; part of the key of cached answers."""
    path: str | None = None
    """The model's folder, or the file with the code or the log."""
    function: str | None = None
    """Name of the function in the file with the code."""
    endpoint: Endpoint | None = None
    members: tuple[EvaluatedModel, ...] = ()
    """The models of an ensemble."""
    column: str | None = None
    task: str | None = None
    modality: str | None = None
    base_model: str | None = None
    learned_from: tuple[Manifest, ...] | None = ()
    """The dataset versions that a model was trained on, and what it began with; None where they are not known."""
    data_gone: Literal[True] | None = None
    """Whether it was trained here, on data of which some are not here any more."""
    statement: TrainingStatement | None = None
    """What is said of the training of a model of others, which is not here."""
    stated_data: tuple[Manifest, ...] = ()
    """Versions of this workspace that it is said to have learned from: they can speak against it, never for it."""
    terms: TaskTerms | None = None
    inputs: tuple[str, ...] = ()
    """The columns that a model was trained on, and gets."""
    target: str | None = None
    """The target column of its training."""
    parameters: int | None = None
    bytes: int | None = None
    license: str | None = None
    weights_license: str | None = None
    training_usd: float | None = None
    published: PublishedLabels | None = None
    """How a published model is asked as it is, and what its labels mean; None for other models."""
    recipe: str | None = None
    """Digest of what decides how much an answer costs; equal for two trainings of one recipe."""


def find_model(workspace: Workspace, ref: str, columns: tuple[str, ...], task: str | None = None) -> EvaluatedModel:
    """The model under evaluation of a model ref, `path:/dir` or `pkg:NAME` of a published model, `column:NAME`,
    `constant:`, `nearest:`, `ensemble:A+B`, `code:FILE.py:FUNCTION` or `inspect:FILE.eval`.

    `task`: which is asked for, of a published head that does several. Raises NOT_FOUND with near names.
    """
    if ref in (CONSTANT, NEAREST):
        source: Literal["constant", "nearest"] = "constant" if ref == CONSTANT else "nearest"
        return EvaluatedModel(name=ref, source=source, identity=ref, parameters=0, bytes=0, license="none")
    if own := next((name for name in (CONSTANT, NEAREST) if ref.startswith(name)), None):
        raise SpeciateError(
            Code.INVALID,
            f"{ref!r}: nothing stands behind {own!r}; its answers come from the training examples.",
            f"Call again with {own!r}; for an answer of your own, make a column of it "
            "(curate_dataset, op 'derive') and name it as 'column:NAME'.",
        )
    if ref.startswith(COLUMN):
        column = ref.removeprefix(COLUMN)
        if column not in columns:
            raise unknown("column", column, columns, "Call describe_dataset for the columns of this dataset.")
        return EvaluatedModel(name=ref, source="column", identity=ref, column=column)
    if ref.startswith(ENSEMBLE):
        return _from_ensemble(
            [find_model(workspace, member, columns, task) for member in ref.removeprefix(ENSEMBLE).split("+")], ref
        )
    if ref.startswith(CODE):
        return _from_code(ref)
    if ref.startswith(INSPECT):
        return _from_inspect_log(ref)
    if ref.startswith((PATH, PACKAGE)):
        return _from_published_folder(ref, task)
    return _from_version(workspace, ref, task)


def _from_version(workspace: Workspace, ref: str, task: str | None) -> EvaluatedModel:
    """A registered version: served by others, published with its own head, or trained here."""
    version = resolve(workspace.database, workspace.folders, ref)
    card = version.card
    if card.endpoint is not None:
        return _from_endpoint(card, card.endpoint)
    if card.method == PUBLISHED and (head := head_of(version.path, task)) is not None:
        return EvaluatedModel(
            name=card.ref, source="published", identity=card.id, path=str(version.path), task=head.task,
            modality=_modality(head), base_model=card.base_model, learned_from=None, parameters=card.parameters,
            bytes=card.bytes, license=card.license, published=labels_of(head, ref), statement=statement_of(card),
            weights_license=card.weights_license,
        )  # fmt: skip
    if task_named(card.task or "") is None:
        raise SpeciateError(
            Code.INVALID,
            f"{ref!r} is registered for {card.task or 'no task'}: it gives no answers that could be compared.",
            f"Train a head on it: train_model(method='probe', base_model={ref!r}, ...); or, where it writes texts, "
            "call register_model with task='text-generation' and a new name, and evaluate that one.",
        )
    per_core_hour = usd_per_core_hour(workspace.settings)
    learned = learned_from(workspace.database, workspace.folders, card)
    return EvaluatedModel(
        name=card.ref,
        source="model",
        identity=answering(version.path, card.id),
        path=str(version.path),
        task=card.task,
        modality=None if card.method == PUBLISHED and card.task == IMAGE_TEXT else card.modality,  # images alone, too
        base_model=card.base_model,
        learned_from=learned,
        data_gone=True if learned is None and (card.dataset or card.parents) else None,
        terms=card.recipe.get("terms"),
        inputs=card.inputs,
        target=card.recipe.get("target"),
        parameters=card.parameters,
        bytes=card.bytes,
        license=card.license,
        weights_license=card.weights_license,
        statement=statement_of(card) if card.method == PUBLISHED else None,
        recipe=_recipe(card),
        training_usd=card.usd or (usd_for(card.seconds, per_core_hour) if card.seconds is not None else None),
    )


def _modality(head: PublishedHead) -> str | None:
    """None of one that writes about an image, which may stand alone or in a mixed row."""
    return None if head.task == IMAGE_TEXT else head.modality


def _from_published_folder(ref: str, task: str | None) -> EvaluatedModel:
    """The folder as it is now. What it was trained on is not known."""
    found = read_folder(ref, task)
    return EvaluatedModel(
        name=found.name, source="published", identity=found.identity, path=str(folder_of(ref)), task=found.head.task,
        modality=_modality(found.head), learned_from=None, parameters=found.parameters, bytes=found.bytes,
        license=found.license, published=labels_of(found.head, ref), statement=found.statement,
        weights_license=found.weights_license,
    )  # fmt: skip


def statement_of(card: ModelCard) -> TrainingStatement:
    """What its card keeps; of a version from before statements were kept, nothing."""
    return TrainingStatement.model_validate(card.recipe.get("training") or {})


def _recipe(card: ModelCard) -> str | None:
    """None where it was not trained here, for then nothing says how it was made."""
    if "spec" not in card.recipe:
        return None
    parts = [card.task, card.method, card.base_model, list(card.inputs), card.recipe.get("parameters")]
    return hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()[:16]


def _from_endpoint(card: ModelCard, endpoint: Endpoint) -> EvaluatedModel:
    """A model behind an endpoint. Its training data are unknown. A model that writes text can do any task."""
    task = task_named(card.task or "")
    return EvaluatedModel(
        name=card.ref,
        source="endpoint",
        identity=endpoint.identity,
        endpoint=endpoint,
        task=task.name if task and task.family != "generation" else None,
        learned_from=None,
        license=card.license,
        training_usd=0.0,
    )


def _from_ensemble(members: list[EvaluatedModel], ref: str) -> EvaluatedModel:
    if len(members) < 2 or any(member.source in ("ensemble", "constant", "nearest") for member in members):
        raise SpeciateError(
            Code.INVALID,
            f"{ref!r} is no ensemble: write two or more models, as in 'ensemble:reviews@v1+reviews@v2'.",
            "Call again with such a name, or with the models by themselves.",
        )
    shown = {member.inputs for member in members if member.inputs}
    if len(shown) > 1:
        raise SpeciateError(
            Code.INVALID,
            f"The members of {ref!r} read different columns: {'; '.join(', '.join(each) for each in sorted(shown))}.",
            "Name models that were trained on the same columns.",
        )
    learned = [member.learned_from for member in members]
    known = [manifest for manifests in learned if manifests is not None for manifest in manifests]
    first = members[0]
    return EvaluatedModel(
        name=ENSEMBLE + "+".join(member.name for member in members),
        source="ensemble",
        identity="+".join(member.identity for member in members),
        members=tuple(members),
        task=next((member.task for member in members if member.task), None),
        modality=next((member.modality for member in members if member.modality), None),
        learned_from=None if None in learned else tuple({manifest.ref: manifest for manifest in known}.values()),
        data_gone=True if any(member.data_gone for member in members) else None,
        stated_data=tuple(known) if None in learned else (),
        terms=next((member.terms for member in members if member.terms), None),
        inputs=next(iter(shown), ()),
        target=first.target,
        parameters=_sum_if_known([member.parameters for member in members]),
        bytes=_sum_if_known([member.bytes for member in members]),
        license=first.license if len({member.license for member in members}) == 1 else None,
    )


def _sum_if_known(values: list[int | None]) -> int | None:
    known = [value for value in values if value is not None]
    return sum(known) if len(known) == len(values) else None


def _from_code(ref: str) -> EvaluatedModel:
    """The file as it is now: its content is part of the key of cached answers."""
    file, colon, function = ref.removeprefix(CODE).rpartition(":")
    if not colon or not function.isidentifier():
        raise SpeciateError(
            Code.INVALID,
            f"{ref!r} names no function: write 'code:FILE.py:FUNCTION'.",
            "Call again with such a name; the function takes a list of inputs and returns a list of answers.",
        )
    path = Path(file)
    content = user_code.read_code(path, "Call again with another file.")
    identity = code_identity(content, function)
    return EvaluatedModel(
        name=f"{CODE}{path.name}:{function}@{identity.removeprefix('code-')[:8]}",
        source="code",
        identity=identity,
        path=str(path),
        function=function,
        bytes=len(content),
    )


def _from_inspect_log(ref: str) -> EvaluatedModel:
    """The answers in a log of inspect-ai. The run reads which model gave them."""
    path = Path(ref.removeprefix(INSPECT))
    try:
        identity = inspect_log_process.log_identity(path)
    except OSError as error:
        raise SpeciateError(
            Code.NOT_FOUND, f"{path.name} cannot be read: {error.strerror}.", "Call again with 'inspect:FILE.eval'."
        ) from error
    return EvaluatedModel(
        name=f"{INSPECT}{path.name}@{identity.removeprefix('inspect-')[:8]}",
        source="inspect",
        identity=identity,
        path=str(path),
        learned_from=None,
    )


def find_incumbent(workspace: Workspace, use_case: UseCase, columns: tuple[str, ...]) -> EvaluatedModel:
    """The model that the use case's candidates must beat. Raises as `find_model`, with the way to another incumbent."""
    incumbent = incumbent_of(workspace.database, use_case)
    try:
        return find_model(workspace, incumbent, columns, use_case.task)
    except SpeciateError as error:
        raise SpeciateError(
            error.code,
            f"The incumbent {incumbent!r} of {use_case.name!r} cannot take part: {error.message}",
            "Call define_use_case again with incumbent: a model, 'column:NAME' of the dataset, or 'constant:'.",
        ) from error


COMPARABLE = ("tabular", "text", "time-series", "protein", "molecule")
"""Modalities whose examples are compared without an encoder, cheaply and as the field does: columns, words, steps,
k-mers, fingerprints. Distances between pixels, waves or meshes are no method that anybody would use."""
_BY_NEIGHBOURS: tuple[Family, ...] = ("classification", "ordinal", "regression")


def why_no_neighbours(
    manifest: Manifest, split: str | None, task: Task, candidates: Sequence[EvaluatedModel] = ()
) -> str | None:
    """Why `nearest:` cannot answer to a split of this dataset, as the end of a sentence; None where it can.

    `candidates`: of a use case. Neighbours are taken from what one of them learned from, where that is known.
    """
    if task.family not in _BY_NEIGHBOURS or task.name == preference.PREFERENCE:
        return f"neighbours answer with one label or number, and this evaluation is of {task.name!r}"
    if manifest.modality not in COMPARABLE:
        return f"{manifest.modality} examples are not compared without an encoder"
    origins = [one.learned_from[0] for one in candidates if one.source in CANDIDATES and one.learned_from]
    if any(origin.splits.get("train") and origin.modality == manifest.modality for origin in origins):
        return None
    if split is None or split == "train":
        return "neighbours are taken from the training split, so it needs another one to answer"
    return None if manifest.splits.get("train") else f"{manifest.ref} has no training split"


def assign_roles(
    asked: Sequence[EvaluatedModel],
    beside: Sequence[EvaluatedModel],
    baseline: EvaluatedModel,
    incumbent: str | None,
    *,
    explicit: bool,
    serving: Collection[str],
) -> dict[str, Role]:
    """What each model is here. Without a use case the first of several is no baseline by that alone: its score is seen
    like the others'. `explicit`: the baseline was named as such. `serving`: models in production anywhere."""
    roles: dict[str, Role] = {each.name: "candidate" if each.source in CANDIDATES else "baseline" for each in asked}
    roles |= {each.name: "baseline" for each in beside}
    if explicit or baseline.name not in roles:
        roles[baseline.name] = "baseline"
    if incumbent is not None:
        roles |= {name: "incumbent" for name in roles if name == incumbent}
    else:
        roles |= {name: "incumbent" for name in roles if name in serving}
    return roles


def last_candidate(asked: Sequence[EvaluatedModel], roles: Mapping[str, Role]) -> EvaluatedModel | None:
    """The one that the report puts forward: the last that gets a verdict, else the last."""
    return next((each for each in reversed(asked) if roles[each.name] == "candidate"), asked[-1] if asked else None)
