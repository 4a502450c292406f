"""The loop: it learns, resumes to the bit, keeps the effective batch, and says what went wrong."""

from __future__ import annotations

import pickle
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from speciate.errors import Code, SpeciateError
from speciate.models.backbones.contract import Item, States
from speciate.tasks.families.detection import Detection
from speciate.tasks.families.retrieval import Retrieval
from speciate.tasks.families.segmentation import Segmentation
from speciate.tasks.families.tokens import Tokens
from speciate.training.networks.batches import PreparedItems
from speciate.training.networks.optimizer import LoopParameters, learning_rate_factor
from speciate.training.networks.stopping import Diverged, LossWatch
from speciate.training.networks.training_checkpoints import TrainingState
from speciate.training.networks.training_loop import Training
from tests.training.networks.world import WIDTH, TinyBackbone, TwoLabels, held, media, training


def copied(state: TrainingState) -> TrainingState:
    tensors = {group: {name: each.clone() for name, each in held.items()} for group, held in state.tensors.items()}
    return TrainingState(state.facts, dict(tensors))


def whole(parameters: LoopParameters | None = None, **options: Any) -> str:
    learning = training(parameters, **options)
    learning.run_until(learning.total)
    return learning.digest()


def test_it_learns() -> None:
    learning, judged = training(LoopParameters(num_train_epochs=15, batch_size=8, learning_rate=0.02)), held()
    before = learning.evaluate(judged)
    learning.run_until(learning.total)
    after = learning.evaluate(judged)
    assert after.loss < before.loss / 2
    assert after.value > 0.9
    assert learning.best is not None
    assert learning.best.value == after.value


UNINTERRUPTED: dict[tuple[int, int | None], str] = {}


@pytest.mark.slow
@settings(max_examples=25, deadline=None)
@given(
    stops=st.lists(st.integers(0, 24), max_size=3),
    size=st.sampled_from([7, 8]),
    micro=st.sampled_from([None, 3]),
    noise=st.integers(0, 9),
)
def test_a_resumed_training_has_the_same_bits(stops: list[int], size: int, micro: int | None, noise: int) -> None:
    parameters = LoopParameters(
        num_train_epochs=4, batch_size=size, per_device_train_batch_size=micro, learning_rate=0.01
    )
    if (size, micro) not in UNINTERRUPTED:
        UNINTERRUPTED[size, micro] = whole(parameters)
    learning = training(parameters)
    for stop in sorted(stops):
        learning.run_until(stop)
        torch.rand(noise), np.random.rand(noise)  # what others draw meanwhile makes no difference
        learning.evaluate(held())
        saved = copied(learning.state())
        learning = training(parameters)
        learning.restore(saved)
    learning.run_until(learning.total)
    assert learning.digest() == UNINTERRUPTED[size, micro]


def test_another_seed_gives_other_weights_and_the_same_the_same() -> None:
    assert whole(seed=1) == whole(seed=1) != whole(seed=2)


def test_the_random_generators_of_the_process_are_left_alone() -> None:
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    training().run_until(7)
    assert torch.equal(torch.rand(3), expected)


def test_a_smaller_micro_batch_keeps_the_effective_one() -> None:
    class Mean(TwoLabels):
        """Without what depends on the batch: the sum over its parts is then the same gradient."""

    def run(micro: int) -> tuple[list[torch.Tensor], list[float]]:
        parameters = LoopParameters(
            num_train_epochs=1, batch_size=12, per_device_train_batch_size=micro, learning_rate=0.01
        )
        learning = training(parameters, count=48, task_head=Mean(), batch_norm=False)
        module: Any = learning.backbone.module
        module.dropout.p = 0.0
        losses = []
        with learning.random_states:
            losses = [learning.advance().loss for _ in range(learning.total)]
        return list(learning.head.parameters()), losses

    (one, losses), (other, others) = run(12), run(5)
    assert losses == pytest.approx(others, rel=1e-4)
    for a, b in zip(one, other, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-5)


TAGS = Tokens.fit([["a", "b", "c"]], {})
BOXES = Detection.fit([{"objects": [{"label": "a"}]}], {})


