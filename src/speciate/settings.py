"""Settings of a workspace: `settings.toml`, which a person changes (on a terminal, `speciate policy`), never a tool."""

from __future__ import annotations

import copy
import math
import os
import re
import tomllib
from collections.abc import Mapping
from functools import lru_cache
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Annotated, Any, Literal, Self, get_args
from urllib.parse import urlencode, urlsplit

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    field_validator,
    model_validator,
)

from speciate.errors import CallAgain, Code, SpeciateError, closest
from speciate.finite import is_finite
from speciate.hosts import check_host


class Capacity(BaseModel):
    """What jobs may use of this machine at once."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    cpu: float = 0
    """Processor cores. 0: all that the machine has."""
    memory_mb: int = 0
    """Main memory. 0: all that the machine has."""
    gpu: int = 0
    """GPUs. 0: none, so trainings run on the processor."""
    named: dict[str, int] = Field(default_factory=dict)
    """Further countable resources, by name, for job kinds whose plan asks for them."""


PLACE = re.compile(r"[a-z][a-z0-9-]{0,31}")
"""Names of places."""
BUCKET = "s3://"
HERE = "here"
"""This machine, which no place may be called."""
_OURS = ("--job-name", "--dependency", "--requeue", "--no-requeue", "--export", "--output", "--open-mode", "--array",
         "--wrap", "--parsable", "--signal", "-J", "-d", "-o", "-a")  # fmt: skip
"""Options of sbatch that a run is found and kept single by."""


def is_loopback(url: str) -> bool:
    """Whether an address is of this machine, so that nobody is on the way."""
    host = urlsplit(url).hostname or ""
    try:
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        return False


def _check_service(name: str, url: str, *, allow_plain: bool) -> None:
    if "@" in url:  # not shown, whatever else is wrong with it
        raise ValueError(f"{name} must hold no password: keys are in files of their own")
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.fragment:
        raise ValueError(f"{name} is no address: write it as in 'https://lab.example.org'")
    if parts.scheme == "http" and not is_loopback(url) and not allow_plain:
        raise ValueError(
            f"{name} = {url!r} is plain HTTP beyond this machine, where others see what is sent: use https, a tunnel "
            "to 127.0.0.1, or allow_plain = true"
        )


class Place(BaseModel):
    """A cluster where runs may go: `resources={"place": "NAME"}`. A person writes it; no tool adds or changes one."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    kind: Literal["slurm", "ray"]
    """`slurm`: by sbatch, squeue and scancel of this machine. `ray`: by the REST interface of its jobs."""
    depot: Annotated[str, BeforeValidator(str)]
    """What runs read and write lies there: a folder that this machine and the nodes see under one path, or
    `s3://BUCKET/PREFIX`, which needs the extra `s3` on both sides."""
    endpoint: str | None = None
    """Bucket: where it is, as in `https://s3.example.org`. Not set: AWS."""
    region: str = "us-east-1"
    """Bucket: its region."""
    python: str
    """Python on the nodes that has this version of speciate, as in `/opt/speciate/bin/python`."""
    options: tuple[str, ...] = ()
    """Slurm: given to sbatch as they are, as in `--partition=gpu`."""
    programs: Path | None = None
    """Slurm: the folder of sbatch, squeue and scancel. Not set: where PATH finds them."""
    address: str | None = None
    """Ray: where its dashboard listens, as in `https://ray.example.org` or, through a tunnel, `http://127.0.0.1:8265`."""
    token_file: Path | None = None
    """Ray: a file with the cluster's token, as in `~/.ray/auth_token`. It is read for each call."""
    allow_plain: bool = False
    """Whether `address` and `endpoint` may be plain HTTP beyond this machine, where others see token and data."""
    scratch: Path | None = None
    """A folder of the node's own disk for copies of what a run reads. Not set: its temporary folder."""
    kinds: tuple[Literal["train", "evaluate", "embed", "measure", "ingest"], ...] = ()
    """Kinds of jobs that go there without being asked, where all that they read can be moved and a person allowed
    it (`speciate allow`): `train` (those of `specialize`, too), `evaluate`, `embed` (vectors), `measure` (what
    trainings there would cost), `ingest` (datasets from files and folders)."""
    shared: tuple[Path, ...] = ()
    """Folders that this machine and the nodes see under one path, as in `/shared/data`. An ingest reads a source below
    one in place; other sources are moved."""
    runs: int = Field(8, ge=1, le=1000)
    """Runs there at once. Further ones wait here."""
    capacity: Capacity = Field(default_factory=Capacity)
    """What runs may use there together. 0 cores or memory: no limit of ours; 0 GPUs: none."""
    nodes: int = Field(1, ge=1, le=64)
    """Nodes that may train one network together. They talk over a network where nobody else may listen: what they
    exchange is neither encrypted nor signed."""
    interface: str | None = Field(None, pattern=r"^[A-Za-z0-9][A-Za-z0-9_.:@-]{0,31}$")
    """Network interface of each node by which they talk, as in `ib0`. Not set: that of its default route."""
    lease_seconds: float = Field(60, ge=1, le=3600)
    """A node that cannot write into the depot for so long ends its run; half as long after that it counts as lost."""

    @field_validator("depot")
    @classmethod
    def _is_folder_or_bucket(cls, depot: str) -> str:
        if depot.startswith(BUCKET):
            if not re.fullmatch(r"s3://[a-z0-9][a-z0-9.-]{1,61}[a-z0-9](/[\w./-]*)?", depot) or ".." in depot:
                raise ValueError("no bucket is called so: write s3://BUCKET/PREFIX")
            return depot.rstrip("/")
        if not Path(depot).is_absolute():
            raise ValueError("write an absolute path or s3://BUCKET/PREFIX")
        return depot

    @field_validator("address", "endpoint")
    @classmethod
    def _has_lower_scheme(cls, url: str | None) -> str | None:
        """Whoever asks later whether it is plain HTTP compares letters."""
        scheme, slashes, rest = (url or "").partition("://")
        return f"{scheme.lower()}{slashes}{rest}" if url else url

    @field_validator("scratch", "programs", "token_file")
    @classmethod
    def _is_absolute(cls, path: Path | None) -> Path | None:
        if path is not None and not path.is_absolute() and path.parts[:1] != ("~",):
            raise ValueError(f"{path} is no absolute path")
        return None if path is None else path.expanduser()

    @field_validator("shared")
    @classmethod
    def _are_folders(cls, shared: tuple[Path, ...]) -> tuple[Path, ...]:
        for path in shared:
            if not path.is_absolute() or len(path.parts) < 2 or ".." in path.parts:
                raise ValueError(f"{path} cannot be shared: write the absolute path of a folder")
        return shared

    @field_validator("options")
    @classmethod
    def _leave_ours(cls, options: tuple[str, ...]) -> tuple[str, ...]:
        for option in options:
            if not option.startswith("-") or option.split("=", 1)[0] in _OURS or "\n" in option:
                raise ValueError(f"{option!r} cannot be given: write options as in '--partition=gpu'; not {_OURS}")
        return options

    @model_validator(mode="after")
    def _has_what_its_kind_needs(self) -> Self:
        others = {"slurm": ("address", "token_file"), "ray": ("options", "programs")}[self.kind]
        if odd := [name for name in others if getattr(self, name)]:
            raise ValueError(f"{odd[0]} is not for a place of kind {self.kind!r}")
        if self.endpoint and not self.in_bucket:
            raise ValueError("endpoint is for a depot in a bucket: depot = 's3://BUCKET/PREFIX'")
        if self.kind == "ray" and not self.address:
            raise ValueError("address must be there, as in 'http://127.0.0.1:8265'")
        for name, url in (("address", self.address), ("endpoint", self.endpoint)):
            if url is not None:
                _check_service(name, url, allow_plain=self.allow_plain)
        return self

    @property
    def in_bucket(self) -> bool:
        return self.depot.startswith(BUCKET)

    @property
    def host(self) -> str:
        """What consents call it: where rows go from this machine, so the depot. Whoever can read that has them,
        whatever cluster is told to; another depot is another host, and wants other consents.

        A folder by its path, a bucket as in `s3.example.org/ada-speciate`, whatever the prefix.
        """
        if not self.in_bucket:
            return os.path.normpath(self.depot)
        where = urlsplit(self.endpoint).netloc.lower() if self.endpoint else f"s3.{self.region}.amazonaws.com"
        return f"{where}/{self.depot.removeprefix(BUCKET).partition('/')[0]}"

    @property
    def bucket_url(self) -> str:
        """The bucket as a node is told of it; no key is in it."""
        asked = {"region": self.region} | ({"endpoint": self.endpoint} if self.endpoint else {})
        return f"{self.depot}?{urlencode(asked)}"

    def room(self) -> Capacity:
        """The capacity, without a limit where there is none."""
        open_ended = {"cpu": self.capacity.cpu or math.inf, "memory_mb": self.capacity.memory_mb or 1 << 50}
        return self.capacity.model_copy(update=open_ended)


