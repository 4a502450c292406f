"""A chat endpoint on loopback that answers by a function of what it is asked: at first, one that reads the points
`x: ...`, `y: ...` in it and knows their label."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from speciate.models.endpoints import Endpoint

_CELL = re.compile(r"^([xy]): (\S+)$", re.MULTILINE)


def label(text: str) -> str:
    cells = dict(_CELL.findall(text))
    return "yes" if float(cells["x"]) + float(cells["y"]) > 0 else "no"


class Answering(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.asked: list[str] = []
        """The last message of each call."""
        self.model = "oracle-1"
        self.tells_usage = True
        self.answer: Callable[[str], str] = label
        """What is said to the last message."""
        self.before: Callable[[int], None] = lambda number: None
        """Called with the number of each call, before it is answered; may raise."""
        self.lock = threading.Lock()

    def endpoint(self, **changes: Any) -> Endpoint:
        given = {"base_url": f"http://127.0.0.1:{self.server_port}/v1", "model": "oracle"}
        return Endpoint.model_validate(given | changes)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that went away in the middle is part of the tests."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: Answering

    def log_message(self, *_: Any) -> None:
        pass

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        text = body["messages"][-1]["content"]
        with self.server.lock:
            self.server.asked.append(text)
            number = len(self.server.asked)
        self.server.before(number)
        message = {"role": "assistant", "content": self.server.answer(text)}
        said = {
            "model": self.server.model,
            "choices": [{"index": 0, "message": message, "finish_reason": "stop"}],
        }
        if self.server.tells_usage:
            said["usage"] = {"prompt_tokens": 100, "completion_tokens": 1}
        data = json.dumps(said).encode()
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)


@contextmanager
def answering() -> Iterator[Answering]:
    server = Answering()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        thread.join(5)
        server.server_close()
