"""Published models that were fetched into the registry, as ways to train: they are there, so they are tried."""

from __future__ import annotations

from typing import get_args

from speciate.errors import SpeciateError
from speciate.models import registry
from speciate.models.backbones.table import suits
from speciate.models.encoders import by_frames
from speciate.models.fetching import PUBLISHED
from speciate.training.language.vision.specs import SEEING
from speciate.training.options import options, taking
from speciate.training.specs import Method, Option
from speciate.vocabulary import TASKS, Family
from speciate.workspace.workspace import Workspace


def all_options(workspace: Workspace, modality: str, family: Family) -> list[Option]:
    """What can be trained with what is installed and with what was fetched, cheapest first."""
    found = [*options(modality, family), *present(workspace, modality, family)]
    return sorted(found, key=lambda option: get_args(Method).index(option.method))


def present(workspace: Workspace, modality: str, family: Family) -> list[Option]:
    """On the newest version of each, by name, cheapest first; none on what cannot be trained here for this.

    What was trained here is left out: such a model is gone on with where it serves, or where somebody names it.
    """
    found: list[Option] = []
    for name in registry.names(workspace.database):
        card = registry.versions(workspace.database, name)[-1]
        sees = family == "generation" and card.task == SEEING and TASKS[SEEING].suits(modality)
        if card.method != PUBLISHED or not (
            sees or suits(card.modality, modality) or by_frames(card.modality, modality)
        ):
            continue
        try:
            found += taking(card.ref, modality, family, workspace)
        except SpeciateError:
            continue  # nothing suits: plan_training with its name says why
    return found
