"""What every modality must hold. A new one joins by a line in samples.py."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from speciate.datasets.reading import REASON, _read_ts
from speciate.errors import SpeciateError
from speciate.modalities import MODALITIES, find
from speciate.modalities.contract import THUMBNAIL, DecodeError
from tests.modalities.samples import FILE_NAMES, SAMPLES, photo


@pytest.fixture(params=sorted(MODALITIES))
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def decoded(name: str, data: bytes) -> Any:
    """The medium, or the refusal: nothing else may come out of foreign bytes."""
    try:
        find(name).inspect(data)
        return find(name).decode(data)
    except DecodeError as error:
        refusal = error
    assert refusal.quality in ("partial", "refused", "error")
    assert refusal.detail
    return refusal


def usable(name: str, media: Any) -> None:
    """A decoded medium can be described, drawn and recognised."""
    modality = find(name)
    described = modality.describe(media)
    if isinstance(described, str):
        assert described
    else:
        assert described.dtype == np.float32
        assert described.ndim == 1
        assert np.isfinite(described).all()
    picture = modality.thumbnail(media)
    assert picture.dtype == np.uint8
    assert picture.ndim == 3
    assert picture.shape[2] == 3
    assert max(picture.shape[:2]) <= THUMBNAIL
    assert modality.fingerprint(media) == modality.fingerprint(media)


def test_every_modality_has_a_sample() -> None:
    assert set(SAMPLES) == set(MODALITIES)


def test_a_real_file_decodes_and_is_usable(name: str) -> None:
    media = decoded(name, SAMPLES[name])
    assert not isinstance(media, DecodeError), media
    usable(name, media)


def test_its_own_files_are_recognised_and_nobody_elses(name: str) -> None:
    for other, data in SAMPLES.items():
        assert find(name).sniff(data[:4096], FILE_NAMES[other]) == (other == name)


def test_the_header_declares_a_size(name: str) -> None:
    header = find(name).inspect(SAMPLES[name])
    assert header.decoded_bytes > 0
    assert all(isinstance(value, str | int | float) for value in header.fields.values())


@pytest.mark.parametrize("share", [0.02, 0.25, 0.5, 0.9, 0.99])
def test_what_declares_its_length_is_quarantined_where_it_is_shorter(share: float) -> None:
    """PNG and JPEG declare width and height. Text, FASTA, JSON and CSV declare nothing: the next test is theirs."""
    for format_ in ("PNG", "JPEG"):
        data = photo(format_)
        cut = decoded("image", data[: int(len(data) * share)])
        assert isinstance(cut, DecodeError), format_
        assert cut.quality in ("partial", "error")


@pytest.mark.parametrize("seed", range(10))
def test_a_picture_that_lost_bytes_inside_is_never_taken_whole(seed: int) -> None:
    """PNG alone: its chunks carry sums. JPEG has none, so what is missing in the middle cannot always be told."""
    data = SAMPLES["image"]
    at = random.Random(seed).randrange(60, len(data) - 60)
    assert isinstance(decoded("image", data[:at] + data[at + 20 :]), DecodeError)


@pytest.mark.parametrize("line", ["1,2,3:slow", "1,2,3,4:4,5,6:slow", "1,2,3:4,5,6,7", "1,2:4,5:slow"])
def test_a_series_with_fewer_values_than_its_file_declares_is_no_example(tmp_path: Path, line: str) -> None:
    """A .ts file declares channels, length and classes in its header."""
    header = "@timeStamps false\n@dimensions 2\n@equalLength true\n@seriesLength 3\n@classLabel true slow fast\n@data\n"
    path = tmp_path / "moves.ts"
    path.write_text(header + "1,2,3:4,5,6:slow\n" + line + "\n")
    table = _read_ts(path)
    assert [reason is None for reason in table[REASON].to_pylist()] == [True, False]


@pytest.mark.parametrize("share", [0.02, 0.25, 0.5, 0.9, 0.99])
def test_a_truncated_file_is_refused_or_still_usable(name: str, share: float) -> None:
    data = SAMPLES[name]
    media = decoded(name, data[: int(len(data) * share)])
    if not isinstance(media, DecodeError):
        usable(name, media)


def test_an_empty_file_is_an_error(name: str) -> None:
    assert isinstance(decoded(name, b""), DecodeError)


def test_blank_bytes_are_an_error(name: str) -> None:
    assert isinstance(decoded(name, bytes(1000)), DecodeError)
    assert isinstance(decoded(name, b" \n" * 100), DecodeError)


@pytest.mark.parametrize("seed", range(30))
def test_flipped_bytes_are_refused_or_still_usable(name: str, seed: int) -> None:
    chance = random.Random(seed)
    data = bytearray(SAMPLES[name])
    for _ in range(chance.choice([1, 5, 30])):
        data[chance.randrange(len(data))] = chance.randrange(256)
    media = decoded(name, bytes(data))
    if not isinstance(media, DecodeError):
        usable(name, media)


def test_another_modalitys_file_is_refused_or_usable(name: str) -> None:
    for data in SAMPLES.values():
        media = decoded(name, data)
        if not isinstance(media, DecodeError):
            usable(name, media)


def test_a_picture_is_nothing_but_a_picture(name: str) -> None:
    assert isinstance(decoded(name, SAMPLES["image"]), DecodeError) == (name != "image")


@pytest.mark.parametrize("value", [None, 7, "", {}, [], object(), float("nan"), [["a"]], {"a": object()}])
def test_a_cell_that_holds_no_medium_is_refused(name: str, value: Any) -> None:
    with pytest.raises(DecodeError):
        find(name).admit(value)


def test_an_unknown_modality_names_the_nearest() -> None:
    with pytest.raises(SpeciateError, match="did you mean 'image'"):
        find("imag")
