"""The HTTP interface of a deployment, on loopback, for whoever holds its token.

    POST /predict              {"inputs": [...]} or a form -> {"predictions": [...], "model": "name@v3"}
    GET  /schema               what an input may look like (JSON Schema)
    GET  /healthz              200 while a version serves, else 503; needs no token
    GET  /metrics              Prometheus text
    POST /feedback             {"prediction": ID, "label" or "score", "source"}: what an answer should have been
    POST /v1/chat/completions  OpenAI's, where what serves writes texts; GET /v1/models

Every answer names its version in `x-model-version`. While a canary stands beside what is in production, requests of the
same key (`routing.request_key`) are answered by the same of the two. A request that cannot be answered says why in
`error`, and with status 429 or 503 when to come again in `Retry-After`.
"""

from __future__ import annotations

import asyncio
import hmac
import json
import time
import uuid
from collections.abc import Awaitable, Callable, Mapping, Sequence
from concurrent.futures import Future
from typing import Any, NamedTuple

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from speciate.errors import Code, SpeciateError
from speciate.modalities import messages
from speciate.predictions.feedback import Feedback, store_feedback
from speciate.predictions.log import AnsweringModel, AnswerLog
from speciate.serving import record_feedback, request_parsing, routing
from speciate.serving.deployment import Deployment, NoVersionServes, SubmittedRequest
from speciate.serving.deployment_folder import Target
from speciate.serving.http_bounds import BoundedBodies
from speciate.serving.items import Item, ItemPrediction
from speciate.serving.record_feedback import FeedbackRefusal, FeedbackResponse, is_refused
from speciate.serving.replica import Full, Overloaded
from speciate.serving.request_metrics import CONTENT_TYPE, Metrics, outcome_of
from speciate.workspace.workspace import Folders

VERSION = "x-model-version"
_MB = 1024 * 1024
_LOAD_AGAIN_SECONDS = 2
_STATUS = {Code.NOT_FOUND: 404, Code.INVALID: 422, Code.UNAVAILABLE: 503}
_KEPT_HEADERS = "retry-after", "connection", VERSION
CHAT_TASK = "text-generation"
_CHAT_FIELDS = {"model", "messages"}
_IGNORED_CHAT_FIELDS = {
    "user", "metadata", "store", "stream", "n", "service_tier", "prompt_cache_key", "safety_identifier",
}  # fmt: skip


class _Request(NamedTuple):
    body: Any
    target: Target
    key: str
    """What decides which version answers, while there are two."""


class _Response(NamedTuple):
    predictions: list[ItemPrediction]
    model: str


