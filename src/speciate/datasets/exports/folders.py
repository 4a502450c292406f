"""Formats `folder`, `ply` and `dicom`: media as files in folders, and a `metadata.csv` with labels and columns beside
them.

`folder`: `data/SPLIT/LABEL/FILE`; a mixed row is a folder with a file for each of its parts. `ply`:
`data/SPLIT/LABEL/NAME.ply`. `dicom`: `PATIENT/STUDY/SERIES/00001.dcm`, as archives have them."""

from __future__ import annotations

from pathlib import Path, PurePosixPath
from typing import Any

from speciate.datasets.exports.cells import CsvFile, notes_of_nulls
from speciate.datasets.exports.file_names import SUFFIX, UniqueNames, files_of, safe_name
from speciate.datasets.exports.format import ExportContent, Media, Piece, ReportProgress, WriteReport, has_files
from speciate.datasets.loading.decoding import MediaItem, decode_media
from speciate.datasets.versions import Manifest
from speciate.modalities.bundles import is_bundle, members_of
from speciate.modalities.geometry import ply
from speciate.modalities.geometry.mesh_files import main_member
from speciate.modalities.medical.dicom import member_name
from speciate.modalities.multimodal import MULTIMODAL

_READ_BY_THE_HUB = ("image", "audio")
_ROWS_AT_ONCE = 256
_MODALITIES = ("mesh", "point-cloud")
_MESHES_AT_ONCE = 64
"""Decoded at a time."""
_FOLDERS = ("patient", "study", "series")
_STUDIES_AT_ONCE = 256


class Folder:
    name = "folder"
    again = "data"
    files = True
    once = True

    def misfit(self, manifest: Manifest) -> str | None:
        return None if has_files(manifest) else "its examples are rows of a table, not files."

    def write(self, export: ExportContent, folder: Path, progress: ReportProgress) -> WriteReport:
        assert export.media is not None
        configs: dict[str, str] = {}
        escaped = 0
        for piece in export.pieces():
            below = "data" if piece.split is None else f"data/{piece.name}"
            (folder / below).mkdir(parents=True, exist_ok=True)
            configs[piece.hub] = f"{below}/**"
            escaped += _write_media(export, export.media, piece, folder / below, progress)
        configs = configs if export.manifest.modality in _READ_BY_THE_HUB else {}
        return WriteReport(configs, escaped, notes_of_nulls(export.rows))


def _write_media(export: ExportContent, media: Media, piece: Piece, folder: Path, progress: ReportProgress) -> int:
    """Returns how many cells were escaped."""
    written, mixed = set[str](), export.manifest.modality == MULTIMODAL.name
    with CsvFile(folder / "metadata.csv", ["file_name", *_free_columns(export)]) as metadata:
        for start in range(0, piece.rows.num_rows, _ROWS_AT_ONCE):
            batch = piece.rows.slice(start, _ROWS_AT_ONCE)
            paths = [media.path(piece.start + start + row) for row in range(batch.num_rows)]
            paths = [path.removesuffix(SUFFIX) for path in paths] if mixed else paths
            for row, path in enumerate(paths):
                if path not in written:  # windows of one medium share it
                    _write_file(folder / path, media.read(piece.start + start + row), mixed=mixed)
                    written.add(path)
            columns = [column.to_pylist() for column in batch.columns]
            metadata.write(zip(paths, *columns, strict=True))
            progress(batch.num_rows)
    return metadata.escaped


def _write_file(path: Path, data: bytes, *, mixed: bool) -> None:
    for name, file in (files_of(data) if mixed else {"": data}).items():
        target = path / name if mixed else path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(file)


def _free_columns(export: ExportContent) -> list[str]:
    """The columns; one of the user's that is called as ours is `user_file_name`."""
    return [f"user_{name}" if name.lower() == "file_name" else name for name in export.rows.column_names]


FOLDER = Folder()


class Ply:
    """Meshes and point clouds as PLY files, `data/SPLIT/LABEL/NAME.ply`, and a `metadata.csv` per split with the
    columns.

    PLY files are copied; other formats are decoded in sandboxed processes and written as PLY. A mesh with materials,
    textures or buffers stays a folder of its own, because a PLY holds no textures.
    """

    name = "ply"
    again = "data"
    files = True
    once = True

    def misfit(self, manifest: Manifest) -> str | None:
        fits = manifest.modality in _MODALITIES and has_files(manifest)
        return None if fits else "PLY holds meshes and point clouds that lie in files."

    def write(self, export: ExportContent, folder: Path, progress: ReportProgress) -> WriteReport:
        assert export.media is not None
        escaped = 0
        for piece in export.pieces():
            below = folder / ("data" if piece.split is None else f"data/{piece.name}")
            below.mkdir(parents=True, exist_ok=True)
            escaped += _write_meshes(export, export.media, piece, below, progress)
        return WriteReport({}, escaped, notes_of_nulls(export.rows))


