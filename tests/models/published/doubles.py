"""Tiny doubles of published models: a real config, a real processor and random weights, written as `save_pretrained`
writes them. Nothing is fetched. Weights are drawn wide, so that answers differ from example to example."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from speciate.models.published.architectures import Adapter

WORDS = "the a this is was very good bad fine awful film food day and not i like hate red green blue one two . example"
COLOURS = {"red": (220, 30, 30), "green": (30, 200, 40), "blue": (40, 60, 230)}
_WIDE = 0.4
_BERT = {
    "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64,
    "max_position_embeddings": 64, "initializer_range": _WIDE,
}  # fmt: skip
_VISION = {
    "image_size": 32, "patch_size": 8, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2,
    "intermediate_size": 64, "initializer_range": _WIDE,
}  # fmt: skip


class Family(NamedTuple):
    adapter: Adapter
    task: str
    build: Callable[[Path], None]
    media: Callable[[], list[Any]]
    quick: bool = False
    """Whether it belongs to the default suite."""


def texts() -> list[str]:
    draw = np.random.default_rng(0)
    return [" ".join(draw.choice(WORDS.split(), draw.integers(3, 9))) for _ in range(12)]


def words() -> list[list[str]]:
    return [text.split() for text in texts()]


def proteins() -> list[str]:
    draw = np.random.default_rng(0)
    return ["".join(draw.choice(list("LAGVSERTIDPKQNFYMHWC"), draw.integers(8, 30))) for _ in range(12)]


def images(side: int = 48) -> list[np.ndarray]:
    """Coloured squares; every third image is of another size."""
    draw, made = np.random.default_rng(0), []
    for place in range(9):
        shape = (side, side + 8 * (place % 3 == 2), 3)
        image = draw.integers(60, 160, shape).astype(np.uint8)
        x, y = (int(each) for each in draw.integers(2, side - 22, 2))
        image[y : y + 18, x : x + 18] = list(COLOURS.values())[place % 3]
        made.append(image)
    return made


def sounds() -> list[np.ndarray]:
    """Of two lengths."""
    draw, made = np.random.default_rng(0), []
    for place in range(6):
        time = np.arange(8_000 + 1_600 * (place % 2)) / 16_000
        tone = np.sin(2 * np.pi * (300, 900, 2_500)[place % 3] * time) * 0.5
        made.append((tone + draw.normal(0, 0.05, len(time))).astype(np.float32))
    return made


def clips() -> list[dict[str, Any]]:
    return [{"frames": np.stack([np.roll(image, step, 1) for step in range(6)])} for image in images(32)]


def questions() -> list[str]:
    """A question and a passage below it; the last is longer than a model reads."""
    draw = np.random.default_rng(0)
    lengths = [*draw.integers(6, 20, 11), 150]
    return [f"this {text}\n{' '.join(draw.choice(WORDS.split(), n))}" for text, n in zip(texts(), lengths, strict=True)]


def series() -> list[np.ndarray]:
    draw = np.random.default_rng(0)
    return [np.sin(np.arange(40) / 2 + draw.uniform(0, 6))[None] * draw.uniform(1, 3) for _ in range(5)]


def named(labels: Sequence[str]) -> dict[str, Any]:
    places = dict(enumerate(labels))
    return {
        "id2label": places,
        "label2id": {label: place for place, label in places.items()},
        "num_labels": len(labels),
    }


def tokenizer(**special: str) -> Any:
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    names = {
        "pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]", "bos_token": "[BOS]",
        "eos_token": "[EOS]",
    } | special  # fmt: skip
    vocabulary = list(dict.fromkeys([*names.values(), *WORDS.split()]))
    made = Tokenizer(models.WordLevel({word: i for i, word in enumerate(vocabulary)}, unk_token=names["unk_token"]))
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    first, last = names["cls_token"], names["sep_token"]
    made.post_processor = processors.TemplateProcessing(
        single=f"{first} $A {last}", pair=f"{first} $A {last} $B {last}",
        special_tokens=[(name, vocabulary.index(name)) for name in dict.fromkeys((first, last))],
    )  # fmt: skip
    return PreTrainedTokenizerFast(tokenizer_object=made, model_max_length=64, **names)


def keep(folder: Path, *parts: Any) -> None:
    for part in parts:
        part.save_pretrained(folder)


def bert(folder: Path, labels: Sequence[str] = ("negative", "positive"), **more: Any) -> None:
    import transformers as t

    tok = tokenizer()
    config = t.BertConfig(**_BERT, vocab_size=len(tok), pad_token_id=tok.pad_token_id, **named(labels), **more)
    keep(folder, t.BertForSequenceClassification(config), tok)


def bert_multi_label(folder: Path) -> None:
    bert(folder, ("anger", "joy", "fear"), problem_type="multi_label_classification")


def bert_entailment(folder: Path) -> None:
    bert(folder, ("contradiction", "neutral", "entailment"))


def roberta(folder: Path) -> None:
    import transformers as t

    tok = tokenizer()
    tok.model_input_names = ["input_ids", "attention_mask"]
    config = t.RobertaConfig(
        **_BERT | {"max_position_embeddings": 70}, vocab_size=len(tok), pad_token_id=tok.pad_token_id,
        **named(["no", "yes"]),
    )  # fmt: skip
    keep(folder, t.RobertaForSequenceClassification(config), tok)


def modernbert(folder: Path) -> None:
    import transformers as t

    tok = tokenizer()
    tok.model_input_names = ["input_ids", "attention_mask"]
    config = t.ModernBertConfig(
        **_BERT, vocab_size=len(tok), pad_token_id=tok.pad_token_id, bos_token_id=4, eos_token_id=5, cls_token_id=2,
        sep_token_id=3, **named(["no", "yes"]),
    )  # fmt: skip
    keep(folder, t.ModernBertForSequenceClassification(config), tok)


def deberta(folder: Path) -> None:
    import transformers as t

    tok = tokenizer()
    config = t.DebertaV2Config(
        **_BERT, vocab_size=len(tok), pad_token_id=tok.pad_token_id, relative_attention=True,
        pos_att_type=["p2c", "c2p"], position_buckets=16, norm_rel_ebd="layer_norm", share_att_key=True,
        type_vocab_size=0, pooler_hidden_size=32, **named(["no", "yes"]),
    )  # fmt: skip
    keep(folder, t.DebertaV2ForSequenceClassification(config), tok)


def qwen3(folder: Path) -> None:
    import transformers as t

    tok = tokenizer()
    tok.model_input_names = ["input_ids", "attention_mask"]
    config = t.Qwen3Config(
        hidden_size=32, num_hidden_layers=2, num_attention_heads=2, num_key_value_heads=1, head_dim=16,
        intermediate_size=64, vocab_size=len(tok), pad_token_id=tok.pad_token_id, initializer_range=_WIDE,
        **named(["no", "yes"]),
    )  # fmt: skip
    keep(folder, t.Qwen3ForSequenceClassification(config), tok)


def esm(folder: Path) -> None:
    import transformers as t

    letters = ["<cls>", "<pad>", "<eos>", "<unk>", *"LAGVSERTIDPKQNFYMHWC", "<mask>"]
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "vocab.txt").write_text("\n".join(letters))
    config = t.EsmConfig(
        **_BERT, vocab_size=len(letters), pad_token_id=1, mask_token_id=24, position_embedding_type="rotary",
        **named(["no", "yes"]),
    )  # fmt: skip
    keep(folder, t.EsmForSequenceClassification(config), t.EsmTokenizer(str(folder / "vocab.txt")))


def bert_tags(folder: Path) -> None:
    import transformers as t

    tok = tokenizer()
    labels = ["O", "B-PER", "I-PER", "B-ORG", "I-ORG"]
    config = t.BertConfig(**_BERT, vocab_size=len(tok), pad_token_id=tok.pad_token_id, **named(labels))
    keep(folder, t.BertForTokenClassification(config), tok)


def bert_answers(folder: Path) -> None:
    import transformers as t

    tok = tokenizer()
    config = t.BertConfig(**_BERT, vocab_size=len(tok), pad_token_id=tok.pad_token_id)
    keep(folder, t.BertForQuestionAnswering(config), tok)


def t5(folder: Path) -> None:
    import transformers as t

    tok = tokenizer(cls_token="[BOS]", sep_token="[EOS]")
    config = t.T5Config(
        vocab_size=len(tok), d_model=32, d_kv=16, d_ff=64, num_layers=1, num_heads=2, pad_token_id=tok.pad_token_id,
        eos_token_id=tok.eos_token_id, decoder_start_token_id=tok.pad_token_id, initializer_factor=3.0,
    )  # fmt: skip
    model = t.T5ForConditionalGeneration(config)
    model.generation_config.max_new_tokens = 12
    keep(folder, model, tok)


def vit(folder: Path, labels: Sequence[str] = tuple(COLOURS)) -> None:
    import transformers as t

    keep(
        folder, t.ViTForImageClassification(t.ViTConfig(**_VISION, **named(labels))),
        t.ViTImageProcessor(size={"height": 32, "width": 32}),
    )  # fmt: skip


def resnet(folder: Path) -> None:
    import transformers as t

    config = t.ResNetConfig(
        embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1], layer_type="basic", **named(list(COLOURS))
    )
    keep(folder, t.ResNetForImageClassification(config), t.ViTImageProcessor(size={"height": 32, "width": 32}))


def convnext(folder: Path) -> None:
    import transformers as t

    config = t.ConvNextConfig(
        hidden_sizes=[8, 16, 24, 32],
        depths=[1, 1, 1, 1],
        image_size=32,
        initializer_range=_WIDE,
        **named(list(COLOURS)),
    )
    keep(folder, t.ConvNextForImageClassification(config), t.ViTImageProcessor(size={"height": 32, "width": 32}))


def swin(folder: Path) -> None:
    import transformers as t

    config = t.SwinConfig(
        image_size=32, patch_size=4, embed_dim=16, depths=[1, 1], num_heads=[2, 2], window_size=4,
        initializer_range=_WIDE, **named(list(COLOURS)),
    )  # fmt: skip
    keep(folder, t.SwinForImageClassification(config), t.ViTImageProcessor(size={"height": 32, "width": 32}))


def timm_wrapper(folder: Path) -> None:
    """Its preprocessing and labels stand in config.json; there is no processor file."""
    import transformers as t

    config = t.TimmWrapperConfig.from_dict({
        "architecture": "test_vit", "model_args": {"img_size": 32}, "num_classes": 3, "label_names": list(COLOURS),
        "pretrained_cfg": {
            "input_size": [3, 32, 32], "mean": [0.5] * 3, "std": [0.5] * 3, "interpolation": "bicubic", "crop_pct": 1.0,
        },
    })  # fmt: skip
    keep(folder, t.TimmWrapperForImageClassification(config))


def clip(folder: Path) -> None:
    import transformers as t

    tok = tokenizer()
    parts = {"text_config": _sentences(tok), "vision_config": _VISION}
    processor = t.CLIPImageProcessor(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32})
    keep(folder, t.CLIPModel(t.CLIPConfig(**parts, projection_dim=16, initializer_factor=8.0)), processor, tok)


def siglip(folder: Path) -> None:
    import transformers as t

    tok = tokenizer()
    parts = {"text_config": _sentences(tok) | {"projection_size": 32}, "vision_config": _VISION}
    model = t.SiglipModel(t.SiglipConfig(**parts))
    model.logit_scale.data.fill_(1.5)
    keep(folder, model, t.SiglipImageProcessor(size={"height": 32, "width": 32}), tok)


def _sentences(tok: Any) -> dict[str, Any]:
    return {
        "vocab_size": len(tok), "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2,
        "num_attention_heads": 2, "max_position_embeddings": 64, "pad_token_id": tok.pad_token_id,
        "bos_token_id": tok.cls_token_id, "eos_token_id": tok.sep_token_id,
    }  # fmt: skip


def _stages(*names: str) -> Any:
    import transformers as t

    return t.ResNetConfig(
        embedding_size=8,
        hidden_sizes=[8, 16, 16, 16],
        depths=[1, 1, 1, 1],
        layer_type="basic",
        out_features=list(names),
    )


_DETR = {
    "use_timm_backbone": False, "backbone": None, "use_pretrained_backbone": False, "d_model": 32, "encoder_layers": 1,
    "encoder_attention_heads": 2, "decoder_attention_heads": 2, "encoder_ffn_dim": 32, "decoder_ffn_dim": 32,
    "num_queries": 6, "init_std": _WIDE,
}  # fmt: skip
_SQUARE = {"height": 64, "width": 64}


def detr(folder: Path) -> None:
    import transformers as t

    config = t.DetrConfig(backbone_config=_stages("stage4"), decoder_layers=1, **_DETR, **named(list(COLOURS)))
    keep(folder, t.DetrForObjectDetection(config), t.DetrImageProcessor(size=_SQUARE, do_pad=False))


def table_transformer(folder: Path) -> None:
    import transformers as t

    labels = named(["table", "table column", "table row"])
    config = t.TableTransformerConfig(backbone_config=_stages("stage4"), decoder_layers=1, **_DETR, **labels)
    keep(folder, t.TableTransformerForObjectDetection(config), t.DetrImageProcessor(size=_SQUARE, do_pad=False))


def deformable_detr(folder: Path) -> None:
    import transformers as t

    config = t.DeformableDetrConfig(
        backbone_config=_stages("stage2", "stage3", "stage4"), decoder_layers=2, num_feature_levels=3, **_DETR,
        **named(list(COLOURS)),
    )  # fmt: skip
    keep(folder, t.DeformableDetrForObjectDetection(config), t.DeformableDetrImageProcessor(size=_SQUARE, do_pad=False))


def yolos(folder: Path) -> None:
    import transformers as t

    config = t.YolosConfig(**_VISION | {"image_size": [64, 64]}, num_detection_tokens=6, **named(list(COLOURS)))
    keep(folder, t.YolosForObjectDetection(config), t.YolosImageProcessor(size=_SQUARE, do_pad=False))


def rt_detr(folder: Path) -> None:
    import transformers as t

    backbone = t.RTDetrResNetConfig(
        embedding_size=8, hidden_sizes=[8, 16, 16, 16], depths=[1, 1, 1, 1], layer_type="basic",
        out_features=["stage2", "stage3", "stage4"],
    )  # fmt: skip
    config = t.RTDetrConfig(
        backbone_config=backbone, encoder_hidden_dim=32, encoder_in_channels=[16, 16, 16], encoder_ffn_dim=32,
        encoder_attention_heads=2, decoder_attention_heads=2, d_model=32, decoder_in_channels=[32, 32, 32],
        decoder_ffn_dim=32, decoder_layers=1, num_queries=6, num_denoising=4, decoder_n_points=2,
        anchor_image_size=None, hidden_expansion=0.5, **named(list(COLOURS)),
    )  # fmt: skip
    keep(folder, t.RTDetrForObjectDetection(config), t.RTDetrImageProcessor(size=_SQUARE))


def segformer(folder: Path) -> None:
    import transformers as t

    config = t.SegformerConfig(
        depths=[1, 1, 1, 1], hidden_sizes=[8, 16, 16, 16], num_attention_heads=[1, 2, 2, 2], decoder_hidden_size=16,
        initializer_range=_WIDE, **named(["background", *COLOURS]),
    )  # fmt: skip
    keep(folder, t.SegformerForSemanticSegmentation(config), t.SegformerImageProcessor(size=_SQUARE))


def mask2former(folder: Path) -> None:
    import transformers as t

    backbone = t.SwinConfig(
        image_size=64, patch_size=4, embed_dim=8, depths=[1, 1, 1, 1], num_heads=[1, 1, 2, 2], window_size=4,
        out_features=["stage1", "stage2", "stage3", "stage4"], initializer_range=_WIDE,
    )  # fmt: skip
    config = t.Mask2FormerConfig(
        backbone_config=backbone, feature_size=32, mask_feature_size=32, hidden_dim=32, encoder_feedforward_dim=32,
        encoder_layers=1, decoder_layers=2, num_attention_heads=2, dim_feedforward=16, num_queries=6, init_std=_WIDE,
        **named(["background", *COLOURS]),
    )  # fmt: skip
    keep(
        folder, t.Mask2FormerForUniversalSegmentation(config),
        t.Mask2FormerImageProcessor(size=_SQUARE, num_labels=4, ignore_index=255),
    )  # fmt: skip


_WAVES = {
    "hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 64,
    "conv_dim": (16, 16, 16), "conv_kernel": (10, 8, 4), "conv_stride": (5, 8, 4), "num_feat_extract_layers": 3,
    "num_conv_pos_embeddings": 16, "num_conv_pos_embedding_groups": 2, "initializer_range": _WIDE,
}  # fmt: skip


def wav2vec2(folder: Path) -> None:
    import transformers as t

    config = t.Wav2Vec2Config(**_WAVES, classifier_proj_size=16, **named(["low", "middle", "high"]))
    keep(folder, t.Wav2Vec2ForSequenceClassification(config), t.Wav2Vec2FeatureExtractor())


def ast(folder: Path) -> None:
    import transformers as t

    config = t.ASTConfig(
        hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64, max_length=64,
        num_mel_bins=32, patch_size=16, frequency_stride=16, time_stride=16, initializer_range=_WIDE,
        **named(["low", "middle", "high"]),
    )  # fmt: skip
    keep(folder, t.ASTForAudioClassification(config), t.ASTFeatureExtractor(num_mel_bins=32, max_length=64))


def wav2vec2_ctc(folder: Path) -> None:
    import transformers as t

    folder.mkdir(parents=True, exist_ok=True)
    symbols = ["<pad>", "<unk>", "|", *"abcdefghijklmnopqrstuvwxyz"]
    (folder / "vocab.json").write_text(json.dumps({symbol: place for place, symbol in enumerate(symbols)}))
    tok = t.Wav2Vec2CTCTokenizer(
        str(folder / "vocab.json"), unk_token="<unk>", pad_token="<pad>", word_delimiter_token="|", bos_token=None,
        eos_token=None,
    )  # fmt: skip
    model = t.Wav2Vec2ForCTC(t.Wav2Vec2Config(**_WAVES, vocab_size=len(symbols), pad_token_id=0))
    keep(folder, model, t.Wav2Vec2Processor(t.Wav2Vec2FeatureExtractor(return_attention_mask=False), tok))


def whisper(folder: Path) -> None:
    import transformers as t

    end = "<|endoftext|>"
    tok = tokenizer(bos_token=end, eos_token=end, cls_token="<|startoftranscript|>", sep_token=end)
    start, stop = tok.convert_tokens_to_ids(["<|startoftranscript|>", end])
    config = t.WhisperConfig(
        vocab_size=len(tok), num_mel_bins=16, d_model=32, encoder_layers=1, decoder_layers=1, encoder_attention_heads=2,
        decoder_attention_heads=2, encoder_ffn_dim=64, decoder_ffn_dim=64, max_source_positions=50,
        max_target_positions=32, decoder_start_token_id=start, bos_token_id=stop, eos_token_id=stop,
        pad_token_id=tok.pad_token_id, suppress_tokens=None, begin_suppress_tokens=None, init_std=_WIDE,
    )  # fmt: skip
    model = t.WhisperForConditionalGeneration(config)
    model.generation_config.update(
        decoder_start_token_id=start, eos_token_id=stop, pad_token_id=tok.pad_token_id, is_multilingual=False,
        no_timestamps_token_id=None,
    )  # fmt: skip
    keep(folder, model, t.WhisperFeatureExtractor(feature_size=16, chunk_length=1), tok)


def spoken() -> list[Any]:
    """Each to be drawn otherwise."""
    from speciate.models.published.adapters.speech import SpokenText

    return [SpokenText(text, seed) for seed, text in enumerate(texts())]


CHARACTERS = "abcdefghijklmnopqrstuvwxyz ."


def say(text: str, seconds: float = 0.064) -> np.ndarray:
    """A made-up voice at 16 kHz: two tones for each letter, and silence for others."""
    count = int(seconds * 16_000)
    time, parts = np.arange(count) / 16_000, []
    edge = np.minimum(1, np.minimum(np.arange(count), np.arange(count)[::-1]) / 80)
    for place in (CHARACTERS.index(each) for each in text.lower()):
        low, high = 200 + 25 * place, 900 + 180 * place
        tones = 0.3 * np.sin(2 * np.pi * low * time) + 0.2 * np.sin(2 * np.pi * high * time)
        parts.append(tones * edge if place < 26 else 0 * edge)
    return np.concatenate(parts).astype(np.float32)


def character_tokenizer() -> Any:
    """A token for each character, and one at the end, as SpeechT5's has."""
    from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    vocabulary = {name: place for place, name in enumerate(["<pad>", "</s>", "<unk>", *CHARACTERS])}
    made = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    made.normalizer = normalizers.Lowercase()
    made.pre_tokenizer = pre_tokenizers.Split(Regex("."), "isolated")
    made.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    return PreTrainedTokenizerFast(
        tokenizer_object=made, pad_token="<pad>", eos_token="</s>", unk_token="<unk>", model_max_length=200
    )


