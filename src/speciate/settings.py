"""Settings of a workspace: `settings.toml`, which a person changes (on a terminal, `speciate policy`), never a tool."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any, Literal, Self
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from speciate.errors import Code, SpeciateError
from speciate.finite import is_finite
from speciate.hosts import check_host


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


class Bake(BaseModel):
    """How long a version that came into production, or is a canary, is provisional, and what takes it back."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    hours: float = Field(24, ge=0)
    requests: int = Field(1000, ge=0)
    """Both must have passed: hours alone prove nothing where nobody asks, requests alone see no day's pattern."""
    most_hours: float = Field(168, gt=0)
    """After so long it is over with fewer requests, where there was one at least."""
    error_rate: float = Field(0.02, gt=0, lt=1)
    """Share of requests that may fail for the model's own sake."""
    rollback: Literal["auto", "tell"] = "auto"
    """Whether a broken limit takes the version back, or is only told."""


class Notify(BaseModel):
    """Whom to tell what people should know: a webhook, a command, or both."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    webhook: str | None = None
    """An address that a JSON document is sent to; a host at a private address must be listed (`speciate hosts`)."""
    command: tuple[str, ...] = ()
    """A program with its arguments; the text is added as the last one, the JSON document goes to its input."""
    jobs: Literal["failed", "all", "none"] = "failed"
    """Of which jobs' ends to tell."""

    @field_validator("webhook")
    @classmethod
    def _is_address(cls, address: str | None) -> str | None:
        if address is not None and (
            urlsplit(address).scheme not in ("https", "http") or not urlsplit(address).hostname
        ):
            raise ValueError("write an address as in https://hooks.example.com/...")
        return address


Redacted = Literal["email", "phone", "key", "card"]


class Log(BaseModel):
    """Which answers are kept, with what of their inputs, and for how long."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    sample: float = Field(1.0, ge=0, le=1)
    """Share of the answers that is logged; 0: none."""
    retention_days: float = Field(90, gt=0)
    quota_mb: float = Field(2048, gt=0)
    """Of disk for each use case; beyond it the oldest answers go."""
    keep_inputs: bool | Literal["text"] = True
    """Whether what was asked is kept; `text`: texts and rows alone, no files."""
    media_mb: float = Field(8, ge=0)
    """The largest file that is kept."""
    identified: bool = False
    """Whether files that name people in their headers (DICOM) are kept."""
    redact: tuple[Redacted, ...] = ("email", "phone", "key", "card")
    """What is taken out of every text before it is written."""
    columns: tuple[str, ...] = ()
    """Columns and parts whose cells are taken out whole."""
    patterns: tuple[str, ...] = ()
    """Regular expressions; what they find is taken out, too."""
    use_cases: dict[str, dict[str, Any]] = Field(default_factory=dict)
    """Use case -> what differs there."""

    @field_validator("patterns")
    @classmethod
    def _are_patterns(cls, patterns: tuple[str, ...]) -> tuple[str, ...]:
        for pattern in patterns:
            try:
                re.compile(pattern)
            except re.error as error:
                raise ValueError(f"{pattern!r} is no regular expression: {error}") from error
        return patterns

    @model_validator(mode="after")
    def _differences_hold(self) -> Self:
        for use_case in self.use_cases:
            self.of(use_case)
        return self

    def of(self, use_case: str) -> Log:
        """As it holds for one use case."""
        if use_case not in self.use_cases:
            return self
        general = self.model_dump(exclude={"use_cases"})
        return Log.model_validate(general | self.use_cases[use_case])


class Retention(BaseModel):
    """How long what is no longer needed stays. None: for ever. What production, lineage or a question to a person needs
    stays whatever is said here."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    runs_days: float = Field(30, gt=0)
    """Folders of runs, after their job ended: logs, progress, outputs that were registered long ago."""
    checkpoints_days: float = Field(7, gt=0)
    """Checkpoints, after their job ended: from then on `retry` begins anew."""
    exports_days: float | None = Field(None, gt=0)
    """What was written into the workspace's own exports."""
    keep_versions: int | None = Field(None, ge=1)
    """So many of the newest versions of each model stay, beside all that are needed."""
    gc_hours: float = Field(24, ge=0)
    """How often the daemon collects garbage by itself, when nothing runs; 0: never."""


