"""Plain text: UTF-8 files of one text each, or a column of a table. A text may be a conversation."""

from __future__ import annotations

import re
import unicodedata
from typing import Any

from speciate.modalities.contract import DecodeError, Header, Modality, Pixels, Vector
from speciate.modalities.drawing import text_card
from speciate.modalities.hashing import TEXT_SKETCHES, hash_vector
from speciate.modalities.messages import conversation, readable_text

_LONGEST = 8 * 1024 * 1024  # bytes of one text
_CONTROL = re.compile(r"[\x00-\x08\x0e-\x1f]")


class Text(Modality[str]):
    name = "text"
    suffixes = (".txt", ".md")
    analyzer = "word"
    ngrams = (1, 2)
    sketching = TEXT_SKETCHES

    def sniff(self, head: bytes, name: str) -> bool:
        if not name.lower().endswith(self.suffixes):
            return False
        try:
            head[:-4].decode()  # the last character may be cut
        except UnicodeDecodeError:
            return False
        return True

    def inspect(self, data: bytes) -> Header:
        return Header(len(data), {"bytes": len(data)})

    def decode(self, data: bytes) -> str:
        if len(data) > _LONGEST:
            raise DecodeError("refused", f"The text has {len(data):,} bytes, more than {_LONGEST:,}.")
        try:
            return self.admit(data.decode("utf-8-sig"))
        except UnicodeDecodeError as error:
            if error.end == len(data) and error.reason == "unexpected end of data":
                raise DecodeError("partial", "The text ends in the middle of a character.") from error
            raise DecodeError("error", f"Not UTF-8: {error.reason} at byte {error.start}.") from error

    def admit(self, value: Any) -> str:
        if value is not None and not isinstance(value, str):
            raise DecodeError("error", "This is no text.")
        if value is None or not value.strip():
            raise DecodeError("error", "The text is empty.")
        if len(value) > _LONGEST:
            raise DecodeError("refused", f"The text has {len(value):,} characters, more than {_LONGEST:,}.")
        if _CONTROL.search(value):
            raise DecodeError("error", "Control characters: this is not text.")
        try:
            conversation(value)
        except ValueError as error:
            raise DecodeError("error", f"Meant to be a conversation, and is none: {error}.") from error
        return value

    def fingerprint(self, media: str) -> str:
        """Letters and digits only, in lower case: neither case, punctuation nor spacing makes another text."""
        folded = unicodedata.normalize("NFKC", media).casefold()
        return " ".join(re.findall(r"\w+", folded)) or folded

    def measure(self, media: str) -> dict[str, int | float]:
        return {"characters": len(media), "words": len(media.split())}

    def describe(self, media: str) -> str:
        return readable_text(media)

    def features(self, media: str) -> Vector:
        """Runs of 3 to 5 characters, over the edges of words: they bear endings, compounds and misspellings."""
        return hash_vector(f" {self.fingerprint(media)} ", 3, 5)

    def thumbnail(self, media: str) -> Pixels:
        return text_card(readable_text(media))

    def sketch(self, media: str) -> bytes | None:
        return TEXT_SKETCHES.sketch(self.fingerprint(media))


TEXT = Text()