def speecht5(folder: Path, *, vocoder: bool = True, width: int = 32) -> None:
    """With a vocoder beside it, and the vector of a voice."""
    import torch
    from safetensors.torch import save_file
    from transformers import (
        SpeechT5Config,
        SpeechT5FeatureExtractor,
        SpeechT5ForTextToSpeech,
        SpeechT5HifiGan,
        SpeechT5HifiGanConfig,
    )

    config = SpeechT5Config(
        vocab_size=3 + len(CHARACTERS), hidden_size=width, encoder_layers=2, encoder_attention_heads=2,
        encoder_ffn_dim=2 * width, decoder_layers=2, decoder_attention_heads=2, decoder_ffn_dim=2 * width,
        num_mel_bins=80, speech_decoder_prenet_units=width, speech_decoder_postnet_layers=2,
        speech_decoder_postnet_units=16, speaker_embedding_dim=8, max_text_positions=100, max_speech_positions=600,
        reduction_factor=2,
        speech_decoder_prenet_dropout=0.2, pad_token_id=0, eos_token_id=1, encoder_layerdrop=0.0, decoder_layerdrop=0.0,
        guided_attention_loss_num_heads=2,
    )  # fmt: skip
    torch.manual_seed(0)
    model = SpeechT5ForTextToSpeech(config)
    ends = model.speech_decoder_postnet.prob_out  # after some frames, not at once
    ends.weight.data.mul_(10), ends.bias.data.fill_(-2.0)
    keep(folder, model, SpeechT5FeatureExtractor(), character_tokenizer())
    save_file({"speaker": torch.randn(8)}, folder / "speaker.safetensors")
    if vocoder:
        settings = SpeechT5HifiGanConfig(
            model_in_dim=80, upsample_initial_channel=16, upsample_rates=[16, 16], upsample_kernel_sizes=[32, 32],
            resblock_kernel_sizes=[3], resblock_dilation_sizes=[[1, 3]], initializer_range=0.1,
        )  # fmt: skip
        SpeechT5HifiGan(settings).save_pretrained(folder / "vocoder")


