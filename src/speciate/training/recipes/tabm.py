"""Learner `tabm`: many perceptrons in one, for tables (models/perceptrons.py), by torch, on one thread, in seconds.

Each member learns the targets by itself, which keeps their errors apart. Held-out examples say when to stop: tables of
the same size want 100 steps or 1,000. They would judge it too kindly then, so its scores of each part of them are those
of the pass that the other parts found best. Where the caller holds none out, three networks hold out a fifth each, and
their mean is the model.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt

from speciate.models.perceptrons import Perceptrons, side_by_side, with_ranks
from speciate.training.selection.learners import StoppedByHeld

if TYPE_CHECKING:
    import torch

Targets = npt.NDArray[Any]
Held = tuple[Any, Targets, npt.NDArray[np.int64]]
"""Inputs (M, D), targets and parts (M,) of examples that say when to stop."""
Losses = Callable[["torch.Tensor", "torch.Tensor"], "torch.Tensor"]
"""Outputs (N, K) and targets (N,) -> (N,)"""
NAME = "tabm"
_MEMBERS, _LARGEST_GRADIENT = 8, 1.0


class Settings(NamedTuple):
    """How one network is made and learns."""

    width: int = 128
    dropout: float = 0.1
    rate: float = 2e-3
    decay: float = 3e-4


USUAL = Settings()
_SMALLEST_BATCH, _LARGEST_BATCH, _BATCHES = 32, 256, 8
"""A pass over the examples has `_BATCHES` batches where that keeps their size between those."""
_EPOCHS, _PATIENCE, _USUAL_EPOCHS = 120, 16, 60
"""Passes at most; passes without a smaller loss, after which it ends; passes that a training usually takes."""
NETWORKS, _HELD_SHARE = 3, 5
_KNOTS, _FEWEST_VALUES = 65, 10
"""Values of a column below which its rank says nothing more."""
_FEWEST, _MOST_COLUMNS = 60, 300
_PER_SECOND = 1.5e10
"""Multiplications of a core, as measured here with matrices of these sizes."""


def too_large(rows: int, columns: int, classes: int) -> str | None:
    if rows < _FEWEST:
        return f"{rows} examples are fewer than {_FEWEST}"
    return f"{columns:,} columns are more than {_MOST_COLUMNS}" if columns > _MOST_COLUMNS else None


def seconds(rows: int, columns: int) -> float:
    """About what one usual network takes on one core: forward and back, three products of each weight and row."""
    weights = 2 * columns * USUAL.width + USUAL.width**2
    return 3 * _USUAL_EPOCHS * rows * _MEMBERS * weights / _PER_SECOND


def tabm_classifier(
    inputs: Any,
    targets: Targets,
    seed: int,
    weights: Targets | None = None,
    *,
    held: Held | None = None,
    settings: Settings = USUAL,
    networks: int = NETWORKS,
) -> Any:
    """`Perceptrons`, or with `held` a `StoppedByHeld`. `targets`: indices of labels. `weights`: (N,), of the examples.
    `networks`: of a caller that holds none out."""
    from torch.nn import functional

    def losses(outputs: torch.Tensor, wanted: torch.Tensor) -> torch.Tensor:
        return functional.cross_entropy(outputs, wanted, reduction="none")

    labels = int(np.max(targets)) + 1
    wanted = np.asarray(targets, np.int64)
    return _fitted(inputs, wanted, labels, losses, seed, weights, held, settings, networks, classes=True)


def tabm_regression(absolute: bool, settings: Settings = USUAL, networks: int = NETWORKS) -> Callable[..., Any]:
    """It gives what `tabm_classifier` does. `absolute`: the absolute error is what counts, else the squared one."""

    def learn(
        inputs: Any, targets: Targets, seed: int, weights: Targets | None = None, *, held: Held | None = None
    ) -> Perceptrons | StoppedByHeld:
        from torch.nn import functional

        loss = functional.l1_loss if absolute else functional.mse_loss

        def losses(outputs: torch.Tensor, wanted: torch.Tensor) -> torch.Tensor:
            return loss(outputs[:, 0], wanted, reduction="none")

        mean, spread = float(np.mean(targets)), float(np.std(targets)) or 1.0

        def scaled(numbers: Targets) -> Targets:
            return ((np.asarray(numbers, np.float64) - mean) / spread).astype(np.float32)

        apart = None if held is None else (held[0], scaled(held[1]), held[2])
        made = _fitted(inputs, scaled(targets), 1, losses, seed, weights, apart, settings, networks, classes=False)
        model: Perceptrons = made.estimator if isinstance(made, StoppedByHeld) else made
        last, bias = model.last * np.float32(spread), model.last_bias * np.float32(spread) + np.float32(mean)
        model = model._replace(last=last, last_bias=bias)
        return StoppedByHeld(model, made.scores * spread + mean) if isinstance(made, StoppedByHeld) else model

    return learn


class _Rows(NamedTuple):
    read: torch.Tensor
    """(N, I)"""
    wanted: torch.Tensor
    weights: torch.Tensor
    """(N,)"""

    def take(self, places: npt.NDArray[np.int64]) -> _Rows:
        return _Rows(self.read[places], self.wanted[places], self.weights[places])


def _fitted(
    inputs: Any,
    targets: Targets,
    outputs: int,
    losses: Losses,
    seed: int,
    weights: Targets | None,
    held: Held | None,
    settings: Settings,
    networks: int,
    *,
    classes: bool,
) -> Any:
    """`Perceptrons`, or `StoppedByHeld`."""
    matrix = np.asarray(inputs, np.float64)
    heavy = np.ones(len(matrix)) if weights is None else np.asarray(weights, np.float64)
    if held is not None:
        judged, wanted = np.asarray(held[0], np.float64), held[1]
        kept = wanted >= 0 if classes else np.isfinite(wanted)  # a label that training has not seen is -1
        both = np.vstack([matrix, judged[kept]])
        weighed = np.concatenate([heavy, np.ones(int(kept.sum()))])
        learn = np.arange(len(matrix))
        every = np.concatenate([targets, wanted[kept]])
        model, without = _network(
            both, every, weighed, learn, outputs, losses, seed, settings, classes, np.asarray(held[2])[kept]
        )
        scores = model.scores(judged)
        for part, other in without.items():
            own = np.flatnonzero(held[2] == part)
            scores[own] = other.scores(judged[own])
        return StoppedByHeld(model, scores)
    parts = np.random.default_rng(seed).permutation(len(matrix)) % _HELD_SHARE
    return side_by_side(
        [
            _network(
                matrix, targets, heavy, np.flatnonzero(parts != at), outputs, losses, seed + at, settings, classes
            )[0]
            for at in range(networks)
        ]
    )


def _network(
    matrix: npt.NDArray[np.float64],
    targets: Targets,
    weights: npt.NDArray[np.float64],
    learn: npt.NDArray[np.int64],
    outputs: int,
    losses: Losses,
    seed: int,
    settings: Settings,
    classes: bool,
    parts: npt.NDArray[np.int64] | None = None,
) -> tuple[Perceptrons, dict[int, Perceptrons]]:
    """`learn`: places to learn from; the others say when to stop. With their `parts`: for each the network that the
    others would have stopped."""
    import torch

    values = [len(np.unique(column)) for column in matrix.T]
    ranked = np.flatnonzero(np.array(values) >= _FEWEST_VALUES)
    knots = np.quantile(matrix[np.ix_(learn, ranked)], np.linspace(0, 1, _KNOTS), axis=0).T
    rows = _Rows(
        torch.from_numpy(with_ranks(matrix, ranked, knots)),
        torch.from_numpy(targets.astype(np.int64 if classes else np.float32)),
        torch.from_numpy(weights.astype(np.float32)),
    )
    judge = np.setdiff1d(np.arange(len(matrix)), learn)
    held = rows.take(judge if len(judge) else learn)  # no held-out label is one that training has seen
    shift = np.zeros(outputs if outputs > 2 or not classes else 1)
    numbers = [] if parts is None or not len(judge) else sorted(set(parts.tolist()))
    voices = [np.ones(len(held.read)), *(np.asarray(parts != number, np.float64) for number in numbers)]
    with _one_thread():
        found = _learned(rows.take(learn), held, voices, outputs, losses, seed, settings, classes)
    model, *others = [
        Perceptrons(
            ranked=ranked, knots=knots[None], shift=shift, classes=np.array(int(classes)),
            **{name: tensor.numpy()[None] for name, tensor in each.items()},
        )
        for each in found
    ]  # fmt: skip
    return model, dict(zip(numbers, others, strict=True)) if len(numbers) > 1 else {}


@contextlib.contextmanager
def _one_thread() -> Iterator[None]:
    """Whatever limits held when torch was imported: it counts its threads itself."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _learned(
    rows: _Rows,
    held: _Rows,
    voices: Sequence[npt.NDArray[np.float64]],
    outputs: int,
    losses: Losses,
    seed: int,
    settings: Settings,
    classes: bool,
) -> list[dict[str, torch.Tensor]]:
    """Weights with the least loss on `held`, as each of the voices (N,) counts its rows. The first says when to end."""
    import torch
    from torch.nn.utils import clip_grad_norm_

    chance = torch.Generator().manual_seed(seed)
    weights = _first_weights(rows.read.shape[1], settings.width, outputs, chance)
    optimizer = torch.optim.AdamW(weights.values(), lr=settings.rate, weight_decay=settings.decay)
    least, best, waited = [math.inf] * len(voices), [dict[str, torch.Tensor]() for _ in voices], 0
    shares = [voice * held.weights.numpy() for voice in voices]
    for epoch in range(_EPOCHS):
        for places in _batches(len(rows.read), seed, epoch):
            part = rows.take(places)
            answers = _forward(weights, part.read, chance, settings.dropout).flatten(0, 1)
            own = losses(answers, part.wanted.repeat_interleave(_MEMBERS))
            share = part.weights.repeat_interleave(_MEMBERS)
            optimizer.zero_grad()
            loss = (own * share).sum() / share.sum()
            loss.backward()  # type: ignore[no-untyped-call]  # torch has no types for it
            clip_grad_norm_(weights.values(), _LARGEST_GRADIENT)
            optimizer.step()
        each_loss = _held_losses(weights, held, losses, classes)
        waited += 1
        for number, share in enumerate(shares):
            held_loss = float(each_loss @ share / share.sum()) if share.any() else math.nan
            if held_loss < least[number] or not best[number]:
                least[number], waited = held_loss, waited if number else 0
                best[number] = {name: tensor.detach().clone() for name, tensor in weights.items()}
        if waited >= _PATIENCE:
            break
    return best


