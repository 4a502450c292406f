"""The program that strangers check bundles with: right about signatures, and fooled by no tampered bundle."""

from __future__ import annotations

import argparse
import ast
import copy
import io
import json
import random
import struct
import subprocess
import sys
import warnings
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from hypothesis import given
from hypothesis import strategies as st

from speciate.governance.evidence_key import EvidenceKey
from speciate.promotion import evidence_bundle, verify_evidence
from speciate.promotion.verify_evidence import DOCUMENT, SIGNATURE, is_signed, layout, members_of

SCRIPT = Path(verify_evidence.__file__)
OWNER, STRANGER = (EvidenceKey(Ed25519PrivateKey.from_private_bytes(bytes([each]) * 32)) for each in (1, 2))
KEY = verify_evidence.fingerprint(OWNER.public)
NAME = "reading.reader-v2.qqqqqqqqqqqq.20270115T080000Z.evidence.zip"

# Signatures: RFC 8032, section 7.1. Public key, message, signature.
VECTORS = [
    (
        "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a",
        "",
        "e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e065224901555fb8821590a33bacc61e39701cf9b46bd25bf5f0595bbe"
        "24655141438e7a100b",
    ),
    (
        "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c",
        "72",
        "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da085ac1e43e15996e458f3613d0f11d8c387b2eaeb4302a"
        "eeb00d291612bb0c00",
    ),
    (
        "fc51cd8e6218a1a38da47ed00230f0580816ed13ba3303ac5deb911548908025",
        "af82",
        "6291d657deec24024827e69c3abe01a30ce548a284743a445e3680d7db5ac3ac18ff9b538d16f290ae67f760984dc6594a7c15e9716ed2"
        "8dc027beceea1ec40a",
    ),
    (
        "ec172b93ad5e563bf4932c70e1245034c35467ef2efd4d64ebf819683467e2bf",
        "ddaf35a193617abacc417349ae20413112e6fa4e89a97ea20a9eeee64b55d39a2192992a274fc1a836ba3c23a3feebbd454d4423643ce8"
        "0e2a9ac94fa54ca49f",
        "dc2a4459e7369633a52b1bf277839a00201009a3efbf3ecb69bea2186c26b58909351fc9ac90b3ecfdfbc7c66431e0303dca179c138ac1"
        "7ad9bef1177331a704",
    ),
]
ORDER = 2**252 + 27742317777372353535851937790883648493


@pytest.mark.parametrize(("public", "message", "signature"), VECTORS)
def test_the_vectors_of_the_rfc(public: str, message: str, signature: str) -> None:
    given_ = [bytes.fromhex(each) for each in (public, message, signature)]
    assert is_signed(*given_)
    for place in range(3):
        changed = [bytearray(each) for each in given_]
        changed[place] = changed[place] or bytearray(b"\0")
        changed[place][0] ^= 1
        assert not is_signed(*map(bytes, changed))


