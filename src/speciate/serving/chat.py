"""Chats as clients of OpenAI's API write and read them: a request as an input, answers, pieces of answers, and errors.
Pure.

Sampling that a request names is used for its answer; without it a version answers with the sampling that it was
evaluated with. Fields that change nothing here are ignored (`IGNORED`), fields that ask for what a version cannot do
are refused unless they ask for nothing (`_NEUTRAL`), and any other field is an error, as it is at OpenAI.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from speciate.errors import closest
from speciate.modalities import messages
from speciate.predictions.entities import entity_problem
from speciate.serving.deployment_folder import Target
from speciate.serving.items import Item, Usage
from speciate.serving.request_parsing import header_entity

TASK = "text-generation"
IGNORED = (
    "metadata", "store", "service_tier", "prompt_cache_key", "prompt_cache_retention", "safety_identifier", "user",
    "parallel_tool_calls", "tool_choice", "function_call", "top_logprobs", "reasoning_effort", "verbosity",
    "prediction", "web_search_options",
)  # fmt: skip
"""Fields of OpenAI's API that are accepted and change no answer; `user` decides who gets a canary."""
ENTITY = ("safety_identifier", "user")
"""Fields that say who asks."""
_NEUTRAL: Mapping[str, tuple[Any, ...]] = {
    "n": (1,),
    "logprobs": (False,),
    "tools": ([],),
    "functions": ([],),
    "response_format": ({"type": "text"},),
    "frequency_penalty": (0,),
    "presence_penalty": (0,),
    "logit_bias": ({},),
    "modalities": (["text"],),
    "audio": (),
}
"""Fields that are refused, but for these values and null."""
_LONGEST, _MOST_STOPS = 32_768, 8
_SEEDS = 2**32
_HINTS = {
    "n": "one answer is written; send the request again for another one",
    "response_format": "answers are plain text",
}

Document = dict[str, Any]
"""A body of OpenAI's API, whose reference says what is in it."""


class _StreamOptions(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore", strict=True)
    include_usage: bool = False


class _Fields(BaseModel):
    """Fields of a request that are used."""

    model_config = ConfigDict(frozen=True, extra="ignore")
    stream: bool | None = Field(None, strict=True)
    stream_options: _StreamOptions | None = None
    temperature: float | None = Field(None, ge=0, le=2)
    top_p: float | None = Field(None, ge=0, le=1)
    max_tokens: int | None = Field(None, ge=1, le=_LONGEST)
    max_completion_tokens: int | None = Field(None, ge=1, le=_LONGEST)
    stop: str | list[str] | None = None
    seed: int | None = None


FIELDS = ("model", "messages", *_Fields.model_fields)


class ChatRequest(NamedTuple):
    item: Item
    stream: bool
    include_usage: bool
    """A last piece of the stream counts the tokens."""


class ChatError(Exception):
    """The request cannot be answered, or not to its end; the text says why. `param`: the field that is at fault."""

    def __init__(
        self,
        message: str,
        status: int = 400,
        param: str | None = None,
        code: str | None = None,
        headers: Mapping[str, str] = MappingProxyType({}),
    ) -> None:
        super().__init__(message)
        self.status, self.param, self.code, self.headers = status, param, code, headers

    def body(self) -> Document:
        """The status decides which error OpenAI's clients raise."""
        about = {"type": error_type(self.status), "param": self.param, "code": self.code}
        return {"error": {"message": str(self), **about}}


def parse(body: Any, target: Target, use_case: str) -> ChatRequest:
    """Raises ChatError."""
    if target.task != TASK:
        raise ChatError(f"{target.model} is for {target.task} and does not write texts: ask POST /predict.")
    if not isinstance(body, dict) or not isinstance(listed := body.get("messages"), list):
        raise ChatError(
            'The body must be an object like {"model": "...", "messages": [{"role", "content"}]}.', param="messages"
        )
    given = {name: value for name, value in body.items() if value is not None}
    if (answered := given.get("model", use_case)) not in names_of(use_case, target.model):
        raise unknown_model(str(answered), use_case)
    for name, value in given.items():
        _check_field(str(name), value)
    fields = _fields(given)
    if any(messages.shows_image(each) for each in listed):  # its text alone would be answered as if it were all
        raise ChatError(
            "Not supported: a message with an image; a model that sees images is asked by POST /predict.",
            param="messages",
            code="unsupported_parameter",
        )
    try:
        text = messages.format_messages(messages.messages(listed))
    except ValueError as error:
        raise ChatError(f"The messages cannot be used: {error}.", param="messages") from None
    item: Item = {"id": "0", "text": text, "generation": _generation(fields)}
    stream = bool(fields.stream)
    if fields.stream_options is not None and not stream:
        raise ChatError("'stream_options' is for a stream: leave it out, or set 'stream'.", param="stream_options")
    if stream:
        item["stream"] = True
    return ChatRequest(item, stream, bool(fields.stream_options and fields.stream_options.include_usage))


def entity_of(headers: Mapping[str, str], body: Mapping[str, Any]) -> str | None:
    """Who asks, for the log. OpenAI's fields have no rules, so what cannot be kept of them refuses no chat."""
    said = [header_entity(headers), *(body.get(name) for name in ENTITY)]
    return next((each for each in said if isinstance(each, str) and entity_problem(each) is None), None)


def field_schemas() -> Document:
    """JSON Schema of each field that is used, beside `model` and `messages`."""
    stream_options = _StreamOptions.model_json_schema()
    found = _Fields.model_json_schema()["properties"] | {"stream_options": stream_options}
    return {name: found[name] for name in _Fields.model_fields}


def _check_field(name: str, value: Any) -> None:
    if name in FIELDS or name in IGNORED:
        return
    if name not in _NEUTRAL:
        known = (*FIELDS, *IGNORED, *_NEUTRAL)
        message = f"Unrecognized request argument supplied: {name[:64]!r}; {closest(name, known)}"
        raise ChatError(message, param=name[:64], code="unknown_parameter")
    if not any(value == neutral and type(value) is not bool for neutral in _NEUTRAL[name]) and value is not False:
        hint = _HINTS.get(name, "a version here cannot do that")
        raise ChatError(f"Not supported: {name!r}; {hint}.", param=name, code="unsupported_parameter")


def _fields(given: Mapping[str, Any]) -> _Fields:
    try:
        return _Fields.model_validate(given)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False)[0]
        name = str(first["loc"][0])
        raise ChatError(f"Invalid value for {name!r}: {first['msg']}.", param=name, code="invalid_value") from None


