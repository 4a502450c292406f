"""A published model in memory: loaded strictly, with its processor, and what every adapter gives back.

`from_pretrained` initialises weights that a file lacks with no more than a warning, and files carry other names than
the module in memory. So loading asks transformers which names did not match, and any such name refuses the model.
"""

from __future__ import annotations

import importlib
import importlib.util
import logging
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from speciate import foreign_files
from speciate.errors import Code, SpeciateError
from speciate.models.declared_size import check_declared_counts, check_declared_size, unfilled
from speciate.models.policies.acting import load_policy
from speciate.models.policies.policy_folder import read_policy
from speciate.models.published.architectures import SPEAKING, PublishedHead
from speciate.models.published.onnx_model import CardModule, CardProcessor, OnnxModule, read_card
from speciate.models.published.voice import Voice, check_settings, load_voice

if TYPE_CHECKING:
    import torch


SPM_CHARACTERS = "spm_char.model"
"""SpeechT5's tokenizer of characters."""
_UNUSUAL, _LONGEST_NAME = re.compile(r"[^\w.\-]"), 100
"""Characters of a weight's name that are not shown: a name is the publisher's text."""


class RawAnswer(NamedTuple):
    """An answer under the published labels. `output` is a label, labels, tags, boxes, a map of labels, a text or steps,
    in the form in which the task's own models answer."""

    output: Any
    probabilities: dict[str, float] | None = None


class LabelPrompts(NamedTuple):
    """What a zero-shot model is asked: each label put into each template, whose probabilities are averaged."""

    labels: tuple[str, ...]
    templates: tuple[str, ...]


class PublishedModel(NamedTuple):
    head: PublishedHead
    module: torch.nn.Module
    processor: Any
    """The tokenizer, image processor or feature extractor; None where inputs are numbers."""
    tokenizer: Any = None
    """The tokenizer beside a processor of images or audio."""
    voice: Voice | None = None
    """The voice of a model of spectrograms."""

    @property
    def config(self) -> Any:
        return self.module.config

    @property
    def labels(self) -> tuple[str, ...]:
        """The labels in the order of the head's outputs, from the loaded config."""
        return tuple(str(self.config.id2label[place]) for place in range(self.config.num_labels))

    @property
    def parameters(self) -> int:
        return sum(each.numel() for each in self.module.parameters())


def load_model(folder: Path, head: PublishedHead, threads: int = 1) -> PublishedModel:
    """The model in eval mode, on the CPU, in float32. Raises INVALID, with the names, where weights are missing, left
    over or of another shape."""
    import torch
    import transformers
    from huggingface_hub.errors import StrictDataclassError
    from safetensors import SafetensorError

    torch.set_num_threads(threads)
    if head.engine == "onnx":
        return _load_onnx(folder, head, threads)
    if head.adapter == "policy":
        return _load_policy(folder, head, threads)
    if head.adapter in SPEAKING:
        check_settings(folder)
    architecture = chronos_class() if head.adapter == "forecast-quantiles" else getattr(transformers, head.architecture)
    with quiet_transformers(transformers):
        try:
            check_declared_counts(folder)
            config = architecture.config_class.from_pretrained(folder, local_files_only=True)
            check_declared_size(folder, lambda: architecture(config))
            with unfilled():
                module, info = architecture.from_pretrained(
                    folder, local_files_only=True, trust_remote_code=False, use_safetensors=True, dtype=torch.float32,
                    output_loading_info=True, ignore_mismatched_sizes=True,
                )  # fmt: skip
        except (
            OSError, ValueError, KeyError, RuntimeError, TypeError, ImportError, AttributeError, SafetensorError,
            StrictDataclassError,
        ) as error:  # fmt: skip
            raise _unreadable(folder, f"{type(error).__name__} in its weights or config", error) from error
        refuse_unmatched(folder, info)
        processor, tokenizer = _processors(folder, head)
    module.eval()
    made = PublishedModel(head, module, processor, tokenizer)
    if head.adapter != "text-to-spectrogram":
        return made
    return made._replace(voice=load_voice(folder, module.config, processor, refuse_unmatched))


def chronos_class() -> Any:
    """Chronos-Bolt's class, of its makers' package, which tells of each weight that does not match: the package's own
    leaves the first and the last layers out of that. Raises MISSING_EXTRA without the package."""
    if importlib.util.find_spec("chronos") is None:
        raise SpeciateError(
            Code.MISSING_EXTRA,
            "Chronos is asked by its makers' library 'chronos-forecasting', which is not installed.",
            "Run: pip install 'speciate[forecasts]'",
        )
    chronos: Any = importlib.import_module("chronos.chronos_bolt")
    telling = {"_keys_to_ignore_on_load_missing": None, "_keys_to_ignore_on_load_unexpected": None}
    return type("ChronosBoltModelForForecasting", (chronos.ChronosBoltModelForForecasting,), telling)


def _load_onnx(folder: Path, head: PublishedHead, threads: int) -> PublishedModel:
    """An ONNX model, whose inputs are prepared by the publisher's files, or by a card of ours."""
    import transformers

    module: Any
    if (card := read_card(folder)) is not None:
        module = CardModule(folder, card, threads)
        return PublishedModel(head, module, CardProcessor(card))
    with quiet_transformers(transformers):
        try:
            check_declared_counts(folder)
            config = transformers.AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise _unreadable(folder, f"{type(error).__name__} in its config", error) from error
        processor, tokenizer = _processors(folder, head)
    module = OnnxModule(folder, config, threads)
    return PublishedModel(head, module, processor, tokenizer)


def _load_policy(folder: Path, head: PublishedHead, threads: int) -> PublishedModel:
    """A policy of a robot, whose processor scales what it reads and what it does."""
    config = read_policy(foreign_files.read_json(folder / "config.json"))
    assert config is not None, "check_head() sees to it"
    policy = load_policy(folder, config, threads)
    return PublishedModel(head, policy.module, policy)


