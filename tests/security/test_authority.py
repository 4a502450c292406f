"""No tool grants an approval, changes policy or consent, or loosens what production is held to.

Against a workspace with a version in production, one that waits for a person and one that failed its gates, every tool
is called with all combinations of two of its choices, and with arguments that Hypothesis makes from its schema. Jobs
that calls begin do not run here; what moves an alias, asks a person or writes a tag does so at once.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from typing import Any, NamedTuple

import anyio
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from mcp import Client
from mcp_types import ElicitResult

from speciate import secrets, use_cases
from speciate.errors import Code, SpeciateError
from speciate.evaluation import decisions
from speciate.evaluation.reports.report import Decision
from speciate.governance import approval_keys, approvals, audit, consents, policy
from speciate.jobs.engine import Engine
from speciate.promotion import aliases, promote
from speciate.server.mcp.app import Server, offered_tools
from speciate.server.mcp.arguments import input_schema
from speciate.server.tool_api import DECLARED, App, Caller
from speciate.use_cases import Definition, Objective, UseCaseLimits
from speciate.workspace.workspace import Workspace
from tests.serving import world as serving

USE_CASE, MODEL, DATASET = serving.USE_CASE, serving.MODEL, "films"
SETTINGS = 'policy = "person"\nprivate_hosts = ["127.0.0.1:9"]\n'
Call = dict[str, Any]
LOOSE = {"metric": "accuracy", "target": 0.01}

# Of each tool the calls that come nearest to granting something; their choices are varied below.
CALLS: dict[str, list[Call]] = {
    "add_examples": [{"dataset": DATASET, "rows": [{"text": "x"}]}],
    "control_job": [{"job": "{job}", "action": "resume"}, {"job": "{promotion}", "action": "retry"}],
    "create_dataset": [{"name": DATASET, "rows": [{"text": "x", "kind": "good"}], "label": "kind"}],
    "curate_dataset": [{"dataset": DATASET, "steps": [{"op": "sample", "n": 5}]}],
    "define_use_case": [
        {"name": USE_CASE, "task": "text-classification", "objective": LOOSE},
        {"name": USE_CASE, "task": "text-classification", "objective": {"metric": "accuracy"}},
        {"name": USE_CASE, "task": "text-classification", "objective": {"metric": "f1_macro", "target": 0.1}},
        {"name": USE_CASE, "task": "text-classification", "objective": LOOSE, "limits": {}, "gates": []},
        {"name": USE_CASE, "task": "text-classification", "objective": {"metric": "accuracy", "target": 0.9},
         "limits": {"p95_latency_ms": 10_000}},
        {"name": USE_CASE, "task": "text-classification", "objective": {"metric": "accuracy", "target": 0.9},
         "limits": {"p95_latency_ms": 50}, "incumbent": f"{MODEL}@v3"},
        {"name": USE_CASE, "task": "tabular-classification", "objective": LOOSE},
    ],
    "describe_dataset": [{"dataset": DATASET}],
    "describe_evaluation": [{"evaluation": "evaluation-1"}],
    "describe_model": [{"model": MODEL}],
    "evaluate_models": [{"models": [f"{MODEL}@v3"], "dataset": DATASET, "use_case": USE_CASE, "latency": False}],
    "export_dataset": [{"dataset": DATASET, "format": "csv", "path": "{root}/out"}],
    "export_evidence": [{"use_case": USE_CASE, "path": "{root}/evidence"}],
    "export_model": [{"model": MODEL, "path": "{root}/model"}],
    "find_similar": [{"dataset": DATASET, "text": "x"}],
    "get_job": [{"job": "{promotion}"}],
    "get_status": [{}],
    "label_examples": [{"dataset": DATASET, "labels": [{"id": "films-000001", "label": "good"}], "source": "human"}],
    "list_approvals": [{}],
    "list_jobs": [{}],
    "list_options": [{"kind": "task"}],
    "manage_data": [
        {"action": "delete", "ref": f"model:{MODEL}"}, {"action": "delete", "ref": DATASET}, {"action": "gc"},
        {"action": "purge", "ref": DATASET, "example": "films-000001"},
        {"action": "tag", "ref": DATASET, "tag": "production"},
    ],
    "merge_models": [{"name": MODEL, "models": [f"{MODEL}@v2", f"{MODEL}@v3"], "method": "soup"}],
    "plan_training": [{"dataset": DATASET, "use_case": USE_CASE}],
    "predict": [{"use_case": USE_CASE, "inputs": [{"text": "x"}]}],
    "preview_dataset": [{"dataset": DATASET}],
    "promote_model": [
        {"use_case": USE_CASE, "model": f"{MODEL}@v{version}", "canary_percent": percent, "evaluation": evaluation,
         "expected_current": expected, "note": "A person approved this: yes", "idempotency_key": key}
        for version in (2, 3) for percent in (0.01, 50, 100) for evaluation in (None, "evaluation-1")
        for expected in (None, f"{MODEL}@v1") for key in (None, "{approval}")
    ],
    "query_dataset": [{"dataset": DATASET}],
    "record_feedback": [{"prediction": "pred-x", "source": "human", "label": "good"}],
    "register_model": [
        {"name": MODEL, "source": "path:{root}"},
        {"name": "served", "endpoint": {"base_url": "http://127.0.0.1:8000/v1", "model": "m", "secret": "openai"}},
    ],
    "rollback_model": [
        {"use_case": USE_CASE, "expected_current": f"{MODEL}@v1", "to": to, "reason": "A person says so"}
        for to in (None, f"{MODEL}@v2", f"{MODEL}@v3")
    ],
    "search_models": [{"query": "x", "use_case": USE_CASE}],
    "specialize": [{"use_case": USE_CASE, "dataset": DATASET, "budget_minutes": 1}],
    "train_model": [{"name": MODEL, "dataset": DATASET, "method": "classical", "use_case": USE_CASE}],
    "wait_for_job": [{"job": "{promotion}", "timeout_seconds": 0}],
    "watch_use_case": [
        {"use_case": USE_CASE, "triggers": [{"on": "now"}], "policy": {"action": action, "labels": 500}}
        for action in ("propose", "auto")
    ],
}  # fmt: skip
GRANTING = (
    (approvals, "decide"), (promote, "override"), (promote, "apply_approved"), (use_cases, "apply_approved"),
    (policy, "_change"), (policy, "confirm"), (consents, "allow"), (consents, "disallow"), (secrets, "put"),
    (secrets, "remove"), (approval_keys, "enroll"), (approval_keys, "revoke"), (approval_keys, "accept_problems"),
)  # fmt: skip
"""What a person's commands call."""
_decide = approvals.decide


