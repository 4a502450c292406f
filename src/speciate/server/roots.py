"""Where tools may read and write: below the roots in settings, by default the caller's folder and the exports.

Links are followed before the check, so that a link inside a root cannot lead out of it. What happens to a path after
the check (somebody swaps in a link) is not stopped here: `production/caller_file.py` reads without following any more.
Whatever the roots are, the folder with a person's keys is not below them.
"""

from __future__ import annotations

import os
from pathlib import Path

from speciate.errors import Code, SpeciateError
from speciate.server.surface import App
from speciate.settings import config_folder

_LONGEST_SHOWN = 200


def roots(app: App) -> list[Path]:
    """Resolved, in the order in which error messages show them."""
    workspace, folder = app.workspace, app.caller.folder
    allowed = [root.expanduser() for root in workspace.settings.roots] or ([folder] if folder else [])
    return [path.resolve() for path in (*allowed, workspace.folders.exports)]


def check_readable(app: App, path: str | Path) -> Path:
    """The absolute path of something that exists, below a root.

    Raises SpeciateError REFUSED outside the roots, NOT_FOUND, or INVALID where it is no path at all.
    """
    resolved = _below_a_root(app, path)
    if not _exists(resolved):
        raise SpeciateError(
            Code.NOT_FOUND,
            f"There is no file or folder {str(path)!r} (looked at {resolved}).",
            "Call again with a path that exists, absolute or relative to your folder.",
        )
    return resolved


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
        raise SpeciateError(
            Code.REFUSED,
            f"{str(path)!r} leads to {resolved}, outside the folders that tools may use: "
            f"{', '.join(map(str, allowed))}.",
            "Use a path below one of these, or ask a person to add the folder to `roots` in the workspace's "
            "settings.toml.",
        )
    return resolved


def _leads_to_keys(resolved: Path) -> bool:
    """Also where a walk from there would come to them: walks pass hidden folders over."""
    keys = config_folder().resolve()
    if resolved.is_relative_to(keys):
        return True
    return keys.is_relative_to(resolved) and not any(part.startswith(".") for part in keys.relative_to(resolved).parts)


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
