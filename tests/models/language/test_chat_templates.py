"""Which tokens of a conversation are trained, and how prompts are rendered."""

from __future__ import annotations

from typing import Any

import pytest

from speciate.errors import SpeciateError
from speciate.modalities.messages import conversation
from speciate.models.language import chat_templates
from speciate.models.language.chat_templates import CHATML, IGNORED, ChatFormat, Learn
from speciate.training.merging.mergeable import differences
from tests.models.language.world import messages, tiny_tokenizer

TOKENIZER = tiny_tokenizer()
MARKED = CHATML.replace("{% generation %}", "").replace("{% endgeneration %}", "")
"""The same text, without marks of the assistant's turns."""
REWRITES = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n"
    "{{ m['content'] if loop.last or m['role'] == 'user' else m['content'][:1] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
"""Shortens earlier turns, as templates do that remove reasoning."""


def learned(
    text: str, answer: str, learn: Learn = "completion", form: ChatFormat | None = None, tokenizer: Any = None
) -> str:
    found = chat_templates.tokenize_example(
        tokenizer or TOKENIZER, conversation(text), answer, form or ChatFormat(), learn
    )
    assert len(found.ids) == len(found.labels)
    assert all(label in (IGNORED, token) for token, label in zip(found.ids, found.labels, strict=True))
    return str(TOKENIZER.decode([label for label in found.labels if label != IGNORED]))


@pytest.mark.parametrize("template", [CHATML, MARKED])
def test_the_answer_and_its_end_are_trained_whether_the_template_marks_it_or_not(template: str) -> None:
    assert learned("what is 1 plus 1?", "2", tokenizer=tiny_tokenizer(template)) == "2<|im_end|>"


def test_each_turn_of_the_assistant_is_trained_with_learn_assistant() -> None:
    text = messages("what is 1 plus 1?", "2", "and 2 plus 2?")
    assert learned(text, "4", "completion") == "4<|im_end|>"
    assert learned(text, "4", "assistant") == "2<|im_end|>4<|im_end|>"
    whole = learned(text, "4", "all")
    assert whole.startswith("<|im_start|>user\nwhat is 1 plus 1?")


def test_a_prompt_is_the_beginning_of_the_trained_text() -> None:
    turns = conversation(messages("what is 1 plus 1?", "2", "and 2 plus 2?"))
    form = ChatFormat(system="be short")
    prompt = chat_templates.render_prompt(TOKENIZER, turns, form)
    assert prompt.startswith("<|im_start|>system\nbe short<|im_end|>")
    ids, _ = chat_templates.tokenize(TOKENIZER, prompt)
    found = chat_templates.tokenize_example(TOKENIZER, turns, "4", form, "completion")
    assert found.ids[: len(ids)] == ids
    assert set(found.labels[: len(ids)]) == {IGNORED}


def test_a_conversation_keeps_its_own_instructions() -> None:
    turns = conversation('[{"role": "system", "content": "own"}, {"role": "user", "content": "x"}]')
    prompt = chat_templates.render_prompt(TOKENIZER, turns, ChatFormat(system="other"))
    assert "own" in prompt
    assert "other" not in prompt


def test_a_template_that_rewrites_earlier_turns_cannot_train_them() -> None:
    text, tokenizer = messages("first", "long answer", "second"), tiny_tokenizer(REWRITES)
    with pytest.raises(ValueError, match="writes earlier turns otherwise"):
        learned(text, "4", "assistant", tokenizer=tokenizer)
    assert learned(text, "4", "completion", tokenizer=tokenizer) == "4<|im_end|>"


def test_plain_text_is_question_and_answer_and_an_end() -> None:
    plain = ChatFormat(template="plain")
    assert learned("1 plus 1 = ", "2", form=plain) == "2<|im_end|>"
    assert chat_templates.render_prompt(TOKENIZER, conversation("1 plus 1 = "), plain) == "1 plus 1 = "


def beginning(tokenizer: Any) -> Any:
    """As in Llama and Gemma, a text begins with a token of its own."""
    from tokenizers import processors

    tokenizer.add_special_tokens({"bos_token": "<|endoftext|>"})
    first = ("<|endoftext|>", tokenizer.bos_token_id)
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="<|endoftext|> $A", special_tokens=[first]
    )
    return tokenizer


def test_plain_text_begins_as_the_tokenizer_begins_it_once() -> None:
    tokenizer = beginning(tiny_tokenizer(None))
    plain, turns = chat_templates.usual_format(tokenizer), conversation("1 plus 1 = ")
    assert plain.begins
    ids, _ = chat_templates.tokenize(tokenizer, chat_templates.render_prompt(tokenizer, turns, plain))
    assert ids == tokenizer("1 plus 1 = ")["input_ids"]
    assert ids.count(tokenizer.bos_token_id) == 1
    found = chat_templates.tokenize_example(tokenizer, turns, "2", plain, "completion")
    assert found.ids[: len(ids)] == ids
    assert learned("1 plus 1 = ", "2", form=plain, tokenizer=tokenizer) == "2<|im_end|>"


def test_a_stored_format_without_begins_renders_prompts_as_it_was_trained() -> None:
    tokenizer = beginning(tiny_tokenizer(None))
    kept = ChatFormat.model_validate_json('{"template": "plain", "system": null}')
    assert chat_templates.render_prompt(tokenizer, conversation("1 plus 1 = "), kept) == "1 plus 1 = "


def test_a_stored_format_without_begins_can_be_merged_with_a_new_one() -> None:
    earlier = {"template": "plain", "system": None}
    now = chat_templates.usual_format(tiny_tokenizer(None)).model_dump(mode="json")
    assert differences(earlier, now, ()) == []
    assert differences(
        earlier, chat_templates.plain_format(beginning(tiny_tokenizer(None))).model_dump(mode="json"), ()
    )


def test_a_missing_template_is_reported_with_the_fix() -> None:
    with pytest.raises(SpeciateError, match="no chat template") as refusal:
        chat_templates.check(tiny_tokenizer(None), ChatFormat(), "pkg:x")
    assert "chatml" in refusal.value.recovery
    chat_templates.check(tiny_tokenizer(None), ChatFormat(template="plain"), "pkg:x")