class Serving(BaseModel):
    """Deployments (`speciate deployment`): limits of their HTTP interface, and how requests are batched."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    start: Literal["asked", "after_promotion"] = "asked"
    """`asked`: a person starts each deployment. `after_promotion`: also the first promotion of a use case does."""
    port: int = Field(0, ge=0, le=65535)
    """TCP port on 127.0.0.1. 0: a free port, which the deployment then keeps."""
    max_batch: int = Field(32, ge=1, le=1024)
    """Largest number of inputs in one batch."""
    max_wait_ms: float = Field(2.0, ge=0, le=1000)
    """How long an idle model waits for further inputs before it computes a batch."""
    replicas: int = Field(1, ge=1, le=64)
    """Processes of each deployment, on one port. Each holds the model; where one dies, the others answer."""
    queue: int = Field(1024, ge=1)
    """Inputs that may wait. Further ones get status 429."""
    per_second: float | None = Field(None, gt=0)
    """Limit of requests per second, on average. Not set: no limit."""
    body_mb: float = Field(64, gt=0, le=1024)
    """Largest body of a request."""
    timeout_seconds: float = Field(30, gt=0)
    """Limit for reading a request, and again for answering it."""
    load_seconds: float = Field(300, gt=0)
    """Limit for loading and trying a version before it serves."""
    drain_seconds: float = Field(60, gt=0)
    """Limit for the last requests of a version that was replaced."""
    memory_mb: int = Field(4096, ge=256)
    """Address space of a version's process, on top of twice the size of its files."""


