"""Versions sealed without ingest: exactly the rows, parts and packs that a test wants."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import psutil
import pyarrow as pa
from PIL import Image

from speciate.datasets import version_rows
from speciate.datasets.columns import CONTENT, FINGERPRINT, KEY, SKETCH, START, STOP
from speciate.datasets.next_version import seal_first
from speciate.datasets.versions import Manifest
from speciate.workspace.packs import PackWriter
from speciate.workspace.workspace import Folders

_TEXT = ("id", "split", "label", "group_key", "quality", "reason", "source", CONTENT, FINGERPRINT, KEY)


def rows(columns: Mapping[str, Sequence[Any]]) -> pa.Table:
    """A table with all fixed and hidden columns; what is not given is `train`, `ok` or empty."""
    count = len(columns["id"])
    usual: dict[str, Sequence[Any]] = {name: [None] * count for name in _TEXT}
    usual |= {"split": ["train"] * count, "quality": ["ok"] * count}
    table = pa.table({name: pa.array(columns.get(name, usual[name]), pa.string()) for name in _TEXT})
    for name, kind in {SKETCH: pa.binary(), START: pa.float64(), STOP: pa.float64()}.items():
        table = table.append_column(name, pa.array(columns.get(name, [None] * count), kind))
    for name, cells in columns.items():
        if name not in table.column_names:
            table = table.append_column(name, pa.array(cells))
    return table


def blank(modality: str, inputs: Sequence[str] = (), packs: Sequence[str] = ()) -> Manifest:
    return Manifest(
        name="made", version=0, id="", modality=modality, parts=(), columns={}, rows=0,
        inputs=tuple(inputs), packs=tuple(packs),
    )  # fmt: skip


def texts(folders: Folders, count: int) -> Manifest:
    """`count` texts named by themselves, every tenth in the split `test`, with a column of numbers."""
    names = [f"t{i:05}" for i in range(count)]
    splits = ["test" if i % 10 == 0 else "train" for i in range(count)]
    columns = {"id": names, "split": splits, "text": [f"text {name}" for name in names], "number": range(count)}
    return seal_first(folders, rows(columns), blank("text", ["text"])).manifest


def images(folders: Folders, count: int, side: int = 24) -> Manifest:
    """`count` different PNGs in one pack."""
    rng = np.random.default_rng(0)
    return media(folders, "image", [png(rng.integers(0, 256, (side, side + i % 5, 3), np.uint8)) for i in range(count)])


def media(folders: Folders, modality: str, files: Sequence[bytes], **columns: Sequence[Any]) -> Manifest:
    """An example for each of `files`, `m000` and so on."""
    with PackWriter(folders.packs) as writer:
        contents = [writer.add(file) for file in files]
        pack = writer.seal().relative_to(folders.root).as_posix()
    given = {"id": [f"m{i:03}" for i in range(len(files))], CONTENT: contents, **columns}
    return seal_first(folders, rows(given), blank(modality, packs=[pack])).manifest


def png(pixels: Any) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def scan_all(folders: Folders, manifest: Manifest) -> pa.Table:
    return version_rows.read(folders, manifest)


def with_extra(table: pa.Table, name: str) -> pa.Table:
    """The table and once more its first row under another name."""
    return pa.concat_tables([table, table.slice(0, 1).set_column(0, "id", pa.array([name]))])


def decoders(folders: Folders) -> list[int]:
    """Pids of this process's service processes of that workspace."""
    children = [child for child in psutil.Process().children(recursive=True) if child.status() != psutil.STATUS_ZOMBIE]
    wanted = {"speciate.jobs.pool_process", str(folders.root)}
    return sorted(child.pid for child in children if wanted <= set(child.cmdline()))
