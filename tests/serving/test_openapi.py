"""The description of the interface: valid by a validator of others, and true of the model and of each route."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Iterator
from typing import Any

import jsonschema
import pytest
from openapi_spec_validator import validate

from speciate.jobs.pool import Pool
from speciate.promotion import aliases
from speciate.serving import deployments, openapi, predict_worker
from speciate.serving.deployment_folder import Target, deployment_folder
from speciate.serving.request_parsing import check_request
from speciate.workspace.workspace import Workspace
from tests.serving.fakes import target
from tests.serving.test_api import TOKEN, Serve, Server, serve  # noqa: F401 - the fixture
from tests.serving.world import move
from tests.training.world import define, make_dataset, thirds, train_now

WRITER = target(1, task="text-generation")
ROWS = target(
    1, modality="tabular", task="tabular-classification", inputs=("age", "text", "well"), labels=("bad", "words@v1"),
    columns=(("age", "number"), ("text", "string"), ("well", "boolean")),
)  # fmt: skip
TARGETS = {
    "text": target(1, labels=("bad", "good")),
    "writer": WRITER,
    "rows": ROWS,
    "image": target(1, modality="image", task="image-classification", inputs=()),
    "audio": target(1, modality="audio", task="audio-regression", inputs=()),
    "mixed": target(1, modality="multimodal", task="multimodal-classification", parts=("scan.image", "report.text")),
    "nothing": None,
}


def examples(document: dict[str, Any]) -> Iterator[tuple[str, str, Any]]:
    """Method, path and body of each call that can be made: without a body, or with an example of one."""
    for path, methods in document["paths"].items():
        for method, route in methods.items():
            for parameter in route.get("parameters", ()):
                path = path.replace(f"{{{parameter['name']}}}", parameter.get("example", ""))  # noqa: PLW2901
            content = route.get("requestBody", {}).get("content", {}).get(openapi.JSON, {})
            if method == "get":
                yield method, path, None
            for example in content.get("examples", {}).values():
                jsonschema.validate(example["value"], content["schema"])
                yield method, path, example["value"]


@pytest.mark.parametrize("name", TARGETS)
def test_the_document_is_openapi(name: str) -> None:
    document = json.loads(json.dumps(openapi.document("reviews", TARGETS[name])))
    validate(document)
    for path, methods in document["paths"].items():
        for route in methods.values():
            for content in [*route.get("requestBody", {}).get("content", {}).values()]:
                jsonschema.Draft202012Validator.check_schema(content["schema"])
            assert route["responses"], path


@pytest.mark.parametrize("name", [name for name in TARGETS if TARGETS[name]])
def test_the_example_of_a_request_is_one(name: str) -> None:
    version = TARGETS[name]
    assert version is not None
    made = openapi.example_request(version)
    assert made is not None
    assert not check_request(made, version).problems
    assert openapi.example_request(target(1, modality="dicom", inputs=())) is None


def test_every_route_is_in_it_and_every_example_works(serve: Serve) -> None:  # noqa: F811
    for version in (WRITER, ROWS):
        server = serve(version)
        server.processes[0].words = ("Hello", "!")
        document = server.ask(None, "/openapi.json").body
        served = server.ask(None, "/nowhere").body["error"]
        assert {f"{method.upper()} {path}" for path, methods in document["paths"].items() for method in methods} == {
            *re.findall(r"(?:GET|POST) \S+?(?=[,.](?:\s|$))", served)
        }
        called = list(examples(document))
        assert len(called) >= 8
        for method, path, body in called:
            said = server.ask(body, path)
            route = document["paths"][path if path in document["paths"] else "/v1/models/{name}"][method]
            assert said.status == 200, (path, said.body)
            kind = (said.headers["content-type"] or "").partition(";")[0]
            schema = route["responses"]["200"]["content"][kind]["schema"]
            jsonschema.validate(said.body, {**schema, "components": document["components"]})


def test_a_stranger_s_errors_are_as_described(server: Server) -> None:
    document = server.ask(None, "/openapi.json").body
    schemas = document["components"]["schemas"]
    for path, schema in (("/predict", "Problem"), ("/v1/chat/completions", "OpenAIError")):
        for body in ({}, b"{", {"inputs": 3}):
            jsonschema.validate(server.ask(body, path).body, schemas[schema])
        jsonschema.validate(server.ask({}, path, token="wrong").body, schemas[schema])


@pytest.fixture
def server(serve: Serve) -> Server:  # noqa: F811
    return serve(ROWS)


def test_the_document_needs_the_token_and_the_page_shows_nothing_without_it(server: Server) -> None:
    assert server.ask(None, "/openapi.json", token="wrong").status == 401
    page = server.ask(None, "/docs", token="wrong")
    assert page.status == 200
    assert "words@v1" not in page.body
    assert not re.findall(r"(?:src|href)=|https?://", page.body), "it is self-contained"
    assert "connect-src 'self'" in page.headers["content-security-policy"]
    said = subprocess.run(
        ["curl", "-s", "-H", f"Authorization: Bearer {TOKEN}", f"http://127.0.0.1:{server.port}/openapi.json"],
        capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    row = json.loads(said)["paths"]["/predict"]["post"]["requestBody"]["content"][openapi.JSON]["schema"]
    properties = row["properties"]["inputs"]["items"]["properties"]["row"]
    assert properties["required"] == ["age", "text", "well"]
    assert properties["properties"]["age"] == {"type": ["number", "null"]}


def test_answers_are_the_labels_of_the_model() -> None:
    assert openapi.output_schema(ROWS) == {"type": "string", "enum": ["bad", "words@v1"]}
    assert openapi.output_schema(TARGETS["audio"]) == {"type": "number"}
    assert openapi.output_schema(target(1, task="object-detection")) == {}


def test_a_trained_model_is_described_and_answers_its_example(workspace: Workspace) -> None:
    columns: dict[str, list[Any]] = {"x1": [n % 4 / 2 for n in range(60)], "x2": ["a", "b", "c"] * 20}
    labels = ["yes" if n % 4 < 2 else "no" for n in range(60)]
    make_dataset(workspace, "data", "tabular", columns, labels=labels, splits=thirds(60), inputs=["x1", "x2"])
    define(workspace, "reviews", "tabular-classification")
    few = {"candidates": ["logistic"]}
    made = train_now(workspace, name="model", dataset="data", method="classical", hyperparameters=few)
    move(workspace, str(made["model"]))
    alias = aliases.read(workspace.database, "reviews")
    assert alias
    folder = deployment_folder(workspace.folders, "reviews")
    folder.create()
    pool = Pool(workspace.folders, workspace.settings, size=1)
    version: Target = deployments.target_of(workspace, pool, folder, alias)
    pool.close()
    assert version.labels == ("no", "yes")
    assert [name for name, _ in version.columns] == ["x1", "x2"]
    version = version.model_copy(update={"columns": (("x1", "number"), ("x2", "string"))})  # as ingest tells types
    request = openapi.example_request(version)
    items = check_request(request, version).items
    [answer] = predict_worker.answer(
        {
            "model": str(workspace.folders.root / version.path), "modality": version.modality,
            "inputs": list(version.inputs), "parts": [], "items": items,
        }
    )["predictions"]  # fmt: skip
    jsonschema.validate(answer["output"], openapi.output_schema(version))
