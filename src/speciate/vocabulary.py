"""The tables of tasks and metrics: `list_options` shows them, and every spec is checked against them.

A metric is a *mean* where each example has a score of its own (then differences pair up example by example), and a
*corpus* metric where only all examples together have one (then resampling gives its uncertainty).
"""

from __future__ import annotations

import re
from functools import cache
from importlib.metadata import entry_points
from typing import Literal, NamedTuple

from speciate.errors import Call, unknown

Family = Literal[
    "classification", "ordinal", "anomaly",  # one label
    "regression",  # one number
    "multi-label", "tokens", "detection", "segmentation", "panoptic", "depth", "transcription", "retrieval",
    "forecasting", "control",  # more than that
    "generation",  # a text
    "image-generation",  # an image
    "speech-synthesis",  # audio
]  # fmt: skip

MODALITIES = (
    "text", "tabular", "image", "audio", "time-series", "video", "mesh", "point-cloud", "dicom", "nifti", "protein",
    "molecule", "episode", "multimodal",
)  # fmt: skip
MODALITY_GROUP = "speciate.modalities"
"""Entry point group in which packages of third parties bring modalities: name = "module:object"."""
_PREFIXES = (
    "text", "tabular", "image", "audio", "time-series", "video", "mesh", "point-cloud", "volume", "protein",
    "molecule", "multimodal",
)  # fmt: skip
_VOLUMES = ("dicom", "nifti")


class Task(NamedTuple):
    name: str
    modalities: tuple[str, ...]
    family: Family
    default_metric: str
    what: str
    reads: str | None = None
    """What a model sees, where that is another modality than the dataset's: the caption of an image."""

    def suits(self, modality: str) -> bool:
        return modality in self.modalities or (self.modalities == MODALITIES and modality in third_parties())


Middle = Literal["mean", "median", "weighted median", "middle of the shortest half"]


class Metric(NamedTuple):
    """`low` and `high` bound the values (None: no bound); `positive`: is about one label that must be named."""

    name: str
    families: tuple[Family, ...]
    better: Literal["higher", "lower"]
    shape: Literal["mean", "corpus"]
    low: float | None
    high: float | None
    what: str
    positive: bool = False
    probabilities: bool = False
    """Needs the model's probabilities; an answer without them counts as certain."""
    library: str | None = None
    """Computes it, and comes with an extra."""
    chosen_by: str | None = None
    """What a training chooses by in its place, where more than answers is needed: a model must act."""
    counts_right: bool = False
    """A share of right answers: labels that people give in production estimate it."""
    seeks_positives: bool = False
    """Whether the positive label is the best of the answers that are the same for all: another one scores 0."""
    middle: Middle = "mean"
    """Which number has the least error where it is the answer to everything."""

    @property
    def plain(self) -> str:
        """Its name in a sentence: `macro F1`."""
        return self.name if "@" in self.name else _PLAIN.get(self.name, self.name.replace("_", " "))

    @property
    def sign(self) -> int:
        """+1 where more is better, else -1: `sign * difference` is an improvement where it is positive."""
        return 1 if self.better == "higher" else -1

    @property
    def is_absolute(self) -> bool:
        """Whether it is about absolute errors: what learns by squared ones is far worse with heavy tails."""
        return self.middle != "mean"

    @property
    def bounded(self) -> bool:
        return self.low is not None and self.high is not None

    @property
    def is_share(self) -> bool:
        """Whether it lies between 0 and 1, so that a perfect value on few examples still needs an interval."""
        return (self.low, self.high) == (0, 1)


