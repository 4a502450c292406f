"""Nothing vanishes and nobody suffers for another: what was excluded, packs that are not whole, and files or rows that
cost a process its life."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from speciate.datasets import version_rows
from speciate.datasets.ingest import row_validation, survey
from speciate.datasets.ingest.row_validation import row_verdicts
from speciate.datasets.ingest.validation import validate_files
from speciate.datasets.loading.loader import load_examples
from speciate.datasets.roles import Roles
from speciate.datasets.sources.listing import ExcludedFile
from speciate.datasets.versions import Manifest, resolve, version
from speciate.errors import Code, SpeciateError
from speciate.jobs.folder import RunFolder
from speciate.jobs.pool import Busy, Pool
from speciate.jobs.run import Run
from speciate.workspace.packs import index_path
from speciate.workspace.workspace import Workspace
from tests import data


def rows_of(workspace: Workspace, manifest: Manifest) -> dict[str, dict[str, Any]]:
    return {row["source"]: row for row in version_rows.read(workspace.folders, manifest).to_pylist()}


def test_an_excluded_file_is_an_item_with_its_reason(workspace: Workspace, tmp_path: Path) -> None:
    folder = data.digit_folder(tmp_path / "set", 10, classes=2)
    (folder / "0" / "nowhere.png").symlink_to(tmp_path / "nothing")
    (folder / "0" / "more.csv").write_text("a,b\n1,2\n")
    manifest = data.ingest(workspace, "set", source=folder, label="folder")
    found = rows_of(workspace, manifest)
    assert found["0/nowhere.png"]["quality"] == found["0/more.csv"]["quality"] == "refused"
    assert found["0/nowhere.png"]["reason"] == "A link to nothing."
    report = version(workspace.database, "set").report
    assert (report["ok"], report["refused"]) == (10, 2)
    assert len(load_examples(workspace.folders, manifest)) == 10
    (folder / "1" / "nowhere.png").symlink_to(tmp_path / "nothing")
    again = data.ingest(workspace, "set", source=folder, add=True)
    assert again.rows == manifest.rows + 1


def test_beside_tables_too(workspace: Workspace, tmp_path: Path) -> None:
    folder = tmp_path / "set"
    folder.mkdir()
    data.review_csv(folder / "rows.csv", 20)
    for name in ("c.bin", "d.bin"):
        (folder / name).write_bytes(b"no table")
        data.ingest(workspace, "set", source=folder, label="label", add=name == "d.bin")
    found = rows_of(workspace, resolve(workspace.database, "set"))
    assert [found[name]["quality"] for name in ("c.bin", "d.bin")] == ["refused", "refused"]
    assert len(found) == 22


def test_beyond_a_bound_they_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(survey, "MOST_EXCLUDED", 2)
    found = survey.survey_rows([{"x": 1}], "auto")
    excluded = [ExcludedFile(f"{i}.bin", "No table.") for i in range(5)]
    items = survey.with_excluded_files(found, excluded, "folder")
    assert items.table.num_rows == items.items.num_rows == 4
    assert items.items["source"].to_pylist() == ["rows#1", "0.bin", "1.bin", "folder"]
    assert items.items["reason"][3].as_py() == "3 further files were excluded."


def without_index(pack: Path) -> None:
    index_path(pack).unlink()


def cut(pack: Path) -> None:
    pack.chmod(0o600)
    os.truncate(pack, pack.stat().st_size // 2)


def flipped(pack: Path) -> None:
    pack.chmod(0o600)
    content = pack.read_bytes()
    pack.write_bytes(bytes(byte ^ 1 for byte in content))


@pytest.mark.parametrize("damage", [without_index, Path.unlink, cut, flipped])
def test_packs_that_are_not_whole_are_not_trusted(
    workspace: Workspace, tmp_path: Path, damage: Callable[[Path], None]
) -> None:
    folder = data.digit_folder(tmp_path / "set", 12, classes=2)
    first = data.ingest(workspace, "set", source=folder, label="folder")
    damage(workspace.folders.root / first.packs[0])
    next((folder / "0").iterdir()).unlink()
    assert len(load_examples(workspace.folders, data.ingest(workspace, "set", source=folder, label="folder"))) == 11


class Failing:
    """A pool whose processes do not survive some questions, and are busy at first."""

    size = 1

    def __init__(self, code: Code, kills: Callable[[dict[str, Any]], bool]) -> None:
        self.code, self.kills, self.busy = code, kills, 2

    def _heard(self, payload: dict[str, Any]) -> None:
        if self.busy:
            self.busy -= 1
            raise Busy(Code.UNAVAILABLE, "All 1 service processes were busy.")
        if self.kills(payload):
            raise SpeciateError(self.code, "It failed.")

    def ask(self, service: str, payload: dict[str, Any], timeout: float, *, readable: Any) -> dict[str, Any]:
        self._heard(payload)
        return validate_files(payload)

    def ask_for_file(self, service: str, payload: dict[str, Any], read: Any, timeout: float, *, readable: Any) -> Any:
        self._heard(payload)
        target = Path(payload["file"] + ".verdicts")
        pq.write_table(row_verdicts(pq.read_table(payload["file"]), payload["modality"], payload["inputs"]), target)
        return read(target, {})


def run_in(workspace: Workspace) -> Run:
    folder = RunFolder(workspace.folders.runs / "job-a.1")
    folder.create({"payload": {}, "job": "job-a", "workspace": str(workspace.folders.root)})
    return Run(folder)


@pytest.mark.parametrize("code", [Code.UNAVAILABLE, Code.INTERNAL, Code.REFUSED])
def test_a_file_that_breaks_a_process_is_the_only_error(workspace: Workspace, tmp_path: Path, code: Code) -> None:
    words = [b"some words", b"a poisoned text", b"other words"]
    (tmp_path / "chunk").write_bytes(b"".join(words))
    spans = [(sum(map(len, words[:i])), len(word)) for i, word in enumerate(words)]
    pool = Failing(code, lambda payload: any(offset == spans[1][0] for offset, _ in payload["spans"]))
    context = survey.SurveyContext(run_in(workspace), cast(Pool, pool), tmp_path, lambda done, total: None)
    verdicts = survey._ask_validator(context, "text", tmp_path / "chunk", spans, as_is=False)
    assert [verdict.quality for verdict in verdicts] == ["ok", "error", "ok"]
    assert verdicts[1].reason == "The decoder failed on this file: It failed."


@pytest.mark.parametrize("code", [Code.UNAVAILABLE, Code.INTERNAL, Code.REFUSED])
def test_a_row_that_breaks_a_process_is_the_only_error(workspace: Workspace, tmp_path: Path, code: Code) -> None:
    texts = [f"the words of row {i}" for i in range(300)]
    pool = Failing(code, lambda payload: texts[77] in pq.read_table(payload["file"])["text"].to_pylist())
    table = pa.table({"text": texts})
    wanted = pa.chunked_array([[i != 5 for i in range(300)]])
    context = row_validation.RowValidationContext(run_in(workspace), cast(Pool, pool), tmp_path, frozenset())
    verdicts = row_validation.validate_table(table, wanted, Roles("text", ("text",)), context).to_pylist()
    assert [i for i, verdict in enumerate(verdicts) if verdict["quality"] != "ok"] == [5, 77]
    assert verdicts[77]["reason"] == "The decoder failed on this row: It failed."
    assert verdicts[5]["key"] is verdicts[77]["key"] is None
    assert verdicts[6]["key"] is not None
    silent = SimpleNamespace(size=1)  # whoever comes next asks nobody
    again = row_validation.validate_table(
        table, wanted, Roles("text", ("text",)), context._replace(pool=cast(Pool, silent))
    )
    assert again.to_pylist() == verdicts


def test_half_a_character_spoils_its_row_alone(workspace: Workspace) -> None:
    rows = [*data.review_rows(10), {"text": "half \ud800 of it", "label": "good"}, {"text": "x", "\udc00": 1}]
    found = rows_of(workspace, data.ingest(workspace, "set", rows=rows, label="label"))
    assert Counter(row["quality"] for row in found.values()) == {"ok": 10, "error": 2}
    assert found["rows#11"]["reason"] == "It holds half a character."
