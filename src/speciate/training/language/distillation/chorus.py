"""One teacher or several, as the one model that trl's DistillationTrainer compares a student with.

Several speak as the mean of their logits: the normalised geometric mean of their chances. Logits are linear in the
last states, so those of all teachers side by side, under their heads side by side, give that mean exactly, with no
more memory for chances than one teacher takes. Rows of a head beyond the student's, which pad a vocabulary, are cut.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

from speciate.errors import Code, SpeciateError

SCALED = ("logit_scale", "output_multiplier", "lm_head_multiplier", "logits_scaling", "final_logit_softcapping")
"""What a configuration may do to logits after the head: trl does it, too, for one teacher."""


def same_vocabulary(student: Any, teacher: Any) -> bool:
    """Of two tokenizers: whether each number means the same to both."""
    return bool(student.get_vocab() == teacher.get_vocab())


def rows(model: Any) -> int:
    """Of its head: tokens that it gives a chance, those that only pad among them."""
    return int(model.get_output_embeddings().weight.shape[0])


def chorus(models: Sequence[Any], refs: Sequence[str], tokens: int) -> Any:
    """A module with `base_model`, `get_output_embeddings()` and `config`, as the trainer asks for. `tokens`: rows of
    the student's head. INVALID where they cannot be one."""
    import torch

    for model, ref in zip(models, refs, strict=True):
        if rows(model) < tokens:
            raise SpeciateError(
                Code.INVALID,
                f"{ref} gives {rows(model):,} tokens a chance, and the student {tokens:,}.",
                "Call train_model again with hyperparameters={'answers': 'teacher', 'weight': 0}.",
            )
        if len(models) > 1 and any(getattr(model.config, name, None) not in (None, 1.0) for name in SCALED):
            raise SpeciateError(
                Code.INVALID,
                f"{ref} scales its logits, and a mean with other teachers' would be of different things.",
                "Name it as the only teacher, or leave it out.",
            )

    class Backbones(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.each = torch.nn.ModuleList(model.base_model for model in models)

        def forward(self, **inputs: Any) -> Any:
            inputs.pop("logits_to_keep", None)  # the trainer cuts states itself
            states = [backbone(**inputs).last_hidden_state for backbone in self.each]
            return SimpleNamespace(last_hidden_state=states[0] if len(states) == 1 else torch.cat(states, -1))

    class Chorus(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.base_model = Backbones()
            self.head = _head([model.get_output_embeddings() for model in models], tokens)
            self.config = copy.deepcopy(models[0].config)
            self.config.get_text_config().vocab_size = tokens

        def get_output_embeddings(self) -> Any:
            return self.head

        def forward(self, *given: Any, **named: Any) -> Any:
            raise NotImplementedError("only its states and its head are asked for")

    return Chorus().requires_grad_(False).eval()


def _head(heads: Sequence[Any], tokens: int) -> Any:
    """(tokens, sum of widths): the mean of what all heads say of the states side by side."""
    import torch

    if len(heads) == 1 and heads[0].weight.shape[0] == tokens:
        return heads[0]
    weight = torch.cat([head.weight.detach()[:tokens] / len(heads) for head in heads], -1)
    biases = [head.bias for head in heads]
    made = torch.nn.Linear(weight.shape[1], tokens, bias=any(bias is not None for bias in biases), dtype=weight.dtype)
    made.weight.data = weight
    if made.bias is not None:
        made.bias.data = sum(bias.detach()[:tokens] / len(heads) for bias in biases if bias is not None)
    return made
