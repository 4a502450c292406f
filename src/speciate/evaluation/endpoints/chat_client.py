"""One call of an OpenAI-compatible chat endpoint, and what came of it.

The answer is streamed, so that the time to its first token is known; what an endpoint does not know of the protocol is
left out (`Dialect`). Every byte that comes back is foreign: bodies have a size cap, what is quoted is short, and the
key is cut out of whatever the endpoint says. Redirects are not followed: a key must not travel to another host.
"""

from __future__ import annotations

import json
import math
import re
import ssl
from collections.abc import Collection, Mapping, Sequence
from contextlib import AsyncExitStack
from email.utils import parsedate_to_datetime
from functools import cache
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Self, TypedDict

import anyio

from speciate import hosts
from speciate.errors import Code, SpeciateError
from speciate.jobs.egress import Permit
from speciate.models.endpoints import Endpoint
from speciate.workspace.clock import Clock

if TYPE_CHECKING:
    import httpx2


_MOST_BYTES = 32 * 1024 * 1024  # of one answer; a streamed token takes about 250
_LONGEST_LINE = 4 * 1024 * 1024
_MOST_ERROR_BYTES = 64 * 1024
_QUOTED = 200  # characters of what an endpoint says about an error
_NAME = 64  # characters of a model's name or a finish_reason
_SHORTEST_KEY = 8  # shorter ones are placeholders such as "none", which texts may well hold
_WITHHELD = frozenset({"content_filter", "refusal", "safety", "blocked", "recitation", "prohibited_content"})
_BROKE = frozenset({"error", "network_error"})
_NO_MONEY = frozenset({"insufficient_quota", "billing_hard_limit_reached", "billing_not_active"})
_UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069]+")

Kind = Literal["answer", "unusable", "rate_limit", "transient", "refused", "forbidden", "fatal"]
"""`unusable`: answered, but with nothing to count as an answer. `refused`: this request, as it is (400). `forbidden`:
403, the key or this one prompt. `fatal`: whatever is asked, it will be refused."""


class Timeouts(NamedTuple):
    """Seconds. `first_byte` is also the longest silence between two bytes of an answer that is streamed."""

    connect: float = 10.0
    first_byte: float = 60.0
    whole: float = 300.0


class TextPart(TypedDict):
    type: Literal["text"]
    text: str


class ImageUrl(TypedDict):
    url: str


class ImagePart(TypedDict):
    type: Literal["image_url"]
    image_url: ImageUrl


class AudioData(TypedDict):
    data: str
    """The audio in base64."""
    format: str


class AudioPart(TypedDict):
    type: Literal["input_audio"]
    input_audio: AudioData


Part = TextPart | ImagePart | AudioPart


class Message(TypedDict):
    role: str
    content: str | list[Part]


class Request(NamedTuple):
    """What is asked. `answer_schema`: a JSON schema that the answer's text should obey, where the endpoint can."""

    messages: Sequence[Message]
    max_tokens: int
    sampling: Mapping[str, Any] = {}
    """`temperature`, `seed` and others, sent as they are."""
    answer_schema: Mapping[str, Any] | None = None


class Reply(NamedTuple):
    """What a request came to. `text` or `error`; `retryable`: to be asked again some other time, never kept.

    `latency_s`: of the last attempt alone, from sending to the last byte, without waiting in line or between attempts.
    `ttft_s`: to the first piece of text; None where the answer came in one piece. None: the endpoint did not say, or
    the price is not known.
    """

    text: str | None
    error: str | None
    retryable: bool
    input_tokens: int | None
    output_tokens: int | None
    cached_tokens: int | None
    usd: float | None
    latency_s: float | None
    ttft_s: float | None
    attempts: int
    status: int | None
    served_model: str | None
    finish_reason: str | None
    created: float
    """Seconds since the epoch."""
    usd_at_most: float | None = None
    """With the worst case of attempts that may have cost something without saying how much; None without a price."""
    system_fingerprint: str | None = None
    """What the endpoint says of the machinery behind `served_model`."""
    logprob: float | None = None
    """Mean log-probability of the answer's tokens, where `sampling` asks for `logprobs` and the endpoint gives them."""


class Outcome(NamedTuple):
    """One attempt. `may_cost`: the endpoint may charge for it although it did not say how much."""

    kind: Kind
    reply: Reply
    retry_after_s: float | None = None
    blamed: str | None = None
    """The parameter that a refusal names."""
    may_cost: bool = False


