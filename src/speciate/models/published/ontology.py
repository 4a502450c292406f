"""Which published labels are kinds of a wanted one, by WordNet (Princeton, any of its releases from 2.0 on).

Its files are read in place: `index.noun` is sorted, so a word is found by bisection, and a synset's number is where its
line begins in `data.noun`. Nothing is held in memory but what was looked up. WordNet is no part of this package; it is
found where WordNet's own tools look (WNSEARCHDIR, WNHOME), where Debian's wordnet-base puts it, or where NLTK keeps it.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import BinaryIO, NamedTuple

_INDEX, _DATA = "index.noun", "data.noun"
_USUAL = (
    "/usr/share/wordnet", "/usr/local/share/wordnet", "~/nltk_data/corpora/wordnet",
    "/usr/share/nltk_data/corpora/wordnet", "/usr/local/share/nltk_data/corpora/wordnet",
)  # fmt: skip
_KIND_OF = ("@", "@i")
"""Pointers to what a synset is a kind, or an instance, of."""
_LONGEST_LINE = 100_000  # bytes


class _Synset(NamedTuple):
    words: tuple[str, ...]
    above: tuple[int, ...]


class Ontology:
    """WordNet's nouns in a folder. Raises OSError where its files cannot be read."""

    def __init__(self, folder: Path) -> None:
        self._index, self._data = folder / _INDEX, folder / _DATA
        self._size = self._index.stat().st_size
        self._known: dict[int, _Synset] = {}

    def kinds(self, label: str, wanted: Sequence[str], *, by_synset: bool = False) -> list[str]:
        """Those of the wanted labels that each meaning of a published label is a kind of.

        `label`: words of one meaning, with commas between them. Of a word of several meanings only what holds for all
        of them counts: a `crane` is neither bird nor machine. `by_synset`: labels are the whole lists of a synset's
        words, as ImageNet's are, so that `tabby` alone is the synset that has no other word."""
        meanings = self._meanings(label, by_synset or "," in label)
        if not meanings:
            return []
        above = [self._words_above(number) for number in meanings]
        return [each for each in wanted if all(_plain(each) in words for words in above)]

    def _meanings(self, label: str, exact: bool) -> list[int]:
        """Synsets that have all of these words; `exact`: those that have no other, if there are any."""
        words = [word for word in map(_plain, label.split(",")) if word]
        found = [set(self._synsets_of(word)) for word in words]
        if not found:
            return []
        common = set.intersection(*found)
        whole = [each for each in common if exact and set(self._synset(each).words) == set(words)]
        return sorted(whole or common)

    def _synsets_of(self, word: str) -> Iterator[int]:
        line = self._line(word.replace(" ", "_"))
        if line is not None:  # word, part of speech, count, pointers with their count, senses, tagged senses, synsets
            parts = line.split()
            yield from map(int, parts[-int(parts[2]) :])

    def _line(self, word: str) -> str | None:
        with self._index.open("rb") as index:
            return _find_line(index, word.encode(), self._size)

    def _synset(self, number: int) -> _Synset:
        if number not in self._known:
            with self._data.open("rb") as data:
                self._known[number] = _read_synset(data, number)
        return self._known[number]

    def _words_above(self, number: int) -> set[str]:
        """Words of the synset and of all above it."""
        seen, left = set[int](), [number]
        while left:
            if (one := left.pop()) not in seen:
                seen.add(one)
                left += self._synset(one).above
        return {word for one in seen for word in self._synset(one).words}


def _find_line(index: BinaryIO, wanted: bytes, size: int) -> str | None:
    """The line of a word, by bisection of the sorted file."""
    low, high = 0, size
    while low < high:  # of the lines that begin in [low, high)
        middle = (low + high) // 2
        index.seek(max(middle - 1, 0))
        if middle:
            index.readline(_LONGEST_LINE)  # to the next line's beginning
        begin = index.tell()
        line = index.readline(_LONGEST_LINE)
        if begin >= high or not line:
            high = middle
            continue
        key = line.split(b" ", 1)[0] if not line.startswith(b" ") else b""  # its licence stands first
        if key == wanted:
            return line.decode("latin-1")
        if key < wanted:
            low = begin + len(line)
        else:
            high = middle
    return None


def _read_synset(data: BinaryIO, number: int) -> _Synset:
    """`02123045 05 n 02 tabby 0 tabby_cat 0 003 @ 02121808 n 0000 ...`"""
    data.seek(number)
    parts = data.readline(_LONGEST_LINE).decode("latin-1").partition(" | ")[0].split()
    count = int(parts[3], 16)
    words = tuple(_plain(word.replace("_", " ")) for word in parts[4 : 4 + 2 * count : 2])
    rest = parts[5 + 2 * count :]
    above = tuple(
        int(rest[place + 1]) for place in range(0, 4 * int(parts[4 + 2 * count]), 4) if rest[place] in _KIND_OF
    )
    return _Synset(words, above)


def _plain(word: str) -> str:
    return " ".join(word.lower().split())


def find_folder() -> Path | None:
    """Where WordNet is here; None: nowhere. A folder that the environment names is the only one."""
    home, named = os.environ.get("WNHOME"), os.environ.get("WNSEARCHDIR")
    folders = [Path(each).expanduser() for each in ([named] if named else [f"{home}/dict"] if home else _USUAL)]
    return next((each for each in folders if (each / _INDEX).is_file() and (each / _DATA).is_file()), None)


@cache
def _opened(folder: Path) -> Ontology:
    return Ontology(folder)


def find() -> Ontology | None:
    """None where WordNet is not installed."""
    folder = find_folder()
    try:
        return _opened(folder) if folder else None
    except OSError:
        return None
