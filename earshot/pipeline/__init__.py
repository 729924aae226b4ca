"""What every stage stands on: parameters, settings, shards, and the frame of a stage script."""
