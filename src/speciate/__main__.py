"""`python -m speciate`: the same as the command `speciate`, for where no such command is on the path."""

from __future__ import annotations

import sys

from speciate.cli import main

if __name__ == "__main__":
    sys.exit(main())
