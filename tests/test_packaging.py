"""What a wheel holds is written down by hand, since tools/, resources/ and prompts/ lie outside src/."""

from __future__ import annotations

import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def test_every_package_is_in_the_wheel() -> None:
    told = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
    source = ROOT / "src"
    found = {".".join(init.parent.relative_to(source).parts) for init in source.rglob("__init__.py")}
    outside = {name for name, place in told["package-dir"].items() if not place.startswith("src")}
    assert set(told["packages"]) == found | outside
