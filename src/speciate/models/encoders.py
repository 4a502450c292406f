"""Frozen models that turn media into vectors: any backbone with learned weights.

A medium's vector is the backbone's pooled state, scaled to unit length; for text that is Sentence-BERT (Reimers &
Gurevych 2019). Imports torch when it first embeds.
"""

from __future__ import annotations

import copy
import filecmp
import hashlib
import json
import re
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property, partial
from pathlib import Path
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any, Literal, Protocol
from weakref import WeakValueDictionary

import numpy as np
import numpy.typing as npt

from speciate import foreign_files
from speciate.environment import prefer_onednn, processor
from speciate.errors import Code, SpeciateError
from speciate.modalities.medical.volumes import is_volume, slice_images
from speciate.models import model_folder, packaged, sealed
from speciate.models.backbones import architectures, exported, protein, sentence_folder, text
from speciate.models.backbones.contract import Backbone, Item, ModelConfig
from speciate.models.backbones.layered import LayeredBackbone, has_two_depths, plain
from speciate.models.sealed import file_hash
from speciate.refs import ModelRef, model_ref

if TYPE_CHECKING:
    import torch

Vectors = npt.NDArray[np.float32]
Precision = Literal["float32", "bfloat16"]
"""Precision of weights and activations. bfloat16 costs a third of the time where the processor has it; the vectors'
cosine to those of float32 is above 0.9999 (MiniLM, 640 sentences)."""

_OF_TOKENS = ("text", "protein")
"""Modalities whose inputs are token ids; inputs of other modalities would lose digits in bfloat16."""
_MAX_TOKENS = 256
_MIXED = "multimodal"
_SLICES = 16  # of a volume, evenly apart, that a network of images sees
_BATCH = 32
_WINDOW = 4096
"""Texts that are split into tokens at a time, and ordered by their number."""
_COUNTING = (
    "config.json", "preprocessor_config.json", "processor_config.json", "tokenizer.json", "tokenizer_config.json",
    "vocab.txt", "vocab.json", "merges.txt", "1_Pooling/config.json",
)  # fmt: skip
"""Files of a transformers folder that, beside the weights, determine the vectors."""
_OF_THE_HEAD = frozenset(("predictor.json", "estimator.safetensors", "representation.safetensors"))
"""Files of a model folder that no encoder reads. Any other file counts, so that a forgotten one costs a computation and
no wrong vector."""
VIDEO, OF_FRAMES = "video", "-of-frames"
"""The modality that image models can embed frame by frame, and the ending of such encoders' ids."""
OF_LAYERS = "-of-layers"
"""The ending of ids of encoders that read a network at two depths."""
_CLIPS, _FRAMES = 16, 8
"""Clips that are embedded at once, and frames of each."""
_IN_USE: WeakValueDictionary[tuple[str, str, Path], Backbone] = WeakValueDictionary()
"""Backbones of frozen encoders in this process, by the encoder's id, precision and folder."""
_COMPUTES = 1
"""Raise it when our own code computes other vectors from the same files."""


class Encoder(Protocol):
    id: str
    """Identity of the encoder: the same id means the same vector for the same item, on every machine."""
    parameters: int
    precision: Precision

    @property
    def cache(self) -> str:
        """Name of its vectors in the cache. It never rests on an id that a model folder claims."""
        ...

    @property
    def width(self) -> int: ...

    def embed(self, media: Sequence[Any]) -> Iterator[tuple[list[int], Vectors]]:
        """Batches of (positions in `media`, vectors (B, width)), in an order that suits the encoder."""
        ...

    def keep(self, folder: Path) -> None:
        """Write the files into a model folder that compute the same without the base model."""
        ...

    def network(self) -> Backbone:
        """The backbone under it anew, in float32."""
        ...


