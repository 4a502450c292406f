"""A network and the head of its task as one of transformers' own classes, so that its pipelines answer as we do.

Our heads are one linear layer over pooled states, over each token or over each frame; temperature and units of a number
are folded into its weights. Theirs have further layers between, which are made to pass numbers on unchanged:

    dense, tanh, linear        small numbers: tanh(x) is x to the last digit where x is below 1e-6
    dense, relu, linear        x and -x side by side: relu(x) - relu(-x) = x
    dense, norm, linear        x and -x side by side, beside constants so large that they alone set the spread
    project, mean, linear      the mean of a linear layer is the linear layer of the mean

A `new:vit` is pooled by the mean of its patches, as DINOv2's head has it and ViT's has not: with layer scales of 1 a
ViT is a DINOv2, so it leaves as one. What fits none of these is None, and leaves with model.py.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from speciate.tasks.network_predictor import NetworkPredictor
from speciate.tasks.task import TaskHead

if TYPE_CHECKING:
    import torch

_POOLED = ("classification", "multi-label", "regression")
"""Families whose head is one linear layer over the pooled state."""
_PROBLEMS = {
    "classification": "single_label_classification", "multi-label": "multi_label_classification",
    "regression": "regression",
}  # fmt: skip
_SMALL = 1e-6
_LARGE = 1e3
"""Size of a constant beside numbers of about 1."""
_THEIR_BLANK = "|"
"""Character that transformers' tokenizers read as a blank whatever they are told."""


class HeadedModel(NamedTuple):
    module: Any
    """A PreTrainedModel, for save_pretrained."""
    pipeline: str
    """The task of transformers' pipeline."""


def with_head(predictor: NetworkPredictor) -> HeadedModel | None:
    """The network as transformers has it, with weights that give our answers; None where nothing fits."""
    family, backbone = predictor.task_head.family, predictor.backbone
    settings = backbone.settings()
    config = settings.get("config")
    if not isinstance(config, Mapping) or "model_type" not in config or config.get("is_encoder_decoder"):
        return None
    match backbone.modality, family:
        case "text", "classification" | "multi-label" | "regression":
            return _of_text(predictor, str(settings["pooling"]))
        case "text", "tokens":
            return _of_tokens(predictor)
        case "image", "classification" | "multi-label":
            return _of_images(predictor)
        case "audio", "classification" if "conv_kernel" in config:
            return _of_waves(predictor)
        case "audio", "transcription" if "conv_kernel" in config:
            return _of_speech(predictor)
    return None


def folded(head: Any, task_head: Any) -> tuple[torch.Tensor, torch.Tensor]:
    """Weight (K, W) and bias (K,) of a linear head in double, with temperature or units in them."""
    weight, bias = head.weight.detach().double(), head.bias.detach().double()
    if task_head.family == "regression":
        return weight * task_head.spread, bias * task_head.spread + task_head.mean
    temperature = float(getattr(task_head, "temperature", 1.0))
    return weight / temperature, bias / temperature


def _of_text(predictor: NetworkPredictor, pooling: str) -> HeadedModel | None:
    weight, bias = folded(predictor.head, predictor.task_head)
    config = _config(predictor)
    if config.model_type == "modernbert":
        if pooling == "max" or not _fits_norm(weight):
            return None
        config.classifier_pooling = "mean" if pooling == "mean" else "cls"
        return _modernbert("AutoModelForSequenceClassification", config, predictor, weight, bias, "text-classification")
    if pooling != "first":
        return None
    made = _made("AutoModelForSequenceClassification", config, predictor)
    if made is None or not _fill_first_token(made, weight, bias):
        return None
    return HeadedModel(made, "text-classification")


def _of_tokens(predictor: NetworkPredictor) -> HeadedModel | None:
    weight, bias = folded(predictor.head, predictor.task_head)
    config = _config(predictor)
    if config.model_type == "modernbert":
        if not _fits_norm(weight):
            return None
        return _modernbert("AutoModelForTokenClassification", config, predictor, weight, bias, "token-classification")
    made = _made("AutoModelForTokenClassification", config, predictor)
    last = getattr(made, "classifier", None)
    if made is None or not _is_linear(last, weight):
        return None
    _set(last, weight, bias)
    return HeadedModel(made, "token-classification")


