"""What a machine's time is taken to cost, so that models of one's own and models behind a price can be compared."""

from __future__ import annotations

USD_PER_CORE_HOUR = 0.05
"""About the list price of one virtual core with its memory at the large clouds."""


def usd_for(core_seconds: float) -> float:
    return core_seconds / 3600 * USD_PER_CORE_HOUR
