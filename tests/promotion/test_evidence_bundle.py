"""Bundles of a real decision: whole, signed, checked by the program beside them, and without what must not leave."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from speciate.errors import Code, SpeciateError
from speciate.evaluation import suites
from speciate.governance import evidence_key
from speciate.promotion import evidence_bundle, promote, verify_evidence
from speciate.promotion.evidence import PromoteSpec
from speciate.promotion.evidence_bundle import EvidenceReport, EvidenceRequest, write_evidence
from speciate.settings import Settings
from speciate.workspace.workspace import Workspace
from tests import data
from tests.evaluation import world
from tests.evaluation.conftest import trained  # noqa: F401 - a fixture
from tests.governance.people import Signer, do, enroll, perform
from tests.governance.people import ask as question_to

SETTINGS = Settings(policy="auto", private_hosts=("127.0.0.1",))


@pytest.fixture(scope="module")
def judged(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:  # noqa: F811
    """The flowers and a decision on their model, closed, to be copied."""
    root = tmp_path_factory.mktemp("judged") / "workspace"
    with data.copied(trained, root, settings=SETTINGS) as workspace:
        found = world.evaluate_models(workspace, models=["points"], use_case="flowering", latency=False)
    assert found["decision"]["verdict"] == "promote"
    return root


@pytest.fixture
def decided(judged: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Workspace]:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    with data.copied(judged, tmp_path / "copy", settings=SETTINGS) as workspace:
        yield workspace


def ask(workspace: Workspace, policy: str = "auto") -> dict[str, Any]:
    _, job = world.prepare(workspace, "promote", {})
    spec = PromoteSpec(use_case="flowering", model="points@v1", actor="bot")
    settings = Settings.model_validate({"policy": policy})
    return workspace.database.transact(lambda tx: promote.act(tx, spec, job, settings))


def export(workspace: Workspace, path: Path, **more: Any) -> EvidenceReport:
    return write_evidence(workspace, EvidenceRequest(use_case="flowering", path=path, **more))


def checked(report: EvidenceReport, *more: str, code: int = 0) -> str:
    """By the script in the folder, in a bare Python."""
    script = report.bundle.parent / evidence_bundle.SCRIPT
    command = [sys.executable, "-I", str(script), str(report.bundle), "--key", report.key, *more]
    ran = subprocess.run(command, capture_output=True, text=True, check=False, env={})
    assert (ran.returncode, ran.stderr) == (code, ""), ran.stdout
    return ran.stdout


def document(report: EvidenceReport) -> dict[str, Any]:
    with zipfile.ZipFile(report.bundle) as opened:
        found: dict[str, Any] = json.loads(opened.read(verify_evidence.DOCUMENT))
    return found


def test_what_production_rests_on_is_told_and_recomputed(decided: Workspace, tmp_path: Path) -> None:
    assert ask(decided)["state"] == "applied"
    report = export(decided, tmp_path / "out", rows=True)
    assert (report.candidate, report.verdict, report.in_production, report.rows) == ("points@v1", "promote", True, 200)
    model = decided.folders.root / "models" / "points" / "v1"
    said = checked(report, "--rows", str(tmp_path / "out" / "rows.jsonl"), "--model", str(model))
    assert "PROMOTE points@v1 over column:rules, on 200 rows of flowers@v1:test" in said
    assert "points@v1 serves since row 1 of the audit" in said
    assert "bot (agent) asked for a promotion (row 1)" in said
    assert "person" not in said.replace("Policy: auto", "")
    assert "speciate (software) did it under the automatic policy (row 1)" in said
    assert "the 200 rows in rows.jsonl are exactly those that were judged" in said
    assert "[recomputed]" in said
    found = document(report)
    assert {each["ref"] for each in found["data"]} == {"flowers@v1"}
    assert set(found["model"]["files"]) >= {"predictor.json"}
    assert found["software"]["speciate"]
    rows = tmp_path / "out" / "rows.jsonl"
    rows.write_text(rows.read_text().replace('"id":"', '"id":"x', 1))
    suites = list(verify_evidence.judged_rows(found, verify_evidence.members_of(report.bundle.read_bytes())))
    with pytest.raises(verify_evidence.Refused, match="lacks 1 of the rows that were judged, and has 1 others"):
        verify_evidence.check_rows(rows, suites)


def test_who_was_agent_and_who_signed_as_a_person(decided: Workspace, tmp_path: Path) -> None:
    ann = Signer("ann")
    enroll(decided, ann)
    asked = ask(decided, "person")
    question = question_to(decided, "approve", id=asked["approval"]["id"])
    given = {"id": asked["approval"]["id"], "hash": question["question"]["shown"]["hash"]}
    assert perform(decided, "approve", **given, signed=ann.answer(question))["state"] == "approved"
    report = export(decided, tmp_path / "out")
    said = checked(report)
    assert "bot (agent) asked for a promotion (row 2)" in said
    assert "(person, signed) approved a promotion (row 2)" in said
    assert "Row 3 carries the signature of ann, which holds" in said
    assert document(report)["approvals"][0]["row"] == 3
    # whoever edits what ann signed, and signs the bundle with the right key, is found all the same
    members = verify_evidence.members_of(report.bundle.read_bytes())
    body = json.loads(members.pop(verify_evidence.DOCUMENT))
    members.pop(verify_evidence.SIGNATURE)
    rows = [json.loads(line) for line in members["audit.jsonl"].splitlines()]
    evidence = json.loads(rows[2]["evidence"])
    evidence["signed"]["arguments"]["model"] = "evil@v9"
    rows[2]["evidence"] = json.dumps(evidence, sort_keys=True)
    rows[2]["hash"] = body["audit"]["head"] = verify_evidence.row_digest(rows[2])
    members["audit.jsonl"] = b"".join(verify_evidence.canonical(row) + b"\n" for row in rows)
    key = evidence_key.evidence_key(decided.identity)
    report.bundle.write_bytes(evidence_bundle.pack(body, members, key))
    assert "the signature of ann under row 3 of the audit does not hold" in checked(report, code=1)


def test_a_decision_that_serves_nowhere_leaves_by_its_evaluation(decided: Workspace, tmp_path: Path) -> None:
    with pytest.raises(SpeciateError, match="Nothing is in production"):
        export(decided, tmp_path / "out")
    (evaluation,) = decided.database.read("SELECT id FROM evaluations")[0]
    report = export(decided, tmp_path / "out", evaluation=evaluation)
    assert not report.in_production
    assert "This decision is not the one that production rests on" in checked(report)
    with pytest.raises(SpeciateError) as caught:
        export(decided, tmp_path / "out2", evaluation="evaluation-nowhere")
    assert caught.value.code is Code.NOT_FOUND


def test_nothing_leaves_that_names_this_machine_another_use_case_or_a_key(decided: Workspace, tmp_path: Path) -> None:
    ann = Signer("ann")
    enroll(decided, ann)
    do(decided, ann, "policy", policy="auto")
    world.define(decided, name="secretly")
    do(decided, ann, "policy", policy="person", use_case="secretly")
    ask(decided, "auto")
    world.define(decided, description=f"from {decided.folders.root}/inbox and /srv/data/patients")
    report = export(decided, tmp_path / "out", rows=True)
    checked(report)
    whole = b"".join(path.read_bytes() for path in (tmp_path / "out").iterdir())
    seed = evidence_key.key_file(decided.identity).read_bytes().strip()
    for hidden in (b"secretly", str(decided.folders.root).encode(), b"/srv/data", os.uname().nodename.encode(), seed):
        assert hidden not in whole
    assert not [path for path in decided.folders.root.rglob("*") if path.is_file() and seed in path.read_bytes()]
    assert stat.S_IMODE(evidence_key.key_file(decided.identity).stat().st_mode) == 0o600
    bundle = report.bundle.read_bytes()
    assert b"flowers-0" not in bundle  # ids are digests there
    assert b"g17" not in bundle


def test_forgotten_rows_are_not_in_it(decided: Workspace, tmp_path: Path) -> None:
    ask(decided)
    gone = "flowers content 200"  # of a test row
    before = export(decided, tmp_path / "before")
    example = verify_evidence.hashlib.sha256(gone.encode()).hexdigest().encode()
    assert example in before.bundle.read_bytes()
    decided.database.transact(lambda tx: suites.forget(tx, [gone]))
    world.make_version(decided, lambda rows: rows)  # the rows of v1 are as they were: its digests no longer fit
    report = export(decided, tmp_path / "after")
    assert example not in report.bundle.read_bytes()
    assert example[:16] not in report.bundle.read_bytes()
    said = checked(report)
    assert "Suite core: 199 rows" in said
    assert "1 rows were forgotten since by a purge" in said
    with pytest.raises(SpeciateError, match="cannot leave"):
        export(decided, tmp_path / "clear", rows=True)


def test_it_never_overwrites_and_leaves_nothing_half_done(
    decided: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ask(decided)
    (tmp_path / "there").mkdir()
    with pytest.raises(SpeciateError) as caught:
        export(decided, tmp_path / "there")
    assert caught.value.code is Code.CONFLICT

    def full(self: Path, data: bytes) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(SpeciateError, match="No space left on device") as caught:
        export(decided, tmp_path / "new")
    assert caught.value.code is Code.UNAVAILABLE
    assert {path.name for path in tmp_path.iterdir()} == {"config", "copy", "there"}


def test_a_key_that_others_can_read_signs_nothing(decided: Workspace, tmp_path: Path) -> None:
    ask(decided)
    first = export(decided, tmp_path / "one")
    file = evidence_key.key_file(decided.identity)
    assert export(decided, tmp_path / "two").key == first.key
    file.chmod(0o640)
    with pytest.raises(SpeciateError, match="must belong to you alone"):
        export(decided, tmp_path / "three")
    file.chmod(0o600)
    file.write_text("no key")
    with pytest.raises(SpeciateError, match="holds no key"):
        export(decided, tmp_path / "three")


def test_a_later_evaluation_of_another_model_changes_nothing_about_production(
    decided: Workspace, tmp_path: Path
) -> None:
    ask(decided)
    world.train_model(decided, name="others", hyperparameters={"candidates": ["neighbours"]})
    found = world.evaluate_models(decided, models=["others"], use_case="flowering", latency=False)
    report = export(decided, tmp_path / "out")
    assert report.candidate == "points@v1"
    other = export(decided, tmp_path / "other", evaluation=found["evaluation"])
    assert (other.candidate, other.in_production) == ("others@v1", False)
    checked(other)


def test_the_order_in_which_candidates_could_go_forward_is_in_it_and_who_named_another_is_told(
    decided: Workspace, tmp_path: Path
) -> None:
    world.train_model(decided, name="others", hyperparameters={"candidates": ["neighbours"]})
    order = [
        {"model": model, "value": value, "standard_error": 0.02, "n": 300, "how": "out-of-fold"}
        for model, value in (("others@v1", 0.92), ("points@v1", 0.90))
    ]
    found = world.evaluate_models(
        decided, models=["points", "others"], use_case="flowering", latency=False, pick="gates", order=order
    )
    assert found["report"]["candidate"] == "others@v1"
    assert "others@v1 is the first that passes every gate" in " ".join(found["decision"]["reasons"])
    first = export(decided, tmp_path / "first", evaluation=found["evaluation"])
    said = checked(first)
    assert "others@v1 0.92 (out-of-fold, 300 rows), points@v1 0.9" in said
    assert "NOT THE FIRST" not in said
    assert document(first)["before"] == []
    assert ask(decided)["state"] == "applied"  # a caller names the other one
    second = export(decided, tmp_path / "second")
    assert second.candidate == "points@v1"
    assert "NOT THE FIRST: others@v1 comes before points@v1 and passes, too" in checked(second)
    members = verify_evidence.members_of(second.bundle.read_bytes())
    body = json.loads(members.pop(verify_evidence.DOCUMENT))
    members.pop(verify_evidence.SIGNATURE)
    body["report"]["order"].reverse()
    second.bundle.write_bytes(evidence_bundle.pack(body, members, evidence_key.evidence_key(decided.identity)))
    assert "not in the order of what validation examples say" in checked(second, code=1)
