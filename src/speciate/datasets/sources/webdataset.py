"""Shards as `webdataset` has them: members of a tar that share their name up to the first dot are one example, `KEY.jpg
KEY.json KEY.cls KEY.txt`. Members that are no media become a table beside the media, or a table of rows if there are no
media."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TypedDict

import pyarrow.parquet as pq

from speciate.datasets.readers.json_records import as_row
from speciate.datasets.readers.rows import REASON, Row, from_rows
from speciate.datasets.sources.sandbox_calls import read_parquet_answer
from speciate.jobs.pool import FileAnswer, Pool

KEY, CLASS, TEXT = "file_name", "label", "text"
METADATA, ROWS = "metadata.parquet", "rows.parquet"
_ABOUT = ("json", "cls", "txt")
_LONGEST = 64 << 20
"""Bytes of one member that is read."""
_READ = "speciate.datasets.sources.webdataset:read_shard"
_SECONDS = 600.0


class ShardRequest(TypedDict):
    folder: str
    names: list[str]
    """Names of the shard's members, below the folder."""
    ours: bool
    """Whether it is of our own export."""


def is_shard(names: Sequence[str], *, captions: bool = False) -> bool:
    """Whether the members of a tar are examples: nearly all share their key with one that ends in .json or .cls.

    `captions`: or with one that ends in .txt, unless texts are parts of mixed rows.
    """
    kinds = [_parts(name) for name in names]
    about = ("json", "cls", "txt") if captions else ("json", "cls")
    described = {key for key, kind in kinds if kind in about}
    several = Counter(key for key, _ in kinds)
    return (
        bool(described) and 10 * sum(several[key] for key in described) >= 9 * len(names) and max(several.values()) > 1
    )


def split_folder_name(prefix: str) -> str:
    """`data/train-000000/` as `data/train/000000/`, so that the split is a folder."""
    return re.sub(r"[-_](\d+)/$", r"/\1/", prefix)


def gather_media(folder: Path, names: Sequence[str], pool: Pool, *, ours: bool) -> list[Path]:
    """The media of an unpacked shard and a table about them; the table alone if it holds no media.

    `ours`: the shard is of our own export, whose JSON names the class, too.
    """
    payload = ShardRequest(folder=str(folder), names=list(names), ours=ours)
    table = pool.ask_for_file(_READ, payload, read_parquet_answer, _SECONDS, readable=frozenset((folder,)))
    media = [folder / name for name in names if _parts(name)[1] not in _ABOUT]
    target = folder / (METADATA if media else ROWS)
    pq.write_table(table, target)
    return [*media, target]


def read_shard(payload: ShardRequest) -> FileAnswer:
    """A row for each medium, or for each key without one. Runs in the sandbox."""
    folder, examples = Path(payload["folder"]), dict[str, dict[str, str]]()
    for name in payload["names"]:
        key, kind = _parts(name)
        examples.setdefault(key, {})[kind] = name
    media = any(kind not in _ABOUT for members in examples.values() for kind in members)
    rows = [
        {**row, KEY: name}
        for members in examples.values()
        for row in [_row(folder, members)]
        for name in (_media(members, ours=payload["ours"]) if media else [""])
    ]
    rows = _without_repeats(rows, ours=payload["ours"])
    pq.write_table(from_rows(rows if media else [_without(row, KEY) for row in rows]), "table.parquet")
    return {"file": "table.parquet"}


def _media(members: dict[str, str], *, ours: bool) -> list[str]:
    """The members of a key that rows are about.

    Of our own mixed rows, whose parts are `KEY.scan.png` and so on, one member stands for all.
    """
    found = {kind: name for kind, name in members.items() if kind not in _ABOUT}
    mixed = ours and len(found) > 1 and all("." in kind for kind in found)
    return list(found.values())[: 1 if mixed else None]


def _parts(name: str) -> tuple[str, str]:
    """(`a/ex-1`, `jpg`)."""
    folder, slash, base = name.rpartition("/")
    stem, _, kind = base.partition(".")
    return folder + slash + stem, kind.lower()


def _row(folder: Path, members: dict[str, str]) -> Row:
    try:
        row = as_row(json.loads(_content(folder, members["json"]))) if "json" in members else {}
        texts = {kind: _content(folder, members[kind]) for kind in ("cls", "txt") if kind in members}
    except (ValueError, RecursionError) as error:
        return {REASON: f"Its members in the shard cannot be read: {error}."[:200]}
    return row | {f".{kind}": text for kind, text in texts.items()}


def _content(folder: Path, name: str) -> str:
    path = folder / name
    if path.stat().st_size > _LONGEST:
        raise ValueError(f"more than {_LONGEST:,} bytes")
    return path.read_bytes().decode()  # line ends as they are


def _without_repeats(rows: list[Row], *, ours: bool) -> list[Row]:
    """`.cls` and `.txt` become columns unless the JSON says the same."""
    names = {name for row in rows for name in row}
    added = {} if ours or any(_repeats_json(rows, name) for name in names - {".cls"}) else {".cls": CLASS}
    added |= {} if all(_is_whole_text(row) for row in rows) else {".txt": TEXT}
    free = {kind: name if name not in names else kind[1:] for kind, name in added.items()}
    return [
        {free.get(name, name): value.strip() if name == ".cls" else value for name, value in row.items()
         if name in free or name not in (".cls", ".txt")}
        for row in rows
    ]  # fmt: skip


def _repeats_json(rows: Sequence[Row], name: str) -> bool:
    return all(str(row.get(name)) == row.get(".cls", "None").strip() for row in rows)


def _is_whole_text(row: Row) -> bool:
    """Whether the cells make up the whole text."""
    left = row.get(".txt", "")
    for value in sorted(
        (str(v) for name, v in row.items() if name not in (".cls", ".txt", KEY) and v), key=len, reverse=True
    ):
        left = left.replace(value, "")
    return not left.strip()


def _without(row: Row, name: str) -> Row:
    return {key: value for key, value in row.items() if key != name}
