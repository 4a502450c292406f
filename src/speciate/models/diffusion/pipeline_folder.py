"""Which folders hold a text-to-image pipeline, as diffusers saves it, and which of their files count.

A published pipeline is `model_index.json` and a folder for each part. The version of a model has no subfolders: there
`unet/config.json` is called `unet--config.json`. Nothing here imports diffusers.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

from speciate import foreign_files
from speciate.errors import Code, SpeciateError

INDEX, SEPARATOR = "model_index.json", "--"
TEXT_TO_IMAGE = "text-to-image"
INSTALL = "pip install 'speciate[images]'"
_WEIGHTS = "diffusion_pytorch_model.safetensors"


class PipelinePart(NamedTuple):
    classes: tuple[str, ...]
    """Classes that are loaded. Other ones in `model_index.json` refuse the pipeline."""
    files: tuple[str, ...]
    """Whichever of them are there; a part needs its first one."""
    weights: str | None = None


PARTS: Mapping[str, PipelinePart] = {
    "unet": PipelinePart(("UNet2DConditionModel",), ("config.json",), _WEIGHTS),
    "vae": PipelinePart(("AutoencoderKL",), ("config.json",), _WEIGHTS),
    "text_encoder": PipelinePart(("CLIPTextModel",), ("config.json",), "model.safetensors"),
    "tokenizer": PipelinePart(
        ("CLIPTokenizer", "CLIPTokenizerFast", "PreTrainedTokenizerFast", "TokenizersBackend"),
        (
            "tokenizer_config.json", "tokenizer.json", "vocab.json", "merges.txt", "special_tokens_map.json",
            "added_tokens.json",
        ),
    ),
    "scheduler": PipelinePart(
        (
            "DDIMScheduler", "DDPMScheduler", "PNDMScheduler", "LMSDiscreteScheduler", "EulerDiscreteScheduler",
            "EulerAncestralDiscreteScheduler", "DPMSolverMultistepScheduler", "UniPCMultistepScheduler",
        ),
        ("scheduler_config.json",),
    ),
}  # fmt: skip
"""Parts of latent diffusion with one text encoder (Rombach et al. 2022): Stable Diffusion 1 and 2 and what was made of
them. Its scheduler's noise levels count; images are drawn by DDIM, whichever sampler is named."""
_BESIDE = ("safety_checker", "feature_extractor", "image_encoder")
"""Parts that may be named, and are not loaded."""


def is_pipeline(folder: Path) -> bool:
    return (folder / INDEX).is_file()


def flat_name(name: str) -> str:
    """`unet/config.json` -> `unet--config.json`; a name without a folder is itself."""
    return name.replace("/", SEPARATOR)


def nested_name(name: str) -> str:
    """The other way, of the files of parts alone."""
    part, separator, rest = name.partition(SEPARATOR)
    return f"{part}/{rest}" if separator and part in PARTS else name


def is_part_file(name: str) -> bool:
    """Whether a name such as `unet/config.json` is that of a file that loading reads: of variants (fp16, EMA) none."""
    folder, _, rest = name.partition("/")
    part = PARTS.get(folder)
    return part is not None and rest in (*part.files, part.weights)


def part_files(folder: Path) -> list[str]:
    """`PART/FILE` of all files of a published pipeline that loading reads."""
    names = (f"{name}/{file}" for name, part in PARTS.items() for file in (*part.files, part.weights) if file)
    return [name for name in names if (folder / name).is_file()]


def weight_files(folder: Path) -> list[Path]:
    """The weights' files, in either layout."""
    flat = [folder / f"{name}{SEPARATOR}{part.weights}" for name, part in PARTS.items() if part.weights]
    nested = [folder / name / part.weights for name, part in PARTS.items() if part.weights]
    return [path for path in (*flat, *nested) if path.is_file()]


def check_pipeline(folder: Path, ref: str) -> None:
    """Raise INVALID, saying why, for a folder whose pipeline is of another kind or not whole; MISSING_EXTRA without
    diffusers."""
    index = _read_index(folder, ref)
    for name, part in PARTS.items():
        named = index.get(name)
        given = named[1] if isinstance(named, list) and len(named) == 2 else None
        if given not in part.classes:
            raise _other_kind(ref, f"its {name} is {str(given)[:60]!r}, and {' or '.join(part.classes[:2])} is loaded")
        for file in (part.files[0], part.weights):
            if file and not any((folder / each).is_file() for each in (f"{name}/{file}", f"{name}--{file}")):
                raise SpeciateError(
                    Code.INVALID,
                    f"The pipeline {ref!r} is not whole: {name}/{file} is missing.",
                    "Save it anew with save_pretrained, with its weights as safetensors.",
                )
    others = [name for name in index if not name.startswith("_") and name not in PARTS and index[name] != [None, None]]
    strange = [name for name in others if isinstance(index[name], list) and name not in _BESIDE]
    if strange:
        raise _other_kind(ref, f"it has the part {strange[0][:60]!r}, too")
    check_installed()


def check_installed() -> None:
    if importlib.util.find_spec("diffusers") is None:
        raise SpeciateError(
            Code.MISSING_EXTRA, "Images are drawn by the library 'diffusers', which is not installed.",
            f"Run: {INSTALL}",
        )  # fmt: skip


def _read_index(folder: Path, ref: str) -> Mapping[str, object]:
    try:
        found = foreign_files.read_json(folder / INDEX)
    except (OSError, ValueError) as error:
        raise SpeciateError(
            Code.INVALID,
            f"{ref!r} holds no text-to-image pipeline: it has no {INDEX} that can be read.",
            "Name a folder as diffusers' save_pretrained writes it, or a registered model of this task.",
        ) from error
    return found if isinstance(found, dict) else {}


def _other_kind(ref: str, why: str) -> SpeciateError:
    return SpeciateError(
        Code.INVALID,
        f"{ref!r} is a pipeline of another kind: {why}.",
        "Use one of latent diffusion with one CLIP text encoder, such as Stable Diffusion 1 or 2 and their "
        "fine-tuned forms; those with several text encoders or a transformer are not supported yet.",
    )


def excluded(names: Iterable[str]) -> dict[str, str]:
    """Files of subfolders that are not taken -> why."""
    why = "No file of the pipeline that loading reads."
    return {name: why for name in names if "/" in name.rstrip("/") and not is_part_file(name)}
