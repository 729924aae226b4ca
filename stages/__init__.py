"""The stages of the pipeline, one standalone script each: `python -m stages.describe --help`."""
