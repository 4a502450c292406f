"""What a disk may hold after its power was cut: recorded writes (writes.c), and the states that they could have left.

Two models of a file system, docs/design/durability.md has both with their reasons:

- `posix`: what POSIX promises and no more. A sync of a file covers its data and size, a sync of a folder its names.
  What was not synced is there or not, each page and each name for itself.
- `ext4`: in its default mode names and sizes come back in the order in which they changed, up to some moment, and any
  sync of a file or folder moves that moment; data of a file are covered by its own sync alone.

A state is made by choosing, at one moment of the recording, what of the unsynced changes had reached the disk.
"""

from __future__ import annotations

import hashlib
import os
import random
import shutil
import struct
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from enum import IntEnum
from pathlib import Path
from typing import Literal, NamedTuple

import pytest

_SOURCE = Path(__file__).with_name("writes.c")
_HEAD = struct.Struct("<5Q")
PAGE, SECTOR = 4096, 512
"""Bytes that a system writes at once, and that a disk does."""
Model = Literal["posix", "ext4"]


class Call(IntEnum):
    """As in writes.c."""

    MADE = 1
    MADE_FOLDER = 2
    REMOVED = 3
    RENAMED = 4
    LINKED = 5
    WRITTEN = 6
    CUT = 7
    SYNCED = 8
    DATA_SYNCED = 9
    MAPPED = 10
    MARKED = 11


class Record(NamedTuple):
    call: Call
    object: int
    folder: int
    offset: int
    data: bytes


class Recorder(NamedTuple):
    """A library that records what the programs with this environment change below `root`."""

    environment: dict[str, str]
    root: Path
    log: Path
    library: Path

    def records(self) -> list[Record]:
        return read_records(self.log.read_bytes())


def recorder(folder: Path, root: Path) -> Recorder:
    """`root`: a folder that is there and empty. Raises pytest's Skipped where there is no compiler."""
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None or sys.platform != "linux":
        pytest.skip("this machine has no C compiler, or no LD_PRELOAD")
    folder.mkdir(parents=True, exist_ok=True)
    library, log = folder / "writes.so", folder / "log"
    texts = {"SELF": library, "LOG": log, "ROOT": root.resolve()}
    given = [f'-D{name}="{path}"' for name, path in texts.items()]
    subprocess.run([compiler, "-O1", "-shared", "-fPIC", *given, "-o", str(library), str(_SOURCE), "-ldl"], check=True)
    log.write_bytes(b"".join(_there(root.resolve())))
    return Recorder({"LD_PRELOAD": str(library)}, root.resolve(), log, library)


def _there(folder: Path) -> Iterator[bytes]:
    """Records that make what lies there already, with all of it on the disk."""
    number = folder.stat().st_ino
    for path in sorted(folder.iterdir()):
        inode, name = path.stat().st_ino, os.fsencode(path.name)
        made = Call.MADE_FOLDER if path.is_dir() else Call.MADE
        yield _HEAD.pack(made, inode, number, 0, len(name)) + name
        if path.is_dir():
            yield from _there(path)
            continue
        data = path.read_bytes()
        yield _HEAD.pack(Call.WRITTEN, inode, 0, 0, len(data)) + data
        yield _HEAD.pack(Call.SYNCED, inode, 0, 0, 0)
    yield _HEAD.pack(Call.SYNCED, number, 0, 0, 0)


def read_records(log: bytes) -> list[Record]:
    found, position = [], 0
    while position < len(log):
        call, item, folder, offset, length = _HEAD.unpack_from(log, position)
        position += _HEAD.size
        found.append(Record(Call(call), item, folder, offset, log[position : position + length]))
        position += length
    return found


# What was recorded, by object


class _Change(NamedTuple):
    """Of a name in a folder."""

    at: int
    name: str
    target: int | None
    """None: there is nothing of that name any more."""
    pair: tuple[int, int] | None = None
    """Of the old name of what was renamed: folder of the new one, and `at`."""


class _Write(NamedTuple):
    at: int
    offset: int
    data: bytes | None
    """None: the file was cut, or made longer, to `offset` bytes."""


class _Node:
    def __init__(self, made: int, *, is_folder: bool) -> None:
        self.made, self.is_folder = made, is_folder
        self.changes: list[_Change] = []
        self.writes: list[_Write] = []
        self.syncs: list[int] = []

    def synced(self, at: int) -> int:
        """The last sync by then; -1 where there was none."""
        return max((sync for sync in self.syncs if sync <= at), default=-1)