@given(st.binary(min_size=32, max_size=32), st.binary(max_size=80), st.integers(0, 511))
def test_signatures_are_judged_as_by_the_library(seed: bytes, message: bytes, bit: int) -> None:
    private = Ed25519PrivateKey.from_private_bytes(seed)
    public, signature = private.public_key().public_bytes_raw(), bytearray(private.sign(message))
    assert is_signed(public, message, bytes(signature))
    signature[bit // 8] ^= 1 << bit % 8
    with pytest.raises(InvalidSignature):
        Ed25519PublicKey.from_public_bytes(public).verify(bytes(signature), message)
    assert not is_signed(public, message, bytes(signature))


def test_one_signature_has_one_encoding_and_weak_keys_sign_nothing() -> None:
    signature = OWNER.private.sign(b"words")
    larger = int.from_bytes(signature[32:], "little") + ORDER
    assert not is_signed(OWNER.public, b"words", signature[:32] + larger.to_bytes(32, "little"))
    neutral = (1).to_bytes(32, "little")
    assert not is_signed(neutral, b"words", neutral + bytes(32))
    beyond = (2**255 - 18).to_bytes(32, "little")  # 1, written as p + 1
    assert not is_signed(beyond, b"words", neutral + bytes(32))
    assert not is_signed(b"", b"words", signature)
    assert not is_signed(OWNER.public, b"words", signature[:-1])


# Bundles, made by hand


def _row(model: str, value: float, interval: tuple[float, float], usd: float) -> dict[str, Any]:
    measured = {"value": value, "interval": list(interval), "n": 400}
    return {
        "model": model, "coverage": 1.0, "seen": 0, "nearly_seen": 0, "usd_per_1k": usd, "usd_interval": None,
        "p95_ms": 5.0, "p95_interval": [4.0, 6.0], "busy": 0.0, "parameters": 10, "memory_mb": None,
        "control": {"license": "MIT", "offline": True}, "metrics": {"accuracy": measured},
    }  # fmt: skip


GATES = [
    {"rule": "reaches", "metric": None, "value": 0.8, "column": None},
    {"rule": "unseen", "metric": None, "value": None, "column": None},
    {"rule": "not_worse", "metric": None, "value": None, "column": None},
    {"rule": "better_if_dearer", "metric": None, "value": None, "column": None},
    {"rule": "at_most", "metric": "p95_latency_ms", "value": 50.0, "column": None},
    {"rule": "license", "metric": None, "value": None, "column": None},
]


def bundle(tmp_path: Path, change: Callable[[dict[str, Any]], None] = lambda body: None, **names: Any) -> Path:
    """A signed bundle, written; `change` edits what the owner signs. `names`: key, name."""
    row = {
        "seq": 1, "stamp": 5.5, "actor": "ann", "action": "promote", "use_case": "reading", "before": None,
        "after": "reader@v2", "evidence": json.dumps({"approved_by": "ann", "asked_by": "bot", "decision": "d-1"}),
        "previous_hash": "0" * 64,
    }  # fmt: skip
    row["hash"] = verify_evidence.row_digest(row)
    rows = [[f"{number:064x}", f"{number + 7:064x}"] for number in range(5)]
    judged = "".join(f"{'a' * 64} {example} {said}\n" for example, said in rows)
    files = {"weights.bin": "b" * 64}
    model_id = verify_evidence.hashlib.sha256(json.dumps(files, indent=1, sort_keys=True).encode()).hexdigest()
    body: dict[str, Any] = {
        "format": "speciate-evidence", "format_version": 1, "name": NAME, "made": 1.0, "workspace": "0" * 32,
        "key": {"algorithm": "ed25519", "public": OWNER.public.hex()}, "software": {"speciate": "0.2.0"},
        "use_case": {
            "name": "reading", "version": 1, "gates": GATES,
            "definition": {
                "task": "text-classification", "objective": {"metric": "accuracy", "target": 0.8},
                "limits": {"licenses": ["mit"]},
            },
        },
        "policy": {"now": "person", "then": "person", "from": "row 1"},
        "decision": {
            "id": "d-1", "created": 4.0, "verdict": "promote", "candidate": "reader@v2", "baseline": "reader@v1",
            "n": 400, "dataset": "books@v1:test", "earlier_candidates": 0, "looks": 0, "level": 0.95, "reasons": [],
            "suite": "core", "gates": [{"gate": each, "outcome": "pass", "reason": "so"} for each in GATES],
        },
        "report": {
            "metric": "accuracy",
            "leaderboard": [_row("reader@v1", 0.85, (0.8, 0.88), 1.0), _row("reader@v2", 0.9, (0.87, 0.93), 0.5)],
            "comparisons": [
                {"metric": "accuracy", "baseline": "reader@v1", "candidate": "reader@v2", "interval": [0.01, 0.09]}
            ],
        },
        "metrics": {"accuracy": {"better": "higher", "bounded": True}}, "further": [],
        "production": {"row": 1, "stamp": 5.5}, "approvals": [], "parties": [], "keys": [], "data": [],
        "judged": [
            {
                "role": "core", "dataset": "books@v1:test", "member": "judged-core.txt", "rows": 5, "state": "there",
                "suite": verify_evidence.suite_id(rows),
            }
        ],
        "model": {"ref": "reader@v2", "method": "lora", "id": model_id, "files": files},
        "audit": {"rows": 1, "head": row["hash"], "withheld": 0},
    }  # fmt: skip
    change(body)
    members = {"README.txt": b"read me", "audit.jsonl": json.dumps(row).encode() + b"\n"}
    members["judged-core.txt"] = judged.encode()
    path = tmp_path / names.get("name", NAME)
    path.write_bytes(evidence_bundle.pack(body, members, names.get("key", OWNER)))
    return path


def check(path: Path, key: str | None = KEY, **more: Any) -> tuple[int, str]:
    asked = {"use_case": None, "candidate": None, "decision": None, "model": None, "rows": None, "data": None} | more
    said: list[str] = []
    code = verify_evidence.report(argparse.Namespace(bundle=path, key=key, **asked), said.append)
    return code, "".join(said)


def refuse(path: Path, key: str | None = KEY, **more: Any) -> str:
    code, said = check(path, key, **more)
    assert (code, said.count("\n")) == (1, 1), said
    assert said.startswith("NOT ACCEPTED: ")
    return said


def test_a_whole_bundle_is_accepted_and_told(tmp_path: Path) -> None:
    code, said = check(bundle(tmp_path))
    assert code == 0
    assert "PROMOTE reader@v2 over reader@v1, on 400 rows of books@v1:test" in said
    assert said.count("[recomputed]") == len(GATES)
    assert said.endswith("the key is the one that you named.\n")
    code, said = check(bundle(tmp_path), key=None)
    assert (code, "SIGNER UNKNOWN" in said) == (3, True)


def test_it_is_a_zip_that_others_open(tmp_path: Path) -> None:
    with zipfile.ZipFile(bundle(tmp_path)) as opened:
        assert opened.testzip() is None
        assert json.loads(opened.read(DOCUMENT))["decision"]["id"] == "d-1"


def test_the_script_runs_alone_in_a_bare_python(tmp_path: Path) -> None:
    path = bundle(tmp_path)
    command = [sys.executable, "-I", str(SCRIPT), str(path), "--key", KEY.upper()]
    ran = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path, env={})
    assert (ran.returncode, ran.stderr) == (0, "")
    path.write_bytes(path.read_bytes()[:-1])
    ran = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path, env={})
    assert (ran.returncode, ran.stderr, ran.stdout[:13]) == (1, "", "NOT ACCEPTED:")


