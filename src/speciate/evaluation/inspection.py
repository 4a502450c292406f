"""One evaluation opened for looking into it: its report, and the services that read its stored rows.

The daemon's side: rows are read and media decoded by service processes.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from speciate.datasets.versions import Manifest, resolve
from speciate.errors import SpeciateError
from speciate.evaluation.report import Report, find
from speciate.jobs.pool import Pool
from speciate.refs import dataset_ref
from speciate.workspace.workspace import Workspace

_AS_TEXT = ("text", "tabular", "protein")
"""Modalities whose examples are told by text; a picture of it would show less."""
_MOST_ON_A_SHEET = 30
_PNG = b"\x89PNG\r\n\x1a\n"
_CREATED = "SELECT created FROM evaluations WHERE id = ?"
_SPEC = "SELECT spec FROM jobs WHERE id = (SELECT job FROM evaluations WHERE id = ?)"


class Inspection:
    """`baseline` None: the report's. The candidate is the report's, or the best other where that is the baseline."""

    def __init__(self, workspace: Workspace, pool: Pool, evaluation: str, baseline: str | None = None) -> None:
        """Raises NOT_FOUND for an evaluation or a baseline that is not there."""
        self._workspace, self._pool, self.evaluation = workspace, pool, evaluation
        self.report: Report = find(workspace.database, evaluation)
        self.baseline = self.report.row(baseline).model if baseline else self.report.baseline
        others = [row.model for row in self.report.leaderboard if row.model != self.baseline]
        self.candidate = next(
            iter([self.report.candidate] if self.report.candidate in others else others), self.baseline
        )
        self._manifest = _manifest(workspace, self.report)

    @property
    def _folder(self) -> Path:
        return self._workspace.folders.evaluations / self.evaluation

    @property
    def pair(self) -> list[str]:
        """The candidate and the baseline; one model where there is no other."""
        return list(dict.fromkeys([self.candidate, self.baseline]))

    @property
    def created(self) -> float:
        row = self._workspace.database.read_one(_CREATED, [self.evaluation])
        return float(row[0]) if row else 0.0

    @property
    def spec(self) -> dict[str, Any]:
        """What the job was asked; empty where the job is not known any more."""
        row = self._workspace.database.read_one(_SPEC, [self.evaluation])
        found: dict[str, Any] = json.loads(row[0]) if row else {}
        return found

    @property
    def has_unscored(self) -> bool:
        """Whether a scorer gave some answers no score."""
        return (self._folder / "unscored.parquet").exists()

    def ask(self, service: str, **more: Any) -> dict[str, Any]:
        """What a service of this package, "module:function", finds in the stored rows."""
        asked = {
            "folder": str(self._folder),
            "metric": self.report.metric,
            "baseline": self.baseline,
            "candidate": self.candidate,
            "inputs": list(self._manifest.inputs) if self._manifest else [],
        }
        return self._pool.ask(f"speciate.evaluation.{service}", asked | more)

    # Media

    @property
    def has_pictures(self) -> bool:
        """Whether the examples are told better by a picture than by text."""
        return self._manifest is not None and self._manifest.modality not in _AS_TEXT

    def pictures(self, ids: Sequence[str]) -> dict[str, bytes]:
        """A PNG for each of these examples that can still be drawn."""
        drawn = self._draw("one_by_one", ids=list(dict.fromkeys(ids)))
        found = {name: base64.b64decode(text) for name, text in drawn.get("pictures", {}).items()}
        return {name: data for name, data in found.items() if data.startswith(_PNG)}

    def sheet(self, captions: Mapping[str, str]) -> bytes | None:
        """The first 30 of these examples in one picture, each with its caption, at most 1,024 pixels a side."""
        shown = list(captions)[:_MOST_ON_A_SHEET]
        drawn = self._draw("numbered", ids=shown, captions=[captions[name] for name in shown])
        return base64.b64decode(drawn["png"]) if drawn else None

    def _draw(self, service: str, **payload: Any) -> dict[str, Any]:
        """Nothing where media cannot be drawn any more: the rows beside them say all the same."""
        if self._manifest is None or not payload["ids"]:
            return {}
        place = {"root": str(self._workspace.folders.root), "manifest": self._manifest.model_dump(mode="json")}
        try:
            return self._pool.ask(f"speciate.evaluation.thumbnails:{service}", place | payload)
        except SpeciateError:
            return {}


def _manifest(workspace: Workspace, report: Report) -> Manifest | None:
    """None where the dataset was deleted since."""
    try:
        return resolve(workspace.database, dataset_ref(report.dataset)._replace(split=None))
    except SpeciateError:
        return None
