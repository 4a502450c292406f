"""`make mutants`: do the tests of the modules that decide notice when a decision changes?

Each module of modules.toml is changed in one place at a time (mutations.py) and its own tests are run (session.py). A
mutant that no test notices is in survivors/MODULE.toml, with the reason why it is equivalent or harmless, or this
fails; so does a module of whose mutants less than 95 % are noticed. What is listed and dies by now, or is no mutant
any more, is told. Results are kept in build/mutants, by hashes of the module, its tests and this tool. What has not
changed is not run again: a module, or a mutant that a test killed whose file is what it was. `--fresh` runs all.
"""

from __future__ import annotations

import argparse
import ast
import hashlib
import json
import os
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
KEPT = ROOT / "build" / "mutants"
LEAST = 95.0
"""Per cent."""
_COLUMNS = ("module", "mutants", "killed", "timeouts", "listed", "unlisted", "killed %", "left out: texts", "others")


class _Key(NamedTuple):
    function: str
    was: str
    now: str


class Report(NamedTuple):
    row: tuple[str, ...]
    said: list[str]
    good: bool


def main() -> None:
    parser = argparse.ArgumentParser(prog="make mutants")
    parser.add_argument("modules", nargs="*", help="as in modules.toml, datasets/splits, say; none: all")
    parser.add_argument("--jobs", type=int, default=1, help="modules at the same time")
    parser.add_argument("--fresh", action="store_true", help="run also what has not changed")
    asked = parser.parse_args()
    table = tomllib.loads((HERE / "modules.toml").read_text())
    names = [name.removesuffix(".py") for name in asked.modules] or list(table)
    if unknown := [name for name in names if name not in table]:
        sys.exit(f"modules.toml has no {', '.join(unknown)}; it has {', '.join(table)}")
    with ThreadPoolExecutor(asked.jobs) as pool:
        results = list(pool.map(lambda name: judged(name, table[name], fresh=asked.fresh), names))
    reports = [report(name, result) for name, result in zip(names, results, strict=True)]
    for each in reports:
        print("\n".join(each.said), end="\n" if each.said else "")
    print(as_table([_COLUMNS, *(each.row for each in reports)]))
    sys.exit(0 if all(each.good for each in reports) else 1)


def judged(name: str, entry: dict[str, Any], *, fresh: bool) -> dict[str, Any]:
    """The result of one module, from before where nothing has changed."""
    path, kept = ROOT / "src" / "speciate" / f"{name}.py", KEPT / f"{name.replace('/', '.')}.json"
    before = json.loads(kept.read_text()) if kept.exists() else {"key": {}, "mutants": []}
    key = _key(path, entry)
    same = before["key"] == key and not fresh
    if same and before["complete"]:
        return dict(before)
    spec = {
        "key": key, "path": str(path), "tests": entry["tests"], "words": entry.get("words", []),
        "texts": entry.get("texts", []), "done": before["mutants"] if same else _stands(before, key, fresh=fresh),
        "earlier": [one for one in before["mutants"] if one["by"]],
    }  # fmt: skip
    KEPT.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="mutants-", dir=_fast_folder()) as folder:
        asked = Path(folder, "spec.json")
        asked.write_text(json.dumps(spec))
        print(f"{name}: {' '.join(entry['tests'])}", file=sys.stderr, flush=True)
        environment = os.environ | {"TMPDIR": folder, "PYTHONHASHSEED": "0"}
        command = [sys.executable, "-m", "evals.mutants.session", str(asked), str(kept)]
        ended = subprocess.run(command, cwd=ROOT, env=environment, check=False, stdout=subprocess.PIPE, text=True)
    result = json.loads(kept.read_text()) if kept.exists() else before
    if result["key"] != key or not result.get("complete"):
        sys.exit(f"{name}: the tests could not be run to their end\n{ended.stdout}")
    return dict(result)


def _stands(before: dict[str, Any], key: dict[str, str], *, fresh: bool) -> list[dict[str, Any]]:
    """Mutants that stay dead: they and the file of the test that killed them are what they were."""
    if fresh or before["key"].get("") != key[""]:
        return []
    old = before["key"]
    files = {each["by"]: each["by"].partition("::")[0] for each in before["mutants"] if each["by"]}
    return [each for each in before["mutants"] if each["by"] and old[files[each["by"]]] == key.get(files[each["by"]])]


