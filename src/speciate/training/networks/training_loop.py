"""The training loop of one network, step by step; its whole state can be taken out and put back, to the bit.

Every recipe that trains our own networks is stepped here (`Training.advance`), also `lora`. Language models are stepped
by transformers' Trainer (training/language/durable_trainer.py). Nothing here writes a file or asks for the
time: durable_training.py does. A training that resumes from a state on the same machine, with the same number of
threads and the same micro-batch, ends in the same bits as without the break."""

from __future__ import annotations

import hashlib
import math
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from speciate.errors import CallAgain, Code, SpeciateError
from speciate.models.backbones.contract import Network, States
from speciate.tasks.task import ForwardLoss, HeldOutErrors, WeightedLoss, WholeBatchLoss
from speciate.training.networks import batches, optimizer
from speciate.training.networks.batches import Items
from speciate.training.networks.data_parallel import (
    ALONE,
    StepOrder,
    Team,
    own_share,
    places_per_process,
    receive,
    seed_of,
)
from speciate.training.networks.optimizer import LoopParameters, Precision, learning_rate_factor
from speciate.training.networks.random_state import RandomStates
from speciate.training.networks.stopping import Diverged, LossWatch
from speciate.training.networks.training_checkpoints import CheckpointFacts, TrainingState, check_names
from speciate.training.old_option_names import with_new_names

if TYPE_CHECKING:
    import torch


Targets = npt.NDArray[Any] | Sequence[Any]
Scores = list[npt.NDArray[Any]]
_FORMAT = 2


class TaskLoss(Protocol):
    """What the loop needs of a task head."""

    def loss(self, head: Any, states: States, targets: Any) -> torch.Tensor:
        """Scalar, mean over the batch's examples unless `WeightedLoss` or `WholeBatchLoss`."""
        ...

    def scores(self, head: Any, states: States) -> Sequence[npt.NDArray[Any]]:
        """One array per example of the batch."""
        ...


class Step(NamedTuple):
    number: int
    """Steps done, this one included."""
    loss: float
    learning_rate: float
    grad_norm: float
    """Norm of the gradient before it was clipped."""
    examples: int


class HeldOutData(NamedTuple):
    """Examples to judge by. `measure(scores)` is the metric, undefined where it gives NaN; without it, the loss is."""

    items: Items
    targets: Targets
    measure: Callable[[Scores], float] | None = None
    sign: int = 1
    """-1 where less is better."""
    show: Callable[[Training], None] | None = None
    """Called after each judgement: what the weights can do by then may be drawn. Changes nothing of the training."""


class Evaluation(NamedTuple):
    step: int
    loss: float
    value: float
    """The metric, or the loss."""
    scores: Scores
    better: bool
    """Whether it is better than every one before; always where the last weights are to be kept."""


class Best(NamedTuple):
    step: int
    value: float
    weights: dict[str, torch.Tensor]


