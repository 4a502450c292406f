"""One real file of every modality, each as a dataset of one example."""

from __future__ import annotations

from speciate.datasets.versions import Manifest
from speciate.workspace.workspace import Workspace
from tests.modalities import protein_samples
from tests.modalities.samples import SAMPLES, Sample
from tests.training.world import make_dataset

FILE_OF = {
    "image": ("image.png",), "sound": ("sound.wav", "spectrogram.png"), "video": ("video.mp4",), "mesh": ("mesh.bin",),
    "volume": ("volume.bin",), "structure": ("structure.bin",),
}  # fmt: skip
"""View -> the files that a page loads for it."""
_OF_A_PLUGIN = "outline"


def one_of_each() -> list[Sample]:
    """The first sample of each modality, and a protein with a structure."""
    found: dict[str, Sample] = {}
    for sample in SAMPLES:
        if sample.modality != _OF_A_PLUGIN:
            found.setdefault(sample.modality, sample)
    structure = Sample("protein", "structure", protein_samples.pdb(protein_samples.small("AB")))
    return [*found.values(), structure]


def seen(workspace: Workspace, sample: Sample) -> Manifest:
    name = f"see-{sample.modality}-{sample.file}".replace(".", "-").replace(" ", "-").lower()[:60]
    return make_dataset(workspace, name, sample.modality, {}, labels=["shown"], splits=["test"], media=[sample.data])
