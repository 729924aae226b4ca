"""Benchmarks of annotated recordings."""
