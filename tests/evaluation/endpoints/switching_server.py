"""A chat server whose model a test may exchange without its name saying so."""

from __future__ import annotations

import hashlib
import json
import random
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from speciate.models.endpoints import Endpoint

Answers = Callable[[str], str]


def model(seed: str, noise: float = 0.0, chance: random.Random | None = None) -> Answers:
    """One of as many words as there are hashes; with `noise` now and then another of three."""
    chance = chance or random.Random(seed)

    def answer(prompt: str) -> str:
        choice = chance.randrange(3) if chance.random() < noise else 0
        return hashlib.sha256(f"{seed} {choice} {prompt}".encode()).hexdigest()[:6]

    return answer


class Served(ThreadingHTTPServer):
    """`answers`: what the model says. `name`, `system`: what the server says of it. `logprob`: of each token, where it
    is asked for. `refuses`: parameters that meet a 400. `down`: all meets a 503."""

    daemon_threads = True
    request_queue_size = 128  # of five, the first round of calls fills the queue, and who finds it full waits a second

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.answers: Answers = model("one")
        self.name, self.system, self.logprob = "stub-1", "fp_1", -0.25
        self.refuses: set[str] = set()
        self.down = False
        self.asked: list[dict[str, Any]] = []

    def endpoint(self, **changes: Any) -> Endpoint:
        port = self.server_address[1]
        return Endpoint.model_validate({"base_url": f"http://127.0.0.1:{port}/v1", "model": "stub"} | changes)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: Served

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.asked.append(asked)
        if self.server.down:
            return self._send(503, {"error": {"message": "down"}})
        for name in self.server.refuses:
            if name in asked:
                return self._send(400, {"error": {"message": "no", "param": name}})
        message = {"content": self.server.answers(asked["messages"][-1]["content"])}
        tokens = {"content": [{"token": "x", "logprob": self.server.logprob}]} if asked.get("logprobs") else None
        choice = {"message": message, "finish_reason": "stop", "logprobs": tokens}
        usage = {"prompt_tokens": 20, "completion_tokens": 3}
        said = {
            "model": self.server.name,
            "system_fingerprint": self.server.system,
            "choices": [choice],
            "usage": usage,
        }
        return self._send(200, said)

    def _send(self, status: int, said: dict[str, Any]) -> None:
        body = json.dumps(said).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        """Nothing: the test's output is the test's."""


@contextmanager
def served() -> Iterator[Served]:
    server = Served()
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join(10)
