"""Which labelled answers of a log were drawn at random: whatever feedback claims of itself, these may judge."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from speciate.predictions import quality, reading
from speciate.predictions.feedback import BySource
from speciate.predictions.log_files import LogFolder


def drawn_at_random(
    log: LogFolder, since: float, given: Mapping[str, BySource], requested: Collection[str]
) -> set[str]:  # fmt: skip
    """Those that the random order itself shows to be a fair draw, and those about which an episode of the watch asked
    so (`requested`). `given`: of `latest_by_source`. Reads when each answer of the log was given."""
    if not given:
        return set()
    rows = reading.answers(log, since=since, columns=["id", "at", "error"])
    columns = (rows[name].to_pylist() for name in ("id", "at", "error"))
    shown = {name: float(at) for name, at, error in zip(*columns, strict=True) if not error}
    return quality.drawn_in_order(shown, given) | {name for name in requested if name in given}
