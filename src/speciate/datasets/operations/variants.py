"""Further examples made from existing ones: texts in other words by a model, media changed a little.

A variant keeps its original's label, so the change must not affect the label: AUGMENTATIONS below state how far each
goes. It lies in its original's group and split, so that the two never cross a split, and is made from rows of `train`
alone unless `splits` names others; a later `split` drops variants that it would assign to validation or test. Random
changes follow from the seed; a model's texts are kept, and the same step finds them again.

`rewrite` meets the foreign files, in a sandboxed process: it decodes each, changes it, writes it anew and validates the
result as an ingest would. It writes what models see: images as PNG, audio as FLAC in 16 bits.

Augmentations are pure, with randomness from one generator. `flip` may change the label (a mirrored digit or letter is
another one), so it is made only if a caller names it.
"""

from __future__ import annotations

import hashlib
import io
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, NamedTuple, NotRequired, TypedDict

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from pydantic import Field

from speciate.datasets.columns import CONTENT, FINGERPRINT, KEY, ORIGIN, SKETCH, array, with_column
from speciate.datasets.identity import sha256
from speciate.datasets.ingest.row_validation import row_verdicts
from speciate.datasets.ingest.validation import Verdict, parse_verdicts, validate_bytes
from speciate.datasets.loading.decoding import cached_reader
from speciate.datasets.operations.context import Context, RewriteAnswer, RewriteRequest, RewrittenItem
from speciate.datasets.operations.operation import (
    HOW,
    MADE_BY,
    MADE_FROM,
    OF_ROWS,
    SPLITS,
    Operation,
    Others,
    Outcome,
    Parameters,
    Splits,
    declare_columns,
    refusal,
    usable_rows,
    usable_rows_in,
)
from speciate.datasets.similarity import near_duplicates
from speciate.datasets.splits import group_names
from speciate.datasets.versions import Manifest
from speciate.errors import SpeciateError, closest
from speciate.modalities import find
from speciate.modalities.audio import SAMPLE_RATE
from speciate.modalities.contract import DecodeError
from speciate.refs import id_from_key

_SERVICE = "speciate.datasets.operations.variants:rewrite"
_IN_FILES = ("image", "audio")
_PLACED = ("objects", "mask")
"""Columns of labels that have a place in the image."""
_TEMPLATE = (
    "{input}\n\nWrite this text anew in other words. Keep its meaning, its tone, its language, and every name and "
    "number in it. Answer with the text alone."
)
_RULE = "transform"
_SHOWN = 5
Medium = npt.NDArray[Any]
RandomGenerator = np.random.Generator
_LIGHT = 0.15
"""Share by which brightness and contrast change at most."""
_SHIFT = 0.05
"""Share of the height and width by which an image moves at most; its edge pixels are repeated."""
_GRAIN = 5.0
"""Standard deviation of noise in images, of 255."""
_DECIBELS = 3.0
"""Decibels by which audio becomes louder or softer at most."""
_NOISE = 0.03
"""Noise as a share of the spread of a series or audio: 30 dB below it (Um et al. 2017 for series)."""
_SCALE = 0.05
"""Spread of the factor of each channel of a series."""
USUAL: Mapping[str, tuple[str, ...]] = {
    "image": ("light", "shift"), "audio": ("gain", "noise"), "time-series": ("jitter",),
}  # fmt: skip
"""The default kinds."""


class VariantsParameters(Parameters):
    model: str | None = Field(None, description="For texts: who writes them anew, as api:PROVIDER/MODEL.")
    kinds: tuple[str, ...] = Field(
        (), description="image: light, shift, grain, flip; audio: gain, noise; time-series: jitter, scale."
    )
    count: int = Field(1, ge=1, le=10, description="Variants of each example.")
    seed: int = 0
    template: str = Field(_TEMPLATE, description="The prompt.")
    max_tokens: int = Field(1024, ge=1, le=200_000)
    temperature: float | None = Field(0.7, ge=0, le=2)
    budget_usd: float | None = Field(None, gt=0, description="For a model that others serve.")
    splits: Splits = SPLITS
    rewrites: ClassVar[bool] = True
    """The model must write texts."""


