"""A user's SQL over one version or over a log of answers: exactly one SELECT over one view, run inside the sandbox.

Runs in a service process, where the operating system makes the sealed files read-only and leaves nothing else to read.
The parsed tree is checked first (queries only, no table but `examples`, no function that reaches outside), so that most
mistakes get a clear answer; then DuckDB itself is locked down. DuckDB limits memory, and the sandbox limits what DuckDB
does not count; the pool limits time.

The log of a use case becomes rows, one per answer, with its feedback; the process may read that log alone.
"""

from __future__ import annotations

import contextlib
import datetime
import decimal
import json
import math
import re
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypedDict

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import BaseModel, ConfigDict

from speciate.datasets import version_rows
from speciate.datasets.columns import HIDDEN
from speciate.datasets.inspect import changes
from speciate.datasets.versions import Manifest
from speciate.errors import Code, SpeciateError
from speciate.jobs.pool import FileAnswer
from speciate.predictions import feedback, reading
from speciate.predictions.log_files import LogFolder
from speciate.workspace.workspace import Folders

VIEW = "examples"
_MOST_KEPT = 4
_kept: OrderedDict[_Opened, duckdb.DuckDBPyConnection] = OrderedDict()
"""Locked connections of this process that wait for the next question, the latest last."""
_MEMORY_MB = 512
_LONGEST_SQL = 20_000  # characters
_LONGEST_CELL = 2_000  # characters
_LONGEST_PAGE = 12_000  # characters, beyond which a page ends before its limit; one row always fits
_MOST_COLUMNS = 500
_QUERIES = {"SELECT_NODE", "SET_OPERATION_NODE", "RECURSIVE_CTE_NODE", "CTE_NODE"}
_TABLE_FUNCTIONS = {"range", "generate_series", "unnest", "repeat_row"}
_REACHING_OUT = re.compile(
    r"(?i)(read_.*|.*_scan|glob|query|query_table|sniff_.*|parquet_.*|duckdb_.*|pragma_.*|getenv|getvariable|"
    r"current_setting|nextval|currval|write_log|json_execute_serialized_sql|which_secret|pg_.*|set_config)"
)
_OF_THE_MOMENT = re.compile(
    r"now|today|age|current_\w+|get_current_\w+|local(time|timestamp)|transaction_timestamp|txid_\w+"
)
_MOMENT_WITHOUT_CALL = re.compile(r"current_(date|time|timestamp)|local(time|timestamp)")
"""Names that DuckDB reads as functions if no column of the same scope has the name."""
_BY_ORDER = re.compile(r"WINDOW_(ROW_NUMBER|NTILE|LAG|LEAD|FIRST_VALUE|LAST_VALUE|NTH_VALUE)")
_SUGGESTION = re.compile(r"(?:Candidate bindings|Did you mean):?\s*(.+)")
_NO_COLUMN = re.compile(r"(?i)column .*(not found|does not exist)|does not have a column")
_ABOUT_THE_QUERY = (duckdb.BinderException, duckdb.CatalogException, duckdb.ParserException, duckdb.SyntaxException)
"""Errors that quote the query and names of columns; all others may quote cells."""
_COLUMNS_SHOWN = 40
_RECOVERY = "Call query_dataset with one SELECT over the view examples, or with where=..."
LOG_COLUMNS = (
    "id", "at", "model", "input", "output", "confidence", "error", "ms", "given", "redacted", "left_out", "label",
    "label_source", "score", "right_by_feedback", "entity",
)  # fmt: skip


class QueryRequest(BaseModel):
    model_config = ConfigDict(frozen=True)
    sql: str
    limit: int
    offset: int = 0
    whole: bool = False
    """As many rows as the limit allows, however long they are."""


class VersionRequest(QueryRequest):
    root: Path
    manifest: Manifest
    since: Manifest | None = None
    """The version to compare with; None for the rows themselves."""
    split: str | None = None


class LogRequest(QueryRequest):
    log: Path
    since: float


class PageAnswer(TypedDict):
    columns: list[str]
    rows: list[list[Any]]
    """Rows of cells, each a value of JSON."""
    more: bool
    """Whether further rows follow."""


class SelectRequest(TypedDict):
    file: str
    sql: str


