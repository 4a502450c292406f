"""trl's DistillationTrainer with given answers, an ensemble of teachers, and teachers of another vocabulary.

What stands before it in the order of resolution hands it token ids of questions and answers in place of texts that it
would render, and completions that are there already in place of generating some; loss, divergence and batches are its
own. Held-out examples are always evaluated on the given answers, so that their loss is the same each time."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, NamedTuple

from speciate.errors import CallAgain, Code, SpeciateError
from speciate.models.language.chat_templates import TokenizedExample, completion_tokens, prompt_tokens
from speciate.training.language import cross_tokenizer
from speciate.training.language.cross_tokenizer import NOWHERE, CrossTokenizerTeacher

if TYPE_CHECKING:
    import torch


def with_given_answers(trainer: type[Any]) -> type[Any]:
    return type(f"Taught{trainer.__name__}", (_GivenAnswers, trainer), {})


def answer_rows(found: Sequence[TokenizedExample], **more: Sequence[str]) -> Any:
    """A `datasets.Dataset` of token ids: what is asked, and the answer, which may be empty. `more`: other columns."""
    from datasets import Dataset

    return Dataset.from_dict(
        {"prompt": list(map(prompt_tokens, found)), "completion": list(map(completion_tokens, found)), **more}
    )


class _GivenAnswers:
    """`learn(share, weight)` says how, before it begins."""

    # The trainer's
    model: Any
    accelerator: Any
    _metrics: dict[str, dict[str, list[float]]]
    temperature: float

    _share = 0.0
    _weight = 1.0
    _states: torch.Tensor | None = None

    def learn(self, share: float, weight: float) -> None:
        """`share`: of steps that learn from the student's own answers. `weight`: of the teacher's probabilities; the
        rest learns the answers word by word."""
        self._share, self._weight = share, weight

    def _generate_and_score_completions(self, inputs: Any) -> Any:
        self._given = [each["completion"] for each in inputs]
        return super()._generate_and_score_completions(inputs)  # type: ignore[misc]

    def _tokenize_prompts(self, prompts: Any) -> Any:
        return prompts, None, {}

    def _generate_single_turn(self, prompt_ids: Any, *given: Any, **named: Any) -> Any:
        if not self._writes():
            return self._given
        return super()._generate_single_turn(prompt_ids, *given, **named)  # type: ignore[misc]

    def _writes(self) -> bool:
        """Whether the student writes the answers of this step; by chance, which follows from the seed and the step."""
        import torch

        if not self.model.training or not self._share:
            return False
        return self._share >= 1 or float(torch.rand(())) < self._share

    def log(self, logs: dict[str, float], *given: Any, **named: Any) -> None:
        """Lengths of answers that are given say nothing of the student."""
        for mode in ("eval", *(() if self._share else ("train",))):
            for name in [each for each in self._metrics[mode] if each.startswith("completions/")]:
                del self._metrics[mode][name]
        super().log(logs, *given, **named)  # type: ignore[misc]

    def _get_last_hidden_state(self, *given: Any, **named: Any) -> Any:
        found = super()._get_last_hidden_state(*given, **named)  # type: ignore[misc]
        if self._states is None:
            self._states = found  # the student's come first
        return found

    def _compute_loss(self, student: Any, inputs: Any, num_items_in_batch: Any) -> Any:
        self._states = None
        loss, entropy, valid = super()._compute_loss(student, inputs, num_items_in_batch)  # type: ignore[misc]
        loss = (
            self.temperature**2 * loss
        )  # gradients of softened probabilities shrink with its square (Hinton et al. 2015)
        if self._weight < 1:
            loss = self._weight * loss + (1 - self._weight) * self._words(student, inputs, num_items_in_batch)
        self._states = None
        return loss, entropy, valid

    def _words(self, student: Any, inputs: Any, num_items_in_batch: Any) -> torch.Tensor:
        """Cross-entropy of the answers, over the same tokens."""
        import torch

        mask = inputs["completion_mask"].bool()
        states, head = self._states, student.get_output_embeddings()
        assert states is not None, "the loss has asked for them"
        logits = torch.nn.functional.linear(states[mask], head.weight, head.bias).float()
        lost = torch.nn.functional.cross_entropy(logits, inputs["completion_ids"][mask], reduction="sum")
        mean: torch.Tensor = lost / (mask.sum().clamp(min=1) if num_items_in_batch is None else num_items_in_batch)
        return mean


SCALED = ("logit_scale", "output_multiplier", "lm_head_multiplier", "logits_scaling", "final_logit_softcapping")
"""What a configuration may do to logits after the head: trl does it, too, for one teacher."""


def same_vocabulary(student: Any, teacher: Any) -> bool:
    """Whether each token number means the same to both tokenizers."""
    return bool(student.get_vocab() == teacher.get_vocab())


def head_rows(model: Any) -> int:
    """Rows of its head: tokens that it gives a probability, with those that only pad."""
    return int(model.get_output_embeddings().weight.shape[0])


def teacher_ensemble(models: Sequence[Any], refs: Sequence[str], tokens: int) -> Any:
    """One teacher or several as the one model that trl's DistillationTrainer compares a student with.

    A module with `base_model`, `get_output_embeddings()` and `config`. `tokens`: rows of the student's head. INVALID
    where the models cannot be one. Several give the mean of their logits: the normalised geometric mean of their
    probabilities. Logits are linear in the last states, so the states of all teachers side by side, under their heads
    side by side, give that mean exactly, with no more memory for probabilities than one teacher takes. Rows of a head
    beyond the student's, which pad a vocabulary, are cut.
    """
    import torch

    for model, ref in zip(models, refs, strict=True):
        if head_rows(model) < tokens:
            raise SpeciateError(
                Code.INVALID,
                f"{ref} gives {head_rows(model):,} tokens a probability, and the student {tokens:,}.",
                next=[CallAgain("train_model", {"hyperparameters": {"answers": "teacher", "weight": 0}})],
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

    class Ensemble(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.base_model = Backbones()
            self.head = _stacked_head([model.get_output_embeddings() for model in models], tokens)
            self.config = copy.deepcopy(models[0].config)
            self.config.get_text_config().vocab_size = tokens

        def get_output_embeddings(self) -> Any:
            return self.head

        def forward(self, *given: Any, **named: Any) -> Any:
            raise NotImplementedError("only its states and its head are asked for")

    return Ensemble().requires_grad_(False).eval()


def _stacked_head(heads: Sequence[Any], tokens: int) -> Any:
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


_CELLS = 2**24
"""Probabilities in memory at once, of one model."""


def with_cross_tokenizer_teacher(trainer: type[Any]) -> type[Any]:
    return with_given_answers(type(f"Across{trainer.__name__}", (_CrossTokenizer, trainer), {}))


class _CrossTokenizer:
    """The loss of a trainer whose teacher has another vocabulary. It replaces that of trl's trainer.

    The teacher reads the answers in its own tokens. The probabilities of both models are compared wherever both are at
    the same place of the text (cross_tokenizer.py). What the teacher reads is made with the answers and travels with
    them through trl's micro-batches, so it is no state. Heads are applied to some rows at a time, and again in the
    backward pass, so that no table of all probabilities is in memory. `learn_across` comes before the training begins;
    each row has the teacher's question as `asked`.
    """

    # The trainer's
    model: Any
    accelerator: Any
    _metrics: dict[str, dict[str, list[float]]]
    _get_last_hidden_state: Callable[..., Any]
    _forward_redirection: Callable[..., Any]
    temperature: float
    beta: float

    def learn_across(self, teacher: Any, view: CrossTokenizerTeacher) -> None:
        """`teacher`: as `teacher_ensemble` makes it, of one."""
        import torch

        self.teacher_model = self.accelerator.prepare_model(teacher, evaluation_mode=True)
        self._view, device = view, self.accelerator.device
        of = view.outcomes
        self._outcomes = torch.tensor(of.student, device=device), torch.tensor(of.teacher, device=device)

    def _generate_and_score_completions(self, inputs: Any) -> Any:
        made = super()._generate_and_score_completions(inputs)  # type: ignore[misc]
        answers = [
            ids[mask.bool()].tolist() for ids, mask in zip(made["completion_ids"], made["completion_mask"], strict=True)
        ]
        shown = [self._view.shown(each["asked"], answer) for each, answer in zip(inputs, answers, strict=True)]
        width = made["completion_ids"].size(1)
        read = max(2, *(len(each.ids) for each in shown))
        return made | {
            "groups": self._padded([each.groups.student for each in shown], width, NOWHERE),
            "read_ids": self._padded([each.ids for each in shown], read, 0),
            "read_mask": self._padded([[1] * len(each.ids) for each in shown], read, 0),
            "read_groups": self._padded([each.groups.teacher for each in shown], read, NOWHERE),
            "spaced": self._padded([[each.spaced] for each in shown], 1, 0),
        }

    def _padded(self, rows: Sequence[Sequence[int]], width: int, padding: int) -> torch.Tensor:
        """Tensor (rows, width) of the rows, padded on the right."""
        import torch

        full = [[*row, *[padding] * (width - len(row))] for row in rows]
        return torch.tensor(full, dtype=torch.long, device=self.accelerator.device)

    def _compute_loss(self, student: Any, inputs: Any, num_items_in_batch: Any) -> Any:
        """The loss by token of the student's answers, as where the vocabulary is the same; entropies are over
        outcomes, summed, and the places that they are of are counted."""
        import torch

        ids = torch.cat([inputs["prompt_ids"], inputs["completion_ids"]], 1)
        mask = torch.cat([inputs["prompt_mask"], inputs["completion_mask"]], 1)
        states = self._get_last_hidden_state(student, ids, mask, inputs["completion_ids"].size(1))
        own = _make_side(states, inputs["completion_ids"], inputs["groups"], student, self._outcomes[0])
        with torch.no_grad():
            teacher = self.accelerator.unwrap_model(self.teacher_model)
            read, seen = inputs["read_ids"], inputs["read_mask"]
            its_states = self._forward_redirection(
                self.teacher_model, teacher, self._get_last_hidden_state, teacher, read, seen, read.size(1) - 1
            )
            its = _make_side(its_states, read[:, 1:], inputs["read_groups"][:, 1:], teacher, self._outcomes[1])
        first = (inputs["groups"] == 0) & inputs["spaced"].bool()
        alike = ~first[inputs["groups"] != NOWHERE][own.places]
        lost, entropy = self._lost(own, its, alike)
        answered = inputs["completion_mask"].sum()
        self._metrics["train" if self.model.training else "eval"]["compared"].append(
            float(len(own.tokens) / answered.clamp(min=1))
        )
        loss = (lost + 0.0 * states.sum()) / (
            answered.clamp(min=1) if num_items_in_batch is None else num_items_in_batch
        )
        return loss, entropy, alike.sum()

    def _lost(self, own: _TeacherSide, its: _TeacherSide, alike: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """The divergence and the student's entropy, summed over all groups. `alike`: (G,) of bool, the groups
        before which both tokenizers have a boundary, so that both predict the same text."""
        import torch

        size, temperature, beta = self._view.outcomes.size, self.temperature, self.beta
        mine_at, its_at = own.places[alike], its.places[alike]

        def next_(some: slice) -> tuple[torch.Tensor, torch.Tensor]:
            mine = cross_tokenizer.log_outcome_probabilities(own.logits(mine_at[some], temperature), own.outcome, size)
            with torch.no_grad():
                scores = its.logits(its_at[some], temperature)
                theirs = cross_tokenizer.log_outcome_probabilities(scores, its.outcome, size)
            lost = cross_tokenizer.divergence(mine, theirs, beta).sum()
            return lost, -(mine.exp() * mine).detach().sum()

        many = (own.sizes > 1) | (its.sizes > 1) | ~alike
        lost, entropy = own.states.new_zeros((), dtype=torch.float32), own.states.new_zeros((), dtype=torch.float32)
        for found, spread in _by_parts(next_, len(mine_at), max(own.rows, its.rows)):
            lost, entropy = lost + found, entropy + spread
        if bool(many.any()):
            mine = own.written(many, temperature)
            with torch.no_grad():
                theirs = its.written(many, temperature)
            lost = (
                lost
                + cross_tokenizer.divergence(
                    cross_tokenizer.log_written_or_else(mine), cross_tokenizer.log_written_or_else(theirs), beta
                ).sum()
            )
        return lost, entropy


class _TeacherSide(NamedTuple):
    """One model at the tokens of an answer that stand in groups, N of them in G groups of all answers."""

    states: torch.Tensor
    """(N, H): those that say what comes next, before each token."""
    tokens: torch.Tensor
    """(N,): what came."""
    number: torch.Tensor
    """(N,): its group, numbered through."""
    places: torch.Tensor
    """(G,): where groups begin, among the N."""
    sizes: torch.Tensor
    """(G,): tokens of each group."""
    head: Any
    scale: float
    softcap: float | None
    outcome: torch.Tensor
    """(V,): of each row of the head."""

    @property
    def rows(self) -> int:
        return len(self.outcome)

    def logits(self, places: torch.Tensor, temperature: float) -> torch.Tensor:
        """(P, V) in float32."""
        import torch

        found = torch.nn.functional.linear(self.states[places], self.head.weight, self.head.bias).float() * self.scale
        if self.softcap is not None:
            found = self.softcap * torch.tanh(found / self.softcap)
        return found / temperature

    def written(self, groups: torch.Tensor, temperature: float) -> torch.Tensor:
        """Log probabilities of what these groups (G,) of bool write: products of its tokens' (chain rule)."""
        import torch

        inside = groups[self.number].nonzero()[:, 0]

        def log_probabilities(some: slice) -> tuple[torch.Tensor]:
            places = inside[some]
            return (cross_tokenizer.log_token_probabilities(self.logits(places, temperature), self.tokens[places]),)

        found = torch.cat([part for (part,) in _by_parts(log_probabilities, len(inside), self.rows)])
        return found.new_zeros(len(self.sizes)).index_add(0, self.number[inside], found)[groups]


