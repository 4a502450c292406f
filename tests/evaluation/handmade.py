"""Evaluations whose report and rows are written by hand, so that a test knows every number of them.

Each is stored as the job stores its own: a row of the catalog and three files.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from speciate.evaluation.reports.report import Comparison, Control, Decision, GateResult, Report, Row, Value
from speciate.use_cases import Gate
from speciate.workspace.workspace import Workspace

_INSERT = "INSERT INTO evaluations VALUES (?, ?, ?, ?, ?, ?, ?)"
_SCHEMA = pa.schema(
    [
        ("model", pa.string()), ("example", pa.string()), ("output", pa.string()), ("number", pa.float64()),
        ("confidence", pa.float64()), ("probabilities", pa.string()), ("error", pa.string()), ("score", pa.float64()),
    ]
)  # fmt: skip


def row(model: str, value: float | None, **more: Any) -> Row:
    half = 0.02
    given = {
        "model": model, "served_model": model, "metric": "accuracy", "value": value,
        "interval": None if value is None else (value - half, value + half), "n": 100, "errors": 0, "coverage": 1.0,
        "usd_per_1k": 0.01, "p50_ms": 1.0, "p95_ms": 2.0, "p95_interval": (1.5, 2.5), "device": "a processor, 2 cores",
        "control": Control(weights_owned=True, offline=True, pinned=True, license="mit"), "parameters": 1000,
        "metrics": {"accuracy": Value(value=value, n=100, method="wilson")},
    }  # fmt: skip
    return Row.model_validate(given | more)


def compared(baseline: str, candidate: str, delta: float, half: float = 0.01, **more: Any) -> Comparison:
    given = {
        "metric": "accuracy", "baseline": baseline, "candidate": candidate, "delta": delta,
        "interval": (delta - half, delta + half), "p_value": 0.01, "method": "clustered_t",
        "minimum_detectable_effect": 0.03, "n": 100, "clusters": 100, "wins": 3, "ties": 95, "losses": 2,
    }  # fmt: skip
    return Comparison.model_validate(given | more)


def report(rows: Sequence[Row], comparisons: Sequence[Comparison] = (), **more: Any) -> Report:
    """The last row is the candidate, the first the baseline; the leaderboard is sorted as every report's is."""
    ordered = sorted(rows, key=lambda one: -(one.value if one.value is not None else float("-inf")))
    given = {
        "dataset": "gone@v1:test", "metric": rows[0].metric, "better": "higher", "n": 100, "clusters": 100,
        "baseline": rows[0].model, "candidate": rows[-1].model, "leaderboard": ordered, "comparisons": comparisons,
    }  # fmt: skip
    return Report.model_validate(given | more)


def decision(candidate: str, baseline: str, verdict: str = "hold") -> Decision:
    failed = GateResult(gate=Gate(rule="better", metric="accuracy"), outcome="fail", reason="gain 0: not 'better'")
    return Decision(
        id="decision-1", verdict=verdict, reasons=(failed.reason,), candidate=candidate, baseline=baseline,
        gates=(failed,), n=100, interval=(-0.1, 0.1),
    )  # fmt: skip


def answer(model: str, example: str, output: str | None = None, **more: Any) -> dict[str, Any]:
    return {"model": model, "example": example, "output": output, "error": None if output else "it failed"} | more


def store(
    workspace: Workspace,
    told: Report,
    references: Mapping[str, str],
    answers: Sequence[Mapping[str, Any]],
    *,
    columns: Mapping[str, Sequence[str | None]] | None = None,
    previews: Sequence[str | None] | None = None,
    scores: Sequence[Mapping[str, Any]] = (),
    name: str = "evaluation-handmade",
) -> str:
    """Its id. `references` by example; the other columns are in the same order."""
    folder = workspace.folders.evaluations / name
    folder.mkdir()
    ids = list(references)
    examples = {
        "example": ids, "group_key": [None] * len(ids), "truth": list(references.values()),
        "preview": list(previews or [None] * len(ids)), **{key: list(cells) for key, cells in (columns or {}).items()},
    }  # fmt: skip
    pq.write_table(pa.table({k: pa.array(v, pa.string()) for k, v in examples.items()}), folder / "examples.parquet")
    pq.write_table(pa.Table.from_pylist([dict(one) for one in answers], _SCHEMA), folder / "predictions.parquet")
    kinds = pa.schema(
        [("model", pa.string()), ("example", pa.string()), ("metric", pa.string()), ("value", pa.float64())]
    )
    pq.write_table(pa.Table.from_pylist([dict(one) for one in scores], kinds), folder / "scores.parquet")
    models = ",".join(one.model for one in told.leaderboard)
    values = [name, told.use_case, told.dataset, models, told.model_dump_json(), None]
    workspace.database.transact(lambda tx: tx.execute(_INSERT, [*values, tx.now]))
    return name
