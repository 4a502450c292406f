"""OpenAI's API over a real socket, asked by OpenAI's own client: streams, counts, and the errors that it raises."""

from __future__ import annotations

import json
import socket
import subprocess
import threading
from collections.abc import Callable, Iterator
from typing import Any

import openai
import pytest

from speciate.serving import chat
from speciate.serving.chat import ChatError, error_type
from speciate.serving.deployment_folder import Target
from tests.serving.fakes import POISON, FakeProcess, target
from tests.serving.test_api import TOKEN, Serve, Server, serve  # noqa: F401 - the fixture
from tests.serving.test_deployment import until

WRITER = target(1, task="text-generation")
WORDS = ("Yes", ", ", "it", " is", "!")
ASKED: Any = [{"role": "user", "content": "Is it good?"}]


@pytest.fixture
def server(serve: Serve) -> Server:  # noqa: F811
    made = serve(WRITER)
    made.processes[0].words = WORDS
    return made


Connect = Callable[..., openai.OpenAI]


@pytest.fixture
def connect() -> Iterator[Connect]:
    made: list[openai.OpenAI] = []

    def begin(server: Server, token: str = TOKEN) -> openai.OpenAI:
        base = f"http://127.0.0.1:{server.port}/v1"
        made.append(openai.OpenAI(base_url=base, api_key=token, max_retries=0, timeout=30))
        return made[-1]

    yield begin
    for each in made:
        each.close()


@pytest.fixture
def client(server: Server, connect: Connect) -> openai.OpenAI:
    return connect(server)


def written(server: Server) -> FakeProcess:
    return server.processes[0]


def test_a_completion_has_its_text_its_end_and_its_tokens(client: openai.OpenAI) -> None:
    said = client.chat.completions.create(model="reviews", messages=ASKED, temperature=0.2, max_tokens=20, seed=1)
    assert said.choices[0].message.content == "Yes, it is!"
    assert (said.choices[0].finish_reason, said.model) == ("stop", "words@v1")
    assert said.usage
    assert (said.usage.prompt_tokens, said.usage.completion_tokens, said.usage.total_tokens) == (5, 5, 10)


def test_a_stream_brings_each_token_when_it_is_there_and_counts_them_last(
    server: Server, client: openai.OpenAI
) -> None:
    written(server).next_word = threading.Semaphore(0)
    stream = client.chat.completions.create(
        model="reviews", messages=ASKED, stream=True, stream_options={"include_usage": True}
    )
    pieces = iter(stream)
    assert next(pieces).choices[0].delta.role == "assistant"
    assert next(pieces).choices[0].delta.content == "Yes"  # the second word is not there yet
    written(server).next_word.release(len(WORDS))
    rest = list(pieces)
    assert [each.choices[0].delta.content for each in rest if each.choices] == [*WORDS[1:], None]
    assert [each.choices[0].finish_reason for each in rest if each.choices][-1] == "stop"
    assert all(each.usage is None for each in rest[:-1])
    assert rest[-1].usage
    assert (rest[-1].choices, rest[-1].usage.total_tokens) == ([], 10)
    assert len({each.id for each in rest}) == 1


def test_a_stream_of_a_model_that_answers_whole_is_one_piece(server: Server, client: openai.OpenAI) -> None:
    written(server).words = ()
    pieces = list(client.chat.completions.create(model="reviews", messages=ASKED, stream=True))
    assert [each.choices[0].delta.content for each in pieces] == ["", "words@v1", None]


def test_a_client_that_goes_away_in_mid_stream_frees_its_place(server: Server, client: openai.OpenAI) -> None:
    process = written(server)
    process.words, process.next_word = ("a", *"b" * 5000), threading.Semaphore(0)
    stream = client.chat.completions.create(model="reviews", messages=ASKED, stream=True)
    assert [next(iter(stream)) for _ in range(2)][1].choices[0].delta.content == "a"
    stream.close()
    current, allowed = server.deployment.current, process.next_word
    assert current

    def is_free() -> bool:
        allowed.release()  # a word at a time: the server hears that the client is gone between two of them
        return current.open == 0

    until(is_free)
    assert process.written < len(process.words)
    process.words = WORDS
    allowed.release(len(WORDS))
    assert client.chat.completions.create(model="reviews", messages=ASKED).choices[0].message.content == "Yes, it is!"


