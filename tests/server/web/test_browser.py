"""The pages in a real browser: look at a decision, approve it with a passphrase, see what serves, roll back, label;
every medium seen, moved and heard. With no violation of the policy and no error in the console.

Needs Chromium and the extra `browser`; without them these tests say so and are skipped.
"""

from __future__ import annotations

import re
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from speciate.evaluation import decisions
from speciate.evaluation.reports.report import Decision
from speciate.promotion import promote
from speciate.promotion.evidence import PromoteSpec
from speciate.settings import Settings
from speciate.workspace.workspace import Workspace
from tests.promotion.world import JOB
from tests.server.processes import Daemons
from tests.server.terminals import PHRASE, enroll, type_at
from tests.server.web.sights import one_of_each, seen
from tests.serving.world import MODEL, USE_CASE, move, scaled, trained, version

playwright = pytest.importorskip("playwright.sync_api", reason="the extra `browser` is not installed: no playwright")
_PROGRAMS = ("chromium", "chromium-browser", "google-chrome")
_CHROMIUM = next((found for name in _PROGRAMS if (found := shutil.which(name))), None)
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(_CHROMIUM is None, reason="no Chromium is installed here (on Debian: apt install chromium)"),
]
WATCH = "document.addEventListener('securitypolicyviolation', (e) => console.error('policy: ' + e.violatedDirective))"
_LIT = """(view) => {
  const drawn = view.querySelector("canvas"), copy = new OffscreenCanvas(drawn.width, drawn.height);
  const g = copy.getContext("2d");
  g.drawImage(drawn, 0, 0);
  return g.getImageData(0, 0, drawn.width, drawn.height).data.some((value, i) => i % 4 === 3 && value > 0);
}"""
"""Whether a canvas shows anything."""
_AXE = "axe.run().then((r) => r.violations.map((v) => `${v.impact} ${v.id} ${v.nodes[0].html}`))"
_PATIENCE_SECONDS = 40.0
_ASKED = 14


class World(NamedTuple):
    daemons: Daemons
    approval: str
    sights: dict[str, str]
    """Modality, or `structure` -> the version with one example of it."""


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    folder = tmp_path_factory.mktemp("browser")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CONFIG_HOME", str(folder / "config"))
        daemons = Daemons(folder / "workspace")
        daemons.workspace.mkdir()
        workspace = Workspace(daemons.workspace)
        first = trained(workspace)
        second = version(workspace, first, scaled(1.01), "second")
        move(workspace, first.ref)
        approval = ask_for(workspace, first.ref, second)
        sights = {}
        for sample in one_of_each():
            key = "structure" if sample.file == "structure" else sample.modality
            sights[key] = seen(workspace, sample).ref
        workspace.close()
        enrolled = enroll(daemons.workspace, "--name", "jane")
        assert enrolled.status == 0, enrolled.text
        texts = [{"text": f"a {'good' if n % 3 else 'bad'} film {n}"} for n in range(_ASKED)]
        daemons.connect().call("predict", use_case=USE_CASE, inputs=texts)
        yield World(daemons, approval, sights)
        daemons.close()


def note_problems(page: Any, problems: list[str]) -> None:
    """Errors and warnings of its console, each with the address that it is about."""

    def heard(said: Any) -> None:
        if said.type in ("error", "warning"):
            problems.append(f"{said.text} {said.location.get('url', '')}")

    page.on("console", heard)
    page.on("pageerror", lambda error: problems.append(str(error)))


def ask_for(workspace: Workspace, serving: str, wanted: str) -> str:
    """A decision for `wanted`, and the question to a person."""
    decision = Decision(
        id="decision-1", verdict="promote", reasons=("gain in accuracy 0.02 (0.01 to 0.03)",), candidate=wanted,
        baseline=serving,
    )  # fmt: skip
    workspace.database.transact(
        lambda tx: decisions.store(tx, decision, use_case=USE_CASE, version=1, evaluation="evaluation-1")
    )
    spec = PromoteSpec(use_case=USE_CASE, model=wanted, actor="ada")
    asked = workspace.database.transact(
        lambda tx: promote.act(tx, spec, JOB, Settings.model_validate({"policy": "person"}))
    )
    found: Any = asked["approval"]
    return str(found["id"])


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    flags = ["--no-sandbox", "--use-angle=swiftshader", "--enable-unsafe-swiftshader"]
    flags += ["--host-resolver-rules=MAP speciate.example.com 127.0.0.1", "--ignore-certificate-errors"]
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=_CHROMIUM, args=flags)
        yield browser
        browser.close()