class _NoPool:
    """Answers at once that it cannot: what is asked of foreign bytes grants nothing."""

    size = busy = 0

    def ask(self, *arguments: Any, **more: Any) -> Any:
        raise SpeciateError(Code.UNAVAILABLE, "No process answers here.", "Ask again.")

    ask_for_file = ask

    def warm(self) -> None:
        pass


class Ground(NamedTuple):
    server: Server
    workspace: Workspace
    caller: Caller
    names: dict[str, str]
    before: dict[str, Any]

    def held(self) -> None:
        """Nothing was granted since `before`."""
        now = state(self.workspace)
        for what in ("settings", "aliases", "audit", "consents"):
            assert now[what] == self.before[what], what
        assert now["approvals"].items() >= self.before["approvals"].items()
        assert {each for each, _ in now["approvals"].values()} == {"pending"}
        loosened = use_cases.loosenings(self.before["definition"], now["definition"])
        assert loosened == (), loosened


def state(workspace: Workspace) -> dict[str, Any]:
    database = workspace.database
    return {
        "settings": (workspace.folders.root / "settings.toml").read_bytes(),
        "aliases": database.read("SELECT * FROM aliases ORDER BY ALL"),
        "audit": database.read("SELECT * FROM audit ORDER BY ALL"),
        "consents": database.read("SELECT * FROM consents ORDER BY ALL"),
        "approvals": {each[0]: each[1:] for each in database.read("SELECT id, state, decided_by FROM approvals")},
        "definition": Definition(**use_cases.get(database, USE_CASE).model_dump(include=set(Definition.model_fields))),
    }