class Api:
    def __init__(self, deployment: Deployment, metrics: Metrics, token: str, log: AnswerLog | None = None) -> None:
        self._deployment, self._metrics, self._expected = deployment, metrics, f"Bearer {token}".encode()
        self._log, self._check = log, record_feedback.label_check(Folders(deployment.folder.path.parent.parent))
        self._bucket = TokenBucket(deployment.wanted.options.per_second, time.monotonic())

    def app(self) -> Starlette:
        routes = [
            Route("/predict", self._guarded(self._predict), methods=["POST"]),
            Route("/feedback", self._guarded(self._feedback), methods=["POST"]),
            Route("/schema", self._guarded(self._schema), methods=["GET"]),
            Route("/metrics", self._guarded(self._show_metrics), methods=["GET"]),
            Route("/v1/chat/completions", self._guarded(self._chat), methods=["POST"]),
            Route("/v1/models", self._guarded(self._models), methods=["GET"]),
            Route("/healthz", self._health, methods=["GET"]),
        ]
        there = ", ".join(f"{'/'.join(sorted((route.methods or set()) - {'HEAD'}))} {route.path}" for route in routes)

        async def elsewhere(request: Request, error: Exception) -> Response:
            status = error.status_code if isinstance(error, HTTPException) else 500
            message = f"{request.method} is not what this route takes." if status == 405 else "There is no such route."
            return _problem(status, f"{message} There are {there}.", headers=getattr(error, "headers", None))

        bounds = [Middleware(BoundedBodies)]  # handlers know the limits
        return Starlette(routes=routes, exception_handlers={404: elsewhere, 405: elsewhere}, middleware=bounds)

    def _guarded(self, handler: Callable[[Request], Awaitable[Response]]) -> Callable[[Request], Awaitable[Response]]:
        async def guarded(request: Request) -> Response:
            given = request.headers.get("authorization", "").encode()
            if hmac.compare_digest(given, self._expected):
                return await handler(request)
            message = "Send the header 'Authorization: Bearer TOKEN'; `speciate deployment list` shows its file."
            return _problem(401, message, headers={"www-authenticate": "Bearer"})

        return guarded

    # Handlers

    async def _predict(self, request: Request) -> Response:
        began = time.monotonic()
        response = await self._respond(request, began)
        model = response.headers.get(VERSION, "")
        self._metrics.request(model, response.status_code, time.monotonic() - began)
        return response

    async def _respond(self, request: Request, began: float) -> Response:
        parsed = await self._read_request(request, began)
        if isinstance(parsed, Response):
            return parsed
        checked = request_parsing.check_request(parsed.body, parsed.target)
        if checked.problems:
            return _invalid_request(checked.problems, parsed.target)
        answered = await self._answers_of(checked.items, parsed.key)
        if isinstance(answered, Response):
            return answered
        content = {
            "predictions": answered.predictions,
            "model": answered.model,
            "latency_ms": round(1000 * (time.monotonic() - began), 3),
        }
        named = {VERSION: answered.model}
        if all(one["error"] for one in answered.predictions):
            message = "No input could be used; each prediction says why."
            return JSONResponse({"error": message, **content}, 422, headers=named)
        return JSONResponse(content, headers=named)

    async def _read_request(self, request: Request, began: float) -> _Request | Response:
        """The body, and the version whose schema it is held to; or why there is none."""
        options = self._deployment.wanted.options
        if wait := self._bucket.take(began):
            return _retry_later(429, f"More than {options.per_second:g} requests per second.", wait)
        if (serving := self._deployment.current) is None:
            return _retry_later(503, self._deployment.why_empty(), _LOAD_AGAIN_SECONDS)
        try:
            async with asyncio.timeout(options.timeout_seconds):
                body = await request_parsing.read(request, serving.target, int(options.body_mb * _MB))
        except request_parsing.TooLarge:
            message = f"The body is larger than {options.body_mb:g} MB. Send fewer or smaller inputs."
            return _problem(413, message, headers={"connection": "close"})
        except request_parsing.Unreadable as error:
            return _problem(422, str(error), schema=request_parsing.request_schema(serving.target))
        except TimeoutError:
            message = f"The body did not arrive within {options.timeout_seconds:g} s."
            return _problem(408, message, headers={"connection": "close"})
        except ClientDisconnect:
            return _problem(400, "The client went away.")
        key = routing.request_key(request.headers, body) or uuid.uuid4().hex
        return _Request(body, (self._deployment.chosen(key) or serving).target, key)

    async def _answers_of(self, items: list[Item], key: str) -> _Response | Response:
        """Predictions of the version that answers this key at this moment, or why there are none."""
        began = time.monotonic()
        seconds = self._deployment.wanted.options.timeout_seconds
        try:
            submitted = self._deployment.submit(items, seconds, key)
        except Full:
            return _retry_later(429, "Too many inputs wait to be answered.", 1)
        except NoVersionServes as why:
            return _retry_later(503, str(why), _LOAD_AGAIN_SECONDS)
        target, answers = submitted.target, await self._answers(submitted, seconds, began)
        if any(isinstance(one, Overloaded) for one in answers):
            message = (
                f"Too many inputs wait to be answered: the turn of this request did not come within {seconds:g} s."
            )
            return _retry_later(429, message, 1, headers={VERSION: target.model})
        if any(isinstance(one, TimeoutError) for one in answers):
            message = f"The model did not answer within {seconds:g} s."
            return _problem(504, message, headers={VERSION: target.model})
        predictions = [_prediction(item["id"], answer) for item, answer in zip(items, answers, strict=True)]
        if not all(one["error"] for one in predictions):
            self._deployment.answered(target.model, submitted.role)
        await self._note(items, predictions, target, began)
        return _Response(predictions, target.model)

    async def _answers(
        self, submitted: SubmittedRequest, seconds: float, began: float
    ) -> Sequence[ItemPrediction | BaseException]:
        """Those that came within `seconds`, or why they did not. What became of the request is counted once nothing of
        it is with the model any more: whether that was too slow may be known only after the client was told."""
        answering = asyncio.gather(*map(asyncio.wrap_future, submitted.answers), return_exceptions=True)
        gave_up = False

        def count(done: asyncio.Future[list[ItemPrediction | BaseException]]) -> None:
            self._deployment.count(submitted, outcome_of(done.result(), time.monotonic() - began, gave_up=gave_up))

        answering.add_done_callback(count)
        await asyncio.wait([answering], timeout=seconds)
        if answering.done():
            return answering.result()
        gave_up = True
        late = [_withdraw(future) for future in submitted.answers]
        return [Overloaded() if any(late) else TimeoutError()]

    async def _note(self, items: list[Item], predictions: list[ItemPrediction], target: Target, began: float) -> None:
        """Each answer gets an id; those of the sample are in the log before they leave. None: it could not be
        written, and the answer leaves all the same."""
        if (log := self._log) is None:
            return
        ids, about = log.ids(len(items)), AnsweringModel(target.model, target.generation, target.modality)
        given = ids, items, predictions, about, 1000 * (time.monotonic() - began)
        written = await asyncio.to_thread(log.note, *given) if log.heavy(items) else log.note(*given)
        for identifier, prediction in zip(ids, predictions, strict=True):
            prediction["prediction"] = identifier if written else None

    async def _feedback(self, request: Request) -> Response:
        """What was said of answers, durable when this is answered."""
        options = self._deployment.wanted.options
        if self._log is None:
            return _problem(404, "The answers of this deployment are not logged.")
        try:
            async with asyncio.timeout(options.timeout_seconds):
                answered = record_feedback.parse_feedback(
                    await request_parsing.read_json(request, int(options.body_mb * _MB))
                )
        except (record_feedback.InvalidFeedback, request_parsing.Unreadable) as error:
            return _problem(422, str(error))
        except request_parsing.TooLarge:
            return _problem(413, f"The body is larger than {options.body_mb:g} MB.", headers={"connection": "close"})
        except TimeoutError:
            return _problem(408, "The body did not arrive in time.", headers={"connection": "close"})
        except ClientDisconnect:
            return _problem(400, "The client went away.")
        recorded = await asyncio.to_thread(self._store, self._log, answered.feedback)
        if answered.several:
            return JSONResponse({"recorded": recorded})
        [only] = recorded
        if is_refused(only):
            return _problem(only["status"], only["error"])
        return JSONResponse({"recorded": only})

    def _store(self, log: AnswerLog, listed: list[Feedback]) -> list[FeedbackResponse | FeedbackRefusal]:
        found: list[FeedbackResponse | FeedbackRefusal] = []
        for each in listed:
            try:
                found.append(record_feedback.feedback_response(store_feedback(log, each, log.now(), self._check)))
            except SpeciateError as error:
                status = _STATUS.get(error.code, 500)
                found.append({"prediction": each.prediction, "status": status, "error": str(error)})
        return found

    async def _schema(self, request: Request) -> Response:
        if (serving := self._deployment.current) is None:
            return _retry_later(503, self._deployment.why_empty(), _LOAD_AGAIN_SECONDS)
        return JSONResponse(request_parsing.request_schema(serving.target), headers={VERSION: serving.target.model})

    async def _show_metrics(self, request: Request) -> Response:
        waiting = self._deployment.current.open if self._deployment.current else 0
        missed = self._log.missed if self._log else 0
        return Response(self._metrics.text(waiting, missed), media_type=CONTENT_TYPE)

    async def _health(self, request: Request) -> Response:
        serving, state = self._deployment.current, self._deployment.state
        content = {"serving": serving.target.model if serving else None, "loading": state.loading}
        return JSONResponse(content, 200 if serving else 503)

    async def _models(self, request: Request) -> Response:
        return JSONResponse(chat_models(self._deployment.wanted.use_case, self._deployment.state.since))

    async def _chat(self, request: Request) -> Response:
        began = time.monotonic()
        response = await self._respond_to_chat(request, began)
        if response.status_code >= 400:
            message = chat_error(str(json.loads(bytes(response.body))["error"]), chat_error_type(response.status_code))
            kept = {name: value for name in _KEPT_HEADERS if (value := response.headers.get(name))}
            response = JSONResponse(message, response.status_code, headers=kept)
        self._metrics.request(response.headers.get(VERSION, ""), response.status_code, time.monotonic() - began)
        return response

    async def _respond_to_chat(self, request: Request, began: float) -> Response:
        parsed = await self._read_request(request, began)
        if isinstance(parsed, Response):
            return parsed
        try:
            item = chat_item(parsed.body, parsed.target, self._deployment.wanted.use_case)
        except Unsupported as error:
            return _problem(400, str(error), headers={VERSION: parsed.target.model})
        answered = await self._answers_of([item], parsed.key)
        if isinstance(answered, Response):
            return answered
        [said] = answered.predictions
        named = {VERSION: answered.model}
        if said["error"]:
            return _problem(422, said.get("error_text") or said["error"], headers=named)
        identifier = said.get("prediction") or uuid.uuid4().hex
        made = chat_completion(identifier, str(said["output"]), answered.model, int(time.time()))
        return JSONResponse(made, headers=named)


