"""Benchmarks of annotated clips of the corpus."""
