"""Which sandbox and which signatures hold in other processes than the daemon: the daemon's, not those of a file."""

from __future__ import annotations

import re
from pathlib import Path

from speciate import settings, worker
from speciate.jobs.engine import Engine
from speciate.jobs.folder import RunFolder
from speciate.jobs.kinds import Kinds
from speciate.settings import Settings, Trust
from speciate.workspace.workspace import Workspace
from tests.conftest import ManualClock
from tests.jobs.test_reconcile import Stage
from tests.jobs.work import KINDS

SOURCE = Path(__file__).parents[1] / "src" / "speciate"
LOOSE = 'cage = "where_possible"\n[trust]\nrequire_signature = false\n'
READERS = {
    "workspace/workspace.py",  # the daemon, whose settings are then compared with what was confirmed
    "governance/authorization.py", "server/roots.py",  # to tell what was written by hand
    "server/control/daemon_actions.py",  # to show it to the person who confirms it
    "cli/signing_commands.py",  # a person's command, which takes keys for a check that it shows
    "cli/approval_commands.py",  # to show it
    "datasets/sources/answer_log.py", "privacy/purge_logs.py", "predictions/maintenance.py",  # the retention of logs
    "settings.py",
}  # fmt: skip
RUN = """
from speciate.settings import in_force

def run(run):
    found = in_force(run.folders.root)
    trust = found.trust
    return {"cage": found.cage, "signed": trust.require_signature, "keys": [str(key) for key in trust.public_keys]}
"""


def test_a_run_has_the_sandbox_and_the_signatures_of_the_daemon_whatever_the_file_says(
    tmp_path: Path, clock: ManualClock
) -> None:
    strict = Settings(cage="required", trust=Trust(require_signature=True, public_keys=(Path("ann.pem"),)))
    workspace, stage = Workspace(tmp_path / "w", clock=clock, settings=strict), Stage()
    engine = Engine(workspace, Kinds(extra=KINDS), executor=stage)
    (workspace.folders.root / "settings.toml").write_text(LOOSE)
    job = engine.submit("work", {})
    engine.tick()
    (tmp_path / "run.py").write_text(RUN)
    folder = RunFolder(workspace.folders.runs / f"{job.id}.1")
    folder.create(stage.specs[f"{job.id}.1"] | {"entry": f"{tmp_path / 'run.py'}:run"})
    assert worker.perform(folder).kind == "ok"
    assert folder.result() == {"cage": "required", "signed": True, "keys": ["ann.pem"]}
    workspace.close()


def test_what_the_daemon_hands_over_is_of_one_workspace_and_of_nothing_but_safety(tmp_path: Path) -> None:
    for name in ("one", "other"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "settings.toml").write_text('policy = "auto"\n' + LOOSE)
    settings.hold(tmp_path / "one", settings.safety(Settings(cage="required")) | {"policy": "person"})
    found = settings.in_force(tmp_path / "one")
    assert (found.cage, found.policy) == ("required", "auto")
    assert settings.in_force(tmp_path / "other").cage == "where_possible"


def test_nobody_else_reads_the_file() -> None:
    reads = re.compile(r"^from speciate\.settings import .*\bload\b", re.MULTILINE)
    found = {path.relative_to(SOURCE).as_posix() for path in SOURCE.rglob("*.py") if reads.search(path.read_text())}
    assert found <= READERS


def test_a_file_that_changes_is_in_force_at_once_though_the_same_text_is_parsed_once(tmp_path: Path) -> None:
    file, before = tmp_path / "settings.toml", settings._parse.cache_info().hits
    for policy in ("auto", "person", "auto"):
        file.write_text(f'policy = "{policy}"\n')
        assert settings.in_force(tmp_path).policy == policy
        assert settings.in_force(tmp_path).policy == policy
    assert settings._parse.cache_info().hits >= before + 3


def test_who_changes_the_settings_changes_them_for_nobody_else(tmp_path: Path) -> None:
    (tmp_path / "settings.toml").write_text('[log.use_cases.desk]\nredact = ["email"]\n[policies]\ndesk = "auto"\n')
    settings.hold(tmp_path, settings.safety(Settings()))
    for read in (settings.load, settings.in_force):
        changed = read(tmp_path)
        changed.policies["desk"] = "person"
        changed.roots.append(Path("/"))
        changed.log.use_cases["desk"]["redact"].append("phone")
        again = read(tmp_path)
        assert (again.policies, again.roots) == ({"desk": "auto"}, [])
        assert again.log.use_cases["desk"]["redact"] == ["email"]
