"""The gates that an export must pass before it becomes a version: pure functions from measurements to outcomes with
reasons.

The parent's evidence counts for nothing. Bounds on parity are wide for 8 bits, as there the metric's interval decides.
Without quantisation the same function is computed, and answers that equal the parent's to rounding need no interval.
"""

from __future__ import annotations

import math
from typing import Literal

from pydantic import BaseModel, ConfigDict

Quantize = Literal["none", "int8"]
Outcome = Literal["pass", "fail", "inconclusive"]
_COSINE: dict[Quantize, float] = {"none": 0.9995, "int8": 0.98}
_AGREEMENT: dict[Quantize, float] = {"none": 0.99, "int8": 0.9}
_SLOWER = 1.25
"""Measured times vary, so an export counts as slower only beyond this ratio."""
_ROUNDING = 1e-4
"""Share of the scores' spread: float32 sums in another order."""
_LARGER = 1.1
_PROGRAM_BYTES = 1 << 20
"""Bytes of the program that a file holds beside its weights, at most."""


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Gate(_Frozen):
    name: Literal["reload", "parity", "metric", "latency", "size"]
    outcome: Outcome
    reason: str


class Parity(_Frozen):
    """Agreement of the scores behind the answers, export against parent on the same inputs."""

    n: int
    max_difference: float
    spread: float
    """Standard deviation of the parent's scores."""
    cosine: float
    agreement: float | None
    """Share of equal answers; None where answers are no labels and no numbers."""


class MetricComparison(_Frozen):
    """The task's metric, paired. `gain`: export less parent, more is better."""

    metric: str
    dataset: str
    n: int
    parent: float | None
    export: float | None
    gain: float | None
    interval: tuple[float, float] | None
    tolerance: float


class LatencyStats(_Frozen):
    p50_ms: float
    p95_ms: float
    memory_mb: float | None
    """Memory that it adds to a process of its own."""


class Speed(_Frozen):
    """One example at a time on one thread, parent and export in turn. `ratio`: of the export's time to the parent's,
    median of the pairs, with its interval."""

    parent: LatencyStats
    export: LatencyStats
    ratio: float
    low: float
    high: float
    pairs: int
    device: str


class Measured(_Frozen):
    reloaded: bool
    """Whether a process that had just started loaded it and answered as this one did."""
    parity: Parity
    held: MetricComparison
    speed: Speed
    bytes: tuple[int, int]
    """Bytes of the network: the parent's, the export's."""


def decide(measured: Measured, quantize: Quantize) -> tuple[Gate, ...]:
    return (
        _reload(measured), _parity(measured, quantize), _metric(measured, quantize), _latency(measured),
        _size(measured, quantize),
    )  # fmt: skip


def passed(gates: tuple[Gate, ...]) -> bool:
    return all(gate.outcome == "pass" for gate in gates)


def describe_failures(gates: tuple[Gate, ...]) -> str:
    """Worst first, in one line."""
    order = ("fail", "inconclusive", "pass")
    ordered = sorted(gates, key=lambda gate: order.index(gate.outcome))
    return "; ".join(f"{gate.name} {gate.outcome}: {gate.reason}" for gate in ordered)


def _reload(found: Measured) -> Gate:
    if found.reloaded:
        return Gate(name="reload", outcome="pass", reason="a clean process loads it from disk and answers alike")
    return Gate(name="reload", outcome="fail", reason="a clean process that loads it from disk does not answer alike")


def _parity(found: Measured, quantize: Quantize) -> Gate:
    parity = found.parity
    least, agreeing = _COSINE[quantize], _AGREEMENT[quantize]
    same = "" if parity.agreement is None else f", {100 * parity.agreement:.4g} % of answers alike"
    reason = (
        f"cosine {parity.cosine:.6g} (at least {least:g}), largest difference {parity.max_difference:.3g} of scores "
        f"spread by {parity.spread:.3g}{same} (at least {100 * agreeing:g} %), on {parity.n} inputs"
    )
    good = parity.cosine >= least and (parity.agreement is None or parity.agreement >= agreeing)
    return Gate(name="parity", outcome="pass" if good else "fail", reason=reason)


def equal(parity: Parity) -> bool:
    """Whether the scores differ by rounding alone."""
    return parity.agreement in (None, 1.0) and parity.max_difference <= _ROUNDING * max(parity.spread, _ROUNDING)


def _metric(found: Measured, quantize: Quantize) -> Gate:
    metric, margin = found.held, found.held.tolerance
    if quantize == "none" and equal(found.parity):
        reason = f"scores equal the parent's to rounding, and so does {metric.metric}"
        return Gate(name="metric", outcome="pass", reason=reason)
    if metric.gain is None or metric.interval is None or not math.isfinite(metric.gain):
        reason = f"{metric.metric} has no interval on {metric.n} examples"
        return Gate(name="metric", outcome="inconclusive", reason=reason)
    low, high = metric.interval
    gain = f"{metric.metric} {metric.gain:+.3g} ({low:+.3g} to {high:+.3g})"
    stated = f"{gain} on {metric.n} examples of {metric.dataset}"
    if low > -margin:
        return Gate(name="metric", outcome="pass", reason=f"{stated}: surely within {margin:.3g} of the parent's")
    if high < -margin:
        return Gate(name="metric", outcome="fail", reason=f"{stated}: surely worse by more than {margin:.3g}")
    reason = f"{stated}: cannot tell whether within {margin:.3g}; more examples, or a tolerance above {-low:.3g}, would"
    return Gate(name="metric", outcome="inconclusive", reason=reason)


def _latency(found: Measured) -> Gate:
    speed = found.speed
    reason = (
        f"{speed.ratio:.3g} times the parent's ({speed.low:.3g} to {speed.high:.3g}; p50 {speed.parent.p50_ms:.3g} to "
        f"{speed.export.p50_ms:.3g} ms, p95 {speed.parent.p95_ms:.3g} to {speed.export.p95_ms:.3g} ms), {speed.pairs} "
        f"pairs on {speed.device}"
    )
    slower = speed.low > _SLOWER
    return Gate(name="latency", outcome="fail" if slower else "pass", reason=reason)


def _size(found: Measured, quantize: Quantize) -> Gate:
    before, after = found.bytes
    most = round((1.0 if quantize == "int8" else _LARGER) * before) + _PROGRAM_BYTES
    reason = f"its network has {after:,} bytes, the parent's {before:,} (at most {most:,})"
    return Gate(name="size", outcome="pass" if after <= most else "fail", reason=reason)
