"""Questions with right answers, what two systems said to them, and what people think of it; and judges on loopback."""

from __future__ import annotations

import json
import re
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from speciate.datasets import versions
from speciate.datasets.versions import Manifest
from speciate.refs import id_from_key
from speciate.workspace.workspace import Workspace
from tests.evaluation import world

COUNT = 40
_FENCED = re.compile(r"<([a-zA-Z-]+) ([0-9a-f]{8})>\n(.*?)\n</\1 \2>", re.DOTALL)


def make_dataset(workspace: Workspace, count: int = COUNT, **columns: list[str | None]) -> Manifest:
    """`good` is right but for every fourth answer, `bad` in every fourth alone; `grade` is what people give `good`."""
    given: dict[str, list[Any]] = {
        "good": [str(2 * i) if i % 4 else "I do not know" for i in range(count)],
        "bad": ["I do not know" if i % 4 else str(2 * i) for i in range(count)],
        "grade": [("5" if i % 4 else "1") if i % 10 else "2" for i in range(count)],
        **columns,
    }
    table = pa.table(
        {
            "id": [f"sum-{i:03d}" for i in range(count)],
            "split": ["test"] * count,
            "label": [str(2 * i) for i in range(count)],
            "group_key": [f"g{i // 2}" for i in range(count)],
            "quality": ["ok"] * count,
            "reason": pa.array([None] * count, pa.string()),
            "source": pa.array([None] * count, pa.string()),
            "_content": [f"content {i}" for i in range(count)],
            "_fingerprint": [f"print {i}" for i in range(count)],
            "question": [f"What is {i} + {i}?" for i in range(count)],
            **{name: pa.array(cells, pa.string()) for name, cells in given.items()},
        }
    )
    file = workspace.folders.datasets / "sums.parquet"
    pq.write_table(table, file)
    manifest = Manifest(
        name="sums", version=0, id=id_from_key("dataset", "sums"), modality="text",
        parts=(versions.Part(file=str(file.relative_to(workspace.folders.root)), rows=count),),
        columns=dict.fromkeys(("question", *given), "VARCHAR"), inputs=("question",), label="answer",
        numeric=False, splits={"test": count}, labels={}, rows=count,
    )  # fmt: skip
    lanes = np.zeros(1024, np.uint16)
    return workspace.database.transact(
        lambda tx: versions.register(tx, manifest, lanes, operation={}, report={}, job=None)
    )


def define(workspace: Workspace) -> None:
    world.define(
        workspace, name="summing", task="text-generation", incumbent="column:bad",
        objective={"metric": "exact_match", "target": 0.5},
    )  # fmt: skip


def fenced(text: str) -> dict[str, str]:
    """What stands between tags of a question to a judge, by the tag's name."""
    return {name: inside for name, _, inside in _FENCED.findall(text)}


def outside(text: str) -> str:
    return _FENCED.sub("", text)


def without_tags(text: str) -> str:
    return _FENCED.sub(lambda found: found[3], text)


def grades(text: str) -> str:
    """A judge that gives 5 to what the reference says, and 2 to all else."""
    parts = fenced(text)
    right = parts["answer"] == parts["reference"]
    return json.dumps({"reason": "as the reference" if right else "another", "verdict": 5 if right else 2})


def prefers(text: str) -> str:
    """A judge that knows right from wrong, but takes the first of two that are alike in that."""
    parts = fenced(text)
    first, second = (parts[f"answer-{side}"] == parts["reference"] for side in "AB")
    return json.dumps({"reason": "", "verdict": "B" if second and not first else "A"})
