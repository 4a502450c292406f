"""A chat's answer while it is written: from the thread of a version to the event stream of a client.

A client that goes away frees its place: an answer that waits is not asked, one that is being written ends at the next
token.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Sequence
from concurrent.futures import Future

from starlette.requests import Request
from starlette.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from speciate.serving import chat
from speciate.serving.chat import ChatError, ChatHead
from speciate.serving.items import ItemPrediction

MEDIA_TYPE = "text/event-stream"


class ChatListener:
    """Who waits for one answer. `hear` and `gone` are for the thread of a version, all else for the event loop."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._texts: asyncio.Queue[str | None] = asyncio.Queue()
        self._begun = asyncio.Event()
        self._answers: Sequence[Future[ItemPrediction]] = ()
        self._gone = False
        self.model = ""
        """The version that answers, once it is known."""

    def hear(self, text: str) -> None:
        self._loop.call_soon_threadsafe(self._take, text)

    @property
    def gone(self) -> bool:
        return self._gone

    @property
    def begun(self) -> bool:
        """Whether something was heard."""
        return self._begun.is_set()

    def waits_for(self, model: str, answers: Sequence[Future[ItemPrediction]]) -> None:
        self.model, self._answers = model, answers

    def leave(self) -> None:
        """Nobody wants the answer any more."""
        self._gone = True
        for each in self._answers:
            each.cancel()  # of no effect on what the model has already

    def end(self) -> None:
        """Nothing more will be heard."""
        self._texts.put_nowait(None)

    async def first(self) -> None:
        """Waits until something is heard."""
        await self._begun.wait()

    async def texts(self) -> AsyncGenerator[str, None]:
        while (text := await self._texts.get()) is not None:
            yield text

    def _take(self, text: str) -> None:
        self._begun.set()
        self._texts.put_nowait(text)


class EventStream(StreamingResponse):
    """Server-sent events. `ended` is called however it ends, also where the client goes away."""

    def __init__(self, events: AsyncGenerator[bytes, None], ended: Callable[[], None], headers: dict[str, str]) -> None:
        super().__init__(events, headers={"cache-control": "no-cache", **headers}, media_type=MEDIA_TYPE)
        self._ended = ended

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._ended()


async def until_gone(request: Request) -> None:
    """Waits until the client goes away. For a request whose body was read."""
    while (await request.receive())["type"] != "http.disconnect":
        pass


async def events(
    head: ChatHead, listener: ChatListener, answer: Callable[[], ItemPrediction], *, counted: bool
) -> AsyncGenerator[bytes, None]:
    """The events of one answer. `answer()`: the whole answer, once nothing more is heard; raises
    ChatError. `counted`: the
    tokens come last."""
    yield chat.event(chat.first_piece(head, counted=counted))
    sent = ""
    async for text in listener.texts():
        sent += text
        yield chat.event(chat.piece(head, {"content": text}, None, counted=counted))
    try:
        found = answer()
    except ChatError as why:
        yield chat.event(why.body())
        return
    if rest := str(found["output"])[len(sent) :]:  # of a model that answers whole: all of it
        yield chat.event(chat.piece(head, {"content": rest}, None, counted=counted))
    usage = found.get("usage")
    yield chat.event(chat.last_piece(head, usage, counted=counted))
    if counted:
        yield chat.event(chat.usage_piece(head, usage))
    yield chat.END
