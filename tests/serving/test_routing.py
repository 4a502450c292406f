"""The same key is answered by the same version, and a larger share only adds keys."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from speciate.serving.routing import hash_percent, request_key, to_canary

KEYS = [f"user-{i}" for i in range(4000)]


@given(st.text(max_size=40), st.floats(0, 100), st.floats(0, 100))
def test_a_larger_share_only_adds_keys(key: str, one: float, other: float) -> None:
    less, more = sorted((one, other))
    assert to_canary("triage", "m@v2", key, more) or not to_canary("triage", "m@v2", key, less)


@pytest.mark.parametrize("percent", [0, 5, 50, 100])
def test_a_share_is_as_large_as_it_says(percent: float) -> None:
    there = sum(to_canary("triage", "m@v2", key, percent) for key in KEYS)
    assert abs(there / len(KEYS) - percent / 100) < 0.02


def test_another_canary_is_tried_on_others() -> None:
    first = {key for key in KEYS if to_canary("triage", "m@v2", key, 10)}
    second = {key for key in KEYS if to_canary("triage", "m@v3", key, 10)}
    assert len(first & second) < 0.3 * len(first)


def test_a_place_never_changes() -> None:
    """It is part of the interface: a deployment that is started again must route as before."""
    assert hash_percent("triage", "m@v2", "user-1") == pytest.approx(71.8486, abs=1e-4)


@pytest.mark.parametrize(
    ("headers", "body", "key"),
    [
        ({"x-request-key": "h"}, {"key": "k", "inputs": [{"id": "i"}]}, "h"),
        ({}, {"key": "k", "inputs": [{"id": "i"}]}, "k"),
        ({}, {"user": "u", "messages": []}, "u"),
        ({}, {"inputs": [{"id": "i", "text": "x"}]}, "i"),
        ({}, {"inputs": [{"id": "0", "text": "x"}]}, None),
        ({}, {"inputs": [{"id": "i"}, {"id": "j"}]}, None),
        ({}, {"inputs": [{"text": "x"}]}, None),
        ({}, {"key": 7}, None),
        ({}, ["no", "object"], None),
    ],
)
def test_what_a_request_is_known_by(headers: dict[str, str], body: Any, key: str | None) -> None:
    assert request_key(headers, body) == key
