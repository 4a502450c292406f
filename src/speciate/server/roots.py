"""Where tools may read and write: below the roots in settings, by default the caller's folder and the exports.

A client that was started in `/`, in a home folder or in the workspace has no folder of its own: then the exports are
the only root, and errors say so. The workspace's own files are below no root, exports apart, and neither is the folder
with a person's keys, whatever the roots are and by whatever name a file is reached.

Links are followed before the check, so that a link inside a root cannot lead out of it. What happens to a path after
the check (somebody swaps in a link) is not stopped here: `serving/predict.py` reads without following any more.
"""

from __future__ import annotations

import contextlib
import os
import pwd
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

from speciate import secrets
from speciate.environment import config_folder
from speciate.errors import Code, SpeciateError
from speciate.governance import authorization
from speciate.server.tool_api import App
from speciate.settings import load

_LONGEST_SHOWN = 200
_HOMES = {Path("/home"), Path("/Users")}
"""Folders that hold the homes of other users."""


def roots(app: App) -> list[Path]:
    """Resolved, in the order in which error messages show them."""
    exports = app.workspace.folders.exports.resolve()
    return [*(path for path in _requested_roots(app) if _why_no_root(app, path) is None), exports]


def _requested_roots(app: App) -> list[Path]:
    workspace, folder = app.workspace, app.caller.folder
    allowed = [root.expanduser() for root in workspace.settings.roots] or ([folder] if folder else [])
    return [path.resolve() for path in allowed]


def _why_no_root(app: App, path: Path) -> str | None:
    """What a folder is that is never a root, though it is the caller's or in settings."""
    workspace = app.workspace.folders.root.resolve()
    if path == Path(path.anchor):
        return "the root of the file system"
    if path.parent in _HOMES or any(home.is_relative_to(path) for home in _homes()):
        return "a home folder, or above one"
    return "in the workspace" if path.is_relative_to(workspace) else None


def _homes() -> list[Path]:
    """Home folders of this user, by the environment and by the system."""
    found = []
    with contextlib.suppress(RuntimeError):
        found.append(Path.home().resolve())
    with contextlib.suppress(KeyError):
        found.append(Path(pwd.getpwuid(os.getuid()).pw_dir).resolve())
    return [home for home in found if home != Path(home.anchor)]  # some users of services have none


def check_readable(app: App, path: str | Path) -> Path:
    """The absolute path of something that exists, below a root.

    Raises SpeciateError REFUSED outside the roots, NOT_FOUND, or INVALID where it is no path at all, or leads to a
    pipe, a socket or a device.
    """
    resolved = _below_a_root(app, path)
    if not _exists(resolved):
        raise SpeciateError(
            Code.NOT_FOUND,
            f"There is no file or folder {str(path)!r} (looked at {resolved}).",
            "Call again with a path that exists, absolute or relative to your folder.",
        )
    if not (resolved.is_file() or resolved.is_dir()):
        raise SpeciateError(
            Code.INVALID,
            f"{str(path)!r} is neither a file nor a folder, but a pipe, a socket or a device.",
            "Call again with a path of data.",
        )
    return resolved


def check_refs(app: App, value: Any) -> Any:
    """`value`, one or several model refs or JSON that holds such, with the absolute path of each file that a ref names:
    `code:FILE:FUNCTION`, `inspect:FILE`, `path:FOLDER`, also in an ensemble. Raises as `check_readable` does."""
    if isinstance(value, str):
        return _check_ref(app, value)
    if isinstance(value, list):
        return [check_refs(app, each) for each in value]
    if isinstance(value, dict):
        return {name: check_refs(app, each) for name, each in value.items()}
    return value


def _check_ref(app: App, ref: str) -> str:
    kind, colon, named = ref.partition(":")
    if kind == "ensemble":
        return kind + colon + "+".join(_check_ref(app, member) for member in named.split("+"))
    if kind in {"inspect", "path"}:
        return f"{kind}:{check_readable(app, named)}"
    if kind == "code":
        return f"{kind}:{check_function(app, named)}"
    return ref


def check_function(app: App, named: str) -> str:
    """`FILE:FUNCTION` with the file's absolute path. A name of another form is left for the engine to refuse."""
    file, colon, function = named.rpartition(":")
    return f"{check_readable(app, file)}{colon}{function}" if file else named


def check_writable(app: App, path: str | Path) -> Path:
    """The absolute path of something that does not exist yet, below a root: nothing is ever overwritten."""
    resolved = _below_a_root(app, path)
    if _exists(resolved):
        raise SpeciateError(
            Code.CONFLICT, f"{str(path)!r} exists already, and exports never overwrite.", "Call again with a new path."
        )
    return resolved