def vits(folder: Path) -> None:
    import torch
    from transformers import VitsConfig, VitsModel, VitsTokenizer

    folder.mkdir(parents=True, exist_ok=True)
    names = {name: place for place, name in enumerate(["<pad>", *CHARACTERS, "<unk>"])}
    (folder / "vocab.json").write_text(json.dumps(names))
    config = VitsConfig(
        vocab_size=len(names), hidden_size=16, num_hidden_layers=1, num_attention_heads=2, ffn_dim=32, flow_size=16,
        spectrogram_bins=33, prior_encoder_num_flows=2, prior_encoder_num_wavenet_layers=1,
        posterior_encoder_num_wavenet_layers=1, upsample_initial_channel=16, upsample_rates=[16, 16],
        upsample_kernel_sizes=[32, 32], resblock_kernel_sizes=[3], resblock_dilation_sizes=[[1, 3]],
        duration_predictor_flow_bins=4, duration_predictor_num_flows=2, depth_separable_num_layers=1,
        duration_predictor_filter_channels=16, sampling_rate=16_000,
    )  # fmt: skip
    torch.manual_seed(0)
    tokenizer = VitsTokenizer(str(folder / "vocab.json"), phonemize=False, is_uroman=False)
    keep(folder, VitsModel(config), tokenizer)


