"""The table of the world's models made again, from what is installed and from a hub."""

from __future__ import annotations

from typing import Any

import pytest

from speciate.models import index, known, refresh
from speciate.models.packaged import PACKAGED
from speciate.models.query import Query
from speciate.workspace.workspace import Workspace
from tests.evaluation.world import perform
from tests.models.hub_server import serving

pytest.importorskip("huggingface_hub")


def found(workspace: Workspace, **said: Any) -> dict[str, dict[str, Any]]:
    asked = known.completed(Query(**said), None)
    return {
        hit.row["ref"]: hit.row
        for hit in known.search(workspace, asked, sort="relevance", limit=50, offset=0).hits
    }  # fmt: skip


def test_a_refresh_adds_what_the_hub_lists_and_keeps_the_rest(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    shipped = set(index.read()["ref"].to_pylist())
    before = len(shipped | {f"pkg:{name}" for name in PACKAGED})
    assert not found(workspace, sources=("hub",))
    with serving({"org/one": {}, "org/two": {}}) as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.endpoint)
        result = perform(workspace, refresh.KIND, {"sources": ["hub", "pkg"]})
    assert result == {"models": before + 2, "asked": ["hub", "pkg"], "missed": {}}
    assert set(found(workspace, sources=("hub",))) == {"hf:org/one", "hf:org/two"}
    assert found(workspace, text="minilm", sources=("pkg",))


def test_a_source_that_does_not_answer_keeps_what_was_known_of_it(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    with serving({"org/one": {}}) as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.endpoint)
        perform(workspace, refresh.KIND, {"sources": ["hub"]})
        hub.shut = True
        result = perform(workspace, refresh.KIND, {"sources": ["hub"]})
    assert list(result["missed"]) == ["hub"]
    assert set(found(workspace, sources=("hub",))) == {"hf:org/one"}
