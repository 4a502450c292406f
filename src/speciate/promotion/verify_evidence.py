"""Check a bundle of evidence: what was decided on a model, on what grounds, by whom. Offline, in any Python >= 3.9.

    python3 -I verify_evidence.py BUNDLE.zip --key FINGERPRINT [--model FOLDER] [--rows rows.jsonl] [--data FOLDER]

Ends with 0 if everything holds and --key names the key that signed; 3 if everything holds and the key was not named;
1 with one sentence if anything does not hold. Standard library alone, one file: take it from speciate's source or
package rather than from whoever gave you the bundle. Nothing of the bundle is unpacked, imported or run.

A bundle is a ZIP of stored members in one fixed layout, which is rebuilt here and compared byte by byte.
`evidence.json` is canonical JSON, holds the digest of every other member, and is what the Ed25519 signature in
`signature.json` is of. The sections: the check, step by step; the bundle; the trail; the decision; the order of
candidates; rows, model and data; the account that the reader gets; Ed25519; the command line.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import re
import struct
import sys
import time
import zlib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

CONTEXT = b"speciate-evidence-v1\0"
"""Stands before the bytes of evidence.json in what is signed: a signature for any other purpose is refused."""
FORMAT = "speciate-evidence"
DOCUMENT, SIGNATURE, AUDIT = "evidence.json", "signature.json", "audit.jsonl"
MOST_BYTES = 512 << 20
"""Most bytes of a bundle. Members are stored, not compressed, so nothing grows when it is read."""
_MOST_DOCUMENT, _MOST_SIGNATURE = 64 << 20, 4096
_NAME = re.compile(rb"[A-Za-z][A-Za-z0-9_.-]{0,79}")
_HALF = 16
_LONGEST_SHOWN = 300
_MOST_UNANSWERED = 0.02
_GENESIS = "0" * 64
RECOMPUTED = "recomputed"
"""Word for a gate whose outcome follows from the intervals that the bundle has."""
_UNREADABLE = (ValueError, TypeError, KeyError, IndexError, AttributeError, ArithmeticError, RecursionError)
"""What a document of another shape raises."""
Document = Mapping[str, Any]


class Refused(Exception):
    """One sentence: why the bundle is not accepted."""


# The check: what `main` does, step by step


def verify(path: Path, expected: argparse.Namespace) -> tuple[list[str], bool]:
    """What the bundle says, and whether --key named its key. Raises Refused."""
    document, members, signer = read_bundle(path, expected.key)
    for name, wanted in (("use case", expected.use_case), ("candidate", expected.candidate), ("id", expected.decision)):
        found = document["use_case"]["name"] if name == "use case" else document["decision"][name]
        if wanted is not None and wanted != found:
            raise Refused(f"it is about {clean(found)}, not about {clean(wanted)}.")
    trail = check_trail(document, members)
    check_promotion(document, trail)
    recomputed = check_decision(document)
    in_order = check_order(document)
    for each in document["further"]:
        check_decision({**document, **each, "use_case": {**document["use_case"], "gates": each["gates"]}})
    check_model_id(document)
    suites = list(judged_rows(document, members))
    said = [*tell(document, trail, recomputed), *in_order]
    if expected.model is not None:
        said.append(f"Checked: {check_model_folder(document, expected.model)}.")
    if expected.rows is not None:
        said.append(f"Checked: {check_rows(expected.rows, suites)}.")
    if expected.data is not None:
        said.append(f"Checked: {check_data(document, expected.data, suites)}.")
    said.append(
        f"Made {_time(document['made'])} by speciate {document['software']['speciate']}. Signed by the key {signer}."
    )
    return [clean(line) for line in said], expected.key is not None


# The bundle: a ZIP of one layout, and the signature of its document


def canonical(value: Any) -> bytes:
    """The one way to write a JSON value. Raises ValueError for a number that is not finite."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False).encode()


def fingerprint(public: bytes) -> str:
    """sha256 of the 32 bytes of a public key, in hex digits."""
    return hashlib.sha256(public).hexdigest()


def layout(members: Sequence[tuple[str, bytes]]) -> bytes:
    """A ZIP of stored members, always the same bytes for the same members."""
    body, directory = [], []
    offset = 0
    for name, data in members:
        encoded, crc = name.encode("ascii"), zlib.crc32(data)
        common = struct.pack("<HHHHHIIIHH", 20, 0, 0, 0, 33, crc, len(data), len(data), len(encoded), 0)
        body += [b"PK\3\4" + common + encoded, data]
        directory.append(
            b"PK\1\2" + struct.pack("<H", 20) + common + struct.pack("<HHHII", 0, 0, 0, 0, offset) + encoded
        )
        offset += 30 + len(encoded) + len(data)
    central = b"".join(directory)
    end = struct.pack("<4sHHHHIIH", b"PK\5\6", 0, 0, len(members), len(members), len(central), offset, 0)
    return b"".join(body) + central + end


def members_of(data: bytes) -> dict[str, bytes]:
    """The members of a bundle; refuses every byte that `layout` would not write."""
    found: list[tuple[str, bytes]] = []
    place = 0
    while data[place : place + 4] == b"PK\3\4":
        if place + 30 > len(data):
            raise Refused("the file is cut off.")
        size, length = struct.unpack_from("<I", data, place + 18)[0], struct.unpack_from("<H", data, place + 26)[0]
        begin = place + 30 + length
        name = data[place + 30 : begin]
        if not _NAME.fullmatch(name):
            raise Refused("it holds a member whose name no bundle has.")
        if begin + size > len(data):
            raise Refused("the file is cut off, or a member claims to be longer than the file.")
        found.append((name.decode("ascii"), data[begin : begin + size]))
        place = begin + size
        if len(found) > 64:
            raise Refused("it holds more members than a bundle has.")
    names = [name for name, _ in found]
    if not found or len(set(names)) < len(names) or names != sorted(names):
        raise Refused("it is no bundle of evidence: its members are not those of one, or one is there twice.")
    if layout(found) != data:
        raise Refused("it is not laid out as a bundle is: a byte outside its members was changed or added.")
    return dict(found)


