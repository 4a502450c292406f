"""Models: the registry and its cards, search over published ones, fetching, trust, backbones, encoders, estimators.

May use: modalities and below. torch and transformers are imported in functions only.
"""
