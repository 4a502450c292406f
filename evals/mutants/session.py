"""One module's mutants against its tests: `python -m evals.mutants.session SPEC RESULT`, both JSON; the
result is written as it grows.

The tests are collected once, with all that they import. Each mutant is a fork of that process, in which the code of the
mutated function is exchanged (so whoever imported it has the mutant), and in which the tests run that reach its line,
those first that killed it before, then the quickest. The first failure ends it. Hypothesis draws the same examples each
time and shrinks nothing. A test that starts a program takes no part, for that is not mutated, and takes seconds.
"""

from __future__ import annotations

import ast
import contextlib
import gc
import importlib
import json
import os
import resource
import select
import shutil
import signal
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Callable, Generator, Iterator, Sequence
from pathlib import Path
from types import CodeType, FrameType, FunctionType
from typing import Any, NoReturn

import pytest

from evals.mutants.mutations import Mutant, mutants_of

_SLOWEST = 4.0
"""Seconds of a test, traced, above which it takes no part."""
_STARTS = ("subprocess.Popen", "os.posix_spawn", "os.exec")
"""What Python tells of where a program is started."""
_TIMES, _MORE = 4.0, 4.0
"""A mutant is given so many times what its tests take, traced, and so many seconds more of processor time ..."""
_WALL = 8.0
"""... and so many times that by the clock, for other work may have the processor."""
_MEMORY = 6 << 30
"""Bytes more than this process has, above which a mutant has no memory."""


