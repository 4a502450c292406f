"""Formats `parquet` and `hf`: media as bytes beside their file name, described so that Hugging Face `datasets` reads
images, audio and classes as such.

`parquet` is one file per split; `hf` is a folder for `datasets.load_from_disk`, classes as ClassLabel. Both write Arrow
batches of bounded size. The description stands in the schema under `huggingface`, and in dataset_info.json.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from speciate.datasets.exports.format import ExportContent, Piece, ReportProgress, WriteReport, class_names
from speciate.datasets.versions import Manifest

_ROWS = 8192
_MEDIA_BYTES = 64 * 1024 * 1024
_TEXT = "text"
_MEDIA = {"image": "Image", "audio": "Audio"}
_TYPES = {
    "double": "float64", "float": "float32", "halffloat": "float16", "date32[day]": "date32", "date64[ms]": "date64",
}  # fmt: skip
MEDIUM = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
"""How `datasets` stores a medium."""
_DATA = "data-00000-of-00001.arrow"


class Parquet:
    name = "parquet"
    again = "data"
    files = False
    once = False

    def misfit(self, manifest: Manifest) -> str | None:
        return None

    def write(self, export: ExportContent, folder: Path, progress: ReportProgress) -> WriteReport:
        (folder / "data").mkdir()
        wanted = layout(export)
        configs: dict[str, str] = {}
        for piece in export.pieces():
            file = f"data/{piece.name}.parquet"
            configs[piece.hub] = file
            with pq.ParquetWriter(folder / file, wanted.schema, compression="zstd") as writer:
                for batch in batches(export, piece, wanted):
                    writer.write_table(batch)
                    progress(batch.num_rows)
        return WriteReport(configs)


class Layout(NamedTuple):
    schema: pa.Schema
    """Schema of every batch, described for the hub."""
    medium: str | None
    """The column that holds what lay in files; None if the table has it all."""
    classes: dict[str, int]
    """Class -> the number that stands for it; empty where labels are written as they are called."""


def layout(export: ExportContent, *, numbered: bool = False) -> Layout:
    """`numbered`: classes become numbers with their names in the description, as `datasets` trains on them."""
    modality = export.manifest.modality
    fields = list(export.rows.schema.remove_metadata())
    medium = export.free(modality.replace("-", "_")) if export.media is not None else None
    if medium is not None:
        fields.insert(0, pa.field(medium, pa.string() if modality == _TEXT else MEDIUM))
    names = class_names(export) if numbered else []
    if names:
        fields = [pa.field(field.name, pa.int64()) if field.name == export.label else field for field in fields]
    described_as = {str(export.label): names} if names else {}
    return Layout(
        describe_features(pa.schema(fields), modality, medium, described_as),
        medium,
        {name: i for i, name in enumerate(names)},
    )


def batches(export: ExportContent, piece: Piece, wanted: Layout) -> Iterator[pa.Table]:
    """The rows of a piece, a few at a time: at most about 64 MiB of media."""
    rows = _number_classes(export, piece, wanted) if wanted.classes else piece.rows
    if wanted.medium is None:
        for start in range(0, rows.num_rows, _ROWS):
            yield rows.slice(start, _ROWS).cast(wanted.schema)
        return
    kind = wanted.schema.field(wanted.medium).type
    for start, cells in _media(export, piece):
        batch = rows.slice(start, len(cells)).add_column(0, wanted.medium, pa.array(cells, kind))
        yield batch.cast(wanted.schema)


def _number_classes(export: ExportContent, piece: Piece, wanted: Layout) -> pa.Table:
    names = export.labels[piece.start : piece.start + piece.rows.num_rows]
    numbers = pa.array([wanted.classes.get(name) for name in names], pa.int64())
    return piece.rows.set_column(piece.rows.column_names.index(export.label), export.label, numbers)


def _media(export: ExportContent, piece: Piece) -> Iterator[tuple[int, list[object]]]:
    """Where a run of rows begins, and what its medium column holds."""
    assert export.media is not None
    cells: list[object] = []
    start, size = 0, 0
    for row in range(piece.rows.num_rows):
        data = export.media.read(piece.start + row)
        if cells and (size + len(data) > _MEDIA_BYTES or len(cells) >= _ROWS):
            yield start, cells
            start, size, cells = row, 0, []
        size += len(data)
        if export.manifest.modality == _TEXT:
            cells.append(data.decode("utf-8-sig"))
        else:
            cells.append({"bytes": data, "path": export.media.names[piece.start + row]})
    if cells:
        yield start, cells


def describe_features(schema: pa.Schema, modality: str, medium: str | None, classes: dict[str, list[str]]) -> pa.Schema:
    """The schema with the description. `medium`: the column of media; `classes`: column -> names of its numbers."""
    features = {field.name: _feature(field.type) for field in schema}
    if medium is not None and modality in _MEDIA:
        features[medium] = {"_type": _MEDIA[modality]}
    features |= {name: {"names": names, "_type": "ClassLabel"} for name, names in classes.items()}
    return schema.with_metadata({"huggingface": json.dumps({"info": {"features": features}})})


def features(schema: pa.Schema) -> dict[str, Any]:
    """What `describe_features` wrote."""
    found: dict[str, Any] = json.loads(schema.metadata[b"huggingface"])["info"]["features"]
    return found


def _feature(kind: pa.DataType) -> Any:
    if pa.types.is_large_list(kind):
        return {"feature": _feature(kind.value_type), "_type": "LargeList"}
    if pa.types.is_fixed_size_list(kind):
        return {"feature": _feature(kind.value_type), "length": kind.list_size, "_type": "List"}
    if pa.types.is_list(kind):
        return {"feature": _feature(kind.value_type), "_type": "List"}
    if pa.types.is_struct(kind):
        return {field.name: _feature(field.type) for field in kind}
    return {"dtype": _TYPES.get(str(kind), str(kind)), "_type": "Value"}


PARQUET = Parquet()


class DatasetsFolder:
    """A folder that `datasets.load_from_disk` opens, classes as ClassLabel."""

    name = "hf"
    again = "."
    files = False
    once = False

    def misfit(self, manifest: Manifest) -> str | None:
        return None

    def write(self, export: ExportContent, folder: Path, progress: ReportProgress) -> WriteReport:
        """A DatasetDict if the rows have splits, else a Dataset."""
        wanted, pieces = layout(export, numbered=True), list(export.pieces())
        if [piece.split for piece in pieces] == [None]:
            _write_datasets_folder(export, pieces[0], wanted, folder, progress)
            return WriteReport()
        for piece in pieces:
            _write_datasets_folder(export, piece, wanted, folder / piece.hub, progress)
        _write_json(folder / "dataset_dict.json", {"splits": [piece.hub for piece in pieces]})
        return WriteReport()


def _write_datasets_folder(
    export: ExportContent, piece: Piece, wanted: Layout, folder: Path, progress: ReportProgress
) -> None:
    folder.mkdir(exist_ok=True)
    with pa.OSFile(str(folder / _DATA), "wb") as file, pa.ipc.new_stream(file, wanted.schema) as writer:
        for batch in batches(export, piece, wanted):
            writer.write_table(batch)
            progress(batch.num_rows)
    _write_json(
        folder / "dataset_info.json",
        {"citation": "", "description": "", "features": features(wanted.schema), "homepage": "", "license": ""},
    )
    _write_json(
        folder / "state.json",
        {
            "_data_files": [{"filename": _DATA}],
            "_fingerprint": hashlib.sha256(f"{export.manifest.id} {piece.split}".encode()).hexdigest()[:16],
            "_format_columns": None,
            "_format_kwargs": {},
            "_format_type": None,
            "_output_all_columns": False,
            "_split": None if piece.split is None else piece.hub,
        },
    )


def _write_json(path: Path, document: dict[str, Any]) -> None:
    path.write_text(json.dumps(document, indent=2, ensure_ascii=False) + "\n")


DATASETS_FOLDER = DatasetsFolder()
