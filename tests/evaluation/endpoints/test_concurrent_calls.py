from __future__ import annotations

import json
import logging
import time
import traceback
from collections.abc import Sequence
from typing import Any

import pytest

from speciate.errors import Code, SpeciateError
from speciate.evaluation.endpoints.chat_client import Reply, Request, Timeouts
from speciate.evaluation.endpoints.concurrency import Bounds
from speciate.evaluation.endpoints.concurrent_calls import Budget, CallSummary, Limits, ask_all
from speciate.models.endpoints import Endpoint
from tests.evaluation.endpoints.misbehaving import MODEL, Misbehaving

QUICK = Limits(
    bounds=Bounds(start=4, most=32, hold_s=0.02),
    timeouts=Timeouts(connect=10, first_byte=10, whole=20),
    attempts=3,
    backoff_s=0.01,
    failures_in_a_row=5,
)
IMPATIENT = QUICK._replace(timeouts=Timeouts(first_byte=0.4))
PRICES = {"usd_per_1m_input": 100.0, "usd_per_1m_output": 1000.0}
"""A call of the stub takes 10 tokens and gives 2: $0.003."""
LOOPBACK = ("127.0.0.1",)
KEY = "sk-planted-0123456789"


def requests(scripts: Sequence[str], **changes: Any) -> list[Request]:
    return [
        Request([{"role": "user", "content": f"{place} {script}"}], 16, **changes)
        for place, script in enumerate(scripts)
    ]


def ask(
    stub: Misbehaving, scripts: Sequence[str], *, changes: dict[str, Any] | None = None, **arguments: Any
) -> tuple[CallSummary, dict[int, Reply]]:
    replies: dict[int, Reply] = {}

    def record(place: int, reply: Reply) -> None:
        assert place not in replies, "recorded twice"
        replies[place] = reply

    given = {"key": None, "record": record, "limits": QUICK, "private_hosts": LOOPBACK} | arguments
    return ask_all(stub.endpoint(**(changes or {})), requests(scripts), **given), replies


def test_every_request_is_answered_once_in_its_place(stub: Misbehaving) -> None:
    asked, replies = ask(stub, [f"answer-{number}" for number in range(50)])
    assert [replies[place].text for place in range(50)] == [f"answer-{number}" for number in range(50)]
    assert (asked.answered, asked.failed, asked.unanswered, asked.calls) == (50, 0, 0, 50)
    assert json.loads(json.dumps(replies[0])) == list(replies[0])


def test_a_reply_says_what_it_took(stub: Misbehaving) -> None:
    _, replies = ask(stub, ["yes"], changes=PRICES)
    reply = replies[0]
    assert (reply.input_tokens, reply.output_tokens, reply.cached_tokens) == (10, 2, 4)
    assert reply.usd == pytest.approx(0.003)
    assert (reply.status, reply.served_model, reply.finish_reason, reply.attempts) == (200, MODEL, "stop", 1)
    assert reply.ttft_s is not None
    assert reply.latency_s is not None
    assert 0 < reply.ttft_s <= reply.latency_s < 5
    assert time.time() - 60 < reply.created <= time.time()


def test_without_a_price_the_cost_is_unknown_and_not_zero(stub: Misbehaving) -> None:
    asked, replies = ask(stub, ["yes"])
    assert (replies[0].usd, asked.usd, asked.usd_at_most) == (None, None, None)


@pytest.mark.parametrize("fault", ["429", "500", "503", "503-later", "cut", "torn", "failing", "malformed", "silent"])
def test_what_may_pass_is_tried_again(stub: Misbehaving, fault: str) -> None:
    asked, replies = ask(stub, [f"{fault} yes", "yes"], limits=IMPATIENT if fault == "silent" else QUICK)
    assert (replies[0].text, replies[0].attempts) == ("yes", 2)
    assert asked.retries == 1
    assert asked.rate_limits == (fault in ("429", "503-later"))