def test_a_client_that_goes_away_before_its_turn_is_asked_of_nobody(serve: Serve, connect: Connect) -> None:  # noqa: F811
    gate = threading.Event()
    server = serve(WRITER, how={"gate": gate}, max_batch=1)
    process = written(server)
    busy = threading.Thread(target=lambda: connect(server).chat.completions.create(model="reviews", messages=ASKED))
    busy.start()
    process.busy.wait(30)
    body = json.dumps({"model": "reviews", "messages": ASKED}).encode()
    head = (
        f"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {TOKEN}\r\n"
        f"content-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
    )
    current = server.deployment.current
    assert current
    with socket.create_connection(("127.0.0.1", server.port)) as gone:
        gone.sendall(head.encode() + body)
        until(lambda: current.open == 2)
    until(lambda: sum(one.future.cancelled() for one in current._waiting) == 1)
    gate.set()
    busy.join()
    until(lambda: current.open == 0)
    assert process.batches == [1]


def test_a_stream_whose_process_dies_ends_with_an_error_and_begins_no_second_answer(
    server: Server, client: openai.OpenAI
) -> None:
    process = written(server)
    process.words, process.dies_at, process.next_word = ("Yes", POISON), POISON, threading.Semaphore(0)
    pieces = iter(client.chat.completions.create(model="reviews", messages=ASKED, stream=True))
    assert [next(pieces) for _ in range(2)][1].choices[0].delta.content == "Yes"
    process.next_word.release()
    with pytest.raises(openai.APIError, match="process ended"):
        list(pieces)


@pytest.mark.parametrize(
    ("fields", "raised", "param", "told"),
    [
        ({"model": "gpt-5"}, openai.NotFoundError, "model", "no model 'gpt-5'"),
        ({"n": 2}, openai.BadRequestError, "n", "one answer is written"),
        ({"temperature": 3}, openai.BadRequestError, "temperature", "less than or equal to 2"),
        ({"max_tokens": 0}, openai.BadRequestError, "max_tokens", "greater than or equal to 1"),
        ({"max_tokens": 100_000}, openai.BadRequestError, "max_tokens", "less than or equal to 32768"),
        ({"stop": [""]}, openai.BadRequestError, "stop", "none of them empty"),
        ({"messages": []}, openai.BadRequestError, "messages", "without a message"),
        ({"messages": [{"role": "captain", "content": "a"}]}, openai.BadRequestError, "messages", "captain"),
        ({"tools": [{"type": "function"}]}, openai.BadRequestError, "tools", "Not supported"),
        ({"response_format": {"type": "json_object"}}, openai.BadRequestError, "response_format", "plain text"),
        ({"logprobs": True}, openai.BadRequestError, "logprobs", "Not supported"),
        ({"stream_options": {"include_usage": True}}, openai.BadRequestError, "stream_options", "set 'stream'"),
        ({"extra_body": {"temprature": 1}}, openai.BadRequestError, "temprature", "temperature"),
    ],
)
def test_a_request_that_cannot_be_met_raises_the_right_error(
    client: openai.OpenAI, fields: dict[str, Any], raised: type[openai.APIStatusError], param: str, told: str
) -> None:
    with pytest.raises(raised) as error:
        client.chat.completions.create(**({"model": "reviews", "messages": ASKED} | fields))
    assert error.value.param == param
    assert told in error.value.message
    assert error.value.type == "invalid_request_error"
    assert error.value.response.headers["x-model-version"] == "words@v1"


@pytest.mark.parametrize("name", chat.IGNORED)
def test_fields_that_change_nothing_are_ignored(name: str) -> None:
    body = {"messages": ASKED, name: "anything"}
    assert chat.parse(body, WRITER, "reviews") == chat.parse({"messages": ASKED}, WRITER, "reviews")


@pytest.mark.parametrize(
    ("headers", "body", "entity"),
    [
        ({}, {}, None),
        ({}, {"user": "ada"}, "ada"),
        ({}, {"user": "ada", "safety_identifier": "h-17"}, "h-17"),
        ({"x-request-entity": "grace"}, {"user": "ada"}, "grace"),
        ({"x-request-entity": ""}, {"user": "ada"}, "ada"),
        ({}, {"user": "", "safety_identifier": 17}, None),
        ({}, {"user": "x" * 300}, None),
        ({}, {"user": "ada\n"}, None),
    ],
)
def test_who_asks_in_a_chat_is_its_user_and_none_is_refused_for_it(
    headers: dict[str, str], body: dict[str, Any], entity: str | None
) -> None:
    assert chat.entity_of(headers, body) == entity
    chat.parse({"messages": ASKED, **body}, WRITER, "reviews")