def _withdraw(future: Future[ItemPrediction]) -> bool:
    """Take an input out of the queue. Whether its turn had not come; not so where the model has it, or answered it."""
    return future.cancel() or (future.done() and isinstance(future.exception(), Overloaded))


def _prediction(identifier: str, answer: ItemPrediction | BaseException) -> ItemPrediction:
    """As a client sees it. What decoders and libraries said is apart: it may quote the input."""
    if isinstance(answer, SpeciateError):
        return {"id": identifier, "output": None, "confidence": None, "error": str(answer)}
    if isinstance(answer, BaseException):
        raise answer
    error = answer["error"] and answer["error"].replace("untrusted.error_text", "error_text")
    return {**answer, "id": identifier, "error": error}


def _invalid_request(problems: list[request_parsing.Problem], target: Target) -> Response:
    first = problems[0]
    message = f"{first.where}: {first.what}" if first.where else first.what
    more = f" ({len(problems) - 1} more)" if len(problems) > 1 else ""
    shown = [{"where": one.where, "problem": one.what} for one in problems[:20]]
    return _problem(
        422,
        message + more,
        problems=shown,
        schema=request_parsing.request_schema(target),
        headers={VERSION: target.model},
    )


def _retry_later(status: int, message: str, seconds: float, *, headers: Mapping[str, str] | None = None) -> Response:
    return _problem(status, message, headers={"retry-after": str(max(1, round(seconds + 0.5))), **(headers or {})})