@pytest.mark.parametrize("fault", ["500", "cut", "torn", "malformed", "silent"])
def test_what_does_not_pass_is_an_error_to_be_tried_another_time(stub: Misbehaving, fault: str) -> None:
    asked, replies = ask(stub, [fault, "yes"], limits=IMPATIENT if fault == "silent" else QUICK)
    assert (replies[0].text, replies[0].retryable, replies[0].attempts) == (None, True, 3)
    assert replies[0].error
    assert (asked.answered, asked.failed) == (1, 1)


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        ("refusal", "the model withheld its answer (refusal)"),
        ("filter", "the model withheld its answer (content_filter)"),
        ("long", "cut by length: prompt.max_tokens is too small for this answer"),
    ],
)
@pytest.mark.parametrize("streams", [True, False])
def test_an_answer_that_is_none_is_an_error_for_good(stub: Misbehaving, fault: str, said: str, streams: bool) -> None:
    stub.refuses = {} if streams else {"stream": ""}
    asked, replies = ask(stub, [fault, "yes"], changes=PRICES)
    assert (replies[0].text, replies[0].error, replies[0].retryable) == (None, said, False)
    assert replies[0].usd == pytest.approx(0.003), "it is paid for all the same"
    assert (asked.answered, asked.failed) == (1, 1)


def test_a_request_that_is_refused_is_an_error_for_good_and_is_not_tried_again(stub: Misbehaving) -> None:
    _, replies = ask(stub, ["yes"] * 4 + ["400"], limits=QUICK._replace(bounds=Bounds(start=1, most=1)))
    assert (replies[4].error, replies[4].retryable, replies[4].attempts) == ("HTTP 400: you sent", False, 1)


@pytest.mark.parametrize(
    ("fault", "code", "says"),
    [
        ("401", Code.REFUSED, "refuses the key 'spare'"),
        ("403", Code.REFUSED, "refuses the key 'spare'"),
        ("404", Code.NOT_FOUND, "There is no model 'stub-1'"),
        ("402", Code.REFUSED, "no credit"),
        ("broke", Code.REFUSED, "no credit"),
        ("301", Code.INVALID, "redirect"),
    ],
)
def test_what_holds_for_every_request_ends_the_asking(stub: Misbehaving, fault: str, code: Code, says: str) -> None:
    with pytest.raises(SpeciateError) as caught:
        ask(stub, [fault] * 200, key=KEY, changes={"secret": "spare"})
    assert (caught.value.code, says in caught.value.message, bool(caught.value.recovery)) == (code, True, True)
    assert len(stub.bodies) <= QUICK.bounds.start
    assert stub.elsewhere == 0, "a redirect is not followed"


def test_one_forbidden_prompt_among_good_ones_is_only_its_own_error(stub: Misbehaving) -> None:
    asked, replies = ask(stub, ["yes", "403", "yes"], limits=QUICK._replace(bounds=Bounds(start=1, most=1)))
    assert (asked.answered, replies[1].error) == (2, "HTTP 403")


def test_an_endpoint_that_was_never_heard_is_left_alone_soon(stub: Misbehaving) -> None:
    with pytest.raises(SpeciateError, match=r"gave no answer to 12 requests in a row"):
        ask(stub, ["500"] * 1000)
    assert len(stub.bodies) < 12 + QUICK.bounds.most


def test_an_endpoint_that_answers_nobody_any_more_is_left_alone(stub: Misbehaving) -> None:
    with pytest.raises(
        SpeciateError, match=r"gave no answer to 5 requests in a row; to the last: HTTP 500\."
    ) as caught:
        ask(stub, ["yes"] + ["500"] * 1000, limits=QUICK._replace(bounds=Bounds(start=1, most=1)))
    assert caught.value.code == Code.UNAVAILABLE
    assert len(stub.bodies) < 50


def test_parameters_that_are_always_refused_end_the_asking_without_quoting_the_endpoint(stub: Misbehaving) -> None:
    with pytest.raises(SpeciateError, match="refused 5 requests in a row") as caught:
        ask(stub, ["400"] * 1000)
    assert "you sent" not in str(caught.value)


