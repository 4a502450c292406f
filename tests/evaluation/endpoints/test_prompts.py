from __future__ import annotations

import base64
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from speciate.datasets.loading.loader import Example
from speciate.errors import SpeciateError
from speciate.evaluation.endpoints.chat_client import Request
from speciate.evaluation.endpoints.prompts import Prompt, PromptForm, digest, few_shot_examples, prompt_form, request
from speciate.modalities.audio import AUDIO
from speciate.modalities.image import IMAGE
from speciate.tasks.task import TaskExample

LABELS = ("bad", "good")


def example(media: Any, name: str = "a", **columns: Any) -> Example:
    return Example(name, media, None, name, "test", columns)


def posed(count: int, references: tuple[str, ...] = LABELS) -> list[TaskExample]:
    return [TaskExample(example(f"text {n}", f"id-{n}"), references[n % len(references)]) for n in range(count)]


def of(
    prompt: Prompt | None = None, family: str = "classification", modality: str = "text", **given: Any
) -> PromptForm:
    return prompt_form(prompt or Prompt(), family, modality, **({"labels": LABELS} | given))


def last(sent: Request) -> str:
    content = sent.messages[-1]["content"]
    assert isinstance(content, str)
    return content


def test_a_prompt_shows_the_example_between_tags_and_all_labels() -> None:
    sent = request(of(), example("I liked it."))
    assert [message["role"] for message in sent.messages] == ["system", "user"]
    assert "<example>\nI liked it.\n</example>" in last(sent)
    assert "- bad\n- good" in last(sent)
    assert (sent.max_tokens, sent.sampling) == (1024, {"temperature": 0.0})


@given(st.text())
def test_an_example_cannot_close_its_own_tags(text: str) -> None:
    for said in (text, f"{text}</example>", f"</example><example-2>{text}", f"<example>{text}</example-2>"):
        shown = last(request(of(Prompt(template="{input}")), example(said)))
        opening, _, rest = shown.partition("\n")
        assert rest == f"{said}\n{opening.replace('<', '</')}"
        assert opening not in said
        assert opening.replace("<", "</") not in said


@given(st.text())
def test_braces_in_data_are_never_interpreted(text: str) -> None:
    said = text + " {input} {labels} {{}} {age}"
    told = of(Prompt(template="{{x}} {input} is {age}: {labels}"), columns=("age",))
    fenced = f"<example>\n{said}\n</example>"
    assert last(request(told, example(said, age="{labels}"))) == f"{{x}} {fenced} is {{labels}}: - bad\n- good"


def test_a_template_may_name_the_input_columns() -> None:
    told = of(Prompt(template="Aged {age}, from {site of study}: {note}"), columns=("age", "site of study", "note"))
    cells: dict[str, Any] = {"age": 61, "site of study": None, "note": "one\ntwo"}
    sent = request(told, example("", **cells))
    assert last(sent) == "Aged 61, from (missing): <example>\none\ntwo\n</example>"


@pytest.mark.parametrize(
    ("template", "says"),
    [
        ("{inptu}", "did you mean 'input'?"),
        ("{input} {kind}", "names {kind}, which there is not"),
        ('{input} as {"label": 1}', 'names {"label": 1}'),
        ("No example at all.", "shows nothing of the example"),
        ("{{input}}", "shows nothing of the example"),
        ("only {labels}", "shows nothing of the example"),
    ],
)
def test_a_template_that_cannot_be_filled_is_refused_with_what_is_valid(template: str, says: str) -> None:
    with pytest.raises(SpeciateError) as caught:
        of(Prompt(template=template), columns=("age",))
    assert says in caught.value.message
    assert "{input}" in caught.value.recovery
    assert "{age}" in caught.value.recovery


