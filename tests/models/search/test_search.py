"""Which of the world's models fit, against what the packages publish themselves."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from speciate import secrets
from speciate.errors import SpeciateError
from speciate.models import registry
from speciate.models.endpoints import Endpoint
from speciate.models.search import index, known_models
from speciate.models.search.index import SourceListing
from speciate.models.search.ranking import IndexPart, ModelIndex, Order
from speciate.models.search.search_query import AtLeast, Query, not_published
from speciate.models.search.sources import Entry, Figure
from speciate.workspace.workspace import Workspace
from tests.drawn import drawn

TODAY = "2026-11-25"
ABOVE_80 = AtLeast(benchmark="imagenet 1k", metric="acc@1", above=80)


@cache
def shipped() -> ModelIndex:
    """The table that comes with the package."""
    return indexed(index.read())


def entry(ref: str, **said: Any) -> Entry:
    return Entry(ref=ref, what=said.pop("what", ref), access=said.pop("access", "weights"), **said)


def table(*entries: Entry, source: str = "some") -> pa.Table:
    return index.merge([SourceListing(source, f"{source} 1.0", TODAY, entries)])


def indexed(rows: pa.Table, cache: Path | None = None) -> ModelIndex:
    return ModelIndex(IndexPart(rows, cache))


def refs(found: Any) -> list[str]:
    return [hit.row["ref"] for hit in found.hits]


def test_published_figures_and_sizes_select_what_torchvision_itself_says() -> None:
    pytest.importorskip("torchvision")
    from torchvision.models import get_model_weights, list_models

    right = {
        f"torchvision:{name}.{weights.name}"
        for name in list_models()
        for weights in get_model_weights(name)
        if weights.meta["num_params"] < 30e6 and weights.meta["_metrics"].get("ImageNet-1K", {}).get("acc@1", 0) > 80
    }
    asked = Query(
        task="image-classification", max_parameters=30_000_000, published=(ABOVE_80,), sources=("torchvision",)
    )
    found = shipped().search(asked, limit=50, today=TODAY)
    assert set(refs(found)) == right
    assert found.total == len(right) > 5
    assert refs(found)[0] == max(found.hits, key=lambda hit: hit.score_parts["published"]).row["ref"]


def test_a_licence_that_nobody_states_fails_and_is_counted_as_unknown() -> None:
    asked = Query(
        task="image-classification", max_parameters=30_000_000, published=(ABOVE_80,), licenses=("Apache-2.0", "MIT"),
        sources=("torchvision",),
    )  # fmt: skip
    found = shipped().search(asked, today=TODAY)
    assert found.total == 0
    removed = found.dropped_by["licenses"]
    assert removed.alone == shipped().search(asked.model_copy(update={"licenses": ()}), today=TODAY).total
    assert removed.unknown > 1_000


def test_apache_or_mit_under_30_million_parameters_above_80_percent_has_an_answer_with_source_and_date() -> None:
    asked = Query(
        task="image-classification", max_parameters=30_000_000, published=(ABOVE_80,), licenses=("Apache-2.0", "MIT")
    )
    found = shipped().search(asked, sort="published", limit=50, today=TODAY)
    assert found.total > 100
    values = []
    for hit in found.hits:
        assert hit.row["license"] in ("Apache-2.0", "MIT")
        assert hit.row["parameters"] <= 30_000_000
        source, day = dict(hit.row["origins"])["published"].rsplit(" ", 1)
        assert source.startswith("timm_results 20")
        assert len(day) == 10
        values.append(next(each["value"] for each in hit.row["published"] if each["metric"] == "acc@1"))
    assert min(values) > 80
    assert values == sorted(values, reverse=True)


def test_a_sort_by_published_values_takes_those_that_most_models_have_and_says_so() -> None:
    def figures(metric: str, value: float) -> tuple[Figure, ...]:
        return (Figure(benchmark="some", metric=metric, value=value),)

    searched = indexed(
        table(
            entry("hf:o/a", published=figures("acc@1", 70)), entry("hf:o/b", published=figures("acc@1", 90)),
            entry("hf:o/c", published=figures("wer", 5)), entry("hf:o/d", published=figures("f1", 99)),
            entry("hf:o/e", published=figures("wer", 9)), entry("hf:o/f", published=figures("wer", 8)),
        )
    )  # fmt: skip
    found = searched.search(Query(), sort="published", today=TODAY)
    assert refs(found)[:2] == ["hf:o/b", "hf:o/a"]
    assert found.order == Order("some acc@1", 2)
    named = Query(published=(AtLeast(benchmark="some", metric="acc@1"),))
    assert refs(searched.search(named, sort="published", today=TODAY)) == ["hf:o/b", "hf:o/a"]
    without = indexed(table(entry("hf:o/a"))).search(Query(), sort="published", today=TODAY)
    assert without.order == Order(None, 0)
    assert searched.search(Query(), today=TODAY).order is None


def test_what_is_priced_by_the_minute_or_the_image_is_sorted_by_that() -> None:
    heard = [entry(f"api:p/{usd}", access="api", usd_per_minute=usd) for usd in (0.02, 0.003)]
    by_tokens = entry("api:p/tokens", access="api", usd_per_1m_output=1.0)
    found = indexed(table(*heard, by_tokens)).search(Query(), sort="price", today=TODAY)
    assert refs(found) == ["api:p/0.003", "api:p/0.02", "api:p/tokens"]
    assert found.order == Order("usd_per_minute", 2)
    drawn = [entry(f"api:p/{usd}", access="api", usd_per_image=usd) for usd in (0.2, 0.03)]
    assert refs(indexed(table(*drawn)).search(Query(), sort="price", today=TODAY))[0] == "api:p/0.03"
    assert indexed(table(by_tokens)).search(Query(), sort="price", today=TODAY).order is None


def test_chat_models_that_look_at_images_and_what_a_minute_costs_are_known_without_a_key() -> None:
    seeing = shipped().search(Query(task="image-text-to-text", modality="image", sources=("litellm",)), today=TODAY)
    assert seeing.total > 100
    asked = Query(task="automatic-speech-recognition", sources=("litellm",))
    heard = shipped().search(asked, sort="price", today=TODAY)
    assert heard.hits[0].row["usd_per_minute"] > 0
    assert "usd_per_minute" in dict(heard.hits[0].row["origins"])


def test_text_classifiers_are_known_by_what_they_were_trained_for() -> None:
    found = shipped().search(Query(task="text-classification", text="sentiment of movie reviews"), today=TODAY)
    assert found.total > 60
    assert any("imdb" in ref for ref in refs(found)[:5])
    assert "hf:unitary/unbiased-toxic-roberta" in refs(shipped().search(Query(text="toxicity"), today=TODAY))


def test_thousands_of_open_and_served_models_are_known_with_who_told_it() -> None:
    rows = index.read().to_pylist()
    served = [row for row in rows if row["access"] == "api"]
    assert len(rows) - len(served) > 3_500
    assert len(served) > 2_300
    assert all(set(dict(row["origins"])) >= {"ref", "access"} for row in rows)
    assert all(
        name in dict(row["origins"]) for row in rows for name in ("parameters", "license") if row[name] is not None
    )


def test_what_one_source_does_not_know_another_tells_and_the_first_word_stands() -> None:
    first = SourceListing(
        "a", "a 1", TODAY, [entry("timm:x", hub="o/x", parameters=7, tasks=("image-classification",))]
    )
    second = SourceListing(
        "b", "b 2", TODAY, [entry("hf:o/x", hub="o/x", parameters=9, license="MIT", tasks=("feature-extraction",))]
    )
    (row,) = index.merge([first, second]).to_pylist()
    assert (row["ref"], row["parameters"], row["license"]) == ("timm:x", 7, "MIT")
    assert row["tasks"] == ["image-classification", "feature-extraction"]
    assert dict(row["origins"])["license"] == f"b 2, {TODAY}"
    assert row["sources"] == ["a", "b"]


def test_words_come_before_dates_and_every_part_is_shown() -> None:
    found = indexed(
        table(
            entry("hf:o/old", what="defects of turbine blades", released="2019-01-01"),
            entry("hf:o/new", what="songs of birds", released="2026-11-24"),
        )
    ).search(Query(text="turbine blades"), today=TODAY)
    assert refs(found) == ["hf:o/old", "hf:o/new"]
    assert found.hits[0].score_parts["words"] == 1.0
    assert found.hits[1].score_parts == {"words": 0.0, "recency": pytest.approx(1, abs=0.01)}


def test_two_bounds_of_one_metric_both_hold() -> None:
    models = [
        entry(f"hf:o/{value}", published=(Figure(benchmark="ImageNet-1K", metric="acc@1", value=value),))
        for value in (70.0, 85.0, 95.0)
    ]
    below = AtLeast(benchmark="imagenet 1k", metric="acc@1", below=90)
    found = indexed(table(*models)).search(Query(published=(ABOVE_80, below)), today=TODAY)
    assert refs(found) == ["hf:o/85.0"]
    assert [each.alone for each in found.dropped_by.values()] == [1, 1]


def test_figures_of_another_benchmark_do_not_count() -> None:
    figure = Figure(benchmark="ImageNet-V2", metric="acc@1", value=99)
    found = indexed(table(entry("hf:o/a", published=(figure,)))).search(Query(published=(ABOVE_80,)), today=TODAY)
    assert found.total == 0
    assert found.dropped_by["published imagenet 1k acc@1"].unknown == 1


SOME = st.tuples(st.none() | st.integers(1, 5), st.none() | st.sampled_from(["MIT", "GPL-3.0-only"]))


@settings(max_examples=drawn(40, 15), deadline=None)
@given(st.lists(SOME, min_size=1, max_size=8), st.none() | st.integers(1, 5), st.booleans())
def test_what_is_dropped_adds_up(there: list[tuple[int | None, str | None]], most: int | None, mit: bool) -> None:
    found_in = indexed(
        table(*(entry(f"hf:o/{i}", parameters=size, license=name) for i, (size, name) in enumerate(there)))
    )
    query = Query(max_parameters=most, licenses=("MIT",) if mit else ())
    found = found_in.search(query, today=TODAY)
    small = [most is None or (size is not None and size <= most) for size, _ in there]
    free = [not mit or name == "MIT" for _, name in there]
    assert found.total == sum(a and b for a, b in zip(small, free, strict=True))
    for name, dropped in found.dropped_by.items():
        without = query.model_copy(update={name: None if name == "max_parameters" else ()})
        assert dropped.alone == found_in.search(without, today=TODAY).total - found.total


def test_usual_names_of_benchmarks_and_metrics_mean_the_published_ones() -> None:
    def total(benchmark: str, metric: str) -> int:
        asked = Query(published=(AtLeast(benchmark=benchmark, metric=metric, above=80),))
        return shipped().search(asked, limit=1, today=TODAY).total

    wanted = total("ImageNet-1K", "acc@1")
    assert wanted > 5
    for benchmark in ("imagenet", "ImageNet", "image-net 1k", "ILSVRC-2012"):
        assert total(benchmark, "top-1") == total(benchmark, "Top1") == total(benchmark, "accuracy") == wanted
    assert total("imagenet", "top-5") == total("ImageNet-1K", "acc@5")
    assert total("imagenet-21k", "top-1") == 0


def test_what_nobody_published_is_said_with_what_there_is() -> None:
    known = shipped().published()
    assert not_published(AtLeast(benchmark="imagenet", metric="top-1"), known) is None
    said = str(not_published(AtLeast(benchmark="ImageNet", metric="f1"), known))
    assert "'ImageNet' by 'f1'" in said
    assert "acc@1, acc@5" in said
    said = str(not_published(AtLeast(benchmark="kinetic-40", metric="top-1"), known))
    assert "did you mean 'Kinetics-400'" in said
    assert "COCO-val2017" in said


def test_where_nothing_is_left_the_fewest_constraints_are_lifted() -> None:
    rows = table(
        entry("timm:a", parameters=9, license="MIT", tasks=("image-classification",)),
        entry("timm:b", parameters=90, license="MIT", tasks=("image-classification",)),
        entry("timm:c", parameters=90, license="MIT", tasks=("text-generation",)),
    )
    asked = Query(task="image-classification", max_parameters=1, released_after="2026", licenses=("MIT",))
    found = indexed(rows).search(asked, today=TODAY)
    assert (found.total, set(found.lifted)) == (0, {"max_parameters", "released_after"})
    found = indexed(rows).search(asked.model_copy(update={"max_parameters": 10}), today=TODAY)
    assert found.lifted == ("released_after",)


def test_pages_together_are_the_whole() -> None:
    asked = Query(task="image-classification", sources=("torchvision",))
    whole = refs(shipped().search(asked, limit=1_000, today=TODAY))
    pages = [refs(shipped().search(asked, limit=7, offset=start, today=TODAY)) for start in range(0, len(whole), 7)]
    assert [ref for page in pages for ref in page] == whole
    assert len(set(whole)) == len(whole)


def test_models_of_the_workspace_are_found_beside_the_worlds(workspace: Workspace) -> None:
    found = known_models.search(
        workspace, known_models.complete_query(Query(installed=True), None), sort="relevance", limit=20, offset=0
    )
    here = known_models.AccessContext.now(workspace)
    assert all(known_models.access(hit.row, here).available for hit in found.hits)
    assert found.dropped_by["installed"].alone > 5_000


def test_after_a_registration_only_its_row_is_new_and_the_index_is_as_if_made_afresh(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    where = Endpoint(base_url="http://127.0.0.1:1/v1", model="m")
    read, entered = list[Path](), list[str]()
    monkeypatch.setattr(index, "read", lambda path, read_=index.read: read.append(path) or read_(path))
    monkeypatch.setattr(
        known_models, "_entry", lambda card, of=known_models._entry: entered.append(card.ref) or of(card)
    )

    def register(name: str, model: str = "m") -> None:
        card = registry.served_card(
            workspace, name, where.model_copy(update={"model": model}), task="text-generation", license=None
        )
        workspace.database.transact(lambda tx: registry.register(tx, workspace.folders, card, None))

    def delete(name: str) -> None:
        workspace.database.transact(lambda tx: tx.execute("DELETE FROM model_versions WHERE name = ?", [name]))
        workspace.database.transact(lambda tx: tx.event(f"model:{name}", "model.deleted", {}))

    queries = [Query(text="endpoint b"), Query(task="text-generation"), Query(sources=(known_models.REGISTERED,))]
    steps = [
        lambda: None, lambda: register("b"), lambda: [register("b-c"), register("b.c"), register("a")],
        lambda: register("b", "another"), lambda: delete("b-c"), lambda: [delete(name) for name in ("a", "b", "b.c")],
        lambda: register("z"),
    ]  # fmt: skip
    for step in steps:
        step()
        grown = known_models.models(workspace)
        again = [grown.search(query, today=TODAY) for query in queries]
        wanted = list(entered)
        with monkeypatch.context() as fresh:
            fresh.setattr(known_models, "_loaded", {})
            made = known_models.models(workspace)
        assert grown._table.equals(made._table)
        assert [made.search(query, today=TODAY) for query in queries] == again
        entered[:] = wanted
        assert known_models.models(workspace) is grown
    assert entered == ["b@v1", "a@v1", "b-c@v1", "b.c@v1", "b@v2", "z@v1"]
    assert len(read) == 1 + len(steps), "the fresh ones, and the first"


@pytest.mark.parametrize(
    ("said", "why"),
    [
        ({"task": "image-classificaton"}, "did you mean"),
        ({"licenses": ("no such licence!",)}, "no licence"),
        ({"sources": ("tim",)}, "did you mean 'timm'"),
    ],
)
def test_a_wrong_name_is_an_error_that_names_the_nearest(said: dict[str, Any], why: str) -> None:
    with pytest.raises(SpeciateError, match=why):
        known_models.complete_query(Query(**said), None)


def test_what_a_model_needs_is_what_stands_in_its_way(
    workspace: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))

    def needs(ref: str, **row: Any) -> tuple[bool, tuple[str, ...]]:
        return known_models.access({"ref": ref, "format": None} | row, known_models.AccessContext.now(workspace))

    secret = "A person runs: speciate secret set openai --host api.openai.com"
    allow = "A person runs: speciate allow DATASET --host api.openai.com --usd CAP"
    assert needs("api:openai/gpt") == (False, (secret, allow))
    secrets.put("openai", ["api.openai.com"], "sk-of-a-test")
    assert needs("api:openai/gpt") == (False, (allow,))
    allowed = ["d", "api.openai.com", 1.0, 0.0, None, "ann"]
    workspace.database.transact(lambda tx: tx.execute("INSERT INTO consents VALUES (?, ?, ?, ?, ?, ?)", allowed))
    assert needs("api:openai/gpt") == (True, ())
    installed = known_models.search(
        workspace, Query(installed=True, sources=("prices",)), sort="price", limit=5, offset=0
    )
    assert installed.total > 50
    assert all(ref.startswith("api:openai/") for ref in refs(installed))
    assert not needs("api:nobody/m")[0]
    assert not needs("torchvision:a", format="pickle")[0]
    assert "accepts its publisher's terms" in needs("hf:o/m", gated=True)[1][1]


def test_an_endpoint_of_the_workspace_needs_what_is_not_typed_yet(workspace: Workspace) -> None:
    where = Endpoint(base_url="https://llm.example/v1", model="m")
    card = registry.served_card(workspace, "far", where, task=None, license=None)
    workspace.database.transact(lambda tx: registry.register(tx, workspace.folders, card, None))
    asked = Query(sources=(known_models.REGISTERED,))
    (hit,) = known_models.search(workspace, asked, sort="relevance", limit=5, offset=0).hits
    access = known_models.access(hit.row, known_models.AccessContext.now(workspace))
    assert access == (False, ("A person runs: speciate allow DATASET --host llm.example --usd CAP",))
    only = asked.model_copy(update={"installed": True})
    assert known_models.search(workspace, only, sort="relevance", limit=5, offset=0).total == 0