class Bake(BaseModel):
    """How long a new version is provisional, in production or as a canary, and what takes it back."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    hours: float = Field(24, ge=0)
    """Shortest duration of the bake."""
    requests: int = Field(1000, ge=0)
    """Requests that the version must have answered before the bake ends; `hours` must have passed, too."""
    most_hours: float = Field(168, gt=0)
    """The bake ends after this time with fewer requests, if there was at least one."""
    error_rate: float = Field(0.02, gt=0, lt=1)
    """Share of requests that may fail because of the model."""
    rollback: Literal["auto", "tell"] = "auto"
    """`auto`: a broken limit rolls the version back. `tell`: it raises an alert, and a person decides."""


class Notify(BaseModel):
    """Where notifications for people go: a webhook, a command, or both."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    webhook: str | None = None
    """Address that receives a JSON document by POST. A private host must be listed (`speciate hosts add`)."""
    command: tuple[str, ...] = ()
    """Program and arguments. The text is added as the last argument, the JSON document goes to its input."""
    jobs: Literal["failed", "all", "none"] = "failed"
    """Which ended jobs are notified."""

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
    """The log of production's answers: which are kept, how much of their inputs, and for how long."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    sample: float = Field(1.0, ge=0, le=1)
    """Share of answers that are logged. 0: none."""
    retention_days: float = Field(90, gt=0)
    """How long answers are kept."""
    quota_mb: float = Field(2048, gt=0)
    """Disk for the answers of each use case. The oldest are deleted first."""
    keep_inputs: bool | Literal["text"] = True
    """Whether inputs are kept. `text`: texts and rows, no files."""
    media_mb: float = Field(8, ge=0)
    """Largest input file that is kept."""
    identified: bool = False
    """Whether files that name people in their headers (DICOM) are kept."""
    redact: tuple[Redacted, ...] = ("email", "phone", "key", "card")
    """Patterns that are replaced in every text before it is written."""
    columns: tuple[str, ...] = ()
    """Columns and parts whose cells are replaced whole, in any case of letters."""
    patterns: tuple[str, ...] = ()
    """Regular expressions whose matches are replaced, too."""
    use_cases: dict[str, Mapping[str, Any]] = Field(default_factory=dict)
    """Tables `[log.use_cases.NAME]` with what differs for one use case."""

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
        """The settings of the log as they hold for one use case."""
        if use_case not in self.use_cases:
            return self
        general = self.model_dump(exclude={"use_cases"})
        return Log.model_validate({**general, **self.use_cases[use_case]})


class Retention(BaseModel):
    """How long unneeded files stay. What production, lineage or a pending approval needs always stays."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    runs_days: float = Field(30, gt=0)
    """Run folders (log, progress, outputs), counted from the end of their job."""
    checkpoints_days: float = Field(7, gt=0)
    """Checkpoints, counted from the end of their job. Without them `retry` starts from the beginning."""
    exports_days: float | None = Field(None, gt=0)
    """Folders in the workspace's `exports/`. Not set: kept for ever."""
    keep_versions: int | None = Field(None, ge=1)
    """Newest versions of each model to keep, besides all needed ones. Not set: all."""
    gc_hours: float = Field(24, ge=0)
    """How often the daemon collects garbage when nothing runs. 0: only when `manage_data` is called."""