def query(payload: Mapping[str, object]) -> PageAnswer:
    """The service. `payload`: a VersionRequest or a LogRequest."""
    request = LogRequest.model_validate(payload) if "log" in payload else VersionRequest.model_validate(payload)
    sql = request.sql.strip().rstrip(";")
    with _open_log(request) if isinstance(request, LogRequest) else _connection_of(request) as connection:
        check(connection, sql)
        page = f"SELECT * FROM (\n{sql}\n) LIMIT {request.limit + 1} OFFSET {request.offset}"
        with _explain_errors(connection):
            result = connection.execute(page)
            columns = [item[0] for item in result.description or ()]
            if len(columns) > _MOST_COLUMNS:
                raise SpeciateError(
                    Code.INVALID,
                    f"{len(columns)} columns are more than {_MOST_COLUMNS}.",
                    "Name columns in the SELECT instead of *, or choose by regex: SELECT COLUMNS('^a') FROM examples.",
                )
            longest = math.inf if request.whole else _LONGEST_PAGE - _length(columns)
            rows, more = _page(iter(result.fetchone, None), request.limit, longest)
    return {"columns": columns, "rows": rows, "more": more}


def select(payload: SelectRequest) -> FileAnswer:
    """The service for SQL that makes a version, from Parquet to Parquet; repeated, it gives the same.

    INVALID for functions whose value changes with every call or day, and for results that depend on an order that the
    SQL does not name.
    """
    sql, target = payload["sql"].strip().rstrip(";"), Path.cwd() / "selected.parquet"
    source = Path(payload["file"])
    with open_locked([source], f"read_parquet({version_rows.quoted(source)})") as connection:
        check(connection, sql)
        check_repeatable(connection, sql)
        with _explain_errors():
            pq.write_table(connection.sql(sql).to_arrow_table(), target)
    return {"file": target.name}


@contextlib.contextmanager
def _explain_errors(connection: duckdb.DuckDBPyConnection | None = None) -> Iterator[None]:
    """DuckDB's errors as ours; an unknown column is answered with the columns of the view."""
    try:
        yield
    except duckdb.OutOfMemoryException as error:
        raise SpeciateError(
            Code.INVALID,
            f"The query needs more than {_MEMORY_MB} MB of memory.",
            "Ask for less: fewer columns, a narrower condition, an aggregate.",
        ) from error
    except duckdb.Error as error:
        raise _sql_error(error, _columns(connection) if connection is not None else []) from error


def _columns(connection: duckdb.DuckDBPyConnection) -> list[str]:
    with contextlib.suppress(duckdb.Error):
        return [str(row[0]) for row in connection.execute(f"DESCRIBE {VIEW}").fetchall()]
    return []


def condition(where: str) -> str:
    """The SELECT of a bare condition."""
    return f"SELECT * FROM {VIEW} WHERE (\n{where}\n)"


def check(connection: duckdb.DuckDBPyConnection, sql: str) -> None:
    """INVALID unless `sql` is one SELECT that touches nothing but `examples`. The sandbox decides what it may read."""
    if not sql or len(sql) > _LONGEST_SQL:
        why = "The SQL is empty." if not sql else f"The SQL has {len(sql):,} characters, more than {_LONGEST_SQL:,}."
        raise SpeciateError(Code.INVALID, why, _RECOVERY)
    try:
        text = connection.execute("SELECT json_serialize_sql(?::VARCHAR)", [sql]).fetchall()[0][0]
        tree = json.loads(text)
    except duckdb.Error as error:
        raise _sql_error(error) from error
    except RecursionError:
        raise SpeciateError(Code.INVALID, "The SQL is nested too deeply.", _RECOVERY) from None
    if tree["error"]:
        raise SpeciateError(Code.INVALID, _why_no_select(sql, _first_line(tree["error_message"])), _RECOVERY)
    if len(tree["statements"]) != 1:
        raise SpeciateError(Code.INVALID, f"{len(tree['statements'])} statements; one SELECT is allowed.", _RECOVERY)
    known = {VIEW, *_names_of_ctes(tree)}
    for node in _nodes(tree):
        refusal = _refusal(node, known)
        if refusal is not None:
            raise SpeciateError(Code.INVALID, refusal, _RECOVERY)


_BARE_AT = re.compile(r"\bat\s*[),]", re.IGNORECASE)
"""The log's column of times, where SQL expects its own AT."""


