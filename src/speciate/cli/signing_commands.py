"""`speciate sign` and `speciate verify`: a person's key under a model version, by the library model-signing.

The private key stays in this process: the daemon is asked where the version lies, and told afterwards. No tool leads
here. Nothing needs a network: keys are files, and no certificate or log of the world is asked.
"""

from __future__ import annotations

import argparse
import getpass
import os
import tempfile
from pathlib import Path
from typing import Any

from speciate.cli import confirmation
from speciate.cli.confirmation import ActionRequest, DaemonQuestion
from speciate.cli.daemon_commands import DaemonResult, ask_daemon
from speciate.cli.output import say
from speciate.environment import workspace_path
from speciate.errors import Code, SpeciateError
from speciate.models import sealed, signature
from speciate.settings import load


def sign(arguments: argparse.Namespace) -> int:
    confirmation.require_terminal()
    found = ask_daemon(arguments, "version", start=True, model=arguments.model)
    folder, ref = Path(found["folder"]), str(found["model"])
    if sealed.check(folder) != found["id"]:
        raise SpeciateError(Code.REFUSED, f"The files of {ref} are not what was registered.", "Restore them first.")
    shown = f"{ref}, {found['bytes']:,} bytes, id {found['id']}\nmade by {found['method']} from {found['base']}"
    if not confirmation.ask_yes(f"Sign exactly this with {arguments.key}?", shown):
        return 1
    write_signature(folder, Path(arguments.key))
    answer = confirmation.confirm_and_run(
        arguments, ActionRequest("signed", {"model": ref}, "Note it in the audit?", ask_yes=False), _show_signature
    )
    say(
        "The signature lies beside the files, and no row of the audit tells of it."
        if answer is None
        else _done_line(answer)
    )
    return 1 if answer is None else 0


def _show_signature(question: DaemonQuestion) -> None:
    say(f"{question.shown['model']}, id {question.shown['id']}, is signed by the key {question.shown['key'][:16]}.")


def _done_line(answer: DaemonResult) -> str:
    return f"Signed by the key {answer['key'][:16]}."


def verify_signature(arguments: argparse.Namespace) -> int:
    """Verifies a version's signature by the library, which reads every file again."""
    found = ask_daemon(arguments, "version", start=True, model=arguments.model)
    workspace = workspace_path(arguments.workspace)
    keys = [Path(arguments.key)] if arguments.key else load(workspace).trust.keys(workspace)
    folder = Path(found["folder"])
    state = signature.verify(folder, keys)
    if state.state == "valid":
        key = next(key for key in keys if signature.fingerprint(key) == state.key)
        verify_whole(folder, key)
    say(f"{found['model']}: {state.state}. {state.why}")
    return 0 if state.state == "valid" else 1


def write_signature(folder: Path, private_key: Path) -> None:
    """`model.sig` in a version's folder, whole or not at all. Raises INVALID for a key that cannot be used."""
    signing, hashing, _ = _library()
    temporary = Path(tempfile.mkdtemp(prefix=".signing.", dir=folder.parent))
    try:
        config = signing.Config().set_hashing_config(_hashed_files(hashing, folder))
        _with_key(config, private_key).sign(folder, temporary / signature.SIGNATURE)
        os.replace(temporary / signature.SIGNATURE, folder / signature.SIGNATURE)
    finally:
        for left in temporary.iterdir():
            left.unlink()
        temporary.rmdir()


def verify_whole(folder: Path, public_key: Path) -> None:
    """REFUSED where a file is not what was signed, or one is there that was not."""
    _, hashing, verifying = _library()
    config = verifying.Config().use_elliptic_key_verifier(public_key=public_key)
    try:
        config.set_hashing_config(_hashed_files(hashing, folder)).verify(folder, folder / signature.SIGNATURE)
    except ValueError as error:
        raise SpeciateError(Code.REFUSED, f"{folder} is not what was signed: {error}", "Restore its files.") from error


def _hashed_files(hashing: Any, folder: Path) -> Any:
    return hashing.Config().set_ignored_paths(paths=[folder / name for name in signature.UNSIGNED])


def _with_key(config: Any, private_key: Path) -> Any:
    if not private_key.is_file():
        raise SpeciateError(Code.NOT_FOUND, f"There is no key {private_key}.", "Name the file of a private key (PEM).")
    try:
        return config.use_elliptic_key_signer(private_key=private_key)
    except TypeError:  # it is encrypted
        password = getpass.getpass(f"Password of {private_key}: ").encode()
        try:
            return config.use_elliptic_key_signer(private_key=private_key, password=password)
        except ValueError as error:
            raise _unusable(private_key, error) from error
    except ValueError as error:
        raise _unusable(private_key, error) from error


def _unusable(private_key: Path, error: Exception) -> SpeciateError:
    return SpeciateError(
        Code.INVALID,
        f"{private_key} cannot sign: {error}",
        "Make a key: openssl ecparam -name prime256v1 -genkey -noout -out private.pem",
    )


def _library() -> tuple[Any, Any, Any]:
    try:
        from model_signing import hashing, signing, verifying
    except ImportError as error:
        raise SpeciateError(
            Code.MISSING_EXTRA, f"Signing needs the package 'model-signing': {error}.",
            "Run: pip install 'speciate[signing]'",
        ) from None  # fmt: skip
    return signing, hashing, verifying
