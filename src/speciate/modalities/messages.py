"""Conversations: what a language model is asked and what it should say, as a list of messages. Pure.

A text is one question of a user, or a JSON list of messages `{"role": ..., "content": ...}`; what is no such list is a
text like any other. Where a picture stands in what is said, there is a mark: the pictures themselves are other parts of
the example.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, Literal, NamedTuple, get_args

Role = Literal["system", "developer", "user", "assistant", "tool"]
ROLES: tuple[str, ...] = get_args(Role)
ASSISTANT, SYSTEM, USER = "assistant", "system", "user"
IMAGE_MARK = "<image>"
"""Stands in a content where a picture does, as many data sets have it."""
_SPEAKERS = {"human": USER, "gpt": ASSISTANT, "bot": ASSISTANT, "model": ASSISTANT}
"""Names that some data sets have for the same roles."""
_SHOWN = 40


class Message(NamedTuple):
    role: str
    content: str

    def shown(self) -> dict[str, str]:
        """As chat templates take it."""
        return {"role": self.role, "content": self.content}


Conversation = tuple[Message, ...]


def conversation(text: str) -> Conversation:
    """The messages of a text. A JSON list that is meant to be messages and is none raises ValueError, saying why."""
    listed = _listed(text)
    return (Message(USER, text),) if listed is None else messages(listed)


def messages(listed: Sequence[Any]) -> Conversation:
    """Of parsed JSON. ValueError for roles that there are not, contents that are no text, and an empty list."""
    if not listed:
        raise ValueError("a conversation without a message")
    return tuple(_message(each) for each in listed)


def format_messages(said: Sequence[Message]) -> str:
    """As a text that `conversation` reads again: of a single question of a user the question itself."""
    if len(said) == 1 and said[0].role == USER and _listed(said[0].content) is None:
        return said[0].content
    return json.dumps([each.shown() for each in said], ensure_ascii=False)


def split_last_answer(said: Conversation) -> tuple[Conversation, str] | None:
    """The conversation before its last turn and that turn, where it is the assistant's and something comes before."""
    if len(said) > 1 and said[-1].role == ASSISTANT:
        return said[:-1], said[-1].content
    return None


def last_answer(cell: Any) -> str | None:
    """The answer in a cell: of a whole conversation its last turn; None of an empty one."""
    text = "" if cell is None else str(cell)
    if not text.strip():
        return None
    try:
        turn = split_last_answer(conversation(text))
    except ValueError:
        return text
    return turn[1] if turn else text


def with_system(said: Conversation, system: str | None) -> Conversation:
    """With these instructions, where the conversation brings none of its own."""
    if system is None or said[0].role in (SYSTEM, "developer"):
        return said
    return (Message(SYSTEM, system), *said)


def format_readable(said: Sequence[Message]) -> str:
    """For people: a line with the role before each message."""
    return "\n".join(f"{each.role}: {each.content}" for each in said)


def readable_text(text: str) -> str:
    """A text as people read it: of a conversation a line for each message. What is none stays as it is."""
    listed = _listed(text)
    if listed is None:
        return text
    try:
        return format_readable(messages(listed))
    except ValueError:
        return text


def is_listed(value: Any) -> bool:
    """Whether parsed JSON is meant as messages: a list of objects with a role, or with `from` and `value`."""
    return (
        isinstance(value, list)
        and bool(value)
        and all(isinstance(each, dict) and ("role" in each or {"from", "value"} <= each.keys()) for each in value)
    )


def _listed(text: str) -> list[Any] | None:
    if not text.lstrip().startswith("["):
        return None
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return found if is_listed(found) else None


def _message(value: Any) -> Message:
    role, content = (value.get("role"), value.get("content")) if "role" in value else (value["from"], value["value"])
    role = _SPEAKERS.get(role, role)
    if role not in ROLES:
        raise ValueError(f"a message of {str(role)[:_SHOWN]!r}; roles are {', '.join(ROLES)}")
    if isinstance(content, list):
        content = "".join(_part(part) for part in content)
    if not isinstance(content, str):
        raise ValueError(f"a message of {role!r} whose content is no text")
    return Message(role, content)


def _part(part: Any) -> str:
    if isinstance(part, dict) and part.get("type") in ("image", "image_url"):
        return IMAGE_MARK  # wherever it says that the picture lies is not read
    if not isinstance(part, dict) or part.get("type") != "text" or not isinstance(part.get("text"), str):
        raise ValueError("a message with a part that is neither text nor a picture")
    return str(part["text"])
