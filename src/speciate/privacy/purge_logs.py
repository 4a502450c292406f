"""A purge in the logs of answers, also while a deployment writes them.

A record goes if it is the same example: by its id (of rows that came from a log), its file, its text, or the cells of
its row, as they are or as the log's redaction left them. In all other records purged texts are replaced, as in the
catalog (`purge_catalog`). Writers are asked to begin another segment, so that the old one can be sealed and rewritten;
later answers are new.
"""

from __future__ import annotations

import json
import math
import shutil
import time
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from speciate.errors import Code, SpeciateError
from speciate.predictions import maintenance, reading
from speciate.predictions.log_files import ANSWERS, FEEDBACK, LogFolder, all_logs
from speciate.predictions.pii_redaction import Redaction
from speciate.privacy.redaction import TextRedactor
from speciate.settings import Log as Settings
from speciate.settings import load
from speciate.workspace.workspace import Folders

if TYPE_CHECKING:
    import pyarrow as pa


_ROLL_SECONDS = 20.0
_REDACTED_COLUMNS = {ANSWERS: ("input", "output", "given"), FEEDBACK: ("label",)}


class PurgedExamples:
    """The purged examples. `names`: ids and sha256 that the rows are known by. `cells`: of each row, column -> cell.
    Pure."""

    def __init__(
        self, names: Collection[str], texts: Collection[str], cells: Sequence[Mapping[str, Any]], redaction: Redaction
    ) -> None:
        self._names = frozenset(names)
        self._texts = {*texts, *(redaction(text).value for text in texts if len(text) > 1)}
        written = [{name: cell for name, cell in row.items() if cell is not None} for row in cells]
        self._rows = [*written, *(redaction(row).value for row in written)]
        self._known: dict[tuple[str, ...], set[tuple[str, ...]]] = {}

    def holds(self, identifier: str, kept: Any) -> bool:
        """Whether this answer, with what was kept of its input, is one of the examples."""
        if identifier in self._names or identifier in self._texts:
            return True
        if not isinstance(kept, dict):
            return False
        if any(sha256 in self._names for sha256 in reading.input_files(kept)):
            return True
        if isinstance(kept.get("text"), str):
            return kept["text"] in self._texts or self._has({"text": kept["text"]})
        if isinstance(kept.get("row"), dict):
            return self._has(kept["row"])
        parts = kept.get("parts")
        return isinstance(parts, dict) and any(self._part(cell) for cell in parts.values())

    def _part(self, cell: Any) -> bool:
        value = (cell or {}).get("value", (cell or {}).get("text")) if isinstance(cell, dict) else None
        return isinstance(value, str) and value in self._texts

    def _has(self, row: Mapping[str, Any]) -> bool:
        """Whether it agrees with a forgotten row in all columns that both have, and those are half of its own."""
        names = tuple(sorted(row))
        if names not in self._known:
            self._known[names] = set(filter(None, (self._signed(names, each) for each in self._rows)))
        known = self._known[names]
        return bool(known) and any(
            all(cell in ("", own) for cell, own in zip(each, map(_normalize_cell, map(row.get, names)), strict=True))
            for each in known
        )

    def _signed(self, names: tuple[str, ...], row: Mapping[str, Any]) -> tuple[str, ...] | None:
        """The cells of these columns; "" for those that it lacks. None where it has fewer than half of them."""
        there = sum(name in row for name in names)
        if not there or there < len(names) / 2:
            return None
        return tuple(_normalize_cell(row[name]) if name in row else "" for name in names)


def purge_logs(
    folders: Folders, names: Collection[str], texts: Collection[str], cells: Sequence[Mapping[str, Any]]
) -> dict[str, set[str]]:
    """Take them out of every log: use case -> ids of the answers that went. May be repeated.

    Raises UNAVAILABLE where somebody does not let go of a segment.
    """
    settings = load(folders.root).log
    found = {}
    for folder in all_logs(folders):
        own = settings.of(folder.use_case)
        forgotten = PurgedExamples(names, texts, cells, _redaction(own))
        if gone := _purge_log(folder, forgotten, TextRedactor(texts)):
            found[folder.use_case] = gone
    return found


def _purge_log(folder: LogFolder, forgotten: PurgedExamples, eraser: TextRedactor) -> set[str]:
    _close_segments(folder)
    with folder.maintained(wait=True):
        maintenance.seal_segments(folder)
        gone, files = set[str](), set[str]()
        for path in folder.all_parts():
            maintenance.keep_rows(path, ANSWERS, lambda rows: _rows_to_keep(rows, forgotten, gone, files))
        for path in folder.all_parts(FEEDBACK):
            maintenance.keep_rows(
                path, FEEDBACK, lambda rows: [each not in gone for each in rows["prediction"].to_pylist()]
            )
        for kind in (ANSWERS, FEEDBACK):
            for path in folder.all_parts(kind):
                maintenance.rewrite_part(
                    path,
                    lambda rows, kind=kind: _redact_rows(rows, _REDACTED_COLUMNS[kind], eraser),  # type: ignore[misc]
                )
        listed = reading.answers(folder, columns=["media"])["media"].to_pylist()
        for sha256 in files - {each for named in listed for each in named or ()}:
            folder.medium(sha256).unlink(missing_ok=True)
        shutil.rmtree(folder.watched, ignore_errors=True)  # vectors, samples and contact sheets of what went
    return gone


def _close_segments(folder: LogFolder) -> None:
    """Close the log's segments, until nobody appends any more to what was there."""
    before = set(folder.all_segments()) - set(folder.closed_segments())
    end = time.monotonic() + _ROLL_SECONDS
    while before - set(folder.closed_segments()) and any(path.exists() for path in before):
        folder.ask_roll()
        if time.monotonic() > end:
            raise SpeciateError(
                Code.UNAVAILABLE,
                f"The log of {folder.use_case!r} is held by a process that does not let go of it.",
                f"Stop its deployment (speciate deployment stop {folder.use_case}), then control_job(action='retry').",
            )
        time.sleep(0.1)


def _rows_to_keep(rows: pa.Table, forgotten: PurgedExamples, gone: set[str], files: set[str]) -> list[bool]:
    """Which rows stay; notes the ids and files of the others."""
    mask = []
    for row in rows.select(["id", "input", "media"]).to_pylist():
        goes = forgotten.holds(row["id"], None if row["input"] is None else json.loads(row["input"]))
        if goes:
            gone.add(row["id"])
            files.update(row["media"] or ())
        mask.append(not goes)
    return mask


def _redact_rows(rows: pa.Table, columns: Iterable[str], eraser: TextRedactor) -> pa.Table:
    import pyarrow as pa

    for name in columns:
        before = rows[name].to_pylist()
        redact = eraser.text if name == "given" else eraser.json
        after = [None if cell is None else redact(cell) for cell in before]
        if after != before:
            rows = rows.set_column(rows.schema.get_field_index(name), name, pa.array(after, pa.string()))
    return rows


def _normalize_cell(cell: Any) -> str:
    """A cell as text: numbers by their value, whatever their type; never empty."""
    if isinstance(cell, bool) or cell is None:
        return repr(cell)
    if isinstance(cell, int | float):
        return repr(float(cell)) if math.isfinite(cell) else repr(cell)
    text = cell.strip() if isinstance(cell, str) else json.dumps(cell, sort_keys=True, default=str)
    try:
        return repr(float(text))
    except ValueError:
        return f"'{text}"


def _redaction(settings: Settings) -> Redaction:
    return Redaction(settings.redact, settings.columns, settings.patterns)
