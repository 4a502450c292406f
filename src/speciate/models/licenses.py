"""Licences in one spelling: SPDX ids, whatever their publishers write. An unknown licence is None."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

from speciate import foreign_files
from speciate.errors import Call, Code, SpeciateError

_UNKNOWN = ("", "none", "unknown", "other", "not specified", "multiple", "n/a")
_SPELLINGS = {
    "apache": "Apache-2.0", "apache2": "Apache-2.0", "apache 2.0": "Apache-2.0", "apache license 2.0": "Apache-2.0",
    "bsd": "BSD-3-Clause", "bsd3": "BSD-3-Clause", "gpl": "GPL-3.0-or-later", "cc0": "CC0-1.0",
    "gpl-3.0": "GPL-3.0-only", "gpl-2.0": "GPL-2.0-only", "agpl-3.0": "AGPL-3.0-only", "lgpl-3.0": "LGPL-3.0-only",
    "cc": None,
}  # fmt: skip
"""Common spellings that are no SPDX id; None: too vague to be one."""
_FILES = ("LICENSE", "LICENSE.txt", "LICENSE.md", "LICENCE", "LICENCE.txt", "COPYING")
_LONGEST_TEXT = 200_000  # bytes
_OWN = re.compile(r"[a-z0-9][a-z0-9.\-]{1,62}")


@cache
def spdx(text: str | None) -> str | None:
    """`apache-2.0` -> `Apache-2.0`. A publisher's own licence (`gemma`, `LicenseRef-gemma`) keeps its name, as
    `LicenseRef-gemma`; a link cannot be compared and gives None."""
    name = (text or "").strip().lower().removeprefix("licenseref-")
    if name in _UNKNOWN or "://" in name:
        return None
    if name in _SPELLINGS:
        return _SPELLINGS[name]
    if (known := _ids().get(name)) is not None:
        return known
    return f"LicenseRef-{name}" if _OWN.fullmatch(name) else None


def wanted(names: Iterable[str]) -> list[str]:
    """The SPDX ids that a caller means by names. Raises INVALID for an unknown one."""
    found: list[str] = []
    for name in names:
        if (known := spdx(name)) is None:
            raise SpeciateError(
                Code.INVALID,
                f"{name!r} is no licence.",
                "Call again with SPDX ids, such as 'Apache-2.0', 'MIT', 'CC-BY-4.0', or a publisher's own, as 'gemma'.",
            )
        found.append(known)
    return found


@cache
def _ids() -> dict[str, str]:
    """Every id of the SPDX list, by its lower case."""
    from license_expression import get_license_index

    return {
        str(row["spdx_license_key"]).lower(): str(row["spdx_license_key"])
        for row in get_license_index()
        if row.get("spdx_license_key") and not str(row["spdx_license_key"]).startswith("LicenseRef-")
    }


_NO_DERIVATIVES = re.compile(r"CC-BY(-NC)?-ND-(\d\.\d)")
_NOTHING_GRANTED = ("all-rights-reserved", "proprietary", "unlicensed", "commercial", "no-redistribution")
"""Names after `LicenseRef-` of terms that let nobody pass a work on."""


def forbids_sharing(license: str | None, *, adapted: bool) -> str | None:  # noqa: A002 - as cards call it
    """The clause of a licence that forbids to give the work away, in words; None where none is known to.

    `adapted`: whether it was changed, as training changes it. An unknown licence forbids nothing here: whoever exports
    answers for it.
    """
    name = license or ""
    if (found := _NO_DERIVATIVES.fullmatch(name)) is not None:
        if not adapted:
            return None
        where = "section 2(a)(1)(B)" if found.group(2) == "4.0" else "the licence grant"
        return f"NoDerivatives, {where}: adapted material may be produced, but not shared"
    if name.removeprefix("LicenseRef-").lower() in _NOTHING_GRANTED and name.startswith("LicenseRef-"):
        return f"the terms {name.removeprefix('LicenseRef-')!r} grant no right to pass it on"
    return None


def of_text(text: str) -> str | None:
    """The SPDX id of a licence's text, by the sentence that tells it; None for one that is not known."""
    plain = " ".join(text.split()).lower()
    return next((name for phrase, name in _PHRASES if phrase in plain), None)


_OF_WEIGHTS = re.compile(
    r"(?i)(models?|weights?)[_\-.]?licen[cs]es?(\.(txt|md))?|licen[cs]es?[_\-.](models?|weights?)(\.(txt|md))?"
)


def texts_in(folder: Path) -> list[str]:
    """Texts of the licences that lie beside weights, as far as they are short text files."""
    return _texts(folder, _FILES)


def texts_of_weights(folder: Path) -> list[str]:
    """Texts of the licences of the weights alone, by their names: `MODEL_LICENSE`, `LICENSE-WEIGHTS.txt`."""
    return _texts(folder, sorted(path.name for path in folder.iterdir() if _OF_WEIGHTS.fullmatch(path.name)))


def _texts(folder: Path, names: Iterable[str]) -> list[str]:
    found = []
    for name in names:
        try:
            found.append(foreign_files.read(folder / name, _LONGEST_TEXT).decode("utf-8", "replace"))
        except (OSError, ValueError):
            continue
    return found


