"""`speciate doctor`: what this installation, kernel and disk can do, and what to do about the rest. Changes nothing."""

from __future__ import annotations

import argparse
import importlib.metadata
import importlib.util
import platform
import re
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path

from speciate import __version__
from speciate.environment import runtime_folder, workspace_path
from speciate.errors import SpeciateError
from speciate.models.packaged import PACKAGED
from speciate.production import outside_head
from speciate.sandbox import layers
from speciate.server import unattended
from speciate.server.dial import NoDaemon
from speciate.server.online import told
from speciate.workspace import lost
from speciate.workspace.filesystem import Check, check_folder

ENABLES = {
    "classical": "train_model and specialize with classical methods, predict with them",
    "train": "methods that use pretrained models: probe and what is above it",
    "audio": "datasets of sounds",
    "video": "datasets of videos",
    "mesh": "datasets of meshes and point clouds",
    "medical": "datasets of DICOM and NIfTI",
    "bio": "structures, alignments and families of proteins",
    "chem": "datasets of molecules",
    "robots": "recordings of robots: LeRobot, MCAP",
    "simulators": "environments in which policies are evaluated",
    "domains": "all of bio, chem, medical, mesh, robots, simulators and video",
    "curate": "curate_dataset with label errors, outliers and diverse samples",
    "hub": "datasets and models of the Hugging Face hub: hf:org/name",
    "vision": "networks of timm for pictures: timm:NAME",
    "language": "training of language models: sft, dpo and the like",
    "rewards": "tasks of reasoning-gym, and rewards that check mathematics and JSON",
    "exports": "export_model to onnxruntime and OpenVINO",
    "signing": "signatures of model versions",
    "scan": "a scanner that looks for pickles in fetched models",
    "endpoints": "prices of models that others serve",
    "metrics": "metrics of texts that were written or transcribed",
    "demo": "the progress bars of `make demo`, which installs its data itself",
    "dev": "working on speciate itself",
    "all": "everything",
}
"""What each extra of pyproject.toml is for; which there are, and what they need, the package's metadata says."""
_PACKAGE = "speciate"
_EXTRA = re.compile(r"""extra\s*==\s*['"]([\w-]+)['"]""")
_NAMED = re.compile(r"([\w.-]+)\s*(?:\[([\w\s,-]+)\])?")
_SHOWN = 5
_CORE = ("mcp", "duckdb", "pyarrow", "numpy", "pillow", "sandlock")


def doctor(arguments: argparse.Namespace) -> int:
    """Print every section; 1 where something needed is missing, else 0."""
    workspace = workspace_path(arguments.workspace)
    sections = {
        f"speciate {__version__}, Python {platform.python_version()}, {platform.system()} {platform.release()}": core(),
        "Extras": extras(),
        "Packaged models": packaged(),
        "Sandbox (for foreign bytes and others' code)": cage(),
        "Unattended": service(workspace),
        "Approvals": approving(workspace),
        f"Disk of {workspace}": [*check_folder(workspace), *catalog(workspace), *runtime()],
    }
    for title, checks in sections.items():
        sys.stdout.write(f"{title}\n")
        for check in checks:
            sys.stdout.write(f"  {'ok ' if check.ok else '-- '} {check.name:<12} {check.what}\n")
    needed = (sections.popitem()[1], core(), cage(), sections["Approvals"][1:])
    return 0 if all(check.ok for checks in needed for check in checks) else 1


def core() -> list[Check]:
    return [_distribution(name) for name in _CORE if name != "sandlock" or sys.platform == "linux"]


def extras() -> list[Check]:
    """Which optional parts are there; what a missing one would enable, and how to get it."""
    checks = []
    needs = required(importlib.metadata.requires(_PACKAGE) or ())
    for name, distributions in needs.items():
        missing = [each for each in distributions if not _there(each)]
        shown = ", ".join(missing[:_SHOWN]) + (f" and {len(missing) - _SHOWN} more" if len(missing) > _SHOWN else "")
        how = f" (pip install 'speciate[{name}]'; missing: {shown})" if missing else ""
        checks.append(Check(name, not missing, ENABLES.get(name, "") + how))
    return checks