def test_nobody_at_the_port_is_told(stub: Misbehaving) -> None:
    with pytest.raises(SpeciateError, match="no connection"):
        ask(stub, ["yes"] * 20, changes={"base_url": "http://127.0.0.1:1/v1"})


def test_a_rate_limit_that_never_ends_does(stub: Misbehaving) -> None:
    with pytest.raises(SpeciateError, match="nothing but rate limits"):
        ask(stub, ["429"], limits=QUICK._replace(patience_s=0.2))


def test_a_change_of_the_model_behind_a_name_is_reported(stub: Misbehaving) -> None:
    asked, _ = ask(stub, ["yes"] * 3 + ["changed"])
    assert (asked.served_models, asked.changed) == ({MODEL: 3, "stub-2": 1}, True)
    assert not ask(stub, ["yes"])[0].changed


# What an endpoint knows of the protocol


@pytest.mark.parametrize("blamed", ["named", ""])
@pytest.mark.parametrize("parameter", ["response_format", "stream_options", "stream", "max_tokens"])
def test_what_the_endpoint_does_not_know_is_left_out_for_the_whole_run(
    stub: Misbehaving, parameter: str, blamed: str
) -> None:
    stub.refuses = {parameter: parameter if blamed else ""}
    replies: dict[int, Reply] = {}
    asked_for = requests(["yes"] * 40, answer_schema={"type": "object"})
    ask_all(stub.endpoint(), asked_for, key=None, record=replies.__setitem__, limits=QUICK, private_hosts=LOOPBACK)
    assert {reply.text for reply in replies.values()} == {"yes"}
    assert {reply.output_tokens for reply in replies.values()} == {2}
    assert len(stub.bodies) <= 40 + 4 * QUICK.bounds.start, "it was found out by the first ones"
    assert not any(parameter in body for body in stub.bodies[-20:])
    if blamed:
        others = {"response_format", "stream", "max_tokens"} - {parameter, parameter.removesuffix("_options")}
        assert others <= set(stub.bodies[-1])


# Pace


def test_it_finds_out_how_much_an_endpoint_bears(stub: Misbehaving) -> None:
    stub.bears, stub.answer_s = 8, 0.005
    asked, replies = ask(stub, ["yes"] * 300)
    assert {reply.text for reply in replies.values()} == {"yes"}
    assert 4 < stub.most_flying <= 16, "slow start doubles once too often"
    assert 0 < asked.rate_limits < 100


def test_no_more_calls_at_once_than_allowed(stub: Misbehaving) -> None:
    stub.answer_s = 0.005
    ask(stub, ["yes"] * 100, limits=QUICK._replace(bounds=Bounds(start=3, most=3)))
    assert stub.most_flying == 3


# Stopping and recording


def test_a_stop_ends_it_soon_and_loses_no_answer_that_came(stub: Misbehaving) -> None:
    replies: dict[int, Reply] = {}
    scripts = ["yes"] * 8 + ["silent"] * 100
    limits = QUICK._replace(timeouts=Timeouts(first_byte=60))
    began = time.monotonic()
    asked = ask_all(
        stub.endpoint(), requests(scripts), key=None, record=replies.__setitem__, limits=limits,
        stopping=lambda: len(replies) == 8, private_hosts=LOOPBACK,
    )  # fmt: skip
    assert time.monotonic() - began < 30
    assert (asked.answered, asked.unanswered) == (8, 100)


def test_calls_in_flight_may_end_after_a_stop_but_none_begins(stub: Misbehaving) -> None:
    stub.answer_s = 0.1
    asked, replies = ask(stub, ["yes"] * 50, stopping=lambda: bool(stub.bodies))
    assert set(replies) == {0, 1, 2, 3}
    assert (asked.answered, asked.calls, asked.unanswered) == (4, 4, 46)


def test_each_reply_is_recorded_before_the_next_call_begins(stub: Misbehaving) -> None:
    order: list[str] = []
    ask_all(
        stub.endpoint(), requests(["yes"] * 5), key=None, limits=QUICK._replace(bounds=Bounds(start=1, most=1)),
        begin=lambda place, worst: order.append(f"begin {place}"),
        record=lambda place, reply: order.append(f"record {place}"), private_hosts=LOOPBACK,
    )  # fmt: skip
    assert order == [f"{what} {place}" for place in range(5) for what in ("begin", "record")]


