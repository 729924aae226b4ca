"""From a manifest to shards of clips."""