class Tab(NamedTuple):
    page: Any
    problems: list[str]
    base: str

    def go(self, path: str) -> Any:
        self.page.goto(self.base + path)
        return self.page

    def until(self, found: Callable[[], object], what: str) -> None:
        """The policy refuses a wait that evaluates in the page."""
        latest = time.monotonic() + _PATIENCE_SECONDS
        while not self.look(found):
            assert time.monotonic() < latest, f"{what}: {self.page.inner_text('body')[:2000]}"
            self.page.wait_for_timeout(100)

    def look(self, found: Callable[[], object]) -> object:
        """None while one page takes the place of another."""
        try:
            return found()
        except playwright.Error:
            return None


@pytest.fixture
def tab(world: World, chromium: Any) -> Iterator[Tab]:
    """Signed in for deciding, as a person at a terminal does it."""
    arguments = ["open", "--decide", "--no-browser", "--workspace", str(world.daemons.workspace)]
    screen = type_at(arguments, [("(nothing: no): ", PHRASE)])
    link = re.search(r"http://speciate-\d+\.localhost:\d+/open#[\w-]+", screen.text)
    assert link, screen.text
    context = chromium.new_context()
    context.add_init_script(WATCH)
    page, problems = context.new_page(), list[str]()
    note_problems(page, problems)
    page.on("dialog", lambda dialog: dialog.accept())
    page.goto(link[0])
    page.wait_for_url("**/", timeout=30_000)
    yield Tab(page, problems, page.url.rstrip("/"))
    assert problems == []
    context.close()


def test_a_decision_from_the_first_look_to_the_rollback_and_ten_labels(world: World, tab: Tab) -> None:
    page = tab.page
    assert "#" not in page.url, "the key is out of the address"
    page.get_by_role("link", name="Look and decide").click()
    tab.until(lambda: page.query_selector("#answer"), "the form")
    assert "gain in accuracy 0.02" in page.inner_text("main").lower()
    page.fill("input[name=passphrase]", "not my passphrase")
    page.click("button[value=approve]")
    tab.until(lambda: "does not open" in (page.text_content("#said") or ""), "a wrong passphrase")
    page.fill("input[name=passphrase]", PHRASE)
    page.click("button[value=approve]")
    tab.until(lambda: page.url.endswith("/production"), "approved")
    assert f"{MODEL}@v2" in page.inner_text("#serves")
    page.fill("input[name=reason]", "only a trial")
    page.click("#rollback button")
    tab.until(lambda: f"{MODEL}@v1" in page.inner_text("#serves"), "rolled back")
    rows = world.daemons.control("trail", use_case=USE_CASE, most=9)["rows"]
    acted = {row["action"]: row for row in rows}
    assert {"promote", "approve", "rollback"} <= set(acted)
    assert acted["approve"]["evidence"]["signed"]["name"] == "jane"
    assert acted["rollback"]["actor"].endswith("(web)")
    assert world.daemons.control("audit", head=None)["problems"] == []
    _label_ten(world, tab)


def _label_ten(world: World, tab: Tab) -> None:
    page = tab.go(f"/use-cases/{USE_CASE}/queue?strategy=random")

    def at() -> str:
        found = tab.look(lambda: page.get_attribute("#queue", "data-prediction", timeout=2_000))
        return str(found or "")

    def press(key: str, wanted: str = "") -> None:
        page.wait_for_load_state("load")  # the script that hears keys has run then
        before = at()
        page.keyboard.press(key)
        tab.until(lambda: at() == wanted if wanted else at() not in ("", before), f"another answer after {key}")

    first = at()
    press("1")
    press("u", first)
    press("s")
    for number in range(10):
        press("12"[number % 2])
    page.wait_for_timeout(100)

    def labelled() -> int:
        return _ASKED - int(world.daemons.control("labels", use_case=USE_CASE, count=1)["waiting"])

    tab.until(lambda: labelled() == 10, "ten labels are in the log")


