"""NaN and the infinities, which Python reads from JSON and TOML: refused where they come in, an error of the answer
where a model gives them; and whatever a process says that reads foreign bytes, the daemon does not fall over it."""

from __future__ import annotations

import contextlib
import json
import math
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import speciate.tools
from speciate.errors import Code, SpeciateError
from speciate.finite import NOT_FINITE
from speciate.jobs import pool
from speciate.sandbox.client import ProcessDied
from speciate.server.mcp.app import declarations
from speciate.server.mcp.arguments import input_schema, parse
from speciate.serving import predict_worker
from speciate.settings import load
from speciate.tasks.task import Prediction

TOOLS = {each.name: each for each in declarations(speciate.tools, "__tool__")}
ODD = [math.nan, math.inf, -math.inf, [math.nan], {"x": {"y": [math.inf]}}]
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.sampled_from(("error", "answer", "code", "message", "x")), inner, max_size=4)
    ),
    max_leaves=8,
)


@pytest.mark.parametrize("name", TOOLS)
def test_no_tool_takes_a_number_that_is_none(name: str) -> None:
    declaration = TOOLS[name]
    schema = input_schema(declaration.arguments)
    for argument in schema["properties"]:
        for odd in ODD:
            with pytest.raises(SpeciateError) as refused:
                parse(name, declaration.arguments, schema, {argument: odd})
            assert refused.value.code is Code.INVALID
            assert "NaN or an infinite number" in refused.value.message


def test_an_argument_that_is_json_as_text_is_looked_at_too_however_deep() -> None:
    declaration = TOOLS["train_model"]
    schema = input_schema(declaration.arguments)
    for text in ('{"learning_rate": NaN}', "[" * 100_000):
        with pytest.raises(SpeciateError) as refused:
            parse("train_model", declaration.arguments, schema, {"hyperparameters": text})
        assert refused.value.code is Code.INVALID


@pytest.mark.parametrize(
    "line", ["approval_hours = nan", "idle_exit_minutes = inf", "[capacity]\ncpu = -inf", "x = \xff"]
)
def test_settings_hold_no_number_that_is_none(tmp_path: Path, line: str) -> None:
    (tmp_path / "settings.toml").write_bytes(line.encode("latin-1"))
    with pytest.raises(SpeciateError, match="cannot be used") as refused:
        load(tmp_path)
    assert refused.value.code is Code.INVALID


@given(JSON)
def test_what_a_service_process_says_is_an_answer_an_error_or_a_process_that_died(reply: Any) -> None:
    with contextlib.suppress(ProcessDied):
        assert isinstance(pool.parse_reply(json.loads(json.dumps(reply))), dict | SpeciateError)


class Broken:
    def __init__(self, given: list[Prediction]) -> None:
        self.given = given

    def predict(self, examples: Any) -> list[Prediction]:
        return self.given


def _predicted(monkeypatch: pytest.MonkeyPatch, given: list[Prediction]) -> list[dict[str, Any]]:
    monkeypatch.setattr(predict_worker, "_load_model", lambda path: Broken(given))
    payload = {"model": "m", "modality": "text", "inputs": [], "parts": [], "ignored_parts": []}
    items = [{"id": "0", "text": "one"}, {"id": "1", "text": "two"}]
    found: list[dict[str, Any]] = predict_worker.answer({**payload, "items": items})["predictions"]
    return found


@pytest.mark.parametrize(
    ("output", "confidence"), [(math.nan, None), ("a", math.nan), ([1.0, math.inf], 0.5), ({"a": math.nan}, None)]
)
def test_an_answer_that_is_not_finite_is_an_error_of_its_input(
    output: Any, confidence: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = _predicted(monkeypatch, [Prediction(output, confidence, None), Prediction("a", 0.5, None)])
    assert (first["output"], first["confidence"], first["error"]) == (None, None, NOT_FINITE)
    assert (second["output"], second["error"]) == ("a", None)


@pytest.mark.parametrize("count", [0, 1, 3])
def test_too_few_or_too_many_answers_are_an_error_of_the_model(count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SpeciateError, match=f"{count} answers to 2 inputs"):
        _predicted(monkeypatch, [Prediction("a", 0.5, None)] * count)
