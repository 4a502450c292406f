"""Data for language models as files have them: messages, prompts with completions, pairs."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from speciate.datasets import roles
from speciate.datasets.readers.json_records import read_jsonl
from speciate.datasets.readers.parquet import read_parquet
from speciate.datasets.readers.rows import as_text, conversations_as_text
from speciate.modalities.contract import DecodeError
from speciate.modalities.messages import conversation, readable_text, split_last_answer
from speciate.modalities.text import TEXT

SAID = [{"role": "user", "content": "hello"}, {"role": "assistant", "content": "hi"}]


def _lines(path: Path, *rows: object) -> pa.Table:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return read_jsonl(path, ())


def test_messages_become_one_text_that_reads_back(tmp_path: Path) -> None:
    table = _lines(tmp_path / "chat.jsonl", {"messages": SAID}, {"messages": SAID[:1]})
    assert [each.content for each in conversation(table["messages"][0].as_py())] == ["hello", "hi"]
    assert split_last_answer(conversation(table["messages"][0].as_py())) == (conversation("hello"), "hi")
    assert readable_text(table["messages"][0].as_py()) == "user: hello\nassistant: hi"


def test_parquet_with_messages_gives_the_same_text(tmp_path: Path) -> None:
    rows = [{"messages": SAID}, {"messages": None}, {"messages": [{"role": "user", "content": "x", "name": "y"}]}]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "chat.parquet")
    cells = conversations_as_text(read_parquet(tmp_path / "chat.parquet", ()))["messages"].to_pylist()
    assert cells == [as_text(SAID), None, as_text([{"role": "user", "content": "x"}])]


def test_a_single_turn_of_the_assistant_is_an_answer(tmp_path: Path) -> None:
    table = _lines(tmp_path / "pairs.jsonl", {"prompt": SAID[:1], "chosen": SAID[1:], "rejected": "no"})
    assert table["chosen"].to_pylist() == ["hi"]


def test_one_message_of_the_assistant_is_an_answer_and_no_other_object_is(tmp_path: Path) -> None:
    asked = {"role": "user", "content": "x"}
    rows = [{"a": SAID[1], "b": asked, "c": {"role": "assistant"}}, {"a": None, "b": asked, "c": None}]
    table = conversations_as_text(_lines(tmp_path / "pairs.jsonl", *rows))
    assert table.to_pylist() == [
        {"a": "hi", "b": asked, "c": {"role": "assistant"}},
        {"a": None, "b": asked, "c": None},
    ]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "pairs.parquet")
    assert conversations_as_text(read_parquet(tmp_path / "pairs.parquet", ()))["a"].to_pylist() == ["hi", None]


def test_contents_in_parts_and_other_names_of_roles_are_understood() -> None:
    parts = [{"from": "human", "value": "a"}, {"from": "gpt", "value": "b"}]
    assert [each.role for each in conversation(as_text(parts))] == ["user", "assistant"]
    mixed = [{"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]}]
    assert conversation(as_text(mixed))[0].content == "ab"


@pytest.mark.parametrize(
    "cell",
    [
        [{"role": "wizard", "content": "x"}],
        [{"role": "user", "content": 3}],
        [{"role": "user", "content": [{"type": "smell", "smell": "x"}]}],
        [{"role": "user"}],
    ],
)
def test_a_broken_conversation_is_an_error_of_its_row_and_not_of_the_file(cell: object, tmp_path: Path) -> None:
    table = _lines(tmp_path / "chat.jsonl", {"messages": SAID}, {"messages": cell})
    assert TEXT.admit(table["messages"][0].as_py())
    with pytest.raises(DecodeError, match="Meant to be a conversation"):
        TEXT.admit(table["messages"][1].as_py())


def test_a_text_in_brackets_is_a_text() -> None:
    assert TEXT.admit("[1, 2] and so on") == "[1, 2] and so on"
    assert conversation('[{"a": 1}]')[0].role == "user"


@pytest.mark.parametrize(
    ("row", "asked"),
    [
        ({"messages": SAID}, "messages"),
        ({"prompt": "why?", "completion": "because of a long, long story"}, "prompt"),
        ({"prompt": "why?", "chosen": "because of it", "rejected": "because of a long, long story"}, "prompt"),
        ({"conversations": [{"from": "human", "value": "a"}, {"from": "gpt", "value": "b"}]}, "conversations"),
    ],
)
def test_the_question_is_the_input(row: dict[str, object], asked: str, tmp_path: Path) -> None:
    table = _lines(tmp_path / "rows.jsonl", row, row)
    assert roles.choose_roles(table, "auto", (), ()) == roles.Roles("text", (asked,))


def test_an_image_in_a_message_is_a_placeholder_and_its_address_is_not_read() -> None:
    shown = [{"type": "image", "image": "/etc/passwd"}, {"type": "text", "text": "which?"}]
    assert as_text([{"role": "user", "content": shown}]) == '[{"role": "user", "content": "<image>which?"}]'
    assert "audio" in as_text([{"role": "user", "content": [{"type": "audio"}]}])  # stays as it was: no conversation
