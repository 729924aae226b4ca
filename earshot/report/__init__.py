"""The report: a run, or several side by side, as one folder of pages to be opened from disk with no network."""