def _key(path: Path, entry: dict[str, Any]) -> dict[str, str]:
    """By test file, what it says; by the empty name, the module and this tool."""
    files = {each for name in entry["tests"] for each in _files(ROOT / name.partition("::")[0])}
    own = [_meaning(each) for each in (path, HERE / "mutations.py", HERE / "session.py")]
    texts = json.dumps([own, entry.get("words"), entry.get("texts")])
    found = {str(each.relative_to(ROOT)): _meaning(each) for each in sorted(files)}
    return {"": _digest(texts), "tests": json.dumps(entry["tests"]), **found}


def _meaning(path: Path) -> str:
    """A hash of the code, without comments and docstrings."""
    tree = ast.parse(path.read_text())
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef):
            node.body = [
                each for each in node.body if not (isinstance(each, ast.Expr) and isinstance(each.value, ast.Constant))
            ]
    return _digest(ast.dump(tree))


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _files(path: Path) -> list[Path]:
    return sorted(path.rglob("*.py")) if path.is_dir() else [path]


def _fast_folder() -> str | None:
    return "/dev/shm" if os.access("/dev/shm", os.W_OK) else None


def report(name: str, result: dict[str, Any]) -> Report:
    """What is to be said of a module, and its row of the table."""
    rows = [each for each in result["mutants"] if each["result"] != "invalid"]
    mutants = [(_Key(each["function"], each["was"], each["now"]), each) for each in rows]
    listed = _listed(name)
    alive = {key: each for key, each in mutants if each["result"] == "survived"}
    unlisted = [each for key, each in alive.items() if not listed.get(key)]
    said = [f"{name}: survivors that survivors/{_file(name)} does not explain"] if unlisted else []
    said += [_as_entry(each) for each in unlisted]
    there = {key for key, _ in mutants}
    for key in listed:
        if key not in alive:
            now = "dies now" if key in there else "is no mutant any more"
            said.append(f"{name}: listed as a survivor, {now}: {key.function}: {key.was} -> {key.now}")
    total, dead = len(mutants), sum(each["result"] != "survived" for _, each in mutants)
    share = 100 * dead / max(total, 1)
    if share < LEAST:
        said.append(f"{name}: {share:.1f} % are killed, fewer than {LEAST:g} %")
    if without := result["without"]:
        said.append(
            f"{name}: {len(without)} of its tests start programs or are too slow, and take no part: {without[0]} ..."
        )
    late = sum(each["result"] == "timeout" for _, each in mutants)
    others = sum(count for kind, count in result["left_out"].items() if kind != "texts")
    survived = total - dead
    missing = sum(1 for key, each in mutants if each["result"] == "survived" and not listed.get(key))
    counts = (
        total,
        dead - late,
        late,
        survived - missing,
        missing,
        f"{share:.1f}",
        result["left_out"].get("texts", 0),
        others,
    )
    return Report((name, *map(str, counts)), said, not unlisted and share >= LEAST)


def _listed(name: str) -> dict[_Key, str]:
    """Listed survivors with their reasons; `now` may be several that one reason explains."""
    path = HERE / "survivors" / _file(name)
    if not path.exists():
        return {}
    found = {}
    for each in tomllib.loads(path.read_text())["survivor"]:
        for now in [each["now"]] if isinstance(each["now"], str) else each["now"]:
            found[_Key(each["function"], each["was"], now)] = each["why"]
    return found


def _file(name: str) -> str:
    return f"{name.replace('/', '.')}.toml"


def _as_entry(mutant: dict[str, Any]) -> str:
    """As it is listed, with a reason to be written."""
    lines = [f"# line {mutant['at']}", "[[survivor]]"]
    lines += [f"{name} = {json.dumps(mutant[name], ensure_ascii=False)}" for name in ("function", "was", "now")]
    return "\n".join([*lines, 'why = ""', ""])


def as_table(rows: Sequence[Sequence[str]]) -> str:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    cell = partial(zip, widths, strict=True)
    lines = ["| " + " | ".join(text.ljust(width) for width, text in cell(row)) + " |" for row in rows]
    return "\n".join([lines[0], "|" + "|".join("-" * (width + 2) for width in widths) + "|", *lines[1:]])


if __name__ == "__main__":
    main()
