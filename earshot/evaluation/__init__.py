"""One module a benchmark, the linear probe and the metrics."""
