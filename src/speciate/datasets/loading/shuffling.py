"""In which order an epoch visits the examples of a version, and which of them each rank gets: pure functions.

No block of rows is shuffled as one: every order of all examples is as likely as any other.
"""

from __future__ import annotations

import hashlib
import json

import numpy as np
import numpy.typing as npt

Places = npt.NDArray[np.int64]


def order(version: str, seed: int, epoch: int, count: int) -> Places:
    """A permutation of range(count): it sorts `count` numbers of 64 bits from Philox, equal ones as they came.

    Philox's key is the first half of sha256 of the JSON list [version, seed, epoch]. What a bit generator puts out is
    fixed for good (NEP 19), which numpy does not promise of `Generator.permutation`.
    """
    digest = hashlib.sha256(json.dumps([version, seed, epoch]).encode()).digest()
    numbers = np.random.Philox(key=np.frombuffer(digest[:16], "<u8")).random_raw(count)
    return np.argsort(numbers, kind="stable")


def step_count(count: int, batch: int, world: int) -> int:
    """How many batches each rank gets."""
    return -(-count // (batch * world))


def share(places: Places, step: int, batch: int, rank: int, world: int) -> Places:
    """Of the next batch * world places this rank's own: `batch` of them; of the last, shorter rest an equal part.

    Equal means that no two differ by more than one, so where fewer than `world` are left some ranks get none.
    """
    together = places[step * batch * world : (step + 1) * batch * world]
    return together[len(together) * rank // world : len(together) * (rank + 1) // world]
