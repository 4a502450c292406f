"""The part of ingest that meets foreign bytes; both functions run in a caged process (jobs.pool).

Media are decoded and judged one by one. A table is parsed and written again as Parquet in the cage's own folder, so
that nothing outside reads the foreign file; a row that cannot be read stays, with `_reason` saying why.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
import os
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from speciate.datasets.columns import array
from speciate.errors import Code, SpeciateError
from speciate.modalities import find
from speciate.modalities.contract import DecodeError

REASON = "_reason"
LONGEST_FILE = 512 * 1024 * 1024
"""Bytes of one media file; more is refused unread."""
_LONGEST_TABLE = 2 * 1024 * 1024 * 1024
_BAD_ROWS_KEPT = 10_000


def read_media(payload: dict[str, Any]) -> dict[str, Any]:
    """{modality, files: [path]} -> {items: [{quality, reason, sha256, fingerprint, bytes, fields}]}, in order."""
    modality = find(payload["modality"])
    return {"items": [_judge(modality, Path(path)) for path in payload["files"]]}


def read_table(payload: dict[str, Any]) -> dict[str, Any]:
    """{path, format, text} -> {file, rows}: the table as Parquet in this process's own folder.

    `text`: columns whose cells stay as they are written, where the format does not tell numbers from text.
    """
    source = Path(payload["path"])
    read = partial(_read_csv, text=payload["text"]) if payload["format"] == "csv" else _READERS[payload["format"]]
    rows = read(source)
    target = Path.cwd() / "table.parquet"
    pq.write_table(rows, target)
    return {"file": target.name, "rows": rows.num_rows}


def _judge(modality: Any, path: Path) -> dict[str, Any]:
    item: dict[str, Any] = {"quality": "ok", "reason": None, "sha256": None, "fingerprint": None, "fields": {}}
    try:
        item["bytes"] = os.stat(path).st_size
        if item["bytes"] > LONGEST_FILE:
            raise DecodeError("refused", f"The file has {item['bytes']:,} bytes, more than {LONGEST_FILE:,}.")
        data = path.read_bytes()
        item["sha256"] = hashlib.sha256(data).hexdigest()
        item["fields"] = dict(modality.inspect(data).fields)
        media = modality.decode(data)
        item["fingerprint"] = hashlib.sha256(modality.fingerprint(media).encode()).hexdigest()
    except DecodeError as error:
        item |= {"quality": error.quality, "reason": error.detail}
    except OSError as error:
        item |= {"quality": "error", "reason": f"The file cannot be read: {error.strerror}."}
    return item


# Tables


def _read_csv(path: Path, text: Sequence[str] = ()) -> pa.Table:
    """With a header line; comma, semicolon or tab. Lines with too many or too few cells are kept as bad rows."""
    from pyarrow import csv as arrow_csv

    with path.open("rb") as file:
        head = file.read(65536).decode("utf-8", errors="replace")
    delimiter = _delimiter(head, path)
    source, bad = _without_foreign_bytes(path, delimiter)

    def keep(row: Any) -> str:
        if len(bad) < _BAD_ROWS_KEPT:
            bad.append(f"{row.actual_columns} cells where the header has {row.expected_columns}.")
        return "skip"

    try:
        table = arrow_csv.read_csv(
            source,
            parse_options=arrow_csv.ParseOptions(
                delimiter=delimiter, newlines_in_values=True, invalid_row_handler=keep
            ),
            convert_options=arrow_csv.ConvertOptions(column_types=dict.fromkeys(text, pa.string())),
        )
    except pa.ArrowInvalid as error:
        raise _unreadable(path, str(error)) from error
    if len(set(table.column_names)) < table.num_columns:
        raise _unreadable(path, "two columns have the same name")
    return _with_bad_rows(table, bad)


def _without_foreign_bytes(path: Path, delimiter: str) -> tuple[Path | io.BytesIO, list[str]]:
    """The file itself where all of it is UTF-8; else its rows that are, and a reason for each that is not.

    INVALID where the header or most rows are not UTF-8: then the whole file has another encoding.
    """
    with path.open("rb") as file:
        if all(map(_is_utf8, file)):
            return path, []
    kept, reasons, rows, first = io.BytesIO(), [], 0, 0
    try:
        with path.open("rb") as file:
            for rows, lines in enumerate(_records(file, delimiter)):
                foreign = next((number for number, line in lines if not _is_utf8(line)), None)
                if foreign is None:
                    kept.writelines(line for _, line in lines)
                    continue
                first = first or foreign
                if rows == 0:
                    break
                reasons.append(f"line {foreign} is not UTF-8")
    except csv.Error as error:
        raise _unreadable(path, f"not UTF-8, and {error}; save it as UTF-8") from error
    if rows == 0 or 2 * len(reasons) > rows:
        raise _unreadable(path, f"not UTF-8, first at line {first}; save it as UTF-8")
    kept.seek(0)
    return kept, reasons


def _records(file: Iterable[bytes], delimiter: str) -> Iterator[list[tuple[int, bytes]]]:
    """The numbered lines of each record; a quoted cell may go over several."""
    lines: list[tuple[int, bytes]] = []

    def text() -> Iterator[str]:
        for number, line in enumerate(file, 1):
            lines.append((number, line))
            yield line.decode("utf-8", errors="surrogateescape")

    for _ in csv.reader(text(), delimiter=delimiter):
        yield lines.copy()
        lines.clear()


def _is_utf8(line: bytes) -> bool:
    try:
        line.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True


def _delimiter(head: str, path: Path) -> str:
    if path.suffix.lower() == ".tsv":
        return "\t"
    try:
        return csv.Sniffer().sniff(head.split("\n", 1)[0], ",;\t").delimiter
    except csv.Error:
        return ","


def _read_jsonl(path: Path) -> pa.Table:
    """An object a line. Columns are all keys that occur."""
    rows: list[dict[str, Any]] = []
    bad: list[str] = []
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            if not line.strip():
                continue
            try:
                row = json.loads(line)
                if not isinstance(row, dict):
                    raise ValueError("not an object")
                rows.append(row)
            except (ValueError, RecursionError) as error:
                bad.append(f"Line {number} is not JSON: {error}.")
    return _with_bad_rows(from_rows(rows), bad)


def _read_parquet(path: Path) -> pa.Table:
    """Refused where its footer declares more than 2 GiB."""
    try:
        footer = pq.read_metadata(path)
        declared = sum(footer.row_group(i).total_byte_size for i in range(footer.num_row_groups))
        if declared > _LONGEST_TABLE:
            raise _unreadable(path, f"it declares {declared:,} bytes, more than {_LONGEST_TABLE:,}")
        return pq.read_table(path)
    except (pa.ArrowException, OSError) as error:
        raise _unreadable(path, str(error)) from error


def _read_fasta(path: Path) -> pa.Table:
    """Columns `name`, `description`, `sequence`, and one for every key=value of the header lines."""
    rows: list[dict[str, Any]] = []
    parts: list[str] = []
    bad: list[str] = []
    for line in _lines(path):
        if line.startswith(">"):
            if rows:
                rows[-1]["sequence"] = "".join(parts)
            name, _, description = line[1:].partition(" ")
            pairs = dict(re.findall(r"([\w.\-]+)=(\S+)", description))
            rows.append({**pairs, "name": name, "description": description.strip() or None})
            parts = []
        elif rows:
            parts.append(line.strip())
        elif line.strip():
            bad.append("Residues before the first header line.")
    if rows:
        rows[-1]["sequence"] = "".join(parts)
    return _with_bad_rows(from_rows(rows), bad)


def _read_ts(path: Path) -> pa.Table:
    """sktime's format: `@` lines, then a series a line, channels parted by `:`, the class last.

    Columns `series` and `label`. Time stamps are refused: every value stands at its place.
    """
    header, rows, bad = _TsHeader(), [], []
    lines = iter(_lines(path))
    for line in lines:
        if line.lower().startswith("@data"):
            break
        header = header.with_line(line)
    if header.stamped:
        raise _unreadable(path, "series with time stamps are not read")
    for number, line in enumerate(lines, 1):
        if not line.strip() or line.startswith("#"):
            continue
        try:
            rows.append(_series(line.strip(), header))
        except ValueError as error:
            bad.append(f"Series {number}: {error}.")
    return _with_bad_rows(from_rows(rows), bad)


class _TsHeader(NamedTuple):
    channels: int | None = None
    length: int | None = None
    classes: frozenset[str] = frozenset()
    labelled: bool = False
    stamped: bool = False

    def with_line(self, line: str) -> _TsHeader:
        word, _, rest = line.strip().partition(" ")
        first = rest.split(" ")[0].lower()
        if word.lower() in ("@dimensions", "@dimension"):
            return self._replace(channels=int(first))
        if word.lower() == "@serieslength":
            return self._replace(length=int(first) or None)
        if word.lower() in ("@classlabel", "@targetlabel"):
            return self._replace(labelled=first == "true", classes=frozenset(rest.split()[1:]))
        if word.lower() == "@timestamps":
            return self._replace(stamped=first == "true")
        return self


def _series(line: str, header: _TsHeader) -> dict[str, Any]:
    parts = line.split(":")
    label = parts.pop().strip() if header.labelled else None
    if header.channels is not None and len(parts) != header.channels:
        raise ValueError(f"{len(parts)} channels where the header declares {header.channels}")
    if header.classes and label not in header.classes:
        raise ValueError(f"{label!r} is none of the classes that the header declares")
    channels = [[float("nan") if cell.strip() == "?" else float(cell) for cell in part.split(",")] for part in parts]
    lengths = {len(channel) for channel in channels}
    if len(lengths) > 1 or (header.length is not None and lengths != {header.length}):
        declared = "" if header.length is None else f" where the header declares {header.length}"
        raise ValueError(f"channels of {', '.join(map(str, sorted(lengths)))} values{declared}")
    return {"series": channels, "label": label}


_READERS: dict[str, Callable[[Path], pa.Table]] = {
    "csv": _read_csv,
    "jsonl": _read_jsonl,
    "parquet": _read_parquet,
    "fasta": _read_fasta,
    "ts": _read_ts,
}


def from_rows(rows: list[dict[str, Any]]) -> pa.Table:
    """Rows as a table: a column for every key, null where a row lacks it."""
    names = dict.fromkeys(name for row in rows for name in row)
    return pa.table({name: array([row.get(name) for row in rows]) for name in names})


def _with_bad_rows(table: pa.Table, reasons: list[str]) -> pa.Table:
    if REASON in table.column_names:
        table = table.drop_columns([REASON])
    if not reasons:
        return table
    bad = pa.table({REASON: pa.array(reasons, pa.string())})
    if not table.num_columns:
        return bad
    return pa.concat_tables([table, bad], promote_options="default")


def _lines(path: Path) -> Iterator[str]:
    try:
        with path.open(encoding="utf-8-sig") as file:
            yield from (line.rstrip("\n") for line in file)
    except UnicodeDecodeError as error:
        raise _unreadable(path, f"not UTF-8 ({error.reason})") from error


def _unreadable(path: Path, why: str) -> SpeciateError:
    first = why.strip().splitlines()[0] if why.strip() else "unknown"
    return SpeciateError(
        Code.INVALID, f"{path.name!r} cannot be read: {first}.", "Mend the file, then call create_dataset again."
    )
