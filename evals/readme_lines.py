"""The README's first lines, copied from it and run in an empty home: do they lead to a promoted model that answers?

python -m evals.readme_lines             # with the `speciate` of this environment
python -m evals.readme_lines --install   # with that of a new one, by `pip install ".[classical]"`, timed apart
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from PIL import Image
from sklearn.datasets import load_digits

ROOT = Path(__file__).parents[1]
_MOST_SECONDS = 300.0
_LINES = re.compile(r"^```sh\n(speciate init .*?)^```$", re.MULTILINE | re.DOTALL)


def first_lines(text: str) -> list[str]:
    """The commands of the first block that begins with `speciate init`."""
    found = _LINES.search(text)
    if found is None:
        raise ValueError("no block of the README begins with 'speciate init'")
    return found[1].splitlines()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--install", action="store_true")
    wanted = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="speciate-readme-") as place:
        home, project = Path(place), Path(place) / "project"  # no tool reads in a home folder itself
        project.mkdir()
        programs = _installed(home / "environment") if wanted.install else Path(sys.executable).parent
        kept = {name: value for name, value in os.environ.items() if not name.startswith("SPECIATE")}
        variables = kept | {"HOME": place, "PATH": f"{programs}{os.pathsep}{kept['PATH']}"}
        image = Image.fromarray((load_digits().images[4] * 15).astype(np.uint8))
        image.save(project / "scan.png")  # which the last line asks about
        try:
            return _follow(first_lines((ROOT / "README.md").read_text()), project, variables)
        finally:
            subprocess.run(
                ["bash", "-c", "speciate stop"], cwd=project, env=variables, capture_output=True, check=False
            )


def _installed(environment: Path) -> Path:
    began = time.monotonic()
    subprocess.run([sys.executable, "-m", "venv", environment], check=True)
    subprocess.run([environment / "bin" / "pip", "install", "--quiet", f"{ROOT}[classical]"], check=True)
    print(f'{time.monotonic() - began:6.1f} s  pip install ".[classical]"', flush=True)
    return environment / "bin"


def _follow(lines: list[str], folder: Path, variables: Mapping[str, str]) -> int:
    """0: each line ended well, the last one with an answer, a model is in production, all within five minutes."""
    began, said = time.monotonic(), ""
    for line in lines:
        here = time.monotonic()
        done = subprocess.run(
            ["bash", "-c", line], cwd=folder, env=variables, capture_output=True, text=True, check=False
        )
        print(f"{time.monotonic() - here:6.1f} s  {line}", flush=True)
        if done.returncode:
            print(done.stdout, done.stderr, sep="\n")
            return 1
        said = done.stdout
    seconds = time.monotonic() - began
    asked = subprocess.run(
        ["bash", "-c", "speciate call get_status"],
        cwd=folder,
        env=variables,
        capture_output=True,
        text=True,
        check=True,
    )
    [use_case] = json.loads(asked.stdout)["use_cases"]
    [answer] = json.loads(said)["predictions"]
    print(f"{seconds:6.1f} s  in all: {use_case.get('production')} serves and says {answer}")
    answered = "output" in answer.get("untrusted", {})
    return 0 if use_case.get("production") and answered and seconds < _MOST_SECONDS else 1


if __name__ == "__main__":
    sys.exit(main())