class Campaign:
    """A plugin of pytest that runs mutants in the place of tests."""

    def __init__(self, spec: dict[str, Any], result: Path) -> None:
        self._spec, self._result = spec, result
        self._path = Path(spec["path"])
        self._fails: Callable[[str], object] = lambda name: None
        """What is called at the first failure of a test."""
        self._items: list[pytest.Item] = []

    @pytest.hookimpl(tryfirst=True)
    def pytest_collection(self) -> None:
        from hypothesis import HealthCheck, Phase, settings  # pytest rewrites it as it comes in

        settings.register_profile(
            "mutants", max_examples=25, deadline=None, derandomize=True, database=None, print_blob=False,
            phases=(Phase.explicit, Phase.generate), suppress_health_check=list(HealthCheck),
        )  # fmt: skip
        settings.load_profile("mutants")

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_setup(self, item: pytest.Item) -> Generator[None]:
        with self._watched(item):
            yield

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_call(self, item: pytest.Item) -> Generator[None]:
        with self._watched(item):
            yield

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_teardown(self, item: pytest.Item) -> Generator[None]:
        with self._watched(item):
            yield

    @contextlib.contextmanager
    def _watched(self, item: pytest.Item) -> Iterator[None]:
        try:
            yield
        except pytest.skip.Exception:
            raise
        except BaseException:
            if not item.get_closest_marker("xfail"):
                self._fails(item.nodeid)
            raise

    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        if session.testsfailed:
            raise session.Interrupted(f"{session.testsfailed} error(s) of collection")
        global _folders  # noqa: PLW0603 - one for the whole process
        _folders = session.config._tmp_path_factory  # type: ignore[attr-defined]
        self._items = session.items
        lines, seconds = self._measure()
        mutants = mutants_of(self._path.read_text(), self._spec["words"], self._spec["texts"])
        gc.unfreeze()  # what the collection of tests froze is else not among the objects
        functions = _functions_of(self._path)
        earlier = {(one["function"], one["was"], one["now"]): one["by"] for one in self._spec["earlier"]}
        gc.collect()
        gc.freeze()
        left = [item.nodeid for item in self._items if item.nodeid not in seconds]
        alive = self._judge(None, functions, [item.nodeid for item in self._items if item.nodeid in seconds], seconds)
        if alive["result"] != "survived":
            raise pytest.UsageError(f"without a mutant, too, it is {alive['result']} {alive['by'] or ''}")
        told = {
            "key": self._spec["key"], "complete": False, "left_out": dict(mutants.left_out), "tests": len(seconds),
            "without": left, "seconds": 0, "mutants": [*self._spec["done"]],
        }  # fmt: skip
        done = {(one["function"], one["was"], one["now"]) for one in told["mutants"]}
        began = time.monotonic()
        for number, mutant in enumerate(mutants.found):
            if mutant[:3] not in done:
                names = self._reaching(mutant, lines, seconds, earlier.get(mutant[:3]))
                found = self._judge(mutant, functions, names, seconds) if names else {"result": "survived", "by": None}
                if found["result"] == "error":
                    raise pytest.UsageError(f"{mutant.was} -> {mutant.now}: {found['by']}")
                row = {"function": mutant.function, "was": mutant.was, "now": mutant.now, "at": mutant.lines[0]}
                told["mutants"].append({**row, **found})
            if number % 50 == 49 or number + 1 == len(mutants.found):
                alive = sum(row["result"] == "survived" for row in told["mutants"])
                told |= {"complete": number + 1 == len(mutants.found), "seconds": round(time.monotonic() - began)}
                self._result.write_text(json.dumps(told, indent=1))
                print(
                    f"  {number + 1}/{len(mutants.found)}, {told['seconds']} s, {alive} survived",
                    file=sys.stderr,
                    flush=True,
                )
        return True

    # What the tests do without a mutant

    def _measure(self) -> tuple[dict[str, set[int]], dict[str, float]]:
        """By test: the lines of the module that it runs, and its seconds of processor time. Modules that it imports are
        imported here, so that no mutant pays for them."""
        for turn in range(2):  # first for the imports alone
            told = _in_fork(self._measure_here, limit=1800.0)
            if not told:
                raise pytest.UsageError("the tests end this process")
            measured = json.loads(told)
            if measured["failed"]:
                raise pytest.UsageError(f"without a mutant fails {measured['failed']} {measured.get('by', '')}")
            if turn == 0:
                for name in measured["modules"]:
                    with contextlib.suppress(Exception):
                        importlib.import_module(name)
        lines = {name: set(numbers) for name, numbers in measured["lines"].items()}
        usable = {name: spent for name, spent in measured["seconds"].items() if spent <= _SLOWEST}
        return lines, {name: spent for name, spent in usable.items() if name not in measured["starts"]}

    def _measure_here(self) -> str:
        known, path, now = set(sys.modules), str(self._path), set[int]()
        failed, lines, seconds = list[str](), dict[str, list[int]](), dict[str, float]()

        def line(frame: FrameType, event: str, given: object) -> Any:
            now.add(frame.f_lineno)
            return line

        def call(frame: FrameType, event: str, given: object) -> Any:
            return line(frame, event, given) if frame.f_code.co_filename == path else None

        from tests import forks  # not before pytest has begun: it rewrites what comes along

        starts, running, connected = set[str](), [""], forks._connected

        def noted(event: str, given: object = None) -> None:
            if event in _STARTS:
                starts.add(running[0])

        def connect(family: str) -> Any:
            noted(_STARTS[0])
            return connected(family)

        sys.addaudithook(noted)
        forks._connected = connect
        self._fails = failed.append
        for item, after in zip(self._items, [*self._items[1:], None], strict=True):
            began, running[0] = time.process_time(), item.nodeid
            threading.settrace(call)
            sys.settrace(call)
            item.config.hook.pytest_runtest_protocol(item=item, nextitem=after)
            sys.settrace(None)
            seconds[item.nodeid] = time.process_time() - began
            lines[item.nodeid] = sorted(now)
            now.clear()
        new = [name for name in sys.modules if name not in known and not name.startswith(("tests.", "evals."))]
        return json.dumps({"failed": failed, "lines": lines, "seconds": seconds, "modules": new, "starts": [*starts]})

    def _reaching(
        self, mutant: Mutant, lines: dict[str, set[int]], seconds: dict[str, float], killer: str | None
    ) -> list[str]:
        """Names of tests, in the order in which they run."""
        for first, last in (mutant.lines, mutant.of_function):
            span = set(range(first, last + 1))
            names = [name for name in seconds if not mutant.function or not span.isdisjoint(lines[name])]
            if names and not mutant.in_default:
                break
        by_file: dict[str, float] = {}
        for name in names:
            file = name.partition("::")[0]
            by_file[file] = min(by_file.get(file, 1e9), seconds[name])
        return sorted(names, key=lambda name: (name != killer, by_file[name.partition("::")[0]], seconds[name]))

    # One mutant

    def _judge(
        self,
        mutant: Mutant | None,
        functions: dict[str, list[FunctionType]],
        names: Sequence[str],
        seconds: dict[str, float],
    ) -> dict[str, Any]:
        usual = sum(seconds[name] for name in names)
        limit = _TIMES * usual + _MORE
        by_name = {item.nodeid: item for item in self._items}
        chosen = [by_name[name] for name in names]

        def work() -> str:
            resource.setrlimit(resource.RLIMIT_CPU, (int(limit) + 1, int(limit) + 2))
            used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
            resource.setrlimit(resource.RLIMIT_AS, (used + _MEMORY,) * 2)
            if mutant is not None and (wrong := _apply_or_say(mutant, self._path, functions)):
                return json.dumps(wrong)
            self._fails = lambda name: _answer(json.dumps({"result": "killed", "by": name}))
            for item, after in zip(chosen, [*chosen[1:], None], strict=True):
                item.config.hook.pytest_runtest_protocol(item=item, nextitem=after)
            return json.dumps({"result": "survived", "by": None})

        told = _in_fork(work, limit * _WALL)
        return json.loads(told) if told else {"result": "timeout", "by": None}


