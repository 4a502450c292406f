"""trl's DistillationTrainer, taught to learn from answers that are given, beside those that the student writes.

What stands before it in the order of resolution hands it token ids of questions and answers in place of texts that it
would render, and completions that are there already in place of generating some; loss, divergence and batches are its
own. Held-out examples are always judged on the answers that are given, so that their loss is the same each time.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from speciate.language.forms import Lesson, answer_of, asked_of

if TYPE_CHECKING:
    import torch


def taught(trainer: type[Any]) -> type[Any]:
    return type(f"Taught{trainer.__name__}", (_Taught, trainer), {})


def rows(found: Sequence[Lesson], **more: Sequence[str]) -> Any:
    """A `datasets.Dataset` of token ids: what is asked, and the answer, which may be empty. `more`: other columns."""
    from datasets import Dataset

    return Dataset.from_dict({"prompt": list(map(asked_of, found)), "completion": list(map(answer_of, found)), **more})


class _Taught:
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
        """`share`: of steps that learn from the student's own answers. `weight`: of the teacher's chances; the rest
        learns the answers word by word."""
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
        loss = self.temperature**2 * loss  # gradients of softened chances shrink with its square (Hinton et al. 2015)
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
