"""Mixed rows: bundles of small real files, complete and with a part missing; and one that holds what is far too large.

Given the files of other modalities, so that it needs none of its own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from speciate.modalities.bundles import bundle


def mixed(parts: Mapping[str, bytes], missing: Sequence[str] = ()) -> bytes:
    """`parts`: NAME.MODALITY -> the file."""
    return bundle({**parts, **{f"missing/{name}": b"" for name in missing}})


def rows(files: Mapping[str, bytes]) -> dict[str, bytes]:
    """Name of a file -> the file. `files`: one of some modalities, by their names."""
    whole = {f"{name}.{name}": files[name] for name in ("audio", "image", "tabular", "text")}
    few = {"before.image": files["image"], "report.text": files["text"]}
    return {"whole.bundle": mixed(whole), "missing.bundle": mixed(few, ["after.image", "speech.audio"])}


def bomb(image: bytes) -> bytes:
    """`image`: one beyond its budget."""
    return mixed({"image.image": image, "text.text": b"A text beside it."})