def videomae(folder: Path) -> None:
    import transformers as t

    config = t.VideoMAEConfig(
        **_VISION, num_frames=4, tubelet_size=2, decoder_num_hidden_layers=1, decoder_hidden_size=16,
        decoder_num_attention_heads=2, **named(["left", "right"]),
    )  # fmt: skip
    keep(folder, t.VideoMAEForVideoClassification(config), _frames())


def timesformer(folder: Path) -> None:
    import transformers as t

    config = t.TimesformerConfig(**_VISION, num_frames=4, **named(["left", "right"]))
    keep(folder, t.TimesformerForVideoClassification(config), _frames())


def _frames() -> Any:
    import transformers as t

    return t.VideoMAEImageProcessor(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32})


def patchtst(folder: Path) -> None:
    import transformers as t

    config = t.PatchTSTConfig(
        num_input_channels=1, context_length=32, prediction_length=8, patch_length=8, patch_stride=4, d_model=32,
        num_hidden_layers=1, num_attention_heads=2, ffn_dim=64, loss="mse",
    )  # fmt: skip
    keep(folder, t.PatchTSTForPrediction(config))


def patchtsmixer(folder: Path) -> None:
    import transformers as t

    config = t.PatchTSMixerConfig(
        num_input_channels=1, context_length=32, prediction_length=8, patch_length=8, patch_stride=4, d_model=16,
        num_layers=1, loss="mse",
    )  # fmt: skip
    keep(folder, t.PatchTSMixerForPrediction(config))


