"""The coverage table of docs/published-models.md names the doubles that tests ask, and no others."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

pytest.importorskip("transformers")

from tests.models.published.doubles import FAMILIES
from tests.models.published.test_adapters import COMPARE

PAGE = Path(__file__).parents[3] / "docs" / "published-models.md"
_ROW = re.compile(r"^\| `([^`]+)` \| `([^`]+)` \| (\w[\w ]*) \|$", re.MULTILINE)
_BESIDE = {
    "video-classification": "forward pass", "forecast": "forward pass", "speech": "generate", "seq2seq": "generate",
    "image-to-text": "generate", "question-answering": "forward pass",
    "text-to-spectrogram": "generate", "text-to-waveform": "forward pass",
}  # fmt: skip
"""Adapters that the library has no pipeline for, or one that reads files."""
_BY_NAME = {
    "layoutlm": "forward pass", "lilt": "forward pass", "layoutlm answers": "pipeline", "blip answers": "generate",
    "vilt": "forward pass",
}  # fmt: skip


def how(name: str) -> str:
    """With what the answers of a double are compared."""
    return _BY_NAME.get(name) or _BESIDE.get(FAMILIES[name].adapter, "pipeline")


def test_each_row_of_the_coverage_table_is_made_by_a_test() -> None:
    rows = {name: (task, how) for name, task, how in _ROW.findall(PAGE.read_text())}
    expected = {}
    for name, family in FAMILIES.items():
        assert family.adapter in COMPARE
        expected[name] = (family.task, how(name))
    assert rows == expected
