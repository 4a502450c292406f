"""Mixed rows: examples of several parts of different modalities, a scan with its report, an image with its audio.

The bytes of an example are a bundle (bundles.py) whose members are the parts, each called NAME.MODALITY, such as
`scan.dicom` or `report.text`; a part of several files is a folder of that name. An empty member `missing/NAME.MODALITY`
says that other examples of the dataset have that part and this one lacks it. The fingerprint and the sketch ignore it.

Decoded it is a dict from NAME.MODALITY to the medium of that part, None if it is missing. Each part is summarized by
its own modality; if one does not decode, the example is partial, and the error names the part."""

from __future__ import annotations

import hashlib
import math
import re
import zlib
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple, TypeVar

import numpy as np

from speciate.modalities import find, table
from speciate.modalities.bundles import bundle, is_bundle, members_of
from speciate.modalities.contract import (
    LARGEST_THUMBNAIL,
    DecodeError,
    FileSummary,
    Header,
    Modality,
    PairwiseSimilarity,
    Pixels,
    Quality,
    Sketching,
    Vector,
)
from speciate.modalities.hashing import mix
from speciate.modalities.part_sketches import PartSketch, PartSketches, digest_of, pack_sketches

MISSING = "missing"
MOST_PARTS = 32
_LARGEST = 4 << 30
"""Bytes that the parts of one example may decode to together."""
_NAME = re.compile(r"[\w -]{1,40}")
_WIDTH = 512
_GAP, _CAPTION = 4, 14
_MOST_TILES = 16

Parts = dict[str, Any]
"""NAME.MODALITY -> the decoded medium of that modality."""
T = TypeVar("T")


class PartName(NamedTuple):
    """Name of a part, as `scan.dicom` has it."""

    own: str
    modality: str

    def __str__(self) -> str:
        return f"{self.own}.{self.modality}"

    @property
    def shown(self) -> str:
        """For people: without the modality where that is its name."""
        return self.own if self.own == self.modality else str(self)


def part_name(text: str) -> PartName | None:
    """None if it names no part: an unknown modality, or characters that no column's name may have."""
    own, _, modality = text.rpartition(".")
    if modality == MULTIMODAL.name or modality not in table() or not _NAME.fullmatch(own):
        return None
    return PartName(own, modality)


def parse_part_names(shown: str) -> list[PartName]:
    """The parts in a cell of the columns `parts` or `missing`."""
    words = [word for word in shown.split(", ") if word]
    return [found for word in words if (found := part_name(word if "." in word else f"{word}.{word}"))]


def _codes(modality: str) -> Sketching | PairwiseSimilarity | None:
    kind = find(modality).sketching if modality in table() else None
    return kind if isinstance(kind, Sketching | PairwiseSimilarity) else None


