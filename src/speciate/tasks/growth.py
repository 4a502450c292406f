"""A head that goes on: what it knew stays where it stands, and new labels get new places beside it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from speciate.errors import Code, SpeciateError
from speciate.tasks.contract import Readout
from speciate.tasks.network import HEAD, MANIFEST
from speciate.tasks.table import READOUTS

if TYPE_CHECKING:
    import torch


def kept_readout(folder: Path) -> Readout:
    """Of a model that was trained here, whatever learned it."""
    said = json.loads((folder / MANIFEST).read_text())["readout"]
    found: Readout = READOUTS[said["family"]].model_validate(said)
    return found


def joined(old: Readout, new: Readout) -> Readout:
    """The readout that can say what either can. INVALID for other tasks, or for ranks that the old one lacks."""
    if old.family != new.family:
        raise SpeciateError(
            Code.INVALID,
            f"The model that is gone on from does {old.family}, and this training {new.family}.",
            "Name a model of the same task with continue_from, or train with method='full'.",
        )
    more = sorted(set(new.labels) - set(old.labels))
    own: Any = old
    match old.family:
        case "classification":
            return own.model_copy(update={"labels": tuple(sorted({*old.labels, *new.labels}))})  # type: ignore[no-any-return]
        case "multi-label":
            known = dict(zip(old.labels, own.thresholds, strict=True))
            labels = tuple(sorted({*old.labels, *new.labels}))
            thresholds = tuple(known.get(label, 0.5) for label in labels)
            return own.model_copy(update={"labels": labels, "thresholds": thresholds})  # type: ignore[no-any-return]
        case "ordinal" if more:
            raise SpeciateError(
                Code.INVALID,
                f"The ranks {', '.join(more)} are new, and between which of the old ones they lie changes all of them.",
                "Train with method='full' on both versions together: curate_dataset(steps=[{'op': 'merge', ...}]).",
            )
    return old


def grown(head: torch.nn.Module, readout: Readout, folder: Path) -> None:
    """Give a fresh head of `readout` the weights of the one in a model's folder, label by label."""
    import torch
    from safetensors.torch import load_file

    old, known, own = kept_readout(folder), load_file(folder / HEAD), head.state_dict()
    if old.labels == readout.labels or readout.family not in ("classification", "multi-label"):
        head.load_state_dict(known, strict=True)
        return
    places = torch.tensor([readout.labels.index(label) for label in old.labels])
    for name, each in own.items():  # a linear head: a row of each for every label
        each[places] = known[name]
    head.load_state_dict(own, strict=True)
