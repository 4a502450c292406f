"""What every modality must hold, ours and a third party's. A new one joins by its files in samples.py."""

from __future__ import annotations

import random
import tracemalloc
from collections.abc import Callable
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from speciate.datasets.readers.rows import REASON
from speciate.datasets.readers.time_series import read_ts
from speciate.datasets.similarity import near_duplicates
from speciate.errors import SpeciateError
from speciate.modalities import find, table
from speciate.modalities.contract import (
    LARGEST_THUMBNAIL,
    DecodeError,
    FileSummary,
    PairwiseSimilarity,
    Sketching,
    SketchingByPart,
)
from tests.modalities.samples import BOMBS, SAMPLES, Sample

EACH = pytest.mark.parametrize("sample", SAMPLES, ids=lambda sample: sample.label)
ALL = pytest.mark.parametrize("name", sorted(BOMBS))


def decoded(name: str, data: bytes) -> Any:
    """The medium, or the refusal: nothing else may come out of foreign bytes, and both ways of judging must agree."""
    modality = find(name)
    media, judged = _or_refusal(modality.decode, data), _or_refusal(modality.summarize, data)
    if not isinstance(media, DecodeError):
        modality.inspect(data)
        assert isinstance(judged, FileSummary), judged
        return media
    assert media.quality in ("partial", "refused", "error")
    assert media.detail
    assert isinstance(judged, DecodeError)
    assert judged.quality == media.quality
    return media


def _or_refusal(read: Callable[[bytes], Any], data: bytes) -> Any:
    try:
        return read(data)
    except DecodeError as error:
        return error


def usable(name: str, media: Any) -> None:
    """A decoded medium can be described, measured, drawn, recognised and compared."""
    modality = find(name)
    described = modality.describe(media)
    if isinstance(described, str):
        assert described
    else:
        assert described.dtype == np.float32
        assert described.ndim == 1
        assert np.isfinite(described).all()
    features = modality.features(media)
    assert features.dtype == np.float32
    assert features.shape == (width(name),)
    assert np.isfinite(features).all()
    assert all(np.isfinite(value) for value in modality.measure(media).values())
    picture = modality.thumbnail(media)
    assert picture.dtype == np.uint8
    assert picture.ndim == 3
    assert picture.shape[2] == 3
    assert max(picture.shape[:2]) <= modality.thumbnail_side <= LARGEST_THUMBNAIL
    assert modality.fingerprint(media) == modality.fingerprint(media)
    sketch = modality.sketch(media)
    if isinstance(modality.sketching, SketchingByPart):
        assert sketch is not None
        assert modality.sketching.is_valid(sketch)
    elif not isinstance(modality.sketching, PairwiseSimilarity):
        assert sketch is None or (modality.sketching is not None and len(sketch) == modality.sketching.width)


@cache
def width(name: str) -> int:
    """Of the features of a modality's first sample: every other must have as many."""
    modality = find(name)
    return len(modality.features(modality.decode(first(name).data)))


def first(name: str) -> Sample:
    return next(sample for sample in SAMPLES if sample.modality == name)


def test_every_modality_has_a_sample_and_a_bomb() -> None:
    assert {sample.modality for sample in SAMPLES} == set(BOMBS) == set(table())


@EACH
def test_a_real_file_decodes_and_is_usable(sample: Sample) -> None:
    media = decoded(sample.modality, sample.data)
    assert not isinstance(media, DecodeError), media
    usable(sample.modality, media)


@EACH
def test_its_own_files_are_recognised_and_nobody_elses(sample: Sample) -> None:
    seen_by = {name for name in table() if find(name).sniff(sample.data[:4096], sample.file)}
    assert seen_by == {sample.modality}
    assert sample.file.endswith((*find(sample.modality).suffixes, ".jpg"))


@EACH
def test_names_in_any_script_are_names(sample: Sample) -> None:
    name = f"Übung ☃ 図{Path(sample.file).suffix.upper()}"
    assert find(sample.modality).sniff(sample.data[:4096], name)


@EACH
def test_a_wrong_name_does_not_make_another_modality_of_it(sample: Sample) -> None:
    """An image that is called .txt is no text, and so on: it is recognised as what it is, or refused. The sound of a
    video is a recording."""
    for other in SAMPLES:
        if Path(sample.file).suffix in find(other.modality).borrows:
            continue
        if other.modality != sample.modality and find(other.modality).sniff(sample.data[:4096], other.file):
            media = decoded(other.modality, sample.data)
            assert isinstance(media, DecodeError) or other.modality in ("text", "tabular", "time-series")


@EACH
def test_the_header_declares_a_size(sample: Sample) -> None:
    header = find(sample.modality).inspect(sample.data)
    assert header.decoded_bytes > 0
    assert all(isinstance(value, str | int | float) for value in header.fields.values())


@EACH
def test_a_summary_says_what_the_medium_says(sample: Sample) -> None:
    """But for fingerprints of what is encoded (a video's, a JPEG's), and small differences of a JPEG in small."""
    modality = find(sample.modality)
    judged, media = modality.summarize(sample.data), modality.decode(sample.data)
    assert judged.header == modality.inspect(sample.data)
    assert judged.measures == pytest.approx(modality.measure(media), abs=0.02)
    scaled = judged.header.fields.get("format") in ("JPEG", "MPO")
    assert scaled or sample.modality == "video" or judged.fingerprint == modality.fingerprint(media)
    assert scaled or judged.sketch == modality.sketch(media)


