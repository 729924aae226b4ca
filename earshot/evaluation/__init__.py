"""What benchmarks share: probes, metrics, and the features of images, recordings and clips."""