def _below_a_root(app: App, path: str | Path) -> Path:
    given = Path(os.path.expanduser(path))  # unlike Path's, it leaves a home that does not exist as it is
    if not given.is_absolute():
        if app.caller.folder is None:
            raise SpeciateError(
                Code.INVALID,
                f"{str(path)!r} is relative, and over {app.caller.transport} there is no folder to start from.",
                "Call again with an absolute path.",
            )
        given = app.caller.folder / given
    try:
        resolved = given.resolve()
    except (OSError, RuntimeError, ValueError) as error:  # too long, links in a circle, a zero byte
        raise _unusable(given, error) from error
    if _leads_to_keys(resolved):
        raise SpeciateError(
            Code.REFUSED, f"{str(path)!r} leads to the folder with a person's keys.", "Use another path."
        )
    allowed = roots(app)
    if not any(resolved.is_relative_to(root) for root in allowed):
        raise _outside(app, path, resolved, allowed)
    if _leads_into_workspace(app, resolved):
        raise SpeciateError(
            Code.REFUSED,
            f"{str(path)!r} leads to the workspace's own files in {app.workspace.folders.root}.",
            f"Use another path; of the workspace, tools may use {app.workspace.folders.exports}.",
        )
    return resolved


def _outside(app: App, path: str | Path, resolved: Path, allowed: Sequence[Path]) -> SpeciateError:
    refused = [f"{each} is {why}" for each in _requested_roots(app) if (why := _why_no_root(app, each))]
    if (unread := _in_the_file_alone(app, resolved)) is not None:
        return unread
    # `roots` replace the client's folder, and a client over HTTP has none
    start = (
        ""
        if app.workspace.settings.roots or app.caller.folder is None
        else "start the client in the folder of your project, "
    )
    never = f" ({'; '.join(refused)}, which is never one of them)" if refused else ""
    return SpeciateError(
        Code.REFUSED,
        f"{str(path)!r} leads to {resolved}, outside the folders that tools may use: "
        f"{', '.join(map(str, allowed))}{never}.",
        f"Use a path below one of these, {start}or ask a person to add the "
        f'folder to `roots` in {app.workspace.folders.root / "settings.toml"}: roots = ["/path/to/data"]',
    )


def _in_the_file_alone(app: App, resolved: Path) -> SpeciateError | None:
    """For a path below a root that is in settings.toml and not in force: it was written there by hand."""
    workspace = app.workspace
    try:
        written = [root.expanduser().resolve() for root in load(workspace.folders.root).roots]
    except (SpeciateError, OSError, RuntimeError, ValueError):  # no settings: nothing is known of what is wanted
        return None
    found = [root for root in written if resolved.is_relative_to(root) and _why_no_root(app, root) is None]
    if not found:
        return None
    file, what = workspace.folders.root / "settings.toml", f"{str(resolved)!r} is below {found[0]}, which is in `roots`"
    if authorization.authority_of(workspace).required:
        return SpeciateError(
            Code.REFUSED,
            f"{what} in {file} and was not confirmed with a signature, as settings must be where a key is enrolled.",
            "Ask a person to confirm it in a terminal: speciate policy --confirm. The daemon then restarts with it.",
        )
    return SpeciateError(
        Code.REFUSED,
        f"{what} in {file} and not in force yet: the daemon read that file when it started.",
        "Ask a person to restart the daemon: speciate stop. The next call starts one that reads it.",
    )


def _leads_to_keys(resolved: Path) -> bool:
    """Also where a walk from there would come to them: walks pass hidden folders over."""
    keys = config_folder().resolve()
    return _leads_into(resolved, keys) or _is_one_of(resolved, secrets.inodes())


def _leads_into_workspace(app: App, resolved: Path) -> bool:
    """The exports apart."""
    workspace, exports = app.workspace.folders.root.resolve(), app.workspace.folders.exports.resolve()
    if resolved.is_relative_to(exports):
        return False
    return _leads_into(resolved, workspace) or _is_one_of(resolved, secrets.inodes(workspace))


def _leads_into(resolved: Path, folder: Path) -> bool:
    if resolved.is_relative_to(folder):
        return True
    return folder.is_relative_to(resolved) and not any(
        part.startswith(".") for part in folder.relative_to(resolved).parts
    )


def _is_one_of(path: Path, inodes: Collection[tuple[int, int]]) -> bool:
    """Whether it is one of these files, by device and inode: a hard link has another path."""
    try:
        info = path.stat()
    except (OSError, ValueError):
        return False
    return (info.st_dev, info.st_ino) in inodes


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except OSError as error:
        raise _unusable(path, error) from error


def _unusable(path: Path, error: Exception) -> SpeciateError:
    shown = str(path) if len(str(path)) <= _LONGEST_SHOWN else f"{str(path)[:_LONGEST_SHOWN]}..."
    return SpeciateError(
        Code.INVALID, f"{shown!r} is no usable path: {error.__class__.__name__}.", "Call again with another path."
    )