def _why_no_select(sql: str, message: str) -> str:
    """Names the kind of statement if it parses as something other than SELECT."""
    try:
        kinds = [str(statement.type).rpartition(".")[2] for statement in duckdb.extract_statements(sql)]
    except duckdb.Error:
        kinds = []
    other = next((kind for kind in kinds if kind != "SELECT"), None)
    if other:
        return f"{other} is not allowed: a query is one SELECT."
    keyword = ' A column that is also a word of SQL stands in quotes: "at".' if _BARE_AT.search(sql) else ""
    return f"Not one SELECT: {message}{keyword}"


def _refusal(node: Mapping[str, Any], known: set[str]) -> str | None:
    """Why a node of the parsed tree is not allowed; None if it is."""
    kind = node.get("type", "")
    if not isinstance(kind, str):
        return None
    if kind.endswith("_NODE") and kind not in _QUERIES:
        return f"{kind.removesuffix('_NODE')} is not allowed: a query only reads."
    if kind == "SHOW_REF":
        return "SHOW, DESCRIBE and SUMMARIZE are not allowed; describe_dataset lists the columns."
    if kind == "BASE_TABLE":
        return _table_refusal(node, known)
    if kind == "TABLE_FUNCTION":
        name = str(node.get("function", {}).get("function_name", ""))
        if name.lower() not in _TABLE_FUNCTIONS:
            return f"The table function {name}() is not allowed."
    if kind == "FUNCTION" and _REACHING_OUT.fullmatch(str(node.get("function_name", ""))):
        return f"The function {node['function_name']}() is not allowed: it reaches outside the dataset."
    return None


def _table_refusal(node: Mapping[str, Any], known: set[str]) -> str | None:
    name = str(node.get("table_name", ""))
    if node.get("catalog_name") or node.get("schema_name") not in ("", "main", None) or name.lower() not in known:
        return f"There is no table {name[:64]!r}; the only one is {VIEW!r}."
    return None


def _nodes(tree: Any) -> Iterator[Mapping[str, Any]]:
    """Every object of the tree, without recursion: a deep one must not end the process."""
    stack = [tree]
    while stack:
        value = stack.pop()
        if isinstance(value, dict):
            yield value
            stack.extend(value.values())
        elif isinstance(value, list):
            stack.extend(value)


def _names_of_ctes(tree: Any) -> set[str]:
    """Names that WITH defines anywhere. A wrong scope only makes DuckDB's own error come later."""
    names = set()
    for node in _nodes(tree):
        for entry in node.get("cte_map", {}).get("map", []) if isinstance(node.get("cte_map"), dict) else []:
            names.add(str(entry["key"]).lower())
        if node.get("type") in ("RECURSIVE_CTE_NODE", "CTE_NODE"):
            names.add(str(node.get("cte_name", node.get("ctename", ""))).lower())
    return names


def check_repeatable(connection: duckdb.DuckDBPyConnection, sql: str) -> None:
    """INVALID if the same rows could give another result: by randomness, by the clock, or by an open order."""
    volatile = connection.execute(
        "SELECT DISTINCT function_name FROM duckdb_functions() WHERE stability = 'VOLATILE'"
    ).fetchall()
    names = {row[0] for row in volatile}
    tree = json.loads(connection.execute("SELECT json_serialize_sql(?::VARCHAR)", [sql]).fetchall()[0][0])
    for node in _nodes(tree):
        if what := _random_call(node, names):
            raise SpeciateError(
                Code.INVALID,
                f"{what} gives another value at another time, so the version could not be made again.",
                "Call again with a fixed value; to draw rows use the operation sample with a seed. A column of such a "
                f"name is {VIEW}.NAME.",
            )
        if what := _missing_order(node):
            raise SpeciateError(
                Code.INVALID,
                f"{what} without ORDER BY takes rows in no order, so the version could not be made again.",
                "Call again with an order, such as ORDER BY id.",
            )


def _random_call(node: Mapping[str, Any], volatile: set[str]) -> str | None:
    """A column may have the name of a function: only a call is one, or a name that SQL calls without parentheses."""
    if node.get("sample"):
        return "SAMPLE"
    kind, name = node.get("type"), str(node.get("function_name", "")).lower()
    if kind == "FUNCTION" and (name in volatile or _OF_THE_MOMENT.fullmatch(name)):
        return f"{name}()"
    if kind == "COLUMN_REF" and len(parts := node.get("column_names", ())) == 1:
        word = str(parts[0]).lower()
        return word if _MOMENT_WITHOUT_CALL.fullmatch(word) else None
    return None


