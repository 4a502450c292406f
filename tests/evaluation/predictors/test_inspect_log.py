"""Logs of inspect-ai as models under evaluation.

`inspect_logs/sums.eval` was written by inspect-ai 0.3.285: a task of the samples `sum-000` to `sum-003`, `4` and `5`
("What is N + N?") and `elsewhere`, two epochs, solver `generate()`, scorer `match()`, `fail_on_error=False`, and the
model `mockllm/model` with 20 tokens in and 2 out, which answers 5 to 2 + 2 and raises at 3 + 3. inspect-ai read it
again and wrote it without events and tracebacks, which hold paths.
"""

from __future__ import annotations

import json
import struct
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from speciate.datasets.loading.loader import Example
from speciate.errors import Code, SpeciateError
from speciate.evaluation.predictors import inspect_log_process
from speciate.evaluation.predictors.inspect_log import match_samples
from speciate.evaluation.predictors.inspect_log_process import Sample, log_identity, read
from speciate.evaluation.reports import report
from speciate.settings import Settings
from speciate.workspace.workspace import Workspace
from tests.evaluation import world
from tests.evaluation.judges import texts

LOG = Path(__file__).parent / "inspect_logs" / "sums.eval"


@pytest.fixture
def sums(tmp_path: Path) -> Iterator[Workspace]:
    workspace = Workspace(tmp_path / "workspace", settings=Settings(policy="auto"))
    texts.make_dataset(workspace, count=7)
    texts.define(workspace)
    yield workspace
    workspace.close()


def asked(file: Path, start: int = 0) -> dict[str, Any]:
    inspect_log_process._open_log.cache_clear()
    return read({"file": str(file), "identity": log_identity(file), "start": start})


def as_json() -> dict[str, Any]:
    """The log in inspect-ai's other form: one JSON object."""
    held, raw = {}, LOG.read_bytes()
    with zipfile.ZipFile(LOG) as archive:
        members = archive.infolist()
    for info in members:
        begin = info.header_offset + 30 + sum(struct.unpack_from("<2H", raw, info.header_offset + 26))
        packed = pa.BufferReader(raw[begin : begin + info.compress_size])
        held[info.filename] = json.loads(pa.CompressedInputStream(packed, "zstd").read())
    samples = [content for name, content in held.items() if name.startswith("samples/")]
    return {**held["header.json"], "samples": samples}


def test_an_inspect_run_takes_part_beside_ones_own_models(sums: Workspace) -> None:
    spec = {
        "dataset": "sums", "use_case": "summing", "models": [f"inspect:{LOG}"], "baseline": "column:bad",
        "latency": False,
    }  # fmt: skip
    result = world.evaluate_models(sums, **spec)
    found = report.find_report(sums.database, result["evaluation"])
    name = f"inspect:sums.eval@{log_identity(LOG).removeprefix('inspect-')[:8]}"
    row = found.row(name)
    assert row.value == pytest.approx(4 / 7)  # 2 + 2 is wrong, 3 + 3 an error, 6 + 6 was not asked
    assert (row.errors, row.repeats, row.n, row.served_model) == (4, 2, 7, "mockllm/model")
    assert (row.usd_per_1k, row.p95_ms, row.control.offline) == (None, None, False)
    assert row.p50_ms is not None
    compared = found.compare("column:bad", name)
    assert compared is not None
    assert compared.delta == pytest.approx(4 / 7 - 2 / 7)
    notes = " ".join(found.notes)
    assert f"{name} has no sample about 1 of 7 examples: 'sum-006'." in notes
    assert f"1 samples of {name} are about none of the examples: 'elsewhere'." in notes
    rows = pq.read_table(sums.folders.evaluations / result["evaluation"] / "predictions.parquet").to_pylist()
    errors = {row["error"] for row in rows if row["model"] == name and row["error"]}
    assert errors == {"RuntimeError('the endpoint is down')", "the log has no sample about this example"}
    kept = [row for path in sums.folders.predictions.glob("*/*.parquet") for row in pq.read_table(path).to_pylist()]
    assert len(kept) == 12
    assert {(row["input_tokens"], row["output_tokens"]) for row in kept if row["error"] is None} == {(20, 2)}
    assert all(row["latency_s"] is not None for row in kept)


def test_both_forms_of_a_log_say_the_same(tmp_path: Path) -> None:
    file = tmp_path / "sums.json"
    file.write_text(json.dumps(as_json()))
    key = lambda sample: (sample["id"], sample["epoch"])  # noqa: E731 - twice on the next line
    assert sorted(asked(file)["samples"], key=key) == sorted(asked(LOG)["samples"], key=key)