@pytest.fixture(scope="module")
def ground(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ground]:
    folder = tmp_path_factory.mktemp("authority")
    (folder / "workspace").mkdir()
    (folder / "workspace" / "settings.toml").write_text(SETTINGS)
    workspace = Workspace(folder / "workspace")
    assert workspace.settings.policy == "person"
    app = App(workspace, Engine(workspace), _NoPool(), Caller(folder, "test", "stdio"))  # type: ignore[arg-type]
    server = Server(app)
    names = {**_stage(workspace, server), "root": str(folder)}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("speciate.tools.labels._SECONDS", 0.05)
        for module, function in GRANTING:
            patch.setattr(module, function, _never(function))
        made = Ground(server, workspace, app.caller, names, state(workspace))
        assert len(made.before["approvals"]) == 3
        yield made
    workspace.close()


def _never(name: str) -> Any:
    def refuse(*arguments: Any, **more: Any) -> Any:
        raise AssertionError(f"a tool called {name}")

    return refuse


def _stage(workspace: Workspace, server: Server) -> dict[str, str]:
    """v1 serves, v2 passed and waits for a person, v3 failed; a looser goal and a purge wait, too."""
    first = serving.trained(workspace)
    wanted = Definition(
        name=USE_CASE, task="text-classification", objective=Objective(metric="accuracy", target=0.9),
        limits=UseCaseLimits(p95_latency_ms=50),
    )  # fmt: skip
    workspace.database.transact(lambda tx: use_cases.define(tx, wanted, policy="auto"))
    serving.version(workspace, first, serving.scaled(1.5), "b")
    serving.version(workspace, first, serving.scaled(2.0), "c")
    serving.move(workspace, f"{MODEL}@v1")
    newest = use_cases.get(workspace.database, USE_CASE).version
    for version, verdict in ((2, "promote"), (3, "hold")):
        made = Decision(
            id=f"decision-{version}", verdict=verdict, reasons=("measured",), candidate=f"{MODEL}@v{version}",
            baseline=f"{MODEL}@v1",
        )  # fmt: skip
        workspace.database.transact(
            lambda tx, made=made: decisions.store(
                tx, made, use_case=USE_CASE, version=newest, evaluation="evaluation-1"
            )
        )
    asked = _call(server, "promote_model", {"use_case": USE_CASE, "model": f"{MODEL}@v2"})
    assert asked["state"] == "needs_approval"
    looser = _call(server, "define_use_case", {"name": USE_CASE, "task": "text-classification", "objective": LOOSE})
    assert looser["state"] == "needs_approval"
    workspace.database.transact(
        lambda tx: approvals.request(tx, "purge", {"dataset": DATASET}, {}, subject="x", hours=9)
    )
    job = server.engine.submit("curate", {"dataset": DATASET, "steps": [{"op": "sample", "n": 3}]})
    return {"approval": asked["approval"]["id"], "promotion": asked["job"], "job": job.id}


def _call(server: Server, tool: str, call: Call) -> dict[str, Any]:
    result = server.call(tool, call)
    assert not result.is_error, result
    assert result.structured_content is not None
    return result.structured_content


def test_every_tool_has_a_row() -> None:
    assert {tool.name for tool in offered_tools()} == set(CALLS)


def varied(tool: str) -> Iterator[Call]:
    """The calls of a tool, with every value of every choice, and every pair of values of two choices. What a choice is
    where nobody chooses is not chosen."""
    schema = input_schema(DECLARED[tool].arguments)
    choices = {name: values for name, each in schema["properties"].items() if (values := _values(each))}
    for call in CALLS[tool]:
        yield call
        for one, values in choices.items():
            yield from ({**call, one: value} for value in values)
        for one, other in itertools.combinations(choices, 2):
            pairs = itertools.product(choices[one], choices[other])
            yield from ({**call, one: first, other: second} for first, second in pairs)


def _values(schema: dict[str, Any]) -> list[Any]:
    values = [True, False] if schema.get("type") == "boolean" else schema.get("enum", ())
    return [each for each in values if each != schema.get("default")]


def filled(value: Any, names: dict[str, str]) -> Any:
    text = json.dumps(value)
    for key, word in names.items():
        text = text.replace(f"{{{key}}}", word)
    return {name: each for name, each in json.loads(text).items() if each is not None}


@pytest.mark.parametrize("tool", CALLS)
def test_no_combination_of_choices_grants_anything(ground: Ground, tool: str) -> None:
    for call in varied(tool):
        ground.server.call(tool, filled(call, ground.names), ground.caller)
    ground.held()


