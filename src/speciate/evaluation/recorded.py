"""Answers that were ever given, so that none is asked for twice: rows by who answered, what was asked, and the repeat.

`predictions/FINGERPRINT/` holds a file for each time that a run asked. Meanwhile that is a journal of JSON lines, each on
disk before the next question is put where answers cost money; at the end it is sealed as Parquet. Whoever comes later
reads both, so a killed run loses only what was under way. Two runs that ask the same at once both keep their answer:
the first one counts. An answer with an error that may pass by itself does not count as given.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import os
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import IO, Any, NamedTuple, Self

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from speciate.workspace.workspace import Folders


class Key(NamedTuple):
    """`asked`: `ID:DIGEST` of an example as it is shown to this model; `repeat` counts from 0."""

    asked: str
    repeat: int = 0


class Kept(NamedTuple):
    """One answer with what it cost. Of models on this machine costs are measured apart, and None here.

    `output` is JSON: the prediction or, of an endpoint, the text that it said.
    """

    output: Any = None
    confidence: float | None = None
    probabilities: dict[str, float] | None = None
    error: str | None = None
    passing: bool = False
    """The error may pass by itself: asked again, there may be an answer."""
    input_tokens: int | None = None
    output_tokens: int | None = None
    usd: float | None = None
    latency_s: float | None = None
    ttft_s: float | None = None
    attempts: int = 1
    served_model: str | None = None
    host: str | None = None
    """Who was asked, and paid."""
    created: float = 0.0


_SCHEMA = pa.schema(
    [
        ("key", pa.string()), ("content", pa.string()), ("repeat", pa.int64()), ("output", pa.string()),
        ("confidence", pa.float64()), ("probabilities", pa.string()), ("error", pa.string()), ("passing", pa.bool_()),
        ("input_tokens", pa.int64()), ("output_tokens", pa.int64()), ("usd", pa.float64()), ("latency_s", pa.float64()),
        ("ttft_s", pa.float64()), ("attempts", pa.int64()), ("served_model", pa.string()), ("host", pa.string()),
        ("created", pa.float64()),
    ]
)  # fmt: skip
_JSON = ("output", "probabilities")
_BEGUN = "begun"


class Journal:
    """What one run asks of one model, and what it is told. A context: leaving it seals the file, whatever happened.

    `durable`: every answer is on disk before `keep` returns; else after at most a chunk of them.
    """

    def __init__(self, folders: Folders, fingerprint: str, owner: str, *, durable: bool = False) -> None:
        self._folder = folders.predictions / fingerprint
        self._path = _unused(self._folder, owner)
        self._durable = durable
        self._file: IO[str] | None = None

    def begin(self, key: Key) -> None:
        """Say that it is asked now: a kill before the answer is then no secret."""
        self._line({_BEGUN: list(key)})

    def keep(self, answers: Sequence[tuple[Key, Kept]]) -> None:
        for key, kept in answers:
            self._line({"key": key.asked, "repeat": key.repeat, **kept._asdict()})
        if self._file is not None:
            self._file.flush()
            if self._durable or answers:
                os.fsync(self._file.fileno())

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._file is None:
            return
        self._file.close()
        seal(self._path)

    def _line(self, said: dict[str, Any]) -> None:
        if self._file is None:
            self._folder.mkdir(parents=True, exist_ok=True)
            self._file = self._path.open("x", encoding="utf-8")
        self._file.write(json.dumps(said) + "\n")
        if _BEGUN in said:
            self._file.flush()


def read(folders: Folders, fingerprint: str, keys: Collection[Key]) -> dict[Key, Kept]:
    """The answers to these that are known: the first that is no passing error, else the first."""
    wanted, found = set(keys), dict[Key, Kept]()
    for key, kept in _everything(folders.predictions / fingerprint, {key.asked for key in wanted}):
        if key in wanted and (key not in found or (found[key].passing and not kept.passing)):
            found[key] = kept
    return found


def lost(folders: Folders, fingerprint: str) -> int:
    """How many questions were put of which nobody heard the answer: those under way when a run was killed."""
    count = 0
    for path in (folders.predictions / fingerprint).glob("*.jsonl"):
        begun, answered = 0, 0
        for line in _lines(path):
            begun, answered = begun + (_BEGUN in line), answered + ("key" in line)
        count += max(0, begun - answered)
    for path in (folders.predictions / fingerprint).glob("*.parquet"):
        count += int((pq.read_schema(path).metadata or {}).get(b"lost", b"0"))
    return count


def paid(folders: Folders, job: str) -> dict[str, float]:
    """USD by host that a job's runs paid until now, whatever became of them."""
    total: dict[str, float] = {}
    for path in folders.predictions.glob(f"*/{job}.*"):
        rows = _lines(path) if path.suffix == ".jsonl" else _costs(path)
        for row in rows:
            if row.get("host") and row.get("usd"):
                total[row["host"]] = total.get(row["host"], 0.0) + row["usd"]
    return total


