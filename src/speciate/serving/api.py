"""The HTTP interface of a slot, on loopback, for whoever holds its token.

    POST /predict              {"inputs": [...]} or a form -> {"predictions": [...], "model": "name@v3"}
    GET  /schema               what an input may look like (JSON Schema)
    GET  /healthz              200 while a version serves, else 503; needs no token
    GET  /metrics              Prometheus text
    POST /v1/chat/completions  status 501: models that write texts are not trained here yet, so none can serve

Every answer names its version in `x-model-version`. A request that cannot be answered says why in `error`, and with
status 429 or 503 when to come again in `Retry-After`.
"""

from __future__ import annotations

import asyncio
import hmac
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from speciate.errors import SpeciateError
from speciate.serving import bodies, schema
from speciate.serving.deployment import Full
from speciate.serving.folder import Target
from speciate.serving.metrics import CONTENT_TYPE, Metrics
from speciate.serving.rate import Bucket
from speciate.serving.slot import Empty, Slot

VERSION = "x-model-version"
_MB = 1024 * 1024
_LOAD_AGAIN_SECONDS = 2


class Api:
    def __init__(self, slot: Slot, metrics: Metrics, token: str) -> None:
        self._slot, self._metrics, self._expected = slot, metrics, f"Bearer {token}".encode()
        self._bucket = Bucket(slot.wanted.options.per_second, time.monotonic())

    def app(self) -> Starlette:
        routes = [
            Route("/predict", self._guarded(self._predict), methods=["POST"]),
            Route("/schema", self._guarded(self._schema), methods=["GET"]),
            Route("/metrics", self._guarded(self._show_metrics), methods=["GET"]),
            Route("/v1/chat/completions", self._guarded(self._chat), methods=["POST"]),
            Route("/healthz", self._health, methods=["GET"]),
        ]
        return Starlette(routes=routes)

    def _guarded(self, handler: Callable[[Request], Awaitable[Response]]) -> Callable[[Request], Awaitable[Response]]:
        async def guarded(request: Request) -> Response:
            given = request.headers.get("authorization", "").encode()
            if hmac.compare_digest(given, self._expected):
                return await handler(request)
            told = "Send the header 'Authorization: Bearer TOKEN'; `speciate slot list` says where the token lies."
            return _problem(401, told, headers={"www-authenticate": "Bearer"})

        return guarded

    # Handlers

    async def _predict(self, request: Request) -> Response:
        began = time.monotonic()
        response = await self._answered(request, began)
        model = response.headers.get(VERSION, "")
        self._metrics.request(model, response.status_code, time.monotonic() - began)
        return response

    async def _answered(self, request: Request, began: float) -> Response:
        options = self._slot.wanted.options
        if wait := self._bucket.take(began):
            return _again(429, f"More than {options.per_second:g} requests per second.", wait)
        if (serving := self._slot.current) is None:
            return _again(503, self._slot.why_empty(), _LOAD_AGAIN_SECONDS)
        try:
            async with asyncio.timeout(options.timeout_seconds):
                body = await bodies.read(request, serving.target, int(options.body_mb * _MB))
        except bodies.TooLarge:
            told = f"The body is larger than {options.body_mb:g} MB. Send fewer or smaller inputs."
            return _problem(413, told, headers={"connection": "close"})
        except bodies.Unreadable as error:
            return _problem(422, str(error), schema=schema.described(serving.target))
        except TimeoutError:
            told = f"The body did not arrive within {options.timeout_seconds:g} s."
            return _problem(408, told, headers={"connection": "close"})
        except ClientDisconnect:
            return _problem(400, "The client went away.")
        checked = schema.check(body, serving.target)
        if checked.problems:
            return _unfit(checked.problems, serving.target)
        return await self._asked(checked.items, options.timeout_seconds, began)

    async def _asked(self, items: list[dict[str, Any]], seconds: float, began: float) -> Response:
        try:
            target, futures = self._slot.submit(items, seconds)
        except Full:
            return _again(429, "Too many inputs wait to be answered.", 1)
        except Empty as why:
            return _again(503, str(why), _LOAD_AGAIN_SECONDS)
        named = {VERSION: target.model}
        try:
            async with asyncio.timeout(seconds):
                answers = await asyncio.gather(*map(asyncio.wrap_future, futures), return_exceptions=True)
        except TimeoutError:
            answers = [TimeoutError()] * len(items)
        if any(isinstance(one, TimeoutError) for one in answers):
            return _problem(504, f"The model did not answer within {seconds:g} s.", headers=named)
        predictions = [_said(item["id"], answer) for item, answer in zip(items, answers, strict=True)]
        content = {
            "predictions": predictions, "model": target.model,
            "latency_ms": round(1000 * (time.monotonic() - began), 3),
        }  # fmt: skip
        if all(one["error"] for one in predictions):
            told = "No input could be used; each prediction says why."
            return JSONResponse({"error": told, **content}, 422, headers=named)
        self._slot.answered(target.model)
        return JSONResponse(content, headers=named)

    async def _schema(self, request: Request) -> Response:
        if (serving := self._slot.current) is None:
            return _again(503, self._slot.why_empty(), _LOAD_AGAIN_SECONDS)
        return JSONResponse(schema.described(serving.target), headers={VERSION: serving.target.model})

    async def _show_metrics(self, request: Request) -> Response:
        waiting = self._slot.current.open if self._slot.current else 0
        return Response(self._metrics.text(waiting), media_type=CONTENT_TYPE)

    async def _health(self, request: Request) -> Response:
        serving, state = self._slot.current, self._slot.state
        content = {"serving": serving.target.model if serving else None, "loading": state.loading}
        return JSONResponse(content, 200 if serving else 503)

    async def _chat(self, request: Request) -> Response:
        serving = self._slot.current
        told = f"{serving.target.model if serving else 'What serves here'} does not write texts: ask POST /predict."
        return JSONResponse({"error": {"message": told, "type": "invalid_request_error", "code": "unsupported"}}, 501)


def _said(identifier: str, answer: dict[str, Any] | BaseException) -> dict[str, Any]:
    """As a client sees it. What decoders and libraries said is apart: it may quote the input."""
    if isinstance(answer, SpeciateError):
        return {"id": identifier, "output": None, "confidence": None, "error": str(answer)}
    if isinstance(answer, BaseException):
        raise answer
    error = answer["error"] and answer["error"].replace("untrusted.error_text", "error_text")
    return {**answer, "id": identifier, "error": error}


def _unfit(problems: list[schema.Problem], target: Target) -> Response:
    first = problems[0]
    told = f"{first.where}: {first.what}" if first.where else first.what
    more = f" ({len(problems) - 1} more)" if len(problems) > 1 else ""
    shown = [{"where": one.where, "problem": one.what} for one in problems[:20]]
    return _problem(422, told + more, problems=shown, schema=schema.described(target), headers={VERSION: target.model})


def _again(status: int, told: str, seconds: float) -> Response:
    return _problem(status, told, headers={"retry-after": str(max(1, round(seconds + 0.5)))})


def _problem(status: int, told: str, *, headers: Mapping[str, str] | None = None, **more: Any) -> Response:
    return JSONResponse({"error": told, **more}, status, headers=headers)
