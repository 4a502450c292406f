"""Which examples each step learns from, and their prepared media.

Batches are pure functions of the seed and the epoch, so that a resumed run sees the same. Prepared media are kept as
far as the memory budget allows; the rest is prepared again whenever it is used."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from speciate.datasets.loading.stream import Places, epoch_order
from speciate.models.backbones.contract import Item

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
    shuffled = epoch_order("examples", seed, epoch, count)
    windows = [shuffled[start : start + _WINDOW * size] for start in range(0, count, _WINDOW * size)]
    sorted_places = np.concatenate([window[np.argsort(-lengths[window], kind="stable")] for window in windows])
    cut = np.array_split(sorted_places, step_count(count, size))
    made = [cut[place] for place in epoch_order("batches", seed, epoch, len(cut))]
    if epoch == 0:
        largest = max(range(len(made)), key=lambda place: int(lengths[made[place]].max()) * len(made[place]))
        made[0], made[largest] = made[largest], made[0]
    return made


def parts(batch: Places, most: int) -> list[Places]:
    """The batch in as few pieces of equal size, give or take one, as have at most `most` examples each."""
    if not len(batch):
        return []
    return np.array_split(batch, step_count(len(batch), most))


def halve_batch(micro: int, times: int) -> int:
    """The micro-batch after memory ran out so many times."""
    return max(1, micro >> times)


_KEPT_BYTES = 1 << 30
_PREPARED_CHUNK = 64  # media prepared at a time, so that what is not kept is never in memory together


class Items(Protocol):
    @property
    def lengths(self) -> npt.NDArray[np.int64]:
        """(N,) positions of each."""
        ...

    def take(self, places: npt.NDArray[np.int64]) -> list[Item]: ...


class PreparedItems:
    """Prepared media: kept as far as the memory budget allows, the rest prepared again whenever it is used.

    `prepare` and `length` are a backbone's, or `functools.partial(backbone.prepare, per_unit=True)`.
    """

    def __init__(
        self,
        media: Sequence[Any],
        prepare: Callable[[Sequence[Any]], list[Item]],
        length: Callable[[Item], int],
        kept_bytes: int = _KEPT_BYTES,
    ) -> None:
        self._media, self._prepare = media, prepare
        self._kept: dict[int, Item] = {}
        lengths = np.empty(len(media), np.int64)
        room = kept_bytes
        for start in range(0, len(media), _PREPARED_CHUNK):
            for place, item in enumerate(prepare(media[start : start + _PREPARED_CHUNK]), start):
                lengths[place] = length(item)
                room -= sum(array.nbytes for array in item.values())
                if room >= 0:
                    self._kept[place] = item
        self._lengths = lengths

    @property
    def lengths(self) -> npt.NDArray[np.int64]:
        return self._lengths

    def take(self, places: npt.NDArray[np.int64]) -> list[Item]:
        wanted = places.tolist()
        missing = [place for place in wanted if place not in self._kept]
        if not missing:
            return [self._kept[place] for place in wanted]
        made = dict(zip(missing, self._prepare([self._media[place] for place in missing]), strict=True))
        return [made[place] if place in made else self._kept[place] for place in wanted]
