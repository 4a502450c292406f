"""How often a token may be tried, by address.

256 random bits are not guessed. The limit keeps whoever tries all the same from costing anything. There is none for all
addresses together: by that anybody could lock the team out.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable
from ipaddress import IPv6Address, ip_address, ip_network
from typing import NamedTuple

_TRIES, _SECONDS = 10, 60.0
"""Wrong tokens of one address in a minute."""
_MOST_ADDRESSES = 10_000
_HOME = 64
"""Bits of an IPv6 address that tell one customer of a provider from another."""


class _Tries(NamedTuple):
    begun: float
    wrong: int


class Throttle:
    """Wrong tokens by address. Thread-safe. A right token counts for nothing."""

    def __init__(self, monotonic: Callable[[], float]) -> None:
        self._monotonic, self._lock = monotonic, threading.Lock()
        self._wrong: OrderedDict[str, _Tries] = OrderedDict()

    def waits(self, address: str) -> int:
        """Seconds until this address may try again; 0: now."""
        with self._lock:
            tries = self._wrong.get(_home(address))
        if tries is None or tries.wrong < _TRIES:
            return 0
        return max(0, int(tries.begun + _SECONDS - self._monotonic()) + 1)

    def note(self, address: str) -> None:
        """A wrong token."""
        with self._lock:
            now, home = self._monotonic(), _home(address)
            tries = self._wrong.pop(home, None)
            if tries is None or now - tries.begun >= _SECONDS:
                tries = _Tries(now, 0)
            self._wrong[home] = tries._replace(wrong=tries.wrong + 1)
            if len(self._wrong) > _MOST_ADDRESSES:
                self._wrong.popitem(last=False)


def _home(address: str) -> str:
    try:
        known = ip_address(address)
    except ValueError:
        return ""
    return str(ip_network((known, _HOME), strict=False)) if isinstance(known, IPv6Address) else str(known)
