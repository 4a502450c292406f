"""The reward `model`: the number that a reward model of ours gives an answer, asked in this process."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from speciate.errors import Code, SpeciateError
from speciate.models import registry, sealed
from speciate.tasks import preference
from speciate.training.language.rewards.reward import Asked, Missed, Value
from speciate.training.language.rewards.specs import ModelReward
from speciate.workspace.workspace import Workspace


class ModelMarker:
    def __init__(self, spec: ModelReward, device: str = "cpu") -> None:
        """CONFLICT where the folder is not the model that was bound."""
        if spec.folder is None:
            raise SpeciateError(Code.INTERNAL, f"The reward model {spec.model!r} was not found yet.", "Call bound().")
        found = sealed.check(Path(spec.folder))
        if found != spec.sealed:
            raise SpeciateError(
                Code.CONFLICT,
                f"The folder of {spec.model} holds another model than when the training was asked for.",
                "Call train_model again.",
            )
        import torch

        self._model = preference.load(Path(spec.folder), torch.get_num_threads())
        self._model.model.to(device)

    def mark(self, asked: Sequence[Asked]) -> list[Value]:
        try:
            return list(self._model.numbers([(tuple(each.question), each.answer) for each in asked]))
        except SpeciateError:  # one of them is too long: each by itself
            return [self._alone(each) for each in asked]

    def close(self) -> None: ...

    def _alone(self, asked: Asked) -> Value:
        try:
            return self._model.numbers([(tuple(asked.question), asked.answer)])[0]
        except SpeciateError as error:
            return Missed("raised", error.message)


def bound(spec: ModelReward, workspace: Workspace) -> ModelReward:
    """With where the model lies. NOT_FOUND, or INVALID where it judges no answers."""
    found = registry.resolve(workspace.database, workspace.folders, spec.model)
    card = found.card
    if card.task != preference.TASK:
        raise SpeciateError(
            Code.INVALID,
            f"{card.ref} does the task {card.task!r}, and a reward is given by a model of {preference.TASK!r}.",
            "Train one with train_model(method='reward'), from a dataset with better and worse answers.",
        )
    return spec.model_copy(update={"model": card.ref, "folder": str(found.path), "sealed": card.id})
