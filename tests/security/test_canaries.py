"""What others wrote comes back below `untrusted` alone: planted words in every foreign field, and every tool, resource,
prompt and completion asked for what is there. A tool or resource without a row in the tables fails.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import anyio
import mcp_types as t
import pytest
from mcp import Client, MCPError

from speciate.errors import SpeciateError
from speciate.jobs.folder import RunFolder
from speciate.jobs.kinds import Kinds
from speciate.sandbox import is_complete
from speciate.server.client_results import read_result
from speciate.server.tool_api import DECLARED
from speciate.worker import perform
from tests.security.canaries import found_in, in_answer, leaks, planted
from tests.security.canary_world import MODEL, NOTES, PICTURES, THEIRS, USE_CASE, World, world

pytestmark = pytest.mark.skipif(not is_complete(), reason="this kernel lacks a layer of the sandbox")

Call = dict[str, Any]
BAD_SQL = "SELECT body::INT FROM examples"
GOAL = {"metric": "accuracy", "target": 0.3}

# Words in braces are of `World.names`. Of each tool the calls whose answers hold most, and some that it refuses.
CALLS: dict[str, list[Call]] = {
    "add_examples": [
        {"dataset": NOTES, "rows": [{"body": planted("cell"), "kind": "good"}], "dry_run": True},
        {"dataset": NOTES, "source": "{root}/bad.csv"},
        {"dataset": PICTURES, "source": "{root}/pictures.zip", "dry_run": True},
    ],
    "control_job": [{"job": "{failed}", "action": "cancel"}, {"job": "{waiting}", "action": "cancel"}],
    "create_dataset": [
        {"name": "x", "source": "{root}/bad.csv", "label": "nothing"},
        {"name": "x", "source": "{root}/good.csv", "label": "nothing"},
        {"name": "x", "source": "{root}/pictures.zip", "label": "folder"},
    ],
    "curate_dataset": [
        {"dataset": NOTES, "steps": [{"op": "filter", "where": "body::INT > 0"}]},
        {"dataset": NOTES, "steps": [{"op": "derive", "column": "n", "sql": "body::INT"}]},
        {"dataset": NOTES, "steps": [{"op": "relabel", "mapping": {"nothing": "x"}}]},
        {"dataset": NOTES, "steps": [{"op": "balance", "column": "nothing"}]},
    ],
    "define_use_case": [
        {"name": USE_CASE, "task": "text-classification", "objective": GOAL},
        {"name": USE_CASE, "task": "text", "objective": GOAL},
    ],
    "describe_dataset": [
        {}, {"dataset": NOTES}, {"dataset": NOTES, "compare_to": f"{NOTES}@v1"}, {"dataset": PICTURES}, {"dataset": "x"}
    ],
    "describe_evaluation": [
        {"evaluation": "{evaluation}", "errors": 20, "slice_by": "film", "page": True, "picture": True,
         "show": ["confusion", "calibration", "disagreements", "metrics", "all_models", "gaps"]},
        {"evaluation": "{coded}", "errors": 20, "show": ["confusion"]},
        {"evaluation": "{served}", "errors": 20, "show": ["confusion", "disagreements"]},
        {"evaluation": "{evaluation}", "slice_by": "label"},
        {"evaluation": "{evaluation}", "slice_by": "nothing"},
        {"evaluation": "{evaluation}", "baseline": "nothing"},
    ],
    "describe_model": [
        {"model": MODEL}, {"model": THEIRS}, {"model": "{prediction}"}, {"model": f"{USE_CASE}@production"},
        {"model": "nothing"},
    ],
    "evaluate_models": [
        {"models": [MODEL], "dataset": NOTES, "dry_run": True},
        {"models": [MODEL, "column:nothing"], "dataset": NOTES},
        {"models": [MODEL], "dataset": NOTES, "scorer": "{root}/own.py:nothing"},
        {"models": [THEIRS], "dataset": NOTES},
        {"models": ["inspect:{root}/bad.csv", MODEL], "dataset": NOTES},
    ],
    "export_dataset": [
        {"dataset": NOTES, "format": "csv", "path": "{root}/out", "dry_run": True},
        {"dataset": NOTES, "format": "coco", "path": "{root}/out"},
    ],
    "export_evidence": [
        {"use_case": USE_CASE, "path": "{root}/evidence"}, {"use_case": "nothing", "path": "{root}/evidence"},
        {"use_case": USE_CASE, "path": "{root}/rows", "evaluation": "{evaluation}", "rows": True},
    ],
    "export_model": [
        {"model": MODEL, "path": "{root}/out", "dry_run": True}, {"model": THEIRS, "format": "onnx"},
    ],
    "find_similar": [
        {"dataset": NOTES, "id": "{example}"}, {"dataset": NOTES, "text": "a film"}, {"dataset": NOTES, "id": "nothing"}
    ],
    "get_job": [
        {"job": "{failed}", "log_lines": 100}, {"job": "{waiting}"}, {"job": "{ingest}"}, {"job": "{fetch}"},
        {"job": "nothing"},
    ],
    "get_status": [{}, {"use_case": USE_CASE}, {"use_case": "nothing"}],
    "label_examples": [
        {"dataset": NOTES, "labels": [{"id": "nothing", "label": "x"}], "source": "agent"},
    ],
    "list_approvals": [{}, {"state": "pending"}],
    "list_jobs": [{}, {"state": "failed"}],
    "list_options": [{"kind": kind} for kind in ("task", "metric", "operation", "format", "extractor")],
    "manage_data": [
        {"action": "purge", "ref": PICTURES, "example": "{picture}", "dry_run": True},
        {"action": "purge", "ref": PICTURES, "example": "{picture}"},
        {"action": "purge", "ref": NOTES, "example": "{other}"},
        {"action": "delete", "ref": NOTES, "dry_run": True},
        {"action": "gc", "dry_run": True},
        {"action": "tag", "ref": f"{NOTES}@v1", "tag": "gold"},
    ],
    "merge_models": [{"name": "m", "models": [MODEL, THEIRS], "method": "soup"}],
    "plan_training": [
        {"dataset": NOTES, "use_case": USE_CASE}, {"dataset": NOTES, "task": "text-regression"},
        {"dataset": PICTURES, "task": "image-classification"},
        {"dataset": NOTES, "task": "token-classification"},
        {"dataset": NOTES, "task": "text-classification", "base_model": THEIRS, "method": "full"},
    ],
    "predict": [
        {"use_case": USE_CASE, "inputs": [{"text": "a good film"}, {"row": {"body": "x"}}]},
        {"model": MODEL, "inputs": [{"row": {"body": planted("cell") + "\x00"}}, {"path": "{root}/pictures.zip"}]},
        {"model": THEIRS, "inputs": [{"text": "a"}]},
    ],
    "preview_dataset": [{"dataset": NOTES}, {"dataset": PICTURES, "where": "quality <> 'ok'"},
                        {"dataset": NOTES, "where": "body::INT > 0"}],
    "promote_model": [
        {"use_case": USE_CASE, "model": f"{MODEL}@v1"},
        {"use_case": "other", "model": f"{MODEL}@v1", "note": planted("note")},
        {"use_case": USE_CASE, "model": THEIRS},
    ],
    "query_dataset": [
        {"dataset": NOTES}, {"dataset": PICTURES}, {"dataset": f"{NOTES}@v1..v2"}, {"dataset": f"log:{USE_CASE}"},
        {"dataset": NOTES, "sql": BAD_SQL}, {"dataset": NOTES, "sql": "SELECT nothing FROM examples"},
        {"dataset": NOTES, "sql": "PIVOT (SELECT body, film FROM examples) ON film USING first(body)"},
        {"dataset": NOTES, "sql": "SELECT error(body) FROM examples"},
        {"dataset": NOTES, "sql": "SELECT json_extract(body, '$.a') FROM examples"},
        {"dataset": NOTES, "sql": "SELECT strptime(body, '%Y') FROM examples"},
        {"dataset": NOTES, "sql": "SELECT regexp_matches('x', body || '(') FROM examples"},
        {"dataset": NOTES, "sql": "SELECT (SELECT body FROM examples) FROM examples"},
        {"dataset": f"log:{USE_CASE}", "sql": "SELECT input::VARCHAR::INT FROM examples"},
    ],
    "record_feedback": [
        {"prediction": "{prediction}", "source": "agent", "label": "good"},
        {"prediction": "nothing", "source": "agent", "label": "good"},
    ],
    "register_model": [
        {"name": "y", "source": "path:{root}/published", "dry_run": True},
        {"name": "y", "source": "path:{root}/pictures.zip"},
        {"name": "z", "endpoint": {"base_url": "https://api.example.com/v1", "model": "m"}},
    ],
    "rollback_model": [{"use_case": USE_CASE, "expected_current": f"{MODEL}@v1", "reason": "test"}],
    "search_models": [{"query": "films", "limit": 5}, {"installed": True}, {"query": "theirs", "sources": ["nothing"]}],
    "specialize": [
        {"use_case": USE_CASE, "dataset": NOTES, "budget_minutes": 1, "dry_run": True},
        {"use_case": USE_CASE, "dataset": PICTURES, "budget_minutes": 1, "dry_run": True},
    ],
    "train_model": [
        {"name": "m", "dataset": NOTES, "method": "classical", "task": "text-classification", "dry_run": True},
        {"name": "m", "dataset": NOTES, "method": "classical", "task": "text-regression"},
        {"name": "m", "dataset": NOTES, "method": "classical", "task": "text-classification", "target": "nothing"},
        {"name": "m", "dataset": NOTES, "method": "sft", "base_model": THEIRS, "task": "text-generation"},
    ],
    "wait_for_job": [
        {"job": "{failed}", "timeout_seconds": 0}, {"job": "{live}", "timeout_seconds": 0.1}, {"job": "{ingest}"}
    ],
    "watch_use_case": [{"use_case": USE_CASE, "triggers": [{"on": "new_labels", "n": 5}]}],
}  # fmt: skip
RESOURCES: dict[str, list[str]] = {
    "speciate://datasets/{name}/{version}": [f"datasets/{NOTES}/v2", f"datasets/{PICTURES}/v1", "datasets/x/v1"],
    "speciate://datasets/{name}/{version}/reach{?example,group}": [
        f"datasets/{NOTES}/v1/reach", f"datasets/{NOTES}/v1/reach?example={{example}}",
        f"datasets/{NOTES}/v1/reach?group=none",
    ],
    "speciate://docs/{page}{?part}": ["docs/index", "docs/language?part=2", "docs/security.md", "docs/nothing"],
    "speciate://evaluations/{id}": ["evaluations/{evaluation}", "evaluations/{served}", "evaluations/nothing"],
    "speciate://evaluations/{id}/page": [
        "evaluations/{evaluation}/page", "evaluations/{served}/page", "evaluations/{coded}/page"
    ],
    "speciate://jobs/{job}": ["jobs/{failed}", "jobs/{ingest}", "jobs/{live}", "jobs/nothing"],
    "speciate://jobs/{job}/log{?after}": ["jobs/{failed}/log", "jobs/{failed}/log?after=3"],
    "speciate://models/{name}/{version}": [f"models/{MODEL}/v1", f"models/{THEIRS}/v1"],
    "speciate://models/{name}/{version}/lineage": [f"models/{MODEL}/v1/lineage", f"models/{THEIRS}/v1/lineage"],
    "speciate://models/{name}/{version}/reach": [f"models/{MODEL}/v1/reach"],
    "speciate://predictions/{prediction}": ["predictions/{prediction}", "predictions/nothing"],
    "speciate://predictions/{prediction}/lineage": ["predictions/{prediction}/lineage"],
    "speciate://status": ["status"],
    "speciate://use-cases/{name}": [f"use-cases/{USE_CASE}"],
    "speciate://use-cases/{name}/answers": [f"use-cases/{USE_CASE}/answers"],
    "speciate://use-cases/{name}/gaps{?page}": [f"use-cases/{USE_CASE}/gaps", f"use-cases/{USE_CASE}/gaps?page=true"],
    "speciate://use-cases/{name}/watch": [f"use-cases/{USE_CASE}/watch", "use-cases/nothing/watch"],
    "speciate://use-cases/{name}/watch/episodes/{number}": [f"use-cases/{USE_CASE}/watch/episodes/1"],
    "speciate://use-cases/{name}/watch/drift": [f"use-cases/{USE_CASE}/watch/drift"],
    "speciate://use-cases/{name}/queue{?strategy,source,count}": [f"use-cases/{USE_CASE}/queue?strategy=random"],
    "ui://speciate/leaderboard": ["ui://speciate/leaderboard"],  # a view: the same for all, it holds no one's data
    "ui://speciate/samples": ["ui://speciate/samples"],
    "ui://speciate/training": ["ui://speciate/training"],
    "ui://speciate/promotion": ["ui://speciate/promotion"],
}  # fmt: skip
FAILURES: dict[str, tuple[str, Call]] = {
    "a table whose rows do not parse": ("ingest", {"name": "x", "source": "{root}/damaged.parquet"}),
    "nothing that can be used": ("ingest", {"name": "x", "source": "{root}/broken", "modality": "image"}),
    "cells that are no numbers": (
        "curate", {"dataset": NOTES, "steps": [{"op": "filter", "where": "body::INT > 0"}]}
    ),
    "cells that a column cannot be made of": (
        "curate", {"dataset": NOTES, "steps": [{"op": "derive", "column": "n", "sql": "json_extract(body, '$.a')"}]}
    ),
    "cells that are no truth": (
        "train",
        {"name": "m", "dataset": NOTES, "method": "classical", "task": "token-classification", "target": "body"},
    ),
    "a scorer that raises": (
        "evaluate", {"models": [f"{MODEL}@v1"], "dataset": f"{NOTES}@v1", "scorer": "{root}/own.py:score"}
    ),
    "a model of others that cannot be loaded": (
        "evaluate", {"models": [f"{THEIRS}@v1"], "dataset": f"{NOTES}@v1", "use_case": USE_CASE}
    ),
}  # fmt: skip
"""What a run raises: kind of job and spec."""
PROMPTS: dict[str, list[dict[str, str]]] = {
    "curate": [{"data": NOTES, "use_case": USE_CASE}],
    **{
        name: [{"use_case": USE_CASE}]
        for name in (
            "adopt_new_base_model", "beat_the_api", "diagnose_regression", "label", "review_promotion", "specialize",
        )
    },
}  # fmt: skip
"""Of each prompt the arguments of some calls."""
MARKED_BY_ELEMENT = {"speciate://evaluations/{id}/page"}
"""A page for people is no JSON: what others wrote stands in elements with the attribute `data-untrusted`."""


@pytest.fixture(scope="module")
def planted_world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with world(tmp_path_factory.mktemp("canaries")) as made, pytest.MonkeyPatch.context() as patch:
        patch.setattr("speciate.tools.labels._SECONDS", 0.1)  # nothing runs the jobs that calls begin
        patch.setattr("speciate.datasets.similarity.nearest_neighbours._WAIT_SECONDS", 0.1)
        yield made


def talk(world: World, ask: Callable[[Client], Any], **options: Any) -> Any:
    async def main() -> Any:
        with anyio.fail_after(120):
            async with Client(world.server.mcp, mode="auto", **options) as client:
                return await ask(client)

    return anyio.run(main)


def filled(value: Any, names: dict[str, str]) -> Any:
    if isinstance(value, str):
        for key, word in names.items():
            value = value.replace(f"{{{key}}}", word)
        return value
    if isinstance(value, dict):
        return {key: filled(each, names) for key, each in value.items()}
    return [filled(each, names) for each in value] if isinstance(value, list) else value


def wrong(result: t.CallToolResult) -> list[str]:
    """What leaks anywhere in a tool's answer."""
    said = leaks(result.structured_content or {}) + leaks(result.meta or {}, "_meta")
    for part in result.content:
        said += in_answer(part.text, "text") if isinstance(part, t.TextContent) else leaks(_without_data(part), "part")
    return said