def _write_meshes(export: ExportContent, media: Media, piece: Piece, folder: Path, progress: ReportProgress) -> int:
    """Returns how many cells were escaped."""
    names = [f"user_{name}" if name.lower() == "file_name" else name for name in export.rows.column_names]
    taken = UniqueNames()
    with CsvFile(folder / "metadata.csv", ["file_name", *names]) as metadata:
        for start in range(0, piece.rows.num_rows, _MESHES_AT_ONCE):
            batch = piece.rows.slice(start, _MESHES_AT_ONCE)
            places = range(piece.start + start, piece.start + start + batch.num_rows)
            converted = _convert_to_ply(export, media, places)
            paths = [_write_mesh(media, place, folder, taken, converted.get(place)) for place in places]
            metadata.write(zip(paths, *(column.to_pylist() for column in batch.columns), strict=True))
            progress(batch.num_rows)
    return metadata.escaped


def _convert_to_ply(export: ExportContent, media: Media, places: range) -> dict[int, bytes]:
    """Place -> PLY, for media that are neither PLY files nor bundles of several files."""
    others = [place for place in places if not _is_mesh_file(export, media.read(place))]
    if not others:
        return {}
    assert export.folders is not None
    packs = [export.folders.root / pack for pack in export.manifest.packs]
    items = [MediaItem(export.ids[place], media.contents[place]) for place in others]
    decoded = decode_media(export.folders, packs, export.manifest.modality, items)
    return {place: _encode_ply(medium) for place, medium in zip(others, decoded, strict=True)}


def _is_mesh_file(export: ExportContent, data: bytes) -> bool:
    """An NPZ is a ZIP, too."""
    return data.startswith(ply.MAGIC) or (export.manifest.modality == "mesh" and is_bundle(data))


def _encode_ply(medium: dict[str, Any]) -> bytes:
    points = medium["vertices"] if "vertices" in medium else medium["points"]
    return ply.encode(points, medium.get("faces"), medium.get("colors"), medium.get("intensity"))


def _write_mesh(media: Media, place: int, folder: Path, names: UniqueNames, converted: bytes | None) -> str:
    """The path of the mesh below `folder`."""
    path = PurePosixPath(media.path(place))
    (folder / path.parent).mkdir(parents=True, exist_ok=True)
    data = media.read(place) if converted is None else converted
    if converted is None and not data.startswith(ply.MAGIC):
        members = members_of(data)
        for name, member in members.items():
            below = folder / path.with_suffix("") / _safe_path(name)
            below.parent.mkdir(parents=True, exist_ok=True)
            below.write_bytes(member)
        return str(path.with_suffix("") / _safe_path(main_member(members)))
    folder_name = "" if path.parent == PurePosixPath(".") else str(path.parent)
    written = path.with_name(names.claim(folder_name, path.with_suffix(".ply").name))
    (folder / written).write_bytes(data)
    return str(written)


def _safe_path(name: str) -> PurePosixPath:
    """A member's name as a path that stays inside its folder."""
    return PurePosixPath(*(safe_name(part) for part in PurePosixPath(name).parts if part not in ("/", ".", "..")))


PLY = Ply()


class DicomFolders:
    """DICOM files as archives have them, `PATIENT/STUDY/SERIES/00001.dcm`, and a `metadata.csv` with labels and
    columns.

    A series of several instances is a folder, and `file_name` names it; one of a single instance is a file.
    """

    name = "dicom"
    again = "."
    files = True
    once = True

    def misfit(self, manifest: Manifest) -> str | None:
        return None if manifest.modality == "dicom" and has_files(manifest) else "its examples are no DICOM files."

    def write(self, export: ExportContent, folder: Path, progress: ReportProgress) -> WriteReport:
        assert export.media is not None
        rows, names, placed = export.rows, UniqueNames(), dict[str, str]()
        header = [f"user_{name}" if name.lower() == "file_name" else name for name in rows.column_names]
        with CsvFile(folder / "metadata.csv", ["file_name", *header]) as metadata:
            for start in range(0, rows.num_rows, _STUDIES_AT_ONCE):
                batch = rows.slice(start, _STUDIES_AT_ONCE)
                paths = []
                for row, cells in enumerate(folder_names(batch)):
                    content = export.media.contents[start + row]
                    if content not in placed:  # windows of one medium share it
                        placed[content] = write_dicom(export.media.read(start + row), folder, names, cells)
                    paths.append(placed[content])
                metadata.write(zip(paths, *(column.to_pylist() for column in batch.columns), strict=True))
                progress(batch.num_rows)
        return WriteReport({}, metadata.escaped, notes_of_nulls(rows))


def folder_names(batch: Any) -> list[list[str]]:
    """The names of the three folders of each row."""
    columns = [batch[name].to_pylist() if name in batch.column_names else [None] * batch.num_rows for name in _FOLDERS]
    return [
        [safe_name(str(cell)) if cell else f"unknown {name}" for name, cell in zip(_FOLDERS, cells, strict=True)]
        for cells in zip(*columns, strict=True)
    ]


def write_dicom(data: bytes, folder: Path, names: UniqueNames, cells: list[str]) -> str:
    """The name of the file or folder below the export."""
    above = "/".join(cells[:2])
    below = f"{above}/{names.claim(above, cells[2])}"
    files = list(members_of(data).values()) if is_bundle(data) else [data]
    (folder / below).mkdir(parents=True, exist_ok=True)
    for number, each in enumerate(files, 1):
        (folder / below / member_name(number)).write_bytes(each)
    return below if len(files) > 1 else f"{below}/{member_name(1)}"


DICOM = DicomFolders()
