"""The sandboxed half of `user_code.py`: loads a function from its file's text, then calls it.

open: {"source", "function", "name"}    ask: [argument, ...]  ->  what the function returned
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypedDict

from speciate.sandbox.serve import serve


class CodeToLoad(TypedDict):
    name: str
    """Name of the file."""
    source: str
    function: str
    """Name of the function, or of a class."""


class LoadedFunction:
    function: Callable[..., Any]

    def open(self, loading: CodeToLoad) -> None:
        self.function = load(loading)

    def answer(self, question: list[Any]) -> Any:
        return to_json(self.function(*question))


def load(loading: CodeToLoad) -> Callable[..., Any]:
    """The function or class that the text defines."""
    space: dict[str, object] = {"__name__": "user_code", "__file__": loading["name"]}
    exec(compile(loading["source"], loading["name"], "exec"), space)
    found = space.get(loading["function"])
    if not callable(found):
        raise TypeError(f"{loading['name']} defines no {loading['function']}")
    return found


def to_json(value: Any) -> Any:
    """NumPy's numbers and arrays as Python's, so that they are JSON; an array of one number as that number."""
    if isinstance(value, dict):
        return {str(name): to_json(each) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return [to_json(each) for each in value]
    if not hasattr(value, "tolist"):
        return value
    return value.item() if getattr(value, "size", 0) == 1 else value.tolist()


if __name__ == "__main__":
    serve(LoadedFunction())