def _without_data(part: Any) -> Any:
    return {key: value for key, value in part.model_dump(mode="json").items() if key != "data"}


def test_every_tool_resource_and_prompt_has_a_row(planted_world: World) -> None:
    async def ask(client: Client) -> None:
        assert {tool.name for tool in (await client.list_tools()).tools} == set(CALLS)
        listed = await client.list_resource_templates()
        fixed = await client.list_resources()
        found = {each.uri_template for each in listed.resource_templates} | {str(each.uri) for each in fixed.resources}
        assert found == set(RESOURCES)
        assert {each.name for each in (await client.list_prompts()).prompts} == set(PROMPTS)

    talk(planted_world, ask)


@pytest.mark.parametrize("tool", CALLS)
def test_a_tool_says_what_others_wrote_below_untrusted_alone(planted_world: World, tool: str) -> None:
    async def ask(client: Client) -> None:
        for call in CALLS[tool]:
            result = await client.call_tool(tool, filled(call, planted_world.names))
            assert wrong(result) == [], (call, result)
            if not result.is_error:  # and it is what the tool declares, as Python's client reads it
                read_result(DECLARED[tool], result.structured_content or {})

    talk(planted_world, ask)


@pytest.mark.parametrize("template", RESOURCES)
def test_a_resource_says_what_others_wrote_below_untrusted_alone(planted_world: World, template: str) -> None:
    async def ask(client: Client) -> None:
        for address in RESOURCES[template]:
            where = address if "://" in address else f"speciate://{filled(address, planted_world.names)}"
            try:
                read = await client.read_resource(where)
            except MCPError as error:
                said = leaks([str(error), error.error.data])
                assert said == []
                continue
            for part in read.contents:
                assert isinstance(part, t.TextResourceContents)
                assert in_answer(_outside_marks(part.text) if template in MARKED_BY_ELEMENT else part.text) == []

    talk(planted_world, ask)


