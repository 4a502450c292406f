"""Against the server that transformers brings: what is on the wire is not what we think the protocol is.

Between the two stands a proxy that spoils a part of what it passes on.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx2
import pytest
import uvicorn

from speciate.datasets.loading.loader import Example
from speciate.evaluation.endpoints.asking import Limits, ask_all
from speciate.evaluation.endpoints.chat import Reply
from speciate.evaluation.endpoints.concurrency import Bounds
from speciate.evaluation.endpoints.prompts import Prompt, form, request
from speciate.evaluation.endpoints.readings import Unreadable, read
from speciate.models.endpoints import Endpoint

pytestmark = pytest.mark.slow

TEMPLATE = "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}assistant:"
START_SECONDS = 180


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Llama of 0.1 million random parameters with a byte-level tokenizer."""
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    folder = tmp_path_factory.mktemp("models") / "tiny"
    vocabulary = {character: code for code, character in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    vocabulary["<end>"] = len(vocabulary)
    words = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    words.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    words.decoder = decoders.ByteLevel()
    tokenizer: Any = PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
        tokenizer_object=words, eos_token="<end>", pad_token="<end>"
    )
    tokenizer.chat_template = TEMPLATE
    tokenizer.save_pretrained(folder)
    config = LlamaConfig(
        vocab_size=len(vocabulary), hidden_size=64, intermediate_size=128, num_hidden_layers=2, num_attention_heads=4,
        initializer_range=0.5, eos_token_id=vocabulary["<end>"], bos_token_id=None, pad_token_id=vocabulary["<end>"],
    )  # fmt: skip
    torch.manual_seed(0)
    llama = LlamaForCausalLM(config)
    llama.generation_config.exponential_decay_length_penalty = (4, 4.0)  # random weights would never come to an end
    llama.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def served(model: Path) -> Iterator[str]:
    """The server's address."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with (model.parent / "log").open("w") as log:
        server = subprocess.Popen(
            [
                Path(sys.executable).parent / "transformers", "serve", str(model), "--port", str(port),
                "--device", "cpu", "--dtype", "float32",
            ],
            env=os.environ | {"HF_HUB_OFFLINE": "1", "HF_HUB_DISABLE_TELEMETRY": "1"}, stdout=log, stderr=log,
        )  # fmt: skip
    try:
        _wait_for(f"http://127.0.0.1:{port}/health", server, model.parent / "log")
        yield f"http://127.0.0.1:{port}"
    finally:
        server.kill()
        server.wait()


def _wait_for(url: str, server: subprocess.Popen[bytes], log: Path) -> None:
    until = time.monotonic() + START_SECONDS
    while time.monotonic() < until:
        assert server.poll() is None, log.read_text()[-3000:]
        try:
            if httpx2.get(url, trust_env=False).status_code == 200:
                return
        except httpx2.TransportError:
            time.sleep(0.2)  # another process's start is its own affair
    raise AssertionError(f"no server within {START_SECONDS} s: {log.read_text()[-3000:]}")


class Spoiling:
    """Passes requests on; of every four the first is refused, the second torn in the middle, the third is a fault."""

    def __init__(self, target: str) -> None:
        self._target = target
        self.calls = 0
        self.spoilt = {"429": 0, "torn": 0, "500": 0}

    async def __call__(self, scope: dict[str, Any], receive: Any, send: Any) -> None:
        body = b""
        while True:
            event = await receive()
            body += event.get("body", b"")
            if not event.get("more_body"):
                break
        self.calls += 1
        how = {1: "429", 2: "torn", 3: "500"}.get(self.calls % 4, "whole")
        if how in self.spoilt:
            self.spoilt[how] += 1
        if how in ("429", "500"):
            await send({"type": "http.response.start", "status": int(how), "headers": [(b"retry-after", b"0.1")]})
            await send({"type": "http.response.body", "body": b"{}"})
            return
        async with (
            httpx2.AsyncClient(trust_env=False, timeout=60) as client,
            client.stream(
                "POST", self._target + scope["path"], content=body, headers={"content-type": "application/json"}
            ) as told,
        ):
            kind = told.headers["content-type"].encode()
            await send(
                {"type": "http.response.start", "status": told.status_code, "headers": [(b"content-type", kind)]}
            )
            async for chunk in told.aiter_raw():
                await send({"type": "http.response.body", "body": chunk, "more_body": True})
                if how == "torn":
                    return
        await send({"type": "http.response.body", "body": b""})


@contextmanager
def spoiled(target: str) -> Iterator[tuple[Spoiling, str]]:
    proxy = Spoiling(target)
    listener = socket.create_server(("127.0.0.1", 0))
    config = uvicorn.Config(proxy, log_level="critical", lifespan="off", timeout_graceful_shutdown=0)
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
    thread.start()
    try:
        yield proxy, f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join(10)


def test_answers_through_every_fault_are_those_without_any(served: str, model: Path) -> None:
    asked = form(Prompt(max_tokens=64, template="{input}"), "generation", "text")
    requests = [request(asked, Example(f"e{n}", chr(97 + n) * (n + 1), None, "", "test", {})) for n in range(24)]
    limits = Limits(bounds=Bounds(most=4), attempts=20, backoff_s=0.05)

    def answers(base: str) -> dict[int, Reply]:
        replies: dict[int, Reply] = {}
        endpoint = Endpoint(base_url=f"{base}/v1", model=str(model), usd_per_1m_input=1, usd_per_1m_output=1)
        told = ask_all(endpoint, requests, key=None, record=replies.__setitem__, limits=limits)
        assert (told.answered, told.failed, told.unanswered) == (24, 0, 0)
        assert len(told.served_models) == 1
        return replies

    plain = answers(served)
    with spoiled(served) as (proxy, address):
        through = answers(address)
    assert min(proxy.spoilt.values()) >= 20
    assert len({reply.text for reply in plain.values()}) > 8, "answers that are all alike show little"
    said = ("text", "input_tokens", "output_tokens", "finish_reason", "served_model")
    for place in range(24):
        assert [getattr(through[place], name) for name in said] == [getattr(plain[place], name) for name in said]
    for reply in plain.values():
        assert 0 < (reply.output_tokens or 0) < 64 < (reply.input_tokens or 0)
        assert 0 < (reply.ttft_s or 0) <= (reply.latency_s or 0)
        assert reply.usd == ((reply.input_tokens or 0) + (reply.output_tokens or 0)) / 1e6
    assert max(reply.attempts for reply in through.values()) > 1


def test_a_model_that_only_babbles_gives_no_label(served: str, model: Path) -> None:
    """Random weights: whatever comes is not one of the labels, and nothing is made of it."""
    asked = form(Prompt(max_tokens=64), "classification", "text", labels=("north", "south"))
    replies: dict[int, Reply] = {}
    ask_all(
        Endpoint(base_url=f"{served}/v1", model=str(model)),
        [request(asked, Example("e", "text", None, "", "test", {}))],
        key=None, record=replies.__setitem__,
    )  # fmt: skip
    text = replies[0].text
    assert text is not None
    with pytest.raises(Unreadable):
        read(asked, text)
