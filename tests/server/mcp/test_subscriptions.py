"""Which resources an event touches, and that subscribers hear of each once per period."""

from __future__ import annotations

import asyncio

import anyio
import pytest
from mcp.server.subscriptions import ResourceUpdated, ServerEvent

from speciate.server.mcp import subscriptions
from speciate.server.mcp.subscriptions import Updates, changed_uris
from speciate.workspace.database import Event


def event(subject: str, **data: object) -> Event:
    return Event(1, 0.0, subject, "x", data)


@pytest.mark.parametrize(
    ("happened", "uri"),
    [
        (event("job-abc"), "speciate://jobs/job-abc"),
        (event("job-abc"), "speciate://jobs/job-abc/log"),
        (event("dataset:a", version=3), "speciate://datasets/a/v3"),
        (event("evaluation:e"), "speciate://evaluations/e"),
        (event("use_case:u"), "speciate://use-cases/u"),
        (event("model:m"), "speciate://status"),
    ],
)
def test_an_event_touches_what_shows_it(happened: Event, uri: str) -> None:
    assert uri in changed_uris(happened)


def test_a_burst_of_events_is_told_at_once_and_then_gathered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subscriptions, "PERIOD_SECONDS", 0.01)
    heard: list[str] = []

    def listen(happened: ServerEvent) -> None:
        assert isinstance(happened, ResourceUpdated)
        heard.append(happened.uri)

    async def main() -> None:
        bus = Updates()
        bus.notice([event("job-0")])  # nobody listens yet
        unsubscribe = bus.subscribe(listen)
        for _ in range(50):
            await anyio.to_thread.run_sync(bus.notice, [event("job-a")])
        with anyio.fail_after(120):
            while heard.count("speciate://jobs/job-a") < 2:
                await anyio.sleep(0.005)
        unsubscribe()
        seen = len(heard)
        bus.notice([event("job-b")])
        await anyio.sleep(0.02)
        assert len(heard) == seen

    anyio.run(main)
    assert "speciate://jobs/job-0" not in heard
    assert heard.count("speciate://jobs/job-a") < 50


class _ClosedMeanwhile(asyncio.SelectorEventLoop):
    """What a thread sees that looked just before the loop closed."""

    stale = False

    def is_closed(self) -> bool:
        return not self.stale and super().is_closed()


def test_a_loop_that_closes_meanwhile_does_not_hurt_the_catalogs_writer() -> None:
    bus, loop = Updates(), _ClosedMeanwhile()

    async def listen() -> None:
        bus.subscribe(lambda happened: None)

    loop.run_until_complete(listen())
    loop.close()
    loop.stale = True
    bus.notice([event("job-a")])
    loop.stale = False
