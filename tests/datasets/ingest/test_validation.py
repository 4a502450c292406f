"""One file validated: a file that decodes is used, unless a person should look at it first."""

from __future__ import annotations

from pathlib import Path

import pytest

from speciate.datasets.ingest.validation import validate_bytes
from speciate.datasets.readers.formats import parse_reader
from speciate.modalities import find
from speciate.modalities.bundles import bundle

pytest.importorskip("pydicom")


def scan(burned_in: str) -> bytes:
    import io

    from pydicom import dcmread
    from pydicom.data import get_testdata_file

    path = get_testdata_file("CT_small.dcm")
    assert path is not None
    dataset = dcmread(Path(str(path)))
    dataset.BurnedInAnnotation = burned_in
    buffer = io.BytesIO()
    dataset.save_as(buffer)
    return buffer.getvalue()


def test_a_scan_that_says_that_it_holds_text_is_excluded_with_all_that_is_known_of_it() -> None:
    verdict = validate_bytes(find("dicom"), scan("YES"))
    assert verdict.quality == "partial"
    assert "Burned In Annotation is YES" in str(verdict.reason)
    assert verdict.fields["text_suspected"] == verdict.reason
    assert verdict.fingerprint is not None
    assert validate_bytes(find("dicom"), scan("NO")).quality == "ok"


def test_as_is_uses_it_and_keeps_the_column() -> None:
    verdict = validate_bytes(find("dicom"), scan("YES"), as_is=True)
    assert (verdict.quality, verdict.reason) == ("ok", None)
    assert "text_suspected" in verdict.fields
    assert parse_reader("as-is").as_is
    assert str(parse_reader("as-is")) == "as-is"


def test_a_part_of_a_mixed_row_is_looked_at_as_closely() -> None:
    row = bundle({"scan.dicom": scan("YES"), "report.text": b"Nothing to be seen."})
    verdict = validate_bytes(find("multimodal"), row)
    assert verdict.quality == "partial"
    assert str(verdict.reason).startswith("scan.dicom: ")
