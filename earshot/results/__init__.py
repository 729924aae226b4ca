"""Finished runs: their parameters and scores, and the published tables to compare them with."""
