"""What a file is by its first bytes, in reasons and in a note on wrong suffixes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from speciate.datasets.ingest.validation import validate_bytes
from speciate.datasets.sources.file_kinds import explain, kind_of, wrong_suffix_notes
from speciate.datasets.sources.listing import named_files
from speciate.modalities import find
from tests.modalities import samples

PAGE = b"<!DOCTYPE html>\n<html><body>Please sign in</body></html>"


@pytest.mark.parametrize(
    ("modality", "data", "reason"),
    [
        ("protein", PAGE, "The file is a web page (HTML): the download failed, or asked for a login."),
        ("protein", b"", "The file is empty."),
        ("protein", b" \n\n", "The file holds nothing but blanks."),
        ("image", b"RIFF\x00\x00\x00\x00WAVEfmt ", "By its first bytes it is WAV audio."),
        ("image", PAGE, "The file is a web page (HTML)"),
    ],
)
def test_a_reason_says_what_the_file_is(modality: str, data: bytes, reason: str) -> None:
    verdict = validate_bytes(find(modality), data)
    assert verdict.quality == "error"
    assert reason in str(verdict.reason)


def test_a_decoder_that_knows_the_format_keeps_its_reason() -> None:
    assert explain(b"\x89PNG\r\n\x1a\nrest", "The image is cut.", (".png",)) == "The image is cut."
    assert explain(b"some bytes", "Not a sequence.", (".fasta",)) == "Not a sequence."
    assert kind_of(b"<p>a text that begins with a tag</p>") is None


def test_files_under_a_wrong_suffix_are_noted(tmp_path: Path) -> None:
    Image.fromarray(np.zeros((4, 4, 3), np.uint8)).save(tmp_path / "a.png")
    (tmp_path / "b.jpg").write_bytes((tmp_path / "a.png").read_bytes())
    (tmp_path / "c.dat").write_bytes((tmp_path / "a.png").read_bytes())
    (tmp_path / "d.cif").write_bytes(b"HEADER    OXYGEN STORAGE\n")
    files = named_files((path, path.name) for path in tmp_path.iterdir())
    assert wrong_suffix_notes(files) == (
        "2 files are not what their suffixes say: 'b.jpg' is a PNG image, 'd.cif' is a PDB file. The bytes decide.",
    )
    assert wrong_suffix_notes(files[:1]) == ()


@pytest.mark.parametrize(("format_", "suffix"), [("PNG", ".png"), ("JPEG", ".jpg"), ("WEBP", ".webp"), ("GIF", ".gif")])
def test_real_images_are_known_for_what_they_are(format_: str, suffix: str) -> None:
    kind = kind_of(samples.photo(format_))
    assert kind is not None
    assert suffix in kind.suffixes
