"""The HTTP interface of a deployment, on loopback, for whoever holds its token.

    POST /predict              {"inputs": [...]} or a form -> {"predictions": [...], "model": "name@v3"}
    GET  /schema               what an input may look like (JSON Schema)
    GET  /openapi.json         this interface, with the model's inputs and labels; GET /docs shows it, without a token
    GET  /healthz              200 while a version serves, else 503; needs no token
    GET  /metrics              Prometheus text
    POST /feedback             {"prediction": ID, "label" or "score", "source"}: what an answer should have been
    POST /v1/chat/completions  OpenAI's, where what serves writes texts; GET /v1/models, /v1/models/NAME

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
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import Route

from speciate.errors import Code, SpeciateError
from speciate.predictions.feedback import Feedback, store_feedback
from speciate.predictions.log import AnsweringModel, AnswerLog
from speciate.serving import chat, openapi, record_feedback, request_parsing, routing
from speciate.serving.chat import ChatError, ChatHead
from speciate.serving.chat_stream import ChatListener, EventStream, until_gone
from speciate.serving.chat_stream import events as chat_events
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
_KEPT_HEADERS = "retry-after", "connection", "www-authenticate", "allow", VERSION
_OPENAI = "/v1/"
"""Routes below it answer in OpenAI's form, errors too."""


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
        self._log, self._check = log, record_feedback.label_check(Folders(deployment.folder.shared.parent.parent))
        self._bucket = TokenBucket(deployment.wanted.options.per_second, time.monotonic())
        self._later = set[asyncio.Future[Any]]()
        """Answers that nobody waits for any more."""

    def app(self) -> Starlette:
        routes = [
            Route("/predict", self._guarded(self._predict), methods=["POST"]),
            Route("/feedback", self._guarded(self._feedback), methods=["POST"]),
            Route("/schema", self._guarded(self._schema), methods=["GET"]),
            Route("/metrics", self._guarded(self._show_metrics), methods=["GET"]),
            Route("/v1/chat/completions", self._guarded(self._chat), methods=["POST"]),
            Route("/v1/models", self._guarded(self._models), methods=["GET"]),
            Route("/v1/models/{name}", self._guarded(self._model), methods=["GET"]),
            Route("/openapi.json", self._guarded(self._openapi), methods=["GET"]),
            Route("/docs", self._docs, methods=["GET"]),
            Route("/healthz", self._health, methods=["GET"]),
        ]
        there = ", ".join(f"{'/'.join(sorted((route.methods or set()) - {'HEAD'}))} {route.path}" for route in routes)

        async def elsewhere(request: Request, error: Exception) -> Response:
            status = error.status_code if isinstance(error, HTTPException) else 500
            message = f"{request.method} is not what this route takes." if status == 405 else "There is no such route."
            told = _problem(status, f"{message} There are {there}.", headers=getattr(error, "headers", None))
            return _in_form_of_openai(told) if request.url.path.startswith(_OPENAI) else told

        bounds = [Middleware(BoundedBodies)]  # handlers know the limits
        return Starlette(routes=routes, exception_handlers={404: elsewhere, 405: elsewhere}, middleware=bounds)

    def _guarded(self, handler: Callable[[Request], Awaitable[Response]]) -> Callable[[Request], Awaitable[Response]]:
        async def guarded(request: Request) -> Response:
            given = request.headers.get("authorization", "").encode()
            if hmac.compare_digest(given, self._expected):
                return await handler(request)
            message = "Send the header 'Authorization: Bearer TOKEN'; `speciate deployment list` shows its file."
            told = _problem(401, message, headers={"www-authenticate": "Bearer"})
            return _in_form_of_openai(told) if request.url.path.startswith(_OPENAI) else told

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
        entity = request_parsing.header_entity(request.headers)
        problems = checked.problems + ([entity] if isinstance(entity, request_parsing.Problem) else [])
        if problems or isinstance(entity, request_parsing.Problem):
            return _invalid_request(problems, parsed.target)
        asked_by = entity or parsed.body.get(request_parsing.ENTITY)
        answered = await self._answers_of(checked.items, parsed.key, asked_by)
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

    async def _answers_of(
        self, items: list[Item], key: str, entity: str | None, listener: ChatListener | None = None,
        ids: Sequence[str] = (),
    ) -> _Response | Response:  # fmt: skip
        """Predictions of the version that answers this key at this moment, or why there are none. `entity`: who asks,
        for the log. `listener`: hears the only answer while it is written. `ids`: of the answers in the log, where they
        were given already."""
        began = time.monotonic()
        seconds = self._deployment.wanted.options.timeout_seconds
        try:
            submitted = self._deployment.submit(items, seconds, key, listener)
        except Full:
            return _retry_later(429, "Too many inputs wait to be answered.", 1)
        except NoVersionServes as why:
            return _retry_later(503, str(why), _LOAD_AGAIN_SECONDS)
        target = submitted.target
        if listener is not None:
            listener.waits_for(target.model, submitted.answers)
        answers = await self._answers(submitted, seconds, began, listener)
        if any(isinstance(one, asyncio.CancelledError) for one in answers):
            return _problem(400, "The client went away.", headers={VERSION: target.model})
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
        await self._note(items, predictions, target, began, ids, entity)
        return _Response(predictions, target.model)

    async def _answers(
        self, submitted: SubmittedRequest, seconds: float, began: float, listener: ChatListener | None = None
    ) -> Sequence[ItemPrediction | BaseException]:
        """Those that came within `seconds`, or why they did not. One whose beginning was heard by then is waited for:
        its time began when the model got it. What became of the request is counted once nothing of it is with the model
        any more: whether that was too slow may be known only after the client was told."""
        answering = asyncio.gather(*map(asyncio.wrap_future, submitted.answers), return_exceptions=True)
        gave_up = False

        def count(done: asyncio.Future[list[ItemPrediction | BaseException]]) -> None:
            self._deployment.count(submitted, outcome_of(done.result(), time.monotonic() - began, gave_up=gave_up))

        answering.add_done_callback(count)
        await asyncio.wait([answering], timeout=seconds)
        while listener is not None and listener.begun and not answering.done():
            await asyncio.wait([answering], timeout=seconds)
        if answering.done():
            return answering.result()
        gave_up = True
        late = [_withdraw(future) for future in submitted.answers]
        return [Overloaded() if any(late) else TimeoutError()]

    async def _note(
        self, items: list[Item], predictions: list[ItemPrediction], target: Target, began: float, ids: Sequence[str],
        entity: str | None,
    ) -> None:  # fmt: skip
        """Each answer gets an id; those of the sample are in the log before they leave. None: it could not be
        written, and the answer leaves all the same."""
        if (log := self._log) is None:
            return
        ids, about = ids or log.ids(len(items)), AnsweringModel(target.model, target.generation, target.modality)
        given = ids, items, predictions, about, 1000 * (time.monotonic() - began), entity
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

    async def _openapi(self, request: Request) -> Response:
        serving = self._deployment.current
        document = openapi.document(self._deployment.wanted.use_case, serving.target if serving else None)
        return JSONResponse(document, headers={VERSION: serving.target.model} if serving else None)

    async def _docs(self, request: Request) -> Response:
        """The page of documentation, the same for everybody; what it shows it fetches with the token."""
        named = {"content-security-policy": openapi.POLICY, "referrer-policy": "no-referrer"}
        return HTMLResponse(openapi.page(), headers=named)

    async def _show_metrics(self, request: Request) -> Response:
        waiting = self._deployment.current.open if self._deployment.current else 0
        missed = self._log.missed if self._log else 0
        return Response(self._metrics.text(waiting, missed), media_type=CONTENT_TYPE)

    async def _health(self, request: Request) -> Response:
        serving, state = self._deployment.current, self._deployment.state
        content = {"serving": serving.target.model if serving else None, "loading": state.loading}
        return JSONResponse(content, 200 if serving else 503)

    async def _models(self, request: Request) -> Response:
        return JSONResponse(chat.models(self._deployment.wanted.use_case, self._deployment.state.since))

    async def _model(self, request: Request) -> Response:
        use_case, serving = self._deployment.wanted.use_case, self._deployment.current
        name = request.path_params["name"]
        if name not in chat.names_of(use_case, serving.target.model if serving else None):
            return _chat_problem(chat.unknown_model(name, use_case), "")
        [found] = chat.models(use_case, self._deployment.state.since)["data"]
        return JSONResponse({**found, "id": name})

    async def _chat(self, request: Request) -> Response:
        began = time.monotonic()
        response = await self._respond_to_chat(request, began)
        self._metrics.request(response.headers.get(VERSION, ""), response.status_code, time.monotonic() - began)
        return response

    async def _respond_to_chat(self, request: Request, began: float) -> Response:
        parsed = await self._read_request(request, began)
        if isinstance(parsed, Response):
            return _in_form_of_openai(parsed)
        try:
            asked = chat.parse(parsed.body, parsed.target, self._deployment.wanted.use_case)
        except ChatError as error:
            return _chat_problem(error, parsed.target.model)
        listener = ChatListener(asyncio.get_running_loop())
        [identifier] = self._log.ids(1) if self._log else [uuid.uuid4().hex]
        entity = chat.entity_of(request.headers, parsed.body)
        answering = asyncio.ensure_future(self._answers_of([asked.item], parsed.key, entity, listener, [identifier]))
        answering.add_done_callback(lambda _: listener.end())
        leaving, first = asyncio.ensure_future(until_gone(request)), asyncio.ensure_future(listener.first())
        try:
            awaited = {answering, leaving, first} if asked.stream else {answering, leaving}
            await asyncio.wait(awaited, return_when=asyncio.FIRST_COMPLETED)
        except asyncio.CancelledError:
            listener.leave()
            raise
        finally:
            first.cancel()
            leaving.cancel()
        if leaving.done() and not leaving.cancelled() and not answering.done():
            listener.leave()
            self._finish_later(answering)
            return _in_form_of_openai(_problem(400, "The client went away."))
        head, named = ChatHead(identifier, listener.model, int(time.time())), {VERSION: listener.model}
        if answering.done():
            try:
                said = _chat_answer(answering.result())
            except ChatError as why:
                return _chat_problem(why, listener.model)
            if not asked.stream:
                return JSONResponse(chat.completion(head, str(said["output"]), said.get("usage")), headers=named)

        def ended() -> None:
            if not answering.done():
                listener.leave()
                self._finish_later(answering)

        def answer() -> ItemPrediction:
            if answering.exception() is not None:  # the version's thread has logged it
                raise ChatError("The answer could not be written to its end.", 500)
            return _chat_answer(answering.result())

        pieces = chat_events(head, listener, answer, counted=asked.include_usage)
        return EventStream(pieces, ended, named)

    def _finish_later(self, answering: asyncio.Future[Any]) -> None:
        """What was answered of it is logged and counted, though nobody waits for it."""
        self._later.add(answering)
        answering.add_done_callback(self._later.discard)


