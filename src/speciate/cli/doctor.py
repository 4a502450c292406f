"""`speciate doctor`: what this installation, kernel and disk can do, and what to do about the rest. Changes nothing
without `--fix`."""

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
from speciate.cli import install_command, place_commands, repairs, user_service
from speciate.cli.daemon_commands import ask_daemon_of
from speciate.cli.output import format_table, say
from speciate.environment import runtime_folder, workspace_path
from speciate.errors import SpeciateError
from speciate.governance import audit_heads
from speciate.models.packaged import PACKAGED
from speciate.sandbox import layers
from speciate.server.dial import NoDaemon
from speciate.workspace import catalog_identity
from speciate.workspace.filesystem import FilesystemCheck, check_folder

ENABLES = {
    "classical": "train_model and specialize with classical methods, predict with them",
    "boosting": "boosted trees of LightGBM among the classical methods",
    "train": "methods that use pretrained models: probe and what is above it",
    "audio": "datasets of audio",
    "video": "datasets of videos",
    "mesh": "datasets of meshes and point clouds",
    "medical": "datasets of DICOM and NIfTI",
    "bio": "structures, alignments and families of proteins",
    "chem": "datasets of molecules",
    "robots": "recordings of robots: LeRobot, MCAP",
    "simulators": "environments in which policies are evaluated",
    "images": "images drawn from texts, and pipelines trained to draw",
    "forecasts": "forecasts of Chronos-Bolt, beside the forecasters that the extra train reads",
    "speech": "speech made from texts by models with SpeechT5's own tokenizer",
    "domains": "all of bio, chem, medical, mesh, robots, simulators and video",
    "curate": "curate_dataset with label errors, outliers and diverse samples",
    "s3": "clusters whose nodes share a bucket with this machine, and no disk",
    "hub": "datasets and models of the Hugging Face hub: hf:org/name",
    "vision": "networks of timm for images: timm:NAME",
    "language": "training of language models: sft, dpo and the like",
    "rewards": "tasks of reasoning-gym, and rewards that check mathematics and JSON",
    "exports": "export_model to onnxruntime and OpenVINO",
    "signing": "signatures of model versions",
    "passkeys": "passkeys of browsers, which sign what a person decides",
    "scan": "a scanner that looks for pickles in fetched models",
    "endpoints": "prices of models that others serve",
    "metrics": "metrics of texts that were written or transcribed",
    "demo": "the progress bars of `make demo`, which installs its data itself",
    "browser": "tests of the pages in a browser, and their screenshots",
    "dev": "working on speciate itself",
    "all": "everything but browser",
}
"""What each extra of pyproject.toml is for; which there are, and what they need, the package's metadata says."""
_PACKAGE = "speciate"
_EXTRA = re.compile(r"""extra\s*==\s*['"]([\w-]+)['"]""")
_NAMED = re.compile(r"([\w.-]+)\s*(?:\[([\w\s,-]+)\])?")
_FOR_DEVELOPERS = ("dev", "demo", "browser", "all", "domains")
_SHOWN = 5
_EMPTY = {"Agents and editors": "  none that is known is on this machine; for any other: speciate serve"}
"""What is said of a section without rows."""
_CORE = ("mcp", "duckdb", "pyarrow", "numpy", "pillow", "sandlock")


def doctor(arguments: argparse.Namespace) -> int:
    """Print every section; 1 where something needed is missing, else 0. With `--fix`, what can be mended instead."""
    workspace = workspace_path(arguments.workspace)
    if arguments.fix:
        status = repairs.fix(workspace, sure=arguments.yes, terminal=sys.stdin.isatty())
        if missing := [check.name for check in extras() if not check.ok and check.name not in _FOR_DEVELOPERS]:
            say(f"For what is not installed, as far as you want it: pip install 'speciate[{','.join(missing)}]'")
        return status
    sections = {
        f"speciate {__version__}, Python {platform.python_version()}, {platform.system()} {platform.release()}": core(),
        "Extras": extras(),
        "Packaged models": packaged(),
        "Sandbox (for foreign bytes and others' code)": sandbox(),
        "Unattended": service(workspace),
        "Agents and editors": clients(),
        "Approvals": approvals(workspace),
        **({"Places (`speciate places --probe` tries their nodes)": there} if (there := places(workspace)) else {}),
        f"Disk of {workspace}": [*check_folder(workspace), *catalog(workspace), *runtime()],
    }
    for title, checks in sections.items():
        say(title)
        if rows := [["", "ok" if check.ok else "--", check.name, check.what] for check in checks]:
            say(format_table(rows))
        else:
            say(_EMPTY.get(title, "  none"))
    needed = (sections.popitem()[1], core(), sandbox(), sections["Approvals"][1:])
    return 0 if all(check.ok for checks in needed for check in checks) else 1


def core() -> list[FilesystemCheck]:
    return [_distribution(name) for name in _CORE if name != "sandlock" or sys.platform == "linux"]


