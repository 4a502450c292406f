"""Mixed rows as numbers: parts side by side, of equal weight, and a flag for what is missing."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from speciate.datasets.loading.loader import Example
from speciate.tasks.multimodal_representation import Parts, names_of, part_combinations
from speciate.tasks.task import UnsuitableRepresentation

BOTH = ["note.text", "scan.image"]
WORDS = ["calm", "well", "slept", "pain", "worse", "fever"]


def examples(count: int = 40) -> list[Example]:
    """Every fifth lacks its note."""
    chance = np.random.default_rng(0)
    made = []
    for i in range(count):
        media: dict[str, Any] = {
            "scan.image": chance.integers(0, 255, (8, 8, 3), dtype=np.uint8),
            "note.text": None if i % 5 == 0 else " ".join(chance.choice(WORDS, 4)),
        }
        made.append(Example(f"ex-{i:02}", media, None, f"ex-{i:02}", "train", {}))
    return made


def test_a_missing_part_is_zeros_and_a_flag() -> None:
    found = examples()
    rows = Parts.fit(found, BOTH, dense=True).encode(found)
    words = rows.shape[1] - 304 - 2  # the note's numbers, its flag, the image's, its flag
    assert rows[:, words].tolist() == [float(i % 5 == 0) for i in range(40)]
    assert not rows[::5, :words].any()
    assert rows[1::5, :words].any(axis=1).all()
    assert not rows[:, -1].any()


def test_parts_weigh_the_same_however_many_numbers_they_have() -> None:
    found = examples()
    rows = Parts.fit(found, BOTH, dense=True).encode(found)
    there = rows[[i for i in range(40) if i % 5]]
    words = rows.shape[1] - 306
    assert there[:, :words].var(axis=0).sum() == pytest.approx(10)
    assert rows[:, words + 1 : -1].var(axis=0).sum() == pytest.approx(10)


@pytest.mark.parametrize("dense", [True, False])
def test_it_is_the_same_after_it_was_stored(dense: bool) -> None:
    found = examples()
    made = Parts.fit(found, BOTH, dense=dense, one_unit=("image",))
    again = Parts.rebuild(made.settings(), made.arrays())
    rows, others = made.encode(found), again.encode(found)
    if not dense:
        rows, others = rows.toarray(), others.toarray()
    assert np.array_equal(rows, others)
    assert again.names == BOTH


def test_one_part_is_enough_to_answer_and_none_is_too_few() -> None:
    found = examples()
    alone = Parts.fit(found, ["note.text"], dense=False).encode(found)
    assert alone.shape == (40, len(WORDS) + 15) or alone.shape[1] > len(WORDS)
    with pytest.raises(UnsuitableRepresentation):
        Parts.fit(found[::5], ["note.text"], dense=True)


def test_each_part_alone_comes_before_all_together() -> None:
    names = names_of(examples())
    assert [[str(part) for part in chosen] for chosen in part_combinations(names)] == [
        ["note.text"],
        ["scan.image"],
        BOTH,
    ]
    assert len(list(part_combinations(names[:1]))) == 1