def _chat_answer(answered: _Response | Response) -> ItemPrediction:
    """Raises ChatError where there is none."""
    if isinstance(answered, Response):
        kept = {name: value for name in _KEPT_HEADERS if (value := answered.headers.get(name))}
        raise ChatError(str(json.loads(bytes(answered.body))["error"]), answered.status_code, headers=kept)
    [said] = answered.predictions
    if said["error"]:
        code = "context_length_exceeded" if said.get("too_long") else None
        raise ChatError(said.get("error_text") or said["error"], 400, "messages", code)
    return said


def _chat_problem(error: ChatError, model: str) -> Response:
    return JSONResponse(error.body(), error.status, headers={**({VERSION: model} if model else {}), **error.headers})


def _in_form_of_openai(response: Response) -> Response:
    """An error of ours. A body that does not fit is a bad request there."""
    kept = {name: value for name in _KEPT_HEADERS if (value := response.headers.get(name))}
    status = 400 if response.status_code == 422 else response.status_code
    return _chat_problem(ChatError(str(json.loads(bytes(response.body))["error"]), status, headers=kept), "")


def _withdraw(future: Future[ItemPrediction]) -> bool:
    """Take an input out of the queue. Whether its turn had not come; not so where the model has it, or answered it."""
    return future.cancel() or (future.done() and isinstance(future.exception(), Overloaded))


def _prediction(identifier: str, answer: ItemPrediction | BaseException) -> ItemPrediction:
    """An answer as a client sees it. What decoders and libraries said is apart: it may quote the input."""
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
