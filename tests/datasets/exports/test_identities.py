"""Files that name people leave only if the caller says so, and an export without names reveals none."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
import pytest

from speciate.datasets.exports.card import ExportSummary, card
from speciate.datasets.exports.export import check_rows, check_version, redact_history
from speciate.datasets.versions import Manifest, Version
from speciate.errors import Code, SpeciateError


def manifest(modality: str = "dicom", **columns: str) -> Manifest:
    return Manifest(name="scans", version=2, id="", modality=modality, parts=(), columns=columns, rows=3)


def rows(*profiles: str | None) -> pa.Table:
    return pa.table({"deidentified": pa.array(profiles, pa.string())})


@pytest.mark.parametrize(
    ("version", "refused"),
    [
        (manifest(), True),
        (manifest(deidentified="VARCHAR"), False),
        (manifest("image"), False),
        (manifest("time-series"), False),
        (manifest("time-series", modality_code="VARCHAR"), True),  # waveforms in DICOM
    ],
)
def test_the_catalog_tells_before_a_job_starts(version: Manifest, refused: bool) -> None:
    check_version(version, identified=True)
    if not refused:
        check_version(version, identified=False)
        return
    with pytest.raises(SpeciateError, match="may name people") as caught:
        check_version(version, identified=False)
    assert caught.value.code == Code.REFUSED
    assert "{'op': 'deidentify'}" in caught.value.recovery
    assert "identified=true" in caught.value.recovery


def test_rows_that_came_later_are_counted() -> None:
    version = manifest(deidentified="VARCHAR")
    check_rows(rows("basic", "basic"), version, identified=False)
    check_rows(rows("basic", None), version, identified=True)
    with pytest.raises(SpeciateError, match="1 of 3 examples of scans@v2 may name people"):
        check_rows(rows("basic", None, "basic"), version, identified=False)


def made_by(number: int, **operation: Any) -> Version:
    version = manifest(deidentified="VARCHAR").model_copy(update={"version": number})
    return Version(version, [], operation, {}, None, 0.0)


def test_a_card_omits_steps_before_names_were_removed() -> None:
    named = {"op": "filter", "where": "patient = 'ZQDOE'"}
    chain = [
        made_by(4, op="curate", steps=[{"op": "filter", "where": "slices > 3"}]),
        made_by(3, op="curate", steps=[named, {"op": "deidentify", "profile": "basic"}]),
        made_by(2, op="curate", steps=[{"op": "filter", "where": "patient != 'ZQROE'"}]),
        made_by(1, op="ingest", source="/home/x/ZQMILES", license="cc0", group_by="ZQ(.*)"),
    ]
    exported = ExportSummary(
        format="dicom", part=None, splits={"": 3}, excluded={}, configs={}, label=None, group=None, notes=[]
    )
    shown = card(redact_history(chain, identified=False), exported)
    assert "ZQ" not in shown
    for kept in ("where = slices", "profile = basic", "cc0", "ingest", "filter"):
        assert kept in shown
    assert "ZQMILES" in card(redact_history(chain, identified=True), exported)