class Disk(BaseModel):
    """How much of the disk the workspace may take. 1 GB is 2^30 bytes."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    stop_below_gb: float = Field(0.5, ge=0)
    """With less free, no run begins, and those that run stop at a checkpoint until there is room again."""
    quota_gb: float | None = Field(None, gt=0)
    """For all files of the workspace together; None: as long as the disk has room."""


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
    policies: dict[str, Literal["auto", "person"]] = Field(default_factory=dict)
    """The same for single use cases, by name."""
    bake: Bake = Field(default_factory=Bake)
    bakes: dict[str, Bake] = Field(default_factory=dict)
    """What differs for single use cases, by name."""
    notify: Notify = Field(default_factory=Notify)
    roots: list[Path] = Field(default_factory=list)
    """Folders that tools may read and write below; empty: the caller's folder and the workspace's exports."""
    capacity: Capacity = Field(default_factory=Capacity)
    idle_exit_minutes: float = 10
    """The daemon ends after so long without client, job, watch or slot."""
    backup_minutes: float = 60
    retention: Retention = Field(default_factory=Retention)
    disk: Disk = Field(default_factory=Disk)
    approval_hours: float = 72
    """How long an approval waits for a person."""
    usd_per_hour: float | None = Field(None, ge=0)
    """What this machine costs with all its cores; None: a usual price of rented ones."""
    cage: Literal["required", "where_possible"] = "required"
    """Whether foreign bytes may be decoded on a kernel that lacks the sandbox. Others' code never runs there."""
    serving: Serving = Field(default_factory=Serving)
    log: Log = Field(default_factory=Log)
    trust: Trust = Field(default_factory=Trust)
    private_hosts: tuple[str, ...] = ()
    """Hosts that are this machine or lead to private addresses and may be asked all the same; without a port: any."""

    def policy_of(self, use_case: str) -> Literal["auto", "person"]:
        return self.policies.get(use_case, self.policy)

    def bake_of(self, use_case: str) -> Bake:
        own = self.bakes.get(use_case)
        return self.bake if own is None else self.bake.model_copy(update=own.model_dump(exclude_unset=True))

    @model_validator(mode="before")
    @classmethod
    def _move_run_days(cls, given: Any) -> Any:
        """`run_days` stood here before there was a section for it."""
        if isinstance(given, dict) and "run_days" in given:
            given = dict(given)
            days = given.pop("run_days")
            given["retention"] = {"runs_days": days} | dict(given.get("retention", {}))
        return given

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
        document = tomllib.loads(path.read_text())
        if odd := [name for name, value in document.items() if not is_finite(value)]:
            raise ValueError(f"{odd[0]} holds nan or inf, by which nothing can be limited")
        return Settings.model_validate(document)
    except FileNotFoundError:
        return Settings()
    except (ValueError, RecursionError, OSError) as error:
        raise SpeciateError(
            Code.INVALID, f"{path} cannot be used: {error}", "Mend the file, or remove it to get the defaults."
        ) from error


_SAFETY = ("cage", "trust")
_confirmed: dict[Path, dict[str, Any]] = {}


def safety(settings: Settings) -> dict[str, Any]:
    """What of the settings guards the machine in other processes than the daemon, as JSON for `hold`."""
    return settings.model_dump(mode="json", include=set(_SAFETY))


def hold(workspace: Path, values: dict[str, Any]) -> None:
    """From here on `in_force` gives these in this process, whatever somebody writes into settings.toml: the daemon's,
    which are those that a person confirmed."""
    _confirmed[workspace.resolve()] = {name: values[name] for name in _SAFETY if name in values}


def in_force(workspace: Path) -> Settings:
    """The settings, with the sandbox and the signatures as the daemon has them."""
    settings = load(workspace)
    confirmed = _confirmed.get(workspace.resolve())
    return Settings.model_validate({**settings.model_dump(), **confirmed}) if confirmed else settings
