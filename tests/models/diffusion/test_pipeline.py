"""Text-to-image pipelines: read strictly, by their own names, and drawn from as diffusers draws."""

from __future__ import annotations

import importlib.util
import json
import shutil
import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("diffusers")

import torch
from safetensors.torch import load_file, save_file

from speciate.errors import Code, SpeciateError
from speciate.models import trust
from speciate.models.diffusion import pipeline_folder
from speciate.models.diffusion.pipeline import Sampling, fit_to_square, load_pipeline
from tests.models.diffusion import doubles

PROMPTS, SEEDS, FEW = ["a red square", "a blue circle"], [1, 2], Sampling(4, 3.0)


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return doubles.save(tmp_path_factory.mktemp("published") / "pipe")


@pytest.fixture
def copy(published: Path, tmp_path: Path) -> Path:
    return shutil.copytree(published, tmp_path / "pipe")


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def taken(folder: Path, tmp_path: Path) -> Path:
    target = tmp_path / "taken"
    target.mkdir()
    trust.take(folder, target)
    return target


def test_images_are_those_that_diffusers_draws(published: Path, tmp_path: Path) -> None:
    from diffusers import StableDiffusionPipeline

    ours = load_pipeline(taken(published, tmp_path), "pipe")
    drawn = ours.draw(PROMPTS, SEEDS, FEW)
    theirs = StableDiffusionPipeline.from_pretrained(
        published, local_files_only=True, safety_checker=None, requires_safety_checker=False
    )
    theirs.set_progress_bar_config(disable=True)
    noise = [torch.randn(ours.latent_shape, generator=torch.Generator().manual_seed(seed)) for seed in SEEDS]
    wanted = theirs(
        PROMPTS, num_inference_steps=FEW.steps, guidance_scale=FEW.guidance, latents=torch.stack(noise),
        output_type="np",
    ).images  # fmt: skip
    assert np.abs((wanted * 255).round() - np.stack(drawn)).max() <= 1
    assert drawn[0].shape == (doubles.SIDE, doubles.SIDE, 3)
    assert np.abs(drawn[0].astype(int) - drawn[1]).max() > 10


def test_an_image_does_not_depend_on_what_is_drawn_beside_it(published: Path, tmp_path: Path) -> None:
    ours = load_pipeline(taken(published, tmp_path), "pipe")
    [alone] = ours.draw(PROMPTS[1:], SEEDS[1:], FEW)
    assert np.abs(alone.astype(int) - ours.draw(PROMPTS, SEEDS, FEW)[1]).max() <= 1
    again, other = ours.draw(["a red square"] * 2, [7, 8], FEW)
    assert (again != other).any()


def test_only_the_files_that_loading_reads_are_taken(copy: Path, tmp_path: Path) -> None:
    (copy / "unet" / "diffusion_pytorch_model.bin").write_bytes(b"a pickle")
    (copy / "unet" / "diffusion_pytorch_model.fp16.safetensors").write_bytes(b"a variant")
    (copy / "pipeline.py").write_text("raise SystemExit")
    (copy / "safety_checker").mkdir()
    (copy / "safety_checker" / "model.safetensors").write_bytes(b"none")
    names = {path.name for path in taken(copy, tmp_path).iterdir()}
    assert "unet--diffusion_pytorch_model.safetensors" in names
    assert "unet--config.json" in names
    assert not any("fp16" in name or name.endswith((".bin", ".py")) or "safety" in name for name in names)


@pytest.mark.parametrize("what", ["missing", "renamed", "reshaped"])
def test_weights_that_do_not_match_are_refused_by_name(copy: Path, tmp_path: Path, what: str) -> None:
    path = copy / "unet" / "diffusion_pytorch_model.safetensors"
    weights = load_file(path)
    name = sorted(weights)[0]
    found = weights.pop(name)
    if what != "missing":
        weights[f"{name}_x" if what == "renamed" else name] = found[:-1].clone() if what == "reshaped" else found
    save_file(weights, path)
    with pytest.raises(SpeciateError) as refused:
        load_pipeline(taken(copy, tmp_path), "pipe")
    assert refused.value.code is Code.INVALID
    assert what == "reshaped" or name in refused.value.message


def test_a_pipeline_of_another_kind_is_refused_with_what_is_supported(copy: Path) -> None:
    index = json.loads((copy / "model_index.json").read_text())
    for changed in ({"unet": ["diffusers", "FluxTransformer2DModel"]}, {"text_encoder_2": ["transformers", "T5"]}):
        (copy / "model_index.json").write_text(json.dumps(index | changed))
        with pytest.raises(SpeciateError) as refused:
            pipeline_folder.check_pipeline(copy, "path:pipe")
        assert refused.value.code is Code.INVALID
        assert "Stable Diffusion" in refused.value.recovery


def test_a_pipeline_that_is_not_whole_is_refused(copy: Path) -> None:
    (copy / "vae" / "config.json").unlink()
    with pytest.raises(SpeciateError, match=r"vae/config\.json is missing"):
        pipeline_folder.check_pipeline(copy, "path:pipe")


def test_without_diffusers_the_refusal_says_how_to_install_it(published: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *more: None if name == "diffusers" else real(name, *more)
    )
    with pytest.raises(SpeciateError) as refused:
        pipeline_folder.check_pipeline(published, "path:pipe")
    assert refused.value.code is Code.MISSING_EXTRA
    assert "pip install 'speciate[images]'" in refused.value.recovery


def test_an_image_is_cut_to_its_middle_square() -> None:
    image = np.zeros((20, 40, 3), np.uint8)
    image[:, 10:30] = 255
    assert fit_to_square(image, 8).shape == (8, 8, 3)
    assert fit_to_square(image, 8).min() == 255
    assert pipeline_folder.nested_name(pipeline_folder.flat_name("unet/config.json")) == "unet/config.json"
    assert pipeline_folder.nested_name("a--b.json") == "a--b.json"
