"""LitServe as its documentation has it: dynamic batching, the same version of a model by the same library.

    LS/bin/python evals/bench/arms/litserve_serves.py VERSION_FOLDER PORT MAX_BATCH MAX_WAIT_MS WORKERS quick|plain

`quick`: with LitServe's queue over ZeroMQ.

The environment has LitServe and a .pth file that leads to an installation of speciate.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import litserve
import litserve.server

from speciate.datasets.loading.loader import Example
from speciate.tasks import predictor
from speciate.tasks.task import Prediction

litserve.server._MCP_AVAILABLE = False
"""0.2.19 takes any installed `mcp` for one that it can use, and does not start beside 2.x, which speciate brings."""


class Served(litserve.LitAPI):  # type: ignore[misc]  # not installed here
    def __init__(self, folder: str, max_batch: int, max_wait_ms: float) -> None:
        super().__init__(max_batch_size=max_batch, batch_timeout=max_wait_ms / 1000)
        self._folder = folder

    def setup(self, device: str) -> None:
        self._model = predictor.load(Path(self._folder))

    def decode_request(self, request):  # type: ignore[no-untyped-def]  # LitServe would take a type for a schema
        text: str = request["inputs"][0]["text"]
        return text

    def batch(self, inputs: list[str]) -> list[Example]:
        return [Example(str(place), text, None, str(place), "", {}) for place, text in enumerate(inputs)]

    def predict(self, examples: list[Example]) -> list[Prediction]:
        return self._model.predict(examples)

    def unbatch(self, output: list[Prediction]) -> list[Prediction]:
        return output

    def encode_response(self, output: Prediction) -> dict[str, Any]:
        return {"predictions": [{"id": "0", "output": output.output, "confidence": output.confidence, "error": None}]}


if __name__ == "__main__":
    folder, port, most, wait, workers, quick = sys.argv[1:]
    api = Served(folder, int(most), float(wait))
    queue = {"fast_queue": True} if quick == "quick" else {}
    server = litserve.LitServer(api, accelerator="cpu", workers_per_device=int(workers), **queue)
    server.run(host="127.0.0.1", port=int(port), generate_client_file=False, log_level="warning")
