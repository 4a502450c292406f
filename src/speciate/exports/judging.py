"""The examples by which an export is judged against the model that it was made from: never the test split, which is
used as seldom as possible."""

from __future__ import annotations

from typing import Literal

from speciate import use_cases
from speciate.datasets import versions as datasets
from speciate.errors import Code, SpeciateError
from speciate.evaluation import evaluate
from speciate.evaluation.evaluate import EvaluateSpec
from speciate.evaluation.holdout_reuse import LooksOnRows
from speciate.evaluation.payload import EvaluationPayload
from speciate.models.model_card import ModelCard
from speciate.refs import dataset_ref
from speciate.use_cases import UseCase
from speciate.workspace.workspace import Workspace

ExamplesFrom = Literal["validation", "suite", "training"]
LEARNED_FROM = (
    "There is no validation split and no core suite: parent and export are compared on training examples, on which "
    "the parent's own metric flatters; the difference between the two does not."
)


def judging_examples(card: ModelCard, workspace: Workspace) -> tuple[EvaluationPayload, ExamplesFrom]:
    """The validation split of the model's dataset, else its use case's core suite, else the training split: examples
    that chose or taught the parent compare a parent with its export just as fairly. INVALID without any."""
    use_case = _use_case(card, workspace)
    splits: dict[str, int] = {}
    dataset = ""
    if card.dataset is not None:
        manifest = datasets.resolve(workspace.database, dataset_ref(card.dataset)._replace(split=None))
        splits, dataset = dict(manifest.splits), manifest.ref
    if splits.get("validation", 0) > 1:
        return evaluation_of_parent(card, f"{dataset}:validation", use_case, workspace), "validation"
    if use_case is not None and use_case.suites.core:
        return evaluation_of_parent(card, use_case.suites.core, use_case, workspace), "suite"
    if splits.get("train", 0) > 1:
        return evaluation_of_parent(card, f"{dataset}:train", use_case, workspace), "training"
    raise SpeciateError(
        Code.INVALID,
        f"{card.ref} cannot be exported: there are no examples to evaluate the export on. Its dataset "
        f"({card.dataset or 'not known here'}) has neither a validation nor a training split, and it has no use case "
        "with a core suite.",
        "Call curate_dataset(dataset=..., steps=[{'op': 'split'}]) and train on that, or define_use_case with suites.",
    )


def _use_case(card: ModelCard, workspace: Workspace) -> UseCase | None:
    try:
        return use_cases.get(workspace.database, card.use_case) if card.use_case else None
    except SpeciateError:
        return None  # it is gone: then the task's own metric counts


def evaluation_of_parent(
    card: ModelCard, dataset: str, use_case: UseCase | None, workspace: Workspace
) -> EvaluationPayload:
    """An evaluation without the use case's verdict: only evaluate_models gives that."""
    spec = EvaluateSpec(
        models=(card.ref,), dataset=dataset, use_case=use_case.name if use_case else None, baseline=card.ref,
        latency=False,
    )  # fmt: skip
    task = EvaluationPayload.model_validate(evaluate.plan(spec, workspace).payload_json())
    (parent,) = task.models
    return task.model_copy(
        update={
            "models": (parent.model_copy(update={"learned_from": ()}),), "use_case": None, "candidate": None,
            "no_decision": "an export is compared with its parent alone", "earlier": LooksOnRows(),
        }
    )  # fmt: skip
