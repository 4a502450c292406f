"""What a format must know: which versions it can hold, and how it writes the rows that leave."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple, Protocol

from speciate.datasets.exports.shipment import Shipment
from speciate.datasets.versions import Manifest

Tell = Callable[[int], None]
"""How many rows are written since it was last told. Raises Stopped where the run is to stop."""


class Written(NamedTuple):
    """What a reader of the export must be told."""

    configs: dict[str, str] = {}  # noqa: RUF012 - never changed
    """Split -> pattern of its files below the export, where the hub's loader can read them."""
    escaped: int = 0
    """Cells that a spreadsheet would have run as a formula."""
    notes: tuple[str, ...] = ()
    """Sentences for the card, in our words."""


class Format(Protocol):
    """The same shipment gives the same bytes: no times, no paths, nothing in the order of a set."""

    name: str
    again: str | None
    """What below the export holds the rows for `create_dataset`; None where it does not read this format."""
    files: bool
    """Whether media leave as files of their own, with nothing beside them but files called `metadata`."""
    once: bool
    """Whether rows that are windows of one medium share its file, so that they come back as one example."""

    def misfit(self, manifest: Manifest) -> str | None:
        """Why this format cannot hold the version, as a sentence; None where it can."""
        ...

    def write(self, shipment: Shipment, folder: Path, tell: Tell) -> Written:
        """Write the rows into `folder`, which is there and empty. Foreign media are copied, never decoded."""
        ...
