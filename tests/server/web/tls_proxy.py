"""A proxy that ends TLS, as a team has one before its pages: certificate, and a thread for each connection."""

from __future__ import annotations

import contextlib
import datetime
import socket
import ssl
import threading
from collections.abc import Iterator
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID


def certificate(folder: Path, host: str) -> tuple[Path, Path]:
    """Files with a certificate for that host, signed by itself, and with its key."""
    key, now = ec.generate_private_key(ec.SECP256R1()), datetime.datetime.now(datetime.UTC)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, host)])
    made = (
        x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
        .serial_number(x509.random_serial_number()).not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=2))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(host)]), critical=False)
        .sign(key, hashes.SHA256())
    )  # fmt: skip
    chain, private = folder / "fullchain.pem", folder / "privkey.pem"
    chain.write_bytes(made.public_bytes(serialization.Encoding.PEM))
    private.write_bytes(key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    ))  # fmt: skip
    return chain, private


class TlsProxy:
    """Serves `https://127.0.0.1:port` from a port of loopback, until it is closed."""

    def __init__(self, folder: Path, host: str, upstream: int) -> None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(*certificate(folder, host))
        self._upstream, self._listener = upstream, socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._context = context
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _accept(self) -> None:
        while True:
            try:
                plain, (peer, _) = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(plain, peer), daemon=True).start()

    def _serve(self, plain: socket.socket, peer: str) -> None:
        """One request: the head with what a proxy adds and without what the client claims, the body, then the answer.

        In one thread: two that read and write one TLS connection at once break it now and then.
        """
        with contextlib.suppress(OSError), self._context.wrap_socket(plain, server_side=True) as client:
            head, body = _head(client)
            kept = [line for line in head[1:] if not line.lower().startswith((b"x-forwarded-", b"connection:"))]
            added = [f"X-Forwarded-For: {peer}".encode(), b"X-Forwarded-Proto: https", b"Connection: close"]
            with socket.create_connection(("127.0.0.1", self._upstream)) as server:
                server.sendall(b"\r\n".join([head[0], *kept, *added, b"", b""]) + body)
                while piece := server.recv(65_536):
                    client.sendall(piece)


def _head(client: socket.socket) -> tuple[list[bytes], bytes]:
    data = b""
    while b"\r\n\r\n" not in data:
        piece = client.recv(65_536)
        if not piece:
            raise ConnectionError("no request")
        data += piece
    head, _, body = data.partition(b"\r\n\r\n")
    lines = head.split(b"\r\n")
    sizes = [int(line.partition(b":")[2]) for line in lines if line.lower().startswith(b"content-length:")]
    while len(body) < sum(sizes):
        piece = client.recv(65_536)
        if not piece:
            raise ConnectionError("half a request")
        body += piece
    return lines, body


@contextlib.contextmanager
def proxied(folder: Path, host: str, upstream: int) -> Iterator[TlsProxy]:
    proxy = TlsProxy(folder, host, upstream)
    try:
        yield proxy
    finally:
        proxy.close()
