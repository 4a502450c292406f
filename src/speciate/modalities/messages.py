"""Conversations as lists of messages. Pure.

A text is one question of a user, or a JSON list of messages `{"role": ..., "content": ...}`; any other text is a
question. A mark stands where an image does: the images themselves are other parts of the example.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, Literal, NamedTuple, get_args

Role = Literal["system", "developer", "user", "assistant", "tool"]
ROLES: tuple[str, ...] = get_args(Role)
ASSISTANT, SYSTEM, USER = "assistant", "system", "user"
IMAGE_MARK = "<image>"
"""Stands in a content for an image, as in many data sets."""
_SPEAKERS = {"human": USER, "gpt": ASSISTANT, "bot": ASSISTANT, "model": ASSISTANT}
"""Names that some data sets have for the same roles."""
_SHOWN = 40


class Message(NamedTuple):
    role: str
    content: str

    def shown(self) -> dict[str, str]:
        """The message as chat templates take it."""
        return {"role": self.role, "content": self.content}


Conversation = tuple[Message, ...]


def conversation(text: str) -> Conversation:
    """The messages of a text. Raises ValueError, with the reason, for a JSON list of malformed messages."""
    listed = _listed(text)
    return (Message(USER, text),) if listed is None else messages(listed)


def messages(listed: Sequence[Any]) -> Conversation:
    """The messages of parsed JSON. Raises ValueError for unknown roles, contents that are no text, and an empty
    list."""
    if not listed:
        raise ValueError("a conversation without a message")
    return tuple(_message(each) for each in listed)


def format_messages(turns: Sequence[Message]) -> str:
    """A text that `conversation` reads again; a single question of a user is the question itself."""
    if len(turns) == 1 and turns[0].role == USER and _listed(turns[0].content) is None:
        return turns[0].content
    return json.dumps([each.shown() for each in turns], ensure_ascii=False)


def split_last_answer(turns: Conversation) -> tuple[Conversation, str] | None:
    """The conversation before its last turn, and that turn, if it is the assistant's and not the only one."""
    if len(turns) > 1 and turns[-1].role == ASSISTANT:
        return turns[:-1], turns[-1].content
    return None


def last_answer(cell: Any) -> str | None:
    """The answer in a cell: the last turn of a conversation, else the text; None for an empty cell."""
    text = "" if cell is None else str(cell)
    if not text.strip():
        return None
    try:
        turn = split_last_answer(conversation(text))
    except ValueError:
        return text
    return turn[1] if turn else text


def with_system(turns: Conversation, system: str | None) -> Conversation:
    """The conversation with these instructions, unless it brings its own."""
    if system is None or turns[0].role in (SYSTEM, "developer"):
        return turns
    return (Message(SYSTEM, system), *turns)


def format_readable(turns: Sequence[Message]) -> str:
    """For people: a line with the role before each message."""
    return "\n".join(f"{each.role}: {each.content}" for each in turns)


def readable_text(text: str) -> str:
    """A text as people read it: a conversation with a line for each message, any other text as it is."""
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


def shows_image(message: Any) -> bool:
    """Whether a part of a message, as a client sends it, is an image."""
    content = (message.get("content") or message.get("value")) if isinstance(message, dict) else None
    return isinstance(content, list) and any(_is_image(part) for part in content)


def _is_image(part: Any) -> bool:
    return isinstance(part, dict) and part.get("type") in ("image", "image_url")


def _part(part: Any) -> str:
    if _is_image(part):
        return IMAGE_MARK  # its path or address is never read
    if not isinstance(part, dict) or part.get("type") != "text" or not isinstance(part.get("text"), str):
        raise ValueError("a message with a part that is neither text nor an image")
    return str(part["text"])