def test_the_script_needs_nothing_newer_than_python_3_9() -> None:
    tree = ast.parse(SCRIPT.read_text(), feature_version=(3, 9))
    found = {
        name.partition(".")[0]
        for node in ast.walk(tree)
        for name in ([a.name for a in node.names] if isinstance(node, ast.Import) else [getattr(node, "module", None)])
        if name and isinstance(node, ast.Import | ast.ImportFrom)
    }
    assert found <= sys.stdlib_module_names
    assert not any(isinstance(node, ast.Match) for node in ast.walk(tree))
    assert "strict=" not in SCRIPT.read_text()
    assert "file_digest" not in SCRIPT.read_text()


# What an owner may have signed and does not hold


def _outcome(number: int, outcome: str) -> Callable[[dict[str, Any]], None]:
    def change(body: dict[str, Any]) -> None:
        body["decision"]["gates"][number]["outcome"] = outcome

    return change


def _set(*path: Any, to: Any) -> Callable[[dict[str, Any]], None]:
    def change(body: dict[str, Any]) -> None:
        for name in path[:-1]:
            body = body[name]
        body[path[-1]] = to

    return change


@pytest.mark.parametrize("number", range(len(GATES)))
def test_what_a_gate_says_in_words_is_never_shown_as_checked(tmp_path: Path, number: int) -> None:
    """The owner's key signs any sentence; the figures that a reader sees come from the intervals."""
    claim = "accuracy is 0.999 (0.998 to 1), 7 USD, MIT-0"
    code, said = check(bundle(tmp_path, _set("decision", "gates", number, "reason", to=claim)))
    assert code == 0
    (line,) = [each for each in said.splitlines() if claim in each]
    assert line.strip() == f"its own words, NOT CHECKED: {claim}"
    checked = [each for each in said.splitlines() if each.endswith("[recomputed]")]
    assert [each.split()[1].rstrip(":") for each in checked] == [gate["rule"] for gate in GATES]
    for figures in ("accuracy 0.9 (0.87 to 0.93); asked for 0.8", "0.01 to 0.09", "5 (4 to 6); at most 50", "is MIT"):
        assert any(figures in each for each in checked), figures


