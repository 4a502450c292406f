"""Payloads that were stored before they had a type: jobs that were queued then mean what they meant.

`stored/KIND.json` is the payload of a plan as the release before wrote it, with the workspace at /workspace.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

from speciate.evaluation.endpoints.endpoint_fingerprint import FingerprintPayload
from speciate.exports.export_model import ExportModelPayload
from speciate.jobs.folder import RunFolder
from speciate.jobs.kinds import Plan
from speciate.jobs.run import Run
from speciate.privacy import gc
from speciate.privacy.erase import ErasePayload
from speciate.privacy.gc import GcPayload
from speciate.serving.batch_predict import PredictPayload
from speciate.workspace.workspace import Workspace

_STORED = Path(__file__).parent / "stored"
_PAYLOADS: dict[str, type[BaseModel]] = {
    "gc": GcPayload, "erase": ErasePayload, "export_model": ExportModelPayload, "fingerprint": FingerprintPayload,
    "predict": PredictPayload, "predict_file": PredictPayload,
}  # fmt: skip
_ADDED_LATER = ("custody", "identity", "sweeps", "lacking", "known_to", "surplus")
"""Fields of `gc` that its first payloads lacked."""
_AS_ALWAYS = [("hashing", 1)]
"""What fields that came later say of what was made before."""


def stored(kind: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((_STORED / f"{kind}.json").read_text())
    return found


@pytest.mark.parametrize("kind", _PAYLOADS)
def test_a_stored_payload_is_read_and_written_as_it_was(kind: str) -> None:
    before = stored(kind)
    plan: Plan[BaseModel] = Plan(payload=_PAYLOADS[kind].model_validate(before))
    assert without_new(plan.payload_json(), before) == before
    assert without_new(json.loads(plan.model_dump_json(by_alias=True))["payload"], before) == before


def without_new(now: Any, before: Any) -> Any:
    """`now` without the fields that its models gained since, where they say nothing new: empty, or as it always was."""
    if isinstance(now, list) and isinstance(before, list) and len(now) == len(before):
        return [without_new(*each) for each in zip(now, before, strict=True)]
    if not (isinstance(now, dict) and isinstance(before, dict)):
        return now
    kept = {
        name: value
        for name, value in now.items()
        if name in before or (value not in (None, [], {}) and (name, value) not in _AS_ALWAYS)
    }
    return {name: without_new(value, before.get(name)) for name, value in kept.items()}


def test_an_export_that_was_queued_before_it_had_formats_writes_safetensors() -> None:
    before = {name: value for name, value in stored("export_model").items() if name not in ("format", "judging")}
    found = ExportModelPayload.model_validate(before)
    assert (found.format, found.judging) == ("safetensors", None)


@pytest.mark.parametrize("missing", [(), _ADDED_LATER])
def test_a_stored_collection_of_garbage_deletes_what_a_person_asked_for_and_no_more(
    workspace: Workspace, missing: tuple[str, ...]
) -> None:
    folders = workspace.folders
    doomed, unnamed = folders.runs / "job-x.1", folders.blobs / "ab" / ("ab" * 32)
    for path in (doomed / "log", unnamed):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("x" * 10)
        os.utime(path, (0, 0))
    payload = {**stored("gc"), "identity": workspace.identity, "sweeps": False}
    payload = {name: value for name, value in payload.items() if name not in missing}
    assert list(payload["doomed"]) == ["runs/job-x.1"]
    folder = RunFolder(folders.runs / "job-gc.1")
    folder.create({"payload": payload, "job": "job-gc", "workspace": str(folders.root)})
    assert gc.run(Run(folder)) == {"freed": {"forgotten": 10}, "bytes": 10}
    assert not doomed.exists()
    assert unnamed.exists()