class _Changes(TypedDict):
    modality: str
    kinds: list[str]
    origin: str


class VariantsRequest(_Changes, RewriteRequest):
    """What `rewrite` is asked for."""


class _Audit(TypedDict):
    examples: int
    variants: int
    same_as_another: int
    near_another_split: int
    made_by: str
    not_made: NotRequired[int]
    reasons: NotRequired[dict[str, int]]


class _Variant(NamedTuple):
    place: int
    """Place of its original."""
    number: int
    how: str


def preflight(parameters: VariantsParameters, manifest: Manifest, others: Others) -> Manifest:
    if manifest.modality == "text":
        _check_text(parameters, manifest)
    elif manifest.modality not in AUGMENTATIONS:
        raise refusal(
            f"There are no changes to {manifest.modality} that surely keep what an example is of.",
            f"Variants are of text (by a model), {', '.join(AUGMENTATIONS)}.",
        )
    else:
        _check_kinds(parameters, manifest)
    made = declare_columns(manifest, dict.fromkeys(OF_ROWS, "VARCHAR"))
    return made.model_copy(update={"rows": manifest.rows * (1 + parameters.count)})


def _check_text(parameters: VariantsParameters, manifest: Manifest) -> None:
    if parameters.model is None or parameters.kinds:
        raise refusal(
            "Texts are written anew by a model.", "Call again with model='api:PROVIDER/MODEL', without kinds."
        )
    if len(manifest.inputs) != 1:
        raise refusal(
            f"{manifest.ref} shows {', '.join(manifest.inputs) or 'files'} to a model, and only one column of text can "
            "be written anew.",
            "Make the dataset again with one input: create_dataset(inputs=[...]).",
        )
    if any(label.startswith("[") for label in manifest.labels):
        raise refusal("Its labels are of single words, which other words do not have.", "Leave the step out.")


def _check_kinds(parameters: VariantsParameters, manifest: Manifest) -> None:
    known = AUGMENTATIONS[manifest.modality]
    if parameters.model is not None:
        raise refusal(f"A model writes texts anew, and {manifest.ref} holds {manifest.modality}.", "Leave model out.")
    if manifest.inputs and manifest.modality in _IN_FILES:
        raise refusal(f"{manifest.ref} keeps its media in cells.", "Make the dataset again from files.")
    for kind in parameters.kinds:
        if kind not in known:
            raise refusal(
                f"There is no change {kind!r} to {manifest.modality}; {closest(kind, known)}",
                "; ".join(f"{name}: {each.what}" for name, each in known.items()),
            )
    placed = [name for name in _PLACED if name in manifest.columns]
    moving = [kind for kind in _kinds(parameters, manifest) if known[kind].moves]
    if placed and moving:
        raise refusal(
            f"{moving[0]!r} moves what {placed[0]!r} says where it is.",
            f"Call again with kinds={[name for name, each in known.items() if not each.moves]}.",
        )


def _kinds(parameters: VariantsParameters, manifest: Manifest) -> tuple[str, ...]:
    return parameters.kinds or USUAL[manifest.modality]


def check_rows(rows: pa.Table, parameters: VariantsParameters, manifest: Manifest) -> None:
    if not usable_rows_in(rows, parameters.splits).any():
        raise _nothing_to_vary(parameters)


def _nothing_to_vary(parameters: VariantsParameters) -> SpeciateError:
    return refusal(
        f"No example of {' or '.join(parameters.splits)} could have variants.", "Call again with other splits."
    )