@pytest.mark.parametrize(
    ("family", "modality", "output", "labels", "says"),
    [
        ("detection", "image", None, LABELS, "not asked for detection"),
        ("classification", "mesh", None, LABELS, "cannot be shown mesh"),
        ("classification", "text", None, (), "needs the labels"),
        ("regression", "text", "labels", (), "not for regression"),
        ("multi-label", "text", "free", LABELS, "not for multi-label"),
    ],
)
def test_what_a_chat_model_cannot_be_asked_is_refused(
    family: str, modality: str, output: Any, labels: tuple[str, ...], says: str
) -> None:
    with pytest.raises(SpeciateError, match=says):
        prompt_form(Prompt(output=output), family, modality, labels=labels)


def test_a_row_is_shown_column_by_column_on_a_line_each() -> None:
    row = {"age": 61, "note": "fine\nage: 12", "weight": float("nan")}
    shown = last(request(of(modality="tabular"), example(row)))
    assert '<example>\nage: 61\nnote: "fine\\nage: 12"\nweight: (missing)\n</example>' in shown


SCHEMAS = {
    "classification": {"label": {"type": "string", "enum": ["bad", "good"]}},
    "ordinal": {"label": {"type": "string", "enum": ["bad", "good"]}},
    "anomaly": {"label": {"type": "string", "enum": ["bad", "good"]}},
    "multi-label": {"labels": {"type": "array", "items": {"type": "string", "enum": ["bad", "good"]}}},
    "regression": {"number": {"type": "number"}},
    "transcription": None,
    "generation": None,
}


@pytest.mark.parametrize("family", SCHEMAS)
def test_answers_are_constrained_as_their_family_needs_it(family: str) -> None:
    schema = request(of(family=family), example("x")).answer_schema
    assert (schema and schema["properties"]) == SCHEMAS[family]


def test_more_labels_than_endpoints_take_are_not_enumerated() -> None:
    schema = request(of(labels=[str(n) for n in range(251)]), example("x")).answer_schema
    assert schema is not None
    assert schema["properties"] == {"label": {"type": "string"}}


def test_shots_are_turns_before_the_question() -> None:
    sent = request(of(Prompt(few_shot=2), training=posed(10)), example("asked"))
    assert [message["role"] for message in sent.messages] == [
        "system",
        "user",
        "assistant",
        "user",
        "assistant",
        "user",
    ]
    assert {sent.messages[2]["content"], sent.messages[4]["content"]} == set(LABELS)
    assert "asked" in last(sent)


def test_shots_answer_in_the_form_that_is_asked_for() -> None:
    told = of(Prompt(few_shot=1), "multi-label", training=[TaskExample(example("x"), ["bad", "good"])])
    assert told.shots[0][1] == '{"labels": ["bad", "good"]}'


def test_shots_take_the_references_in_turn_whatever_the_order() -> None:
    training = posed(30, ("a", "a", "a", "a", "b", "c"))
    chosen = few_shot_examples(training, 6, 0)
    assert sorted(each.target for each in chosen) == ["a", "a", "b", "b", "c", "c"]
    assert few_shot_examples(training[::-1], 6, 0) == chosen
    assert few_shot_examples(training, 6, 1) != chosen


def test_more_shots_than_examples_are_refused() -> None:
    with pytest.raises(SpeciateError, match="has 3 examples with an answer"):
        of(Prompt(few_shot=4), training=posed(3))


# The digest

USUAL = Prompt(few_shot=1)
CHANGES: dict[str, Any] = {
    "template": "{input} then {labels}", "few_shot": 2, "output": "free", "system": "Be brief.", "temperature": 0.5,
    "max_tokens": 7, "seed": 3,
}  # fmt: skip


def test_each_part_of_a_prompt_has_a_case_below() -> None:
    assert set(CHANGES) == set(Prompt.model_fields)


@pytest.mark.parametrize("field", CHANGES)
def test_what_changes_an_answer_changes_the_digest(field: str) -> None:
    changed = Prompt.model_validate(USUAL.model_dump() | {field: CHANGES[field]})
    assert digest(of(changed, training=posed(9))) != digest(of(USUAL, training=posed(9)))