_pipe = -1
"""Of a fork, to tell its parent by."""
_folders: pytest.TempPathFactory | None = None
"""Of the tests."""


def _answer(text: str) -> NoReturn:
    with contextlib.suppress(BrokenPipeError):
        os.write(_pipe, text.encode()[:60_000]) if len(text) < 60_000 else _write_all(text)
    os.kill(os.getpid(), signal.SIGKILL)  # no handler, no thread and nothing that is flushed holds it up
    raise AssertionError


def _write_all(text: str) -> None:
    with os.fdopen(os.dup(_pipe), "w") as stream:
        stream.write(text)


def _in_fork(work: Callable[[], str], limit: float) -> str:
    """What it says; empty where it ends before or after `limit` seconds. Its folders and processes go with it."""
    global _pipe  # noqa: PLW0603 - of this fork
    folder = Path(tempfile.mkdtemp(prefix="mutant-"))
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.setsid()
        os.close(reader)
        _pipe = writer
        nothing = os.open(os.devnull, os.O_RDWR)
        for number in (0, 1, 2):
            os.dup2(nothing, number)
        tempfile.tempdir = os.environ["TMPDIR"] = str(folder)
        if _folders is not None:
            _folders._basetemp = folder
        try:
            _answer(work())
        except BaseException:  # noqa: BLE001 - the parent says it
            _answer(json.dumps({"result": "error", "by": traceback.format_exc(), "failed": ["nothing"]}))
    os.close(writer)
    told, end = b"", time.monotonic() + limit
    while select.select([reader], [], [], max(0.0, end - time.monotonic()))[0]:
        if not (more := os.read(reader, 1 << 16)):
            break
        told += more
    os.close(reader)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(child, signal.SIGKILL)
    os.waitpid(child, 0)
    shutil.rmtree(folder, ignore_errors=True)
    return told.decode()


# How a mutant comes into a process that has imported everything


def _functions_of(path: Path) -> dict[str, list[FunctionType]]:
    """Qualified name -> every function of that file that there is."""
    found: dict[str, list[FunctionType]] = {}
    for each in gc.get_objects():
        if isinstance(each, FunctionType) and each.__code__.co_filename == str(path):
            found.setdefault(each.__code__.co_qualname, []).append(each)
    return found


