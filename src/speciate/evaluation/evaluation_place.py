"""Which evaluations go to a place of settings.toml, and every file that such a run reads.

No call names the place: a person writes `kinds = ["evaluate"]` there. An evaluation that reads more than is moved, that
needs a key, or whose gates limit what is measured on this machine, runs here as before.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from speciate.datasets.version_files import as_inputs, version_files
from speciate.evaluation.evaluated_models import EvaluatedModel
from speciate.evaluation.payload import EvaluationPayload
from speciate.settings import Settings
from speciate.tasks.families.control import METRIC
from speciate.workspace.workspace import Folders

_CLOSED = ("model", "constant", "nearest", "column")
"""Sources of answers that are known to read dataset versions and a version's own folder alone."""
_PACKAGED = "pkg:"
"""Base models whose weights are those of an installed package, which a node may lack."""


class Where(NamedTuple):
    place: str | None = None
    inputs: tuple[str, ...] = ()


def find_place(payload: EvaluationPayload, settings: Settings, folders: Folders) -> Where:
    """The first place that takes evaluations, where this one may go there; else this machine."""
    taking = settings.place_taking("evaluate")
    if taking is None or not _is_closed(payload, settings):
        return Where()
    return Where(taking, as_inputs(_paths(payload, folders), folders))


def _is_closed(payload: EvaluationPayload, settings: Settings) -> bool:
    return (
        payload.judge is None
        and payload.scoring is None
        and not payload.limits_latency  # of another machine
        and not payload.asks_for_memory
        and not settings.trust.require_signature
        and METRIC not in payload.metrics  # lets models act in simulators of this machine
        and all(_reads_what_is_moved(each) for each in payload.models)
    )


def _reads_what_is_moved(model: EvaluatedModel) -> bool:
    return model.source in _CLOSED and not (model.base_model or "").startswith(_PACKAGED) and model.published is None


def _paths(payload: EvaluationPayload, folders: Folders) -> Iterator[Path]:
    yield from version_files(payload.dataset, folders, media=True)
    learned = [each for model in payload.models for each in (*(model.learned_from or ()), *model.stated_data)]
    for manifest in (*learned, *(suite.dataset for suite in payload.elsewhere)):
        yield from version_files(manifest, folders, media=False)
    for model in payload.models:
        if model.path is not None:
            yield Path(model.path)
