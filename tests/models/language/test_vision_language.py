"""Images in conversations: their places, the trained tokens, and answers that do not depend on the rest of the
batch."""

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
VisionModel = tuple[Any, Any]


@pytest.fixture(scope="module", params=FAMILIES)
def vision_model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> VisionModel:
    folder: Path = tmp_path_factory.mktemp(request.param)
    make: Callable[[Path], str] = FAMILIES[request.param]
    make(folder)
    vision_language.check(folder, "it")
    return vision_language.load_model(folder), vision_language.load_processor(folder)


def _answers(vision_model: VisionModel, found: list[ImagePrompt], **sampling: Any) -> list[str]:
    model, processor = vision_model
    shown = [RenderedPrompt(vision_language.render_prompt(processor, each, None), each.images) for each in found]
    return [one.text for one in generate(model, processor, shown, Sampling(max_new_tokens=5, **sampling), longest=256)]


def test_only_answers_are_trained(vision_model: VisionModel) -> None:
    _, processor = vision_model
    for prompt, every, learned in (
        (ONE, False, "red<|im_end|>"), (TWO, False, "red<|im_end|>"), (TWO, True, "blue<|im_end|>red<|im_end|>"),
        (LATER, True, "blue<|im_end|>green<|im_end|>red<|im_end|>"),
    ):  # fmt: skip
        seen = vision_language.tokenize_example(processor, prompt, "red", None, every_turn=every)
        whole = vision_language.encode(processor, [seen.text], [seen.images])["input_ids"][0].tolist()
        assert whole[: len(seen.tokens.ids)] == seen.tokens.ids  # as the processor has it, divided at answers or not
        own = [label for label in seen.tokens.labels if label != IGNORED]
        assert processor.tokenizer.decode(own) == learned
        assert {len(seen.tokens.labels), *map(len, seen.kinds.values())} == {len(seen.tokens.ids)}
        prompts = vision_language.encode(
            processor, [vision_language.render_prompt(processor, prompt, None)], [prompt.images]
        )["input_ids"][0].tolist()
        assert seen.tokens.ids[: len(prompts)] == prompts  # trained as it is prompted


def test_the_loss_of_a_batch_is_that_of_its_examples(vision_model: VisionModel) -> None:
    model, processor = vision_model
    examples = [
        vision_language.tokenize_example(processor, ONE, "red", None),
        vision_language.tokenize_example(processor, LATER, "red", None, every_turn=True),
    ]
    alone = [model(**vision_language.collate(processor, [each])).loss.item() for each in examples]
    counts = [each.tokens.learned for each in examples]
    together = model(**vision_language.collate(processor, examples)).loss.item()
    assert np.isclose(together, np.average(alone, weights=counts), atol=1e-4)


def test_answers_do_not_depend_on_the_other_prompts_of_the_batch(vision_model: VisionModel) -> None:
    prompts = [
        ONE,
        TWO,
        ImagePrompt(ONE.conversation, (coloured("green", 2, (60, 30)),)),
        ImagePrompt(conversation("a" * 40), ONE.images),
    ]
    assert _answers(vision_model, prompts, batch_size=3) == [_answers(vision_model, [each])[0] for each in prompts]


def test_a_prompt_that_leaves_little_room_does_not_shorten_the_answers_to_others(vision_model: VisionModel) -> None:
    model, processor = vision_model
    prompts = [ONE, ImagePrompt(conversation("a" * 40), ONE.images), ONE]
    shown = [RenderedPrompt(vision_language.render_prompt(processor, each, None), each.images) for each in prompts]
    longest = 2 + len(vision_language.tokenize_example(processor, prompts[1], "", None).tokens.ids)
    written = generate(model, processor, shown, Sampling(max_new_tokens=5), longest=longest)
    rooms = [min(5, longest - each.prompt_tokens) for each in written]
    assert rooms[0] == rooms[2] > rooms[1] > 0
    assert [each.tokens for each in written if not each.finished] == [
        room for room, each in zip(rooms, written, strict=True) if not each.finished
    ]
    assert [written[0], written[2]] == generate(
        model, processor, shown[::2], Sampling(max_new_tokens=5), longest=longest
    )


def test_sampled_answers_are_a_function_of_seed_prompt_and_image(tmp_path: Path) -> None:
    tiny_qwen(tmp_path / "m")
    vision_model = vision_language.load_model(tmp_path / "m"), vision_language.load_processor(tmp_path / "m")
    drawn: dict[str, Any] = {"temperature": 1.0}
    first = _answers(vision_model, [ONE, TWO], **drawn, seed=1)
    assert _answers(vision_model, [TWO, ONE], **drawn, seed=1) == first[::-1]
    assert _answers(vision_model, [ONE, TWO], **drawn, seed=2) != first
    assert _answers(vision_model, [ONE._replace(images=(coloured("blue"),))], **drawn, seed=1) != first[:1]


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
        prompts = vision_language.encode(
            processor, [vision_language.render_prompt(processor, LATER, None)], [LATER.images]
        )["input_ids"][0].tolist()
        assert seen.tokens.ids[: len(prompts)] == prompts


@pytest.mark.parametrize(
    ("prompt", "message"),
    [
        (ImagePrompt(conversation("<image> and <image>"), ONE.images), "2 places for images"),
        (ImagePrompt(conversation("what is <|image_pad|>?"), ONE.images), "stands for an image"),
        (ImagePrompt(conversation("which?"), (np.zeros((2, 900, 3), np.uint8),)), "the processor refuses it"),
    ],
)
def test_a_prompt_that_cannot_be_rendered_says_why(tmp_path: Path, prompt: ImagePrompt, message: str) -> None:
    tiny_qwen(tmp_path / "m")
    processor = vision_language.load_processor(tmp_path / "m")
    with pytest.raises(ValueError, match=message):
        vision_language.encode(processor, [vision_language.render_prompt(processor, prompt, None)], [prompt.images])


def test_images_without_a_mark_stand_before_the_first_words() -> None:
    marked = vision_language.mark_images(conversation("what?"), 2)
    assert marked[0].content == f"{IMAGE_MARK}{IMAGE_MARK}what?"
    assert conversation(TURNS)[0].content == f"first {IMAGE_MARK}"
    assert vision_language.shrink(coloured("red", 0, (30, 60)), 20).shape == (10, 20, 3)
    assert vision_language.shrink(coloured("red"), 50).shape == (28, 28, 3)


def test_a_folder_without_a_processor_or_a_vision_encoder_is_refused(tmp_path: Path) -> None:
    tiny_model(tmp_path / "blind")
    with pytest.raises(SpeciateError, match="is no vision-language model"):
        vision_language.check(tmp_path / "blind", "blind")
    tiny_qwen(tmp_path / "m", template=None)
    with pytest.raises(SpeciateError, match="no chat template"):
        vision_language.check_template(vision_language.load_processor(tmp_path / "m"), "m")
    (tmp_path / "m" / "processor_config.json").unlink()
    with pytest.raises(SpeciateError, match="no processor beside its weights"):
        vision_language.check(tmp_path / "m", "m")