def apply(rows: pa.Table, parameters: VariantsParameters, context: Context) -> Outcome:
    manifest = context.manifest
    chosen = usable_rows_in(rows, parameters.splits)
    if MADE_FROM in rows.column_names:  # no variants of variants
        chosen &= ~np.asarray(rows[MADE_FROM].is_valid())
    places = np.flatnonzero(chosen)
    if not len(places):
        raise _nothing_to_vary(parameters)
    rows = _group_variants(rows, places, manifest)
    of = rows.take(pa.array(places))
    lost: Counter[str] = Counter()
    if manifest.modality == "text":
        made, manifest, by = _rewrite_texts(of, parameters, context, lost)
    elif manifest.modality in _IN_FILES:
        made, manifest, by = _augment_files(of, parameters, context, lost)
    else:
        made, manifest, by = _augment_cells(of, parameters, context)
    fresh, doubles = _without_duplicates(made, rows)
    fresh, leaking = _without_near_copies(fresh, rows, context)
    for name in OF_ROWS:
        if name not in rows.column_names:
            rows = with_column(rows, name, pa.nulls(rows.num_rows, pa.string()))
    audit: _Audit = {
        "examples": len(places), "variants": fresh.num_rows, "same_as_another": doubles, "near_another_split": leaking,
        "made_by": by,
    }  # fmt: skip
    if lost:
        audit |= {"not_made": lost.total(), "reasons": dict(lost.most_common(_SHOWN))}
    return Outcome(
        pa.concat_tables([rows, fresh], promote_options="permissive").sort_by("id"), audit, manifest=manifest
    )


def _group_variants(rows: pa.Table, places: Any, manifest: Manifest) -> pa.Table:
    """The variants' rows with a group for each original, which its variants share."""
    of = rows.take(pa.array(places))
    groups = rows["group_key"].to_pylist()
    for place, group in zip(
        places.tolist(), group_names(of, manifest.modality, of["id"].to_pylist()).to_pylist(), strict=True
    ):
        groups[place] = group
    return with_column(rows, "group_key", pa.array(groups, pa.string()))


def _rewrite_texts(
    of: pa.Table, parameters: VariantsParameters, context: Context, lost: Counter[str]
) -> tuple[pa.Table, Manifest, str]:
    teacher = context.teacher_answers(of, parameters.count)
    variants, texts = list[_Variant](), list[str]()
    for number, answers in enumerate(teacher.repeats, 1):
        for place, (output, error) in enumerate(answers):
            text = str(output).strip() if output is not None else ""
            if not text:
                lost[(error or "the answer is empty")[:200]] += 1
                continue
            variants.append(_Variant(place, number, f"{teacher.how} ({number})"))
            texts.append(text)
    made = _rows(of, variants, teacher.teacher)
    (name,) = context.manifest.inputs
    made = with_column(made, name, pa.array(texts, pa.string()))
    return _validate_variants(made, context.manifest), context.manifest, teacher.teacher


def _augment_cells(of: pa.Table, parameters: VariantsParameters, context: Context) -> tuple[pa.Table, Manifest, str]:
    """Augments series whose input columns are each a list of steps, or of channels of steps."""
    manifest, kinds = context.manifest, _kinds(parameters, context.manifest)
    variants = [
        _Variant(place, number, _variant_origin(kinds, parameters.seed, number))
        for number in range(1, parameters.count + 1)
        for place in range(of.num_rows)
    ]
    made, ids = _rows(of, variants, _RULE), of["id"].to_pylist()
    for name in manifest.inputs:
        cells = of[name].to_pylist()
        found = [_augment_cell(cells[each.place], kinds, f"{each.how} {name} {ids[each.place]}") for each in variants]
        made = with_column(made, name, pa.array(found))
    return _validate_variants(made, manifest), manifest, _RULE


def _augment_cell(cell: Any, kinds: Sequence[str], origin: str) -> Any:
    nested = len(cell) > 0 and isinstance(cell[0], list)
    series = np.array(cell if nested else [cell], np.float64)
    seed = int.from_bytes(bytes.fromhex(sha256(origin))[:8])
    found = augment("time-series", kinds, series, np.random.default_rng(seed))
    values = [[None if np.isnan(value) else float(value) for value in channel] for channel in found]
    return values if nested else values[0]


