"""The values of `evaluate.<benchmark>.probes`, one module each, which defines a PROBE (earshot/evaluation/probe.py)."""