class Dialect(NamedTuple):
    """What of the protocol an endpoint knows; not all know all of it."""

    constrains: bool = True
    """Takes `response_format`."""
    streams: bool = True
    """Takes `stream` with `stream_options`; a stream that does not say how many tokens it took is not worth it."""
    cap: Literal["max_tokens", "max_completion_tokens"] = "max_tokens"

    def simpler(self, request: Request, blamed: str | None) -> Dialect | None:
        """What to try after a refusal: without what it blames, else without what is known least. None: nothing left."""
        steps = {
            "response_format": self._replace(constrains=False) if request.answer_schema else self,
            "stream_options": self._replace(streams=False),
            "stream": self._replace(streams=False),
            "max_tokens": self._replace(cap="max_completion_tokens"),
        }
        named = (blamed or "").partition(".")[0]
        order = [named, *steps] if named in steps else list(steps)
        return next((steps[name] for name in order if steps[name] != self), None)


@cache
def _trusted() -> ssl.SSLContext:
    """The certificates that are trusted: read once, for that takes 15 ms of a core."""
    import httpx2

    return httpx2.create_ssl_context()


class Chat:
    """An open line to an endpoint. Its key is in no repr, and in nothing that it returns or raises."""

    def __init__(
        self,
        endpoint: Endpoint,
        key: str | None,
        timeouts: Timeouts,
        most_connections: int,
        clock: Clock,
        private_hosts: Collection[str] = (),
        permit: Permit | None = None,
    ) -> None:
        """`permit`: for its host. Raises REFUSED where it lacks and the endpoint is not on this machine."""
        if not endpoint.is_local and (permit is None or permit.host != endpoint.host):
            raise SpeciateError(
                Code.REFUSED,
                f"This run holds no permit to send anything to {endpoint.host}, so nothing was sent.",
                "A job of an earlier version has none: cancel it and make its call again. The plan of another kind of "
                "job must name each dataset in Plan.departures.",
            )
        self._endpoint, self._timeouts, self._clock = endpoint, timeouts, clock
        self._private_hosts = private_hosts
        self._key = _check_key(key)
        self._most = most_connections
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> Self:
        import httpx2

        headers = {"Accept-Encoding": "identity"}  # a small body cannot become a large one
        if self._key:
            headers["Authorization"] = f"Bearer {self._key}"
        limits = httpx2.Limits(max_connections=self._most, max_keepalive_connections=self._most)
        self._client = await self._stack.enter_async_context(
            # What is sent to this machine is not sent through a proxy, whatever the environment names.
            hosts.guard(
                httpx2.AsyncClient(
                    headers=headers, limits=limits, trust_env=not self._endpoint.is_local, verify=_trusted()
                ),
                self._private_hosts,
            )
        )
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._stack.aclose()

    async def ask(self, request: Request, dialect: Dialect) -> Outcome:
        """Ask once. Never raises for what the endpoint or the network does, but REFUSED where the host leads to this
        machine or a private address and is not among `private_hosts`."""
        import httpx2

        reader = _ReplyReader(self._clock, self._key)
        body = json.dumps(_body(self._endpoint.model, request, dialect)).encode()
        timeouts = httpx2.Timeout(self._timeouts.first_byte, connect=self._timeouts.connect)
        if not dialect.streams:  # then the first byte comes when all is done
            timeouts = httpx2.Timeout(self._timeouts.whole, connect=self._timeouts.connect)
        with anyio.move_on_after(self._timeouts.whole):
            try:
                async with self._client.stream(
                    "POST",
                    f"{self._endpoint.base_url}/chat/completions",
                    content=body,
                    headers={"Content-Type": "application/json"},
                    timeout=timeouts,
                ) as response:
                    return await _read_body(response, reader)
            except httpx2.ConnectTimeout:
                return reader.failed(f"no connection within {self._timeouts.connect:g} s")
            except httpx2.ConnectError as error:
                return reader.failed(f"no connection: {error}")
            except httpx2.TimeoutException:
                return reader.failed(f"silence for more than {timeouts.read:g} s", may_cost=True)
            except (httpx2.HTTPError, httpx2.StreamError, httpx2.InvalidURL, OSError) as error:
                return reader.failed(f"the connection broke: {type(error).__name__}", may_cost=True)
        return reader.failed(f"not done within {self._timeouts.whole:g} s", may_cost=True)


class _TooLong(Exception):
    """The body is not what the protocol says; the text says how."""


