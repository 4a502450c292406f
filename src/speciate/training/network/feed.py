"""Which examples each step learns from: pure functions of the seed and the epoch, so that a resumed run sees the same.

Batches hold examples of like length, since what a batch is padded with is computed like the rest: an epoch is shuffled,
sorted by length within windows of many batches, cut, and the batches are shuffled again.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from speciate.datasets.loading.shuffling import Places, order

_WINDOW = 50
"""Batches that are sorted together: short enough that an epoch's batches differ from the last one's."""


def step_count(count: int, size: int) -> int:
    """Steps of an epoch."""
    return -(-count // size)


def batches(lengths: npt.NDArray[np.int64], size: int, seed: int, epoch: int) -> list[Places]:
    """Every place of `lengths` (N,) once, in `step_count` batches of equal size, give or take one, at most `size`.

    Of equal size, because a last batch of one or two examples is a step of noise. The first epoch begins with the
    batch that takes most memory: what does not fit shows at once.
    """
    count = len(lengths)
    shuffled = order("examples", seed, epoch, count)
    windows = [shuffled[start : start + _WINDOW * size] for start in range(0, count, _WINDOW * size)]
    sorted_places = np.concatenate([window[np.argsort(-lengths[window], kind="stable")] for window in windows])
    cut = np.array_split(sorted_places, step_count(count, size))
    made = [cut[place] for place in order("batches", seed, epoch, len(cut))]
    if epoch == 0:
        largest = max(range(len(made)), key=lambda place: int(lengths[made[place]].max()) * len(made[place]))
        made[0], made[largest] = made[largest], made[0]
    return made


def parts(batch: Places, most: int) -> list[Places]:
    """The batch in as few pieces of equal size, give or take one, as have at most `most` examples each."""
    if not len(batch):
        return []
    return np.array_split(batch, step_count(len(batch), most))


def halved(micro: int, times: int) -> int:
    """The micro-batch after memory ran out so many times."""
    return max(1, micro >> times)
