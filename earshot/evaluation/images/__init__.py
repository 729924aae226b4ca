"""Benchmarks of annotated images."""
