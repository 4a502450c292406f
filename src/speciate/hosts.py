"""Hosts, as keys and consents name them: `api.openai.com`, or `127.0.0.1:8000` where a port is named."""

from __future__ import annotations

import re

from speciate.errors import Code, SpeciateError

_HOST = re.compile(r"[a-z0-9_]([a-z0-9_.\-]{0,251}[a-z0-9_])?(:[0-9]{1,5})?|[0-9a-f]{0,4}(:[0-9a-f.]{0,15}){2,8}")
"""A name or an address, with a port or without; the second half is IPv6."""


def check_host(host: str) -> str:
    """The host in lower case, as `Endpoint.host` has it. Raises INVALID for what is none, such as a whole address."""
    if not _HOST.fullmatch(host.lower()):
        raise SpeciateError(
            Code.INVALID,
            f"{host!r} is no host: write a name, and a port where the address has one.",
            "For https://api.openai.com/v1 that is api.openai.com, for http://127.0.0.1:8000/v1 it is 127.0.0.1:8000.",
        )
    return host.lower()