class FrozenEncoder:
    """`folder` has the weights, which are loaded when they are first needed."""

    def __init__(
        self, base_model: str, folder: Path, modality: str, identity: str, parameters: int, precision: Precision,
        batch: int = _BATCH, threads: int = 1, layers: bool = False, kept: bool = False,
    ) -> None:  # fmt: skip
        """`layers`: read at two depths (backbones/layered.py), where the network can be. `kept`: in a model folder,
        whose maker wrote the identity."""
        self.id, self.parameters, self.precision = identity, parameters, precision
        self._base_model, self._folder, self._modality = base_model, folder, modality
        self._batch, self._threads, self._layers, self._kept = batch, threads, layers, kept
        self._loaded: Backbone | None = None

    @cached_property
    def cache(self) -> str:
        if not self._kept:
            return self.id
        return _cache_of_files(self._folder, self.precision) + (OF_LAYERS if self._layers else "")

    @cached_property
    def width(self) -> int:  # asked for with each answer
        stated = _stated_width(self._folder, self._modality)
        doubled = self._layers and not model_folder.is_export(self._folder)  # an export states what it gives
        return stated * (2 if doubled else 1) if stated else self._backbone().width

    @property
    def most_tokens(self) -> int | None:
        """Tokens of a text or sequence that it reads, two special ones included; None of other media."""
        return _stated_tokens(self._folder, self._modality)

    def embed(self, media: Sequence[Any]) -> Iterator[tuple[list[int], Vectors]]:
        return embed_batches(self._backbone(), media, self._batch, self._threads)

    def keep(self, folder: Path) -> None:
        """Write the files that `kept_encoder` needs into a model folder; none if a package has the weights."""
        if not self._base_model.startswith("pkg:"):
            model_folder.save(plain(self._backbone()), folder)

    def network(self) -> Backbone:
        """The encoder's backbone anew, in float32 and apart from the one that embeds."""
        return self._load("float32")

    def in_float32(self) -> FrozenEncoder:
        """An encoder of the same network with all of its digits. Its vectors are others, so it has no place in a
        cache."""
        return FrozenEncoder(
            self._base_model, self._folder, self._modality, f"{self.id}-in-float32", self.parameters, "float32",
            self._batch, self._threads, self._layers, self._kept,
        )  # fmt: skip

    def _backbone(self) -> Backbone:
        """One in a process, however many models are heads on it: nobody changes it."""
        if self._loaded is None:
            import torch

            torch.set_num_threads(self._threads)
            if self._threads > 1 and self.precision == "float32":  # many at once
                prefer_onednn()
            self._loaded = self._in_use() or self._load(self.precision)
            _IN_USE[self.id, self.precision, self._folder] = self._loaded
        return self._loaded

    def _in_use(self) -> Backbone | None:
        """That of another model. The id that a model folder keeps is whatever its maker wrote, so files are compared:
        else a stranger's weights would answer for every model that is loaded after his."""
        for (identity, precision, folder), backbone in [*_IN_USE.items()]:
            if (identity, precision) == (self.id, self.precision) and _are_same(folder, self._folder, backbone):
                return backbone
        return None

    def _load(self, precision: Precision) -> Backbone:
        import torch

        if model_folder.has_backbone(self._folder):
            backbone = model_folder.load(self._folder, architectures.rebuild, self._base_model)
        else:
            backbone = architectures.build(self._base_model, (), 0, self._folder)
        backbone.module.eval().requires_grad_(False)
        for each in backbone.module.parameters():  # buffers stay: positions need their digits
            each.data = each.data.to(getattr(torch, precision))
        return LayeredBackbone(backbone) if self._layers and has_two_depths(backbone) else backbone


def _are_same(folder: Path, other: Path, backbone: Backbone) -> bool:
    """Whether both hold the same network, `backbone` being that of the first."""
    if folder == other:
        return True
    if not model_folder.has_backbone(other) or model_folder.is_export(other):
        return False
    names = (model_folder.SETTINGS, model_folder.WEIGHTS, *plain(backbone).files())
    try:
        return all(filecmp.cmp(folder / name, other / name, shallow=False) for name in names)
    except OSError:
        return False


def embed_batches(
    backbone: Backbone, media: Sequence[Any], size: int = _BATCH, threads: int = 1
) -> Iterator[tuple[list[int], Vectors]]:
    """Longest media first and together: little padding, and a batch that is too big fails at once. `threads`: how many
    batches of tokens are computed at a time."""
    order = sorted(range(len(media)), key=lambda place: -len(media[place]))
    if backbone.modality in _OF_TOKENS:
        yield from _embed_tokens(backbone, media, order, size, threads)
        return
    for start in range(0, len(order), size):
        places = order[start : start + size]
        batch = [media[place] for place in places]
        whole = _pooled_slices if backbone.modality == "image" and is_volume(batch[0]) else _pooled
        yield places, _unit(partial(whole, backbone, batch))


