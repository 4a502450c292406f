"""The tasks and metrics that there are, as data: what `list_options` shows and every spec is checked against.

A metric is a *mean* where each example has a score of its own (then differences pair up example by example), and a
*corpus* metric where only all examples together have one (then resampling gives its uncertainty).
"""

from __future__ import annotations

from typing import Literal, NamedTuple

from speciate.errors import unknown

Family = Literal["classification", "regression"]

MODALITIES = (
    "text", "tabular", "image", "audio", "time-series", "video", "mesh", "point-cloud", "dicom", "nifti", "protein",
    "molecule", "episode", "multimodal",
)  # fmt: skip
_PREFIXES = (
    "text", "tabular", "image", "audio", "time-series", "video", "mesh", "point-cloud", "volume", "protein",
    "multimodal",
)  # fmt: skip
_DEFAULT_METRIC: dict[Family, str] = {"classification": "accuracy", "regression": "mae"}


class Task(NamedTuple):
    name: str
    modality: str
    family: Family
    default_metric: str
    what: str


class Metric(NamedTuple):
    """`low` and `high` bound the values (None: no bound); `positive`: is about one label that must be named."""

    name: str
    family: Family
    better: Literal["higher", "lower"]
    shape: Literal["mean", "corpus"]
    low: float | None
    high: float | None
    what: str
    positive: bool = False
    probabilities: bool = False
    """Needs the model's probabilities; an answer without them counts as certain."""

    @property
    def sign(self) -> int:
        """+1 where more is better, else -1: `sign * difference` is an improvement where it is positive."""
        return 1 if self.better == "higher" else -1

    @property
    def bounded(self) -> bool:
        return self.low is not None and self.high is not None

    @property
    def is_share(self) -> bool:
        """Whether it lies between 0 and 1, so that a perfect value on few examples still needs an interval."""
        return (self.low, self.high) == (0, 1)


def _task(prefix: str, family: Family) -> Task:
    what = "one label per example" if family == "classification" else "one number per example"
    return Task(f"{prefix}-{family}", prefix, family, _DEFAULT_METRIC[family], what)


TASKS: dict[str, Task] = {
    task.name: task
    for task in (
        *(_task(prefix, "classification") for prefix in _PREFIXES),
        *(_task(prefix, "regression") for prefix in _PREFIXES),
    )
}

METRICS: dict[str, Metric] = {
    metric.name: metric
    for metric in (
        Metric("accuracy", "classification", "higher", "mean", 0, 1, "share of right answers"),
        Metric("balanced_accuracy", "classification", "higher", "corpus", 0, 1, "mean of the labels' recalls"),
        Metric("f1_macro", "classification", "higher", "corpus", 0, 1, "mean of the labels' F1"),
        Metric("mcc", "classification", "higher", "corpus", -1, 1, "Matthews correlation; 0 is chance"),
        Metric("recall", "classification", "higher", "mean", 0, 1, "share of positives found", positive=True),
        Metric("specificity", "classification", "higher", "mean", 0, 1, "share of negatives left alone", positive=True),
        Metric("precision", "classification", "higher", "corpus", 0, 1, "share of true alarms", positive=True),
        Metric("f1", "classification", "higher", "corpus", 0, 1, "harmonic mean of the two", positive=True),
        Metric(
            "auroc", "classification", "higher", "corpus", 0, 1,
            "area under the ROC curve: of the positive label, else one-versus-rest, averaged", probabilities=True,
        ),
        Metric(
            "auprc", "classification", "higher", "corpus", 0, 1,
            "average precision: of the positive label, else one-versus-rest, averaged", probabilities=True,
        ),
        Metric(
            "log_loss", "classification", "lower", "mean", 0, None,
            "mean of -log of the probability given to the truth, in nats", probabilities=True,
        ),
        Metric("mae", "regression", "lower", "mean", 0, None, "mean absolute error, in the label's unit"),
        Metric("rmse", "regression", "lower", "corpus", 0, None, "root of the mean squared error, in the label's unit"),
        Metric("r2", "regression", "higher", "corpus", None, 1, "share of the variance that is explained"),
    )
}  # fmt: skip


def find_task(name: str) -> Task:
    """The task of this name, or NOT_FOUND with near names."""
    if name not in TASKS:
        raise unknown("task", name, TASKS, "Call list_options(kind='task').")
    return TASKS[name]


def find_metric(name: str) -> Metric:
    """The metric of this name, or NOT_FOUND with near names."""
    if name not in METRICS:
        raise unknown("metric", name, METRICS, "Call list_options(kind='metric').")
    return METRICS[name]


def metrics_of(family: Family, positive_label: str | None = None) -> list[str]:
    """Names of the metrics that this family of tasks can be measured by, given what is known of it."""
    return [
        name
        for name, metric in METRICS.items()
        if metric.family == family and (positive_label is not None or not metric.positive)
    ]
