"""What feedback says for a watch: labels that came, those of the running episode, and how far labellers agree.

What a look costs follows what came since the look before: of the segments that grew the new lines are read, of the
other files those that are new or were replaced, and only the answers that they speak of are counted anew. A look at an
unchanged log costs a listing of two folders.
"""

from __future__ import annotations

import json
from bisect import bisect_left, bisect_right, insort
from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

from speciate.loop.watch.rows import LabelRequest
from speciate.predictions import prediction_ids, quality, reading
from speciate.predictions.feedback import latest_by_source, prevailing_label
from speciate.predictions.log_files import FEEDBACK, LogFolder, log_folder, sealed_segments
from speciate.predictions.quality import Pattern
from speciate.predictions.random_labels import drawn_at_random
from speciate.predictions.reading import FeedbackRow, StoredFeedback
from speciate.workspace.workspace import Workspace

Row = tuple[str, float, str, str | None, str]
"""Prediction, when it came, source, label as JSON, and who gave it."""
_TRIES = 20


class LabelCounts(NamedTuple):
    new: int = 0
    """Labelled answers whose label came after what was learned."""
    of_episode: int = 0
    drawn: int = 0
    """Those of `of_episode` whose answers were drawn at random."""
    alpha: float | None = None
    doubly: int = 0
    """Answers that several people labelled."""


class LabelReader:
    """Keeps what was read of each log."""

    def __init__(self, workspace: Workspace) -> None:
        self._workspace = workspace
        self._read: dict[str, LogLabels] = {}
        self._drawn: dict[str, tuple[LogLabels, int, set[str]]] = {}
        """Labelled answers that were drawn at random, by what of the log was read."""

    def counts(
        self, use_case: str, learned_until: float, requests: Mapping[str, LabelRequest], episode: int
    ) -> LabelCounts:
        labels = self.labels(use_case)
        own = [each for each in requests.values() if each.episode == episode and each.prediction in labels.came]
        return LabelCounts(
            new=labels.count_after(learned_until),
            of_episode=len(own),
            drawn=sum(each.drawn == "random" for each in own),
            alpha=labels.alpha,
            doubly=labels.doubly,
        )

    def judging(self, use_case: str, learned_until: float, requested: Collection[str]) -> int:
        """How many labels that came after `learned_until` can judge: those of answers that were drawn at random.
        `requested`: answers that episodes drew so. Reads the log; what it found is kept until a label comes, as later
        answers are in no earlier draw."""
        labels, folder = self.labels(use_case), log_folder(self._workspace.folders, use_case)
        known = self._drawn.get(use_case)
        if known is None or known[0] is not labels or known[1] != labels.rows_read:
            since = reading.retention_start(
                self._workspace.clock.now(), self._workspace.settings.log.of(use_case).retention_days
            )
            given = latest_by_source(reading.feedback(folder, since=since)) if folder.path.exists() else {}
            known = self._drawn[use_case] = labels, labels.rows_read, drawn_at_random(folder, since, given, requested)
        return sum(labels.came.get(name, 0.0) > learned_until for name in known[2])

    def labels(self, use_case: str) -> LogLabels:
        """Labels of the use case's log as it is now."""
        folder = log_folder(self._workspace.folders, use_case)
        days = self._workspace.settings.log.of(use_case).retention_days
        floor = prediction_ids.first_after(reading.retention_start(self._workspace.clock.now(), days))
        known = self._read.get(use_case)
        if known is None or floor < known.floor:  # a clock that was set back: what expired by it is not expired
            known = self._read[use_case] = LogLabels()
        known.update(folder, floor)
        return known


class _Stamp(NamedTuple):
    """Identity of a file's content: a file that was replaced has another inode, and one that grew another size."""

    inode: int
    size: int
    written: int


class _File(NamedTuple):
    stamp: _Stamp
    read: int
    """Bytes of its whole lines, for a segment."""
    rows: list[Row]


