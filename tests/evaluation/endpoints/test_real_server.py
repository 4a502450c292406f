"""Against the server that transformers brings: what is on the wire is not what we think the protocol is.

Between the two stands a proxy that spoils most of what it passes on.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from speciate.datasets.loading.loader import Example
from speciate.evaluation.endpoints.answer_parsing import UnreadableAnswer, parse_answer
from speciate.evaluation.endpoints.chat_client import Reply
from speciate.evaluation.endpoints.concurrency import Bounds
from speciate.evaluation.endpoints.concurrent_calls import Limits, ask_all
from speciate.evaluation.endpoints.prompts import Prompt, prompt_form, request
from speciate.models.endpoints import Endpoint
from tests.evaluation.endpoints.real_server import model, served, spoiled  # noqa: F401 - fixtures

pytestmark = pytest.mark.slow
LOOPBACK = ("127.0.0.1",)


def test_answers_through_every_fault_are_those_without_any(served: str, model: Path) -> None:  # noqa: F811
    asked = prompt_form(Prompt(max_tokens=64, template="{input}"), "generation", "text")
    requests = [request(asked, Example(f"e{n}", chr(97 + n) * (n + 1), None, "", "test", {})) for n in range(24)]
    limits = Limits(bounds=Bounds(most=4), attempts=20, backoff_s=0.05)

    def answers(base: str) -> dict[int, Reply]:
        replies: dict[int, Reply] = {}
        endpoint = Endpoint(base_url=f"{base}/v1", model=str(model), usd_per_1m_input=1, usd_per_1m_output=1)
        told = ask_all(endpoint, requests, key=None, record=replies.__setitem__, limits=limits, private_hosts=LOOPBACK)
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


def test_a_model_that_only_babbles_gives_no_label(served: str, model: Path) -> None:  # noqa: F811
    """Random weights: whatever comes is not one of the labels, and nothing is made of it."""
    asked = prompt_form(Prompt(max_tokens=64), "classification", "text", labels=("north", "south"))
    replies: dict[int, Reply] = {}
    ask_all(
        Endpoint(base_url=f"{served}/v1", model=str(model)),
        [request(asked, Example("e", "text", None, "", "test", {}))],
        key=None, record=replies.__setitem__, private_hosts=LOOPBACK,
    )  # fmt: skip
    text = replies[0].text
    assert text is not None
    with pytest.raises(UnreadableAnswer):
        parse_answer(asked, text)
