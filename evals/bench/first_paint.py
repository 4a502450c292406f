"""How soon something is read on each page, in a real browser; how many requests that takes; and a grid of 48 images.

    .venv/bin/python evals/bench/first_paint.py WORKSPACE [--count 8] [--grid digits]

`WORKSPACE` is one with something in it, such as `build/demo/workspace`. Needs Chromium and the extra `browser`. The
first visit of a page loads every file; the later ones have them. A grid is complete when its last image is. The targets
are 300 ms to the first paint, and for a grid 1.5 s where nobody has drawn its images yet and 0.2 s after that, on two
idle cores; the load is printed beside the figures.
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
from pathlib import Path
from typing import Any

from pages import pages
from playwright.sync_api import sync_playwright

from speciate.server.dial import dial
from speciate.server.protocol import CONTROL

_PAINTED = "performance.getEntriesByName('first-contentful-paint')[0]?.startTime"
_COMPLETE = "performance.getEntriesByType('navigation')[0].loadEventEnd && document.querySelectorAll('.thumb').length"
"""How many thumbnails there are, once all files of the page have come."""
_CALL, _LONGEST = 20, 30.0
"""Milliseconds between two looks, seconds of patience."""


def signed_in(browser: Any, workspace: Path) -> Any:
    """A page of a browser that has cached nothing."""
    answer = dial(workspace, CONTROL, action="open", level="look", keys=[])
    answer.line.close()
    page = browser.new_context(viewport={"width": 1280, "height": 860}).new_page()
    page.goto(answer.answer["result"]["url"])
    page.wait_for_url("**/")
    return page


def painted(page: Any, address: str) -> float:
    page.goto(address)
    return float(_until(page, _PAINTED, lambda found: found is not None))


def grid_seconds(page: Any, address: str) -> float:
    """Until each thumbnail of the grid is there."""
    began = time.perf_counter()
    page.goto(address, wait_until="commit")
    _until(page, _COMPLETE, lambda found: found >= 48)
    return time.perf_counter() - began


def _until(page: Any, asked: str, enough: Any) -> Any:
    latest = time.monotonic() + _LONGEST
    while not enough(found := page.evaluate(asked)):
        if time.monotonic() > latest:
            raise SystemExit(f"{page.url}: not in {_LONGEST:g} s")
        page.wait_for_timeout(_CALL)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("workspace", type=Path)
    parser.add_argument("--count", type=int, default=8)
    parser.add_argument("--grid", help="a dataset of images, such as digits")
    arguments = parser.parse_args()
    found = pages(arguments.workspace)
    flags = ["--no-sandbox", "--use-angle=swiftshader", "--enable-unsafe-swiftshader"]
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path="/usr/bin/chromium", args=flags)
        page = signed_in(browser, arguments.workspace)
        base = page.url.rstrip("/")
        if arguments.grid:
            address = f"{base}/data/{arguments.grid}/v1/examples"
            taken = [grid_seconds(page, address) for _ in range(3)]
            print(
                f"load {os.getloadavg()[0]:.1f}, 48 images: cold {taken[0]:.2f} s, again {taken[1]:.2f} {taken[2]:.2f}"
            )
        print(f"load {os.getloadavg()[0]:.1f}, {arguments.count} visits each")
        asked = list[str]()
        page.on("request", lambda request: asked.append(request.url))
        for path in found:
            asked.clear()
            first = painted(page, base + path)
            page.wait_for_timeout(200)
            count = sum("/media/" not in each and "/sheets/" not in each for each in asked)
            later = sorted(painted(page, base + path) for _ in range(arguments.count))
            told = f"first {first:4.0f} ms, then {statistics.median(later):4.0f}, at most {later[-1]:4.0f}"
            print(f"{path:50} {count:2} requests, {told}")
        browser.close()


if __name__ == "__main__":
    main()
