"""Answers per second of `ask_all`, beside inspect-ai, from an endpoint that takes 50 ms for each and bears 64 at once.

Both ask the same questions with as many connections; both keep every answer (ours: a line in a file, fsync'd before the
next call begins; inspect: its log). Ours streams, so that it knows the time to the first token; inspect does not. The
stub is a process of its own and does as little as it can. Pairs are interleaved; the figure is the median ratio. No
import is timed but those that inspect makes while it evaluates. Where others use the machine too, the processor time of
an answer says more than answers per second.

    python -m venv INSPECT && INSPECT/bin/pip install inspect-ai openai
    python evals/bench/endpoint_throughput.py INSPECT/bin/python [--pairs 5] [--samples 1000] [--connections 64]
"""

from __future__ import annotations

import argparse
import asyncio
import json
import multiprocessing
import os
import statistics
import subprocess
import tempfile
import time
from multiprocessing.connection import Connection
from pathlib import Path
from typing import NamedTuple

from speciate.evaluation.endpoints.chat_client import Reply, Request
from speciate.evaluation.endpoints.concurrency import Bounds
from speciate.evaluation.endpoints.concurrent_calls import Limits, ask_all
from speciate.models.endpoints import Endpoint

LATENCY_S = 0.05
PEER = Path(__file__).parent / "arms" / "inspect_asks.py"
_USAGE = {"prompt_tokens": 12, "completion_tokens": 1, "total_tokens": 13}
_HEAD = {"id": "x", "created": 0, "model": "stub-1"}


def _whole() -> bytes:
    choice = {"index": 0, "message": {"role": "assistant", "content": "yes"}, "finish_reason": "stop"}
    body = json.dumps(_HEAD | {"object": "chat.completion", "choices": [choice], "usage": _USAGE}).encode()
    return b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%s" % (len(body), body)


def _streamed() -> bytes:
    chunk = _HEAD | {"object": "chat.completion.chunk"}
    events = [
        chunk | {"choices": [{"index": 0, "delta": {"role": "assistant", "content": "yes"}, "finish_reason": None}]},
        chunk | {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]},
        chunk | {"choices": [], "usage": _USAGE},
    ]
    body = b"".join(b"data: %s\n\n" % json.dumps(event).encode() for event in events) + b"data: [DONE]\n\n"
    return b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ncontent-length: %d\r\n\r\n%s" % (len(body), body)


class Speed(NamedTuple):
    per_second: float
    cpu_ms: float
    """Of the client's processor, for an answer."""

    def __str__(self) -> str:
        return f"{self.per_second:,.0f} /s with {self.cpu_ms:.1f} ms of the processor each"


class Stub(asyncio.Protocol):
    """As little HTTP as both clients speak: one request after another on a connection, with a Content-Length."""

    whole, streamed = _whole(), _streamed()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport, self._came = transport, b""

    def data_received(self, data: bytes) -> None:
        self._came += data
        head, found, body = self._came.partition(b"\r\n\r\n")
        if not found:
            return
        length = int(head.lower().partition(b"content-length:")[2].partition(b"\r\n")[0])
        if len(body) < length:
            return
        self._came = body[length:]
        answer = self.streamed if json.loads(body[:length]).get("stream") else self.whole
        asyncio.get_running_loop().call_later(LATENCY_S, self._transport.write, answer)


def serve(told: Connection) -> None:
    async def run() -> None:
        server = await asyncio.get_running_loop().create_server(Stub, "127.0.0.1", 0)
        told.send(server.sockets[0].getsockname()[1])
        await server.serve_forever()

    asyncio.run(run())


def ours(url: str, samples: int, connections: int) -> Speed:
    requests = [
        Request([{"role": "user", "content": f"Is {number} even? Answer yes or no."}], 16, {"temperature": 0.0})
        for number in range(samples)
    ]
    with tempfile.TemporaryFile("w") as file:

        def record(place: int, reply: Reply) -> None:
            file.write(json.dumps([place, *reply]) + "\n")
            file.flush()
            os.fsync(file.fileno())

        limits = Limits(bounds=Bounds(start=connections, most=connections))
        began, cpu = time.perf_counter(), time.process_time()
        endpoint = Endpoint(base_url=url, model="stub-1")
        asked = ask_all(
            endpoint, requests, key=None, record=record, limits=limits, private_hosts=(endpoint.host,)
        )  # fmt: skip
        seconds, cpu = time.perf_counter() - began, time.process_time() - cpu
    assert asked.answered == samples
    return Speed(samples / seconds, 1000 * cpu / samples)


def theirs(python: str, url: str, samples: int, connections: int) -> Speed:
    environment = os.environ | {"STUB_BASE_URL": url, "STUB_API_KEY": "none-at-all"}
    ran = subprocess.run(
        [python, PEER, str(samples), str(connections)], env=environment, capture_output=True, text=True, check=True
    )
    told = json.loads(ran.stdout.splitlines()[-1])
    assert told["answered"] == samples, told
    return Speed(samples / told["seconds"], 1000 * told["cpu_seconds"] / samples)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("inspect", help="the python of an environment that has inspect-ai")
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--samples", type=int, default=1000)
    parser.add_argument("--connections", type=int, default=64)
    given = parser.parse_args()

    here, there = multiprocessing.Pipe()
    stub = multiprocessing.Process(target=serve, args=(there,), daemon=True)
    stub.start()
    url = f"http://127.0.0.1:{here.recv()}/v1"
    pairs = []
    for number in range(given.pairs):
        mine = ours(url, given.samples, given.connections)
        peer = theirs(given.inspect, url, given.samples, given.connections)
        pairs.append((mine, peer))
        print(f"pair {number}: ours {mine}, inspect-ai {peer}", flush=True)
    stub.terminate()
    middle = [Speed(*map(statistics.median, zip(*side, strict=True))) for side in zip(*pairs, strict=True)]
    ratio = statistics.median(mine.per_second / peer.per_second for mine, peer in pairs)
    print(f"{given.samples} answers, {given.connections} at once, at most {given.connections / LATENCY_S:,.0f} /s:")
    print(f"ours {middle[0]}, inspect-ai {middle[1]}; median ratio {ratio:.2f}")


if __name__ == "__main__":
    main()
