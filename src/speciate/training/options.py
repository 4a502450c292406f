"""Which methods suit which modality, from the cheapest to the dearest. Pure, but for looking what is installed."""

from __future__ import annotations

from speciate.errors import Code, SpeciateError
from speciate.modalities import find, table
from speciate.models import packaged
from speciate.models.encoders import base_models
from speciate.refs import model_ref
from speciate.training.specs import Option


def options(modality: str) -> list[Option]:
    """What can be trained now on this modality, cheapest first."""
    found = [Option(method="classical")] if _described(modality) else []
    found += [Option(method="probe", base_model=base) for base in base_models(modality) if _installed(base)]
    return found


def installed() -> list[Option]:
    """What can be trained now on some modality or other, cheapest first."""
    bases = dict.fromkeys(base for entry in packaged.PACKAGED.values() for base in base_models(entry.modality))
    return [
        Option(method="classical"),
        *(Option(method="probe", base_model=base) for base in bases if _installed(base)),
    ]


def refused(modality: str) -> list[tuple[Option, str]]:
    """What cannot, each with the reason and what would change it."""
    found: list[tuple[Option, str]] = []
    if not _described(modality):
        found.append((Option(method="classical"), f"{modality} has no description as numbers or words yet."))
    bases = base_models(modality)
    if not bases:
        found.append((Option(method="probe"), f"No packaged base model reads {modality}."))
    for base in bases:
        if not _installed(base):
            entry = packaged.find(model_ref(base).name)
            found.append((Option(method="probe", base_model=base), f"Not installed. Run: {entry.install}"))
    return found


def check(option: Option, modality: str) -> Option:
    """The option with its base model filled in. Raises INVALID or MISSING_EXTRA where it cannot be done."""
    if option.method == "classical" and option.base_model:
        raise SpeciateError(
            Code.INVALID,
            f"The method 'classical' uses no base model, but base_model is {option.base_model!r}.",
            "Leave base_model out, or call train_model with method='probe'.",
        )
    if option.method == "probe" and option.base_model is None:
        bases = base_models(modality)
        option = Option(method="probe", base_model=bases[0] if bases else None)
    if option.base_model:
        packaged.locate(_packaged_name(option.base_model))  # says how to install it
    can = options(modality)
    if option not in can:
        ways = ", ".join(_spoken(other) for other in can) or "none yet"
        raise SpeciateError(
            Code.INVALID,
            f"{_spoken(option)} cannot be trained on {modality}; what can: {ways}.",
            "Call plan_training for what suits a dataset.",
        )
    return option


def _described(modality: str) -> bool:
    """Whether there is such a modality and it says how its media look as a document or a vector."""
    return modality in table() and callable(getattr(find(modality), "describe", None))


def _packaged_name(base_model: str) -> str:
    ref = model_ref(base_model)
    if ref.source != "pkg":
        known = ", ".join(f"pkg:{name}" for name in packaged.PACKAGED)
        raise SpeciateError(Code.INVALID, f"{base_model!r} cannot be a frozen base model yet.", f"Use one of: {known}.")
    return ref.name


def _installed(base_model: str) -> bool:
    return packaged.installed(model_ref(base_model).name)


def _spoken(option: Option) -> str:
    return f"'{option.method}'" + (f" on {option.base_model}" if option.base_model else "")
