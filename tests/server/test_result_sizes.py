"""No answer of a call that asks for nothing more is over 4,000 tokens, also where there is much of everything: wide
tables, many classes, long texts and names, lists of hundreds."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, get_args

import pytest

from speciate.datasets import version_rows
from speciate.jobs.engine import Engine
from speciate.jobs.pool import Pool
from speciate.sandbox import is_complete
from speciate.server import option_catalog
from speciate.server.mcp.app import Server
from speciate.server.tool_api import App, Caller
from speciate.settings import Settings
from speciate.workspace.workspace import Workspace
from tests import data
from tests.server.apps import make_app
from tests.training.world import make_dataset, thirds, train_now

pytestmark = pytest.mark.skipif(not is_complete(), reason="this kernel lacks a layer of the sandbox")

MOST_TOKENS = 4_000
"""Of four bytes of JSON."""
WIDE, LONG = "w" * 60, "long words of somebody else " * 40
TASK = "tabular-classification"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    root = tmp_path_factory.mktemp("sizes")
    workspace = Workspace(root / "workspace", settings=Settings(policy="person", roots=[root]))
    columns = {f"measured_{WIDE}_{column}"[-60:]: list(range(column, column + 240)) for column in range(150)}
    _dataset(workspace, "wide", columns | {"said": [f"{row} {LONG}" for row in range(240)]})
    for number in range(24):
        _dataset(workspace, f"set-{number:02}-{WIDE[:50]}", {"a": list(range(240))})
    pool = Pool(workspace.folders, workspace.settings, size=2)
    app = App(workspace, Engine(workspace), pool, Caller(root, "test", "stdio"))
    server = Server(app)
    for number in range(24):
        name, objective = f"use-{number:02}-{WIDE[:50]}", {"metric": "accuracy", "target": 0.9}
        called(server, "define_use_case", name=name, task=TASK, objective=objective, description=LONG)
    few = {"candidates": ["logistic"]}
    for number in range(8):
        dataset = f"set-{number:02}-{WIDE[:50]}"
        train_now(workspace, f"job-{number}", name="model", dataset=dataset, method="classical", hyperparameters=few)
    for number in range(30):
        called(server, "manage_data", action="purge", ref="wide", example=example(workspace, number))
    for number in range(30):
        called(server, "export_dataset", dataset="wide", format="csv", path=str(root / f"{WIDE}-{number}"))
    yield server
    pool.close()
    workspace.close()


def _dataset(workspace: Workspace, name: str, columns: dict[str, list[Any]]) -> None:
    labels = [f"{WIDE[:40]} {row % 60}" for row in range(240)]
    make_dataset(workspace, name, "tabular", columns, labels=labels, splits=thirds(240), inputs=list(columns))


def example(workspace: Workspace, number: int) -> str:
    found = version_rows.read(workspace.folders, data.resolve(workspace.database, "wide"), ["id"])
    return str(found.column("id")[number])


def called(server: Server, tool: str, **arguments: Any) -> dict[str, Any]:
    answer = server.call(tool, arguments)
    assert not answer.is_error, answer.content
    return answer.structured_content or {}


CALLS: list[tuple[str, dict[str, Any]]] = [
    ("get_status", {}),
    ("get_status", {"use_case": f"use-00-{WIDE[:50]}"}),
    ("describe_dataset", {}),
    ("describe_dataset", {"dataset": "wide"}),
    ("query_dataset", {"dataset": "wide"}),
    ("preview_dataset", {"dataset": "wide"}),
    ("plan_training", {"dataset": "wide"}),
    ("plan_training", {"dataset": "wide", "use_case": f"use-00-{WIDE[:50]}"}),
    ("describe_model", {"model": "model"}),
    ("list_jobs", {}),
    ("list_approvals", {}),
]
SEARCHES: list[dict[str, Any]] = [
    {},
    {"query": "embedding", "sort": "published"},
    {"task": "image-classification"},
    {"task": "text-generation", "sort": "price"},
]


@pytest.mark.slow
def test_an_answer_fits_where_there_is_much_to_say(server: Server) -> None:
    answers = {f"{tool} {arguments}": called(server, tool, **arguments) for tool, arguments in CALLS}
    assert {call: found for call, answer in answers.items() if (found := tokens(answer)) > MOST_TOKENS} == {}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("tool", "items", "count"), [("list_approvals", "approvals", 30), ("describe_dataset", "datasets", 25)]
)
def test_a_page_that_ends_early_is_followed_by_the_rest(server: Server, tool: str, items: str, count: int) -> None:
    pages = [called(server, tool)]
    while cursor := pages[-1].get("next_cursor"):
        pages.append(called(server, tool, cursor=cursor))
    assert all(tokens(page) <= MOST_TOKENS for page in pages)
    found = [json.dumps(item) for page in pages for item in page[items]]
    assert len(found) == len(set(found)) == count
    assert len(called(server, tool, limit=500)[items]) == count


@pytest.mark.parametrize("arguments", SEARCHES, ids=str)
def test_a_page_of_models_fits(workspace: Workspace, arguments: dict[str, Any]) -> None:
    assert tokens(called(Server(make_app(workspace)), "search_models", **arguments)) <= MOST_TOKENS


def test_options_fit(workspace: Workspace) -> None:
    server = Server(make_app(workspace))
    answers = {kind: called(server, "list_options", kind=kind) for kind in get_args(option_catalog.Kind)}
    assert {kind: found for kind, answer in answers.items() if (found := tokens(answer)) > MOST_TOKENS} == {}


def test_one_option_by_its_name_fits() -> None:
    """With the whole schema of its parameters."""
    too_long = {
        f"{kind} {option.name}": found
        for kind in get_args(option_catalog.Kind)
        for option in option_catalog.list_options(kind)
        if (found := tokens([option.what, option.parameters])) > MOST_TOKENS
    }
    assert too_long == {}


def tokens(document: Any) -> int:
    return len(json.dumps(document).encode()) // 4
