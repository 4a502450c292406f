"""Formats `csv` and `jsonl`: one text file per split, one row per line.

In CSV, lists are JSON, and cells that a spreadsheet would run are escaped.
"""

from __future__ import annotations

from pathlib import Path

from speciate.datasets.exports.cells import TEXT, CsvFile, as_json, notes_of_nulls, plain_rows, text_header
from speciate.datasets.exports.format import ExportContent, ReportProgress, WriteReport, has_files
from speciate.datasets.versions import Manifest


class Csv:
    name = "csv"
    again = "data"
    files = False
    once = False

    def misfit(self, manifest: Manifest) -> str | None:
        if has_files(manifest) and manifest.modality != TEXT:
            return "its examples are files, which a cell cannot hold."
        if any(manifest.columns.get(name, "").endswith("[]") for name in manifest.inputs):
            return "its examples are lists of numbers, which come back from a cell as text."
        return None

    def write(self, export: ExportContent, folder: Path, progress: ReportProgress) -> WriteReport:
        (folder / "data").mkdir()
        configs: dict[str, str] = {}
        escaped = 0
        for piece in export.pieces():
            path = f"data/{piece.name}.csv"
            configs[piece.hub] = path
            with CsvFile(folder / path, text_header(export)) as file:
                for rows in plain_rows(export, piece):
                    file.write(rows)
                    progress(len(rows))
            escaped += file.escaped
        return WriteReport(configs, escaped, notes_of_nulls(export.rows))


CSV = Csv()


class JsonLines:
    """One JSONL file per split, for tables, texts and series: one object with every column per line."""

    name = "jsonl"
    again = "data"
    files = False
    once = False

    def misfit(self, manifest: Manifest) -> str | None:
        if has_files(manifest) and manifest.modality != TEXT:
            return "its examples are files, which a line of JSON cannot hold."
        return None

    def write(self, export: ExportContent, folder: Path, progress: ReportProgress) -> WriteReport:
        (folder / "data").mkdir()
        names, configs = text_header(export), dict[str, str]()
        for piece in export.pieces():
            path = f"data/{piece.name}.jsonl"
            configs[piece.hub] = path
            with (folder / path).open("w", encoding="utf-8", newline="\n") as file:
                for rows in plain_rows(export, piece):
                    file.writelines(as_json(dict(zip(names, row, strict=True))) + "\n" for row in rows)
                    progress(len(rows))
        return WriteReport(configs)


JSONL = JsonLines()