class LogLabels:
    """What the feedback of one log says, kept up with its files."""

    def __init__(self) -> None:
        self.floor = ""
        """Lowest id of an answer that is kept: older answers are expired."""
        self.came: dict[str, float] = {}
        """Prediction -> when its prevailing label came. Labels of models are none."""
        self.alpha: float | None = None
        self.doubly = 0
        self.rows_read = 0
        """Rows read by all looks together, for who asks what a look costs."""
        self._files: dict[Path, _File] = {}
        self._said: dict[str, Counter[Row]] = {}
        """Prediction -> its feedback, and in how many files it lies: two, where a kill came while they were sealed."""
        self._ids: list[str] = []
        """Keys of `_said`, ascending."""
        self._times: list[float] = []
        """Values of `came`, ascending."""
        self._several: dict[str, Pattern] = {}
        self._patterns: Counter[Pattern] = Counter()
        self._touched: set[str] = set()
        """Answers of which something came or went, and that were not counted anew yet."""

    def count_after(self, moment: float) -> int:
        """Labelled answers whose label came later."""
        return len(self._times) - bisect_right(self._times, moment)

    def update(self, folder: LogFolder, floor: str) -> None:
        """Read what changed since the last time."""
        for attempt in range(_TRIES):
            try:
                self._read_changed(folder)
                break
            except FileNotFoundError:  # sealed or dropped meanwhile: its rows lie elsewhere, or are gone
                if attempt == _TRIES - 1:
                    raise
        self.floor = floor
        self._touched.update(self._ids[: bisect_left(self._ids, floor)])
        if not self._touched:
            return
        for prediction in self._touched:
            self._count(prediction)
        gone = {each for each in self._touched if each < floor or not self._said.get(each)}
        for prediction in gone:
            self._said.pop(prediction, None)
        self._ids = [each for each in self._ids if each not in gone] if gone else self._ids
        self.alpha = quality.alpha_of_patterns(self._patterns) if self._patterns else None
        self._touched.clear()

    def _read_changed(self, folder: LogFolder) -> None:
        """Raises FileNotFoundError; what was read until then is kept."""
        segments = folder.all_segments()  # first: what is sealed meanwhile lies in a part that is listed after it
        sealed = sealed_segments(folder.all_parts())
        segments = [path for path in segments if path.name not in sealed]  # both, after a kill: what a part says stands
        there = [*folder.all_parts(FEEDBACK), *segments]  # older rows first: the last of one moment counts
        for path in there:
            found = path.stat()
            stamp = _Stamp(found.st_ino, found.st_size, found.st_mtime_ns)
            known = self._files.get(path)
            if known is not None and known.stamp == stamp:
                continue
            if path.suffix == ".jsonl":
                self._read_segment(path, stamp, known)
            else:
                rows = list(map(_row, reading.feedback_rows(path)))
                self._forget(path)
                self._add(path, _File(stamp, 0, []), rows)
        for path in self._files.keys() - set(there):
            self._forget(path)

    def _read_segment(self, path: Path, stamp: _Stamp, known: _File | None) -> None:
        """A segment only grows, or is replaced whole."""
        grown = known is not None and known.stamp.inode == stamp.inode and stamp.size >= known.read
        begin = known.read if known is not None and grown else 0
        with path.open("rb") as file:
            file.seek(begin)
            data = file.read()
        whole = data[: data.rfind(b"\n") + 1]
        rows = list(map(_row, reading.feedback_of_lines(whole)))
        if not grown:
            self._forget(path)
        self._add(path, _File(stamp, begin + len(whole), known.rows if known and grown else []), rows)

    def _add(self, path: Path, file: _File, rows: Iterable[Row]) -> None:
        for row in rows:
            self.rows_read += 1
            file.rows.append(row)
            if row[0] not in self._said:
                self._said[row[0]] = Counter()
                insort(self._ids, row[0])
            self._said[row[0]][row] += 1
            self._touched.add(row[0])
        self._files[path] = file

    def _forget(self, path: Path) -> None:
        known = self._files.pop(path, None)
        for row in known.rows if known else ():
            said = self._said.get(row[0])
            if said is not None:
                said[row] -= 1
                if said[row] <= 0:
                    del said[row]
            self._touched.add(row[0])

    def _count(self, prediction: str) -> None:
        """Anew, of one answer."""
        before = self.came.pop(prediction, None)
        if before is not None:
            del self._times[bisect_left(self._times, before)]
        pattern = self._several.pop(prediction, None)
        if pattern is not None:
            self.doubly -= 1
            self._patterns[pattern] -= 1
            if not self._patterns[pattern]:
                del self._patterns[pattern]
        said = self._said.get(prediction)
        if not said or prediction < self.floor:
            return
        given = [
            StoredFeedback(name, at, source, None if label is None else json.loads(label), None, by, None)
            for name, at, source, label, by in sorted(said, key=lambda row: row[1])
        ]
        label = prevailing_label(latest_by_source(given)[prediction])
        if label is not None:
            self.came[prediction] = label.at
            insort(self._times, label.at)
        by_labeller = {(each.source, each.by): str(each.label).strip() for each in given if each.label is not None}
        if len(by_labeller) > 1:
            self.doubly += 1
            pattern = self._several[prediction] = quality.label_pattern(list(by_labeller.values()))
            self._patterns[pattern] += 1


def _row(row: FeedbackRow) -> Row:
    return row["prediction"], row["at"], row["source"], row["label"], row["by"]
