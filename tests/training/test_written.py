"""What a training is expected to write."""

from __future__ import annotations

from pathlib import Path

import pytest

from speciate.training.written import bytes_written


@pytest.mark.parametrize(
    ("method", "changes", "times"),
    [("full", None, 10), ("replay", None, 10), ("sft", "full", 10), ("sft", "lora", 1.5), ("lora", None, 1.5)],
)
def test_it_follows_from_the_weights_of_the_base(
    tmp_path: Path, method: str, changes: str | None, times: float
) -> None:
    (tmp_path / "model.safetensors").write_bytes(b"x" * 1000)
    (tmp_path / "tokenizer.json").write_bytes(b"x" * 9999)
    assert bytes_written(method, changes, str(tmp_path)) == 1000 * times


def test_without_a_base_on_disk_nothing_is_known(tmp_path: Path) -> None:
    assert bytes_written("classical", None, None) is None
    assert bytes_written("full", None, str(tmp_path / "nowhere")) is None
