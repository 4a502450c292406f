"""transformers without libraries that none of our networks need, although they are installed.

It imports torchvision (for its image processors) and scipy (for the losses of detectors) with every network, text
encoders too; 600 modules, which in a cage cost seconds before the first answer. Our media are prepared by our own code,
and our losses are our own. Whoever needs an image processor of transformers needs a process without this.
"""

from __future__ import annotations

import importlib.util
import sys
from functools import cache
from importlib.machinery import ModuleSpec

_NOT_NEEDED = ("torchvision", "scipy")


@cache
def without_what_is_not_needed() -> None:
    """Before the first network is imported: transformers asks once for each library, and remembers the answer."""
    if "transformers.modeling_utils" in sys.modules:  # the zygote's, say: what it decided stays
        return
    from transformers.utils import import_utils

    find = importlib.util.find_spec

    def hidden(name: str, package: str | None = None) -> ModuleSpec | None:
        return None if name in _NOT_NEEDED else find(name, package)

    importlib.util.find_spec = hidden
    try:
        for ask in (
            import_utils.is_torchvision_available, import_utils.is_torchvision_v2_available,
            import_utils.is_scipy_available,
        ):  # fmt: skip
            ask.cache_clear()
            ask()
    finally:
        importlib.util.find_spec = find