class Full(BaseException):
    """As a request to stop is raised: no Exception."""


def test_what_recording_raises_comes_out_as_it_is(stub: Misbehaving) -> None:
    def record(place: int, reply: Reply) -> None:
        raise Full

    with pytest.raises(Full):
        ask(stub, ["yes"] * 20, record=record)
    assert len(stub.bodies) <= QUICK.bounds.start


# Money


def test_a_budget_is_a_hard_stop_and_says_what_is_left(stub: Misbehaving) -> None:
    replies: dict[int, Reply] = {}
    with pytest.raises(SpeciateError) as caught:
        ask(stub, ["yes"] * 200, changes=PRICES, budget=Budget(0.3, spent=0.1), record=replies.__setitem__)
    spent = sum(reply.usd or 0 for reply in replies.values())
    assert 0.1 < spent <= 0.2
    assert len(replies) == len(stub.bodies) == round(spent / 0.003), "all that was paid for is kept"
    assert f"${spent + 0.1:.4f}" in caught.value.message
    assert f"{200 - len(replies)} of 200 are still unanswered" in caught.value.message
    assert "budget_usd" in caught.value.recovery


def test_calls_that_may_have_cost_something_count_against_the_budget_in_full(stub: Misbehaving) -> None:
    with pytest.raises(SpeciateError, match="The budget is spent"):
        ask(stub, ["cut"] * 3, changes=PRICES, budget=Budget(0.2))
    assert 1 <= len(stub.bodies) <= 5


def test_faults_before_an_answer_cost_nothing(stub: Misbehaving) -> None:
    asked, _ = ask(stub, ["500 500 yes"], changes=PRICES)
    assert asked.usd == asked.usd_at_most == pytest.approx(0.003)


def test_a_budget_without_a_price_is_refused_before_anything_is_sent() -> None:
    unknown = Endpoint(base_url="https://models.example/v1", model="ours")
    with pytest.raises(SpeciateError, match="is not known"):
        ask_all(unknown, requests(["yes"]), key=None, record=lambda place, reply: None, budget=Budget(1.0))


# The key


FAULTS = ["echo", "400", "401", "403", "404", "500", "429 yes", "malformed", "cut", "refusal", "301", "torn"]


@pytest.mark.parametrize("fault", FAULTS)
def test_a_key_that_the_endpoint_sends_back_is_in_nothing_that_remains(
    stub: Misbehaving, fault: str, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    caplog.set_level(logging.DEBUG)
    remains: list[str] = []
    try:
        asked, replies = ask(stub, [fault, *["500"] * 20], key=KEY, changes={"secret": "spare"})
        remains += [repr(asked), repr(replies), json.dumps(replies)]
    except SpeciateError as error:
        remains += [repr(error), str(error), "".join(traceback.format_exception(error))]
    assert stub.authorizations == {f"Bearer {KEY}"}
    printed = capfd.readouterr()
    remains += [caplog.text, printed.out, printed.err]
    assert not [text for text in remains if KEY in text]


def test_a_text_that_quotes_the_key_is_recorded_without_it(stub: Misbehaving) -> None:
    asked, replies = ask(stub, ["echo"], key=KEY)
    assert replies[0].text == "you sent Bearer [key]"
    assert asked.served_models == {"model of Bearer [key]": 1}


def test_a_key_that_is_none_is_refused_without_being_shown(stub: Misbehaving) -> None:
    with pytest.raises(SpeciateError, match="holds characters that no key has") as caught:
        ask(stub, ["yes"], key=f"{KEY}\nHost: elsewhere")
    assert KEY not in "".join(traceback.format_exception(caught.value))
    assert not stub.bodies


def test_a_body_without_end_is_not_read_to_its_end(stub: Misbehaving) -> None:
    _, replies = ask(stub, ["endless", "yes"], limits=QUICK._replace(attempts=1))
    assert replies[0].error == "an answer of more than 32,768 KiB"
