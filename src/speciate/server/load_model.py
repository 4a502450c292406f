"""`speciate.load("reviews@production")`: a model version, or an exported folder, as a function of this process."""

from __future__ import annotations

from pathlib import Path

from speciate.errors import Code, SpeciateError
from speciate.models import registry
from speciate.refs import model_ref
from speciate.server.client import connect
from speciate.serving.exported_model import open_export
from speciate.serving.local_model import LocalModel, open_model
from speciate.workspace.workspace import Folders


def load(model: str | Path, workspace: str | Path | None = None) -> LocalModel:
    """The version that `model` names now: `name`, `name@v3` or `USE_CASE@production`; `workspace` as of `connect`. Or a
    folder that export_model wrote, as a Path or a text with a slash: it needs no workspace.

    Its files are checked. Raises ToolError NOT_FOUND for an unknown name, REFUSED for files that changed since they
    were sealed or whose signature is broken, and INVALID for a model that others serve. What a library said of a
    folder's files is part of the message: a person reads it, and no agent.
    """
    if isinstance(model, Path) or ("/" in model and ":" not in model):
        try:
            return open_export(Path(model).expanduser())
        except SpeciateError as error:
            raise SpeciateError(error.code, error.whole, error.advice, next=error.next) from error
    client = connect(workspace)
    try:
        found = client.describe_model(model=model)
    except SpeciateError as error:
        if error.code in (Code.NOT_FOUND, Code.INVALID) and Path(model).is_dir():
            folder = f"./{model}"
            raise SpeciateError(
                Code.NOT_FOUND, f"There is no model {model!r}, and there is a folder {folder}.",
                f"To load what lies in it, write {folder!r}.",
            ) from error  # fmt: skip
        raise
    if found.trust and (found.trust.intact is False or found.trust.signature == "broken"):
        raise SpeciateError(
            Code.REFUSED,
            f"The files of {found.model} are not as they were sealed: {found.trust.problem or 'its signature broke'}.",
            "Load another version; describe_model lists them.",
        )
    ref = model_ref(found.model)
    if ref.version is None or found.trust is None or found.provider is not None:
        raise SpeciateError(Code.INVALID, f"{found.model} has no files in this workspace.", "Call predict instead.")
    return open_model(registry.version_folder(Folders(client.workspace), ref.name, ref.version))