def test_texts_that_inspect_moved_to_attachments_and_costs_that_it_knows_are_read(tmp_path: Path) -> None:
    said = as_json()
    sample = said["samples"][0]
    sample["input"] = [{"role": "system", "content": "Add."}, {"role": "user", "content": "attachment://abc"}]
    sample["output"]["choices"][0]["message"]["content"] = [
        {"type": "reasoning", "reasoning": "hm"}, {"type": "text", "text": "attachment://def"},
    ]  # fmt: skip
    sample["attachments"] = {"abc": "What is this?", "def": "An answer."}
    sample["model_usage"]["mockllm/model"]["total_cost"] = 0.25
    file = tmp_path / "one.json"
    file.write_text(json.dumps(said | {"samples": [sample, {"id": None}, 5]}))
    found = asked(file)
    assert found["unreadable"] == 2
    (only,) = found["samples"]
    assert (only["input"], only["output"], only["usd"]) == ("What is this?", "An answer.", 0.25)


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"no log", "not JSON|Expecting value"),
        (b'{"version": 2, "status": "success", "eval": {}, "samples": null}', "no samples"),
        (b"[1]", "no JSON object"),
        (LOG.read_bytes()[:6000], "Expecting value|zip|utf-8|decode"),
    ],
)
def test_what_is_no_finished_log_is_refused(tmp_path: Path, content: bytes, why: str) -> None:
    file = tmp_path / "file.eval"
    file.write_bytes(content)
    with pytest.raises(SpeciateError, match=why) as refused:
        asked(file)
    assert refused.value.code is Code.INVALID


def test_a_log_without_its_header_is_not_finished(tmp_path: Path) -> None:
    file = tmp_path / "started.eval"
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("_journal/start.json", "{}")
        archive.writestr("samples/a_epoch_1.json", "{}")
    with pytest.raises(SpeciateError, match="did not end"):
        asked(file)


@pytest.mark.parametrize("form", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_members_are_bounded_as_they_are_unpacked_and_their_names_lead_nowhere(
    tmp_path: Path, form: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inspect_log_process, "_MOST_MEMBER", 1 << 16)
    sample = json.dumps(as_json()["samples"][0])
    file = tmp_path / "hostile.eval"
    with zipfile.ZipFile(file, "w", form) as archive:
        archive.writestr("header.json", json.dumps({"status": "success", "eval": {"model": "m\x1b[2J"}}))
        archive.writestr("samples/../../out.json", sample)
        archive.writestr("samples/good.json", sample)
        archive.writestr("samples/bomb.json", b" " * (1 << 20) + sample.encode())
    found = asked(file)
    assert (len(found["samples"]), found["unreadable"], found["model"]) == (1, 1, "m[2J")
    assert [path.name for path in tmp_path.iterdir()] == ["hostile.eval"]


def test_a_bomb_of_zstandard_is_bounded_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inspect_log_process, "_MOST_MEMBER", 1 << 16)
    packed = pa.Codec("zstd").compress(b" " * (1 << 24), asbytes=True)
    file = tmp_path / "bomb.eval"
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("header.json", packed)
    content = bytearray(file.read_bytes())
    for place in (content.index(b"PK\x03\x04") + 8, content.index(b"PK\x01\x02") + 10):  # how it is packed
        content[place] = 93
    file.write_bytes(content)
    assert len(content) < 10_000
    with pytest.raises(SpeciateError, match="too large"):
        asked(file)


def test_a_log_that_changes_after_it_was_named_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "sums.eval"
    file.write_bytes(LOG.read_bytes())
    before = log_identity(file)
    file.write_bytes(LOG.read_bytes() + b"x")
    with pytest.raises(SpeciateError, match="has changed"):
        read({"file": str(file), "identity": before, "start": 0})


def test_ids_come_before_texts_and_the_first_sample_counts() -> None:
    texts_of = {"a": "one  two", "b": "one two", "c": "x"}
    examples = [Example(each, text, None, each, "test", {}) for each, text in texts_of.items()]
    given = [("1", "one two\n", "by text"), ("b", "other", "by id"), ("2", "x", "first"), ("3", "x", "second"),
             ("4", "y", "")]  # fmt: skip
    samples = [Sample(each, 1, text, output, None, None, None, {}, None, None) for each, text, output in given]
    found, strangers, twice = match_samples(samples, examples, "text")
    assert {key[0]: each.output for key, each in found.items()} == {"a": "by text", "b": "by id", "c": "first"}
    assert (strangers, twice) == (["4"], 1)
