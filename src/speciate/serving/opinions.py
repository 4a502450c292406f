"""What clients say of answers over HTTP: one feedback as an object, or several in `feedback`. Pure."""

from __future__ import annotations

from typing import Any, NamedTuple

from pydantic import ValidationError

from speciate.predictions.feedback import Feedback
from speciate.predictions.recording import Recorded

MOST = 256
FORM = '{"prediction": "pred-...", "label": "..." or "score": 0 to 1, "source": "human", "agent" or "system"}'


class Unfit(Exception):
    """The body is none; the text says why."""


class Asked(NamedTuple):
    feedback: list[Feedback]
    several: bool
    """Whether the answer is to be a list."""


def parse(body: Any) -> Asked:
    """Raises Unfit."""
    if not isinstance(body, dict):
        raise Unfit(f'The body must be an object like {FORM}, or {{"feedback": [...]}} with several.')
    several = "feedback" in body
    listed = body["feedback"] if several else [body]
    if not isinstance(listed, list) or not 1 <= len(listed) <= MOST or (several and len(body) > 1):
        raise Unfit(f'"feedback" stands alone and holds 1 to {MOST} objects like {FORM}.')
    return Asked([_one(each, f"feedback[{place}]" if several else "") for place, each in enumerate(listed)], several)


def _one(given: Any, where: str) -> Feedback:
    try:
        return Feedback.model_validate(given)
    except ValidationError as error:
        first = error.errors()[0]
        at = ".".join([where, *map(str, first["loc"][:1])]).strip(".")
        told = str(first["msg"]).removeprefix("Value error, ")
        raise Unfit(f"{at + ': ' if at else ''}{told}. Write {FORM}.") from None


def told(recorded: Recorded) -> dict[str, Any]:
    """As a client sees it."""
    standing = {
        source: {"label": given.label, "score": given.score, "at": given.at}
        for source, given in recorded.standing.items()
    }
    return {"prediction": recorded.answer.id, "model": recorded.answer.model, "standing": standing}
