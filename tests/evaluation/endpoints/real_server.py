"""The server that transformers brings, with a tiny model, and a proxy that spoils a part of what it passes on."""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx2
import pytest
import uvicorn

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
    """Passes requests on; the first of every `turn` of them meet one of `faults` each.

    429: refused for the rate. torn: cut in the middle. 500: a fault. malformed: no JSON. slow: half a second late.
    """

    def __init__(self, target: str, turn: int, faults: Sequence[str]) -> None:
        self._target, self._turn, self._faults = target, turn, faults
        self.calls = 0
        self.spoilt = dict.fromkeys(faults, 0)

    async def __call__(self, scope: dict[str, Any], receive: Any, send: Any) -> None:
        body = b""
        while True:
            event = await receive()
            body += event.get("body", b"")
            if not event.get("more_body"):
                break
        place = self.calls % self._turn
        self.calls += 1
        how = self._faults[place] if place < len(self._faults) else "whole"
        if how in self.spoilt:
            self.spoilt[how] += 1
        if how in ("429", "500"):
            await send({"type": "http.response.start", "status": int(how), "headers": [(b"retry-after", b"0.1")]})
            return await send({"type": "http.response.body", "body": b"{}"})
        if how == "malformed":
            await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/plain")]})
            return await send({"type": "http.response.body", "body": b"{so it begins"})
        if how == "slow":
            await asyncio.sleep(0.5)
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
                    return None
        return await send({"type": "http.response.body", "body": b""})


@contextmanager
def spoiled(
    target: str, turn: int = 4, faults: Sequence[str] = ("429", "torn", "500")
) -> Iterator[tuple[Spoiling, str]]:
    proxy = Spoiling(target, turn, faults)
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
