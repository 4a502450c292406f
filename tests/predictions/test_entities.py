"""Who asks is kept as a keyed hash: equal where it should be, different where not, and never as it was said."""

from __future__ import annotations

import stat
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as some

from speciate.jobs.engine import Engine
from speciate.jobs.pool import Pool
from speciate.predictions import answer_lookup, entities, maintenance, reading
from speciate.predictions.entities import LONGEST, EntityHashes, entity_problem
from speciate.predictions.log import AnswerLog
from speciate.predictions.log_files import LogFolder, log_folder
from speciate.server.mcp.app import Server
from speciate.server.tool_api import App
from speciate.settings import Log, Settings
from speciate.workspace.catalog_identity import Anchor, write_anchor
from speciate.workspace.clock import SystemClock
from speciate.workspace.workspace import Workspace
from tests.conftest import ManualClock
from tests.predictions.world import ABOUT, USE_CASE, log, said, texts
from tests.serving.world import move, trained

WHO = "ada.lovelace-17"


@pytest.fixture(autouse=True)
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    return tmp_path / "config" / "speciate"


def with_identity(root: Path, digit: str = "a") -> Path:
    root.mkdir(exist_ok=True)
    write_anchor(root, Anchor(digit * 32))
    return root


def asked_by(own: AnswerLog, entity: str | None) -> str:
    """The hash that is logged with an answer."""
    [id_] = own.ids(1)
    assert own.note([id_], texts("a film"), [said()], ABOUT, 1.5, entity)
    found = reading.find(own.folder, id_)
    assert found is not None
    return found.entity


def bytes_below(folder: Path) -> bytes:
    return b"".join(path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file())


def test_an_entity_is_logged_as_a_hash_that_another_process_makes_too(tmp_path: Path, clock: ManualClock) -> None:
    root = with_identity(tmp_path / "one")
    own = log(root, clock)
    first = asked_by(own, WHO)
    assert len(first) == 32
    assert first not in (asked_by(own, "grace"), "")
    assert asked_by(own, None) == ""
    again = log(root, clock)  # a daemon that was started again, or a deployment
    assert asked_by(again, WHO) == first
    own.close()
    again.close()
    maintenance.seal_segments(own.folder)
    rows = reading.answers(own.folder, columns=["entity"])["entity"].to_pylist()
    assert sorted(Counter(rows).values()) == [1, 1, 2]
    assert (rows.count(first), rows.count(None)) == (2, 1)
    assert WHO.encode() not in bytes_below(tmp_path)


def test_two_workspaces_two_use_cases_and_two_keys_hash_differently(tmp_path: Path, config: Path) -> None:
    one, other = with_identity(tmp_path / "one"), with_identity(tmp_path / "other", "b")
    hashes = EntityHashes(one, "reviews")
    first = hashes.of(WHO)
    assert len({first, EntityHashes(other, "reviews").of(WHO), EntityHashes(one, "tickets").of(WHO)}) == 3
    file = entities.key_file("a" * 32)
    assert file == config / "entities" / f"{'a' * 32}.key"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert file.read_bytes().strip() not in bytes_below(one), "the key does not lie beside the log"
    file.unlink()
    assert hashes.of(WHO) != first, "a new key: nobody can be recognised any more"
    assert hashes.of(WHO) == EntityHashes(one, "reviews").of(WHO), "and every process uses it"


def test_use_case_and_entity_cannot_be_mixed_up(tmp_path: Path) -> None:
    root = with_identity(tmp_path / "one")
    assert EntityHashes(root, "a").of("b-c") != EntityHashes(root, "a-b").of("c")
    assert EntityHashes(root, "a").of(" b c ") == EntityHashes(root, "a").of("b c") != EntityHashes(root, "a").of("bc")


@pytest.mark.parametrize("harm", ["open", "empty", "no identity"])
def test_without_a_usable_key_the_answer_is_logged_and_says_what_it_lacks(
    tmp_path: Path, clock: ManualClock, harm: str, caplog: pytest.LogCaptureFixture
) -> None:
    root = with_identity(tmp_path / "one")
    EntityHashes(root, USE_CASE).of(WHO)
    file = entities.key_file("a" * 32)
    if harm == "open":
        file.chmod(0o644)
    elif harm == "empty":
        file.write_text("")
    else:
        (root / "identity.json").unlink()
    own = log(root, clock)
    [id_] = own.ids(1)
    assert own.note([id_], texts("a film"), [said()], ABOUT, 1.5, WHO)
    found = reading.find(own.folder, id_)
    assert found is not None
    assert (found.entity, found.left_out) == ("", ("entity: its key cannot be read",))
    assert asked_by(own, WHO) == ""
    assert WHO not in caplog.text
    assert len(caplog.records) == 1, "a busy use case warns once"
    own.close()


