"""Encoders of pictures and text together, as open_clip names them; those with a repository of their own."""

from __future__ import annotations

import re
from collections.abc import Iterator

from speciate.models.sources.contract import Entry, Packaged
from speciate.models.sources.literals import files

_REPOSITORY = re.compile(r"""hf_hub=["']([\w.\-]+/[\w.\-]+)""")


class OpenClip(Packaged):
    name, what, package = "open_clip", "encoders of pictures and text together", "open_clip_torch"

    def entries(self) -> Iterator[Entry]:
        paths = [path for path in files(self.package, "open_clip/") if path.name == "pretrained.py"]
        found = {name for path in paths for name in _REPOSITORY.findall(path.read_text("utf-8"))}
        for repository in sorted(found):
            yield Entry(
                ref=f"hf:{repository}",
                what=f"{repository} CLIP pictures and text zero-shot",
                access="weights",
                tasks=("feature-extraction",),
                modalities=("image", "text"),
                hub=repository,
            )


SOURCE = OpenClip()
