"""What a command writes: lines on standard output, and images into files. Standard library only."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from speciate.errors import Code, SpeciateError


def check_image_path(name: str, kinds: Sequence[str]) -> Path:
    """`kinds`: suffixes. Raises INVALID for another one, and for a folder that is not there."""
    path = Path(name)
    if path.suffix not in kinds:
        raise SpeciateError(
            Code.INVALID,
            f"{path} is not called {' or '.join(kinds)}.",
            f"Name the file so: --picture {path.stem or 'picture'}{kinds[0]}",
        )
    if not path.parent.is_dir():
        raise SpeciateError(Code.INVALID, f"There is no folder {path.parent}.", "Make it, or name a file elsewhere.")
    return path


def write_image(path: Path, data: bytes) -> str:
    """What to say of it. Raises UNAVAILABLE where it cannot be written."""
    try:
        path.write_bytes(data)
    except OSError as error:
        raise SpeciateError(
            Code.UNAVAILABLE, f"{path} cannot be written: {error.strerror}.", "Name a file elsewhere: --picture FILE"
        ) from error
    return f"wrote {path}"
