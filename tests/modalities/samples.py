"""One small real file of each modality, as bytes."""

from __future__ import annotations

import io
import json

import numpy as np
from PIL import Image
from sklearn.datasets import load_digits, load_sample_image


def photo(format: str = "PNG") -> bytes:  # noqa: A002 - Pillow's word
    """A photograph that comes with scikit-learn, made small."""
    buffer = io.BytesIO()
    Image.fromarray(load_sample_image("flower.jpg")).resize((96, 64)).save(buffer, format)
    return buffer.getvalue()


def digit() -> bytes:
    buffer = io.BytesIO()
    Image.fromarray((load_digits().images[0] * 15).astype(np.uint8)).save(buffer, "PNG")
    return buffer.getvalue()


SAMPLES: dict[str, bytes] = {
    "text": "Grüße aus Zürich: the film was a joy, from start to end. ☃\n".encode(),
    "image": photo(),
    "protein": b">sp|P01308|INS_HUMAN Insulin\n"
    b"MALWMRLLPLLALLALWGPDPAAAFVNQHLCGSHLVEALYLVCGERGFFYTPKTRREAEDLQ\nVGQVELGGGPGAG\n",
    "tabular": json.dumps({"age": 61, "sex": "f", "pressure": 128.5, "smoker": False, "note": None}).encode(),
    "time-series": b"x,y\n" + b"\n".join(b"%.3f,%.3f" % (np.sin(i / 3), np.cos(i / 3)) for i in range(40)) + b"\n",
}
FILE_NAMES = {
    "text": "text.txt", "image": "picture.png", "protein": "insulin.fasta", "tabular": "row.json",
    "time-series": "recording.csv",
}  # fmt: skip
