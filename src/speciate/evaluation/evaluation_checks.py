"""Whether models, dataset and use case fit each other, and what follows from them together: task, target and terms.

What does not fit is refused before there is a job, with the call that works.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

from speciate.datasets.versions import Manifest
from speciate.errors import Call, Code, SpeciateError, closest, unknown
from speciate.evaluation import label_plans
from speciate.evaluation.evaluated_models import EvaluatedModel, why_no_neighbours
from speciate.evaluation.scorers.sandboxed_scorers import COLUMN_READ
from speciate.refs import DatasetRef
from speciate.tasks.example_targets import TARGET_IN_MEDIA, is_label, usual_target
from speciate.tasks.families import preference
from speciate.tasks.families.anomaly import ANOMALY
from speciate.tasks.families.control import ENVIRONMENT, METRIC, SEED
from speciate.tasks.families.ordinal import check_order, rank_labels
from speciate.tasks.task import TaskTerms
from speciate.use_cases import NEAREST, UseCase
from speciate.vocabulary import Metric, Task, find_task, task_named


def check_scorer(manifest: Manifest, scorer: str | None) -> None:
    column = COLUMN_READ.get(scorer or "")
    if column is not None and column not in manifest.columns:
        raise SpeciateError(
            Code.INVALID,
            f"The scorer {scorer!r} reads the column {column!r}, which {manifest.ref} has not.",
            f"Its columns: {', '.join(manifest.columns) or 'none'}. Name a dataset with {column!r}, or another scorer.",
            next=[Call("list_options", {"kind": "metric"}, "for metrics that need no such column")],
        )


def check_split(manifest: Manifest, ref: DatasetRef) -> None:
    if manifest.splits.get(ref.split or "", 0) > 0:
        return
    there = ", ".join(f"{name} ({count})" for name, count in sorted(manifest.splits.items())) or "no splits at all"
    unseen = sorted(name for name, count in manifest.splits.items() if count and name not in ("train", "validation"))
    other = f"the split dataset='{manifest.name}:{unseen[0]}', or " if unseen else ""
    raise SpeciateError(
        Code.INVALID,
        f"{manifest.ref} has no examples in the split {ref.split!r}; it has {there}. "
        "Models are compared on examples that none of them learned from.",
        f"Name {other}another dataset.",
        next=[
            Call(
                "curate_dataset",
                {"dataset": manifest.name, "steps": [{"op": "split"}]},
                ", which makes leak-free splits, and train on them",
            )
        ],
    )


def task_of(manifest: Manifest, use_case: UseCase | None, models: list[EvaluatedModel]) -> Task:
    """The use case's task, else the models', else one by the labels."""
    if use_case:
        return find_task(use_case.task)
    for evaluated_model in models:
        if evaluated_model.task:
            return find_task(evaluated_model.task)
    family = "regression" if manifest.numeric else "classification"
    name = f"{manifest.modality}-{family}"
    return find_task(name if task_named(name) else f"tabular-{family}")


def target_of(manifest: Manifest, use_case: UseCase | None, task: Task, models: list[EvaluatedModel]) -> str | None:
    """The use case's target, else that of the models' training, else the usual one."""
    if use_case and use_case.target_column:
        return use_case.target_column
    learned = [each.target for each in models if each.target in manifest.columns]
    return learned[0] if learned else usual_target(manifest, task.name)


def check_target(manifest: Manifest, target: str | None, task: Task) -> None:
    """The reference must be there: as the dataset's label, or in a column."""
    if task.family in TARGET_IN_MEDIA or (task.family == "generation" and target is None):
        return  # or conversations that end in the answer
    if task.name == preference.PREFERENCE and preference.REJECTED not in manifest.columns:
        raise unknown(
            "column", preference.REJECTED, manifest.columns,
            "Name a dataset of pairs: the target has the better answers, this column the worse ones.",
        )  # fmt: skip
    if is_label(manifest, target) and manifest.label is None:
        raise SpeciateError(
            Code.INVALID,
            f"{manifest.ref} has no labels, so nothing tells right answers from wrong ones.",
            "Call create_dataset again with label set, or give the use case a target_column.",
        )
    if not is_label(manifest, target) and target not in manifest.columns:
        raise unknown("column", str(target), manifest.columns, "Call define_use_case again with another target_column.")


def common_terms(
    task: Task, use_case: UseCase | None, labels: Collection[str], models: list[EvaluatedModel]
) -> TaskTerms:
    """Terms of the use case and of the models, which must have been trained with the same."""
    known = [each.terms for each in models if each.terms is not None]
    horizons = sorted({terms.horizon for terms in known if terms.horizon is not None})
    if len(horizons) > 1:
        raise SpeciateError(
            Code.INVALID,
            f"These models forecast different numbers of steps: {', '.join(map(str, horizons))}.",
            "Compare models of one horizon; train_model(hyperparameters={'horizon': N}) sets it.",
        )
    horizon = label_plans.settle_horizon(models, horizons[0] if horizons else None)
    positive = use_case.positive_label if use_case else None
    if task.family == "anomaly":
        positive = positive or next((terms.positive_label for terms in known if terms.positive_label), ANOMALY)
    order = _order(labels, known) if task.family == "ordinal" else ()
    return TaskTerms(positive, horizon, order)


