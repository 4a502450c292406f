"""Answers: in the order of the questions, the same alone and in a batch, drawn by the seed and nothing else."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from speciate.models.language import causal_lm
from speciate.models.language.text_generation import GeneratedText, Sampling, generate
from tests.models.language.world import sums, tiny_model

ASKED = [f"<|im_start|>user\n{question}<|im_end|>\n" for question, _ in sums(9)]


@pytest.fixture(scope="module")
def speaker(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Any]:
    folder: Path = tmp_path_factory.mktemp("speaker")
    tiny_model(folder)
    return causal_lm.load_model(folder), causal_lm.load_tokenizer(folder)


def said(speaker: tuple[Any, Any], asked: Sequence[str], **sampling: Any) -> list[GeneratedText]:
    return generate(*speaker, asked, Sampling(max_new_tokens=8, **sampling), longest=256)


def test_greedy_answers_do_not_depend_on_what_is_asked_beside_them(speaker: tuple[Any, Any]) -> None:
    together = said(speaker, [*ASKED, "short"], batch_size=4)
    alone = [said(speaker, [each], batch_size=1)[0] for each in (*ASKED, "short")]
    assert together == alone
    assert all(each.tokens == 8 and not each.finished for each in together)  # it has learned no end


def test_drawn_answers_are_a_function_of_seed_and_question(speaker: tuple[Any, Any]) -> None:
    drawn: dict[str, Any] = {"temperature": 1.0, "top_p": 0.95}
    first = said(speaker, ASKED, **drawn, seed=1)
    assert said(speaker, ASKED[::-1], **drawn, seed=1) == first[::-1]
    assert said(speaker, ASKED, **drawn, seed=2) != first
    assert said(speaker, ASKED) != first


def test_a_stop_text_ends_an_answer_and_is_no_part_of_it(speaker: tuple[Any, Any]) -> None:
    (whole,) = said(speaker, ASKED[:1])
    stop = whole.text[2]
    (cut,) = said(speaker, ASKED[:1], stop=(stop,))
    assert cut.text == whole.text[: whole.text.index(stop)]
    assert cut.finished


def test_a_question_that_leaves_no_room_says_so(speaker: tuple[Any, Any]) -> None:
    with pytest.raises(ValueError, match="where the model can see 256"):
        said(speaker, ["what is " * 300])


def test_what_a_model_says_of_sampling_does_not_count(speaker: tuple[Any, Any]) -> None:
    model, _ = speaker
    before = said(speaker, ASKED)
    model.generation_config.do_sample, model.generation_config.temperature = True, 5.0
    model.generation_config.repetition_penalty = 9.0
    assert said(speaker, ASKED) == before


def test_a_question_that_leaves_little_room_does_not_cut_the_answers_to_others(speaker: tuple[Any, Any]) -> None:
    long = "x " * 126  # 252 tokens of 256
    written = said(speaker, [long, *ASKED[:2]])
    assert [each.tokens for each in written] == [256 - written[0].asked_tokens, 8, 8]
    assert written[1:] == said(speaker, ASKED[:2])
