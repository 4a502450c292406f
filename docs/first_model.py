"""A notebook as text: `python docs/cells.py docs/first_model.py` runs it and writes `docs/first-model.md` with what
each cell printed. It needs `pip install 'speciate[classical]' pandas` and a minute; `tests/test_first_model.py` runs
it.
"""

# ruff: noqa: B018, E402, T201 - cells of a notebook import where they use, and show their last value
# %% [markdown]
# # A first model from Python
#
# From a table to a model in production, and its answers as a function. Each cell runs as it stands.

# %%
import subprocess
import sys
import tempfile

import speciate

folder = tempfile.mkdtemp()
subprocess.run([sys.executable, "-m", "speciate", "init", "--workspace", folder, "--policy", "auto"], check=True)
client = speciate.connect(folder)

# %% [markdown]
# `--policy auto` lets the gates alone decide what serves. Without it a person approves each promotion on a terminal.
#
# ## Data
#
# Thirty measurements of cells of each of 569 tumours, as rows. A folder or a Parquet file would do as well.

# %%
from sklearn.datasets import load_breast_cancer

frame = load_breast_cancer(as_frame=True).frame
rows = [row | {"kind": ["malignant", "benign"][int(row.pop("target"))]} for row in frame.to_dict("records")]
client.wait(client.create_dataset(name="cells", rows=rows, label="kind"))
data = client.describe_dataset(dataset="cells").result
data.splits, data.labels

# %% [markdown]
# In a notebook `client.describe_dataset(dataset="cells")` shows its chart, too.
#
# ## What the model must do
#
# Nothing is in use yet, so a candidate is compared with the answer that is most frequent.

# %%
use_case = client.define_use_case(
    name="tumour", task="tabular-classification", objective={"metric": "accuracy", "target": 0.85}
)
[gate.rule for gate in use_case.gates]

# %% [markdown]
# ## A model
#
# `specialize` trains cheap methods first, compares the best with what is used, and promotes it if it passes each gate.

# %%
job = client.wait(client.specialize(use_case="tumour", dataset="cells", budget_minutes=3))
for reason in job.result["decision"]["reasons"]:
    print("-", reason)
job.result["decision"]["verdict"], job.result["model"]

# %%
seen = client.describe_evaluation(evaluation=job.result["evaluation"]).result
for row in seen.leaderboard:
    print(f"{row.model:24} {row.value:.3f}  [{row.interval[0]:.3f}, {row.interval[1]:.3f}]")

# %% [markdown]
# ## Answers
#
# `predict` asks the model in a process of its own and logs the answer. `load` brings a version into this process.

# %%
answer = client.predict(use_case="tumour", inputs=[{"row": rows[0]}])
answer.predictions[0].untrusted.output, answer.model

# %%
client.predict(use_case="tumour", inputs=[{"row": row} for row in rows[:3]]).df()[["output", "confidence"]]

# %%
model = speciate.load("tumour@production", folder)
outputs = [each.output for each in model.predict(rows)]
model(rows[0]), sum(output == row["kind"] for output, row in zip(outputs, rows, strict=True)) / len(rows)

# %% [markdown]
# The last share is over rows that the model learned from, too. What it is worth is in the evaluation above.
#
# ## Without a workspace
#
# An exported folder answers on its own: here the files as they were sealed.

# %%
client.wait(client.export_model(model="tumour@production", path=f"{folder}/exports/tumour"))
speciate.load(f"{folder}/exports/tumour")(rows[0])

# %% [markdown]
# ## The same, asynchronously

# %%
import asyncio


async def both() -> list[str]:
    client = speciate.connect_async(folder)
    status, jobs = await asyncio.gather(client.get_status(), client.list_jobs())
    return [status.use_cases[0].production or "", *sorted({job.kind for job in jobs.jobs})]


asyncio.run(both())

# %%
subprocess.run([sys.executable, "-m", "speciate", "stop", "--workspace", folder], check=True, capture_output=True)