def timesfm(folder: Path) -> None:
    import transformers as t

    config = t.TimesFmConfig(
        patch_length=8, context_length=32, horizon_length=8, freq_size=3, num_hidden_layers=1, hidden_size=32,
        intermediate_size=32, head_dim=16, num_attention_heads=2, initializer_range=_WIDE,
    )  # fmt: skip
    keep(folder, t.TimesFmModelForPrediction(config))


def clap(folder: Path) -> None:
    import transformers as t

    tok = tokenizer()
    tok.model_input_names = ["input_ids", "attention_mask"]
    words = {
        "vocab_size": len(tok), "hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2,
        "intermediate_size": 64, "max_position_embeddings": 70, "pad_token_id": tok.pad_token_id, "projection_dim": 16,
    }  # fmt: skip
    sound = {
        "spec_size": 64, "window_size": 2, "patch_embeds_hidden_size": 16, "depths": [1, 1],
        "num_attention_heads": [2, 2], "num_mel_bins": 16, "patch_size": 4, "patch_stride": [4, 4], "hidden_size": 32,
        "projection_dim": 16, "num_hidden_layers": 2, "enable_fusion": False,
    }  # fmt: skip
    config = t.ClapConfig(text_config=words, audio_config=sound, projection_dim=16, initializer_factor=8.0)
    extractor = t.ClapFeatureExtractor(
        feature_size=16, sampling_rate=32_000, hop_length=640, max_length_s=1, fft_window_size=1024,
        nb_max_samples=32_000, frequency_max=8_000, truncation="rand_trunc", padding="repeatpad",
    )  # fmt: skip
    keep(folder, t.ClapModel(config), extractor, tok)