def _of_images(predictor: NetworkPredictor) -> HeadedModel | None:
    import torch

    weight, bias = folded(predictor.head, predictor.task_head)
    config, state = _config(predictor), predictor.backbone.module.state_dict()
    if predictor.backbone.base_model == "new:vit" and config.model_type == "vit":
        config, state = _as_dinov2(config, state)
        weight = torch.cat([torch.zeros_like(weight), weight], 1)  # class token, then mean of the patches
    elif config.model_type in ("dinov2", "dinov2_with_registers"):
        weight = torch.cat([weight, torch.zeros_like(weight)], 1)
    made = _made("AutoModelForImageClassification", config, predictor, state)
    last = getattr(made, "classifier", None)
    if isinstance(last, torch.nn.Sequential):
        last = last[-1]
    if made is None or not _is_linear(last, weight):
        return None
    _set(last, weight, bias)
    return HeadedModel(made, "image-classification")


def _of_waves(predictor: NetworkPredictor) -> HeadedModel | None:
    import torch

    weight, bias = folded(predictor.head, predictor.task_head)
    config = _config(predictor)
    config.classifier_proj_size, config.use_weighted_layer_sum = len(weight), False
    made = _made("AutoModelForAudioClassification", config, predictor)
    if made is None or not (_is_linear(getattr(made, "projector", None), weight) and hasattr(made, "classifier")):
        return None
    _set(made.projector, weight, bias)
    _set(made.classifier, torch.eye(len(weight)), torch.zeros(len(weight)))
    return HeadedModel(made, "audio-classification")


def _of_speech(predictor: NetworkPredictor) -> HeadedModel | None:
    if _THEIR_BLANK in vars(predictor.task_head)["characters"]:
        return None
    weight, bias = folded(predictor.head, predictor.task_head)
    config = _config(predictor)
    config.vocab_size, config.pad_token_id = len(weight), 0  # what CTC calls blank is their padding
    config.bos_token_id = config.eos_token_id = None
    made = _made("AutoModelForCTC", config, predictor)
    if made is None or not _is_linear(getattr(made, "lm_head", None), weight):
        return None
    _set(made.lm_head, weight, bias)
    return HeadedModel(made, "automatic-speech-recognition")


def _config(predictor: NetworkPredictor) -> Any:
    from transformers import AutoConfig

    task_head: TaskHead = predictor.task_head
    config: Any = AutoConfig.for_model(**predictor.backbone.settings()["config"])
    labels = task_head.labels or ("value",)
    config.id2label, config.label2id = dict(enumerate(labels)), {label: place for place, label in enumerate(labels)}
    if task_head.family in _PROBLEMS:
        config.problem_type = _PROBLEMS[task_head.family]
    return config


def _made(name: str, config: Any, predictor: NetworkPredictor, state: Any = None) -> Any:
    """The class with our weights below its head; None where it has no such class, or other weights."""
    import transformers

    try:
        made = getattr(transformers, name).from_config(config)
        body = getattr(made, made.base_model_prefix)
        found = body.load_state_dict(state or predictor.backbone.module.state_dict(), strict=False)
    except (ValueError, AttributeError, RuntimeError, TypeError):
        return None
    if found.unexpected_keys or any(not name.startswith("pooler.") for name in found.missing_keys):
        return None
    return made.eval()


def _modernbert(
    name: str, config: Any, predictor: NetworkPredictor, weight: torch.Tensor, bias: torch.Tensor, pipeline: str
) -> HeadedModel | None:
    config.classifier_activation, config.classifier_bias, config.classifier_dropout = "linear", True, 0.0
    made = _made(name, config, predictor)
    if made is None:
        return None
    _fill_normed(made.head.dense, made.head.norm, made.classifier, weight, bias)
    return HeadedModel(made, pipeline)


def _fits_norm(weight: torch.Tensor) -> bool:
    return 2 * len(weight) + 2 <= weight.shape[1]


def _fill_normed(dense: Any, norm: Any, last: Any, weight: torch.Tensor, bias: torch.Tensor) -> None:
    """dense gives each number x and -x, and constants c and -c in the places that are left. Their mean is 0, and their
    spread that of the constants to one part in a million; the difference of the pair cancels what rounding the mean
    costs."""
    import torch

    count, width = weight.shape
    scale = weight.norm(dim=1).clamp_min(1e-12) * width**0.5  # of states whose spread is about 1
    rows = weight / scale[:, None]
    constants = torch.zeros(width, dtype=torch.double)
    pairs = (width - 2 * count) // 2
    constants[2 * count : 2 * count + pairs], constants[2 * count + pairs : 2 * (count + pairs)] = _LARGE, -_LARGE
    _set(dense, torch.cat([rows, -rows, torch.zeros(width - 2 * count, width, dtype=torch.double)]), constants)
    spread = (2 * pairs * _LARGE**2 / width + norm.eps) ** 0.5
    undone = torch.zeros(count, width, dtype=torch.double)
    places = torch.arange(count)
    undone[places, places], undone[places, places + count] = scale * spread / 2, -scale * spread / 2
    with torch.no_grad():
        norm.weight.fill_(1.0)
        if norm.bias is not None:
            norm.bias.zero_()
    _set(last, undone, bias)