def read_bundle(path: Path, key: str | None) -> tuple[Document, dict[str, bytes], str]:
    """The signed document, all members, and the fingerprint of the key. The signature is checked before the document is
    parsed."""
    try:
        if path.exists() and not path.is_file() and not path.is_dir():
            raise Refused("it is no file.")  # a device has no end
        if path.stat().st_size > MOST_BYTES:
            raise Refused(f"it is larger than {MOST_BYTES >> 20} MiB, which no bundle is.")
        members = members_of(path.read_bytes())
    except OSError as error:
        raise Refused(f"it cannot be read: {error.strerror or error}.") from error
    if DOCUMENT not in members or SIGNATURE not in members:
        raise Refused(f"it has no {DOCUMENT if DOCUMENT not in members else SIGNATURE}.")
    signer = _check_signature(members, key)
    if len(members[DOCUMENT]) > _MOST_DOCUMENT:
        raise Refused(f"{DOCUMENT} is larger than {_MOST_DOCUMENT >> 20} MiB.")
    try:
        document = _parse(members[DOCUMENT])
        whole = isinstance(document, dict) and canonical(document) == members[DOCUMENT]
        if not whole or document["format"] != FORMAT or document["format_version"] != 1:
            raise Refused(f"{DOCUMENT} is not of a format that this program knows.")
        if fingerprint(bytes.fromhex(document["key"]["public"])) != signer:
            raise Refused(f"{DOCUMENT} names another key than the one that signed it.")
        listed = {str(name): (str(each["sha256"]), each["bytes"]) for name, each in document["members"].items()}
    except _UNREADABLE as error:
        raise Refused(f"{DOCUMENT} is not of a format that this program knows.") from error
    there = {name: data for name, data in members.items() if name not in (DOCUMENT, SIGNATURE)}
    if set(listed) != set(there):
        raise Refused(f"a member is missing or was added: {', '.join(sorted(set(listed) ^ set(there)))}.")
    for name, data in there.items():
        if listed[name] != (hashlib.sha256(data).hexdigest(), len(data)):
            raise Refused(f"{name} is not what was signed.")
    if path.name != document["name"]:
        raise Refused(f"the file is called {path.name!r} and was signed as {document['name']!r}: not under this name.")
    return document, members, signer


def _check_signature(members: Mapping[str, bytes], key: str | None) -> str:
    data = members[SIGNATURE]
    try:
        if len(data) > _MOST_SIGNATURE:
            raise ValueError
        signed = _parse(data)
        if set(signed) != {"algorithm", "fingerprint", "public_key", "signature"} or canonical(signed) != data:
            raise ValueError
        public, signature = bytes.fromhex(signed["public_key"]), bytes.fromhex(signed["signature"])
        signer = fingerprint(public)
        if signed["algorithm"] != "ed25519" or signed["fingerprint"] != signer:
            raise ValueError
    except _UNREADABLE as error:
        raise Refused(f"{SIGNATURE} cannot be read.") from error
    if key is not None and key.lower().replace(":", "").replace(" ", "") != signer:
        raise Refused(f"it is signed by the key {signer}, not by the one that was named.")
    if not is_signed(public, CONTEXT + members[DOCUMENT], signature):
        raise Refused(f"the signature is not of this {DOCUMENT}: one of them was changed.")
    return signer


def _number(text: str) -> int:
    if len(text) > 20:
        raise ValueError("a number of more than 20 digits")
    return int(text)


def _constant(text: str) -> Any:
    raise ValueError(f"{text} is no JSON")


def _parse(data: bytes) -> Any:
    return json.loads(data.decode("utf-8"), parse_int=_number, parse_constant=_constant)


# The trail: rows of the audit, and who signed them


class Trail(NamedTuple):
    """What the rows of the audit say. Rows of other use cases are there as their hash alone."""

    rows: dict[int, Document]
    withheld: int
    signed: dict[int, str]
    """Number of a row -> name of the person whose signature under it was checked."""
    unchecked: dict[int, str]
    """Number of a row -> why its signature could not be checked here."""


def row_digest(row: Document) -> str:
    """Digest of a row as the workspace computes it: sha256 of the row as a JSON array, its own hash left out."""
    names = ("seq", "stamp", "actor", "action", "use_case", "before", "after", "evidence", "previous_hash")
    return hashlib.sha256(json.dumps([row[name] for name in names]).encode()).hexdigest()


def check_trail(document: Document, members: Mapping[str, bytes]) -> Trail:
    """Refuses rows that were changed, left out or signed by nobody who says so."""
    rows, hashes, withheld = {}, {0: _GENESIS}, 0
    signed, unchecked = {}, {}
    keys: dict[str, Document] = {}
    hidden = {each["row"]: each for each in document["keys"]}
    for number, line in enumerate(members[AUDIT].splitlines(), 1):
        row = _parse(line)
        if row["seq"] != number:
            raise Refused(f"row {number} of the audit is missing.")
        hashes[number] = str(row["hash"])
        if "actor" not in row:
            withheld += 1
            if number in hidden:  # an enrollment that names a place of the machine
                keys[hidden[number]["fingerprint"]] = hidden[number]
            continue
        rows[number] = row
        if row["previous_hash"] != hashes[number - 1]:
            raise Refused(f"row {number} of the audit does not follow the row before it.")
        if row_digest(row) != row["hash"]:
            raise Refused(f"row {number} of the audit was changed after it was written.")
        evidence = _parse(row["evidence"].encode())
        if row["action"] == "key_enroll":
            keys[row["after"]] = evidence
        if "signed" in evidence:
            name, why = _check_person(document, row, evidence, keys, hashes)
            if why is None:
                signed[number] = name
            else:
                unchecked[number] = why
        if row["action"] == "key_revoke":
            keys.pop(row["before"], None)
    told = document["audit"]
    last = len(hashes) - 1
    if (told["rows"], told["head"], told["withheld"]) != (last, hashes[last], withheld):
        raise Refused("the audit does not end where the bundle says.")
    return Trail(rows, withheld, signed, unchecked)