State = dict[str, bytes | None]
"""Path below the root -> content; None: a folder."""


class Recording:
    """All that happened below the root, which was empty."""

    def __init__(self, records: Sequence[Record], root: int) -> None:
        """`root`: its inode."""
        self.records = records
        self._nodes = [_Node(-1, is_folder=True)]
        self._journal = [0] * len(records)
        """At each moment: up to which names and sizes are on the disk of `ext4`, whatever it chose."""
        self.mapped = 0
        """How many shared writable mappings were made, whose changes are not seen."""
        self._numbers = {root: 0}
        self._files: dict[tuple[int, int], bytes] = {}
        for at, record in enumerate(records):
            self._read(at, record)

    def marks(self) -> list[tuple[int, str]]:
        return [(at, each.data.decode()) for at, each in enumerate(self.records) if each.call is Call.MARKED]

    def _read(self, at: int, record: Record) -> None:
        self._journal[at] = self._journal[at - 1] if at else -1
        match record.call:
            case Call.MADE | Call.MADE_FOLDER:
                self._numbers[record.object] = len(self._nodes)
                self._nodes.append(_Node(at, is_folder=record.call is Call.MADE_FOLDER))
                self._name(at, record.folder, record.data, self._numbers[record.object])
            case Call.LINKED:
                self._name(at, record.folder, record.data, self._numbers[record.object])
            case Call.REMOVED:
                self._name(at, record.folder, record.data, None)
            case Call.RENAMED:
                old, new = record.data.split(b"\0")
                target = self._numbers[record.object]
                self._name(at, record.folder, new, target)
                pair = (self._numbers[record.folder], at)
                self._name(at, record.offset, old, None, pair)
            case Call.WRITTEN | Call.CUT:
                if (node := self._node(record.object)) is not None:
                    data = record.data if record.call is Call.WRITTEN else None
                    node.writes.append(_Write(at, record.offset, data))
            case Call.SYNCED | Call.DATA_SYNCED:
                if (node := self._node(record.object)) is not None:
                    self._rename_unseen(at, record)
                    self._journal[at] = max(self._journal[at], self._commits(node, at, record.call))
                    node.syncs.append(at)
            case Call.MAPPED:
                self.mapped += 1
            case Call.MARKED:
                pass

    def _node(self, inode: int) -> _Node | None:
        """None: of a file that was there before."""
        number = self._numbers.get(inode)
        return None if number is None else self._nodes[number]

    def _name(self, at: int, folder: int, name: bytes, target: int | None, pair: tuple[int, int] | None = None) -> None:
        self._nodes[self._numbers[folder]].changes.append(_Change(at, os.fsdecode(name), target, pair))

    def _rename_unseen(self, at: int, record: Record) -> None:
        """A file has another name in its folder than the one that it was given: now, at the latest."""
        if record.folder not in self._numbers or not record.data:
            return
        folder, number = self._numbers[record.folder], self._numbers[record.object]
        names = {each.name: each.target for each in self._nodes[folder].changes}
        if names.get(os.fsdecode(record.data)) != number:
            old = [name for name, target in names.items() if target == number]
            self._name(at, record.folder, record.data, number)
            for name in old:
                self._name(at, record.folder, os.fsencode(name), None, (folder, at))

    def _commits(self, node: _Node, at: int, call: Call) -> int:
        """Up to which change the journal of ext4 is on the disk by this sync: that of the newest change to the object
        itself, with all before it. `fdatasync` need not commit what only changed a time."""
        if node.is_folder:
            return max((each.at for each in node.changes), default=node.made)
        if call is Call.SYNCED:
            return max((each.at for each in node.writes), default=node.made)
        newest, size = node.made, 0
        for each in node.writes:
            longer = each.offset + len(each.data) if each.data is not None else each.offset
            if each.data is None or longer > size:
                newest, size = each.at, longer
        return newest

    # States

    def last(self) -> State:
        """As it lay there at the end, all of it."""
        return self.state(len(self.records) - 1, _Everything())

    def state(self, at: int, choice: Choice) -> State:
        """What the disk holds, where the power went off just after record `at`."""
        choice.begin(self, at)
        found: State = {}
        self._walk(0, "", at, choice, found, set())
        return found

    def journal(self, at: int) -> int:
        return self._journal[at]

    def _walk(self, number: int, path: str, at: int, choice: Choice, found: State, above: set[int]) -> None:
        for name, target in self._names(number, at, choice).items():
            node, place = self._nodes[target], f"{path}/{name}" if path else name
            if not node.is_folder:
                found[place] = self._content(target, at, choice)
            elif target not in above:
                found[place] = None
                self._walk(target, place, at, choice, found, above | {target})

    def _names(self, number: int, at: int, choice: Choice) -> dict[str, int]:
        node, names = self._nodes[number], dict[str, int]()
        synced = node.synced(at)
        for each in node.changes:
            if each.at > at:
                break
            if each.at > synced and not self._has_name(number, each, at, choice):
                continue
            if each.target is None:
                names.pop(each.name, None)
            else:
                names[each.name] = each.target
        return names

    def _has_name(self, number: int, change: _Change, at: int, choice: Choice) -> bool:
        """An old name goes after the new one is there: no file system loses a file by renaming it."""
        if not choice.has_name(number, change.at, change.name):
            return False
        if change.pair is None:
            return True
        folder, moment = change.pair
        new = next(each for each in self._nodes[folder].changes if each.at == moment and each.target is not None)
        return moment <= self._nodes[folder].synced(at) or choice.has_name(folder, moment, new.name)

    def _content(self, number: int, at: int, choice: Choice) -> bytes:
        node = self._nodes[number]
        synced = node.synced(at)
        base = self._synced_content(number, synced)
        pending = [each for each in node.writes if synced < each.at <= at]
        return choice.content(number, base, pending) if pending else base

    def _synced_content(self, number: int, synced: int) -> bytes:
        key = (number, synced)
        if key not in self._files:
            content = bytearray()
            for each in self._nodes[number].writes:
                if each.at <= synced:
                    apply(content, each)
            self._files[key] = bytes(content)
        return self._files[key]


