"""Earshot learns to see from what can be heard."""
