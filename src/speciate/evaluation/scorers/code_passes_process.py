"""The sandboxed half of the scorer `code_passes` (sandboxed_scorers.py): runs one program, then its tests.

    ask: {"program", "tests", "word"}  ->  the word, if the end of the tests was reached; null otherwise

The mark of an answer proves that `serve` wrote it; the word proves that the tests passed.
"""

from __future__ import annotations

from speciate.sandbox.serve import serve


class Program:
    def open(self, loading: None) -> None:
        """Nothing to load: the process has started."""

    def answer(self, question: dict[str, str]) -> str | None:
        word = question.pop("word")
        return word if passes(question["program"], question["tests"]) else None


def passes(program: str, tests: str) -> bool:
    """The tests are run by what this process began with: a program may put another `exec` or `compile` in its place."""
    space: dict[str, object] = {"__name__": "program"}
    run = exec
    try:
        asserts = compile(tests, "tests", "exec", optimize=0)
        run(compile(program, "program", "exec"), space)
        run(asserts, space)
    except BaseException:  # noqa: BLE001 - a program may fail in any way, SystemExit among them
        return False
    return True


if __name__ == "__main__":
    serve(Program(), quiet=True)  # what programs print is nobody's business
