"""A person with a key, and what only a person may do, done in this process as the daemon does it."""

from __future__ import annotations

from typing import Any, NamedTuple

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from speciate.governance import authorization
from speciate.governance.approval_signatures import Key, Question, public_key, statement
from speciate.server.control import dispatch
from speciate.workspace.workspace import Workspace


class Service(NamedTuple):
    """All that actions of people need of the daemon."""

    workspace: Workspace


class Signer:
    """A person whose key lies open here; `sealed_key` is tested elsewhere."""

    def __init__(self, name: str) -> None:
        self.private = Ed25519PrivateKey.generate()
        self.key: Key = public_key(name, "sealed", self.private.public_key().public_bytes_raw().hex())

    @property
    def enrollment(self) -> dict[str, Any]:
        return {"name": self.key.name, "kind": self.key.kind, "public": self.key.public}

    def answer(self, asked: dict[str, Any], **changed: Any) -> dict[str, str]:
        """The signature of a question; `changed`: of another one, which was not asked."""
        told = asked | changed
        question = Question(**told["question"])
        message = statement(told["workspace"], question, told["head"], told["challenge"], told["until"])
        return {
            "challenge": told["challenge"], "key": self.key.fingerprint, "signature": self.private.sign(message).hex(),
        }  # fmt: skip


def ask(workspace: Workspace, action: str, **request: Any) -> dict[str, Any]:
    return perform(workspace, "question", about={"action": action, **request})


def perform(workspace: Workspace, action: str, **request: Any) -> dict[str, Any]:
    return dispatch.perform(Service(workspace), {"action": action, **request})  # type: ignore[arg-type]


def do(workspace: Workspace, signer: Signer, action: str, **request: Any) -> dict[str, Any]:
    """Asked, signed and done."""
    asked = ask(workspace, action, **request)
    return perform(workspace, action, **request, signed=signer.answer(asked))


def enroll(workspace: Workspace, signer: Signer, by: Signer | None = None) -> None:
    do(workspace, by or signer, "key enroll", **signer.enrollment)


def forget(workspace: Workspace) -> None:
    """What the daemon holds in memory: as after its restart."""
    authorization._of_workspace.pop(workspace, None)
