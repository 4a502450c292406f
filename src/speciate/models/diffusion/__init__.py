"""Text-to-image pipelines of latent diffusion: their folders, loaded with the library diffusers, and images drawn.

A model version holds all files of a pipeline at the top of its folder; nothing here knows of datasets or tasks."""
