"""An operation of a third party: keeps texts of at most so many characters, and says in a column how long each is."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.compute as pc
from pydantic import BaseModel, ConfigDict

from speciate.datasets.operations.context import Context
from speciate.datasets.operations.operation import Operation, Outcome


class Parameters(BaseModel):
    model_config = ConfigDict(extra="forbid")
    characters: int = 40


def apply(rows: pa.Table, parameters: Parameters, context: Context) -> Outcome:
    lengths = pc.utf8_length(rows[context.manifest.inputs[0]])
    rows = rows.append_column("characters", lengths.cast(pa.int64()))
    kept = pc.fill_null(pc.less_equal(lengths, parameters.characters), True)
    return Outcome(rows.filter(kept), {"longest": pc.max(lengths).as_py()})


SHORTEN = Operation(name="shorten", what="keep short texts", parameters=Parameters, apply=apply)
