"""Format `webvtt`: each recording and, beside it, its transcript as WebVTT (https://www.w3.org/TR/webvtt1/).

The column (by default the label) holds a text, or a text with times: `{"chunks": [{"timestamp": [begin, end],
"text"}]}` as pipelines of transformers answer, `{"segments": [{"start", "end", "text"}]}`, or such a list alone. A text
without times is one cue over the whole recording, and a note in the file says so: our own transcribers give no times.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeGuard

from speciate.datasets.exports.cells import CsvFile, notes_of_nulls
from speciate.datasets.exports.file_names import split_suffix
from speciate.datasets.exports.format import ExportContent, ReportProgress, WriteReport, has_files
from speciate.datasets.versions import Manifest

_DURATIONS = ("seconds", "duration", "duration_seconds")
_UNTIMED = "NOTE No times are known: the one cue spans the whole recording."
_NO_END = "NOTE Neither times nor the length of the recording are known: the one cue ends at an arbitrary time."
_LONGEST_SECONDS = 359_999.0


class Cue(NamedTuple):
    begin: float
    """Seconds."""
    end: float
    text: str


class WebVtt:
    name = "webvtt"
    again = None
    files = True
    once = True
    column: str | None = None
    """Which the label stands for where none is named."""

    def misfit(self, manifest: Manifest) -> str | None:
        if manifest.modality not in ("audio", "video") or not has_files(manifest):
            return "its examples are no audio or video files."
        return None

    def write(self, export: ExportContent, folder: Path, progress: ReportProgress) -> WriteReport:
        assert export.media is not None
        lengths = next((name for name in _DURATIONS if name in export.rows.column_names), None)
        written, untimed, without, escaped = set[str](), 0, 0, 0
        header = [f"user_{name}" if name in ("file_name", "transcript") else name for name in export.rows.column_names]
        for piece in export.pieces():
            below = folder / "data" / piece.name if piece.split else folder / "data"
            below.mkdir(parents=True, exist_ok=True)
            with CsvFile(below / "metadata.csv", ["file_name", "transcript", *header]) as metadata:
                for number, row in enumerate(piece.rows.to_pylist()):
                    place = piece.start + number
                    path = export.media.path(place)
                    if path not in written or not export.windows:
                        (below / path).parent.mkdir(parents=True, exist_ok=True)
                        (below / path).write_bytes(export.media.read(place))
                        written.add(path)
                    cell = export.labels[place] if export.column is None else row[export.column]
                    length = row[lengths] if lengths else None
                    transcript = ""
                    if cell in (None, ""):
                        without += 1
                    else:
                        text, timed = as_webvtt(cell, length if isinstance(length, int | float) else None)
                        transcript = f"{split_suffix(path)[0]}.vtt"
                        (below / transcript).write_text(text, encoding="utf-8", newline="\n")
                        untimed += not timed
                    metadata.write([[path, transcript, *row.values()]])
                    progress(1)
            escaped += metadata.escaped
        notes = [f"{untimed:,} transcripts have no times: each is one cue over its recording."] if untimed else []
        notes += [f"{without:,} rows have no transcript."] if without else []
        return WriteReport({}, escaped, (*notes, *notes_of_nulls(export.rows)))


def as_webvtt(cell: Any, seconds: float | None) -> tuple[str, bool]:
    """A transcript as a file's text, and whether it has times. `seconds`: the recording's length, if known."""
    timed = list(_timed(cell))
    lines = ["WEBVTT", ""]
    if not timed:
        known = seconds is not None and math.isfinite(seconds) and seconds > 0
        lines += [_UNTIMED if known else _NO_END, ""]
        end = min(float(seconds), _LONGEST_SECONDS) if known and seconds is not None else _LONGEST_SECONDS
        cues = [Cue(0.0, end, _whole_text(cell))]
    else:
        cues = sorted(timed, key=lambda cue: (cue.begin, cue.end))
    for cue in cues:
        if text := _cue_text(cue.text):
            lines += [f"{_time(cue.begin)} --> {_time(max(cue.end, cue.begin + 0.001))}", text, ""]
    return "\n".join(lines), bool(timed)


def _timed(cell: Any) -> Iterator[Cue]:
    """Pieces with times; none where a piece has none."""
    found = _parsed(cell)
    pieces = found.get("chunks") or found.get("segments") if isinstance(found, dict) else found
    if not isinstance(pieces, list):
        return
    made = [_cue(each, later) for each, later in zip(pieces, [*pieces[1:], None], strict=True)]
    if all(each is not None for each in made):
        yield from (each for each in made if each is not None)


def _parsed(cell: Any) -> Any:
    if not isinstance(cell, str) or not cell.lstrip().startswith(("{", "[")):
        return cell
    try:
        return json.loads(cell)
    except (ValueError, RecursionError):
        return cell


def _cue(piece: Any, later: Any) -> Cue | None:
    """The last piece of a pipeline may have no end: then it lasts until the `later` one begins, or a second."""
    if not isinstance(piece, dict) or not isinstance(piece.get("text"), str):
        return None
    begin, end = _times(piece)
    if not _is_time(begin):
        return None
    if end is None:
        following = _times(later)[0]
        end = following if _is_time(following) else begin + 1.0
    return Cue(float(begin), float(end), piece["text"]) if _is_time(end) else None


def _times(piece: Any) -> tuple[Any, Any]:
    if not isinstance(piece, dict):
        return None, None
    pair = piece.get("timestamp")
    return (pair[0], pair[1]) if _is_pair(pair) else (piece.get("start"), piece.get("end"))


def _is_pair(value: Any) -> TypeGuard[Sequence[Any]]:
    return isinstance(value, list | tuple) and len(value) == 2


def _is_time(value: Any) -> TypeGuard[float]:
    return isinstance(value, int | float) and math.isfinite(value) and 0 <= value <= _LONGEST_SECONDS


def _whole_text(cell: Any) -> str:
    found = _parsed(cell)
    return str(found["text"]) if isinstance(found, dict) and "text" in found else str(cell)


def _cue_text(text: str) -> str:
    """Foreign text as a cue: no markup, no line that ends the cue or looks like one of times."""
    lines = [" ".join(line.split()) for line in text.splitlines()]
    shown = "\n".join(line for line in lines if line)
    return shown.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def _time(seconds: float) -> str:
    thousandths = round(seconds * 1000)
    minutes, thousandths = divmod(thousandths, 60_000)
    hours, minutes = divmod(minutes, 60)
    return f"{hours:02}:{minutes:02}:{thousandths // 1000:02}.{thousandths % 1000:03}"


WEBVTT = WebVtt()