class Disk(BaseModel):
    """How much of the disk the workspace may take. 1 GB is 2^30 bytes."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    stop_below_gb: float = Field(0.5, ge=0)
    """Below this much free disk no run starts, and running ones stop at a checkpoint until there is room."""
    quota_gb: float | None = Field(None, gt=0)
    """Limit for all files of the workspace together. Not set: the disk."""


class WatchCaps(BaseModel):
    """What each watch may use in a calendar month (UTC). A watch may ask for less, never for more."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    minutes: float = Field(600, ge=0)
    """Minutes of computing."""
    usd: float = Field(20, ge=0)
    """Dollars for calls of models that others serve, within the consents."""
    labels: int = Field(500, ge=0)
    """Labels that people are asked for."""
    teachers: Mapping[str, str] = Field(default_factory=dict)
    """Use case -> a model version that labels what people did not, with this as a person's consent; one that others
    serve needs a consent for its host, too. It teaches only while it agrees with people often enough, and nothing of it
    judges."""


class Team(BaseModel):
    """Pages for a team, over HTTPS by way of a proxy (docs/pages.md); people sign in with tokens (`speciate token`)."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    address: str | None = None
    """Public address, as in `https://speciate.example.com`. Not set: pages are for this machine alone."""
    listen: str = "127.0.0.1"
    """IP address at which the proxy reaches the daemon."""
    port: int = Field(8790, ge=1024, le=65535)
    """TCP port there."""
    proxies: tuple[str, ...] = Field(("127.0.0.1", "::1"), min_length=1)
    """IP addresses or networks of the proxy. Requests that come from elsewhere are refused."""

    @field_validator("address")
    @classmethod
    def _is_origin(cls, address: str | None) -> str | None:
        if address is None:
            return None
        parts = urlsplit(address.rstrip("/").lower())
        plain = f"{parts.scheme}://{parts.netloc}" == address.rstrip("/").lower()
        if parts.scheme != "https" or not parts.hostname or "@" in parts.netloc or not plain or parts.port == 443:
            raise ValueError("write an address as in https://speciate.example.com, without a path")
        return f"https://{parts.netloc}"

    @field_validator("listen")
    @classmethod
    def _is_ip(cls, listen: str) -> str:
        return str(ip_address(listen))

    @field_validator("proxies")
    @classmethod
    def _are_networks(cls, proxies: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(str(ip_network(each)) for each in proxies)


class Trust(BaseModel):
    """Signatures of model versions (`speciate sign`)."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    require_signature: bool = False
    """Whether a registered version is used only if one of the keys signed it."""
    public_keys: tuple[Path, ...] = ()
    """PEM files. A relative path is below the workspace."""

    def keys(self, workspace: Path) -> list[Path]:
        return [workspace / key.expanduser() for key in self.public_keys]


