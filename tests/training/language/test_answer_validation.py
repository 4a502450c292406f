"""Where a finished language model answers."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from speciate.training.language.answer_validation import on_device


class Moved:
    def __init__(self) -> None:
        self.places: list[str] = []

    def to(self, device: str) -> None:
        self.places.append(device)

    def cpu(self) -> None:
        self.places.append("cpu")


def test_a_model_answers_where_it_was_trained_and_is_then_on_the_processor_again() -> None:
    model = Moved()
    predictor: Any = SimpleNamespace(model=model)
    with on_device("cuda", predictor):
        assert model.places == ["cuda"]
    assert model.places == ["cuda", "cpu"]
    with on_device("cpu", predictor), on_device("cuda", SimpleNamespace()):  # type: ignore[arg-type]  # one without
        assert model.places == ["cuda", "cpu"]