def _check_person(
    document: Document, row: Document, evidence: Document, keys: Mapping[str, Document], hashes: Mapping[int, str]
) -> tuple[str, str | None]:
    """Who signed a row; and why that cannot be told here, for keys that only OpenSSH can check."""
    signed, number = evidence["signed"], row["seq"]
    key = keys.get(signed["key"])
    if key is None:
        raise Refused(f"row {number} of the audit is signed by a key that was not enrolled then.")
    head_row, _, head = signed["head"].partition(":")
    if signed["workspace"] != document["workspace"] or hashes.get(int(head_row)) != head or int(head_row) >= number:
        raise Refused(f"row {number} of the audit was signed for another workspace or another place in the trail.")
    if row["action"] in ("approve", "deny"):
        fits = signed["decision"] == row["action"] and signed["shown"].get("id") == evidence.get("approval")
    elif row["action"] in ("promote", "canary"):
        fits = signed["decision"] == "override" and signed["shown"].get("model") == row["after"]
    else:
        fits = True
    if not fits:
        raise Refused(f"row {number} of the audit does not say what its person signed.")
    if key["kind"] != "sealed":
        return str(key["name"]), "its key is one of OpenSSH, which ssh-keygen can check and this program cannot"
    statement = {
        "workspace": signed["workspace"], "decision": signed["decision"], "action": signed["action"],
        "arguments": hashlib.sha256(canonical(signed["arguments"])).hexdigest(),
        "shown": hashlib.sha256(canonical(signed["shown"])).hexdigest(),
        "head": signed["head"], "challenge": signed["challenge"], "until": signed["until"],
    }  # fmt: skip
    message = b"speciate-approval-v1\0" + canonical(statement)
    if not is_signed(bytes.fromhex(key["public"]), message, bytes.fromhex(signed["signature"])):
        raise Refused(f"the signature of {key['name']} under row {number} of the audit does not hold.")
    return str(key["name"]), None


def check_promotion(document: Document, trail: Trail) -> None:
    """The row that let the model serve must be about this model and this decision."""
    number = document["production"]["row"] if document["production"] else None
    if number is None:
        return
    row = trail.rows.get(number)
    decision = document["decision"]
    if row is None or row["action"] != "promote" or row["use_case"] != document["use_case"]["name"]:
        raise Refused("the row of the audit that let this model serve is not there.")
    evidence = _parse(row["evidence"].encode())
    if row["after"] != decision["candidate"] or evidence.get("decision") != decision["id"]:
        raise Refused(f"row {number} of the audit is about another model or another decision.")
    for approval in document["approvals"]:
        if approval["state"] == "approved" and approval["row"] is not None:
            answer = trail.rows.get(approval["row"])
            if answer is None or _parse(answer["evidence"].encode()).get("approval") != approval["id"]:
                raise Refused(f"the row of the audit about {approval['id']} is not there.")


# The decision: each gate by the intervals that the report keeps


def check_decision(document: Document) -> dict[int, str]:
    """Number of a gate -> what became of recomputing it. Refuses an outcome that the intervals do not bear."""
    decision = document["decision"]
    gates, told = decision["gates"], {}
    judged_by = [each["gate"] for each in gates]
    for gate in document["use_case"]["gates"]:
        if gate not in judged_by and gate["rule"] not in ("fresh_rows", "free_method"):  # where they apply
            raise Refused(f"the gate {gate['rule']} was required, with the value {gate['value']}, and was not judged.")
    for number, result in enumerate(gates):
        possible = possible_outcomes(result["gate"], document)
        if possible is None:
            told[number] = "as recorded: the intervals that it rests on are not kept"
            continue
        if result["outcome"] not in possible:
            raise Refused(
                f"the gate {result['gate']['rule']} is recorded as {result['outcome']}, and by its intervals it is "
                f"{' or '.join(sorted(possible))}."
            )
        told[number] = RECOMPUTED
    _check_verdict(document, [str(result["outcome"]) for result in gates])
    return told


def _check_verdict(document: Document, outcomes: Sequence[str]) -> None:
    decision, row = document["decision"], _candidate_row(document)
    verdict = "hold" if "fail" in outcomes else "inconclusive" if "inconclusive" in outcomes else "promote"
    if decision["verdict"] == "promote" and (verdict != "promote" or not outcomes):
        raise Refused(f"the verdict is promote, and by its gates it is {verdict if outcomes else 'nothing'}.")
    if decision["verdict"] == "promote" and row["coverage"] < 1 - _MOST_UNANSWERED:
        raise Refused("the verdict is promote, and the model left too many examples without an answer.")
    stricter = {
        "promote": ("promote", "inconclusive", "hold"),
        "inconclusive": ("inconclusive", "hold"),
        "hold": ("hold",),
    }
    if decision["verdict"] not in stricter[verdict]:
        raise Refused(f"the verdict is {decision['verdict']}, and by its gates it is {verdict}.")


