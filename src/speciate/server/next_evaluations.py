"""What to do with a model version that a job has just made: judge it on examples that it has not learned from, beside
what it must beat. Only an evaluation that would be taken as it stands is named: each is planned first.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from speciate import usecases
from speciate.errors import Code, SpeciateError
from speciate.evaluation import decisions, evaluate
from speciate.models import registry
from speciate.models.card import SERVED, Card
from speciate.refs import dataset_ref
from speciate.server.recoveries import calls_in
from speciate.server.surface import NextAction
from speciate.usecases import CONSTANT, UseCase
from speciate.workspace.workspace import Workspace


def after_model(workspace: Workspace, ref: str) -> tuple[NextAction, ...]:
    """Of a model's exact version; nothing where it is gone, or nobody knows what it learned from. Where its dataset
    cannot judge it, what mends that."""
    try:
        card = registry.resolve(workspace.database, workspace.folders, ref).card
        use_case = usecases.get(workspace.database, card.use_case) if card.use_case else None
    except SpeciateError:
        return ()
    if card.dataset is None or card.method == SERVED:
        return ()
    if use_case and usecases.serving(workspace.database, use_case.name) == card.ref:
        return (NextAction(tool="predict", arguments={"use_case": use_case.name}),)
    refused: SpeciateError | None = None
    for asked in _evaluations(workspace, card, use_case):
        try:
            evaluate.plan(evaluate.EvaluateSpec(**asked), workspace)
        except SpeciateError as error:
            refused = refused or error
        else:
            return (NextAction(tool="evaluate_models", arguments=asked),)
    return calls_in(refused.recovery) if refused and refused.code is Code.INVALID else ()


def _evaluations(workspace: Workspace, card: Card, use_case: UseCase | None) -> Iterator[dict[str, Any]]:
    """The most telling one first: on what the use case decides on, else the test split of what it was trained on."""
    if use_case is not None:  # its incumbent takes part by itself
        yield {"models": [card.ref], "use_case": use_case.name, **_suite(workspace, card, use_case)}
    for rival in _rivals(workspace, card):
        yield {"models": [rival, card.ref], "dataset": _test_split(card)}
    yield {"models": [card.ref], "dataset": _test_split(card)}


def _suite(workspace: Workspace, card: Card, use_case: UseCase) -> dict[str, str]:
    if use_case.suites.core:
        return {"suite": "core"}
    first = decisions.first_dataset(workspace.database, use_case.name)
    own = _test_split(card)
    return {"dataset": first if first and dataset_ref(first).name != dataset_ref(own).name else own}


def _rivals(workspace: Workspace, card: Card) -> Iterator[str]:
    """What it was made from, then the version before it, then the constant answer."""
    yield from card.parents[:1]
    if card.base_model is not None:
        yield card.base_model
    before = [each.version for each in registry.versions(workspace.database, card.name) if each.version < card.version]
    if before:
        yield f"{card.name}@v{max(before)}"
    yield CONSTANT


def _test_split(card: Card) -> str:
    trained = dataset_ref(card.dataset or "")
    return str(trained._replace(split="test"))
