"""Whether a DICOM file is complete: its elements, walked from the first to the last.

pydicom takes a file that ends within an element for a shorter one, or for one without pixels. Here every length is
compared with the bytes, and no value is read. Source: DICOM PS3.5, sections 7.1 to 7.5, and PS3.10, section 7.
"""

from __future__ import annotations

import hashlib
import struct
import zlib
from collections.abc import Collection
from typing import NamedTuple

from speciate.modalities.contract import DecodeError

PREAMBLE = 128
MAGIC = b"DICM"
PIXELS = frozenset(((0x7FE0, 0x0010), (0x7FE0, 0x0008), (0x7FE0, 0x0009)))
"""Tags whose values are the pixels: integers, floats and doubles."""
DEFLATED = "1.2.840.10008.1.2.1.99"
_BIG_ENDIAN = "1.2.840.10008.1.2.2"
_SYNTAX = (0x0002, 0x0010)
_SYNTAX_TAG = 0x00020010
_IMPLICIT = "1.2.840.10008.1.2"
_OTHERWISE = (DEFLATED, _IMPLICIT, _BIG_ENDIAN)
_SHORT_ELEMENT = struct.Struct("<HH2sH")
_ITEM, _ITEM_END, _SEQUENCE_END = (0xFFFE, 0xE000), (0xFFFE, 0xE00D), (0xFFFE, 0xE0DD)
_UNDEFINED = 0xFFFFFFFF
_LONG = frozenset((b"OB", b"OD", b"OF", b"OL", b"OV", b"OW", b"SQ", b"SV", b"UC", b"UN", b"UR", b"UT", b"UV"))
_SHORT = frozenset(
    (b"AE", b"AS", b"AT", b"CS", b"DA", b"DS", b"DT", b"FL", b"FD", b"IS", b"LO", b"LT", b"PN", b"SH", b"SL", b"SS",
     b"ST", b"TM", b"UI", b"UL", b"US")
)  # fmt: skip
_DEEPEST = 64
MOST_INFLATED = 1 << 29
"""Bytes that a deflated file may hold once inflated."""
_FIRST = ((0x0008, 0x0000), (0x0008, 0x0001), (0x0008, 0x0005), (0x0008, 0x0008), (0x0008, 0x0016))
"""One of these begins a dataset that an old program wrote without a preamble."""


class ElementSummary(NamedTuple):
    syntax: str | None
    """The transfer syntax that the file names."""
    pixels: str | None
    """sha256 of the elements that hold pixels, as they are encoded: files with the same digest show the same. None
    without pixels."""


def looks_like_dicom(head: bytes) -> bool:
    """Whether the first bytes are those of a DICOM file, with its preamble or without one."""
    if head[PREAMBLE : PREAMBLE + 4] == MAGIC:
        return True
    if len(head) < 16:
        return False
    group, element = struct.unpack("<HH", head[:4])
    if (group, element) == (0x0002, 0x0000):  # file meta information without the preamble before it
        return head[4:8] == b"UL\x04\x00"
    if (group, element) not in _FIRST:
        return False
    if head[4:6] in _SHORT:  # a dataset begins with short text, or the length of its group
        return head[4:8] == b"UL\x04\x00" if element == 0 else struct.unpack("<H", head[6:8])[0] <= 512
    length = struct.unpack("<I", head[4:8])[0]
    text = head[8 : 8 + min(length, 8)]
    return length == 4 if element == 0 else 0 < length <= 512 and text.rstrip(b"\0 ").isascii() and text[:1].isalnum()


def walk_elements(data: bytes) -> ElementSummary:
    """Raises DecodeError(partial) if the bytes end before their elements do, (error) if they are no elements."""
    if not looks_like_dicom(data[:4096]):
        raise DecodeError("error", "Not a DICOM file." if data else "The file is empty.")
    start = PREAMBLE + 4 if data[PREAMBLE : PREAMBLE + 4] == MAGIC else 0
    meta = _Walk(data, start, explicit=True, order="<")
    syntax: str | None = None
    while meta.group() == 0x0002:
        tag, value = meta.element()
        if tag == _SYNTAX:
            syntax = value.rstrip(b"\0 ").decode("ascii", "replace")
    body = _body(data, meta.at, syntax)
    digest, there = hashlib.sha256(), False
    while not body.ended:
        at = body.at
        tag, _ = body.element()
        if tag in PIXELS:
            digest.update(memoryview(body.data)[at : body.at])
            there = True
    return ElementSummary(syntax, digest.hexdigest() if there else None)


