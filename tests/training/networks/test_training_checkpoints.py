"""Checkpoints: whole or not there, checked before they are believed, two of them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from speciate.errors import SpeciateError
from speciate.models import sealed
from speciate.training.networks import durable_training
from speciate.training.networks.training_checkpoints import Checkpoints, TrainingState
from tests.training.networks.world import new_run, training


def state(step: int) -> TrainingState:
    return TrainingState(
        {"step": step}, {"weights": {"a": torch.full((2, 3), float(step)), "scalar": torch.tensor(1.5)}}
    )


def step_of(checkpoints: Checkpoints) -> int | None:
    saved = checkpoints.newest()
    return saved and saved.state.facts["step"]


def test_the_newest_two_are_kept_and_come_back_as_they_were(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path / "c")
    assert checkpoints.newest() is None
    for step in range(1, 6):
        checkpoints.save(state(step), {"metrics.jsonl": b"line\n"})
    assert sorted(path.name for path in (tmp_path / "c").iterdir()) == ["checkpoint-000004", "checkpoint-000005"]
    saved = Checkpoints(tmp_path / "c").newest()
    assert saved is not None
    assert saved.state.facts == {"step": 5}
    assert torch.equal(saved.state.tensors["weights"]["a"], torch.full((2, 3), 5.0))
    assert saved.state.tensors["weights"]["scalar"].shape == ()
    assert saved.files == {"metrics.jsonl": b"line\n"}


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize("name", ["weights.safetensors", "state.json", "more", sealed.MANIFEST])
@pytest.mark.parametrize("harm", [cut, flip, Path.unlink])
def test_a_torn_checkpoint_is_passed_over(tmp_path: Path, name: str, harm: Callable[[Path], None]) -> None:
    checkpoints = Checkpoints(tmp_path / "c", [tmp_path / "missing", tmp_path / "earlier"])
    Checkpoints(tmp_path / "earlier").save(state(1), {})
    two, three = (checkpoints.save(state(step), {"more": b"x"}) for step in (2, 3))
    harm(three / name)
    assert step_of(checkpoints) == 2
    harm(two / name)
    assert step_of(checkpoints) == 1
    checkpoints.save(state(4), {})
    assert step_of(checkpoints) == 4


def test_a_save_that_fails_leaves_what_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    checkpoints = Checkpoints(tmp_path / "c")
    checkpoints.save(state(1), {})

    def full(folder: Path) -> str:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(sealed, "seal", full)
    with pytest.raises(OSError, match="No space"):
        checkpoints.save(state(2), {})
    assert [path.name for path in (tmp_path / "c").iterdir()] == ["checkpoint-000001"]
    assert step_of(checkpoints) == 1


def test_a_foreign_key_on_disk_is_fatal(tmp_path: Path) -> None:
    learning, run = training(), new_run(tmp_path)
    learning.run_until(2)
    saved = learning.state()
    weights = {**saved.tensors["weights"], "backbone.foreign": torch.zeros(1)}
    where = durable_training.training_place(run)
    where.checkpoints.save(TrainingState(saved.facts, {**saved.tensors, "weights": weights}), {})
    with pytest.raises(SpeciateError, match=r"unexpected: 'backbone\.foreign'"):
        durable_training.train_durably(run, training())


def test_nothing_in_a_checkpoint_is_a_pickle(tmp_path: Path) -> None:
    learning = training()
    learning.run_until(2)
    made = Checkpoints(tmp_path).save(learning.state(), {})
    assert {path.suffix for path in made.iterdir()} == {".json", ".safetensors"}