class _ReplyReader:
    """What has come in of one attempt."""

    def __init__(self, clock: Clock, key: str | None) -> None:
        self._clock, self._key = clock, key
        self._began = clock.monotonic()
        self._pieces: list[str] = []
        self._ttft_s: float | None = None
        self._refusal = False
        self._usage: Mapping[str, Any] = {}
        self._model: str | None = None
        self._system: str | None = None
        self._logprobs: list[float] = []
        self.status: int | None = None
        self.finish: str | None = None

    @property
    def now(self) -> float:
        return self._clock.now()

    def take(self, message: Mapping[str, Any], part: Literal["delta", "message"]) -> None:
        """A chunk of a stream, or a whole answer."""
        if isinstance(message.get("usage"), dict):
            self._usage = message["usage"]
        if isinstance(message.get("model"), str):
            self._model = message["model"]
        if isinstance(message.get("system_fingerprint"), str):
            self._system = message["system_fingerprint"]
        choices = message.get("choices")
        choice = choices[0] if isinstance(choices, list) and choices and isinstance(choices[0], dict) else {}
        if isinstance(choice.get("finish_reason"), str):
            self.finish = choice["finish_reason"]
        self._logprobs += _logprobs(choice.get("logprobs"))
        content = choice.get(part)
        if not isinstance(content, dict):
            return
        self._refusal = self._refusal or bool(content.get("refusal"))
        text = _text(content.get("content"))
        if text is not None:
            if text and part == "delta" and self._ttft_s is None:
                self._ttft_s = self._clock.monotonic() - self._began
            self._pieces.append(text)

    def answered(self) -> Outcome:
        finish = (self.finish or "").lower()
        if finish in _BROKE:
            return self.failed("the endpoint broke off its answer", may_cost=True)
        if self._refusal or finish in _WITHHELD:
            why = "refusal" if self._refusal else finish
            return self._outcome("unusable", f"the model withheld its answer ({why})")
        if finish in ("length", "max_tokens"):
            return self._outcome("unusable", "cut by length: prompt.max_tokens is too small for this answer")
        if not self._pieces:
            return self._outcome("unusable", "the answer holds no text")
        return self._outcome("answer", None)

    def failed(self, why: str, *, may_cost: bool = False) -> Outcome:
        return self._outcome("transient", why, retryable=True)._replace(may_cost=may_cost)

    def refused(self, kind: Kind, error: Mapping[str, Any], retry_after_s: float | None) -> Outcome:
        """`error`: the endpoint's error object. With a wrong key it is not quoted: it may hold a part of the key."""
        message = error.get("message") if self.status not in (401, 403) else None
        quoted = self._quoted(message)
        why = f"HTTP {self.status}" + (f": {quoted}" if quoted else "")
        outcome = self._outcome(kind, why, retryable=kind in ("rate_limit", "transient"))
        blamed = error.get("param")
        return outcome._replace(retry_after_s=retry_after_s, blamed=blamed if isinstance(blamed, str) else None)

    def _outcome(self, kind: Kind, error: str | None, *, retryable: bool = False) -> Outcome:
        details = self._usage.get("prompt_tokens_details")
        cached = details.get("cached_tokens") if isinstance(details, dict) else None
        reply = Reply(
            text=self._hidden("".join(self._pieces)) if error is None else None,
            error=self._quoted(error),
            retryable=retryable,
            input_tokens=_count(self._usage.get("prompt_tokens")),
            output_tokens=_count(self._usage.get("completion_tokens")),
            cached_tokens=_count(cached),
            usd=None,
            latency_s=self._clock.monotonic() - self._began,
            ttft_s=self._ttft_s,
            attempts=1,
            status=self.status,
            served_model=self._quoted(self._model, _NAME),
            finish_reason=self._quoted(self.finish, _NAME),
            created=self.now,
            system_fingerprint=self._quoted(self._system, _NAME),
            logprob=sum(self._logprobs) / len(self._logprobs) if self._logprobs else None,
        )
        return Outcome(kind, reply)

    def _quoted(self, text: Any, most: int = _QUOTED) -> str | None:
        if not isinstance(text, str):
            return None
        return _UNPRINTABLE.sub(" ", self._hidden(text)).strip()[:most]

    def _hidden(self, text: str) -> str:
        return text.replace(self._key, "[key]") if self._key and len(self._key) >= _SHORTEST_KEY else text


async def _read_body(response: httpx2.Response, reader: _ReplyReader) -> Outcome:
    reader.status = response.status_code
    if response.status_code != 200:
        return await _read_refusal(response, reader)
    try:
        if response.headers.get("content-encoding", "identity") != "identity":
            raise _TooLong("a compressed answer, which was not asked for")
        if "text/event-stream" in response.headers.get("content-type", ""):
            await _stream(response, reader)
        else:
            reader.take(_object(await _read(response, _MOST_BYTES)), "message")
    except _TooLong as cut:
        return reader.failed(str(cut), may_cost=True)
    return reader.answered()


