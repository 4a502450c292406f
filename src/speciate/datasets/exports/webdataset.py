"""Tar shards as `webdataset` streams them: per example KEY.jpg or KEY.txt, KEY.cls and KEY.json under one key.

Mixed rows have a member for each part: KEY.scan.png, KEY.report.txt.

`.cls` is the number of the class, which its decoder expects; classes.txt names the classes, a line each from 0 on.
The key is the example's id.
"""

from __future__ import annotations

import io
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from speciate.datasets.exports.cells import TEXT, as_json
from speciate.datasets.exports.file_names import as_single_files, files_of, split_suffix
from speciate.datasets.exports.format import ExportContent, Piece, ReportProgress, WriteReport, class_names
from speciate.datasets.versions import Manifest
from speciate.modalities.multimodal import MULTIMODAL

_SHARD_BYTES = 256 * 1024 * 1024
_ROWS = 256


class _Member(NamedTuple):
    name: str
    data: bytes


class WebDataset:
    name = "webdataset"
    again = "data"
    files = True
    once = False

    def misfit(self, manifest: Manifest) -> str | None:
        return None

    def write(self, export: ExportContent, folder: Path, progress: ReportProgress) -> WriteReport:
        (folder / "data").mkdir()
        classes, configs = class_names(export), dict[str, str]()
        if classes:
            (folder / "classes.txt").write_text("".join(f"{' '.join(name.split())}\n" for name in classes))
        for piece in export.pieces():
            configs[piece.hub] = f"data/{piece.name}-*.tar"
            _write_shards(_examples(export, piece, classes, progress), folder / "data", piece.name)
        return WriteReport(configs)


def _examples(
    export: ExportContent, piece: Piece, classes: list[str], progress: ReportProgress
) -> Iterator[list[_Member]]:
    """The members of each example, in the order of the rows."""
    number = {name: i for i, name in enumerate(classes)}
    texts = export.manifest.inputs if export.manifest.modality == TEXT else ()
    for start in range(0, piece.rows.num_rows, _ROWS):
        batch = piece.rows.slice(start, _ROWS)
        for row, cells in enumerate(batch.to_pylist()):
            place = piece.start + start + row
            key = export.ids[place]
            members = list[_Member]()
            if export.media is not None and export.manifest.modality == MULTIMODAL.name:
                files = as_single_files(files_of(export.media.read(place)))
                members += [_Member(f"{key}.{name}", file) for name, file in files.items()]
            elif export.media is not None:
                suffix = split_suffix(export.media.names[place])[1].lower() or ".bin"
                suffix = ".medium.json" if suffix == ".json" else suffix  # the columns are KEY.json
                members.append(_Member(key + suffix, export.media.read(place)))
            elif texts:
                text = "\n".join(str(cells[name]) for name in texts if cells[name] is not None)
                members.append(_Member(f"{key}.txt", text.encode()))
            if export.labels[place] in number:
                members.append(_Member(f"{key}.cls", str(number[export.labels[place]]).encode()))
            members.append(_Member(f"{key}.json", as_json(cells).encode()))
            yield members
        progress(batch.num_rows)


def _write_shards(examples: Iterator[list[_Member]], folder: Path, name: str) -> None:
    """An example never lies in two shards."""
    shard, size = 0, 0
    tar = _open(folder, name, shard)
    try:
        for members in examples:
            if size >= _SHARD_BYTES:
                tar.close()
                shard, size = shard + 1, 0
                tar = _open(folder, name, shard)
            for member in members:
                entry = tarfile.TarInfo(member.name)  # no time, no owner: the same bytes every time
                entry.size = len(member.data)
                tar.addfile(entry, io.BytesIO(member.data))
                size += len(member.data)
    finally:
        tar.close()


def _open(folder: Path, name: str, shard: int) -> tarfile.TarFile:
    return tarfile.open(folder / f"{name}-{shard:06}.tar", "x", format=tarfile.USTAR_FORMAT)


WEBDATASET = WebDataset()
