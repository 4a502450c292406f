"""Redact values before they are written: e-mail addresses, numbers, keys, and columns that the settings name. Pure.

A match is replaced by a word in brackets. Patterns of keys follow those of gitleaks
(https://github.com/gitleaks/gitleaks, config/gitleaks.toml) for the services that are asked most, and Luhn's sum tells
numbers of cards from others. A pattern knows no names and no addresses of streets: columns that hold such are to be
named in the settings.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from typing import Any, NamedTuple

COLUMN, PATTERN = "[redacted]", "[redacted]"

_EMAIL = re.compile(r"(?<![\w.+-])[\w.+%-]{1,64}@(?:[\w-]{1,63}\.){1,8}[A-Za-z]{2,24}(?![\w-])")
_CARD = re.compile(r"(?<![\w.-])\d(?:[ -]?\d){12,18}(?![\w-])")
_PHONE = re.compile(
    r"(?<![\w.+-])(?:"
    r"(?:\+[1-9]\d{0,2}|00[1-9]\d{0,2}[ ./-])(?:[ ./-]?\(?\d{1,5}\)?){2,6}"  # +49 30 1234567, 0033-1-23456789
    r"|\(\d{2,5}\)[ ./-]?\d{2,5}(?:[ ./-]?\d{2,5}){1,3}"  # (030) 123456
    r"|0\d{1,4}[ /-]\d{2,5}(?:[ -]?\d{2,5}){1,3}"  # 030 123456, 0171/1234567
    r"|\d{3}[ .-]\d{3}[ .-]\d{4}"  # 415-555-2671
    r")(?![\w-])"
)
_KEY = re.compile(
    r"-----BEGIN [A-Z ]{0,40}PRIVATE KEY-----\s*(?:[A-Za-z-]{1,40}: [^\n]*\n)*"
    r"[A-Za-z0-9+/=\s\\]*(?:-----END [A-Z ]{0,40}PRIVATE KEY-----)?"
    r"|(?<![A-Za-z0-9_])(?:"
    r"(?:AKIA|ASIA|ABIA|ACCA)[A-Z2-7]{16}"
    r"|gh[pousr]_[A-Za-z0-9]{36,255}|github_pat_\w{22,255}|glpat-[\w-]{20,255}"
    r"|sk-[A-Za-z0-9_-]{20,255}|hf_[A-Za-z0-9]{30,64}|AIza[\w-]{35}|xox[abeoprs]-[A-Za-z0-9-]{10,255}"
    r"|(?:sk|rk|pk)_(?:live|test)_[A-Za-z0-9]{10,255}|npm_[A-Za-z0-9]{36}|pypi-[\w-]{50,255}"
    r"|eyJ[\w-]{10,4096}\.eyJ[\w-]{10,4096}(?:\.[\w-]{0,4096})?"
    r")(?![A-Za-z0-9_])"
    r"|(?i:(?<![A-Za-z0-9])(?:password|passwd|secret|api[_-]?key|access[_-]?token|auth[_-]?token|bearer)"
    r"(?:\"|')?\s{0,4}(?:[:=]|\s)\s{0,4}(?:\"|')?)(?=[^\s\"']{0,64}[0-9])[^\s\"',;]{8,512}"
)
_SIGNS = (
    "private key", "akia", "asia", "abia", "acca", "ghp_", "gho_", "ghu_", "ghs_", "ghr_", "github_pat_", "glpat-",
    "sk-", "hf_", "aiza", "xox", "_live_", "_test_",
    "npm_", "pypi-", "eyj", "passw", "secret", "key", "token", "bearer",
)  # fmt: skip
"""In small letters: every key's pattern finds one of these. To look for them first is twenty times as quick."""
_DIGIT = re.compile(r"\d")
_CARD_NUMBER = re.compile(r"(?:[3-6]|2[2-7])\d{12,17}")
"""A number of a card that is written as one: with the first digits that cards have, so that timestamps do not match."""
_FEWEST, _MOST = 7, 15
"""Digits of a telephone number (ITU-T E.164 has 15 at most)."""


class Redacted(NamedTuple):
    value: Any
    places: int
    """How many were taken out."""


class Redaction:
    """`kinds`: of email, phone, key, card. `columns`: names whose values go whole, in any case of letters."""

    def __init__(
        self, kinds: Collection[str] = (), columns: Collection[str] = (), patterns: Sequence[str] = ()
    ) -> None:
        self._kinds = frozenset(kinds)
        self._columns = frozenset(name.casefold() for name in columns)
        self._patterns = [re.compile(pattern) for pattern in patterns]

    def __call__(self, value: Any) -> Redacted:
        """A redacted JSON value. Names of fields are texts, too."""
        counted = [0]
        return Redacted(self._value(value, counted), counted[0])

    def hides(self, column: str) -> bool:
        return column.casefold() in self._columns

    def _value(self, value: Any, counted: list[int]) -> Any:
        if isinstance(value, str):
            return self._text(value, counted)
        if isinstance(value, Mapping):
            cells = [(str(name), cell) for name, cell in value.items()]
            return {self._text(name, counted): self._cell(name, cell, counted) for name, cell in cells}
        if isinstance(value, list | tuple):
            return [self._value(each, counted) for each in value]
        if isinstance(value, int | float) and "card" in self._kinds and _is_card_number(value):
            counted[0] += 1
            return "[card]"
        return value

    def _cell(self, name: str, cell: Any, counted: list[int]) -> Any:
        if cell is not None and self._columns and self.hides(name):
            counted[0] += 1
            return COLUMN
        return self._value(cell, counted)

    def _text(self, text: str, counted: list[int]) -> str:
        if "key" in self._kinds and _may_hold_key(text):
            text = _sub(_KEY, "[key]", text, counted)
        if "email" in self._kinds and "@" in text:
            text = _sub(_EMAIL, "[email]", text, counted)
        if _DIGIT.search(text):
            if "card" in self._kinds:
                text = _sub(_CARD, "[card]", text, counted, _is_card)
            if "phone" in self._kinds:
                text = _sub(_PHONE, "[phone]", text, counted, _is_phone)
        for pattern in self._patterns:
            text = _sub(pattern, PATTERN, text, counted)
        return text


def _sub(pattern: re.Pattern[str], word: str, text: str, counted: list[int], holds: Any = None) -> str:
    def replaced(found: re.Match[str]) -> str:
        if not found.group() or (holds and not holds(found.group())):
            return found.group()
        counted[0] += 1
        return word

    return pattern.sub(replaced, text)


def _may_hold_key(text: str) -> bool:
    small = text.lower()
    return any(sign in small for sign in _SIGNS)


def _digits(text: str) -> list[int]:
    return [int(sign) for sign in text if sign.isdecimal()]


def _is_phone(text: str) -> bool:
    return _FEWEST <= len(_digits(text)) <= _MOST


def _is_card_number(value: float) -> bool:
    if not 1e12 < value < 1e20 or value != int(value):
        return False
    digits = str(int(value))
    return bool(_CARD_NUMBER.fullmatch(digits)) and _is_card(digits)


def _is_card(text: str) -> bool:
    """Luhn's sum (ISO/IEC 7812-1, annex B): of the digits from the right every second one is doubled."""
    digits = _digits(text)[::-1]
    doubled = (sum(divmod(2 * digit, 10)) if place % 2 else digit for place, digit in enumerate(digits))
    return sum(doubled) % 10 == 0 and len(set(digits)) > 1
