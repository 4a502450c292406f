"""Datasets of LeRobot (https://github.com/huggingface/lerobot): each of their episodes becomes an example of its own.

A dataset is a folder with `meta/info.json`; there may be several at a source. Its files hold many episodes each, so a
caged process cuts them (lerobot_cutting.py). What lies beside it and is no episode by itself is set aside.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from speciate.datasets.sources.listing import Listing, SourceFile, normal_split
from speciate.datasets.sources.unpacking import Desk, unpack_into
from speciate.datasets.sources.walk import SetAside, walk
from speciate.errors import Code, SpeciateError
from speciate.modalities import find

_CUT = "speciate.datasets.sources.gathering.lerobot_cutting:cut"
_INFO = "meta/info.json"
_OURS = ("meta/", "data/", "videos/", "images/")


def is_lerobot(files: Sequence[SourceFile]) -> bool:
    """Whether one is `meta/info.json` and beside it there are episodes."""
    names = [file.name for file in files]
    roots = _roots(files)
    return any(name.startswith((f"{root}meta/episodes", f"{root}data/")) for root in roots for name in names)


def gather(found: Listing, desk: Desk) -> Listing:
    """The listing with an entry for each episode. Files that hold one episode each stay as they are."""
    own = find("episode").suffixes
    roots = _roots(found.files)
    if not roots:
        return found
    files: list[SourceFile] = []
    aside: list[SetAside] = []
    notes: list[str] = []
    readable = set(found.readable)
    for file in found.files:
        root = next((root for root in roots if file.name.startswith(root)), None)
        if root is not None and file.name.removeprefix(root).startswith(_OURS):
            continue
        if file.name.lower().endswith(own):
            files.append(file)
        else:
            aside.append(SetAside(file.name, "No part of a LeRobot dataset, and no episode by itself."))
    for number, (root, info) in enumerate(roots.items()):
        target = desk.work / f"lerobot-{number:04}"
        try:
            answer = unpack_into(target, _CUT, {"root": str(_folder(info))}, readable=found.readable, desk=desk)
        except SpeciateError as error:
            if len(roots) == 1 and not files:
                raise
            aside.append(SetAside(info.name, error.message))
            continue
        written = {path.name: path for path in walk(target, links=False).files}
        for name, index, split in answer["episodes"]:
            if name in written:
                also = (str(index), f"episode_{index}", f"episode_{index:06}")
                where = info.split if split is None else normal_split(split)
                files.append(SourceFile(written[name], f"{root}{name}", where, None, also=also))
        aside += [SetAside(f"{root}{name}", str(reason)) for name, reason in answer["set_aside"]]
        notes += [str(note) for note in answer["notes"]]
        readable.add(target)
    if not files:
        name, reason = aside[0] if aside else (found.source.name, "There is no episode.")
        raise SpeciateError(Code.INVALID, f"No episode can be read; {name!r}: {reason}", "Mend the dataset first.")
    return found._replace(
        files=sorted(files, key=lambda file: file.name),
        readable=frozenset(readable),
        set_aside=[*found.set_aside, *aside],
        notes=(*found.notes, *notes),
    )


def _roots(files: Sequence[SourceFile]) -> dict[str, SourceFile]:
    """What the names of a dataset's files begin with (`` or `a/b/`) -> its `meta/info.json`; the longest first."""
    found = {
        file.name.removesuffix(_INFO): file for file in files if file.name == _INFO or file.name.endswith(f"/{_INFO}")
    }
    return dict(sorted(found.items(), key=lambda item: -len(item[0])))


def _folder(info: SourceFile) -> Path:
    return info.path.parent.parent
