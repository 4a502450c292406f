"""A language model that answers: it writes on after the example, as it was trained to be asked.

A folder holds `predictor.json` (task, form, sampling) and what `save_pretrained` of transformers writes of model and
tokenizer: config, safetensors, chat template. A folder without the first is one that others made: it is asked by its
own chat template, greedily.
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
from speciate.language import bases, forms
from speciate.language.conversion import chat_template
from speciate.language.forms import Form
from speciate.language.generation import Sampling, write
from speciate.language.seeing import sees
from speciate.modalities.messages import conversation
from speciate.models import sealed
from speciate.tasks.contract import Prediction
from speciate.tasks.network import MANIFEST

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

TASK = "text-generation"


class _Manifest(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")
    format: int = 1
    task: str
    language: Literal[True] = True
    """What tells this kind of folder from the others."""
    form: Form
    sampling: Sampling


class WritingPredictor:
    labels: tuple[str, ...] = ()

    def __init__(
        self, model: Any, tokenizer: PreTrainedTokenizerBase, form: Form, sampling: Sampling, task: str = TASK
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
        chance = "greedily" if drawn.greedy else f"at temperature {drawn.temperature:g}, seed {drawn.seed}"
        system = ", with its own instructions" if self.form.system else ""
        return f"asked {spoken}{system}; answers {chance}, at most {drawn.max_new_tokens} tokens"

    def predict(self, examples: Sequence[Example]) -> list[Prediction]:
        """INVALID for an example that is no text or leaves no room for an answer."""
        if not examples:
            return []
        try:
            asked = [forms.asked(self.tokenizer, conversation(_text(each)), self.form) for each in examples]
            found = write(self.model, self.tokenizer, asked, self.sampling, longest=bases.longest(self.model))
        except ValueError as error:
            raise SpeciateError(
                Code.INVALID, "The model cannot answer this; untrusted says why.",
                "Ask again with a shorter or another text.", str(error),
            ) from error  # fmt: skip
        return [Prediction(one.text, None, None) for one in found]

    def save(self, folder: Path) -> str:
        """Write and seal a new model folder; returns its id. The same model gives the same bytes."""
        folder.mkdir(parents=True)
        manifest = _Manifest(task=self.task, form=self.form, sampling=self.sampling)
        (folder / MANIFEST).write_text(manifest.model_dump_json(indent=1))
        self.model.save_pretrained(folder)
        self.tokenizer.save_pretrained(folder)
        return sealed.seal(folder)


def load(folder: Path, threads: int = 1) -> WritingPredictor:
    """From a folder whose hashes were checked, ours or one that others made."""
    import torch

    torch.set_num_threads(threads)
    tokenizer, model = bases.load_tokenizer(folder), bases.load_model(folder)
    if not (folder / MANIFEST).is_file():
        return WritingPredictor(model, tokenizer, forms.usual_form(tokenizer), Sampling())
    said = _Manifest.model_validate(json.loads((folder / MANIFEST).read_text()))
    return WritingPredictor(model, tokenizer, said.form, said.sampling, said.task)


def identity(folder: Path, known: str) -> str:
    """What recorded answers of a model are known by: of one that others made, how it is asked is not in its files."""
    own = (folder / MANIFEST).is_file() or not (bases.writes(folder) or sees(folder))
    if own:
        return known
    chat = chat_template(folder) is not None or bases.packaged_weights(folder) is not None
    plain = "" if chat else " plain, from its beginning"  # answers without that were recorded by earlier versions
    return f"{known} {Sampling().model_dump_json()}{plain}"


def form_of(folder: Path) -> Form | None:
    """How a model of ours in this folder is asked; None of one that others made."""
    try:
        return _Manifest.model_validate(json.loads((folder / MANIFEST).read_text())).form
    except (OSError, ValueError):
        return None


def _text(example: Example) -> str:
    if not isinstance(example.media, str):
        raise ValueError("the example is no text")
    return example.media