def test_a_log_from_before_there_were_entities_is_read(tmp_path: Path, clock: ManualClock) -> None:
    root = with_identity(tmp_path / "one")
    own = log(root, clock)
    asked_by(own, None)
    own.close()
    [old] = maintenance.seal_segments(own.folder)
    rows = pq.read_table(old, partitioning=None)
    maintenance.write_part(old, rows.drop_columns(["entity"]), {})
    assert reading.answers(own.folder, columns=["entity", "at"])["entity"].to_pylist() == [None]
    clock.advance(1)  # ids in one millisecond have no order
    later = log(root, clock)
    hashed = asked_by(later, WHO)
    later.close()
    maintenance.seal_segments(own.folder)
    assert len(own.folder.all_parts()) == 2
    whole = reading.answers(own.folder)
    assert whole["entity"].to_pylist() == [None, hashed]
    assert [each.entity for each in reading.find_many(own.folder, whole["id"].to_pylist()).values()] == ["", hashed]


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ("", "empty"), ("  \t", "empty"), ("x" * (LONGEST + 1), "at most 256"), (17, "is a text"), (None, "is a text"),
        (["a"], "is a text"), ("a\x00b", "control"), ("a\nb", "control"), ("a\u2028b", "control"),
        ("a\ud800", "control"),
    ],
)  # fmt: skip
def test_what_cannot_be_an_entity_is_refused_without_being_repeated(given: object, told: str) -> None:
    problem = entity_problem(given)
    assert problem is not None
    assert told in problem
    assert not isinstance(given, str) or not given.strip() or given not in problem


@given(some.text(some.characters(exclude_categories=("Cc", "Cs", "Zl", "Zp", "Zs")), min_size=1, max_size=LONGEST))
def test_any_other_text_is_an_entity(entity: str) -> None:
    assert entity_problem(entity) is None


class Served:
    def __init__(self, root: Path) -> None:
        self.workspace = Workspace(root, settings=Settings(policy="auto"))
        self.pool = Pool(self.workspace.folders, self.workspace.settings)
        self.app = App(self.workspace, Engine(self.workspace), self.pool)
        self.tools = Server(self.app)
        self.model = trained(self.workspace).ref
        move(self.workspace, self.model)

    def predict(self, **arguments: Any) -> Any:
        return self.tools.call("predict", arguments)

    def entities(self) -> list[str | None]:
        folder = log_folder(self.workspace.folders, USE_CASE)
        return list(reading.answers(folder, columns=["entity"])["entity"].to_pylist()) if folder.path.exists() else []

    def close(self) -> None:
        self.tools.calls.close()
        answer_lookup.logs_of(self.workspace).close()
        self.pool.close()
        self.workspace.close()


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CONFIG_HOME", str(tmp_path_factory.mktemp("config")))
        made = Served(tmp_path_factory.mktemp("served") / "workspace")
        yield made
        made.close()


@pytest.mark.parametrize(
    ("entity", "told"),
    [("", "empty"), (f"{WHO}{'x' * 300}", "at most 256"), (4711_0815, "must be text"), (f"{WHO}\x1b[2J", "control")],
)
def test_the_tool_refuses_what_is_no_entity_and_does_not_repeat_it(served: Served, entity: Any, told: str) -> None:
    before = served.entities()
    found = served.predict(use_case=USE_CASE, inputs=[{"text": "a good film"}], entity=entity)
    assert found.is_error
    said = found.model_dump_json()
    assert told in said
    assert not entity or str(entity)[:8] not in said
    assert served.entities() == before


@pytest.mark.parametrize("batch", [{"dataset": "films"}, {"source": "asked.csv"}])
def test_a_batch_is_not_logged_and_so_takes_no_entity(served: Served, batch: dict[str, str]) -> None:
    found = served.predict(use_case=USE_CASE, path="answers.csv", entity=WHO, **batch)
    assert found.is_error
    assert "are not logged" in (said := found.model_dump_json())
    assert WHO not in said
    found = served.predict(model=served.model, inputs=[{"text": "a good film"}], entity=WHO)
    assert found.is_error
    assert "are not logged" in found.model_dump_json()


def test_all_inputs_of_a_call_are_of_its_entity_and_the_name_is_nowhere(served: Served) -> None:
    hashes = list[set[str]]()
    for entity in (WHO, WHO, "grace-18", None):
        given = {} if entity is None else {"entity": entity}
        found = served.predict(use_case=USE_CASE, inputs=[{"text": "a good film"}, {"text": "a bad film"}], **given)
        assert not found.is_error
        assert WHO not in found.model_dump_json()
        ids = [each["prediction"] for each in found.structured_content["predictions"]]
        logged = reading.find_many(log_folder(served.workspace.folders, USE_CASE), ids)
        assert len(logged) == 2
        hashes.append({each.entity for each in logged.values()})
    assert [len(each) for each in hashes] == [1, 1, 1, 1]
    assert hashes[0] == hashes[1]
    assert hashes[2] not in (hashes[0], {""})
    assert hashes[3] == {""}
    sql = "SELECT entity, count(*) AS n FROM examples WHERE id IN ({}) GROUP BY entity"
    named = sql.format(", ".join(f"'{each}'" for each in ids))
    page = served.tools.call("query_dataset", {"dataset": f"log:{USE_CASE}", "sql": named})
    assert page.structured_content["untrusted"]["rows"] == [[None, 2]]
    served.workspace.database.read("CHECKPOINT")
    answer_lookup.logs_of(served.workspace).close()
    assert WHO.encode() not in bytes_below(served.workspace.folders.root.parent)


def test_a_log_without_a_workspace_around_it_takes_answers(tmp_path: Path) -> None:
    own = AnswerLog(LogFolder(tmp_path / "logged" / USE_CASE), Log(), SystemClock())
    assert asked_by(own, None) == ""
    own.close()
