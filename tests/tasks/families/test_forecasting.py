"""Forecasts: what is asked, what is taught, and answers at the level of the series."""

from __future__ import annotations

import json
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from speciate.datasets.loading.loader import Example
from speciate.errors import SpeciateError
from speciate.tasks.families.forecasting import Forecasting, Lags, LevelAndSpread, period, usual_horizon
from speciate.tasks.network_predictor import NetworkPredictor
from speciate.tasks.task import Prediction, TaskTerms, predict_examples
from tests.tasks.learning import example, train, value, waves

TERMS = TaskTerms(horizon=4)


class Last:
    """Answers the last step again, whatever the period."""

    def __init__(self, other: NetworkPredictor) -> None:
        self.task, self.labels, self._task_head = other.task, (), other.task_head

    def predict(self, examples: Sequence[Example]) -> list[Prediction]:
        return predict_examples(self._task_head, np.zeros((len(examples), 8)), examples)


@pytest.mark.slow
def test_a_network_foretells_sines_better_than_the_last_step() -> None:
    learned = [
        one
        for i, s in enumerate(waves(30, 1))
        for one in Forecasting.training_examples(example(f"{i}", s), None, TERMS)
    ]
    asked = [
        Forecasting.evaluation_example(example(f"{i}", series), None, TERMS) for i, series in enumerate(waves(20, 2))
    ]
    predictor = train("time-series-forecasting", Forecasting, "time-series", learned, 250)
    found = [one for one in asked if one]
    last_step = Last(predictor)
    assert value("mase", predictor, found) < 0.4 * value("mase", last_step, found)


def test_a_question_hides_the_last_steps() -> None:
    series = np.array([[1, 2, 4, 8, 16, 32], [5, 5, 5, 5, 5, 5]], np.float32)
    made = Forecasting.evaluation_example(example("a", series), None, TaskTerms(horizon=2))
    assert made is not None
    assert made.example.media.tolist() == series[:, :4].tolist()
    assert made.target["steps"] == [[16, 32], [5, 5]]
    assert made.target["level"] == [8, 5]
    assert made.target["naive"] == pytest.approx([7 / 3, 0])
    assert json.loads(json.dumps(made.target)) == made.target
    assert Forecasting.evaluation_example(example("a", series), None, TaskTerms(horizon=5)) is None


@given(st.integers(1, 300), st.integers(1, 20))
def test_training_examples_never_show_what_is_asked(steps: int, horizon: int) -> None:
    series = np.arange(steps, dtype=np.float32)[None]
    taught = Forecasting.training_examples(example("a", series), None, TaskTerms(horizon=horizon))
    assert len(taught) <= 32
    assert len({one.example.id for one in taught}) == len(taught)
    assert bool(taught) == (steps >= 2 * horizon + 2)
    for one in taught:
        assert one.example.id.startswith("a#")
        assert one.example.group == "a"
        to_come = one.target["steps"][0]
        assert to_come[0] == one.example.media[0, -1] + 1
        assert len(to_come) == horizon
        assert to_come[-1] < steps - horizon
        assert one.example.media.shape[1] >= 2


@given(st.floats(-1e3, 1e3), st.floats(0.1, 1e3))
def test_targets_are_relative_and_come_back(level: float, scale: float) -> None:
    """A series that is moved and stretched teaches the same, and is answered moved and stretched."""
    plain = waves(1, 3)[0].astype(np.float64)
    moved = example("a", plain * scale + level)
    made, as_it_was = (Forecasting.evaluation_example(one, None, TERMS) for one in (moved, example("a", plain)))
    assert made is not None
    assert as_it_was is not None
    task_head = Forecasting.fit([made.target], {})
    target = task_head.encode_targets([made.target])
    assert target == pytest.approx(task_head.encode_targets([as_it_was.target]), abs=1e-6)
    (given_back,) = predict_examples(task_head, target, [made.example])
    assert np.array(given_back.output) == pytest.approx(np.array(made.target["steps"]))


def test_a_flat_channel_is_answered_at_its_level() -> None:
    flat = example("a", np.full((1, 20), 7.0, np.float32))
    made = Forecasting.evaluation_example(flat, None, TERMS)
    assert made is not None
    task_head = Forecasting.fit([made.target], {})
    assert task_head.encode_targets([made.target]).tolist() == [[0.0] * 4]
    assert predict_examples(task_head, np.zeros((1, 4)), [made.example])[0].output == [[7.0] * 4]


