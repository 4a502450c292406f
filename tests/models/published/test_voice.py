"""Vocoders and voices beside a model of spectrograms: layouts, names of weights, refusals, sound without a vocoder."""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("transformers")

import torch
from safetensors.torch import load_file, save_file

from speciate.errors import Code, SpeciateError
from speciate.modalities.audio_answers import decode_audio
from speciate.models import trust
from speciate.models.published import checked_copy, voice_folder
from speciate.models.published.adapters.speech import SpokenText, spectrogram_of
from speciate.models.published.architectures import check_head
from speciate.models.published.asking import ask
from speciate.models.published.published_model import PublishedModel, load_model
from speciate.models.published.voice import griffin_lim
from tests.models.published import doubles

ASKED = [SpokenText("good day", 3)]


@pytest.fixture(autouse=True)
def _quiet(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


@pytest.fixture
def base(tmp_path: Path) -> Path:
    doubles.speecht5(tmp_path / "base")
    return tmp_path / "base"


def loaded(folder: Path) -> PublishedModel:
    return load_model(folder, check_head(folder, folder.name))


def test_a_folder_and_its_flat_copies_speak_alike(base: Path, tmp_path: Path) -> None:
    (tmp_path / "version").mkdir()
    trust.take(base, tmp_path / "version")
    names = {path.name for path in (tmp_path / "version").iterdir()}
    assert {"vocoder--config.json", "vocoder--model.safetensors", "speaker.safetensors"} <= names
    identity = checked_copy.folder_id(base)
    copy = checked_copy.checked_copy(base, identity, tmp_path / "cache")
    spoken = [ask(loaded(folder), ASKED) for folder in (base, tmp_path / "version", copy)]
    assert spoken[0] == spoken[1] == spoken[2]
    weights = load_file(base / "vocoder" / "model.safetensors")
    save_file({name: each * 2 for name, each in weights.items()}, base / "vocoder" / "model.safetensors")
    assert checked_copy.folder_id(base) != identity, "another vocoder is another model"
    assert ask(loaded(base), ASKED) != spoken[0]


def test_the_voice_and_the_vocoder_are_heard(base: Path) -> None:
    before = ask(loaded(base), ASKED)
    save_file({"speaker": torch.ones(8)}, base / "speaker.safetensors")
    other_voice = ask(loaded(base), ASKED)
    (base / "speaker.safetensors").unlink()
    no_voice = loaded(base)
    assert no_voice.voice is not None
    assert not no_voice.voice.speaker.any()
    (base / "vocoder" / "model.safetensors").unlink()  # no longer whole
    assert voice_folder.nested_files(base) == []
    without = loaded(base)
    assert without.voice is not None
    assert without.voice.vocoder is None
    found = [each[0].output["data"] for each in (before, other_voice, ask(no_voice, ASKED), ask(without, ASKED))]
    assert len(set(found)) == 4


@pytest.mark.parametrize(
    ("length", "direction"),
    [("weight_g", "weight_v"), ("parametrizations.weight.original0", "parametrizations.weight.original1")],
)
def test_a_vocoder_that_was_saved_while_it_was_trained_sounds_the_same(base: Path, length: str, direction: str) -> None:
    """Its weights are kept as a length and a direction then, by old names and by new ones."""
    before = decode_audio(ask(loaded(base), ASKED)[0].output).samples
    file = base / "vocoder" / "model.safetensors"
    state = dict[str, torch.Tensor]()
    for name, each in load_file(file).items():
        if name.endswith(".weight"):
            stem = name.removesuffix("weight")
            norm = each.norm(dim=tuple(range(1, each.dim())), keepdim=True)
            state |= {f"{stem}{length}": norm.contiguous(), f"{stem}{direction}": (each * 3).contiguous()}
        else:
            state[name] = each
    save_file(state, file)
    assert np.abs(decode_audio(ask(loaded(base), ASKED)[0].output).samples - before).max() <= 1e-4


@pytest.mark.parametrize("change", ["lost", "left", "kind", "bands", "speaker"])
def test_what_does_not_fit_is_refused_by_name(base: Path, change: str) -> None:
    file, settings = base / "vocoder" / "model.safetensors", base / "vocoder" / "config.json"
    weights, said = load_file(file), json.loads(settings.read_text())
    match change:
        case "lost":
            del weights["conv_post.bias"]
        case "left":
            weights["conv_extra.bias"] = torch.zeros(2)
        case "kind":
            settings.write_text(json.dumps(said | {"model_type": "univnet"}))
        case "bands":
            settings.write_text(json.dumps(said | {"model_in_dim": 40}))
        case _:
            save_file({"speaker": torch.zeros(9)}, base / "speaker.safetensors")
    save_file(weights, file)
    expected = {
        "lost": "it lacks conv_post.bias", "left": "no place for conv_extra.bias", "kind": "its type is 'univnet'",
        "bands": "vocoder beside the model cannot be used", "speaker": "no single vector of 8 finite numbers",
    }  # fmt: skip
    with pytest.raises(SpeciateError, match=expected[change]) as refused:
        loaded(base)
    assert refused.value.code is Code.INVALID


@pytest.mark.parametrize(
    ("file", "settings", "expected"),
    [
        ("vocoder/config.json", {"resblock_dilation_sizes": [[1] * 100_000]}, "config has 400,002 layers"),
        ("vocoder/config.json", {"upsample_initial_channel": 200_000}, "RuntimeError in its settings or weights"),
        ("vocoder/config.json", {"model_in_dim": "a"}, "in its settings or weights"),
        ("vocoder/config.json", {"sampling_rate": 22_050}, "256 samples of each frame at 22050 Hz"),
        ("vocoder/config.json", {"upsample_rates": [32, 32]}, "1024 samples of each frame"),
        ("vocoder/config.json", {"upsample_rates": [-16, -16]}, "0 samples of each frame"),
        ("config.json", {"max_speech_positions": 1 << 30}, "max_speech_positions in config.json is 1073741824"),
        ("preprocessor_config.json", {"sampling_rate": 10**7}, "sampling_rate in preprocessor_config.json"),
        ("preprocessor_config.json", {"num_mel_bins": 10**6}, "num_mel_bins in preprocessor_config.json"),
    ],
)  # fmt: skip
def test_settings_that_ask_for_more_than_the_weights_hold_are_refused_before_it_is_taken(
    base: Path, file: str, settings: dict[str, object], expected: str
) -> None:
    said = json.loads((base / file).read_text())
    (base / file).write_text(json.dumps(said | settings))
    with pytest.raises(SpeciateError, match=expected) as refused:
        loaded(base)
    assert refused.value.code is Code.INVALID


@pytest.mark.parametrize("what", ["speaker", "speaker file", "vocoder", "vocoder file", "model"])
def test_a_voice_that_is_no_numbers_is_refused_and_speech_that_is_none_is_an_error(base: Path, what: str) -> None:
    match what:
        case "speaker":
            save_file({"speaker": torch.full((8,), torch.nan)}, base / "speaker.safetensors")
        case "speaker file":
            (base / "speaker.safetensors").write_bytes(b"no tensor at all")
        case "vocoder file":
            (base / "vocoder" / "model.safetensors").write_bytes(b"no tensor at all")
        case _:
            file = base / ("vocoder/model.safetensors" if what == "vocoder" else "model.safetensors")
            weights = load_file(file)
            name = "conv_post.bias" if what == "vocoder" else "speech_decoder_postnet.feat_out.bias"
            save_file(weights | {name: torch.full_like(weights[name], torch.nan)}, file, {"format": "pt"})
    if what == "model":
        with pytest.raises(ValueError, match="no numbers"):
            ask(loaded(base), ASKED)
    else:
        with pytest.raises(SpeciateError, match=r"finite numbers|vocoder beside the model cannot be used"):
            loaded(base)


def test_a_vits_that_would_speak_for_hours_is_an_error_before_it_makes_them(tmp_path: Path) -> None:
    doubles.vits(tmp_path / "vits")
    model = loaded(tmp_path / "vits")
    assert ask(model, ASKED)[0].output["seconds"] < 60
    ask_for = model.module.duration_predictor.register_forward_hook(lambda _module, _given, made: made + 12)
    with pytest.raises(ValueError, match="longer than 120 s"):
        ask(model, ASKED)
    ask_for.remove()
    wrong = {"sampling_rate": 1, "speaking_rate": 1e-9, "upsample_rates": [-16, -16]}
    for settings, expected in (({name: value}, name) for name, value in wrong.items()):
        said = json.loads((tmp_path / "vits" / "config.json").read_text())
        (tmp_path / "vits" / "config.json").write_text(json.dumps(said | settings))
        with pytest.raises(SpeciateError, match=f"{expected} in config.json"):
            loaded(tmp_path / "vits")
        (tmp_path / "vits" / "config.json").write_text(json.dumps(said))


@pytest.mark.parametrize("what", ["vocoder", "vocoder/model.safetensors"])
def test_a_link_in_the_place_of_a_vocoder_is_refused(base: Path, tmp_path: Path, what: str) -> None:
    (base / what).rename(tmp_path / "elsewhere")
    (base / what).symlink_to(tmp_path / "elsewhere")
    (tmp_path / "version").mkdir()
    with pytest.raises(SpeciateError, match="is a link"):
        trust.take(base, tmp_path / "version")


def test_without_a_vocoder_the_spectrogram_of_the_sound_is_nearly_the_one_it_was_made_from(base: Path) -> None:
    model = loaded(base)
    text = doubles.say("good day")
    wanted = spectrogram_of(model.processor, text)
    sound = griffin_lim(model.processor, torch.from_numpy(wanted)).numpy()
    assert len(sound) == (len(wanted) - 1) * 256
    found = spectrogram_of(model.processor, sound.astype(np.float32))
    loud = wanted > wanted.max() - 2.5
    apart = np.abs(found - wanted)[loud].mean()
    silent = np.abs(-10 - wanted)[loud].mean()
    assert apart < 0.15 < silent
    assert np.array_equal(sound, griffin_lim(model.processor, torch.from_numpy(wanted)).numpy())


def test_texts_that_are_too_long_are_errors_and_long_speech_ends_in_time(base: Path) -> None:
    with pytest.raises(ValueError, match=r"141 tokens, and the model reads 100"):
        ask(loaded(base), [SpokenText("a" * 140, 0)])
    weights = load_file(base / "model.safetensors")
    weights["speech_decoder_postnet.prob_out.weight"] *= 0
    weights["speech_decoder_postnet.prob_out.bias"] = torch.full((2,), -9.0)  # it never ends by itself
    save_file(weights, base / "model.safetensors", {"format": "pt"})
    config = json.loads((base / "config.json").read_text()) | {"max_speech_positions": 30}
    (base / "config.json").write_text(json.dumps(config))
    whole = load_file(base / "model.safetensors")
    for name in [each for each in whole if each.endswith("encode_positions.pe")]:
        whole[name] = whole[name][:, : (30 if "decoder" in name else None)].contiguous()
    save_file(whole, base / "model.safetensors", {"format": "pt"})
    spoken = ask(loaded(base), ASKED)[0].output
    assert spoken["seconds"] == pytest.approx(30 * 2 * 256 / 16_000, abs=0.02)


def test_speecht5s_own_tokenizer_is_read_where_its_library_is(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sentencepiece = pytest.importorskip("sentencepiece")
    (tmp_path / "texts").write_text("\n".join(doubles.texts() * 8))
    sentencepiece.SentencePieceTrainer.train(
        input=str(tmp_path / "texts"), model_prefix=str(tmp_path / "spm_char"), model_type="char", vocab_size=24,
        bos_id=0, pad_id=1, eos_id=2, unk_id=3, minloglevel=3,
    )  # fmt: skip
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (base / name).unlink()
    (tmp_path / "spm_char.model").rename(base / "spm_char.model")
    settings = {"tokenizer_class": "SpeechT5Tokenizer", "pad_token": "<pad>", "eos_token": "</s>", "unk_token": "<unk>"}
    (base / "tokenizer_config.json").write_text(json.dumps(settings))
    (tmp_path / "version").mkdir()
    trust.take(base, tmp_path / "version")
    model = loaded(tmp_path / "version")
    assert type(model.tokenizer).__name__ == "SpeechT5Tokenizer"
    assert ask(model, ASKED)[0].output["seconds"] > 0
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(SpeciateError) as refused:
        loaded(tmp_path / "version")
    assert refused.value.code is Code.MISSING_EXTRA
    assert "pip install 'speciate[speech]'" in refused.value.recovery


@pytest.mark.parametrize(("setting", "library"), [("phonemize", "phonemizer"), ("is_uroman", "uroman")])
def test_a_vits_that_reads_texts_through_a_library_is_refused_without_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, setting: str, library: str
) -> None:
    folder = tmp_path / "vits"
    doubles.vits(folder)
    said = json.loads((folder / "tokenizer_config.json").read_text())
    (folder / "tokenizer_config.json").write_text(json.dumps(said | {setting: True}))
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(SpeciateError, match=f"the library '{library}', which is not installed") as refused:
        loaded(folder)
    assert refused.value.code is Code.MISSING_EXTRA


def test_a_vits_as_it_was_published_with_lengths_and_directions_of_weights_answers_alike(tmp_path: Path) -> None:
    folder = tmp_path / "vits"
    doubles.vits(folder)
    before = ask(loaded(folder), ASKED)
    old = {"parametrizations.weight.original0": "weight_g", "parametrizations.weight.original1": "weight_v"}
    state = load_file(folder / "model.safetensors")
    renamed = {
        name: next((name.replace(one, other) for one, other in old.items() if one in name), name) for name in state
    }
    assert any(one != other for one, other in renamed.items())
    save_file({renamed[name]: each for name, each in state.items()}, folder / "model.safetensors", {"format": "pt"})
    assert ask(loaded(folder), ASKED) == before
