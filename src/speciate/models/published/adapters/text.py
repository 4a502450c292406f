"""Published models that read text: classifiers (also of proteins), zero-shot classifiers by entailment, taggers, and
encoder-decoders that write a text."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from speciate.models.published.adapters.class_probabilities import label_answers
from speciate.models.published.adapters.layout import Box, placed_words, token_boxes
from speciate.models.published.published_model import LabelPrompts, PublishedModel, RawAnswer, batches

_BATCH, _LONGEST = 16, 4096
_NEW_TOKENS = 256
_RUN = 30
"""Tokens of an answer that is marked in a passage, at most."""
OUTSIDE = "O"
"""The tag of words that are no entity."""


def classify(model: PublishedModel, texts: Sequence[str]) -> list[RawAnswer]:
    """The class or number of each text, by the head's own function: softmax, sigmoid of each label, or the number
    itself."""
    found: dict[int, RawAnswer] = {}
    for places in _text_batches(model, texts):
        part = [texts[place] for place in places]
        inputs = _placed_tokens(model, part) if model.head.reads_boxes else _tokens(model, part)
        found.update(zip(places, label_answers(model, _forward(model, inputs).logits), strict=True))
    return [found[place] for place in range(len(texts))]


def entailment(labels: Sequence[str]) -> int | None:
    """The place of the label that says a sentence follows; None where a head is not one of inference."""
    return next((place for place, label in enumerate(labels) if label.lower().startswith("entail")), None)


def classify_by_entailment(model: PublishedModel, texts: Sequence[str], prompts: LabelPrompts) -> list[RawAnswer]:
    """The probability of a label: softmax over the labels of how much the text entails `template.format(label)`, as the
    zero-shot pipeline of transformers computes it; the mean over templates."""
    import torch

    place = entailment(model.labels)
    if place is None:
        raise ValueError("the model has no label for entailment")
    answers = []
    for text in texts:
        means = torch.zeros(len(prompts.labels))
        for template in prompts.templates:
            sentences = [fill(template, label) for label in prompts.labels]
            logits = torch.cat([
                _forward(model, _pairs(model, text, sentences[start : start + _BATCH])).logits[:, place]
                for start in range(0, len(sentences), _BATCH)
            ])  # fmt: skip
            means += logits.float().softmax(0)
        shares = (means / len(prompts.templates)).tolist()
        probabilities = dict(zip(prompts.labels, shares, strict=True))
        answers.append(RawAnswer(max(probabilities, key=lambda label: probabilities[label]), probabilities))
    return answers


def fill(template: str, label: str) -> str:
    """`This is {label}.` with a label; `{}` means the same."""
    return template.replace("{label}", label).replace("{}", label)


def fill_input(prompts: LabelPrompts | None, text: str) -> str:
    """`summarize: {input}` with a text; the text alone without a template."""
    return prompts.templates[0].replace("{input}", text) if prompts and prompts.templates else text


def tag(model: PublishedModel, texts: Sequence[Sequence[str]]) -> list[RawAnswer]:
    """`texts`: the words of each. The tag of a word is that of its first piece. A text that is longer than the model
    reads is cut into runs of words."""
    runs = [(place, words) for place, text in enumerate(texts) for words in _runs(model, text)]
    tags: dict[int, list[str]] = {}
    for batch in batches([len(words) for _, words in runs], _BATCH):
        made, _ = word_tokens(model, [runs[each][1] for each in batch], padding=True, return_tensors="pt")
        best = _forward(model, made).logits.argmax(-1)
        for row, each in enumerate(batch):
            first = _first_pieces(made.word_ids(row))
            words = runs[each][1]
            tags[each] = [
                model.labels[int(best[row, first[word]])] if word in first else OUTSIDE for word in range(len(words))
            ]
    answers: list[list[str]] = [[] for _ in texts]
    for each, (place, _) in enumerate(runs):
        answers[place] += tags[each]
    return [RawAnswer(each) for each in answers]


class WordTokens(NamedTuple):
    made: Any
    """Output of the tokenizer, with `bbox` where the network reads it."""
    words: list[list[str]]
    """Words of each text, without their places."""


def word_tokens(model: PublishedModel, texts: Sequence[Sequence[str]], **options: Any) -> WordTokens:
    """The tokens of texts that are words already. Raises ValueError for words without the places that are read."""
    words, boxes = [list(each) for each in texts], list[list[Box]]()
    if model.head.reads_boxes:
        placed = [placed_words(each) for each in texts]
        words, boxes = [each.words for each in placed], [each.boxes for each in placed]
    made = model.processor(words, is_split_into_words=True, **options)
    if boxes:
        _add_boxes(model, made, boxes)
    return WordTokens(made, words)


def _add_boxes(model: PublishedModel, made: Any, boxes: Sequence[Sequence[Box]], side: int | None = None) -> None:
    import torch

    rows = [token_boxes(made, row, each, model.processor.sep_token_id, side) for row, each in enumerate(boxes)]
    tensors = isinstance(made["input_ids"], torch.Tensor)
    made["bbox"] = torch.from_numpy(np.stack(rows)) if tensors else [each.tolist() for each in rows]


def answer(model: PublishedModel, texts: Sequence[str]) -> list[RawAnswer]:
    """The run of a passage that answers a question. `texts`: the question in the first line, the passage after it. Of
    all runs of up to 30 tokens, in windows over a passage that is longer than the model reads, the one whose start and
    end have the largest sum of logits; a model that may also say that there is none is not asked that.

    Raises ValueError for a text of one line.
    """
    return [RawAnswer(_best_run(model, text)) for text in texts]


def _best_run(model: PublishedModel, text: str) -> str:
    import torch

    question, passage = _question_and_passage(text)
    if model.head.reads_boxes:
        return _best_words(model, question, passage)
    limit = longest(model)
    made = model.processor(
        question, passage, truncation="only_second", max_length=limit, stride=limit // 4, padding=True,
        return_overflowing_tokens=True, return_offsets_mapping=True, return_tensors="pt",
    )  # fmt: skip
    offsets = made.pop("offset_mapping")
    made.pop("overflow_to_sample_mapping", None)
    out = _forward(model, made)
    best, where = float("-inf"), (0, 0)
    for row in range(len(offsets)):
        inside = torch.tensor([each == 1 for each in made.sequence_ids(row)])
        found = best_tokens(out.start_logits[row], out.end_logits[row], inside)
        if found.sum > best:
            best = found.sum
            where = (int(offsets[row][found.first][0]), int(offsets[row][found.last][1]))
    return passage[where[0] : where[1]]


class QuestionTokens(NamedTuple):
    made: Any
    """Output of the tokenizer, one window."""
    inside: Any
    """(T,) int64: 1 for tokens of the passage."""
    offsets: Any
    """(T, 2) int64: of each token the characters of the passage that it stands for; of a page with boxes of its words,
    set apart by one blank."""


def question_tokens(model: PublishedModel, text: str) -> QuestionTokens:
    """The question and the first window of the passage. Raises ValueError for a text of one line."""
    question, passage = _question_and_passage(text)
    options: dict[str, Any] = {"truncation": "only_second", "max_length": longest(model)}
    if model.head.reads_boxes:
        placed = placed_words(passage.split())
        made = model.processor([question.split()], [placed.words], is_split_into_words=True, **options)
        _add_boxes(model, made, [placed.boxes], side=1)
        starts = np.cumsum([0, *(len(word) + 1 for word in placed.words)])[:-1].tolist()
        spans = [(start, start + len(word)) for start, word in zip(starts, placed.words, strict=True)]
        sides, words = made.sequence_ids(0), made.word_ids(0)
        offsets = [
            spans[word] if side == 1 and word is not None else (0, 0) for side, word in zip(sides, words, strict=True)
        ]
        made = {name: each[0] for name, each in made.items()}
    else:
        made = model.processor(question, passage, return_offsets_mapping=True, **options)
        sides, offsets = made.sequence_ids(0), made.pop("offset_mapping")
    inside = np.array([side == 1 for side in sides], np.int64)
    return QuestionTokens(made, inside, np.array(offsets, np.int64).reshape(-1, 2))


def _question_and_passage(text: str) -> tuple[str, str]:
    question, _, passage = text.strip().partition("\n")
    passage = passage.strip()
    if not passage:
        raise ValueError("the text is one line: write the question in the first, and the passage below it")
    return question, passage


def bare_passage(model: PublishedModel, text: str) -> str:
    """The passage of a question, without the places of its words."""
    passage = _question_and_passage(text)[1]
    return " ".join(placed_words(passage.split()).words) if model.head.reads_boxes else passage


class TokenRun(NamedTuple):
    sum: float
    first: int
    last: int


def best_tokens(starts: Any, ends: Any, inside: Any) -> TokenRun:
    import torch

    starts, ends = (each.masked_fill(~inside, float("-inf")) for each in (starts, ends))
    sums = starts[:, None] + ends[None, :]
    runs = torch.ones_like(sums, dtype=torch.bool).triu() & torch.ones_like(sums, dtype=torch.bool).tril(_RUN - 1)
    sums = sums.masked_fill(~runs, float("-inf"))
    place = int(sums.argmax())
    first, last = divmod(place, len(inside))
    return TokenRun(float(sums.flatten()[place]), first, last)


def _best_words(model: PublishedModel, question: str, page: str) -> str:
    """The words of the best run of tokens, as `_best_run`, for a page whose words have places."""
    import torch

    placed = placed_words(page.split())
    limit = longest(model)
    made = model.processor(
        [question.split()], [placed.words], is_split_into_words=True, truncation="only_second", max_length=limit,
        stride=limit // 4, padding=True, return_overflowing_tokens=True, return_tensors="pt",
    )  # fmt: skip
    made.pop("overflow_to_sample_mapping", None)
    rows = len(made["input_ids"])
    _add_boxes(model, made, [placed.boxes] * rows, side=1)
    out = _forward(model, made)
    best, words = float("-inf"), (0, 0)
    for row in range(rows):
        inside = torch.tensor([each == 1 for each in made.sequence_ids(row)])
        found = best_tokens(out.start_logits[row], out.end_logits[row], inside)
        if found.sum > best:
            ids = made.word_ids(row)
            best, words = found.sum, (ids[found.first], ids[found.last])
    return " ".join(placed.words[words[0] : words[1] + 1])


def write(model: PublishedModel, texts: Sequence[str], templates: Sequence[str] = ()) -> list[RawAnswer]:
    """Greedily or by beams, as its generation config says. `templates`: the first is put around each text, in place of
    `{input}`."""
    import torch

    asked = [fill_input(LabelPrompts((), tuple(templates)), text) for text in texts]
    found: dict[int, RawAnswer] = {}
    for places in _text_batches(model, asked):
        inputs = _tokens(model, [asked[place] for place in places])
        inputs.pop("token_type_ids", None)
        network: Any = model.module
        with torch.inference_mode():
            made = network.generate(**inputs, do_sample=False, **token_limit(model))
        written = model.processor.batch_decode(made, skip_special_tokens=True)
        found.update({place: RawAnswer(text.strip()) for place, text in zip(places, written, strict=True)})
    return [found[place] for place in range(len(texts))]


def token_limit(model: PublishedModel) -> dict[str, int]:
    """The model's own limit of new tokens; where it has none, 256, or what its positions hold."""
    network: Any = model.module
    own = network.generation_config
    if own.max_new_tokens is not None or (own.max_length or 20) != 20:
        return {}
    positions = getattr(model.config, "max_target_positions", None) or _NEW_TOKENS + 8
    return {"max_new_tokens": max(1, min(_NEW_TOKENS, positions - 8))}