class Multimodal(Modality[Parts]):
    name = "multimodal"
    suffixes = (".bundle",)
    thumbnail_side = LARGEST_THUMBNAIL
    sketching = PartSketches(_codes)

    def sniff(self, head: bytes, name: str) -> bool:
        """Whether it is a bundle of parts, by the name of the first member."""
        if not is_bundle(head) or len(head) < 30:
            return False
        length = int.from_bytes(head[26:28], "little")
        first = head[30 : 30 + length].decode(errors="replace")
        return first.startswith(f"{MISSING}/") or part_name(first.partition("/")[0]) is not None

    def inspect(self, data: bytes) -> Header:
        return _header(_parts_of(data))

    def decode(self, data: bytes) -> Parts:
        parts = _admit_parts(data)
        return {str(part): None if file is None else _read_part(part, _kind(part).decode, file) for part, file in parts}

    def admit(self, value: Any) -> Parts:
        """`value`: the bytes of a bundle; or a dict from NAME.MODALITY to the bytes of that part's file or a value that
        its modality admits. A part is missing if its value is None or it has no entry."""
        if isinstance(value, bytes):
            return self.decode(value)
        if not isinstance(value, dict) or not all(isinstance(name, str) for name in value):
            raise DecodeError("error", "A mixed row must be a bundle, or its parts by their names.")
        parts = {name: part_name(name) for name in value}
        if unknown := [name for name, part in parts.items() if part is None]:
            raise DecodeError("error", f"{unknown[0][:64]!r} names no part; a part is called NAME.MODALITY.")
        found = {name: _of_cell(part, value[name]) for name, part in sorted(parts.items()) if part is not None}
        return _some(found)

    def summarize(self, data: bytes) -> FileSummary:
        parts = _admit_parts(data)
        summaries = {part: _read_part(part, _kind(part).summarize, file) for part, file in parts if file is not None}
        measures = {
            f"{part.own}_{name}": value for part, each in summaries.items() for name, value in each.measures.items()
        }
        sketch = {str(part): PartSketch(digest_of(each.fingerprint), each.sketch) for part, each in summaries.items()}
        fingerprint = _combine_fingerprints({str(part): each.fingerprint for part, each in summaries.items()})
        cautions = [f"{part}: {each.caution}" for part, each in summaries.items() if each.caution is not None]
        return FileSummary(
            _header(parts), fingerprint, measures, pack_sketches(sketch), cautions[0] if cautions else None
        )

    def fingerprint(self, media: Parts) -> str:
        return _combine_fingerprints(
            {str(part): _kind(part).fingerprint(medium) for part, medium in present_parts(media)}
        )

    def measure(self, media: Parts) -> dict[str, int | float]:
        return {
            f"{part.own}_{name}": value
            for part, medium in present_parts(media)
            for name, value in _kind(part).measure(medium).items()
        }

    def describe(self, media: Parts) -> Vector:
        """The features. Learners see each part as its modality describes it (tasks/multimodal_representation.py)."""
        return self.features(media)

    def features(self, media: Parts) -> Vector:
        """(512,): the features of each part, of unit length, and a one for being there, side by side.

        Which numbers of which part come where, and with which sign, is told by a hash of the part's name (feature
        hashing, Weinberger et al. 2009): so it is the same for every example, whatever parts a dataset has.
        """
        found = np.zeros(_WIDTH, np.float64)
        for part, medium in present_parts(media):
            vector = _kind(part).features(medium).astype(np.float64)
            vector = np.append(vector / max(float(np.linalg.norm(vector)), 1e-12), 1.0)
            spread = mix(np.arange(1, len(vector) + 1, dtype=np.uint64) + (np.uint64(_seed(part)) << np.uint64(32)))
            signs = np.where(spread & np.uint64(1), 1.0, -1.0)
            found += np.bincount((spread >> np.uint64(55)).astype(np.intp), signs * vector, _WIDTH)
        return found.astype(np.float32)

    def thumbnail(self, media: Parts) -> Pixels:
        return _tiles(media)

    def sketch(self, media: Parts) -> bytes | None:
        found = {
            str(part): PartSketch(digest_of(_kind(part).fingerprint(medium)), _kind(part).sketch(medium))
            for part, medium in present_parts(media)
        }
        return pack_sketches(found)

    def window(self, media: Parts, start: float, stop: float) -> Parts:
        """Cuts the one part that has an axis; the others stay whole, and so does a row that lacks that part."""
        cut = _axis([part for part, _ in present_parts(media)])
        return media if cut is None else {**media, str(cut): _kind(cut).window(media[str(cut)], start, stop)}

    def decode_window(self, data: bytes, start: float, stop: float) -> Parts:
        parts = _admit_parts(data)
        cut = _axis([part for part, file in parts if file is not None])

        def read(part: PartName, file: bytes) -> Any:
            kind = _kind(part)
            decode = partial(kind.decode_window, start=start, stop=stop) if part == cut else kind.decode
            return _read_part(part, decode, file)

        return {str(part): None if file is None else read(part, file) for part, file in parts}

    def marks(self, data: bytes, unit: str) -> list[float]:
        """Where the units of the one part that has an axis begin, and where the last one ends."""
        parts = dict(_parts_of(data))
        cut = _axis([part for part, file in parts.items() if file is not None])
        if cut is None or unit not in _kind(cut).mark_units:
            return [0.0, 0.0]  # one empty unit: the row stays as it is
        return _read_part(cut, partial(_kind(cut).marks, unit=unit), parts[cut])


def present_parts(media: Mapping[str, Any]) -> list[tuple[PartName, Any]]:
    """The parts that are there, by name."""
    return [(PartName(*name.rsplit(".", 1)), media[name]) for name in sorted(media) if media[name] is not None]


