"""Settings of a workspace, and the only place that reads the process's environment.

`settings.toml` in the workspace is changed by a person (on a terminal, `speciate policy`), never by a tool.
"""

from __future__ import annotations

import os
import tempfile
import tomllib
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from speciate.errors import Code, SpeciateError


class Capacity(BaseModel):
    """What jobs may use of this machine at once. 0 or None: found out at start."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    cpu: float = 0
    memory_mb: int = 0
    gpu: int = 0
    named: dict[str, int] = Field(default_factory=dict)


class Settings(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")
    policy: Literal["auto", "person"] = "person"
    """Who lets a model into production after a passing decision."""
    roots: list[Path] = Field(default_factory=list)
    """Folders that tools may read and write below; empty: the caller's folder and the workspace's exports."""
    capacity: Capacity = Field(default_factory=Capacity)
    idle_exit_minutes: float = 10
    """The daemon ends after so long without client, job, watch or slot."""
    backup_minutes: float = 60
    approval_hours: float = 72
    """How long an approval waits for a person."""
    cage: Literal["required", "where_possible"] = "required"
    """Whether foreign bytes may be decoded on a kernel that lacks the cage."""


def load(workspace: Path) -> Settings:
    path = workspace / "settings.toml"
    try:
        return Settings.model_validate(tomllib.loads(path.read_text()))
    except FileNotFoundError:
        return Settings()
    except (tomllib.TOMLDecodeError, ValidationError, OSError) as error:
        raise SpeciateError(
            Code.INVALID, f"{path} cannot be used: {error}", "Mend the file, or remove it to get the defaults."
        ) from error


def workspace_path(explicit: str | None = None) -> Path:
    """`explicit`, else $SPECIATE_HOME, else ./.speciate where it exists, else ~/.speciate."""
    if explicit:
        return Path(explicit).expanduser().absolute()
    if home := os.environ.get("SPECIATE_HOME"):
        return Path(home).expanduser().absolute()
    here = Path.cwd() / ".speciate"
    return here if here.is_dir() else Path.home() / ".speciate"


def runtime_folder() -> Path:
    """A short private folder for sockets (their paths end at about 104 bytes), made if needed."""
    base = os.environ.get("XDG_RUNTIME_DIR")
    folder = Path(base) / "speciate" if base else Path(tempfile.gettempdir()) / f"speciate-{os.getuid()}"
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    info = folder.stat()
    if info.st_uid != os.getuid() or info.st_mode & 0o077:
        raise SpeciateError(
            Code.REFUSED,
            f"{folder} must belong to you alone (mode 0700): others could listen in on its sockets.",
            f"Remove it or run: chmod 700 {folder}",
        )
    return folder


_PASSED_ON = ("PATH", "HOME", "LANG", "LC_ALL", "TMPDIR", "XDG_RUNTIME_DIR", "SPECIATE_CACHE")


def clean_environment() -> dict[str, str]:
    """The environment of every process we start: nothing of the first caller's beyond what programs need to run.

    OMP_WAIT_POLICY must be there before torch is imported: spinning threads cost small models up to 15 times.
    """
    kept = {name: os.environ[name] for name in _PASSED_ON if name in os.environ}
    return kept | {
        "OMP_WAIT_POLICY": "passive",
        "TOKENIZERS_PARALLELISM": "false",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "PYTHONUNBUFFERED": "1",
    }


def keeps_test_hooks() -> str | None:
    """`POINT:ACTION` of a fault to inject, for the crash suite; None in every normal run."""
    return os.environ.get("SPECIATE_FAULT")