@pytest.mark.parametrize(
    "changes",
    [
        {"family": "ordinal"},
        {"modality": "protein"},
        {"labels": LABELS[::-1]},
        {"training": [TaskExample(example("another text"), "good")]},
    ],
)
def test_what_is_asked_of_which_examples_changes_the_digest(changes: dict[str, Any]) -> None:
    assert digest(of(USUAL, **({"training": posed(9)} | changes))) != digest(of(USUAL, training=posed(9)))


def test_what_changes_no_answer_does_not_change_the_digest() -> None:
    """A default that is spelled out, training examples that are not shown, columns that are not named."""
    spelled = Prompt(few_shot=1, output="labels", temperature=0)
    known = digest(of(USUAL, training=posed(9)))
    assert digest(of(spelled, training=posed(9)[::-1], columns=("age",))) == known
    shown = few_shot_examples(posed(9), 1, 0)
    assert digest(of(USUAL, training=shown)) == known
    assert not set(PromptForm._fields) & {"endpoint", "key", "limits", "timeouts", "budget"}


@given(st.sampled_from(sorted(CHANGES)), st.sampled_from(sorted(CHANGES)))
def test_equal_digests_send_equal_requests(first: str, second: str) -> None:
    forms = [
        of(Prompt.model_validate(USUAL.model_dump() | {name: CHANGES[name]}), training=posed(9))
        for name in (first, second)
    ]
    sent = [request(each, example("x")) for each in forms]
    assert (digest(forms[0]) == digest(forms[1])) == (sent[0] == sent[1])


RANDOM = np.random.default_rng(3)


def parts(modality: str, media: object, template: str | None = None) -> list[dict[str, object]]:
    told = prompt_form(Prompt(template=template), "classification", modality, labels=("a", "b"))
    content = request(told, Example("x", media, None, "x", "test", {})).messages[-1]["content"]
    assert isinstance(content, list)
    return content


def png(part: dict[str, object]) -> bytes:
    url = part["image_url"]["url"]  # type: ignore[index]
    head, _, data = url.partition(",")
    assert head == "data:image/png;base64"
    return base64.b64decode(data)


def test_an_image_is_sent_without_loss() -> None:
    pixels = RANDOM.integers(0, 256, (30, 50, 3), np.uint8)
    assert np.array_equal(IMAGE.decode(png(parts("image", pixels)[0])), pixels)


@pytest.mark.parametrize(
    ("shape", "sent"), [((1024, 10), (1024, 10)), ((3000, 1500), (1024, 512)), ((9, 4096), (2, 1024))]
)
def test_a_large_image_is_made_smaller_in_its_own_shape(shape: tuple[int, int], sent: tuple[int, int]) -> None:
    pixels = np.zeros((*shape, 3), np.uint8)
    assert IMAGE.decode(png(parts("image", pixels)[0])).shape == (*sent, 3)


def test_sound_is_sent_as_16_bits_and_what_is_too_loud_is_clipped() -> None:
    sound = np.concatenate([RANDOM.uniform(-1, 1, 1600), [2.0, -2.0]]).astype(np.float32)
    part = parts("audio", sound)[0]
    assert part["type"] == "input_audio"
    data = part["input_audio"]
    assert isinstance(data, dict)
    assert data["format"] == "wav"
    heard = AUDIO.decode(base64.b64decode(data["data"]))
    assert np.abs(heard - sound.clip(-1, 1)).max() < 1e-4


def test_a_template_says_where_the_image_stands() -> None:
    pixels = np.zeros((8, 8, 3), np.uint8)
    first, image, second = parts("image", pixels, "Look at {input} and choose: {labels}")
    assert (first["text"], second["text"]) == ("Look at ", " and choose: - a\n- b")
    assert image["type"] == "image_url"
    assert [part["type"] for part in parts("image", pixels, "Choose: {labels}")] == ["text", "image_url"]
