"""Frames that are no messages, one of each kind, and how each is to be answered."""

from __future__ import annotations

import json
from typing import Any, NamedTuple

PARSE, REQUEST, PARAMS = -32700, -32600, -32602


class Malformed(NamedTuple):
    line: bytes
    code: int | None
    """Of the error that answers it; None: nobody waits for an answer."""
    id: str | int | None = None
    """In the answer."""


def _frame(**parts: Any) -> bytes:
    return json.dumps({"jsonrpc": "2.0", "id": 77, "method": "tools/list", **parts}).encode()


def _without(name: str) -> bytes:
    return json.dumps({key: value for key, value in json.loads(_frame()).items() if key != name}).encode()


_DEEP = b'{"jsonrpc":"2.0","id":77,"method":"tools/list","params":{"a":' + b"[" * 3000 + b"]" * 3000 + b"}}"

MALFORMED = {
    "params is a list": Malformed(_frame(params=[1]), PARAMS, 77),
    "params is a string": Malformed(_frame(params="x"), PARAMS, 77),
    "params is a number": Malformed(_frame(params=0), PARAMS, 77),
    "_meta is a number": Malformed(_frame(params={"_meta": 5}), PARAMS, 77),
    "_meta is a list": Malformed(_frame(params={"_meta": []}), PARAMS, 77),
    "nested 3,000 deep": Malformed(_DEEP, PARSE, 77),
    "nested 150 deep": Malformed(_DEEP.replace(b"[" * 3000 + b"]" * 3000, b"[" * 150 + b"]" * 150), PARSE, 77),
    "lone surrogate": Malformed(_frame(params={"a": "\ud800"}), PARSE, 77),
    "lone surrogate as a key": Malformed(_frame(params={"\udfff": 1}), PARSE, 77),
    "boolean id": Malformed(_frame(id=True), REQUEST),
    "float id": Malformed(_frame(id=1.5), REQUEST),
    "null id": Malformed(_frame(id=None), REQUEST),
    "list id": Malformed(_frame(id=[1]), REQUEST),
    "object id": Malformed(_frame(id={"a": 1}), REQUEST),
    "id of 5,000 digits": Malformed(_frame(id=0).replace(b'"id": 0', b'"id": ' + b"9" * 5000), PARSE),
    "5,000 digits": Malformed(b'{"jsonrpc":"2.0","id":77,"method":"x","params":{"a":' + b"9" * 5000 + b"}}", PARSE, 77),
    "batch": Malformed(b"[" + _frame() + b"," + _frame(id=78) + b"]", REQUEST),
    "empty batch": Malformed(b"[]", REQUEST),
    "string": Malformed(b'"hello"', REQUEST),
    "number": Malformed(b"7", REQUEST),
    "null": Malformed(b"null", REQUEST),
    "not a number": Malformed(_frame(params={"a": float("nan")}), PARSE, 77),
    "garbage": Malformed(b"\x01\x02garbage{{{", PARSE),
    "NUL": Malformed(b"\x00", PARSE),
    "NUL in a frame": Malformed(_frame() + b"\x00", PARSE, 77),
    "invalid UTF-8": Malformed(_frame(method="x").replace(b'"x"', b'"\xff\xfe"'), PARSE, 77),
    "UTF-16": Malformed(_frame().decode().encode("utf-16-le"), PARSE),
    "byte order mark": Malformed(b"\xef\xbb\xbf" + _frame(), PARSE, 77),
    "torn": Malformed(_frame()[:-5], PARSE, 77),
    "two messages on a line": Malformed(_frame() + _frame(), PARSE, 77),
    "no method": Malformed(_without("method"), REQUEST, 77),
    "method is a number": Malformed(_frame(method=5), REQUEST, 77),
    "method is null": Malformed(_frame(method=None), REQUEST, 77),
    "no version": Malformed(_without("jsonrpc"), REQUEST, 77),
    "version 1.0": Malformed(_frame(jsonrpc="1.0"), REQUEST, 77),
    "empty object": Malformed(b"{}", REQUEST),
    "notification with a list": Malformed(b'{"jsonrpc":"2.0","method":"notifications/x","params":[]}', None),
    "cancelled with a list as id": Malformed(
        b'{"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":[1]}}', None
    ),
    "answer to nothing": Malformed(b'{"jsonrpc":"2.0","id":4711,"result":{}}', None),
    "answer with a boolean id": Malformed(b'{"jsonrpc":"2.0","id":true,"result":{}}', None),
    "answer with a list": Malformed(b'{"jsonrpc":"2.0","id":4711,"result":[]}', None),
    "error to nothing": Malformed(b'{"jsonrpc":"2.0","id":null,"error":{"code":-32600,"message":"x"}}', None),
    "error that is none": Malformed(b'{"jsonrpc":"2.0","id":null,"error":5}', None),
    "empty line": Malformed(b"", None),
    "carriage return": Malformed(b"\r", None),
    "spaces": Malformed(b"  \t ", None),
}