def rename_parts(parts: Sequence[str], data: bytes, ignored: Sequence[str] = ()) -> bytes:
    """A bundle of files with names of their own as a bundle of these parts (NAME.MODALITY): each file becomes the part
    that has its name, else the one part whose modality recognises it. Files of `ignored` parts are left out.

    A bundle of parts stays as it is. Raises DecodeError if a file is no part, or no file is one of `parts`.
    """
    members = members_of(data)
    if any(part_name(name.partition("/")[0]) or name.startswith(f"{MISSING}/") for name in members):
        return data
    read = [part for name in parts if (part := part_name(name))]
    known = read + [part for name in ignored if (part := part_name(name))]
    found: dict[str, bytes] = {}
    for name, file in members.items():
        alike = [part for part in known if part.own == name.partition(".")[0]]
        alike = alike or [part for part in known if _kind(part).sniff(file[:4096], name)]
        if alike and not set(alike) & set(read):
            continue
        if len(alike) != 1:
            raise DecodeError("error", f"It is not clear which part {name[:80]!r} is; the model reads {_names(read)}.")
        found[str(alike[0])] = file
    if not found:
        raise DecodeError("error", f"None of its files is a part that the model reads: {_names(read)}.")
    return bundle(found)


def _of_cell(part: PartName, cell: Any) -> Any:
    """Bytes are a file's, whatever the modality."""
    if cell is None:
        return None
    return _read_part(part, _kind(part).decode if isinstance(cell, bytes) else _kind(part).admit, cell)


def _kind(part: PartName) -> Modality[Any]:
    return find(part.modality)


def _read_part(part: PartName, read: Callable[[bytes], T], file: Any) -> T:
    try:
        return read(file)
    except DecodeError as error:
        quality: Quality = "refused" if error.quality == "refused" else "partial"
        raise DecodeError(quality, f"The part {part.own!r}: {error.detail}") from error


def _parts_of(data: bytes) -> list[tuple[PartName, bytes | None]]:
    """The parts by name; None for a missing part. A part of several files is a bundle of its own."""
    found: dict[PartName, dict[str, bytes] | bytes | None] = {}
    for member, file in members_of(data).items():
        head, _, rest = member.partition("/")
        part = part_name(rest if head == MISSING else head)
        if part is None:
            raise DecodeError("error", f"Its member {member[:80]!r} names no part; a part is called NAME.MODALITY.")
        if head == MISSING:
            found.setdefault(part, None)
        elif not rest:
            found[part] = file
        else:
            several = found.setdefault(part, {})
            if not isinstance(several, dict):
                raise DecodeError("error", f"The part {part.own!r} is both a file and a folder.")
            several[rest] = file
    if len({part.own for part in found}) < len(found):
        raise DecodeError("error", "Two of its parts have the same name.")
    if len(found) > MOST_PARTS:
        raise DecodeError("refused", f"{len(found)} parts, more than {MOST_PARTS}.")
    parts = [(part, bundle(files) if isinstance(files, dict) else files) for part, files in sorted(found.items())]
    _some(dict(parts))
    return parts


def _some(parts: dict[Any, Any]) -> dict[Any, Any]:
    if all(medium is None for medium in parts.values()):
        raise DecodeError("error", "None of its parts is there.")
    return parts


def _admit_parts(data: bytes) -> list[tuple[PartName, bytes | None]]:
    """The parts, if the sizes that their headers declare are within the budget for all together."""
    parts = _parts_of(data)
    if (size := _header(parts).decoded_bytes) > _LARGEST:
        raise DecodeError("refused", f"Its parts decode to {size:,} bytes together, more than {_LARGEST:,}.")
    return parts


def _header(parts: list[tuple[PartName, bytes | None]]) -> Header:
    fields: dict[str, str | int | float] = {
        "parts": ", ".join(part.shown for part, file in parts if file is not None),
    }
    if lacking := ", ".join(part.shown for part, file in parts if file is None):
        fields["missing"] = lacking
    size = 0
    for part, file in parts:
        if file is not None:
            header = _read_part(part, _kind(part).inspect, file)
            size += header.decoded_bytes
            fields |= {f"{part.own}_{name}": value for name, value in header.fields.items()}
    return Header(size, fields)


