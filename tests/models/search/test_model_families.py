"""Near-identical models as one row, and never a row hidden that a constraint tells apart."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from speciate.errors import SpeciateError
from speciate.models.search import index, model_families
from speciate.models.search.ranking import SearchResult
from speciate.models.search.search_query import AtLeast, Query
from speciate.models.search.sources import Figure
from tests.drawn import drawn
from tests.models.search.test_search import TODAY, entry, indexed, refs, shipped, table

LLAMA = entry("hf:meta/llama-8b", hub="meta/llama-8b", tasks=("text-generation",), license="LicenseRef-llama3")


def child(ref: str, relation: str | None, **said: Any) -> Any:
    tasks = said.pop("tasks", ("text-generation",))
    return entry(ref, base_model="hf:meta/llama-8b", relation=relation, tasks=tasks, **said)


def rows(found: SearchResult) -> list[tuple[str, int]]:
    return [(hit.row["ref"], hit.children) for hit in found.hits]


def test_what_is_made_from_one_base_is_one_row_and_is_seen_by_asking_for_it() -> None:
    known = indexed(
        table(
            LLAMA,
            child("hf:a/x-quantized", "quantized", tasks=()),
            child("hf:b/chat", "finetune"),
            child("hf:c/merged", "merge"),
            child("hf:d/adapter", "adapter"),
            child("hf:e/classifier", "finetune", tasks=("text-classification",)),
            child("hf:f/adapted", None),
            entry("hf:meta/llama-8b-AWQ-4bit", tasks=("text-generation",)),
            entry("hf:other/model", tasks=("text-generation",)),
        )
    )
    found = known.search(Query(), today=TODAY)
    assert sorted(rows(found)) == [
        ("hf:e/classifier", 0), ("hf:f/adapted", 0), ("hf:meta/llama-8b", 5), ("hf:other/model", 0)
    ]  # fmt: skip
    assert (found.total, found.shown) == (9, 4)
    seen = known.search(Query(children_of="hf:meta/llama-8b"), today=TODAY)
    assert set(refs(seen)) == {
        "hf:meta/llama-8b", "hf:a/x-quantized", "hf:b/chat", "hf:c/merged", "hf:d/adapter",
        "hf:meta/llama-8b-AWQ-4bit",
    }  # fmt: skip
    assert all(hit.children == 0 for hit in seen.hits)


def test_a_child_that_alone_holds_a_constraint_stands_for_itself() -> None:
    free, small = child("hf:b/free", "finetune", license="MIT"), child("hf:c/small", "quantized", parameters=5)
    known = indexed(table(LLAMA, free, small))
    assert rows(known.search(Query(licenses=("MIT",)), today=TODAY)) == [("hf:b/free", 0)]
    assert rows(known.search(Query(max_parameters=10), today=TODAY)) == [("hf:c/small", 0)]


def test_words_that_only_a_child_has_show_the_child() -> None:
    known = indexed(table(LLAMA, child("hf:b/x", "finetune", what="finnish law"), entry("hf:o/y", what="birds")))
    assert rows(known.search(Query(text="finnish law"), today=TODAY))[0] == ("hf:b/x", 1)
    assert rows(known.search(Query(text="llama"), today=TODAY))[0] == ("hf:meta/llama-8b", 1)


def test_a_published_value_that_was_asked_for_separates() -> None:
    def with_value(ref: str, value: float, relation: str | None = None) -> Any:
        figures = (Figure(benchmark="B", metric="m", value=value),)
        return entry(ref, published=figures, base_model="hf:o/x" if relation else None, relation=relation)

    known = indexed(
        table(with_value("hf:o/x", 80), with_value("hf:o/y", 81, "quantized"), with_value("hf:o/z", 81, "quantized"))
    )
    asked = Query(published=(AtLeast(benchmark="b", metric="M", above=70),))
    assert rows(known.search(asked, sort="published", today=TODAY)) == [("hf:o/y", 1), ("hf:o/x", 0)]
    assert rows(known.search(Query(), today=TODAY)) == [("hf:o/x", 2)]


def test_all_trainings_of_one_network_of_timm_are_one_row() -> None:
    found = shipped().search(Query(sources=("timm",), text="vit_base_patch16_224 dino"), today=TODAY)
    best = found.hits[0]
    assert "dino" in best.row["ref"]
    assert best.children > 5
    seen = shipped().search(Query(children_of=best.row["ref"]), limit=50, today=TODAY)
    assert {ref.partition(".")[0] for ref in refs(seen)} == {best.row["ref"].partition(".")[0]}
    assert seen.total == best.children + 1


@pytest.mark.parametrize(
    ("name", "stem"),
    [
        ("hf:org/x-7b-GGUF", "hf:org/x-7b"),
        ("hf:org/x-7b-AWQ-4bit", "hf:org/x-7b"),
        ("hf:org/x-7b.i1-GGUF", "hf:org/x-7b"),
        ("hf:org/x-w4a16-g128", "hf:org/x"),
        ("hf:org/x-FP8-dynamic", "hf:org/x"),
        ("hf:org/x_q4_k_m", "hf:org/x"),
        ("api:provider/x-4b", "api:provider/x-4b"),
        ("hf:org/vit-g-14", "hf:org/vit-g-14"),
        ("hf:org/phi-3.5-mini", "hf:org/phi-3.5-mini"),
        ("hf:org/dynamic", "hf:org/dynamic"),
        ("hf:org/gguf", "hf:org/gguf"),
    ],
)
def test_a_name_says_in_which_numbers_weights_are_kept(name: str, stem: str) -> None:
    assert model_families.without_quantization(name) == stem


def test_models_that_name_each_other_as_their_base_are_one_family() -> None:
    known = indexed(
        table(
            entry("hf:o/a", base_model="hf:o/b", relation="quantized"),
            entry("hf:o/b", base_model="hf:o/a", relation="quantized"),
            entry("hf:o/c", base_model="hf:o/a", relation="adapter"),
        )
    )
    assert [hit.children for hit in known.search(Query(), today=TODAY).hits] == [2]


def test_a_model_that_is_not_known_has_no_children() -> None:
    with pytest.raises(SpeciateError, match="did you mean 'hf:meta/llama-8b'"):
        indexed(table(LLAMA)).search(Query(children_of="hf:meta/llama-8"), today=TODAY)


NAMES = [f"hf:o/{name}" for name in ("a", "b", "a-GGUF", "b-4bit", "a-AWQ-GGUF", "c")]
SAID = st.fixed_dictionaries(
    {
        "base_model": st.none() | st.sampled_from(NAMES),
        "relation": st.none() | st.sampled_from(["quantized", "finetune"]),
        "license": st.none() | st.sampled_from(["MIT", "GPL-3.0-only"]),
        "parameters": st.none() | st.integers(1, 4),
        "tasks": st.sampled_from([(), ("text-generation",)]),
    }
)


@settings(max_examples=drawn(60, 10), deadline=None)
@given(st.lists(SAID, min_size=1, max_size=len(NAMES)), st.booleans(), st.none() | st.integers(1, 4))
def test_rows_and_their_children_are_all_that_hold_the_constraints(
    said: list[dict[str, Any]], mit: bool, most: int | None
) -> None:
    known = indexed(table(*(entry(name, **each) for name, each in zip(NAMES, said, strict=False))))
    asked = Query(licenses=("MIT",) if mit else (), max_parameters=most)
    found = known.search(asked, today=TODAY)
    assert sum(hit.children + 1 for hit in found.hits) == found.total
    assert len(found.hits) == found.shown
    seen = [
        refs(known.search(asked.model_copy(update={"children_of": hit.row["ref"]}), today=TODAY)) for hit in found.hits
    ]
    right = {
        name
        for name, each in zip(NAMES, said, strict=False)
        if (not mit or each["license"] == "MIT")
        and (most is None or (each["parameters"] is not None and each["parameters"] <= most))
    }
    assert sorted(ref for family in seen for ref in family) == sorted(right)


def test_an_older_table_without_relations_is_read() -> None:
    assert set(index.read().column_names) == set(index.SCHEMA.names)
