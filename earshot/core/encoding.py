"""How H.264 is written: with the same bytes on every run."""

# Without the last option, on a processor with AVX-512, PyAV 18.1 wrote other bytes in one of eight runs, for images
# whose width is no multiple of 32.
X264 = {"preset": "veryfast", "x264-params": "cpu-independent=1"}
