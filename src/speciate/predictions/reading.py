"""What the log of a use case holds: sealed parts and the segments that are still written, as one.

Somebody may seal, drop or rewrite meanwhile. So the segments are listed before the parts, a segment that a part names
is not read again, and where a listed file is gone by the time that it is opened all of it is read anew.
Answers older than the retention are never shown, also where their file has not been rewritten yet.
"""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypedDict, cast

from speciate.modalities.media_answers import is_stored_media
from speciate.predictions import prediction_ids
from speciate.predictions.log_files import (
    ANSWER_LINE,
    ANSWERS,
    FEEDBACK,
    FEEDBACK_LINE,
    GAP_LINE,
    Footer,
    KeptInput,
    LogFolder,
    LogRecord,
    decode,
    lines_with,
    read_footer,
    read_part,
    sealed_segments,
)

if TYPE_CHECKING:
    import pyarrow as pa


_TRIES = 20
_DAY = 86_400.0
_JSON = ("input", "output", "left_out")
"""Columns that hold JSON."""
_FEEDBACK_NEEDLE = b'{"k":"%s",' % FEEDBACK_LINE.encode()
"""What lines of feedback contain: those of answers cost nothing."""


class LoggedAnswer(NamedTuple):
    """One answer that was logged."""

    id: str
    at: float
    model: str
    """`name@v3`"""
    generation: int
    modality: str
    input: KeptInput | None
    """`{"text"}`, `{"row"}`, `{"data": {"sha256", "bytes"}}` or `{"parts"}`; None where it was not kept."""
    output: Any
    confidence: float | None
    error: bool
    ms: float
    given: str | None
    """What the caller called it."""
    redacted: int
    left_out: tuple[str, ...]
    entity: str = ""
    """Hash of who or what asked (entities.py); "" where none was said."""


class StoredFeedback(NamedTuple):
    """One feedback."""

    prediction: str
    at: float
    source: str
    label: Any
    score: float | None
    by: str
    drawn: str | None
    """Strategy of the queue by which the answer was asked about; None: by none."""


class LogContents(NamedTuple):
    answers: int
    models: dict[str, int]
    first: float | None
    last: float | None
    missed: int
    """Answers that were to be logged and are not: the disk was full, or the log."""
    torn: int
    """Lines that a crash tore. None of them was acknowledged, unless the machine lost its power."""
    bytes: int


def schema(kind: str) -> pa.Schema:
    import pyarrow as pa

    if kind == FEEDBACK:
        return pa.schema(
            [("prediction", pa.string()), ("at", pa.float64()), ("source", pa.string()), ("label", pa.string()),
             ("score", pa.float64()), ("by", pa.string()), ("drawn", pa.string())]
        )  # fmt: skip
    return pa.schema(
        [("id", pa.string()), ("at", pa.float64()), ("model", pa.string()), ("generation", pa.int64()),
         ("modality", pa.string()), ("input", pa.string()), ("output", pa.string()), ("confidence", pa.float64()),
         ("error", pa.bool_()), ("ms", pa.float64()), ("given", pa.string()), ("redacted", pa.int64()),
         ("left_out", pa.string()), ("media", pa.list_(pa.string())), ("entity", pa.string())]
    )  # fmt: skip


class AnswerRow(TypedDict):
    """A row of ANSWERS; `input`, `output` and `left_out` are JSON."""

    id: str
    at: float
    model: str
    generation: int
    modality: str
    input: str | None
    output: str | None
    confidence: float | None
    error: bool
    ms: float
    given: str | None
    redacted: int
    left_out: str | None
    media: list[str]
    entity: str | None
    """None where none was said, and in logs from before there were any."""


class FeedbackRow(TypedDict):
    """A row of FEEDBACK; `label` is JSON."""

    prediction: str
    at: float
    source: str
    label: str | None
    score: float | None
    by: str
    drawn: str | None


class SegmentRows(NamedTuple):
    answers: list[AnswerRow]
    feedback: list[FeedbackRow]
    missed: int
    torn: int


def read_segments(paths: Iterable[Path], needle: bytes | None = None) -> SegmentRows:
    """What segments hold, as rows of the two schemas; only of lines with `needle`. Raises FileNotFoundError."""
    found = SegmentRows([], [], 0, 0)
    missed = torn = 0
    for path in paths:
        data = path.read_bytes()
        decoded = decode(data if needle is None else lines_with(data, needle))
        torn += decoded.torn
        for record in decoded.records:
            if record["k"] == ANSWER_LINE:
                found.answers.append(_answer_row(record))
            elif record["k"] == FEEDBACK_LINE:
                found.feedback.append(_feedback_row(record))
            elif record["k"] == GAP_LINE:
                missed += record["n"]
    return found._replace(missed=missed, torn=torn)


