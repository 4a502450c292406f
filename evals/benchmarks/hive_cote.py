"""HIVE-COTE 2 of aeon, the best known for series whatever the time, with the budget as its limit.

    PYTHON evals/benchmarks/hive_cote.py CELL.json    (run.py writes it; answers go to CELL.answers.json)

Its limit holds for its parts' building, so that a run takes longer than its budget. Classification alone.
"""

from __future__ import annotations

import json
import sys
import time
import warnings
from pathlib import Path

import numpy as np
from aeon.classification.hybrid import HIVECOTEV2
from experts import CORES, stretched_blocks


def main(path: Path) -> None:
    warnings.simplefilter("ignore")
    cell = json.loads(path.read_text())
    began = time.perf_counter()
    learn, test = ([r for r in cell["rows"] if (r["split"] == "test") is tested] for tested in (False, True))
    blocks = stretched_blocks(cell, learn, test)
    model = HIVECOTEV2(time_limit_in_minutes=cell["budget_minutes"], random_state=0, n_jobs=CORES)
    model.fit(blocks[0], np.array([row["label"] for row in learn]))
    answers = model.predict(blocks[1]).tolist()
    told = {"answers": answers, "seconds": time.perf_counter() - began, "how": "HIVE-COTE 2 of aeon"}
    path.with_suffix(".answers.json").write_text(json.dumps(told))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