def _outside_marks(page: str) -> str:
    """A page without its elements that bear the mark."""
    from html.parser import HTMLParser

    class Outside(HTMLParser):
        kept, depth = "", 0
        void = frozenset({"br", "hr", "img", "input", "meta", "link", "circle", "line", "rect", "path", "polyline"})

        def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
            if self.depth or any(key == "data-untrusted" for key, _ in attrs):
                self.depth += tag not in self.void
            else:
                self.kept += " ".join(value or "" for _, value in attrs)

        def handle_endtag(self, tag: str) -> None:
            self.depth -= bool(self.depth) and tag not in self.void

        def handle_data(self, data: str) -> None:
            self.kept += "" if self.depth else data

    parser = Outside()
    parser.feed(page)
    return parser.kept


@pytest.mark.parametrize("case", FAILURES)
def test_a_run_that_fails_says_in_our_words_why(planted_world: World, case: str, tmp_path: Path) -> None:
    """Where no plan refuses it, the run's end is what `get_job` and tasks show."""
    workspace = planted_world.app.workspace
    kind, spec = FAILURES[case]
    found = Kinds()[kind]
    try:
        plan = found.plan(found.spec(**filled(spec, planted_world.names)), workspace)
    except SpeciateError as error:
        assert leaks([error.message, error.recovery]) == []  # noqa: PT017 - a plan may refuse it, or the run
        return
    folder = RunFolder(tmp_path / "job-x.1")
    folder.create({"entry": found.run, "payload": plan.payload_json(), "job": "job-x",
                   "workspace": str(workspace.folders.root)})  # fmt: skip
    outcome = perform(folder)
    assert leaks([outcome.message, outcome.recovery]) == []
    if outcome.kind == "ok":
        assert leaks(json.loads((folder.outputs / "result.json").read_text())) == []


