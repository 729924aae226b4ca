"""Trained networks and descriptors outside the pipeline: load one, embed, search, publish, export."""
