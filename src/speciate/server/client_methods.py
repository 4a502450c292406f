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
    from speciate.tools.predictions import FeedbackRecorded, Predictions
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
        """Add files or rows to a dataset, in the roles of its columns; starts a job that makes the next version.

        Examples that exist already are skipped; old examples keep their split. For a new dataset, call
            create_dataset; to
        change labels, label_examples.

        dataset: `name`, `name@v3` or `name@v3:test`.
        source: As of create_dataset.
        rows: Inline rows.
        labels: As of create_dataset.
        reader: If the guess is wrong: csv, parquet ..., files, wide, long:ID,TIME, csv+long.
        idempotency_key: For safe repeats.
        dry_run: Only check and estimate.
        """
        return self._call_typed("speciate.tools.datasets", "add_examples", locals())

    def control_job(
        self, *, job: str, action: Literal["cancel", "pause", "resume", "retry"], expected_attempt: int | None = None
    ) -> ControlResult:
        """Cancel, pause, resume or retry a job and its children. A running one ends a moment later: call wait_for_job.

        To take back what a job promoted, call rollback_model.

        job: Id, as 'job-...'.
        action: cancel and pause keep a checkpoint; resume continues; retry what failed.
        expected_attempt: Refuse if another attempt runs by now.
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
        reader: str | None = None,
        idempotency_key: str | None = None,
        dry_run: bool | None = None,
    ) -> JobStarted | DryRun:
        """Make a dataset (or its next version) from files or rows; starts a job. Afterwards call describe_dataset.

        To add to one, call add_examples; to clean or split it, curate_dataset.

        name: New, or of a dataset that gets its next version.
        source: Folder, file or archive: images, audio, video, text, CSV, JSON, Parquet, .ts, ARFF, FASTA, PDB, SDF,
            SMILES, DICOM, NIfTI, STL, PLY, LAS, LeRobot, MCAP; hf:, pkg:, gym:, log:USE_CASE.
        rows: Inline rows.
        modality: list_options(kind='modality')
        label: Column, or 'folder'.
        labels: A table of labels, apart from the files.
        inputs: Columns that a model may see.
        group_by: Column, 'folder', or regex over the path, group 1 the key: never split apart.
        reader: If the guess is wrong: csv, parquet ..., files, wide, long:ID,TIME, csv+long.
        idempotency_key: For safe repeats.
        dry_run: Only check and estimate.
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
        steps: In order, such as {op: 'filter', where: 'width > 64'}; ops: list_options(kind='operation').
        idempotency_key: For safe repeats.
        dry_run: Only check and estimate.
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
        """Say what a model must do; starts the clock. Calling it again with changes makes the next version.

        Loosening what is in force needs a person. Then create_dataset and specialize; get_status shows what there
            is.

        name: As in NAME@production.
        task: list_options(kind='task').
        objective: What counts, and how much is enough.
        target_column: Default: the dataset's label.
        positive_label: For recall, precision, f1.
        limits: Caps: p95_latency_ms (one example, warm), usd_per_1k examples, max_parameters, max_memory_mb,
            licenses [SPDX ids], offline.
        incumbent: What is used today: a model, or 'column:NAME' with the answers of that system.
        gates: Beside those of objective and limits.
        suites: core: what verdicts rest on. heldout, regression: where a candidate must besides not be worse.
        description: For people.
        idempotency_key: For safe repeats.
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

        dataset: `name`, `name@v3` or `name@v3:test`.
        compare_to: An older version: what was added, removed, changed.
        limit: Page size.
        cursor: next_cursor of the page before.
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

        evaluation: Id, as in the result of the job.
        baseline: Default: the incumbent.
        slice_by: A column of the dataset, or 'label'.
        errors: How many of the worst examples to show.
        show: More than the best 10 models and their main metric.
        picture: With the leaderboard as an image.
        page: Also as an HTML file for people; its path.
        """
        return self._call_typed("speciate.tools.evaluation", "describe_evaluation", locals())

    def describe_model(self, *, model: str) -> ModelDescription:
        """Show a model of this workspace: versions, lineage, evaluations, licence, and whether its files are intact.

        For a published model (hf:, timm:), the facts that search_models has. For its figures, call
            describe_evaluation.

        model: name, name@v3, USE_CASE@production, pkg:NAME, a ref of search_models; a prediction.
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
        """Compare models on examples that they have not seen; starts a job.

        With use_case also against its incumbent, with a decision that promote_model takes. To train first, call
            specialize;
        to read the result, describe_evaluation.

        models: Refs (published ones too: 'hf:org/name', 'path:/dir'), 'api:PROVIDER/MODEL', 'column:NAME',
            'constant:', 'nearest:', 'ensemble:A+B', 'code:FILE.py:FUNCTION' or 'inspect:LOG.eval'; each gets a
            verdict, the last is put forward.
        dataset: Its test split unless another is named.
        suite: Of the use case.
        use_case: Adds its incumbent, gates and a decision.
        metrics: Beside the task's: list_options(kind='metric').
        scorer: FILE.py:FUNCTION, package:NAME, likeness:MODEL, code_passes or gym_score.
        judge: A model that judges answers, as a metric.
        prompt: How public models are asked.
        label_maps: {model: {published label: your label}}; dry_run proposes.
        prompts: {model: ['a photo of a {label}']}, of zero-shot models.
        repeats: Of models that may answer otherwise each time.
        latency: Measure it, one example at a time.
        budget_usd: A hard stop.
        baselines: Shown beside: no verdict, no wider intervals.
        idempotency_key: For safe repeats.
        dry_run: Only check and estimate.
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

        dataset: `name`, `name@v3` or `name@v3:test`.
        format: list_options(kind='format')
        path: New folder.
        column: Masks, boxes, transcripts, actions: a model's answers; default: labels.
        identified: DICOM files leave with the names of people in them.
        partial: Also partial rows, such as series that lack a slice.
        idempotency_key: For safe repeats.
        dry_run: Only check and estimate.
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
        """Write one signed bundle of what a decision rests on, and a script that strangers check it with, offline.

        Gates, intervals, requirements, digests of rows and model files, data manifests, approvals, audit. Never
            overwrites.
        To read a decision, call describe_evaluation.

        use_case: Whose decision.
        path: New folder.
        evaluation: Default: what production rests on.
        rows: Also ids, references and groups of judged rows, in a file.
        idempotency_key: For safe repeats.
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
        """Write a model and its card to a new folder that answers without speciate; starts a job. Never overwrites.

        safetensors: in transformers' format if possible, and register_model(source='path:...') takes it back; onnx:
            one
        graph. Without path, onnx or openvino makes a new version here instead (NAME-onnx-int8), which may answer
            faster, if
        it passes gates against its parent. To serve a use case, call promote_model.

        model: name, name@v3, USE_CASE@production or pkg:NAME.
        path: New folder; for safetensors and onnx.
        format: openvino: a version here only.
        quantize: Only of a version here.
        tolerance: Of the metric, for int8; default: 0.02 or 5 %.
        idempotency_key: For safe repeats.
        dry_run: Only check and estimate.
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

        If embedding takes long, a job does it, and the last of next_actions is this call. For rows by condition,
            call
        query_dataset.

        dataset: `name`, `name@v3` or `name@v3:test`.
        id: An example; or text.
        text: Words; for images, a caption.
        extractor: list_options(kind='extractor')
        k: How many.
        """
        return self._call_typed("speciate.tools.datasets", "find_similar", locals())

    def get_job(self, *, job: str, log_lines: int | None = None, metrics: bool | None = None) -> Shown[JobView]:
        """Show state, progress, result or error, and log of one job. To wait until it ends, call wait_for_job.

        job: Id, as 'job-...'.
        log_lines: The last ones.
        metrics: With the learning curves, also as a plot.
        """
        return self._call_typed("speciate.tools.jobs", "get_job", locals())

    def get_status(self, *, use_case: str | None = None) -> StatusView:
        """Show use cases with clock, production and next call, running jobs, pending approvals, disk: where to begin.

        For one job, call get_job; for datasets, describe_dataset.

        use_case: That one alone; default: all.
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

        For whole classes, call curate_dataset(steps=[{'op': 'relabel'}]); for answers of production,
            record_feedback.

        dataset: `name` or `name@v3`.
        labels: `label` null removes it.
        source: Who gave them.
        idempotency_key: For safe repeats.
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
        cursor: next_cursor of the page before.
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
        kind: Such as ingest, curate, train, evaluate, specialize.
        use_case: Only jobs for it.
        limit: Page size.
        cursor: next_cursor of the page before.
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
        name: This one alone, with the schema of its parameters.
        task: Only options that suit this task.
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

        A person approves delete and purge on a terminal: `speciate approve ID`. dry_run lists the removed data; so
            does the
        first gc in a workspace. To leave rows out of one dataset, call curate_dataset.

        action: purge: rows, in every version and export.
        ref: Dataset or model; `name@v3` one version. Clash: `model:NAME`.
        group: purge: value of group_key in dataset ref.
        example: purge: id in dataset ref.
        tag: A name, used as `dataset@TAG`.
        idempotency_key: For safe repeats.
        dry_run: Only check and estimate.
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
        """Make one model of several of one base and task by their weights, without training; starts a job.

        Then call evaluate_models, which also takes the mean of answers: 'ensemble:A+B'.

        name: The merge gets the next version of this name.
        models: Trained here from one base model.
        method: soup: mean; greedy: of those that help on validation.
        weights: One a model; slerp: shares of two.
        dataset: To choose and measure on; default: the dataset that all were trained on.
        hyperparameters: density, scale (ties, dare); seed (dare).
        idempotency_key: For safe repeats.
        dry_run: Only check and estimate.
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
        use_case: Whose task, target column and limits hold.
        task: Default: the use case's, else what the labels look like.
        base_model: pkg:minilm, new:vit, timm:NAME, hf:org/name, path:/dir or a model of yours.
        method: Only this one.
        budget_minutes: Of run time, all jobs together.
        measure: Start a job that measures real steps on a sample, if no similar run is known.
        idempotency_key: For safe repeats.
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
        idempotency_key: str | None = None,
        dry_run: bool | None = None,
    ) -> Predictions | JobStarted | DryRun:
        """Run inputs through a model, or through a use case's production model: a few at once, all of a dataset or
            file by
        a job. To compare models, call evaluate_models.

        inputs: Each one of {text}, {row: {column: value}}, {path}, {data: base64, mime}, {example: id, dataset};
            with id, if given.
        model: As of describe_model; or use_case.
        use_case: Its production model answers.
        dataset: All its rows, or NAME:test; starts a job.
        source: All rows of a csv, jsonl or parquet, or a folder's files; starts a job.
        path: Of the job: new .csv, .jsonl or .parquet.
        save_as: Instead: dataset for rows with answers.
        budget_usd: Of the job: a hard stop.
        idempotency_key: For safe repeats.
        dry_run: Only check and estimate.
        """
        return self._call_typed("speciate.tools.predictions", "predict", locals())

    def preview_dataset(
        self, *, dataset: str, where: str | None = None, ids: Sequence[str] | None = None, count: int | None = None
    ) -> Shown[QueryResult]:
        """Show examples as one image, with their rows in reading order. For rows alone, call query_dataset.

        To see excluded examples, pass `ids` or filter on `quality`.

        dataset: `name`, `name@v3` or `name@v3:test`.
        where: SQL condition.
        ids: These examples.
        count: How many, the first ones.
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
        """Let a version that passed its gates serve USE_CASE@production. Without a decision, call evaluate_models
            first.

        Rests on `evaluation`, else on the newest decision on the core suite. State needs_approval: a person decides
            on a
        terminal. The bake watches it, and rolls it back if it breaks limits; rollback_model does so now.

        use_case: Which it will serve.
        model: name or name@v3, as evaluated.
        evaluation: Id of that with the decision.
        expected_current: Version believed to serve, or 'nothing'.
        canary_percent: Share of a deployment's requests, beside production; 100: all.
        note: To the person who approves.
        idempotency_key: For safe repeats.
        dry_run: Only check and estimate.
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

        A range adds the columns `change` and `label_before`. To see media, call preview_dataset; for counts,
        describe_dataset.

        dataset: `name`, `name@v3`, `name@v3:test`; `name@v3..v5`: changed rows; `log:USE_CASE`.
        sql: One SELECT over examples (id split label group_key quality reason source, your columns).
        where: SQL condition.
        limit: Page size; default: the LIMIT of sql, else 20.
        cursor: next_cursor of the page before.
        """
        return self._call_typed("speciate.tools.datasets", "query_dataset", locals())

    def record_feedback(
        self,
        *,
        prediction: str,
        source: Literal["human", "agent", "system"],
        label: Any | None = None,
        score: float | None = None,
        drawn: Literal["random", "uncertain", "disagreement"] | None = None,
        new_class: bool | None = None,
        idempotency_key: str | None = None,
    ) -> FeedbackRecorded:
        """Say what a logged answer of production should have been, or how good it was. For rows of a dataset, call
        label_examples; what to label next: speciate://use-cases/NAME/queue.

        prediction: Of predict or a deployment.
        source: Who says so.
        label: What it should have been: as outputs of the model are.
        score: Where no label fits: 1 good, 0 bad.
        drawn: As the label queue says.
        new_class: The label is a class that the model does not know yet.
        idempotency_key: For safe repeats.
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

        pytorch_model.bin is converted once a person approved it. No code of a model is run. api:openai/MODEL needs
            no
        registration. To train one, call specialize.

        name: The model gets the next version of this name.
        source: hf:org/name[@REVISION], timm:NAME or path:/dir.
        endpoint: Where others serve it. secret names a stored key, never is one.
        task: Default: its card's; of an endpoint, any.
        license: SPDX id; default: its card's.
        weights_license: If not the code's.
        labels: {published label: yours}: it answers yours.
        prompts: 'a photo of a {label}', of a zero-shot model; 'summarize: {input}'.
        base_model: Of an adapter; default: the one it names.
        trained_on: Datasets it is said to have learned from.
        data_until: Nothing there is later: '2024-06'.
        idempotency_key: For safe repeats.
        dry_run: Only check and estimate.
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
        expected_current: Version believed to serve; a canary's ends it. Default: what was promoted last.
        to: Default: the version before.
        idempotency_key: For safe repeats.
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
        licenses: Allowed, SPDX ids; unknown ones are not.
        max_parameters: As 30000000; unknown sizes are left out.
        max_usd_per_1m_tokens: The dearer of input and output; open weights pass.
        published: Values that it must have: [{benchmark, metric, above?, below?}].
        installed: Only what can be used now.
        released_after: 2026, 2026-07 or 2026-07-28.
        use_case: Fills task and limits.
        children_of: A row's ref: it and its children.
        sort: published: by the first value of that argument.
        limit: Page size.
        cursor: next_cursor of the page before.
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
        budget_minutes: Of run time, all jobs together.
        budget_usd: For calls to hosted models.
        base_models: Refs; default: chosen by size and modality.
        published: To try as they are: hf:org/name, or 'search'.
        methods: Default: from the cheapest up.
        order: Ordinal labels from low to high.
        like: A version whose recipe is tried first.
        canary_percent: As of promote_model.
        idempotency_key: For safe repeats.
        dry_run: Only check and estimate.
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

        name: The model gets the next version of this name.
        dataset: name or name@v3.
        method: list_options(kind='method')
        base_model: pkg:minilm, new:vit, timm:NAME, hf:org/name, path:/dir or a model of yours.
        use_case: Whose task, target column and limits hold.
        task: Default: the use case's, else what the labels look like.
        target: Column to learn; default: the label.
        hyperparameters: Of the method: list_options(kind='method', name=METHOD).
        seed: Of all that is drawn.
        budget_minutes: Of run time, all jobs together.
        budget_usd: Of this machine's time.
        resources: What it may use.
        continue_from: A model version whose network is trained further.
        teacher: For distill: one model, or several.
        like: A model version whose recipe is repeated, except for the other arguments; alone: reproduced.
        idempotency_key: For safe repeats.
        dry_run: Only check and estimate.
        """
        return self._call_typed("speciate.tools.training", "train_model", locals())

    def wait_for_job(
        self, *, job: str, until: Literal["end", "change"] | None = None, timeout_seconds: float | None = None
    ) -> JobView:
        """Wait until a job ends or changes, at most 45 s; call again if it still runs. To see it now, call get_job.

        job: Id, as 'job-...'.
        until: change: the next state, child or checkpoint.
        timeout_seconds: Then the answer is the state so far.
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

        Replaces the watch that it had. `now` begins one episode. For one run without a watch, call specialize. Then
        get_status; labels by record_feedback.

        use_case: With a model in production.
        triggers: [{on: new_labels, n}, {on: schedule, cron, zone}, {on: data_shift}]; on: now, quality_regression,
            limit_breach, requirement_change, new_base_model, provider_change, label_disagreement, recall.
        policy: What a watch may do by itself. Caps of the settings hold besides.
        enabled: false pauses it.
        idempotency_key: For safe repeats.
        """
        return self._call_typed("speciate.tools.watches", "watch_use_case", locals())