def trocr(folder: Path) -> None:
    import transformers as t

    tok = tokenizer(cls_token="[BOS]", sep_token="[EOS]")
    decoder = t.TrOCRConfig(
        vocab_size=len(tok), d_model=32, decoder_layers=1, decoder_attention_heads=2, decoder_ffn_dim=64,
        max_position_embeddings=32, cross_attention_hidden_size=32, init_std=2.0,
    )  # fmt: skip
    config = t.VisionEncoderDecoderConfig.from_encoder_decoder_configs(t.ViTConfig(**_VISION), decoder)
    model = t.VisionEncoderDecoderModel(config)
    model.generation_config.update(
        decoder_start_token_id=tok.bos_token_id, eos_token_id=tok.eos_token_id, pad_token_id=tok.pad_token_id,
        max_new_tokens=8,
    )  # fmt: skip
    keep(folder, model, t.ViTImageProcessor(size={"height": 32, "width": 32}), tok)


def bert_score(folder: Path) -> None:
    """A reward model, or any other that gives one number for a text."""
    import transformers as t

    tok = tokenizer()
    config = t.BertConfig(
        **_BERT, vocab_size=len(tok), pad_token_id=tok.pad_token_id, num_labels=1, problem_type="regression"
    )
    keep(folder, t.BertForSequenceClassification(config), tok)


def vit_score(folder: Path) -> None:
    import transformers as t

    config = t.ViTConfig(**_VISION, num_labels=1)
    keep(folder, t.ViTForImageClassification(config), t.ViTImageProcessor(size={"height": 32, "width": 32}))


def layoutlm(folder: Path) -> None:
    import transformers as t

    tok = tokenizer()
    labels = named(["O", "B-TOTAL", "B-DATE"])
    config = t.LayoutLMConfig(
        **_BERT, vocab_size=len(tok), pad_token_id=tok.pad_token_id, max_2d_position_embeddings=1024, **labels
    )
    keep(folder, t.LayoutLMForTokenClassification(config), tok)


def lilt(folder: Path) -> None:
    import transformers as t

    tok = tokenizer()
    config = t.LiltConfig(
        **_BERT | {"max_position_embeddings": 70, "hidden_size": 48}, vocab_size=len(tok),
        pad_token_id=tok.pad_token_id, max_2d_position_embeddings=1024, channel_shrink_ratio=2,
        **named(["invoice", "receipt"]),
    )  # fmt: skip
    keep(folder, t.LiltForSequenceClassification(config), tok)


def layoutlm_answers(folder: Path) -> None:
    import transformers as t

    tok = tokenizer()
    config = t.LayoutLMConfig(
        **_BERT, vocab_size=len(tok), pad_token_id=tok.pad_token_id, max_2d_position_embeddings=1024
    )
    keep(folder, t.LayoutLMForQuestionAnswering(config), tok)


def placed(text: str, seed: int) -> str:
    draw, made = np.random.default_rng(seed), []
    for word in text.split():
        left, top = (int(each) for each in draw.integers(0, 900, 2))
        made.append(f"{word}@{left},{top},{left + 60},{top + 30}")
    return " ".join(made)


def pages() -> list[str]:
    """Words with their places."""
    return [placed(text, seed) for seed, text in enumerate(texts())]


def page_words() -> list[list[str]]:
    return [page.split() for page in pages()]


def page_questions() -> list[str]:
    return [f"this {text}\n{placed(texts()[-seed], seed)}" for seed, text in enumerate(texts())]


def owlvit(folder: Path) -> None:
    import transformers as t

    tok = tokenizer()
    words = _sentences(tok) | {"max_position_embeddings": 16, "initializer_range": _WIDE}
    config = t.OwlViTConfig(
        text_config=words, vision_config=_VISION | {"image_size": 64, "patch_size": 16}, projection_dim=32,
        initializer_factor=3.0,
    )  # fmt: skip
    keep(folder, t.OwlViTForObjectDetection(config), t.OwlViTImageProcessor(size=_SQUARE, do_center_crop=False), tok)


