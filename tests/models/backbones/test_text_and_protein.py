"""Backbones over tokens, fresh ones and those from folders: the same promises for all."""

from __future__ import annotations

import copy
import subprocess
import sys
import unicodedata
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import assume, given
from hypothesis.strategies import text as text_of
from tokenizers import Tokenizer, decoders
from transformers import BertConfig, ModernBertConfig, RobertaConfig, T5Config

from speciate.errors import Code, SpeciateError
from speciate.models import model_folder
from speciate.models.backbones import architectures
from speciate.models.backbones.contract import Backbone, Item, States
from speciate.models.backbones.text import learn_tokenizer
from tests.models.backbones.folders import PROTEINS, SMALL, TEXTS, protein_folder, text_folder

CONFIGS = {
    "bert": lambda size: BertConfig(vocab_size=size, pad_token_id=0, **SMALL),
    "roberta": lambda size: RobertaConfig(vocab_size=size, pad_token_id=0, **SMALL),
    "modernbert": lambda size: ModernBertConfig(
        vocab_size=size, pad_token_id=0, cls_token_id=1, sep_token_id=2, bos_token_id=1, eos_token_id=2,
        local_attention=8, **SMALL,
    ),
    "t5": lambda size: T5Config(vocab_size=size, d_model=32, d_kv=16, d_ff=64, num_layers=2, num_heads=2),
}  # fmt: skip


@pytest.fixture(scope="session")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("published")
    size = learn_tokenizer(TEXTS).get_vocab_size()
    made = {name: text_folder(root / name, config(size)) for name, config in CONFIGS.items()}
    return made | {"esm": protein_folder(root / "esm")}


@pytest.fixture(scope="module", params=["new:bert", "new:esm", *CONFIGS, "esm"])
def backbone(request: pytest.FixtureRequest, folders: dict[str, Path]) -> Backbone:
    """One for all tests: whoever changes its weights takes a copy."""
    name = request.param if ":" in request.param else f"path:{folders[request.param]}"
    made = architectures.build(name, media_of(name), 3)
    made.module.eval()
    return made


def media_of(name: str) -> Sequence[str]:
    return PROTEINS if "esm" in name else TEXTS


def media(backbone: Backbone) -> Sequence[str]:
    return PROTEINS if backbone.modality == "protein" else TEXTS


def units(backbone: Backbone, medium: str) -> int:
    return len(medium) if backbone.unit == "residue" else len(medium.split())


def states(backbone: Backbone, items: Sequence[Item]) -> States:
    with torch.inference_mode():
        return backbone.states(backbone.collate(items))


def test_states_have_the_promised_shapes(backbone: Backbone) -> None:
    items = backbone.prepare(media(backbone))
    found = states(backbone, items)
    longest = max(backbone.length(item) for item in items)
    assert found.sequence.shape == (len(items), longest, backbone.width)
    assert found.pooled.shape == (len(items), backbone.width)
    assert found.mask.shape == (len(items), longest)
    assert found.sequence.dtype == found.pooled.dtype == torch.float32
    assert found.mask.dtype == torch.bool
    assert found.mask.sum(1).tolist() == [backbone.length(item) - 2 for item in items]  # a special token at each end
    assert torch.isfinite(found.sequence).all()


def test_with_units_there_is_one_state_for_each(backbone: Backbone) -> None:
    found = states(backbone, backbone.prepare(media(backbone), per_unit=True))
    assert found.mask.sum(1).tolist() == [units(backbone, medium) for medium in media(backbone)]
    assert found.mask[:, 0].all()


def test_padding_changes_nothing(backbone: Backbone) -> None:
    for per_unit in (False, True):
        items = backbone.prepare(media(backbone), per_unit=per_unit)
        together = states(backbone, items)
        for place, item in enumerate(items):
            alone = states(backbone, [item])
            size = alone.sequence.shape[1]
            torch.testing.assert_close(together.sequence[place, :size], alone.sequence[0], atol=1e-4, rtol=0)
            torch.testing.assert_close(together.pooled[place], alone.pooled[0], atol=1e-4, rtol=0)
            assert together.mask[place].sum() == alone.mask[0].sum()


def test_preparing_is_deterministic_and_takes_each_alone(backbone: Backbone) -> None:
    first = backbone.prepare(media(backbone), per_unit=True)
    for medium, item in zip(media(backbone), first, strict=True):
        (again,) = backbone.prepare([medium], per_unit=True)
        assert item.keys() == again.keys()
        assert all(np.array_equal(item[name], again[name]) for name in item)


def test_saved_and_rebuilt_it_gives_equal_states(backbone: Backbone, tmp_path: Path) -> None:
    backbone = copy.deepcopy(backbone)
    with torch.no_grad():
        for weights in backbone.module.parameters():  # as training would leave them: not what a seed or a folder gives
            weights.add_(torch.linspace(-0.1, 0.1, weights.numel()).reshape(weights.shape))
    model_folder.save(backbone, tmp_path)
    again = model_folder.load(tmp_path, architectures.rebuild, "mine@v1")
    assert (again.base_model, again.modality, again.width) == ("mine@v1", backbone.modality, backbone.width)
    assert again.settings() == backbone.settings() | {"base_model": "mine@v1"}
    assert list(again.module.state_dict()) == list(backbone.module.state_dict())
    for per_unit in (False, True):
        before = states(backbone, backbone.prepare(media(backbone), per_unit=per_unit))
        after = states(again, again.prepare(media(again), per_unit=per_unit))
        assert torch.equal(before.sequence, after.sequence)
        assert torch.equal(before.pooled, after.pooled)