LIES: dict[str, tuple[Callable[[dict[str, Any]], None], str]] = {
    "the target was not reached": (
        _set("report", "leaderboard", 1, "metrics", "accuracy", "interval", to=[0.7, 0.93]), "gate reaches",
    ),
    "it was worse": (_set("report", "comparisons", 0, "interval", to=[-0.2, 0.02]), "gate not_worse"),
    "it had seen the rows": (_set("report", "leaderboard", 1, "seen", to=3), "gate unseen"),
    "too slow": (_set("report", "leaderboard", 1, "p95_interval", to=[40.0, 60.0]), "gate at_most"),
    "another licence": (_set("report", "leaderboard", 1, "control", "license", to="GPL-3.0-only"), "gate license"),
    "a gate failed": (_outcome(2, "fail"), "gate not_worse"),
    "a gate was left out": (_set("decision", "gates", to=[]), "was required"),
    "a lower target": (_set("decision", "gates", 0, "gate", to={**GATES[0], "value": 0.5}), "was required"),
    "unanswered": (_set("report", "leaderboard", 1, "coverage", to=0.9), "without an answer"),
    "another model serves": (_set("decision", "candidate", to="reader@v1"), "another model"),
    "another decision": (_set("decision", "id", to="d-2"), "another decision"),
    "rows were left out": (_set("judged", 0, "rows", to=4), "judged-core.txt"),
    "other rows": (_set("judged", 0, "suite", to="suite-0"), "judged-core.txt"),
    "other weights": (_set("model", "files", to={"weights.bin": "c" * 64}), "the model's files"),
    "the trail goes on": (_set("audit", "head", to="1" * 64), "does not end"),
    "an approval that nobody gave": (
        _set("approvals", to=[{"id": "a-1", "state": "approved", "row": 1}]), "about a-1",
    ),
    "no document": (lambda body: body.clear(), "format"),
    "a value of another kind": (_set("decision", "gates", to=3), "does not say"),
}  # fmt: skip


@pytest.mark.parametrize("lie", LIES)
def test_what_the_right_key_signed_must_hold_in_itself(tmp_path: Path, lie: str) -> None:
    change, why = LIES[lie]
    assert why in refuse(bundle(tmp_path, change))


# The order in which candidates could go forward


def _said(model: str, value: float, n: int, error: float) -> dict[str, Any]:
    return {"model": model, "value": value, "standard_error": error, "n": n, "how": "out-of-fold", "optimistic": False}