def possible_outcomes(gate: Document, document: Document) -> set[str] | None:
    """What the kept intervals allow; None where the gate rests on others. With several candidates a gate looked at
    wider intervals than those that are kept, so it may be inconclusive where they are not."""
    rule = gate["rule"]
    found = _OUTCOMES[rule](gate, document) if rule in _OUTCOMES else None
    if not found:
        return None
    quality = rule in ("reaches", "not_worse", "better", "better_if_dearer")
    wider = document["decision"]["level"] > 0.95
    return found | ({"inconclusive"} if quality and ("pass" in found or wider) else set())


def _reaches(gate: Document, document: Document) -> set[str]:
    metric = _metric_of(gate, document)
    measured = _candidate_row(document)["metrics"].get(metric)
    if measured is None or measured["interval"] is None or gate["value"] is None:
        return {"inconclusive"}
    low, high = _turned(measured["interval"], metric, document)
    target = gate["value"] if _is_higher_better(metric, document) else -gate["value"]
    return {"pass"} if low >= target else {"fail"} if high < target else {"inconclusive"}


def _not_worse(gate: Document, document: Document) -> set[str]:
    metric = _metric_of(gate, document)
    gain = _gain(metric, document)
    if gain is None:
        return {"inconclusive"}
    margin = gate["value"] if gate["value"] is not None else _margin(metric, document)
    judged = _by_gain(gain, -margin, -margin)
    may_be_worse = gain[1] < 0 and not (judged == "pass" and gate["value"] is not None)
    return {judged, "fail"} if may_be_worse else {judged}


def _better(gate: Document, document: Document) -> set[str]:
    gain, least = _gain(_metric_of(gate, document), document), gate["value"] or 0.0
    return {"inconclusive"} if gain is None else {_by_gain(gain, least, least)}


def _better_if_dearer(gate: Document, document: Document) -> set[str]:
    """Which of two is dearer rests on costs by turns, which are not kept: what costs no more by its number may pass."""
    metric = _metric_of(gate, document)
    decision, gain = document["decision"], _gain(metric, document)
    least = gate["value"] or 0.0
    by_gain = "inconclusive" if gain is None else _by_gain(gain, least, max(least, _margin(metric, document)))
    constant = decision["baseline"] == "constant:"
    mine, theirs = (_row(document, decision[each])["usd_per_1k"] for each in ("candidate", "baseline"))
    blocked = {"fail"} if "costs less" in " ".join(decision["reasons"]) else set()  # by another candidate of this run
    if not constant and mine is not None and theirs is not None and mine <= theirs:
        return {"pass"} | blocked
    return {by_gain} | blocked | (set() if constant else {"pass"})


def _at_most(gate: Document, document: Document) -> set[str]:
    row, most, name = _candidate_row(document), gate["value"], gate["metric"]
    value = row["p95_ms" if name == "p95_latency_ms" else name]
    if value is None or most is None:
        return {"inconclusive"}
    if name == "p95_latency_ms":
        if row["p95_interval"] is None:
            return {"inconclusive"}
        low, high = row["p95_interval"]
        busy = row["busy"] is not None and row["busy"] > 0.025
        return {"pass"} if high <= most else {"inconclusive"} if low <= most or busy else {"fail"}
    if name == "usd_per_1k" and row["usd_interval"] and row["usd_interval"][0] <= most < row["usd_interval"][1]:
        return {"inconclusive"}
    return {"pass"} if value <= most else {"fail"}


def _license(gate: Document, document: Document) -> set[str]:
    allowed = {str(name).lower() for name in document["use_case"]["definition"]["limits"]["licenses"]}
    control = _candidate_row(document)["control"]
    found, of_weights = control["license"], control.get("weights_license")
    fits = found is not None and found.lower() in allowed and (of_weights is None or of_weights.lower() in allowed)
    return {"pass"} if fits else {"fail"}


def _offline(gate: Document, document: Document) -> set[str]:
    return {"pass"} if _candidate_row(document)["control"]["offline"] else {"fail"}


def _unseen(gate: Document, document: Document) -> set[str]:
    row = _candidate_row(document)
    if row["seen"] is None and row.get("training_data") is not None:
        return {{"refuse": "fail", "accept": "pass"}.get(gate.get("if_unknown") or "ask", "not_known")}
    if row["seen"] is None:
        return {"inconclusive"}
    return {"fail"} if row["seen"] or row["nearly_seen"] else {"pass"}


def _free_method(gate: Document, document: Document) -> set[str]:
    """Fails where the nearest neighbour is surely better, on enough independent units and by wider intervals."""
    known = [row["model"] for row in document["report"]["leaderboard"] if row["model"].startswith("nearest:")]
    gain = _gain(document["report"]["metric"], document, known[0]) if known else None
    # inconclusive: fitted on other data than the model learned from
    return {"pass", "fail", "inconclusive"} if gain is not None and gain[1] < 0 else {"pass", "inconclusive"}


def _consent(gate: Document, document: Document) -> set[str]:
    known = _candidate_row(document).get("without_consent")
    if known is None:
        return {{"ask": "not_known", "accept": "pass"}.get(gate.get("if_unknown") or "refuse", "fail")}
    return {"pass"} if known.get(gate["column"]) == 0 else {"fail"}


_OUTCOMES = {
    "reaches": _reaches, "not_worse": _not_worse, "better": _better, "better_if_dearer": _better_if_dearer,
    "at_most": _at_most, "license": _license, "offline": _offline, "unseen": _unseen, "free_method": _free_method,
    "consent": _consent,
}  # fmt: skip
"""`no_slice_worse` and `fresh_rows` rest on intervals that no report keeps."""


def _row(document: Document, model: str) -> Document:
    return next(row for row in document["report"]["leaderboard"] if row["model"] == model)


def _candidate_row(document: Document) -> Document:
    return _row(document, document["decision"]["candidate"])


def _metric_of(gate: Document, document: Document) -> str:
    """The gate's own, else the one that the report is by."""
    return str(gate["metric"] or document["report"]["metric"])