_PER_PREFIX: tuple[tuple[str, Family, str, str], ...] = (
    ("classification", "classification", "accuracy", "one label per example"),
    ("multi-label-classification", "multi-label", "f1_micro", "any number of labels per example"),
    ("ordinal-classification", "ordinal", "rank_error", "one label per example, of labels that have an order"),
    ("regression", "regression", "mae", "one number per example"),
)
_OTHERS = (
    Task("token-classification", ("text", "protein"), "tokens", "token_accuracy", "a tag per word or residue"),
    Task("object-detection", ("image",), "detection", "map_50", "boxes with labels"),
    Task("image-segmentation", ("image",), "segmentation", "dice", "a label per pixel"),
    Task("panoptic-segmentation", ("image",), "panoptic", "pq", "a mask with a label per thing"),
    Task("depth-estimation", ("image",), "depth", "abs_rel", "how far away each pixel is"),
    Task("volume-segmentation", _VOLUMES, "segmentation", "dice", "a label per voxel"),
    Task("automatic-speech-recognition", ("audio",), "transcription", "wer", "the text that is spoken"),
    Task("feature-extraction", MODALITIES, "retrieval", "recall_at_1", "a vector; what belongs together lies near"),
    Task("time-series-forecasting", ("time-series",), "forecasting", "mase", "the next steps of a series"),
    Task("behaviour-cloning", ("episode",), "control", "action_mae", "the action at each step, from what is seen then"),
    Task("text-generation", ("text",), "generation", "exact_match", "a text in answer to a text"),
    Task("preference", ("text",), "classification", "accuracy", "which of two answers to a text is better"),
    Task("image-text-to-text", ("image", "multimodal"), "generation", "exact_match", "a text in answer to an image"),
    Task(
        "text-to-image",
        ("image",),
        "image-generation",
        "frechet_distance",
        "an image in answer to a text",
        reads="text",
    ),
    Task(
        "text-to-speech",
        ("audio",),
        "speech-synthesis",
        "mel_cepstral_distortion",
        "speech in answer to a text",
        reads="text",
    ),
    Task("anomaly-detection", MODALITIES, "anomaly", "auroc", "whether an example is unlike the normal ones"),
)
RECALL_AT_PRECISIONS = (90, 95, 99)
"""In percent: a metric `recall_at_precision_90` and so on for each."""
_ONE_LABEL: tuple[Family, ...] = ("classification", "ordinal", "anomaly")


def _modalities_of(prefix: str) -> tuple[str, ...]:
    return _VOLUMES if prefix == "volume" else (prefix,)


TASKS: dict[str, Task] = {
    task.name: task
    for task in (
        *(
            Task(f"{prefix}-{suffix}", _modalities_of(prefix), family, metric, what)
            for suffix, family, metric, what in _PER_PREFIX
            for prefix in _PREFIXES
        ),
        *_OTHERS,
    )
}

