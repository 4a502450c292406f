"""Settings of a workspace. What comes from the process's environment is passed on from `environment`.

`settings.toml` in the workspace is changed by a person (on a terminal, `speciate policy`), never by a tool.
"""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from speciate.environment import (
    clean_environment,
    config_folder,
    keeps_test_hooks,
    runtime_folder,
    socket_path,
    workspace_path,
)
from speciate.errors import Code, SpeciateError
from speciate.hosts import check_host

__all__ = [
    "Capacity",
    "Settings",
    "Trust",
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


class Serving(BaseModel):
    """How a slot serves: limits of its HTTP interface, and how it gathers requests."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    start: Literal["asked", "after_promotion"] = "asked"
    """When a use case gets a slot: when somebody asks for it, or with its first model in production, too."""
    port: int = Field(0, ge=0, le=65535)
    """On 127.0.0.1; 0: one that is free, and from then on always that one."""
    max_batch: int = Field(32, ge=1, le=1024)
    """Inputs that are answered together at most."""
    max_wait_ms: float = Field(2.0, ge=0, le=1000)
    """How long an input waits for others that could be answered with it."""
    queue: int = Field(1024, ge=1)
    """Inputs that may wait; more are turned away with status 429."""
    per_second: float | None = Field(None, gt=0)
    """Requests per second, on average; None: as many as come."""
    body_mb: float = Field(64, gt=0, le=1024)
    """The largest body of a request."""
    timeout_seconds: float = Field(30, gt=0)
    """For reading a request, and again for answering it."""
    load_seconds: float = Field(300, gt=0)
    """For loading and trying a version before it serves."""
    drain_seconds: float = Field(60, gt=0)
    """For the requests of a version that serves no more."""
    memory_mb: int = Field(4096, ge=256)
    """Of address space that a version's process may use, beside twice what its files take."""


class Trust(BaseModel):
    """Signatures of model versions."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    require_signature: bool = False
    """Whether weights of a registered version are used only where one of the keys signed it."""
    public_keys: tuple[Path, ...] = ()
    """PEM files; a relative path is below the workspace."""

    def keys(self, workspace: Path) -> list[Path]:
        return [workspace / key.expanduser() for key in self.public_keys]


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
    serving: Serving = Field(default_factory=Serving)
    trust: Trust = Field(default_factory=Trust)
    private_hosts: tuple[str, ...] = ()
    """Hosts that are this machine or lead to private addresses and may be asked all the same; without a port: any."""

    @field_validator("private_hosts")
    @classmethod
    def _are_hosts(cls, hosts: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(_host(host) for host in hosts)


def _host(host: str) -> str:
    try:
        return check_host(host)
    except SpeciateError as error:
        raise ValueError(str(error)) from error


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
