"""A dataset of LeRobot (v3.0, https://github.com/huggingface/lerobot): `meta/`, `data/` and `videos/`.

All steps are in few Parquet files; each episode has videos of its own, one a camera, copied as they are, so that no
frame is encoded again. Splits are ranges of episodes in `meta/info.json`; labels and columns of the version stand in
`meta/episodes`, a column each. Episodes are foreign bytes: a caged process reads and writes them (lerobot_writing.py).
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from speciate.datasets.exports.contract import Tell, Written
from speciate.datasets.exports.shipment import Shipment, has_files
from speciate.datasets.sources.unpacking import Desk, unpack_into
from speciate.datasets.versions import Manifest
from speciate.jobs.pool import Pool
from speciate.settings import in_force
from speciate.workspace.packs import index_path

_WRITE = "speciate.datasets.exports.lerobot_writing:write"
_PARTS = ("meta", "data", "videos")
_TOLD = {
    "split", "steps", "seconds", "fps", "cameras", "state_width", "action_width", "task", "robot", "episode", "bytes",
    "action_largest", "action_change", "still_share", "messages", "topics",
}  # fmt: skip
"""Columns of a version that the dataset itself says, or that are found out anew."""


class LeRobot:
    name = "lerobot"
    again = None
    """It is recognised by its names, like anybody's."""
    files = False
    once = True

    def misfit(self, manifest: Manifest) -> str | None:
        return None if manifest.modality == "episode" and has_files(manifest) else "its examples are no episodes."

    def write(self, shipment: Shipment, folder: Path, tell: Tell) -> Written:
        assert shipment.media is not None
        assert shipment.folders is not None
        episodes, splits = list[dict[str, Any]](), dict[str, list[int]]()
        seen = set[str]()
        for piece in shipment.pieces():
            first = len(episodes)
            for row, cells in enumerate(piece.rows.to_pylist()):
                content = shipment.media.contents[piece.start + row]
                if content not in seen:  # windows of one episode are in it
                    seen.add(content)
                    episodes.append({"content": content, "columns": _columns(cells)})
            splits[piece.hub if piece.split else "train"] = [first, len(episodes)]
        folders, settings = shipment.folders, in_force(shipment.folders.root)
        packs = [folders.root / pack for pack in shipment.manifest.packs]
        readable = [path for pack in packs for path in (pack, index_path(pack))]
        work = folder / ".lerobot"
        desk = Desk(Pool(folders, settings, size=0), settings.cage, folders, work)
        payload = {"packs": [str(pack) for pack in packs], "episodes": episodes, "splits": splits}
        told = unpack_into(work, _WRITE, payload, readable=readable, desk=desk)
        for part in _PARTS:
            if (work / part).is_dir():
                (work / part).rename(folder / part)
        shutil.rmtree(work)
        tell(shipment.rows.num_rows)
        return Written(notes=tuple(str(note) for note in told["notes"]))


def _columns(cells: dict[str, Any]) -> dict[str, Any]:
    """What a cell of Parquet can be, by a name without the `/` that LeRobot's own have."""
    return {
        name.replace("/", "_"): value
        for name, value in cells.items()
        if isinstance(value, str | int | float) and name not in _TOLD
    }


LEROBOT = LeRobot()
