"""What benchmarks share: linear probes, metrics, and the features of images, recordings and clips."""