def _is_higher_better(metric: str, document: Document) -> bool:
    return bool(document["metrics"][metric]["better"] == "higher")


def _turned(interval: Sequence[float], metric: str, document: Document) -> tuple[float, float]:
    """The interval with the sign that makes better greater."""
    low, high = interval
    return (low, high) if _is_higher_better(metric, document) else (-high, -low)


def _gain(metric: str, document: Document, over: str | None = None) -> tuple[float, float] | None:
    """Interval of the candidate's gain over the baseline, or over another model; None where none is kept."""
    decision = document["decision"]
    pair = (over or decision["baseline"], decision["candidate"])
    for each in document["report"]["comparisons"]:
        if each["metric"] != metric or each["interval"] is None:
            continue
        low, high = each["interval"]
        if (each["baseline"], each["candidate"]) == pair:
            return _turned((low, high), metric, document)
        if (each["candidate"], each["baseline"]) == pair:
            return _turned((-high, -low), metric, document)
    return None


def _margin(metric: str, document: Document) -> float:
    measured = _row(document, document["decision"]["baseline"])["metrics"].get(metric)
    if document["metrics"][metric]["bounded"] or measured is None or measured["value"] is None:
        return 0.02
    return float(0.05 * abs(measured["value"]))


def _by_gain(gain: tuple[float, float], least: float, worth: float) -> str:
    return "pass" if gain[0] > least else "fail" if gain[1] <= least or gain[1] < worth else "inconclusive"


# The order: which candidate could go forward first


def check_order(document: Document) -> list[str]:
    """What is to be told of the order in which candidates could go forward; empty where none was fixed.

    Refuses one that is not the order of its own figures, and a candidate that was put forward though one before it
    passes. That the figures were there before the test rows were looked at, nothing here can show.
    """
    report, decision = document["report"], document["decision"]
    order, candidate = report.get("order") or [], decision["candidate"]
    if not order:
        return []
    names = [each["model"] for each in order]
    most, higher = max(each["n"] for each in order), _is_higher_better(report["metric"], document)
    if names != [each["model"] for each in sorted(order, key=lambda each: -_standing(each, most, higher))]:
        raise Refused("the candidates are not in the order of what validation examples say of them.")
    judged = [row["model"] for row in report["leaderboard"] if ":" not in row["model"]]
    if left_out := sorted(set(judged) - {*names, decision["baseline"]}):
        raise Refused(f"{', '.join(left_out)} was judged, and has no place in the order of the candidates.")
    told = {each["decision"]["candidate"]: each for each in document["before"]}
    passing = []
    for name in names[: names.index(candidate)] if candidate in names else names:
        if name == decision["baseline"]:
            continue
        if name not in told:
            raise Refused(f"what was decided on {name}, which comes before {candidate}, is not there.")
        if _passes(told[name], document):
            passing.append(name)
    if passing and report["candidate"] == candidate:
        raise Refused(f"{candidate} was put forward, and {passing[0]} comes before it and passes, too.")
    shown = ", ".join(f"{each['model']} {_shown(each['value'])} ({each['how']}, {each['n']} rows)" for each in order)
    said = [
        f"The best was to go forward, in an order by validation examples: {shown}.",
        f"It is the order of these figures [{RECOMPUTED}], which are NOT CHECKED.",
    ]
    if passing:
        said.append(f"NOT THE FIRST: {', '.join(passing)} comes before {candidate} and passes, too. Somebody named it.")
    return said


def _standing(evidence: Document, most: int, higher: bool) -> float:
    """A value, less one standard error where it was measured on fewer rows, or is optimistic."""
    if evidence["value"] is None:
        return float("-inf")
    value = evidence["value"] if higher else -evidence["value"]
    if not evidence["optimistic"] and evidence["n"] >= most:
        return float(value)
    error = evidence["standard_error"]
    return float("-inf") if error is None else float(value - error)


def _passes(told: Document, document: Document) -> bool:
    """Whether an earlier candidate passes. Refuses a verdict that its gates do not bear, a stricter one as well."""
    report = {**document["report"], "comparisons": told["comparisons"]}
    decision = told["decision"]
    check_decision({**document, "decision": decision, "report": report})
    if decision["verdict"] == "promote":
        return True
    unanswered = _row(document, decision["candidate"])["coverage"] < 1 - _MOST_UNANSWERED
    doubts = [result for result in decision["gates"] if result["outcome"] in ("fail", "inconclusive")]
    if not doubts and not unanswered and decision.get("same_model") is None:
        overtaken = document["decision"]["verdict"] != "promote"  # then all of this evaluation are
        if not overtaken:
            raise Refused(f"the verdict on {decision['candidate']} is {decision['verdict']}, and all its gates pass.")
    return False


# Rows, model and data, if the reader has them


def suite_id(rows: Sequence[Sequence[str]]) -> str:
    """Id of the suite of rows [..., digest of the example, digest of the row], as the workspace calls it."""
    packed = b"".join(sorted(bytes.fromhex(row[-2][:_HALF] + row[-1][:_HALF]) for row in rows))
    return f"suite-{hashlib.sha256(packed).hexdigest()[:24]}"


def judged_rows(document: Document, members: Mapping[str, bytes]) -> Iterator[tuple[Document, list[list[str]]]]:
    """Each suite with its rows; refuses rows that are not those of the suite."""
    for suite in document["judged"]:
        if suite["member"] is None:
            continue
        rows = [line.decode("ascii").split(" ") for line in members[suite["member"]].splitlines()]
        if len(rows) != suite["rows"] or suite_id(rows) != suite["suite"]:
            raise Refused(f"the rows in {suite['member']} are not those that were judged.")
        yield suite, rows


