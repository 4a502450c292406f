"""An operation of a third party, as docs/curation.md shows it: found by its entry point, checked, run, recorded."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest

from speciate.datasets import operations
from speciate.datasets.versions import resolve, version
from speciate.errors import SpeciateError
from speciate.server.option_catalog import list_options
from speciate.workspace.workspace import Workspace
from tests import data
from tests.datasets.operations.world import curate

PLUGIN = Path(__file__).parent / "plugin"
DOCS = Path(__file__).parents[3] / "docs" / "curation.md"


@pytest.fixture(autouse=True)
def installed(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.syspath_prepend(PLUGIN)
    operations._third_parties.cache_clear()
    yield
    operations._third_parties.cache_clear()
    sys.modules.pop("speciate_shorten", None)


def test_it_works_among_ours(workspace: Workspace) -> None:
    rows = tuple({"text": "x" * length, "kind": "ab"[length % 2]} for length in range(30, 50))
    data.ingest(workspace, "set", rows=rows, label="kind")
    made = curate(
        workspace,
        "set",
        {"op": "shorten", "characters": 44},
        {"op": "filter", "where": "characters > 34"},
        {"op": "relabel", "mapping": {"a": "even"}},
    )
    assert [(step["op"], step["before"], step["after"]) for step in made.steps] == [
        ("shorten", 20, 15), ("filter", 15, 10), ("relabel", 10, 10),
    ]  # fmt: skip
    assert made.steps[0]["audit"] == {"longest": 49}
    assert version(workspace.database, "set").operation["steps"][0] == {"op": "shorten", "characters": 44}


def test_later_steps_are_checked_when_they_run(workspace: Workspace) -> None:
    rows = tuple({"text": "x" * length, "kind": "ab"[length % 2]} for length in range(30, 50))
    data.ingest(workspace, "set", rows=rows, label="kind")
    with pytest.raises(SpeciateError, match=r"Step 2 \(filter\): There is no column 'charcters'; did you mean 'char"):
        curate(workspace, "set", {"op": "shorten"}, {"op": "filter", "where": "charcters > 34"})
    with pytest.raises(SpeciateError, match="did you mean 'characters'"):
        curate(workspace, "set", {"op": "shorten", "character": 3})
    assert resolve(workspace.database, "set").version == 1


def test_it_can_be_chosen_and_cannot_replace_one_of_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    (option,) = list_options("operation", "shorten")
    assert option.what == "keep short texts"
    assert option.parameters["properties"]["characters"]["default"] == 40
    assert {"filter", "shorten"} <= {each.name for each in list_options("operation")}
    taken = EntryPoint("filter", "speciate_shorten:SHORTEN", operations.GROUP)
    monkeypatch.setattr(operations, "entry_points", lambda group: [taken])
    operations._third_parties.cache_clear()
    assert operations.find("filter").name == "filter"


def test_the_page_shows_this_very_file() -> None:
    shown = re.findall(r"```python\n(.*?)```", DOCS.read_text(), re.DOTALL)
    assert (PLUGIN / "speciate_shorten.py").read_text() in shown
