"""The trainer of taught_trainer.py, for a teacher of another vocabulary.

The teacher reads the answers in its own tokens; both models' chances are compared wherever the two are at the same
place of the text (differing.py). What it reads is made with the answers and travels with them through trl's
micro-batches, so it is no state: a function of what was written. Heads are applied to some rows at a time and again in
the backward pass, so that no table of all chances is held.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from speciate.training.language.distillation import differing, taught_trainer
from speciate.training.language.distillation.across import Stranger
from speciate.training.language.distillation.alignment import NOWHERE

if TYPE_CHECKING:
    import torch

_CELLS = 2**24
"""Chances in memory at once, of one model."""


def taught_across(trainer: type[Any]) -> type[Any]:
    return taught_trainer.taught(type(f"Across{trainer.__name__}", (_Across, trainer), {}))


class _Across:
    """Between `_Taught` and trl's trainer, whose loss it replaces. `learn_across` comes before it begins; each row has
    the teacher's question as `asked`."""

    # The trainer's
    model: Any
    accelerator: Any
    _metrics: dict[str, dict[str, list[float]]]
    _get_last_hidden_state: Callable[..., Any]
    _forward_redirection: Callable[..., Any]
    temperature: float
    beta: float

    def learn_across(self, teacher: Any, stranger: Stranger) -> None:
        """`teacher`: a module as chorus.py makes it, of one."""
        import torch

        self.teacher_model = self.accelerator.prepare_model(teacher, evaluation_mode=True)
        self._stranger, device = stranger, self.accelerator.device
        of = stranger.outcomes
        self._outcomes = torch.tensor(of.student, device=device), torch.tensor(of.teacher, device=device)

    def _generate_and_score_completions(self, inputs: Any) -> Any:
        made = super()._generate_and_score_completions(inputs)  # type: ignore[misc]
        answers = [
            ids[mask.bool()].tolist() for ids, mask in zip(made["completion_ids"], made["completion_mask"], strict=True)
        ]
        shown = [self._stranger.shown(each["asked"], answer) for each, answer in zip(inputs, answers, strict=True)]
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
        """On the right."""
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
        own = _side(states, inputs["completion_ids"], inputs["groups"], student, self._outcomes[0])
        with torch.no_grad():
            teacher = self.accelerator.unwrap_model(self.teacher_model)
            read, seen = inputs["read_ids"], inputs["read_mask"]
            its_states = self._forward_redirection(
                self.teacher_model, teacher, self._get_last_hidden_state, teacher, read, seen, read.size(1) - 1
            )
            its = _side(its_states, read[:, 1:], inputs["read_groups"][:, 1:], teacher, self._outcomes[1])
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

    def _lost(self, own: _Side, its: _Side, alike: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """The divergence and the student's entropy, summed over all groups. `alike`: (G,) of bool, those before which
        the two tell what may come next in the same words (`Shown.spaced`)."""
        import torch

        size, heat, towards = self._stranger.outcomes.size, self.temperature, self.beta
        mine_at, its_at = own.places[alike], its.places[alike]

        def next_(some: slice) -> tuple[torch.Tensor, torch.Tensor]:
            mine = differing.of_outcomes(own.logits(mine_at[some], heat), own.outcome, size)
            with torch.no_grad():
                theirs = differing.of_outcomes(its.logits(its_at[some], heat), its.outcome, size)
            lost = differing.divergence(mine, theirs, towards).sum()
            return lost, -(mine.exp() * mine).detach().sum()

        many = (own.sizes > 1) | (its.sizes > 1) | ~alike
        lost, entropy = own.states.new_zeros((), dtype=torch.float32), own.states.new_zeros((), dtype=torch.float32)
        for found, spread in _by_parts(next_, len(mine_at), max(own.rows, its.rows)):
            lost, entropy = lost + found, entropy + spread
        if bool(many.any()):
            mine = own.written(many, heat)
            with torch.no_grad():
                theirs = its.written(many, heat)
            lost = lost + differing.divergence(differing.or_else(mine), differing.or_else(theirs), towards).sum()
        return lost, entropy


class _Side(NamedTuple):
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

    def logits(self, places: torch.Tensor, heat: float) -> torch.Tensor:
        """(P, V) in float32."""
        import torch

        found = torch.nn.functional.linear(self.states[places], self.head.weight, self.head.bias).float() * self.scale
        if self.softcap is not None:
            found = self.softcap * torch.tanh(found / self.softcap)
        return found / heat

    def written(self, groups: torch.Tensor, heat: float) -> torch.Tensor:
        """Logarithms of the chances of what these groups (G,) of bool write: products of its tokens' (chain rule)."""
        import torch

        inside = groups[self.number].nonzero()[:, 0]

        def chance(some: slice) -> tuple[torch.Tensor]:
            places = inside[some]
            return (differing.of_written(self.logits(places, heat), self.tokens[places]),)

        found = torch.cat([part for (part,) in _by_parts(chance, len(inside), self.rows)])
        return found.new_zeros(len(self.sizes)).index_add(0, self.number[inside], found)[groups]


def _side(states: torch.Tensor, tokens: torch.Tensor, groups: torch.Tensor, model: Any, outcome: torch.Tensor) -> _Side:
    """Of states (B, T, H), tokens (B, T) and groups (B, T). A group's tokens stand side by side."""
    import torch

    there = groups != NOWHERE
    first = there & (groups != torch.nn.functional.pad(groups[:, :-1], (1, 0), value=NOWHERE))
    begins = first[there]
    number = begins.cumsum(0) - 1
    places = begins.nonzero()[:, 0]
    sizes = torch.bincount(number, minlength=len(places))
    scale, softcap = _scaled(model.config.get_text_config())
    return _Side(
        states[there], tokens[there], number, places, sizes, model.get_output_embeddings(), scale, softcap, outcome
    )


def _by_parts(what: Callable[[slice], Any], size: int, rows: int) -> list[Any]:
    """Of so many places a part at a time, each computed again in the backward pass."""
    import torch
    from torch.utils.checkpoint import checkpoint

    step = max(1, _CELLS // rows)
    parts = [slice(start, start + step) for start in range(0, size, step)]
    if not torch.is_grad_enabled():
        return [what(part) for part in parts]
    return [checkpoint(what, part, use_reentrant=False, preserve_rng_state=False) for part in parts]


def _scaled(config: Any) -> tuple[float, float | None]:
    """What a model does to its logits after the head, as trl's DistillationTrainer reads its configuration (1.16)."""
    for name in ("logit_scale", "output_multiplier", "lm_head_multiplier"):
        if (found := getattr(config, name, None)) is not None:
            return float(found), getattr(config, "final_logit_softcapping", None)
    divided = getattr(config, "logits_scaling", None)
    scale = 1.0 if divided is None else divided if config.model_type == "hyperclovax" else 1 / divided
    return float(scale), getattr(config, "final_logit_softcapping", None)
