"""Contact sheets: excluded examples that decode are drawn in a frame; others have a card with the reason."""

from __future__ import annotations

import io
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
from PIL import Image
from pydicom.data import get_testdata_file

from speciate.datasets.inspect import contact_sheet as drawing
from speciate.datasets.inspect.contact_sheet import ContactSheet, ask_for_contact_sheet
from speciate.datasets.inspect.query import query
from speciate.datasets.versions import Manifest
from speciate.errors import Code, SpeciateError
from speciate.jobs.pool import Pool
from speciate.modalities import find
from speciate.server.tool_api import App
from speciate.tools.datasets import preview_dataset
from speciate.workspace.workspace import Workspace
from tests import data
from tests.datasets.operations.world import read

SHOWN = ["id", "label", "split", "group_key", "source"]
TEXT, WHOLE, CUT, UNREADABLE = "examples_rgb_color.dcm", "CT_small.dcm", "MR_small.dcm", "JPEG-lossy.dcm"


@pytest.fixture(scope="module")
def scans(shared: Workspace, tmp_path_factory: pytest.TempPathFactory) -> Manifest:
    sent = tmp_path_factory.mktemp("sent")
    for name in (TEXT, WHOLE, CUT, UNREADABLE):
        shutil.copy(str(get_testdata_file(name)), sent / name)
    (sent / CUT).write_bytes((sent / CUT).read_bytes()[:-500])
    return data.ingest(shared, "scans", source=str(sent), modality="dicom")


def tile(sheet: ContactSheet, place: int) -> np.ndarray:
    """(160, 160, 3): the upper left of an image, of a sheet of one row."""
    left = drawing._GAP + place * (find("dicom").thumbnail_side + drawing._GAP)
    return np.asarray(Image.open(io.BytesIO(sheet.png)))[drawing._GAP :][:160, left : left + 160]


def is_framed(image: np.ndarray) -> bool:
    return bool((image[:2, :2] == drawing._EXCLUDED).all())


def test_only_usable_examples_are_shown_by_default(shared: Workspace, pool: Pool, scans: Manifest) -> None:
    sheet = ask_for_contact_sheet(pool, shared.folders, scans)
    assert sheet.columns == SHOWN
    assert [row[4] for row in sheet.rows] == [WHOLE]
    assert not is_framed(tile(sheet, 0))


def test_excluded_examples_are_shown_if_the_condition_uses_quality(
    shared: Workspace, pool: Pool, scans: Manifest
) -> None:
    sheet = ask_for_contact_sheet(pool, shared.folders, scans, where="quality = 'partial'")
    assert sheet.columns == [*SHOWN, "quality", "reason"]
    reasons = {row[4]: row[6] for row in sheet.rows}
    assert "text" in reasons[TEXT].lower()
    assert "ends within its pixels" in reasons[CUT]
    assert {row[5] for row in sheet.rows} == {"partial"}
    of = {row[4]: tile(sheet, place) for place, row in enumerate(sheet.rows)}
    assert is_framed(of[TEXT])
    assert len(np.unique(of[TEXT])) > 100  # an image
    assert not is_framed(of[CUT])
    assert (of[CUT] == 255).mean() > 0.6  # words on white


def test_named_examples_are_shown_and_those_without_bytes_give_the_reason(
    shared: Workspace, pool: Pool, scans: Manifest
) -> None:
    ids = {row["source"]: row["id"] for row in read(shared, scans.ref).to_pylist()}
    wanted = [ids[name] for name in (UNREADABLE, WHOLE, TEXT)]
    sheet = ask_for_contact_sheet(pool, shared.folders, scans, ids=wanted)
    assert [(row[4], row[5]) for row in sheet.rows] == [(UNREADABLE, "error"), (WHOLE, "ok"), (TEXT, "partial")]
    image = Image.open(io.BytesIO(sheet.png))
    assert image.width * image.height > 3 * find("dicom").thumbnail_side ** 2
    only = ask_for_contact_sheet(pool, shared.folders, scans, where=f"source = '{UNREADABLE}'")
    assert (tile(only, 0) == 255).mean() > 0.6