def _held_losses(
    weights: dict[str, torch.Tensor], held: _Rows, losses: Losses, classes: bool
) -> npt.NDArray[np.float64]:
    """(N,) losses of the mean that answers, on the held-out examples."""
    import torch

    with torch.inference_mode():
        parts = [
            _forward(weights, held.read[at : at + _LARGEST_BATCH], None)
            for at in range(0, len(held.read), _LARGEST_BATCH)
        ]
        outputs = torch.cat(parts)
        mean = outputs.softmax(-1).mean(1).clamp_min(1e-9).log() if classes else outputs.mean(1)
        return np.asarray(losses(mean, held.wanted).numpy(), np.float64)


def _batches(rows: int, seed: int, epoch: int) -> Iterator[npt.NDArray[np.int64]]:
    """Places of each batch of one pass; a rest of less than half a batch is left out."""
    size = min(_LARGEST_BATCH, max(_SMALLEST_BATCH, rows // _BATCHES))
    order = np.random.default_rng([seed, epoch]).permutation(rows)
    for at in range(0, max(1, rows - size // 2), size):
        yield order[at : at + size]


def _first_weights(columns: int, width: int, outputs: int, chance: torch.Generator) -> dict[str, torch.Tensor]:
    """The members begin with other signs for what they read and another bias, and are else the same."""
    import torch

    def drawn(*shape: int, among: int) -> torch.Tensor:
        return (2 * torch.rand(*shape, generator=chance) - 1) / math.sqrt(among)

    ones = torch.ones(_MEMBERS, width)
    signs = 2.0 * torch.randint(0, 2, (_MEMBERS, columns), generator=chance) - 1
    made = {
        "into_first": signs, "first": drawn(width, columns, among=columns), "out_of_first": ones.clone(),
        "first_bias": drawn(_MEMBERS, width, among=columns),
        "into_second": ones.clone(), "second": drawn(width, width, among=width), "out_of_second": ones.clone(),
        "second_bias": drawn(_MEMBERS, width, among=width),
        "into_last": ones.clone(), "last": drawn(outputs, width, among=width),
        "last_bias": drawn(outputs, among=width),
    }  # fmt: skip
    return {name: tensor.requires_grad_() for name, tensor in made.items()}


def _forward(
    weights: dict[str, torch.Tensor], read: torch.Tensor, chance: torch.Generator | None, dropout: float = 0.0
) -> torch.Tensor:
    """(B, I) -> (B, M, K), as `Perceptrons` does. `chance`: `dropout` of the units are left out."""
    import torch

    def some(state: torch.Tensor) -> torch.Tensor:
        if chance is None:
            return state.relu()
        return state.relu() * (torch.rand(state.shape, generator=chance) >= dropout) / (1 - dropout)

    state = (read[:, None] * weights["into_first"]) @ weights["first"].T
    state = some(state * weights["out_of_first"] + weights["first_bias"])
    state = (state * weights["into_second"]) @ weights["second"].T
    state = some(state * weights["out_of_second"] + weights["second_bias"])
    return (state * weights["into_last"]) @ weights["last"].T + weights["last_bias"]
