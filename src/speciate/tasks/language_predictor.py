"""Language models that answer: with a text, or with a number that says how good an answer is (a reward model).

A folder holds `predictor.json` and what `save_pretrained` of transformers writes of model and tokenizer. A folder
without the first is one that others made: it is asked by its own chat template, greedily.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import BaseModel, ConfigDict

from speciate.datasets.loading.loader import Example
from speciate.errors import Code, SpeciateError
from speciate.modalities.messages import Conversation, conversation, split_last_answer
from speciate.models import sealed
from speciate.models.language import causal_lm, chat_templates
from speciate.models.language.chat_templates import ChatFormat
from speciate.models.language.gguf import chat_template
from speciate.models.language.text_generation import Sampling, generate
from speciate.models.language.vision_language import is_vision_language
from speciate.tasks.families.preference import FIRST, PREFERENCE, SECOND, parse_pair, preferred_answer
from speciate.tasks.network_predictor import MANIFEST
from speciate.tasks.task import Prediction

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


TEXT_GENERATION = "text-generation"


class _LanguageManifest(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")
    format: int = 1
    task: str
    language: Literal[True] = True
    """What tells this kind of folder from the others."""
    form: ChatFormat
    sampling: Sampling


class LanguagePredictor:
    labels: tuple[str, ...] = ()

    def __init__(
        self,
        model: Any,
        tokenizer: PreTrainedTokenizerBase,
        form: ChatFormat,
        sampling: Sampling,
        task: str = TEXT_GENERATION,
    ) -> None:
        self.model, self.tokenizer, self.form, self.sampling, self.task = model, tokenizer, form, sampling, task

    @property
    def parameters(self) -> int:
        return sum(each.numel() for each in self.model.parameters())

    @property
    def how(self) -> str:
        """How it answers, for the record: template, instructions and sampling."""
        template = hashlib.sha256((self.tokenizer.chat_template or "").encode()).hexdigest()[:12]
        spoken = f"by its chat template {template}" if self.form.template == "chat" else "with the plain text"
        drawn = self.sampling
        probability = "greedily" if drawn.greedy else f"at temperature {drawn.temperature:g}, seed {drawn.seed}"
        system = ", with its own instructions" if self.form.system else ""
        return f"asked {spoken}{system}; answers {probability}, at most {drawn.max_new_tokens} tokens"

    def predict(self, examples: Sequence[Example]) -> list[Prediction]:
        """INVALID for an example that is no text or leaves no room for an answer."""
        if not examples:
            return []
        try:
            asked = [
                chat_templates.render_prompt(self.tokenizer, conversation(_text(each)), self.form) for each in examples
            ]
            found = generate(self.model, self.tokenizer, asked, self.sampling, longest=causal_lm.longest(self.model))
        except ValueError as error:
            raise SpeciateError(
                Code.INVALID, "The model cannot answer this; untrusted says why.",
                "Ask again with a shorter or another text.", str(error),
            ) from error  # fmt: skip
        return [Prediction(one.text, None, None) for one in found]

    def save(self, folder: Path) -> str:
        """Write and seal a new model folder; returns its id. The same model gives the same bytes."""
        folder.mkdir(parents=True)
        manifest = _LanguageManifest(task=self.task, form=self.form, sampling=self.sampling)
        (folder / MANIFEST).write_text(manifest.model_dump_json(indent=1))
        self.model.save_pretrained(folder)
        self.tokenizer.save_pretrained(folder)
        return sealed.seal(folder)


def load_language_model(folder: Path, threads: int = 1) -> LanguagePredictor:
    """From a folder whose hashes were checked, ours or one that others made."""
    import torch

    torch.set_num_threads(threads)
    tokenizer, model = causal_lm.load_tokenizer(folder), causal_lm.load_model(folder)
    if not (folder / MANIFEST).is_file():
        return LanguagePredictor(model, tokenizer, chat_templates.usual_format(tokenizer), Sampling())
    said = _LanguageManifest.model_validate(json.loads((folder / MANIFEST).read_text()))
    return LanguagePredictor(model, tokenizer, said.form, said.sampling, said.task)


def answer_identity(folder: Path, known: str) -> str:
    """What recorded answers of a model are known by: of one that others made, how it is asked is not in its files."""
    own = (folder / MANIFEST).is_file() or not (causal_lm.is_causal_lm(folder) or is_vision_language(folder))
    if own:
        return known
    chat = chat_template(folder) is not None or causal_lm.packaged_weights(folder) is not None
    plain = "" if chat else " plain, from its beginning"  # answers without that were recorded by earlier versions
    return f"{known} {Sampling().model_dump_json()}{plain}"


def saved_form(folder: Path) -> ChatFormat | None:
    """How a model of ours in this folder is asked; None of one that others made."""
    try:
        return _LanguageManifest.model_validate(json.loads((folder / MANIFEST).read_text())).form
    except (OSError, ValueError):
        return None


def _text(example: Example) -> str:
    if not isinstance(example.media, str):
        raise ValueError("the example is no text")
    return example.media


class RewardPredictor:
    """Of a pair the better answer; of a conversation that ends in an answer a number, larger for better ones."""

    labels: tuple[str, ...] = (FIRST, SECOND)
    task = PREFERENCE

    def __init__(self, model: Any, tokenizer: PreTrainedTokenizerBase, form: ChatFormat) -> None:
        self.model, self.tokenizer, self.form = model, tokenizer, form

    @property
    def parameters(self) -> int:
        return sum(each.numel() for each in self.model.parameters())

    def predict(self, examples: Sequence[Example]) -> list[Prediction]:
        """INVALID for an example that is neither a pair nor a conversation with an answer, or that is too long."""
        offers = [parse_pair(str(each.media)) for each in examples]
        turns: list[tuple[Conversation, str]] = []
        for example, offer in zip(examples, offers, strict=True):
            turns += [(offer.asked, offer.first), (offer.asked, offer.second)] if offer else [_last_turn(example)]
        numbers = iter(self.numbers(turns))
        return [
            preferred_answer(next(numbers), next(numbers)) if offer else Prediction(next(numbers), None, None)
            for offer in offers
        ]

    def numbers(self, turns: Sequence[tuple[Conversation, str]]) -> list[float]:
        """How good each answer is: the larger the better, on a scale of this model's own."""
        try:
            ids = [
                chat_templates.tokenize_example(self.tokenizer, asked, said, self.form, "completion").ids
                for asked, said in turns
            ]
            return causal_lm.score_texts(self.model, ids, self.tokenizer.pad_token_id, causal_lm.longest(self.model))
        except ValueError as error:
            raise SpeciateError(
                Code.INVALID, "The model cannot judge this; untrusted says why.",
                "Ask again with a shorter or another text.", str(error),
            ) from error  # fmt: skip

    def save(self, folder: Path) -> str:
        """Write and seal a new model folder; returns its id. The same model gives the same bytes."""
        folder.mkdir(parents=True)
        (folder / MANIFEST).write_text(_RewardManifest(form=self.form).model_dump_json(indent=1))
        self.model.save_pretrained(folder)
        self.tokenizer.save_pretrained(folder)
        return sealed.seal(folder)


class _RewardManifest(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")
    format: int = 1
    task: str = PREFERENCE
    reward: Literal[True] = True
    """What tells this kind of folder from the others."""
    form: ChatFormat


def load_reward_model(folder: Path, threads: int = 1) -> RewardPredictor:
    """From a folder whose hashes were checked."""
    import torch

    torch.set_num_threads(threads)
    said = _RewardManifest.model_validate(json.loads((folder / MANIFEST).read_text()))
    return RewardPredictor(causal_lm.load_scoring_model(folder).model, causal_lm.load_tokenizer(folder), said.form)


def _last_turn(example: Example) -> tuple[Conversation, str]:
    try:
        turn = split_last_answer(conversation(str(example.media)))
    except ValueError as error:
        raise SpeciateError(
            Code.INVALID, "This is no conversation; untrusted says why.", _CONVERSATION_HINT, str(error)
        ) from error
    if turn is None:
        raise SpeciateError(Code.INVALID, "There is no answer in this text that could be judged.", _CONVERSATION_HINT)
    return turn


_CONVERSATION_HINT = (
    'Ask with a conversation that ends in an answer: [{"role": "user", "content": ...}, {"role": "assistant", '
    '"content": ...}] as JSON.'
)