def _embed_tokens(
    backbone: Backbone, media: Sequence[Any], order: Sequence[int], size: int, threads: int
) -> Iterator[tuple[list[int], Vectors]]:
    """By number of tokens, of which characters say little: a fifth less padding for sentences of reviews.

    Each batch is computed by one thread. Two threads that share its small matrices take .65 of the time of one, two
    with a batch each .52; and the vectors are the same bit for bit, however many there are."""
    for start in range(0, len(order), _WINDOW):
        places = order[start : start + _WINDOW]
        items = backbone.prepare([media[place] for place in places])
        by_length = sorted(range(len(items)), key=lambda each: -backbone.length(items[each]))
        batches = [by_length[first : first + size] for first in range(0, len(by_length), size)]
        found = _states_of(backbone, [[items[each] for each in batch] for batch in batches], threads)
        for batch, vectors in zip(batches, found, strict=True):
            yield [places[each] for each in batch], vectors


def _states_of(backbone: Backbone, batches: Sequence[Sequence[Item]], threads: int) -> Iterator[Vectors]:
    """Each batch's pooled states of unit length, in order."""
    if threads == 1 or len(batches) == 1:
        for items in batches:
            yield _unit(partial(_pooled_items, backbone, items))
        return
    import torch

    idle = SimpleQueue[Backbone]()  # a network each: some keep tables of positions while they compute
    for backbone_of_one in (backbone, *(_twin(backbone) for _ in range(threads - 1))):
        idle.put(backbone_of_one)

    def compute(items: Sequence[Item]) -> Vectors:
        own = idle.get()
        try:
            return _unit(partial(_pooled_items, own, items))
        finally:
            idle.put(own)

    shared = torch.get_num_threads()
    pool = ThreadPoolExecutor(threads, "embed", initializer=partial(torch.set_num_threads, 1))
    try:
        yield from pool.map(compute, batches)
    finally:
        pool.shutdown(cancel_futures=True)
        torch.set_num_threads(shared)  # the number that a new thread begins with is one for the whole process


def _twin(backbone: Backbone) -> Backbone:
    """The same weights in another network."""
    tensors = (*backbone.module.parameters(), *backbone.module.buffers())
    return copy.deepcopy(backbone, {id(each): each for each in tensors})


def _unit(pooled: Callable[[], torch.Tensor]) -> Vectors:
    """(N, width), each of unit length."""
    import torch

    with torch.inference_mode():
        return torch.nn.functional.normalize(pooled(), dim=1).numpy().astype(np.float32, copy=False)


def _pooled(backbone: Backbone, media: Sequence[Any]) -> torch.Tensor:
    """(N, width)"""
    return _pooled_items(backbone, backbone.prepare(media))


def _pooled_items(backbone: Backbone, items: Sequence[Item]) -> torch.Tensor:
    """(N, width)"""
    return backbone.states(backbone.collate(items)).pooled.float()


def _pooled_slices(backbone: Backbone, media: Sequence[Any]) -> torch.Tensor:
    """(N, width): of volumes, by an image network: the mean over slices, each scaled to unit length."""
    import torch

    found = [_pooled(backbone, slice_images(medium, _SLICES)) for medium in media]
    return torch.stack([torch.nn.functional.normalize(each, dim=1).mean(0) for each in found])


class FramesEncoder:
    """A frozen image model, frame by frame.

    A clip's vector (3 W,) is the mean of its frames' vectors, the difference between its later and its earlier
    half, and the mean change of each number from frame to frame.
    """

    def __init__(self, images: Encoder) -> None:
        self._images = images
        self.id, self.parameters, self.precision = images.id + OF_FRAMES, images.parameters, images.precision

    @property
    def cache(self) -> str:
        return self._images.cache + OF_FRAMES

    @property
    def width(self) -> int:
        return 3 * self._images.width

    def embed(self, media: Sequence[Any]) -> Iterator[tuple[list[int], Vectors]]:
        """`media`: clips of modalities/video/video.py."""
        yield from self._images.embed(())  # where there is no clip, too, the network is loaded
        for start in range(0, len(media), _CLIPS):
            clips = [_few(clip["frames"]) for clip in media[start : start + _CLIPS]]
            frames = [frame for clip in clips for frame in clip]
            vectors = np.zeros((len(frames), self._images.width), np.float32)
            for places, batch in self._images.embed(frames):
                vectors[places] = batch
            ends = np.cumsum([len(clip) for clip in clips])
            yield (
                list(range(start, start + len(clips))),
                np.stack([_of_clip(each) for each in np.split(vectors, ends[:-1])]),
            )

    def network(self) -> Backbone:
        return self._images.network()

    def keep(self, folder: Path) -> None:
        self._images.keep(folder)