def _problem(status: int, message: str, *, headers: Mapping[str, str] | None = None, **more: Any) -> Response:
    return JSONResponse({"error": message, **more}, status, headers=headers)


class Unsupported(Exception):
    """The request asks for what is not served here; the text says what."""


def chat_item(body: Any, target: Target, use_case: str) -> Item:
    """A chat request as an item of `predict_worker.answer`. Raises Unsupported.

    A version answers with the sampling that it was evaluated with; a request for another one is refused. Left out:
    streaming, tools, several choices, and token counts.
    """
    if target.task != CHAT_TASK:
        raise Unsupported(f"{target.model} is for {target.task} and does not write texts: ask POST /predict.")
    if not isinstance(body, dict) or not isinstance(listed := body.get("messages"), list):
        raise Unsupported('The body must be an object like {"model": "...", "messages": [{"role", "content"}]}.')
    known = {use_case, f"{use_case}@production", target.model}
    if (answered := body.get("model", use_case)) not in known:
        raise Unsupported(f"There is no model {answered!r} here; name {use_case!r}.")
    if body.get("stream") or body.get("n", 1) != 1:
        raise Unsupported("One answer, and all of it at once: leave out 'stream' and 'n'.")
    if others := sorted(map(str, set(body) - _CHAT_FIELDS - _IGNORED_CHAT_FIELDS)):
        raise Unsupported(
            f"Not supported: {', '.join(map(repr, others[:8]))}. A version answers with the sampling that it was "
            "judged with; leave them out."
        )
    try:
        return {"id": "0", "text": messages.format_messages(messages.messages(listed))}
    except ValueError as error:
        raise Unsupported(f"The messages cannot be used: {error}.") from None


ChatDocument = Mapping[str, object]
"""A body of OpenAI's API, whose reference says what is in it."""


def chat_completion(identifier: str, text: str, model: str, created: int) -> ChatDocument:
    """A chat completion with one choice."""
    message = {"role": messages.ASSISTANT, "content": text, "refusal": None}
    return {
        "id": f"chatcmpl-{identifier}", "object": "chat.completion", "created": created, "model": model,
        "choices": [{"index": 0, "message": message, "finish_reason": "stop", "logprobs": None}],
    }  # fmt: skip


def chat_models(use_case: str, since: float | None) -> ChatDocument:
    """The list of models: the use case alone."""
    return {
        "object": "list",
        "data": [{"id": use_case, "object": "model", "created": int(since or 0), "owned_by": "speciate"}],
    }


def chat_error_type(status: int) -> str:
    """The `type` that OpenAI gives errors of this status: clients take 429 and 5xx for no fault of the request."""
    if status == 401:
        return "authentication_error"
    if status == 429:
        return "rate_limit_error"
    return "server_error" if status >= 500 else "invalid_request_error"


def chat_error(message: str, kind: str) -> ChatDocument:
    """`kind`: of `chat_error_type`."""
    return {"error": {"message": message, "type": kind, "param": None, "code": None}}


class TokenBucket:
    """RFC 2697's committed rate: so many requests per second on average, and one second's worth at once."""

    def __init__(self, per_second: float | None, now: float) -> None:
        self._rate = per_second
        self._most = max(1.0, per_second or 0.0)
        self._tokens, self._at = self._most, now

    def take(self, now: float) -> float:
        """0 where a request may pass; else seconds until one may."""
        if self._rate is None:
            return 0.0
        self._tokens = min(self._most, self._tokens + (now - self._at) * self._rate)
        self._at = now
        if self._tokens >= 1:
            self._tokens -= 1
            return 0.0
        return (1 - self._tokens) / self._rate
