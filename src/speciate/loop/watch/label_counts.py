"""What feedback says for a watch: labels that came, those of the running episode, and how far labellers agree.

A log is read again only where its files changed: a look at an unchanged one costs a listing of two folders.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from speciate.loop.watch.rows import LabelRequest
from speciate.predictions import quality, reading
from speciate.predictions.feedback import latest_by_source, prevailing_label
from speciate.predictions.log_files import FEEDBACK, LogFolder, log_folder
from speciate.workspace.workspace import Workspace

Signature = tuple[tuple[str, int], ...]


class LabelCounts(NamedTuple):
    new: int = 0
    """Labelled answers whose label came after what was learned."""
    of_episode: int = 0
    drawn: int = 0
    """Of these, drawn at random."""
    alpha: float | None = None
    doubly: int = 0
    """Answers that several people labelled."""


class _Labels(NamedTuple):
    came: Mapping[str, float]
    """Prediction -> when its prevailing label came. Labels of models are none."""
    alpha: float | None
    doubly: int


class LabelReader:
    """Keeps what was read of each log until its files change."""

    def __init__(self, workspace: Workspace) -> None:
        self._workspace = workspace
        self._read: dict[str, tuple[Signature, _Labels]] = {}

    def counts(
        self, use_case: str, learned_until: float, requests: Mapping[str, LabelRequest], episode: int
    ) -> LabelCounts:
        labels = self._labels(use_case)
        own = [each for each in requests.values() if each.episode == episode and each.prediction in labels.came]
        return LabelCounts(
            new=sum(at > learned_until for at in labels.came.values()),
            of_episode=len(own),
            drawn=sum(each.drawn == "random" for each in own),
            alpha=labels.alpha,
            doubly=labels.doubly,
        )

    def _labels(self, use_case: str) -> _Labels:
        log = log_folder(self._workspace.folders, use_case)
        signature = _signature(log)
        known = self._read.get(use_case)
        if known is not None and known[0] == signature:
            return known[1]
        days = self._workspace.settings.log.of(use_case).retention_days
        given = (
            reading.feedback(log, since=reading.retention_start(self._workspace.clock.now(), days)) if signature else []
        )
        came = {
            name: label.at
            for name, said in latest_by_source(given).items()
            if (label := prevailing_label(said)) is not None
        }
        by_labeller: dict[str, dict[tuple[str, str], str]] = {}
        for each in given:
            if each.label is not None:
                by_labeller.setdefault(each.prediction, {})[each.source, each.by] = str(each.label).strip()
        several = [list(labels.values()) for labels in by_labeller.values() if len(labels) > 1]
        labels = _Labels(came, quality.alpha(several) if several else None, len(several))
        self._read[use_case] = signature, labels
        return labels


def _signature(log: LogFolder) -> Signature:
    """Names and sizes of the files that may hold feedback. Segments only grow, and parts never change."""
    found = []
    for path in (*log.all_segments(), *log.all_parts(FEEDBACK)):
        try:
            found.append((path.name, path.stat().st_size))
        except FileNotFoundError:
            continue
    return tuple(found)