def _augment_files(
    of: pa.Table, parameters: VariantsParameters, context: Context, lost: Counter[str]
) -> tuple[pa.Table, Manifest, str]:
    manifest, kinds = context.manifest, _kinds(parameters, context.manifest)
    contents = of[CONTENT].to_pylist()
    once = list(dict.fromkeys(contents))
    tables, packs = list[pa.Table](), list(manifest.packs)
    for number in range(1, parameters.count + 1):
        how = _variant_origin(kinds, parameters.seed, number)
        payload = _Changes(modality=manifest.modality, kinds=list(kinds), origin=how)
        done = context.rewrite(_SERVICE, payload, once)
        packs.append(str(done.pack.relative_to(context.root)))
        verdicts, sizes = dict[str, Verdict](), dict[str, int]()
        for content, each in done.media.items():
            if each.content is None:
                lost[str(each.report.get("reason") or "its process failed")[:200]] += contents.count(content)
                continue
            (verdict,) = parse_verdicts({"verdicts": [each.report["verdict"]]}, manifest.modality, 1)
            if verdict.quality == "ok":
                verdicts[content], sizes[content] = verdict, each.size
            else:
                lost[str(verdict.reason)[:200]] += contents.count(content)
        variants = [_Variant(place, number, how) for place, content in enumerate(contents) if content in verdicts]
        made = _rows(of, variants, _RULE)
        old = [contents[each.place] for each in variants]
        new = [str(done.media[content].content) for content in old]
        made = _with_verdicts(made, new, [verdicts[content] for content in old], [sizes[content] for content in old])
        tables.append(made)
    manifest = manifest.model_copy(update={"packs": tuple(packs)})
    return pa.concat_tables(tables, promote_options="permissive"), manifest, _RULE


def _with_verdicts(
    rows: pa.Table, contents: Sequence[str], verdicts: Sequence[Verdict], sizes: Sequence[int]
) -> pa.Table:
    """Fills columns that come from a file from the new one."""
    sketches = [None if each.sketch is None else bytes.fromhex(each.sketch) for each in verdicts]
    rows = with_column(rows, CONTENT, pa.array(contents, pa.string()))
    rows = with_column(rows, FINGERPRINT, pa.array([each.fingerprint for each in verdicts], pa.string()))
    if SKETCH in rows.column_names:
        rows = with_column(rows, SKETCH, pa.array(sketches, pa.binary()))
    names = {name for each in verdicts for name in each.fields} | {"bytes"}
    for name in sorted(names & set(rows.column_names)):
        kind = rows.schema.field(name).type
        own = sizes if name == "bytes" else [None] * len(verdicts)
        values = [each.fields.get(name, size) for each, size in zip(verdicts, own, strict=True)]
        found = array(list(values))
        rows = with_column(
            rows, name, found.cast(kind) if found.null_count < len(found) else pa.nulls(len(found), kind)
        )
    return rows


def _variant_origin(kinds: Sequence[str], seed: int, number: int) -> str:
    return f"{' and '.join(kinds)}, seed {seed}, number {number}"


def _rows(of: pa.Table, variants: Sequence[_Variant], by: str) -> pa.Table:
    """A row for each variant with its original's label, group, split and columns, and with an id and key of its own."""
    ids, keys = of["id"].to_pylist(), of[KEY].to_pylist()
    made = of.take(pa.array([each.place for each in variants], pa.int64()))
    own = [f"{ids[each.place]} variant by {by}: {each.how}" for each in variants]
    first = of[ORIGIN].to_pylist() if ORIGIN in of.column_names else [None] * of.num_rows
    values = {
        "id": [id_from_key("ex", text) for text in own],
        KEY: [sha256(f"{keys[each.place]} {text}") for each, text in zip(variants, own, strict=True)],
        ORIGIN: [first[each.place] or keys[each.place] for each in variants],
        MADE_BY: [by] * len(variants),
        MADE_FROM: [ids[each.place] for each in variants],
        HOW: [each.how for each in variants],
    }
    for name, cells in values.items():
        made = with_column(made, name, pa.array(cells, pa.string()))
    return made


