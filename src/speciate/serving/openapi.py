"""The description of a deployment's HTTP interface as OpenAPI 3.1, for the version that serves: its columns, parts and
labels. Pure.

Examples are made up, never taken from data: where a medium cannot be made up in a few bytes, there is none.
"""

from __future__ import annotations

import base64
import io
import struct
import wave
import zlib
from collections.abc import Mapping
from typing import Any

from speciate import __version__
from speciate.modalities import audio_answers, image_answers
from speciate.modalities.multimodal import part_name
from speciate.predictions.entities import LONGEST
from speciate.predictions.feedback import SOURCES
from speciate.serving import chat
from speciate.serving.deployment_folder import Target
from speciate.serving.record_feedback import MOST
from speciate.serving.request_parsing import ENTITY_HEADER, forms, request_schema
from speciate.vocabulary import task_named

JSON, EVENTS, TEXT = "application/json", "text/event-stream", "text/plain"
_MOST_LABELS = 500
_TEXTS = {"protein": "MKTAYIAKQRQISFVKSHFSRQ", "molecule": "CCO"}
_CELLS: Mapping[str, Any] = {"number": 1.0, "integer": 1, "boolean": True}
_SIDE, _RATE = 32, 16_000

Schema = dict[str, Any]
"""A schema of JSON Schema 2020-12, or an object of OpenAPI around it."""


def document(use_case: str, target: Target | None) -> Schema:
    """The OpenAPI document of all routes. `target`: the version that serves; None while none does."""
    serving = f"It serves {target.model} ({target.task})." if target else "No version serves now."
    return {
        "openapi": "3.1.0",
        "jsonSchemaDialect": "https://json-schema.org/draft/2020-12/schema",
        "info": {"title": use_case, "version": __version__, "description": f"A deployment of speciate. {serving}"},
        "servers": [{"url": "/"}],
        "security": [{"token": []}],
        "paths": {
            "/predict": {"post": _predict(target)},
            "/feedback": {"post": _feedback()},
            "/schema": {"get": _get("The inputs of the serving version as JSON Schema.", {"type": "object"}, "503")},
            "/v1/chat/completions": {"post": _chat(use_case, target)},
            "/v1/models": {"get": _get("The model, as OpenAI lists it.", _listed())},
            "/v1/models/{name}": {"get": _model(use_case)},
            "/healthz": {"get": _health()},
            "/metrics": {"get": _text("Requests, latencies and swaps per version, for Prometheus.")},
            "/openapi.json": {"get": _get("This document.", {"type": "object"})},
            "/docs": {"get": {**_text("This document for people.", "text/html"), "security": []}},
        },
        "components": {
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
            "schemas": {"Problem": _problem(), "OpenAIError": _openai_error()},
        },
    }


def _predict(target: Target | None) -> Schema:
    body: Schema = {"schema": request_schema(target)} if target else {"schema": {"type": "object"}}
    if target is not None and (example := example_request(target)) is not None:
        body["examples"] = {"made_up": {"summary": "Made up, to show the form.", "value": example}}
    form = {"schema": {"type": "object", "description": "Each file is an input; of mixed rows a field is a part."}}
    return {
        "operationId": "predict",
        "summary": "One answer per input, in order.",
        "parameters": [_key(), _entity()],
        "requestBody": {"required": True, "content": {JSON: body, "multipart/form-data": form}},
        "responses": {
            "200": _answer("At least one input was answered; others have their own error.", _predictions(target)),
            **_errors("401", "408", "413", "422", "429", "503", "504"),
        },
    }


def _predictions(target: Target | None) -> Schema:
    prediction = {
        "type": "object",
        "required": ["id", "output", "confidence", "error"],
        "properties": {
            "id": {"type": "string", "description": "The caller's, else the input's place."},
            "output": {"anyOf": [output_schema(target), {"type": "null"}]},
            "confidence": {"type": ["number", "null"]},
            "error": {"type": ["string", "null"]},
            "error_text": {"type": "string"},
            "warnings": {"type": "array", "items": {"type": "string"}},
            "prediction": {"type": ["string", "null"], "description": "For POST /feedback."},
        },
    }
    return {
        "type": "object",
        "required": ["predictions", "model", "latency_ms"],
        "properties": {
            "predictions": {"type": "array", "items": prediction},
            "model": {"type": "string"},
            "latency_ms": {"type": "number"},
        },
    }


