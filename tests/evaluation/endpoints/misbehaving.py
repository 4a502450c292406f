"""A chat endpoint on loopback that does what the last message tells it: one word for each attempt, the last one again.

`"7 429 cut yes"`: message 7 meets a rate limit, then a stream that is cut off, then the answer "yes".
"""

from __future__ import annotations

import asyncio
import json
import socket
import threading
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Any

import uvicorn

from speciate.models.endpoints import Endpoint

Send = Callable[[dict[str, Any]], Awaitable[None]]
MODEL = "stub-1"
STATUSES = {"301", "400", "401", "402", "403", "404", "429", "500", "503", "503-later"}


class Misbehaving:
    def __init__(self) -> None:
        self.port = self.flying = self._test = 0
        self.reset()

    def reset(self) -> None:
        self._test += 1
        self.bodies: list[dict[str, Any]] = []
        """Of all requests, as they came in."""
        self.authorizations: set[str] = set()
        self.refuses: dict[str, str] = {}
        """Parameters that are answered with 400, and the `param` that is blamed for it; empty: none is."""
        self.most_flying = 0
        self.bears: int | None = None
        """More calls at once meet a rate limit."""
        self.answer_s = 0.0
        self._seen: Counter[str] = Counter()
        self.elsewhere = 0
        """Requests to another path than a chat endpoint's."""

    def endpoint(self, **changes: Any) -> Endpoint:
        return Endpoint.model_validate(
            {"base_url": f"http://127.0.0.1:{self.port}/{self._test}/v1", "model": MODEL} | changes
        )

    async def __call__(self, scope: dict[str, Any], receive: Any, send: Send) -> None:
        body = b""
        while True:
            event = await receive()
            body += event.get("body", b"")
            if not event.get("more_body"):
                break
        test, _, path = scope["path"].removeprefix("/").partition("/")
        if test.isdigit() and int(test) < self._test:  # sent by the test before and given up there
            return await _whole(send, 410, {})
        if path != "v1/chat/completions":
            self.elsewhere += 1
            return await _whole(send, 200, {"choices": [{"message": {"content": "you were led here"}}]})
        key = dict(scope["headers"]).get(b"authorization", b"").decode()
        self.authorizations.add(key)
        asked = json.loads(body)
        self.bodies.append(asked)
        self.flying += 1
        self.most_flying = max(self.flying, self.most_flying)
        try:
            if self.bears is not None and self.flying > self.bears:
                return await _whole(send, 429, {"error": {"message": "slower"}}, retry_after="0.05")
            await asyncio.sleep(self.answer_s)
            await self._answer(asked, key, receive, send)
        finally:
            self.flying -= 1
        return None

    async def _answer(self, asked: dict[str, Any], key: str, receive: Any, send: Send) -> None:
        for name, blamed in self.refuses.items():
            if name in asked:
                return await _whole(send, 400, {"error": {"message": "no", "param": blamed or None}})
        text = asked["messages"][-1]["content"]
        words = text.split()[1:]
        word = words[min(self._seen[text], len(words) - 1)]
        self._seen[text] += 1
        if word in STATUSES:
            status = int(word[:3])
            after = "0.05" if word in ("429", "503-later") else None
            where = f"http://localhost:{self.port}/elsewhere" if status == 301 else None
            said = {"error": {"message": f"you sent {key}", "code": None}}
            return await _whole(send, status, said, retry_after=after, location=where)
        if word == "broke":
            return await _whole(send, 429, {"error": {"message": "pay", "code": "insufficient_quota"}})
        if word == "malformed":
            return await _whole(send, 200, "{so it begins")
        if word == "silent":
            await receive()  # until the client goes
            return None
        if word == "endless":
            return await _endless(send)
        if not asked.get("stream"):
            return await _whole(send, 200, _message(word, key))
        return await _streamed(word, key, send)


@contextmanager
def misbehaving() -> Iterator[Misbehaving]:
    app = Misbehaving()
    listener = socket.create_server(("127.0.0.1", 0))
    app.port = listener.getsockname()[1]
    config = uvicorn.Config(app, log_level="critical", lifespan="off", timeout_graceful_shutdown=0)
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
    thread.start()
    try:
        yield app
    finally:
        server.should_exit = True
        thread.join(10)


def _said(word: str, key: str) -> tuple[str, str, str]:
    """Text, finish_reason, model."""
    match word:
        case "filter":
            return "", "content_filter", MODEL
        case "long":
            return "it goes on and", "length", MODEL
        case "echo":
            return f"you sent {key}", "stop", f"model of {key}"
        case "changed":
            return "yes", "stop", "stub-2"
    return word, "stop", MODEL


def _message(word: str, key: str) -> dict[str, Any]:
    text, finish, model = _said(word, key)
    message = {"content": None, "refusal": "I will not"} if word == "refusal" else {"content": text}
    usage = {"prompt_tokens": 10, "completion_tokens": 2, "prompt_tokens_details": {"cached_tokens": 4}}
    return {"model": model, "choices": [{"message": message, "finish_reason": finish}], "usage": usage}


async def _streamed(word: str, key: str, send: Send) -> None:
    text, finish, model = _said(word, key)
    start = {"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/event-stream")]}
    await send(start)

    async def event(data: dict[str, Any]) -> None:
        line = f": a comment\ndata: {json.dumps({'model': model} | data)}\n\n"
        await send({"type": "http.response.body", "body": line.encode(), "more_body": True})

    await event({"choices": [{"delta": {"role": "assistant", "content": ""}, "finish_reason": None}]})
    if word == "torn":
        return  # the connection ends in the middle of the body
    if word == "refusal":
        await event({"choices": [{"delta": {"refusal": "I will not"}}]})
    for piece in [text[:2], text[2:]]:
        await event({"choices": [{"delta": {"content": piece}}]})
    if word == "failing":
        await event({"error": {"message": "overloaded"}})
    if word != "cut":
        await event({"choices": [{"delta": {}, "finish_reason": finish}]})
        await event({"choices": [], "usage": _message(word, key)["usage"]})
        await send({"type": "http.response.body", "body": b"data: [DONE]\n\n", "more_body": True})
    await send({"type": "http.response.body", "body": b""})


async def _endless(send: Send) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"application/json")]})
    for _ in range(40):  # far more than anybody wants
        await send({"type": "http.response.body", "body": b"[" * 2**20, "more_body": True})


async def _whole(
    send: Send, status: int, said: Any, retry_after: str | None = None, location: str | None = None
) -> None:
    headers = [(b"content-type", b"application/json")]
    headers += [(b"retry-after", retry_after.encode())] if retry_after else []
    headers += [(b"location", location.encode())] if location else []
    body = said if isinstance(said, str) else json.dumps(said)
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body.encode()})