def _validate_variants(made: pa.Table, manifest: Manifest) -> pa.Table:
    """Validates variants as an ingest would: their input names them."""
    verdicts = row_verdicts(made.select(list(manifest.inputs)), manifest.modality, list(manifest.inputs))
    for name, verdict in ((CONTENT, "content"), (FINGERPRINT, "fingerprint"), (SKETCH, "sketch")):
        if name in made.column_names:
            made = with_column(made, name, verdicts[verdict])
    for name in ("quality", "reason"):
        made = with_column(made, name, verdicts[name])
    return made


def _without_duplicates(made: pa.Table, rows: pa.Table) -> tuple[pa.Table, int]:
    """The variants that equal no existing row, and how many are left out: a copy teaches nothing."""
    seen = set(rows[CONTENT].to_pylist())
    kept = []
    for content in made[CONTENT].to_pylist():
        kept.append(content not in seen)
        seen.add(content)
    return made.filter(pa.array(kept, pa.bool_())), kept.count(False)


def _without_near_copies(made: pa.Table, rows: pa.Table, context: Context) -> tuple[pa.Table, int]:
    """The variants that are no near-copy of a row of another split, directly or by others between them, and how many
    are left out: a change may lead from one row to where another lies, and that would leak."""
    there = rows.filter(pa.array(usable_rows(rows)))
    stacked = pa.concat_tables([there, made], promote_options="permissive")
    found = near_duplicates.clusters(stacked.num_rows, context.near_pairs(stacked))
    splits = stacked["split"].to_pylist()
    lies: dict[int, set[str | None]] = {}
    for cluster, split in zip(found[: there.num_rows].tolist(), splits, strict=False):
        lies.setdefault(cluster, set()).add(split)
    kept = [
        not lies.get(cluster, set()) - {split}
        for cluster, split in zip(found[there.num_rows :].tolist(), splits[there.num_rows :], strict=True)
    ]
    return made.filter(pa.array(kept, pa.bool_())), kept.count(False)


def rewrite(payload: VariantsRequest) -> RewriteAnswer:
    """The service (`rewrite_media`).

    Randomness depends on `origin` and a file's content alone, not on the order or on other files.
    """
    name, path, items = str(payload["modality"]), Path.cwd() / "variants", list[RewrittenItem]()
    modality, reader = find(name), cached_reader(tuple(payload["packs"]))
    with path.open("wb") as file:
        for content in payload["contents"]:
            seed = hashlib.sha256(f"{payload['origin']} {content}".encode()).digest()[:8]
            random = np.random.default_rng(int.from_bytes(seed))
            try:
                medium = augment(name, payload["kinds"], modality.decode(reader.get(content)), random)
            except DecodeError as error:
                items.append({"length": None, "reason": error.detail})
                continue
            written = _encode_medium(name, medium)
            file.write(written)
            items.append({"length": len(written), "verdict": list(validate_bytes(modality, written, as_is=True))})
    return {"file": path.name, "items": items}


def _encode_medium(modality: str, medium: Medium) -> bytes:
    out = io.BytesIO()
    if modality == "image":
        from PIL import Image

        Image.fromarray(medium).save(out, "PNG")
    else:
        import soundfile

        soundfile.write(out, medium, SAMPLE_RATE, format="FLAC", subtype="PCM_16")
    return out.getvalue()


class Augmentation(NamedTuple):
    what: str
    change: Callable[[Medium, RandomGenerator], Medium]
    moves: bool = False
    """Whether things change their place: labels with places no longer fit."""


