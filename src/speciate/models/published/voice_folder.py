"""What lies beside a model that makes speech: a vocoder in the folder `vocoder/`, and the voice that it speaks with.

A version of a model has no subfolders: there `vocoder/config.json` is called `vocoder--config.json`. The voice is one
vector in `speaker.safetensors`, as the publisher's speaker encoder makes it. Nothing here imports torch.
"""

from __future__ import annotations

import shutil
from pathlib import Path

SPEAKER = "speaker.safetensors"
_PART, _SEPARATOR = "vocoder", "--"
_FILES = ("config.json", "model.safetensors")


def is_part_file(name: str) -> bool:
    return name in tuple(f"{_PART}/{file}" for file in _FILES)


def flat_name(name: str) -> str:
    """`vocoder/config.json` -> `vocoder--config.json`; any other name as it is."""
    return name.replace("/", _SEPARATOR) if is_part_file(name) else name


def nested_name(name: str) -> str:
    """The other way."""
    nested = name.replace(_SEPARATOR, "/", 1)
    return nested if is_part_file(nested) else name


def nested_files(folder: Path) -> list[str]:
    """Names of the vocoder's files in a published folder; none where it is not whole."""
    names = [f"{_PART}/{file}" for file in _FILES]
    place = folder / _PART
    whole = place.is_dir() and not place.is_symlink() and all((folder / name).is_file() for name in names)
    return names if whole else []


def vocoder_files(folder: Path) -> tuple[Path, Path] | None:
    """Settings and weights of the vocoder, in either layout; None without one."""
    for beginning in (f"{_PART}{_SEPARATOR}", f"{_PART}/"):
        settings, weights = (folder / f"{beginning}{file}" for file in _FILES)
        if settings.is_file() and weights.is_file():
            return settings, weights
    return None


def keep_files(folder: Path, target: Path) -> None:
    """Copy what a training leaves as it is, though it is weights, into the folder of a version."""
    for path in vocoder_files(folder) or ():
        shutil.copyfile(path, target / f"{_PART}{_SEPARATOR}{path.name.removeprefix(_PART + _SEPARATOR)}")
    if (folder / SPEAKER).is_file():
        shutil.copyfile(folder / SPEAKER, target / SPEAKER)
