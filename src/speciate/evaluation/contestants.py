"""Who takes part in an evaluation: registered models, answers stored in a column, and the constant answer."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict

from speciate.datasets.versions import Manifest
from speciate.errors import Code, SpeciateError, unknown
from speciate.evaluation.prices import usd_for
from speciate.evaluation.seen import learned_from
from speciate.models.registry import resolve
from speciate.tasks.contract import Terms
from speciate.usecases import COLUMN, CONSTANT, UseCase, incumbent_of
from speciate.vocabulary import TASKS
from speciate.workspace.database import Database
from speciate.workspace.workspace import Folders


class Contestant(BaseModel):
    """`name` is canonical (`digits-probe@v2`), so that two ways of naming a model are one contestant."""

    model_config = ConfigDict(frozen=True)
    name: str
    source: Literal["model", "column", "constant"]
    identity: str
    """Content hash of a model version; what recorded answers are known by."""
    path: str | None = None
    column: str | None = None
    task: str | None = None
    modality: str | None = None
    base_model: str | None = None
    learned_from: tuple[Manifest, ...] | None = ()
    """The dataset versions that a model was trained on, and what it began with; None where they are not known."""
    terms: Terms | None = None
    inputs: tuple[str, ...] = ()
    """The columns that a model saw, and is shown."""
    target: str | None = None
    """What a model was trained for: on what its truths depend, and the column that they came from."""
    parameters: int | None = None
    bytes: int | None = None
    license: str | None = None
    training_usd: float | None = None


def find(database: Database, folders: Folders, ref: str, columns: tuple[str, ...]) -> Contestant:
    """The contestant of a model ref, `column:NAME` or `constant:`. Raises NOT_FOUND with near names."""
    if ref == CONSTANT:
        return Contestant(name=CONSTANT, source="constant", identity=CONSTANT, parameters=0, bytes=0, license="none")
    if ref.startswith(COLUMN):
        column = ref.removeprefix(COLUMN)
        if column not in columns:
            raise unknown("column", column, columns, "Call describe_dataset for the columns of this dataset.")
        return Contestant(name=ref, source="column", identity=ref, column=column)
    version = resolve(database, folders, ref)
    card = version.card
    if card.task not in TASKS:
        raise SpeciateError(
            Code.INVALID,
            f"{ref!r} is made for {card.task!r}: it gives no answers that could be compared.",
            f"Train a head on it first: train_model(method='probe', base_model={ref!r}, ...).",
        )
    return Contestant(
        name=card.ref,
        source="model",
        identity=card.id,
        path=str(version.path),
        task=card.task,
        modality=card.modality,
        base_model=card.base_model,
        learned_from=learned_from(database, folders, card),
        terms=card.recipe.get("terms"),
        inputs=card.inputs,
        target=card.recipe.get("target"),
        parameters=card.parameters,
        bytes=card.bytes,
        license=card.license,
        training_usd=card.usd or (usd_for(card.seconds) if card.seconds is not None else None),
    )


def find_incumbent(database: Database, folders: Folders, use_case: UseCase, columns: tuple[str, ...]) -> Contestant:
    """What the use case's candidates must beat. Raises what `find` raises, with the way to another incumbent."""
    incumbent = incumbent_of(database, use_case)
    try:
        return find(database, folders, incumbent, columns)
    except SpeciateError as error:
        raise SpeciateError(
            error.code,
            f"The incumbent {incumbent!r} of {use_case.name!r} cannot take part: {error.message}",
            "Call define_use_case again with incumbent: a model, 'column:NAME' of the dataset, or 'constant:'.",
        ) from error
