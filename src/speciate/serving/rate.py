"""A token bucket (RFC 2697's committed rate): so many requests per second on average, a second's worth at once."""

from __future__ import annotations


class Bucket:
    def __init__(self, per_second: float | None, now: float) -> None:
        self._rate = per_second
        self._most = max(1.0, per_second or 0.0)
        self._tokens, self._at = self._most, now

    def take(self, now: float) -> float:
        """0 where a request may pass; else seconds until one may."""
        if self._rate is None:
            return 0.0
        self._tokens = min(self._most, self._tokens + (now - self._at) * self._rate)
        self._at = now
        if self._tokens >= 1:
            self._tokens -= 1
            return 0.0
        return (1 - self._tokens) / self._rate
