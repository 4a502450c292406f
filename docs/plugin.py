"""The files of `prompts/plugin/` that follow from the playbooks in `prompts/`: the skill's references, and commands.

`make docs` writes them; with `--check` it says which are stale.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from speciate.server.mcp.prompts import Playbook, fill, playbooks

PLUGIN = Path(__file__).parent.parent / "prompts" / "plugin"


def plugin_files() -> dict[Path, str]:
    """Path -> text."""
    files = {}
    for playbook in playbooks():
        files[PLUGIN / "skills" / "speciate" / "references" / f"{playbook.name}.md"] = _reference(playbook)
        files[PLUGIN / "commands" / f"{playbook.name}.md"] = _command(playbook)
    return files


def _reference(playbook: Playbook) -> str:
    """The text with words in capitals where an argument stands; what it is about is to be read first."""
    given = {each.name: each.name.upper() for each in playbook.arguments}
    about = [uri.replace("{", "").replace("}", "").replace("use_case", "USE_CASE") for uri in playbook.about]
    first = f"Read first: {', '.join(f'`{uri}`' for uri in about)} (resources of the server).\n\n" if about else ""
    words = "\n".join(f"- `{each.name.upper()}`: {each.description}" for each in playbook.arguments)
    return f"# {playbook.title}\n\n{words}\n\n{first}{fill(playbook, given, known=False)}\n"


def _command(playbook: Playbook) -> str:
    hint = " ".join(each.name.upper() if each.required else f"[{each.name.upper()}]" for each in playbook.arguments)
    reference = f"${{CLAUDE_PLUGIN_ROOT}}/skills/speciate/references/{playbook.name}.md"
    return (
        f"---\ndescription: {json.dumps(playbook.description)}\nargument-hint: {hint}\n---\n"
        f"Follow `{reference}`. What the user gave ({hint}): $ARGUMENTS\n"
    )


def main() -> int:
    files = plugin_files()
    stale = [path for path, text in files.items() if not path.exists() or path.read_text() != text]
    if "--check" in sys.argv:
        sys.stdout.writelines(f"{path} is stale: make docs\n" for path in stale)
        return 1 if stale else 0
    for path in stale:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(files[path])
    return 0


if __name__ == "__main__":
    sys.exit(main())