def depth_anything(folder: Path, **more: Any) -> None:
    import transformers as t

    backbone = t.Dinov2Config(
        **_VISION | {"num_hidden_layers": 4, "image_size": 56, "patch_size": 14}, mlp_ratio=2,
        out_indices=[1, 2, 3, 4], apply_layernorm=True, reshape_hidden_states=False,
    )  # fmt: skip
    config = t.DepthAnythingConfig(
        backbone_config=backbone, patch_size=14, reassemble_hidden_size=32, neck_hidden_sizes=[8, 8, 16, 16],
        fusion_hidden_size=8, head_hidden_size=8, initializer_range=0.2, **more,
    )  # fmt: skip
    processor = t.DPTImageProcessor(size={"height": 56, "width": 56}, keep_aspect_ratio=False)
    keep(folder, t.DepthAnythingForDepthEstimation(config), processor)


def depth_anything_metric(folder: Path) -> None:
    depth_anything(folder, depth_estimation_type="metric", max_depth=20)


def glpn(folder: Path) -> None:
    import transformers as t

    config = t.GLPNConfig(
        depths=[1, 1, 1, 1], hidden_sizes=[8, 16, 16, 16], num_attention_heads=[1, 2, 2, 2], decoder_hidden_size=8,
        initializer_range=0.2,
    )  # fmt: skip
    keep(folder, t.GLPNForDepthEstimation(config), t.GLPNImageProcessor(size_divisor=32))


def dpt(folder: Path) -> None:
    import transformers as t

    config = t.DPTConfig(
        **_VISION | {"num_hidden_layers": 4, "image_size": 32}, backbone_out_indices=[0, 1, 2, 3],
        neck_hidden_sizes=[8, 8, 16, 16], fusion_hidden_size=8, readout_type="project",
        reassemble_factors=[4, 2, 1, 0.5], is_hybrid=False, use_auxiliary_head=False,
    )  # fmt: skip
    keep(folder, t.DPTForDepthEstimation(config), t.DPTImageProcessor(size={"height": 32, "width": 32}))


def detr_segments(folder: Path) -> None:
    import transformers as t

    backbone = t.ResNetConfig(
        embedding_size=8, hidden_sizes=[8, 16, 16, 16], depths=[1, 1, 1, 1], layer_type="basic",
        out_features=["stage1", "stage2", "stage3", "stage4"],
    )  # fmt: skip
    heads = {"encoder_attention_heads": 8, "decoder_attention_heads": 8}
    config = t.DetrConfig(backbone_config=backbone, decoder_layers=1, **_DETR | heads, **named(list(COLOURS)))
    keep(folder, t.DetrForSegmentation(config), t.DetrImageProcessor(size=_SQUARE, do_pad=False))


def mask2former_segments(folder: Path) -> None:
    """The same network for another task, which no file of its own tells."""
    from speciate.models.published.manifest import PublishedManifest
    from speciate.models.sealed import PREDICTOR

    mask2former(folder)
    (folder / PREDICTOR).write_text(PublishedManifest(task="panoptic-segmentation").model_dump_json())


def donut(folder: Path) -> None:
    """A reader of pages that is asked by the first tokens of its decoder."""
    import transformers as t

    tok = tokenizer(cls_token="[BOS]", sep_token="[EOS]")
    tok.add_special_tokens(
        {"additional_special_tokens": ["<s_docvqa>", "<s_question>", "</s_question>", "<s_answer>", "</s_answer>"]}
    )
    encoder = t.DonutSwinConfig(
        image_size=[32, 32], patch_size=4, embed_dim=16, depths=[1, 1], num_heads=[2, 2], window_size=4,
        initializer_range=_WIDE,
    )  # fmt: skip
    decoder = t.MBartConfig(
        vocab_size=len(tok), d_model=32, decoder_layers=1, decoder_attention_heads=2, decoder_ffn_dim=64,
        max_position_embeddings=64, is_decoder=True, add_cross_attention=True, init_std=2.0,
        pad_token_id=tok.pad_token_id, bos_token_id=tok.bos_token_id, eos_token_id=tok.eos_token_id,
    )  # fmt: skip
    model = t.VisionEncoderDecoderModel(t.VisionEncoderDecoderConfig.from_encoder_decoder_configs(encoder, decoder))
    model.generation_config.update(
        decoder_start_token_id=tok.bos_token_id, eos_token_id=tok.eos_token_id, pad_token_id=tok.pad_token_id,
        max_new_tokens=8,
    )  # fmt: skip
    processor = t.DonutImageProcessor(size={"height": 32, "width": 32}, do_align_long_axis=False)
    keep(folder, model, processor, tok)


def blip(folder: Path, answers: bool = False) -> None:
    import transformers as t

    tok = tokenizer()
    words = {
        "vocab_size": len(tok) + 2, "hidden_size": 32, "encoder_hidden_size": 32, "intermediate_size": 64,
        "num_hidden_layers": 2, "num_attention_heads": 2, "max_position_embeddings": 64, "initializer_range": 1.0,
        "pad_token_id": tok.pad_token_id, "bos_token_id": tok.bos_token_id, "eos_token_id": tok.eos_token_id,
        "sep_token_id": tok.sep_token_id, "projection_dim": 16,
    }  # fmt: skip
    vision = _VISION | {"projection_dim": 16}
    config = t.BlipConfig(text_config=words, vision_config=vision, projection_dim=16, image_text_hidden_size=16)
    made = t.BlipForQuestionAnswering(config) if answers else t.BlipForConditionalGeneration(config)
    made.generation_config.max_new_tokens = 8
    keep(folder, made, t.BlipImageProcessor(size={"height": 32, "width": 32}), tok)


