"""One Parquet file per split: media as bytes beside their file name, described so that `datasets` reads them."""

from __future__ import annotations

from pathlib import Path

import pyarrow.parquet as pq

from speciate.datasets.exports.columnar import batches, layout
from speciate.datasets.exports.contract import Tell, Written
from speciate.datasets.exports.shipment import Shipment
from speciate.datasets.versions import Manifest


class Parquet:
    name = "parquet"
    again = "data"
    files = False
    once = False

    def misfit(self, manifest: Manifest) -> str | None:
        return None

    def write(self, shipment: Shipment, folder: Path, tell: Tell) -> Written:
        (folder / "data").mkdir()
        wanted = layout(shipment)
        configs: dict[str, str] = {}
        for piece in shipment.pieces():
            file = f"data/{piece.name}.parquet"
            configs[piece.hub] = file
            with pq.ParquetWriter(folder / file, wanted.schema, compression="zstd") as writer:
                for batch in batches(shipment, piece, wanted):
                    writer.write_table(batch)
                    tell(batch.num_rows)
        return Written(configs)


PARQUET = Parquet()