def pick_elements(head: bytes, wanted: Collection[int]) -> tuple[dict[int, bytes], bool] | None:
    """Values of the `wanted` elements (group << 16 | element) before the pixels, from the first bytes of a file, and
    whether pixels follow: a tenth of the cost of parsing the whole header.

    None if that needs more than the explicit, little-endian elements that nearly all files have, or more bytes.
    """
    if head[PREAMBLE : PREAMBLE + 4] != MAGIC:
        return None
    found: dict[int, bytes] = {}
    at, end = PREAMBLE + 4, len(head)
    while at + 12 <= end:
        group, element, kind, length = _SHORT_ELEMENT.unpack_from(head, at)
        tag = group << 16 | element
        if group == 0x7FE0:
            return found, (group, element) in PIXELS
        if kind in _LONG:
            value = at + 12
            length = int.from_bytes(head[at + 8 : value], "little")
            if length == _UNDEFINED:
                walk = _Walk(head, at, explicit=True, order="<")
                try:
                    walk.element()
                except DecodeError:
                    return None
                at = walk.at
                continue
        elif kind in _SHORT:
            value = at + 8
        else:
            return None
        if tag == _SYNTAX_TAG and head[value : value + length].rstrip(b"\0 ").decode("ascii", "replace") in _OTHERWISE:
            return None
        at = value + length
        if tag in wanted:
            if at > end:
                return None
            found[tag] = head[value:at]
    return None


def inflate(data: bytes) -> bytes:
    """The contents of a deflated dataset. Raises DecodeError if they are beyond the budget, or cut off."""
    machine = zlib.decompressobj(-zlib.MAX_WBITS)
    try:
        found = machine.decompress(data, MOST_INFLATED)
    except zlib.error as error:
        raise DecodeError("error", f"A damaged deflated dataset: {error}.") from error
    if machine.unconsumed_tail:
        raise DecodeError("refused", f"Inflated, it has more than {MOST_INFLATED:,} bytes.")
    if not machine.eof:
        raise DecodeError("partial", "The file ends within its deflated dataset.")
    return found


def _body(data: bytes, at: int, syntax: str | None) -> _Walk:
    """Whether elements name their kind is seen from the first one: some files say otherwise of themselves."""
    if syntax == DEFLATED:
        data, at = inflate(data[at:]), 0
    explicit = data[at + 4 : at + 6] in _SHORT | _LONG
    big = syntax == _BIG_ENDIAN
    if syntax is None and explicit:
        big = struct.unpack("<H", data[at : at + 2])[0] >= 0x0400  # as pydicom tells it
    return _Walk(data, at, explicit=explicit, order=">" if big else "<")


class _Walk:
    """A place in the bytes of a dataset."""

    def __init__(self, data: bytes, at: int, *, explicit: bool, order: str) -> None:
        self.data, self.at = data, at
        self._explicit, self._order = explicit, order

    @property
    def ended(self) -> bool:
        return self.at >= len(self.data)

    def group(self) -> int | None:
        found = self.data[self.at : self.at + 2]
        return int(struct.unpack("<H", found)[0]) if len(found) == 2 else None

    def element(self, depth: int = 0) -> tuple[tuple[int, int], bytes]:
        """Walks past one; its tag, and its value if that is short."""
        tag = self._tag()
        length, implicit = self._length(tag)
        if length == _UNDEFINED:
            self._items(tag, depth, implicit)
            return tag, b""
        value = self.data[self.at : self.at + min(length, 64)]
        self._skip(length, tag)
        return tag, value

    def _tag(self) -> tuple[int, int]:
        group, element = struct.unpack(f"{self._order}HH", self._take(4))
        return group, element

    def _length(self, tag: tuple[int, int]) -> tuple[int, bool]:
        """Bytes of an element, and whether the following elements are implicit although the file is explicit, as in
        items of an unknown type."""
        if not self._explicit or tag[0] == 0xFFFE:
            return int(struct.unpack(f"{self._order}I", self._take(4))[0]), False
        kind = self._take(2)
        if kind in _LONG:
            self._take(2)
            return int(struct.unpack(f"{self._order}I", self._take(4))[0]), kind == b"UN"
        if kind not in _SHORT:
            raise DecodeError("error", f"The element {_tag_text(tag)} is of no kind that DICOM knows.")
        return int(struct.unpack(f"{self._order}H", self._take(2))[0]), False

    def _items(self, tag: tuple[int, int], depth: int, implicit: bool) -> None:
        """Up to the end of a sequence, or of the fragments of compressed pixels."""
        if depth > _DEEPEST:
            raise DecodeError("error", "Sequences within sequences without an end.")
        before, self._explicit = self._explicit, self._explicit and not implicit
        while (item := self._tag()) != _SEQUENCE_END:
            if item != _ITEM:
                raise DecodeError("error", f"No item where the sequence {_tag_text(tag)} must have one.")
            length, _ = self._length(item)
            if length != _UNDEFINED:
                self._skip(length, tag)
                continue
            while self.element(depth + 1)[0] != _ITEM_END:
                pass
        self._take(4)
        self._explicit = before

    def _take(self, count: int) -> bytes:
        found = self.data[self.at : self.at + count]
        if len(found) < count:
            raise DecodeError("partial", "The file ends within its dataset.")
        self.at += count
        return found

    def _skip(self, length: int, tag: tuple[int, int]) -> None:
        left = len(self.data) - self.at
        if length > left:
            what = "its pixels" if tag in PIXELS else f"the element {_tag_text(tag)}"
            raise DecodeError("partial", f"The file ends within {what}: {left:,} of {length:,} bytes are there.")
        self.at += length


def _tag_text(tag: tuple[int, int]) -> str:
    return f"({tag[0]:04X},{tag[1]:04X})"
