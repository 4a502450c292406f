"""Rewards that can be verified: what an answer of a language model is worth, told by a rule, a program or a model."""