METRICS: dict[str, Metric] = {
    metric.name: metric
    for metric in (
        Metric(
            "accuracy", ("classification", "ordinal"), "higher", "mean", 0, 1,
            "share of right answers", counts_right=True,
        ),
        Metric(
            "balanced_accuracy", _ONE_LABEL, "higher", "corpus", 0, 1, "mean of the labels' recalls"
        ),
        Metric(
            "f1_macro", ("classification", "ordinal"), "higher", "corpus", 0, 1,
            "mean of the labels' F1, rare ones alike",
        ),
        Metric("mcc", _ONE_LABEL, "higher", "corpus", -1, 1, "Matthews correlation; 0 is chance"),
        Metric(
            "recall", _ONE_LABEL, "higher", "mean", 0, 1,
            "share of positives found", positive=True, seeks_positives=True,
        ),
        Metric("specificity", _ONE_LABEL, "higher", "mean", 0, 1, "share of negatives left alone", positive=True),
        Metric(
            "precision", _ONE_LABEL, "higher", "corpus", 0, 1,
            "share of true alarms", positive=True, seeks_positives=True,
        ),
        Metric(
            "f1", _ONE_LABEL, "higher", "corpus", 0, 1,
            "harmonic mean of precision and recall of the positive label", positive=True, seeks_positives=True,
        ),
        Metric(
            "auroc", _ONE_LABEL, "higher", "corpus", 0, 1,
            "area under the ROC curve: of the positive label, else one-versus-rest, averaged", probabilities=True,
        ),
        Metric(
            "auprc", _ONE_LABEL, "higher", "corpus", 0, 1,
            "average precision: of the positive label, else one-versus-rest, averaged", probabilities=True,
        ),
        Metric(
            "log_loss", _ONE_LABEL, "lower", "mean", 0, None,
            "mean of -log of the probability of the label, in nats", probabilities=True,
        ),
        *(
            Metric(
                f"recall_at_precision_{percent}", _ONE_LABEL, "higher", "corpus", 0, 1,
                f"share of positives found at the best threshold whose alarms are true {percent} times in a hundred",
                positive=True, probabilities=True,
            )
            for percent in RECALL_AT_PRECISIONS
        ),
        Metric(
            "brier", _ONE_LABEL, "lower", "mean", 0, 1,
            "half the squared distance between the probabilities and the label", probabilities=True,
        ),
        Metric(
            "ece", _ONE_LABEL, "lower", "corpus", 0, 1,
            "expected calibration error of the label that is given: 15 bins of equally many examples",
            probabilities=True,
        ),
        Metric(
            "top_5_accuracy", ("classification", "ordinal"), "higher", "mean", 0, 1,
            "share whose label is among the five most probable ones", probabilities=True,
        ),
        Metric(
            "cohen_kappa", _ONE_LABEL, "higher", "corpus", -1, 1,
            "Cohen's kappa: agreement beyond that of chance; 0 is chance",
        ),
        Metric("rank_error", ("ordinal",), "lower", "mean", 0, None, "mean number of ranks between answer and label"),
        Metric(
            "quadratic_kappa", ("ordinal",), "higher", "corpus", -1, 1,
            "Cohen's kappa with squared ranks between answer and label as weights; 0 is chance",
        ),
        Metric(
            "mae", ("regression",), "lower", "mean", 0, None,
            "mean absolute error, in the label's unit", middle="median",
        ),
        Metric(
            "rmse", ("regression",), "lower", "corpus", 0, None, "root of the mean squared error, in the label's unit"
        ),
        Metric("r2", ("regression",), "higher", "corpus", None, 1, "share of the variance that is explained"),
        Metric("pearson", ("regression",), "higher", "corpus", -1, 1, "linear correlation of answers and targets"),
        Metric("spearman", ("regression",), "higher", "corpus", -1, 1, "correlation of their ranks"),
        Metric(
            "mape", ("regression",), "lower", "mean", 0, None,
            "mean absolute error as a share of the target; a target of 0 is not counted",
            middle="weighted median",
        ),
        Metric(
            "median_ae", ("regression",), "lower", "corpus", 0, None, "median absolute error, in the label's unit",
            middle="middle of the shortest half",
        ),
        Metric("subset_accuracy", ("multi-label",), "higher", "mean", 0, 1, "share with exactly the right labels"),
        Metric("f1_micro", ("multi-label",), "higher", "corpus", 0, 1, "F1 over all pairs of example and label"),
        Metric(
            "f1_macro_labels", ("multi-label",), "higher", "corpus", 0, 1,
            "mean of the labels' F1; a row has any number of labels",
        ),
        Metric("hamming_loss", ("multi-label",), "lower", "mean", 0, 1, "share of wrong pairs of example and label"),
        Metric("token_accuracy", ("tokens",), "higher", "corpus", 0, 1, "share of right tags"),
        Metric("f1_spans", ("tokens",), "higher", "corpus", 0, 1, "F1 of spans with their tag, whole spans only"),
        Metric(
            "map_50", ("detection",), "higher", "corpus", 0, 1,
            "mean over the labels of average precision, a box being found at an overlap (IoU) of 0.5",
        ),
        Metric(
            "map", ("detection",), "higher", "corpus", 0, 1,
            "the same, its mean over overlaps of 0.5, 0.55 and so on to 0.95, as COCO has it",
        ),
        Metric("dice", ("segmentation",), "higher", "mean", 0, 1, "2 |A and B| / (|A| + |B|), mean over labels"),
        Metric("mean_iou", ("segmentation",), "higher", "mean", 0, 1, "|A and B| / |A or B|, mean over labels"),
        Metric("pixel_accuracy", ("segmentation",), "higher", "mean", 0, 1, "share of right pixels, background too"),
        Metric(
            "hausdorff_95", ("segmentation",), "lower", "mean", 0, None,
            "the larger way from either border to the other, of 95 % of its pixels, in pixels, or in millimetres of "
            "volumes; mean over labels",
        ),
        Metric(
            "pq", ("panoptic",), "higher", "corpus", 0, 1,
            "panoptic quality (Kirillov et al. 2019): found segments times their overlap (IoU), mean over labels",
        ),
        Metric(
            "abs_rel", ("depth",), "lower", "mean", 0, None,
            "absolute error as a share of the reference's depth; relative answers get its scale and shift first",
        ),
        Metric(
            "delta_1", ("depth",), "higher", "mean", 0, 1,
            "share of pixels within a factor of 1.25 of the reference's depth; relative answers as for abs_rel",
        ),
        Metric(
            "wer", ("transcription",), "lower", "corpus", 0, None, "word errors per word of the reference",
            library="jiwer",
        ),
        Metric(
            "wer_normalized", ("transcription",), "lower", "corpus", 0, None,
            "word errors after both sides lose case and punctuation and get their numerals as words", library="jiwer",
        ),
        Metric(
            "cer", ("transcription",), "lower", "corpus", 0, None, "character errors per character of the reference",
            library="jiwer",
        ),
        Metric(
            "recall_at_1", ("retrieval",), "higher", "mean", 0, 1,
            "share whose nearest other example has the same label; no other has it: not counted",
        ),
        Metric(
            "recall_at_5", ("retrieval",), "higher", "mean", 0, 1,
            "share with one of the same label among the five nearest others; no other has it: not counted",
        ),
        Metric(
            "ndcg_at_10", ("retrieval",), "higher", "mean", 0, 1,
            "normalised discounted cumulative gain of the ten nearest others; no other has the label: not counted",
        ),
        Metric(
            "map_at_10", ("retrieval",), "higher", "mean", 0, 1,
            "average precision of the ten nearest others; no other has the label: not counted",
        ),
        Metric("forecast_mae", ("forecasting",), "lower", "mean", 0, None, "mean absolute error of the steps to come"),
        Metric(
            "mase", ("forecasting",), "lower", "mean", 0, None,
            "absolute error over that of repeating the last step within the series (Hyndman & Koehler 2006)",
        ),
        Metric(
            "forecast_rmse", ("forecasting",), "lower", "corpus", 0, None,
            "root of the mean squared error of the steps to come",
        ),
        Metric(
            "smape", ("forecasting",), "lower", "mean", 0, 2,
            "absolute error over the mean size of answer and target (Makridakis et al. 2020), as a share",
        ),
        Metric(
            "action_mae", ("control",), "lower", "mean", 0, None,
            "mean absolute error of the actions of an episode, in their own unit",
        ),
        Metric("action_mse", ("control",), "lower", "mean", 0, None, "mean squared error of the actions of an episode"),
        Metric(
            "success_rate", ("control",), "higher", "mean", 0, 1,
            "share of episodes that end in success when the model acts, from the seed in the column `seed` of the "
            "environment in the column `environment`; others are not counted",
            chosen_by="action_mae",
        ),
        Metric("exact_match", ("generation",), "higher", "mean", 0, 1, "share with exactly the text, blanks aside"),
        Metric(
            "anls", ("generation",), "higher", "mean", 0, 1,
            "1 less the edit distance as a share of the longer text, case aside, and 0 from one half on: of questions "
            "about documents (Biten et al. 2019)",
        ),
        Metric(
            "numeric_match", ("generation",), "higher", "mean", 0, 1,
            "share whose last number is the reference's last number; a reference without one is not counted",
        ),
        Metric(
            "bleu", ("generation",), "higher", "corpus", 0, 1,
            "BLEU over the corpus as a share: sacrebleu, nrefs:1|case:mixed|eff:no|tok:13a|smooth:exp",
            library="sacrebleu",
        ),
        Metric(
            "chrf", ("generation",), "higher", "corpus", 0, 1,
            "chrF2 over the corpus as a share: sacrebleu, nrefs:1|case:mixed|eff:yes|nc:6|nw:0|space:no",
            library="sacrebleu",
        ),
        Metric(
            "rouge_l", ("generation",), "higher", "mean", 0, 1,
            "F1 of the longest common subsequence of words, as rouge-score has it: no stemming, Latin letters only",
            library="rouge_score",
        ),
        Metric(
            "frechet_distance", ("image-generation",), "lower", "corpus", 0, None,
            "Fréchet distance of drawn and real images in this package's own 31 numbers of an image, version 1: not "
            "comparable with FID by Inception; more examples make it smaller",
            chosen_by="denoising_error",
        ),
        Metric(
            "denoising_error", ("image-generation",), "lower", "mean", 0, None,
            "mean squared error of the noise that a model tells from the latents of held-out images, which a training "
            "chooses by; drawn images have none",
        ),
        Metric(
            "mel_cepstral_distortion", ("speech-synthesis",), "lower", "mean", 0, None,
            "distance in dB of 13 mel cepstra of the answer and of a recording of the same text, aligned in time "
            "(Kubichek 1993); version 1: of this package's own bands, so not comparable with other tools",
            chosen_by="synthesis_loss",
        ),
        Metric(
            "duration_error", ("speech-synthesis",), "lower", "mean", 0, None,
            "size of the logarithm of how much longer or shorter an answer speaks than a recording of the same text, "
            "silence around it aside",
            chosen_by="synthesis_loss",
        ),
        Metric(
            "synthesis_loss", ("speech-synthesis",), "lower", "mean", 0, None,
            "the publisher's loss on held-out recordings (spectrogram, end and attention), which a training chooses "
            "by; audio has none",
        ),
    )
}  # fmt: skip


