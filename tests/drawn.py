"""How many examples Hypothesis draws where the default of its profile is too few to find something in a whole run, or
each of them is dear."""

from __future__ import annotations

from hypothesis import settings

_BRIEF, _THOROUGH = 25, 100
"""Of the profiles in conftest.py."""


def drawn(thorough: int, brief: int = _BRIEF) -> int:
    """`thorough` of them in `make test-slow`, at most `brief` in every other run: each draws others."""
    return thorough if settings().max_examples >= _THOROUGH else min(thorough, brief)