def output_schema(target: Target | None) -> Schema:
    """Schema of an answer of this version."""
    task = task_named(target.task) if target else None
    if target is None or task is None:
        return {}
    label: Schema = {"type": "string"}
    if 0 < len(target.labels) <= _MOST_LABELS:
        label["enum"] = list(target.labels)
    match task.family:
        case "classification" | "ordinal":
            return label
        case "multi-label":
            return {"type": "array", "items": label}
        case "regression":
            return {"type": "number"}
        case "generation" | "transcription":
            return {"type": "string"}
        case "speech-synthesis":
            return _media_schema(audio_answers.MIME, {"seconds": {"type": "number"}, "sample_rate": _WHOLE})
        case "image-generation":
            return _media_schema(image_answers.MIME, {"width": _WHOLE, "height": _WHOLE})
        case _:
            return {}


_WHOLE: Schema = {"type": "integer"}


def _media_schema(mime: str, sizes: Schema) -> Schema:
    """A file in Base64 with its sizes."""
    data = {"type": "string", "contentEncoding": "base64"}
    return {
        "type": "object",
        "required": ["mime", "data", *sizes],
        "properties": {"mime": {"const": mime}, "data": data, **sizes},
    }


def example_request(target: Target) -> Schema | None:
    """A body for POST /predict; None where no input can be made up."""
    one = _example_input(target)
    return None if one is None else {"inputs": [one]}


def _example_input(target: Target) -> Schema | None:
    form = forms(target)[0]
    if form == "text":
        return {"text": _TEXTS.get(target.modality, "a short text")}
    if form == "row":
        return {"row": {name: _CELLS.get(_cell_type(target, name), "a") for name in target.inputs}}
    if form == "data":
        return _medium(target.modality)
    found: dict[str, Schema] = {}
    for name in target.parts:
        part = part_name(name)
        if part is None:
            return None
        made = {"value": _TEXTS.get(part.modality, "a short text")} if part.modality in ("text", *_TEXTS) else None
        if made is None and (medium := _medium(part.modality)) is not None:
            made = {"data": medium["data"]}
        if made is not None:
            found[part.own] = made
    return {"parts": found} if found else None


def _cell_type(target: Target, name: str) -> str:
    return next((kind for column, kind in target.columns if column == name), "string")


def _medium(modality: str) -> Schema | None:
    if modality == "image":
        return {"data": base64.b64encode(_grey_png(_SIDE)).decode(), "mime": "image/png"}
    if modality == "audio":
        return {"data": base64.b64encode(_silence()).decode(), "mime": "audio/wav"}
    return None


