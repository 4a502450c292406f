"""What a machine's time costs, so that models of one's own and models behind a price can be compared."""

from __future__ import annotations

from speciate.environment import cores
from speciate.settings import Settings

USD_PER_CORE_HOUR = 0.05
"""Where settings say nothing: about the list price of one virtual core with its memory at the large clouds."""


def usd_per_core_hour(settings: Settings) -> float:
    """From `usd_per_hour` of the whole machine, where a person set that."""
    return USD_PER_CORE_HOUR if settings.usd_per_hour is None else settings.usd_per_hour / cores()


def usd_for(core_seconds: float, per_core_hour: float = USD_PER_CORE_HOUR) -> float:
    return core_seconds / 3600 * per_core_hour
