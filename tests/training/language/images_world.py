"""Questions about pictures with answers, as mixed rows of a dataset."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from speciate.datasets.versions import Manifest
from speciate.modalities.bundles import bundle
from speciate.models.language.vision_language import ImageArray
from speciate.workspace.workspace import Workspace
from tests.models.language.vision_world import COLOURS, coloured
from tests.training.world import make_dataset, png

NAMES = tuple(COLOURS)
QUICK: dict[str, Any] = {
    "changes": "full", "eyes": "learned", "num_train_epochs": 10, "batch_size": 12, "learning_rate": 1e-2,
    "max_new_tokens": 3,
    "judged": 12,
}  # fmt: skip


def row(question: str | Sequence[Mapping[str, Any]], *pictures: ImageArray) -> bytes:
    """`question`: a text, or a list of messages."""
    text = question if isinstance(question, str) else json.dumps(question)
    parts = {("image" if not place else f"image_{place + 1}") + ".image": png(each) for place, each in
             enumerate(pictures)}  # fmt: skip
    return bundle(parts | {"question.text": text.encode()} | ({} if pictures else {"missing/image.image": b""}))


def make_seen(
    workspace: Workspace, rows: Sequence[bytes], answers: Sequence[str], splits: Sequence[str] | None = None,
    name: str = "seen",
) -> Manifest:  # fmt: skip
    usual = ["test" if at % 6 == 4 else "validation" if at % 6 == 5 else "train" for at in range(len(rows))]
    return make_dataset(
        workspace, name, "multimodal", {"answer": list(answers)}, labels=[""] * len(rows), splits=splits or usual,
        media=rows,
    )  # fmt: skip


def make_colours(
    workspace: Workspace, count: int = 72, name: str = "seen", names: Sequence[str] = NAMES
) -> Manifest:  # fmt: skip
    """Each picture another one of three colours; the question is the same, so the picture alone tells. `names`: of the
    colours, in their order."""
    shown = [(at + at // 6) % len(NAMES) for at in range(count)]
    rows = [row("which colour?", coloured(NAMES[each], at)) for at, each in enumerate(shown)]
    return make_seen(workspace, rows, [names[each] for each in shown], name=name)
