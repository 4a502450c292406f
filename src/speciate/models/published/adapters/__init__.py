"""One file per medium: how media become a batch of a published model, and its outputs answers."""