class Training:
    """`most_steps`: the training and its schedule end there, if that is before its last epoch does.

    `memory_retries`: how often memory ran out before; each time halves the micro-batch, never the batch.

    INVALID where that, or `per_device_train_batch_size`, would divide what needs the whole batch: a loss
    that compares its examples, or a norm over them. Sets the backbone's module and the head to training; what does not
    require a gradient stays as it is.
    """

    def __init__(
        self,
        backbone: Network,
        head: torch.nn.Module,
        task_head: TaskLoss,
        items: Items,
        targets: Targets,
        parameters: LoopParameters,
        seed: int,
        *,
        memory_retries: int = 0,
        device: str = "cpu",
        team: Team = ALONE,
        most_steps: int | None = None,
    ) -> None:
        import torch

        self.backbone, self.head, self.task_head, self.parameters = backbone, head, task_head, parameters
        self._items, self._targets, self._seed = items, targets, seed
        self._device, self.team = torch.device(device), team
        self._moved = True
        """Its state is not that of its last step: others of the team have another one."""
        self._module = torch.nn.ModuleDict({"backbone": backbone.module, "head": head}).to(self._device)
        self._trained = {name: each for name, each in self._module.named_parameters() if each.requires_grad}
        self._optimizer = optimizer.adamw(self._module, parameters.learning_rate, parameters.weight_decay)
        self.micro_batch = batches.halve_batch(
            min(
                parameters.per_device_train_batch_size or parameters.batch_size,
                places_per_process(team, parameters.batch_size),
            ),
            memory_retries,
        )
        self.precision: Precision = parameters.precision
        """A trial may try the other one."""
        self.whole_batch = _needs_whole_batch(self._module, task_head)
        """Why a batch cannot be learned in parts, if it cannot."""
        self._check_division(ran_out=memory_retries > 0)
        self.epoch_steps = batches.step_count(len(items.lengths), parameters.batch_size)
        self.total = min(self.epoch_steps * parameters.num_train_epochs, most_steps or sys.maxsize)
        self.random_states = RandomStates(seed, self._device)
        self._epoch, self._batches = -1, list[npt.NDArray[np.int64]]()
        self._watch = LossWatch()
        self.step, self.evaluated, self.without_gain = 0, 0, 0
        self.enough = 0
        """Evaluations in a row that were enough for what is wanted."""
        self.last: Step | None = None
        self.best: Best | None = None

    @property
    def suspicious(self) -> bool:
        """The loss is out of bounds now: not worth keeping."""
        return self._watch.suspicious

    def _check_division(self, *, ran_out: bool) -> None:
        size = self.parameters.batch_size
        if not self.whole_batch or self.micro_batch >= size:
            return
        if self.team.size > 1:
            raise SpeciateError(
                Code.INVALID,
                f"{self.team.size} processes would divide batches of {size}, but {self.whole_batch}.",
                next=[CallAgain("train_model", {"resources": {"gpu": 1, "nodes": None}})],
            )
        if ran_out:
            raise check_divisible(self)
        raise SpeciateError(
            Code.INVALID,
            f"per_device_train_batch_size={self.micro_batch} would divide batches of {size}, but {self.whole_batch}.",
            next=[CallAgain("train_model", {"hyperparameters": _undivided(self.micro_batch)})],
        )

    def run_until(self, step: int) -> None:
        """Train until `step` steps are done in all. Raises Diverged."""
        with self.random_states:
            while self.step < min(step, self.total):
                self.advance()

    def advance(self) -> Step:
        """One step of the optimizer. Many of them belong into one `with training.random_states`."""
        import torch

        self.team.begin(self)
        self._moved = False
        places = self._batch()
        self._module.train()
        self._optimizer.zero_grad(set_to_none=True)
        parts, loss, counted = batches.parts(own_share(self.team, places), self.micro_batch), 0.0, 0
        divided = len(parts) > 1 or self.team.size > 1
        for part in parts:
            own, count = self._loss(self._items, self._targets, part)
            if divided:
                own = own * (max(count, 1) / len(places))
            own.backward()  # type: ignore[no-untyped-call]  # torch has no types for it
            loss, counted = loss + own.item(), counted + count
        loss, counted = self.team.add(list(self._trained.values()), loss, counted)
        gradients = [each.grad for each in self._trained.values() if each.grad is not None]
        if divided and counted != len(places):
            share = len(places) / max(counted, 1)
            loss *= share
            torch._foreach_mul_(gradients, share)
        norm = torch.nn.utils.get_total_norm(gradients)
        length = norm.item()
        given = self.parameters
        rate = given.learning_rate * learning_rate_factor(
            self.step, self.total, given.warmup_ratio, given.lr_scheduler_type
        )
        if not (math.isfinite(loss) and math.isfinite(length)):
            what = "the loss" if not math.isfinite(loss) else "the gradient"
            raise Diverged(self.step + 1, rate, f"{what} is no finite number")
        if length > self.parameters.max_grad_norm:
            torch.nn.utils.clip_grads_with_norm_(self._trained.values(), self.parameters.max_grad_norm, norm)
        for group in self._optimizer.param_groups:
            group["lr"] = rate
        self._optimizer.step()
        self.step += 1
        self.last = Step(self.step, loss, rate, length, len(places))
        if wrong := self._watch.see(loss):
            raise Diverged(self.step, rate, wrong)
        return self.last

    def evaluate(self, held: HeldOutData, between: Callable[[], None] = lambda: None) -> Evaluation:
        """Judge by `held`; the best weights so far are kept. `between` batches something may raise to stop it."""
        loss, scores = self.judge(held.items, held.targets, between)
        value = held.measure(scores) if held.measure else loss
        sign = held.sign if held.measure else -1
        better = math.isfinite(value) and (
            self.parameters.keep == "last" or self.best is None or sign * value > sign * self.best.value
        )
        if better:
            weights = {name: tensor.detach().clone() for name, tensor in self._weights().items()}
            self.best = Best(self.step, value, weights)
        self.evaluated, self.without_gain = self.step, 0 if better else self.without_gain + 1
        return Evaluation(self.step, loss, value, scores, better)

    def judge(self, items: Items, targets: Targets, between: Callable[[], None] = lambda: None) -> tuple[float, Scores]:
        """Mean loss, and the scores of each item in their order."""
        import torch

        self._module.eval()
        longest_first = np.argsort(-items.lengths, kind="stable")
        loss, counted, found = 0.0, 0, [np.empty(0)] * len(longest_first)
        with torch.inference_mode():
            for part in batches.parts(longest_first, self.micro_batch):
                between()
                own, count, made = self._judge_part(items, targets, part)
                loss, counted = loss + own * max(count, 1), counted + count
                for place, scores in zip(part.tolist(), made, strict=True):
                    found[place] = scores
        return loss / max(counted, 1), found

    def _judge_part(
        self, items: Items, targets: Targets, part: npt.NDArray[np.int64]
    ) -> tuple[float, int, Sequence[npt.NDArray[Any]]]:
        """Mean loss, over how many it is one, and the scores of each."""
        wanted = pick_rows(targets, part)
        if isinstance(self.task_head, HeldOutErrors):
            errors = self.task_head.held_out_errors(self.backbone, self._collated(items, part), wanted)
            return float(np.mean(errors)), len(errors), errors
        if isinstance(self.task_head, ForwardLoss):
            batch = self._collated(items, part)
            own, count = self.task_head.forward_loss(self.backbone, batch, wanted)
            return own.item(), count, self.task_head.forward_scores(self.backbone, batch)
        states = self.backbone.states(self._collated(items, part))
        own = self.task_head.loss(self.head, states, wanted)
        return own.item(), self._counted(states, wanted), self.task_head.scores(self.head, states)

    def adopt_best(self) -> None:
        """Put the best weights in place. Without an evaluation the last ones are the best."""
        self._moved = True
        if self.best is not None:
            _copy(self.best.weights, self._weights())

    def order(self, whole: bool) -> StepOrder:
        order = StepOrder(self.step, self.precision)
        if not (whole or self._moved):
            return order
        optimized = sorted(name for name, each in self._trained.items() if each in self._optimizer.state)
        return order._replace(optimized=optimized, identity=self._identity())

    def shared(self, optimized: Sequence[str]) -> list[torch.Tensor]:
        optimizer.keep_only_moments(self._optimizer, self._trained, optimized)
        moments = optimizer.optimizer_moments(self._optimizer, self._trained)
        return [*self._weights().values(), *moments.values()]

    def follow(self, order: StepOrder) -> None:
        """Take the step that the leader of the team takes."""
        if order.optimized is not None:
            receive(self, order, self._identity())
        self.step, self.precision = order.step, order.precision
        with self.random_states:
            self.random_states.begin(seed_of(self._seed, self.team.rank, self.step))
            self.advance()

    def state(self) -> TrainingState:
        """To be saved or restored before the next step: it shares memory with the training."""
        facts = {
            **self._identity(),
            "step": self.step,
            "epoch": self.step // self.epoch_steps,
            "evaluated": self.evaluated,
            "without_gain": self.without_gain,
            "enough": self.enough,
            "last": self.last,
            "best": self.best and [self.best.step, self.best.value],
            "watch": self._watch.state(),
            "chance": self.random_states.state,
            "optimized": sorted(name for name, each in self._trained.items() if each in self._optimizer.state),
        }
        tensors: dict[str, Mapping[str, torch.Tensor]] = {
            "weights": self._weights(),
            "optimizer": optimizer.optimizer_moments(self._optimizer, self._trained),
            "best": self.best.weights if self.best else {},
        }
        return TrainingState(facts, tensors)

    def restore(self, state: TrainingState) -> None:
        """Go on from there. INVALID, naming it, where the state is of another training or a key does not match."""
        facts, tensors = state
        known = facts | {"parameters": with_new_names(LoopParameters, facts.get("parameters", {}))}
        for what, own in self._identity().items():
            if known.get(what) != own:
                raise SpeciateError(
                    Code.INVALID,
                    f"The checkpoint is of another training: {what} was {known.get(what)!r} and is {own!r}.",
                    "Call train_model again to begin anew.",
                )
        here, self._moved = self._weights(), True
        check_names(tensors, ("weights", "optimizer", "best"), "groups")
        check_names(tensors["weights"], here, "weights")
        check_names(tensors["best"], here if facts["best"] else (), "best weights")
        check_names(tensors["optimizer"], optimizer.moment_names(facts["optimized"]), "moments")
        check_names(set(facts["optimized"]) - set(self._trained), (), "optimized parameters")
        _copy(tensors["weights"], here)
        optimizer.set_moments(self._optimizer, self._trained, tensors["optimizer"])
        best = {name: tensors["best"][name].to(self._device).clone() for name in tensors["best"]}
        self.best = Best(facts["best"][0], facts["best"][1], best) if facts["best"] else None
        self.step, self.evaluated, self.without_gain = facts["step"], facts["evaluated"], facts["without_gain"]
        self.enough = facts.get("enough", 0)  # checkpoints of before have none
        self.last = Step(*facts["last"]) if facts["last"] else None
        self._watch.restore(facts["watch"])
        self.random_states.state = facts["chance"]

    def digest(self) -> str:
        """sha256 of every parameter and buffer, frozen ones included."""
        return _digest(self._module.state_dict().items())

    def _batch(self) -> npt.NDArray[np.int64]:
        epoch, place = divmod(self.step, self.epoch_steps)
        if epoch != self._epoch:
            made = batches.batches(self._items.lengths, self.parameters.batch_size, self._seed, epoch)
            self._epoch, self._batches = epoch, made
        return self._batches[place]

    def _collated(self, items: Items, places: npt.NDArray[np.int64]) -> dict[str, torch.Tensor]:
        batch = self.backbone.collate(items.take(places))
        if self._device.type != "cpu":
            batch = {name: tensor.to(self._device, non_blocking=True) for name, tensor in batch.items()}
        return batch

    def _loss(self, items: Items, targets: Targets, part: npt.NDArray[np.int64]) -> tuple[torch.Tensor, int]:
        """With over how many it is the mean. Heads and losses are float32, whatever the backbone computes in."""
        import torch

        wanted = pick_rows(targets, part)
        with torch.autocast(self._device.type, torch.bfloat16, enabled=self.precision == "bfloat16"):
            batch = self._collated(items, part)
            if isinstance(self.task_head, ForwardLoss):
                loss, counted = self.task_head.forward_loss(self.backbone, batch, wanted)
                return loss.float(), counted
            states = self.backbone.states(batch)
        if self.precision != "float32":
            states = states._replace(sequence=states.sequence.float(), pooled=states.pooled.float())
        return self.task_head.loss(self.head, states, wanted), self._counted(states, wanted)

    def _counted(self, states: States, targets: Any) -> int:
        return self.task_head.counted(states, targets) if isinstance(self.task_head, WeightedLoss) else len(targets)

    def _weights(self) -> dict[str, torch.Tensor]:
        """What training changes: parameters with a gradient, each once where several names share it, and buffers."""
        kept = self._module.state_dict().keys()
        return self._trained | {name: each for name, each in self._module.named_buffers() if name in kept}

    def _identity(self) -> CheckpointFacts:
        """What must be the same for a state to fit."""
        if not hasattr(self, "_known_identity"):
            frozen = ((name, each) for name, each in self._module.named_parameters() if not each.requires_grad)
            self._known_identity = {
                "format": _FORMAT,
                "parameters": self.parameters.model_dump(exclude={"per_device_train_batch_size", "keep"}),
                "seed": self._seed,
                "lengths": hashlib.sha256(self._items.lengths.tobytes()).hexdigest(),
                "frozen weights": _digest(frozen),
            }
        return self._known_identity


