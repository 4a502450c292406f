"""The file within an answer that is an image or audio."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from typing import Any


def media_bytes(answer: Mapping[str, Any]) -> bytes:
    """The bytes of an image or audio answer. Raises ValueError."""
    try:
        return base64.b64decode(answer["data"], validate=True)
    except (KeyError, TypeError, binascii.Error) as error:
        raise ValueError("the answer holds no file") from error