def test_every_state_can_be_trained(backbone: Backbone) -> None:
    backbone = copy.deepcopy(backbone)
    found = backbone.states(backbone.collate(backbone.prepare(media(backbone))))
    (found.pooled.square().sum() + found.sequence.square().sum()).backward()
    learned = [weights for weights in backbone.module.parameters() if weights.grad is not None]
    assert len(learned) >= 0.9 * len(list(backbone.module.parameters()))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["new:bert", "new:esm"])
def test_fresh_weights_follow_the_seed_alone(name: str, tmp_path: Path) -> None:
    program = (
        "import sys, pathlib, torch; from speciate.models import model_folder; from speciate.models.backbones import "
        "architectures;"
        "from tests.models.backbones.folders import TEXTS, PROTEINS; torch.rand(3);"
        "media = PROTEINS if 'esm' in sys.argv[1] else TEXTS;"
        "model_folder.save(architectures.build(sys.argv[1], media, 5), pathlib.Path(sys.argv[2]))"
    )
    (there := tmp_path / "there").mkdir()
    (here := tmp_path / "here").mkdir()
    subprocess.run([sys.executable, "-c", program, name, str(there)], check=True)
    before = torch.get_rng_state()
    model_folder.save(architectures.build(name, media_of(name), 5), here)
    assert torch.equal(before, torch.get_rng_state()), "the process's own generator was used up"
    assert {path.name: path.read_bytes() for path in here.iterdir()} == {
        path.name: path.read_bytes() for path in there.iterdir()
    }
    five, six = (architectures.build(name, media_of(name), seed).module.state_dict() for seed in (5, 6))
    assert any(not torch.equal(five[key], six[key]) for key in five)


def test_what_is_too_long_is_cut() -> None:
    text = architectures.build("new:bert", TEXTS, 0, max_tokens=10)
    (item,) = text.prepare(["word " * 500], per_unit=True)
    assert text.length(item) == 10
    assert 0 < len(item["units"]) <= 8
    assert text.settings()["max_tokens"] == 10
    protein = architectures.build("new:esm", PROTEINS, 0, max_tokens=10)
    (item,) = protein.prepare(["MKV" * 50], per_unit=True)
    assert (protein.length(item), len(item["units"])) == (10, 8)


def test_a_folders_positions_limit_its_length(folders: dict[str, Path]) -> None:
    for name, longest in (("bert", 64), ("roberta", 63), ("esm", 62)):  # the heirs of RoBERTa begin after the padding
        backbone = architectures.build(f"path:{folders[name]}", (), 0)
        (item,) = backbone.prepare(["MKVL " * 100])
        assert backbone.length(item) == longest
        assert torch.isfinite(states(backbone, [item]).sequence).all()


def test_a_word_has_the_state_of_its_first_piece() -> None:
    backbone = architectures.build("new:bert", ["unbelievable stories"] * 3, 0)
    tokenizer = Tokenizer.from_str(backbone.files()["tokenizer.json"].decode())
    text = "  Unbelievably\tunbelievable — stories "
    (item,) = backbone.prepare([text], per_unit=True)
    offsets = tokenizer.encode(text).offsets
    first_letters = [text[max(start, end - 1)] if end - start == 1 else text[start:end].strip()[0] for start, end in (
        offsets[place] for place in item["units"].tolist()
    )]  # fmt: skip
    assert first_letters == ["U", "u", "—", "s"]


@pytest.mark.parametrize("cased", [False, True])
@given(text=text_of(min_size=1))
def test_any_script_survives_the_tokenizer(cased: bool, text: str) -> None:
    tokenizer = learn_tokenizer(["plain words"] * 2, cased)
    assume(not any(token.content in text for token in tokenizer.get_added_tokens_decoder().values()))
    tokenizer.decoder = decoders.ByteLevel()
    kept = tokenizer.decode(tokenizer.encode(text).ids, skip_special_tokens=False)
    composed = unicodedata.normalize("NFC", text)
    assert kept.removeprefix("[CLS]").removesuffix("[SEP]").strip() == (composed if cased else lower(composed)).strip()


def lower(text: str) -> str:
    """Letter by letter: Python's own lower() looks at a sigma's neighbours."""
    return "".join(letter.lower() for letter in text)


def test_a_text_of_which_nothing_is_left_has_a_state() -> None:
    backbone = architectures.build("new:bert", TEXTS, 0)
    found = states(backbone, backbone.prepare(["\u200b", "a word"], per_unit=True))
    assert torch.isfinite(found.pooled).all()


@pytest.mark.parametrize("name", ["new:bert", "new:esm"])
def test_a_medium_of_another_modality_is_refused(name: str) -> None:
    backbone = architectures.build(name, media_of(name), 0)
    for medium in (np.zeros((8, 8, 3), np.uint8), {"age": 3}, None):
        with pytest.raises(SpeciateError, match=backbone.modality) as caught:
            backbone.prepare([*media(backbone), medium])
        assert caught.value.code == Code.INVALID
