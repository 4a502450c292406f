"""A workspace with one of everything: rows, two models, evaluations, production, a logged answer, a paused job."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any, NamedTuple

from tests.server.processes import Stdio


class World(NamedTuple):
    """A workspace with one of everything, on a disk that `ballast` fills."""

    shell: Stdio
    workspace: Path
    ballast: Path
    folder: Path
    """Of the caller, on another disk."""
    example: str
    prediction: str
    waiting: str
    """A job that is paused."""


def points(rows: int = 400) -> list[dict[str, Any]]:
    """`a` says much of the label and not all: an input that tells it alone asks for a person before a promotion."""
    return [{"a": number % 7 + 5 * (number % 2), "b": number / 9, "label": "ab"[number % 2]} for number in range(rows)]


def use_case(name: str, **more: Any) -> dict[str, Any]:
    return {"name": name, "task": "tabular-classification", "objective": {"metric": "accuracy", "target": 0.6}} | more


def make(shell: Stdio, workspace: Path, folder: Path) -> World:
    called(shell, "define_use_case", **use_case("sorting"))
    ended(shell, called(shell, "create_dataset", name="points", rows=points(), label="label")["job"])
    for name in ("sorter", "second"):
        ended(shell, called(shell, "train_model", name=name, dataset="points", method="classical")["job"])
        asked = {"models": ["constant:", name], "use_case": "sorting", "dataset": "points", "latency": False}
        ended(shell, called(shell, "evaluate_models", **asked)["job"])
    called(shell, "define_use_case", **use_case("spare"))  # in which nothing serves
    asked = {"models": ["constant:", "second"], "use_case": "spare", "dataset": "points", "latency": False}
    ended(shell, called(shell, "evaluate_models", **asked)["job"])
    promoted = called(shell, "promote_model", use_case="sorting", model="sorter@v1")
    assert promoted["state"] == "applied", promoted
    shell.call("move_alias", {"use_case": "sorting", "model": "second@v1"})  # of the fixture
    answer = called(shell, "predict", use_case="sorting", inputs=[{"row": {"a": 3, "b": 0.5}}])
    rows = called(shell, "query_dataset", dataset="points", sql="SELECT id FROM examples ORDER BY id LIMIT 1")
    waiting = called(shell, "curate_dataset", dataset="points@v1", steps=[{"op": "filter", "where": "a > 2"}])["job"]
    called(shell, "control_job", job=waiting, action="pause")
    return World(
        shell, workspace, workspace / "ballast", folder, rows["untrusted"]["rows"][0][0],
        answer["predictions"][0]["prediction"], waiting,
    )  # fmt: skip


def called(shell: Stdio, tool: str, **arguments: Any) -> dict[str, Any]:
    answer = shell.call(tool, arguments)
    assert not answer["isError"], answer["content"][0]["text"]
    content: dict[str, Any] = answer["structuredContent"]
    return content


def ended(shell: Stdio, job: str) -> dict[str, Any]:
    latest = time.monotonic() + 120
    while (view := called(shell, "wait_for_job", job=job, timeout_seconds=20))["state"] not in (
        "succeeded", "failed", "dead", "cancelled",
    ):  # fmt: skip
        assert time.monotonic() < latest, view
    assert view["state"] == "succeeded", view
    return view


def said(answer: dict[str, Any]) -> str:
    return "\n".join(block.get("text", "") for block in answer["content"])