def check_model_id(document: Document) -> None:
    model = document["model"]
    if model["files"] is None:
        return
    text = json.dumps(model["files"], indent=1, sort_keys=True)
    if hashlib.sha256(text.encode()).hexdigest() != model["id"]:
        raise Refused("the list of the model's files is not the one that its id is of.")


def check_model_folder(document: Document, folder: Path) -> str:
    """Hash every file that the manifest lists. What else lies there (a card, a program) is named."""
    files = document["model"]["files"]
    for name, wanted in sorted(files.items()):
        place = folder / name
        if name == "README.md" and (folder / "README.publisher.md").is_file():
            place = folder / "README.publisher.md"
        if not re.fullmatch(r"[^/\\\0]{1,255}", name) or name in (".", "..") or not place.is_file():
            raise Refused(f"the folder has no file {name!r}, which the model has.")
        if _sha256_of(place) != wanted:
            raise Refused(f"{name!r} in the folder is not the file that was judged.")
    there = {path.relative_to(folder).parts[0] for path in folder.rglob("*") if not path.is_dir() or path.is_symlink()}
    others = sorted(there - set(files))
    more = f"; NOT CHECKED, as no judgement was of them: {', '.join(others[:8])}" if others else ""
    more += f" and {len(others) - 8} more" if len(others) > 8 else ""
    return f"all {len(files)} files of the model are in the folder as they were judged{more}"


def check_rows(path: Path, suites: Sequence[tuple[Document, list[list[str]]]]) -> str:
    """What the digests of the core suite are of, as it was exported beside the bundle."""
    wanted = Counter(tuple(row) for suite, rows in suites if suite["role"] == "core" for row in rows)
    found: Counter[tuple[str, ...]] = Counter()
    names = ("id", "example", "judged") if any(len(row) > 2 for row in wanted) else ("example", "judged")
    half = any(len(row[0]) == _HALF for row in wanted)
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            try:
                row = _parse(line)
                texts = [row[name].encode("utf-8", "surrogatepass") for name in names]
            except _UNREADABLE as error:
                raise Refused(f"line {number} of {path.name} is no row with {', '.join(names)}.") from error
            digests = [hashlib.sha256(text).hexdigest() for text in texts]
            found[tuple(each[:_HALF] for each in digests) if half else tuple(digests)] += 1
    if found != wanted:
        lacking, other = sum((wanted - found).values()), sum((found - wanted).values())
        lost = "has none" if lacking == sum(wanted.values()) else f"lacks {lacking}"
        raise Refused(
            f"{path.name} {lost} of the rows that were judged, and has {other} others: it is not the file that was "
            "exported with this bundle."
        )
    return f"the {sum(found.values())} rows in {path.name} are exactly those that were judged"


def check_data(document: Document, folder: Path, suites: Sequence[tuple[Document, list[list[str]]]]) -> str:
    """How many of the judged examples are in an export: as files, or as lines of JSON."""
    inputs: Sequence[str] = next((each["inputs"] for each in document["data"] if not each["deleted"]), [])
    there = set()
    for path in sorted(folder.rglob("*")):
        if path.is_symlink() or not path.is_file():
            continue
        there |= set(_line_contents(path, inputs)) if path.suffix == ".jsonl" else {_sha256_of(path)}
    wanted = {row[-2] for suite, rows in suites if suite["role"] == "core" for row in rows}
    half = any(len(each) == _HALF for each in wanted)
    examples = {hashlib.sha256(each.encode()).hexdigest()[: _HALF if half else None] for each in there}
    found = wanted & examples
    if not found:
        raise Refused(f"none of the {len(wanted)} examples that were judged is in {folder.name}.")
    return f"{len(found)} of the {len(wanted)} examples that were judged are in {folder.name}"


