"""Models that others serve: where an OpenAI-compatible chat endpoint is, what it is called there, and what it costs."""

from __future__ import annotations

import hashlib
import ipaddress
import json
import re
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, field_validator

LONGEST_MODEL = 200
"""Characters of a model's name at an endpoint."""

_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.\-]{0,63}")
_NUMBER = re.compile(r"(?i)\d+|0x[0-9a-f]*")
_KEYS_BEGIN = ("sk-", "sk_", "gsk_", "hf_", "xai-", "fw_", "AIza")
"""How keys of the providers that we know begin."""


class Endpoint(BaseModel):
    """`base_url` ends before `/chat/completions`. `secret` names a stored key, never is one."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    base_url: str = Field(description="As in 'https://api.openai.com/v1'; http only on this machine.")
    model: str = Field(min_length=1, max_length=LONGEST_MODEL, description="Its name at the endpoint.")
    secret: str | None = Field(None, description="Name of a stored key; a person runs `speciate secret set NAME`.")
    usd_per_1m_input: float | None = Field(None, ge=0, description="Overrides the published price.")
    usd_per_1m_output: float | None = Field(None, ge=0)

    @field_validator("base_url")
    @classmethod
    def _is_http(cls, value: str) -> str:
        parts = urlsplit(value)
        odd = "@" in parts.netloc or parts.query or parts.fragment or not value.isascii() or not value.isprintable()
        if parts.scheme not in ("http", "https") or not parts.hostname or odd or set(value) & set(" \\?#"):
            raise ValueError("base_url must be like https://HOST/v1: ASCII, without user, password, query or fragment")
        _ = parts.port  # raises where it is none
        if _NUMBER.fullmatch(parts.hostname.rstrip(".").rpartition(".")[2]):  # else it is read in several ways
            ipaddress.IPv4Address(parts.hostname)
        if parts.scheme == "http" and not _is_loopback(parts.hostname):
            raise ValueError("base_url must begin with https:// unless the host is this machine")
        return value.rstrip("/")

    @field_validator("secret")
    @classmethod
    def _is_a_name(cls, value: str | None) -> str | None:
        """A value that looks like a key is refused before anything stores it."""
        if value is not None and (not _NAME.fullmatch(value) or value.startswith(_KEYS_BEGIN)):
            raise ValueError(
                "secret is the name of a stored key, not the key: a person runs `speciate secret set NAME`"
            )
        return value

    @property
    def host(self) -> str:
        """The host that keys and consents are bound to: `api.openai.com`, or `127.0.0.1:8000` with a port."""
        parts = urlsplit(self.base_url)
        return f"{parts.hostname}:{parts.port}" if parts.port else str(parts.hostname)

    @property
    def is_local(self) -> bool:
        """Whether it is on this machine: nothing that is sent there leaves it."""
        return _is_loopback(str(urlsplit(self.base_url).hostname))

    @property
    def identity(self) -> str:
        """The id of the model behind its answers: address and model name, neither key nor price."""
        text = json.dumps({"base_url": self.base_url, "model": self.model}, sort_keys=True)
        return "endpoint-" + hashlib.sha256(text.encode()).hexdigest()


def is_this_machine(host: str) -> bool:
    """Whether it is on the loopback, with a port or without: what is sent there does not leave this machine."""
    name, colon, port = host.rpartition(":")
    return any(_is_loopback(each) for each in ({host, name} if colon and port.isdigit() else {host}))


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
