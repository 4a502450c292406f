"""Where in an answer the result stands: all of it, its last line, after a marker, or in tags. Pure."""

from __future__ import annotations

import re
import unicodedata
from typing import Literal

Where = Literal["whole", "last_line", "after", "tags", "boxed"]
_TAGS = re.compile(r"<answer>(.*?)</answer>", re.DOTALL | re.IGNORECASE)
_MARGINS = " \t\r\n.。!\"'`*"
"""What may stand around a result and is no part of it."""


def result(answer: str, where: Where, marker: str = "####") -> str | None:
    """None where the answer has no such place. Of several tags or markers the last one counts."""
    match where:
        case "whole":
            return answer.strip()
        case "last_line":
            lines = [line for line in answer.splitlines() if line.strip()]
            return lines[-1].strip() if lines else None
        case "after":
            _, found, after = answer.rpartition(marker)
            return after.strip().partition("\n")[0].strip() if found else None
        case "tags":
            inside = _TAGS.findall(answer)
            return str(inside[-1]).strip() if inside else None
        case "boxed":
            return _boxed(answer)


def _boxed(answer: str) -> str | None:
    r"""What the last `\boxed{...}` holds, braces within it among it."""
    start = answer.rfind("\\boxed{")
    if start < 0:
        return None
    depth, begin = 0, start + len("\\boxed{")
    for place in range(begin - 1, len(answer)):
        depth += {"{": 1, "}": -1}.get(answer[place], 0)
        if depth == 0:
            return answer[begin:place].strip()
    return None


def normalised(text: str) -> str:
    """Of one form in Unicode, folded case, single spaces, without what stands around a result."""
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split()).strip(_MARGINS)
