"""Answers that are files: images (image_answers.py) and audio (audio_answers.py), and what is kept of them where the
bytes are a file of their own: `{mime, sha256, bytes}` beside their sizes."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any, TypeGuard

from speciate.modalities import audio_answers, image_answers
from speciate.modalities.audio_answers import AudioAnswer, is_audio_answer
from speciate.modalities.image_answers import ImageAnswer, is_image_answer

MediaAnswer = ImageAnswer | AudioAnswer
MODALITIES: Mapping[str, str] = {image_answers.MIME: "image", audio_answers.MIME: "audio"}
"""Kind of file -> the modality that decodes it."""
_SHA256 = re.compile("[0-9a-f]{64}")
_BEGINNINGS = tuple(f'{{"mime": "{mime}", "data": "' for mime in MODALITIES)


def is_media_answer(output: object) -> TypeGuard[MediaAnswer]:
    """Whether an output is an image or audio, by its form alone."""
    return is_image_answer(output) or is_audio_answer(output)


def stored_media(answer: MediaAnswer, sha256: str, size: int) -> dict[str, Any]:
    """What is kept or shown where the bytes lie elsewhere."""
    sizes = {name: each for name, each in answer.items() if name not in ("mime", "data")}
    return {"mime": answer["mime"], "sha256": sha256, "bytes": size, **sizes}


def is_stored_media(output: object) -> TypeGuard[dict[str, Any]]:
    """Whether an output names a file by its hash. An answer that only looks like it may name any path: a purge deletes
    these files, and pages show them."""
    if not isinstance(output, dict) or output.get("mime") not in tuple(MODALITIES):
        return False
    return isinstance(output.get("sha256"), str) and _SHA256.fullmatch(output["sha256"]) is not None


def shorten_cell(cell: str) -> str:
    """A stored answer or reference for display: an image or audio as its size, any other text as it is.

    >>> shorten_cell('{"mime": "image/png", "data": "iVBO", "width": 64, "height": 48}')
    'image of 64 x 48 pixels'
    >>> shorten_cell('{"mime": "audio/wav", "data": "UklG", "seconds": 1.5, "sample_rate": 16000}')
    'audio of 1.5 s'
    """
    if not cell.startswith(_BEGINNINGS):
        return cell
    try:
        found = json.loads(cell)
    except ValueError:
        return cell
    if is_image_answer(found):
        return f"image of {found['width']} x {found['height']} pixels"
    return f"audio of {found['seconds']:g} s" if is_audio_answer(found) else cell
