"""What the command line and the pages send to a running daemon, and its answers: dispatch.py has the actions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NotRequired, TypedDict

from pydantic import BaseModel, ConfigDict, Field

from speciate.governance.roles import Level
from speciate.predictions import label_queue
from speciate.server.protocol import Hello

# Answers, as JSON


class DeploymentDocument(TypedDict):
    """`deployments.DeploymentView` as JSON."""

    use_case: str
    state: str
    serving: str | None
    url: str | None
    canary: str | None
    loading: str | None
    refused: str | None
    overloaded: int
    problem: str | None
    wanted: str | None
    token: str
    replicas: int
    live: int


class AuditRowDocument(TypedDict):
    """`audit.Row` as JSON, with its evidence parsed."""

    seq: int
    stamp: float
    actor: str
    action: str
    use_case: str
    before: str | None
    after: str | None
    evidence: Mapping[str, Any]


class ConsentDocument(TypedDict):
    """`consent.Consent` as JSON."""

    dataset: str
    host: str
    usd_cap: float
    spent_usd: float
    granted: float
    expires: float | None
    by: str
    place: NotRequired[str | None]
    """Name of the place whose depot `host` is."""


class AgreementDocument(TypedDict):
    """`label_queue.Agreement` as JSON."""

    alpha: float | None
    low: float | None
    high: float | None
    answers: int
    labellers: int


class QualityDocument(TypedDict):
    """`label_queue.Quality` as JSON."""

    model: str
    measure: str
    mean: float
    low: float | None
    high: float | None
    n: int
    drawn: str


class LabelItemDocument(TypedDict):
    """`label_queue.LabelItem` as JSON."""

    prediction: str
    drawn: str
    model: str
    confidence: float | None
    at: float
    input: Any
    output: Any
    files: Sequence[str]
    said: Mapping[str, Any]
    """Source -> the label or score that it gave."""
    by_watch: bool


class LabelsDocument(TypedDict):
    """The next answers to label."""

    waiting: int
    items: Sequence[LabelItemDocument]
    agreement: AgreementDocument
    quality: Sequence[QualityDocument]
    missed: int
    root: str
    """The workspace's folder, to which `files` are relative."""
    classes: NotRequired[Mapping[str, Sequence[str]]]
    """Model -> the labels that it can give. Older daemons leave it out."""


# Requests


class Request(BaseModel):
    """The fields of one action. What else the hello of a connection holds is ignored."""

    model_config = ConfigDict(frozen=True, extra="ignore")


class PolicyRequest(Request):
    policy: str
    use_case: str | None = None
    """None: the workspace's own policy."""


class HostRequest(Request):
    add: bool
    host: str


class ModelRequest(Request):
    model: str


class BackupRequest(Request):
    target: Path


class ApprovalRequest(Request):
    id: str


class DecideRequest(ApprovalRequest):
    hash: str | None = None
    """Hash of the approval as it was shown; without it nothing is decided."""


class OpenRequest(Request):
    """`keys`: the person's approval keys as their files have them, sealed; only a session that decides gets them."""

    level: Level = "look"
    keys: list[dict[str, Any]] = Field([], max_length=20)
    uid: int = -1
    groups: list[int] = []
    """The account's, by the kernel; a question about it has none."""


class ConsentRequest(Request):
    dataset: str
    host: str


class AllowRequest(ConsentRequest):
    usd: float | None = None
    """None: for a place."""
    days: float | None = None


class RefreshRequest(Request):
    sources: list[str]
    vectors: bool = False


class FingerprintRequest(Request):
    model: str | None = None
    """None: every endpoint that is registered."""
    dataset: str | None = None
    usd: float | None = None


class UseCaseRequest(Request):
    use_case: str


class WhyRequest(UseCaseRequest):
    days: float = 7.0


class SwitchRequest(UseCaseRequest):
    enabled: bool
    by: str
    """The account, by the kernel."""


class StartDeploymentRequest(UseCaseRequest):
    options: dict[str, int | float | None]
    """Options of the settings' `serving`; None: as they are there."""


class AuditRequest(Request):
    head: str | None = None
    """The hash of a row, or its beginning, as a person kept it elsewhere."""
    kept: Any = None
    """The caller's own head outside the workspace."""


class TrailRequest(Request):
    use_case: str | None = None
    most: int = 50


class PromotionRequest(UseCaseRequest):
    model: str
    canary_percent: float | None = None


class OverrideRequest(PromotionRequest):
    reason: str
    serving: str | None = None
    """With `objections`: what the person saw."""
    objections: list[str] = []


class EnrollRequest(Request):
    name: str
    kind: str
    public: str


class RevokeRequest(Request):
    key: str
    """Name of the key, or how its fingerprint begins."""


class TokenRequest(Request):
    """A token whose secret the caller made, and of which the daemon gets the sha256 alone."""

    name: str
    role: str
    id: str
    digest: str
    days: float
    use_cases: list[str] = []


class RevokeTokenRequest(Request):
    name: str
    by: str
    """The account, by the kernel."""


class QuestionRequest(Request):
    about: Hello
    """The action with its own fields."""


class LabelsRequest(UseCaseRequest):
    """The next answers to label; or, with `prediction`, one label to store."""

    strategy: label_queue.Strategy = "mixed"
    count: int = 10
    prediction: str | None = None
    label: Any = None
    drawn: str | None = None
    new_class: bool = False
    by: str
    """The account, by the kernel."""


class TraceRequest(Request):
    ref: str
    example: str | None = None
    group: str | None = None
    picture: Literal["svg", "png"] | None = None
