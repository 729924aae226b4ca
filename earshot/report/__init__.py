"""The report: one run, or several side by side, as a folder of pages that open from disk without a network."""
