"""Screenshots of the pages in the demo's workspace, light, dark and narrow: `make screenshots`, after `make demo`.

Needs Chromium and the extra `browser`. Each file is at most 150 kB. A page with an error in its console, with a
violation of its policy, or one that scrolls sideways ends the script.
"""

from __future__ import annotations

import io
import shutil
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from PIL import Image
from playwright.sync_api import sync_playwright

import speciate
from speciate.server.dial import dial
from speciate.server.protocol import CONTROL

_HERE = Path(__file__).parent
_WORKSPACE, _TARGET = _HERE.parent / "build" / "demo" / "workspace", _HERE / "pages"
_MOST_BYTES = 150_000
_TALLEST = 1500
"""Pixels: what is below shows more of the same."""
_WATCH = "document.addEventListener('securitypolicyviolation', (e) => console.error('policy: ' + e.violatedDirective))"
_WAITS = (
    "[...document.querySelectorAll('.waits')].some((e) => /Reading the answers|Counting|Looking/.test(e.textContent))"
)


class Look(NamedTuple):
    """How a page is seen."""

    name: str
    width: int
    height: int
    scheme: str


LOOKS = (Look("light", 1280, 860, "light"), Look("dark", 1280, 860, "dark"), Look("narrow", 390, 844, "light"))


def main() -> None:
    if not _WORKSPACE.exists():
        sys.exit("There is no build/demo/workspace: run `make demo` first.")
    program = next((found for name in ("chromium", "google-chrome") if (found := shutil.which(name))), None)
    if program is None:
        sys.exit("No Chromium is installed here (on Debian: apt install chromium fonts-inter).")
    _TARGET.mkdir(exist_ok=True)
    chosen = set(sys.argv[1:])
    pages = {name: path for name, path in _pages().items() if not chosen or name in chosen}
    flags = ["--no-sandbox", "--use-angle=swiftshader", "--enable-unsafe-swiftshader"]
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=program, args=flags)
        for look in LOOKS:
            with _signed_in(browser, look) as (page, base, problems):
                for name, path in pages.items():
                    _shoot(page, base + path, _TARGET / f"{name}-{look.name}.png")
                    if problems:
                        sys.exit(f"{path}, {look.name}: {problems}")
        browser.close()


def _pages() -> dict[str, str]:
    """Name -> address, with what the demo made."""
    client = speciate.connect(_WORKSPACE)
    model = client.call("describe_model", model="digits-model@v2")
    evaluation = model["evaluations"][0]["evaluation"]
    pending = client.call("list_approvals")["approvals"]
    run = client.call("list_jobs", kind="specialize")["jobs"][0]["job"]
    differ = client.call("query_dataset", dataset="digits@v2:test", sql="SELECT id FROM examples ORDER BY id LIMIT 1")
    example = differ["untrusted"]["rows"][0][0]
    sound = client.call("query_dataset", dataset="recordings@v1", sql="SELECT id FROM examples ORDER BY id LIMIT 1")
    found = {
        "home": "/",
        "use-case": "/use-cases/digits",
        "production": "/use-cases/digits/production",
        "queue": "/use-cases/movies/queue",
        "runs": "/runs",
        "run": f"/runs/{run}",
        "data": "/data",
        "dataset": "/data/digits/v2",
        "grid": f"/evaluations/{evaluation}/examples?show=differ",
        "example": f"/examples/{example}?in=digits%40v2&evaluation={evaluation}",
        "sound": f"/examples/{sound['untrusted']['rows'][0][0]}?in=recordings%40v1",
        "evaluation": f"/evaluations/{evaluation}",
        "models": "/models",
        "model": "/models/digits-model/v2",
        "approvals": "/approvals",
        "audit": "/audit",
        "keys": "/keys",
        "settings": "/settings",
    }
    return found | ({"approval": f"/approvals/{pending[0]['id']}"} if pending else {})


@contextmanager
def _signed_in(browser: Any, look: Look) -> Iterator[tuple[Any, str, list[str]]]:
    answer = dial(_WORKSPACE, CONTROL, action="open decide", keys=[])
    answer.line.close()
    context = browser.new_context(
        viewport={"width": look.width, "height": look.height}, color_scheme=look.scheme, device_scale_factor=1
    )
    context.add_init_script(_WATCH)
    page, problems = context.new_page(), list[str]()
    page.on("console", lambda said: problems.append(said.text) if said.type in ("error", "warning") else None)
    page.goto(answer.answer["result"]["url"])
    page.wait_for_url("**/", timeout=60_000)
    yield page, page.url.rstrip("/"), problems
    context.close()


def _shoot(page: Any, address: str, target: Path) -> None:
    page.goto(address)
    latest = time.monotonic() + 90
    while page.evaluate(_WAITS):
        if time.monotonic() > latest:
            sys.exit(f"{address} waits for its parts.")
        page.wait_for_timeout(200)
    page.wait_for_timeout(600)
    if page.evaluate("document.documentElement.scrollWidth > document.documentElement.clientWidth"):
        sys.exit(f"{address} scrolls sideways.")
    with Image.open(io.BytesIO(page.screenshot(full_page=True))) as shot:
        image = shot.convert("RGB").crop((0, 0, shot.width, min(shot.height, _TALLEST)))
    octree = Image.Quantize.FASTOCTREE  # keeps the few pixels of a colour that means something
    for drawn in (image, *(image.quantize(count, octree, dither=Image.Dither.NONE) for count in (256, 128, 64))):
        buffer = io.BytesIO()
        drawn.save(buffer, "PNG", optimize=True)
        if buffer.tell() <= _MOST_BYTES:
            break
    else:
        sys.exit(f"{target.name} has {buffer.tell():,} bytes, more than {_MOST_BYTES:,}.")
    target.write_bytes(buffer.getvalue())


if __name__ == "__main__":
    main()