def by_frames(read: str | None, modality: str) -> bool:
    """Whether a frozen model that reads `read` can embed media of `modality` frame by frame."""
    return (read, modality) == ("image", VIDEO)


def base_models(modality: str) -> list[str]:
    """Refs of the packaged encoders for a modality, whether installed or not. Of mixed rows any may read a part."""
    return [
        f"pkg:{name}"
        for name, entry in packaged.PACKAGED.items()
        if entry.task == "feature-extraction" and (modality == _MIXED or architectures.suits(entry.modality, modality))
    ]


def load_encoder(
    base_model: str,
    threads: int = 1,
    precision: Precision | None = None,
    folder: Path | None = None,
    media: str | None = None,
    *,
    layers: bool = False,
) -> Encoder:
    """The encoder behind a ref; hashes its weights. Raises INVALID, NOT_FOUND, REFUSED or MISSING_EXTRA.

    `precision` None: the fastest on this machine. A trained model keeps the one that it was trained with. `folder`: of
    a registered version, or a copy of `path:` or `pkg:`, which are found without. `media`: the modality of the media,
    if it may differ from the model's. `layers`: a network of texts is read at two depths, unless its pooling is more
    than the states of one layer."""
    ref = model_ref(base_model)
    folder = _frozen_folder(ref, folder)
    if model_folder.is_export(folder):
        raise exported.refuse_training(base_model)
    architectures.refuse_adapter(folder)
    modality = architectures.modality_of(base_model, folder)
    if modality is None:
        raise SpeciateError(
            Code.INVALID,
            f"{base_model!r} cannot be a frozen encoder: {folder} holds neither a network that was trained here nor a "
            "transformers model whose config.json names a known modality.",
            "Use pkg:NAME, path:/dir or a model that was trained with method='full' or 'lora'.",
        )
    precision = (precision or fastest_precision()) if modality in _OF_TOKENS else "float32"
    if ref.source == "pkg":
        identity = _packaged_identity(ref.name, folder, precision)
        parameters = packaged.find(ref.name).parameters
    else:
        identity, parameters = (
            _identity(ref, folder, precision),
            sum(map(model_folder.count_parameters, model_folder.weight_files(folder))),
        )
    layers = layers and modality == "text" and _is_plainly_pooled(folder)
    found = FrozenEncoder(
        base_model, folder, modality, identity + (OF_LAYERS if layers else ""), parameters, precision, threads=threads,
        layers=layers,
    )  # fmt: skip
    return FramesEncoder(found) if media is not None and by_frames(modality, media) else found


def kept_encoder(base_model: str, identity: str, precision: Precision, folder: Path, threads: int = 1) -> Encoder:
    """The encoder that a model folder keeps, whose hashes the caller has checked.

    An export takes one thread, however many are asked for: OpenVINO refuses a second batch while it computes one, and
    the engine's threads are those of whoever opens it first in this process."""
    settings = model_folder.read_settings(folder)
    export = exported.export_settings(settings)
    modality, parameters = (
        str(settings["modality"]),
        export.parameters if export else model_folder.count_parameters(folder / model_folder.WEIGHTS),
    )
    own = identity.removesuffix(OF_FRAMES)
    found = FrozenEncoder(
        base_model, folder, modality, own, parameters, precision, threads=1 if export else threads,
        layers=own.endswith(OF_LAYERS), kept=True,
    )  # fmt: skip
    return found if own == identity else FramesEncoder(found)


def _few(frames: Any) -> Any:
    """(T, H, W, 3): at most 8 of them, evenly spaced."""
    return frames[np.unique(np.linspace(0, len(frames) - 1, min(_FRAMES, len(frames))).round().astype(int))]


