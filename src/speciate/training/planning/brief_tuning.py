"""An epoch of fine-tuning for each of the base models that frozen vectors put first: which learns the task soonest?

Frozen vectors say what a network knows, not what it can learn. An epoch says more, if it does not go into the head: so
the head begins at the best linear answer for the frozen vectors, as in LP-FT (Kumar et al. 2022), and all weights are
trained from there. Base models are compared by the loss of held-out examples, which has less luck in it than the share
of right answers. Nothing of such a network is kept.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from speciate.datasets.loading.loader import Example
from speciate.jobs.run import Run
from speciate.models.backbones import architectures
from speciate.models.backbones.contract import Backbone
from speciate.training.networks.batches import PreparedItems, parts
from speciate.training.networks.optimizer import LoopParameters
from speciate.training.networks.training_loop import Training
from speciate.training.planning import base_models
from speciate.training.train_spec import Payload
from speciate.training.training_context import TrainingContext
from speciate.vocabulary import Family

TUNED = 8
"""Base models that are tuned, the most promising ones by their frozen vectors."""
MOST_LEARNED, MOST_JUDGED, FEWEST_JUDGED = 400, 200, 20
"""Examples that are learned, and that are judged by."""
MOST_PARAMETERS, TUNING_MB = 50_000_000, 1000
"""A larger network is judged by its vectors alone: its gradients and moments would need more memory than these MB."""
TUNED_FAMILIES: tuple[Family, ...] = ("classification",)
_BATCH, _ROUNDS = 32, 30


def loss_after_an_epoch(
    run: Run,
    context: TrainingContext,
    payload: Payload,
    base_model: str,
    learned: Sequence[Example],
    held: Sequence[Example],
    progress: Callable[[], None],
) -> float:
    """Mean loss of the held-out examples. `payload`: of a training on this base model; `progress` is called between
    steps, and may raise. Raises what building the network and its training raise."""
    import torch

    torch.set_num_threads(payload.threads)
    seed = payload.spec.seed
    with base_models.copy_caller_folders(run, payload) as copied:
        folder = Path(copied.base_folder) if copied.base_folder else None
        torch.manual_seed(seed)
        backbone = architectures.build(base_model, [example.media for example in learned], seed, folder)
        backbone.module.requires_grad_(True)
        progress()
        items = PreparedItems([example.media for example in learned], backbone.prepare, backbone.length)
        head, codes = context.task_head.head(backbone.width), context.targets(learned)
        _begin_at(
            head, *linear_start(_pooled(backbone, items, progress), np.asarray(codes), len(context.task_head.labels))
        )
        given = LoopParameters(
            num_train_epochs=1, batch_size=_BATCH, learning_rate=architectures.usual_rate(base_model), warmup_ratio=0.0,
            lr_scheduler_type="constant",
        )  # fmt: skip
        training = Training(backbone, head, context.task_head, items, codes, given, seed)
        with training.random_states:
            while training.step < training.total:
                progress()
                training.advance()
        judged = PreparedItems([example.media for example in held], backbone.prepare, backbone.length)
        loss, _ = training.judge(judged, context.targets(held), progress)
    return loss


def linear_start(
    vectors: npt.NDArray[np.floating], codes: npt.NDArray[np.integer], classes: int
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """Weights (K, D) and biases (K,) of a logistic regression on vectors (N, D), for these vectors as they are."""
    from sklearn.linear_model import LogisticRegression

    middle, spread = vectors.mean(0), vectors.std(0) + 1e-6
    with warnings.catch_warnings():  # a start need not be the end of the search
        warnings.simplefilter("ignore")
        found = LogisticRegression(C=1.0, max_iter=_ROUNDS, tol=1e-3).fit((vectors - middle) / spread, codes)
    weights, biases = np.zeros((classes, vectors.shape[1])), np.full(classes, -5.0)
    own, bias = found.coef_, found.intercept_
    if len(found.classes_) == 2:  # scikit-learn gives the difference of the two
        own, bias = np.stack([-own[0], own[0]]) / 2, np.array([-bias[0], bias[0]]) / 2
    weights[found.classes_] = own / spread
    biases[found.classes_] = bias - own @ (middle / spread)
    return weights.astype(np.float32), biases.astype(np.float32)


def _begin_at(head: Any, weights: npt.NDArray[np.float32], biases: npt.NDArray[np.float32]) -> None:
    import torch

    with torch.no_grad():
        head.weight.copy_(torch.from_numpy(weights))
        head.bias.copy_(torch.from_numpy(biases))


def _pooled(backbone: Backbone, items: PreparedItems, progress: Callable[[], None]) -> npt.NDArray[np.float64]:
    import torch

    backbone.module.eval()
    found = []
    with torch.inference_mode():
        for part in parts(np.arange(len(items.lengths)), _BATCH):
            progress()
            found.append(backbone.states(backbone.collate(items.take(part))).pooled.double().numpy())
    return np.concatenate(found)