def _ordered(body: dict[str, Any]) -> None:
    """reader@v3 comes first and fails by its target; reader@v4, known from few rows, comes last."""
    report, decision = body["report"], body["decision"]
    report["candidate"] = "reader@v2"
    report["order"] = [
        _said("reader@v3", 0.93, 400, 0.01), _said("reader@v2", 0.91, 400, 0.01), _said("reader@v4", 0.95, 80, 0.05),
    ]  # fmt: skip
    rows = report["leaderboard"]
    rows += [_row("reader@v3", 0.81, (0.78, 0.84), 2.0), _row("reader@v4", 0.9, (0.87, 0.93), 2.0)]
    failed = copy.deepcopy(decision) | {"id": "d-3", "candidate": "reader@v3", "verdict": "inconclusive"}
    failed["gates"][0]["outcome"] = failed["gates"][3]["outcome"] = "inconclusive"
    compared = {"metric": "accuracy", "baseline": "reader@v1", "candidate": "reader@v3", "interval": [-0.01, 0.05]}
    body["before"] = [{"decision": failed, "comparisons": [compared]}]


def _order(change: Callable[[dict[str, Any]], None]) -> Callable[[dict[str, Any]], None]:
    return lambda body: (_ordered(body), change(body))[1]


def _first_passes(body: dict[str, Any]) -> None:
    """By its intervals, and as it is recorded."""
    body["report"]["leaderboard"][2]["metrics"]["accuracy"]["interval"] = [0.85, 0.95]
    (first,) = body["before"]
    first["comparisons"][0]["interval"] = [0.01, 0.09]
    for result in first["decision"]["gates"]:
        result["outcome"] = "pass"
    first["decision"]["verdict"] = "promote"


def _hidden_pass(body: dict[str, Any]) -> None:
    _first_passes(body)
    body["before"][0]["decision"]["verdict"] = "hold"


def _invented_failure(body: dict[str, Any]) -> None:
    _first_passes(body)
    body["before"][0]["decision"]["verdict"] = "hold"
    body["before"][0]["decision"]["gates"][0]["outcome"] = "fail"


def _left_out(body: dict[str, Any]) -> None:
    del body["report"]["order"][0]
    body["before"] = []


ORDER_LIES: dict[str, tuple[Callable[[dict[str, Any]], None], str]] = {
    "exchanged": (lambda body: body["report"]["order"].insert(0, body["report"]["order"].pop(1)), "not in the order"),
    "a value was raised": (_set("report", "order", 1, "value", to=0.99), "not in the order"),
    "few rows count as many": (_set("report", "order", 2, "n", to=400), "not in the order"),
    "more rows are claimed": (_set("report", "order", 2, "n", to=500), "not in the order"),
    "the first was left out": (_left_out, "reader@v3 was judged, and has no place"),
    "its decision was left out": (_set("before", to=[]), "what was decided on reader@v3"),
    "the first passes": (_first_passes, "reader@v3 comes before it and passes"),
    "that it passes was hidden": (_hidden_pass, "the verdict on reader@v3 is hold"),
    "its failure was invented": (_invented_failure, "gate reaches is recorded as fail"),
    "it comes without figures": (_set("report", "order", 0, to={"model": "reader@v3"}), "does not say"),
}


def test_the_first_in_the_order_that_passes_is_told(tmp_path: Path) -> None:
    code, said = check(bundle(tmp_path, _ordered))
    assert code == 0, said
    assert "reader@v3 0.93 (out-of-fold, 400 rows), reader@v2 0.91" in said
    assert "It is the order of these figures [recomputed], which are NOT CHECKED." in said.splitlines()


def test_a_gate_that_nobody_set_says_what_it_asks(tmp_path: Path) -> None:
    def add(body: dict[str, Any]) -> None:
        free = {"rule": "free_method", "metric": None, "value": None, "column": None}
        body["decision"]["gates"].append({"gate": free, "outcome": "pass", "reason": "so"})

    code, said = check(bundle(tmp_path, add))
    assert code == 0
    (line,) = [each for each in said.splitlines() if "free_method" in each]
    assert " ".join(line.split()) == (
        "pass free_method (the nearest neighbour, which costs nothing to train, is not surely better): gain over the "
        "nearest neighbour unknown [recomputed]"
    )
    assert "Gates, as `gates` of define_use_case names them" in said