def _apply_or_say(mutant: Mutant, path: Path, functions: dict[str, list[FunctionType]]) -> dict[str, str | None] | None:
    """What comes of it where it cannot even begin."""
    try:
        _apply(mutant, path, functions)
    except SyntaxError:
        return {"result": "invalid", "by": None}
    except Exception:
        if mutant.function and not mutant.in_default:
            raise
        return {"result": "killed", "by": None}  # a constant or a default that cannot be
    return None


def _apply(mutant: Mutant, path: Path, functions: dict[str, list[FunctionType]]) -> None:
    module = next(each for each in list(sys.modules.values()) if getattr(each, "__file__", None) == str(path))
    if not mutant.function:
        _change_constants(mutant, module, functions)
        return
    code = compile(mutant.source, str(path), "exec", dont_inherit=True)
    codes = [each for each in _codes_in(code) if each.co_qualname == mutant.function]
    for function in functions[mutant.function]:
        same = [each for each in codes if each.co_firstlineno == function.__code__.co_firstlineno]
        function.__code__ = (same or codes)[0]
        if mutant.in_default:
            _change_defaults(function, mutant, vars(module))


def _codes_in(code: CodeType) -> Iterator[CodeType]:
    for each in code.co_consts:
        if isinstance(each, CodeType):
            yield each
            yield from _codes_in(each)


def _change_defaults(function: FunctionType, mutant: Mutant, names: dict[str, Any]) -> None:
    *classes, name = mutant.function.split(".")
    body: Any = ast.parse(mutant.source).body
    for each in classes:
        body = next(node for node in body if isinstance(node, ast.ClassDef) and node.name == each).body
    node = next(node for node in body if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name == name)

    def value(default: ast.expr) -> Any:
        return eval(compile(ast.Expression(default), "", "eval"), dict(names))

    function.__defaults__ = tuple(map(value, node.args.defaults)) or None
    given = {
        each.arg: default for each, default in zip(node.args.kwonlyargs, node.args.kw_defaults, strict=True) if default
    }
    function.__kwdefaults__ = {name: value(default) for name, default in given.items()}


def _change_constants(mutant: Mutant, module: Any, functions: dict[str, list[FunctionType]]) -> None:
    """Also where others imported them, and where they are the default of a parameter."""
    statements = [
        each for each in ast.parse(mutant.source).body if each.lineno <= mutant.lines[0] <= (each.end_lineno or 0)
    ]
    own = dict(vars(module))
    exec(compile(ast.Module(statements, []), "", "exec"), own)
    changed = {name: own[name] for name in vars(module) if own[name] is not vars(module)[name]}
    old = {name: vars(module)[name] for name in changed}
    for each in list(sys.modules.values()):
        if getattr(each, "__name__", "").startswith(("speciate", "tests")):
            for name, value in changed.items():
                if vars(each).get(name, changed) is old[name]:
                    setattr(each, name, value)
    singles = (bool, int, str, float, type(None))
    by_place = {id(old[name]): value for name, value in changed.items() if not isinstance(old[name], singles)}
    for function in [each for many in functions.values() for each in many]:
        if function.__defaults__:
            function.__defaults__ = tuple(by_place.get(id(each), each) for each in function.__defaults__)
        if function.__kwdefaults__:
            function.__kwdefaults__ = {
                name: by_place.get(id(each), each) for name, each in function.__kwdefaults__.items()
            }


def main() -> None:
    spec, result = json.loads(Path(sys.argv[1]).read_text()), Path(sys.argv[2])
    arguments = ["-q", "-s", "-p", "no:cacheprovider", "-p", "no:xdist", "--tb=short", "-m", "not slow", *spec["tests"]]
    sys.exit(pytest.main(arguments, plugins=[Campaign(spec, result)]))


if __name__ == "__main__":
    main()
