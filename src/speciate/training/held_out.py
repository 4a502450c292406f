"""Held-out examples that a base model of ours learned from are no use to judge what begins with it: they are left out.

Weights remember. A split that was drawn anew, or a validation split of examples that an earlier version had for
training, would make a warm start look better than it is. What an earlier version was only chosen on stays: that is as
optimistic as every choice among candidates.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from speciate.datasets.loading.loader import Example
from speciate.datasets.versions import Manifest
from speciate.errors import Code, SpeciateError
from speciate.evaluation.seen import seen
from speciate.training.specs import Payload
from speciate.workspace.workspace import Folders


class Remaining(NamedTuple):
    examples: Sequence[Example]
    left_out: int | None = 0
    """Validation examples that the base model or a teacher learned from; None where its data are not known any more."""

    def notes(self, payload: Payload) -> list[str]:
        base = " and ".join(_models(payload))
        if self.left_out is None:
            return [f"The data that {base} learned from are not here any more: if it saw these, it looks too good."]
        if self.left_out:
            return [f"{self.left_out} validation examples that {base} has learned from were left out."]
        return []


def unseen(folders: Folders, payload: Payload, examples: Sequence[Example]) -> Remaining:
    """The examples without such validation examples.

    Raises INVALID where nothing remains to judge by. Folds cannot judge either, if the base model learned from any of
    their examples: what is left of each would be another sample than what is learned.
    """
    before, base = _before(payload), " and ".join(_models(payload))
    if before is None:
        return Remaining(examples, None)
    if not before:
        return Remaining(examples)
    held = [example.id for example in examples if example.split == "validation"]
    ids = held or [example.id for example in examples]
    known = seen(folders, payload.manifest, ids, before, ("train",))
    if known and (not held or len(known) == len(held)):
        raise nothing_to_judge_by(base, payload.dataset, bool(held))
    return Remaining([each for each in examples if each.split != "validation" or each.id not in known], len(known))


def _before(payload: Payload) -> tuple[Manifest, ...] | None:
    """What the weights and whoever teaches them have learned from: an answer of a teacher tells what it remembers."""
    known = [payload.base_learned_from, *(teacher.learned_from for teacher in payload.teachers)]
    if any(each is None for each in known):
        return None
    return tuple({version.ref: version for each in known for version in each or ()}.values())


def _models(payload: Payload) -> list[str]:
    """Of ours, that the training begins with or that teach."""
    base = [payload.spec.base_model] if payload.base_learned_from != () and payload.spec.base_model else []
    return [*base, *(teacher.model for teacher in payload.teachers)]


def nothing_to_judge_by(base_model: str, dataset: str, validation: bool) -> SpeciateError:
    which = "all validation examples" if validation else "examples of the training split, and there is no other"
    return SpeciateError(
        Code.INVALID,
        f"{base_model} has learned from {which} of {dataset}: they cannot tell how good what begins with it is.",
        "Call train_model with another base_model or teacher, without continue_from; or "
        f"add_examples(dataset={dataset!r}) "
        "with new ones whose split is 'validation'.",
    )