def _order(labels: Collection[str], known: list[TaskTerms]) -> tuple[str, ...]:
    """The order of the models, which must rank all labels alike: errors are counted in ranks."""
    every = {*labels, *(label for terms in known for label in terms.order)}
    rankings = sorted({tuple(rank_labels(every, terms.order)) for terms in known})
    if len(rankings) > 1:
        raise SpeciateError(
            Code.INVALID,
            f"These models rank the labels differently: {'; '.join(' < '.join(each) for each in rankings)}.",
            "Compare models of one order; train_model(hyperparameters={'order': [...]}) sets it.",
        )
    order = max((terms.order for terms in known), key=len, default=())
    check_order(labels, order)
    return order


def check_models(
    manifest: Manifest,
    split: str | None,
    task: Task,
    models: list[EvaluatedModel],
    candidates: Sequence[EvaluatedModel],
) -> None:
    """Each must be made for the task, and read what the dataset holds."""
    _check_fits(task, models)
    _check_neighbours(manifest, split, task, models, candidates)
    _check_inputs(manifest, task, models)


def _check_fits(task: Task, models: list[EvaluatedModel]) -> None:
    for evaluated_model in models:
        others = evaluated_model.task and find_task(evaluated_model.task).family != task.family
        if others or (
            evaluated_model.task
            and (evaluated_model.task == preference.PREFERENCE) != (task.name == preference.PREFERENCE)
        ):
            raise SpeciateError(
                Code.INVALID,
                f"{evaluated_model.name} is a model for {evaluated_model.task!r}, but this evaluation is of "
                f"{task.name!r}.",
                "Leave it out of models, or train one for this task with train_model.",
            )


def _check_neighbours(
    manifest: Manifest,
    split: str | None,
    task: Task,
    models: list[EvaluatedModel],
    candidates: Sequence[EvaluatedModel],
) -> None:
    if all(each.source != "nearest" for each in models):
        return
    if why := why_no_neighbours(manifest, split, task, candidates):
        raise SpeciateError(
            Code.INVALID, f"{NEAREST!r} cannot answer here: {why}.", f"Call again without {NEAREST!r}, or with "
            "'constant:', the best answer that is the same for all.",
        )  # fmt: skip


def _check_inputs(manifest: Manifest, task: Task, models: list[EvaluatedModel]) -> None:
    for evaluated_model in models:
        if evaluated_model.modality not in (None, task.reads or manifest.modality):
            raise SpeciateError(
                Code.INVALID,
                f"{evaluated_model.name} reads {evaluated_model.modality}; {manifest.ref} holds {manifest.modality}.",
                f"Name a dataset of {evaluated_model.modality}, or leave the model out.",
            )
        if lacking := [name for name in evaluated_model.inputs if name not in manifest.columns]:
            raise SpeciateError(
                Code.INVALID,
                f"{evaluated_model.name} reads the columns {', '.join(evaluated_model.inputs)}; {manifest.ref} lacks "
                f"{', '.join(lacking)}.",
                "Name a dataset that has them, or train a model on this one with train_model.",
            )


def check_use_case(manifest: Manifest, use_case: UseCase | None) -> None:
    """Checks that the use case's label and the columns of its gates are there."""
    _check_positive(manifest, use_case)
    _check_slices(manifest, use_case)


def _check_positive(manifest: Manifest, use_case: UseCase | None) -> None:
    """Only against the label: the values of other columns are not known before the run, which checks them."""
    positive = use_case.positive_label if use_case else None
    if use_case is None or positive is None or not is_label(manifest, use_case.target_column):
        return
    if manifest.labels and positive not in manifest.labels:
        raise SpeciateError(
            Code.INVALID,
            f"positive_label {positive!r} does not occur in {manifest.ref}; {closest(positive, manifest.labels)}",
            "Call define_use_case again with the label as it is written in the dataset.",
        )


def _check_slices(manifest: Manifest, use_case: UseCase | None) -> None:
    """The columns that gates look into must be there."""
    for gate in use_case.in_force if use_case else ():
        if gate.column is None or gate.rule == "consent":
            continue
        if gate.column not in (*manifest.columns, "label"):
            raise unknown(
                "column",
                gate.column,
                manifest.columns,
                "Call define_use_case again with a gate that names one of them.",
            )


def check_environments(manifest: Manifest, metrics: Sequence[Metric]) -> None:
    """A model acts from where an episode began."""
    if not any(metric.name == METRIC for metric in metrics):
        return
    for column in (ENVIRONMENT, SEED):
        if column not in manifest.columns:
            raise SpeciateError(
                Code.INVALID,
                f"{METRIC} lets models act from where each episode began, and {manifest.ref} has no column "
                f"{column!r} that says where that is.",
                "Call create_dataset with labels of such columns, `environment` and `seed`; or measure action_mae.",
            )
