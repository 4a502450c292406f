"""Each gate of an export by itself: only an export that is surely good passes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from speciate.datasets.loading.loader import Example
from speciate.exports import convert_worker, export_gates
from speciate.exports.export_gates import LatencyStats, Measured, MetricComparison, Parity, Speed
from speciate.tasks.task import Prediction

PARITY = Parity(n=100, max_difference=0.02, spread=1.0, cosine=0.999, agreement=0.99)
HELD = MetricComparison(
    metric="accuracy", dataset="d@v1:validation", n=500, parent=0.9, export=0.9, gain=0.0, interval=(-0.01, 0.01),
    tolerance=0.02,
)  # fmt: skip
SPEED = Speed(
    parent=LatencyStats(p50_ms=10, p95_ms=12, memory_mb=300),
    export=LatencyStats(p50_ms=4, p95_ms=5, memory_mb=200),
    ratio=0.4,
    low=0.38,
    high=0.42,
    pairs=120,
    device="here",
)
GOOD = Measured(reloaded=True, parity=PARITY, held=HELD, speed=SPEED, bytes=(90_000_000, 23_000_000))


def outcomes(found: Measured, quantize: Any = "int8") -> dict[str, str]:
    return {gate.name: gate.outcome for gate in export_gates.decide(found, quantize)}


def test_a_good_export_passes_all_gates_and_each_gate_states_its_figures() -> None:
    gates = export_gates.decide(GOOD, "int8")
    assert export_gates.passed(gates)
    assert [gate.name for gate in gates] == ["reload", "parity", "metric", "latency", "size"]
    message = export_gates.describe_failures(gates)
    for figure in ("0.999", "+0 (-0.01 to +0.01)", "p95 12 to 5 ms", "23,000,000"):
        assert figure in message


@pytest.mark.parametrize(
    ("change", "gate", "outcome"),
    [
        ({"reloaded": False}, "reload", "fail"),
        ({"parity": PARITY.model_copy(update={"cosine": 0.97})}, "parity", "fail"),
        ({"parity": PARITY.model_copy(update={"agreement": 0.8})}, "parity", "fail"),
        ({"parity": PARITY.model_copy(update={"agreement": None})}, "parity", "pass"),
        ({"held": HELD.model_copy(update={"interval": (-0.03, 0.01)})}, "metric", "inconclusive"),
        ({"held": HELD.model_copy(update={"gain": -0.05, "interval": (-0.07, -0.03)})}, "metric", "fail"),
        ({"held": HELD.model_copy(update={"interval": None})}, "metric", "inconclusive"),
        ({"held": HELD.model_copy(update={"gain": None})}, "metric", "inconclusive"),
        ({"speed": SPEED.model_copy(update={"ratio": 1.4, "low": 1.3, "high": 1.5})}, "latency", "fail"),
        ({"speed": SPEED.model_copy(update={"ratio": 1.4, "low": 1.2, "high": 1.5})}, "latency", "pass"),
        ({"bytes": (90_000_000, 92_000_000)}, "size", "fail"),
        ({"bytes": (16_000, 32_000)}, "size", "pass"),
    ],
)
def test_one_figure_decides_its_gate_and_no_other(change: dict[str, Any], gate: str, outcome: str) -> None:
    found = outcomes(GOOD.model_copy(update=change))
    assert found.pop(gate) == outcome
    assert set(found.values()) == {"pass"}


def test_without_quantisation_rounding_alone_needs_no_interval_and_more_does() -> None:
    few = HELD.model_copy(update={"n": 20, "interval": (-0.1, 0.1)})
    same = Parity(n=20, max_difference=5e-7, spread=1.0, cosine=1.0, agreement=1.0)
    found = GOOD.model_copy(update={"held": few, "parity": same})
    assert outcomes(found, "none")["metric"] == "pass"
    assert outcomes(found, "int8")["metric"] == "inconclusive"
    other = same.model_copy(update={"max_difference": 0.01})
    assert outcomes(found.model_copy(update={"parity": other}), "none")["metric"] == "inconclusive"


def answers(*outputs: Any) -> list[Prediction]:
    return [Prediction(output, None, None) for output in outputs]


def test_parity_counts_labels_numbers_and_neither() -> None:
    scores = [np.array([1.0, -1.0]), np.array([-2.0, 2.0])]
    near = [each + 0.001 for each in scores]
    labels = convert_worker.compare_scores(scores, near, answers("a", "b"), answers("a", "a"))
    assert labels.agreement == 0.5
    assert labels.max_difference == pytest.approx(0.001)
    assert labels.cosine > 0.999999
    assert convert_worker.compare_scores(scores, near, answers(1.0, 3.0), answers(1.001, 3.5)).agreement == 0.5
    assert convert_worker.compare_scores(scores, near, answers([1], [2]), answers([1], [2])).agreement is None


def test_broken_scores_fail_parity() -> None:
    scores = [np.array([1.0, -1.0])]
    for broken in ([np.array([np.nan, 1.0])], [np.array([1.0])]):
        found = convert_worker.compare_scores(scores, broken, answers("a"), answers("a"))
        assert found.cosine == -1.0
        assert outcomes(GOOD.model_copy(update={"parity": found}), "none")["parity"] == "fail"
        assert found.model_dump_json(), "it is kept as JSON"


def test_pairs_are_interleaved_and_give_the_ratio() -> None:
    now, calls = [0.0], list[str]()

    def taking(name: str, seconds: float) -> Any:
        def predict(examples: Any) -> list[Prediction]:
            now[0] += seconds
            calls.append(name)
            return answers("a")

        return predict

    examples = [Example(str(place), None, None, "", "test", {}) for place in range(5)]
    found = convert_worker.compare_speed(
        taking("parent", 0.01), taking("export", 0.004), examples, (1.0, None), clock=lambda: now[0]
    )  # fmt: skip
    assert (found.ratio, found.parent.p50_ms, found.export.memory_mb) == (pytest.approx(0.4), pytest.approx(10), None)
    assert found.pairs == 120
    timed = calls[6:]
    pairs = {tuple(timed[place : place + 2]) for place in range(0, len(timed), 2)}
    assert pairs == {("parent", "export"), ("export", "parent")}, "in either order, never two of one"


def test_two_processes_agree_to_rounding() -> None:
    here = [np.array([1.0, 2.0])]
    assert convert_worker.same_scores(here, [np.array([1.0, 2.00001])])
    assert not convert_worker.same_scores(here, [np.array([1.0, 2.1])])
    assert not convert_worker.same_scores(here, [np.array([1.0])])
    assert not convert_worker.same_scores(here, [])
