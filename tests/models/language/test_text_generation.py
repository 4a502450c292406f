"""Answers come in the order of the prompts, are the same alone and in a batch, and depend on the seed alone."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from speciate.models.language import causal_lm
from speciate.models.language.text_generation import GeneratedText, Sampling, generate
from tests.models.language.world import sums, tiny_model

PROMPTS = [f"<|im_start|>user\n{question}<|im_end|>\n" for question, _ in sums(9)]


@pytest.fixture(scope="module")
def speaker(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Any]:
    folder: Path = tmp_path_factory.mktemp("speaker")
    tiny_model(folder)
    return causal_lm.load_model(folder), causal_lm.load_tokenizer(folder)


def answers(speaker: tuple[Any, Any], prompts: Sequence[str], **sampling: Any) -> list[GeneratedText]:
    return generate(*speaker, prompts, Sampling(max_new_tokens=8, **sampling), longest=256)


def test_greedy_answers_do_not_depend_on_the_other_prompts_of_the_batch(speaker: tuple[Any, Any]) -> None:
    together = answers(speaker, [*PROMPTS, "short"], batch_size=4)
    alone = [answers(speaker, [each], batch_size=1)[0] for each in (*PROMPTS, "short")]
    assert together == alone
    assert all(each.tokens == 8 and not each.finished for each in together)  # it has learned no end


def test_sampled_answers_are_a_function_of_seed_and_prompt(speaker: tuple[Any, Any]) -> None:
    drawn: dict[str, Any] = {"temperature": 1.0, "top_p": 0.95}
    first = answers(speaker, PROMPTS, **drawn, seed=1)
    assert answers(speaker, PROMPTS[::-1], **drawn, seed=1) == first[::-1]
    assert answers(speaker, PROMPTS, **drawn, seed=2) != first
    assert answers(speaker, PROMPTS) != first


def test_a_stop_text_ends_an_answer_and_is_no_part_of_it(speaker: tuple[Any, Any]) -> None:
    (whole,) = answers(speaker, PROMPTS[:1])
    stop = whole.text[2]
    (cut,) = answers(speaker, PROMPTS[:1], stop=(stop,))
    assert cut.text == whole.text[: whole.text.index(stop)]
    assert cut.finished


def test_a_prompt_that_leaves_no_room_is_refused(speaker: tuple[Any, Any]) -> None:
    with pytest.raises(ValueError, match="where the model can see 256"):
        answers(speaker, ["what is " * 300])


def test_a_models_own_generation_settings_do_not_count(speaker: tuple[Any, Any]) -> None:
    model, _ = speaker
    before = answers(speaker, PROMPTS)
    model.generation_config.do_sample, model.generation_config.temperature = True, 5.0
    model.generation_config.repetition_penalty = 9.0
    assert answers(speaker, PROMPTS) == before


def test_a_prompt_that_leaves_little_room_does_not_shorten_the_answers_to_others(speaker: tuple[Any, Any]) -> None:
    long = "x " * 126  # 252 tokens of 256
    written = answers(speaker, [long, *PROMPTS[:2]])
    assert [each.tokens for each in written] == [256 - written[0].prompt_tokens, 8, 8]
    assert written[1:] == answers(speaker, PROMPTS[:2])
