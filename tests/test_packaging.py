"""What an installation holds: every package below src/, and the three folders at the top through their links."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest
from setuptools import find_packages

import speciate

ROOT = Path(__file__).resolve().parent.parent
SOURCE = ROOT / "src"


def test_every_folder_with_code_is_a_package() -> None:
    """One without `__init__.py` would be missing from a wheel, and nobody would see it in a checkout."""
    folders = {".".join(path.parent.relative_to(SOURCE).parts) for path in SOURCE.rglob("*.py")}
    linked = {"speciate.tools", "speciate.resources", "speciate.prompts"}
    assert set(find_packages(str(SOURCE))) == folders | linked


@pytest.mark.parametrize("name", ["tools", "resources", "prompts"])
def test_the_folders_at_the_top_are_linked_into_the_package(name: str) -> None:
    link = SOURCE / "speciate" / name
    assert link.readlink() == Path("..", "..", name)
    assert (link / "__init__.py").samefile(ROOT / name / "__init__.py")


def test_agents_read_the_whole_of_their_page() -> None:
    """Some clients read the first 32 KB of AGENTS.md without a word."""
    assert len((ROOT / "AGENTS.md").read_bytes()) <= 8192


def test_types_are_told() -> None:
    assert (ROOT / "src/speciate/py.typed").is_file()
    assert {"connect", "load"} <= set(dir(speciate))


def test_the_small_demo_needs_no_torch() -> None:
    """`make demo SMALL=1`: an environment below 1 GB."""
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    (installed,) = re.findall(r'SMALL_VENV\)/bin/python .*"\.\[([a-z,]+)\]"', (ROOT / "Makefile").read_text())
    left, needed = installed.split(","), set[str]()
    while left:
        for each in extras[left.pop()]:
            if own := re.match(r"speciate\[([a-z,]+)\]", each):
                left += own[1].split(",")
            needed.add(re.split(r"[\[<>=; ]", each)[0])
    assert "scikit-learn" in needed
    assert not needed & {"torch", "transformers", "openvino", "onnxruntime", "datasets"}