def _generation(fields: _Fields) -> dict[str, Any]:
    """What differs from the version's own sampling. Who names a temperature and no seed wants another answer each
    time."""
    found: dict[str, Any] = {}
    if (longest := fields.max_completion_tokens or fields.max_tokens) is not None:
        found["max_new_tokens"] = longest
    if fields.temperature is not None:
        found["temperature"] = fields.temperature
    if fields.top_p is not None:
        found |= {"top_p": fields.top_p} if fields.top_p > 0 else {"temperature": 0.0}  # the likeliest alone
    if fields.seed is not None:
        found["seed"] = fields.seed % _SEEDS
    elif found.get("temperature"):
        found["seed"] = secrets.randbelow(_SEEDS)
    if stops := [fields.stop] if isinstance(fields.stop, str) else fields.stop:
        if len(stops) > _MOST_STOPS or not all(stops):
            raise ChatError(f"'stop' is 1 to {_MOST_STOPS} texts, none of them empty.", param="stop")
        found["stop"] = stops
    return found


def names_of(use_case: str, model: str | None) -> set[str]:
    """What a client may call the model."""
    return {use_case, f"{use_case}@production", *([model] if model else [])}


def unknown_model(name: str, use_case: str) -> ChatError:
    message = f"There is no model {name[:64]!r} here; name {use_case!r}."
    return ChatError(message, 404, "model", "model_not_found")


class ChatHead(NamedTuple):
    """What all pieces of one answer have in common."""

    id: str
    model: str
    created: int


def completion(head: ChatHead, text: str, usage: Usage | None) -> Document:
    """A chat completion with one choice."""
    message = {"role": messages.ASSISTANT, "content": text, "refusal": None}
    choice = {"index": 0, "message": message, "finish_reason": _finish_reason(usage), "logprobs": None}
    return {**_head(head, "chat.completion"), "choices": [choice], "usage": _usage(usage)}


def piece(head: ChatHead, delta: Mapping[str, str], finish_reason: str | None, *, counted: bool) -> Document:
    """A piece of a streamed answer. `counted`: a last piece will count the tokens."""
    choice = {"index": 0, "delta": delta, "finish_reason": finish_reason, "logprobs": None}
    return {**_head(head, "chat.completion.chunk"), "choices": [choice], **({"usage": None} if counted else {})}


def first_piece(head: ChatHead, *, counted: bool) -> Document:
    return piece(head, {"role": messages.ASSISTANT, "content": ""}, None, counted=counted)


def last_piece(head: ChatHead, usage: Usage | None, *, counted: bool) -> Document:
    return piece(head, {}, _finish_reason(usage), counted=counted)


def usage_piece(head: ChatHead, usage: Usage | None) -> Document:
    return {**_head(head, "chat.completion.chunk"), "choices": [], "usage": _usage(usage)}


def event(document: Document) -> bytes:
    """One event of a stream, as bytes."""
    return b"data: " + json.dumps(document, ensure_ascii=False).encode() + b"\n\n"


END = b"data: [DONE]\n\n"


def _head(head: ChatHead, kind: str) -> Document:
    return {"id": f"chatcmpl-{head.id}", "object": kind, "created": head.created, "model": head.model}


def _finish_reason(usage: Usage | None) -> str:
    return "stop" if usage is None or usage["finished"] else "length"


def _usage(usage: Usage | None) -> Document | None:
    if usage is None:
        return None
    asked, written = usage["prompt_tokens"], usage["completion_tokens"]
    return {"prompt_tokens": asked, "completion_tokens": written, "total_tokens": asked + written}


def models(use_case: str, since: float | None) -> Document:
    """The list of models: the use case alone."""
    return {
        "object": "list",
        "data": [{"id": use_case, "object": "model", "created": int(since or 0), "owned_by": "speciate"}],
    }


def error_type(status: int) -> str:
    """The `type` that OpenAI gives errors of this status: clients take 429 and 5xx for no fault of the request."""
    if status == 401:
        return "authentication_error"
    if status == 429:
        return "rate_limit_error"
    return "server_error" if status >= 500 else "invalid_request_error"