def refuse_unmatched(folder: Path, info: Mapping[str, Any]) -> None:
    """Raise INVALID if transformers' loading info names a weight that did not match its name or shape."""
    kinds = {"missing_keys": "lacks", "mismatched_keys": "has another shape of", "unexpected_keys": "has no place for"}
    found = []
    for kind, verb in kinds.items():
        given = (each[0] if isinstance(each, tuple | list) else each for each in info.get(kind) or ())
        names = sorted(_UNUSUAL.sub("?", str(each))[:_LONGEST_NAME] for each in given)
        if names:
            more = f" and {len(names) - 3} more" if len(names) > 3 else ""
            found.append(f"it {verb} {', '.join(names[:3])}{more}")
    errors = [str(each) for each in info.get("error_msgs") or ()]
    if found or errors:
        raise SpeciateError(
            Code.INVALID,
            f"The weights in {folder.name!r} are not those of their architecture: "
            f"{'; '.join(found) or 'they do not fit'}. Such weights would be initialised at random.",
            "Use another model, or have its maker publish the whole of it, as save_pretrained writes it.",
            "; ".join(errors)[:500],
        )


def _processors(folder: Path, head: PublishedHead) -> tuple[Any, Any]:
    """(processor, tokenizer); the first is the tokenizer of models that read text."""
    from transformers import AutoFeatureExtractor, AutoImageProcessor, AutoTokenizer, AutoVideoProcessor

    def load(auto: Any, **options: Any) -> Any:
        return auto.from_pretrained(folder, local_files_only=True, trust_remote_code=False, **options)

    try:
        match head.adapter:
            case "text-classification" | "token-classification" | "seq2seq" | "question-answering":
                return load(AutoTokenizer), None
            case "image-classification" | "object-detection" | "image-segmentation" | "depth" | "panoptic":
                return load(AutoImageProcessor), None
            case "zero-shot-image" | "zero-shot-detection" | "image-to-text" | "visual-questions":
                return load(AutoImageProcessor), load(AutoTokenizer)
            case "audio-classification":
                return load(AutoFeatureExtractor), None
            case "text-to-waveform":
                return None, _checked_tokenizer(folder, load(AutoTokenizer))
            case "speech" | "ctc" | "zero-shot-audio" | "text-to-spectrogram":
                _check_sentencepiece(folder)
                return load(AutoFeatureExtractor), load(AutoTokenizer)
            case "video-classification":
                return _first([lambda: load(AutoVideoProcessor), lambda: load(AutoImageProcessor)]), None
            case "forecast" | "forecast-quantiles" | "policy":
                return None, None
    except (OSError, ValueError, KeyError, RuntimeError, TypeError, ImportError, AttributeError) as error:
        raise _unreadable(folder, f"{type(error).__name__} in its processor", error) from error


def _check_sentencepiece(folder: Path) -> None:
    """Raise MISSING_EXTRA for a tokenizer that is a model of sentencepiece alone, where that is not installed."""
    alone = (folder / SPM_CHARACTERS).is_file() and not (folder / "tokenizer.json").is_file()
    if alone and importlib.util.find_spec("sentencepiece") is None:
        raise SpeciateError(
            Code.MISSING_EXTRA,
            f"The tokenizer of {folder.name!r} is read by the library 'sentencepiece', which is not installed.",
            "Run: pip install 'speciate[speech]'",
        )


def _checked_tokenizer(folder: Path, tokenizer: Any) -> Any:
    """VITS's, which drops in silence what it has no library for. Raises MISSING_EXTRA with the library."""
    for wanted, library in (("phonemize", "phonemizer"), ("is_uroman", "uroman")):
        if getattr(tokenizer, wanted, False) and importlib.util.find_spec(library) is None:
            raise SpeciateError(
                Code.MISSING_EXTRA,
                f"{folder.name!r} reads texts through the library {library!r}, which is not installed.",
                f"Run: pip install {library}" + (" (it needs espeak-ng, too)" if library == "phonemizer" else ""),
            )
    return tokenizer


def _first(attempts: Sequence[Callable[[], Any]]) -> Any:
    for attempt in attempts[:-1]:
        try:
            return attempt()
        except (OSError, ValueError, KeyError, TypeError, ImportError, AttributeError):
            continue
    return attempts[-1]()


def _unreadable(folder: Path, why: str, error: Exception) -> SpeciateError:
    """`error`: a library's, whose message may quote the files."""
    return SpeciateError(
        Code.INVALID,
        f"The published model in {folder.name!r} cannot be loaded: {why}.",
        "Use another model, or save this one again with save_pretrained.",
        str(error)[:500],
    )


@contextmanager
def quiet_transformers(transformers: Any) -> Iterator[None]:
    """Runs transformers without progress bars, and without its warnings about names, which are errors here."""
    levels = transformers.utils.logging
    before = levels.get_verbosity()
    levels.disable_progress_bar()
    levels.set_verbosity(logging.ERROR)
    try:
        yield
    finally:
        levels.set_verbosity(before)


def batches(lengths: Sequence[int], size: int, *, alike: bool = False) -> Iterator[list[int]]:
    """Places by descending length, so that a batch that is too big fails at once; at most `size` each. `alike`: a batch
    holds one length alone, so that nothing is padded and no answer depends on its neighbours."""
    order = sorted(range(len(lengths)), key=lambda place: -lengths[place])
    batch: list[int] = []
    for place in order:
        if batch and (len(batch) >= size or (alike and lengths[place] != lengths[batch[0]])):
            yield batch
            batch = []
        batch.append(place)
    if batch:
        yield batch