def seal(path: Path) -> None:
    """A journal as Parquet, in its place. Harmless to repeat."""
    lines = list(_lines(path))
    rows = [_row(line) for line in lines if "key" in line]
    begun = sum(_BEGUN in line for line in lines)
    facts = {"lost": str(max(0, begun - len(rows)) if begun else 0)}
    _write(pa.Table.from_pylist(rows, _SCHEMA).replace_schema_metadata(facts), path.with_suffix(".parquet"))
    path.unlink(missing_ok=True)


def sealed(folders: Folders) -> list[Path]:
    """Every file of answers, each with the example's id as `content`; journals of runs that were killed are sealed."""
    for path in sorted(folders.predictions.glob("*/*.jsonl")):
        seal(path)
    return sorted(folders.predictions.glob("*/*.parquet"))


def _everything(folder: Path, asked: Collection[str]) -> Iterator[tuple[Key, Kept]]:
    """Oldest file first, so that an answer that was once reported stays the one that is."""
    paths = [path for path in folder.glob("*") if path.suffix in (".parquet", ".jsonl")]
    for path in sorted(paths, key=lambda path: (path.stat().st_mtime, path.name)):
        if path.suffix == ".jsonl":
            rows = [_row(line) for line in _lines(path) if line.get("key") in asked]
        else:
            table = pq.read_table(path)
            rows = table.filter(pc.is_in(table["key"], value_set=pa.array(sorted(asked), pa.string()))).to_pylist()
        for row in rows:
            yield Key(row.pop("key"), row.pop("repeat")), _kept(row)


def _costs(path: Path) -> list[dict[str, Any]]:
    return list(pq.read_table(path, columns=["host", "usd"]).to_pylist()) if path.suffix == ".parquet" else []


def _row(line: dict[str, Any]) -> dict[str, Any]:
    """A line of a journal as a row of the schema."""
    texts = {name: None if line.get(name) is None else json.dumps(line[name]) for name in _JSON}
    return line | texts | {"content": line["key"].partition(":")[0]}


def _kept(row: dict[str, Any]) -> Kept:
    cells = {name: row[name] for name in Kept._fields}
    return Kept(**cells | {name: None if row[name] is None else json.loads(row[name]) for name in _JSON})


def _lines(path: Path) -> Iterator[dict[str, Any]]:
    """The whole lines; a torn one is no answer."""
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
    except FileNotFoundError:  # sealed meanwhile
        return
    for line in text.splitlines():
        try:
            said = json.loads(line)
        except ValueError:
            continue
        if isinstance(said, dict):
            yield said


def _unused(folder: Path, owner: str) -> Path:
    """Where the owner's next journal goes: a run may ask the same model several times, and each is sealed by itself."""
    names = (folder / f"{owner}.{time}.jsonl" for time in itertools.count())
    return next(path for path in names if not path.exists() and not path.with_suffix(".parquet").exists())


def _write(table: pa.Table, path: Path) -> None:
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    with temporary.open("wb") as file:
        pq.write_table(table, file)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)


def digest(said: str | bytes) -> str:
    """Of what is asked, for a key."""
    return hashlib.sha256(said.encode("utf-8", "surrogatepass") if isinstance(said, str) else said).hexdigest()[:32]
