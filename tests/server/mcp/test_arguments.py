"""Arguments: what schemas say, and what a wrong call is told."""

from __future__ import annotations

import json
from typing import Annotated, Any, Literal

import pytest
from pydantic import BaseModel, ConfigDict, Field

from speciate.errors import Call, Code, SpeciateError
from speciate.server.mcp.arguments import as_listed, input_schema, outline, output_schema, parse
from speciate.server.tool_api import App, Result, tool
from speciate.tools.watches import watch_use_case


class Limits(BaseModel):
    model_config = ConfigDict(extra="forbid")
    p95_latency_ms: float | None = Field(None, gt=0)
    licenses: list[str] = []


class Made(Result):
    name: str
    note: str | None = None
    parts: tuple[int, ...] = ()


@tool()
def make_thing(
    app: App,
    name: str,
    limits: Limits | None = None,
    mode: Literal["fast", "small"] = "fast",
    epochs: Annotated[int, Field(ge=1, le=9, description="Rounds.")] = 3,
    tags: list[str] | None = None,
    source: str | list[dict[str, Any]] | None = None,
    sizes: Annotated[list[int], Field(min_length=1, max_length=3)] | None = None,
) -> Made:
    """Make a thing."""
    return Made(name=name)


DECLARATION = make_thing.__tool__  # type: ignore[attr-defined]
SCHEMA = input_schema(DECLARATION.arguments)


def call(**given: Any) -> dict[str, Any]:
    return parse("make_thing", DECLARATION.arguments, SCHEMA, given)


def refusal(**given: Any) -> SpeciateError:
    with pytest.raises(SpeciateError) as raised:
        call(**given)
    assert raised.value.code is Code.INVALID
    assert "pydantic" not in str(raised.value)
    return raised.value


def test_the_app_is_no_argument_of_a_tool() -> None:
    assert list(SCHEMA["properties"]) == ["name", "limits", "mode", "epochs", "tags", "source", "sizes"]
    assert SCHEMA["required"] == ["name"]


def test_an_optional_argument_is_one_that_may_be_left_out() -> None:
    assert SCHEMA["properties"]["tags"] == {"type": "array", "items": {"type": "string"}}
    assert "null" not in json.dumps(SCHEMA)


def test_nested_models_are_written_out() -> None:
    limits = SCHEMA["properties"]["limits"]
    assert limits["type"] == "object"
    assert limits["properties"]["p95_latency_ms"] == {"exclusiveMinimum": 0, "type": "number"}


def test_a_good_call_gets_its_defaults_and_its_models() -> None:
    values = call(name="a", limits={"licenses": ["mit"]})
    assert values["limits"] == Limits(licenses=["mit"])
    assert (values["mode"], values["epochs"], values["tags"]) == ("fast", 3, None)


def test_null_for_an_optional_argument_is_as_if_it_were_left_out() -> None:
    assert call(name="a", tags=None)["tags"] is None


def test_an_object_that_was_sent_as_text_is_taken_for_what_it_is() -> None:
    assert call(name="a", limits='{"p95_latency_ms": 20}')["limits"].p95_latency_ms == 20


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"name": "a", "epoch": 3}, ["there is no argument 'epoch'", "did you mean 'epochs'"]),
        ({"name": "a", "limits": {"latency": 3}}, ["'latency' in 'limits'", "p95_latency_ms"]),
        ({}, ["'name' is missing"]),
        ({"name": "a", "mode": "slow"}, ["'mode' is 'slow'", "'fast', 'small'"]),
        ({"name": "a", "epochs": "many"}, ["'epochs' is 'many'", "a whole number"]),
        ({"name": "a", "epochs": 99}, ["'epochs' is 99", "less than or equal to 9"]),
        ({"name": 5}, ["'name' is 5", "must be text"]),
        ({"name": "a", "tags": ["x", 1]}, ["'tags[1]' is 1", "must be text"]),
        ({"name": "a", "tags": '["x"'}, ["must be a list; as JSON it is cut off or wrong", "column 5"]),
        ({"name": "a", "limits": "quick"}, ["'limits' is 'quick', and must be an object."]),
        ({"name": "a", "limits": "q" * 99}, [f"'limits' is '{'q' * 75}...', and must be an object."]),
        ({"name": "a", "limits": {"p95_latency_ms": -1}}, ["'limits.p95_latency_ms' is -1", "greater than 0"]),
        ({"name": "a", "source": 5}, ["'source"]),
        ({"name": "a", "sizes": []}, ["'sizes' has 0 items, and must have at least 1."]),
        ({"name": "a", "sizes": [1, 2, 3, 4]}, ["'sizes' has 4 items, and must have at most 3."]),
    ],
)
def test_a_wrong_argument_is_named_with_what_is_valid(given: dict[str, Any], said: list[str]) -> None:
    error = refusal(**given)
    for words in said:
        assert words in error.message
    assert error.recovery.startswith("Call make_thing again; its arguments are: name (required), limits, mode")


