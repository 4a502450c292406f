"""A method for each tool, with its arguments and its result. Made by docs/client_methods.py: `make docs`."""

# mypy: disable-error-code=no-any-return
# An answer is read as what its tool declares, or refused, in client_results.py.
from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from speciate.server.approval_questions import NeedsApproval
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


SHOWS_IMAGES = frozenset(["describe_dataset", "describe_evaluation", "find_similar", "get_job", "preview_dataset"])


class ToolMethods:
    """The tools. What is None is left out. Raises ToolError for what a tool refuses."""

    @abstractmethod
    def _call_typed(self, module: str, tool: str, names: Mapping[str, Any]) -> Any:
        """`names`: the locals of a method that has just begun."""

    def add_examples(
        self,
        *,
        dataset: str,
        source: str | None = None,
        rows: Sequence[Mapping[str, Any]] | None = None,
        labels: Mapping[str, Any] | None = None,
        reader: str | None = None,
        idempotency_key: str | None = None,
        dry_run: bool | None = None,
    ) -> JobStarted | DryRun:
        """Add files or rows to a dataset as its next version; starts a job.

        Known examples are skipped; old ones keep their split. For a new dataset, call create_dataset; to change
            labels,
        label_examples.

        dataset: name, name@v3, name@v3:test.
        source: As of create_dataset.
        rows: Inline rows.
        labels: As of create_dataset: {path, key, column?}.
        reader: As of create_dataset.
        idempotency_key: Safe repeats.
        dry_run: Only estimate.
        """
        return self._call_typed("speciate.tools.datasets", "add_examples", locals())

    def control_job(
        self, *, job: str, action: Literal["cancel", "pause", "resume", "retry"], expected_attempt: int | None = None
    ) -> ControlResult:
        """Cancel, pause, resume or retry a job and its children. A running one ends a moment later: call wait_for_job.

        To take back what a job promoted, call rollback_model.

        job: Its id.
        action: cancel, pause keep a checkpoint.
        expected_attempt: Refused if another runs.
        """
        return self._call_typed("speciate.tools.jobs", "control_job", locals())

    def create_dataset(
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
    ) -> JobStarted | DryRun:
        """Make a dataset (or its next version) from files or rows; starts a job. Afterwards call describe_dataset.

        To add to one, call add_examples; to clean or split it, curate_dataset.

        name: New, or gets its next version.
        source: Folder, file or archive: media, text, CSV, JSON, Parquet, .ts, ARFF, FASTA, PDB, SDF, SMILES, DICOM,
            NIfTI, STL, PLY, LAS, LeRobot, MCAP; hf:, pkg:, gym:, log:USE_CASE.
        rows: Inline rows.
        modality: list_options(kind='modality')
        label: Column, or 'folder'.
        labels: A table: {path, key: its column of file names, of tables the shared one; column?: label, null: join
            only}.
        inputs: Columns that a model may see.
        group_by: Never split apart: column, 'folder', or regex on the path, group 1 the key.
        fractions: {train, validation, test}.
        reader: If the guess is wrong: csv ..., files, wide, long:ID,TIME, csv+long.
        idempotency_key: Safe repeats.
        dry_run: Only estimate.
        """
        return self._call_typed("speciate.tools.datasets", "create_dataset", locals())

    def curate_dataset(
        self,
        *,
        dataset: str,
        steps: Sequence[Mapping[str, Any]],
        idempotency_key: str | None = None,
        dry_run: bool | None = None,
    ) -> JobStarted | DryRun:
        """Make the next version of a dataset by operations (filter, split, deduplicate ...); starts a job.

        For labels of single examples, call label_examples; for new rows, add_examples.

        dataset: name, name@v3 or name@TAG.
        steps: In order, as {op: 'filter', where: 'width > 64'}; list_options(kind='operation').
        idempotency_key: Safe repeats.
        dry_run: Only estimate.
        """
        return self._call_typed("speciate.tools.datasets", "curate_dataset", locals())

    def define_use_case(
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
    ) -> UseCaseDefined:
        """Say what a model must do; starts the clock. A changed repeat makes the next version.

        Loosening asks a person (policy auto: when promoting). Then create_dataset and specialize.

        name: As in NAME@production.
        task: list_options(kind='task').
        objective: {metric: list_options(kind='metric'), target?: else only beat the incumbent, aim?: pass, or best:
            use the whole budget}.
        target_column: Default: the dataset's label.
        positive_label: For recall, precision, f1.
        limits: Caps: {p95_latency_ms (one, warm), usd_per_1k, max_parameters, max_memory_mb, licenses [SPDX],
            offline}.
        incumbent: In use today: a model, or 'column:NAME' of its answers.
        gates: Beside objective and limits.
        suites: Datasets: core (verdicts rest on it), heldout and regression (where a candidate may not be worse).
        description: For people.
        idempotency_key: Safe repeats.
        """
        return self._call_typed("speciate.tools.use_cases", "define_use_case", locals())

    def describe_dataset(
        self,
        *,
        dataset: str | None = None,
        compare_to: str | None = None,
        limit: int | None = None,
        cursor: str | None = None,
    ) -> Shown[DatasetView | DatasetList]:
        """Describe a dataset: splits, labels, quality, columns, history, a chart. Without `dataset`: a list of all.

        For rows, call query_dataset; for media, preview_dataset.

        dataset: name, name@v3, name@v3:test.
        compare_to: An older version: what changed.
        limit: Page size.
        cursor: A next_cursor.
        """
        return self._call_typed("speciate.tools.datasets", "describe_dataset", locals())

    def describe_evaluation(
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
    ) -> Shown[EvaluationView]:
        """Show leaderboard, paired comparisons with intervals, Pareto front, costs and decision of one evaluation.

        To make one, call evaluate_models; describe_model lists those of a model.

        evaluation: Id, of the job's result.
        baseline: Default: the incumbent.
        slice_by: A column of the dataset, or 'label'.
        errors: Worst examples to show.
        show: More than the best 10 models.
        picture: Leaderboard as an image.
        page: Also an HTML file; its path.
        """
        return self._call_typed("speciate.tools.evaluation", "describe_evaluation", locals())

    def describe_model(self, *, model: str) -> ModelDescription:
        """Show a model of this workspace: versions, lineage, evaluations, licence, and whether its files are intact.

        For a published model (hf:, timm:), the facts that search_models has. For its figures, call
            describe_evaluation.

        model: name (newest), name@v3, USE_CASE@production, pkg:NAME, of search_models, prediction.
        """
        return self._call_typed("speciate.tools.models", "describe_model", locals())

    def evaluate_models(
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
    ) -> JobStarted | DryRun:
        """Compare models on unseen examples; starts a job.

        With use_case against its incumbent, with a decision that promote_model takes. To train first, call
            specialize; to
        read the result, describe_evaluation.

        models: Yours, hf:org/name, path:/dir, api:PROVIDER/MODEL, column:NAME, constant:, nearest:, ensemble:A+B,
            code:FILE.py:FUNCTION, inspect:LOG.eval; each gets a verdict, the last goes forward.
        dataset: Its test split, or NAME:SPLIT.
        suite: Of the use case.
        use_case: Adds its incumbent, gates and a decision.
        metrics: Beside the task's: list_options(kind='metric').
        scorer: FILE.py:FUNCTION, package:NAME, likeness:MODEL, code_passes or gym_score.
        judge: A judge.
        prompt: How public models are asked.
        label_maps: {model: {published label: your label}}; dry_run proposes.
        prompts: {zero-shot model: ['a photo of a {label}']}.
        repeats: Of models that answer by chance.
        latency: Measured, one by one.
        budget_usd: A hard stop.
        baselines: Shown beside, without verdict.
        idempotency_key: Safe repeats.
        dry_run: Only estimate.
        """
        return self._call_typed("speciate.tools.evaluation", "evaluate_models", locals())

    def export_dataset(
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
    ) -> JobStarted | DryRun:
        """Write a dataset's usable rows, their media and a card to a new folder; starts a job. Never overwrites.

        To look at rows here, call query_dataset.

        dataset: name, name@v3, name@v3:test.
        format: list_options(kind='format')
        path: New folder.
        column: A model's masks, boxes ... for labels.
        identified: DICOM files keep names of people.
        partial: Also partial rows.
        idempotency_key: Safe repeats.
        dry_run: Only estimate.
        """
        return self._call_typed("speciate.tools.exports", "export_dataset", locals())

    def export_evidence(
        self,
        *,
        use_case: str,
        path: str,
        evaluation: str | None = None,
        rows: bool | None = None,
        idempotency_key: str | None = None,
    ) -> Evidence:
        """Write the decision of a `use_case`, with all it rests on, as one signed bundle that strangers check offline.

        Never overwrites. To read a decision, call describe_evaluation.

        use_case: Whose decision.
        path: New folder.
        evaluation: Default: that of production.
        rows: Also a file of the judged rows.
        idempotency_key: Safe repeats.
        """
        return self._call_typed("speciate.tools.exports", "export_evidence", locals())

    def export_model(
        self,
        *,
        model: str,
        path: str | None = None,
        format: Literal["safetensors", "onnx", "openvino"] | None = None,
        quantize: Literal["none", "int8"] | None = None,
        tolerance: float | None = None,
        idempotency_key: str | None = None,
        dry_run: bool | None = None,
    ) -> JobStarted | DryRun:
        """Write a model to a new folder that answers without speciate; starts a job. Never overwrites.

        safetensors: as transformers has it, if possible; onnx: one graph. Without path, onnx or openvino makes a
        faster version here, gated against its parent. To serve a use case, call promote_model.

        model: name, name@v3, USE_CASE@production or pkg:NAME.
        path: New folder.
        format: openvino: a version here only.
        quantize: Of a version here.
        tolerance: Loss of int8; default: 0.02 or 5 %.
        idempotency_key: Safe repeats.
        dry_run: Only estimate.
        """
        return self._call_typed("speciate.tools.exports", "export_model", locals())

    def find_similar(
        self,
        *,
        dataset: str,
        id: str | None = None,
        text: str | None = None,
        extractor: str | None = None,
        k: int | None = None,
    ) -> Shown[SimilarExamples | JobStarted]:
        """Find the usable examples nearest to an example or a text, with an image.

        A job, where embedding takes long. For rows by condition, call query_dataset.

        dataset: name, name@v3, name@v3:test.
        id: An example; or text.
        text: Words; for images, a caption.
        extractor: list_options(kind='extractor')
        k: How many.
        """
        return self._call_typed("speciate.tools.datasets", "find_similar", locals())

    def get_job(self, *, job: str, log_lines: int | None = None, metrics: bool | None = None) -> Shown[JobView]:
        """Show state, progress, result or error, and log of one job. To wait until it ends, call wait_for_job.

        job: Its id.
        log_lines: The last ones.
        metrics: With learning curves and a plot.
        """
        return self._call_typed("speciate.tools.jobs", "get_job", locals())

    def get_status(self, *, use_case: str | None = None) -> StatusView:
        """Show use cases with clock, production and next call, running jobs, pending approvals, disk: where to begin.

        For one job, call get_job; for datasets, describe_dataset.

        use_case: Default: all.
        """
        return self._call_typed("speciate.tools.status", "get_status", locals())

    def label_examples(
        self,
        *,
        dataset: str,
        labels: Sequence[Mapping[str, Any]],
        source: Literal["human", "agent", "model"],
        idempotency_key: str | None = None,
    ) -> LabelResult | JobStarted:
        """Set labels of single examples: the next version.

        For whole classes, call curate_dataset (relabel); for answers of production, record_feedback.

        dataset: name or name@v3.
        labels: [{id, label}]; label null removes it.
        source: Who gave them.
        idempotency_key: Safe repeats.
        """
        return self._call_typed("speciate.tools.labels", "label_examples", locals())

    def list_approvals(
        self,
        *,
        state: Literal["pending", "approved", "denied", "expired", "void"] | None = None,
        limit: int | None = None,
        cursor: str | None = None,
    ) -> Approvals:
        """List pending and past approvals, with their evidence. To ask for one, call promote_model or manage_data.

        No tool approves: a person runs `speciate approve ID` on a terminal.

        state: Only these.
        limit: Page size.
        cursor: A next_cursor.
        """
        return self._call_typed("speciate.tools.promotion", "list_approvals", locals())

    def list_jobs(
        self,
        *,
        state: Literal["waiting", "queued", "starting", "running", "paused", "succeeded", "failed", "cancelled", "dead"]
        | None = None,
        kind: str | None = None,
        use_case: str | None = None,
        limit: int | None = None,
        cursor: str | None = None,
    ) -> JobList:
        """List jobs, newest first. For progress, result and log of one, call get_job; for a use case, get_status.

        state: Only these.
        kind: ingest, curate, train, evaluate, specialize ...
        use_case: Only jobs for it.
        limit: Page size.
        cursor: A next_cursor.
        """
        return self._call_typed("speciate.tools.jobs", "list_jobs", locals())

    def list_options(
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
    ) -> Options:
        """List the tasks, metrics, methods and other values that arguments take; by name one with its parameters.

        For datasets, call describe_dataset; for models, search_models.

        kind: argument, result: of tools.
        name: This one, with its parameters.
        task: Only what suits this task.
        """
        return self._call_typed("speciate.tools.options", "list_options", locals())

    def manage_data(
        self,
        *,
        action: Literal["delete", "purge", "gc", "tag", "untag"],
        ref: str | None = None,
        group: str | None = None,
        example: str | None = None,
        tag: str | None = None,
        idempotency_key: str | None = None,
        dry_run: bool | None = None,
    ) -> TagResult | JobStarted | NeedsApproval | DryRun:
        """Tag versions, delete unused ones, purge examples everywhere, or free disk space (gc).

        A person approves delete and purge: `speciate approve ID`. dry_run, and the first gc, list what goes. To
            leave rows
        out of one dataset, call curate_dataset.

        action: purge: rows, everywhere.
        ref: Dataset or model, name@v3 one version. Clash: model:NAME.
        group: purge: a group_key of ref.
        example: purge: an id of ref.
        tag: As in dataset@TAG.
        idempotency_key: Safe repeats.
        dry_run: Only estimate.
        """
        return self._call_typed("speciate.tools.data_management", "manage_data", locals())

    def merge_models(
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
    ) -> JobStarted | DryRun:
        """Merge models of one base and task by their weights, without training; starts a job.

        Then call evaluate_models, which also takes the mean of answers: 'ensemble:A+B'.

        name: Gets its next version.
        models: Of one base model.
        method: soup: mean; greedy: of those that help.
        weights: One a model; slerp: shares of two.
        dataset: To choose on; default: of their training.
        hyperparameters: density, scale (ties, dare); seed (dare).
        idempotency_key: Safe repeats.
        dry_run: Only estimate.
        """
        return self._call_typed("speciate.tools.training", "merge_models", locals())

    def plan_training(
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
    ) -> TrainingPlan | JobStarted:
        """List the methods that can be trained on a dataset, with time estimates, and why others cannot.

        Trains nothing: to train, call specialize or train_model.

        dataset: name or name@v3.
        use_case: As of train_model.
        task: As of train_model.
        base_model: As of train_model.
        method: Only this; see train_model.
        budget_minutes: Run time of all jobs.
        measure: By a job: times real steps, if no similar run is known.
        idempotency_key: Safe repeats.
        """
        return self._call_typed("speciate.tools.training", "plan_training", locals())

    def predict(
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
    ) -> Predictions | JobStarted | DryRun:
        """Run inputs through a model or a use case's production model: a few at once, many by a job. To compare
        models, call evaluate_models.

        inputs: Each {text}, {row: {column: value}}, {path}, {data: base64, mime} or {example: id, dataset}, id?.
        model: As of describe_model; or use_case.
        use_case: Its production answers.
        dataset: All its rows, or NAME:test.
        source: csv, jsonl, parquet or folder.
        path: .csv, .jsonl or .parquet.
        save_as: Or a dataset with answers.
        budget_usd: A hard stop.
        entity: Who asks; hashed.
        idempotency_key: Safe repeats.
        dry_run: Only estimate.
        """
        return self._call_typed("speciate.tools.predictions", "predict", locals())

    def preview_dataset(
        self, *, dataset: str, where: str | None = None, ids: Sequence[str] | None = None, count: int | None = None
    ) -> Shown[QueryResult]:
        """Show examples as one image, with their rows in reading order. For rows alone, call query_dataset.

        To see excluded examples, pass `ids` or filter on `quality`.

        dataset: name, name@v3, name@v3:test.
        where: SQL condition.
        ids: These examples.
        count: The first ones.
        """
        return self._call_typed("speciate.tools.datasets", "preview_dataset", locals())

    def promote_model(
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
    ) -> Promotion | DryRun:
        """Let a model that passed its gates serve USE_CASE@production. Without a decision, call evaluate_models first.

        State needs_approval: a person decides on a terminal. The bake rolls it back if it breaks limits;
            rollback_model
        does so now.

        use_case: Which it will serve.
        model: name or name@v3, as evaluated.
        evaluation: With the decision; default: the newest on the core suite.
        expected_current: Believed to serve, or 'nothing'.
        canary_percent: Of a deployment's requests; 100: all.
        note: To the person who approves.
        idempotency_key: Safe repeats.
        dry_run: Only estimate.
        """
        return self._call_typed("speciate.tools.promotion", "promote_model", locals())

    def query_dataset(
        self,
        *,
        dataset: str,
        sql: str | None = None,
        where: str | None = None,
        limit: int | None = None,
        cursor: str | None = None,
    ) -> QueryResult:
        """Query rows of a dataset by SQL, of every quality; of a version range the changed rows.

        To see media, call preview_dataset; for counts, describe_dataset.

        dataset: name, name@v3, name@v3:test; name@v3..v5: changed rows; log:USE_CASE.
        sql: One SELECT over examples (id split label group_key quality reason source, your columns).
        where: SQL condition.
        limit: Default: the LIMIT of sql, else 20.
        cursor: A next_cursor.
        """
        return self._call_typed("speciate.tools.datasets", "query_dataset", locals())

    def record_feedback(
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
    ) -> FeedbackRecorded | ManyRecorded:
        """Say what a logged answer of production should have been, or how good it was. For rows of a dataset, call
        label_examples; what to label next: speciate://use-cases/NAME/queue.

        source: Who says so.
        prediction: Of predict or a deployment.
        label: As outputs of the model are.
        score: Without a label: 1 good, 0 bad.
        drawn: As queued.
        new_class: A class new to the model.
        labels: [{prediction, label, score, drawn, new_class}].
        idempotency_key: Safe repeats.
        """
        return self._call_typed("speciate.tools.predictions", "record_feedback", locals())

    def register_model(
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
    ) -> ModelRegistered | JobStarted | NeedsApproval | DryRun:
        """Make a published model a version here: fetch its weights (a job), or name where others serve it.

        A person approves pytorch_model.bin. No code of a model is run. api:openai/MODEL needs none. To train one,
            call
        specialize.

        name: Gets its next version.
        source: hf:org/name[@REVISION], timm:NAME or path:/dir.
        endpoint: {base_url, model, secret: a stored key, usd_per_1m_input?, usd_per_1m_output?}.
        task: Default: its card's.
        license: SPDX id; default: its card's.
        weights_license: If not the code's.
        labels: {published label: yours}: it answers yours.
        prompts: Zero-shot: 'a photo of a {label}'; 'summarize: {input}'.
        base_model: Of an adapter; default: its own.
        trained_on: Datasets it learned from.
        data_until: Nothing learned is later: '2024-06'.
        idempotency_key: Safe repeats.
        dry_run: Only estimate.
        """
        return self._call_typed("speciate.tools.models", "register_model", locals())

    def rollback_model(
        self,
        *,
        use_case: str,
        reason: str,
        expected_current: str | None = None,
        to: str | None = None,
        idempotency_key: str | None = None,
    ) -> RolledBack:
        """Serve a version again that served before, at once. For a better model instead, call specialize.

        A repeat without expected_current moves nothing.

        use_case: Which it serves.
        reason: Why, for the audit.
        expected_current: Believed to serve; a canary's ends it. Default: promoted last.
        to: Default: the version before.
        idempotency_key: Safe repeats.
        """
        return self._call_typed("speciate.tools.promotion", "rollback_model", locals())

    def search_models(
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
    ) -> FoundModels:
        """Search about 7,000 open and hosted models and your own. Works offline, and fetches nothing.

        For how good they are on your data, call specialize or evaluate_models.

        query: For criteria without an argument.
        task: list_options(kind='task').
        modality: What it takes: image, text ...
        sources: timm, mteb, prices ...; default: all.
        licenses: Allowed SPDX ids.
        max_parameters: As 30000000.
        max_usd_per_1m_tokens: The dearer of input, output.
        published: Must have: [{benchmark, metric, above?, below?}].
        installed: Only what can be used now.
        released_after: 2026 or 2026-07-28.
        use_case: Fills task and limits.
        children_of: A row's ref: its near-copies.
        sort: published: by its first value.
        limit: Page size.
        cursor: A next_cursor.
        """
        return self._call_typed("speciate.tools.models", "search_models", locals())

    def specialize(
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
    ) -> JobStarted | DryRun:
        """Train cheap methods first, compare the best with production, promote it if it passes every gate; one job.

        Needs define_use_case and a dataset with a test split. For one training alone, call train_model.

        use_case: Of define_use_case.
        dataset: name or name@v3.
        budget_minutes: Run time of all jobs.
        budget_usd: For calls to hosted models.
        base_models: Default: by size and modality.
        published: To try as they are: hf:org/name, or 'search'.
        methods: Of train_model's; default: from the cheapest up.
        order: Of ordinal labels, low to high.
        like: A version whose recipe is tried first.
        canary_percent: As of promote_model.
        idempotency_key: Safe repeats.
        dry_run: Only estimate.
        """
        return self._call_typed("speciate.tools.training", "specialize", locals())

    def train_model(
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
    ) -> JobStarted | DryRun:
        """Train one method on a dataset as a job: name, dataset and method, or like. To try several, call specialize.

        Compares nothing: then call evaluate_models.

        name: Gets its next version.
        dataset: name or name@v3.
        method: list_options(kind='method')
        base_model: Yours, pkg:minilm, new:vit, timm:NAME, hf:org/name, path:/dir.
        use_case: Whose task, target and limits hold.
        task: Default: the use case's, else by the labels.
        target: Column to learn; default: the label.
        hyperparameters: list_options(kind='method', name=METHOD).
        seed: Of all draws.
        budget_minutes: Run time of all jobs.
        budget_usd: Of this machine's time.
        resources: {cpu: cores, memory_mb, gpu: count (default: one if any), place: cluster, nodes}.
        continue_from: A version that is trained further.
        teacher: For distill: one or several.
        like: A version whose recipe is repeated, save the other arguments; alone: reproduced.
        idempotency_key: Safe repeats.
        dry_run: Only estimate.
        """
        return self._call_typed("speciate.tools.training", "train_model", locals())

    def wait_for_job(
        self, *, job: str, until: Literal["end", "change"] | None = None, timeout_seconds: float | None = None
    ) -> JobView:
        """Wait until a job ends or changes, at most 45 s; call again if it still runs. To see it now, call get_job.

        job: Its id.
        until: change: the next state, child or checkpoint.
        timeout_seconds: Then: the state so far.
        """
        return self._call_typed("speciate.tools.jobs", "wait_for_job", locals())

    def watch_use_case(
        self,
        *,
        use_case: str,
        triggers: Sequence[Mapping[str, Any]],
        policy: Mapping[str, Any] | None = None,
        enabled: bool | None = None,
        idempotency_key: str | None = None,
    ) -> WatchSet:
        """Keep a use case's model right: look again when a trigger fires, ask for labels, train, propose or promote.

        Replaces its watch. `now` begins one episode. For one run without a watch, call specialize. Then get_status;
            labels
        by record_feedback.

        use_case: With a model in production.
        triggers: {on: new_labels, n}, {on: schedule, cron, zone}; on: data_shift, now, quality_regression,
            limit_breach, requirement_change, new_base_model, provider_change, label_disagreement, recall.
        policy: {action: propose or auto, cooldown_hours; a month: budget_minutes, budget_usd, labels}.
        enabled: false pauses it.
        idempotency_key: Safe repeats.
        """
        return self._call_typed("speciate.tools.watches", "watch_use_case", locals())
