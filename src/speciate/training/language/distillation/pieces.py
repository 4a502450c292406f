"""What each token of a tokenizer writes, as bytes: what tokens of two vocabularies have in common.

A vocabulary names its tokens in an alphabet of its own: bytes as letters (GPT-2 and what came after it), or `▁` for a
space and `<0x0A>` for a byte (SentencePiece).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Any

Spelling = dict[int, bytes]
"""Of tokens that write text; ends, paddings and other marks are left out."""
_BYTE = re.compile(r"<0x([0-9A-F]{2})>")
_SPACE = "▁"


def spelled(tokenizer: Any) -> Spelling:
    """By id. `tokenizer`: a fast one."""
    from transformers.convert_slow_tokenizer import bytes_to_unicode

    alphabet: Any = bytes_to_unicode
    backend, added = tokenizer.backend_tokenizer, tokenizer.added_tokens_decoder
    marks = {*tokenizer.all_special_ids, *(number for number, token in added.items() if token.special)}
    how = f"{backend.normalizer!r} {backend.pre_tokenizer!r} {backend.decoder!r}"
    letters = {letter: byte for byte, letter in alphabet().items()} if "ByteLevel" in how else None
    spaces, fallback = _SPACE in how, "ByteFallback" in how

    def written(piece: str) -> bytes:
        if letters is not None:
            known = [letters.get(letter) for letter in piece]
            return piece.encode() if None in known else bytes(byte for byte in known if byte is not None)
        if fallback and (byte := _BYTE.fullmatch(piece)):
            return bytes([int(byte[1], 16)])
        return (piece.replace(_SPACE, " ") if spaces else piece).encode()

    return {
        number: added[number].content.encode() if number in added else written(piece)
        for piece, number in tokenizer.get_vocab().items()
        if number not in marks
    }


def ends(model: Any, tokenizer: Any) -> frozenset[int]:
    """Tokens that end an answer: the tokenizer's, and those that the model's configuration for writing names."""
    named = getattr(getattr(model, "generation_config", None), "eos_token_id", None)
    listed: Iterable[int] = named if isinstance(named, list | tuple) else () if named is None else (named,)
    return frozenset({int(tokenizer.eos_token_id), *listed})


def begun(tokenizer: Any, spelling: Spelling, words: Sequence[bytes]) -> dict[bytes, bytes]:
    """What the first token writes, of each word that is whole characters and begins with that token's bytes."""
    texts = []
    for word in words:
        try:
            texts.append((word, word.decode()))
        except UnicodeDecodeError:
            continue
    if not texts:
        return {}
    found = tokenizer([text for _, text in texts], add_special_tokens=False)["input_ids"]
    firsts = ((word, spelling.get(ids[0], b"") if ids else b"") for (word, _), ids in zip(texts, found, strict=True))
    return {word: first for word, first in firsts if first and word.startswith(first)}