def blip_answers(folder: Path) -> None:
    blip(folder, answers=True)


def vilt(folder: Path) -> None:
    import transformers as t

    tok = tokenizer()
    config = t.ViltConfig(
        **_VISION, vocab_size=len(tok), max_position_embeddings=40, num_images=-1, modality_type_vocab_size=2,
        **named(["yes", "no", "red", "green"]),
    )  # fmt: skip
    processor = t.ViltImageProcessor(size={"shortest_edge": 32}, size_divisor=8)
    keep(folder, t.ViltForQuestionAnswering(config), processor, tok)


def image_questions() -> list[Any]:
    from speciate.models.published.adapters.documents import ImageQuestion

    return [ImageQuestion(image, text) for image, text in zip(images(), texts(), strict=False)]


def small_images() -> list[np.ndarray]:
    return images(64)


FAMILIES = {
    "bert": Family("text-classification", "text-classification", bert, texts, quick=True),
    "bert multi-label": Family("text-classification", "text-multi-label-classification", bert_multi_label, texts),
    "roberta": Family("text-classification", "text-classification", roberta, texts),
    "modernbert": Family("text-classification", "text-classification", modernbert, texts),
    "deberta-v2": Family("text-classification", "text-classification", deberta, texts),
    "qwen3": Family("text-classification", "text-classification", qwen3, texts),
    "esm": Family("text-classification", "protein-classification", esm, proteins),
    "bert tags": Family("token-classification", "token-classification", bert_tags, words, quick=True),
    "vit": Family("image-classification", "image-classification", vit, images, quick=True),
    "resnet": Family("image-classification", "image-classification", resnet, images),
    "convnext": Family("image-classification", "image-classification", convnext, images),
    "swin": Family("image-classification", "image-classification", swin, images),
    "timm_wrapper": Family("image-classification", "image-classification", timm_wrapper, images),
    "detr": Family("object-detection", "object-detection", detr, small_images),
    "yolos": Family("object-detection", "object-detection", yolos, small_images, quick=True),
    "rt_detr": Family("object-detection", "object-detection", rt_detr, small_images),
    "deformable_detr": Family("object-detection", "object-detection", deformable_detr, small_images),
    "table-transformer": Family("object-detection", "object-detection", table_transformer, small_images),
    "segformer": Family("image-segmentation", "image-segmentation", segformer, small_images),
    "mask2former": Family("image-segmentation", "image-segmentation", mask2former, small_images),
    "wav2vec2": Family("audio-classification", "audio-classification", wav2vec2, sounds),
    "ast": Family("audio-classification", "audio-classification", ast, sounds),
    "wav2vec2 ctc": Family("ctc", "automatic-speech-recognition", wav2vec2_ctc, sounds),
    "whisper": Family("speech", "automatic-speech-recognition", whisper, sounds),
    "clip": Family("zero-shot-image", "image-classification", clip, images, quick=True),
    "siglip": Family("zero-shot-image", "image-classification", siglip, images),
    "videomae": Family("video-classification", "video-classification", videomae, clips),
    "timesformer": Family("video-classification", "video-classification", timesformer, clips),
    "bert answers": Family("question-answering", "text-generation", bert_answers, questions),
    "t5": Family("seq2seq", "text-generation", t5, texts),
    "patchtst": Family("forecast", "time-series-forecasting", patchtst, series),
    "patchtsmixer": Family("forecast", "time-series-forecasting", patchtsmixer, series),
    "timesfm": Family("forecast", "time-series-forecasting", timesfm, series),
    "clap": Family("zero-shot-audio", "audio-classification", clap, sounds),
    "bert score": Family("text-classification", "text-regression", bert_score, texts),
    "vit score": Family("image-classification", "image-regression", vit_score, images),
    "layoutlm": Family("token-classification", "token-classification", layoutlm, page_words),
    "lilt": Family("text-classification", "text-classification", lilt, pages),
    "layoutlm answers": Family("question-answering", "text-generation", layoutlm_answers, page_questions),
    "owlvit": Family("zero-shot-detection", "object-detection", owlvit, small_images),
    "depth_anything": Family("depth", "depth-estimation", depth_anything, images),
    "depth_anything metric": Family("depth", "depth-estimation", depth_anything_metric, images),
    "glpn": Family("depth", "depth-estimation", glpn, small_images),
    "dpt": Family("depth", "depth-estimation", dpt, images),
    "detr segments": Family("panoptic", "panoptic-segmentation", detr_segments, small_images),
    "mask2former segments": Family("panoptic", "panoptic-segmentation", mask2former_segments, small_images),
    "donut": Family("image-to-text", "image-text-to-text", donut, images),
    "blip": Family("image-to-text", "image-text-to-text", blip, images),
    "blip answers": Family("visual-questions", "image-text-to-text", blip_answers, image_questions),
    "vilt": Family("visual-questions", "image-text-to-text", vilt, image_questions),
    "trocr": Family("image-to-text", "image-text-to-text", trocr, images),
    "speecht5": Family("text-to-spectrogram", "text-to-speech", speecht5, spoken),
    "vits": Family("text-to-waveform", "text-to-speech", vits, spoken),
}
"""Name -> the family; docs/published-models.md has a row for each."""


def write(name: str, folder: Path) -> Path:
    """The double's folder; the same weights each time."""
    import torch

    torch.manual_seed(0)
    FAMILIES[name].build(folder)
    return folder