def test_completions_and_prompts_hold_names_alone(planted_world: World) -> None:
    async def ask(client: Client) -> None:
        for template in RESOURCES:
            ref = t.ResourceTemplateReference(type="ref/resource", uri=template)
            for argument in ("name", "id", "version", "job", "evaluation", "dataset", "model", "prediction"):
                for chosen in (NOTES, PICTURES, MODEL):
                    done = await client.complete(
                        ref, {"name": argument, "value": ""}, context_arguments={"name": chosen}
                    )
                    assert leaks(done.completion.values) == []
        for prompt, calls in PROMPTS.items():
            for call in calls:
                said = await client.get_prompt(prompt, filled(call, planted_world.names))
                for content in (message.content for message in said.messages):
                    embedded = isinstance(content, t.EmbeddedResource)
                    told = json.loads(content.resource.text) if embedded else content.model_dump(mode="json")  # type: ignore[union-attr]
                    assert leaks(told) == []

    talk(planted_world, ask)


def test_progress_and_log_messages_hold_our_words_alone(planted_world: World) -> None:
    heard: list[str] = []

    async def hear(progress: float, total: float | None, message: str | None) -> None:
        heard.append(message or "")

    async def note(params: Any) -> None:
        heard.append(json.dumps(params.model_dump(mode="json")))

    async def ask(client: Client) -> None:
        await client.call_tool(
            "wait_for_job", {"job": planted_world.names["live"], "timeout_seconds": 1.5}, progress_callback=hear
        )

    talk(planted_world, ask, logging_callback=note)
    assert heard
    assert leaks(heard) == []


def test_what_was_planted_does_come_back(planted_world: World) -> None:
    """Else the tables would prove nothing."""
    asked = [
        ("query_dataset", {"dataset": NOTES}), ("query_dataset", {"dataset": PICTURES}),
        ("query_dataset", {"dataset": NOTES, "sql": BAD_SQL}), ("query_dataset", {"dataset": f"log:{USE_CASE}"}),
        ("get_job", {"job": "{failed}"}), ("get_job", {"job": "{ingest}"}), ("get_job", {"job": "{fetch}"}),
        ("describe_model", {"model": THEIRS}),
        *(("describe_evaluation", call) for call in CALLS["describe_evaluation"][:3]),
        ("promote_model", CALLS["promote_model"][1]), ("list_approvals", {}),
    ]  # fmt: skip
    seen = set()
    for tool, call in asked:
        result = planted_world.server.call(tool, filled(call, planted_world.names))
        seen |= found_in(result.model_dump_json())
    wanted = {"cell", "group", "answer", "member", "aside", "asked", "output", "feedback", "log", "progress", "library",
              "readme", "note", "file", "code", "endpoint"}  # fmt: skip
    assert wanted <= seen, wanted - seen