def extras() -> list[FilesystemCheck]:
    """Which optional parts are there; what a missing one would enable, and how to get it."""
    checks = []
    needs = required(importlib.metadata.requires(_PACKAGE) or ())
    for name, distributions in needs.items():
        missing = [each for each in distributions if not _is_installed(each)]
        shown = ", ".join(missing[:_SHOWN]) + (f" and {len(missing) - _SHOWN} more" if len(missing) > _SHOWN else "")
        how = f" (pip install 'speciate[{name}]'; missing: {shown})" if missing else ""
        checks.append(FilesystemCheck(name, not missing, ENABLES.get(name, "") + how))
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
    return {name: list(dict.fromkeys(_requirements_of(name, own, others, ()))) for name in own}


def _requirements_of(
    name: str, own: Mapping[str, list[str]], others: Mapping[str, list[str]], seen: tuple[str, ...]
) -> list[str]:
    """The extra's own requirements, and those of the extras that it names."""
    inside = [each for each in others.get(name, ()) if each not in seen]
    return [*own.get(name, ()), *(one for each in inside for one in _requirements_of(each, own, others, (*seen, name)))]


def _is_installed(distribution: str) -> bool:
    try:
        importlib.metadata.distribution(distribution)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True


def packaged() -> list[FilesystemCheck]:
    """The weights that come as packages, by the name behind `pkg:`."""
    return [
        FilesystemCheck(name, there, entry.what if there else f"{entry.what} ({entry.install})")
        for name, entry in PACKAGED.items()
        for there in [not _missing([entry.package])]
    ]


def sandbox() -> list[FilesystemCheck]:
    """Each layer, whether this kernel has it, and what follows. One that is needed and missing is not ok."""
    rows = [
        FilesystemCheck(
            layer.name, layer.there or not layer.needed, layer.what + ("" if layer.there else ": this kernel lacks it")
        )
        for layer in layers()
    ]
    lacking = [layer.name for layer in layers() if layer.needed and not layer.there]
    why = f"refused, for the sandbox lacks: {', '.join(lacking)}" if lacking else "runs in the whole sandbox"
    bytes_of_others = 'are not read, unless a person sets `cage = "where_possible"` in settings.toml'
    return [
        *rows,
        FilesystemCheck("code", not lacking, f"rewards, scorers, environments and programs of others: {why}"),
        *([FilesystemCheck("bytes", False, f"files of others {bytes_of_others}")] if lacking else []),
    ]


def service(workspace: Path) -> list[FilesystemCheck]:
    """Whether the system starts the daemon at login."""
    found = user_service.state(workspace)
    return [FilesystemCheck("service", found.active, found.what)]


def clients() -> list[FilesystemCheck]:
    """Clients that are on this machine, and whether they know this server."""
    return [
        FilesystemCheck(name, known, "knows this server" if known else f"speciate install {name}")
        for name, known in install_command.state(Path.home()).items()
    ]


def approvals(workspace: Path) -> list[FilesystemCheck]:
    """What an approval is worth, first, and then what of the trail is not as people decided it. Starts no daemon: where
    none runs, only what was kept outside the workspace is known."""
    if not workspace.is_dir():
        return [FilesystemCheck("key", False, "there is no workspace yet")]
    try:
        status = ask_daemon_of(workspace, "status")
        worth = FilesystemCheck("key", bool(status["signed"]), status["approvals"])
        problems = list(status["problems"])
    except NoDaemon:
        kept = audit_heads.outside_heads_at(workspace)
        keys = ", ".join(sorted({key for head in kept for key in head.keys}))
        known = f"by what was kept outside the workspace, these are enrolled: {keys}" if keys else "no daemon runs"
        return [FilesystemCheck("key", bool(keys), f"{known} (with a daemon this says what an approval is worth)")]
    except SpeciateError as error:
        return [FilesystemCheck("key", False, str(error))]
    return [worth, *(FilesystemCheck("trail", False, problem) for problem in problems)]


def places(workspace: Path) -> list[FilesystemCheck]:
    """Clusters that the settings name, as they look from here; nothing where there are none."""
    try:
        return list(place_commands.checks(workspace))
    except SpeciateError as error:
        return [FilesystemCheck("settings", False, str(error))]


def catalog(workspace: Path) -> list[FilesystemCheck]:
    """One that is gone, though it was there; else nothing."""
    try:
        refused = catalog_identity.missing_catalog_error(workspace)
    except OSError:
        return []  # what cannot be looked at, the checks of the folder tell
    return [FilesystemCheck("catalog", False, str(refused))] if refused else []


def runtime() -> list[FilesystemCheck]:
    try:
        folder: Path = runtime_folder()
    except SpeciateError as error:
        return [FilesystemCheck("sockets", False, str(error))]
    return [FilesystemCheck("sockets", True, f"in {folder}, for you alone")]


def _distribution(name: str) -> FilesystemCheck:
    try:
        return FilesystemCheck(name, True, importlib.metadata.version(name))
    except importlib.metadata.PackageNotFoundError:
        return FilesystemCheck(name, False, f"missing: pip install {name}")


def _missing(modules: Iterable[str]) -> list[str]:
    return [module for module in modules if importlib.util.find_spec(module) is None]
