"""What a worker of job_start.py runs: imports, a small BERT, one step."""

from __future__ import annotations

import time

from speciate.jobs.run import Run


def run(run: Run) -> dict[str, float]:
    import torch
    from transformers import BertConfig, BertForSequenceClassification

    torch.set_num_threads(2)
    config = BertConfig(
        hidden_size=128, num_hidden_layers=2, num_attention_heads=2, intermediate_size=256, vocab_size=1000
    )
    model = BertForSequenceClassification(config)
    optimizer = torch.optim.AdamW(model.parameters())
    tokens = torch.randint(0, 1000, (8, 32))  # (B, T)
    model(input_ids=tokens, labels=torch.zeros(8, dtype=torch.long)).loss.backward()
    optimizer.step()
    return {"stepped": time.time()}
