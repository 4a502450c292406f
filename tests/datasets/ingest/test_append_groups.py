"""Which datasets have named groups, and which rows lack a group that they need."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
import pytest

from speciate.datasets.ingest.append import Grouping, is_grouped, is_log, require_groups, rows_without_group
from speciate.datasets.ingest.draft import Draft
from speciate.errors import Code, SpeciateError
from speciate.refs import id_from_key

BY_CRITIC = Grouping("films@v2", "critic", ("review",))


def rows(*groups: str | None, quality: str = "ok", **columns: list[Any]) -> pa.Table:
    texts = pa.array(groups, pa.string())
    return pa.table({"quality": pa.array([quality] * len(groups)), "group_key": texts, **columns})


def draft(table: pa.Table) -> Draft:
    return Draft(table, "text", ("review",), "label", False, {}, warnings=("before",))


def test_one_named_group_makes_a_dataset_grouped() -> None:
    assert is_grouped(rows(None, None, "critic3"), "text")
    assert not is_grouped(rows(None, None), "text")
    assert not is_grouped(rows("critic3", quality="refused"), "text")


def test_groups_by_ids_as_windows_and_variants_have_them_are_no_such_groups() -> None:
    assert not is_grouped(rows(id_from_key("ex", "a"), None), "text")
    assert is_grouped(rows("ex-1", None), "text")


def test_groups_of_the_medium_itself_come_with_new_rows() -> None:
    scaffolds = rows("c1ccccc1", None, scaffold=["c1ccccc1", None])
    assert not is_grouped(scaffolds, "molecule")
    assert is_grouped(rows("plate7", None, scaffold=["c1ccccc1", None]), "molecule")
    assert is_grouped(rows("plate7", None, scaffold=[None, None]), "molecule")


def test_rows_that_are_or_may_become_usable_lack_a_group() -> None:
    both = pa.concat_tables([rows(None, "a"), rows(None, quality="partial"), rows(None, quality="error")])
    assert rows_without_group(both).tolist() == [True, False, True, False]


def test_answers_that_say_no_group_are_left_out_and_counted_with_the_way() -> None:
    found = require_groups(draft(rows("critic1", None, "critic2", None)), BY_CRITIC)
    assert found.table["group_key"].to_pylist() == ["critic1", "critic2"]
    before, warning = found.warnings
    assert before == "before"
    assert warning.startswith("2 of the answers do not say 'critic', by which films@v2 is grouped, and were left out")
    assert "{'row': {'review': ..., 'critic': ...}}" in warning
    whole = draft(rows("critic1"))
    assert require_groups(whole, BY_CRITIC) is whole


def test_where_no_answer_says_its_group_all_are_refused() -> None:
    with pytest.raises(SpeciateError, match="films@v2 is grouped by 'critic', and nobody sent that") as raised:
        require_groups(draft(rows(None, None)), BY_CRITIC)
    assert raised.value.code is Code.INVALID
    with pytest.raises(SpeciateError) as raised:
        require_groups(draft(rows(None)), BY_CRITIC._replace(column=None))
    assert "'ungrouped': 'take'" in raised.value.recovery
    assert "{'row'" not in raised.value.recovery, "nobody can send what paths say"


def test_a_log_is_not_a_file_of_that_name() -> None:
    assert is_log("log:triage?labelled=true")
    assert not is_log("/data/log:triage")
    assert not is_log(None)
