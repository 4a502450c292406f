"""Answers: `predict`, batches, deployments with their processes, routing, the HTTP API."""
