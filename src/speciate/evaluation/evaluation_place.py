"""Which evaluations go to a place of settings.toml, and every file that such a run reads.

No call names the place: a person writes `kinds = ["evaluate"]` there. An evaluation that reads more than is moved, that
needs a key, whose gates limit what is measured on this machine, or of whose rows a person did not allow all for that
place, runs here.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from speciate.datasets.consent import check_place
from speciate.datasets.version_files import as_inputs, version_files
from speciate.datasets.versions import Manifest
from speciate.evaluation.evaluated_models import EvaluatedModel
from speciate.evaluation.payload import EvaluationPayload
from speciate.jobs.egress import Departure, NotAllowed
from speciate.settings import Settings
from speciate.tasks.families.control import METRIC
from speciate.workspace.workspace import Folders, Workspace

_CLOSED = ("model", "constant", "nearest", "column")
"""Sources of answers that are known to read dataset versions and a version's own folder alone."""
_PACKAGED = "pkg:"
"""Base models whose weights are those of an installed package, which a node may lack."""


class Where(NamedTuple):
    place: str | None = None
    inputs: tuple[str, ...] = ()
    departures: tuple[Departure, ...] = ()
    why_here: str = ""
    """What a person did not allow."""


def find_place(payload: EvaluationPayload, workspace: Workspace) -> Where:
    """The first place that takes evaluations, where this one may go there; else this machine."""
    taking = workspace.settings.place_taking("evaluate")
    if taking is None or not _is_closed(payload, workspace.settings):
        return Where()
    try:
        leaving = check_place(workspace, (each.ref for each in (payload.dataset, *_read_beside(payload))), taking)
    except NotAllowed as why:
        return Where(why_here=why.sentence)
    return Where(taking, as_inputs(_paths(payload, workspace.folders), workspace.folders), leaving)


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


def _read_beside(payload: EvaluationPayload) -> Iterator[Manifest]:
    """Versions whose rows are read, without their media."""
    for model in payload.models:
        yield from (*(model.learned_from or ()), *model.stated_data)
    yield from (suite.dataset for suite in payload.elsewhere)


def _paths(payload: EvaluationPayload, folders: Folders) -> Iterator[Path]:
    yield from version_files(payload.dataset, folders, media=True)
    for manifest in _read_beside(payload):
        yield from version_files(manifest, folders, media=False)
    for model in payload.models:
        if model.path is not None:
            yield Path(model.path)
