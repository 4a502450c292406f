"""Pictures in conversations: where they stand, which tokens are learned, and answers that do not depend on company."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from speciate.errors import SpeciateError
from speciate.modalities.messages import IMAGE_MARK, conversation
from speciate.models.language import vision_language
from speciate.models.language.chat_templates import IGNORED
from speciate.models.language.text_generation import Sampling
from speciate.models.language.vision_language import ImagePrompt, RenderedPrompt, generate
from tests.models.language.vision_world import FAMILIES, coloured, tiny_qwen
from tests.models.language.world import tiny_model

TURNS = json.dumps([
    {"role": "user", "content": [{"type": "text", "text": "first "}, {"type": "image", "image": "/etc/passwd"}]},
    {"role": "assistant", "content": "blue"},
    {"role": "user", "content": "and <image>?"},
])  # fmt: skip
ONE = ImagePrompt(conversation("which colour?"), (coloured("red"),))
LATER = ImagePrompt(
    conversation(json.dumps([
        {"role": "user", "content": "<image> which?"}, {"role": "assistant", "content": "blue"},
        {"role": "user", "content": "sure?"}, {"role": "assistant", "content": "green"},
        {"role": "user", "content": "and <image>?"},
    ])),
    (coloured("red"), coloured("blue")),
)  # fmt: skip
TWO = ImagePrompt(conversation(TURNS), (coloured("red"), coloured("blue", 1, (40, 60))))
Seer = tuple[Any, Any]


@pytest.fixture(scope="module", params=FAMILIES)
def seer(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Seer:
    folder: Path = tmp_path_factory.mktemp(request.param)
    make: Callable[[Path], str] = FAMILIES[request.param]
    make(folder)
    vision_language.check(folder, "it")
    return vision_language.load_model(folder), vision_language.load_processor(folder)


def _said(seer: Seer, found: list[ImagePrompt], **sampling: Any) -> list[str]:
    model, processor = seer
    shown = [RenderedPrompt(vision_language.render_prompt(processor, each, None), each.pictures) for each in found]
    return [one.text for one in generate(model, processor, shown, Sampling(max_new_tokens=5, **sampling), longest=256)]


def test_an_answer_is_learned_and_nothing_else(seer: Seer) -> None:
    _, processor = seer
    for look, every, learned in (
        (ONE, False, "red<|im_end|>"), (TWO, False, "red<|im_end|>"), (TWO, True, "blue<|im_end|>red<|im_end|>"),
        (LATER, True, "blue<|im_end|>green<|im_end|>red<|im_end|>"),
    ):  # fmt: skip
        seen = vision_language.tokenize_example(processor, look, "red", None, every_turn=every)
        whole = vision_language.encode(processor, [seen.text], [seen.pictures])["input_ids"][0].tolist()
        assert whole[: len(seen.tokens.ids)] == seen.tokens.ids  # as the processor has it, divided at answers or not
        own = [label for label in seen.tokens.labels if label != IGNORED]
        assert processor.tokenizer.decode(own) == learned
        assert {len(seen.tokens.labels), *map(len, seen.kinds.values())} == {len(seen.tokens.ids)}
        asked = vision_language.encode(
            processor, [vision_language.render_prompt(processor, look, None)], [look.pictures]
        )["input_ids"][0].tolist()
        assert seen.tokens.ids[: len(asked)] == asked  # learned as it is asked


def test_the_loss_of_a_batch_is_that_of_its_examples(seer: Seer) -> None:
    model, processor = seer
    lessons = [
        vision_language.tokenize_example(processor, ONE, "red", None),
        vision_language.tokenize_example(processor, LATER, "red", None, every_turn=True),
    ]
    alone = [model(**vision_language.collate(processor, [each])).loss.item() for each in lessons]
    counts = [each.tokens.learned for each in lessons]
    together = model(**vision_language.collate(processor, lessons)).loss.item()
    assert np.isclose(together, np.average(alone, weights=counts), atol=1e-4)


def test_answers_do_not_depend_on_what_is_asked_beside_them(seer: Seer) -> None:
    asked = [
        ONE,
        TWO,
        ImagePrompt(ONE.said, (coloured("green", 2, (60, 30)),)),
        ImagePrompt(conversation("a" * 40), ONE.pictures),
    ]
    assert _said(seer, asked, batch_size=3) == [_said(seer, [each])[0] for each in asked]


def test_a_question_that_leaves_little_room_does_not_cut_the_answers_to_others(seer: Seer) -> None:
    model, processor = seer
    asked = [ONE, ImagePrompt(conversation("a" * 40), ONE.pictures), ONE]
    shown = [RenderedPrompt(vision_language.render_prompt(processor, each, None), each.pictures) for each in asked]
    longest = 2 + len(vision_language.tokenize_example(processor, asked[1], "", None).tokens.ids)
    written = generate(model, processor, shown, Sampling(max_new_tokens=5), longest=longest)
    rooms = [min(5, longest - each.asked_tokens) for each in written]
    assert rooms[0] == rooms[2] > rooms[1] > 0
    assert [each.tokens for each in written if not each.finished] == [
        room for room, each in zip(rooms, written, strict=True) if not each.finished
    ]
    assert [written[0], written[2]] == generate(
        model, processor, shown[::2], Sampling(max_new_tokens=5), longest=longest
    )


def test_drawn_answers_are_a_function_of_seed_question_and_picture(tmp_path: Path) -> None:
    tiny_qwen(tmp_path / "m")
    seer = vision_language.load_model(tmp_path / "m"), vision_language.load_processor(tmp_path / "m")
    drawn: dict[str, Any] = {"temperature": 1.0}
    first = _said(seer, [ONE, TWO], **drawn, seed=1)
    assert _said(seer, [TWO, ONE], **drawn, seed=1) == first[::-1]
    assert _said(seer, [ONE, TWO], **drawn, seed=2) != first
    assert _said(seer, [ONE._replace(pictures=(coloured("blue"),))], **drawn, seed=1) != first[:1]


def test_a_text_begins_as_the_tokenizer_begins_texts(tmp_path: Path) -> None:
    """Once: neither where the template did it, nor in the middle of a conversation."""
    from tokenizers.processors import TemplateProcessing

    tiny_qwen(tmp_path / "m")
    processor = vision_language.load_processor(tmp_path / "m")
    tokenizer, begin = processor.tokenizer, "<|endoftext|>"
    tokenizer.add_special_tokens({"bos_token": begin})
    number = tokenizer.convert_tokens_to_ids(begin)
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
        single=f"{begin} $A", pair=None, special_tokens=[(begin, number)]
    )
    for template in (processor.chat_template, "{{ bos_token }}" + processor.chat_template):
        processor.chat_template = template
        seen = vision_language.tokenize_example(processor, LATER, "red", None, every_turn=True)
        assert [place for place, token in enumerate(seen.tokens.ids) if token == number] == [0]
        asked = vision_language.encode(
            processor, [vision_language.render_prompt(processor, LATER, None)], [LATER.pictures]
        )["input_ids"][0].tolist()
        assert seen.tokens.ids[: len(asked)] == asked


@pytest.mark.parametrize(
    ("look", "said"),
    [
        (ImagePrompt(conversation("<image> and <image>"), ONE.pictures), "2 places for pictures"),
        (ImagePrompt(conversation("what is <|image_pad|>?"), ONE.pictures), "stands for a picture"),
        (ImagePrompt(conversation("which?"), (np.zeros((2, 900, 3), np.uint8),)), "the processor refuses it"),
    ],
)
def test_what_cannot_be_shown_says_why(tmp_path: Path, look: ImagePrompt, said: str) -> None:
    tiny_qwen(tmp_path / "m")
    processor = vision_language.load_processor(tmp_path / "m")
    with pytest.raises(ValueError, match=said):
        vision_language.encode(processor, [vision_language.render_prompt(processor, look, None)], [look.pictures])


def test_pictures_without_a_place_stand_before_the_first_words() -> None:
    said = vision_language.mark_images(conversation("what?"), 2)
    assert said[0].content == f"{IMAGE_MARK}{IMAGE_MARK}what?"
    assert conversation(TURNS)[0].content == f"first {IMAGE_MARK}"
    assert vision_language.shrink(coloured("red", 0, (30, 60)), 20).shape == (10, 20, 3)
    assert vision_language.shrink(coloured("red"), 50).shape == (28, 28, 3)


def test_a_folder_without_a_processor_or_eyes_is_refused(tmp_path: Path) -> None:
    tiny_model(tmp_path / "blind")
    with pytest.raises(SpeciateError, match="writes nothing about pictures"):
        vision_language.check(tmp_path / "blind", "blind")
    tiny_qwen(tmp_path / "m", template=None)
    with pytest.raises(SpeciateError, match="no chat template"):
        vision_language.check_template(vision_language.load_processor(tmp_path / "m"), "m")
    (tmp_path / "m" / "processor_config.json").unlink()
    with pytest.raises(SpeciateError, match="no processor beside its weights"):
        vision_language.check(tmp_path / "m", "m")