def _of_clip(vectors: Vectors) -> Vectors:
    """(T, W) -> (3 W,)"""
    half = len(vectors) // 2
    turn = vectors[-half:].mean(axis=0) - vectors[:half].mean(axis=0) if half else np.zeros_like(vectors[0])
    change = np.abs(np.diff(vectors, axis=0)).mean(axis=0) if half else np.zeros_like(vectors[0])
    return np.concatenate([vectors.mean(axis=0), turn, change])


def _frozen_folder(ref: ModelRef, folder: Path | None) -> Path:
    match ref.source:
        case "pkg":
            return folder or packaged.locate(ref.name)
        case "path" if folder is None:
            if Path(ref.name).is_dir():
                foreign_files.check_folder(Path(ref.name))
            return Path(ref.name)
        case "new" | "timm":
            raise SpeciateError(
                Code.INVALID,
                f"'{ref}' cannot be a frozen encoder: its weights would be fresh, and random features are of no use.",
                "Train it with method='full', or use learned weights: pkg:NAME, path:/dir or a trained model.",
            )
    if folder is None:
        raise SpeciateError(
            Code.INVALID,
            f"'{ref}' cannot be a frozen encoder.",
            "Use pkg:NAME, path:/dir or a registered model, such as NAME@v1.",
        )
    return folder


def _packaged_identity(name: str, folder: Path, precision: Precision) -> str:
    """The id of earlier versions, so that cached vectors stay valid."""
    settings = {"pooling": "mean", "normalise": True, "max_tokens": _MAX_TOKENS, "precision": precision}
    weights = file_hash(folder / "model.safetensors")
    return _named(name, [weights, file_hash(folder / "tokenizer.json"), settings])


def _identity(ref: ModelRef, folder: Path, precision: Precision) -> str:
    settings = {"computes": _COMPUTES, "precision": precision}
    if model_folder.has_backbone(folder):
        return _named(str(ref), [sealed.check(folder), settings])
    counting = [*model_folder.weight_files(folder), *(path for name in _COUNTING if (path := folder / name).is_file())]
    counting += sentence_folder.counting_files(folder)
    return _named(folder.name, [{str(path.relative_to(folder)): file_hash(path) for path in counting}, settings])


def _cache_of_files(folder: Path, precision: Precision) -> str:
    """For the encoder in a model folder: named by what computes its vectors. Models on one base model share it."""
    hashes = {name: each for name, each in sealed.hashes(folder).items() if name not in _OF_THE_HEAD}
    return _named("kept", [hashes, {"computes": _COMPUTES, "precision": precision}])


def _named(name: str, what: Any) -> str:
    """An id: the name with a digest of what it stands for. It is also the name of a folder of the cache."""
    digest = hashlib.sha256(json.dumps(what).encode()).hexdigest()
    return f"{re.sub(r'[^A-Za-z0-9_.-]', '-', name)[:64]}-{digest[:16]}"


def _stated_width(folder: Path, modality: str) -> int | None:
    """The width, if a file states it: cached vectors are then read without loading the network."""
    if model_folder.has_backbone(folder):
        return int(model_folder.read_settings(folder)["width"])
    config: ModelConfig = foreign_files.read_json(folder / "config.json")
    width = config.get("hidden_size") if modality in _OF_TOKENS else None
    return sentence_folder.read_modules(folder).width(width) if width and modality == "text" else width


def _stated_tokens(folder: Path, modality: str) -> int | None:
    if modality not in _OF_TOKENS:
        return None
    if model_folder.has_backbone(folder):
        most: int | None = model_folder.read_settings(folder).get("max_tokens")
        return most
    return protein.tokens_read(folder) if modality == "protein" else text.tokens_read(folder)


def _is_plainly_pooled(folder: Path) -> bool:
    """Whether the vectors of a network of texts are one pooling of its states, with no layer after it."""
    if model_folder.has_backbone(folder):
        settings = model_folder.read_settings(folder)
        return not settings.get("dense") and "+" not in settings.get("pooling", "")
    modules = sentence_folder.read_modules(folder)
    return not modules.dense and "+" not in modules.pooling


def fastest_precision() -> Precision:
    """The precision of encoders of tokens on this machine."""
    return "bfloat16" if "avx512_bf16" in processor() or "amx_bf16" in processor() else "float32"