class Squares(TinyBackbone):
    """States of pictures: four places of two by two."""

    def collate(self, items: Sequence[Item]) -> dict[str, torch.Tensor]:
        return {"words": torch.stack([torch.from_numpy(np.resize(item["words"], 4)) for item in items])}

    def states(self, batch: dict[str, torch.Tensor]) -> States:
        mask = torch.ones_like(batch["words"], dtype=torch.bool)
        sequence = self.module(batch["words"], mask)
        return States(sequence, mask, sequence.mean(1), (2, 2))


def counted(task_head: Any, backbone: TinyBackbone, micro: int | None) -> Training:
    """Words with a tag each but the unknown, or pictures with none to three boxes."""
    given, _ = media(24)
    module: Any = backbone.module
    module.dropout.p, module.running = 0.0, torch.nn.Identity()
    if task_head is TAGS:
        targets = [np.array(words) % 4 - 1 for words in given]
    else:
        targets = [np.full((at % 4, 5), 0.5, np.float32) * (0, 1, 1, 1, 1) for at in range(24)]
    parameters = LoopParameters(
        num_train_epochs=1, batch_size=12, per_device_train_batch_size=micro, learning_rate=0.01
    )
    items = PreparedItems(given, backbone.prepare, backbone.length)
    return Training(backbone, task_head.head(WIDTH), task_head, items, targets, parameters, 0)


@pytest.mark.parametrize(("task_head", "backbone"), [(TAGS, TinyBackbone), (BOXES, Squares)])
@pytest.mark.parametrize("micro", [1, 5])
def test_parts_weigh_by_what_their_loss_is_the_mean_of(
    task_head: Any, backbone: type[TinyBackbone], micro: int
) -> None:
    steps, losses = [], []
    for size in (None, micro):
        torch.manual_seed(0)
        learning = counted(task_head, backbone(), size)
        losses.append(learning.judge(learning._items, learning._targets)[0])
        with learning.random_states:
            steps.append(learning.advance())
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)  # judging divides, too
    assert steps[0].loss == pytest.approx(steps[1].loss, rel=1e-5)
    assert steps[0].grad_norm == pytest.approx(steps[1].grad_norm, rel=1e-4)


@pytest.mark.parametrize(
    ("task_head", "batch_norm"),
    [(Retrieval.fit(["a", "b"], {}), False), (Segmentation(labels=("a",), side=32), False), (TwoLabels(), True)],
)
def test_what_needs_the_whole_batch_is_not_divided(task_head: Any, batch_norm: bool) -> None:
    whole = LoopParameters(batch_size=8)
    assert training(whole, task_head=task_head, batch_norm=batch_norm).micro_batch == 8
    with pytest.raises(SpeciateError, match="per_device_train_batch_size=3 would divide batches of 8") as refused:
        training(
            whole.model_copy(update={"per_device_train_batch_size": 3}), task_head=task_head, batch_norm=batch_norm
        )
    assert refused.value.code == Code.INVALID
    with pytest.raises(SpeciateError, match="out of memory") as advised:
        training(whole, task_head=task_head, batch_norm=batch_norm, memory_retries=1)
    assert "{'batch_size': 4}" in advised.value.recovery


def test_memory_retries_halve_the_micro_batch_alone() -> None:
    parameters = LoopParameters(batch_size=8)
    sizes = [training(parameters, batch_norm=False, memory_retries=times).micro_batch for times in range(5)]
    assert sizes == [8, 4, 2, 1, 1]
    assert training(parameters, batch_norm=False, memory_retries=2).epoch_steps == training(parameters).epoch_steps


def test_scores_come_in_the_order_of_the_items() -> None:
    learning, judged = training(), held()
    _, scores = learning.judge(judged.items, judged.targets)
    for place, expected in enumerate(scores):
        batch = learning.backbone.collate(judged.items.take(np.array([place])))
        with torch.inference_mode():
            alone = learning.task_head.scores(learning.head, learning.backbone.states(batch))[0]
        np.testing.assert_allclose(alone, expected, rtol=1e-4, atol=1e-6)


