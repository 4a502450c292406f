"""Licences by one spelling."""

from __future__ import annotations

from pathlib import Path

import pytest

from speciate.errors import SpeciateError
from speciate.models.licenses import forbids_commerce, of_card, settle, spdx, texts_in, texts_of_weights


@pytest.mark.parametrize(
    ("said", "known"),
    [
        ("apache-2.0", "Apache-2.0"),
        ("MIT", "MIT"),
        ("cc-by-nc-4.0", "CC-BY-NC-4.0"),
        ("gpl-3.0", "GPL-3.0-only"),
        ("gemma", "LicenseRef-gemma"),
        ("LicenseRef-Gemma", "LicenseRef-gemma"),
        ("LicenseRef-", None),
        ("other", None),
        ("https://somewhere/LICENSE", None),
        ("", None),
        (None, None),
    ],
)
def test_a_licence_has_one_spelling_and_what_is_none_is_unknown(said: str | None, known: str | None) -> None:
    assert spdx(said) == known


AGPL, MIT_TEXT = (
    "GNU Affero General Public License\nVersion 3, 19 November 2007",
    ("Permission is hereby granted, free of charge, to any person obtaining a copy of this software and more"),
)


@pytest.mark.parametrize(
    ("stated", "texts", "found"),
    [
        ("MIT", [AGPL], "AGPL-3.0-only"),
        ("AGPL-3.0-only", [MIT_TEXT], "AGPL-3.0-only"),
        ("Apache-2.0", [MIT_TEXT], "MIT"),
        ("CC-BY-NC-4.0", [MIT_TEXT], "CC-BY-NC-4.0"),
        ("LicenseRef-gemma", ["Apache License\nVersion 2.0"], "LicenseRef-gemma"),
        ("Apache-2.0", ["This is a Non-Commercial License for our weights."], "LicenseRef-non-commercial"),
        ("GPL-3.0-or-later", ["GNU General Public License\nVersion 3"], "GPL-3.0-or-later"),
        (None, [MIT_TEXT], "MIT"),
        (None, [MIT_TEXT, AGPL], "AGPL-3.0-only"),
        ("MIT", ["words"], "MIT"),
        (None, [], None),
    ],
)
def test_the_stricter_of_metadata_and_text_counts(stated: str | None, texts: list[str], found: str | None) -> None:
    assert settle(stated, texts, "hf:org/name") == found


def test_of_two_that_are_equally_strict_nobody_chooses() -> None:
    with pytest.raises(SpeciateError, match=r"GPL-3.0-only and CC-BY-SA-4.0.*neither is stricter"):
        settle("GPL-3.0-only", ["Attribution-ShareAlike 4.0 International"], "hf:org/name")


@pytest.mark.parametrize(
    ("name", "forbidden"),
    [
        ("CC-BY-NC-4.0", True), ("CC-BY-NC-SA-4.0", True), ("LicenseRef-tabpfn-2.5-license-v1.0-noncommercial", True),
        ("LicenseRef-non-commercial", True), ("MIT", False), ("NCSA", False), ("CC-BY-4.0", False), (None, False),
    ],
)  # fmt: skip
def test_a_licence_that_forbids_commercial_use_is_an_answer_of_its_own(name: str | None, forbidden: bool) -> None:
    assert forbids_commerce(name) == forbidden


def test_the_weights_licence_is_told_by_the_name_of_its_file(tmp_path: Path) -> None:
    (tmp_path / "LICENSE").write_text("Apache License\nVersion 2.0")
    (tmp_path / "MODEL_LICENSE.md").write_text("These weights are for non-commercial use only.")
    assert settle(None, texts_in(tmp_path), "x") == "Apache-2.0"
    assert settle(None, texts_of_weights(tmp_path), "x") == "LicenseRef-non-commercial"


def test_a_card_that_says_other_is_read_by_its_name() -> None:
    assert of_card({"license": "other", "license_name": "acme-research-only"}) == "LicenseRef-acme-research-only"
    assert of_card({"license": "mit", "license_name": "x"}) == "MIT"
    assert of_card({}) is None