def _missing_order(node: Mapping[str, Any]) -> str | None:
    kinds = {str(each.get("type")) for each in node.get("modifiers") or () if isinstance(each, dict)}
    if "ORDER_MODIFIER" not in kinds:
        if kinds & {"LIMIT_MODIFIER", "LIMIT_PERCENT_MODIFIER"}:
            return "LIMIT or OFFSET"
        if any(each.get("distinct_on_targets") for each in node.get("modifiers") or () if isinstance(each, dict)):
            return "DISTINCT ON"
    if node.get("class") == "WINDOW" and not node.get("orders") and not node.get("arg_orders"):
        by_rows = any(str(node.get(end, "")).endswith("_ROWS") for end in ("start", "end"))
        if by_rows or _BY_ORDER.fullmatch(str(node.get("type"))):
            return f"{str(node.get('function_name'))[:64]}() OVER"
    return None


def _open_log(request: LogRequest) -> duckdb.DuckDBPyConnection:
    file = write_log_rows(LogFolder(request.log), request.since)
    return open_locked([file], f"read_parquet({version_rows.quoted(file)})")


class _Opened(NamedTuple):
    """What a locked connection may read, and how: with another of it, it is another connection."""

    files: tuple[tuple[str, int, int, int], ...]
    """Path, inode, size and time of writing of each."""
    source: str
    split: str | None


@contextlib.contextmanager
def _connection_of(request: VersionRequest) -> Iterator[duckdb.DuckDBPyConnection]:
    """The locked connection of a version, which is kept for the next question unless this one ends in an error.

    The files are checked for each question, as if it were opened anew. No SELECT changes what is kept: the lock allows
    no setting, and the check no table.
    """
    folders, manifest, since = Folders(request.root), request.manifest, request.since
    files, source = version_rows.files(folders, manifest), version_rows.relation(folders, manifest)
    if since is not None:
        with duckdb.connect(":memory:") as connection:
            source = changes.changes_sql(connection, folders, since, manifest)
        files += version_rows.files(folders, since)
    opened = _Opened(tuple(map(_identity, files)), source, request.split)
    locked = _kept.pop(opened, None) or open_locked(files, source, request.split)
    try:
        yield locked
    except BaseException:
        locked.close()
        raise
    _kept[opened] = locked
    while len(_kept) > _MOST_KEPT:
        _kept.popitem(last=False)[1].close()


def _identity(path: Path) -> tuple[str, int, int, int]:
    found = path.stat()
    return str(path), found.st_ino, found.st_size, found.st_mtime_ns


def open_locked(files: Sequence[Path], source: str, split: str | None = None) -> duckdb.DuckDBPyConnection:
    """A connection with the view over `source`, SQL that reads `files`, and nothing else to reach or to set.

    One thread: with more, each page of a query would come in another order, and sums of fractions in another value.
    """
    connection = duckdb.connect(
        ":memory:",
        config={
            "threads": 1,
            "memory_limit": f"{_MEMORY_MB}MB",
            "temp_directory": "",
            "autoinstall_known_extensions": False,
            "autoload_known_extensions": False,
            "allow_community_extensions": False,
            "allow_unsigned_extensions": False,
        },
    )
    connection.execute("SET python_enable_replacements = false")
    connection.execute("SET parquet_metadata_cache = true")
    connection.execute(f"SET allowed_paths = [{', '.join(map(version_rows.quoted, files))}]")
    there = {row[0] for row in connection.execute(f"DESCRIBE SELECT * FROM {source}").fetchall()}
    hidden = ", ".join(f'"{name}"' for name in HIDDEN if name in there)
    exclude = f" EXCLUDE ({hidden})" if hidden else ""
    connection.execute("SET enable_external_access = false")
    only = f" WHERE split = {version_rows.quoted(split)}" if split is not None else ""
    connection.execute(f"CREATE VIEW {VIEW} AS SELECT *{exclude} FROM {source}{only}")
    connection.execute("SET lock_configuration = true")
    return connection


def _page(rows: Iterator[tuple[Any, ...]], limit: int, longest: float) -> tuple[list[list[Any]], bool]:
    """A page of at most `limit` rows, fewer where they have more than `longest` characters; whether there are more."""
    page: list[list[Any]] = []
    size = 0
    for row in rows:
        cells = [_cell(value) for value in row]
        size += _length(cells)
        if len(page) == limit or (page and size > longest):
            return page, True
        page.append(cells)
    return page, False