def test_norms_and_biases_are_not_pulled_to_zero() -> None:
    learning = training(LoopParameters(weight_decay=0.5))
    groups = learning._optimizer.param_groups
    names = {id(each): name for name, each in learning._module.named_parameters()}
    decayed = {names[id(each)] for group in groups if group["weight_decay"] for each in group["params"]}
    assert decayed == {"backbone.embed.weight", "backbone.mix.weight", "head.weight"}
    assert "backbone.frozen.weight" not in {names[id(each)] for group in groups for each in group["params"]}


@pytest.mark.parametrize(
    ("group", "break_it", "said"),
    [
        ("weights", lambda tensors: tensors.pop("head.weight"), "missing: 'head.weight'"),
        ("weights", lambda tensors: tensors.update(foreign=torch.zeros(1)), "unexpected: 'foreign'"),
        ("optimizer", lambda tensors: tensors.pop("head.weight.exp_avg"), "missing: 'head.weight.exp_avg'"),
        ("best", lambda tensors: tensors.pop("head.bias"), "missing: 'head.bias'"),
    ],
)
def test_a_key_that_does_not_match_is_fatal(group: str, break_it: Any, said: str) -> None:
    learning = training()
    learning.run_until(3)
    learning.evaluate(held())
    state = copied(learning.state())
    break_it(state.tensors[group])
    with pytest.raises(SpeciateError, match=said) as caught:
        training().restore(state)
    assert caught.value.code == Code.INVALID


def test_a_state_of_another_training_is_refused() -> None:
    learning = training()
    learning.run_until(3)
    with pytest.raises(SpeciateError, match="seed was 1 and is 2"):
        training(seed=2).restore(learning.state())
    other = training()
    other._module.get_parameter("backbone.frozen.weight").data += 1
    with pytest.raises(SpeciateError, match="frozen weights"):
        other.restore(learning.state())


def broken(kind: str) -> Training:
    class Breaks(TwoLabels):
        calls = 0

        def loss(self, head: Any, states: Any, targets: Any) -> torch.Tensor:
            self.calls += 1
            loss = super().loss(head, states, targets)
            if self.calls < 20:
                return loss
            return loss * float("nan") if kind == "nan" else loss + 1000

    parameters = LoopParameters(num_train_epochs=40, batch_size=8, learning_rate=0.02)
    return training(parameters, task_head=Breaks())


@pytest.mark.parametrize(("kind", "step", "what"), [("nan", 20, "no finite number"), ("large", 69, "for 50 steps")])
def test_a_diverged_training_stops_with_advice(kind: str, step: int, what: str) -> None:
    learning = broken(kind)
    with pytest.raises(Diverged, match=what) as caught:
        learning.run_until(learning.total)
    assert caught.value.code == Code.INVALID
    assert abs(caught.value.args[0] - step) <= 2, caught.value
    assert "'learning_rate': 0.00" in caught.value.recovery
    assert all(torch.isfinite(each).all() for each in learning.head.parameters())
    again = pickle.loads(pickle.dumps(caught.value))
    assert again.message == caught.value.message


@given(st.lists(st.floats(0.001, 3.0), min_size=100, max_size=300))
def test_a_loss_that_stays_in_bounds_is_no_divergence(losses: list[float]) -> None:
    watch = LossWatch()
    assert [watch.see(loss) for loss in [3.0] * 10 + losses] == [None] * (10 + len(losses))


@given(st.integers(1, 500), st.floats(0, 1))
def test_the_learning_rate_rises_then_falls(steps: int, warmup: float) -> None:
    factors = [learning_rate_factor(step, steps, warmup) for step in range(steps)]
    top = factors.index(max(factors))
    assert all(0 < each <= 1 for each in factors)
    assert factors[: top + 1] == sorted(factors[: top + 1])
    assert factors[top:] == sorted(factors[top:], reverse=True)
    stays = [learning_rate_factor(step, steps, warmup, "constant") for step in range(steps)]
    assert stays[: top + 1] == factors[: top + 1]
    assert set(stays[top:]) == {1.0}