def test_every_page_is_without_violations_and_reachable_by_keys(world: World, tab: Tab) -> None:
    axe = pytest.importorskip("axe_core_python", reason="the extra `browser` is not installed: no axe")
    script = (Path(axe.__file__).parent / "axe.min.js").read_text()
    paths = [
        "/", f"/use-cases/{USE_CASE}", f"/use-cases/{USE_CASE}/production", f"/use-cases/{USE_CASE}/queue", "/runs",
        "/data", "/data/films/v1", "/data/films/v1/examples", "/models", f"/models/{MODEL}/v1", "/approvals",
        f"/approvals/{world.approval}", "/audit", "/requests", "/keys", "/settings",
        "/examples/films-000000?in=films@v1", "/decide",
        *(f"/examples/{ref.partition('@')[0]}-000000?in={ref}" for ref in world.sights.values()),
    ]  # fmt: skip
    found = list[str]()
    for theme in ("light", "dark"):
        tab.page.emulate_media(color_scheme=theme)
        for path in paths:
            page = tab.go(path)
            tab.until(lambda: not page.query_selector(".waits > .soft"), f"the parts of {path}")  # noqa: B023 - at once
            page.evaluate(script)
            told = page.evaluate(_AXE)
            found += [f"{theme} {path}: {each}" for each in told]
    assert found == []
    page = tab.go("/runs")
    if page.query_selector("[data-item]"):
        page.keyboard.press("j")
        assert page.evaluate("document.activeElement.matches('[data-item]')")
    tab.page.set_viewport_size({"width": 360, "height": 740})
    for path in paths:
        tab.go(path).wait_for_load_state("load")
        wide = tab.page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
        assert wide == 0, f"{path} scrolls sideways on a phone"


def test_every_medium_is_seen_moved_and_heard(world: World, tab: Tab) -> None:
    for kind, ref in world.sights.items():
        name = ref.partition("@")[0]
        page = tab.go(f"/examples/{name}-000000?in={ref}")
        viewer = page.query_selector(".viewer")
        assert viewer, kind
        assert "cannot be shown" not in viewer.inner_text(), kind
        for each in viewer.query_selector_all("img"):
            tab.until(lambda: each.evaluate("(e) => e.naturalWidth > 0"), f"an image of {kind}")  # noqa: B023 - at once
        for each in viewer.query_selector_all("[data-view]"):
            _turn(tab, each, kind)
        for each in viewer.query_selector_all("video, audio"):
            _seek(tab, each, kind)
    assert {"image", "audio", "video", "mesh", "point-cloud", "nifti", "dicom", "structure"} <= set(world.sights)


def test_reading_needs_no_javascript(world: World, tab: Tab, chromium: Any) -> None:
    context = chromium.new_context(java_script_enabled=False, storage_state=tab.page.context.storage_state())
    page = context.new_page()
    paths = [
        "/", f"/use-cases/{USE_CASE}", f"/use-cases/{USE_CASE}/production", "/runs", "/data/films/v1",
        "/data/films/v1/examples", "/examples/films-000000?in=films@v1", f"/approvals/{world.approval}",
    ]  # fmt: skip
    for path in paths:
        assert page.goto(tab.base + path).status == 200, path
        assert page.inner_text("h1"), path
    page.goto(tab.base + "/data/films/v1")
    page.click("noscript a")
    assert "label" in page.inner_text("body"), "what comes later is a link"
    context.close()


def test_an_open_page_says_that_its_daemon_is_gone(world: World, tab: Tab) -> None:
    page = tab.go("/runs")
    page.wait_for_load_state("load")
    assert not page.is_visible("#notice")
    world.daemons.kill()
    tab.until(lambda: page.is_visible("#notice"), "the notice")
    tab.problems.clear()  # that nothing answered


def _turn(tab: Tab, view: Any, kind: str) -> None:
    """By an arrow key: what is drawn is another."""
    view.scroll_into_view_if_needed()
    tab.until(lambda: view.get_attribute("data-drawn"), f"{kind} is drawn")
    before = view.get_attribute("data-drawn")
    view.query_selector("canvas").focus()
    tab.page.keyboard.press("ArrowUp")
    tab.page.keyboard.press("ArrowDown")
    tab.page.keyboard.press("ArrowDown")
    single = before is not None and before.startswith("0,") and kind == "dicom"  # one slice does not scroll
    if not single:
        tab.until(lambda: view.get_attribute("data-drawn") != before, f"{kind} moves")
    if kind in ("nifti", "dicom"):
        box = view.bounding_box()
        tab.page.mouse.move(box["x"] + 40, box["y"] + 60)
        tab.page.mouse.down()
        tab.page.mouse.move(box["x"] + 90, box["y"] + 20, steps=4)
        tab.page.mouse.up()
        levels = (view.get_attribute("data-drawn") or "").split(",")[3:]
        assert levels != (before or "").split(",")[3:], "window and level"
    else:
        lit = view.evaluate(_LIT)
        assert lit, f"{kind} has pixels"


def _seek(tab: Tab, player: Any, kind: str) -> None:
    tab.until(lambda: player.evaluate("(e) => e.readyState >= 1 && e.duration > 0"), f"{kind} is loaded")
    player.evaluate("(e) => { e.currentTime = e.duration / 2; }")
    tab.until(lambda: player.evaluate("(e) => !e.seeking && e.currentTime > 0"), f"{kind} seeks")
    assert player.evaluate("(e) => e.error === null"), kind