def apply(content: bytearray, write: _Write) -> None:
    if write.data is None:
        del content[write.offset :]
        content.extend(bytes(write.offset - len(content)))
    else:
        content.extend(bytes(max(0, write.offset - len(content))))
        content[write.offset : write.offset + len(write.data)] = write.data


class Choice:
    """What of the unsynced changes is on the disk. Everything, unless a subclass says otherwise."""

    def begin(self, recording: Recording, at: int) -> None:
        """Called before the others, for each state."""

    def has_name(self, folder: int, at: int, name: str) -> bool:
        return True

    def content(self, number: int, base: bytes, pending: Sequence[_Write]) -> bytes:
        found = bytearray(base)
        for each in pending:
            apply(found, each)
        return bytes(found)


class _Everything(Choice):
    """As after kill -9."""


class _Chosen(Choice):
    """`names`: all, none or some of the names that changed; `data`: all, none, some pages of what was written, or its
    size alone, with zeros."""

    def __init__(self, names: str, data: str, seed: int = 0) -> None:
        self._names, self._data, self._seed = names, data, seed
        self._share = self._draw("share").choice([0.1, 0.5, 0.9])

    def _draw(self, *key: object) -> random.Random:
        return random.Random(f"{self._seed} {key}")

    def has_name(self, folder: int, at: int, name: str) -> bool:
        return self._names == "all" or (self._names == "some" and self._draw("name", folder, at).random() < self._share)

    def content(self, number: int, base: bytes, pending: Sequence[_Write]) -> bytes:
        match self._data:
            case "all":
                return super().content(number, base, pending)
            case "none":
                return base
            case "size":
                return self._sized(base, pending)
        return self._some(number, base, pending, torn=True)

    @staticmethod
    def _sized(base: bytes, pending: Sequence[_Write]) -> bytes:
        found = bytearray(base)
        for each in pending:
            if each.data is None:
                apply(found, each)
            else:
                found.extend(bytes(max(0, _end(each) - len(found))))
        return bytes(found)

    def _some(self, number: int, base: bytes, pending: Sequence[_Write], *, torn: bool) -> bytes:
        """Pages for themselves: each as it was after some of the writes to it. A cut that is not on the disk keeps what
        came after it off, too: that went into other blocks."""
        chance = self._draw("data", number, pending[0].at)
        cuts = [place for place, each in enumerate(pending) if each.data is None]
        kept = pending[: chance.choice([*cuts, len(pending)])]
        found = bytearray(base)
        steps: dict[int, list[_Write]] = {}
        longest = len(base)
        for each in kept:
            if each.data is None:
                apply(found, each)
                longest = len(found)
                steps.clear()
                continue
            for start in range(each.offset // PAGE * PAGE, _end(each), PAGE):
                begin, end = max(start, each.offset), min(start + PAGE, _end(each))
                part = each.data[begin - each.offset : end - each.offset]
                steps.setdefault(start, []).append(_Write(each.at, begin, part))
            longest = max(longest, _end(each))
        for start, writes in steps.items():
            count = chance.randint(0, len(writes))
            for each in writes[:count]:
                apply(found, each)
            if torn and count < len(writes) and chance.random() < 0.25:
                _tear(found, start + SECTOR * chance.randint(1, PAGE // SECTOR - 1), writes[count:])
        if chance.random() < 0.5:
            found.extend(bytes(max(0, longest - len(found))))
        return bytes(found)


def _end(write: _Write) -> int:
    return write.offset + len(write.data or b"")


def _tear(content: bytearray, until: int, writes: Sequence[_Write]) -> None:
    """The sectors before `until` are newer than the rest of their page."""
    for each in writes:
        assert each.data is not None
        if each.offset < until:
            apply(content, each._replace(data=each.data[: until - each.offset]))


class _Journalled(_Chosen):
    """ext4: names and cuts up to a moment, between what was synced (`share` 0) and all (1); data by pages, and a file
    is as long as the data that reached it."""

    def __init__(self, share: float, data: str, seed: int = 0) -> None:
        super().__init__("all", data, seed)
        self._until_share, self._until = share, -1

    def begin(self, recording: Recording, at: int) -> None:
        least = recording.journal(at)
        self._until = least + round(self._until_share * (at - least))

    def has_name(self, folder: int, at: int, name: str) -> bool:
        return at <= self._until

    def content(self, number: int, base: bytes, pending: Sequence[_Write]) -> bytes:
        late = next((place for place, each in enumerate(pending) if each.data is None and each.at > self._until), None)
        pending = pending[:late]
        if self._data == "all" or not pending:
            return Choice.content(self, number, base, pending)
        cuts = [place for place, each in enumerate(pending) if each.data is None]
        found = bytearray(base)
        for each in pending[: cuts[-1] + 1] if cuts else ():
            if each.data is None:
                apply(found, each)
        rest = pending[cuts[-1] + 1 :] if cuts else pending
        if not rest or self._data == "none":
            return bytes(found)
        chance = self._draw("data", number, pending[0].at)
        length = len(found)
        whole = bytearray(found)
        for each in rest:
            apply(whole, each)
        inside = self._some(number, bytes(found), rest, torn=True)[:length]
        reached = length + round(chance.random() * (len(whole) - length))
        return bytes(inside + whole[length : reached // SECTOR * SECTOR if reached < len(whole) else reached])


def choices(model: Model, draws: int, seed: int) -> Iterator[tuple[str, Choice]]:
    """The corners of a model, then some at random, each with its name."""
    if model == "ext4":
        yield "as synced", _Journalled(0.0, "none")
        yield "names without data", _Journalled(1.0, "none")
        yield "data without names", _Journalled(0.0, "all")
        for number in range(draws):
            share = random.Random(f"{seed} {number}").random()
            yield "at random", _Journalled(share, "some", seed + number)
        return
    yield "as synced", _Chosen("none", "none")
    yield "names without data", _Chosen("all", "none")
    yield "names and sizes, zeros", _Chosen("all", "size")
    yield "data without names", _Chosen("none", "all")
    for number in range(draws):
        yield "at random", _Chosen("some", "some", seed + number)


# Laying a state down


def digest(state: Mapping[str, bytes | None]) -> str:
    """Equal for equal trees."""
    found = hashlib.sha256()
    for path in sorted(state):
        content = state[path]
        kind = b"/" if content is None else hashlib.sha256(content).digest()
        found.update(os.fsencode(path) + b"\0" + kind)
    return found.hexdigest()


def lay_down(state: Mapping[str, bytes | None], root: Path) -> None:
    """Make `root` hold this state and nothing else. The folder itself stays: its inode is part of a workspace."""
    for entry in os.scandir(root):
        if entry.is_dir(follow_symlinks=False):
            shutil.rmtree(entry.path)
        else:
            os.unlink(entry.path)
    for path in sorted(state):
        content, place = state[path], root / path
        if content is None:
            place.mkdir(mode=0o700, exist_ok=True)
        else:
            descriptor = os.open(place, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with os.fdopen(descriptor, "wb", buffering=0) as file:
                file.write(content)


def found_below(root: Path) -> State:
    """What lies there now, to be compared with `Recording.last`."""
    return {
        path.relative_to(root).as_posix(): path.read_bytes() if path.is_file() else None
        for path in sorted(root.rglob("*"))
        if path.is_file() or path.is_dir()
    }