def _text_batches(model: PublishedModel, texts: Sequence[str]) -> list[list[int]]:
    """One by one where the tokenizer cannot pad."""
    alone = model.processor.pad_token_id is None or getattr(model.config, "pad_token_id", 0) is None
    return list(batches([len(text) for text in texts], 1 if alone else _BATCH))


def _placed_tokens(model: PublishedModel, texts: list[str]) -> dict[str, Any]:
    made, _ = word_tokens(
        model, [text.split() for text in texts], padding=len(texts) > 1, truncation=True, max_length=longest(model),
        return_tensors="pt",
    )  # fmt: skip
    return dict(made)


def _tokens(model: PublishedModel, texts: list[str]) -> dict[str, Any]:
    return dict(text_tokens(model, texts, padding=len(texts) > 1, return_tensors="pt"))


def text_tokens(model: PublishedModel, texts: Sequence[str], **options: Any) -> Any:
    """Tokens of texts. A cross-encoder compares two: the first line, and what stands below it. Raises ValueError for a
    text of one line then."""
    given: list[list[str]] = [list(texts)]
    if model.head.pairs:
        given = [list(each) for each in zip(*map(_two_texts, texts), strict=True)]
    return model.processor(*given, truncation=True, max_length=longest(model), **options)


def _two_texts(text: str) -> tuple[str, str]:
    first, _, second = text.strip().partition("\n")
    if not second.strip():
        raise ValueError("the text is one line: write the first of the two texts in it, and the second below it")
    return first, second.strip()