def _combine_fingerprints(fingerprints: Mapping[str, str]) -> str:
    """Hashed one by one, as a text may contain any separator."""
    return "\n".join(
        f"{name} {hashlib.sha256(text.encode('utf-8', 'surrogatepass')).hexdigest()}"
        for name, text in sorted(fingerprints.items())
    )


def _axis(parts: list[PartName]) -> PartName | None:
    """The part that windows are cut from. `window` sees to it that no dataset has two (datasets/operations/window)."""
    return next((part for part in parts if _kind(part).window_unit is not None), None)


def _seed(part: PartName) -> int:
    return zlib.crc32(str(part).encode())


def _tiles(media: Parts) -> Pixels:
    """All parts side by side, each with its name; a hatched tile for one that is missing."""
    from PIL import Image, ImageDraw

    names = sorted(media)
    shown = names if len(names) <= _MOST_TILES else names[: _MOST_TILES - 1]
    count = len(shown) + (len(names) > len(shown))
    columns = math.ceil(math.sqrt(count))
    side = (LARGEST_THUMBNAIL - (columns + 1) * _GAP) // columns
    tiles = [_tile(PartName(*name.rsplit(".", 1)), media[name], side) for name in shown]
    heights = [max(tile.height for tile in tiles[start : start + columns]) for start in range(0, len(tiles), columns)]
    spare = LARGEST_THUMBNAIL - len(heights) * (_CAPTION + _GAP) - _GAP
    if sum(heights) > spare:  # a full grid of squares with captions is higher than it may be
        tiles = [_within(tile, side, spare // len(heights)) for tile in tiles]
        heights = [min(height, spare // len(heights)) for height in heights]
    high = sum(heights) + len(heights) * (_CAPTION + _GAP) + _GAP
    sheet = Image.new("RGB", (columns * (side + _GAP) + _GAP, high), "#f4f4f4")
    draw = ImageDraw.Draw(sheet)
    y = _GAP
    for row, height in enumerate(heights):
        for column, tile in enumerate(tiles[row * columns : (row + 1) * columns]):
            x = _GAP + column * (side + _GAP)
            sheet.paste(tile, (x + (side - tile.width) // 2, y + (height - tile.height) // 2))
            name = PartName(*shown[row * columns + column].rsplit(".", 1))
            draw.text((x, y + height + 1), _fitting(draw, name.shown, side), fill="black")
        y += height + _CAPTION + _GAP
    if count > len(shown):
        draw.text((sheet.width - side, sheet.height - _CAPTION), f"and {len(names) - len(shown)} more", fill="black")
    return np.asarray(sheet)


def _tile(part: PartName, medium: Any, side: int) -> Any:
    from PIL import Image

    if medium is None:
        return _hatched(side)
    return _within(Image.fromarray(np.ascontiguousarray(_kind(part).thumbnail(medium))), side, side)


def _within(tile: Any, width: int, height: int) -> Any:
    from PIL import Image

    scale = min(width / tile.width, height / tile.height)
    if scale == 1 or (scale > 1 and scale < 1.1):
        return tile
    size = max(1, int(tile.width * scale)), max(1, int(tile.height * scale))
    return tile.resize(size, Image.Resampling.NEAREST if scale > 1 else Image.Resampling.LANCZOS)


def _hatched(side: int) -> Any:
    from PIL import Image, ImageDraw

    tile = Image.new("RGB", (side, side), "white")
    draw = ImageDraw.Draw(tile)
    for start in range(-side, side, 10):
        draw.line((start, side, start + side, 0), fill="#c8c8c8")
    draw.rectangle((0, 0, side - 1, side - 1), outline="#a0a0a0")
    left, top, right, bottom = draw.textbbox((side // 2, side // 2), MISSING, anchor="mm")
    draw.rectangle((left - 4, top - 2, right + 4, bottom + 2), fill="white")
    draw.text((side // 2, side // 2), MISSING, fill="#606060", anchor="mm")
    return tile


def _fitting(draw: Any, text: str, width: int) -> str:
    plain = text.encode("latin-1", "replace").decode("latin-1")
    while plain and draw.textlength(plain) > width:
        plain = plain[:-1]
    return plain


def _names(parts: Sequence[PartName]) -> str:
    return ", ".join(part.own for part in parts)


MULTIMODAL = Multimodal()