def light(image: Medium, random: RandomGenerator) -> Medium:
    """(H, W, 3) uint8."""
    brightness, contrast = 1 + random.uniform(-_LIGHT, _LIGHT, 2)
    mean = image.mean()
    return _pixels((image - mean) * contrast + mean * brightness)


def shift(image: Medium, random: RandomGenerator) -> Medium:
    """(H, W, 3) uint8, by whole pixels, at least one; an image smaller than twenty pixels stays where it is."""
    height, width = image.shape[:2]
    most = int(_SHIFT * height), int(_SHIFT * width)
    down, right = (int(random.integers(-each, each + 1)) for each in most)
    if down == right == 0:
        down, right = most
    rows = np.clip(np.arange(height) - down, 0, height - 1)
    columns = np.clip(np.arange(width) - right, 0, width - 1)
    return np.asarray(image[rows][:, columns])


def grain(image: Medium, random: RandomGenerator) -> Medium:
    """(H, W, 3) uint8."""
    return _pixels(image + random.normal(0, _GRAIN, image.shape))


def flip(image: Medium, random: RandomGenerator) -> Medium:
    return np.ascontiguousarray(image[:, ::-1])


def gain(audio: Medium, random: RandomGenerator) -> Medium:
    """(T,) float32; never beyond full scale."""
    factor = 10 ** (random.uniform(-_DECIBELS, _DECIBELS) / 20)
    return (audio * min(factor, 1 / max(float(np.abs(audio).max()), 1e-9))).astype(np.float32)


def hiss(audio: Medium, random: RandomGenerator) -> Medium:
    """(T,) float32."""
    noisy = audio + random.normal(0, _NOISE * float(audio.std()), audio.shape)
    return np.clip(noisy, -1, 1).astype(np.float32)


def jitter(series: Medium, random: RandomGenerator) -> Medium:
    """(C, T) float64; a step without a value stays without one."""
    return np.asarray(series + random.normal(0, 1, series.shape) * _NOISE * _channel_scale(series))


def scale(series: Medium, random: RandomGenerator) -> Medium:
    """(C, T) float64."""
    return np.asarray(series * random.normal(1, _SCALE, (len(series), 1)))


AUGMENTATIONS: Mapping[str, Mapping[str, Augmentation]] = {
    "image": {
        "light": Augmentation("a little lighter or darker, with more or less contrast", light),
        "shift": Augmentation("moved by up to a twentieth", shift, moves=True),
        "grain": Augmentation("with noise", grain),
        "flip": Augmentation("mirrored: only where left and right mean the same", flip, moves=True),
    },
    "audio": {
        "gain": Augmentation("louder or softer by up to 3 dB", gain),
        "noise": Augmentation("with noise 30 dB below", hiss),
    },
    "time-series": {
        "jitter": Augmentation("with noise of a thirtieth of its spread", jitter),
        "scale": Augmentation("each channel times about 1: not where the size is what is learned", scale),
    },
}


def augment(modality: str, kinds: Sequence[str], medium: Medium, random: RandomGenerator) -> Medium:
    for kind in kinds:
        medium = AUGMENTATIONS[modality][kind].change(medium, random)
    return medium


def _pixels(values: Medium) -> Medium:
    return np.clip(values.round(), 0, 255).astype(np.uint8)


def _channel_scale(series: Medium) -> Medium:
    """(C, 1)"""
    known = np.where(np.isfinite(series), series, np.nan)
    found = np.nanstd(known, axis=1, keepdims=True) if known.size and np.isfinite(known).any() else np.zeros((1, 1))
    return np.nan_to_num(found)


VARIANTS = Operation(
    name="variants",
    what="further examples from those for training: texts in other words, media a little changed",
    parameters=VariantsParameters,
    preflight=preflight,
    apply=apply,
    check_rows=check_rows,
    outside="speciate.evaluation.teacher_answers:plan",
)