def test_a_mistake_in_what_tools_list_shortens_names_the_call_that_shows_it_whole() -> None:
    declaration = watch_use_case.__tool__  # type: ignore[attr-defined]
    schema = input_schema(declaration.arguments)
    with pytest.raises(SpeciateError) as raised:
        parse("watch_use_case", declaration.arguments, schema, {"use_case": "x", "triggers": ["new_labels"]})
    wanted = Call("list_options", {"kind": "argument", "name": "watch_use_case.triggers"}, "for what it takes")
    assert raised.value.next == (wanted,)
    assert not refusal(epochs=99).next


def test_several_mistakes_are_told_at_once() -> None:
    message = refusal(epoch=1, mode="slow").message
    assert message.count(";") >= 2


def test_a_long_value_is_not_repeated_whole() -> None:
    assert len(refusal(name="a", mode="x" * 10_000).message) < 300


def test_results_that_may_lack_a_field_do_not_require_it() -> None:
    schema = output_schema(Made)
    assert schema["required"] == ["name"]
    assert schema["properties"]["note"] == {"type": "string"}


def test_a_union_of_results_is_an_object_too() -> None:
    schema = output_schema(Made | Limits)
    assert schema["type"] == "object"
    assert len(schema["anyOf"]) == 2


def test_an_outline_has_every_field_and_the_names_of_what_is_in_it() -> None:
    class Inner(Result):
        deep: int
        deeper: tuple[Limits, ...] = ()

    class Outer(Result):
        many: tuple[Inner, ...]
        """Of several."""
        one: Inner | None = None
        note: str = "x"

    short = outline(output_schema(Outer | Limits))
    limits = outline(output_schema(Limits))["properties"]
    assert short == {
        "type": "object",
        "properties": {
            "many": {"type": "array", "items": {"type": "object", "description": "deep, deeper"}},
            "one": {"type": "object", "description": "deep, deeper"},
            "note": {"type": "string"},
            **limits,
        },
    }
    assert limits


def test_an_outline_of_several_forms_fits_each() -> None:
    class Ended(Result):
        state: Literal["succeeded", "failed"]
        cause: str = ""
        why: str

    class Asked(Result):
        state: Literal["needs_approval"]
        cause: int
        why: Literal["policy"]

    assert outline(output_schema(Ended | Asked))["properties"] == {
        "state": {"type": "string", "enum": ["succeeded", "failed", "needs_approval"]},
        "cause": {},
        "why": {"type": "string"},
    }


def test_an_argument_that_few_calls_need_is_named_and_one_that_is_short_is_written_out() -> None:
    class Rule(Result):
        what: Annotated[str, Field(description="long " * 100, max_length=20)]
        much: Annotated[float, Field(description="long " * 100)]

    class Call(Result):
        name: Annotated[str, Field(max_length=9)]
        limits: Limits | None = None
        rules: Annotated[list[Rule] | None, Field(description="Conditions.")] = None

    listed = as_listed("do", input_schema(Call))
    assert listed["properties"]["name"] == {"type": "string"}
    assert listed["properties"]["limits"]["properties"]
    assert listed["properties"]["rules"] == {
        "type": "array",
        "items": {"type": "object"},
        "description": "Conditions. Fields: what, much; list_options(kind='argument', name='do.rules')",
    }
    assert listed["required"] == ["name"]
