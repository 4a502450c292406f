"""The table of published models rebuilt, from installed packages and from a hub."""

from __future__ import annotations

from typing import Any

import pytest

from speciate.errors import SpeciateError
from speciate.models.packaged import PACKAGED
from speciate.models.search import build_index, index, known_models, refresh, sources
from speciate.models.search.index import SourceListing
from speciate.models.search.search_query import Query
from speciate.models.search.sources import Entry, PackageSource
from speciate.workspace.workspace import Workspace
from tests.evaluation.world import perform
from tests.models.hub_server import serving

pytest.importorskip("huggingface_hub")


def found(workspace: Workspace, **said: Any) -> dict[str, dict[str, Any]]:
    asked = known_models.complete_query(Query(**said), None)
    return {
        hit.row["ref"]: hit.row
        for hit in known_models.search(workspace, asked, sort="relevance", limit=50, offset=0).hits
    }  # fmt: skip


@pytest.fixture
def few(workspace: Workspace) -> set[str]:
    """The table of an earlier refresh, of those of packages and every twentieth of the others; their names."""
    table = index.read()
    kept = [at for at, ref in enumerate(table["ref"].to_pylist()) if at % 20 == 0 or ref.startswith("pkg:")]
    table = table.take(kept)
    path = workspace.folders.cache / "models" / index.SHIPPED.name
    path.parent.mkdir(parents=True)
    index.write(table, path)
    assert refresh.newest(workspace.folders) == path
    return set(table["ref"].to_pylist())


def test_a_refresh_adds_what_the_hub_lists_and_keeps_the_rest(
    workspace: Workspace, few: set[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    before = len(few | {f"pkg:{name}" for name in PACKAGED})
    assert not found(workspace, sources=("hub",))
    with serving({"org/one": {}, "org/two": {}}) as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.endpoint)
        result = perform(workspace, refresh.KIND, {"sources": ["hub", "pkg"]})
    assert (result["models"], result["asked"], result["missed"]) == (before + 2, ["hub", "pkg"], {})
    assert {each["ref"] for each in result["new"]} == {"hf:org/one", "hf:org/two"}
    assert set(found(workspace, sources=("hub",))) == {"hf:org/one", "hf:org/two"}
    assert found(workspace, text="minilm", sources=("pkg",))


@pytest.mark.usefixtures("few")
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


def test_who_is_not_asked_keeps_what_it_said_of_models_that_others_know_too() -> None:
    ours = Entry(
        ref="timm:x.y", what="a picture encoder", access="weights", hub="timm/x.y", license="MIT", tasks=("a",),
        base_model="hf:timm/x",
    )  # fmt: skip
    hubs = Entry(
        ref="hf:timm/x.y", what="timm/x.y", access="weights", hub="timm/x.y", downloads=99, license="Apache-2.0",
        tasks=("b",), base_model="hf:timm/x", relation="finetune",
    )  # fmt: skip

    def by_timm(day: str, *entries: Entry) -> SourceListing:
        return SourceListing("timm", f"timm 1.{day}", f"2026-01-0{day}", entries)

    def by_hub(day: str, *entries: Entry) -> SourceListing:
        return SourceListing("hub", "huggingface.co", f"2026-01-0{day}", entries)

    before = index.merge([by_hub("1", hubs), by_timm("1", ours)], {"x": 5})
    (row,) = before.to_pylist()
    assert (row["ref"], row["license"], row["downloads"], row["parameters"]) == ("timm:x.y", "MIT", 99, 5)
    for told, day in ((by_timm("2", ours), "2"), (by_hub("2", hubs), "1")):
        (again,) = index.merge([told], index.known_sizes(before), before).to_pylist()
        origins = dict(again["origins"])
        assert {name: again[name] for name in row if name != "origins"} == {
            name: row[name] for name in row if name != "origins"
        }
        assert origins["license"] == f"timm 1.{day}, 2026-01-0{day}"
        assert origins["downloads"] == f"huggingface.co, 2026-01-0{'1' if day == '2' else '2'}"
    (alone,) = index.merge([by_timm("2")], {}, before).to_pylist()
    assert (alone["ref"], alone["sources"], alone["downloads"]) == ("hf:timm/x.y", ["hub"], 99)
    assert alone["license"] is None  # of it, only timm's word is known
    assert not index.merge([by_timm("2"), by_hub("2")], {}, before).num_rows


def test_sources_that_are_installed_tell_what_the_shipped_table_holds() -> None:
    names = ["pkg", "open_clip", "segmentation_models", "prices"]
    if not all(sources.find(name).installed() for name in names):
        pytest.skip("the packages are not installed: make install")
    made = build_index.build(index.read(), "2026-11-27", names)
    shipped = {row["hub"] or row["ref"]: row for row in index.read().to_pylist()}
    assert made.num_rows > 2_500
    rows = made.to_pylist()
    pairs = [(row, shipped[key]) for row in rows if (key := row["hub"] or row["ref"]) in shipped]
    assert len(pairs) > 0.95 * len(rows), "a package that is newer than the table names some models more"
    same = [
        set(row["sources"]) <= set(known["sources"])
        and ((known["ref"], known["what"]) == (row["ref"], row["what"]) or len(known["sources"]) > 1)
        for row, known in pairs
    ]
    assert sum(same) > 0.99 * len(pairs), "or words some anew"


def test_a_table_is_not_made_where_a_source_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(PackageSource, "installed", lambda self: self.package != "mteb")
    with pytest.raises(SpeciateError, match="not installed: mteb"):
        build_index.build(index.read(), "2026-11-27")
