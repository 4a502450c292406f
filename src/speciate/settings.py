"""Settings of a workspace. What comes from the process's environment is passed on from `environment`.

`settings.toml` in the workspace is changed by a person (on a terminal, `speciate policy`), never by a tool.
"""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from speciate.environment import (
    clean_environment,
    config_folder,
    keeps_test_hooks,
    runtime_folder,
    socket_path,
    workspace_path,
)
from speciate.errors import Code, SpeciateError

__all__ = [
    "Capacity",
    "Settings",
    "clean_environment",
    "config_folder",
    "keeps_test_hooks",
    "load",
    "runtime_folder",
    "socket_path",
    "workspace_path",
]


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
    run_days: float = 30
    """How long the run folder of a job that ended is kept; then gc may take it."""
    approval_hours: float = 72
    """How long an approval waits for a person."""
    usd_per_hour: float | None = Field(None, ge=0)
    """What this machine costs with all its cores; None: a usual price of rented ones."""
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
