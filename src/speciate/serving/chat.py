"""OpenAI's chat completions, as far as a served version has what they ask for. Pure.

A version brings its own sampling with it, as it was judged: a request that wants another one is refused rather than
answered by something that nobody evaluated. Left out: streaming, tools, several choices, and counts of tokens.
"""

from __future__ import annotations

from typing import Any

from speciate.modalities import messages
from speciate.serving.folder import Target

TASK = "text-generation"
_READ = {"model", "messages"}
_HARMLESS = {"user", "metadata", "store", "stream", "n", "service_tier", "prompt_cache_key", "safety_identifier"}


class Unsupported(Exception):
    """The request asks for what is not served here; the text says what."""


def item_of(body: Any, target: Target, use_case: str) -> dict[str, Any]:
    """A chat request as an input of `production.answer`. Raises Unsupported."""
    if target.task != TASK:
        raise Unsupported(f"{target.model} is for {target.task} and does not write texts: ask POST /predict.")
    if not isinstance(body, dict) or not isinstance(listed := body.get("messages"), list):
        raise Unsupported('The body must be an object like {"model": "...", "messages": [{"role", "content"}]}.')
    known = {use_case, f"{use_case}@production", target.model}
    if (asked := body.get("model", use_case)) not in known:
        raise Unsupported(f"There is no model {asked!r} here; name {use_case!r}.")
    if body.get("stream") or body.get("n", 1) != 1:
        raise Unsupported("One answer, and all of it at once: leave out 'stream' and 'n'.")
    if others := sorted(map(str, set(body) - _READ - _HARMLESS)):
        raise Unsupported(
            f"Not supported: {', '.join(map(repr, others[:8]))}. A version answers with the sampling that it was "
            "judged with; leave them out."
        )
    try:
        return {"id": "0", "text": messages.written(messages.messages(listed))}
    except ValueError as error:
        raise Unsupported(f"The messages cannot be used: {error}.") from None


def completion(identifier: str, text: str, model: str, created: int) -> dict[str, Any]:
    """A chat completion with one choice."""
    message = {"role": messages.ASSISTANT, "content": text, "refusal": None}
    return {
        "id": f"chatcmpl-{identifier}", "object": "chat.completion", "created": created, "model": model,
        "choices": [{"index": 0, "message": message, "finish_reason": "stop", "logprobs": None}],
    }  # fmt: skip


def models(use_case: str, since: float | None) -> dict[str, Any]:
    """The list of models: the use case alone."""
    return {
        "object": "list",
        "data": [{"id": use_case, "object": "model", "created": int(since or 0), "owned_by": "speciate"}],
    }


def kind_of(status: int) -> str:
    """The `type` that OpenAI gives errors of this status: clients take 429 and 5xx for no fault of the request."""
    if status == 401:
        return "authentication_error"
    if status == 429:
        return "rate_limit_error"
    return "server_error" if status >= 500 else "invalid_request_error"


def problem(told: str, kind: str) -> dict[str, Any]:
    """`kind`: as `kind_of` says it."""
    return {"error": {"message": told, "type": kind, "param": None, "code": None}}