def test_a_cut_mesh_says_why_it_is_not_shown(shared: Workspace, pool: Pool, tmp_path: Path) -> None:
    (tmp_path / "sent").mkdir()
    square = "v 0 0 0\nv 1 0 0\nv 1 1 0\nv 0 1 0\nf 1 2 3\nf 1 3 4\n"
    (tmp_path / "sent" / "whole.obj").write_text(square)
    (tmp_path / "sent" / "cut.obj").write_text(square[:-3])
    meshes = data.ingest(shared, "meshes", source=str(tmp_path / "sent"), modality="mesh")
    sheet = ask_for_contact_sheet(pool, shared.folders, meshes, where="quality <> 'ok'")
    assert [(row[4], row[5]) for row in sheet.rows] == [("cut.obj", "partial")]
    assert Image.open(io.BytesIO(sheet.png)).width > 160
    assert len(ask_for_contact_sheet(pool, shared.folders, meshes, where="quality IN ('ok', 'partial')").rows) == 2


class Slow(Pool):
    """Draws in time what is small enough; asks as ever."""

    def ask(self, service: str, payload: dict[str, Any], timeout: float = 20.0, **message: Any) -> dict[str, Any]:
        if service.endswith("draw_thumbnails") and len(payload["ids"]) > 4:
            raise SpeciateError(
                Code.UNAVAILABLE, "'draw_thumbnails' did not finish within 20 s and was stopped.", "Less."
            )
        return super().ask(service, payload, timeout, **message)


def test_a_timeout_names_a_smaller_call_that_works(shared: Workspace, digits: Manifest) -> None:
    slow = Slow(shared.folders, shared.settings)
    with pytest.raises(SpeciateError, match="12 examples are too many") as caught:
        ask_for_contact_sheet(slow, shared.folders, digits)
    assert "preview_dataset(dataset='digits@v1', count=4)" in caught.value.recovery
    four = ask_for_contact_sheet(slow, shared.folders, digits, count=4)
    assert len(four.rows) == 4
    page = query(slow, shared.folders, digits, sql="SELECT id FROM examples ORDER BY id LIMIT 6")
    ids = [row[0] for row in page.rows]
    with pytest.raises(SpeciateError) as caught:
        ask_for_contact_sheet(slow, shared.folders, digits, ids=ids)
    assert f"ids={ids[:2]!r}" in caught.value.recovery
    slow.close()


def test_the_answers_to_a_text_are_in_the_rows_cut_where_they_are_long(
    shared: Workspace, pool: Pool, reviews: Manifest
) -> None:
    app = cast(App, SimpleNamespace(workspace=shared, pool=pool))
    prompts = [f"What is {i} and {i}, in words?" for i in range(6)]
    pairs = [{"prompt": q, "completion": f"{i}, " + "so " * 200} for i, q in enumerate(prompts)]
    data.ingest(shared, "pairs", rows=tuple(pairs))
    page, image = preview_dataset(app, "pairs")
    assert image.data.startswith(b"\x89PNG")
    assert page.columns == (*SHOWN, "completion")
    assert {row[5][:3] for row in page.untrusted.rows} == {f"{i}, " for i in range(6)}
    assert {(len(row[5]), row[5][-1]) for row in page.untrusted.rows} == {(301, "…")}
    better = [{"prompt": q, "chosen": f"good {i}", "rejected": f"bad {i}"} for i, q in enumerate(prompts)]
    data.ingest(shared, "better", rows=tuple(better))
    page, _ = preview_dataset(app, "better", where="quality = 'ok'", count=3)
    assert page.columns == (*SHOWN, "chosen", "rejected")
    assert all(row[5].replace("good", "bad") == row[6] for row in page.untrusted.rows)
    assert preview_dataset(app, reviews.ref)[0].columns == tuple(SHOWN)
