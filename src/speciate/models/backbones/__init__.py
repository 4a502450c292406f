"""Backbones, one file per modality: media in, states out. architectures.py lists them, contract.py says what each must
do.

A head of tasks/ stands on any of them.
"""