def test_a_version_that_served_in_between_is_told() -> None:
    moves = [("promote", "m@v1"), ("promote", "m@v2"), ("promote", "other@v1"), ("rollback", "m@v1")]
    rows = {
        seq: {"seq": seq, "stamp": 0.0, "action": action, "use_case": "x" if after[0] == "m" else "y", "after": after}
        for seq, (action, after) in enumerate(moves, 1)
    }
    trail = verify_evidence.Trail(rows, 0, {}, {})
    told = verify_evidence.came_back("x", "m@v1", 1, trail)
    assert told == ", with m@v2 in between; again since row 4, of 1970-01-01 00:00 UTC"
    assert verify_evidence.came_back("x", "m@v1", 4, trail) == ""


@pytest.mark.parametrize("lie", ORDER_LIES)
def test_a_tampered_order_is_found(tmp_path: Path, lie: str) -> None:
    change, why = ORDER_LIES[lie]
    assert why in refuse(bundle(tmp_path, _order(change)))


def test_who_named_another_than_the_first_is_told_so(tmp_path: Path) -> None:
    def change(body: dict[str, Any]) -> None:
        _first_passes(body)
        body["report"]["candidate"] = "reader@v3"

    code, said = check(bundle(tmp_path, _order(change)))
    assert (code, "NOT THE FIRST: reader@v3 comes before reader@v2" in said) == (0, True), said


def test_a_verdict_may_be_stricter_than_its_gates_and_never_looser(tmp_path: Path) -> None:
    assert check(bundle(tmp_path, _set("decision", "verdict", to="inconclusive")))[0] == 0
    failed = bundle(
        tmp_path, lambda body: (_outcome(1, "fail")(body), _set("report", "leaderboard", 1, "seen", to=1)(body))
    )
    assert "the verdict is promote" in refuse(failed)


def test_what_was_expected_must_be_what_it_is_about(tmp_path: Path) -> None:
    path = bundle(tmp_path)
    assert check(path, use_case="reading", candidate="reader@v2", decision="d-1")[0] == 0
    for name, value in (("use_case", "writing"), ("candidate", "reader@v3"), ("decision", "d-9")):
        assert value in refuse(path, **{name: value})


def test_model_folders_and_rows_are_compared(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "weights.bin").write_bytes(b"weights")
    digest = verify_evidence.hashlib.sha256(b"weights").hexdigest()
    files = {"weights.bin": digest}
    identity = verify_evidence.hashlib.sha256(json.dumps(files, indent=1, sort_keys=True).encode()).hexdigest()
    path = bundle(tmp_path, _set("model", to={"ref": "reader@v2", "method": "lora", "id": identity, "files": files}))
    assert "all 1 files" in check(path, model=folder)[1]
    assert "no judgement was of them" not in check(path, model=folder)[1]
    (folder / "code").mkdir()
    (folder / "code" / "evil.py").write_text("print()")
    (folder / "model.py").write_text("print()")
    assert "NOT CHECKED, as no judgement was of them: code, model.py" in check(path, model=folder)[1]
    (folder / "weights.bin").write_bytes(b"Weights")
    assert "not the file that was judged" in refuse(path, model=folder)
    (folder / "weights.bin").unlink()
    assert "no file" in refuse(path, model=folder)
    refuse(path, rows=tmp_path / "nowhere.jsonl")
    (tmp_path / "rows.jsonl").write_text('{"id": "c", "example": "a", "judged": "b"}\n')
    told = refuse(path, rows=tmp_path / "rows.jsonl")
    assert "has none of the rows that were judged, and has 1 others: it is not the file" in told
    for line in ("nonsense", '{"example": "a", "judged": "b"}', '{"id": 3, "example": "a", "judged": "b"}', "[]"):
        (tmp_path / "rows.jsonl").write_text(f"{line}\n")
        assert "line 1 of rows.jsonl is no row" in refuse(path, rows=tmp_path / "rows.jsonl")