def find_task(name: str) -> Task:
    """The task of this name, or NOT_FOUND with near names."""
    if (task := task_named(name)) is None:
        ends = [each for each in TASKS if each.endswith(f"-{name}")]  # regression: of tables, of series ...
        raise unknown("task", name, ends or TASKS, next=[Call("list_options", {"kind": "task"})])
    return task


def task_named(name: str) -> Task | None:
    """One of TASKS, or of a third party's modality, which has those of every prefix; None where there is none."""
    if name in TASKS:
        return TASKS[name]
    for suffix, family, metric, what in _PER_PREFIX:
        prefix = name.removesuffix(f"-{suffix}")
        if prefix != name and prefix in third_parties():
            return Task(name, (prefix,), family, metric, what)
    return None


@cache
def third_parties() -> frozenset[str]:
    """The modalities that installed packages bring. Looked for once per process."""
    return frozenset(point.name for point in entry_points(group=MODALITY_GROUP))


MADE: dict[str, tuple[float | None, float | None, str]] = {
    "judge_": (0, 1, "what another model thinks of the answer: 0 the worst grade, 1 the best"),
    "preferred_over_": (0, 1, "how often another model prefers the answer to the baseline's, which has 0.5 by itself"),
    "own:": (None, None, "what a function of your own says of the answer"),
    "package:": (None, None, "what a function of an installed package says of the answer"),
    "likeness:": (-1, 1, "how like a drawn image is to its text, by the cosine of another model's vectors"),
    "spoken_wer:": (0, None, "word errors of another model's transcript of the speech, per word of the text"),
    "code_passes": (0, 1, "share of programs that pass the tests of their example"),
    "gym_score": (0, 1, "what the tasks of reasoning-gym give for the answers to their questions"),
}
"""Metrics that an evaluation brings along, by the beginning of their names: bounds, and what they are. They are of
whatever family; their names hold a digest or a version of what decides what they say."""
LOWER = ":lower"
"""Ends the names of those of them that are better the lower they are."""
_PLAIN = {
    "f1_macro": "macro F1", "f1_macro_labels": "macro F1 of the labels", "f1_micro": "micro F1", "f1": "F1",
    "f1_spans": "F1 of spans", "mcc": "Matthews correlation", "auroc": "area under the ROC curve",
    "auprc": "average precision", "brier": "Brier score", "ece": "expected calibration error",
    "top_5_accuracy": "top-5 accuracy", "cohen_kappa": "Cohen's kappa", "quadratic_kappa": "quadratic kappa",
    "mae": "mean absolute error", "median_ae": "median absolute error", "rmse": "root mean squared error", "r2": "R2",
    "mape": "mean absolute percentage error", "smape": "symmetric mean absolute percentage error",
    "mase": "mean absolute scaled error", "pearson": "Pearson correlation", "spearman": "Spearman correlation",
    "forecast_mae": "mean absolute error", "forecast_rmse": "root mean squared error",
    "action_mae": "mean absolute error of the actions", "action_mse": "mean squared error of the actions",
    "hamming_loss": "Hamming loss", "map": "mean average precision", "map_50": "mean average precision at IoU 0.5",
    "map_at_10": "mean average precision at 10", "ndcg_at_10": "NDCG at 10", "dice": "Dice score",
    "mean_iou": "mean IoU", "pq": "panoptic quality", "wer": "word error rate",
    "wer_normalized": "normalized word error rate", "cer": "character error rate",
    **{f"recall_at_precision_{percent}": f"recall at {percent} % precision" for percent in RECALL_AT_PRECISIONS},
}  # fmt: skip
"""Names of metrics that are no words, as sentences have them."""
_MADE = re.compile(r"(code_passes|gym_score)|(judge_|preferred_over_|own:|package:|likeness:|spoken_wer:)[^\s@]+@\S+")


