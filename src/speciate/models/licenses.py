"""Licences in one spelling: SPDX ids, whatever their publishers write. An unknown licence is None."""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import cache

from speciate.errors import Code, SpeciateError

_UNKNOWN = ("", "none", "unknown", "other", "not specified", "multiple", "n/a")
_SPELLINGS = {
    "apache": "Apache-2.0", "apache2": "Apache-2.0", "apache 2.0": "Apache-2.0", "apache license 2.0": "Apache-2.0",
    "bsd": "BSD-3-Clause", "bsd3": "BSD-3-Clause", "gpl": "GPL-3.0-or-later", "cc0": "CC0-1.0",
    "gpl-3.0": "GPL-3.0-only", "gpl-2.0": "GPL-2.0-only", "agpl-3.0": "AGPL-3.0-only", "lgpl-3.0": "LGPL-3.0-only",
    "cc": None,
}  # fmt: skip
"""Common spellings that are no SPDX id; None: too vague to be one."""
_OWN = re.compile(r"[a-z0-9][a-z0-9.\-]{1,62}")


@cache
def spdx(text: str | None) -> str | None:
    """`apache-2.0` -> `Apache-2.0`. A publisher's own licence (`gemma`, `llama3`) keeps its name, as
    `LicenseRef-gemma`; a link cannot be compared and gives None."""
    name = (text or "").strip().lower()
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
        if (known := spdx(name.removeprefix("LicenseRef-"))) is None:
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
