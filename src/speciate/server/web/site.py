"""The pages as one application: each route of the table behind the guard, answered by a template.

A page is a function of a `Visit` that returns what its template shows; it runs in a worker thread. A write is one that
returns where to go. Text of every template is escaped, and loses characters of control and direction.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from importlib import import_module
from urllib.parse import quote, urlencode

import anyio.to_thread
from jinja2 import Environment, PackageLoader, StrictUndefined
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, PlainTextResponse, RedirectResponse, Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles
from starlette.types import Receive, Scope
from starlette.types import Send as AsgiSend

from speciate import __version__
from speciate.errors import Code, SpeciateError
from speciate.evaluation.pages.formatting import without_controls
from speciate.evaluation.pages.inline_charts import CHARTS
from speciate.evaluation.reports.report import learning_split_words
from speciate.governance import authorization
from speciate.governance.page_sessions import LONGEST_SECONDS, Session, Sessions
from speciate.governance.token_tries import Throttle
from speciate.sample_size import is_worth_collecting
from speciate.server.control.action import ControlContext
from speciate.server.tool_api import App, Caller
from speciate.server.web import events, formats
from speciate.server.web.guard import FILES, SIGNED_IN, STATIC, Front, Guard, cookie_of, inside
from speciate.server.web.routes import READS, SENDS, WRITES, Read, Send, Write, act_of
from speciate.server.web.visit import Parts, Visit
from speciate.workspace import filesystem

_LONGEST_KEY = 200
_LONGEST_FORM = 64 << 10
_STATUS = {
    Code.NOT_FOUND: 404, Code.INVALID: 400, Code.CONFLICT: 409, Code.REFUSED: 403, Code.UNAVAILABLE: 503,
}  # fmt: skip
_WAITING = "SELECT expires FROM approvals WHERE state = 'pending'"
_NOT_ALLOWED = "This session may not do this."
_log = logging.getLogger(__name__)


class Site:
    """What all requests of one front share."""

    def __init__(
        self, app: App, control: ControlContext, parts: Parts, streams: events.Streams, sessions: Sessions, front: Front
    ) -> None:
        self.app, self.control, self.parts, self.sessions, self.front = app, control, parts, sessions, front
        self.streams = streams
        self._throttle = Throttle(app.workspace.clock.monotonic)

    def application(self, note: Callable[[], None]) -> Starlette:
        """`note` hears of each request that is let through."""
        entrance = self._login if self.front.team else self._open
        routes = [
            Route(self.front.entrance, entrance, methods=["GET", "POST"]),
            Route("/leave", self._leave, methods=["POST"]),
            Route("/events", self._events, methods=["GET"]),
            Route("/favicon.ico", _icon, methods=["GET"]),
            *(Route(each.path, self._reader(each), methods=["GET"]) for each in READS),
            *(Route(each.path, self._sender(each), methods=["GET"]) for each in SENDS),
            *(Route(each.path, self._writer(each), methods=["POST"]) for each in WRITES),
            Mount(FILES, StaticFiles(directory=STATIC)),
        ]
        guard = Middleware(
            Guard, front=self.front, sessions=self.sessions, denied=self._denied, log=self.parts.requests, note=note
        )
        return Starlette(routes=routes, middleware=[guard], exception_handlers={HTTPException: self._lost})

    def _visit(self, request: Request, form: Mapping[str, str]) -> Visit:
        session: Session = request.scope["session"]
        caller = Caller(None, session.account.name, "web")
        address = request.url.path + (f"?{request.url.query}" if request.url.query else "")
        return Visit(
            replace(self.app, caller=caller), self.control, self.parts, session, self.sessions.acts(session),
            self.sessions.decides_for(session), self.front, request.path_params, dict(request.query_params), form,
            address, _theme(request),
        )  # fmt: skip

    def _reader(self, page: Read) -> Callable[[Request], Awaitable[Response]]:
        async def answer(request: Request) -> Response:
            visit = self._visit(request, {})
            return await anyio.to_thread.run_sync(self._read, page, visit, abandon_on_cancel=True)

        return answer

    def _read(self, page: Read, visit: Visit) -> Response:
        with visit.database.remembering():
            return self._shown(page, visit)

    def _shown(self, page: Read, visit: Visit) -> Response:
        try:
            shown = page.show(visit)
            return RedirectResponse(shown, 303) if isinstance(shown, str) else self._render(page.template, visit, shown)
        except SpeciateError as error:
            refused = error
        except Exception as error:  # noqa: BLE001 - the log has it whole, the reader its kind
            refused = self._explain(error)
        if page.template.startswith("part_"):  # in its place, while the rest of the page stands
            return self._render("part_error.html", visit, {"error": refused})
        return self._refused(visit, refused)

    def _sender(self, page: Send) -> Callable[[Request], Awaitable[Response]]:
        async def answer(request: Request) -> Response:
            visit, asked_for = self._visit(request, {}), request.headers.get("range")
            return await anyio.to_thread.run_sync(self._sent, page, visit, asked_for, abandon_on_cancel=True)

        return answer

    def _sent(self, page: Send, visit: Visit, asked_for: str | None) -> Response:
        try:
            with visit.database.remembering():
                return page.send(visit, asked_for)
        except SpeciateError as error:
            return PlainTextResponse(error.message, _STATUS.get(error.code, 500))
        except Exception as error:  # noqa: BLE001 - as above
            return PlainTextResponse(self._explain(error).message, 500)

    def _writer(self, page: Write) -> Callable[[Request], Awaitable[Response]]:
        async def answer(request: Request) -> Response:
            form = await _form(request, page.longest)
            visit = self._visit(request, {} if form is None else form)
            if form is None or not visit.session.knows(form.get("csrf")):
                return PlainTextResponse("The form is not of this session. Load the page again.", 403)
            return await anyio.to_thread.run_sync(self._write, page, visit)

        return answer

    def _write(self, page: Write, visit: Visit) -> Response:
        try:
            if not visit.may_on(page.act.name, page.about(visit)):
                raise SpeciateError(Code.REFUSED, _NOT_ALLOWED, visit.how)
            done = page.do(visit)
        except SpeciateError as error:
            if page.answers:
                return _told(visit, error, _STATUS.get(error.code, 500))
            return self._refused(visit, error)
        except Exception as error:  # noqa: BLE001 - as above
            return self._refused(visit, self._explain(error))
        return RedirectResponse(done, 303) if isinstance(done, str) else JSONResponse(dict(done))

    async def _denied(self, scope: Scope, receive: Receive, send: AsgiSend) -> None:
        """For what the guard does not let this session do: an address of no table, or an act of another role. One of
        the table with a slash at its end leads to the one without."""
        request = Request(scope, receive)
        if (bare := request.url.path.rstrip("/")) != request.url.path and act_of(request.method, bare or "/"):
            query = f"?{request.url.query}" if request.url.query else ""
            await RedirectResponse(inside(quote(bare or "/", safe="/@:%") + query), 308)(scope, receive, send)
            return
        visit = self._visit(request, {})
        if act_of(request.method, request.url.path) is None:
            error, status = SpeciateError(Code.NOT_FOUND, "There is no such page.", "The pages are on the left."), 404
        else:
            error, status = SpeciateError(Code.REFUSED, _NOT_ALLOWED, visit.how), 403
        if request.headers.get("accept", "").startswith("application/json"):
            answer = _told(visit, error, status)
        else:
            answer = await anyio.to_thread.run_sync(self._refused, visit, error)
        await answer(scope, receive, send)

    def _explain(self, error: Exception) -> SpeciateError:
        if (refusal := filesystem.explain(error, self.app.workspace.folders.root)) is not None:
            return refusal
        _log.exception("a page failed")
        return SpeciateError(
            Code.INTERNAL,
            f"The page failed inside speciate ({type(error).__name__}); this is a defect.",
            "The traceback is in daemon.log of the workspace.",
        )

    def _refused(self, visit: Visit, error: SpeciateError) -> Response:
        status = _STATUS.get(error.code, 500)
        return self._render("error.html", visit, {"error": error, "status": status}, status)

    async def _lost(self, request: Request, error: Exception) -> Response:
        """No route: the guard has let it through, so there is a session."""
        status = error.status_code if isinstance(error, HTTPException) else 500
        if request.scope.get("session") is None or status != 404:
            return PlainTextResponse("This is not here.", status)
        missing = SpeciateError(Code.NOT_FOUND, "There is no such page.", "The pages are on the left.")
        return await anyio.to_thread.run_sync(self._refused, self._visit(request, {}), missing)

    def _render(self, template: str, visit: Visit, shown: Mapping[str, object], status: int = 200) -> Response:
        waiting = sum(expires > visit.now for (expires,) in visit.database.read(_WAITING))
        frame = {
            "visit": visit, "csrf": visit.session.csrf, "release": __version__, "now": visit.now, "badge": waiting,
            "theme": visit.theme,
        }  # fmt: skip
        return HTMLResponse(environment().get_template(template).render(**frame, **shown), status)

    # What is no page

    async def _login(self, request: Request) -> Response:
        """A new session for whoever brings a token; the one that the browser had ends."""
        if request.method == "GET":
            return self._ask_token(request, inside(request.query_params.get("next", "/")))
        peer: str = request.scope["peer"]
        form = await _form(request) or {}
        after = inside(form.get("next", "/"))
        if seconds := self._throttle.waits(peer):
            refused = self._ask_token(request, after, f"Too many tokens were tried. Try again in {seconds} s.", 429)
            refused.headers["retry-after"] = str(seconds)
            return refused
        token = authorization.authority_of(self.app.workspace).find_token(form.get("token", "").strip())
        if token is None:
            self._throttle.note(peer)
            return self._ask_token(request, after, "This is no token that is in force.", 403)
        self.parts.media.warm()
        request.scope[SIGNED_IN] = token
        self.sessions.end(cookie_of(request.headers, self.front.cookie))
        answer = RedirectResponse(after, 303)
        answer.set_cookie(
            self.front.cookie, self.sessions.begin_with(token), httponly=True, secure=True, samesite="strict", path="/",
            max_age=int(LONGEST_SECONDS),
        )  # fmt: skip
        return answer

    def _ask_token(self, request: Request, after: str, said: str = "", status: int = 200) -> Response:
        shown = {"next": after, "said": said, "theme": _theme(request)}
        return HTMLResponse(environment().get_template("login.html").render(shown), status)

    async def _open(self, request: Request) -> Response:
        """GET shows the script that spends the key, and spends nothing: previews and prefetches ask, too."""
        if request.method == "GET":
            return HTMLResponse(environment().get_template("open.html").render(theme=_theme(request)))
        key = bytearray()
        async for part in request.stream():  # whoever asks has no session yet
            key += part
            if len(key) > _LONGEST_KEY:
                return PlainTextResponse("No key is as long as this.", 413)
        cookie = self.sessions.begin(key.decode(errors="replace"))
        if cookie is None:
            return PlainTextResponse("This link was used, or is older than a minute. Run speciate open again.", 403)
        self.sessions.end(cookie_of(request.headers, self.front.cookie))
        session = self.sessions.find(cookie)
        unsigned = session is not None and session.role == "decide" and not self.sessions.decides_for(session)
        answer = PlainTextResponse("/decide" if unsigned else "/")
        answer.set_cookie(self.front.cookie, cookie, httponly=True, samesite="strict", max_age=int(LONGEST_SECONDS))
        return answer

    async def _leave(self, request: Request) -> Response:
        """End the session. It needs no level: it only takes away."""
        form = await _form(request)
        session: Session = request.scope["session"]
        if form is None or not session.knows(form.get("csrf")):
            return PlainTextResponse("The form is not of this session.", 403)
        self.sessions.end(cookie_of(request.headers, self.front.cookie))
        if form.get("everywhere") == "yes":
            self.sessions.end_all(session)
        if self.front.team:
            return RedirectResponse("/login", 303)
        return PlainTextResponse("You are signed out here.")

    async def _events(self, request: Request) -> Response:
        session: Session = request.scope["session"]
        return self.streams.stream(request, lambda: self.sessions.lasts(session))


def _told(visit: Visit, error: SpeciateError, status: int) -> Response:
    """A refusal to a script."""
    words = formats.page_advice(error, visit.address).words
    return JSONResponse({"error": f"{error.message} {words}".strip()}, status)


def _theme(request: Request) -> str | None:
    chosen = request.cookies.get("theme")
    return chosen if chosen in ("dark", "light") else None


async def _icon(request: Request) -> Response:
    return Response((STATIC / "icon.svg").read_bytes(), media_type="image/svg+xml")


async def _form(request: Request, longest: int = _LONGEST_FORM) -> dict[str, str] | None:
    """Fields of a POST's form; None for one that is too long, or no form."""
    kind = request.headers.get("content-type", "").partition(";")[0]
    length = request.headers.get("content-length", "")
    if kind != "application/x-www-form-urlencoded" or not length.isdigit() or int(length) > longest:
        return None
    async with request.form(max_fields=100) as form:
        return {name: value for name, value in form.items() if isinstance(value, str)}


@functools.cache
def environment() -> Environment:
    made = Environment(
        loader=PackageLoader("speciate.server.web"), autoescape=True, undefined=StrictUndefined,
        finalize=without_controls, trim_blocks=True, lstrip_blocks=True, auto_reload=False,
    )  # fmt: skip
    made.filters |= {**formats.FILTERS, "path": _path, "query": _query}
    made.globals |= {
        **CHARTS,
        "nav": formats.NAV,
        "files": FILES,
        "worth_collecting": is_worth_collecting,
        "learning_split_words": learning_split_words,
    }
    return made


def prepare() -> None:
    """Do what the first visit of a page would wait for: a template takes up to a sixth of a second to compile, and
    what reads logs up to half of one to load."""
    for name in environment().list_templates():
        environment().get_template(name)
    import_module("pyarrow.parquet")


def _path(name: object) -> str:
    """One part of a path."""
    return quote(str(name), safe="@:")


def _query(parameters: Mapping[str, object]) -> str:
    """`?a=1&b=2` of what is not None or empty."""
    given = {name: value for name, value in parameters.items() if value not in (None, "")}
    return f"?{urlencode(given)}" if given else "?"
