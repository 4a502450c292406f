"""Training again as a recorded version was trained: alone a reproduction, with other data or another base an update."""

from __future__ import annotations

from speciate.errors import Code, SpeciateError
from speciate.models import registry
from speciate.models.backbones import saved
from speciate.training.specs import STREAMING, Repeated, TrainSpec
from speciate.vocabulary import task_named
from speciate.workspace.workspace import Workspace

_NEEDED = ("name", "dataset", "method")


def filled(spec: TrainSpec, workspace: Workspace) -> tuple[TrainSpec, Repeated | None]:
    """The spec with what `like` and `continue_from` say of it. INVALID where something is still missing."""
    repeated = None
    if spec.like is not None:
        spec, repeated = _as_recorded(spec, spec.like, workspace)
    if spec.continue_from is not None:
        spec = _going_on(spec, spec.continue_from, workspace)
    missing = [name for name in _NEEDED if not getattr(spec, name)]
    if missing:
        raise SpeciateError(
            Code.INVALID,
            f"train_model needs {' and '.join(missing)}.",
            "Name them, or a model version whose recipe is repeated: like='NAME@v1'.",
        )
    return spec, repeated


def _as_recorded(spec: TrainSpec, like: str, workspace: Workspace) -> tuple[TrainSpec, Repeated]:
    card = registry.resolve(workspace.database, workspace.folders, like).card
    recorded = card.recipe.get("spec")
    if recorded is None:
        raise SpeciateError(
            Code.INVALID,
            f"{card.ref} was not trained here, so there is no recipe to repeat.",
            "Name a version that train_model or specialize made.",
        )
    given = {name: getattr(spec, name) for name in spec.model_fields_set if name != "like"}
    if spec.continue_from is not None:  # that recipe, from other weights than it began with
        recorded = recorded | {"base_model": None}
    merged = TrainSpec.model_validate({**recorded, "dataset": card.dataset, "like": card.ref, **given})
    repeated = Repeated(
        model=card.ref,
        id=card.id,
        metrics=dict(card.metrics),
        environment=card.recipe.get("environment", {}),
        dataset=card.dataset,
    )
    return merged, repeated


def _going_on(spec: TrainSpec, model: str, workspace: Workspace) -> TrainSpec:
    """With the network of that version to begin with; its head, too, where the labels are the same."""
    version = registry.resolve(workspace.database, workspace.folders, model)
    streams = version.card.method == STREAMING and spec.method in (None, STREAMING)
    if not saved.holds(version.path) and not streams:
        task = task_named(version.card.task or "")
        if task is not None and task.family == "generation":
            raise SpeciateError(
                Code.INVALID,
                f"{version.ref} writes texts, and such a model goes on as a base model, not by continue_from.",
                f"Call train_model again with base_model={version.ref!r} and method='sft'; "
                "curate_dataset(steps=[{'op': 'merge', 'dataset': ...}]) brings earlier examples back beside new ones.",
            )
        raise SpeciateError(
            Code.INVALID,
            f"{version.ref} was made by {version.card.method!r}: there is no network to go on with.",
            "Name a version made by 'full' or 'lora', or leave continue_from out.",
        )
    if spec.base_model not in (None, version.ref):
        raise SpeciateError(
            Code.INVALID,
            f"continue_from is {version.ref!r} and base_model {spec.base_model!r}: there can be only one beginning.",
            "Leave one of them out.",
        )
    return spec.model_copy(
        update={"base_model": version.ref, "method": spec.method or (STREAMING if streams else "full")}
    )
