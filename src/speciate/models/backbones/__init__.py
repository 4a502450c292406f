"""Backbones, one file per modality: media in, states out. architectures.py lists them, contract.py states the contract.

May use: modalities and model_folder.py. Heads live in tasks/.
"""