def check_divisible(training: Training) -> SpeciateError:
    """Memory ran out, and smaller parts are no way."""
    size = training.parameters.batch_size
    return SpeciateError(
        Code.INVALID,
        f"The training ran out of memory with batches of {size}, and they cannot be divided: {training.whole_batch}.",
        "A smaller base model needs less, too.",
        next=[CallAgain("train_model", {"hyperparameters": _undivided(max(1, size // 2))})],
    )


def _undivided(size: int) -> dict[str, int | None]:
    return {"batch_size": size, "per_device_train_batch_size": None}


def _needs_whole_batch(module: torch.nn.Module, task_head: TaskLoss) -> str | None:
    from torch.nn.modules.batchnorm import _BatchNorm

    if isinstance(task_head, WholeBatchLoss):
        return "the loss of this task is over all examples of a batch together"
    if any(isinstance(each, _BatchNorm) for each in module.modules()):
        return "this network's norms are over all examples of a batch together (BatchNorm)"
    return None


def pick_rows(targets: Targets, places: npt.NDArray[np.int64]) -> Any:
    return targets[places] if isinstance(targets, np.ndarray) else [targets[place] for place in places.tolist()]


def _copy(source: Mapping[str, torch.Tensor], target: Mapping[str, torch.Tensor]) -> None:
    import torch

    with torch.no_grad():
        for name, tensor in target.items():
            tensor.copy_(source[name])


def _digest(tensors: Iterable[tuple[str, torch.Tensor]]) -> str:
    import torch

    digest = hashlib.sha256()
    for name, tensor in sorted(tensors, key=lambda pair: pair[0]):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()