def settle(stated: str | None, texts: Iterable[str], ref: str) -> str | None:
    """The stricter of what metadata state and the texts beside the weights are: who wrote the milder one need not have
    had the right to. Of two that are equally strict and differ the text counts if both permit nearly all. Raises
    INVALID where neither is stricter: which one holds is for a person to find out."""
    told = list(dict.fromkeys(name for text in texts if (name := of_text(text)) is not None))
    found = stated if stated is not None else (told.pop(0) if told else None)
    for name in told:
        if found is None or _family(name) == _family(found):
            continue
        mine, other = strictness(found), strictness(name)
        if mine == other and mine != _PERMISSIVE:
            raise SpeciateError(
                Code.INVALID,
                f"The licence of {ref!r} contradicts itself: {found} and {name} stand beside its weights, and neither "
                "is stricter.",
                "Ask its publisher which one holds, or use another model.",
                next=[Call("search_models", {"licenses": ["Apache-2.0", "MIT"]}, "for others")],
            )
        found = name if other >= mine else found
    return found


def stricter(one: str | None, other: str | None, ref: str) -> str | None:
    """The stricter of the licenses of two works in one, whose terms both hold: None where one is not known. INVALID
    where neither is stricter."""
    if one is None or other is None:
        return None
    mine, its = strictness(one), strictness(other)
    if mine == its and mine != _PERMISSIVE and _family(one) != _family(other):
        raise SpeciateError(
            Code.INVALID,
            f"{ref!r} and its base model are under {one} and {other}, and neither is stricter.",
            "Find out under which terms both may be used together, and say them with license=.",
        )
    return one if mine >= its else other


_PERMISSIVE, _WEAK, _STRONG, _NETWORK, _OWN_TERMS, _NO_COMMERCE, _NOTHING = range(7)
_BY_BEGINNING = (
    ("LGPL", _WEAK), ("MPL", _WEAK), ("EPL", _WEAK), ("CDDL", _WEAK), ("AGPL", _NETWORK), ("SSPL", _NETWORK),
    ("GPL", _STRONG), ("EUPL", _STRONG), ("CC-BY-SA", _STRONG), ("CC-BY-ND", _OWN_TERMS),
)  # fmt: skip


def strictness(license: str) -> int:  # noqa: A002 - as cards call it
    """A rank: permissive, weak and strong copyleft, copyleft over networks, a publisher's own terms, no commercial use,
    nothing granted."""
    if license.removeprefix("LicenseRef-").lower() in _NOTHING_GRANTED and license.startswith("LicenseRef-"):
        return _NOTHING
    if forbids_commerce(license):
        return _NO_COMMERCE
    if license.startswith("LicenseRef-"):
        return _OWN_TERMS
    return next((rank for beginning, rank in _BY_BEGINNING if license.startswith(beginning)), _PERMISSIVE)


_NON_COMMERCIAL = re.compile(r"(?i)(^|[-_.])nc([-_.]|$)|non-?commercial|research[-_.]only")


def forbids_commerce(license: str | None) -> bool:  # noqa: A002 - as cards call it
    """Whether its name says that commercial use is not permitted. An unknown licence says nothing."""
    return license is not None and _NON_COMMERCIAL.search(license) is not None


def of_card(metadata: Mapping[str, Any]) -> str | None:
    """What the front matter of a card states: `license`, and where that is 'other' its `license_name`."""
    stated = str(metadata.get("license") or "")
    named = metadata.get("license_name")
    return spdx(stated) or (spdx(named) if isinstance(named, str) else None)


def _family(name: str) -> str:
    """The license without the suffix that tells whether later versions hold, too."""
    return name.removesuffix("-only").removesuffix("-or-later")


_PHRASES = (
    ("gnu affero general public license version 3", "AGPL-3.0-only"),
    ("gnu lesser general public license version 3", "LGPL-3.0-only"),
    ("gnu general public license version 3", "GPL-3.0-only"),
    ("gnu general public license version 2", "GPL-2.0-only"),
    ("attribution-noncommercial-sharealike 4.0 international", "CC-BY-NC-SA-4.0"),
    ("attribution-noncommercial-noderivatives 4.0 international", "CC-BY-NC-ND-4.0"),
    ("attribution-noncommercial 4.0 international", "CC-BY-NC-4.0"),
    ("for non-commercial use only", "LicenseRef-non-commercial"),
    ("for non-commercial purposes only", "LicenseRef-non-commercial"),
    ("non-commercial license", "LicenseRef-non-commercial"),
    ("noncommercial license", "LicenseRef-non-commercial"),
    ("for research purposes only", "LicenseRef-research-only"),
    ("attribution-sharealike 4.0 international", "CC-BY-SA-4.0"),
    ("attribution 4.0 international", "CC-BY-4.0"),
    ("apache license version 2.0", "Apache-2.0"),
    ("apache license, version 2.0", "Apache-2.0"),
    ("mozilla public license version 2.0", "MPL-2.0"),
    ("permission is hereby granted, free of charge, to any person obtaining a copy of this software", "MIT"),
    ("neither the name of", "BSD-3-Clause"),
)
"""A sentence of each text, the stricter first: some texts quote a milder one."""