def _fill_first_token(made: Any, weight: torch.Tensor, bias: torch.Tensor) -> bool:
    """Fills the head of a class that reads the first token's state. Returns whether its head is one that we know."""
    import torch

    body, last = getattr(made, made.base_model_prefix), getattr(made, "classifier", None)
    pooler = getattr(getattr(body, "pooler", None), "dense", None)
    if _is_linear(last, weight) and isinstance(pooler, torch.nn.Linear):  # BERT's family
        return _fill_tanh(pooler, last, weight, bias)
    dense, out = getattr(last, "dense", None), getattr(last, "out_proj", None)
    if isinstance(dense, torch.nn.Linear) and isinstance(out, torch.nn.Linear) and "roberta" in made.config.model_type:
        return _fill_tanh(dense, out, weight, bias)
    before = getattr(made, "pre_classifier", None)
    if isinstance(before, torch.nn.Linear) and isinstance(last, torch.nn.Linear):  # DistilBERT's
        return _fill_relu(before, last, weight, bias)
    return False


def _fill_tanh(dense: Any, last: Any, weight: torch.Tensor, bias: torch.Tensor) -> bool:
    import torch

    count, width = weight.shape
    if count > dense.out_features:
        return False
    scale = _SMALL / (weight.norm(dim=1).clamp_min(1e-12) * width**0.5)
    rows, undone = torch.zeros(dense.out_features, width), torch.zeros(count, dense.out_features)
    rows[:count] = (weight * scale[:, None]).float()
    undone[torch.arange(count), torch.arange(count)] = (1 / scale).float()
    _set(dense, rows, torch.zeros(dense.out_features))
    _set(last, undone, bias)
    return True


def _fill_relu(dense: Any, last: Any, weight: torch.Tensor, bias: torch.Tensor) -> bool:
    import torch

    count, width = weight.shape
    if 2 * count > dense.out_features:
        return False
    rows, undone = torch.zeros(dense.out_features, width), torch.zeros(count, dense.out_features)
    places = torch.arange(count)
    rows[:count], rows[count : 2 * count] = weight.float(), -weight.float()
    undone[places, places], undone[places, places + count] = 1.0, -1.0
    _set(dense, rows, torch.zeros(dense.out_features))
    _set(last, undone, bias)
    return True


def _as_dinov2(config: Any, state: Mapping[str, torch.Tensor]) -> tuple[Any, dict[str, torch.Tensor]]:
    import torch
    from transformers import Dinov2Config

    new = Dinov2Config(
        hidden_size=config.hidden_size, num_hidden_layers=config.num_hidden_layers,
        num_attention_heads=config.num_attention_heads, mlp_ratio=config.intermediate_size // config.hidden_size,
        hidden_act=config.hidden_act, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0,
        layer_norm_eps=config.layer_norm_eps, image_size=config.image_size, patch_size=config.patch_size,
        num_channels=config.num_channels, qkv_bias=config.qkv_bias, layerscale_value=1.0, use_mask_token=True,
        id2label=config.id2label, label2id=config.label2id, problem_type=config.problem_type,
    )  # fmt: skip
    moved: dict[str, torch.Tensor] = {"embeddings.mask_token": torch.zeros(1, config.hidden_size)}
    for name, each in state.items():
        moved[_renamed(name)] = each
    layers = {name.partition(".norm1")[0] for name in moved if ".norm1." in name}
    for layer in layers:
        for number in (1, 2):
            moved[f"{layer}.layer_scale{number}.lambda1"] = torch.ones(config.hidden_size)
    return new, moved


def _renamed(name: str) -> str:
    for old, new in (("layernorm_before", "norm1"), ("layernorm_after", "norm2")):
        name = name.replace(old, new)
    return f"encoder.layer.{name.removeprefix('layers.')}" if name.startswith("layers.") else name


def _is_linear(layer: Any, weight: torch.Tensor) -> bool:
    import torch

    return isinstance(layer, torch.nn.Linear) and tuple(layer.weight.shape) == tuple(weight.shape)


def _set(layer: Any, weight: torch.Tensor, bias: torch.Tensor) -> None:
    import torch

    with torch.no_grad():
        layer.weight.copy_(weight)
        layer.bias.copy_(bias)
