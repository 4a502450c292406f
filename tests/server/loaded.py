"""A program that tells what is loaded of the pages where a daemon, the tools and the command line are."""

from __future__ import annotations

import sys

import speciate.server.service
import speciate.tools  # noqa: F401 - loaded, too

if __name__ == "__main__":
    print([name for name in sys.modules if name.startswith(("speciate.server.web", "jinja2", "markupsafe"))])