def test_a_device_without_end_is_refused() -> None:
    with pytest.raises(verify_evidence.Refused, match="it is no file"):
        verify_evidence.read_bundle(Path("/dev/zero"), None)


# A thousand tampered bundles


def _as_zip(members: list[tuple[str, bytes]], **more: Any) -> bytes:
    """By another writer of ZIPs, which takes any names, twice if asked."""
    file = io.BytesIO()
    with warnings.catch_warnings(), zipfile.ZipFile(file, "w", more.get("method", zipfile.ZIP_STORED)) as made:
        warnings.simplefilter("ignore")  # of names that are there twice
        for name, data in members:
            made.writestr(zipfile.ZipInfo(name) if more.get("plain", True) else name, data)
    return file.getvalue()


def _mutate(value: Any, chance: random.Random) -> Any:
    """The JSON value with one leaf changed."""
    if isinstance(value, dict) and value:
        name = chance.choice(sorted(value))
        return {**value, name: _mutate(value[name], chance)}
    if isinstance(value, list) and value:
        place = chance.randrange(len(value))
        return [*value[:place], _mutate(value[place], chance), *value[place + 1 :]]
    others = [None, True, 0, -1.5, "", "other", [], {}, 10**19, "\x1b[31m", "../x"]
    return chance.choice([each for each in others if each != value or type(each) is not type(value)])


def tampered(whole: bytes, chance: random.Random) -> tuple[str, bytes]:
    """One way to change a bundle, with its name."""
    members = list(members_of(whole).items())
    names = [name for name, _ in members]
    document = json.loads(dict(members)[DOCUMENT])
    way = chance.choice(_WAYS)
    if way == "a bit":
        changed = bytearray(whole)
        changed[chance.randrange(len(whole))] ^= 1 << chance.randrange(8)
        return way, bytes(changed)
    if way == "bytes more or less":
        cut = chance.randrange(len(whole))
        return way, chance.choice([whole[:cut], whole + b"\0", whole[:cut] + b"PK\3\4" + whole[cut:], whole[cut:], b""])
    if way == "a member's bytes":
        place = chance.randrange(len(members))
        data = bytearray(members[place][1])
        data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
        return way, layout([(name, bytes(data) if i == place else old) for i, (name, old) in enumerate(members)])
    if way == "a member is gone":
        gone = chance.choice(names)
        return way, layout([each for each in members if each[0] != gone])
    if way == "a member twice":
        again = chance.choice(members)
        return way, chance.choice([layout, _as_zip])(sorted([*members, (again[0], chance.choice([again[1], b"x"]))]))
    if way == "a name":
        bad = chance.choice(
            ["../evil", "/etc/passwd", "a/b", "..", "C:\\x", "x\0y", "audit.jsonl ", "é", "verify.py", ""]
        )
        place = chance.randrange(len(members))
        renamed = [(bad if i == place else name, data) for i, (name, data) in enumerate(members)]
        try:
            return way, chance.choice([layout, _as_zip])(chance.choice([renamed, [*members, (bad, b"x")]]))
        except UnicodeEncodeError:
            return way, _as_zip(renamed)
    if way == "another layout":
        return way, _as_zip(members, method=chance.choice([zipfile.ZIP_DEFLATED, zipfile.ZIP_STORED, zipfile.ZIP_LZMA]))
    if way == "the order":
        shuffled = chance.sample(members, len(members))
        return way, layout(shuffled if shuffled != members else members[::-1])
    if way == "the document, with digests that fit":
        text = verify_evidence.canonical(_mutate(document, chance))
        return way, layout([(name, text if name == DOCUMENT else data) for name, data in members])
    if way == "written otherwise":
        text = json.dumps(document, indent=chance.choice([None, 1])).encode()
        return way, layout([(name, text if name == DOCUMENT else data) for name, data in members])
    if way == "the signature":
        signed = json.loads(dict(members)[SIGNATURE])
        field = chance.choice(sorted(signed))
        swapped = {**signed, field: chance.choice([signed["fingerprint"], "00" * 64, "", None, STRANGER.public.hex()])}
        text = verify_evidence.canonical(swapped if swapped != signed else {**signed, field: 1})
        return way, layout([(name, text if name == SIGNATURE else data) for name, data in members])
    rest = {name: data for name, data in members if name not in (DOCUMENT, SIGNATURE)}
    changed = _mutate({**document, "key": {"public": STRANGER.public.hex()}}, chance)
    return way, evidence_bundle.pack(changed if isinstance(changed, dict) else document, rest, STRANGER)


