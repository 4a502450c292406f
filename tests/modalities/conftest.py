"""The package of a third party, seen as if it were installed."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from speciate import modalities, vocabulary
from speciate.sandbox import client, process

PLUGIN = Path(__file__).parent / "plugin"


@pytest.fixture(autouse=True, scope="module")
def installed() -> Iterator[None]:
    """On the path of this process and, as a package in site-packages would be, of every sandboxed one."""
    readable = process._readable
    start = f"import sys, runpy; sys.path.append({str(PLUGIN)!r}); sys.argv[0] = ''; "
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(process, "_readable", lambda: [*readable(), PLUGIN])
        patch.setattr(
            client,
            "python",
            lambda module, *arguments: [
                sys.executable, "-I", "-c", f"{start}runpy.run_module({module!r}, run_name='__main__')", *arguments
            ],
        )  # fmt: skip
        patch.syspath_prepend(PLUGIN)
        modalities._third_parties.cache_clear()
        vocabulary.third_parties.cache_clear()
        yield
    modalities._third_parties.cache_clear()
    vocabulary.third_parties.cache_clear()
    modalities._loaded.pop("outline", None)
    sys.modules.pop("speciate_outlines", None)
