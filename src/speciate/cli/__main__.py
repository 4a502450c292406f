"""`python -m speciate.cli`, as the configurations of clients and the units of the daemon have it."""

from __future__ import annotations

import sys

from speciate.cli import main

if __name__ == "__main__":
    sys.exit(main())
