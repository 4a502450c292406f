"""`speciate.load("reviews@production")`: a model version as a function of this process."""

from __future__ import annotations

from pathlib import Path

from speciate.errors import Code, SpeciateError
from speciate.models import registry
from speciate.refs import model_ref
from speciate.server.client import connect
from speciate.serving.local_model import LocalModel, open_model
from speciate.workspace.workspace import Folders


def load(model: str, workspace: str | Path | None = None) -> LocalModel:
    """The version that `model` names now: `name`, `name@v3` or `USE_CASE@production`. `workspace` as of `connect`.

    Its files are checked. Raises ToolError NOT_FOUND for an unknown name, REFUSED for files that changed since they
    were sealed or whose signature is broken, and INVALID for a model that others serve.
    """
    client = connect(workspace)
    found = client.describe_model(model=model)
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
