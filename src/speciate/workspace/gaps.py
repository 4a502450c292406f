"""Times of which a catalog knows nothing: what came after the backup from which it was made, or was cut from its log.

A file that was written in one of them may be named by what was lost, so garbage collection leaves it alone for good.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any

GRACE_SECONDS = 24 * 3600.0
"""So old is a file at least that nothing names before it may go: a run seals files long before a version names them."""
_KEY = "gaps"
_GET = "SELECT value FROM meta WHERE key = ?"
_PUT = "INSERT OR REPLACE INTO meta VALUES (?, ?)"
_KNOWN_UNTIL = f"""
SELECT least(
    (SELECT max(stamp) FROM events) - {GRACE_SECONDS},
    (SELECT min(created) FROM jobs WHERE state <> 'succeeded')
)
"""
"""Whatever was written before it and is not named was garbage then already: by the rule of production/tidy.py."""

Execute = Callable[[str, Sequence[object]], Sequence[tuple[Any, ...]]]


def note(execute: Execute, until: float) -> None:
    """Add the gap from what this catalog knows until now (seconds since the epoch)."""
    known = execute(_KNOWN_UNTIL, [])[0][0]
    since = 0.0 if known is None else min(float(known), until)
    execute(_PUT, [_KEY, json.dumps([*noted(execute), (since, until)])])


def noted(execute: Execute) -> list[tuple[float, float]]:
    """Oldest first, both ends included."""
    rows = execute(_GET, [_KEY])
    return [(float(since), float(until)) for since, until in json.loads(rows[0][0])] if rows else []