def table(rows: Sequence[Mapping[str, Any]], kind: str) -> pa.Table:
    import pyarrow as pa

    return pa.Table.from_pylist(list(rows), schema(kind))


def answers(
    folder: LogFolder,
    *,
    since: float = 0.0,
    columns: Sequence[str] | None = None,
    models: Sequence[str] = (),
    of: Collection[str] | None = None,
) -> pa.Table:
    """Rows of the log given at `since` or later, oldest first, with these columns (default: all). `of`: ids."""
    import pyarrow as pa
    import pyarrow.compute as pc

    wanted = list(columns) if columns is not None else schema(ANSWERS).names
    needed = list(dict.fromkeys([*wanted, "id", *(["model"] if models else [])]))
    filters = [("id", ">=", prediction_ids.first_after(since))] + ([("model", "in", list(models))] if models else [])
    parts, open_ = _read_parts_and_segments(folder, ANSWERS, needed, filters)
    rows = table(open_.answers, ANSWERS).select(needed)
    mask = pc.greater_equal(rows["id"], prediction_ids.first_after(since))
    if models:
        mask = pc.and_(mask, pc.is_in(rows["model"], value_set=pa.array(models, pa.string())))
    found = pa.concat_tables([*parts, rows.filter(mask)])
    if of is not None:
        found = found.filter(pc.is_in(found["id"], value_set=pa.array(of, pa.string())))
    return found.sort_by("id").select(wanted)


def feedback_rows(part: Path) -> list[FeedbackRow]:
    """Rows of feedback in one part. Raises FileNotFoundError, DAMAGED."""
    return cast("list[FeedbackRow]", read_part(part).to_pylist())


def feedback_of_lines(data: bytes) -> list[FeedbackRow]:
    """Rows of feedback in whole lines of a segment, in order."""
    records = decode(lines_with(data, _FEEDBACK_NEEDLE)).records
    return [_feedback_row(record) for record in records if record["k"] == FEEDBACK_LINE]


def feedback(folder: LogFolder, *, since: float = 0.0, of: str | None = None) -> list[StoredFeedback]:
    """Feedback on answers given at `since` or later, oldest first. `of`: on this one alone."""
    floor = prediction_ids.first_after(since)
    filters = [("prediction", ">=", floor), *([] if of is None else [("prediction", "=", of)])]
    needle = _FEEDBACK_NEEDLE if of is None else of.encode()
    parts, open_ = _read_parts_and_segments(folder, FEEDBACK, None, filters, needle=needle)
    rows = [row for part in parts for row in part.to_pylist()] + open_.feedback
    rows = list({tuple(row.values()): row for row in rows}.values())  # a kill while they are sealed leaves them twice
    found = [
        StoredFeedback(**{**row, "label": None if row["label"] is None else json.loads(row["label"])})
        for row in rows
        if row["prediction"] >= floor and of in (None, row["prediction"])
    ]
    return sorted(found, key=lambda each: each.at)


def find(folder: LogFolder, prediction: str, *, since: float = 0.0) -> LoggedAnswer | None:
    """The answer of this id; None where the log does not hold it."""
    parsed = prediction_ids.parse(prediction)
    if parsed is None or parsed.at < since:
        return None
    bare = prediction_ids.strip_chat_prefix(prediction)
    parts, open_ = _read_parts_and_segments(folder, ANSWERS, None, [("id", "=", bare)], needle=bare.encode())
    rows = [row for part in parts for row in part.to_pylist()] + [row for row in open_.answers if row["id"] == bare]
    return to_logged_answer(rows[0]) if rows else None


def find_many(folder: LogFolder, predictions: Sequence[str]) -> dict[str, LoggedAnswer]:
    """The answers with these ids that the log holds, by id."""
    wanted = sorted(set(predictions))
    parts, open_ = (
        _read_parts_and_segments(folder, ANSWERS, None, [("id", "in", wanted)])
        if wanted
        else ([], SegmentRows([], [], 0, 0))
    )
    rows = [row for part in parts for row in part.to_pylist()]
    rows += [row for row in open_.answers if row["id"] in set(wanted)]
    return {row["id"]: to_logged_answer(row) for row in rows}


def to_logged_answer(row: Mapping[str, Any]) -> LoggedAnswer:
    """A row of `answers` with all columns."""
    read = {name: None if row[name] is None else json.loads(row[name]) for name in _JSON}
    kept = {name: row[name] for name in LoggedAnswer._fields if name not in _JSON}
    return LoggedAnswer(**{**kept, **read, "left_out": tuple(read["left_out"] or ()), "entity": row["entity"] or ""})