def required(lines: Iterable[str]) -> dict[str, list[str]]:
    """Extra -> the distributions that it needs, from `Requires-Dist` lines; an extra that names others has theirs."""
    own: dict[str, list[str]] = {}
    others: dict[str, list[str]] = {}
    for line in lines:
        if (extra := _EXTRA.search(line)) is None or (named := _NAMED.match(line)) is None:
            continue
        own.setdefault(extra[1], [])
        if named[1] == _PACKAGE:
            others.setdefault(extra[1], []).extend(each.strip() for each in (named[2] or "").split(","))
        else:
            own[extra[1]].append(named[1])
    return {name: list(dict.fromkeys(_whole(name, own, others, ()))) for name in own}


def _whole(
    name: str, own: Mapping[str, list[str]], others: Mapping[str, list[str]], seen: tuple[str, ...]
) -> list[str]:
    """Its own, and those of the extras that it names."""
    inside = [each for each in others.get(name, ()) if each not in seen]
    return [*own.get(name, ()), *(one for each in inside for one in _whole(each, own, others, (*seen, name)))]


def _there(distribution: str) -> bool:
    try:
        importlib.metadata.distribution(distribution)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True


def packaged() -> list[Check]:
    """The weights that come as packages, by the name behind `pkg:`."""
    return [
        Check(name, there, entry.what if there else f"{entry.what} ({entry.install})")
        for name, entry in PACKAGED.items()
        for there in [not _missing([entry.package])]
    ]


def cage() -> list[Check]:
    """Each layer, whether this kernel has it, and what follows. One that is needed and missing is not ok."""
    rows = [
        Check(
            layer.name, layer.there or not layer.needed, layer.what + ("" if layer.there else ": this kernel lacks it")
        )
        for layer in layers()
    ]
    lacking = [layer.name for layer in layers() if layer.needed and not layer.there]
    why = f"refused, for the sandbox lacks: {', '.join(lacking)}" if lacking else "runs in the whole sandbox"
    bytes_of_others = 'are not read, unless a person sets `cage = "where_possible"` in settings.toml'
    return [
        *rows,
        Check("code", not lacking, f"rewards, scorers, environments and programs of others: {why}"),
        *([Check("bytes", False, f"files of others {bytes_of_others}")] if lacking else []),
    ]


def service(workspace: Path) -> list[Check]:
    """Whether the system starts the daemon at login."""
    found = unattended.state(workspace)
    return [Check("service", found.active, found.what)]


def approving(workspace: Path) -> list[Check]:
    """What an approval is worth, first, and then what of the trail is not as people decided it. Starts no daemon: where
    none runs, only what was kept outside the workspace is known."""
    if not workspace.is_dir():
        return [Check("key", False, "there is no workspace yet")]
    try:
        status = told(workspace, "status")
        worth = Check("key", bool(status["signed"]), status["approvals"])
        problems = list(status["problems"])
    except NoDaemon:
        kept = outside_head.at(workspace)
        keys = ", ".join(sorted({key for head in kept for key in head.keys}))
        said = f"by what was kept outside the workspace, these are enrolled: {keys}" if keys else "no daemon runs"
        return [Check("key", bool(keys), f"{said} (with a daemon this says what an approval is worth)")]
    except SpeciateError as error:
        return [Check("key", False, str(error))]
    return [worth, *(Check("trail", False, problem) for problem in problems)]


def catalog(workspace: Path) -> list[Check]:
    """One that is gone, though it was there; else nothing."""
    try:
        refused = lost.missing(workspace)
    except OSError:
        return []  # what cannot be looked at, the checks of the folder tell
    return [Check("catalog", False, str(refused))] if refused else []


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
