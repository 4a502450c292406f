# Types of async_client.py. Made by docs/client_methods.py: `make docs`.
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa

from speciate.server.approval_questions import NeedsApproval
from speciate.server.client import Client, ToolDeclaration, ToolResult
from speciate.server.client_results import Shown
from speciate.server.job_view import JobView
from speciate.server.tool_api import DryRun, JobStarted
from speciate.tools.data_management import TagResult
from speciate.tools.datasets import DatasetList, DatasetView, QueryResult, SimilarExamples
from speciate.tools.evaluation import EvaluationView
from speciate.tools.exports import Evidence
from speciate.tools.jobs import ControlResult, JobList
from speciate.tools.labels import LabelResult
from speciate.tools.models import FoundModels, ModelDescription, ModelRegistered
from speciate.tools.options import Options
from speciate.tools.predictions import FeedbackRecorded, ManyRecorded, Predictions
from speciate.tools.promotion import Approvals, Promotion, RolledBack
from speciate.tools.status import StatusView
from speciate.tools.training import TrainingPlan
from speciate.tools.use_cases import UseCaseDefined
from speciate.tools.watches import WatchSet

class AsyncClient:
    sync: Client
    def __init__(self, sync: Client) -> None: ...
    async def call(self, tool: str, /, **arguments: Any) -> ToolResult: ...
    async def call_with_images(self, tool: str, /, **arguments: Any) -> tuple[ToolResult, tuple[bytes, ...]]: ...
    async def wait(self, job: object, progress: Callable[[JobView], None] | None = None) -> JobView: ...
    async def table(self, dataset: str, *, sql: str | None = None, where: str | None = None) -> pa.Table: ...
    async def tools(self) -> list[ToolDeclaration]: ...
    async def add_examples(
        self,
        *,
        dataset: str,
        source: str | None = None,
        rows: Sequence[Mapping[str, Any]] | None = None,
        labels: Mapping[str, Any] | None = None,
        reader: str | None = None,
        idempotency_key: str | None = None,
        dry_run: bool | None = None,
    ) -> JobStarted | DryRun: ...
    async def control_job(
        self, *, job: str, action: Literal["cancel", "pause", "resume", "retry"], expected_attempt: int | None = None
    ) -> ControlResult: ...
    async def create_dataset(
        self,
        *,
        name: str,
        source: str | None = None,
        rows: Sequence[Mapping[str, Any]] | None = None,
        modality: str | None = None,
        label: str | None = None,
        labels: Mapping[str, Any] | None = None,
        inputs: Sequence[str] | None = None,
        group_by: str | None = None,
        fractions: Mapping[str, Any] | None = None,
        reader: str | None = None,
        idempotency_key: str | None = None,
        dry_run: bool | None = None,
    ) -> JobStarted | DryRun: ...
    async def curate_dataset(
        self,
        *,
        dataset: str,
        steps: Sequence[Mapping[str, Any]],
        idempotency_key: str | None = None,
        dry_run: bool | None = None,
    ) -> JobStarted | DryRun: ...
    async def define_use_case(
        self,
        *,
        name: str,
        task: str,
        objective: Mapping[str, Any],
        target_column: str | None = None,
        positive_label: str | None = None,
        limits: Mapping[str, Any] | None = None,
        incumbent: str | None = None,
        gates: Sequence[Mapping[str, Any]] | None = None,
        suites: Mapping[str, Any] | None = None,
        description: str | None = None,
        idempotency_key: str | None = None,
    ) -> UseCaseDefined: ...
    async def describe_dataset(
        self,
        *,
        dataset: str | None = None,
        compare_to: str | None = None,
        limit: int | None = None,
        cursor: str | None = None,
    ) -> Shown[DatasetView | DatasetList]: ...
    async def describe_evaluation(
        self,
        *,
        evaluation: str,
        baseline: str | None = None,
        slice_by: str | None = None,
        errors: int | None = None,
        show: Sequence[Literal["confusion", "calibration", "disagreements", "metrics", "all_models", "gaps"]]
        | None = None,
        picture: bool | None = None,
        page: bool | None = None,
    ) -> Shown[EvaluationView]: ...
    async def describe_model(self, *, model: str) -> ModelDescription: ...
    async def evaluate_models(
        self,
        *,
        models: Sequence[str],
        dataset: str | None = None,
        suite: Literal["core", "heldout", "regression"] | None = None,
        use_case: str | None = None,
        metrics: Sequence[str] | None = None,
        scorer: str | None = None,
        judge: Mapping[str, Any] | None = None,
        prompt: Mapping[str, Any] | None = None,
        label_maps: Mapping[str, Any] | None = None,
        prompts: Mapping[str, Any] | None = None,
        repeats: int | None = None,
        latency: bool | None = None,
        budget_usd: float | None = None,
        baselines: Sequence[str] | None = None,
        idempotency_key: str | None = None,
        dry_run: bool | None = None,
    ) -> JobStarted | DryRun: ...
    async def export_dataset(
        self,
        *,
        dataset: str,
        format: str,
        path: str,
        column: str | None = None,
        identified: bool | None = None,
        partial: bool | None = None,
        idempotency_key: str | None = None,
        dry_run: bool | None = None,
    ) -> JobStarted | DryRun: ...
    async def export_evidence(
        self,
        *,
        use_case: str,
        path: str,
        evaluation: str | None = None,
        rows: bool | None = None,
        idempotency_key: str | None = None,
    ) -> Evidence: ...
    async def export_model(
        self,
        *,
        model: str,
        path: str | None = None,
        format: Literal["safetensors", "onnx", "openvino"] | None = None,
        quantize: Literal["none", "int8"] | None = None,
        tolerance: float | None = None,
        idempotency_key: str | None = None,
        dry_run: bool | None = None,
    ) -> JobStarted | DryRun: ...
    async def find_similar(
        self,
        *,
        dataset: str,
        id: str | None = None,
        text: str | None = None,
        extractor: str | None = None,
        k: int | None = None,
    ) -> Shown[SimilarExamples | JobStarted]: ...
    async def get_job(
        self, *, job: str, log_lines: int | None = None, metrics: bool | None = None
    ) -> Shown[JobView]: ...
    async def get_status(self, *, use_case: str | None = None) -> StatusView: ...
    async def label_examples(
        self,
        *,
        dataset: str,
        labels: Sequence[Mapping[str, Any]],
        source: Literal["human", "agent", "model"],
        idempotency_key: str | None = None,
    ) -> LabelResult | JobStarted: ...
    async def list_approvals(
        self,
        *,
        state: Literal["pending", "approved", "denied", "expired", "void"] | None = None,
        limit: int | None = None,
        cursor: str | None = None,
    ) -> Approvals: ...
    async def list_jobs(
        self,
        *,
        state: Literal["waiting", "queued", "starting", "running", "paused", "succeeded", "failed", "cancelled", "dead"]
        | None = None,
        kind: str | None = None,
        use_case: str | None = None,
        limit: int | None = None,
        cursor: str | None = None,
    ) -> JobList: ...
    async def list_options(
        self,
        *,
        kind: Literal[
            "task",
            "metric",
            "method",
            "modality",
            "operation",
            "extractor",
            "format",
            "reward",
            "gym",
            "argument",
            "result",
        ],
        name: str | None = None,
        task: str | None = None,
    ) -> Options: ...
    async def manage_data(
        self,
        *,
        action: Literal["delete", "purge", "gc", "tag", "untag"],
        ref: str | None = None,
        group: str | None = None,
        example: str | None = None,
        tag: str | None = None,
        idempotency_key: str | None = None,
        dry_run: bool | None = None,
    ) -> TagResult | JobStarted | NeedsApproval | DryRun: ...
    async def merge_models(
        self,
        *,
        name: str,
        models: Sequence[str],
        method: Literal["soup", "greedy", "slerp", "task_arithmetic", "ties", "dare"],
        weights: Sequence[float] | None = None,
        dataset: str | None = None,
        hyperparameters: Mapping[str, Any] | None = None,
        idempotency_key: str | None = None,
        dry_run: bool | None = None,
    ) -> JobStarted | DryRun: ...
    async def plan_training(
        self,
        *,
        dataset: str,
        use_case: str | None = None,
        task: str | None = None,
        base_model: str | None = None,
        method: Literal[
            "classical", "probe", "lora", "full", "sft", "dpo", "kto", "orpo", "simpo", "reward", "grpo", "rloo"
        ]
        | None = None,
        budget_minutes: float | None = None,
        measure: bool | None = None,
        idempotency_key: str | None = None,
    ) -> TrainingPlan | JobStarted: ...
    async def predict(
        self,
        *,
        inputs: Sequence[Mapping[str, Any]] | None = None,
        model: str | None = None,
        use_case: str | None = None,
        dataset: str | None = None,
        source: str | None = None,
        path: str | None = None,
        save_as: str | None = None,
        budget_usd: float | None = None,
        entity: str | None = None,
        idempotency_key: str | None = None,
        dry_run: bool | None = None,
    ) -> Predictions | JobStarted | DryRun: ...
    async def preview_dataset(
        self, *, dataset: str, where: str | None = None, ids: Sequence[str] | None = None, count: int | None = None
    ) -> Shown[QueryResult]: ...
    async def promote_model(
        self,
        *,
        use_case: str,
        model: str,
        evaluation: str | None = None,
        expected_current: str | None = None,
        canary_percent: float | None = None,
        note: str | None = None,
        idempotency_key: str | None = None,
        dry_run: bool | None = None,
    ) -> Promotion | DryRun: ...
    async def query_dataset(
        self,
        *,
        dataset: str,
        sql: str | None = None,
        where: str | None = None,
        limit: int | None = None,
        cursor: str | None = None,
    ) -> QueryResult: ...
    async def record_feedback(
        self,
        *,
        source: Literal["human", "agent", "system"],
        prediction: str | None = None,
        label: Any | None = None,
        score: float | None = None,
        drawn: Literal["random", "uncertain", "disagreement"] | None = None,
        new_class: bool | None = None,
        labels: Sequence[Mapping[str, Any]] | None = None,
        idempotency_key: str | None = None,
    ) -> FeedbackRecorded | ManyRecorded: ...
    async def register_model(
        self,
        *,
        name: str,
        source: str | None = None,
        endpoint: Mapping[str, Any] | None = None,
        task: str | None = None,
        license: str | None = None,
        weights_license: str | None = None,
        labels: Mapping[str, Any] | None = None,
        prompts: Sequence[str] | None = None,
        base_model: str | None = None,
        trained_on: Sequence[str] | None = None,
        data_until: str | None = None,
        idempotency_key: str | None = None,
        dry_run: bool | None = None,
    ) -> ModelRegistered | JobStarted | NeedsApproval | DryRun: ...
    async def rollback_model(
        self,
        *,
        use_case: str,
        reason: str,
        expected_current: str | None = None,
        to: str | None = None,
        idempotency_key: str | None = None,
    ) -> RolledBack: ...
    async def search_models(
        self,
        *,
        query: str | None = None,
        task: str | None = None,
        modality: str | None = None,
        sources: Sequence[str] | None = None,
        licenses: Sequence[str] | None = None,
        max_parameters: int | None = None,
        max_usd_per_1m_tokens: float | None = None,
        published: Sequence[Mapping[str, Any]] | None = None,
        installed: bool | None = None,
        released_after: str | None = None,
        use_case: str | None = None,
        children_of: str | None = None,
        sort: Literal["relevance", "published", "parameters", "released", "price"] | None = None,
        limit: int | None = None,
        cursor: str | None = None,
    ) -> FoundModels: ...
    async def specialize(
        self,
        *,
        use_case: str,
        dataset: str,
        budget_minutes: float,
        budget_usd: float | None = None,
        base_models: Sequence[str] | None = None,
        published: Sequence[str] | None = None,
        methods: Sequence[
            Literal[
                "classical", "probe", "lora", "full", "sft", "dpo", "kto", "orpo", "simpo", "reward", "grpo", "rloo"
            ]
        ]
        | None = None,
        order: Sequence[str] | None = None,
        like: str | None = None,
        canary_percent: float | None = None,
        idempotency_key: str | None = None,
        dry_run: bool | None = None,
    ) -> JobStarted | DryRun: ...
    async def train_model(
        self,
        *,
        name: str | None = None,
        dataset: str | None = None,
        method: Literal[
            "classical",
            "probe",
            "lora",
            "full",
            "sft",
            "dpo",
            "kto",
            "orpo",
            "simpo",
            "reward",
            "grpo",
            "rloo",
            "replay",
            "der",
            "lwf",
            "ewc",
            "slda",
            "distill",
        ]
        | None = None,
        base_model: str | None = None,
        use_case: str | None = None,
        task: str | None = None,
        target: str | None = None,
        hyperparameters: Mapping[str, Any] | None = None,
        seed: int | None = None,
        budget_minutes: float | None = None,
        budget_usd: float | None = None,
        resources: Mapping[str, Any] | None = None,
        continue_from: str | None = None,
        teacher: str | Sequence[str] | None = None,
        like: str | None = None,
        idempotency_key: str | None = None,
        dry_run: bool | None = None,
    ) -> JobStarted | DryRun: ...
    async def wait_for_job(
        self, *, job: str, until: Literal["end", "change"] | None = None, timeout_seconds: float | None = None
    ) -> JobView: ...
    async def watch_use_case(
        self,
        *,
        use_case: str,
        triggers: Sequence[Mapping[str, Any]],
        policy: Mapping[str, Any] | None = None,
        enabled: bool | None = None,
        idempotency_key: str | None = None,
    ) -> WatchSet: ...

def connect_async(workspace: str | Path | None = None) -> AsyncClient: ...