def contents(folder: LogFolder, *, since: float = 0.0) -> LogContents:
    """How much there is."""
    import pyarrow.compute as pc

    rows = answers(folder, since=since, columns=["at", "model"])
    _, open_ = _read_parts_and_segments(folder, ANSWERS, ["id"], [("id", "=", "")])
    missed, torn = open_.missed, open_.torn
    for told in map(read_footer, folder.all_parts()):
        missed, torn = missed + told.missed, torn + told.torn
    times = pc.min_max(rows["at"]).as_py()
    counts = {each["values"]: each["counts"] for each in pc.value_counts(rows["model"]).to_pylist()}
    models = dict(Counter(counts).most_common())
    return LogContents(rows.num_rows, models, times["min"], times["max"], missed, torn, folder.size().bytes)


def count_by_model(folder: LogFolder, *, since: float = 0.0) -> dict[str, int]:
    """How many answers of each version there are, most first. Of young parts only the names of versions are read."""
    import pyarrow.compute as pc

    floor, found = prediction_ids.first_after(since), Counter[str]()
    parts, open_ = _read_parts_and_segments(folder, ANSWERS, ["model"], [("id", ">=", floor)])
    for part in parts:
        found.update({each["values"]: each["counts"] for each in pc.value_counts(part["model"]).to_pylist()})
    found.update(row["model"] for row in open_.answers if row["id"] >= floor)
    return dict(found.most_common())


def retention_start(now: float, retention_days: float) -> float:
    """Time before which answers are not shown any more."""
    return now - retention_days * _DAY


def _read_parts_and_segments(
    folder: LogFolder, kind: str, columns: Sequence[str] | None, filters: list[tuple[str, str, Any]],
    needle: bytes | None = None,
) -> tuple[list[pa.Table], SegmentRows]:  # fmt: skip
    """Parts (filtered), and of the segments the lines with `needle`, or all."""
    for attempt in range(_TRIES):
        segments = folder.all_segments()
        answers = folder.all_parts()
        try:
            sealed = sealed_segments(answers)  # of what is sealed meanwhile either the segment or the part is read
            parts = answers if kind == ANSWERS else folder.all_parts(kind)
            tables = [
                _read_columns(path, kind, told, columns, None if told.holds_only(filters) else filters)
                for path in parts
                if (told := read_footer(path)).may_hold(filters)
            ]
            left = [path for path in segments if path.name not in sealed]
            return tables, read_segments(left, needle)
        except FileNotFoundError:
            if attempt == _TRIES - 1:
                raise
            time.sleep(0.02)
    raise AssertionError


def _read_columns(
    path: Path, kind: str, footer: Footer, columns: Sequence[str] | None, filters: list[tuple[str, str, Any]] | None
) -> pa.Table:
    """These columns of a part, or all; null where it is from before there was such a column."""
    import pyarrow as pa

    known = schema(kind)
    wanted = known.names if columns is None else list(columns)
    rows = read_part(path, columns=[name for name in wanted if name in footer.columns], filters=filters)
    for name in wanted:
        if name not in footer.columns:
            rows = rows.append_column(known.field(name), pa.nulls(rows.num_rows, known.field(name).type))
    return rows.select(wanted)


def _answer_row(record: LogRecord) -> AnswerRow:
    return {
        "id": record["id"], "at": record["at"], "model": record["model"], "generation": record["generation"],
        "modality": record["modality"], "input": _json(record["input"]), "output": _json(record["output"]),
        "confidence": None if record["confidence"] is None else float(record["confidence"]), "error": record["error"],
        "ms": float(record["ms"]), "given": record.get("given"), "redacted": record.get("redacted", 0),
        "left_out": _json(record.get("left_out")),
        "media": sorted({*input_files(record["input"]), *output_files(record["output"])}),
        "entity": record.get("entity"),
    }  # fmt: skip


def _feedback_row(record: LogRecord) -> FeedbackRow:
    return {
        "prediction": record["prediction"], "at": record["at"], "source": record["source"],
        "label": _json(record.get("label")), "score": record.get("score"), "by": record.get("by", ""),
        "drawn": record.get("drawn"),
    }  # fmt: skip


def input_files(kept: Any) -> Iterator[str]:
    """sha256 of the files that what was kept of an input names."""
    if isinstance(kept, dict):
        data = kept.get("data")
        if isinstance(data, dict) and isinstance(data.get("sha256"), str):
            yield data["sha256"]
        for cell in (kept.get("parts") or {}).values() if isinstance(kept.get("parts"), dict) else ():
            yield from input_files(cell)


def output_files(output: Any) -> Iterator[str]:
    """sha256 of the file that an answer is, where it is an image or audio."""
    if is_stored_media(output):
        yield str(output["sha256"])


def _json(value: Any) -> str | None:
    return None if value is None else json.dumps(value, ensure_ascii=False)