def _pairs(model: PublishedModel, text: str, sentences: Sequence[str]) -> dict[str, Any]:
    """The text is cut where both do not fit, the sentence never."""
    return dict(
        model.processor(
            [text] * len(sentences), list(sentences), padding=True, truncation="only_first", max_length=longest(model),
            return_tensors="pt",
        )
    )  # fmt: skip


def longest(model: PublishedModel) -> int:
    """Tokens that it reads: the tokenizer's limit, or its positions less those that padding takes (RoBERTa's)."""
    positions = getattr(model.config, "max_position_embeddings", None)
    limit = int(min(model.processor.model_max_length, _LONGEST))
    if not isinstance(positions, int) or positions <= 0:
        return limit
    for name, module in model.module.named_modules():
        if name.endswith("position_embeddings") and getattr(module, "padding_idx", None) is not None:
            positions -= int(module.padding_idx) + 1
            break
    return min(limit, positions)


def _forward(model: PublishedModel, inputs: Any) -> Any:
    import torch

    with torch.inference_mode():
        return model.module(**inputs)


def _first_pieces(words: Sequence[int | None]) -> dict[int, int]:
    """Word -> the position of its first piece."""
    found: dict[int, int] = {}
    for position, word in enumerate(words):
        if word is not None:
            found.setdefault(word, position)
    return found


def _runs(model: PublishedModel, words: Sequence[str]) -> list[Sequence[str]]:
    """Runs of words whose pieces the model reads at once. A word of more pieces than that is cut by the tokenizer."""
    room = longest(model) - model.processor.num_special_tokens_to_add()
    bare = placed_words(words).words if model.head.reads_boxes else words
    pieces = [len(model.processor(each, add_special_tokens=False)["input_ids"]) + 1 for each in bare]
    if sum(pieces) <= room:
        return [words] if words else []
    runs: list[Sequence[str]] = []
    start, used = 0, 0
    for place, count in enumerate(pieces):
        if used + count > room and place > start:
            runs.append(words[start:place])
            start, used = place, 0
        used += count
    return [*runs, words[start:]]
