"""Language models that answer: with a text, or with a number that says how good an answer is (a reward model).

A folder holds `predictor.json` and what `save_pretrained` of transformers writes of model and tokenizer. A folder
without the first is a model of others: it is asked by its own chat template, greedily.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from pydantic import BaseModel, ConfigDict

from speciate.datasets.loading.loader import Example
from speciate.errors import Code, SpeciateError
from speciate.modalities.messages import Conversation, conversation, split_last_answer
from speciate.models import sealed
from speciate.models.language import causal_lm, chat_templates
from speciate.models.language.chat_templates import ChatFormat
from speciate.models.language.gguf import chat_template
from speciate.models.language.text_generation import GeneratedText, PromptTooLong, Sampling, Watch, generate
from speciate.models.language.vision_language import is_vision_language
from speciate.tasks.families.preference import FIRST, PREFERENCE, SECOND, parse_pair, preferred_answer
from speciate.tasks.network_predictor import MANIFEST
from speciate.tasks.task import Prediction

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


TEXT_GENERATION = "text-generation"


class TooLong(SpeciateError):
    """INVALID: the prompt leaves no room for an answer."""


class _LanguageManifest(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")
    format: int = 1
    task: str
    language: Literal[True] = True
    """Tells this kind of folder from the others."""
    form: ChatFormat
    sampling: Sampling


class LanguageSettings(NamedTuple):
    """How a language model is asked."""

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
        decoding = "greedily" if drawn.greedy else f"at temperature {drawn.temperature:g}, seed {drawn.seed}"
        system = ", with its own instructions" if self.form.system else ""
        return f"asked {spoken}{system}; answers {decoding}, at most {drawn.max_new_tokens} tokens"

    def predict(self, examples: Sequence[Example]) -> list[Prediction]:
        """INVALID for an example that is no text or leaves no room for an answer."""
        if not examples:
            return []
        try:
            prompts = [
                chat_templates.render_prompt(self.tokenizer, conversation(_text(each)), self.form) for each in examples
            ]
            found = generate(self.model, self.tokenizer, prompts, self.sampling, longest=causal_lm.longest(self.model))
        except ValueError as error:
            raise SpeciateError(
                Code.INVALID, "The model cannot answer this; untrusted says why.",
                "Ask again with a shorter or another text.", str(error),
            ) from error  # fmt: skip
        return [Prediction(one.text, None, None) for one in found]

    def respond(
        self, examples: Sequence[Example], changes: Mapping[str, Any], watch: Watch | None = None
    ) -> list[GeneratedText]:
        """As `predict`, with other sampling than the model's own where `changes` says so (fields of Sampling), and with
        the tokens counted. `watch` hears the answers while they are written. INVALID before anything is written."""
        try:
            prompts = [
                chat_templates.render_prompt(self.tokenizer, conversation(_text(each)), self.form) for each in examples
            ]
            sampling = Sampling.model_validate({**self.sampling.model_dump(), **changes})
            longest = causal_lm.longest(self.model)
            return generate(self.model, self.tokenizer, prompts, sampling, longest=longest, watch=watch)
        except PromptTooLong as error:
            raise TooLong(
                Code.INVALID, f"The model cannot answer {error}.", "Ask again with a shorter text.",
            ) from error  # fmt: skip
        except ValueError as error:
            raise SpeciateError(
                Code.INVALID, "The model cannot answer this; untrusted says why.",
                "Ask again with a shorter or another text.", str(error),
            ) from error  # fmt: skip

    def save(self, folder: Path) -> str:
        """Write and seal a new model folder; returns its id. The same model gives the same bytes."""
        folder.mkdir(parents=True)
        manifest = _LanguageManifest(task=self.task, form=self.form, sampling=self.sampling)
        (folder / MANIFEST).write_text(manifest.model_dump_json(indent=1))
        self.model.save_pretrained(folder)
        self.tokenizer.save_pretrained(folder)
        return sealed.seal(folder)


def load_language_model(folder: Path, threads: int = 1) -> LanguagePredictor:
    """From a folder whose hashes were checked, our own or a model of others."""
    import torch

    torch.set_num_threads(threads)
    tokenizer, model = causal_lm.load_tokenizer(folder), causal_lm.load_model(folder)
    if not (folder / MANIFEST).is_file():
        return LanguagePredictor(model, tokenizer, chat_templates.usual_format(tokenizer), Sampling())
    saved = _LanguageManifest.model_validate(json.loads((folder / MANIFEST).read_text()))
    return LanguagePredictor(model, tokenizer, saved.form, saved.sampling, saved.task)


def answer_identity(folder: Path, model_id: str) -> str:
    """The model's identity in the answer cache. It names the prompt format of a model of others."""
    own = (folder / MANIFEST).is_file() or not (causal_lm.is_causal_lm(folder) or is_vision_language(folder))
    if own:
        return model_id
    chat = chat_template(folder) is not None or causal_lm.packaged_weights(folder) is not None
    plain = "" if chat else " plain, from its beginning"  # earlier versions cached answers without it
    return f"{model_id} {Sampling().model_dump_json()}{plain}"


def saved_form(folder: Path) -> ChatFormat | None:
    """The prompt format of a model of ours in this folder; None for a model of others."""
    found = saved_language_settings(folder)
    return found.form if found else None


def saved_language_settings(folder: Path) -> LanguageSettings | None:
    """How a model of ours in this folder is asked; None for a model of others."""
    try:
        found = _LanguageManifest.model_validate(json.loads((folder / MANIFEST).read_text()))
    except (OSError, ValueError):
        return None
    return LanguageSettings(found.form, found.sampling)


def _text(example: Example) -> str:
    if not isinstance(example.media, str):
        raise ValueError("the example is no text")
    return example.media


class RewardPredictor:
    """The better answer of a pair; a number for a conversation that ends in an answer, larger for better answers."""

    labels: tuple[str, ...] = (FIRST, SECOND)
    task = PREFERENCE

    def __init__(self, model: Any, tokenizer: PreTrainedTokenizerBase, form: ChatFormat) -> None:
        self.model, self.tokenizer, self.form = model, tokenizer, form

    @property
    def parameters(self) -> int:
        return sum(each.numel() for each in self.model.parameters())

    def predict(self, examples: Sequence[Example]) -> list[Prediction]:
        """INVALID for an example that is neither a pair nor a conversation with an answer, or that is too long."""
        pairs = [parse_pair(str(each.media)) for each in examples]
        turns: list[tuple[Conversation, str]] = []
        for example, pair in zip(examples, pairs, strict=True):
            turns += [(pair.asked, pair.first), (pair.asked, pair.second)] if pair else [_last_turn(example)]
        numbers = iter(self.numbers(turns))
        return [
            preferred_answer(next(numbers), next(numbers)) if pair else Prediction(next(numbers), None, None)
            for pair in pairs
        ]

    def numbers(self, turns: Sequence[tuple[Conversation, str]]) -> list[float]:
        """A score per answer: larger is better, on this model's own scale."""
        try:
            ids = [
                chat_templates.tokenize_example(self.tokenizer, prompt, answer, self.form, "completion").ids
                for prompt, answer in turns
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
    """Tells this kind of folder from the others."""
    form: ChatFormat


def load_reward_model(folder: Path, threads: int = 1) -> RewardPredictor:
    """Load a reward model from a folder whose hashes were checked."""
    import torch

    torch.set_num_threads(threads)
    saved = _RewardManifest.model_validate(json.loads((folder / MANIFEST).read_text()))
    return RewardPredictor(causal_lm.load_scoring_model(folder).model, causal_lm.load_tokenizer(folder), saved.form)


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
