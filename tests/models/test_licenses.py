"""Licences by one spelling."""

from __future__ import annotations

import pytest

from speciate.models.licenses import spdx


@pytest.mark.parametrize(
    ("said", "known"),
    [
        ("apache-2.0", "Apache-2.0"),
        ("MIT", "MIT"),
        ("cc-by-nc-4.0", "CC-BY-NC-4.0"),
        ("gpl-3.0", "GPL-3.0-only"),
        ("gemma", "LicenseRef-gemma"),
        ("other", None),
        ("https://somewhere/LICENSE", None),
        ("", None),
        (None, None),
    ],
)
def test_a_licence_has_one_spelling_and_what_is_none_is_unknown(said: str | None, known: str | None) -> None:
    assert spdx(said) == known
