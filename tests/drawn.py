"""How many examples Hypothesis draws where the default of its profile is too few to find something in a whole run."""

from __future__ import annotations

from hypothesis import settings

_BRIEF, _THOROUGH = 25, 100
"""Of the profiles in conftest.py."""


def drawn(thorough: int) -> int:
    """`thorough` of them in `make test-slow`, a day's share of them in every other run: each draws others."""
    return thorough if settings().max_examples >= _THOROUGH else min(thorough, _BRIEF)