def test_the_constant_answer_repeats_the_last_step_or_the_last_period() -> None:
    ramp = example("a", np.arange(20, dtype=np.float32)[None] ** 1.5)
    square = example("b", np.tile([1, 1, 5, 9, 2], 8).astype(np.float32)[None, :-2])
    repeat = Forecasting.baseline([{"steps": [[0.0] * 7]}], TaskTerms())
    assert repeat(ramp).output == [[float(ramp.media[0, -1])] * 7]
    assert repeat(square).output == [[9, 2, 1, 1, 5, 9, 2]]


@pytest.mark.parametrize("length", [3, 7, 12, 24])
def test_a_plain_period_is_found(length: int) -> None:
    time, generator = np.arange(150), np.random.default_rng(0)
    shape = np.tile(generator.normal(size=length), 51)[:150]
    assert period((shape + 0.02 * time + generator.normal(0, 0.1, 150))[None]) == length


def test_noise_and_trends_have_no_period() -> None:
    generator = np.random.default_rng(0)
    assert period(generator.normal(size=(1, 200))) is None
    assert period(np.arange(200.0)[None]) is None
    assert period(np.full((2, 50), 3.0)) is None
    assert [period(np.ones((1, steps))) for steps in (1, 2, 3, 4)] == [None] * 4


def test_the_usual_horizon_is_a_tenth_of_the_shortest() -> None:
    assert usual_horizon([np.zeros((1, 57)), np.zeros((1, 200))]) == 5
    assert usual_horizon([np.zeros((1, 5))]) == 1


def test_without_a_horizon_nothing_is_asked() -> None:
    with pytest.raises(ValueError, match="number of steps to forecast"):
        Forecasting.evaluation_example(example("a", waves(1, 0)[0]), None, TaskTerms())


def test_series_of_other_channels_are_refused() -> None:
    one, two = ({"steps": [[0.0]] * channels} for channels in (1, 2))
    with pytest.raises(SpeciateError, match="from 1 to 2 channels"):
        Forecasting.fit([one, two], {})
    with pytest.raises(SpeciateError, match="2 channels; the model has learned from 1"):
        Lags(1, 8, 2).encode([example("a", waves(1, 0)[0])])


def test_lags_are_the_last_steps_and_the_repetition_relative_to_the_end() -> None:
    series = np.array([[0.0, 2, 4, 10]])
    spread = LevelAndSpread.of(series).spread[0]
    assert Lags(1, 3, 1).encode([example("a", series)])[0] == pytest.approx(np.array([-8, -6, 0, 0]) / spread)
    padded = np.array([-10, -10, -10, -8, -6, 0, 0, 0]) / spread
    assert Lags(1, 6, 2).encode([example("a", series)])[0] == pytest.approx(padded)
    wave = np.tile([0.0, 1, 5, 1], 6)[None]
    lags = Lags(1, 1, 5)
    again = lags.encode([example("a", wave)])[0] * wave.std() + 1
    assert again == pytest.approx([1, 0, 1, 5, 1, 0])
    assert (Lags.rebuild(lags.settings(), {}).encode([example("a", wave)]) == lags.encode([example("a", wave)])).all()


def test_it_is_the_same_after_json() -> None:
    task_head = Forecasting(channels=2, horizon=3)
    assert Forecasting.model_validate_json(task_head.model_dump_json()) == task_head


def test_the_head_reads_the_last_state_of_the_medium() -> None:
    """Padding behind it changes nothing."""
    import torch

    from speciate.models.backbones.contract import States

    task_head = Forecasting(channels=1, horizon=2)
    head = task_head.head(4)
    sequence = torch.randn(1, 5, 4)
    mask = torch.tensor([[True, True, True, False, False]])
    padded = task_head.scores(head.requires_grad_(False), States(sequence, mask, sequence[:, 0]))
    whole = task_head.scores(head, States(sequence[:, :3], mask[:, :3], sequence[:, 0]))
    assert padded[0] == pytest.approx(whole[0])