def _grey_png(side: int) -> bytes:
    """RGB, without Pillow: this process opens no image."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    rows = (b"\0" + bytes([128]) * 3 * side) * side
    head = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def _silence() -> bytes:
    file = io.BytesIO()
    with wave.open(file, "wb") as sound:
        sound.setnchannels(1)
        sound.setsampwidth(2)
        sound.setframerate(_RATE)
        sound.writeframes(bytes(2 * _RATE))
    return file.getvalue()


def _feedback() -> Schema:
    one = {
        "type": "object",
        "required": ["prediction", "source"],
        "properties": {
            "prediction": {"type": "string", "description": "Of an answer."},
            "label": {"description": "What it should have been, as outputs are."},
            "score": {"type": "number", "minimum": 0, "maximum": 1, "description": "Where no label fits."},
            "source": {"enum": list(SOURCES)},
            "by": {"type": "string"},
            "drawn": {"type": "object"},
            "new_class": {"type": "boolean"},
        },
    }
    several = {
        "type": "object",
        "required": ["feedback"],
        "properties": {"feedback": {"type": "array", "minItems": 1, "maxItems": MOST, "items": one}},
    }
    return {
        "operationId": "feedback",
        "summary": "Record what answers should have been.",
        "requestBody": {"required": True, "content": {JSON: {"schema": {"anyOf": [one, several]}}}},
        "responses": {
            "200": _answer("What was recorded.", {"type": "object", "required": ["recorded"]}),
            **_errors("401", "404", "408", "413", "422"),
        },
    }


def _chat(use_case: str, target: Target | None) -> Schema:
    writes = target is not None and target.task == chat.TASK
    said = "As OpenAI has it." if writes else "For models that write texts: this version does not, and answers 400."
    body: Schema = {"schema": _chat_request()}
    if writes:
        asked = {"model": use_case, "messages": [{"role": "user", "content": "Hello?"}], "max_tokens": 8}
        body["examples"] = {
            "whole": {"summary": "One answer.", "value": asked},
            "stream": {
                "summary": "A stream that counts its tokens.",
                "value": {**asked, "stream": True, "stream_options": {"include_usage": True}},
            },
        }
    return {
        "operationId": "chat",
        "summary": f"A chat completion. {said}",
        "parameters": [_key(), _entity()],
        "requestBody": {"required": True, "content": {JSON: body}},
        "responses": {
            "200": {
                "description": "The answer, or with `stream` its pieces as server-sent events.",
                "content": {
                    JSON: {"schema": _completion()},
                    EVENTS: {"schema": {"type": "string", "description": "data: {...}, at last data: [DONE]"}},
                },
            },
            **_errors("400", "401", "404", "408", "413", "429", "503", "504", openai=True),
        },
    }


def _chat_request() -> Schema:
    message = {
        "type": "object",
        "required": ["role", "content"],
        "properties": {"role": {"type": "string"}, "content": {"type": ["string", "array"]}},
    }
    return {
        "type": "object",
        "required": ["messages"],
        "properties": {
            "model": {"type": "string"},
            "messages": {"type": "array", "minItems": 1, "items": message},
            **chat.field_schemas(),
            **{name: {"description": "Accepted, and changes nothing."} for name in chat.IGNORED},
            **{name: {"description": "Who asks: the log keeps a hash of it."} for name in chat.ENTITY},
        },
    }


def _completion() -> Schema:
    counts = {"type": "integer", "minimum": 0}
    usage = {
        "type": ["object", "null"],
        "properties": {"prompt_tokens": counts, "completion_tokens": counts, "total_tokens": counts},
    }
    choice = {
        "type": "object",
        "required": ["index", "message", "finish_reason"],
        "properties": {"message": {"type": "object"}, "finish_reason": {"enum": ["stop", "length"]}},
    }
    return {
        "type": "object",
        "required": ["id", "object", "created", "model", "choices", "usage"],
        "properties": {"choices": {"type": "array", "items": choice}, "usage": usage},
    }


def _listed() -> Schema:
    return {
        "type": "object",
        "required": ["object", "data"],
        "properties": {"object": {"const": "list"}, "data": {"type": "array", "items": _model_object()}},
    }


def _model_object() -> Schema:
    return {"type": "object", "required": ["id", "object", "created", "owned_by"]}


def _model(use_case: str) -> Schema:
    name = {
        "name": "name", "in": "path", "required": True, "schema": {"type": "string"}, "example": use_case,
    }  # fmt: skip
    return {
        "operationId": "model",
        "summary": "One model.",
        "parameters": [name],
        "responses": {"200": _answer("It is there.", _model_object()), **_errors("401", "404", openai=True)},
    }


def _health() -> Schema:
    state = {
        "type": "object",
        "properties": {"serving": {"type": ["string", "null"]}, "loading": {"type": ["string", "null"]}},
    }
    return {
        "operationId": "healthz",
        "summary": "Whether a version serves; needs no token.",
        "security": [],
        "responses": {"200": _answer("One does.", state), "503": _answer("None does.", state)},
    }


def _get(summary: str, schema: Schema, *errors: str) -> Schema:
    return {"summary": summary, "responses": {"200": _answer("It is there.", schema), **_errors("401", *errors)}}


def _text(summary: str, mime: str = TEXT) -> Schema:
    found = {"description": "It is there.", "content": {mime: {"schema": {"type": "string"}}}}
    return {"summary": summary, "responses": {"200": found, **_errors("401")}}


def _answer(description: str, schema: Schema) -> Schema:
    return {"description": description, "content": {JSON: {"schema": schema}}}


_SAYS = {
    "400": "The request asks for what cannot be done.",
    "401": "No token, or another one.",
    "404": "There is no such thing.",
    "408": "The body did not arrive in time.",
    "413": "The body is too large.",
    "422": "The body does not fit the schema, or no input was usable.",
    "429": "Too many requests, or inputs that wait; Retry-After says when to come again.",
    "503": "No version serves.",
    "504": "The model did not answer in time.",
}


def _errors(*status: str, openai: bool = False) -> Schema:
    schema = {"$ref": f"#/components/schemas/{'OpenAIError' if openai else 'Problem'}"}
    return {each: {"description": _SAYS[each], "content": {JSON: {"schema": schema}}} for each in status}


def _problem() -> Schema:
    return {"type": "object", "required": ["error"], "properties": {"error": {"type": "string"}}}


def _openai_error() -> Schema:
    error = {
        "type": "object",
        "required": ["message", "type", "param", "code"],
        "properties": {
            "message": {"type": "string"}, "type": {"type": "string"}, "param": {"type": ["string", "null"]},
            "code": {"type": ["string", "null"]},
        },
    }  # fmt: skip
    return {"type": "object", "required": ["error"], "properties": {"error": error}}


def _key() -> Schema:
    return {
        "name": "x-request-key", "in": "header", "required": False, "schema": {"type": "string"},
        "description": "Requests of one key are answered by the same version.",
    }  # fmt: skip


def _entity() -> Schema:
    return {
        "name": ENTITY_HEADER, "in": "header", "required": False, "schema": {"type": "string", "maxLength": LONGEST},
        "description": "Who or what asks: a user, session or device. The log keeps a keyed hash of it.",
    }  # fmt: skip


def page() -> str:
    """The document for people: one file, which asks for the token and fetches the rest from here alone."""
    return _PAGE


POLICY = (
    "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; connect-src 'self'; "
    "frame-ancestors 'none'; base-uri 'none'; form-action 'none'"
)
"""The Content-Security-Policy of the page. It is the same for everybody, and shows what it fetches as text alone."""

_PAGE = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>The deployment's interface</title>
<style>
body { font: 16px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 56rem; padding: 0 1rem; color: #1b1b1b }
pre { background: #f4f4f2; padding: .75rem; overflow-x: auto; border-radius: .3rem; font-size: .85rem }
h2 code { font-size: 1.1rem } section { border-top: 1px solid #ddd; margin-top: 1.5rem }
input, button { font: inherit; padding: .3rem .6rem } summary { cursor: pointer }
@media (prefers-color-scheme: dark) { body { background: #161616; color: #eee } pre { background: #262626 } }
</style>
<h1 id="title">The deployment's interface</h1>
<form id="ask"><label>Token <input id="token" type="password" autocomplete="off"></label> <button>Show</button></form>
<p id="about">The token lies in the file that <code>speciate deployment list</code> names. It stays in this page.</p>
<div id="routes"></div>
<script>
const at = id => document.getElementById(id);
const add = (parent, kind, text) => {
  const made = document.createElement(kind);
  if (text !== undefined) made.textContent = text;
  return parent.appendChild(made);
};
const show = (parent, title, value) => {
  const box = add(parent, "details");
  add(box, "summary", title);
  add(box, "pre", JSON.stringify(value, null, 1));
};
const call = async (method, path, body) => {
  const headers = { authorization: "Bearer " + at("token").value };
  if (body !== undefined) headers["content-type"] = "application/json";
  const found = await fetch(path, { method, headers, body: body === undefined ? body : JSON.stringify(body) });
  return found.status + "\\n" + await found.text();
};
at("ask").onsubmit = async event => {
  event.preventDefault();
  const found = await fetch("/openapi.json", { headers: { authorization: "Bearer " + at("token").value } });
  const about = await found.json();
  if (!found.ok) { at("about").textContent = about.error; return; }
  at("title").textContent = about.info.title;
  at("about").textContent = about.info.description;
  at("routes").replaceChildren();
  for (const [path, methods] of Object.entries(about.paths)) for (const [method, route] of Object.entries(methods)) {
    const box = add(at("routes"), "section");
    add(add(box, "h2"), "code", method.toUpperCase() + " " + path);
    add(box, "p", route.summary);
    const content = route.requestBody?.content["application/json"];
    if (content) show(box, "Body", content.schema);
    show(box, "Answers", route.responses);
    for (const [name, example] of Object.entries(content?.examples ?? {})) {
      show(box, "Example: " + name, example.value);
      const button = add(box, "button", "Send it"), answer = add(box, "pre");
      answer.hidden = true;
      button.onclick = async () => {
        answer.textContent = await call("POST", path, example.value);
        answer.hidden = false;
      };
    }
  }
};
</script>
</html>
"""
