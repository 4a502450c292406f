"""Real versions in real cages: what is tried, what is refused, and what a damaged one does."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from speciate.models import registry
from speciate.models.registry import ModelVersion
from speciate.serving.folder import Target
from speciate.serving.runner import Died, Runner, Slow
from speciate.serving.trial import Unfit, attempt
from speciate.workspace.workspace import Workspace
from tests.serving.world import scaled, spoil, trained, version

pytestmark = pytest.mark.slow

Run = Callable[[str], Runner]


@pytest.fixture
def films(workspace: Workspace) -> ModelVersion:
    return trained(workspace)


@pytest.fixture
def run(workspace: Workspace) -> Iterator[Run]:
    made: list[Runner] = []

    def start(ref: str) -> Runner:
        found = registry.resolve(workspace.database, workspace.folders, ref)
        wanted = Target(
            generation=1, model=ref, path=str(found.path), task="text-classification", modality="text",
            inputs=("text",),
        )  # fmt: skip
        root = workspace.folders.root
        made.append(Runner(root, root / "cache" / "pool", wanted, 4096, workspace.settings.cage))
        return made[-1]

    yield start
    for each in made:
        each.end()


ITEMS = [{"row": {"text": "a good film"}}, {"row": {"text": "a bad film"}}]


def test_a_version_is_loaded_tried_and_asked_and_its_folder_is_gone_with_it(
    workspace: Workspace, films: ModelVersion, run: Run
) -> None:
    runner = run(films.ref)
    tried = attempt(runner, ITEMS, 120)
    assert tried.examples == 2
    assert tried.median_ms
    used = runner.cpu_seconds()
    runner.answer(ITEMS * 20, 60)
    assert (runner.cpu_seconds() or 0) > (used or 0) > 0
    answers = runner.answer([*ITEMS, {"text": "  "}], 60)
    assert [one["output"] for one in answers] == ["good", "bad", None]
    with pytest.raises(Slow):
        runner.answer(ITEMS * 500, 0.0)
    with pytest.raises(Died):
        runner.answer(ITEMS, 60)
    runner.end()
    assert list((workspace.folders.cache / "pool").iterdir()) == []


@pytest.mark.slow
def test_a_version_that_answers_with_numbers_that_are_none_is_unfit(
    workspace: Workspace, films: ModelVersion, run: Run
) -> None:
    ref = version(workspace, films, scaled(float("nan")), "nan")
    with pytest.raises(Unfit, match="NaN"):
        attempt(run(ref), ITEMS, 120)


@pytest.mark.slow
def test_a_version_of_which_a_byte_was_changed_is_unfit(workspace: Workspace, films: ModelVersion, run: Run) -> None:
    ref = version(workspace, films, scaled(2.0), "spoiled")
    spoil(workspace, ref)
    with pytest.raises(Unfit, match="is not what was sealed"):
        attempt(run(ref), ITEMS, 120)


@pytest.mark.slow
def test_a_version_reads_no_other_file_of_the_workspace(workspace: Workspace, films: ModelVersion, run: Run) -> None:
    """Nor the other versions of its own model."""
    other = version(workspace, films, scaled(2.0), "other")
    runner = run(films.ref)
    there = registry.resolve(workspace.database, workspace.folders, other).path
    runner._about["model"] = str(there)  # as somebody who took the process over would
    with pytest.raises(Unfit, match="PermissionError"):
        attempt(runner, ITEMS, 120)