def test_sampling_that_a_request_names_is_used_and_no_other() -> None:
    def sampling(**fields: Any) -> Any:
        return chat.parse({"messages": ASKED, **fields}, WRITER, "reviews").item["generation"]

    assert (
        sampling() == sampling(temperature=None, n=1, tools=[], logprobs=False, response_format={"type": "text"}) == {}
    )
    assert sampling(temperature=0.5, top_p=0.9, max_completion_tokens=7, max_tokens=9, stop="x", seed=-1) == {
        "temperature": 0.5, "top_p": 0.9, "max_new_tokens": 7, "stop": ["x"], "seed": 2**32 - 1,
    }  # fmt: skip
    assert sampling(temperature=0) == sampling(top_p=0) == {"temperature": 0.0}
    assert len({sampling(temperature=1)["seed"] for _ in range(5)}) > 1


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b'{"model": "reviews"}', b'{"prompt": "a"}'])
def test_a_body_that_says_nothing_is_a_bad_request(server: Server, body: bytes) -> None:
    said = server.ask(body, "/v1/chat/completions")
    assert (said.status, said.body["error"]["type"]) == (400, "invalid_request_error")


def test_who_has_no_token_or_asks_elsewhere_gets_openai_s_errors(server: Server, connect: Connect) -> None:
    with pytest.raises(openai.AuthenticationError) as unknown:
        connect(server, "wrong").models.list()
    assert unknown.value.type == "authentication_error"
    with pytest.raises(openai.NotFoundError, match="no such route"):
        connect(server).embeddings.create(model="reviews", input="a")


def test_models_are_listed_and_found_by_name(client: openai.OpenAI) -> None:
    assert [each.id for each in client.models.list()] == ["reviews"]
    assert client.models.retrieve("words@v1").id == "words@v1"
    with pytest.raises(openai.NotFoundError):
        client.models.retrieve("gpt-5")


def test_too_many_requests_are_no_fault_of_the_request(serve: Serve, connect: Connect) -> None:  # noqa: F811
    client = connect(serve(WRITER, per_second=1))
    client.chat.completions.create(model="reviews", messages=ASKED)
    with pytest.raises(openai.RateLimitError) as error:
        client.chat.completions.create(model="reviews", messages=ASKED)
    assert int(error.value.response.headers["retry-after"]) >= 1


def test_a_chat_that_nothing_answers_is_no_fault_of_the_request(serve: Serve, connect: Connect) -> None:  # noqa: F811
    with pytest.raises(openai.InternalServerError) as error:
        connect(serve(empty=True)).chat.completions.create(model="reviews", messages=ASKED)
    assert (error.value.status_code, error.value.type) == (503, "server_error")


@pytest.mark.parametrize(
    ("status", "kind"),
    [(400, "invalid_request_error"), (401, "authentication_error"), (429, "rate_limit_error"), (504, "server_error")],
)
def test_an_error_of_a_chat_has_openai_s_type(status: int, kind: str) -> None:
    assert error_type(status) == kind


def test_a_model_that_does_not_write_says_so_to_a_chat(serve: Serve, connect: Connect) -> None:  # noqa: F811
    with pytest.raises(openai.BadRequestError, match="does not write texts"):
        connect(serve()).chat.completions.create(model="reviews", messages=ASKED)


def test_curl_streams(server: Server) -> None:
    body = json.dumps({"model": "reviews", "messages": ASKED, "stream": True})
    said = subprocess.run(
        ["curl", "-sN", "-H", f"Authorization: Bearer {TOKEN}", "-H", "Content-Type: application/json", "-d", body,
         f"http://127.0.0.1:{server.port}/v1/chat/completions"],
        capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    events = said.split("\n\n")
    assert events[-2:] == ["data: [DONE]", ""]
    pieces = [json.loads(each.removeprefix("data: ")) for each in events[:-2]]
    assert "".join(each["choices"][0]["delta"].get("content", "") for each in pieces) == "Yes, it is!"


def test_unknown_fields_are_refused_with_the_nearest_name() -> None:
    with pytest.raises(ChatError, match="max_tokens"):
        chat.parse({"messages": ASKED, "max_token": 3}, WRITER, "reviews")


@pytest.mark.parametrize("kind", ["image_url", "image"])
def test_an_image_is_not_answered_as_if_it_were_not_there(kind: str) -> None:
    part = {"type": kind, "image_url": {"url": "data:image/png;base64,iVBORw0KGgo="}}
    seen = [*ASKED, {"role": "user", "content": [{"type": "text", "text": "What is this?"}, part]}]
    with pytest.raises(ChatError, match="a message with an image") as caught:
        chat.parse({"messages": seen}, WRITER, "reviews")
    assert (caught.value.status, caught.value.param) == (400, "messages")


def test_the_target_decides_not_the_request() -> None:
    other: Target = target(1, task="text-classification")
    with pytest.raises(ChatError, match="POST /predict"):
        chat.parse({"messages": ASKED}, other, "reviews")
