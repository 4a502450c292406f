"""NaN and the infinities, which Python reads from JSON and TOML and compares with anything."""

from __future__ import annotations

from typing import Any

NOT_FINITE = "The model's answer is not a finite number."
"""What is said in the place of such an answer."""


def is_finite(value: Any) -> bool:
    """Whether every number in a JSON value is one."""
    if isinstance(value, float):
        return value - value == 0  # NaN and the infinities give NaN
    if isinstance(value, dict):
        return all(map(is_finite, value.values()))
    return all(map(is_finite, value)) if isinstance(value, list | tuple) else True