_SCIKIT_LEARN = {
    "roc_auc": "auroc", "roc_auc_score": "auroc", "average_precision": "auprc", "average_precision_score": "auprc",
    "accuracy_score": "accuracy", "balanced_accuracy_score": "balanced_accuracy", "f1_score": "f1",
    "matthews_corrcoef": "mcc", "neg_log_loss": "log_loss", "brier_score_loss": "brier", "neg_brier_score": "brier",
    "mean_absolute_error": "mae", "neg_mean_absolute_error": "mae", "root_mean_squared_error": "rmse",
    "neg_root_mean_squared_error": "rmse", "mean_absolute_percentage_error": "mape", "r2_score": "r2",
}  # fmt: skip
"""Scikit-learn's names -> ours, for who types those."""


def find_metric(name: str) -> Metric:
    """The metric of this name, or NOT_FOUND with near names."""
    if made := _MADE.fullmatch(name):
        low, high, what = MADE[made[1] or made[2]]
        return Metric(name, (), "lower" if name.endswith(LOWER) else "higher", "mean", low, high, what)
    if name not in METRICS:
        known = f"{name!r} of scikit-learn is {_SCIKIT_LEARN[name]!r} here." if name in _SCIKIT_LEARN else ""
        raise unknown("metric", name, METRICS, known, next=[Call("list_options", {"kind": "metric"})])
    return METRICS[name]


def is_absolute(metric: str) -> bool:
    """Whether a metric is absolute, by its name; one that a workspace made is not."""
    return metric in METRICS and METRICS[metric].is_absolute


def counts_right(metric: str) -> bool:
    """Whether a metric is a share of right answers; one that a workspace made is not."""
    return metric in METRICS and METRICS[metric].counts_right


def seeks_positives(metric: str) -> bool:
    """Whether a metric looks for one label; one that a workspace made does not."""
    return metric in METRICS and METRICS[metric].seeks_positives


def metrics_of(family: Family, positive_label: str | None = None) -> list[str]:
    """Names of the metrics that this family of tasks can be measured by, given what is known of it."""
    return [
        name
        for name, metric in METRICS.items()
        if family in metric.families and (positive_label is not None or not metric.positive)
    ]