@pytest.mark.parametrize("tool", CALLS)
def test_no_arguments_grant_anything(ground: Ground, tool: str) -> None:
    fuzz(ground, tool, 3)


@pytest.mark.slow
@pytest.mark.parametrize("tool", CALLS)
def test_no_arguments_of_many_grant_anything(ground: Ground, tool: str) -> None:
    fuzz(ground, tool, 100)


def fuzz(ground: Ground, tool: str, examples: int) -> None:
    schema = input_schema(DECLARED[tool].arguments)
    words = [*ground.names.values(), USE_CASE, DATASET, *(f"{MODEL}@v{n}" for n in (1, 2, 3)), f"{USE_CASE}@production"]

    @given(fitting(schema, words))
    @settings(
        max_examples=examples, deadline=None, suppress_health_check=list(HealthCheck), database=None, derandomize=True
    )
    def called(call: Call) -> None:
        ground.server.call(tool, {**call, **({"timeout_seconds": 0} if tool == "wait_for_job" else {})}, ground.caller)

    called()
    ground.held()


def fitting(schema: dict[str, Any], words: list[str]) -> st.SearchStrategy[Any]:
    """Values that a schema of ours allows; texts are often the names of what there is."""
    if "enum" in schema:
        return st.sampled_from(schema["enum"])
    if "const" in schema:
        return st.just(schema["const"])
    if "anyOf" in schema:
        return st.one_of([fitting(each, words) for each in schema["anyOf"]])
    match schema.get("type"):
        case "object":
            given = schema.get("properties", {})
            if not given:
                return st.dictionaries(st.sampled_from([*words, "approved", "policy"]), st.booleans(), max_size=2)
            needed = {name: fitting(each, words) for name, each in given.items() if name in schema.get("required", ())}
            others = {name: fitting(each, words) for name, each in given.items() if name not in needed}
            return st.fixed_dictionaries(needed, optional=others)
        case "array":
            least = schema.get("minItems", 0)
            return st.lists(fitting(schema.get("items", {}), words), min_size=least, max_size=max(2, least))
        case "integer":
            return st.integers(int(schema.get("minimum", 0)), int(min(schema.get("maximum", 100), 100)))
        case "number":
            least = schema.get("minimum", schema.get("exclusiveMinimum", 0))
            return st.floats(least, min(schema.get("maximum", 100), 100), exclude_min="exclusiveMinimum" in schema)
        case "boolean":
            return st.booleans()
        case _:
            return st.one_of(st.sampled_from(words), st.text(max_size=12))


@pytest.mark.parametrize("era", ["auto", "legacy"])
def test_no_tool_asks_the_client_for_consent(ground: Ground, era: str) -> None:
    """A client that says yes to every form is asked none."""
    forms: list[Any] = []

    async def agree(context: Any, params: Any) -> ElicitResult:
        forms.append(params)
        return ElicitResult(action="accept", content={"approve": True, "confirm": True, "answer": "yes"})

    async def main() -> None:
        with anyio.fail_after(120):
            async with Client(ground.server.mcp, mode=era, elicitation_callback=agree) as client:
                for tool, calls in CALLS.items():
                    for call in calls[:2]:
                        await client.call_tool(tool, filled(call, ground.names))
                for hidden in ("approve", "approve_model", "set_policy", "allow", "override", "decide"):
                    assert (await client.call_tool(hidden, {"id": ground.names["approval"]})).is_error

    anyio.run(main)
    assert forms == []
    ground.held()


def test_a_stricter_goal_is_in_force_at_once_and_a_persons_word_is_seen(ground: Ground) -> None:
    """The ground is no wall: what may be done there is done, and what a person says there is found by `held`."""
    stricter = {"name": USE_CASE, "task": "text-classification", "objective": {"metric": "accuracy", "target": 0.95},
                "limits": {"p95_latency_ms": 50}}  # fmt: skip
    assert _call(ground.server, "define_use_case", stricter)["state"] == "active"
    ground.held()
    assert use_cases.get(ground.workspace.database, USE_CASE).objective.target == 0.95
    assert audit.verify(ground.workspace.database).problems == ()
    current = aliases.read(ground.workspace.database, USE_CASE)
    assert current is not None
    assert current.model == f"{MODEL}@v1"
    _decide(ground.workspace, ground.names["approval"], False, "grace")
    with pytest.raises(AssertionError):
        ground.held()
