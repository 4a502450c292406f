"""Prepared media for training: kept as far as the memory budget allows, the rest prepared again whenever it is used."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from speciate.models.backbones.contract import Item

_KEPT_BYTES = 1 << 30
_CHUNK = 64  # media prepared at a time, so that what is not kept is never in memory together


class Items(Protocol):
    @property
    def lengths(self) -> npt.NDArray[np.int64]:
        """(N,) positions of each."""
        ...

    def take(self, places: npt.NDArray[np.int64]) -> list[Item]: ...


class Prepared:
    """`prepare` and `length` are a backbone's, or `functools.partial(backbone.prepare, per_unit=True)`."""

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
        for start in range(0, len(media), _CHUNK):
            for place, item in enumerate(prepare(media[start : start + _CHUNK]), start):
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