async def _stream(response: httpx2.Response, reader: _ReplyReader) -> None:
    """Server-sent events, a line `data: {...}` each, ended by `data: [DONE]` or by the end of what has a reason."""
    rest, total = b"", 0
    async for chunk in response.aiter_raw():
        total += len(chunk)
        *lines, rest = (rest + chunk).split(b"\n")
        if total > _MOST_BYTES or len(rest) > _LONGEST_LINE:
            raise _TooLong(f"an answer of more than {_MOST_BYTES // 2**20} MiB")
        for line in lines:
            if _event(line, reader) == "done":
                return
    _event(rest, reader)
    if reader.finish is None:
        raise _TooLong("the stream was cut off before its end")


def _event(line: bytes, reader: _ReplyReader) -> Literal["done", "more"]:
    if not line.startswith(b"data:"):
        return "more"  # a comment, an event's name, an empty line
    data = line[5:].strip()
    if data == b"[DONE]":
        return "done"
    message = _object(data)
    if message.get("error"):
        raise _TooLong("the endpoint broke off its stream with an error")
    reader.take(message, "delta")
    return "more"


async def _read_refusal(response: httpx2.Response, reader: _ReplyReader) -> Outcome:
    try:
        error = _object(await _read(response, _MOST_ERROR_BYTES)).get("error")
    except _TooLong:
        error = None
    error = error if isinstance(error, dict) else {"message": error}
    after = _retry_after(response.headers, reader.now)
    return reader.refused(_kind(response.status_code, error.get("code"), after is not None), error, after)


def _kind(status: int, code: Any, retry_after: bool) -> Kind:
    if status == 429:
        return "fatal" if code in _NO_MONEY else "rate_limit"
    if status == 503 and retry_after:
        return "rate_limit"
    if status >= 500 or status in (408, 409, 425):
        return "transient"
    if status == 403:
        return "forbidden"
    if status in (401, 402, 404) or 300 <= status < 400:
        return "fatal"
    return "refused"


def _retry_after(headers: httpx2.Headers, now: float) -> float | None:
    """Seconds, from a number or a date (RFC 9110, 10.2.3). None: not given, or not readable."""
    value = headers.get("retry-after")
    if value is None:
        return None
    try:
        return max(0.0, float(value))
    except ValueError:
        pass
    try:
        return max(0.0, parsedate_to_datetime(value).timestamp() - now)
    except (ValueError, TypeError):
        return None


def _body(model: str, request: Request, dialect: Dialect) -> Mapping[str, object]:
    body = {"model": model, "messages": request.messages, dialect.cap: request.max_tokens, **request.sampling}
    if dialect.streams:
        body |= {"stream": True, "stream_options": {"include_usage": True}}
    if request.answer_schema and dialect.constrains:
        schema = {"name": "answer", "strict": True, "schema": request.answer_schema}
        body["response_format"] = {"type": "json_schema", "json_schema": schema}
    return body


async def _read(response: httpx2.Response, most: int) -> bytes:
    chunks, total = [], 0
    async for chunk in response.aiter_raw():
        total += len(chunk)
        if total > most:
            raise _TooLong(f"an answer of more than {most // 1024:,} KiB")
        chunks.append(chunk)
    return b"".join(chunks)


def _object(data: bytes) -> Mapping[str, Any]:
    try:
        message = json.loads(data)
    except (ValueError, RecursionError):
        raise _TooLong("the answer is not JSON") from None
    if not isinstance(message, dict):
        raise _TooLong("the answer is no JSON object")
    return message


def _text(content: Any) -> str | None:
    """Some endpoints give the text in parts."""
    if isinstance(content, list):
        texts = [part["text"] for part in content if isinstance(part, dict) and isinstance(part.get("text"), str)]
        return "".join(texts) if texts else None
    return content if isinstance(content, str) else None


def _logprobs(value: Any) -> list[float]:
    """Log probabilities of the tokens of a choice; those that are no finite numbers are left out."""
    content = value.get("content") if isinstance(value, dict) else None
    found = [token.get("logprob") for token in content if isinstance(token, dict)] if isinstance(content, list) else []
    return [float(each) for each in found if isinstance(each, int | float) and math.isfinite(each)]


def _count(value: Any) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else None


def _check_key(key: str | None) -> str | None:
    """A key that fits into a header; errors do not show it."""
    key = key.strip() if key else None
    if key and not (key.isascii() and key.isprintable() and " " not in key):
        raise SpeciateError(
            Code.INVALID,
            "The stored key holds characters that no key has (blanks, line ends or letters beyond ASCII).",
            "A person stores it again with `speciate secret set NAME --host HOST`.",
        )
    return key or None
