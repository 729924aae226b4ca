"""The trainer, its data and its checkpoints."""
