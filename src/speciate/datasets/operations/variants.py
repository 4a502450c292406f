"""Further examples made from those that there are: texts in other words by a model, media a little changed.

A variant keeps its original's label, so what is changed must not be what the label is about: transforms.py says how far
each goes. It lies in its original's group and split, so that the two never cross a split, and is made from rows of
`train` alone unless `splits` says otherwise; a later `split` leaves out variants of what it deals to be judged by.
What is made by chance follows from the seed; what a model wrote is kept, and the same step finds it again.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any, ClassVar, NamedTuple

import numpy as np
import pyarrow as pa
from pydantic import Field

from speciate.datasets.columns import CONTENT, FINGERPRINT, KEY, ORIGIN, SKETCH, array, with_column
from speciate.datasets.identity import sha256
from speciate.datasets.intake.judging import Verdict, checked
from speciate.datasets.intake.judging_rows import judged
from speciate.datasets.operations.context import Context
from speciate.datasets.operations.contract import Operation, Others, Outcome, Parameters, refusal
from speciate.datasets.operations.made import HOW, MADE_BY, MADE_FROM, OF_ROWS, with_columns
from speciate.datasets.operations.masks import SPLITS, Splits, within
from speciate.datasets.operations.transforms import TRANSFORMS, USUAL, changed
from speciate.datasets.together import belonging
from speciate.datasets.versions import Manifest
from speciate.errors import closest
from speciate.ids import id_from_key

_SERVICE = "speciate.datasets.operations.variant_files:rewrite"
_IN_FILES = ("image", "audio")
_PLACED = ("objects", "mask")
"""Columns of truths that have a place in the picture."""
_TEMPLATE = (
    "{input}\n\nWrite this text anew in other words. Keep its meaning, its tone, its language, and every name and "
    "number in it. Answer with the text alone."
)
_RULE = "transform"
_SHOWN = 5


class VariantsParameters(Parameters):
    model: str | None = Field(None, description="For texts: who writes them anew, as api:PROVIDER/MODEL.")
    kinds: tuple[str, ...] = Field(
        (), description="image: light, shift, grain, flip; audio: gain, noise; time-series: jitter, scale."
    )
    count: int = Field(1, ge=1, le=10, description="Variants of each example.")
    seed: int = 0
    template: str = Field(_TEMPLATE, description="What the model is asked.")
    max_tokens: int = Field(1024, ge=1, le=200_000)
    temperature: float | None = Field(0.7, ge=0, le=2)
    budget_usd: float | None = Field(None, gt=0, description="For a model that others serve.")
    splits: Splits = SPLITS
    rewrites: ClassVar[bool] = True
    """The model must write texts."""


class _Variant(NamedTuple):
    place: int
    """Of its original."""
    number: int
    how: str


def foresee(parameters: VariantsParameters, manifest: Manifest, others: Others) -> Manifest:
    if manifest.modality == "text":
        _check_text(parameters, manifest)
    elif manifest.modality not in TRANSFORMS:
        raise refusal(
            f"There are no changes to {manifest.modality} that surely keep what an example is of.",
            f"Variants are of text (by a model), {', '.join(TRANSFORMS)}.",
        )
    else:
        _check_kinds(parameters, manifest)
    made = with_columns(manifest, dict.fromkeys(OF_ROWS, "VARCHAR"))
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
    known = TRANSFORMS[manifest.modality]
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


def apply(rows: pa.Table, parameters: VariantsParameters, context: Context) -> Outcome:
    manifest = context.manifest
    chosen = within(rows, parameters.splits)
    if MADE_FROM in rows.column_names:  # no variants of variants
        chosen &= ~np.asarray(rows[MADE_FROM].is_valid())
    places = np.flatnonzero(chosen)
    if not len(places):
        raise refusal(
            f"No example of {' or '.join(parameters.splits)} could have variants.", "Call again with other splits."
        )
    rows = _together(rows, places, manifest)
    of = rows.take(pa.array(places))
    lost: Counter[str] = Counter()
    if manifest.modality == "text":
        made, manifest, by = _rewritten_texts(of, parameters, context, lost)
    elif manifest.modality in _IN_FILES:
        made, manifest, by = _changed_files(of, parameters, context, lost)
    else:
        made, manifest, by = _changed_cells(of, parameters, context)
    fresh, doubles = _distinct(made, rows)
    for name in OF_ROWS:
        if name not in rows.column_names:
            rows = with_column(rows, name, pa.nulls(rows.num_rows, pa.string()))
    audit: dict[str, Any] = {
        "examples": len(places), "variants": fresh.num_rows, "same_as_another": doubles, "made_by": by,
    }  # fmt: skip
    if lost:
        audit |= {"not_made": lost.total(), "reasons": dict(lost.most_common(_SHOWN))}
    return Outcome(
        pa.concat_tables([rows, fresh], promote_options="permissive").sort_by("id"), audit, manifest=manifest
    )


def _together(rows: pa.Table, places: Any, manifest: Manifest) -> pa.Table:
    """With a group for each original, which its variants will share."""
    of = rows.take(pa.array(places))
    groups = rows["group_key"].to_pylist()
    for place, group in zip(
        places.tolist(), belonging(of, manifest.modality, of["id"].to_pylist()).to_pylist(), strict=True
    ):
        groups[place] = group
    return with_column(rows, "group_key", pa.array(groups, pa.string()))


def _rewritten_texts(
    of: pa.Table, parameters: VariantsParameters, context: Context, lost: Counter[str]
) -> tuple[pa.Table, Manifest, str]:
    said = context.answers(of, parameters.count)
    variants, texts = list[_Variant](), list[str]()
    for number, answers in enumerate(said.repeats, 1):
        for place, (output, error) in enumerate(answers):
            text = str(output).strip() if output is not None else ""
            if not text:
                lost[(error or "the answer is empty")[:200]] += 1
                continue
            variants.append(_Variant(place, number, f"{said.how} ({number})"))
            texts.append(text)
    made = _rows(of, variants, said.teacher)
    (name,) = context.manifest.inputs
    made = with_column(made, name, pa.array(texts, pa.string()))
    return _judged(made, context.manifest), context.manifest, said.teacher


def _changed_cells(of: pa.Table, parameters: VariantsParameters, context: Context) -> tuple[pa.Table, Manifest, str]:
    """Series, each of whose input columns is a list of steps, or of channels of steps."""
    manifest, kinds = context.manifest, _kinds(parameters, context.manifest)
    variants = [
        _Variant(place, number, _told(kinds, parameters.seed, number))
        for number in range(1, parameters.count + 1)
        for place in range(of.num_rows)
    ]
    made, ids = _rows(of, variants, _RULE), of["id"].to_pylist()
    for name in manifest.inputs:
        cells = of[name].to_pylist()
        found = [_changed_cell(cells[each.place], kinds, f"{each.how} {name} {ids[each.place]}") for each in variants]
        made = with_column(made, name, pa.array(found))
    return _judged(made, manifest), manifest, _RULE


def _changed_cell(cell: Any, kinds: Sequence[str], chance: str) -> Any:
    nested = len(cell) > 0 and isinstance(cell[0], list)
    series = np.array(cell if nested else [cell], np.float64)
    seed = int.from_bytes(bytes.fromhex(sha256(chance))[:8])
    found = changed("time-series", kinds, series, np.random.default_rng(seed))
    values = [[None if np.isnan(value) else float(value) for value in channel] for channel in found]
    return values if nested else values[0]


def _changed_files(
    of: pa.Table, parameters: VariantsParameters, context: Context, lost: Counter[str]
) -> tuple[pa.Table, Manifest, str]:
    manifest, kinds = context.manifest, _kinds(parameters, context.manifest)
    contents = of[CONTENT].to_pylist()
    once = list(dict.fromkeys(contents))
    tables, packs = list[pa.Table](), list(manifest.packs)
    for number in range(1, parameters.count + 1):
        how = _told(kinds, parameters.seed, number)
        payload = {"modality": manifest.modality, "kinds": list(kinds), "chance": how}
        done = context.rewritten(_SERVICE, payload, once)
        packs.append(str(done.pack.relative_to(context.root)))
        verdicts, sizes = dict[str, Verdict](), dict[str, int]()
        for content, each in done.media.items():
            if each.content is None:
                lost[str(each.told.get("reason") or "its process failed")[:200]] += contents.count(content)
                continue
            (verdict,) = checked({"verdicts": [each.told["verdict"]]}, manifest.modality, 1)
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
    """Columns that a file fills are filled from the new one."""
    sketches = [None if each.sketch is None else bytes.fromhex(each.sketch) for each in verdicts]
    rows = with_column(rows, CONTENT, pa.array(contents, pa.string()))
    rows = with_column(rows, FINGERPRINT, pa.array([each.fingerprint for each in verdicts], pa.string()))
    if SKETCH in rows.column_names:
        rows = with_column(rows, SKETCH, pa.array(sketches, pa.binary()))
    names = {name for each in verdicts for name in each.fields} | {"bytes"}
    for name in sorted(names & set(rows.column_names)):
        kind = rows.schema.field(name).type
        values = sizes if name == "bytes" else [each.fields.get(name) for each in verdicts]
        found = array(list(values))
        rows = with_column(
            rows, name, found.cast(kind) if found.null_count < len(found) else pa.nulls(len(found), kind)
        )
    return rows


def _told(kinds: Sequence[str], seed: int, number: int) -> str:
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


def _judged(made: pa.Table, manifest: Manifest) -> pa.Table:
    """As an ingest would: what a model sees of them names them."""
    verdicts = judged(made.select(list(manifest.inputs)), manifest.modality, list(manifest.inputs))
    for name, verdict in ((CONTENT, "content"), (FINGERPRINT, "fingerprint"), (SKETCH, "sketch")):
        if name in made.column_names:
            made = with_column(made, name, verdicts[verdict])
    for name in ("quality", "reason"):
        made = with_column(made, name, verdicts[name])
    return made


def _distinct(made: pa.Table, rows: pa.Table) -> tuple[pa.Table, int]:
    """Those that are like nothing that is there, and how many are left out: a copy teaches nothing."""
    seen = set(rows[CONTENT].to_pylist())
    kept = []
    for content in made[CONTENT].to_pylist():
        kept.append(content not in seen)
        seen.add(content)
    return made.filter(pa.array(kept, pa.bool_())), kept.count(False)


VARIANTS = Operation(
    name="variants",
    what="further examples from those for training: texts in other words, media a little changed",
    parameters=VariantsParameters,
    foresee=foresee,
    apply=apply,
    outside="speciate.evaluation.teachers:plan",
)
