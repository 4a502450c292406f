"""A reader of the pages without a browser: sends what a browser would, and says what came back."""

from __future__ import annotations

import html
import http.client
import re
from typing import NamedTuple
from urllib.parse import urlencode

_TAG = re.compile(r"<[^>]*>")
_HIDDEN = re.compile(r"(?s)<(script|style|template)\b.*?</\1>")


class Answer(NamedTuple):
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def html(self) -> str:
        return self.body.decode()

    @property
    def text(self) -> str:
        """What is read on it, in one line."""
        return " ".join(html.unescape(_TAG.sub(" ", _HIDDEN.sub(" ", self.html))).split())

    @property
    def csrf(self) -> str:
        found = re.search(r'<meta name="csrf" content="([^"]+)"', self.html)
        assert found, "no page of a session"
        return found[1]


class Reader:
    """`link`: what `speciate open` printed; the key is spent with the first request."""

    def __init__(self, link: str) -> None:
        address, _, self._key = link.partition("#")
        self.host = address.removeprefix("http://").partition("/")[0]
        self.port = int(self.host.rpartition(":")[2])
        self.cookie = ""

    def sign_in(self) -> Reader:
        answer = self.ask("POST", "/open", body=self._key.encode(), headers={"content-type": "text/plain"})
        assert answer.status == 200, answer
        self.cookie = answer.headers["set-cookie"].partition(";")[0]
        return self

    def get(self, path: str, **headers: str) -> Answer:
        return self.ask("GET", path, headers=headers)

    def post(self, path: str, fields: dict[str, str], **headers: str) -> Answer:
        kind = {"content-type": "application/x-www-form-urlencoded"}
        return self.ask("POST", path, body=urlencode(fields).encode(), headers={**kind, **headers})

    def ask(self, method: str, path: str, body: bytes = b"", headers: dict[str, str] | None = None) -> Answer:
        """As our own page asks, but for what `headers` say otherwise; an empty one is left out."""
        ours = {"host": self.host, "cookie": self.cookie, "sec-fetch-site": "same-origin"}
        if method != "GET":
            ours["origin"] = f"http://{self.host}"
        sent = {name: value for name, value in {**ours, **(headers or {})}.items() if value}
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        try:
            connection.putrequest(method, path, skip_host=True, skip_accept_encoding=True)
            for name, value in sent.items():
                connection.putheader(name, value)
            if body or method != "GET":
                connection.putheader("content-length", str(len(body)))
            connection.endheaders(body or None)
            answer = connection.getresponse()
            return Answer(answer.status, {k.lower(): v for k, v in answer.getheaders()}, answer.read())
        finally:
            connection.close()
