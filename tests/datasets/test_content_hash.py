from __future__ import annotations

import hashlib
import random

import numpy as np

from speciate.datasets.content_hash import lanes, version_id

ROWS = [hashlib.sha256(str(i).encode()).digest() for i in range(500)]


def test_order_does_not_matter() -> None:
    shuffled = random.Random(0).sample(ROWS, len(ROWS))
    assert version_id(lanes(shuffled)) == version_id(lanes(ROWS))


def test_history_does_not_matter() -> None:
    assert version_id(lanes(ROWS) - lanes(ROWS[:100])) == version_id(lanes(ROWS[100:]))
    assert version_id(lanes(ROWS[:200]) + lanes(ROWS[200:])) == version_id(lanes(ROWS))


def test_a_row_that_occurs_twice_is_another_set() -> None:
    assert version_id(lanes([*ROWS, ROWS[0]])) != version_id(lanes(ROWS))
    assert version_id(lanes([ROWS[0], ROWS[0]])) != version_id(lanes([]))


def test_the_id_is_the_same_on_any_machine() -> None:
    assert version_id(lanes([])) == hashlib.sha256(bytes(2048)).hexdigest()
    big_endian = lanes(ROWS).astype(np.dtype(">u2"))
    assert version_id(big_endian) == version_id(lanes(ROWS))