@EACH
def test_a_truncated_file_is_told_where_its_format_knows(sample: Sample) -> None:
    for share in (0.02, 0.1, 0.25, 0.5, 0.75, 0.9, 0.99):
        media = decoded(sample.modality, sample.data[: int(len(sample.data) * share)])
        if isinstance(media, DecodeError):
            assert media.quality in ("partial", "error"), share
        else:
            assert not sample.declares, share
            usable(sample.modality, media)


@EACH
def test_not_even_the_last_bytes_may_be_missing(sample: Sample) -> None:
    for missing in (1, 2, 3, 5, 8):
        assert isinstance(decoded(sample.modality, sample.data[:-missing]), DecodeError) or not sample.declares


@EACH
@pytest.mark.parametrize("seed", [0, *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(1, 6))])
def test_flipped_bytes_are_refused_or_still_usable(sample: Sample, seed: int) -> None:
    chance = random.Random(seed)
    for flips in (1, 5, 30) if seed == 0 else (1, 1, 3, 5, 30):
        data = bytearray(sample.data)
        for _ in range(flips):
            data[chance.randrange(len(data))] = chance.randrange(256)
        media = decoded(sample.modality, bytes(data))
        if not isinstance(media, DecodeError):
            usable(sample.modality, media)


@ALL
def test_a_bomb_is_refused_by_its_header(name: str) -> None:
    data = BOMBS[name]
    find(name).summarize(first(name).data)  # what is loaded late is no part of it
    tracemalloc.start()
    refused = decoded(name, data)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert isinstance(refused, DecodeError)
    assert refused.quality == "refused"
    assert peak < 4_000_000 + 4 * len(data)


@ALL
def test_an_empty_file_is_an_error(name: str) -> None:
    assert isinstance(decoded(name, b""), DecodeError)


@ALL
def test_blank_bytes_are_an_error(name: str) -> None:
    assert isinstance(decoded(name, bytes(1000)), DecodeError)
    assert isinstance(decoded(name, b" \n" * 100), DecodeError)


@ALL
def test_another_modalitys_file_is_refused_or_usable(name: str) -> None:
    for sample in SAMPLES:
        if sample.modality == name:
            continue
        media = decoded(name, sample.data)
        if not isinstance(media, DecodeError):
            usable(name, media)


@ALL
def test_images_and_recordings_are_nothing_else(name: str) -> None:
    for sample in SAMPLES:
        if sample.modality in ("image", "audio"):
            assert isinstance(decoded(name, sample.data), DecodeError) == (name != sample.modality)


@ALL
@pytest.mark.parametrize("value", [None, 7, "", {}, [], object(), float("nan"), [["a"]], {"a": object()}])
def test_a_cell_that_holds_no_medium_is_refused(name: str, value: Any) -> None:
    with pytest.raises(DecodeError):
        find(name).admit(value)


@ALL
def test_windows_put_together_are_the_whole(name: str) -> None:
    modality = find(name)
    media = modality.decode(first(name).data)
    if modality.window_unit is None or isinstance(media, dict):  # of several arrays: tests of their own
        return
    length = media.shape[-1] / (16_000 if modality.window_unit == "seconds" else 1)
    cuts = [0.0, length / 4, length / 2, 2 * length]
    parts = [modality.window(media, start, stop) for start, stop in pairwise(cuts)]
    for part in parts:
        usable(name, part)
    assert (np.concatenate(parts, axis=-1) == media).all()


@ALL
def test_the_same_medium_is_its_own_near_duplicate(name: str) -> None:
    modality = find(name)
    sketch = modality.sketch(modality.decode(first(name).data))
    assert (sketch is None) == (modality.sketching is None)
    if sketch is not None and modality.sketching is not None:
        row = np.frombuffer(sketch, np.uint8)[np.newaxis]
        if isinstance(modality.sketching, Sketching):
            assert modality.sketching.keys(row).dtype == np.uint64
            assert modality.sketching.near(row, row).tolist() == [True]
        assert near_duplicates.near_duplicate_pairs([sketch, None, sketch], modality.sketching).tolist() == [[0, 2]]


@pytest.mark.parametrize("line", ["1,2,3:slow", "1,2,3,4:4,5,6:slow", "1,2,3:4,5,6,7", "1,2:4,5:slow"])
def test_a_series_with_fewer_values_than_its_file_declares_is_no_example(tmp_path: Path, line: str) -> None:
    """A .ts file declares channels, length and classes in its header."""
    header = "@timeStamps false\n@dimensions 2\n@equalLength true\n@seriesLength 3\n@classLabel true slow fast\n@data\n"
    path = tmp_path / "moves.ts"
    path.write_text(header + "1,2,3:4,5,6:slow\n" + line + "\n")
    table = read_ts(path, ())
    assert [reason is None for reason in table[REASON].to_pylist()] == [True, False]


def test_an_unknown_modality_names_the_nearest() -> None:
    with pytest.raises(SpeciateError, match="did you mean 'image'"):
        find("imag")
