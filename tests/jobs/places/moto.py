"""A bucket on this machine: moto's server, which answers as S3 does, conditional puts included."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import urllib.request
from pathlib import Path

from tests.jobs.places.cluster import until
from tests.jobs.places.slurm_cluster import free_ports

_SERVER = """
import sys, threading
from moto.moto_server.werkzeug_app import DomainDispatcherApplication, MotoRequestHandler, create_backend_app
from werkzeug.serving import run_simple

moto, turn = DomainDispatcherApplication(create_backend_app), threading.Lock()

def serve(environ, start_response):
    if "HTTP_IF_NONE_MATCH" not in environ:
        return moto(environ, start_response)
    with turn:  # it looks whether there is such an object, and then puts it; S3 does both in one step
        return moto(environ, start_response)

run_simple("127.0.0.1", int(sys.argv[1]), serve, threaded=True, request_handler=MotoRequestHandler)
"""


class Moto:
    def __init__(self, folder: Path) -> None:
        """`folder`: becomes the home of whoever is to hold the keys."""
        (port,) = free_ports(1)
        self.endpoint = f"http://127.0.0.1:{port}"
        self.home = folder
        (folder / ".aws").mkdir(parents=True)
        (folder / ".aws" / "credentials").write_text(
            "[default]\naws_access_key_id = AKIAdefault\naws_secret_access_key = other\n"
            "[speciate]\naws_access_key_id = AKIAspeciate\naws_secret_access_key = sesame%1\n"
        )
        self._process = subprocess.Popen(
            [sys.executable, "-c", _SERVER, str(port)],
            env={**os.environ, "MOTO_PORT": str(port)}, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        until(self._answers, 60)
        self._made: set[str] = set()

    def bucket(self, name: str) -> str:
        """s3://NAME, which is empty."""
        if name not in self._made:
            request = urllib.request.Request(f"{self.endpoint}/{name}", method="PUT")
            urllib.request.urlopen(request, timeout=10).close()
            self._made.add(name)
        return f"s3://{name}"

    def put(self, bucket: str, key: str) -> None:
        """An object of somebody who uses another library than ours."""
        import boto3  # type: ignore[import-untyped]

        keys = {"aws_access_key_id": "a", "aws_secret_access_key": "b", "region_name": "us-east-1"}
        client = boto3.client("s3", endpoint_url=self.endpoint, **keys)
        client.put_object(Bucket=bucket, Key=key, Body=b"h")
        client.close()

    def suspend(self) -> None:
        """It takes connections and answers nothing, as behind a network that went away."""
        self._process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        self._process.send_signal(signal.SIGCONT)

    def close(self) -> None:
        self._process.kill()
        self._process.wait()

    def _answers(self) -> bool:
        try:
            urllib.request.urlopen(self.endpoint, timeout=1).close()
        except OSError:
            return False
        return True