def _length(cells: list[Any]) -> int:
    return len(json.dumps(cells, ensure_ascii=False))


def _cell(value: Any) -> Any:
    """A cell as JSON: other types become text, long text is cut with an ellipsis, NaN and infinity become null."""
    if isinstance(value, str):
        return value if len(value) <= _LONGEST_CELL else value[:_LONGEST_CELL] + "…"
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if value is None or isinstance(value, bool | int):
        return value
    if isinstance(value, decimal.Decimal):
        return float(value)
    if isinstance(value, datetime.date | datetime.time | datetime.datetime):
        return value.isoformat()
    if isinstance(value, bytes):
        return f"{len(value)} bytes"
    if isinstance(value, list | tuple | dict) and len(text := json.dumps(value, default=str)) > _LONGEST_CELL:
        return text[:_LONGEST_CELL] + "…"
    if isinstance(value, list | tuple):
        return [_cell(item) for item in value]
    if isinstance(value, dict):
        return {str(name): _cell(item) for name, item in value.items()}
    return str(value)[:_LONGEST_CELL]


def _sql_error(error: duckdb.Error, columns: Sequence[str] = ()) -> SpeciateError:
    text = str(error)
    if not isinstance(error, _ABOUT_THE_QUERY):
        return SpeciateError(
            Code.INVALID, "The SQL fails on a value; untrusted says which.", _RECOVERY,
            _first_line(text),
        )  # fmt: skip
    near = _SUGGESTION.search(text)
    names = re.findall(r'"([^"]+)"', near[1]) if near else []
    hint = f" Did you mean {' or '.join(dict.fromkeys(names))}?" if names else ""
    if columns and _NO_COLUMN.search(text):
        more = f" and {len(columns) - _COLUMNS_SHOWN} more" if len(columns) > _COLUMNS_SHOWN else ""
        hint += f" The columns are {', '.join(columns[:_COLUMNS_SHOWN])}{more}."
    return SpeciateError(Code.INVALID, f"The SQL is wrong: {_first_line(text)}{hint}", _RECOVERY)


def _first_line(text: str) -> str:
    """DuckDB's messages quote the whole query below."""
    return next((line.strip() for line in text.splitlines() if line.strip()), "unknown error")[:300]


def write_log_rows(folder: LogFolder, since: float) -> Path:
    """A Parquet file in the working folder with a row per answer. `input`, and `output` that is no text, are JSON."""
    rows = reading.answers(folder, since=since) if folder.path.exists() else reading.table([], ".answers.parquet")
    given = feedback.latest_by_source(reading.feedback(folder, since=since)) if folder.path.exists() else {}
    outputs = [None if cell is None else json.loads(cell) for cell in rows["output"].to_pylist()]
    feedback_of_answers = [given.get(each, {}) for each in rows["id"].to_pylist()]
    labels = [feedback.prevailing_label(each) for each in feedback_of_answers]
    verdicts = [feedback.correctness(output, each) for output, each in zip(outputs, feedback_of_answers, strict=True)]
    columns: dict[str, pa.ChunkedArray | pa.Array] = {
        name: rows[name]
        for name in ("id", "model", "input", "confidence", "error", "ms", "given", "redacted", "left_out", "entity")
    }
    columns["at"] = pa.array([round(1000 * at) for at in rows["at"].to_pylist()], pa.timestamp("ms"))
    columns["output"] = pa.array([_text_of_json(each) for each in outputs], pa.string())
    columns["label"] = pa.array([_text_of_json(each.label) if each else None for each in labels], pa.string())
    columns["label_source"] = pa.array([each.source if each else None for each in labels], pa.string())
    scores = [next((g.score for g in each.values() if g.score is not None), None) for each in feedback_of_answers]
    columns["score"] = pa.array(scores, pa.float64())
    right = [bool(each.value) if each and each.measure == "right" else None for each in verdicts]
    columns["right_by_feedback"] = pa.array(right, pa.bool_())
    target = Path.cwd() / "log.parquet"
    pq.write_table(pa.table({name: columns[name] for name in LOG_COLUMNS}), target)
    return target


def _text_of_json(value: Any) -> str | None:
    return value if value is None or isinstance(value, str) else json.dumps(value, ensure_ascii=False)