def _sha256_of(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        for block in iter(lambda: file.read(1 << 20), b""):
            digest.update(block)
    return digest.hexdigest()


def _line_contents(path: Path, inputs: Sequence[str]) -> Iterator[str]:
    """Digests of what a line may be as an input: the row of its input columns, one cell, several as channels, several
    texts as lines, or a text that was a file."""
    with path.open("rb") as file:
        for line in file:
            row = _parse(line)
            cells = [row.get(name) for name in inputs]
            values: list[Any] = [dict(zip(inputs, cells)), cells]  # noqa: B905 - Python 3.9
            values += cells if len(cells) == 1 else ["\n".join(str(cell) for cell in cells if cell is not None)]
            for value in values:
                yield hashlib.sha256(json.dumps(_plain(value), sort_keys=True).encode()).hexdigest()
            if isinstance(row.get("text"), str):
                yield hashlib.sha256(row["text"].encode("utf-8", "surrogatepass")).hexdigest()


def _plain(value: Any) -> Any:
    """1.0 as 1."""
    if isinstance(value, dict):
        return {name: _plain(each) for name, each in value.items()}
    if isinstance(value, list):
        return [_plain(each) for each in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value


# The account: sentences for the reader


_ALWAYS = {
    "unseen": "no test row was learned from",
    "fresh_rows": "on rows that judged others, all holds by wider intervals, too",
    "free_method": "the nearest neighbour, which costs nothing to train, is not surely better",
}
"""What gates ask that are in force without a word in `gates`."""


def tell(document: Document, trail: Trail, recomputed: Mapping[int, str]) -> Iterator[str]:
    """What was decided on what evidence, a sentence a line."""
    decision, use_case = document["decision"], document["use_case"]
    objective = use_case["definition"]["objective"]
    target = "" if objective["target"] is None else f", which must reach {objective['target']:g}"
    asked = f"{use_case['definition']['task']}, measured by {objective['metric']}{target}"
    yield f"Use case {use_case['name']}, version {use_case['version']}: {asked}."
    yield (
        f"Decision {decision['id']} of {_time(decision['created'])}: {decision['verdict'].upper()} "
        f"{decision['candidate']} over {decision['baseline']}, on {decision['n']} rows of {decision['dataset']}."
    )
    yield "Gates, as `gates` of define_use_case names them; those with words beside them are always asked:"
    for number, result in enumerate(decision["gates"]):
        rule = result["gate"]["rule"]
        rule += f" ({_ALWAYS[rule]})" if rule in _ALWAYS else ""
        outcome = f"  {result['outcome']:12}"
        if recomputed[number] == RECOMPUTED:
            yield f"{outcome} {rule}: {figures(result['gate'], document)} [{RECOMPUTED}]"
            yield f"{'':15}its own words, NOT CHECKED: {result['reason']}"
        else:
            yield f"{outcome} {rule}, in its own words: {result['reason']} [{recomputed[number]}]"
    yield (
        f"These rows judged {decision['earlier_candidates']} candidates before, in {decision['looks']} evaluations; "
        f"the gate fresh_rows looks at {100 * decision['level']:.5g} % intervals, and those in the report are of 95 %."
    )
    for each in document["further"]:
        further = each["decision"]
        where = f"on {further['n']} rows of {further['dataset']}"
        yield f"On the {further['suite']} suite: {further['verdict'].upper()}, {where}."
    production = document["production"]
    if production is None:
        yield "This decision is not the one that production rests on."
    else:
        since = f"row {production['row']} of the audit, of {_time(production['stamp'])}"
        back = came_back(use_case["name"], decision["candidate"], production["row"], trail)
        yield f"{decision['candidate']} serves since {since}{back}."
    policy = document["policy"]
    yield f"Policy: {policy['then']} ({policy['from']}); now: {policy['now']}."
    for party in document["parties"]:
        yield f"  {party['name']} ({party['kind']}) {party['did']}, {_time(party['stamp'])}."
    for number, name in sorted(trail.signed.items()):
        yield f"  Row {number} carries the signature of {name}, which holds."
    for number, why in sorted(trail.unchecked.items()):
        yield f"  NOT CHECKED: the signature under row {number}: {why}."
    others = f", {trail.withheld} of them about other matters and here as hashes alone" if trail.withheld else ""
    yield f"The audit has {document['audit']['rows']} rows{others}; its head is {document['audit']['head']}."
    for suite in document["judged"]:
        yield f"Suite {suite['role']}: {suite['rows']} rows of {suite['dataset']}, {suite['suite']}; {suite['state']}."
    model = document["model"]
    yield f"Model {model['ref']}, {model['method']}, id {model['id'] or 'none: others serve it'}."


def figures(gate: Document, document: Document) -> str:
    """What a gate's outcome was recomputed from, in this program's words: a bundle's own sentence may say otherwise."""
    rule, row = gate["rule"], _candidate_row(document)
    metric = _metric_of(gate, document)
    if rule == "reaches":
        measured = row["metrics"].get(metric)
        found = (
            "nothing measured" if measured is None else f"{_shown(measured['value'])}{_between(measured['interval'])}"
        )
        return f"{metric} {found}; asked for {_shown(gate['value'])}"
    if rule in ("not_worse", "better", "better_if_dearer"):
        gain = _gain(metric, document)
        found = "unknown" if gain is None else _between(gain).strip(" ()")
        if rule == "better_if_dearer":
            mine, theirs = (
                _row(document, document["decision"][each])["usd_per_1k"] for each in ("candidate", "baseline")
            )
            return f"gain in {metric} {found}; USD per 1,000 answers {_shown(mine)}, before {_shown(theirs)}"
        least = gate["value"] or 0.0
        if rule == "not_worse":
            least = -(gate["value"] if gate["value"] is not None else _margin(metric, document))
        return f"gain in {metric} {found}; asked for more than {_shown(least)}"
    if rule == "at_most":
        name = gate["metric"]
        interval = {"p95_latency_ms": row["p95_interval"], "usd_per_1k": row["usd_interval"]}.get(name)
        value = row["p95_ms" if name == "p95_latency_ms" else name]
        return f"{name} {_shown(value)}{_between(interval)}; at most {_shown(gate['value'])}"
    if rule == "license":
        return f"the licence is {row['control']['license']}"
    if rule == "offline":
        return "it runs here" if row["control"]["offline"] else "others serve it"
    if rule == "consent":
        return f"{(row.get('without_consent') or {}).get(gate['column'])} of its training rows do not say yes"
    if rule == "unseen":
        return f"{row['seen']} of the rows were learned from, {row['nearly_seen']} nearly so"
    known = [each["model"] for each in document["report"]["leaderboard"] if each["model"].startswith("nearest:")]
    gain = _gain(document["report"]["metric"], document, known[0]) if known else None
    return f"gain over the nearest neighbour {'unknown' if gain is None else _between(gain).strip(' ()')}"


def came_back(use_case: str, candidate: str, since: int, trail: Trail) -> str:
    """What is to be told where another version served after row `since`, and the candidate came back later."""
    moves = [row for number, row in sorted(trail.rows.items()) if number > since and row["use_case"] == use_case
             and row["action"] in ("promote", "rollback")]  # fmt: skip
    if not any(row["after"] != candidate for row in moves) or moves[-1]["after"] != candidate:
        return ""
    others = ", ".join(dict.fromkeys(str(row["after"] or "nothing") for row in moves if row["after"] != candidate))
    return f", with {others} in between; again since row {moves[-1]['seq']}, of {_time(moves[-1]['stamp'])}"


def clean(value: object) -> str:
    """Foreign text on one line, without what could drive a terminal."""
    text = "".join(sign if sign.isprintable() else " " for sign in str(value))
    return text if len(text) <= _LONGEST_SHOWN else f"{text[:_LONGEST_SHOWN]}..."


def _time(stamp: float | None) -> str:
    return "at an unknown time" if stamp is None else time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(stamp))


def _shown(value: Any) -> str:
    return "unknown" if value is None else f"{value:.3g}"


def _between(interval: Any) -> str:
    return "" if interval is None else f" ({interval[0]:.3g} to {interval[1]:.3g})"


# Ed25519: RFC 8032, section 5.1.7, without the cofactor, and only the one encoding of each point and scalar


def is_signed(public: bytes, message: bytes, signature: bytes) -> bool:
    """Whether this Ed25519 key signed this message. Points of small order are refused."""
    if len(public) != 32 or len(signature) != 64:
        return False
    key, commitment = _point(public), _point(signature[:32])
    scalar = int.from_bytes(signature[32:], "little")
    if key is None or commitment is None or scalar >= _L or _BASE is None:
        return False
    if _same(_multiply(8, key), _NEUTRAL) or _same(_multiply(8, commitment), _NEUTRAL):
        return False
    opposite = (_P - key[0], key[1], 1, _P - key[3])
    challenge = int.from_bytes(hashlib.sha512(signature[:32] + public + message).digest(), "little") % _L
    return _same(_multiply_both(scalar, _BASE, challenge, opposite), commitment)


_P = 2**255 - 19
_L = 2**252 + 27742317777372353535851937790883648493
_D = -121665 * pow(121666, _P - 2, _P) % _P
_ROOT = pow(2, (_P - 1) // 4, _P)
Point = tuple[int, int, int, int]  # (X, Y, Z, T) with x = X/Z, y = Y/Z, xy = T/Z
_NEUTRAL = (0, 1, 1, 0)


def _add(a: Point, b: Point) -> Point:
    e, f = (a[1] - a[0]) * (b[1] - b[0]) % _P, (a[1] + a[0]) * (b[1] + b[0]) % _P
    g, h = 2 * a[3] * b[3] * _D % _P, 2 * a[2] * b[2] % _P
    e, f, g, h = f - e, h - g, h + g, f + e
    return (e * f % _P, g * h % _P, f * g % _P, e * h % _P)


def _multiply(scalar: int, point: Point) -> Point:
    found = _NEUTRAL
    while scalar:
        if scalar & 1:
            found = _add(found, point)
        point, scalar = _add(point, point), scalar >> 1
    return found


def _multiply_both(first: int, a: Point, second: int, b: Point) -> Point:
    """first * a + second * b, by one chain of doublings (Straus)."""
    both, found = _add(a, b), _NEUTRAL
    for place in range(max(first.bit_length(), second.bit_length()) - 1, -1, -1):
        found = _add(found, found)
        bits = (first >> place & 1, second >> place & 1)
        if bits != (0, 0):
            found = _add(found, both if bits == (1, 1) else a if bits[0] else b)
    return found


def _same(a: Point, b: Point) -> bool:
    return bool((a[0] * b[2] - b[0] * a[2]) % _P == 0 and (a[1] * b[2] - b[1] * a[2]) % _P == 0)


def _point(encoded: bytes) -> Point | None:
    """None for what encodes no point, or encodes it in another way than the one."""
    y, sign = int.from_bytes(encoded, "little") & ((1 << 255) - 1), encoded[31] >> 7
    if y >= _P:
        return None
    square = (y * y - 1) * pow(_D * y * y + 1, _P - 2, _P) % _P
    x = pow(square, (_P + 3) // 8, _P)
    if (x * x - square) % _P:
        x = x * _ROOT % _P
    if (x * x - square) % _P or (x == 0 and sign):
        return None
    x = _P - x if (x & 1) != sign else x
    return (x, y, 1, x * y % _P)


_BASE = _point((4 * pow(5, _P - 2, _P) % _P).to_bytes(32, "little"))


# The command line


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="verify_evidence", description="Check a bundle of evidence, offline.")
    add_arguments(parser)
    return report(parser.parse_args(arguments), sys.stdout.write)


def report(found: argparse.Namespace, write: Any) -> int:
    try:
        said, known = verify(found.bundle, found)
    except Refused as error:
        write(f"NOT ACCEPTED: {clean(error)}\n")
        return 1
    except OSError as error:
        write(
            f"NOT ACCEPTED: {clean(error.filename or found.bundle)} cannot be read: {clean(error.strerror or error)}.\n"
        )
        return 1
    except (*_UNREADABLE, StopIteration, MemoryError) as error:
        write(f"NOT ACCEPTED: the bundle does not say what a bundle says ({type(error).__name__}).\n")
        return 1
    write("\n".join(said) + "\n")
    if known:
        write("ACCEPTED: signature, digests, audit and gates hold, and the key is the one that you named.\n")
        return 0
    write(
        "CONSISTENT, SIGNER UNKNOWN: everything holds together, but anybody can make a key. Ask the owner by another "
        "way (speciate evidence key shows it there), and repeat with --key FINGERPRINT.\n"
    )
    return 3


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--key", metavar="FINGERPRINT", help="of the key that must have signed, as its owner told you")
    parser.add_argument("--use-case", metavar="NAME", help="what it must be about")
    parser.add_argument("--candidate", metavar="MODEL@vN", help="the model that it must be about")
    parser.add_argument("--decision", metavar="ID", help="the decision that it must be")
    parser.add_argument("--model", type=Path, metavar="FOLDER", help="hash the model's files, too")
    parser.add_argument("--rows", type=Path, metavar="FILE", help="ids, references and groups, if you were given them")
    parser.add_argument("--data", type=Path, metavar="FOLDER", help="an export of the dataset")


if __name__ == "__main__":
    os.environ.pop("PYTHONPATH", None)
    sys.exit(main())