def _make_side(
    states: torch.Tensor, tokens: torch.Tensor, groups: torch.Tensor, model: Any, outcome: torch.Tensor
) -> _TeacherSide:
    """A model's side of the comparison, from states (B, T, H), tokens (B, T) and groups (B, T). A group's tokens stand
    side by side."""
    import torch

    there = groups != NOWHERE
    first = there & (groups != torch.nn.functional.pad(groups[:, :-1], (1, 0), value=NOWHERE))
    begins = first[there]
    number = begins.cumsum(0) - 1
    places = begins.nonzero()[:, 0]
    sizes = torch.bincount(number, minlength=len(places))
    scale, softcap = _logit_scale(model.config.get_text_config())
    return _TeacherSide(
        states[there], tokens[there], number, places, sizes, model.get_output_embeddings(), scale, softcap, outcome
    )


def _by_parts(what: Callable[[slice], Any], size: int, rows: int) -> list[Any]:
    """Apply `what` to `size` places, a part at a time, each computed again in the backward pass."""
    import torch
    from torch.utils.checkpoint import checkpoint

    step = max(1, _CELLS // rows)
    parts = [slice(start, start + step) for start in range(0, size, step)]
    if not torch.is_grad_enabled():
        return [what(part) for part in parts]
    return [checkpoint(what, part, use_reentrant=False, preserve_rng_state=False) for part in parts]


def _logit_scale(config: Any) -> tuple[float, float | None]:
    """What a model does to its logits after the head, as trl's DistillationTrainer reads its configuration (1.16)."""
    for name in ("logit_scale", "output_multiplier", "lm_head_multiplier"):
        if (found := getattr(config, name, None)) is not None:
            return float(found), getattr(config, "final_logit_softcapping", None)
    divided = getattr(config, "logits_scaling", None)
    scale = 1.0 if divided is None else divided if config.model_type == "hyperclovax" else 1 / divided
    return float(scale), getattr(config, "final_logit_softcapping", None)
