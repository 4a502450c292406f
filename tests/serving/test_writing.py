"""A real language model in its sandbox: what it writes leaves token by token, counted, and ends when nobody listens."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import openai
import pytest

from speciate.models.language import causal_lm
from speciate.models.language.chat_templates import ChatFormat
from speciate.models.language.text_generation import Sampling, generate
from speciate.serving.deployment_folder import Target
from speciate.serving.items import Item
from speciate.serving.replica import Runner
from speciate.settings import Serving
from speciate.tasks.language_predictor import LanguagePredictor
from tests.conftest import ManualClock
from tests.models.language.world import tiny_model
from tests.serving.test_api import TOKEN, Server
from tests.serving.test_deployment import until

LONG = Sampling(max_new_tokens=24)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("writer")
    tiny_model(path / "base")
    model, tokenizer = causal_lm.load_model(path / "base"), causal_lm.load_tokenizer(path / "base")
    LanguagePredictor(model, tokenizer, ChatFormat(), LONG).save(path / "model")
    return path / "model"


@pytest.fixture(scope="module")
def runner(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Runner]:
    target = Target(
        generation=1, model="writer@v1", path=str(folder), task="text-generation", modality="text", bytes=200_000
    )
    made = Runner(tmp_path_factory.mktemp("root"), tmp_path_factory.mktemp("pool"), target, 4096, "where_possible")
    made.load(120)
    yield made
    made.end()


def item(text: str = "what is 1 plus 2?", **generation: Any) -> Item:
    return {"id": "0", "text": text, "generation": generation}


def test_what_is_passed_on_is_the_answer_whatever_ends_it(folder: Path) -> None:
    model, tokenizer = causal_lm.load_model(folder), causal_lm.load_tokenizer(folder)
    prompts = [f"what is {n} plus {n}?" for n in range(5)]
    plain = generate(model, tokenizer, prompts, LONG, longest=256)
    stop = plain[0].text[5:8]
    for sampling in (LONG, LONG.model_copy(update={"temperature": 1.0}), LONG.model_copy(update={"stop": (stop,)})):
        heard: dict[int, list[str]] = {}

        def watch(new: Mapping[int, str], heard: dict[int, list[str]] = heard) -> tuple[int, ...]:
            for place, text in new.items():
                heard.setdefault(place, []).append(text)
            return ()

        written = generate(model, tokenizer, prompts, sampling, longest=256, watch=watch)
        unheard = generate(model, tokenizer, prompts, sampling, longest=256)
        assert [each.text for each in written] == [each.text for each in unheard]
        assert ["".join(heard[place]) for place in range(len(prompts))] == [each.text for each in written]
        assert sum(bool(text) for text in heard[1]) > 1
    assert written[0].text == plain[0].text[: plain[0].text.index(stop)]
    assert written[0].finished


@pytest.mark.slow
def test_a_model_in_its_sandbox_streams_counts_and_stops(runner: Runner) -> None:
    heard: list[Mapping[int, str]] = []

    def listen(new: Mapping[int, str]) -> tuple[int, ...]:
        heard.append(dict(new))
        return ()

    asked = [item(), item("hello", max_new_tokens=4), {"id": "2", "text": "plain"}]
    [long, short, plain] = runner.answer(asked, 60, listen)
    assert [long["usage"]["completion_tokens"], short["usage"]["completion_tokens"]] == [24, 4]
    assert not long["usage"]["finished"]
    assert long["usage"]["prompt_tokens"] > short["usage"]["prompt_tokens"] > 1
    assert "usage" not in plain
    for place, answer in ((0, long), (1, short)):
        assert "".join(each.get(place, "") for each in heard) == answer["output"]
    assert len(heard) >= 28
    alone = runner.answer([{"id": "0", "text": asked[0]["text"]}], 60)
    assert alone[0]["output"] == long["output"]

    [cut] = runner.answer([item(max_new_tokens=200)], 60, lambda new: (0,))
    assert cut["usage"]["completion_tokens"] < 5
    assert runner.answer([item()], 60)[0]["output"] == long["output"]  # without a listener, after a word for another


@pytest.mark.slow
def test_a_prompt_that_is_too_long_spoils_only_itself(runner: Runner) -> None:
    asked = [item("word " * 10_000), item(""), item()]
    [long, empty, fine] = runner.answer(asked, 60, lambda new: ())
    assert long["too_long"]
    assert "tokens, where the model can see 256" in str(long["error"])
    assert empty["error"] or empty["output"] is not None
    assert fine["error"] is None
    assert json.dumps(fine["usage"])


@pytest.mark.slow
def test_openai_s_client_streams_from_a_model_in_its_sandbox(folder: Path, tmp_path: Path, clock: ManualClock) -> None:
    version = Target(
        generation=1, model="writer@v1", path=str(folder), task="text-generation", modality="text", bytes=200_000
    )

    def launch(wanted: Target) -> Runner:
        return Runner(tmp_path, tmp_path / "pool", wanted, 4096, "where_possible")

    (tmp_path / "deployments").mkdir()
    server = Server(tmp_path / "deployments", clock, version, Serving(), launch=launch)
    base = f"http://127.0.0.1:{server.port}/v1"
    asked: Any = [{"role": "user", "content": "what is 1 plus 2?"}]
    try:
        with openai.OpenAI(base_url=base, api_key=TOKEN, max_retries=0, timeout=60) as client:
            ask = client.chat.completions.create
            whole = ask(model="reviews", messages=asked)
            pieces = list(ask(model="reviews", messages=asked, stream=True, stream_options={"include_usage": True}))
            said = "".join(each.choices[0].delta.content or "" for each in pieces if each.choices)
            assert said == whole.choices[0].message.content
            assert (whole.choices[0].finish_reason, pieces[-2].choices[0].finish_reason) == ("length", "length")
            assert pieces[-1].usage == whole.usage
            assert whole.usage
            assert whole.usage.completion_tokens == 24
            short = ask(model="reviews", messages=asked, max_tokens=3, temperature=1.0, seed=7)
            assert short.usage
            assert short.usage.completion_tokens == 3
            again = ask(model="reviews", messages=asked, max_tokens=3, temperature=1.0, seed=7)
            assert again.choices[0].message.content == short.choices[0].message.content
            with pytest.raises(openai.BadRequestError) as error:
                ask(model="reviews", messages=[{"role": "user", "content": "word " * 10_000}], stream=True)
            assert error.value.code == "context_length_exceeded"
            current = server.deployment.current
            assert current
            pid = current._process.pid  # type: ignore[attr-defined]  # it is a Runner
            stream = ask(model="reviews", messages=asked, max_tokens=200, stream=True)
            next(iter(stream))
            stream.close()
            until(lambda: current.open == 0)
            assert ask(model="reviews", messages=asked).choices[0].message.content == said
            assert current._process.pid == pid, "its process lives on"  # type: ignore[attr-defined]
    finally:
        server.close()