_WAYS = [
    "a bit", "a bit", "a bit", "bytes more or less", "a member's bytes", "a member is gone", "a member twice", "a name",
    "another layout", "the order", "the document, with digests that fit", "written otherwise", "the signature",
    "another key",
]  # fmt: skip


@pytest.mark.parametrize("count", [150, pytest.param(1000, marks=pytest.mark.slow)])
def test_of_a_thousand_tampered_bundles_none_is_accepted(tmp_path: Path, count: int) -> None:
    whole = bundle(tmp_path).read_bytes()
    path, chance, seen = tmp_path / NAME, random.Random(count), set()
    for _ in range(count):
        way, data = tampered(whole, chance)
        if data == whole:
            continue
        path.write_bytes(data)
        refuse(path)
        seen.add(way)
    assert seen == set(_WAYS)


def test_an_old_bundle_does_not_pass_under_a_new_name(tmp_path: Path) -> None:
    path = bundle(tmp_path)
    renamed = path.rename(tmp_path / NAME.replace("v2", "v3"))
    assert "not under this name" in refuse(renamed)


def test_without_a_known_key_a_resigned_lie_is_never_called_accepted(tmp_path: Path) -> None:
    resigned = bundle(tmp_path, _set("key", "public", to=STRANGER.public.hex()), key=STRANGER)
    code, said = check(resigned, key=None)
    assert (code, "ACCEPTED" in said) == (3, False)
    assert f"signed by the key {verify_evidence.fingerprint(STRANGER.public)}" in refuse(resigned)


def _bombs() -> Iterator[bytes]:
    yield _as_zip([(DOCUMENT, b"\0" * (40 << 20))], method=zipfile.ZIP_DEFLATED)
    head = b"PK\3\4" + struct.pack("<HHHHHIIIHH", 20, 0, 0, 0, 33, 0, 2**32 - 1, 2**32 - 1, len(DOCUMENT), 0)
    yield head + DOCUMENT.encode() + b"x"
    yield layout([(f"m{number:05}", b"") for number in range(20_000)])


def test_bombs_are_refused_before_anything_grows(tmp_path: Path) -> None:
    path = tmp_path / NAME
    for bomb in _bombs():
        path.write_bytes(bomb)
        refuse(path, key=None)
    with path.open("wb") as file:
        file.truncate(verify_evidence.MOST_BYTES + 1)
    assert "larger than" in refuse(path)


@pytest.mark.parametrize(
    "text", [b"[" * 100_000, b"1" * 100_000, b"\xff", b'{"a":NaN}', b"null", b'{"format":"speciate-evidence"}']
)
def test_documents_of_another_shape_are_a_sentence(tmp_path: Path, text: bytes) -> None:
    signature = {
        "algorithm": "ed25519", "public_key": OWNER.public.hex(), "fingerprint": KEY,
        "signature": OWNER.private.sign(verify_evidence.CONTEXT + text).hex(),
    }  # fmt: skip
    path = tmp_path / NAME
    path.write_bytes(layout([(DOCUMENT, text), (SIGNATURE, verify_evidence.canonical(signature))]))
    refuse(path)
    refuse(tmp_path / "nothing.evidence.zip")
    refuse(tmp_path)
