"""Pseudonyms: a secret key and a value always give the same other value, which cannot be reversed without the key.

HMAC-SHA256, so that nobody can find the pseudonym of a known patient number by trying, as with a plain hash. Another
key gives other pseudonyms."""

from __future__ import annotations

import base64
import datetime
import hashlib
import hmac
import re
from typing import NamedTuple

_UID_ROOT = "2.25."
"""Root of UIDs that are made from 128 bits (PS3.5 B.2)."""
_REGISTERED = "1.2.840.10008."
"""Below it lie UIDs of the standard itself, which name nobody."""
_MOST_DAYS = 3_650
_DATE = re.compile(r"(\d{4})\.?(\d{2})\.?(\d{2})(.*)", re.DOTALL)
_TIME_OF_DAY = re.compile(r"(\d{2,6}(\.\d{1,6})?)?([+-]\d{4})?")


class Pseudonyms(NamedTuple):
    key: bytes

    def name(self, value: str) -> str:
        """Pseudonym of a patient or a group, such as `P-4GQ7ZKM2XNVA`."""
        return "P-" + base64.b32encode(self._digest("name", value)).decode()[:12]

    def uid(self, uid: str) -> str:
        """Another UID in the place of one, of at most 44 characters; one of the standard's own stays."""
        if not uid or is_registered_uid(uid):
            return uid
        return _UID_ROOT + str(int.from_bytes(self._digest("uid", uid)[:16], "big"))

    def days(self, patient: str) -> int:
        """Days by which the dates of a patient move: 1 to 3,650 back."""
        return -1 - int.from_bytes(self._digest("days", patient)[:8], "big") % _MOST_DAYS

    def _digest(self, use: str, value: str) -> bytes:
        return hmac.digest(self.key, f"{use}\0{value}".encode("utf-8", "surrogatepass"), hashlib.sha256)


def is_registered_uid(uid: str) -> bool:
    return uid.startswith(_REGISTERED)


def shift_date(value: str, days: int) -> str | None:
    """A DICOM date or date with time, moved by whole days; the time of day stays. None if it is no whole date."""
    found = _DATE.fullmatch(value.strip(" \0"))
    if found is None or not _TIME_OF_DAY.fullmatch(found[4]):
        return None
    try:
        day = datetime.date(int(found[1]), int(found[2]), int(found[3])) + datetime.timedelta(days)
    except (ValueError, OverflowError):
        return None
    return f"{day.year:04}{day.month:02}{day.day:02}{found[4]}"