class Settings(BaseModel):
    """Keys at the top of the file, before any section."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    policy: Literal["auto", "person"] = "person"
    """`person`: a person approves each promotion. `auto`: a passing decision is enough."""
    policies: dict[str, Literal["auto", "person"]] = Field(default_factory=dict)
    """Policies of single use cases, by name."""
    bake: Bake = Field(default_factory=Bake)
    bakes: dict[str, Bake] = Field(default_factory=dict)
    """Tables `[bakes.NAME]` with what differs for one use case."""
    notify: Notify = Field(default_factory=Notify)
    roots: list[Path] = Field(default_factory=list)
    """Folders that tools may read and write below. Empty: the caller's folder and the workspace's `exports/`."""
    capacity: Capacity = Field(default_factory=Capacity)
    executors: dict[str, Place] = Field(default_factory=dict)
    """Tables `[executors.NAME]`: clusters where runs may go."""
    idle_exit_minutes: float = 10
    """The daemon ends after this time without a client, a job, a watch or a deployment."""
    backup_minutes: float = 60
    """How often the catalog is backed up; also after each move of an alias."""
    retention: Retention = Field(default_factory=Retention)
    disk: Disk = Field(default_factory=Disk)
    approval_hours: float = 72
    """How long an approval waits for a person before it expires."""
    usd_per_hour: float | None = Field(None, ge=0)
    """Price of this machine with all its cores, for cost figures. Not set: 0.05 for each core."""
    cage: Literal["required", "where_possible"] = "required"
    """Sandbox for foreign files. `where_possible`: without it if the kernel lacks it, where foreign code never runs."""
    fork_sandboxes: bool = True
    """Processes for foreign files are forked from a warm one and sandboxed then. `false`: each is a new interpreter."""
    serving: Serving = Field(default_factory=Serving)
    log: Log = Field(default_factory=Log)
    watch: WatchCaps = Field(default_factory=WatchCaps)
    trust: Trust = Field(default_factory=Trust)
    team: Team = Field(default_factory=Team)
    private_hosts: tuple[str, ...] = ()
    """Hosts at private addresses, this machine included, that may be called (`speciate hosts add`)."""

    def place(self, name: str) -> Place:
        """Raises NOT_FOUND with the places that there are."""
        if name in self.executors:
            return self.executors[name]
        there = (
            f"these are: {', '.join(self.executors)}, and {HERE!r}" if self.executors else "there is none but 'here'"
        )
        raise SpeciateError(
            Code.NOT_FOUND,
            f"There is no place {name!r}; {there}.",
            "A person adds one as [executors.NAME] in settings.toml (docs/clusters.md); `speciate places` tries it.",
            next=[CallAgain("", {"resources": {"place": each}}) for each in [*self.executors, HERE][:2]],
        )

    def place_taking(self, kind: str) -> str | None:
        """The first place to which jobs of this kind go without being asked."""
        return next((name for name, place in self.executors.items() if kind in place.kinds), None)

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

    @field_validator("executors")
    @classmethod
    def _are_named(cls, places: dict[str, Place]) -> dict[str, Place]:
        for name in places:
            if not PLACE.fullmatch(name) or name == HERE:
                raise ValueError(f"{name!r} is no name of a place: lower-case letters, digits and '-', and not 'here'")
        return places

    @field_validator("executors")
    @classmethod
    def _have_depots_of_their_own(cls, places: dict[str, Place]) -> dict[str, Place]:
        """Each place deletes from its depot what it does not know, so another's runs would lose what they read."""
        users: dict[tuple[str, str], str] = {}
        for name, place in places.items():
            first = users.setdefault((os.path.normpath(place.depot), (place.endpoint or "").rstrip("/").lower()), name)
            if first != name:
                raise ValueError(f"{first!r} and {name!r} have one depot: give each a folder or prefix of its own")
        return places

    @field_validator("private_hosts")
    @classmethod
    def _are_hosts(cls, hosts: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(_host(host) for host in hosts)


def _host(host: str) -> str:
    try:
        return check_host(host)
    except SpeciateError as error:
        raise ValueError(str(error)) from error


_SAFETY = ("cage", "trust")
SafetySettings = Mapping[str, Any]
"""The settings named in `_SAFETY`, as JSON; `Settings` validates them."""


def load(workspace: Path) -> Settings:
    return _load(workspace, {})


def _load(workspace: Path, instead: SafetySettings) -> Settings:
    """The file's settings, with others in the place of some. They are the caller's alone."""
    path = workspace / "settings.toml"
    try:
        return Settings.model_validate({**copy.deepcopy(_parse(path.read_text())), **instead})
    except FileNotFoundError:
        return Settings.model_validate(instead)
    except ValidationError as error:
        why = _complaint(error)
    except (ValueError, RecursionError, OSError) as error:
        why = str(error)
    raise SpeciateError(
        Code.INVALID, f"{path} cannot be used: {why}", "Mend the file, or remove it to get the defaults."
    )


def _complaint(error: ValidationError) -> str:
    """A sentence about the first thing that is wrong, and how many more are."""
    first, *others = sorted(error.errors(include_url=False), key=lambda each: each["type"] != "extra_forbidden")
    where = ".".join(map(str, first["loc"]))
    if first["type"] == "missing":
        why = f"{where!r} is missing."
    elif first["type"] == "extra_forbidden":
        why = f"there is no setting {where!r}; {closest(str(first['loc'][-1]), _names_in(first['loc'][:-1]))}"
    else:
        why = f"{where}{_shown(first['input'])}: {first['msg'].removeprefix('Value error, ')}."
    return why + (f" {len(others)} more of its settings are wrong." if others else "")


def _shown(value: object) -> str:
    """A wrong value, where it is short of any secret: an address may hold one, and a table an address."""
    if isinstance(value, str | int | float) and not re.search("@|://", str(value)):
        return f" = {repr(value)[:_LONGEST_SHOWN]}"
    return ""


def _names_in(place: tuple[int | str, ...]) -> list[str]:
    """The settings in one table of the file."""
    model: Any = Settings
    for part in place:
        field = model.model_fields.get(part)
        inner = [field.annotation, *get_args(field.annotation)] if field else [model]
        model = next((each for each in inner if isinstance(each, type) and issubclass(each, BaseModel)), model)
    return list(model.model_fields)


_LONGEST_SHOWN = 80


@lru_cache(maxsize=8)
def _parse(text: str) -> dict[str, Any]:
    """The same text is not parsed again: each answer asks for the settings."""
    document = tomllib.loads(text)
    if odd := [name for name, value in document.items() if not is_finite(value)]:
        raise ValueError(f"{odd[0]} holds nan or inf, by which nothing can be limited")
    return document


_confirmed: dict[Path, SafetySettings] = {}


def safety(settings: Settings) -> SafetySettings:
    """What of the settings guards the machine in other processes than the daemon, as JSON for `hold`."""
    return settings.model_dump(mode="json", include=set(_SAFETY))


def hold(workspace: Path, values: SafetySettings) -> None:
    """From here on `in_force` gives these in this process, whatever somebody writes into settings.toml: the daemon's,
    which are those that a person confirmed."""
    _confirmed[workspace.resolve()] = {name: values[name] for name in _SAFETY if name in values}


def in_force(workspace: Path) -> Settings:
    """The settings, with the sandbox and the signatures as the daemon has them."""
    settings = load(workspace)  # a file that is wrong is refused whatever was confirmed
    confirmed = _confirmed.get(workspace.resolve())
    return _load(workspace, confirmed) if confirmed else settings
