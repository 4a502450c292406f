"""`speciate doctor`: what this installation, kernel and disk can do, and what to do about the rest. Changes nothing."""

from __future__ import annotations

import argparse
import importlib.metadata
import importlib.util
import platform
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from speciate import __version__
from speciate.environment import runtime_folder, workspace_path
from speciate.errors import SpeciateError
from speciate.models.packaged import PACKAGED
from speciate.sandbox import layers
from speciate.workspace.filesystem import Check, check_folder


class Extra(NamedTuple):
    name: str
    modules: tuple[str, ...]
    enables: str


EXTRAS = (
    Extra(
        "classical", ("sklearn", "safetensors"), "train_model and specialize with classical methods, predict with them"
    ),
    Extra("train", ("torch", "transformers"), "methods that use pretrained models: probe and what is above it"),
    Extra("audio", ("soundfile", "soxr"), "datasets of sounds"),
    Extra("curate", ("sklearn", "cleanlab"), "curate_dataset with label errors, outliers and diverse samples"),
    Extra("hub", ("huggingface_hub",), "datasets of the Hugging Face hub: hf:org/name"),
    Extra("demo", ("tqdm",), "the progress bars of `make demo`, which installs its data itself"),
    Extra("dev", ("pytest", "ruff", "mypy", "hypothesis", "cogapp"), "working on speciate itself"),
)
_CORE = ("mcp", "duckdb", "pyarrow", "numpy", "pillow", "sandlock")


def doctor(arguments: argparse.Namespace) -> int:
    """Print every section; 1 where something needed is missing, else 0."""
    workspace = workspace_path(arguments.workspace)
    sections = {
        f"speciate {__version__}, Python {platform.python_version()}, {platform.system()} {platform.release()}": core(),
        "Extras": extras(),
        "Packaged models": packaged(),
        "Sandbox (the cage for foreign bytes)": cage(),
        f"Disk of {workspace}": [*check_folder(workspace), *runtime()],
    }
    for title, checks in sections.items():
        sys.stdout.write(f"{title}\n")
        for check in checks:
            sys.stdout.write(f"  {'ok ' if check.ok else '-- '} {check.name:<12} {check.what}\n")
    needed = (sections.popitem()[1], core(), cage())
    return 0 if all(check.ok for checks in needed for check in checks) else 1


def core() -> list[Check]:
    return [_distribution(name) for name in _CORE if name != "sandlock" or sys.platform == "linux"]


def extras() -> list[Check]:
    """Which optional parts are there; what a missing one would enable, and how to get it."""
    checks = []
    for extra in EXTRAS:
        missing = _missing(extra.modules)
        how = f" (pip install 'speciate[{extra.name}]'; missing: {', '.join(missing)})" if missing else ""
        checks.append(Check(extra.name, not missing, extra.enables + how))
    return checks


def packaged() -> list[Check]:
    """The weights that come as packages, by the name behind `pkg:`."""
    return [
        Check(name, there, entry.what if there else f"{entry.what} ({entry.install})")
        for name, entry in PACKAGED.items()
        for there in [not _missing([entry.package])]
    ]


def cage() -> list[Check]:
    """The layers that this kernel has; one that is needed and missing is not ok."""
    if sys.platform != "linux":
        return [
            Check("cage", False, 'only Linux has it; foreign bytes need `cage = "where_possible"` in settings.toml')
        ]
    return [
        Check(
            layer.name, layer.there or not layer.needed, layer.what + ("" if layer.there else ": this kernel lacks it")
        )
        for layer in layers()
    ]


def runtime() -> list[Check]:
    try:
        folder: Path = runtime_folder()
    except SpeciateError as error:
        return [Check("sockets", False, str(error))]
    return [Check("sockets", True, f"in {folder}, for you alone")]


def _distribution(name: str) -> Check:
    try:
        return Check(name, True, importlib.metadata.version(name))
    except importlib.metadata.PackageNotFoundError:
        return Check(name, False, f"missing: pip install {name}")


def _missing(modules: Iterable[str]) -> list[str]:
    return [module for module in modules if importlib.util.find_spec(module) is None]
