"""Which methods suit a modality and task with what is installed and fetched, from the cheapest to the dearest."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping, Sequence
from typing import get_args

from speciate.errors import Call, CallAgain, Code, SpeciateError
from speciate.modalities import find, table
from speciate.modalities.multimodal import MULTIMODAL
from speciate.models import model_folder, packaged, registry
from speciate.models.backbones.architectures import ARCHITECTURES, locates, names, suits
from speciate.models.diffusion import pipeline_folder
from speciate.models.encoders import base_models, by_frames
from speciate.models.fetch import PUBLISHED
from speciate.models.language import causal_lm, vision_language
from speciate.models.language.causal_lm import language_packages
from speciate.refs import model_ref
from speciate.tasks.representations import ngram_choices
from speciate.training.hyperparameters import ClassicalParameters, Learners
from speciate.training.language_hyperparameters import VISION_TASK, VISION_VARIANTS
from speciate.training.planning.base_models import Base, find_base, without_linear
from speciate.training.planning.published_head import KEEPING, can_keep_head
from speciate.training.train_spec import Candidate, Method
from speciate.vocabulary import TASKS, Family, is_absolute, task_named
from speciate.workspace.workspace import Workspace

_ALL: tuple[Method, ...] = ("classical", "probe", "lora", "full")
LANGUAGE: tuple[Method, ...] = ("sft",)
"""Methods for language models that a plan tries by itself: the others need columns that few data have."""
_ALL_OF_LANGUAGE: tuple[Method, ...] = (*LANGUAGE, "dpo", "kto", "orpo", "simpo", "reward", "grpo", "rloo")
_NO_VISION_MODEL = "no package brings a vision-language model."
PART_FAMILIES: tuple[Family, ...] = ("classification", "multi-label", "ordinal", "regression", "anomaly")
"""Families that are learned from several parts of a row."""
_BY_FAMILY: dict[Family, tuple[Method, ...]] = {
    "classification": _ALL,
    "multi-label": _ALL,
    "ordinal": _ALL,
    "regression": _ALL,
    "retrieval": _ALL,
    "tokens": ("classical", "lora", "full"),
    "forecasting": ("classical", "full"),
    "control": ("classical", "full"),
    "anomaly": ("classical", "probe"),
    "detection": ("lora", "full"),
    "segmentation": ("classical", "lora", "full"),
    "panoptic": (),
    "depth": (),
    "transcription": ("lora", "full"),
    "generation": _ALL_OF_LANGUAGE,
    "image-generation": ("lora",),
    "speech-synthesis": (),
}

TABLE_FAMILIES: tuple[Family, ...] = ("classification", "regression")
_LOCATING: tuple[Family, ...] = ("detection", "segmentation")
"""Families that need a network whose states say where something is."""


def available_candidates(modality: str, family: Family = "classification") -> list[Candidate]:
    """What can be trained now on this modality with what is installed, cheapest first."""
    if family == "image-generation":
        return []  # no package brings a pipeline
    found = [Candidate(method="classical")] if _has_description(modality) and _has_voxels(modality, family) else []
    if modality == "tabular" and family in TABLE_FAMILIES and is_installed("torch"):
        found.append(Candidate(method="classical", tabm=True))
    if modality != MULTIMODAL.name or family in PART_FAMILIES:
        found += [Candidate(method="probe", base_model=base) for base in base_models(modality) if _installed(base)]
    trainable = [base for base in names(modality) if family not in _LOCATING or locates(base)]
    if is_installed("peft"):
        found += [Candidate(method="lora", base_model=base) for base in trainable if not _is_fresh(base)]
    cheapest_first = sorted(trainable, key=lambda base: not _is_fresh(base))
    found += [Candidate(method="full", base_model=base) for base in cheapest_first]
    found += _language_candidates(modality)
    return [candidate for candidate in found if candidate.method in _BY_FAMILY[family]]


_ON_COUNTS: Mapping[Family, tuple[Learners, ...]] = {
    "classification": ("neighbours", "logistic", "svm"), "regression": ("neighbours", "ridge"),
    "anomaly": ("neighbours",),
}  # fmt: skip
_ON_NUMBERS: Mapping[Family, tuple[Learners, ...]] = {
    "classification": ("neighbours", "logistic", "svm", "boosting"),
    "regression": ("neighbours", "ridge", "svm", "boosting"), "anomaly": ("neighbours", "covariance", "isolation"),
}  # fmt: skip
_ANYWHERE: Mapping[Family, tuple[Learners, ...]] = {
    "multi-label": ("logistic",), "ordinal": ("ridge", "logistic"), "tokens": ("logistic",),
    "retrieval": ("as-they-are", "discriminant"), "forecasting": ("neighbours", "ridge"),
    "control": ("neighbours", "ridge", "boosting"), "segmentation": ("logistic",),
}  # fmt: skip
_OF_SERIES: tuple[Learners, ...] = ("linear", "ridge", "trees")
MANY_LABELS = 100
"""With more labels, the label with the nearest mean is tried, too."""


def learner_names(modality: str, family: Family, labels: int | None, metric: str) -> tuple[Learners, ...]:
    """The learners that `classical` has for a task, which the option `candidates` can name. `labels` None: unknown."""
    if family in _ANYWHERE:
        return _ANYWHERE[family]
    counted = bool(ngram_choices(modality))
    found = list(_ON_COUNTS[family]) if counted or modality == MULTIMODAL.name else []
    if not counted or find(modality).has_properties:
        found += _ON_NUMBERS[family]
        found += ["boosting-absolute"] if family == "regression" and is_absolute(metric) else []
    if family in TABLE_FAMILIES:
        found += _OF_SERIES if modality == "time-series" else ["trees"] if modality == "tabular" else []
    if family == "classification" and (labels is None or labels > MANY_LABELS):
        found.append("means")
    return tuple(dict.fromkeys(found))


def check_learners(parameters: object, modality: str, family: Family, labels: int | None, metric: str) -> None:
    """INVALID where `candidates` names none of them."""
    if not isinstance(parameters, ClassicalParameters) or not parameters.candidates:
        return
    known = learner_names(modality, family, labels, metric)
    if not set(known) & set(parameters.candidates):
        raise no_learner(parameters.candidates, known)


def no_learner(wanted: Sequence[str], known: Sequence[str]) -> SpeciateError:
    return SpeciateError(
        Code.INVALID,
        f"None of the candidates {', '.join(wanted)} does this task; what does: {', '.join(dict.fromkeys(known))}.",
        "Name some of those.",
        next=[CallAgain("train_model", {"hyperparameters": {"candidates": None}})],
    )


def check_table_options(parameters: object, modality: str, family: Family) -> None:
    """INVALID where TabM or a thorough search is asked for and has no columns to learn from, or learners are named for
    one that tries all; MISSING_EXTRA for TabM without torch."""
    if not isinstance(parameters, ClassicalParameters):
        return
    for name in ("tabm", "thorough"):
        if getattr(parameters, name) and (modality != "tabular" or family not in TABLE_FAMILIES):
            raise SpeciateError(
                Code.INVALID,
                f"hyperparameters.{name} is for labels and numbers of tables, and this is {family} of {modality}.",
                next=[_without(name)],
            )
    if parameters.thorough and parameters.candidates:
        raise SpeciateError(
            Code.INVALID,
            f"hyperparameters.thorough tries every learner, and candidates names {parameters.candidates[0]!r}.",
            next=[_without("candidates"), _without("thorough")],
        )
    if parameters.thorough and parameters.refit is False:
        raise SpeciateError(
            Code.INVALID,
            "hyperparameters.thorough judges out of fold on training and validation examples alike, and learns from "
            "both: refit=False has nothing to leave out.",
            next=[_without("refit"), _without("thorough")],
        )
    if parameters.tabm and not is_installed("torch"):
        raise SpeciateError(
            Code.MISSING_EXTRA,
            "hyperparameters.tabm needs torch, which is not installed.",
            "Run pip install 'speciate[train]', or leave it out.",
            next=[_without("tabm")],
        )


def _without(option: str) -> CallAgain:
    return CallAgain("train_model", {"hyperparameters": {option: None}})


def _language_candidates(modality: str) -> list[Candidate]:
    """Language models with what is installed: in a package, or whatever folder somebody names."""
    if modality != "text" or not (is_installed("trl") and is_installed("peft") and is_installed("torch")):
        return []
    found = [f"pkg:{name}" for name in language_packages() if packaged.installed(name)]
    return [Candidate(method=method, base_model=base) for method in LANGUAGE for base in found]


def methods_for(base_model: str, family: Family) -> list[Method]:
    """What can be done with a base model that somebody named, cheapest first."""
    if family == "generation":
        return list(LANGUAGE)
    can: tuple[Method, ...] = ("full",) if _is_fresh(base_model) else ("probe", "lora", "full")
    return [method for method in can if method in _BY_FAMILY[family]]


def unavailable_candidates(modality: str, family: Family = "classification") -> list[tuple[Candidate, str]]:
    """What cannot, each with the reason and what would change it."""
    found: list[tuple[Candidate, str]] = []
    if not _has_description(modality):
        found.append((Candidate(method="classical"), f"{modality} has no description as numbers or words yet."))
    elif not _has_voxels(modality, family):
        found.append((Candidate(method="classical"), "Only voxels are labelled one by one, not pixels."))
    if family == "generation":
        return [*found, *_unavailable_language(modality)]
    if family == "image-generation":
        return [(Candidate(method="lora"), _why_no_pipeline())]
    bases_known = base_models(modality)
    if not bases_known:
        found.append((Candidate(method="probe"), f"No packaged model reads {modality}; train one, or name path:/dir."))
    for base in bases_known:
        if not _installed(base):
            entry = packaged.find(model_ref(base).name)
            found.append((Candidate(method="probe", base_model=base), f"Not installed. Run: {entry.install}"))
    if not names(modality):
        fresh = any(suits(entry.modality, modality) for entry in ARCHITECTURES.values())
        why = "Not installed. Run: pip install 'speciate[train]'" if fresh else f"No network reads {modality} yet."
        found.append((Candidate(method="full"), why))
    found = [(candidate, why) for candidate, why in found if candidate.method in _BY_FAMILY[family]]
    unsuited: list[Method] = [method for method in _ALL if method not in _BY_FAMILY[family]]
    return found + [(Candidate(method=method), f"It does not do {family}.") for method in unsuited]


def _unavailable_language(modality: str) -> list[tuple[Candidate, str]]:
    if not (is_installed("trl") and is_installed("peft") and is_installed("torch")):
        return [
            (Candidate(method=method), "Not installed. Run: pip install 'speciate[language]'") for method in LANGUAGE
        ]
    if modality != "text":
        return [(Candidate(method=method), f"It needs a base_model: {_NO_VISION_MODEL}") for method in VISION_VARIANTS]
    lacking = [name for name in language_packages() if not packaged.installed(name)]
    return [
        (Candidate(method=method, base_model=f"pkg:{name}"), f"Not installed. Run: {packaged.find(name).install}")
        for method in LANGUAGE
        for name in lacking
    ]


def _check_language_model(candidate: Candidate, modality: str, workspace: Workspace) -> tuple[Candidate, Base]:
    """A training of a language model. MISSING_EXTRA without trl, INVALID where the base model writes no text."""
    for library in ("torch", "trl", "peft"):
        if not is_installed(library):
            raise SpeciateError(
                Code.MISSING_EXTRA,
                f"The method {candidate.method!r} needs the library {library!r}, which is not installed.",
                "Run: pip install 'speciate[language]'",
            )
    if modality != "text":
        return _check_vision_model(candidate, modality, workspace)
    if candidate.base_model is None:
        installed = [f"pkg:{name}" for name in language_packages() if packaged.installed(name)]
        if not installed:
            packaged.locate(language_packages()[0])  # says how to install it
        candidate = candidate.model_copy(update={"base_model": installed[0]})
    assert candidate.base_model is not None
    base = find_base(workspace, candidate.base_model)
    if base.folder is None:
        raise SpeciateError(
            Code.INVALID,
            f"{base.ref!r} has fresh weights, and a language model is trained on from what it knows.",
            "A folder (path:/dir) or a fetched model will do.",
            next=[CallAgain("train_model", {"base_model": f"pkg:{language_packages()[0]}"}, "for instance")],
        )
    causal_lm.check(base.folder, base.ref)
    return candidate.model_copy(update={"base_model": base.ref}), base


def _why_no_pipeline() -> str:
    for library in ("torch", "peft", "diffusers"):
        if not is_installed(library):
            return f"Not installed. Run: {pipeline_folder.INSTALL}"
    return "It needs a base_model, a pipeline as diffusers saves it: no package brings one."


def _check_pipeline(candidate: Candidate, workspace: Workspace) -> tuple[Candidate, Base]:
    """A training of what draws images. MISSING_EXTRA without diffusers, INVALID where the base model is no pipeline."""
    for library in ("torch", "peft", "diffusers"):
        if not is_installed(library):
            raise SpeciateError(
                Code.MISSING_EXTRA,
                f"Training on images and captions needs the library {library!r}, which is not installed.",
                f"Run: {pipeline_folder.INSTALL}",
            )
    if candidate.base_model is None:
        raise SpeciateError(
            Code.INVALID,
            "Images are learned on top of a published pipeline, and base_model names none: no package brings one.",
            "Call again with base_model='path:/dir', a folder as diffusers' save_pretrained writes it, or "
            "register_model(source='hf:ORG/NAME') first and name that.",
        )
    base = find_base(workspace, candidate.base_model)
    if base.folder is None:
        raise SpeciateError(
            Code.INVALID,
            f"{base.ref!r} has fresh weights, and a pipeline is trained on from what it knows.",
            "Call again with base_model='path:/dir' or a registered pipeline.",
        )
    pipeline_folder.check_pipeline(base.folder, base.ref)
    return candidate.model_copy(update={"base_model": base.ref}), base


def _check_vision_model(candidate: Candidate, modality: str, workspace: Workspace) -> tuple[Candidate, Base]:
    """A training of a model that sees and writes. INVALID where it is none, or the method learns from texts alone."""
    if candidate.method not in VISION_VARIANTS:
        raise SpeciateError(
            Code.INVALID,
            f"{candidate.method!r} learns from texts, and this is {modality}: "
            f"{' or '.join(map(repr, VISION_VARIANTS))} learns to answer about images.",
            next=[CallAgain("train_model", {"method": next(iter(VISION_VARIANTS))})],
        )
    if not is_installed("torchvision"):
        raise SpeciateError(
            Code.MISSING_EXTRA,
            "Images are prepared by the library 'torchvision', which is not installed.",
            "Run: pip install 'speciate[language,vision]'",
        )
    if candidate.base_model is None:
        raise SpeciateError(
            Code.INVALID,
            f"{candidate.method!r} on {modality} needs a base model: {_NO_VISION_MODEL}",
            "Call again with base_model='path:/dir', or register_model(source='hf:ORG/NAME') first and name that.",
        )
    base = find_base(workspace, candidate.base_model)
    if base.folder is None:
        raise SpeciateError(
            Code.INVALID,
            f"{base.ref!r} has fresh weights, and a model that sees and writes is trained on from what it knows.",
            "Call again with base_model='path:/dir' or a fetched model.",
        )
    vision_language.check(base.folder, base.ref)
    return candidate.model_copy(update={"base_model": base.ref}), base


def check_candidate(
    candidate: Candidate, modality: str, family: Family, workspace: Workspace
) -> tuple[Candidate, Base | None]:
    """With the base model filled in, and what is known of that. INVALID, NOT_FOUND or MISSING_EXTRA: it cannot be."""
    can = available_candidates(modality, family)
    if candidate.method == "classical" and candidate.base_model:
        raise SpeciateError(
            Code.INVALID,
            f"The method 'classical' uses no base model, but base_model is {candidate.base_model!r}.",
            next=[CallAgain("train_model", {"base_model": None}), CallAgain("train_model", {"method": "probe"})],
        )
    if family == "image-generation" and candidate.method != "lora":
        raise SpeciateError(
            Code.INVALID,
            f"{candidate.method!r} does not learn to draw images; 'lora' does, on a published pipeline.",
            next=[CallAgain("train_model", {"method": "lora", "base_model": candidate.base_model})],
        )
    if candidate.base_model is not None and (family == "generation" or candidate.method not in _BY_FAMILY[family]):
        base = find_base(workspace, candidate.base_model) if candidate.method in KEEPING else None
        if base is not None and can_keep_head(base, candidate.method, family, modality):
            return candidate.model_copy(update={"base_model": base.ref}), base
        if base is not None and base.head is not None and base.head.adapter == "text-to-waveform":
            raise _answers_only(base)
    if candidate.method not in _BY_FAMILY[family]:
        raise _cannot_be_trained(candidate, modality, family, can)
    if family == "image-generation":
        return _check_pipeline(candidate, workspace)
    if family == "generation":
        return _check_language_model(candidate, modality, workspace)
    if candidate.method == "classical":
        if not (_has_description(modality) and _has_voxels(modality, family)):
            raise _cannot_be_trained(candidate, modality, family, can)
        return candidate, None
    if candidate.base_model is None:
        fitting = [other for other in can if other.method == candidate.method]
        if not fitting:
            absent = next((base for base in base_models(modality) if candidate.method == "probe"), None)
            if absent is None:
                raise _cannot_be_trained(candidate, modality, family, can)
            packaged.locate(model_ref(absent).name)  # says how to install it
        candidate = fitting[0]
    assert candidate.base_model is not None
    base = find_base(workspace, candidate.base_model)
    if candidate.method == "probe" and modality == MULTIMODAL.name and not base.fresh and base.modality is not None:
        return candidate.model_copy(update={"base_model": base.ref}), base  # part_encoders.py says what it reads
    if candidate.method == "probe" and by_frames(base.modality, modality) and not base.fresh:
        return candidate.model_copy(update={"base_model": base.ref}), base
    if can_keep_head(base, candidate.method, family, modality):
        return candidate.model_copy(update={"base_model": base.ref}), base
    if not suits(base.modality, modality) or (base.fresh and candidate.method in ("probe", "lora")):
        raise _cannot_be_trained(candidate, modality, family, can, base)
    if family in _LOCATING and not locates(base.ref):
        raise SpeciateError(
            Code.INVALID,
            f"The states of {base.ref} are too coarse to say where something is.",
            next=[_nearest_candidate(candidate, can)],
        )
    if candidate.method == "lora" and base.folder and not model_folder.has_matrix(base.folder):
        raise without_linear(base.ref)
    return candidate.model_copy(update={"base_model": base.ref}), base


def candidates_for_base(base_model: str, modality: str, family: Family, workspace: Workspace) -> list[Candidate]:
    """The candidates that train this base model, cheapest first. Raises what `check_candidate` raises if none can."""
    found: list[Candidate] = []
    refusal: SpeciateError | None = None
    for method in dict.fromkeys((*(LANGUAGE if family == "generation" else _BY_FAMILY[family]), *KEEPING)):
        if method == "classical":
            continue
        try:
            found.append(
                check_candidate(Candidate(method=method, base_model=base_model), modality, family, workspace)[0]
            )
        except SpeciateError as error:
            refusal = error
    if refusal and not found:
        raise refusal
    return found


def _answers_only(base: Base) -> SpeciateError:
    return SpeciateError(
        Code.INVALID,
        f"{base.ref!r} is a VITS: VITS answers and cannot be trained further, as transformers has no loss for it.",
        "Name a SpeechT5 with base_model: hf:org/name, path:/dir, or what register_model fetched.",
        next=[Call("search_models", {"query": "speecht5"}, "for some")],
    )


def _cannot_be_trained(
    candidate: Candidate, modality: str, family: Family, can: list[Candidate], base: Base | None = None
) -> SpeciateError:
    why = ""
    if base is not None and not suits(base.modality, modality):
        why = f": {base.ref} reads {base.modality or 'nothing that is known'}"
    elif base is not None:
        why = f": {base.ref} has fresh weights, which are no use to it"
    possible = ", ".join(_describe(other) for other in can) or "none yet"
    if not _BY_FAMILY[family]:
        return SpeciateError(
            Code.INVALID,
            f"No head of ours does {family}: only a published model that has such a head can be trained further"
            + (f", and {base.ref} has none." if base is not None else "."),
            "Name one with base_model: hf:org/name, path:/dir, or what register_model fetched.",
        )
    return SpeciateError(
        Code.INVALID,
        f"{_describe(candidate)} cannot be trained on {modality} for {family}{why}; what can: {possible}.",
        next=[_nearest_candidate(candidate, can)],
    )


def _nearest_candidate(candidate: Candidate, can: list[Candidate]) -> Call | CallAgain:
    """With the candidate nearest to the request: of the same method, else the cheapest."""
    nearest = next((each for each in can if each.method == candidate.method), can[0] if can else None)
    if nearest is None:
        return Call("list_options", {"kind": "method"}, "for what can be trained on which modality")
    return CallAgain("train_model", {"method": nearest.method, "base_model": nearest.base_model})


def _has_description(modality: str) -> bool:
    """Whether there is such a modality and it says how its media look as a document or a vector."""
    return modality in table() and callable(getattr(find(modality), "describe", None))


def _has_voxels(modality: str, family: Family) -> bool:
    """Whether a classical learner can do the task, where that is a label for each place."""
    return family != "segmentation" or suits("volume", modality)


def _is_fresh(base_model: str) -> bool:
    return base_model.startswith(("new:", "timm:"))


def _installed(base_model: str) -> bool:
    return packaged.installed(model_ref(base_model).name)


def is_installed(library: str) -> bool:
    return importlib.util.find_spec(library) is not None


def _describe(candidate: Candidate) -> str:
    return f"'{candidate.method}'" + (f" on {candidate.base_model}" if candidate.base_model else "")


def all_candidates(workspace: Workspace, modality: str, family: Family) -> list[Candidate]:
    """What can be trained with what is installed and with what was fetched, cheapest first."""
    found = [*available_candidates(modality, family), *fetched_candidates(workspace, modality, family)]
    return sorted(found, key=lambda candidate: get_args(Method).index(candidate.method))


def fetched_candidates(workspace: Workspace, modality: str, family: Family) -> list[Candidate]:
    """Trainings of published models that were fetched into the registry: the newest version of each, cheapest first.

    Models that were trained here are excluded: they are trained on where they serve, or where somebody names them.
    """
    found: list[Candidate] = []
    for card in registry.newest_made_by(workspace.database, PUBLISHED):
        sees = family == "generation" and card.task == VISION_TASK and TASKS[VISION_TASK].suits(modality)
        made = task_named(card.task or "")
        from_texts = made is not None and made.reads is not None and made.family == family
        if not (
            sees
            or from_texts
            or suits(card.modality, modality)
            or by_frames(card.modality, modality)
            or (modality == MULTIMODAL.name and family in PART_FAMILIES)
        ):
            continue
        try:
            found += candidates_for_base(card.ref, modality, family, workspace)
        except SpeciateError:
            continue  # nothing suits: plan_training with its name says why
    return found
